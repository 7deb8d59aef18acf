package publish

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeebo/xxh3"
)

// Version is a dialect of the decision stream.
type Version uint8

// The dialects.
const (
	V2 Version = 2 // flat, engines up to 1.4
	V3 Version = 3 // grouped by scenario and scope
)

// edition is what the new decisions of an answer are made of: fragments, most of
// them shared with other editions. It is immutable.
type edition struct {
	fragments []*fragment
	entries   int
	json      int    // bytes up to the end of the last fragment
	gzip      int    // the same, compressed, with the header
	crc       uint32 // of the JSON
	sum       xxh3.Uint128

	basis   basis
	made    time.Time
	expires uint32 // when a duration in it must be counted anew
}

// basis tells what an edition was made from.
type basis struct{ network, fleet, favoured, ranked, truth uint64 }

// editionKey names an edition: who it is for and in which dialect.
type editionKey struct {
	footprint uint64 // 0: untailored
	size      int
	view      viewKey // zero for what everybody gets
	version   Version
}

// slot holds the newest edition for a key.
type slot struct {
	used    atomic.Int64 // Unix seconds
	edition atomic.Pointer[edition]

	mu     sync.Mutex // held to build
	taken  map[uint32]struct{}
	extras map[lineGroup]extra // what was encoded for this edition alone
}

// lineGroup is what lines have in common that are encoded together.
type lineGroup struct {
	scenario string
	wide     bool
}

// extra is an encoding with the hash of its lines.
type extra struct {
	sum      uint64
	fragment *fragment
}

const (
	// maxEditions bounds the cache; one that was not used for long goes first. An
	// edition takes some 10 KB beside the blocks that it shares with others.
	maxEditions = 4096
	// maxChosen bounds those that may have thousands of lines encoded for them
	// alone: 200 KB each.
	maxChosen = 1024
	// maxViews bounds what is held for single organisations in the same way.
	maxViews = 1024
	// coalesce is how long an edition is served although something changed, so
	// that a busy network does not rebuild it for every pull. A verdict still
	// reaches the next pull within a second.
	coalesce = 500 * time.Millisecond
	// maxPreferred bounds what is encoded for one organisation's own sake.
	maxPreferred = 5_000
	// unrankedShare is the part of a ranked list that what the readers saw last may
	// take whatever its rank, because rankings are some minutes old. For the rest of
	// what they saw the ranking knows best how much it matters: lists of 100 held 26 %
	// more of the next day's attackers than with all of it first, lists of 300 7 %
	// (TestRankedPullsHoldMoreOfTheNextDay in internal/replay).
	unrankedShare = 10
	// stay is what a block is worth more that is on the list already: another must
	// outrank it by six hours of age, or 9 % of the points.
	stay = 0.125
)

// edition returns what a reader is to be sent now, from the cache unless something
// has changed.
func (p *Publisher) edition(key editionKey, f func() *footprint, o *own, now time.Time) *edition {
	all := p.editions
	if o.wishes() {
		all = p.chosen
	}
	s := all.get(key, func() *slot { return new(slot) }, func(s *slot) int64 { return s.used.Load() })
	at := secondsUp(now)
	if s.used.Load() != int64(at) {
		s.used.Store(int64(at))
	}
	b := p.basisOf(o)
	e := s.edition.Load()
	if e.serves(b, now, at) {
		return e
	}
	// While one reader builds, others get what there was, unless it may hold what
	// they must not get.
	if e != nil && e.permitted(b) && at < e.expires+60 {
		if !s.mu.TryLock() {
			return e
		}
	} else {
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	if e = s.edition.Load(); e.serves(b, now, at) {
		return e
	}
	e = p.build(s, key, f(), o, now)
	s.edition.Store(e)
	return e
}

func (p *Publisher) basisOf(o *own) basis {
	b := basis{network: p.network.version.Load(), truth: p.truth.Load(), favoured: o.favoured}
	if o.fleet != nil {
		b.fleet = o.fleet.version.Load()
	}
	if o.ranked != nil {
		b.ranked = o.ranked.version
	}
	return b
}

// serves reports whether e is good enough at a time.
func (e *edition) serves(b basis, now time.Time, at uint32) bool {
	if e == nil || at >= e.expires || now.Before(e.made) {
		return false
	}
	return e.basis == b || e.permitted(b) && now.Sub(e.made) < coalesce
}

// permitted reports whether nothing in e can have become forbidden. Readers' own
// allowlists are in the key.
func (e *edition) permitted(b basis) bool { return e.basis.truth == b.truth }

// candidate is a block that may be chosen.
type candidate struct {
	id    uint32
	wide  bool
	worth float64
}

// build puts an edition together; s.mu is held.
func (p *Publisher) build(s *slot, key editionKey, f *footprint, o *own, now time.Time) *edition {
	p.mu.RLock()
	defer p.mu.RUnlock()
	c := &chooser{p: p, network: p.network, at: secondsUp(now), v: key.version, encoder: encoders.Get().(*encoder)}
	defer encoders.Put(c.encoder)
	var v *view
	if key.view != (viewKey{}) {
		c.own = o
		v = p.views.get(key.view, func() *view { return new(view) }, func(v *view) int64 { return v.used.Load() })
		v.used.Store(int64(c.at))
		v.mu.Lock()
		defer v.mu.Unlock()
		v.refresh(p.basisOf(o).fleet)
	}
	e := &edition{basis: p.basisOf(o), made: now}
	d := &draft{chooser: c, view: v, slot: s, room: key.size, edition: e, favoured: map[uint32]struct{}{}, favours: map[uint32]int{}}
	if d.room == 0 {
		d.room = math.MaxInt
	}
	if c.own != nil && o.fleet != nil {
		d.takeFleet(o.fleet)
	}
	d.prefer()
	d.takeNetwork(p.candidates(f, s.taken))
	d.finish()
	e.seal(c.at)
	if c.dropped > 0 {
		p.dropped.Add(float64(c.dropped))
		p.cfg.Logger.Error("the outbound guard kept entries off the blocklist that engines would choke on", "count", c.dropped)
	}
	p.built.Observe(p.cfg.Now().Sub(now).Seconds())
	return e
}

// candidates returns the network's blocks, those first that are worth most to a
// footprint. Ranges come before all else: each stands for many addresses, which
// are not sent beside it. taken are those that were chosen last time.
func (p *Publisher) candidates(f *footprint, taken map[uint32]struct{}) []candidate {
	all := make([]candidate, 0, len(p.network.blocks))
	for _, b := range p.network.bucketList {
		if b == nil || !b.sent() {
			continue
		}
		worth := f.worth(b)
		if b.wide {
			worth += 1e6
		}
		for i, id := range b.blocks {
			bl := p.network.blocks[id]
			w := bl.mean()
			if bl.fresh && i+1 < len(b.blocks) {
				w = max(w, p.network.blocks[b.blocks[i+1]].mean()+stay)
			}
			if _, ok := taken[id]; ok {
				w += stay
			}
			all = append(all, candidate{id, b.wide, worth + w})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.worth, a.worth), cmp.Compare(a.id, b.id))
	})
	return all
}

// draft is an edition in the making.
type draft struct {
	*chooser
	view    *view
	slot    *slot
	room    int // entries that still fit
	edition *edition
	lines   []boundLine // to be encoded for this edition alone

	// The network's rows that are sent whatever blocks are chosen, in their order
	// and as a set; how many of them are in which block; and how many in none that
	// was taken.
	rows     []uint32
	favoured map[uint32]struct{}
	favours  map[uint32]int
	outside  int
}

// boundLine is a line with what it stands under.
type boundLine struct {
	line
	bucket *bucket
}

func (d *draft) take(f *fragment) {
	if f.entries > 0 {
		d.edition.fragments = append(d.edition.fragments, f)
		d.room -= f.entries
	}
}

// takeFleet takes the organisation's own list, the best of it if it is longer
// than what fits.
func (d *draft) takeFleet(fleet *set) {
	for _, b := range fleet.bucketList {
		if b == nil || !b.sent() {
			continue
		}
		for _, id := range b.blocks {
			if f := d.fragment(d.view, fleet, id); f.entries <= d.room {
				d.take(f)
				continue
			}
			d.fill(fleet, fleet.blocks[id])
		}
	}
}

// fill takes single rows of a block, best first, as long as they fit.
func (d *draft) fill(s *set, b *block) {
	for _, slot := range b.slots {
		if d.room <= d.outside {
			return
		}
		r := &s.rows[slot]
		if s == d.network {
			if _, ok := d.favoured[slot]; ok {
				continue
			}
		}
		if !d.elsewhere(s, r) && d.sendable(r) {
			d.line(s, r)
		}
	}
}

func (d *draft) line(s *set, r *row) {
	d.lines = append(d.lines, boundLine{line{r.key, r.until}, s.bucketList[r.bucket]})
	d.room--
}

// prefer finds what the readers get whatever is chosen: what their fleet lists for
// a shorter time than the network does, and what they saw themselves; where there
// is a ranking only what they saw last.
func (d *draft) prefer() {
	if d.own == nil {
		return
	}
	if d.own.fleet != nil {
		for i := range d.own.fleet.rows {
			if r := &d.own.fleet.rows[i]; r.block != noBlock {
				d.favour(r.key, nil)
			}
		}
	}
	preferred := d.own.preferred
	if d.own.ranked != nil {
		preferred = preferred[:min(len(preferred), d.room/unrankedShare)]
	}
	for _, s := range preferred {
		d.favour(keyOf(s), nil)
	}
}

// favour has a source sent whatever is chosen, if it may be and there is room. What is in a block that was taken is sent already.
func (d *draft) favour(k key, taken map[uint32]struct{}) {
	slot, ok := d.network.index[k]
	if !ok || d.outside >= d.room || len(d.rows) >= maxPreferred {
		return
	}
	r := &d.network.rows[slot]
	if _, ok := taken[r.block]; ok || r.block == noBlock {
		return
	}
	if _, twice := d.favoured[slot]; twice || d.elsewhere(d.network, r) || !d.sendable(r) {
		return
	}
	d.favoured[slot] = struct{}{}
	d.rows = append(d.rows, slot)
	d.favours[r.block]++
	d.outside++
}

// takeNetwork takes ranges, then finds what is ranked for the readers and the rest
// of what they prefer, takes blocks in their order as long as they fit beside that,
// then that, then single rows until the list is full.
func (d *draft) takeNetwork(all []candidate) {
	taken := make(map[uint32]struct{}, len(all))
	first := slices.IndexFunc(all, func(c candidate) bool { return !c.wide })
	if first < 0 {
		first = len(all)
	}
	filled := d.fillFrom(d.takeBlocks(all[:first], taken))
	if d.own != nil && d.own.ranked != nil {
		for _, k := range d.own.ranked.sources {
			d.favour(k, taken)
		}
		for _, s := range d.own.preferred {
			d.favour(keyOf(s), taken)
		}
	}
	rest := d.takeBlocks(all[first:], taken)
	for _, slot := range d.rows {
		if _, ok := taken[d.network.rows[slot].block]; !ok {
			d.line(d.network, &d.network.rows[slot])
		}
	}
	d.outside = 0
	for _, c := range slices.Concat(filled, d.fillFrom(rest)) {
		taken[c.id] = struct{}{}
	}
	d.slot.taken = taken
}

// fillFrom takes single rows of blocks as long as they fit, and returns the blocks
// that it took some of.
func (d *draft) fillFrom(blocks []candidate) []candidate {
	for i, c := range blocks {
		if d.room <= d.outside {
			return blocks[:i]
		}
		d.fill(d.network, d.network.blocks[c.id])
	}
	return blocks
}

// takeBlocks takes blocks as long as they fit beside what is sent whatever is
// chosen, and returns the others.
func (d *draft) takeBlocks(all []candidate, taken map[uint32]struct{}) []candidate {
	for len(all) > 0 {
		id := all[0].id
		f := d.fragment(d.view, d.network, id)
		if f.entries > d.room-d.outside+d.favours[id] {
			break
		}
		d.take(f)
		d.outside -= d.favours[id]
		taken[id] = struct{}{}
		all = all[1:]
	}
	return all
}

// finish encodes the lines that are for this edition alone, but for those that
// stand under a scenario where nothing has changed since the last time.
func (d *draft) finish() {
	slices.SortFunc(d.lines, func(a, b boundLine) int {
		return cmp.Or(cmp.Compare(a.bucket.scenario, b.bucket.scenario), boolCompare(a.bucket.wide, b.bucket.wide), bytes.Compare(a.key[:], b.key[:]))
	})
	extras := map[lineGroup]extra{}
	for from, to := 0, 0; from < len(d.lines); from = to {
		b := d.lines[from].bucket
		for to = from; to < len(d.lines) && d.lines[to].bucket.scenario == b.scenario && d.lines[to].bucket.wide == b.wide; to++ {
		}
		k, sum := lineGroup{b.scenario, b.wide}, hashOf(d.lines[from:to])
		x, ok := d.slot.extras[k]
		if !ok || x.sum != sum || !x.fragment.timely(d.at) {
			lines := d.encoder.lines[:0]
			for i := range d.lines[from:to] {
				lines = append(lines, d.lines[from+i].line)
			}
			x = extra{sum, d.encode(b, lines)}
		}
		extras[k] = x
		if x.fragment.entries > 0 {
			d.edition.fragments = append(d.edition.fragments, x.fragment)
		}
	}
	d.slot.extras = extras
}

func hashOf(lines []boundLine) uint64 {
	h := xxh3.New()
	var until [4]byte
	for i := range lines {
		_, _ = h.Write(lines[i].key[:]) // a hash takes everything
		binary.BigEndian.PutUint32(until[:], lines[i].until)
		_, _ = h.Write(until[:])
	}
	return h.Sum64()
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// seal counts what e comes to.
func (e *edition) seal(at uint32) {
	e.expires = at + leastValid + spreadValid
	h := xxh3.New()
	var sum [8]byte
	add := func(f *fragment) {
		e.json += len(f.json)
		e.gzip += len(f.deflate)
		e.crc = crcCombine(e.crc, f.crc, len(f.json))
		binary.BigEndian.PutUint64(sum[:], f.sum)
		_, _ = h.Write(sum[:])
	}
	e.gzip = len(gzipHeader)
	add(openFragment)
	for i, f := range e.fragments {
		if i > 0 {
			add(comma)
		}
		add(f)
		e.entries += f.entries
		e.expires = min(e.expires, f.expires)
	}
	e.sum = h.Sum128()
}

// tag makes an ETag, strong and quoted.
func tag(sum xxh3.Uint128) string {
	var b [34]byte
	raw := sum.Bytes()
	b[0], b[33] = '"', '"'
	hex.Encode(b[1:33], raw[:])
	return string(b[:])
}
