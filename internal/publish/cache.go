package publish

import (
	"hash/maphash"
	"math"
	"sync"
)

// cache is a bounded map that is read often and from everywhere.
type cache[K comparable, V any] struct {
	seed   maphash.Seed
	max    int
	shards [16]struct {
		mu sync.RWMutex
		m  map[K]V
	}
}

func newCache[K comparable, V any](most int) *cache[K, V] {
	return &cache[K, V]{seed: maphash.MakeSeed(), max: most}
}

// get returns the value of k, made if need be; used tells when a value was used
// last, for when one must make room.
func (c *cache[K, V]) get(k K, fresh func() V, used func(V) int64) V {
	s := &c.shards[maphash.Comparable(c.seed, k)%uint64(len(c.shards))]
	s.mu.RLock()
	v, ok := s.m[k]
	s.mu.RUnlock()
	if ok {
		return v
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok = s.m[k]; ok {
		return v
	}
	if s.m == nil {
		s.m = map[K]V{}
	}
	if len(s.m) >= max(c.max/len(c.shards), 1) {
		oldest, at := k, int64(math.MaxInt64)
		for other, v := range s.m {
			if u := used(v); u < at {
				oldest, at = other, u
			}
		}
		delete(s.m, oldest)
	}
	v = fresh()
	s.m[k] = v
	return v
}

// each calls fn with everything that there is; fn must not ask the cache.
func (c *cache[K, V]) each(fn func(K, V)) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		for k, v := range s.m {
			fn(k, v)
		}
		s.mu.RUnlock()
	}
}

func (c *cache[K, V]) len() int {
	n := 0
	for i := range c.shards {
		c.shards[i].mu.RLock()
		n += len(c.shards[i].m)
		c.shards[i].mu.RUnlock()
	}
	return n
}
