package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"muster"
	"muster/internal/join"
	"muster/internal/upstream"
)

// examineCentral asks the engine's Central API how this address stands there;
// nil when it does not tell.
func examineCentral(ctx context.Context, o Options, cred join.Credentials) (s Section, told *upstream.Standing) {
	s = newSection(centralSection, cred.URL)
	base, err := url.Parse(cred.URL)
	if err != nil {
		return s, nil // told with the credentials
	}
	if isCrowdSec(cred.URL) {
		s.ok("CrowdSec's own: it is not asked, because any call during a ban prolongs it. The engine's log tells of bans.")
		return s, nil
	}
	defer func() {
		for i := range s.Findings {
			s.Findings[i].Machine = cmp.Or(s.Findings[i].Machine, cred.Login)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	asked := o.Now()
	standing, isMuster, answer, err := upstream.AskStanding(ctx, o.HTTP, base)
	answered := o.Now()
	if found := checkReach(base, err); len(found) > 0 {
		s.found(found...)
		return s, nil
	}
	if answer != nil {
		s.check("Its clock and this machine's agree.", checkClock(answer.Header, asked, answered))
	}
	if !isMuster {
		s.check("It is not a Muster, or one that does not tell about bans: the engine's log does.", checkAnswer(answer))
		return s, nil
	}
	s.check("It is a Muster and does not refuse this address ("+standing.Address+").", checkStanding(standing, answered))
	s.found(standing.Findings...)
	return s, &standing
}

// checkReach judges the error of a call. A ban is no failure to reach.
func checkReach(base *url.URL, err error) []muster.Finding {
	var ban *upstream.BannedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ban):
		return checkStanding(upstream.Standing{Address: ban.Ban.Address, Banned: true, Ban: ban.Ban}, time.Time{})
	}
	return []muster.Finding{{
		Kind: Unreachable, Severity: muster.Critical, Count: 1,
		Summary:  "The Central API cannot be reached from this machine: the engine cannot start without a cached token.",
		Evidence: lines(upstream.Explain(base.Host, err).Error()),
		Fix:      "curl " + base.String() + " from this machine, then see to its name, route, firewall or certificate.",
	}}
}

// checkAnswer judges an answer to the question about bans that is no Muster's.
func checkAnswer(r *upstream.Response) []muster.Finding {
	f := muster.Finding{Kind: NotACentralAPI, Severity: muster.Warning, Count: 1, Fix: "Mend url in the engine's credentials: muster join URL."}
	switch to := r.Header.Get("Location"); {
	case r.Status/100 == 3:
		f.Summary = "The address in the engine's credentials redirects; a redirected report loses its body."
		f.Evidence = []string{fmt.Sprintf("status %d to %s", r.Status, clip(to))}
	case r.Status >= 500:
		f.Kind, f.Severity = Unreachable, muster.Critical
		f.Summary = "The Central API, or the proxy in front of it, answers with an error."
		f.Evidence = []string{fmt.Sprintf("status %d", r.Status)}
		f.Fix = "See its log and that of the proxy."
	default:
		return nil
	}
	return []muster.Finding{f}
}

// maxSkew is how far clocks may be apart: tokens live for hours, but reports
// from the future are refused.
const maxSkew = 5 * time.Minute

// checkClock compares this machine's clock with the Date of an answer, which is
// in whole seconds and from some time between asked and answered.
func checkClock(h http.Header, asked, answered time.Time) []muster.Finding {
	there, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return nil
	}
	skew := asked.Add(answered.Sub(asked) / 2).Sub(there)
	if skew.Abs() <= maxSkew {
		return nil
	}
	which := "ahead of"
	if skew < 0 {
		which = "behind"
	}
	return []muster.Finding{{
		Kind: ClockSkew, Severity: muster.Warning, Count: 1, Last: answered.UTC(),
		Summary:  fmt.Sprintf("This machine's clock is %s %s that of the Central API: decisions end at the wrong time, tokens early or never.", skew.Abs().Round(time.Second), which),
		Evidence: []string{"here " + at(answered) + ", there " + at(there)},
		Fix:      "timedatectl set-ntp true, on whichever is wrong.",
	}}
}

// checkStanding tells of a ban.
func checkStanding(s upstream.Standing, now time.Time) []muster.Finding {
	if !s.Banned {
		return nil
	}
	b := s.Ban
	what := "refuses every call from"
	if b.LoginsOnly {
		what = "refuses logins from"
	}
	until := "until somebody lifts it"
	if !b.Until.IsZero() {
		until = "until " + at(b.Until)
		if !now.IsZero() {
			until += " (" + strings.TrimSuffix(b.Until.Sub(now).Round(time.Minute).String(), "0s") + " from now)"
		}
	}
	f := muster.Finding{
		Kind: Banned, Severity: muster.Critical, Count: 1, Last: now.UTC(),
		Summary:  fmt.Sprintf("The Central API %s this address (%s) %s: %s.", what, s.Address, until, b.Reason),
		Evidence: append([]string{}, b.Check...),
		Fix:      "Stop whatever logs in from this address, mend the cause, and start it when the ban has ended.",
	}
	if b.Extends {
		f.Fix = "Stop the engine (systemctl stop crowdsec, or docker stop) and all that calls this API, because every call starts the ban again; mend the cause, and start it when the ban has ended."
	}
	if b.Limit != "" {
		f.Evidence = append(f.Evidence, "limit: "+b.Limit)
	}
	if b.Look != "" {
		f.Evidence = append(f.Evidence, "to see it without prolonging it: "+b.Look)
	}
	if b.Appeal != "" {
		f.Evidence = append(f.Evidence, "to have it lifted: "+b.Appeal)
	}
	f.Evidence = f.Evidence[:min(len(f.Evidence), 8)]
	return []muster.Finding{f}
}
