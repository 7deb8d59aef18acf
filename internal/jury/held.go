package jury

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"

	"muster"
	"muster/internal/crowd"
)

// held is what is kept about one source.
type held struct {
	ev      crowd.Evidence
	rare    *rare  // nil for most
	due     uint32 // for when it stands in the wheel, Unix seconds, 0 = nowhere
	heard   uint32 // since the last judgement: as of when to judge, Unix seconds, 0 = not
	asn     uint32
	slot    uint32 // among the sources
	key     key    // of the source
	known   known  // when it was judged last
	changed bool   // since the last commit
}

func (h *held) source() muster.Source {
	s, err := muster.SourceFromBinary(h.key[:])
	if err != nil {
		panic(err) // only keyOf makes keys
	}
	return s
}

// clock is the compact form of a time.
func clock(at int64) uint32 { return uint32(min(max(at, 0), math.MaxUint32)) }

// known is what was known about a source beside its evidence. It is kept so
// that a source is judged again when that is otherwise, however that came about.
type known uint8

const (
	knownNever known = 1 << iota
	knownCanary
	knownShared
)

func knownOf(f crowd.Facts) (k known) {
	if f.Never != "" {
		k |= knownNever
	}
	if f.Canary {
		k |= knownCanary
	}
	if f.Shared {
		k |= knownShared
	}
	return k
}

// rare is what is kept about few sources.
type rare struct {
	order order
	name  naming
}

// order is the listing that an operator's verdict stands for, as readers were
// told of it, in Unix seconds; the zero order is none.
type order struct {
	since, until int64
	captcha      bool
}

// naming is what is known about the reverse name of a source.
type naming struct {
	name     string // that it owns, "" = none that matters
	until    int64  // for how long that is believed
	asked    int64  // when the name was asked for last, 0 = never
	patterns uint32 // which names mattered then
	waits    bool   // judgement waits for the answer
	host     uint64 // of v6, the lower half of the address that was reported last
}

// more returns the rare parts, to be changed.
func (h *held) more() *rare {
	if h.rare == nil {
		h.rare = &rare{}
	}
	return h.rare
}

func (h *held) order() order {
	if h.rare == nil {
		return order{}
	}
	return h.rare.order
}

func (h *held) name() naming {
	if h.rare == nil {
		return naming{}
	}
	return h.rare.name
}

// address returns the address whose name is the source's; false for ranges.
func (h *held) address(source muster.Source) (netip.Addr, bool) {
	switch p := source.Prefix(); {
	case p.IsSingleIP():
		return p.Addr(), true
	case p.Addr().Is6() && p.Bits() == memberBits6 && h.name().host != 0:
		raw := p.Addr().As16()
		binary.BigEndian.PutUint64(raw[8:], h.name().host)
		return netip.AddrFrom16(raw), true
	}
	return netip.Addr{}, false
}

// besideVersion leads the stored form of what is kept beside evidence, which
// stands before it; evidence alone begins with a smaller byte.
const besideVersion = 0x81

// The flags behind it; the lowest are those of known.
const (
	besideKnown = byte(knownNever | knownCanary | knownShared)
	besideOrder = 1 << (iota + 2)
	besideCaptcha
	besideName
	besideWaits
)

// appendBinary appends the stored form.
func (h *held) appendBinary(b []byte) []byte {
	flags, order, name := byte(h.known), h.order(), h.name()
	if order.since != 0 {
		flags |= besideOrder
	}
	if order.captcha {
		flags |= besideCaptcha
	}
	if name != (naming{}) {
		flags |= besideName
	}
	if name.waits {
		flags |= besideWaits
	}
	if flags == 0 && h.asn == 0 {
		return h.ev.AppendBinary(b)
	}
	b = append(b, besideVersion, flags)
	b = binary.AppendUvarint(b, uint64(h.asn))
	if flags&besideOrder != 0 {
		b = binary.AppendVarint(b, order.since)
		b = binary.AppendVarint(b, order.until)
	}
	if flags&besideName != 0 {
		b = binary.AppendVarint(b, name.until)
		b = binary.AppendVarint(b, name.asked)
		b = binary.AppendUvarint(b, uint64(name.patterns))
		b = binary.AppendUvarint(b, name.host)
		b = binary.AppendUvarint(b, uint64(len(name.name)))
		b = append(b, name.name...)
	}
	return h.ev.AppendBinary(b)
}

// unmarshal reads what appendBinary wrote, and evidence alone.
func (h *held) unmarshal(data []byte) error {
	h.known, h.asn, h.rare = 0, 0, nil
	if len(data) < 2 || data[0] != besideVersion {
		return h.ev.UnmarshalBinary(data)
	}
	d := fields{data: data[2:]}
	flags := data[1]
	h.known, h.asn = known(flags&besideKnown), uint32(d.uint())
	if flags&besideOrder != 0 {
		h.more().order = order{since: d.int(), until: d.int(), captcha: flags&besideCaptcha != 0}
	}
	if flags&besideName != 0 {
		n := &h.more().name
		n.until, n.asked, n.patterns, n.host = d.int(), d.int(), uint32(d.uint()), d.uint()
		n.name, n.waits = string(d.take(d.uint())), flags&besideWaits != 0
	}
	if d.bad {
		return fmt.Errorf("what is kept beside evidence is damaged: %d bytes", len(data))
	}
	return h.ev.UnmarshalBinary(d.data)
}

// fields reads numbers and bytes; after the first damage all are zeros.
type fields struct {
	data []byte
	bad  bool
}

func (d *fields) skip(n int) {
	if n <= 0 {
		d.data, d.bad = nil, true
		return
	}
	d.data = d.data[n:]
}

func (d *fields) uint() uint64 {
	v, n := binary.Uvarint(d.data)
	d.skip(n)
	return v
}

func (d *fields) int() int64 {
	v, n := binary.Varint(d.data)
	d.skip(n)
	return v
}

func (d *fields) take(n uint64) []byte {
	if n > uint64(len(d.data)) {
		d.data, d.bad = nil, true
		return nil
	}
	b := d.data[:n]
	d.data = d.data[n:]
	return b
}
