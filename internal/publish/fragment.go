package publish

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/zeebo/xxh3"

	"muster"
	"muster/internal/wire"
)

// fragment is a piece of an answer, immutable: its JSON, and the same as raw
// deflate that ends on a byte (a sync flush) without ending the stream, so that
// fragments one behind the other are one gzip member. Several members would break
// curl and httpx.
type fragment struct {
	json    []byte
	deflate []byte
	crc     uint32 // CRC-32 of json
	sum     uint64 // hash of json, for tags
	entries int

	at      uint32 // when durations were counted, Unix seconds
	expires uint32 // when they must be counted anew
	stamp   stamp  // what it was made from
}

// stamp tells whether something has changed.
type stamp struct{ changes, truth, ranges uint64 }

// valid reports whether f may be sent at a time.
func (f *fragment) valid(at uint32, s stamp) bool {
	return f != nil && f.stamp == s && f.timely(at)
}

// timely reports whether the durations in f are right at a time.
func (f *fragment) timely(at uint32) bool { return f.at <= at && at < f.expires }

// Durations count whole hours down. An encoding is good for 45 to 60 minutes,
// each for another time, so that they are not all made anew at once.
const (
	leastValid  = 45 * 60
	spreadValid = 15 * 60
)

// The constant pieces of an answer.
var (
	gzipHeader   = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}
	openFragment = stored(wire.StreamOpen)
	midFragment  = stored(wire.StreamDeleted)
	comma        = stored(",")
	// companion is a decision on nothing: no bouncer reads its scope, and no
	// allowlist covers it. An engine dies of a list whose every address is on its own
	// allowlists, of which nobody but the engine may know, and again at each start;
	// with the companion something is left of a short list (protocol.md 3.3).
	companion = stored(`,{"scenario":"muster/companion","scope":"Muster","decisions":[{"value":"companion","duration":"4h0m0s"}]}`)
)

// fewEntries is up to how many entries a list needs the companion.
const fewEntries = 50

// stored returns a fragment of text as it is.
func stored(text string) *fragment {
	f := &fragment{json: []byte(text), deflate: appendStored(nil, text, false), crc: crc32.ChecksumIEEE([]byte(text))}
	f.sum = xxh3.HashString(text)
	return f
}

// appendStored appends a stored deflate block, of at most 65,535 bytes, that
// begins on a byte; last ends the stream.
func appendStored[T string | []byte](b []byte, text T, last bool) []byte {
	first := byte(0)
	if last {
		first = 1
	}
	b = append(b, first)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(text)))
	b = binary.LittleEndian.AppendUint16(b, ^uint16(len(text)))
	return append(b, text...)
}

// maxStored is the most bytes in a stored block.
const maxStored = 65535

// encoder has what it takes to make fragments; they are pooled.
type encoder struct {
	group   wire.Group
	deleted wire.DeletedGroup
	json    []byte
	out     bytes.Buffer
	deflate *flate.Writer
	lines   []line
}

var encoders = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, deflateLevel)
	if err != nil {
		panic(err) // the level is valid
	}
	return &encoder{deflate: w}
}}

// deflateLevel: 7 takes half as long again for 2 % less, 9 ten times as long for 3 %.
const deflateLevel = 6

// line is one entry on its way into a fragment.
type line struct {
	key   key
	until uint32
}

// encode makes a fragment of the lines of one scenario and scope, which it sorts
// by duration and address: that compresses 5 % better than by address alone.
// dropped counts those that the guard kept back. What has less than an hour left
// must not be among them.
func (e *encoder) encode(b *bucket, lines []line, at uint32, v Version) (f *fragment, dropped int) {
	slices.SortFunc(lines, func(x, y line) int {
		return cmp.Or(cmp.Compare(hours(x.until, at), hours(y.until, at)), bytes.Compare(x.key[:], y.key[:]))
	})
	e.group.Scenario, e.group.Scope = b.scenario, b.scope()
	e.group.Decisions = e.group.Decisions[:0]
	for i := range lines {
		l := &lines[i]
		e.group.Decisions = append(e.group.Decisions, wire.Entry{
			Value: wire.Value{Source: l.key.source()}, Duration: hours(l.until, at),
		})
	}
	if v == V2 {
		e.json, dropped = wire.AppendGroupV2(e.json[:0], &e.group)
	} else {
		e.json, dropped = wire.AppendGroupV3(e.json[:0], &e.group)
	}
	f = e.finish(len(lines) - dropped)
	f.at = at
	f.expires = at + leastValid + uint32(f.sum%spreadValid)
	return f, dropped
}

// encodeDeleted makes a fragment of withdrawn sources, nil when there are none.
func (e *encoder) encodeDeleted(sources []muster.Source, v Version) (f *fragment, dropped int) {
	slices.SortFunc(sources, func(a, b muster.Source) int {
		return cmp.Or(cmp.Compare(a.Scope(), b.Scope()), a.Compare(b))
	})
	e.json = e.json[:0]
	for len(sources) > 0 {
		scope, n := sources[0].Scope(), 1
		for n < len(sources) && sources[n].Scope() == scope {
			n++
		}
		e.deleted.Scope, e.deleted.Values = scope, e.deleted.Values[:0]
		for _, s := range sources[:n] {
			e.deleted.Values = append(e.deleted.Values, wire.Value{Source: s})
		}
		sources = sources[n:]
		before := len(e.json)
		if before > 0 {
			e.json = append(e.json, ',')
		}
		begin, d := len(e.json), 0
		if v == V2 {
			e.json, d = wire.AppendDeletedV2(e.json, &e.deleted)
		} else {
			e.json, d = wire.AppendDeletedV3(e.json, &e.deleted)
		}
		if dropped += d; len(e.json) == begin {
			e.json = e.json[:before]
		}
	}
	if len(e.json) == 0 {
		return nil, dropped
	}
	return e.finish(0), dropped
}

// finish compresses e.json.
func (e *encoder) finish(entries int) *fragment {
	f := &fragment{entries: entries}
	if len(e.json) == 0 {
		return f
	}
	e.out.Reset()
	e.deflate.Reset(&e.out)
	if _, err := e.deflate.Write(e.json); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	if err := e.deflate.Flush(); err != nil {
		panic(err)
	}
	f.json, f.deflate = bytes.Clone(e.json), bytes.Clone(e.out.Bytes())
	f.crc, f.sum = crc32.ChecksumIEEE(f.json), xxh3.Hash(f.json)
	return f
}

// hours is what is left from at until the end, in whole hours.
func hours(until, at uint32) time.Duration {
	if until <= at {
		return 0
	}
	return time.Duration((until-at)/3600) * time.Hour
}

// seconds returns a time in Unix seconds, rounded down.
func seconds(t time.Time) uint32 { return uint32(min(max(t.Unix(), 0), math.MaxUint32)) }

// secondsUp returns a time in Unix seconds, rounded up.
func secondsUp(t time.Time) uint32 { return seconds(t.Add(time.Second - 1)) }
