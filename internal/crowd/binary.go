package crowd

import (
	"encoding/binary"
	"fmt"
)

// evidenceVersion leads the binary form.
const evidenceVersion = 1

// The flags of evidence in its binary form.
const (
	flagCrowded = 1 << iota
	flagConfirmed
	flagFeedback
	flagTainted
	flagCanary
	flagsKnown = 1<<iota - 1
)

// AppendBinary appends ev's binary form: a version byte, then uvarints, times
// as distances from the first report. A source with two voices takes about 60
// bytes.
func (ev *Evidence) AppendBinary(b []byte) []byte {
	flags := byte(0)
	for i, set := range []bool{ev.crowded, ev.confirmed, ev.feedback, ev.tainted, ev.canary} {
		if set {
			flags |= 1 << i
		}
	}
	b = append(b, evidenceVersion, flags, ev.convictions)
	b = appendUints(b, uint64(ev.first), uint64(ev.last-ev.first))
	b = appendUints(b, ev.since(ev.unbanned), ev.since(ev.reached), ev.since(ev.confirmBy))
	b = appendUints(b, ev.machines, ev.networks)
	behaviours := ev.Behaviours()
	b = append(b, byte(len(behaviours)))
	for _, x := range behaviours {
		b = appendUints(b, uint64(x.Index), uint64(x.Reports))
	}
	b = append(b, byte(len(ev.standing)))
	for i := range ev.standing {
		st := &ev.standing[i]
		b = appendUints(b, uint64(st.audience), ev.since(st.since), ev.since(st.until), ev.since(st.told))
		b = append(b, byte(st.remedy))
	}
	b = appendUints(b, uint64(len(ev.voices)))
	for i := range ev.voices {
		v := &ev.voices[i]
		b = appendUints(b, uint64(v.machine), uint64(v.organisation), uint64(v.as), v.prefix)
		b = appendUints(b, ev.since(v.first), ev.since(v.counted), ev.since(v.fleet), uint64(v.behaviour))
		b = append(b, v.novelty, byte(v.flags))
	}
	return b
}

// since writes a time as a distance from the first report, plus one; 0 stays 0.
// Times before it wrap round, which since reads back.
func (ev *Evidence) since(at uint32) uint64 {
	if at == 0 {
		return 0
	}
	return uint64(at-ev.first) + 1
}

func appendUints(b []byte, ns ...uint64) []byte {
	for _, n := range ns {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// UnmarshalBinary reads what AppendBinary wrote, using ev's own memory where it
// is enough. After an error ev is as good as none.
func (ev *Evidence) UnmarshalBinary(data []byte) error {
	if len(data) == 0 || data[0] != evidenceVersion {
		return fmt.Errorf("evidence: expected version %d: written by a newer release?", evidenceVersion)
	}
	r := reader{data: data[1:]}
	*ev = Evidence{voices: ev.voices[:0], standing: ev.standing[:0]}
	flags := r.byte()
	ev.crowded, ev.confirmed = flags&flagCrowded != 0, flags&flagConfirmed != 0
	ev.feedback, ev.tainted, ev.canary = flags&flagFeedback != 0, flags&flagTainted != 0, flags&flagCanary != 0
	ev.convictions = r.byte()
	ev.first = r.uint32()
	ev.last = ev.first + r.uint32()
	r.first = ev.first
	ev.unbanned, ev.reached, ev.confirmBy = r.time(), r.time(), r.time()
	ev.machines, ev.networks = r.uint(), r.uint()
	for i := range r.count(maxNamed) {
		ev.behaviours[i] = Behaviour{Index: r.uint16(), Reports: r.uint16()}
	}
	before := int64(-1)
	for range r.count(MaxVoices + 1) {
		st := standing{audience: r.uint32(), since: r.time(), until: r.time(), told: r.time(), remedy: Remedy(r.byte())}
		r.bad = r.bad || int64(st.audience) <= before || st.remedy > Captcha
		before = int64(st.audience)
		ev.standing = append(ev.standing, st)
	}
	n := MaxVoices
	if ev.canary {
		n = maxShots
	}
	n = r.count(uint64(n))
	if n > cap(ev.voices) {
		ev.voices = make([]voice, 0, n)
	}
	for range n {
		ev.voices = append(ev.voices, voice{
			machine: r.uint32(), organisation: r.uint32(), as: r.uint32(), prefix: r.uint(),
			first: r.time(), counted: r.time(), fleet: r.time(), behaviour: r.uint16(),
			novelty: r.byte(), flags: voiceFlags(r.byte()),
		})
	}
	if r.bad || len(r.data) > 0 || flags&^flagsKnown != 0 {
		*ev = Evidence{voices: ev.voices[:0], standing: ev.standing[:0]}
		return fmt.Errorf("evidence: %d bytes are damaged", len(data))
	}
	return nil
}

// reader reads a binary form; after damage it returns zeros.
type reader struct {
	data  []byte
	first uint32
	bad   bool
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 {
		r.bad, r.data = true, nil
		return 0
	}
	r.data = r.data[n:]
	return v
}

func (r *reader) limited(limit uint64) uint64 {
	v := r.uint()
	if v > limit {
		r.bad, r.data = true, nil
		return 0
	}
	return v
}

func (r *reader) uint32() uint32         { return uint32(r.limited(1<<32 - 1)) }
func (r *reader) uint16() uint16         { return uint16(r.limited(1<<16 - 1)) }
func (r *reader) count(limit uint64) int { return int(r.limited(limit)) }

func (r *reader) byte() byte {
	if len(r.data) == 0 {
		r.bad = true
		return 0
	}
	b := r.data[0]
	r.data = r.data[1:]
	return b
}

func (r *reader) time() uint32 {
	v := r.limited(1 << 32)
	if v == 0 {
		return 0
	}
	return r.first + uint32(v-1)
}
