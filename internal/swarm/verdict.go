package swarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/klauspost/compress/gzip"
	"golang.org/x/sync/errgroup"
)

// VerdictConfig says what RunVerdict shall do. Zero values take the default named.
type VerdictConfig struct {
	URL string // of the server
	// Keys are enrolment keys that accept at once, each of another organisation.
	// The last one's only machine reads; those of the others report.
	Keys []string

	Watchers    int           // machines that report all the time, of all organisations in turn; 100
	Connections int           // that they share; 16
	Pace        int           // signals per second that they make together; 5,000
	Batch       int           // signals per request; 50
	Sources     int           // size of the pool of addresses that they report; 50,000
	Skew        float64       // exponent of their popularity, over 1; 1.1
	Warmup      time.Duration // of theirs, before the first attacker; none

	Attackers int           // fresh addresses to be convicted; 200
	Voices    int           // machines, each of another organisation, that report an attacker, one after the other; 2
	Duration  time.Duration // over which the attackers are spread; 20 s
	Poll      time.Duration // from one pull to the next; 10 ms
	Timeout   time.Duration // after which an attacker that was not seen is missed; 10 s
	Seed      uint64        // 0: a random one

	// Usage reads what the server has used so far; nil when nobody knows.
	Usage func() (Usage, error)
	// Progress, when set, is called about once a second and at changes of phase,
	// from one goroutine.
	Progress func(Progress)
}

func (c VerdictConfig) withDefaults() (VerdictConfig, error) {
	setDefault(&c.Watchers, 100)
	setDefault(&c.Connections, 16)
	setDefault(&c.Pace, 5000)
	setDefault(&c.Batch, 50)
	setDefault(&c.Sources, 50_000)
	setDefault(&c.Skew, 1.1)
	setDefault(&c.Attackers, 200)
	setDefault(&c.Voices, 2)
	setDefault(&c.Duration, 20*time.Second)
	setDefault(&c.Poll, 10*time.Millisecond)
	setDefault(&c.Timeout, 10*time.Second)
	if c.Seed == 0 {
		c.Seed = rand.Uint64()
	}
	switch {
	case c.Voices < 1 || c.Voices > len(c.Keys)-1:
		return c, fmt.Errorf("expected keys of at least %d organisations, for %d voices and a reader, got %d", c.Voices+1, c.Voices, len(c.Keys))
	case c.Watchers < 0 || c.Watchers > 100_000:
		return c, fmt.Errorf("expected 1 to 100,000 watchers, got %d", c.Watchers)
	case c.Connections < 0 || c.Connections > 4096:
		return c, fmt.Errorf("expected 1 to 4,096 connections, got %d", c.Connections)
	case c.Batch < 0 || c.Batch > 5000:
		return c, fmt.Errorf("expected 1 to 5,000 signals per batch, got %d", c.Batch)
	case c.Pace < c.Batch || c.Pace > 1_000_000:
		return c, fmt.Errorf("expected a pace of at least a batch of %d and at most 1,000,000 signals per second, got %d", c.Batch, c.Pace)
	case c.Sources < 0 || c.Sources > maxSources:
		return c, fmt.Errorf("expected 1 to %d sources, got %d", maxSources, c.Sources)
	case c.Skew <= 1:
		return c, fmt.Errorf("expected a skew over 1, got %g", c.Skew)
	case c.Attackers < 0 || c.Attackers > 100_000:
		return c, fmt.Errorf("expected 1 to 100,000 attackers, got %d", c.Attackers)
	case c.Duration < 0 || c.Duration > time.Hour || c.Warmup < 0 || c.Warmup > time.Hour:
		return c, fmt.Errorf("expected a duration and a warm-up of at most 1h, got %s and %s", c.Duration, c.Warmup)
	case c.Poll < time.Millisecond || c.Timeout < c.Poll || c.Timeout > maxLatency:
		return c, fmt.Errorf("expected a poll of at least 1ms and a timeout between it and %s, got %s and %s", maxLatency, c.Poll, c.Timeout)
	}
	return c, nil
}

// RunVerdict measures how long it takes from the report that convicts an
// attacker to the first pull that names it, while watchers of many organisations
// report other sources at a steady pace. Attackers are fresh addresses, each
// reported by as many machines of different organisations as it takes; the time
// runs from the answer to the last of these reports to the end of the pull, so
// that it includes half of Poll on average. Attackers that do not appear are
// counted.
//
// What fails under load is counted in the result. An error means that there is
// none: the set-up failed, or ctx ended first.
func RunVerdict(ctx context.Context, cfg VerdictConfig) (VerdictResult, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return VerdictResult{}, err
	}
	target, err := ParseTarget(cfg.URL)
	if err != nil {
		return VerdictResult{}, err
	}
	all := NewSources(cfg.Sources+2*cfg.Attackers, cfg.Skew, cfg.Seed)
	known, fresh := all.split(cfg.Sources)
	t := &trial{
		cfg: cfg, target: target, known: known, attackers: fresh.v4(cfg.Attackers),
		latencies: hdrhistogram.New(1, maxLatency.Microseconds(), 3),
	}
	if err := t.during("enrolling", "watchers/s", func() error { return t.enrol(ctx) }); err != nil {
		return VerdictResult{}, err
	}
	return t.run(ctx)
}

// trial is one call of RunVerdict.
type trial struct {
	cfg       VerdictConfig
	target    Target
	known     *Sources
	attackers *Sources
	faults    faults
	units     atomic.Int64 // watchers, or signals, since the phase began

	reporters []*Watcher
	witnesses []*Watcher // one of each organisation, which report attackers only
	reader    *Watcher

	mu        sync.Mutex
	waiting   []*suspect
	latencies *hdrhistogram.Histogram // µs
	res       VerdictResult
}

// suspect is an attacker that was reported and not yet seen in a pull.
type suspect struct {
	value   []byte // as it stands in a pull
	since   time.Time
	checked bool // against the latest answer
}

func (t *trial) during(phase, unit string, f func() error) error {
	t.units.Store(0)
	start := time.Now()
	return reporting(func() {
		if t.cfg.Progress == nil {
			return
		}
		elapsed := time.Since(start)
		errs, _ := t.faults.count()
		t.cfg.Progress(Progress{
			Phase: phase, Elapsed: elapsed, Unit: unit, Errors: errs,
			Rate: float64(t.units.Load()) / max(elapsed.Seconds(), 0.001),
		})
	}, f)
}

func (t *trial) enrol(ctx context.Context) error {
	organisations := len(t.cfg.Keys) - 1
	keys := slices.Clone(t.cfg.Keys) // the witnesses' and the reader's
	for i := range t.cfg.Watchers {
		keys = append(keys, t.cfg.Keys[i%organisations])
	}
	all, err := join(ctx, t.target, t.cfg.Seed, t.cfg.Connections, keys, &t.units)
	if err != nil {
		return err
	}
	t.witnesses, t.reader, t.reporters = all[:organisations], all[organisations], all[organisations+1:]
	return nil
}

// run lets all of them work at once.
func (t *trial) run(ctx context.Context) (VerdictResult, error) {
	work, stop := context.WithCancel(ctx)
	var load, reading errgroup.Group
	due := make(chan struct{}, maxBehind)
	load.Go(func() error { t.dispatch(work, due); return nil })
	for i := range t.cfg.Connections {
		load.Go(func() error { t.report(ctx, i, due); return nil })
	}
	reading.Go(func() error { t.read(work); return nil })
	finish := func() { stop(); _, _ = load.Wait(), reading.Wait() }

	_ = t.during("warming up", Ingest.unit(), func() error { pause(ctx, t.cfg.Warmup); return nil })
	usage := func() (Usage, error) {
		if t.cfg.Usage == nil {
			return Usage{}, errNoMeter
		}
		return t.cfg.Usage()
	}
	server, serverErr := usage()
	client := generatorCPU()
	start := time.Now()
	_ = t.during("measuring", Ingest.unit(), func() error {
		t.accuse(ctx)
		t.await(ctx)
		t.res.Seconds, t.res.Signals = time.Since(start).Seconds(), t.units.Load()
		return nil
	})
	t.res.ClientCPU = spent(client, generatorCPU())
	end, err := usage()
	if errors.Join(serverErr, err) == nil {
		t.res.ServerCPU, t.res.ServerRSS = ptr((end.CPU - server.CPU).Seconds()), ptr(end.RSS)
	}
	finish()
	if ctx.Err() != nil {
		return VerdictResult{}, ctx.Err()
	}
	return t.result(), nil
}

func (t *trial) result() VerdictResult {
	r := t.res
	ms := func(us int64) float64 { return float64(us) / 1000 }
	r.Kind = Verdict
	r.P50, r.P95 = ms(t.latencies.ValueAtQuantile(50)), ms(t.latencies.ValueAtQuantile(95))
	r.P99, r.Max = ms(t.latencies.ValueAtQuantile(99)), ms(t.latencies.Max())
	r.Seen = t.latencies.TotalCount()
	r.Rate = float64(r.Signals) / r.Seconds
	r.Errors, r.FirstError = t.faults.count()
	r.Attackers, r.Voices, r.Pace, r.Batch = t.cfg.Attackers, t.cfg.Voices, t.cfg.Pace, t.cfg.Batch
	r.Watchers, r.Organisations = t.cfg.Watchers, len(t.witnesses)
	r.Poll = ms(t.cfg.Poll.Microseconds())
	return r
}

// dispatch says when a batch is due, whether or not the server has answered the
// others.
func (t *trial) dispatch(ctx context.Context, due chan<- struct{}) {
	defer close(due)
	interval := time.Duration(float64(time.Second) * float64(t.cfg.Batch) / float64(t.cfg.Pace))
	start := time.Now()
	for i := 0; ctx.Err() == nil; i++ {
		sleepUntil(start.Add(time.Duration(i) * interval))
		select {
		case due <- struct{}{}:
		default:
			t.faults.add(ctx, fmt.Errorf("the server is behind the pace: %d batches wait", maxBehind))
		}
	}
}

// report sends batches as they are due, each as another watcher.
func (t *trial) report(ctx context.Context, lane int, due <-chan struct{}) {
	c, feed := NewConn(t.target), NewFeed(t.known, [2]uint64{rand.Uint64(), rand.Uint64()})
	defer c.Close()
	for at := lane; ; at += t.cfg.Connections {
		if _, more := <-due; !more {
			return
		}
		w := t.reporters[at%len(t.reporters)]
		wire, gzipped := feed.Pack(feed.Batch(t.cfg.Batch, w.engine, time.Now()))
		if _, err := push(ctx, c, w, wire, gzipped); err != nil {
			t.faults.add(ctx, err)
			continue
		}
		t.units.Add(int64(t.cfg.Batch))
	}
}

// accuse has the attackers reported, each at a random time of its share of
// Duration.
func (t *trial) accuse(ctx context.Context) {
	c, feed := NewConn(t.target), NewFeed(t.attackers, [2]uint64{rand.Uint64(), rand.Uint64()})
	defer c.Close()
	share := t.cfg.Duration / time.Duration(t.cfg.Attackers)
	start := time.Now()
	for i := range t.attackers.Len() {
		pause(ctx, time.Until(start.Add(time.Duration(i)*share+rand.N(share+1))))
		var err error
		for k := 0; k < t.cfg.Voices && err == nil; k++ {
			w := t.witnesses[(i+k)%len(t.witnesses)]
			_, err = push(ctx, c, w, feed.Sure(i, w.engine, time.Now()), false)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			t.faults.add(ctx, fmt.Errorf("reporting an attacker: %w", err))
			continue
		}
		s := &suspect{value: []byte(`"value":"` + t.attackers.Addr(i) + `"`), since: time.Now()}
		t.mu.Lock()
		t.waiting = append(t.waiting, s)
		t.mu.Unlock()
	}
}

// await waits until every attacker was seen or is missed.
func (t *trial) await(ctx context.Context) {
	poll := time.NewTicker(t.cfg.Poll)
	defer poll.Stop()
	for ctx.Err() == nil {
		t.mu.Lock()
		n := len(t.waiting)
		t.mu.Unlock()
		if n == 0 {
			return
		}
		<-poll.C
	}
}

// read pulls over and over and looks for the attackers.
func (t *trial) read(ctx context.Context) {
	c := NewConn(t.target)
	defer c.Close()
	req := pullRequest(t.reader)
	req.Keep = maxAnswer
	var answer, list []byte // the latest one, as it came and as it reads
	poll := time.NewTicker(t.cfg.Poll)
	defer poll.Stop()
	for {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return
		}
		res, err := c.Do(ctx, req)
		at := time.Now()
		if err == nil && res.Status != 200 {
			err = unexpected(&req, &res, 200)
		}
		changed := err == nil && !bytes.Equal(res.Body, answer)
		if changed {
			answer = append(answer[:0], res.Body...)
			list, err = plain(&res, list[:0])
		}
		if err != nil {
			t.faults.add(ctx, err)
			answer = answer[:0]
		}
		t.look(list, at, changed)
	}
}

// look strikes off the attackers that are on a list, and those that it is too
// late for.
func (t *trial) look(list []byte, at time.Time, changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.res.Pulls++
	if changed {
		t.res.Editions++
		t.res.List = bytes.Count(list, []byte(`"value":`))
	}
	t.waiting = slices.DeleteFunc(t.waiting, func(s *suspect) bool {
		unread := changed || !s.checked
		s.checked = true
		took := max(at.Sub(s.since), 0) // a pull may be faster than the answer to the report
		switch {
		case unread && bytes.Contains(list, s.value):
			_ = t.latencies.RecordValue(min(took, maxLatency).Microseconds()) // in range
			return true
		case took > t.cfg.Timeout:
			t.res.Missed++
			return true
		}
		return false
	})
}

// plain appends the body of an answer as it reads.
func plain(res *Response, to []byte) ([]byte, error) {
	if !res.Gzip {
		return append(to, res.Body...), nil
	}
	z, err := gzip.NewReader(bytes.NewReader(res.Body))
	if err != nil {
		return to, fmt.Errorf("decompressing a pull: %w", err)
	}
	out := buffer(to)
	if _, err := io.Copy(&out, z); err != nil {
		return out, fmt.Errorf("decompressing a pull: %w", err)
	}
	return out, nil
}
