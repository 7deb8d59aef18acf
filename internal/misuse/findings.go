package misuse

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster"
)

// maxEvidence is how many lines of evidence a finding has.
const maxEvidence = 8

const (
	fixShared  = "register every engine by itself (cscli capi register, or muster join, on each machine) and do not copy online_api_credentials.yaml"
	fixRestart = "see why it stops (journalctl -u crowdsec, or docker logs), and keep /var/lib/crowdsec/data, where the token is cached, on a volume"
	fixProbe   = "use `cscli lapi status` as the health check: `cscli capi status` logs in each time"
	fixCrowd   = "run one LAPI for the site and the other engines as its agents, or ask the operator for an allowance (muster admin override add %s)"
)

// candidate is a finding that has no words yet.
type candidate struct {
	kind     muster.FindingKind
	severity muster.Severity
	count    int
	last     int64
	machine  string
	address  addrKey
}

// worst orders findings: critical ones first, the higher count, the later one;
// and what is left by name, so that the order is always the same.
func worst(a, b candidate) int {
	return cmp.Or(
		cmp.Compare(rank(b.severity), rank(a.severity)),
		cmp.Compare(b.count, a.count), cmp.Compare(b.last, a.last),
		cmp.Compare(a.kind, b.kind), cmp.Compare(a.machine, b.machine),
		a.address.compare(b.address),
	)
}

func rank(s muster.Severity) int {
	if s == muster.Critical {
		return 1
	}
	return 0
}

func (w *Watch) severity(recent int) muster.Severity {
	if recent >= w.cfg.Critical {
		return muster.Critical
	}
	return muster.Warning
}

// Findings returns what holds at now, the worst first, at most
// Config.MaxFindings. It looks at all that is kept, a 64th part at a time, which
// waits for nobody else.
func (w *Watch) Findings(now time.Time) []muster.Finding {
	at := now.UnixMilli()
	var all []candidate
	most, full := w.cfg.MaxFindings, false
	keep := func(c candidate) {
		if full && worst(c, all[most-1]) > 0 {
			return
		}
		if all = append(all, c); len(all) >= 2*most {
			slices.SortFunc(all, worst)
			all, full = all[:most], true
		}
	}
	w.machines.each(func(_ *shard[string, machine], r *record[string, machine]) {
		w.judgeMachine(at, r.key, &r.v, func(c candidate, _ func() muster.Finding) { keep(c) })
	})
	w.addresses.each(func(_ *shard[addrKey, address], r *record[addrKey, address]) {
		w.judgeAddress(at, r.key, &r.v, func(c candidate, _ func() muster.Finding) { keep(c) })
	})
	slices.SortFunc(all, worst)
	all = all[:min(len(all), most)]

	found := make([]muster.Finding, 0, len(all))
	for _, want := range all {
		// What has changed meanwhile is told as it is by now, or not at all.
		tell := func(c candidate, f func() muster.Finding) {
			if c.kind == want.kind && c.address == want.address {
				found = append(found, f())
			}
		}
		if want.machine != "" {
			w.lookAtMachine(at, want.machine, tell)
		} else {
			w.lookAtAddress(at, want.address, tell)
		}
	}
	return found
}

// About returns what explains the trouble of a client, the worst first: of the
// machine everywhere, or at addr if that is given; and whether addr is shared.
// Without a machine it is all that was found at addr, of all machines that
// logged in there: that is for the operator, because these machines need not
// know each other. Also the evidence of a shared address names them.
func (w *Watch) About(now time.Time, addr netip.Addr, machine string) []muster.Finding {
	type told struct {
		candidate
		muster.Finding
	}
	var all []told
	at, key := now.UnixMilli(), addrKey{}
	tell := func(c candidate, f func() muster.Finding) {
		if !addr.IsValid() || c.kind == muster.SharedCredentials || c.address == key {
			all = append(all, told{c, f()})
		}
	}
	machines := []string{machine}
	if addr.IsValid() {
		key = keyOf(addr)
		w.lookAtAddress(at, key, tell)
		if machine == "" {
			machines = w.neighbours(key)
		}
	}
	for _, id := range machines {
		w.lookAtMachine(at, id, tell)
	}
	slices.SortFunc(all, func(a, b told) int { return worst(a.candidate, b.candidate) })
	found := make([]muster.Finding, 0, len(all))
	for _, t := range all {
		found = append(found, t.Finding)
	}
	return found
}

func (w *Watch) neighbours(key addrKey) (machines []string) {
	s := w.addresses.shard(key.hash(w.cfg.Seed))
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.get(key); r != nil {
		for _, n := range r.v.machines {
			machines = append(machines, n.machine)
		}
	}
	return machines
}

// teller is called with each finding, its words to be made before it returns.
type teller func(candidate, func() muster.Finding)

func (w *Watch) lookAtMachine(at int64, id string, tell teller) {
	s := w.machines.shard(hashString(w.cfg.Seed, id))
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.get(id); r != nil {
		w.judgeMachine(at, id, &r.v, tell)
	}
}

func (w *Watch) lookAtAddress(at int64, key addrKey, tell teller) {
	s := w.addresses.shard(key.hash(w.cfg.Seed))
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.get(key); r != nil {
		w.judgeAddress(at, key, &r.v, tell)
	}
}

func (w *Watch) judgeMachine(at int64, id string, m *machine, tell teller) {
	if ro := m.roaming(&w.cfg, w.windowMs); ro.found && at-ro.last < w.windowMs {
		c := candidate{
			kind: muster.SharedCredentials, severity: w.severity(ro.addresses),
			count: ro.addresses, last: ro.last, machine: id,
		}
		tell(c, func() muster.Finding { return c.finding(m.organisation, ro.first).of(w.tellRoaming(m, id, ro)) })
	}
	var kept [maxLogins / 3]spell
	for _, sp := range m.spells(kept[:0], &w.cfg, w.windowMs) {
		if at-sp.last >= w.windowMs {
			continue
		}
		c := candidate{
			kind: muster.RestartLoop, severity: w.severity(sp.recent),
			count: sp.count, last: sp.last, machine: id, address: m.keyOf(sp.tag),
		}
		if sp.probe {
			c.kind = muster.StatusProbe
		}
		tell(c, func() muster.Finding { return c.finding(m.organisation, sp.first).of(tellLogins(m, id, sp)) })
	}
}

func (w *Watch) judgeAddress(at int64, key addrKey, a *address, tell teller) {
	if at-a.lastLogin >= w.windowMs {
		return
	}
	cr := a.judge(w.windowMs)
	if cr.machines < w.cfg.Neighbours {
		return
	}
	c := candidate{
		kind: muster.SharedAddress, severity: w.severity(cr.machines),
		count: cr.machines, last: cr.last, address: key,
	}
	tell(c, func() muster.Finding { return c.finding("", cr.first).of(w.tellCrowd(a, key, cr)) })
}

// keyOf returns the address of a login, or the zero key when it is forgotten.
func (m *machine) keyOf(tag uint32) addrKey {
	for i := range m.homes {
		if m.homes[i].key.tag() == tag {
			return m.homes[i].key
		}
	}
	return addrKey{}
}

type finding muster.Finding

func (c candidate) finding(organisation string, first int64) finding {
	f := finding{
		Kind: c.kind, Severity: c.severity, Machine: c.machine, Organisation: organisation, Count: c.count,
		First: time.UnixMilli(first).UTC(), Last: time.UnixMilli(c.last).UTC(),
	}
	if c.address != (addrKey{}) {
		f.Address = muster.SourceFromPrefix(c.address.prefix())
	}
	return f
}

type words struct {
	summary, fix string
	evidence     []string
}

func (f finding) of(w words) muster.Finding {
	f.Summary, f.Fix, f.Evidence = w.summary, w.fix, w.evidence
	return muster.Finding(f)
}

func (w *Watch) tellRoaming(m *machine, id string, ro roaming) words {
	homes := slices.DeleteFunc(slices.Clone(m.homes), func(h home) bool { return !h.liveAt(ro.last, w.windowMs) })
	slices.SortFunc(homes, func(a, b home) int {
		return cmp.Or(cmp.Compare(b.last, a.last), a.key.compare(b.key))
	})
	var lines []string
	for _, h := range homes {
		lines = append(lines, fmt.Sprintf("%s: %s, the last at %s", show(h.key), count(int(h.contacts), "contact", "contacts"), clock(h.last)))
	}
	return words{
		summary: fmt.Sprintf("machine %s is used at %s addresses at once: it changed between them %s in %s",
			id, orMore(ro.addresses, maxHomes),
			times(m.moves.changes), span(ro.last-ro.first)),
		fix: fixShared, evidence: few(lines, "addresses"),
	}
}

func tellLogins(m *machine, id string, s spell) words {
	l := m.logins
	did, fix := " without pulling or pushing in between", fixRestart
	switch {
	case s.probe && s.steady:
		did, fix = fmt.Sprintf(", about every %s, and did nothing with it, as a health check that runs `cscli capi status` does", span(s.median.Milliseconds())), fixProbe
	case s.probe:
		did, fix = " and did nothing with it, as a script that runs `cscli capi status` does", fixProbe
	case s.starts > 0 && s.pushed:
		did = " and asked for the full list anew in between, as an engine does when it starts"
	case s.starts > 0:
		did = " and did nothing in between but ask for the full list anew, as an engine does when it starts"
	}
	lines := []string{fmt.Sprintf("first login at %s, last at %s, median gap %s", clock(s.first), clock(s.last), span(s.median.Milliseconds()))}
	of := func(n int, what string) {
		lines = append(lines, fmt.Sprintf("%d of the last %d logins %s", n, s.looked, what))
	}
	if s.probe {
		of(s.lones, "had nothing after them at once")
	} else {
		of(s.starts, "had a startup pull after them")
	}
	if s.bares > 0 {
		of(s.bares, "declared no scenarios, as an engine in a fresh container does")
	}
	if s.worked {
		lines = append(lines, "an engine with the same machine id was at work in between")
	}
	if l.agent != "" {
		lines = append(lines, fmt.Sprintf("user agent %q", l.agent))
	}
	return words{
		summary:  fmt.Sprintf("machine %s logged in %s in %s%s", id, times(s.count), span(s.last-s.first), did),
		fix:      fix,
		evidence: lines,
	}
}

func (w *Watch) tellCrowd(a *address, key addrKey, cr crowd) words {
	machines := slices.DeleteFunc(slices.Clone(a.machines), func(n neighbour) bool { return n.last <= a.lastLogin-w.windowMs })
	slices.SortFunc(machines, func(a, b neighbour) int {
		return cmp.Or(cmp.Compare(b.last, a.last), cmp.Compare(a.machine, b.machine))
	})
	var lines []string
	for _, n := range machines {
		lines = append(lines, fmt.Sprintf("machine %s: last login at %s", n.machine, clock(n.last)))
	}
	return words{
		summary: fmt.Sprintf("%s machines logged in from %s in %s",
			orMore(cr.machines, maxNeighbours), show(key), span(cr.last-cr.first)),
		fix: fmt.Sprintf(fixCrowd, show(key)), evidence: few(lines, "machines"),
	}
}

// show writes a v4 address plain, and a v6 /64 as such.
func show(k addrKey) string {
	if k.family == v4 {
		return k.prefix().Addr().String()
	}
	return k.prefix().String()
}

func clock(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05 UTC") }

func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// orMore writes a number that is not counted further than most.
func orMore(n, most int) string {
	if n >= most {
		return fmt.Sprintf("%d or more", n)
	}
	return strconv.Itoa(n)
}

// few cuts lines to maxEvidence and says how many are missing.
func few(lines []string, what string) []string {
	if len(lines) <= maxEvidence {
		return lines
	}
	return append(lines[:maxEvidence-1], fmt.Sprintf("and %d more %s", len(lines)-maxEvidence+1, what))
}

// span writes a duration in its two greatest units, rounded to seconds.
func span(ms int64) string {
	seconds := (ms + 500) / 1000
	if seconds == 0 {
		return "less than a second"
	}
	var parts []string
	for _, u := range []struct {
		seconds   int64
		one, many string
	}{
		{86400, "day", "days"}, {3600, "hour", "hours"}, {60, "minute", "minutes"}, {1, "second", "seconds"},
	} {
		if n := seconds / u.seconds; n > 0 && len(parts) < 2 {
			parts = append(parts, count(int(n), u.one, u.many))
			seconds -= n * u.seconds
		}
	}
	return strings.Join(parts, " ")
}
