package enroll

import (
	"sync"
	"time"
)

// recent remembers for a short while which machines the store was asked about,
// so that requests in the name of an unknown machine do not each cost a query.
// It is bounded: under a flood of made-up names it forgets early.
type recent struct {
	mu         sync.Mutex
	young, old map[string]struct{}
	turned     time.Time
}

const (
	recentFor   = time.Second // at least; at most twice that
	recentLimit = 4096        // names per generation
)

func (r *recent) turn(now time.Time) {
	if r.young == nil || now.Sub(r.turned) >= recentFor || len(r.young) >= recentLimit {
		if now.Sub(r.turned) >= 2*recentFor {
			r.young = nil
		}
		r.young, r.old, r.turned = make(map[string]struct{}), r.young, now
	}
}

func (r *recent) has(id string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(now)
	_, young := r.young[id]
	_, old := r.old[id]
	return young || old
}

func (r *recent) add(id string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(now)
	r.young[id] = struct{}{}
}

func (r *recent) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.young, id)
	delete(r.old, id)
}
