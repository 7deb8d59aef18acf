package crowd

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"time"
)

// MaxVoices is how many machines' words are kept per source; beyond it the one
// that adds least makes room.
const MaxVoices = 24

// maxShots is how many machines' words are kept on a canary: all must wait there
// for the decision on them. There are few canaries.
const maxShots = 1024

// Evidence is what is remembered about one source. The zero Evidence is none.
type Evidence struct {
	voices     []voice
	standing   []standing // what the last judgement said, sorted by audience
	behaviours [maxNamed]Behaviour
	machines   uint64 // sketch of the machines of weight that reported it
	networks   uint64 // sketch of their AS

	first, last uint32 // of all reports that count or go to a fleet
	unbanned    uint32 // what was said before is muted
	reached     uint32 // since when there is support for a listing, while it waits
	confirmBy   uint32 // when to ask whether somebody new confirmed the listing

	convictions uint8
	crowded     bool // voices were dropped: the sketches know more
	confirmed   bool
	feedback    bool // an unban waits to be proved right
	canary      bool // as of the last judgement
	tainted     bool // a liar had a hand in the listing, and nobody else confirmed it
}

// voice is one machine's word about the source.
type voice struct {
	prefix       uint64
	machine      uint32
	organisation uint32
	as           uint32
	first        uint32 // first report that counts, of an episode without long silence
	counted      uint32 // last report that counts for the network, 0 = none
	fleet        uint32 // last report that goes to its organisation's fleet, 0 = none
	behaviour    uint16
	novelty      uint8 // how new it was to the network at first, 255 = nobody knew
	flags        voiceFlags
}

type voiceFlags uint8

const (
	honeypot voiceFlags = 1 << iota
	settled             // its first report was validated, or is not to be
	backed              // it supported the listing when it was made
	shot                // it was told of a canary or a ring
)

// standing is a listing in force for one audience.
type standing struct {
	audience     uint32
	since, until uint32
	told         uint32 // until when readers were told
	remedy       Remedy
}

// Fold adds one report. Reports that neither count nor go to a fleet change
// nothing.
func (t *TrustTable) Fold(ev *Evidence, r Report) {
	if !r.Counts && !r.Fleet {
		return
	}
	at := max(clock(r.At), 1)
	if ev.last > 0 && at > ev.last && at-ev.last > seconds(t.Parameters.Listing.Memory) {
		ev.machines, ev.networks, ev.crowded = 0, 0, false // another crowd, another time
	}
	if ev.first == 0 || at < ev.first {
		ev.first = at
	}
	ev.last = max(ev.last, at)
	ev.count(r.Behaviour)

	i := slices.IndexFunc(ev.voices, func(v voice) bool { return v.machine == r.Machine })
	if i < 0 && len(ev.voices) >= MaxVoices && !ev.canary && !r.Fleet && !r.Honeypot && t.rating(r.Machine).earned == 0 {
		return // a flood of those without weight costs little and changes nothing
	}
	if i < 0 {
		ev.room()
		ev.voices = append(ev.voices, voice{machine: r.Machine, flags: settled})
		i = len(ev.voices) - 1
	}
	v := &ev.voices[i]
	v.organisation, v.as, v.prefix = r.Organisation, r.AS, r.Prefix
	if r.Fleet {
		v.fleet = max(v.fleet, at)
	}
	if r.Counts {
		t.speak(ev, i, r, at)
	}
	switch {
	case ev.canary && len(ev.voices) > maxShots:
		ev.dropOldest()
	case !ev.canary && len(ev.voices) > MaxVoices:
		t.dropLeast(ev, at)
	}
}

// speak notes a report that counts.
func (t *TrustTable) speak(ev *Evidence, i int, r Report, at uint32) {
	v := &ev.voices[i]
	if r.Honeypot {
		v.flags |= honeypot
	}
	again := v.counted > ev.unbanned && at < v.counted+t.validateAfter
	is, was := t.static(r.Behaviour), t.static(v.behaviour)
	if v.flags&honeypot != 0 {
		is, was = t.prior(r.Behaviour).trap, t.prior(v.behaviour).trap
	}
	if !again || is > was || is == was && r.Behaviour < v.behaviour {
		v.behaviour = r.Behaviour // what it said with most certainty
	}
	switch {
	case !again: // the first, or the first after an unban or a long silence
		v.counted, v.first = 0, at // its own old word is nothing that others knew
		v.novelty = t.novelty(ev, i, at)
		v.flags &^= settled | shot
		if v.novelty == 0 {
			v.flags |= settled
		}
	case at < v.first && v.flags&settled == 0:
		v.first = at
	}
	v.counted = max(v.counted, at)
	if t.rating(v.machine).earned >= t.minVoice {
		ev.machines |= 1 << (mix(uint64(v.machine)) & 63)
		ev.networks |= 1 << (mix(uint64(t.group(v))) & 63)
	}
}

// novelty tells how new a report by voice i is at a time: nothing is new about
// a source that is listed, or well supported by others.
func (t *TrustTable) novelty(ev *Evidence, i int, at uint32) uint8 {
	if len(ev.standing) > 0 && ev.standing[0].audience == Network && at >= ev.standing[0].since {
		return 0
	}
	if len(ev.voices) == 1 || ev.canary {
		return 255
	}
	var c choir
	c.addAll(t, ev, i, at)
	return uint8(255 * max(0, t.threshold-c.support(t)) / t.threshold)
}

// count adds one report of a behaviour; when too many different ones are
// remembered, the rarest makes room. Most reported first, then by number.
func (ev *Evidence) count(behaviour uint16) {
	bs := &ev.behaviours
	i := 0
	for i < len(bs)-1 && bs[i].Reports > 0 && bs[i].Index != behaviour {
		i++
	}
	if bs[i].Index != behaviour || bs[i].Reports == 0 {
		bs[i] = Behaviour{Index: behaviour}
	}
	if bs[i].Reports < math.MaxUint16 {
		bs[i].Reports++
	}
	for ; i > 0 && (bs[i].Reports > bs[i-1].Reports || bs[i].Reports == bs[i-1].Reports && bs[i].Index < bs[i-1].Index); i-- {
		bs[i], bs[i-1] = bs[i-1], bs[i]
	}
}

// room makes room for one voice more, in steps that waste little: most sources
// have one or two voices, and there are a million of them.
func (ev *Evidence) room() {
	if n := len(ev.voices); n == cap(ev.voices) {
		size := max(1, 2*n)
		if n <= MaxVoices {
			size = min(size, MaxVoices+1)
		}
		bigger := make([]voice, n, size)
		copy(bigger, ev.voices)
		ev.voices = bigger
	}
}

// dropLeast forgets the voice that adds least beside the others, the oldest of
// equals. So neither a crowd in one place nor one without trust can push out
// the others.
func (t *TrustTable) dropLeast(ev *Evidence, at uint32) {
	var c choir
	var adds [MaxVoices + 1]points
	c.addAll(t, ev, -1, at)
	var met places
	for k := range c.parts[:c.n] {
		adds[c.parts[k].voice] = c.discounted(t, k, &met)
	}
	least := 0
	for i := range ev.voices {
		v, w := &ev.voices[i], &ev.voices[least]
		if cmp.Or(
			cmp.Compare(adds[i], adds[least]),
			cmp.Compare(max(v.counted, v.fleet), max(w.counted, w.fleet)),
			cmp.Compare(w.machine, v.machine)) < 0 {
			least = i
		}
	}
	ev.voices = slices.Delete(ev.voices, least, least+1)
	ev.crowded = true
}

// dropOldest forgets the voice that was heard least recently, of those on which
// is decided if there are any.
func (ev *Evidence) dropOldest() {
	old := 0
	for i := range ev.voices {
		v, w := &ev.voices[i], &ev.voices[old]
		if cmp.Or(
			cmp.Compare(w.flags&settled, v.flags&settled),
			cmp.Compare(v.counted, w.counted),
			cmp.Compare(w.machine, v.machine)) < 0 {
			old = i
		}
	}
	ev.voices = slices.Delete(ev.voices, old, old+1)
	ev.crowded = true
}

// Forget removes the voices that gone picks: their machines were blocked, or
// left. It reports whether there was anything to remove. Judge next.
func (ev *Evidence) Forget(gone func(machine, organisation uint32) bool) bool {
	n := len(ev.voices)
	ev.voices = slices.DeleteFunc(ev.voices, func(v voice) bool { return gone(v.machine, v.organisation) })
	return len(ev.voices) < n
}

// Withdraw removes what machine told its fleet up to a time: its operator
// deleted the decision. What it told the network stands. Judge next.
func (ev *Evidence) Withdraw(machine uint32, upTo int64) bool {
	for i := range ev.voices {
		if v := &ev.voices[i]; v.machine == machine && v.fleet != 0 && v.fleet <= clock(upTo) {
			v.fleet = 0
			return true
		}
	}
	return false
}

// Machines calls yield for the machine and organisation of every voice.
func (ev *Evidence) Machines(yield func(machine, organisation uint32) bool) {
	for i := range ev.voices {
		if !yield(ev.voices[i].machine, ev.voices[i].organisation) {
			return
		}
	}
}

// HeardFrom reports whether there is a voice of one of some machines, told by
// number.
func (ev *Evidence) HeardFrom(some []bool) bool {
	for i := range ev.voices {
		if m := ev.voices[i].machine; int(m) < len(some) && some[m] {
			return true
		}
	}
	return false
}

// Listed returns the end of the listing for an audience as last judged, and
// whether there is one.
func (ev *Evidence) Listed(audience uint32) (until int64, ok bool) {
	if st := ev.stand(audience); st != nil {
		return int64(st.until), true
	}
	return 0, false
}

func (ev *Evidence) stand(audience uint32) *standing {
	for i := range ev.standing {
		if ev.standing[i].audience == audience {
			return &ev.standing[i]
		}
	}
	return nil
}

// Behaviours returns what was reported, most often first.
func (ev *Evidence) Behaviours() []Behaviour {
	n := 0
	for n < maxNamed && ev.behaviours[n].Reports > 0 {
		n++
	}
	return ev.behaviours[:n]
}

// First returns the time of the first report remembered, 0 = none.
func (ev *Evidence) First() int64 { return int64(ev.first) }

// Last returns the time of the last report, 0 = none.
func (ev *Evidence) Last() int64 { return int64(ev.last) }

// CopyFrom makes ev a copy of from that shares no memory with it, using ev's
// own memory where it is enough.
func (ev *Evidence) CopyFrom(from *Evidence) {
	voices, standing := append(ev.voices[:0], from.voices...), append(ev.standing[:0], from.standing...)
	*ev = *from
	ev.voices, ev.standing = voices, standing
}

// Unban notes that an unban was granted: what was said before is muted, not
// deleted, and a new listing needs more for a while. When the source stays
// quiet, those who had it listed were wrong. Judge next.
func (ev *Evidence) Unban(now int64) {
	ev.unbanned, ev.feedback = clock(now), true
}

// estimate counts distinct items from a sketch of 64 bits (linear counting);
// it ends at 266.
func estimate(sketch uint64) int {
	zeros := 64 - bits.OnesCount64(sketch)
	return int(math.Round(-64 * math.Log(max(float64(zeros), 1)/64)))
}

// mix spreads numbers over 64 bits (the finaliser of SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func seconds(d time.Duration) uint32 { return uint32(d / time.Second) }
