package sieve

import (
	"compress/zlib"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"

	"muster"
)

// signalBodies reads request bodies into reused memory, within limits on one
// body as sent and decompressed, and on all at once.
type signalBodies struct {
	limits   SignalLimits
	inFlight atomic.Int64
	buffers  sync.Pool // *[]byte
	gzips    sync.Pool // *gzip.Reader
}

func newSignalBodies(l SignalLimits) *signalBodies { return &signalBodies{limits: l} }

// keepSignalBuffer is the largest buffer that is used again: engines send 50 kB.
const keepSignalBuffer = 1 << 20

// read returns the decompressed body; release must be called when nothing of it
// is looked at any more.
func (b *signalBodies) read(w http.ResponseWriter, r *http.Request) (body []byte, release func(), err error) {
	if r.ContentLength > b.limits.Body {
		return nil, nil, b.tooLarge()
	}
	src, done, err := b.decoder(http.MaxBytesReader(w, r.Body, b.limits.Body), r.Header.Get("Content-Encoding"))
	if err != nil {
		return nil, nil, b.explain(err)
	}
	defer done()
	buf, _ := b.buffers.Get().(*[]byte)
	if buf == nil {
		fresh := make([]byte, 0, 64<<10)
		buf = &fresh
	}
	data, held := (*buf)[:0], int64(0)
	release = func() {
		b.inFlight.Add(-held)
		if cap(data) <= keepSignalBuffer {
			*buf = data[:0]
			b.buffers.Put(buf)
		}
	}
	for {
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
		if grown := int64(cap(data)) - held; grown > 0 {
			held += grown
			if b.inFlight.Add(grown) > b.limits.InFlight {
				release()
				return nil, nil, &muster.Error{Code: muster.Unavailable, RetryAfter: 2 * time.Second, Message: "too many signals are being read: try again"}
			}
		}
		n, err := src.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case int64(len(data)) > b.limits.Decoded:
			release()
			return nil, nil, b.tooLarge()
		case errors.Is(err, io.EOF):
			return data, release, nil
		case err != nil:
			release()
			return nil, nil, b.explain(err)
		}
	}
}

// decoder undoes a Content-Encoding.
func (b *signalBodies) decoder(src io.Reader, encoding string) (decoded io.Reader, done func(), err error) {
	switch encoding = strings.ToLower(strings.TrimSpace(encoding)); encoding {
	case "", "identity":
		return src, func() {}, nil
	case "gzip", "x-gzip":
		z, _ := b.gzips.Get().(*gzip.Reader)
		if z == nil {
			z = new(gzip.Reader)
		}
		if err := z.Reset(src); err != nil {
			b.gzips.Put(z)
			return nil, nil, err
		}
		return z, func() { b.gzips.Put(z) }, nil
	case "deflate":
		z, err := zlib.NewReader(src)
		if err != nil {
			return nil, nil, err
		}
		return z, func() { _ = z.Close() }, nil // frees nothing
	}
	return nil, nil, muster.Errorf(muster.Invalid, "expected Content-Encoding gzip, deflate or none, got %q", encoding[:min(len(encoding), 40)])
}

func (b *signalBodies) tooLarge() error {
	return muster.Errorf(muster.TooLarge, "the body is larger than %d bytes as sent, or %d decompressed: send smaller batches", b.limits.Body, b.limits.Decoded)
}

// explain tells a limit from a broken body from a slow connection.
func (b *signalBodies) explain(err error) error {
	var limit *http.MaxBytesError
	var told *muster.Error
	switch {
	case errors.As(err, &told):
		return err
	case errors.As(err, &limit):
		return b.tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &muster.Error{Code: muster.Invalid, Message: "the body did not come to its end in time", Cause: err}
	}
	return &muster.Error{Code: muster.Invalid, Message: "the body is not what its headers say (Content-Encoding, Content-Length), or broke off", Cause: err}
}
