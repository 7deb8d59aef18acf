package edge

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"

	"muster"
)

// bodies reads request bodies into reused memory, within limits on one body as
// sent, on one body decompressed, and on all bodies in memory at once.
type bodies struct {
	limits   Limits
	advice   string // for who sends too much
	now      func() time.Time
	inFlight atomic.Int64
	buffers  sync.Pool // *[]byte
	gzips    sync.Pool // *gzip.Reader
}

func newBodies(l Limits, now func() time.Time) *bodies {
	return &bodies{limits: l, now: now, advice: "send smaller batches (settings limits.body and limits.decoded)"}
}

// Bounds of bodies from clients that have shown no token. The largest honest
// one is a login with some thousand scenarios.
const (
	anonymousBody  = 1 << 20
	anonymousShare = 4 // a quarter of Limits.InFlight
)

// newAnonymousBodies keeps strangers' bodies small and in a budget of their own:
// nobody without a token can keep signals out, and nobody with one logins.
func newAnonymousBodies(l Limits, now func() time.Time) *bodies {
	l.Body = min(l.Body, anonymousBody)
	l.Decoded = min(l.Decoded, anonymousBody)
	l.InFlight = max(l.InFlight/anonymousShare, 2*anonymousBody)
	return &bodies{limits: l, now: now, advice: "without a token, no more is taken"}
}

// keepBuffer is the largest buffer that goes back to the pool: engines send
// 50 kB; a rare giant must not stay.
const keepBuffer = 1 << 20

// read returns the decoded body; release must be called when it is no longer
// looked at.
func (b *bodies) read(w http.ResponseWriter, r *http.Request) (body []byte, release func(), err error) {
	if r.ContentLength > b.limits.Body {
		return nil, nil, b.tooLarge(r.ContentLength)
	}
	var src io.Reader = http.MaxBytesReader(w, r.Body, b.limits.Body)
	switch enc := strings.TrimSpace(r.Header.Get("Content-Encoding")); {
	case enc == "" || strings.EqualFold(enc, "identity"):
	case strings.EqualFold(enc, "gzip") || strings.EqualFold(enc, "x-gzip"):
		z, err := b.gzip(src)
		if err != nil {
			return nil, nil, b.readError(w, err)
		}
		defer b.gzips.Put(z)
		src = z
	default:
		return nil, nil, muster.Errorf(muster.Invalid, "expected Content-Encoding gzip or none, got %q", clip(enc))
	}
	buf, _ := b.buffers.Get().(*[]byte)
	if buf == nil {
		fresh := make([]byte, 0, 64<<10)
		buf = &fresh
	}
	held := int64(0)
	release = func() {
		b.inFlight.Add(-held)
		if cap(*buf) <= keepBuffer {
			*buf = (*buf)[:0]
			b.buffers.Put(buf)
		}
	}
	data := (*buf)[:0]
	for {
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
		if grown := int64(cap(data)) - held; grown > 0 {
			held += grown
			if b.inFlight.Add(grown) > b.limits.InFlight {
				*buf = data
				release()
				return nil, nil, &muster.Error{
					Code: muster.Unavailable, RetryAfter: 2 * time.Second,
					Message: "too many request bodies are in memory: try again (setting limits.inflight)",
				}
			}
		}
		n, err := src.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if int64(len(data)) > b.limits.Decoded {
			*buf = data
			release()
			return nil, nil, muster.Errorf(muster.TooLarge, "the body decompresses to more than %d bytes: %s", b.limits.Decoded, b.advice)
		}
		if errors.Is(err, io.EOF) {
			*buf = data
			return data, release, nil
		}
		if err != nil {
			*buf = data
			release()
			return nil, nil, b.readError(w, err)
		}
	}
}

func (b *bodies) gzip(src io.Reader) (*gzip.Reader, error) {
	if z, ok := b.gzips.Get().(*gzip.Reader); ok {
		return z, z.Reset(src)
	}
	return gzip.NewReader(src)
}

func (b *bodies) tooLarge(size int64) error {
	return muster.Errorf(muster.TooLarge, "the body has %d bytes, over %d: %s", size, b.limits.Body, b.advice)
}

// lateAnswer is how long a client has to read that its body was too slow: the
// request's own time is over then.
const lateAnswer = 5 * time.Second

// readError tells a limit from a broken body from a slow or broken connection.
func (b *bodies) readError(w http.ResponseWriter, err error) error {
	var (
		limit   *http.MaxBytesError
		corrupt flate.CorruptInputError
	)
	switch {
	case errors.As(err, &limit):
		return muster.Errorf(muster.TooLarge, "the body has more than %d bytes: %s", limit.Limit, b.advice)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt), errors.Is(err, io.ErrUnexpectedEOF):
		return muster.Errorf(muster.Invalid, "the body is not what its headers say (Content-Encoding, Content-Length): %w", err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		_ = http.NewResponseController(w).SetWriteDeadline(b.now().Add(lateAnswer)) // of no use without a connection
		return &muster.Error{Code: muster.Invalid, Message: "the body did not come to its end in time (setting limits.request_timeout)", Cause: err}
	}
	return &muster.Error{Code: muster.Invalid, Message: "the body could not be read to its end", Cause: fmt.Errorf("reading the body: %w", err)}
}
