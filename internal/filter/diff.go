package filter

import "iter"

// Difference is what would change if one set of rules took another's place.
type Difference struct {
	Signals      int      `json:"signals"`      // looked at
	Withheld     int      `json:"withheld"`     // by both sets
	Forwarded    int      `json:"forwarded"`    // by both sets
	NowWithheld  int      `json:"nowWithheld"`  // by the new set, and not by the old one
	NowForwarded int      `json:"nowForwarded"` // by the new set, and not by the old one
	Failed       int      `json:"failed"`       // signals for which the new set has failures
	Changes      []Change `json:"changes"`      // the first ones whose fate changes
}

// Change is a signal whose fate changes.
type Change struct {
	Index  int    `json:"index"` // among the signals, from 0
	Signal []byte `json:"-"`     // as it was given
	Before Result `json:"before"`
	After  Result `json:"after"`
}

// Diff evaluates signals with both sets, without counting for their status. It
// keeps at most limit changes and counts all of them.
func Diff(before, after *Set, signals iter.Seq[[]byte], limit int) Difference {
	var d Difference
	for signal := range signals {
		old, now := before.eval(signal, false), after.eval(signal, false)
		if len(now.Failures) > 0 {
			d.Failed++
		}
		switch {
		case old.Withheld && now.Withheld:
			d.Withheld++
		case !old.Withheld && !now.Withheld:
			d.Forwarded++
		default:
			if now.Withheld {
				d.NowWithheld++
			} else {
				d.NowForwarded++
			}
			if len(d.Changes) < limit {
				d.Changes = append(d.Changes, Change{Index: d.Signals, Signal: signal, Before: old, After: now})
			}
		}
		d.Signals++
	}
	return d
}
