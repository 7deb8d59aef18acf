package crowd

// MaxVoices is how many machines' words are kept per source; beyond it the one
// that adds least makes room.
const MaxVoices = 24

// Evidence is what is remembered about one source. The zero Evidence is none.
type Evidence struct {
	first, last uint32
	voices      []voice
	standing    []standing
}

type voice struct{ machine uint32 }
type standing struct{ audience uint32 }

// Fold adds one report. Reports that neither count nor go to a fleet change
// nothing.
func (t *TrustTable) Fold(ev *Evidence, r Report) { panic("skeleton") }

// Outcome collects what judgements bring about; the caller empties and reuses
// it. Reasons.Behaviours of its verdicts are valid until then.
type Outcome struct {
	Verdicts []Verdict
	Events   []TrustEvent
}

// Reset empties o and keeps its memory.
func (o *Outcome) Reset() { o.Verdicts, o.Events = o.Verdicts[:0], o.Events[:0] }

// Judge judges the source at a time, settles what has become due, and appends
// the verdicts that changed and the events about machines to out.
func (t *TrustTable) Judge(ev *Evidence, now int64, f Facts, out *Outcome) { panic("skeleton") }

// Explain returns the reasons as of now, listed or not, without changing anything.
func (t *TrustTable) Explain(ev *Evidence, now int64, f Facts) Reasons { panic("skeleton") }

// Due returns when Judge must be asked again even without new reports: a
// listing lapses, or a report is to be validated; 0 = never.
func (t *TrustTable) Due(ev *Evidence) int64 { panic("skeleton") }

// Stale reports whether nothing in ev can matter any more.
func (t *TrustTable) Stale(ev *Evidence, now int64) bool { panic("skeleton") }

// Unban notes that an unban was granted: what was said before is muted, not
// deleted, and a new listing needs more for a while. Judge next.
func (t *TrustTable) Unban(ev *Evidence, now int64) { panic("skeleton") }

// Forget removes the voices that gone picks: their machines were blocked, or
// left. It reports whether there was anything to remove. Judge next.
func (ev *Evidence) Forget(gone func(machine, organisation uint32) bool) bool { panic("skeleton") }

// Withdraw removes what machine told its fleet up to a time: its operator
// deleted the decision. What it told the network stands. Judge next.
func (ev *Evidence) Withdraw(machine uint32, upTo int64) bool { panic("skeleton") }

// Machines calls yield for the machine and organisation of every voice.
func (ev *Evidence) Machines(yield func(machine, organisation uint32) bool) { panic("skeleton") }

// Listed reports whether a listing for audience stands, as last judged, and its end.
func (ev *Evidence) Listed(audience uint32) (until int64, ok bool) { panic("skeleton") }

// First and Last return the times of the first and the last report remembered.
func (ev *Evidence) First() int64 { return int64(ev.first) }

// Last returns the time of the last report; 0 = none.
func (ev *Evidence) Last() int64 { return int64(ev.last) }

// CopyFrom makes ev a copy of from that shares no memory with it, using ev's
// own memory where it is enough.
func (ev *Evidence) CopyFrom(from *Evidence) { panic("skeleton") }

// AppendBinary appends ev's binary form.
func (ev *Evidence) AppendBinary(b []byte) []byte { panic("skeleton") }

// UnmarshalBinary reads what AppendBinary wrote, using ev's own memory where it
// is enough.
func (ev *Evidence) UnmarshalBinary(data []byte) error { panic("skeleton") }
