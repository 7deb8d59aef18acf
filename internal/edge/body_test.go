package edge

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"muster"
)

func small() Limits {
	return Limits{Body: 1000, Decoded: 4000, InFlight: 1 << 20}
}

func post(body io.Reader, encoding string) *http.Request {
	r := httptest.NewRequest("POST", "/v3/signals", body)
	if encoding != "" {
		r.Header.Set("Content-Encoding", encoding)
	}
	return r
}

func zip(body []byte) []byte {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if _, err := z.Write(body); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

// unsized hides a body's length, as chunks do.
type unsized struct{ io.Reader }

func TestBodiesRead(t *testing.T) {
	text := bytes.Repeat([]byte("abcdefgh"), 100)
	flipped := zip(text)
	flipped[len(flipped)-6] ^= 1
	for _, tc := range []struct {
		name     string
		body     func() io.Reader
		encoding string
		code     muster.Code // "" = the text comes out
		says     string
	}{
		{"plain", func() io.Reader { return bytes.NewReader(text) }, "", "", ""},
		{"identity", func() io.Reader { return bytes.NewReader(text) }, "identity", "", ""},
		{"in chunks", func() io.Reader { return unsized{bytes.NewReader(text)} }, "", "", ""},
		{"gzip", func() io.Reader { return bytes.NewReader(zip(text)) }, "gzip", "", ""},
		{"GZIP in chunks", func() io.Reader { return unsized{bytes.NewReader(zip(text))} }, " GZIP ", "", ""},
		{"x-gzip", func() io.Reader { return bytes.NewReader(zip(text)) }, "x-gzip", "", ""},
		{"two members", func() io.Reader { return bytes.NewReader(append(zip(text[:10]), zip(text[10:])...)) }, "gzip", "", ""},
		{"too long by its length", func() io.Reader { return strings.NewReader(strings.Repeat("x", 1001)) }, "", muster.TooLarge, "1001 bytes, over 1000"},
		{"too long in chunks", func() io.Reader { return unsized{strings.NewReader(strings.Repeat("x", 1001))} }, "", muster.TooLarge, "more than 1000 bytes"},
		{"too long when decompressed", func() io.Reader { return bytes.NewReader(zip(make([]byte, 4001))) }, "gzip", muster.TooLarge, "decompresses to more than 4000"},
		{"no gzip", func() io.Reader { return bytes.NewReader(text) }, "gzip", muster.Invalid, "Content-Encoding"},
		{"gzip cut off", func() io.Reader { return bytes.NewReader(zip(text)[:20]) }, "gzip", muster.Invalid, "Content-Encoding"},
		{"gzip with a wrong checksum", func() io.Reader { return bytes.NewReader(flipped) }, "gzip", muster.Invalid, "Content-Encoding"},
		{"brotli", func() io.Reader { return bytes.NewReader(text) }, "br", muster.Invalid, `"br"`},
		{"too slow", func() io.Reader { return io.MultiReader(strings.NewReader("abc"), failing{os.ErrDeadlineExceeded}) }, "", muster.Invalid, "in time"},
		{"cut off", func() io.Reader {
			return io.MultiReader(strings.NewReader("abc"), failing{errors.New("reset by 10.1.2.3")})
		}, "", muster.Invalid, "could not be read"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBodies(small(), time.Now)
			for range 3 { // with fresh and with reused buffers
				got, release, err := b.read(httptest.NewRecorder(), post(tc.body(), tc.encoding))
				switch {
				case tc.code == "" && (err != nil || !bytes.Equal(got, text)):
					t.Fatalf("got %q, %v", got, err)
				case tc.code != "" && (!errors.Is(err, tc.code) || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "10.1.2.3")):
					t.Fatalf("expected %s that says %q, got %v", tc.code, tc.says, err)
				}
				if err == nil {
					if b.inFlight.Load() < int64(len(got)) {
						t.Errorf("%d bytes are counted for %d", b.inFlight.Load(), len(got))
					}
					release()
				}
				if n := b.inFlight.Load(); n != 0 {
					t.Fatalf("%d bytes are counted after the end", n)
				}
			}
		})
	}
}

// failing is a connection that breaks.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestBodiesShareTheirMemory(t *testing.T) {
	l := Limits{Body: 1 << 20, Decoded: 1 << 20, InFlight: 300 << 10}
	b := newBodies(l, time.Now)
	_, release, err := b.read(httptest.NewRecorder(), post(bytes.NewReader(make([]byte, 200<<10)), ""))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = b.read(httptest.NewRecorder(), post(bytes.NewReader(make([]byte, 200<<10)), ""))
	var known *muster.Error
	if !errors.As(err, &known) || known.Code != muster.Unavailable || known.RetryAfter <= 0 || !strings.Contains(known.Message, "limits.inflight") {
		t.Errorf("over the budget: %#v", err)
	}
	release()
	_, release, err = b.read(httptest.NewRecorder(), post(bytes.NewReader(make([]byte, 200<<10)), ""))
	if err != nil {
		t.Fatalf("after the release: %v", err)
	}
	release()
}

func TestAnonymousBodies(t *testing.T) {
	b := newAnonymousBodies(Limits{Body: 16 << 20, Decoded: 16 << 20, InFlight: 256 << 20}, time.Now)
	if b.limits.Body != 1<<20 || b.limits.Decoded != 1<<20 || b.limits.InFlight != 64<<20 {
		t.Errorf("%+v", b.limits)
	}
	// However little an operator sets, one login fits in.
	b = newAnonymousBodies(Limits{Body: 64 << 10, Decoded: 64 << 10, InFlight: 1 << 20}, time.Now)
	_, release, err := b.read(httptest.NewRecorder(), post(bytes.NewReader(make([]byte, 64<<10)), ""))
	if err != nil {
		t.Fatal(err)
	}
	release()
	_, _, err = b.read(httptest.NewRecorder(), post(bytes.NewReader(make([]byte, 65<<10)), ""))
	if !errors.Is(err, muster.TooLarge) || strings.Contains(err.Error(), "limits.") {
		t.Errorf("a stranger is told about our settings: %v", err)
	}
}

func BenchmarkBodiesRead(b *testing.B) {
	text := bytes.Repeat([]byte(`{"scenario":"crowdsecurity/ssh-bf","source":{"scope":"Ip","value":"192.0.2.1"}},`), 500)
	for name, body := range map[string][]byte{"plain": text, "gzip": zip(text)} {
		b.Run(name, func(b *testing.B) {
			bodies := newBodies(Limits{Body: 1 << 20, Decoded: 1 << 20, InFlight: 1 << 24}, time.Now)
			encoding := strings.TrimPrefix(name, "plain")
			in := bytes.NewReader(body)
			r, w := post(in, encoding), httptest.NewRecorder()
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				in.Reset(body)
				r.Body = io.NopCloser(in)
				_, release, err := bodies.read(w, r)
				if err != nil {
					b.Fatal(err)
				}
				release()
			}
		})
	}
}
