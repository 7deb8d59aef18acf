package cti

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"
)

// Bounds on what is kept of a day.
const (
	maxVoices    = 24
	maxScenarios = 12
	maxName      = 128 // bytes of a scenario's name; longer ones are cut
)

// Day is what was reported of one source on one day (UTC), in bounded memory.
// The zero Day is empty. Who reported is kept as hashes, which tell neither
// machine nor organisation.
type Day struct {
	Signals     uint32
	Hours       uint32 // a bit for each hour in which it was reported
	First, Last uint32 // seconds of the day

	voices        []voice // of the organisations that were believed most
	scenarios     []seen  // most of them
	machines      sketch
	organisations sketch
	systems       sketch // AS from which it was reported
}

// voice is what one organisation said on a day; several machines of one are no
// more than that.
type voice struct {
	organisation uint32 // hash
	asn          uint32 // of a machine of it, 0 = unknown
	country      [2]byte
	rank         uint8 // the highest of its machines
	honeypot     bool
	hours        uint32
}

// seen is a scenario that was reported on a day.
type seen struct {
	name    string
	signals uint32
	by      uint32 // a bit for each of voices; what was dropped from there is nobody's
}

// Sighting is one report.
type Sighting struct {
	At                    time.Time
	Machine, Organisation string
	Scenario              string
	ASN                   uint32 // from where it was reported, 0 = unknown
	Country               string // likewise, ISO 3166 alpha-2 or ""
	Rank                  uint8  // how far its machine is trusted, 0 to 5
	Honeypot              bool
}

// hashOf does not change from release to release: it is stored.
func hashOf(text string) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 1099511628211
	}
	return h
}

// DayOf returns the day of an instant, counted from 1970, UTC.
func DayOf(at time.Time) int64 {
	seconds := at.Unix()
	day := seconds / 86400
	if seconds%86400 < 0 {
		day--
	}
	return day
}

// Add counts a sighting, which must be of this day. Repeated within an hour by
// the same organisation it raises nothing but Signals.
func (d *Day) Add(s *Sighting) {
	second := uint32(s.At.Unix() - DayOf(s.At)*86400)
	if d.Signals == 0 || second < d.First {
		d.First = second
	}
	d.Last = max(d.Last, second)
	if d.Signals < 1<<32-1 {
		d.Signals++
	}
	hour := uint32(1) << (second / 3600)
	d.Hours |= hour

	organisation := hashOf(s.Organisation)
	d.machines.add(hashOf(s.Machine))
	d.organisations.add(organisation)
	if s.ASN != 0 {
		d.systems.add(uint64(s.ASN))
	}
	at := d.voiceOf(uint32(mix(organisation)), s.Rank)
	if at >= 0 {
		v := &d.voices[at]
		v.hours |= hour
		if s.Rank >= v.rank {
			v.rank = s.Rank
			if s.ASN != 0 {
				v.asn = s.ASN
			}
		}
		if len(s.Country) == 2 && v.country[0] == 0 {
			copy(v.country[:], s.Country)
		}
		v.honeypot = v.honeypot || s.Honeypot
	}
	d.addScenario(s.Scenario, at)
}

// voiceOf returns where the voice of an organisation is, -1 when there are too
// many whose word counts as much.
func (d *Day) voiceOf(organisation uint32, rank uint8) int {
	for i := range d.voices {
		if d.voices[i].organisation == organisation {
			return i
		}
	}
	if len(d.voices) < maxVoices {
		d.voices = append(d.voices, voice{organisation: organisation, rank: rank})
		return len(d.voices) - 1
	}
	least := 0
	for i := range d.voices {
		if v, l := &d.voices[i], &d.voices[least]; !v.honeypot && (l.honeypot || v.rank < l.rank) {
			least = i
		}
	}
	if d.voices[least].honeypot || d.voices[least].rank >= rank {
		return -1
	}
	d.voices[least] = voice{organisation: organisation, rank: rank}
	for i := range d.scenarios {
		d.scenarios[i].by &^= 1 << least
	}
	return least
}

func (d *Day) addScenario(name string, voice int) {
	if len(name) > maxName {
		name = name[:maxName]
	}
	by := uint32(0)
	if voice >= 0 {
		by = 1 << voice
	}
	for i := range d.scenarios {
		if s := &d.scenarios[i]; s.name == name {
			if s.signals < 1<<32-1 {
				s.signals++
			}
			s.by |= by
			return
		}
	}
	if len(d.scenarios) < maxScenarios {
		d.scenarios = append(d.scenarios, seen{intern([]byte(name)), 1, by}) // no part of the text that it stands in
	}
}

// Machines returns how many machines reported, about.
func (d *Day) Machines() int { return d.machines.count() }

// Organisations returns how many organisations reported, about.
func (d *Day) Organisations() int { return d.organisations.count() }

// hoursSince returns the hours of a day that began at or after a time, as bits,
// counting the hour that the time is in.
func hoursSince(day int64, since time.Time) uint32 {
	switch from := DayOf(since); {
	case day > from:
		return 1<<24 - 1
	case day < from:
		return 0
	}
	hour := (since.Unix() - DayOf(since)*86400) / 3600
	return 1<<24 - 1<<hour
}

func hours(set uint32) int { return bits.OnesCount32(set & (1<<24 - 1)) }

// dayVersion leads the binary form.
const dayVersion = 1

// AppendBinary appends the binary form.
func (d *Day) AppendBinary(b []byte) []byte {
	b = append(b, dayVersion)
	for _, n := range [...]uint32{d.Signals, d.Hours, d.First, d.Last} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = append(b, byte(len(d.voices)))
	for i := range d.voices {
		v := &d.voices[i]
		honeypot := byte(0)
		if v.honeypot {
			honeypot = 8
		}
		b = append(b, v.rank&7|honeypot, v.country[0], v.country[1])
		b = binary.LittleEndian.AppendUint32(b, v.organisation)
		b = binary.AppendUvarint(b, uint64(v.asn))
		b = binary.AppendUvarint(b, uint64(v.hours))
	}
	b = append(b, byte(len(d.scenarios)))
	for i := range d.scenarios {
		s := &d.scenarios[i]
		b = append(b, byte(len(s.name)))
		b = append(b, s.name...)
		b = binary.AppendUvarint(b, uint64(s.signals))
		b = binary.AppendUvarint(b, uint64(s.by))
	}
	b = d.machines.appendBinary(b)
	b = d.organisations.appendBinary(b)
	return d.systems.appendBinary(b)
}

// UnmarshalBinary reads what AppendBinary wrote, over all that was in d.
func (d *Day) UnmarshalBinary(data []byte) error {
	*d = Day{}
	r := decoder{data: data}
	if v := r.byte(); v != dayVersion {
		return fmt.Errorf("rollup: expected version %d, got %d: written by a newer release?", dayVersion, v)
	}
	for _, n := range [...]*uint32{&d.Signals, &d.Hours, &d.First, &d.Last} {
		*n = r.number()
	}
	n := int(r.byte())
	if n > maxVoices {
		r.fail("%d voices", n)
		n = 0
	}
	d.voices = make([]voice, n)
	for i := range d.voices {
		v, head := &d.voices[i], r.take(7)
		if len(head) < 7 {
			break
		}
		v.rank, v.honeypot = min(head[0]&7, 5), head[0]&8 != 0
		v.country = [2]byte(head[1:3])
		v.organisation = binary.LittleEndian.Uint32(head[3:])
		v.asn, v.hours = r.number(), r.number()
	}
	if n = int(r.byte()); n > maxScenarios {
		r.fail("%d scenarios", n)
		n = 0
	}
	d.scenarios = make([]seen, n)
	for i := range d.scenarios {
		name := r.take(int(r.byte()))
		d.scenarios[i] = seen{intern(name), r.number(), r.number()}
	}
	d.machines, d.organisations, d.systems = r.sketch(), r.sketch(), r.sketch()
	if r.err == nil && r.off != len(data) {
		r.fail("%d bytes more than expected", len(data)-r.off)
	}
	return r.err
}

// decoder reads a binary form; after the first error everything is zero.
type decoder struct {
	data []byte
	off  int
	err  error
}

func (r *decoder) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("rollup: damaged: "+format, args...)
	}
}

func (r *decoder) take(n int) []byte {
	if n > len(r.data)-r.off {
		r.fail("%d bytes wanted, %d left", n, len(r.data)-r.off)
	}
	if r.err != nil {
		return nil
	}
	b := r.data[r.off : r.off+n]
	r.off += n
	return b
}

func (r *decoder) byte() byte {
	if b := r.take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (r *decoder) number() uint32 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.data[r.off:])
	if n <= 0 || v >= 1<<32 {
		r.fail("bad number at offset %d", r.off)
		return 0
	}
	r.off += n
	return uint32(v)
}

// intern returns a name, sharing those of the hub's scenarios.
func intern(name []byte) string {
	if s, ok := BuiltIn().scenarios[string(name)]; ok {
		return s.Name
	}
	return string(name)
}
