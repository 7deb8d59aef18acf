package history

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"muster"
)

// stored is an alert as a block has it.
type stored struct {
	flags     byte
	received  int64 // milliseconds since 1970, like forwarded
	combo     uint32
	ref       ref
	forwarded int64  // 0, but when it was forwarded before it came here
	reasons   string // a JSON array, "" for none
	given     string // uuid made at receipt, "" when the engine gave one
	actor     string
	geo       muster.SieveGeo
	raw       []byte // nil when it is large
}

// ref is where the log has an alert; position 0 is nowhere.
type ref struct {
	position uint64
	part     uint8
	index    uint16
}

const (
	flagFiltered = 1 << iota
	flagLocal
	flagLarge
	flagReplicated // before it came here
	flagPlace
	flagGeo
)

// largeRaw is from how many bytes on a signal stands apart, so that a block of
// sixteen is read fast. Few have them: one with hundreds of decisions.
const largeRaw = 16 << 10

// blockAlerts is how many alerts a block has.
const blockAlerts = 1 << muster.SieveBlockBits

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func (s *stored) append(b []byte) []byte {
	flags := s.flags &^ (flagPlace | flagGeo)
	place := s.geo.Latitude != nil && s.geo.Longitude != nil
	if s.geo != (muster.SieveGeo{}) {
		flags |= flagGeo
	}
	if place {
		flags |= flagPlace
	}
	b = append(b, flags, s.ref.part)
	for _, n := range [...]uint64{uint64(s.received), uint64(s.combo), s.ref.position, uint64(s.ref.index), uint64(s.forwarded)} {
		b = binary.AppendUvarint(b, n)
	}
	for _, text := range [...]string{s.reasons, s.given, s.actor} {
		b = appendText(b, text)
	}
	if flags&flagGeo != 0 {
		for _, text := range [...]string{s.geo.CountryCode, s.geo.CountryName, s.geo.City, s.geo.Region, s.geo.Timezone, s.geo.ISP, s.geo.Organisation, s.geo.ASName} {
			b = appendText(b, text)
		}
		b = binary.AppendUvarint(b, uint64(s.geo.ASN))
	}
	if place {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(*s.geo.Latitude))
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(*s.geo.Longitude))
	}
	b = binary.AppendUvarint(b, uint64(len(s.raw)))
	return append(b, s.raw...)
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// cursor reads a form that this package wrote; after the first error all is zero.
type cursor struct {
	data []byte
	bad  bool
	skip bool // texts are passed over
}

func (c *cursor) take(n uint64) []byte {
	if c.bad || n > uint64(len(c.data)) {
		c.bad = true
		return nil
	}
	b := c.data[:n:n]
	c.data = c.data[n:]
	return b
}

func (c *cursor) byte() byte {
	if b := c.take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (c *cursor) uvarint() uint64 {
	n, size := binary.Uvarint(c.data)
	if c.bad || size <= 0 {
		c.bad = true
		return 0
	}
	c.data = c.data[size:]
	return n
}

func (c *cursor) text() string {
	b := c.take(c.uvarint())
	if c.skip {
		return ""
	}
	return string(b)
}

func (c *cursor) float() *float64 {
	b := c.take(8)
	if len(b) != 8 {
		return nil
	}
	f := math.Float64frombits(binary.LittleEndian.Uint64(b))
	return &f
}

func (c *cursor) stored() (s stored) {
	s.flags, s.ref.part = c.byte(), c.byte()
	s.received, s.combo = int64(c.uvarint()), uint32(c.uvarint())
	s.ref.position, s.ref.index = c.uvarint(), uint16(c.uvarint())
	s.forwarded = int64(c.uvarint())
	s.reasons, s.given, s.actor = c.text(), c.text(), c.text()
	if s.flags&flagGeo != 0 {
		for _, text := range [...]*string{&s.geo.CountryCode, &s.geo.CountryName, &s.geo.City, &s.geo.Region, &s.geo.Timezone, &s.geo.ISP, &s.geo.Organisation, &s.geo.ASName} {
			*text = c.text()
		}
		s.geo.ASN = uint32(c.uvarint())
	}
	if s.flags&flagPlace != 0 {
		s.geo.Latitude, s.geo.Longitude = c.float(), c.float()
	}
	s.raw = c.take(c.uvarint())
	return s
}

// packer compresses what is stored. It is made once: it keeps some memory.
type packer struct {
	mu  sync.Mutex // of enc
	enc *zstd.Encoder
	dec *zstd.Decoder // for many at once
}

func newPacker() *packer {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<17), zstd.WithEncoderCRC(true))
	if err != nil {
		panic(err) // the options are constants
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		panic(err) // likewise
	}
	return &packer{enc: enc, dec: dec}
}

func (p *packer) pack(data []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.enc.EncodeAll(data, make([]byte, 0, len(data)/4+64))
}

func (p *packer) unpack(data, into []byte) ([]byte, error) {
	out, err := p.dec.DecodeAll(data, into)
	if err != nil {
		return nil, fmt.Errorf("what is stored of alerts is damaged: %w", err)
	}
	return out, nil
}

// blockVersion leads the form of a block.
const blockVersion = 1

// packBlock returns the form of a block of alerts that stand behind each other.
func (p *packer) packBlock(alerts []stored, buf *[]byte) []byte {
	b := append((*buf)[:0], blockVersion, byte(len(alerts)))
	for i := range alerts {
		b = alerts[i].append(b)
	}
	*buf = b
	return p.pack(b)
}

// unpackBlock returns the alerts of a block; their raw forms share memory.
func (p *packer) unpackBlock(data []byte) ([]stored, error) {
	plain, err := p.unpack(data, nil)
	if err != nil {
		return nil, err
	}
	return decodeBlock(plain, func(int) bool { return true })
}

// decodeBlock reads the alerts of a block that was unpacked. Those that are not
// wanted have no texts.
func decodeBlock(plain []byte, wanted func(i int) bool) ([]stored, error) {
	c := cursor{data: plain}
	if v := c.byte(); v != blockVersion {
		return nil, fmt.Errorf("expected a block of alerts of version %d, got %d: written by a newer release?", blockVersion, v)
	}
	alerts := make([]stored, c.byte())
	for i := range alerts {
		c.skip = !wanted(i)
		alerts[i] = c.stored()
	}
	if c.bad || len(c.data) > 0 {
		return nil, fmt.Errorf("a block of %d alerts is damaged", len(alerts))
	}
	return alerts, nil
}
