package swarm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// steady is the work of good watchers at a fixed pace. The loop is open: what a
// watcher does is due at its time whether or not the server has answered the
// others, and a latency counts from then on, so that waiting behind a slow
// answer is part of it.
type steady struct {
	watchers []*goodWatcher
	interval time.Duration // between two requests of all watchers together
	faults   *faults

	into    atomic.Pointer[window] // of what falls due now; nil: not measured
	stopped atomic.Bool
	ended   sync.WaitGroup
}

// window is what is measured in one phase.
type window struct {
	mu        sync.Mutex
	latencies *hdrhistogram.Histogram // µs, of good answers
	late      *hdrhistogram.Histogram // µs that the generator itself was late to hand a request over
}

func newWindow() *window {
	h := func() *hdrhistogram.Histogram { return hdrhistogram.New(1, maxLatency.Microseconds(), 3) }
	return &window{latencies: h(), late: h()}
}

func (w *window) record(h *hdrhistogram.Histogram, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = h.RecordValue(min(max(d, time.Microsecond), maxLatency).Microseconds()) // in range
}

// quantile returns milliseconds.
func (w *window) quantile(h *hdrhistogram.Histogram, q float64) float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return float64(h.ValueAtQuantile(q)) / 1000
}

// due is one request of a good watcher.
type due struct {
	at    time.Time
	round int
	into  *window
}

// goodWatcher is a watcher with an address and a connection of its own.
type goodWatcher struct {
	*Watcher
	conn *Conn
	feed *Feed
	due  chan due
}

// maxBehind is how many requests a watcher may owe.
const maxBehind = 64

func newGoodWatcher(w *Watcher, c *Conn, sources *Sources) *goodWatcher {
	return &goodWatcher{
		Watcher: w, conn: c, feed: NewFeed(sources, [2]uint64{rand.Uint64(), rand.Uint64()}),
		due: make(chan due, maxBehind),
	}
}

// start begins the work. It ends with ctx or by stop.
func (s *steady) start(ctx context.Context) {
	for _, g := range s.watchers {
		s.ended.Go(func() {
			defer g.conn.Close()
			for d := range g.due {
				if err := g.do(ctx, d.round); err != nil {
					s.faults.add(ctx, err)
				} else if d.into != nil {
					d.into.record(d.into.latencies, time.Since(d.at))
				}
			}
		})
	}
	s.ended.Go(func() { s.dispatch(ctx) })
}

// stop ends the work and waits for what is under way.
func (s *steady) stop() {
	s.stopped.Store(true)
	s.ended.Wait()
}

// dispatch hands each request to its watcher when it is due.
func (s *steady) dispatch(ctx context.Context) {
	defer func() {
		for _, g := range s.watchers {
			close(g.due)
		}
	}()
	start := time.Now()
	for i := 0; ctx.Err() == nil && !s.stopped.Load(); i++ {
		at := start.Add(time.Duration(i) * s.interval)
		sleepUntil(at)
		n := len(s.watchers)
		d := due{at: at, round: i/n + i%n, into: s.into.Load()}
		if d.into != nil {
			d.into.record(d.into.late, time.Since(at))
		}
		select {
		case s.watchers[i%n].due <- d:
		default:
			s.faults.add(ctx, fmt.Errorf("a good watcher waits for %d answers", maxBehind))
		}
	}
}

// steadyBatch is how many signals a push of a good watcher has.
const steadyBatch = 2

// do sends one of the requests of an engine that has something to report now
// and then: of ten, six heartbeats, two pushes and two pulls.
func (g *goodWatcher) do(ctx context.Context, round int) error {
	var req Request
	switch round % 10 {
	case 0, 5:
		wire, gzipped := g.feed.Pack(g.feed.Batch(steadyBatch, g.engine, time.Now()))
		_, err := push(ctx, g.conn, g.Watcher, wire, gzipped)
		return err
	case 3, 8:
		req = pullRequest(g.Watcher)
	default:
		req = Request{Method: "GET", Path: "/v3/heartbeat", Token: g.Token}
	}
	req.Keep = keepAnswer
	res, err := g.conn.Do(ctx, req)
	if err == nil && res.Status/100 != 2 {
		err = unexpected(&req, &res, 200)
	}
	return err
}

// faults counts what went wrong and keeps the first of it.
type faults struct {
	mu    sync.Mutex
	n     int64
	first string
}

// add counts err, unless ctx ended: what is cut then is no fault.
func (f *faults) add(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n++; f.first == "" {
		f.first = err.Error()
	}
}

func (f *faults) count() (int64, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n, f.first
}
