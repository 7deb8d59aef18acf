// Package namecheck finds out whose reverse name an address has, and whether
// the name is the address's own: the name must lead back to the address, since
// whoever holds an address may give it any name. Search engines ask operators to
// recognise their crawlers so.
//
// Nobody waits for a lookup: Check answers from memory and has the rest looked up
// in the background. Lookups tell the name servers of an address's holder that
// somebody is interested in it, so that a server does none unless it is told to.
package namecheck

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Resolver looks names up; net.Resolver is one. Both methods end with ctx. A
// name or address that is not there is a *net.DNSError with IsNotFound.
type Resolver interface {
	LookupAddr(ctx context.Context, addr string) (names []string, err error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Config sets up a Service. Zero values choose the defaults named.
type Config struct {
	Resolver Resolver // required
	// Wanted says whether a name, in lower case and without the dot of the root,
	// matters to the caller: no other is confirmed. Required; it must not block.
	Wanted func(name string) bool
	// Confirmed hears of every address that is found to own a wanted name. While it
	// blocks, it holds one of Lookups; it must end with ctx, which is Run's. nil =
	// nobody.
	Confirmed func(ctx context.Context, addr netip.Addr, name string)

	Lookups int           // at once; 0 = 4
	Every   time.Duration // one address after the other, at most so often; 0 = 50 ms, less = no limit
	Queue   int           // addresses that wait; further ones are left to a later Check; 0 = 1,024
	Answers int           // addresses that are remembered, about 300 bytes each; 0 = 65,536
	Keep    time.Duration // for which an answer holds; 0 = 24 hours
	Retry   time.Duration // after a lookup that failed; 0 = 5 minutes
	Timeout time.Duration // of all lookups for one address; 0 = 5 seconds

	Now        func() time.Time      // nil = time.Now
	Registerer prometheus.Registerer // nil = no metrics
}

// maxNames is how many names of an address are considered, and confirmed: the
// holder of an address could give it thousands.
const maxNames = 4

// State says what is known about an address.
type State uint8

// The states.
const (
	Unknown State = iota // not looked up yet, or in vain: ask again
	Owns                 // it owns a wanted name
	Other                // it owns no wanted name
)

// Service looks up and remembers. Its methods are safe for concurrent use.
type Service struct {
	cfg   Config
	queue chan *answer

	mu      sync.Mutex
	answers map[netip.Addr]*list.Element // of *answer
	recent  *list.List                   // asked last first
	turn    time.Time                    // of the next lookup

	lookups *prometheus.CounterVec
	left    prometheus.Counter
}

type answer struct {
	addr    netip.Addr
	state   State
	name    string
	waiting bool // queued, or being looked up
	until   time.Time
}

// New returns a Service. It looks nothing up before Run.
func New(cfg Config) *Service {
	orDefault(&cfg.Lookups, 4)
	if cfg.Every == 0 {
		cfg.Every = 50 * time.Millisecond
	}
	orDefault(&cfg.Queue, 1024)
	orDefault(&cfg.Answers, 65_536)
	orDefault(&cfg.Keep, 24*time.Hour)
	orDefault(&cfg.Retry, 5*time.Minute)
	orDefault(&cfg.Timeout, 5*time.Second)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Service{
		cfg: cfg, queue: make(chan *answer, cfg.Queue), answers: map[netip.Addr]*list.Element{}, recent: list.New(),
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "muster_namecheck_total", Help: "Addresses whose reverse name was looked up, by result."}, []string{"result"}),
		left:    prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_namecheck_left_total", Help: "Addresses not looked up because too many waited."}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(s.lookups, s.left)
	}
	return s
}

func orDefault[T ~int | ~int64](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Check returns what is known about addr, and the wanted name that it owns. What
// is not known is looked up in the background, what is no longer certain anew:
// until then the old answer holds. It does not block.
func (s *Service) Check(addr netip.Addr) (name string, state State) {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return "", Other
	}
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var a *answer
	e, known := s.answers[addr]
	if known {
		s.recent.MoveToFront(e)
		a = e.Value.(*answer)
	} else {
		a = &answer{addr: addr}
	}
	if a.waiting || now.Before(a.until) {
		return a.name, a.state
	}
	select {
	case s.queue <- a:
		a.waiting = true
	default:
		s.left.Inc()
		return a.name, a.state
	}
	if !known {
		s.remember(a)
	}
	return a.name, a.state
}

// remember makes room for a, if need be.
func (s *Service) remember(a *answer) {
	s.answers[a.addr] = s.recent.PushFront(a)
	if len(s.answers) > s.cfg.Answers {
		oldest := s.recent.Back()
		delete(s.answers, oldest.Value.(*answer).addr)
		s.recent.Remove(oldest)
	}
}

// Forget forgets all answers, as when other names are wanted.
func (s *Service) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.answers)
	s.recent.Init()
}

// Run looks up until ctx ends. It is to be called once.
func (s *Service) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range s.cfg.Lookups {
		workers.Go(func() {
			for {
				select {
				case a := <-s.queue:
					if s.pace(ctx) {
						s.settle(ctx, a)
					}
				case <-ctx.Done():
					return
				}
			}
		})
	}
	workers.Wait()
	return nil
}

// pace waits for the turn of the next address; false when ctx ends before.
func (s *Service) pace(ctx context.Context) bool {
	s.mu.Lock()
	now := s.cfg.Now()
	if s.turn.Before(now) {
		s.turn = now
	}
	wait := s.turn.Sub(now)
	s.turn = s.turn.Add(max(s.cfg.Every, 0))
	s.mu.Unlock()
	if wait == 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// settle looks an address up and notes the answer. Until then nobody else does.
func (s *Service) settle(ctx context.Context, a *answer) {
	limited, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	name, err := s.lookup(limited, a.addr)
	cancel()
	now, result := s.cfg.Now(), "other"
	s.mu.Lock()
	a.waiting = false
	switch {
	case err != nil:
		a.until, result = now.Add(s.cfg.Retry), "failed" // what was known before holds on
	case name == "":
		a.name, a.state, a.until = "", Other, now.Add(s.cfg.Keep)
	default:
		a.name, a.state, a.until, result = name, Owns, now.Add(s.cfg.Keep), "owns"
	}
	s.mu.Unlock()
	s.lookups.WithLabelValues(result).Inc()
	if name != "" && s.cfg.Confirmed != nil {
		s.cfg.Confirmed(ctx, a.addr, name)
	}
}

// lookup returns the wanted name that addr owns, or "". An error means that it
// could not be found out; a name that is not there is an answer.
func (s *Service) lookup(ctx context.Context, addr netip.Addr) (string, error) {
	names, err := s.cfg.Resolver.LookupAddr(ctx, addr.String())
	if err != nil && !notFound(err) {
		return "", err
	}
	network := "ip6"
	if addr.Is4() {
		network = "ip4"
	}
	var failed error
	for _, name := range names[:min(len(names), maxNames)] {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if !s.cfg.Wanted(name) {
			continue
		}
		addrs, err := s.cfg.Resolver.LookupNetIP(ctx, network, name+".")
		switch {
		case err == nil && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap().WithZone("") == addr }):
			return name, nil
		case err != nil && !notFound(err):
			failed = err
		}
	}
	return "", failed
}

func notFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}
