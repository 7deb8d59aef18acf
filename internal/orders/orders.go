// Package orders carries instructions to machines: an outbox per machine, and
// the long polls that wait for it. Orders stay in the log until they expire;
// a machine selects by time, so a poll that dies half-way loses nothing.
package orders

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"muster"
)

// Outbox keeps orders durably.
type Outbox interface {
	// AppendOrder stores o and returns it with its IssuedAt, which is later by
	// at least a millisecond than that of any earlier order of the machine.
	AppendOrder(ctx context.Context, o muster.Order) (muster.Order, error)
	// Orders returns a machine's orders issued after since that have not
	// expired at now, oldest first, at most limit.
	Orders(ctx context.Context, machine string, since, now time.Time, limit int) ([]muster.Order, error)
}

// Config sets up a Service.
type Config struct {
	Outbox Outbox
	// Ring tells every node, this one included, that a machine has a new order.
	Ring       func(ctx context.Context, machine string) error
	Keep       time.Duration // how long an order that nobody fetched stays; 0 = 24 h
	MaxWaiting int           // long polls held at once; 0 = 50,000
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Service issues orders and lets machines wait for them.
type Service struct {
	cfg Config

	mu      sync.Mutex
	waiting map[string]map[chan struct{}]struct{} // by machine; a machine may poll twice (cscli papi sync)
	count   int

	issued *prometheus.CounterVec
}

// New returns a Service without orders.
func New(cfg Config) *Service {
	if cfg.Keep <= 0 {
		cfg.Keep = 24 * time.Hour
	}
	if cfg.MaxWaiting <= 0 {
		cfg.MaxWaiting = 50_000
	}
	s := &Service{
		cfg:     cfg,
		waiting: map[string]map[chan struct{}]struct{}{},
		issued: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_orders_issued_total", Help: "Orders issued, by kind.",
		}, []string{"kind"}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(s.issued, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "muster_orders_waiting_polls", Help: "Long polls held open (limits.polls bounds them).",
		}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return float64(s.count)
		}))
	}
	return s
}

// Issue stores an order and wakes the machine if it waits on any node. Kind,
// Machine and Data must be set; the rest is filled in.
func (s *Service) Issue(ctx context.Context, o muster.Order) (muster.Order, error) {
	now := s.cfg.Now().UTC()
	id, err := uuid.NewV7()
	if err != nil {
		return o, err
	}
	o.ID, o.IssuedAt, o.ExpiresAt = id.String(), now, now.Add(s.cfg.Keep)
	if o, err = s.cfg.Outbox.AppendOrder(ctx, o); err != nil {
		return o, err
	}
	s.issued.WithLabelValues(string(o.Kind)).Inc()
	if err := s.cfg.Ring(ctx, o.Machine); err != nil {
		// The order is stored: the machine gets it with its next poll at the latest.
		s.cfg.Logger.Warn("other nodes could not be told of an order; it is delivered with the machine's next poll", "machine", o.Machine, "error", err)
		s.Wake(o.Machine)
	}
	return o, nil
}

// maxPerPoll bounds one answer; the machine asks again at once.
const maxPerPoll = 100

// Wait returns the machine's orders after since, oldest first. When there are
// none it waits for one until timeout, or until stop closes (the server
// drains), and then returns none. Errors: code Unavailable when too many polls
// wait already.
func (s *Service) Wait(ctx context.Context, machine string, since time.Time, timeout time.Duration, stop <-chan struct{}) ([]muster.Order, error) {
	// Listening begins before the first look, so that no order falls between.
	bell, err := s.listen(machine)
	if err != nil {
		return nil, err
	}
	defer s.unlisten(machine, bell)
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		found, err := s.cfg.Outbox.Orders(ctx, machine, since, s.cfg.Now(), maxPerPoll)
		if err != nil || len(found) > 0 {
			return found, err
		}
		select {
		case <-bell:
		case <-timer.C:
			return nil, nil
		case <-stop:
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Wake lets the polls of one machine look again.
func (s *Service) Wake(machine string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for bell := range s.waiting[machine] {
		ring(bell)
	}
}

// WakeAll lets every poll look again: rings were missed.
func (s *Service) WakeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, bells := range s.waiting {
		for bell := range bells {
			ring(bell)
		}
	}
}

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

func (s *Service) listen(machine string) (chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count >= s.cfg.MaxWaiting {
		return nil, &muster.Error{
			Code: muster.Unavailable, RetryAfter: 30 * time.Second,
			Message: "too many engines wait for orders on this node: try again (setting limits.polls)",
		}
	}
	bell := make(chan struct{}, 1)
	bells := s.waiting[machine]
	if bells == nil {
		bells = map[chan struct{}]struct{}{}
		s.waiting[machine] = bells
	}
	bells[bell] = struct{}{}
	s.count++
	return bell, nil
}

func (s *Service) unlisten(machine string, bell chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting[machine], bell)
	if len(s.waiting[machine]) == 0 {
		delete(s.waiting, machine)
	}
	s.count--
}
