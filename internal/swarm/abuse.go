package swarm

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// AbuseConfig says what RunAbuse shall do. Zero values take the default named.
type AbuseConfig struct {
	URL string // of the server, on 127.0.0.0/8; it must not exempt that range from its limits
	Key string // enrolment key that accepts at once

	Watchers    int           // good ones, each with an address of its own; 1,000
	Pace        int           // requests per second that they make together; 500
	Abusers     int           // addresses that get banned; 16
	Connections int           // that the abusers have together, and the forging proxy; 64
	Duration    time.Duration // measured time of quiet and of storm; 10 s each
	Warmup      time.Duration // before each, not measured; none
	Forged      int           // clients that log in once or twice through a proxy; 0: none. The server must trust 127.0.0.1 as a proxy
	ForgedTime  time.Duration // and the time after which they stop; 2 min
	Settle      time.Duration // between them and the last look at the server's memory; 5 s
	Seed        uint64        // 0: a random one. The same seed makes the same machines

	// Usage and RSS read what the server has used so far and its present resident
	// memory in bytes; nil when nobody knows.
	Usage func() (Usage, error)
	RSS   func() (int64, error)
	// Progress, when set, is called about once a second and at changes of phase,
	// from one goroutine.
	Progress func(Progress)
}

func (c AbuseConfig) withDefaults() (AbuseConfig, error) {
	setDefault(&c.Watchers, 1000)
	setDefault(&c.Pace, 500)
	setDefault(&c.Abusers, 16)
	setDefault(&c.Connections, 64)
	setDefault(&c.Duration, 10*time.Second)
	setDefault(&c.ForgedTime, 2*time.Minute)
	setDefault(&c.Settle, 5*time.Second)
	if c.Seed == 0 {
		c.Seed = rand.Uint64()
	}
	switch {
	case c.Watchers < 0 || c.Watchers > 50_000:
		return c, fmt.Errorf("expected 1 to 50,000 watchers, got %d", c.Watchers)
	case c.Pace < 0 || c.Pace > 20_000:
		return c, fmt.Errorf("expected 1 to 20,000 requests per second, got %d", c.Pace)
	case c.Abusers < 0 || c.Abusers > 1000:
		return c, fmt.Errorf("expected 1 to 1,000 abusers, got %d", c.Abusers)
	case c.Connections < 0 || c.Connections > 4096:
		return c, fmt.Errorf("expected 1 to 4,096 connections, got %d", c.Connections)
	case c.Duration < 0 || c.Duration > time.Hour || c.Warmup < 0 || c.Warmup > time.Hour:
		return c, fmt.Errorf("expected a duration and a warm-up of at most 1h, got %s and %s", c.Duration, c.Warmup)
	case c.Forged < 0 || c.Forged > maxForged:
		return c, fmt.Errorf("expected at most %d forged addresses, got %d", maxForged, c.Forged)
	case c.ForgedTime < 0 || c.ForgedTime > time.Hour || c.Settle < 0 || c.Settle > time.Hour:
		return c, fmt.Errorf("expected a time for the forged log-ins and one to settle of at most 1h, got %s and %s", c.ForgedTime, c.Settle)
	}
	return c, nil
}

// The addresses that the load comes from. All of 127.0.0.0/8 is on the loopback
// interface of Linux.
var (
	firstWatcher = netip.AddrFrom4([4]byte{127, 100, 0, 1})
	firstAbuser  = netip.AddrFrom4([4]byte{127, 200, 0, 1})
)

// plus returns the n-th address after a.
func plus(a netip.Addr, n int) netip.Addr {
	b := a.As4()
	n += int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	return netip.AddrFrom4([4]byte{b[0], byte(n >> 16), byte(n >> 8), byte(n)})
}

// RunAbuse measures how a server stands clients that it has banned. Good
// watchers work at a fixed pace, first alone (quiet), then beside banned
// addresses that retry as fast as they are refused (storm). At last a flood of
// log-ins from forged addresses comes through a trusted proxy, to see what
// memory the server spends on it.
//
// What fails under load is counted in the result. An error means that there is
// none: the set-up failed, addresses were not banned, or ctx ended before the
// storm did. The bans stay on the server.
func RunAbuse(ctx context.Context, cfg AbuseConfig) (AbuseResult, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return AbuseResult{}, err
	}
	target, err := ParseTarget(cfg.URL)
	if err != nil {
		return AbuseResult{}, err
	}
	if at, err := netip.ParseAddrPort(target.addr); err != nil || !at.Addr().Is4() {
		return AbuseResult{}, fmt.Errorf("expected a server on an address of 127.0.0.0/8, got %q: that is where the sources of the load are", cfg.URL)
	}
	// The flood's goroutine and the pace's keep one of Go's processors each; the
	// watchers' must not wait behind them, or they measure the generator. The
	// system shares out the cores.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU() + 2))

	a := &abuse{cfg: cfg, target: target, quiet: newWindow(), storm: newWindow()}
	a.res = AbuseResult{Kind: Abuse, Watchers: cfg.Watchers, Pace: cfg.Pace, Abusers: cfg.Abusers, Connections: cfg.Connections}
	a.res.RSSIdle = a.rss()
	for _, phase := range []struct {
		name, unit string
		do         func(context.Context) error
	}{
		{"enrolling", "watchers/s", a.enrol},
		{"quiet", "requests/s", a.beQuiet},
		{"getting banned", "log-ins/s", a.getBanned},
		{"storm", "refused/s", a.rage},
		{"forging", "log-ins/s", a.forge},
	} {
		if err := a.during(phase.name, phase.unit, func() error { return phase.do(ctx) }); err != nil {
			a.end()
			return AbuseResult{}, err
		}
	}
	a.res.Errors, a.res.FirstError = a.faults.count()
	return a.res, nil
}

// abuse is one call of RunAbuse.
type abuse struct {
	cfg    AbuseConfig
	target Target
	faults faults
	units  atomic.Int64 // since the phase began

	good         []*goodWatcher
	steady       *steady
	quiet, storm *window
	abusers      []*Watcher
	res          AbuseResult
}

func (a *abuse) during(phase, unit string, f func() error) error {
	a.units.Store(0)
	start := time.Now()
	return reporting(func() {
		if a.cfg.Progress == nil {
			return
		}
		errs, _ := a.faults.count()
		elapsed := time.Since(start)
		a.cfg.Progress(Progress{
			Phase: phase, Elapsed: elapsed, Unit: unit, Errors: errs,
			Rate: float64(a.units.Load()) / max(elapsed.Seconds(), 0.001),
		})
	}, f)
}

// end gives up what enrol made.
func (a *abuse) end() {
	if a.steady != nil {
		a.steady.stop()
	}
	for _, g := range a.good {
		g.conn.Close()
	}
}

// steadySources is how many addresses the good watchers report.
const steadySources = 5000

// enrol joins the good watchers, each from its own address, and registers the
// abusers from theirs.
func (a *abuse) enrol(ctx context.Context) error {
	sources := NewSources(steadySources, 1.1, a.cfg.Seed)
	a.good = make([]*goodWatcher, a.cfg.Watchers)
	for i := range a.good {
		a.good[i] = newGoodWatcher(NewWatcher(a.cfg.Seed, i), NewConnFrom(a.target, plus(firstWatcher, i)), sources)
	}
	group, joining := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i, g := range a.good {
		group.Go(func() error {
			if joining.Err() != nil {
				return joining.Err()
			}
			// With ctx, because the connection lives as long as the context that it is
			// dialled with, and is kept.
			if err := g.Join(ctx, g.conn, a.cfg.Key); err != nil {
				return fmt.Errorf("watcher %d of %d, from %s: %w", i+1, len(a.good), g.conn.local, err)
			}
			a.units.Add(1)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i := range a.cfg.Abusers {
		w := NewWatcher(a.cfg.Seed, a.cfg.Watchers+i)
		c := NewConnFrom(a.target, plus(firstAbuser, i))
		_, err := w.expect(ctx, c, w.registration(), 200, 201)
		c.Close()
		if err != nil {
			return fmt.Errorf("abuser %s: %w", c.local, err)
		}
		a.abusers = append(a.abusers, w)
	}
	a.steady = &steady{watchers: a.good, interval: time.Second / time.Duration(a.cfg.Pace), faults: &a.faults}
	return nil
}

// beQuiet lets the good watchers work alone.
func (a *abuse) beQuiet(ctx context.Context) error {
	a.steady.start(ctx)
	pause(ctx, a.cfg.Warmup)
	a.steady.into.Store(a.quiet)
	pause(ctx, a.cfg.Duration)
	a.steady.into.Store(nil)
	return ctx.Err()
}

// maxLogins is how often an abuser logs in before it is given up: ten times
// what the default limit allows.
const maxLogins = 200

// getBanned makes every abuser log in until it is banned, as an engine in a
// restart loop does.
func (a *abuse) getBanned(ctx context.Context) error {
	for i, w := range a.abusers {
		c := NewConnFrom(a.target, plus(firstAbuser, i))
		n, err := a.loginUntilBanned(ctx, c, w)
		c.Close()
		if err != nil {
			return fmt.Errorf("abuser %s: %w", c.local, err)
		}
		a.res.LoginsToBan = max(a.res.LoginsToBan, n)
	}
	return nil
}

func (a *abuse) loginUntilBanned(ctx context.Context, c *Conn, w *Watcher) (logins int, err error) {
	for n := 1; n <= maxLogins; n++ {
		req := w.loginRequest()
		res, err := c.Do(ctx, req)
		switch {
		case err != nil:
			return n, err
		case isBan(res.Status, res.Body):
			return n, nil
		case res.Status != 200:
			return n, fmt.Errorf("log-in %d: %w", n, unexpected(&req, &res, 200))
		}
		a.units.Add(1)
	}
	return maxLogins, fmt.Errorf("expected a ban (status 403, code \"banned\") at the 21st log-in, got none in %d: "+
		"does the server limit log-ins, and not exempt 127.0.0.0/8 (ratelimit.exempt, muster admin override list)?", maxLogins)
}

// lanes makes the connections of a flood.
func (a *abuse) lanes(local func(i int) netip.Addr) []*lane {
	all := make([]*lane, a.cfg.Connections)
	for i := range all {
		all[i] = newLane(a.target, local(i))
		all[i].turn = i // so that they do not all send the same
	}
	return all
}

// rage lets the banned ones retry beside the good watchers.
func (a *abuse) rage(ctx context.Context) error {
	f := &flood{faults: &a.faults, next: a.retry(), check: checkRefusal, answered: &a.units}
	lanes := a.lanes(func(i int) netip.Addr { return plus(firstAbuser, i%a.cfg.Abusers) })
	var flooding sync.WaitGroup
	flooding.Go(func() { f.run(ctx, lanes) })
	pause(ctx, a.cfg.Warmup)

	a.steady.into.Store(a.storm)
	server, client := a.serverCPU(), generatorCPU()
	start, before := time.Now(), f.answered.Load()
	pause(ctx, a.cfg.Duration)
	a.res.Seconds, a.res.Refused = time.Since(start).Seconds(), f.answered.Load()-before
	a.res.ServerCPU, a.res.ClientCPU = spent(server, a.serverCPU()), spent(client, generatorCPU())
	a.steady.into.Store(nil)

	f.stopped.Store(true)
	flooding.Wait()
	a.steady.stop()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	a.res.RefusedRate = float64(a.res.Refused) / a.res.Seconds
	a.res.QuietP50, a.res.QuietP99 = a.quiet.quantile(a.quiet.latencies, 50), a.quiet.quantile(a.quiet.latencies, 99)
	a.res.StormP50, a.res.StormP99 = a.storm.quantile(a.storm.latencies, 50), a.storm.quantile(a.storm.latencies, 99)
	a.res.QuietLate, a.res.StormLate = a.quiet.quantile(a.quiet.late, 99), a.storm.quantile(a.storm.late, 99)
	a.res.GoodRequests = a.quiet.latencies.TotalCount() + a.storm.latencies.TotalCount()
	if a.res.QuietP99 > 0 {
		a.res.P99Ratio = a.res.StormP99 / a.res.QuietP99
	}
	return nil
}

// retry returns what a banned engine that does not give up sends: of four
// requests two log-ins, a pull and a push.
func (a *abuse) retry() func(*lane) []byte {
	requests := map[netip.Addr][4][]byte{}
	feed := NewFeed(NewSources(100, 1.1, a.cfg.Seed), [2]uint64{a.cfg.Seed, 0})
	for i, w := range a.abusers {
		login, pull := w.loginRequest(), pullRequest(w)
		pushed := w.SignalsRequest(feed.Batch(steadyBatch, w.engine, time.Now()), false)
		var all [4][]byte
		for n, req := range []*Request{&login, &pull, &login, &pushed} {
			all[n] = a.target.appendRequest(nil, req)
		}
		requests[plus(firstAbuser, i)] = all
	}
	return func(l *lane) []byte {
		all := requests[l.local]
		return all[l.turn%len(all)]
	}
}

// sampleEvery is how many refusals there are to one that is read in full.
const sampleEvery = 1024

// checkRefusal is flood.check of the storm.
func checkRefusal(l *lane, status int, body []byte) error {
	if !isBan(status, body) {
		return fmt.Errorf("a banned client: expected status 403 with code \"banned\", got %d: %s", status, clip(body))
	}
	if l.turn%sampleEvery != 0 {
		return nil
	}
	var ban struct {
		Message    string    `json:"message"`
		Code       string    `json:"code"`
		Until      time.Time `json:"until"`
		RetryAfter int       `json:"retry_after"`
	}
	if err := json.Unmarshal(body, &ban); err != nil {
		return fmt.Errorf("a banned client: %w in %s", err, clip(body))
	}
	if ban.Code != "banned" || ban.Message == "" || ban.RetryAfter < 1 || !ban.Until.After(time.Now()) {
		return fmt.Errorf("a banned client: expected a message, code \"banned\", until in the future and retry_after, got %s", clip(body))
	}
	return nil
}

// rssPoll is how often the server's memory is looked at for its peak.
const rssPoll = 100 * time.Millisecond

// forge sends log-ins from forged addresses and watches the server's memory.
func (a *abuse) forge(ctx context.Context) error {
	a.res.RSSBefore = a.rss()
	if a.cfg.Forged == 0 {
		return nil
	}
	forger := newForger(a.target, a.cfg.Forged, a.cfg.Seed, a.good[0].Watcher)
	f := &flood{faults: &a.faults, next: forger.request, check: forger.check, answered: &a.units}
	start := time.Now()
	lanes := a.lanes(func(int) netip.Addr { return netip.Addr{} })
	ended := make(chan struct{})
	go func() { defer close(ended); f.run(ctx, lanes) }()

	peak := a.res.RSSBefore
	look := func() {
		if now := a.rss(); now != nil && (peak == nil || *now > *peak) {
			peak = now
		}
	}
	late := time.AfterFunc(a.cfg.ForgedTime, func() { f.stopped.Store(true) })
	defer late.Stop()
	poll := time.NewTicker(rssPoll)
	defer poll.Stop()
	for running := true; running; look() {
		select {
		case <-poll.C:
		case <-ended:
			running = false
		}
	}
	a.res.ForgedSeconds = time.Since(start).Seconds()
	a.res.Forged, a.res.ForgedRequests = forger.clients.Load(), f.answered.Load()
	a.res.ForgedRate = float64(a.res.ForgedRequests) / a.res.ForgedSeconds
	a.res.RSSPeak = peak
	if a.res.RSSBefore != nil && peak != nil {
		a.res.RSSGrowth = ptr(*peak - *a.res.RSSBefore)
	}
	pause(ctx, a.cfg.Settle)
	a.res.RSSAfter = a.rss()
	a.res.Interrupted = ctx.Err() != nil
	return nil
}

func (a *abuse) rss() *int64 {
	if a.cfg.RSS == nil {
		return nil
	}
	rss, err := a.cfg.RSS()
	if err != nil {
		return nil
	}
	return &rss
}

// serverCPU and generatorCPU return the time that each has used so far; nil when
// nobody knows.
func (a *abuse) serverCPU() *time.Duration {
	if a.cfg.Usage == nil {
		return nil
	}
	return cpuOf(a.cfg.Usage)
}

func generatorCPU() *time.Duration { return cpuOf(ProcessUsage(os.Getpid())) }

func cpuOf(usage func() (Usage, error)) *time.Duration {
	u, err := usage()
	if err != nil {
		return nil
	}
	return &u.CPU
}

// spent returns the seconds between two readings.
func spent(before, after *time.Duration) *float64 {
	if before == nil || after == nil {
		return nil
	}
	return ptr((*after - *before).Seconds())
}
