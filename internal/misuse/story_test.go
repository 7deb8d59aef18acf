package misuse

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"muster"
)

var t0 = time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)

const (
	modern = "crowdsec/v1.7.8-docker"
	old    = "crowdsec/v1.6.2-linux"
)

// step is one contact of a story, at a time after t0.
type step struct {
	at time.Duration
	Contact
}

type story []step

// tell lets w see all steps of some stories in the order of their times, and
// returns the time of the last one.
func tell(w *Watch, stories ...story) (end time.Time) {
	all := slices.Concat(stories...)
	slices.SortStableFunc(all, func(a, b step) int { return int(a.at - b.at) })
	for _, s := range all {
		end = t0.Add(s.at)
		w.See(end, s.Contact)
	}
	return end
}

// host is a machine at an address.
type host struct{ machine, addr, agent string }

func (h host) does(what What, at ...time.Duration) (s story) {
	for _, t := range at {
		s = append(s, step{t, Contact{Machine: h.machine, Organisation: "org-" + h.machine, Addr: netip.MustParseAddr(h.addr), What: what, Agent: h.agent}})
	}
	return s
}

// starts is an engine's start: login, metrics at once, the full list 8 s later.
func (h host) starts(at ...time.Duration) (s story) {
	for _, t := range at {
		s = append(s, h.does(Login, t)...)
		s = append(s, h.does(Other, t+5*time.Millisecond)...)
		s = append(s, h.does(StartupPull, t+8*time.Second)...)
	}
	return s
}

// fresh is the start of an engine in an empty container.
func (h host) fresh(at ...time.Duration) (s story) {
	s = h.starts(at...)
	for i := range s {
		s[i].NoScenarios = s[i].What == Login
	}
	return s
}

// works is an engine's day of work, without a start: pulls every 2 h, metrics
// every 30 minutes, a refresh of the token every 12 h, with a call behind it,
// and pushes at a period (0: none).
func (h host) works(from, to, push time.Duration) (s story) {
	s = append(s, h.does(Pull, every(2*time.Hour, from+2*time.Hour, to)...)...)
	s = append(s, h.does(Other, every(30*time.Minute, from+23*time.Minute, to)...)...)
	s = append(s, h.does(Login, every(12*time.Hour, from+12*time.Hour, to)...)...)
	s = append(s, h.does(Other, every(12*time.Hour, from+12*time.Hour+20*time.Millisecond, to)...)...)
	if push > 0 {
		s = append(s, h.does(Push, every(push, from+push, to)...)...)
	}
	return s
}

// polls is a PAPI poller: each poll hangs for 45 seconds.
func (h host) polls(from, to time.Duration) story {
	return h.does(Poll, every(45*time.Second, from, to)...)
}

func every(period, from, to time.Duration) (at []time.Duration) {
	for t := from; t < to; t += period {
		at = append(at, t)
	}
	return at
}

func shifted(at []time.Duration, by ...time.Duration) []time.Duration {
	at = slices.Clone(at)
	for i := range at {
		at[i] += by[i%len(by)]
	}
	return at
}

var (
	here   = host{"m1", "192.0.2.7", modern}
	away   = host{"m1", "198.51.100.9", modern}
	third  = host{"m1", "203.0.113.5", modern}
	overV6 = host{"m1", "2001:db8:1:2::7", modern}
	aged   = host{"m1", "192.0.2.7", old}
)

const (
	second = time.Second
	minute = time.Minute
	hour   = time.Hour
)

// peek looks for findings after each contact: none may show up on the way.
func peek(w *Watch, stories ...story) (found []muster.Finding) {
	all := slices.Concat(stories...)
	slices.SortStableFunc(all, func(a, b step) int { return int(a.at - b.at) })
	for _, st := range all {
		w.See(t0.Add(st.at), st.Contact)
		if f := w.Findings(t0.Add(st.at)); len(f) > 0 {
			return f
		}
	}
	return nil
}

func TestHealthyClientsGiveNoFindings(t *testing.T) {
	var fourAtHome, busyFour []story
	for i := range 4 {
		h := host{fmt.Sprint("m", i), "192.0.2.7", modern}
		fourAtHome = append(fourAtHome, h.starts(time.Duration(i)*minute), h.works(0, 24*hour, 0))
		busyFour = append(busyFour, h.starts(0), h.works(0, 3*hour, 10*second))
	}
	for name, stories := range map[string][]story{
		"an engine for two days":            {here.starts(0), here.works(0, 48*hour, 17*minute)},
		"an engine under attack":            {here.starts(0), here.works(0, 6*hour, 10*second)},
		"an engine with nothing to report":  {here.starts(0), here.works(0, 48*hour, 0)},
		"an engine with orders":             {here.starts(0), here.works(0, 12*hour, 17*minute), here.polls(0, 12*hour)},
		"tokens of five minutes":            {here.starts(0), here.does(Login, every(5*minute, 5*minute, 6*hour)...), here.does(Push, every(5*minute, 5*minute+30*time.Millisecond, 6*hour)...)},
		"three reboots":                     {here.starts(0, 10*minute, 25*minute), here.works(26*minute, 24*hour, 5*minute)},
		"a deployment with three restarts":  {here.fresh(0, 2*minute, 5*minute), here.works(6*minute, 24*hour, 0)},
		"an engine cannot start five times": {here.does(Login, 0, minute, 2*minute, 3*minute, 4*minute), here.starts(20 * minute), here.works(21*minute, 3*hour, 0)},
		"five checks by hand":               {here.starts(0), here.works(0, 24*hour, 0), here.does(Login, hour, hour+20*second, hour+40*second, hour+minute, hour+5*minute)},
		"five checks by hand, no engine":    {here.does(Login, 0, 20*second, 40*second, minute, 5*minute)},
		"a check every ten minutes":         {here.starts(0), here.works(0, 24*hour, 0), here.does(Login, every(10*minute, 0, 24*hour)...)},
		"a new dynamic address":             {here.starts(0), here.works(0, 5*hour, 10*second), away.works(5*hour, 10*hour, 10*second)},
		"a new dynamic address three times": {here.works(0, 20*minute, 10*second), away.works(20*minute, 40*minute, 10*second), third.works(40*minute, hour, 10*second), host{"m1", "192.0.2.99", modern}.works(hour, 2*hour, 10*second)},
		"a line that fails over and back":   {here.works(0, 20*minute, 10*second), away.works(20*minute, 30*minute, 10*second), here.works(30*minute, 2*hour, 10*second)},
		"dual stack": {
			here.starts(0), here.works(0, 12*hour, 30*second),
			overV6.works(7*second, 12*hour, 30*second), overV6.does(Login, 6*hour), here.does(Pull, 6*hour+time.Second),
		},
		"dual stack, privacy addresses": {
			here.works(0, hour, 30*second), overV6.works(7*second, hour, 40*second),
			host{"m1", "2001:db8:1:2:aaaa::1", modern}.works(11*second, hour, 40*second),
		},
		"a line that falls back now and then": {
			here.does(Push, 0, 10*minute), away.does(Push, 5*minute), third.does(Push, 50*minute, 100*minute),
			host{"m1", "192.0.2.99", modern}.does(Push, 95*minute),
		},
		"five machines at one address, hours apart": {
			here.does(Login, 0), host{"m2", "192.0.2.7", modern}.does(Login, hour), host{"m3", "192.0.2.7", modern}.does(Login, 2*hour),
			host{"m4", "192.0.2.7", modern}.does(Login, 3*hour), host{"m5", "192.0.2.7", modern}.does(Login, 4*hour),
		},
		"four engines at home":                  fourAtHome,
		"four engines at home, under attack":    busyFour,
		"a line that breaks, and logs in again": {here.starts(0), here.works(0, 3*hour, 0), here.does(Login, every(41*second, minute, 3*hour)...), here.does(Push, every(41*second, minute+50*time.Millisecond, 3*hour)...)},
		"a proxy that cuts polls": {
			here.starts(0), here.works(0, 3*hour, 0),
			here.does(Login, every(31*second, minute, 3*hour)...), here.does(Poll, every(31*second, minute+50*time.Millisecond, 3*hour)...),
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, f := range peek(New(Config{}), stories...) {
				t.Errorf("expected no finding, got %s: %s %q", f.Kind, f.Summary, f.Evidence)
			}
		})
	}
}

// docker is how Docker restarts: after 100 ms, twice that, and so on up to a
// minute.
func docker(n int) (at []time.Duration) {
	t, wait := time.Duration(0), 100*time.Millisecond
	for range n {
		at = append(at, t)
		t += 9*second + wait
		wait = min(2*wait, minute)
	}
	return at
}

// irregular is n times with gaps of 3 to 200 seconds.
func irregular(n int) (at []time.Duration) {
	t := time.Duration(0)
	for i := range n {
		at = append(at, t)
		t += []time.Duration{3 * second, 200 * second, 17 * second, 90 * second, 8 * second}[i%5]
	}
	return at
}

func TestMisuseIsFound(t *testing.T) {
	var fleet, crowd, crowdV6 []story
	for i := range 30 {
		copied := host{"m1", fmt.Sprintf("198.51.100.%d", i+1), modern}
		fleet = append(fleet, copied.starts(time.Duration(i)*second), copied.works(minute, 40*minute, 0))
		at := time.Duration(i) * 20 * second
		if i < 23 {
			crowd = append(crowd, host{fmt.Sprintf("m%02d", i), "192.0.2.7", modern}.starts(at))
		}
		if i < 5 {
			crowdV6 = append(crowdV6, host{fmt.Sprintf("m%02d", i), fmt.Sprintf("2001:db8:0:1::%d", i+1), modern}.starts(at))
		}
	}
	for _, tt := range []struct {
		name    string
		stories []story
		kind    muster.FindingKind
		worst   muster.Severity
		count   int
	}{
		{"a fresh container in a loop", []story{here.fresh(every(20*second, 0, 7*minute)...)}, muster.RestartLoop, muster.Critical, 21},
		{"as Docker restarts it", []story{here.fresh(docker(12)...)}, muster.RestartLoop, muster.Warning, 12},
		{"it dies before its first pull", []story{here.does(Login, every(minute, 0, 12*minute)...), here.does(Other, every(minute, 3*time.Millisecond, 12*minute)...)}, muster.RestartLoop, muster.Warning, 12},
		{"it dies before its first pull, with orders", []story{
			here.does(Login, every(minute, 0, 12*minute)...), here.does(Other, every(minute, 3*time.Millisecond, 12*minute)...), here.does(Poll, every(minute, 4*time.Millisecond, 12*minute)...),
		}, muster.RestartLoop, muster.Warning, 12},
		{"an old engine dies at once, irregularly", []story{aged.does(Login, irregular(15)...)}, muster.RestartLoop, muster.Warning, 15},
		{"a fresh container dies at once", []story{bareLogins(here, every(minute, 0, 12*minute))}, muster.RestartLoop, muster.Warning, 12},
		{"a fresh container dies at once, and somebody looks", []story{bareLogins(here, irregular(8)), here.does(Login, shifted(irregular(10), 5*second)...)}, muster.RestartLoop, muster.Warning, 18},
		{"copies behind one address start at once", []story{
			here.does(Login, every(100*time.Millisecond, 0, 1200*time.Millisecond)...),
			here.does(StartupPull, every(100*time.Millisecond, 8*second, 9200*time.Millisecond)...),
		}, muster.RestartLoop, muster.Warning, 12},
		{"copies behind one address start at once, and die", []story{
			here.does(Login, every(100*time.Millisecond, 0, 1200*time.Millisecond)...),
			here.does(Other, every(50*time.Millisecond, 1200*time.Millisecond, 1800*time.Millisecond)...),
		}, muster.RestartLoop, muster.Warning, 12},
		{"a loop after single starts", []story{here.fresh(0, 40*minute, 85*minute), here.fresh(every(minute, 2*hour, 2*hour+12*minute)...)}, muster.RestartLoop, muster.Warning, 13},
		{"it lives long enough to push", []story{here.fresh(every(2*minute, 0, 30*minute)...), here.does(Push, every(2*minute, 30*second, 30*minute)...)}, muster.RestartLoop, muster.Warning, 15},
		{"a loop before which it worked", []story{here.works(0, hour, 10*second), here.starts(every(minute, hour, hour+11*minute)...)}, muster.RestartLoop, muster.Warning, 11},
		{"a loop over dual stack", []story{here.fresh(every(minute, 0, 11*minute)...), overV6.fresh(every(minute, 30*second, 11*minute)...)}, muster.RestartLoop, muster.Critical, 22},

		{"a health check beside a quiet engine", []story{here.starts(0), here.works(0, 2*hour, 0), here.does(Login, every(30*second, 10*second, 2*hour)...)}, muster.StatusProbe, muster.Critical, 241},
		{"a health check beside a busy engine", []story{here.starts(0), here.works(0, 20*minute, 10*second), here.does(Login, shifted(every(30*second, 5*second, 20*minute), 0, 3*second, second)...)}, muster.StatusProbe, muster.Critical, 41},
		{"a health check beside an engine with orders", []story{here.starts(0), here.works(0, 12*minute, 7*minute), here.polls(0, 12*minute), here.does(Login, every(60*second, 10*second, 12*minute)...)}, muster.StatusProbe, muster.Warning, 13},
		{"a health check every five minutes", []story{here.does(Login, every(5*minute, 0, 46*minute)...)}, muster.StatusProbe, muster.Warning, 10},
		{"a health check of an old cscli", []story{aged.does(Login, every(30*second, 0, 6*minute)...)}, muster.StatusProbe, muster.Warning, 12},
		{"a page that checks when it is opened", []story{here.starts(0), here.works(0, hour, 0), here.does(Login, shifted(irregular(14), 30*second)...)}, muster.StatusProbe, muster.Warning, 15},
		{"a page that checks, beside an old engine", []story{aged.starts(0), aged.does(Push, every(13*second, 0, 20*minute)...), aged.does(Login, shifted(irregular(14), 30*second)...)}, muster.StatusProbe, muster.Warning, 15},
		{"a health check after single checks", []story{here.does(Login, 0, 40*minute, 80*minute), here.does(Login, every(30*second, 2*hour, 2*hour+6*minute)...)}, muster.StatusProbe, muster.Warning, 13},
		{"a health check of a LAPI without scenarios", []story{bareLogins(here, every(30*second, 0, 12*minute)), here.does(Push, every(4*minute, 2*minute, 12*minute)...)}, muster.StatusProbe, muster.Critical, 24},

		{"two copies with nothing to report", []story{here.works(0, 2*hour, 0), away.works(10*minute, 2*hour, 0)}, muster.SharedCredentials, muster.Warning, 2},
		{"two busy copies over dual stack", []story{here.works(0, hour, 10*second), away.works(0, hour, 10*second), overV6.works(0, hour, 10*second)}, muster.SharedCredentials, muster.Warning, 3},
		{"thirty copies", fleet, muster.SharedCredentials, muster.Critical, 24},
		{"two copies over v6", []story{overV6.works(0, hour, 10*second), host{"m1", "2001:db8:1:3::7", modern}.works(0, hour, 10*second)}, muster.SharedCredentials, muster.Warning, 2},

		{"many engines behind one address", crowd, muster.SharedAddress, muster.Critical, 23},
		{"five engines in one /64", crowdV6, muster.SharedAddress, muster.Warning, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := New(Config{})
			end := tell(w, tt.stories...)
			got := w.Findings(end)
			if len(got) != 1 {
				t.Fatalf("expected one finding, got %+v", got)
			}
			if f := got[0]; f.Kind != tt.kind || f.Severity != tt.worst || f.Count != tt.count {
				t.Errorf("expected %s, %s, count %d; got %+v", tt.kind, tt.worst, tt.count, f)
			}
		})
	}
}

func bareLogins(h host, at []time.Duration) story {
	st := h.does(Login, at...)
	for i := range st {
		st[i].NoScenarios = true
	}
	return st
}
