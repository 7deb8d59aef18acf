package allow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"muster"
)

const (
	// A name is looked up again when its answer ends, within these bounds.
	minHostTTL = time.Minute
	maxHostTTL = time.Hour
	// hostLinger is how long an address stays after its name has ceased to lead
	// there: many names lead to a few of their addresses in turn.
	hostLinger      = time.Hour
	hostTimeout     = 5 * time.Second
	hostsAtOnce     = 8
	maxHostFails    = 5 // the wait after a failure doubles so many times
	maxHostAddrs    = 64
	hostAnswer      = "host:"
	persistHostEach = time.Hour
)

// host is what is known about one name.
type host struct {
	current []netip.Addr             // of the last good answer, in order
	seen    map[netip.Addr]time.Time // when each was last in an answer
	good    time.Time                // when the last good answer came
	due     time.Time                // when it is looked up next
	fails   int                      // since then
	problem string
	wanted  bool // is on a list
	stored  time.Time
}

func newHost() *host { return &host{seen: map[netip.Addr]time.Time{}} }

// addresses returns the addresses that count, each with its end. The ends of
// those of the last answer move hour by hour, so that a list stays the same for
// as long as engines would see no difference.
func (h *host) addresses(keep time.Duration) iter.Seq2[netip.Addr, time.Time] {
	return func(yield func(netip.Addr, time.Time) bool) {
		for addr, at := range h.seen {
			until := at.Add(hostLinger)
			if _, ok := slices.BinarySearchFunc(h.current, addr, netip.Addr.Compare); ok {
				until = h.good.Truncate(time.Hour).Add(keep)
			}
			if !yield(addr, until) {
				return
			}
		}
	}
}

// answer takes a good answer and reports whether the addresses or their ends
// differ from before.
func (h *host) answer(addrs []netip.Addr, ttl time.Duration, now time.Time) (differs bool) {
	was, hour := h.current, h.good.Truncate(time.Hour)
	h.current = addrs
	for _, a := range addrs {
		h.seen[a] = now
	}
	maps.DeleteFunc(h.seen, func(_ netip.Addr, at time.Time) bool { return !now.Before(at.Add(hostLinger)) })
	h.good, h.fails, h.problem = now, 0, ""
	h.due = now.Add(min(max(ttl, minHostTTL), maxHostTTL))
	return !slices.Equal(was, addrs) || !hour.Equal(now.Truncate(time.Hour))
}

// fail notes that no answer came. What is known holds on.
func (h *host) fail(err error, now time.Time) {
	h.due = now.Add(minHostTTL << min(h.fails, maxHostFails))
	h.fails++
	h.problem = "it could not be looked up: " + hostError(err)
	if !h.good.IsZero() {
		h.problem += "; the answer of " + h.good.UTC().Format(time.RFC3339) + " holds on for a while"
	}
}

// hostError says what is wrong without naming the server's own resolver.
func hostError(err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "there is no such name"
	case errors.As(err, &dns) && dns.IsTimeout, errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, errNoAddress):
		return errNoAddress.Error()
	}
	return "the resolver failed"
}

var errNoAddress = errors.New("it has no address")

// ask looks one name up.
func (s *Service) ask(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, hostTimeout)
	defer cancel()
	found, ttl, err := s.cfg.Resolver.Resolve(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	var addrs []netip.Addr
	for _, a := range found {
		if a = a.Unmap().WithZone(""); a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() {
			addrs = append(addrs, a)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	if len(addrs) == 0 {
		return nil, 0, errNoAddress
	}
	return addrs[:min(len(addrs), maxHostAddrs)], ttl, nil
}

// lookup is the answer to one name.
type lookup struct {
	name  string
	addrs []netip.Addr
	ttl   time.Duration
	err   error
}

// askAll looks names up, some at once.
func (s *Service) askAll(ctx context.Context, names []string) []lookup {
	answers := make([]lookup, len(names))
	var group errgroup.Group
	group.SetLimit(hostsAtOnce)
	for i, name := range names {
		group.Go(func() error {
			l := &answers[i]
			l.name = name
			l.addrs, l.ttl, l.err = s.ask(ctx, name)
			return nil
		})
	}
	_ = group.Wait() // none fails
	return answers
}

// resolve looks up the names that are due and returns when the next one is.
func (s *Service) resolve(ctx context.Context) time.Duration {
	now := s.cfg.Now()
	var due, forgotten []string
	s.mu.Lock()
	for name, h := range s.known.hosts {
		switch {
		case !h.wanted:
			delete(s.known.hosts, name)
			forgotten = append(forgotten, name)
		case !now.Before(h.due):
			due = append(due, name)
		}
	}
	s.mu.Unlock()
	for _, name := range forgotten {
		if err := s.cfg.Store.DeleteAllowAnswer(ctx, hostAnswer+name); err != nil && ctx.Err() == nil {
			s.log.Warn("the answer for a name that is on no allowlist any more could not be forgotten", "error", err)
		}
	}
	slices.Sort(due)
	answers := s.askAll(ctx, due)
	if ctx.Err() != nil {
		return time.Hour // the loop ends
	}
	s.refresh(s.takeAnswers(ctx, answers))

	s.mu.Lock()
	defer s.mu.Unlock()
	next := maxHostTTL
	for _, h := range s.known.hosts {
		next = min(next, max(h.due.Sub(s.cfg.Now()), time.Second))
	}
	return next
}

// takeAnswers notes answers and returns the lists whose content differs.
func (s *Service) takeAnswers(ctx context.Context, answers []lookup) (ids []string) {
	now := s.cfg.Now()
	differ := map[string]bool{}
	type stored struct {
		name string
		data []byte
	}
	var store []stored
	s.mu.Lock()
	for _, a := range answers {
		h := s.known.hosts[a.name]
		if h == nil {
			continue // forgotten meanwhile
		}
		if a.err != nil {
			h.fail(a.err, now)
			s.metrics.hosts.WithLabelValues("failed").Inc()
			continue
		}
		s.metrics.hosts.WithLabelValues("ok").Inc()
		differs := h.answer(a.addrs, a.ttl, now)
		if differs {
			differ[a.name] = true
		}
		if differs || now.Sub(h.stored) >= persistHostEach {
			h.stored = now
			store = append(store, stored{a.name, h.marshal()})
		}
	}
	for id, l := range s.lists {
		for i := range l.items {
			if item := &l.items[i]; item.Kind == muster.AllowHost && differ[item.Value] {
				ids = append(ids, id)
				break
			}
		}
	}
	s.mu.Unlock()
	for _, a := range store {
		if err := s.cfg.Store.PutAllowAnswer(ctx, hostAnswer+a.name, now, a.data); err != nil && ctx.Err() == nil {
			s.log.Warn("the addresses of a name could not be stored; after a restart they are looked up anew", "name", a.name, "error", err)
		}
	}
	return ids
}

// storedHost is a host in the database.
type storedHost struct {
	Current []netip.Addr             `json:"current"`
	Seen    map[netip.Addr]time.Time `json:"seen"`
	Good    time.Time                `json:"good"`
}

func (h *host) marshal() []byte {
	b, err := json.Marshal(storedHost{h.current, h.seen, h.good.UTC()})
	if err != nil {
		panic(err) // addresses and times have a JSON form
	}
	return b
}

// loadAnswers takes what names and providers stood for when this process, or the
// one before, was last told.
func (s *Service) loadAnswers(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.cfg.Store.EachAllowAnswer(ctx, func(name string, at time.Time, data []byte) error {
		if name, ok := strings.CutPrefix(name, hostAnswer); ok {
			var stored storedHost
			if err := json.Unmarshal(data, &stored); err != nil {
				s.log.Warn("the stored addresses of a name could not be read; it is looked up anew", "name", name, "error", err)
				return nil
			}
			h := newHost()
			h.current, h.good, h.stored = stored.Current, stored.Good, at
			maps.Copy(h.seen, stored.Seen)
			s.known.hosts[name] = h
		}
		if set, ok := strings.CutPrefix(name, cloudAnswer); ok {
			c := &cloud{}
			if err := c.take(data); err != nil {
				s.log.Warn("the stored ranges of a provider could not be read; they are read anew", "name", set, "error", err)
				return nil
			}
			s.known.clouds[set] = c
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading what names on allowlists stood for: %w", err)
	}
	return nil
}

// learnHosts looks up the names among items that are not known yet. A name that
// leads nowhere is left unknown.
func (s *Service) learnHosts(ctx context.Context, items []muster.AllowItem) {
	var names []string
	s.mu.Lock()
	for i := range items {
		if item := &items[i]; item.Kind == muster.AllowHost && s.known.count(item) == 0 {
			names = append(names, item.Value)
			if s.known.hosts[item.Value] == nil {
				s.known.hosts[item.Value] = newHost()
			}
			s.known.hosts[item.Value].wanted = true
			s.known.hosts[item.Value].due = s.cfg.Now().Add(minHostTTL) // not at the same time
		}
	}
	s.mu.Unlock()
	slices.Sort(names)
	s.takeAnswers(ctx, s.askAll(ctx, slices.Compact(names)))
}
