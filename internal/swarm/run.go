package swarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Run makes the watchers, puts the server under load and says what came of it.
// Failed requests are counted in the result; an error means that there is no
// result: the set-up failed, or ctx ended before measuring began. When ctx ends
// later, the result covers the time until then.
func Run(ctx context.Context, cfg Config) (Result, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Result{}, err
	}
	target, err := ParseTarget(cfg.URL)
	if err != nil {
		return Result{}, err
	}
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	r := &run{cfg: cfg, target: target, recorder: newRecorder()}
	err = r.during("enrolling", func() error {
		r.watchers, err = join(ctx, target, cfg.Seed, cfg.Connections, slices.Repeat([]string{cfg.Key}, cfg.Watchers), &r.units)
		return err
	})
	if err != nil {
		return Result{}, err
	}
	if cfg.Kind == Pull {
		if err := r.during("publishing", func() error { return r.publish(ctx) }); err != nil {
			return Result{}, err
		}
	}
	return r.load(ctx)
}

// run is one call of Run.
type run struct {
	cfg      Config
	target   Target
	watchers []*Watcher
	sources  *Sources
	list     Response // pull: what a pull is expected to look like
	naive    time.Duration
	recorder *recorder
	units    atomic.Int64 // signals, pulls … done since the phase began
}

// during runs f and reports its progress once a second.
func (r *run) during(phase string, f func() error) error {
	r.units.Store(0)
	start := time.Now()
	return reporting(func() { r.progress(phase, start) }, f)
}

// reporting runs f and calls report at its start and once a second.
func reporting(report func(), f func() error) error {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			report()
			select {
			case <-tick.C:
			case <-end:
				return
			}
		}
	}()
	err := f()
	close(end)
	<-ended
	return err
}

func (r *run) progress(phase string, since time.Time) {
	if r.cfg.Progress == nil {
		return
	}
	elapsed := time.Since(since)
	unit := r.cfg.Kind.unit()
	if phase == "enrolling" {
		unit = "watchers/s"
	} else if phase == "publishing" {
		unit = Ingest.unit()
	}
	r.cfg.Progress(Progress{
		Phase:   phase,
		Elapsed: elapsed,
		Rate:    float64(r.units.Load()) / max(elapsed.Seconds(), 0.001),
		Unit:    unit,
		Errors:  r.recorder.failures(),
	})
}

// job sends one request and returns its answer, or what was wrong with it.
type job func(context.Context) (Response, error)

// load runs the connections through warm-up and measurement.
func (r *run) load(ctx context.Context) (Result, error) {
	work, stop := context.WithCancel(ctx)
	defer stop()
	if r.cfg.Kind == Ingest {
		r.sources = NewSources(r.cfg.Sources, r.cfg.Skew, r.cfg.Seed)
	}
	var done atomic.Bool
	var workers sync.WaitGroup
	for i := range r.cfg.Connections {
		workers.Go(func() {
			c := NewConn(r.target)
			defer c.Close()
			r.work(work, r.job(c, i), &done)
		})
	}
	finish := func() {
		done.Store(true)
		workers.Wait() // each has one request under way, which its timeout bounds
	}

	r.phase(ctx, "warming up", r.cfg.Warmup)
	if ctx.Err() != nil {
		finish()
		return Result{}, ctx.Err()
	}
	server, serverErr := r.usage()
	client, clientErr := ProcessUsage(os.Getpid())()
	start := time.Now()
	r.recorder.start()
	r.phase(ctx, "measuring", r.cfg.Duration)
	res := r.recorder.stop()
	elapsed := time.Since(start)
	clientEnd, err := ProcessUsage(os.Getpid())()
	if clientErr = errors.Join(clientErr, err); clientErr == nil {
		res.ClientCPU = ptr((clientEnd.CPU - client.CPU).Seconds())
	}
	serverEnd, err := r.usage()
	if serverErr = errors.Join(serverErr, err); serverErr == nil {
		res.ServerCPU = ptr((serverEnd.CPU - server.CPU).Seconds())
		res.ServerRSS = ptr(serverEnd.RSS)
	}
	finish()

	res.Kind, res.Unit = r.cfg.Kind, r.cfg.Kind.unit()
	res.Seconds = elapsed.Seconds()
	res.Rate = float64(res.Units) / elapsed.Seconds()
	res.Watchers, res.Connections = r.cfg.Watchers, r.cfg.Connections
	res.Interrupted = ctx.Err() != nil
	if r.cfg.Kind == Ingest {
		res.Batch = r.cfg.Batch
	}
	if r.cfg.Kind == Pull {
		res.List, res.Footprints, res.Naive = r.cfg.List, len(r.cfg.Footprints), ptr(r.naive.Seconds())
	}
	return res, nil
}

// phase lets the connections work for d, or until ctx ends.
func (r *run) phase(ctx context.Context, name string, d time.Duration) {
	if d <= 0 {
		return
	}
	r.units.Store(0)
	start := time.Now()
	end := time.NewTimer(d)
	defer end.Stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		r.progress(name, start)
		select {
		case <-tick.C:
			_, _ = r.usage() // some meters learn the peak by being asked
		case <-end.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

var errNoMeter = errors.New("nothing tells what the server uses")

func (r *run) usage() (Usage, error) {
	if r.cfg.Usage == nil {
		return Usage{}, errNoMeter
	}
	return r.cfg.Usage()
}

// pauseAfterError keeps a server that is down from being hammered.
const pauseAfterError = 50 * time.Millisecond

func (r *run) work(ctx context.Context, do job, done *atomic.Bool) {
	units := int64(1)
	if r.cfg.Kind == Ingest {
		units = int64(r.cfg.Batch)
	}
	for !done.Load() {
		res, err := do(ctx)
		if ctx.Err() != nil {
			return
		}
		r.recorder.add(&res, units, err)
		if err == nil {
			r.units.Add(units)
			continue
		}
		pause(ctx, pauseAfterError)
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// job returns what connection i does over and over, each time as another of
// its watchers.
func (r *run) job(c *Conn, i int) job {
	at := i
	next := func() *Watcher {
		w := r.watchers[at%len(r.watchers)]
		at += r.cfg.Connections
		return w
	}
	switch r.cfg.Kind {
	case Ingest:
		feed := NewFeed(r.sources, [2]uint64{rand.Uint64(), rand.Uint64()})
		return func(ctx context.Context) (Response, error) {
			w := next()
			wire, gzipped := feed.Pack(feed.Batch(r.cfg.Batch, w.engine, time.Now()))
			return push(ctx, c, w, wire, gzipped)
		}
	case Pull:
		return func(ctx context.Context) (Response, error) {
			return r.pull(ctx, c, next())
		}
	case Login:
		return func(ctx context.Context) (Response, error) {
			req := next().loginRequest()
			res, err := c.Do(ctx, req)
			if err == nil {
				err = checkLogin(&req, &res)
			}
			return res, err
		}
	default:
		return func(ctx context.Context) (Response, error) {
			req := Request{Method: "GET", Path: "/v3/heartbeat", Token: next().Token, Keep: keepAnswer}
			res, err := c.Do(ctx, req)
			if err == nil && res.Status/100 != 2 {
				err = unexpected(&req, &res, 200)
			}
			return res, err
		}
	}
}

// push sends a batch and checks that all of it was taken: a server that
// refuses items says so in its answer.
func push(ctx context.Context, c *Conn, w *Watcher, wire []byte, gzipped bool) (Response, error) {
	req := w.SignalsRequest(wire, gzipped)
	res, err := c.Do(ctx, req)
	if err == nil && !Accepted(&res) {
		err = unexpected(&req, &res, 200)
	}
	return res, err
}

// Accepted reports whether an answer to SignalsRequest says that the whole
// batch was taken.
func Accepted(res *Response) bool {
	return res.Status == 200 && string(bytes.TrimSpace(res.Body)) == `{"message":"OK"}`
}

func checkLogin(req *Request, res *Response) error {
	if res.Status != 200 {
		return unexpected(req, res, 200)
	}
	if _, ok := jsonString(res.Body, "token"); !ok {
		return fmt.Errorf("log-in: expected a token, got %q", clip(res.Body))
	}
	return nil
}

// recorder gathers what the connections see.
type recorder struct {
	mu        sync.Mutex
	measuring bool
	latencies *hdrhistogram.Histogram // µs
	res       Result
}

const maxLatency = 2 * time.Minute

func newRecorder() *recorder {
	return &recorder{latencies: hdrhistogram.New(1, maxLatency.Microseconds(), 3)}
}

// start begins the measurement. Errors before it stay counted: a run that had
// any is no clean run.
func (r *recorder) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.measuring = true
}

func (r *recorder) add(res *Response, units int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		if r.res.Errors++; r.res.FirstError == "" {
			r.res.FirstError = err.Error()
		}
		return
	}
	if !r.measuring {
		return
	}
	r.res.Requests++
	r.res.Units += units
	r.res.Received += res.Length
	_ = r.latencies.RecordValue(min(res.Elapsed, maxLatency).Microseconds()) // in range
}

func (r *recorder) failures() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.res.Errors
}

// stop ends the measurement; what comes later is not counted.
func (r *recorder) stop() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.measuring = false
	ms := func(us int64) float64 { return float64(us) / 1000 }
	r.res.P50 = ms(r.latencies.ValueAtQuantile(50))
	r.res.P95 = ms(r.latencies.ValueAtQuantile(95))
	r.res.P99 = ms(r.latencies.ValueAtQuantile(99))
	r.res.Max = ms(r.latencies.Max())
	return r.res
}

func ptr[T any](v T) *T { return &v }
