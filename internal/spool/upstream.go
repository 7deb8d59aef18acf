package spool

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"

	"muster/internal/upstream"
)

// Call is one POST of signals.
type Call struct {
	Authorization string
	UserAgent     string
	V2            bool
	Body          []byte // a JSON array; not to be kept
}

// Upstream takes signals.
type Upstream interface {
	// Send makes a call once. A ban is an *upstream.BannedError; any other answer
	// is returned as it came, whatever its status.
	Send(ctx context.Context, call Call) (*upstream.Response, error)
}

// HTTPConfig says where signals are sent.
type HTTPConfig struct {
	Base   *url.URL
	HTTP   *http.Client     // nil: one that follows no redirect, with a timeout of Timeout
	Budget *upstream.Budget // what knows of bans, shared with whoever else calls this upstream; nil: none
	// Timeout is for one call, 0: 30 s. It is of no effect with HTTP set.
	Timeout time.Duration
	Now     func() time.Time
}

// HTTP sends signals over HTTP.
type HTTP struct {
	base   *url.URL
	client *upstream.Client
	gzips  sync.Pool
}

// NewHTTP returns a sender. It is safe for concurrent use.
func NewHTTP(cfg HTTPConfig) *HTTP {
	client := cfg.HTTP
	if client == nil {
		client = &http.Client{
			Timeout: cmp.Or(cfg.Timeout, 30*time.Second),
			// A redirected POST arrives as a GET, without its body.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return &HTTP{base: cfg.Base, client: upstream.NewClient(upstream.ClientConfig{
		HTTP: client, Tries: 1, Budget: cfg.Budget, Now: cfg.Now,
	})}
}

// gzipFrom is the size of a body from which engines since 1.7.0 send it gzipped.
const gzipFrom = 5 << 10

// Send implements Upstream.
func (h *HTTP) Send(ctx context.Context, call Call) (*upstream.Response, error) {
	body, encoding := call.Body, ""
	if len(body) > gzipFrom {
		body, encoding = h.gzip(body), "gzip"
	}
	path := "v3/signals"
	if call.V2 {
		path = "v2/signals"
	}
	return h.client.Do(ctx, func(ctx context.Context) (*http.Request, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.base.JoinPath(path).String(), bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", call.Authorization)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("User-Agent", call.UserAgent)
		if encoding != "" {
			r.Header.Set("Content-Encoding", encoding)
		}
		return r, nil
	})
}

func (h *HTTP) gzip(body []byte) []byte {
	var out bytes.Buffer
	out.Grow(len(body) / 4)
	z, _ := h.gzips.Get().(*gzip.Writer)
	if z == nil {
		z, _ = gzip.NewWriterLevel(&out, gzip.BestSpeed) // a level that exists
	} else {
		z.Reset(&out)
	}
	_, _ = z.Write(body) // to memory
	_ = z.Close()
	h.gzips.Put(z)
	return out.Bytes()
}

// appendSignal appends a signal as it is sent: one that had no uuid has its own
// at its end, where it counts also against an empty one before it.
func appendSignal(b []byte, it *item) []byte {
	raw := bytes.TrimSpace(it.raw)
	if !it.given || len(raw) < 2 || raw[len(raw)-1] != '}' {
		return append(b, raw...)
	}
	inner := bytes.TrimSpace(raw[1 : len(raw)-1])
	b = append(b, '{')
	if b = append(b, inner...); len(inner) > 0 {
		b = append(b, ',')
	}
	b = append(b, `"uuid":"`...)
	b = append(b, it.uuid...) // one of ours: nothing to escape
	return append(b, `"}`...)
}

// taken reports whether an answer means that the signals arrived. What is no
// JSON was not written by a Central API, whatever its status says: engines do
// not believe it either.
func taken(r *upstream.Response) bool {
	body := bytes.TrimSpace(r.Body)
	return r.Status/100 == 2 && (len(body) == 0 || json.Valid(body))
}

// answer is what is read of a body.
type answer struct {
	Message string `json:"message"`
	Errors  string `json:"errors"`
	Refused int    `json:"refused"` // of the items, by a Muster
}

func readAnswer(r *upstream.Response) (a answer) {
	_ = json.Unmarshal(r.Body, &a) // other bodies say nothing
	return a
}
