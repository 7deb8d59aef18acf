package swarm

import (
	"encoding/hex"
	"math/rand/v2"
	"time"

	"github.com/klauspost/compress/gzip"
)

// UUID is a random (version 4) identifier.
type UUID [16]byte

// String returns the usual form with dashes.
func (u UUID) String() string { return string(appendUUID(nil, u)) }

// gzipFrom is the size from which engines compress a body.
const gzipFrom = 5120

// Feed makes the bodies that one connection sends. It is not safe for
// concurrent use; what it returns is valid until the next call.
type Feed struct {
	sources *Sources
	rng     *rand.Rand
	zipf    *rand.Zipf
	body    []byte
	uuids   []UUID
	second  []byte // of the current batch: "2026-11-20T21:05:20."
	packed  buffer
	zip     *gzip.Writer
}

// NewFeed makes a feed. Feeds with different seeds make different uuids.
func NewFeed(sources *Sources, seed [2]uint64) *Feed {
	rng := rand.New(rand.NewPCG(seed[0], seed[1]))
	zip, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // only an unknown level is refused
	}
	return &Feed{sources: sources, rng: rng, zipf: sources.popularity(rng), zip: zip}
}

// Batch returns the JSON of n signals whose sources are drawn by popularity.
// machine is the log processor named inside, at is the time of the report: the
// events lie in the second before it.
func (f *Feed) Batch(n int, machine string, at time.Time) []byte {
	f.begin(at)
	for range n {
		f.append(f.form(), &f.sources.all[f.zipf.Uint64()], machine)
	}
	return f.end()
}

// Range returns the JSON of one signal for each source from first up to last.
func (f *Feed) Range(first, last int, machine string, at time.Time) []byte {
	f.begin(at)
	for i := first; i < last; i++ {
		f.append(f.form(), &f.sources.all[i], machine)
	}
	return f.end()
}

// Sure returns the JSON of one signal about source i, of a scenario that is as
// good evidence as there is.
func (f *Feed) Sure(i int, machine string, at time.Time) []byte {
	f.begin(at)
	f.append(&forms[sureForm], &f.sources.all[i], machine)
	return f.end()
}

func (f *Feed) form() *form { return &forms[f.rng.IntN(len(forms))] }

// UUIDs returns the uuids of the signals in the last batch, in order.
func (f *Feed) UUIDs() []UUID { return f.uuids }

// Pack compresses a body as engines do, at the fastest level; smaller bodies,
// and so gzipped false, are returned as they are.
func (f *Feed) Pack(body []byte) (wire []byte, gzipped bool) {
	if len(body) <= gzipFrom {
		return body, false
	}
	f.packed = f.packed[:0]
	f.zip.Reset(&f.packed)
	_, _ = f.zip.Write(body) // a buffer takes everything
	_ = f.zip.Close()
	return f.packed, true
}

// buffer is an io.Writer that keeps what it gets.
type buffer []byte

func (b *buffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

const secondForm = "2006-01-02T15:04:05."

// begin starts a batch. The second that all its times lie in is written once;
// only the nanoseconds differ.
func (f *Feed) begin(at time.Time) {
	f.uuids = f.uuids[:0]
	f.second = at.UTC().Add(-time.Second).AppendFormat(f.second[:0], secondForm)
	f.body = append(f.body[:0], '[')
}

func (f *Feed) end() []byte {
	f.body[len(f.body)-1] = ']' // over the last comma
	return f.body
}

// append adds one signal, its keys in the order of engine 1.7.8.
func (f *Feed) append(t *form, src *source, machine string) {
	start := f.rng.Uint32N(500_000_000)
	stop := start + 1_000_000 + f.rng.Uint32N(490_000_000)
	uuid := f.uuid()
	f.uuids = append(f.uuids, uuid)

	b := append(f.body, t.toDecision...)
	b = appendUUID(b, f.uuid())
	b = append(append(b, `","value":"`...), src.addr...)
	b = append(append(b, `"}],"kind":"crowdsec","machine_id":"`...), machine...)
	b = append(append(b, t.toMessage...), src.addr...)
	b = append(b, t.toSpan...)
	b = appendMillis(b, stop-start)
	b = append(b, `ms) at `...)
	b = append(append(append(b, f.second[:10]...), ' '), f.second[11:]...)
	b = appendNanos(b, stop)
	b = append(append(b, t.toSource...), src.object...)
	b = append(append(b, `,"start_at":"`...), f.second...)
	b = append(appendNanos(b, start), `Z","stop_at":"`...)
	b = append(b, f.second...)
	b = append(appendNanos(b, stop), `Z","uuid":"`...)
	b = appendUUID(b, uuid)
	f.body = append(b, `"},`...)
}

func (f *Feed) uuid() UUID {
	var u UUID
	hi, lo := f.rng.Uint64(), f.rng.Uint64()
	for i := range 8 {
		u[i], u[8+i] = byte(hi>>(8*i)), byte(lo>>(8*i))
	}
	u[6] = u[6]&0x0f | 0x40 // version 4
	u[8] = u[8]&0x3f | 0x80 // the variant of RFC 9562
	return u
}

func appendUUID(b []byte, u UUID) []byte {
	b = hex.AppendEncode(b, u[:4])
	for _, cut := range [...]int{4, 6, 8} {
		b = hex.AppendEncode(append(b, '-'), u[cut:cut+2])
	}
	return hex.AppendEncode(append(b, '-'), u[10:])
}

// appendNanos appends nine digits.
func appendNanos(b []byte, n uint32) []byte {
	var d [9]byte
	for i := len(d) - 1; i >= 0; i-- {
		d[i] = '0' + byte(n%10)
		n /= 10
	}
	return append(b, d[:]...)
}

// appendMillis appends nanoseconds as milliseconds with six decimals.
func appendMillis(b []byte, nanos uint32) []byte {
	ms := nanos / 1_000_000
	for div := uint32(100); div > 0; div /= 10 {
		if ms >= div || div == 1 {
			b = append(b, '0'+byte(ms/div%10))
		}
	}
	var d [6]byte
	for i, n := len(d)-1, nanos%1_000_000; i >= 0; i-- {
		d[i] = '0' + byte(n%10)
		n /= 10
	}
	return append(append(b, '.'), d[:]...)
}
