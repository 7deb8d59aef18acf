package enroll

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// digest is the SHA-256 of a token's text, under which it is remembered: no
// token can be read out of memory, and nobody can make two texts collide.
type digest [sha256.Size]byte

// tokenDigest hashes at most maxToken bytes. The copy is on the stack, which a
// conversion of that length would not be.
func tokenDigest(text string) digest {
	var buf [maxToken]byte
	return sha256.Sum256(buf[:copy(buf[:], text)])
}

// tokenCache remembers verified tokens, so that each costs one verification of
// a signature and not one per request. It holds two generations per shard; when
// the young one is full it becomes the old one, and the old is forgotten. A hit
// in the old generation moves to the young.
type tokenCache struct {
	shards [32]cacheShard
	limit  int           // entries per generation and shard
	clears atomic.Uint64 // see generation
}

type cacheShard struct {
	mu         sync.RWMutex
	young, old map[digest]grant
	_          [64]byte // keeps the locks of neighbours on different cache lines
}

func newTokenCache(size int) *tokenCache {
	c := &tokenCache{}
	c.limit = max(1, size/2/len(c.shards))
	c.clear()
	return c
}

// generation is to be asked before a token is verified and given to put, which
// then drops the result if the cache was cleared in between.
func (c *tokenCache) generation() uint64 { return c.clears.Load() }

func (c *tokenCache) clear() {
	c.clears.Add(1)
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.young, s.old = make(map[digest]grant), nil
		s.mu.Unlock()
	}
}

func (c *tokenCache) shard(key *digest) *cacheShard {
	return &c.shards[binary.LittleEndian.Uint64(key[:])%uint64(len(c.shards))]
}

func (c *tokenCache) get(key digest) (grant, bool) {
	generation := c.generation()
	s := c.shard(&key)
	s.mu.RLock()
	g, young := s.young[key]
	old := false
	if !young {
		g, old = s.old[key]
	}
	s.mu.RUnlock()
	if old {
		c.put(key, g, generation)
	}
	return g, young || old
}

func (c *tokenCache) put(key digest, g grant, generation uint64) {
	s := c.shard(&key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if generation != c.clears.Load() {
		return
	}
	if len(s.young) >= c.limit {
		s.young, s.old = make(map[digest]grant, c.limit), s.young
	}
	s.young[key] = g
}
