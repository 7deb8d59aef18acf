package doctor

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"muster"
	"muster/internal/upstream"
)

// What CrowdSec's Central API allows, and a Muster unless told otherwise; see
// ratelimit.DefaultLimits.
const (
	loginWindow  = 50 * time.Minute
	loginsToBan  = 20 // allowed in a window
	loginsToWarn = 15
	banLength    = time.Hour
	// A streak of refusals is one ban while they are no further apart than this.
	sameBan = banLength + 5*time.Minute
	// recent is how long ago something may have happened to be going on still.
	recent = 10 * time.Minute
	// An engine repeats a refused request twice, at once: that is no retry yet.
	oneCall = 10 * time.Second
	// What lies further back than this is history.
	judged     = 24 * time.Hour
	startsLoop = 5 // in a window
)

// checkRefusals tells whether the Central API refuses this address or this
// machine, by the end of the log. standing is what the Central API says of it
// now, nil when it does not tell.
func checkRefusals(h *history, machine string, standing *upstream.Standing, now time.Time) []muster.Finding {
	streak := h.refusals()
	if len(streak) == 0 {
		return h.checkPassword(machine)
	}
	first, last := streak[0], streak[len(streak)-1]
	until, extends := endOf(last)
	f := muster.Finding{
		Kind: Banned, Severity: muster.Info, Machine: machine, Count: len(streak), First: first.at, Last: last.at,
		Summary:  fmt.Sprintf("The Central API refused this address at %s", seen(last.at)),
		Evidence: []string{"answered: " + said(last)},
	}
	if len(streak) > 1 {
		f.Summary = fmt.Sprintf("The Central API refused this address %d times, the last time at %s", len(streak), seen(last.at))
		f.Evidence = append(f.Evidence, "the first time: "+seen(first.at))
	}
	switch {
	case standing != nil && !standing.Banned:
		f.Summary += "; it says that this is over."
		f.Fix = "Start the engine if it does not run, and mend the cause: the next ban comes of the same."
		return []muster.Finding{f}
	case standing != nil:
		f.Summary += "."
		f.Fix = "As it says itself, see below."
		extends = standing.Ban.Extends
	case !until.IsZero() && now.After(until):
		f.Summary += "; that should be over since " + seen(until) + "."
		f.Fix = "Ask with cscli capi status, once: it is a login."
		return []muster.Finding{f}
	default:
		f.Severity = muster.Critical
		f.Summary += "."
		f.Fix = "Stop the engine (systemctl stop crowdsec, or docker stop), mend the cause, wait until " + seen(until) + ", then start it."
		if until.IsZero() {
			f.Fix = "Stop the engine (systemctl stop crowdsec, or docker stop), mend the cause, and ask the Central API's operator to lift the ban."
		}
	}
	found := []muster.Finding{f}
	if extends {
		found = append(found, h.checkRetries(machine, first, now)...)
	}
	return found
}

// checkEnd tells whether the engine ended by itself and was not started again.
// That it was refused is told by checkRefusals.
func checkEnd(h *history, machine string) []muster.Finding {
	var last event
	for _, e := range h.events {
		if e.kind == died || e.kind == started {
			last = e
		}
	}
	if last.kind != died {
		return nil
	}
	if _, told := judge(last.text); told {
		return nil
	}
	f := muster.Finding{
		Kind: EngineEnded, Severity: muster.Critical, Machine: machine, Count: 1, Last: last.at,
		Summary:  "The engine ended by itself at " + seen(last.at) + ", and the log tells of no start after that.",
		Evidence: []string{clip(last.text)},
		Fix:      "Mend what it says, then start it.",
	}
	if strings.Contains(last.text, msgLoginFatal) {
		f.Fix = "Engines cannot start while their Central API does not let them log in: see to that first, then start it."
	}
	return []muster.Finding{f}
}

// refusals returns the events of the ban that the log ends with: refused calls
// with no served one after them.
func (h *history) refusals() []event {
	var streak []event
	for _, e := range h.events {
		switch e.kind {
		case served, refused:
			streak = nil
		case banned, forbidden:
			if n := len(streak); n > 0 && !e.at.IsZero() && e.at.Sub(streak[n-1].at) > sameBan {
				streak = nil
			}
			streak = append(streak, e)
		default: // the others say nothing about this
		}
	}
	return streak
}

var untilText = regexp.MustCompile(` until (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)`)

// endOf returns when the ban ends that a refusal tells of, zero when nobody can
// know, and whether retries prolong it.
func endOf(e event) (until time.Time, extends bool) {
	if e.kind == forbidden { // CrowdSec's rule
		if e.at.IsZero() {
			return time.Time{}, true
		}
		return e.at.Add(banLength), true
	}
	if m := untilText.FindStringSubmatch(e.text); m != nil {
		until = parseTime(m[1])
	}
	return until, strings.Contains(e.text, "retry")
}

// checkRetries tells whether the engine went on calling after it was refused.
func (h *history) checkRetries(machine string, first event, now time.Time) []muster.Finding {
	var retries []event
	for i, e := range h.events {
		if i > 1 && h.events[i-1].kind == died && h.events[i-2].kind == attempted {
			continue // how a start ended whose calls are events of their own
		}
		if e.kind.isCall() && !e.at.IsZero() && e.at.Sub(first.at) > oneCall {
			retries = append(retries, e)
		}
	}
	if len(retries) == 0 {
		return nil
	}
	last := retries[len(retries)-1]
	f := muster.Finding{
		Kind: RetryingWhileBanned, Severity: muster.Warning, Machine: machine, Count: len(retries), First: retries[0].at, Last: last.at,
		Summary: fmt.Sprintf("The engine called again %s after the first refusal (%s), and every call starts the ban again.", times(len(retries)), seen(first.at)),
		Evidence: []string{
			fmt.Sprintf("from %s to %s", seen(retries[0].at), seen(last.at)),
		},
		Fix: "Stop it now: systemctl stop crowdsec (or docker stop); also its health checks and timers that run cscli capi status.",
	}
	if now.Sub(last.at) < recent {
		f.Severity = muster.Critical
		f.Evidence = append(f.Evidence, fmt.Sprintf("that was %s ago: it goes on", now.Sub(last.at).Round(time.Second)))
	}
	return []muster.Finding{f}
}

// checkPassword tells whether the last word of the Central API was that the
// credentials are wrong.
func (h *history) checkPassword(machine string) []muster.Finding {
	var last *event
	count := 0
	for i, e := range h.events {
		switch e.kind {
		case refused:
			last, count = &h.events[i], count+1
		case served:
			last, count = nil, 0
		default: // the others say nothing about this
		}
	}
	if last == nil {
		return nil
	}
	return []muster.Finding{{
		Kind: LoginRefused, Severity: muster.Critical, Machine: machine, Count: count, Last: last.at,
		Summary:  "The Central API does not take the engine's credentials: it knows no such machine, or another password.",
		Evidence: []string{"answered: " + said(*last), "at " + seen(last.at)},
		Fix:      "Stop the engine before the wrong logins end in a ban, then muster join URL --key KEY (for CrowdSec's own: cscli capi register), and start it.",
	}}
}

// checkRestarts finds an engine that starts again and again.
func checkRestarts(h *history, machine, database string, now time.Time) []muster.Finding {
	starts := h.busiest(started, now)
	if len(starts) < startsLoop {
		return nil
	}
	first, last := starts[0], starts[len(starts)-1]
	f := muster.Finding{
		Kind: muster.RestartLoop, Severity: lately(last.at, now), Machine: machine, Count: len(starts), First: first.at, Last: last.at,
		Summary:  fmt.Sprintf("The engine (%s) was started %d times within %s.", h.version, len(starts), last.at.Sub(first.at).Round(time.Second)),
		Evidence: []string{fmt.Sprintf("from %s to %s", seen(first.at), seen(last.at))},
		Fix:      "Look why it stops (journalctl -u crowdsec -n 100, or docker logs), stop it until that is mended, and keep its data directory on a volume: it holds the token that saves a login.",
	}
	f.Evidence = append(f.Evidence, h.endings(first.at, last.at)...)
	if database != "" {
		if _, err := os.Stat(database); err != nil {
			f.Evidence = append(f.Evidence, "no database at "+database+": every start without one is a login")
		}
	}
	return []muster.Finding{f}
}

// endings tells how the processes that were started from first to last ended.
func (h *history) endings(first, last time.Time) (evidence []string) {
	var why event
	told := 0
	for _, e := range h.events {
		if e.at.Before(first) || e.at.Sub(last) > recent {
			continue
		}
		switch e.kind {
		case stopped:
			told++
		case died: // a refused login ends a process too, but is what the restarts led to
			if _, isRefusal := judge(e.text); !isRefusal {
				why = e
			}
		default: // the others say nothing about this
		}
	}
	if told > 0 {
		evidence = append(evidence, fmt.Sprintf("told to stop (SIGTERM): %s; does a health check do that?", times(told)))
	}
	if why.text != "" {
		evidence = append(evidence, "ended by itself at "+seen(why.at)+": "+said(why))
	}
	return evidence
}

// checkLogins finds logins that come near to a ban.
func checkLogins(h *history, machine string, now time.Time) []muster.Finding {
	logins := h.busiest(attempted, now)
	if len(logins) <= loginsToWarn {
		return nil
	}
	first, last := logins[0], logins[len(logins)-1]
	return []muster.Finding{{
		Kind: ManyLogins, Severity: lately(last.at, now), Machine: machine, Count: len(logins), First: first.at, Last: last.at,
		Summary:  fmt.Sprintf("The engine alone made up to %d logins within 50 minutes; more than %d from one address end in a ban.", len(logins), loginsToBan),
		Evidence: []string{fmt.Sprintf("from %s to %s (a start that found its token in the database made none)", seen(first.at), seen(last.at))},
		Fix:      "Mend what makes it start or lose its token so often; let health checks run cscli lapi status, not cscli capi status.",
	}}
}

func (h *history) mostLogins(now time.Time) int { return len(h.busiest(attempted, now)) }

// busiest returns the events of a kind in the 50 minutes of the last day that
// had most of them; of several such, the latest.
func (h *history) busiest(kind eventKind, now time.Time) []event {
	var of []event
	for _, e := range h.events {
		if e.kind == kind && !e.at.IsZero() && now.Sub(e.at) < judged {
			of = append(of, e)
		}
	}
	var best []event
	from := 0
	for to := range of {
		for of[to].at.Sub(of[from].at) > loginWindow {
			from++
		}
		if window := of[from : to+1]; len(window) >= len(best) {
			best = window
		}
	}
	return best
}

// lately: what ended a while ago is worth knowing, and no reason to act.
func lately(last, now time.Time) muster.Severity {
	if now.Sub(last) < loginWindow {
		return muster.Warning
	}
	return muster.Info
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// seen writes a time that a log may not have had.
func seen(t time.Time) string {
	if t.IsZero() {
		return "(at an unknown time)"
	}
	return at(t)
}

// said returns what the Central API answered, or the whole line of another event.
func said(e event) string {
	if _, answer, ok := strings.Cut(e.text, msgAPIError); ok {
		return clip(answer)
	}
	return clip(e.text)
}

// clip keeps a line of a log readable.
func clip(s string) string {
	if len(s) > 400 {
		s = strings.ToValidUTF8(s[:400], "") + "…"
	}
	return s
}
