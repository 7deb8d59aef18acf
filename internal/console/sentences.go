package console

import (
	"fmt"
	"math"
	"strings"
	"time"

	"muster"
)

// maxLines bounds an explanation: nobody reads more.
const maxLines = 10

// lines explains in words.
func (k *about) lines() []string {
	var out []string
	say := func(s string) {
		if s != "" {
			out = append(out, s)
		}
	}
	if k.subject != k.source {
		say(fmt.Sprintf("%s is judged as %s, the /64 around it: one subscriber has all of that.", k.source, k.subject))
	}
	say(k.saysListed())
	bars := k.saysBars()
	for _, bar := range bars {
		say(bar)
	}
	if len(bars) == 0 {
		say(k.saysWhy())
	}
	if !k.judged {
		say("The judge does not answer now: this is what was decided last.")
	}
	if r := k.reasons(); r != nil && r.Basis != basisRange {
		say(saysWho(r))
		if len(bars) == 0 && r.Machines > 0 {
			say(saysSupport(r))
		}
		say(k.saysReports(r))
		say(saysCircumstances(r))
	}
	if len(bars) == 0 {
		say(k.saysNext())
	}
	say(k.saysPast())
	say(k.saysFleets())
	return out[:min(len(out), maxLines)]
}

func (k *about) saysListed() string {
	v := k.listing()
	if v == nil {
		return fmt.Sprintf("%s is not on the community list.", k.subject)
	}
	what := "to be banned"
	if v.Remedy == muster.RemedyCaptcha {
		what = "to be shown a captcha"
	}
	as := ""
	if v.Source != k.subject {
		as = fmt.Sprintf(" as a part of the range %s", v.Source)
	}
	return fmt.Sprintf("%s is on the community list%s, %s, since %s.", k.subject, as, what, k.past(v.Since))
}

// saysBars tells what stands against any listing.
func (k *about) saysBars() (bars []string) {
	if k.source.IsReserved() {
		return []string{"It is reserved or private address space, which is never listed, whoever reports it."}
	}
	if k.good() {
		which := ""
		if c := k.canary; c != nil {
			which = " (canary " + c.Value + inBrackets(", ", c.Reason, "") + ")"
		}
		bars = append(bars, "It is known to be good"+which+": it is never listed, and machines that report it lose trust.")
	}
	switch {
	case k.operator != nil && !k.operator.Listed:
		until := ""
		if end := k.operator.Until; !end.IsZero() {
			until = ", until " + k.coming(end)
		}
		bars = append(bars, fmt.Sprintf("An operator (%s) decided on %s that %s is never listed%s: %s.", k.operator.By, moment(k.operator.CreatedAt), k.operator.Source, until, strings.TrimSuffix(k.operator.Reason, ".")))
	case k.allowed != nil:
		bars = append(bars, "It is on the allowlist"+inBrackets(" (", *k.allowed, ")")+": it is never listed.")
	case len(bars) == 0 && k.standing.Reasons.Never != "":
		bars = append(bars, "It is never listed: "+k.standing.Reasons.Never+".")
	}
	return bars
}

func inBrackets(open, text, end string) string {
	if text == "" {
		return ""
	}
	return open + text + end
}

// basisRange is of ranges that are listed for their members.
const basisRange = "range"

// why words the rules for people, by muster.Reasons.Basis; others speak for
// themselves.
var why = map[string]string{
	"crowd":       "enough independent machines have reported it",
	"honeypot":    "a honeypot saw it, to which nobody has any business to come, and others bear it out",
	"top-rank":    "a machine of the top rank reported it, and another one saw it before",
	"standing":    "it was listed for good reason, and enough of those who reported it still stand by it",
	"undecided":   "too few independent machines have reported it lately",
	"suspicious":  "those who report it shared in doubtful reports lately: machines above suspicion are needed",
	"waiting":     "many report it, but from few networks: others get time to speak first",
	"lapsed":      "nobody has reported it for long enough",
	"unsupported": "the reports that supported it no longer count",
	"cleared":     "an unban was granted",
	"canary":      "it is known to be good",

	muster.BasisOperator: "an operator's decision ended",
}

func because(r *muster.Reasons) string {
	switch {
	case r.Basis == basisRange:
		_, rule, _ := strings.Cut(r.Rule, ": ") // after whether it is listed
		return fmt.Sprintf("%s (%d of them)", rule, r.Machines)
	case r.Basis == "undecided" && r.Independent >= r.Needed && r.Support >= r.Threshold:
		return "what is remembered of reports was enough for a listing that has ended, and is not enough for another"
	}
	if words := why[r.Basis]; words != "" {
		return words
	}
	if r.Never != "" {
		return r.Never
	}
	return r.Rule
}

func (k *about) saysWhy() string {
	r := k.reasons()
	if v := k.listing(); v != nil {
		r = &v.Reasons
	}
	if w := k.operator; w != nil && w.Listed && r != nil && r.Basis == muster.BasisOperator {
		return fmt.Sprintf("Why: an operator (%s) listed %s by hand on %s: %s.", w.By, w.Source, moment(w.CreatedAt), strings.TrimSuffix(w.Reason, "."))
	}
	if r == nil && k.network() == nil {
		if len(k.fleets()) > 0 {
			return "No report about it counts for the network."
		}
		return "Nobody has reported it here, or not for so long that it is forgotten: the network has nothing against it."
	}
	if r == nil {
		r = &k.network().Reasons
	}
	return "Why: " + because(r) + "."
}

// bands name ranks from the highest.
var bands = [6]string{5: "of the top rank", 4: "of full trust", 3: "of much trust", 2: "of some trust", 1: "newcomer", 0: "whose word does not count now"}

func saysWho(r *muster.Reasons) string {
	if r.Machines == 0 {
		return "No report about it counts for the network now."
	}
	var who []string
	remembered, left := 0, r.Honeypots
	if left > 0 {
		who = append(who, count(left, "honeypot"))
	}
	for rank := len(r.Bands) - 1; rank >= 0; rank-- {
		n := r.Bands[rank]
		remembered += n
		if rank == 5 { // as which honeypots count
			n -= min(n, left)
		}
		switch {
		case n == 0:
		case rank == 1:
			who = append(who, count(n, bands[rank]))
		default:
			who = append(who, fmt.Sprintf("%d %s", n, bands[rank]))
		}
	}
	s := count(r.Machines, "machine") + " reported it"
	if r.Machines > remembered && remembered > 0 {
		s = fmt.Sprintf("About %s; of %d it is remembered who they are", s, remembered)
	}
	if len(who) > 0 {
		s += ": " + strings.Join(who, ", ")
	}
	return s + "."
}

func saysSupport(r *muster.Reasons) string {
	s := fmt.Sprintf("That makes %s with %.1f points", count(r.Independent, "independent group"), math.Floor(10*float64(r.Support)+0.001)/10) // never as much as is needed when it is not
	if r.Diversity > 1 {
		s += fmt.Sprintf(", as diverse as %.1f groups that say the same", r.Diversity)
	}
	s += fmt.Sprintf("; a new listing takes %d groups with %.1f points", r.Needed, r.Threshold)
	if r.Local {
		s += " (local evidence: in so small a network the word of newcomers counts)"
	}
	return s + "."
}

func (k *about) saysReports(r *muster.Reasons) string {
	if r.Last == 0 {
		return ""
	}
	when := "on " + k.past(time.Unix(r.Last, 0))
	if first := moment(time.Unix(r.First, 0)); first != moment(time.Unix(r.Last, 0)) {
		when = "from " + first + " to " + k.past(time.Unix(r.Last, 0))
	}
	var what []string
	for i, name := range r.Scenarios {
		if i < len(r.Reports) {
			name += " (" + count(r.Reports[i], "report") + ")"
		}
		what = append(what, name)
	}
	s := "Reported " + when
	if len(what) > 0 {
		s += ", for " + strings.Join(what, ", ")
	}
	return s + "."
}

func saysCircumstances(r *muster.Reasons) string {
	var all []string
	if r.Shared {
		all = append(all, "Many people share it: more is asked for to list it, and that for a shorter time.")
	}
	if r.Probation {
		all = append(all, "An unban was granted lately: more is asked for to list it again.")
	}
	if r.Confirmed {
		all = append(all, "Since it was listed, somebody new has seen it too.")
	}
	return strings.Join(all, " ")
}

// saysNext tells when a listing lapses, or what one would take.
func (k *about) saysNext() string {
	if v := k.listing(); v != nil && v.Reasons.Basis == muster.BasisOperator {
		return fmt.Sprintf("The decision ends on %s; from then on the crowd decides.", k.coming(v.Until))
	} else if v != nil {
		return fmt.Sprintf("Unless it is reported again, it comes off the list on %s.", k.coming(v.Until))
	}
	r := k.reasons()
	if r == nil {
		return ""
	}
	switch r.Basis {
	case "waiting":
		return fmt.Sprintf("If nothing speaks against it, it is listed; it is judged again on %s.", k.coming(k.standing.Due))
	case "suspicious":
		return fmt.Sprintf("Missing for a listing: %s above suspicion.", count(r.Needed-r.Independent, "more group"))
	}
	var missing []string
	if n := r.Needed - r.Independent; n > 0 {
		missing = append(missing, count(n, "more independent group"))
	}
	if p := r.Threshold - r.Support; p > 0 {
		missing = append(missing, fmt.Sprintf("%.1f points more", math.Ceil(10*float64(p)-0.001)/10))
	}
	if len(missing) == 0 {
		missing = []string{"a new report"}
	}
	return "Missing for a listing: " + strings.Join(missing, " and ") + "."
}

// saysPast tells how often the subject was listed.
func (k *about) saysPast() string {
	listings := map[time.Time]bool{}
	var first time.Time
	var ended *muster.Verdict
	for i := range k.history {
		v := &k.history[i]
		listings[v.Since] = true
		if first.IsZero() || v.Since.Before(first) {
			first = v.Since
		}
		if !v.Listed && ended == nil {
			ended = v
		}
	}
	n := len(listings)
	current := k.network() != nil && k.network().Listed
	switch {
	case k.source.IsReserved():
		return ""
	case n == 0 && !current && k.around.Listed:
		return "By itself it was never listed, as far as is remembered."
	case n == 0 && !current:
		return "It was never listed, as far as is remembered."
	case ended == nil:
		return "It is listed for the first time, as far as is remembered."
	case current:
		return fmt.Sprintf("It was listed %s, first on %s.", times(n), moment(first))
	}
	s := fmt.Sprintf("It was listed %s, first on %s; the last time", times(n), moment(first))
	if n == 1 {
		s = fmt.Sprintf("It was listed once, on %s; that", moment(first))
	}
	return fmt.Sprintf("%s ended on %s: %s.", s, k.past(ended.Changed), because(&ended.Reasons))
}

const maxNamedFleets = 3

func (k *about) saysFleets() string {
	listed := k.fleets()
	if len(listed) == 0 {
		return ""
	}
	var names []string
	for i, v := range listed {
		if i == maxNamedFleets {
			names = append(names, fmt.Sprintf("%d more", len(listed)-i))
			break
		}
		name := k.names[string(v.Audience)]
		if name == "" {
			name = string(v.Audience)
		}
		names = append(names, fmt.Sprintf("%s (until %s)", name, moment(v.Until)))
	}
	return fmt.Sprintf("On the own list of %s, whose machines reported it: %s.", count(len(listed), "organisation"), strings.Join(names, ", "))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func (k *about) past(t time.Time) string {
	return moment(t) + " (" + rough(k.now.Sub(t)) + " ago)"
}

func (k *about) coming(t time.Time) string {
	return moment(t) + " (in " + rough(t.Sub(k.now)) + ")"
}

// rough words a duration in its largest unit.
func rough(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return count(int(d/day), "day")
	case d >= 2*time.Hour:
		return count(int(d/time.Hour), "hour")
	case d >= time.Minute:
		return count(int(d/time.Minute), "minute")
	}
	return "less than a minute"
}
