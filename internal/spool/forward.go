package spool

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/internal/upstream"
)

// Reader is one pass over the sieve's log, for one goroutine.
type Reader interface {
	// Next blocks until there is an entry, then returns up to max in order within
	// each partition. It rides out hiccups; an error means that ctx has ended or
	// that the log cannot be read any further.
	Next(ctx context.Context, max int) ([]muster.Entry, error)
	// Position tells up to where everything has been returned by Next.
	Position() uint64
	Close()
}

// Store keeps what the forwarder has done.
type Store interface {
	SpoolState(ctx context.Context) (muster.SpoolState, error)
	// CommitSpool keeps all of p in one transaction, durably, or nothing of it.
	CommitSpool(ctx context.Context, p muster.SpoolProgress) error
}

// History is told what the upstream has taken.
type History interface {
	// MarkForwarded may be called again with the same, and with signals that the
	// history has not stored yet: they must be marked when they come.
	MarkForwarded(ctx context.Context, sent []muster.SieveRef, at time.Time) error
}

// Account is the sieve's own at the upstream, for signals of engines whose
// tokens are of no use any more.
type Account interface {
	// Authorization returns a header's value and may log in for it. Its errors
	// are those of upstream.Client.Login.
	Authorization(ctx context.Context) (string, error)
	// Refused says that the upstream does not take it any more.
	Refused(authorization string)
}

// Config sets up a Forwarder.
type Config struct {
	// Read starts reading the given partitions, each above its position in from.
	Read     func(ctx context.Context, partitions []uint8, from [muster.Partitions]uint64) (Reader, error)
	Store    Store
	History  History // nil: nobody is told
	Vault    *Vault
	Upstream Upstream
	Account  Account // nil: signals wait for their engine's next login
	// Hold keeps everything here: positions go on over what is not to be
	// forwarded, the rest waits.
	Hold       bool
	Batch      int              // signals of one call at most; 0: 250
	BatchBytes int              // bytes of one call, but a larger signal goes alone; 0: 1 MiB
	Parallel   int              // calls at once, each for another engine; 0: 8
	Memory     int              // bytes of signals that wait in memory, the others wait in the log only; 0: 32 MiB
	Backoff    upstream.Backoff // between calls that failed
	// DoubtWait is how long signals that may have arrived under the engine's token
	// wait for another of it before they go under the own account, where the
	// upstream cannot tell that it has them. 0: one hour.
	DoubtWait  time.Duration
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
}

// Forwarder sends what the log holds for the upstream. One goroutine decides,
// under mu; reading, sending and committing are done beside it.
type Forwarder struct {
	cfg     Config
	metrics *metrics

	reads     chan read
	results   chan result
	committed chan struct{}
	refilled  chan refill
	work      sync.WaitGroup

	mu      sync.Mutex
	started time.Time
	read    uint64                                    // position up to which the log has been seen
	engines map[muster.SieveEngine]*engine            // those with something to send
	cursors map[muster.SieveEngine]muster.SpoolCursor // of the process before, as far as the log has not been seen beyond them
	kept    [muster.Partitions]uint64                 // positions as they are on disk
	bytes   int                                       // of signals in memory
	ready   []*engine
	asleep  map[*engine]struct{}
	calls   int // on their way

	until  time.Time // no call before it, for any engine
	outage int       // failures of the upstream in a row
	cause  string    // of the last
	banned bool      // the cause is a ban

	settled    settled // waits to be committed
	committing bool
	refilling  bool
	refillNot  time.Time // no refill before it, after one that failed
	nextKeep   time.Time // when positions are committed though nothing was sent
}

// keepEvery is how often positions that moved over signals that stay here are
// committed.
const keepEvery = 10 * time.Second

// New returns a Forwarder.
func New(cfg Config) *Forwarder {
	cfg.Batch = cmp.Or(cfg.Batch, 250)
	cfg.BatchBytes = cmp.Or(cfg.BatchBytes, 1<<20)
	cfg.Parallel = cmp.Or(cfg.Parallel, 8)
	cfg.Memory = cmp.Or(cfg.Memory, 32<<20)
	cfg.DoubtWait = cmp.Or(cfg.DoubtWait, time.Hour)
	f := &Forwarder{
		cfg: cfg, reads: make(chan read), results: make(chan result),
		committed: make(chan struct{}), refilled: make(chan refill),
		engines: map[muster.SieveEngine]*engine{}, asleep: map[*engine]struct{}{},
		cursors: map[muster.SieveEngine]muster.SpoolCursor{},
	}
	f.metrics = newMetrics(f, cfg.Registerer)
	return f
}

// read is what the reader found.
type read struct {
	entries  []muster.Entry
	position uint64
	err      error
}

// Run forwards until ctx ends, or until the log cannot be read any further.
func (f *Forwarder) Run(ctx context.Context) error {
	state, err := f.cfg.Store.SpoolState(ctx)
	if err != nil {
		return err
	}
	reader, err := f.cfg.Read(ctx, everyPartition(), state.Positions)
	if err != nil {
		return err
	}
	defer reader.Close()
	f.begin(state, reader.Position())
	ctx, stop := context.WithCancel(ctx)
	defer f.work.Wait()
	defer stop()
	f.work.Go(func() { f.follow(ctx, reader) })
	for {
		wait := f.step(ctx)
		var reads chan read
		if !f.refilling { // what is read anew comes before what follows
			reads = f.reads
		}
		timer := time.NewTimer(wait)
		select {
		case r := <-reads:
			if err = r.err; err == nil {
				err = f.take(r)
			}
		case r := <-f.results:
			f.settle(r)
		case <-f.committed:
		case r := <-f.refilled:
			f.refill(r)
		case <-f.cfg.Vault.fresh:
			f.newTokens()
		case <-timer.C:
		case <-ctx.Done():
			err = ctx.Err()
		}
		timer.Stop()
		if err != nil {
			break
		}
	}
	stop()
	f.last()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func everyPartition() []uint8 {
	all := make([]uint8, muster.Partitions)
	for i := range all {
		all[i] = uint8(i)
	}
	return all
}

func (f *Forwarder) begin(state muster.SpoolState, position uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.started = f.cfg.Now()
	f.kept, f.read = state.Positions, position
	for _, c := range state.Cursors {
		f.cursors[c.Engine] = c
	}
	f.nextKeep = f.started.Add(keepEvery)
}

// follow reads the log.
func (f *Forwarder) follow(ctx context.Context, reader Reader) {
	for {
		entries, err := reader.Next(ctx, 64)
		select {
		case f.reads <- read{entries, reader.Position(), err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// step starts what can be started and returns how long there is nothing to do
// if nothing happens.
func (f *Forwarder) step(ctx context.Context) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.cfg.Now()
	for e := range f.asleep {
		if !e.notBefore.IsZero() && !now.Before(e.notBefore) {
			f.rouse(e)
		}
	}
	f.startCalls(ctx, now)
	f.startCommit(ctx, now)
	f.startRefill(ctx, now)
	return f.idle(now)
}

// idle is the time until the next appointment.
func (f *Forwarder) idle(now time.Time) time.Duration {
	wait := keepEvery
	if !f.committing {
		wait = f.nextKeep.Sub(now)
	}
	if len(f.ready) > 0 && f.until.After(now) {
		wait = min(wait, f.until.Sub(now))
	}
	for e := range f.asleep {
		if !e.notBefore.IsZero() {
			wait = min(wait, e.notBefore.Sub(now))
		}
	}
	return max(wait, 0)
}

// startCalls makes a call for each engine that is ready, as many as may be made
// at once: one while the upstream is in trouble.
func (f *Forwarder) startCalls(ctx context.Context, now time.Time) {
	allowed := f.cfg.Parallel
	if f.outage > 0 {
		allowed = 1
	}
	for !f.cfg.Hold && !now.Before(f.until) && f.calls < allowed && len(f.ready) > 0 {
		e := f.ready[0]
		f.ready[0] = nil
		f.ready = f.ready[1:]
		e.place = busy
		call := f.prepare(e, now)
		if call == nil {
			continue
		}
		f.calls++
		f.work.Go(func() {
			r := f.send(ctx, e, call)
			select {
			case f.results <- r:
			case <-ctx.Done():
			}
		})
	}
}

// attempt is a call for the first items of an engine.
type attempt struct {
	items []item
	Call
	token muster.SieveToken
	own   bool // under the sieve's own account
}

// result is what came of it.
type result struct {
	e       *engine
	attempt *attempt
	answer  *upstream.Response
	err     error
	login   bool // err comes from the own account: nothing was sent
}

// prepare chooses what is sent next and with which token; nil puts e to sleep
// until it has one.
func (f *Forwarder) prepare(e *engine, now time.Time) *attempt {
	a := &attempt{items: e.next(f.cfg.Batch, f.cfg.BatchBytes)}
	a.UserAgent, a.V2 = a.items[0].agent, a.items[0].v2
	var ok bool
	if a.Authorization, a.token, ok = f.cfg.Vault.latest(e.id, now); ok {
		e.token = a.token
		return a
	}
	if f.cfg.Account == nil {
		e.why = "its tokens are expired or refused: it waits for the engine's next login"
		f.sleep(e, time.Time{})
		return nil
	}
	if until := e.doubtSince.Add(f.cfg.DoubtWait); e.doubt && now.Before(until) {
		e.why = "its token ended before it was certain what had arrived: it waits for the engine's next login, then for the own account"
		f.sleep(e, until)
		return nil
	}
	a.own, a.V2, a.UserAgent = true, false, "muster"
	return a
}

// send makes the call.
func (f *Forwarder) send(ctx context.Context, e *engine, a *attempt) result {
	r := result{e: e, attempt: a}
	if a.own {
		if a.Authorization, r.err = f.cfg.Account.Authorization(ctx); r.err != nil {
			r.login = true
			return r
		}
	}
	size := 2
	for i := range a.items {
		size += len(a.items[i].raw) + 64
	}
	body := append(make([]byte, 0, size), '[')
	for i := range a.items {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendSignal(body, &a.items[i])
	}
	a.Body = append(body, ']')
	r.answer, r.err = f.cfg.Upstream.Send(ctx, a.Call)
	a.Body = nil
	return r
}
