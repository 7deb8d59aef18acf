package sieve

import (
	"maps"
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
	mu    sync.Mutex
	seen  map[netip.Prefix]strangerWindow
	swept time.Time
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
		if now.Sub(s.swept) >= time.Second { // it goes through all of them
			s.swept = now
			maps.DeleteFunc(s.seen, func(_ netip.Prefix, w strangerWindow) bool { return !now.Before(w.ends) })
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
