package misuse

import (
	"slices"
	"time"
)

// spell is a stretch of logins from one place that makes a finding.
type spell struct {
	probe       bool   // else a restart loop
	tag         uint32 // the address of its last login
	begin, end  uint8  // its first and last login that are kept
	count       int    // logins
	recent      int    // of these within a window of the last
	first, last int64
	median      time.Duration // gap
	steady      bool

	// Of the last so many logins: how many a startup pull followed, how many
	// declared no scenarios, how many nothing followed.
	looked, starts, bares, lones int
	pushed                       bool // signals came in between
	worked                       bool // an engine was at work in between
}

// spells appends the spells of m, those that have ended too: a caller drops
// them by their last login.
func (m *machine) spells(into []spell, c *Config, window int64) []spell {
	l := m.logins
	if l == nil || int(l.n) < c.Logins {
		return into
	}
	var places [maxLogins]uint8
	if n := m.live(l.last, window); n[0] <= 1 && n[1] <= 1 {
		all := places[:l.n]
		for i := range all {
			all[i] = uint8(i)
		}
		if s, ok := l.judge(all, c, window); ok {
			into = append(into, l.extend(s))
		}
		return into
	}
	for i := range int(l.n) {
		if slices.Contains(l.from[:i], l.from[i]) {
			continue
		}
		place := places[:0]
		for j := i; j < int(l.n); j++ {
			if l.from[j] == l.from[i] {
				place = append(place, uint8(j))
			}
		}
		if s, ok := l.judge(place, c, window); ok {
			into = append(into, s)
		}
	}
	return into
}

// judge finds a probe in the logins of a place, as of the last one, or else the
// last restart loop.
func (l *logins) judge(place []uint8, c *Config, window int64) (spell, bool) {
	recent := place[l.within(place, window):]
	if s := l.describe(recent); s.count >= c.Logins && l.probes(s) {
		s.probe = true
		return s, true
	}
	for end := len(place); end >= c.Logins; {
		begin := end - 1
		for begin > 0 && !l.did[place[begin-1]].works() {
			begin--
		}
		run := place[begin:end]
		run = run[l.within(run, window):]
		if len(run) >= c.Logins {
			return l.describe(run), true
		}
		end = begin
	}
	return spell{}, false
}

// probes reports whether s is that of a program that logs in for nothing else,
// beside an engine or without. What does so is a status check if it is steady,
// if an engine was alive meanwhile, or if an engine would not have had to log
// in; else it may be an engine that dies at once.
func (l *logins) probes(s spell) bool {
	return 2*s.lones >= s.count && (s.steady || s.worked || l.cached && s.bares == 0)
}

// within returns the index of the first login that is less than a window older
// than the last one.
func (l *logins) within(place []uint8, window int64) int {
	since := l.time(int(place[len(place)-1])) - window
	return slices.IndexFunc(place, func(i uint8) bool { return l.time(int(i)) > since })
}

func (l *logins) describe(place []uint8) spell {
	n := len(place)
	s := spell{
		tag: l.from[place[n-1]], count: n, recent: n, looked: n, begin: place[0], end: place[n-1],
		first: l.time(int(place[0])), last: l.time(int(place[n-1])),
	}
	for _, i := range place {
		s.worked = s.worked || l.did[i].works()
	}
	var gaps [maxLogins]int64
	for k, i := range place {
		d := l.did[i]
		if d.any(started) {
			s.starts++
		}
		if d.any(bare) {
			s.bares++
		}
		// An engine at work has reported its scenarios: without any it is not its
		// own login, and without it is a start in an empty container.
		if !d.any(started|acted) && (!d.any(bare) || s.worked) {
			s.lones++
		}
		s.pushed = s.pushed || d.any(pushed)
		if k > 0 {
			gaps[k-1] = l.time(int(i)) - l.time(int(place[k-1]))
		}
	}
	s.median, s.steady = rhythm(gaps[:n-1])
	return s
}

// rhythm returns the median of gaps, in milliseconds, which it sorts, and
// whether three quarters of them are within a fifth of it, or a second.
func rhythm(gaps []int64) (median time.Duration, steady bool) {
	if len(gaps) == 0 {
		return 0, false
	}
	slices.Sort(gaps)
	m := gaps[len(gaps)/2]
	near := 0
	for _, g := range gaps {
		if d := g - m; max(d, -d) <= max(m/5, 1000) {
			near++
		}
	}
	return time.Duration(m) * time.Millisecond, 4*near >= 3*len(gaps)
}

// extend counts logins that are no longer kept, if they belong to s: it is all
// that the machine did.
func (l *logins) extend(s spell) spell {
	if s.begin != 0 {
		return s
	}
	switch {
	case s.probe:
		s.count, s.first = int(l.count), l.countFirst
	case int(s.end) == int(l.n)-1 && int(l.idle) > s.count:
		s.count, s.first = int(l.idle), l.idleFirst
	}
	return s
}
