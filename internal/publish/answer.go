package publish

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"math/bits"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"muster/internal/wire"
)

// Want is what a reader asks for.
type Want struct {
	Version   Version
	Community bool // the community list and its deletions
	Lists     bool // links to other blocklists
}

// Answer is what one pull is answered with: fragments that were made before, and
// a short end of the reader's own.
type Answer struct {
	ETag    string
	Entries int // new decisions

	edition *edition
	more    [3]*fragment // behind the edition's; nil for none
	end     []byte       // JSON
	json    int
	gzip    int // without the end and the trailer
	crc     uint32
}

// The ends of answers without links.
var (
	plainEndV3 = func() []byte {
		b, _ := wire.AppendStreamEndV3(nil, wire.Links{})
		return b
	}()
	plainEndV2 = []byte(wire.StreamEndV2)
)

// emptyEdition is the new part for readers who want no community list.
var emptyEdition = func() *edition {
	e := new(edition)
	e.seal(0)
	return e
}()

// Pull returns what a reader is sent now. When nothing has changed since somebody
// of its kind was here, it computes nothing but the end of the answer.
func (p *Publisher) Pull(r *Reader, want Want) Answer {
	now := p.cfg.Now()
	a := Answer{edition: emptyEdition}
	if want.Community {
		tier := Tier{}
		if p.cfg.Tier != nil {
			tier = p.cfg.Tier(r)
		}
		o := p.ownOf(r, tier, now)
		key := editionKey{version: want.Version, size: tier.Size}
		if !o.none() {
			key.view = viewKey{r.Organisation, o.allowed}
		}
		var declared []string
		if p.limits(tier, o.fleet) {
			declared, key.footprint = p.footprintOf(r, tier.Tailoring)
		}
		a.edition = p.edition(key, func() *footprint { return newFootprint(declared, p.behaviour) }, &o, now)
		a.more[2] = p.deleted(r, o.fleet, want.Version, now)
	}
	a.Entries = a.edition.entries
	a.more[1] = midFragment
	if r.Engine && want.Version == V3 && 0 < a.Entries && a.Entries <= fewEntries {
		a.more[0] = companion
	}
	a.end = p.end(r, want)

	a.json, a.gzip, a.crc = a.edition.json, a.edition.gzip, a.edition.crc
	sum := a.edition.sum
	for i, f := range a.more {
		if f != nil {
			a.json += len(f.json)
			a.gzip += len(f.deflate)
			a.crc = crcCombine(a.crc, f.crc, len(f.json))
			sum.Hi ^= bits.RotateLeft64(f.sum, i)
		}
	}
	a.json += len(a.end)
	a.crc = crcCombine(a.crc, crc32.ChecksumIEEE(a.end), len(a.end))
	sum.Lo ^= xxh3.Hash(a.end)
	a.ETag = tag(sum)
	return a
}

// end returns the JSON after the deleted decisions.
func (p *Publisher) end(r *Reader, want Want) []byte {
	if want.Version == V2 {
		return plainEndV2
	}
	if p.cfg.Links == nil {
		return plainEndV3
	}
	links := p.cfg.Links(r)
	if !want.Lists {
		links.Blocklists = nil
	}
	if len(links.Blocklists) == 0 && len(links.Allowlists) == 0 {
		return plainEndV3
	}
	b, dropped := wire.AppendStreamEndV3(make([]byte, 0, 512*(len(links.Blocklists)+len(links.Allowlists))), links)
	if dropped > 0 {
		p.dropped.Add(float64(dropped))
		p.cfg.Logger.Error("the outbound guard kept links off an answer that engines would choke on", "count", dropped)
	}
	return b
}

// limits reports whether something is left out of a list of a tier. When everything
// fits, it does not matter what comes first.
func (p *Publisher) limits(t Tier, fleet *set) bool {
	published := p.network.bans.Load()
	if fleet != nil {
		published += fleet.bans.Load()
	}
	return t.Size > 0 && published > int64(t.Size)
}

// ownOf gathers what is particular to a reader of a tier.
func (p *Publisher) ownOf(r *Reader, tier Tier, now time.Time) (o own) {
	if r.Organisation == "" {
		return o
	}
	o.fleet = p.fleet(r.Organisation)
	if p.cfg.Allowlist != nil {
		o.allow, o.allowed = p.cfg.Allowlist(r)
	}
	if !p.limits(tier, o.fleet) {
		return o
	}
	if p.cfg.Preferred != nil {
		o.preferred, o.favoured = p.cfg.Preferred(r)
	}
	if p.cfg.Rankings != nil && tier.Tailoring != TailorNone {
		if l := p.cfg.Rankings.of(r.Organisation, tier.Size, now); l != nil && len(l.sources) > 0 {
			o.ranked = l
		}
	}
	return o
}

// footprintOf returns what a reader's list is tailored to, with a number that
// stands for it.
func (p *Publisher) footprintOf(r *Reader, t Tailoring) ([]string, uint64) {
	switch {
	case t == TailorInstalled:
		return r.Scenarios, r.Footprint
	case t == TailorReported && p.cfg.Reported != nil && r.Organisation != "":
		return p.cfg.Reported(r.Organisation)
	}
	return nil, 0
}

func (p *Publisher) behaviour(scenario string) string {
	if p.cfg.Behaviour == nil {
		return ""
	}
	return p.cfg.Behaviour(scenario)
}

// Length returns the size of the body, in bytes.
func (a *Answer) Length(gzip bool) int {
	if !gzip {
		return a.json
	}
	return a.gzip + len(a.end) + 5*((len(a.end)+maxStored-1)/maxStored) + 8
}

// chunk is how much is given to the network at once.
const chunk = 256 << 10

var chunks = sync.Pool{New: func() any {
	b := make([]byte, 0, chunk)
	return &b
}}

// Write writes the body, as one gzip member if asked, in as few pieces as can be.
func (a *Answer) Write(w io.Writer, gzip bool) error {
	pooled := chunks.Get().(*[]byte)
	defer chunks.Put(pooled)
	out := writer{w: w, buf: (*pooled)[:0]}
	if gzip {
		out.add(gzipHeader)
	}
	out.fragment(openFragment, gzip)
	for i, f := range a.edition.fragments {
		if i > 0 {
			out.fragment(comma, gzip)
		}
		out.fragment(f, gzip)
	}
	for _, f := range a.more {
		if f != nil {
			out.fragment(f, gzip)
		}
	}
	if !gzip {
		out.add(a.end)
		return out.flush()
	}
	var frame [5]byte
	for rest := a.end; len(rest) > 0; {
		n := min(len(rest), maxStored)
		out.add(appendStored(frame[:0], rest[:n], n == len(rest))[:5])
		out.add(rest[:n])
		rest = rest[n:]
	}
	var trailer [8]byte
	binary.LittleEndian.PutUint32(trailer[:], a.crc)
	binary.LittleEndian.PutUint32(trailer[4:], uint32(a.json))
	out.add(trailer[:])
	return out.flush()
}

// writer gathers pieces into large writes.
type writer struct {
	w   io.Writer
	buf []byte
	err error
}

func (w *writer) fragment(f *fragment, gzip bool) {
	if gzip {
		w.add(f.deflate)
	} else {
		w.add(f.json)
	}
}

func (w *writer) add(b []byte) {
	if len(w.buf)+len(b) > cap(w.buf) {
		_ = w.flush()
		if len(b) > cap(w.buf) {
			if w.err == nil {
				_, w.err = w.w.Write(b)
			}
			return
		}
	}
	w.buf = append(w.buf, b...)
}

func (w *writer) flush() error {
	if w.err == nil && len(w.buf) > 0 {
		_, w.err = w.w.Write(w.buf)
	}
	w.buf = w.buf[:0]
	return w.err
}
