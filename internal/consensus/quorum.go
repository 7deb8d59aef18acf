package consensus

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"muster"
)

// Quorum is the first rule: a source is listed for the whole network when
// enough machines of enough organisations reported it within a window, and for
// its own organisation's machines at once (the fleet list). A listing lapses
// when nobody has reported the source for a while.
//
// Counting alone is no protection against an adversary (consensus.md, section
// 9): the trust engine takes this rule's place behind the same methods.
type Quorum struct {
	Machines      int           // distinct machines needed
	Organisations int           // distinct organisations needed among them
	Window        time.Duration // in which they must have reported
	Expiry        time.Duration // after the last report a listing lapses
}

// granularity is by how much a listing's end must move before it is told again:
// readers are sent whole hours, so every single report need not rewrite the
// published list.
const granularity = time.Hour

// Judge judges source at the time of its latest evidence or of the tick that
// asks, and returns the evidence with its new standing, and the verdicts that
// differ from the last ones. never, when not empty, is the reason why the
// source must not be listed for anybody (reserved space, an allowlist).
func (q Quorum) Judge(source muster.Source, ev Evidence, never string, now time.Time) (Evidence, []muster.Verdict) {
	wanted := q.listings(ev, never, now)
	var changed []muster.Verdict
	for _, w := range wanted {
		i, was := slices.BinarySearchFunc(ev.Standing, w.Audience, func(st Standing, a muster.Audience) int {
			return cmp.Compare(st.Audience, a)
		})
		if was {
			st := &ev.Standing[i]
			if w.Until.UnixMicro() < st.Until+granularity.Microseconds() && w.Until.UnixMicro() >= st.Until {
				continue // it stands as told
			}
			w.Since = time.UnixMicro(st.Since).UTC()
			st.Until = w.Until.UnixMicro()
		} else {
			w.Since = now
			ev.Standing = slices.Insert(ev.Standing, i, Standing{Audience: w.Audience, Since: now.UnixMicro(), Until: w.Until.UnixMicro()})
		}
		w.Source, w.Listed, w.Changed, w.Scenario = source, true, now, ev.behaviour()
		w.Reasons.Scenarios, w.Reasons.First, w.Reasons.Last = ev.scenarios(), ev.First/1e6, ev.Last/1e6
		changed = append(changed, w)
	}
	kept := ev.Standing[:0:0]
	for _, st := range ev.Standing {
		if slices.ContainsFunc(wanted, func(w muster.Verdict) bool { return w.Audience == st.Audience }) {
			kept = append(kept, st)
			continue
		}
		rule := "no report within " + q.Expiry.String()
		if never != "" {
			rule = never
		} else if st.Until > now.UnixMicro() {
			rule = "withdrawn: the reports that supported it no longer count"
		}
		changed = append(changed, muster.Verdict{
			Source: source, Audience: st.Audience, Listed: false, Changed: now,
			Scenario: ev.behaviour(), Since: time.UnixMicro(st.Since).UTC(), Until: time.UnixMicro(st.Until).UTC(),
			Reasons: muster.Reasons{Rule: rule, Scenarios: ev.scenarios(), First: ev.First / 1e6, Last: ev.Last / 1e6},
		})
	}
	ev.Standing = kept
	return ev, changed
}

// listings returns who should have the source listed now, sorted by audience.
func (q Quorum) listings(ev Evidence, never string, now time.Time) []muster.Verdict {
	if never != "" {
		return nil
	}
	var (
		window   = now.Add(-q.Window).UnixMicro()
		expired  = now.Add(-q.Expiry).UnixMicro()
		machines int
		orgs     = make([]string, 0, MaxVoices)
		ever     int // machines whose reports counted at any time, and their organisations
		everOrgs = make([]string, 0, MaxVoices)
		last     int64 // last counted report
		fleets   = make([]fleet, 0, MaxVoices)
	)
	for _, v := range ev.Voices {
		last = max(last, v.Counted)
		if v.Counted > window {
			machines++
			orgs = addDistinct(orgs, v.Organisation)
		}
		if v.Counted > 0 {
			ever++
			everOrgs = addDistinct(everOrgs, v.Organisation)
		}
		if v.Fleet > expired && v.Organisation != "" {
			fleets = addToFleet(fleets, v)
		}
	}
	// A listing that stands goes on with any report, as long as those who made it
	// still count. One that has lapsed needs a quorum again, even when nobody came
	// by to end it; the end that was told may be up to granularity too early.
	standing := ever >= q.Machines && len(everOrgs) >= q.Organisations && slices.ContainsFunc(ev.Standing, func(st Standing) bool {
		return st.Audience == muster.Network && now.UnixMicro() <= st.Until+granularity.Microseconds()
	})
	var wanted []muster.Verdict
	if reached := machines >= q.Machines && len(orgs) >= q.Organisations; reached || standing && last > expired {
		v := listing(muster.Network, last, q.Expiry, machines, len(orgs))
		if !reached {
			v.Reasons.Rule = fmt.Sprintf("was listed by a quorum; last report less than %s ago", q.Expiry)
		} else {
			v.Reasons.Rule = fmt.Sprintf("%d machines of %d organisations reported it within %s (needed: %d of %d)",
				machines, len(orgs), q.Window, q.Machines, q.Organisations)
		}
		wanted = append(wanted, v)
	}
	for _, f := range fleets {
		v := listing(muster.Audience(f.organisation), f.last, q.Expiry, f.machines, 1)
		v.Reasons.Rule = "reported by a machine of the same organisation"
		wanted = append(wanted, v)
	}
	slices.SortFunc(wanted, func(a, b muster.Verdict) int { return cmp.Compare(a.Audience, b.Audience) })
	return wanted
}

func addDistinct(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// fleet is what one organisation's machines told each other.
type fleet struct {
	organisation string
	machines     int
	last         int64
}

func addToFleet(fleets []fleet, v Voice) []fleet {
	i := slices.IndexFunc(fleets, func(f fleet) bool { return f.organisation == v.Organisation })
	if i < 0 {
		return append(fleets, fleet{v.Organisation, 1, v.Fleet})
	}
	fleets[i].machines++
	fleets[i].last = max(fleets[i].last, v.Fleet)
	return fleets
}

func listing(a muster.Audience, last int64, expiry time.Duration, machines, orgs int) muster.Verdict {
	return muster.Verdict{
		Audience: a, Until: time.UnixMicro(last).Add(expiry).UTC(),
		Reasons: muster.Reasons{Machines: machines, Organisations: orgs},
	}
}

// behaviour names the scenario reported most.
func (ev Evidence) behaviour() string {
	if len(ev.Scenarios) == 0 {
		return ""
	}
	return ev.Scenarios[0].Scenario
}

func (ev Evidence) scenarios() []string {
	names := make([]string, len(ev.Scenarios))
	for i, t := range ev.Scenarios {
		names[i] = t.Scenario
	}
	return names
}

// Stale reports whether nothing in ev can matter any more: no listing stands
// and the last report is older than both window and expiry.
func (q Quorum) Stale(ev Evidence, now time.Time) bool {
	return len(ev.Standing) == 0 && now.Sub(time.UnixMicro(ev.Last)) > max(q.Window, q.Expiry)
}
