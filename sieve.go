package muster

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"time"
)

// SieveEngine is the identity of an engine behind the sieve: a hash of the
// machine id in its token, or of the whole token where that cannot be read.
type SieveEngine [16]byte

func (e SieveEngine) String() string { return hex.EncodeToString(e[:]) }

// Partition returns the partition of the sieve's log that e's signals travel
// in. The same engine is always in the same one, so its order holds.
func (e SieveEngine) Partition() uint8 {
	return uint8(binary.BigEndian.Uint64(e[8:]) % Partitions)
}

// SieveToken names a token without telling it: a hash of the Authorization
// header, of which the sieve keeps the value elsewhere, encrypted.
type SieveToken [16]byte

// SieveFate says what becomes of those signals of a batch that no rule
// withholds.
type SieveFate uint8

// The fates.
const (
	SieveQueued SieveFate = iota // the spool sends them upstream
	SieveLocal                   // they stay here: forwarding was off, or the upstream refused them and the engine was told
	SieveSent                    // the upstream had taken them before the engine was answered (passthrough: strict)
)

// SieveGeo is what the databases here say about a signal's source. What they do
// not say is "", 0 or, of the place, nil.
type SieveGeo struct {
	CountryCode, CountryName, City, Region, Timezone string
	ISP, Organisation                                string
	Latitude, Longitude                              *float64
	ASN                                              uint32
	ASName                                           string
}

// SievedSignal is one signal that came through the sieve.
type SievedSignal struct {
	Raw []byte // JSON object, byte for byte as it was sent
	// UUID is the engine's, in the engine's spelling, or, when Given, one that
	// was made at receipt because there was none.
	UUID     string
	Given    bool
	Withheld bool     // a rule keeps it from the upstream
	Reasons  []string // of the rules that matched, also of those that do not withhold
	Geo      SieveGeo
}

// SievedBatch is one request of one engine, or a part of one that was too large
// for a record.
type SievedBatch struct {
	Engine    SieveEngine
	Machine   string // id in the token, "" when it cannot be read; not verified
	V2        bool   // spoken over /v2
	Fate      SieveFate
	Received  time.Time
	Token     SieveToken
	UserAgent string
	Signals   []SievedSignal
}

// sievedVersion leads every batch in a record.
const sievedVersion = 1

// Bits of a batch and of a signal.
const (
	sievedV2       = 1 << 0
	sievedGiven    = 1 << 0
	sievedWithheld = 1 << 1
	sievedPlace    = 1 << 2
)

// AppendSievedBatch appends the binary form of batch to b: a version byte, four
// bytes of the length of what follows, then fixed fields, strings and bytes
// with uvarint lengths. Times are microseconds.
func AppendSievedBatch(b []byte, batch *SievedBatch) []byte {
	b = append(b, sievedVersion, 0, 0, 0, 0)
	start := len(b)
	var bits byte
	if batch.V2 {
		bits |= sievedV2
	}
	b = append(b, bits, byte(batch.Fate))
	b = append(b, batch.Engine[:]...)
	b = append(b, batch.Token[:]...)
	b = binary.AppendUvarint(b, uint64(batch.Received.UnixMicro()))
	b = appendText(b, batch.Machine)
	b = appendText(b, batch.UserAgent)
	b = binary.AppendUvarint(b, uint64(len(batch.Signals)))
	for i := range batch.Signals {
		b = appendSieved(b, &batch.Signals[i])
	}
	binary.BigEndian.PutUint32(b[start-4:], uint32(len(b)-start))
	return b
}

func appendSieved(b []byte, s *SievedSignal) []byte {
	var bits byte
	if s.Given {
		bits |= sievedGiven
	}
	if s.Withheld {
		bits |= sievedWithheld
	}
	place := s.Geo.Latitude != nil && s.Geo.Longitude != nil
	if place {
		bits |= sievedPlace
	}
	b = append(b, bits)
	b = appendText(b, s.UUID)
	b = binary.AppendUvarint(b, uint64(len(s.Reasons)))
	for _, reason := range s.Reasons {
		b = appendText(b, reason)
	}
	for _, text := range [...]string{
		s.Geo.CountryCode, s.Geo.CountryName, s.Geo.City, s.Geo.Region, s.Geo.Timezone,
		s.Geo.ISP, s.Geo.Organisation, s.Geo.ASName,
	} {
		b = appendText(b, text)
	}
	b = binary.AppendUvarint(b, uint64(s.Geo.ASN))
	if place {
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(*s.Geo.Latitude))
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(*s.Geo.Longitude))
	}
	b = binary.AppendUvarint(b, uint64(len(s.Raw)))
	return append(b, s.Raw...)
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// sievedHead is the version and the length of a batch.
const sievedHead = 1 + 4

// sievedSpan returns the end of the batch that starts at off.
func sievedSpan(data []byte, off int) (end int, err error) {
	if v := data[off]; v != sievedVersion {
		return 0, fmt.Errorf("record: expected a sieved batch of version %d at offset %d, got %d: written by a newer release?", sievedVersion, off, v)
	}
	if len(data)-off < sievedHead {
		return 0, fmt.Errorf("record: the sieved batch at offset %d is cut short", off)
	}
	length := uint64(binary.BigEndian.Uint32(data[off+1:]))
	if length > uint64(len(data)-off-sievedHead) {
		return 0, fmt.Errorf("record: the sieved batch at offset %d has %d bytes, %d are left", off, length, len(data)-off-sievedHead)
	}
	return off + sievedHead + int(length), nil
}

// DecodeSievedBatches calls yield for every batch in a record's data; both it
// and its signals are the callee's to keep. Strings share one copy of the data,
// Raw aliases it. An error means that the data is damaged or from a newer
// release: nothing after it can be trusted.
func DecodeSievedBatches(data []byte, yield func(*SievedBatch)) error {
	text := string(data)
	for off := 0; off < len(data); {
		end, err := sievedSpan(data, off)
		if err != nil {
			return err
		}
		d := decoder{data: data[:end], text: text, off: off + sievedHead}
		batch := decodeSieved(&d)
		if d.err == nil && d.off != end {
			d.err = fmt.Errorf("%d bytes more than expected", end-d.off)
		}
		if d.err != nil {
			return fmt.Errorf("record: sieved batch at offset %d: %w", off, d.err)
		}
		yield(batch)
		off = end
	}
	return nil
}

func decodeSieved(d *decoder) *SievedBatch {
	batch := &SievedBatch{V2: d.byte()&sievedV2 != 0, Fate: SieveFate(d.byte())}
	copy(batch.Engine[:], d.take(len(batch.Engine)))
	copy(batch.Token[:], d.take(len(batch.Token)))
	batch.Received = time.UnixMicro(int64(d.uvarint())).UTC()
	batch.Machine, batch.UserAgent = d.string(), d.string()
	n := d.uvarint()
	if n > uint64(len(d.data)-d.off) { // a signal has more bytes than one
		d.fail("%d signals in %d bytes", n, len(d.data)-d.off)
		return batch
	}
	batch.Signals = make([]SievedSignal, 0, min(n, 1024))
	for range n {
		if d.err != nil {
			break
		}
		batch.Signals = append(batch.Signals, SievedSignal{})
		d.sieved(&batch.Signals[len(batch.Signals)-1])
	}
	return batch
}

func (d *decoder) sieved(s *SievedSignal) {
	bits := d.byte()
	s.Given, s.Withheld = bits&sievedGiven != 0, bits&sievedWithheld != 0
	s.UUID = d.string()
	n := d.uvarint()
	if n > uint64(len(d.data)-d.off) {
		d.fail("%d reasons in %d bytes", n, len(d.data)-d.off)
	}
	for range n {
		if d.err != nil {
			return
		}
		s.Reasons = append(s.Reasons, d.string())
	}
	for _, text := range [...]*string{
		&s.Geo.CountryCode, &s.Geo.CountryName, &s.Geo.City, &s.Geo.Region, &s.Geo.Timezone,
		&s.Geo.ISP, &s.Geo.Organisation, &s.Geo.ASName,
	} {
		*text = d.string()
	}
	s.Geo.ASN = uint32(d.uvarint())
	if bits&sievedPlace != 0 {
		latitude, longitude := d.float(), d.float()
		s.Geo.Latitude, s.Geo.Longitude = &latitude, &longitude
	}
	s.Raw = d.take(int(d.uvarint()))
}

func (d *decoder) float() float64 {
	if b := d.take(8); len(b) == 8 {
		return math.Float64frombits(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
}

// SievedBoundary returns the length of the longest run of whole batches at the
// start of data that is not over limit, and at least one batch; data is what
// AppendSievedBatch wrote.
func SievedBoundary(data []byte, limit int) int {
	end := 0
	for end < len(data) {
		next, err := sievedSpan(data, end)
		if err != nil || end > 0 && next > limit {
			break
		}
		end = next
	}
	if end == 0 {
		return len(data)
	}
	return end
}
