package publish

import (
	"sync"
	"sync/atomic"

	"muster"
)

// Allowlist is what must not reach some readers.
type Allowlist interface {
	// Covers reports whether any address of a source is allowlisted, and why. It
	// does no I/O.
	Covers(muster.Source) (reason string, ok bool)
}

// viewKey names the readers who share a view.
type viewKey struct {
	organisation string
	allowed      uint64 // version of the allowlist
}

// own is what is particular to the readers of a view at one moment.
type own struct {
	fleet     *set // nil without a fleet list
	allow     Allowlist
	allowed   uint64          // version of allow
	preferred []muster.Source // that they get whatever else is chosen
	favoured  uint64          // version of preferred
	ranked    *rankedList     // what gets the last places; nil: no wish
}

// none reports whether o differs in nothing from what everybody gets.
func (o *own) none() bool {
	return o.fleet == nil && o.allow == nil && !o.wishes()
}

// wishes reports whether there is something that the readers get whatever blocks
// are chosen.
func (o *own) wishes() bool { return len(o.preferred) > 0 || o.ranked != nil }

// view holds what had to be encoded for some readers alone, in place of shared
// blocks that contain something which they must not get.
type view struct {
	used atomic.Int64 // Unix seconds

	mu      sync.Mutex // held while an edition is built
	fleet   uint64     // version of the fleet's list that it holds for
	adapted map[adaptKey]adapted
}

type adaptKey struct {
	fleet bool
	block uint32
	v     Version
}

type adapted struct {
	base    *fragment
	network uint64    // version of the network's list; of blocks of fleets, which depend on it
	own     *fragment // nil: base will do
}

// refresh forgets what does not hold any more; v.mu is held.
func (v *view) refresh(fleet uint64) {
	if v.adapted == nil || v.fleet != fleet {
		v.adapted, v.fleet = map[adaptKey]adapted{}, fleet
	}
}

// chooser decides what may be sent to the readers of one view, or to everybody;
// Publisher.mu is held for reading as long as it is used.
type chooser struct {
	p       *Publisher
	network *set
	own     *own // nil: everybody
	at      uint32
	v       Version
	encoder *encoder
	dropped int
}

// covered reports whether the readers' own allowlist forbids a source.
func (c *chooser) covered(k *key) bool {
	if c.own == nil || c.own.allow == nil {
		return false
	}
	_, covered := c.own.allow.Covers(k.source())
	return covered
}

// sendable reports whether a row may be sent as far as no list but its own is
// concerned: it lasts an hour, nothing forbids it, and no range stands for it.
func (c *chooser) sendable(r *row) bool {
	if r.until < c.at+3600 || c.p.cfg.Allowed(r.key.source()) || c.covered(&r.key) {
		return false
	}
	wide := c.network.standsFor(r)
	return wide == nil || c.p.cfg.Allowed(wide.key.source()) || c.covered(&wide.key)
}

// elsewhere reports whether a row of s stands on the readers' other list too, and
// that has the better word: the later end, the fleet's at a tie.
func (c *chooser) elsewhere(s *set, r *row) bool {
	if c.own == nil || c.own.fleet == nil {
		return false
	}
	if s == c.own.fleet {
		other := c.network.listed(r.key)
		return other != nil && other.block != noBlock && other.until > r.until
	}
	other := c.own.fleet.listed(r.key)
	return other != nil && other.block != noBlock && other.until >= r.until
}

// particular reports whether a row of s is another matter for the readers of the
// view than for everybody.
func (c *chooser) particular(s *set, r *row) bool {
	if c.covered(&r.key) || c.elsewhere(s, r) {
		return true
	}
	if c.own.allow == nil {
		return false
	}
	wide := c.network.standsFor(r)
	return wide != nil && c.covered(&wide.key)
}

// base returns the shared encoding of a block, made anew if need be.
func (c *chooser) base(s *set, b *block) *fragment {
	stamp := stamp{changes: b.changes, truth: c.p.truth.Load()}
	if s != c.network {
		stamp.ranges = c.network.ranges
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	f := &b.encoded[c.v-V2]
	if !(*f).valid(c.at, stamp) {
		everybody := *c
		everybody.own = nil
		lines := c.encoder.lines[:0]
		for _, slot := range b.slots {
			if r := &s.rows[slot]; everybody.sendable(r) {
				lines = append(lines, line{r.key, r.until})
			}
		}
		*f = c.encode(s.bucketList[b.bucket], lines)
		(*f).stamp = stamp
	}
	return *f
}

func (c *chooser) encode(b *bucket, lines []line) *fragment {
	c.encoder.lines = lines
	f, dropped := c.encoder.encode(b, lines, c.at, c.v)
	c.dropped += dropped
	return f
}

// fragment returns what the readers get of a block.
func (c *chooser) fragment(v *view, s *set, id uint32) *fragment {
	b := s.blocks[id]
	base := c.base(s, b)
	if c.own == nil {
		return base
	}
	k, network := adaptKey{s != c.network, id, c.v}, uint64(0)
	if k.fleet {
		network = c.network.version.Load()
	}
	a, ok := v.adapted[k]
	if !ok || a.base != base || a.network != network || a.own != nil && !a.own.timely(c.at) {
		a = adapted{base: base, network: network, own: c.adapt(s, b)}
		v.adapted[k] = a
	}
	if a.own != nil {
		return a.own
	}
	return base
}

// adapt returns the encoding of a block for the readers of the view, nil when it
// is everybody's.
func (c *chooser) adapt(s *set, b *block) *fragment {
	particular := false
	for _, slot := range b.slots {
		if particular = c.particular(s, &s.rows[slot]); particular {
			break
		}
	}
	if !particular {
		return nil
	}
	lines := c.encoder.lines[:0]
	for _, slot := range b.slots {
		if r := &s.rows[slot]; !c.elsewhere(s, r) && c.sendable(r) {
			lines = append(lines, line{r.key, r.until})
		}
	}
	return c.encode(s.bucketList[b.bucket], lines)
}
