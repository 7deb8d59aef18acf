package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"muster"
	"muster/internal/crowd"
	"muster/internal/jury"
	"muster/internal/policy"
)

// Driver runs the server's judge on the time of what it is told, without a log
// and a database: the ticks, epochs, holds and ranges are those of jury.Worker.
// It is used by one goroutine. The Worker's commands (Explain, Unban, Ranks, …)
// are for between two calls.
type Driver struct {
	*jury.Worker
	book     *book
	entries  chan muster.Entry
	stop     context.CancelFunc
	ended    chan error
	position uint64
	clock    int64  // up to which time it was driven, Unix seconds
	data     []byte // of an entry, used again
}

// DriverConfig sets up a Driver.
type DriverConfig struct {
	Parameters crowd.Parameters                  // zero value: crowd.Default()
	Taxonomy   *policy.Taxonomy                  // what scenarios are worth; nil: the built-in one
	Prior      func(scenario string) crowd.Prior // in place of Taxonomy
	Truth      jury.Truth
	// Verdict is told every verdict as it changes, and when that was, in Unix
	// seconds: exactly for a new listing, to the minute for the end of one. It is
	// called while Hear or Advance runs, and must not call the Driver.
	Verdict func(v *muster.Verdict, at int64)
	// Event is told what moved the trust in machines, likewise; may be nil.
	Event func(e *muster.TrustEvent)
}

// NewDriver returns a Driver, which is to be closed.
func NewDriver(cfg DriverConfig) *Driver {
	d := &Driver{
		book:    &book{cfg: cfg, heard: make(chan struct{}, 1)},
		entries: make(chan muster.Entry), ended: make(chan error, 1),
	}
	jc := jury.Config{
		Open: func(context.Context, [muster.Partitions]uint64) (jury.Reader, error) {
			return &entryReader{entries: d.entries}, nil
		},
		Ledger: d.book, Partition: func(muster.Source) uint8 { return 0 },
		Parameters: cfg.Parameters, Prior: cfg.Prior, Truth: cfg.Truth,
		Member:  func(_, organisation string) bool { return organisation != "" },
		Changed: func() {}, Now: d.book.time, Logger: slog.New(slog.DiscardHandler),
	}
	if jc.Prior == nil {
		taxonomy := cmp.Or(cfg.Taxonomy, policy.BuiltInTaxonomy())
		jc.Prior = func(scenario string) crowd.Prior {
			p := taxonomy.Of(scenario)
			return crowd.Prior{Confidence: p.Confidence, Spoofable: p.Spoofable}
		}
		taxonomy.All(func(scenario string, _ policy.Prior) bool {
			jc.Scenarios = append(jc.Scenarios, scenario)
			return true
		})
	}
	d.Worker = jury.New(jc)
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	go func() { d.ended <- d.Run(ctx) }()
	return d
}

// Close ends the judge.
func (d *Driver) Close() error {
	d.stop()
	return <-d.ended
}

// Hear judges one signal, after all that was due before it was received. Signals
// come in the order in which they were received.
func (d *Driver) Hear(ctx context.Context, s *muster.Signal) error {
	if err := d.Advance(ctx, s.Received.Unix()); err != nil {
		return err
	}
	return d.feed(ctx, s)
}

// stepSeconds is how far the clock goes at a time, so that it is known to the
// minute when a listing ended.
const stepSeconds = 60

// tickSeconds is the judge's: within it nothing is due.
const tickSeconds = 10

// Advance does what is due up to a time, in Unix seconds.
func (d *Driver) Advance(ctx context.Context, at int64) error {
	if d.clock == 0 {
		d.clock = at
	}
	for at/tickSeconds > d.clock/tickSeconds {
		d.clock = min(at, d.clock+stepSeconds)
		// A signal that may influence nothing moves the log's time.
		now := time.Unix(d.clock, 0).UTC()
		if err := d.feed(ctx, &muster.Signal{Received: now, At: now}); err != nil {
			return err
		}
	}
	return nil
}

// feed hands the judge one signal as a record of its own and waits for what
// comes of it.
func (d *Driver) feed(ctx context.Context, s *muster.Signal) error {
	d.position++
	d.data = muster.AppendSignal(d.data[:0], s)
	d.book.next = s.Received.Unix()
	select {
	case d.entries <- muster.Entry{Position: d.position, Data: d.data}:
	case err := <-d.ended:
		return d.broken(err)
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-d.book.heard:
		return nil
	case err := <-d.ended:
		return d.broken(err)
	}
}

func (d *Driver) broken(err error) error {
	d.ended <- err
	if err == nil {
		return errors.New("the judge was closed")
	}
	return fmt.Errorf("the judge ended: %w", err)
}

// entryReader is a log that is written as it is read.
type entryReader struct {
	entries  <-chan muster.Entry
	position uint64
}

func (r *entryReader) Next(ctx context.Context, _ int) ([]muster.Entry, error) {
	select {
	case e := <-r.entries:
		r.position = e.Position
		return []muster.Entry{e}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (r *entryReader) Position() uint64 { return r.position }
func (r *entryReader) Close()           {}

// book is a ledger that keeps nothing and passes on what is to be known. Its
// commits never fail, so that nothing is ever read from it.
type book struct {
	cfg   DriverConfig
	next  int64 // when the entry that comes was received
	now   int64 // the judge's own
	done  bool  // the entry
	heard chan struct{}
}

func (b *book) time() time.Time { return time.Unix(b.now, 0).UTC() }

func (b *book) Commit(_ context.Context, fn func(jury.Tx) error) error {
	b.now = max(b.now, b.next)
	if err := fn(b); err != nil {
		return err
	}
	if b.done {
		b.done = false
		b.heard <- struct{}{}
	}
	return nil
}

func (b *book) Advance(uint8, uint64, uint64) error {
	b.done = true
	return nil
}

func (b *book) PutVerdicts(verdicts []muster.Verdict) error {
	for i := range verdicts {
		v := &verdicts[i]
		at := b.now
		if v.Listed && v.Since.Unix() <= at {
			at = v.Since.Unix()
		}
		b.cfg.Verdict(v, at)
	}
	return nil
}

func (b *book) PutTrustEvents(events []muster.TrustEvent) error {
	if b.cfg.Event != nil {
		for i := range events {
			b.cfg.Event(&events[i])
		}
	}
	return nil
}

func (b *book) InsertAlerts(_ []uint8, signals []*muster.Signal) ([]bool, error) {
	fresh := make([]bool, len(signals))
	for i := range fresh {
		fresh[i] = true
	}
	return fresh, nil
}

func (*book) PutEvidence([]muster.EvidenceRow) error      { return nil }
func (*book) DeleteEvidence(uint8, []muster.Source) error { return nil }
func (*book) PutNumbers([]muster.Number) error            { return nil }
func (*book) PutTrust([]muster.TrustRow) error            { return nil }
func (*book) PutBehaviours([]muster.BehaviourRow) error   { return nil }
func (*book) AdvanceEpoch(uint64, uint64, []byte) error   { return nil }

func (*book) Positions(context.Context) (at [muster.Partitions]uint64, err error) { return at, nil }
func (*book) EachEvidence(context.Context, func(muster.EvidenceRow) error) error  { return nil }
func (*book) EachNumber(context.Context, func(muster.Number) error) error         { return nil }
func (*book) EachTrust(context.Context, func(muster.TrustRow) error) error        { return nil }
func (*book) EachBehaviour(context.Context, func(muster.BehaviourRow) error) error {
	return nil
}
func (*book) Epoch(context.Context) (uint64, []byte, error)  { return 0, nil, nil }
func (*book) LastVerdict(context.Context) (time.Time, error) { return time.Time{}, nil }
func (*book) Reports(context.Context, string, string, time.Time, int) ([]muster.Signal, error) {
	return nil, nil
}
