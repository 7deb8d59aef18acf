package catalog

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"muster"
)

// ownWindow is how far back reports of an organisation count for lists of what
// it has seen.
const ownWindow = 30 * 24 * time.Hour

// matcher decides what a rule chooses, of what it is made with.
type matcher struct {
	rule     muster.ListRule
	remedy   muster.Remedy // of the list
	since    time.Time     // listed then or later
	reported map[muster.Source]struct{}
	*Service
}

// matcher reads what a list's rule needs besides the published set.
func (s *Service) matcher(ctx context.Context, l *muster.Blocklist, organisation string, now time.Time) (m matcher, err error) {
	m = matcher{rule: l.Rule, remedy: l.Remedy, since: now.Add(-l.Rule.Since), Service: s}
	if l.Rule.Own && organisation != "" {
		m.reported, err = s.cfg.Network.ReportedBy(ctx, organisation, now.Add(-ownWindow))
	}
	return m, err
}

// chooses reports whether an entry of the network's list is on the rule's.
func (m *matcher) chooses(e *muster.ListEntry) bool {
	switch r := &m.rule; {
	case r.Remedy != "" && e.Remedy != r.Remedy:
		return false
	case r.Remedy == "" && e.Remedy != muster.RemedyBan && m.remedy == muster.RemedyBan:
		return false // a list of bans would make a ban of it
	case r.Since > 0 && e.Since.Before(m.since):
		return false
	case r.Own && !has(m.reported, e.Source):
		return false
	case len(r.Behaviours) > 0 && !m.behaves(e.Scenario):
		return false
	case len(r.Scenarios) > 0 && !slices.ContainsFunc(r.Scenarios, func(pattern string) bool { return glob(pattern, e.Scenario) }):
		return false
	case len(r.Countries) > 0 || len(r.ASNs) > 0:
		country, asn := m.cfg.Locate(e.Source.Addr())
		return (len(r.Countries) == 0 || slices.Contains(r.Countries, country)) && (len(r.ASNs) == 0 || slices.Contains(r.ASNs, asn))
	}
	return true
}

func has(set map[muster.Source]struct{}, source muster.Source) bool {
	_, ok := set[source]
	return ok
}

// behaves reports whether a scenario is of one of the rule's behaviours, or
// families of them.
func (m *matcher) behaves(scenario string) bool {
	behaviour := m.cfg.Behaviour(scenario)
	if behaviour == "" {
		return false
	}
	services, _, _ := strings.Cut(behaviour, ":")
	return slices.ContainsFunc(m.rule.Behaviours, func(want string) bool {
		if want == behaviour {
			return true
		}
		for service := range strings.SplitSeq(services, "/") {
			if want == service {
				return true
			}
		}
		return false
	})
}

// glob reports whether a pattern covers all of a name: * stands for any number
// of characters, ? for one.
func glob(pattern, name string) bool {
	star, mark := -1, 0
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// best keeps the n entries with the most points; of equals those that end last.
func best(entries []muster.ListEntry, n int) []muster.ListEntry {
	if len(entries) <= n {
		return entries
	}
	slices.SortFunc(entries, func(a, b muster.ListEntry) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), b.Until.Compare(a.Until), a.Source.Compare(b.Source))
	})
	return entries[:n:n]
}

// CheckRule returns an error of code Invalid that says what is wrong with a
// rule.
func CheckRule(r muster.ListRule) error {
	const most = 100
	if n := max(len(r.Behaviours), len(r.Scenarios), len(r.Countries), len(r.ASNs)); n > most {
		return muster.Errorf(muster.Invalid, "rule: expected at most %d of each, got %d", most, n)
	}
	for _, text := range slices.Concat(r.Behaviours, r.Scenarios) {
		if text == "" || len(text) > 200 || strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return muster.Errorf(muster.Invalid, "rule: expected behaviours like ssh:bruteforce or ssh, and scenarios like crowdsecurity/*, got %q", clip(text))
		}
	}
	for _, c := range r.Countries {
		if len(c) != 2 || c[0] < 'A' || c[0] > 'Z' || c[1] < 'A' || c[1] > 'Z' {
			return muster.Errorf(muster.Invalid, "rule: expected countries like DE, got %q", clip(c))
		}
	}
	if slices.Contains(r.ASNs, 0) {
		return muster.Errorf(muster.Invalid, "rule: expected AS numbers from 1 on, got 0")
	}
	if r.Since < 0 || r.Since > 365*24*time.Hour {
		return muster.Errorf(muster.Invalid, "rule: since: expected up to 365 days, got %s", r.Since)
	}
	if r.Top < 0 || r.Top > 1_000_000 {
		return muster.Errorf(muster.Invalid, "rule: top: expected 1 to 1,000,000, or 0 for all, got %d", r.Top)
	}
	if r.Remedy != "" && r.Remedy != muster.RemedyBan && r.Remedy != muster.RemedyCaptcha {
		return muster.Errorf(muster.Invalid, "rule: remedy: expected ban or captcha, got %q", clip(string(r.Remedy)))
	}
	return nil
}
