package reach

import (
	"net/netip"
	"sync"
)

// cursorKey tells bouncers apart: several may share a key, and two that share an
// address too are told apart by what they are and ask for.
type cursorKey struct {
	integration string
	addr        netip.Addr
	ask         uint64 // hash over agent and filter
}

// cursor is what a bouncer has been told.
type cursor struct {
	at           int64  // up to when, Unix nanoseconds
	keys         string // of which lists
	allowVersion uint64 // under which allowlist
}

// maxCursors bounds the memory; of more, some are forgotten, and those bouncers
// are told everything again.
const maxCursors = 50_000

// cursors remembers bouncers. It is this node's: a bouncer that comes to another
// one is told everything.
type cursors struct {
	mu sync.Mutex
	at map[cursorKey]cursor
}

func (c *cursors) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.at)
}

func (c *cursors) of(key cursorKey) (cursor, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cur, ok := c.at[key]
	return cur, ok
}

// put notes what a bouncer has been told. An answer that was made earlier than
// the last one does not move it back.
func (c *cursors) put(key cursorKey, cur cursor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, known := c.at[key]
	if known && old.at > cur.at {
		return
	}
	if !known && len(c.at) >= maxCursors {
		var oldest cursorKey
		seen, at := 0, int64(0)
		for k, o := range c.at { // in no order: the oldest of a few at random
			if seen == 0 || o.at < at {
				oldest, at = k, o.at
			}
			if seen++; seen == 32 {
				break
			}
		}
		delete(c.at, oldest)
	}
	c.at[key] = cur
}

// forget drops those of before a time.
func (c *cursors) forget(before int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, cur := range c.at {
		if cur.at < before {
			delete(c.at, key)
		}
	}
}
