package sieve

import (
	"net/netip"
	"sync"
	"time"

	"muster/internal/ratelimit"
)

// What a client without a key may ask, in how long.
const (
	strangerRequests = 100
	strangerSpan     = time.Minute
	maxStrangers     = 10_000
)

// strangers counts the requests of clients without a key, by address. Beyond
// maxStrangers at once, further ones share one count.
type strangers struct {
	mu   sync.Mutex
	seen map[netip.Prefix]strangerWindow
}

type strangerWindow struct {
	ends  time.Time
	count int
}

// spend counts a request and returns how long the client must wait, 0 when it need
// not.
func (s *strangers) spend(addr netip.Addr, now time.Time) time.Duration {
	client := ratelimit.PrefixOf(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[netip.Prefix]strangerWindow{}
	}
	w, known := s.seen[client]
	if !known && len(s.seen) >= maxStrangers {
		for p, w := range s.seen {
			if !now.Before(w.ends) {
				delete(s.seen, p)
			}
		}
		if len(s.seen) >= maxStrangers {
			client = netip.Prefix{}
			w = s.seen[client]
		}
	}
	if !now.Before(w.ends) {
		w = strangerWindow{ends: now.Add(strangerSpan)}
	}
	w.count++
	s.seen[client] = w
	if w.count > strangerRequests {
		return w.ends.Sub(now)
	}
	return 0
}
