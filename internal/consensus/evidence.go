// Package consensus turns reports into verdicts. It is pure: no clock, no
// randomness, no I/O; the same signals in the same order give the same
// verdicts. Its first rule is the quorum (rule.go); trust comes after it behind
// the same three functions: Fold, Judge and Evidence's binary form.
package consensus

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"muster"
)

// Bounds on what is remembered about one source, so that state per source is
// bounded however many machines report it.
const (
	// MaxVoices is how many machines' words are kept; a quorum cannot ask for
	// more. They are written with every report, so they are few.
	MaxVoices    = 16
	maxScenarios = 8
)

// Evidence is what is remembered about one source. The zero Evidence is none.
// Times are Unix microseconds, zero for never.
type Evidence struct {
	First, Last int64 // of all reports that count or go to a fleet
	Voices      []Voice
	Scenarios   []Tally
	Standing    []Standing // what the last judgement said, one per audience, sorted by audience
}

// Voice is one machine's word about the source.
type Voice struct {
	Machine      string
	Organisation string
	Counted      int64 // last report that counts for the network
	Fleet        int64 // last report that goes to its organisation's fleet
}

// Tally counts reports of one scenario.
type Tally struct {
	Scenario string
	Reports  int64
}

// Standing is a listing in force for one audience.
type Standing struct {
	Audience     muster.Audience
	Since, Until int64
}

// Fold adds one signal. Signals that neither count nor go to a fleet change
// nothing. It may reuse ev's memory.
func Fold(ev Evidence, s *muster.Signal) Evidence {
	if s.Flags&(muster.Counts|muster.Fleet) == 0 {
		return ev
	}
	at := s.At.UnixMicro()
	if ev.First == 0 || at < ev.First {
		ev.First = at
	}
	ev.Last = max(ev.Last, at)

	i := slices.IndexFunc(ev.Voices, func(v Voice) bool { return v.Machine == s.Machine })
	if i < 0 {
		ev.Voices = append(ev.Voices, Voice{Machine: s.Machine})
		i = len(ev.Voices) - 1
	}
	v := &ev.Voices[i]
	v.Organisation = s.Organisation
	if s.Flags&muster.Counts != 0 {
		v.Counted = max(v.Counted, at)
	}
	if s.Flags&muster.Fleet != 0 {
		v.Fleet = max(v.Fleet, at)
	}
	if len(ev.Voices) > MaxVoices {
		ev.Voices = dropRedundant(ev.Voices)
	}
	ev.Scenarios = count(ev.Scenarios, s.Scenario)
	return ev
}

// dropRedundant forgets a voice: of the organisation that has most of them, the
// one heard least recently. So a crowd in one place cannot push the others out.
func dropRedundant(vs []Voice) []Voice {
	most, drop := 0, 0
	for i, v := range vs {
		n := 0
		for _, w := range vs {
			if w.Organisation == v.Organisation {
				n++
			}
		}
		if n > most || n == most && max(v.Counted, v.Fleet) < max(vs[drop].Counted, vs[drop].Fleet) {
			most, drop = n, i
		}
	}
	return slices.Delete(vs, drop, drop+1)
}

// count adds one report of scenario; when too many different ones are
// remembered the rarest makes room. Most reported first, then by name.
func count(ts []Tally, scenario string) []Tally {
	i := slices.IndexFunc(ts, func(t Tally) bool { return t.Scenario == scenario })
	switch {
	case i >= 0:
		ts[i].Reports++
	case len(ts) < maxScenarios:
		ts = append(ts, Tally{scenario, 1})
	default:
		ts[len(ts)-1] = Tally{scenario, 1}
	}
	slices.SortFunc(ts, func(a, b Tally) int {
		return cmp.Or(cmp.Compare(b.Reports, a.Reports), cmp.Compare(a.Scenario, b.Scenario))
	})
	return ts
}

// Forget removes the voices that gone picks: their machines were blocked, or
// left. It reports whether there was anything to remove.
func (ev *Evidence) Forget(gone func(Voice) bool) bool {
	n := len(ev.Voices)
	ev.Voices = slices.DeleteFunc(ev.Voices, gone)
	return len(ev.Voices) < n
}

// Withdraw removes what machine told its fleet up to a time: its operator then
// deleted the decision. What it told the network stands.
func (ev *Evidence) Withdraw(machine string, upTo time.Time) bool {
	for i := range ev.Voices {
		if v := &ev.Voices[i]; v.Machine == machine && v.Fleet != 0 && v.Fleet <= upTo.UnixMicro() {
			v.Fleet = 0
			return true
		}
	}
	return false
}

// Clone returns a copy that shares no memory with ev.
func (ev Evidence) Clone() Evidence {
	ev.Voices = slices.Clone(ev.Voices)
	ev.Scenarios = slices.Clone(ev.Scenarios)
	ev.Standing = slices.Clone(ev.Standing)
	return ev
}

// evidenceVersion leads the binary form.
const evidenceVersion = 1

// AppendBinary appends ev's binary form: a version byte, then uvarints and
// length-prefixed strings.
func (ev Evidence) AppendBinary(b []byte) []byte {
	b = append(b, evidenceVersion)
	b = appendInts(b, ev.First, ev.Last)
	b = binary.AppendUvarint(b, uint64(len(ev.Voices)))
	for _, v := range ev.Voices {
		b = appendString(appendString(b, v.Machine), v.Organisation)
		b = appendInts(b, v.Counted, v.Fleet)
	}
	b = binary.AppendUvarint(b, uint64(len(ev.Scenarios)))
	for _, t := range ev.Scenarios {
		b = appendInts(appendString(b, t.Scenario), t.Reports)
	}
	b = binary.AppendUvarint(b, uint64(len(ev.Standing)))
	for _, st := range ev.Standing {
		b = appendInts(appendString(b, string(st.Audience)), st.Since, st.Until)
	}
	return b
}

func appendInts(b []byte, ns ...int64) []byte {
	for _, n := range ns {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// EvidenceFromBinary reads what AppendBinary wrote.
func EvidenceFromBinary(data []byte) (Evidence, error) {
	if len(data) == 0 || data[0] != evidenceVersion {
		return Evidence{}, fmt.Errorf("evidence: expected version %d: written by a newer release?", evidenceVersion)
	}
	r := reader{data: data[1:]}
	var ev Evidence
	ev.First, ev.Last = r.int(), r.int()
	for range r.count(MaxVoices) {
		ev.Voices = append(ev.Voices, Voice{Machine: r.string(), Organisation: r.string(), Counted: r.int(), Fleet: r.int()})
	}
	for range r.count(maxScenarios) {
		ev.Scenarios = append(ev.Scenarios, Tally{Scenario: r.string(), Reports: r.int()})
	}
	for range r.count(MaxVoices + 1) {
		ev.Standing = append(ev.Standing, Standing{Audience: muster.Audience(r.string()), Since: r.int(), Until: r.int()})
	}
	if r.bad || len(r.data) > 0 {
		return Evidence{}, fmt.Errorf("evidence: %d bytes are damaged", len(data))
	}
	return ev, nil
}

// reader reads a binary form; after damage it returns zeros.
type reader struct {
	data []byte
	bad  bool
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

func (r *reader) int() int64 { return int64(r.uint()) }

func (r *reader) count(limit int) int {
	n := r.uint()
	if n > uint64(limit) {
		r.bad, r.data = true, nil
		return 0
	}
	return int(n)
}

func (r *reader) string() string {
	n := r.uint()
	if n > uint64(len(r.data)) {
		r.bad, r.data = true, nil
		return ""
	}
	s := string(r.data[:n])
	r.data = r.data[n:]
	return s
}
