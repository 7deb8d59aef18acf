package feed

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"muster"
)

// Config sets up a Fetcher. Zero values choose the defaults named.
type Config struct {
	// Private lets feeds be fetched from private, loopback and link-local addresses,
	// and through the proxy that the environment names (HTTPS_PROXY), which resolves
	// names itself.
	Private   bool
	MaxBytes  int64         // decompressed; 0 = 64 MiB
	Timeout   time.Duration // of all of a fetch; 0 = 1 minute
	UserAgent string        // "" = muster
}

// Fetcher fetches feeds over HTTP. It is safe for concurrent use.
type Fetcher struct {
	cfg    Config
	client *http.Client
}

// maxRedirects is followed.
const maxRedirects = 3

// New returns a Fetcher.
func New(cfg Config) *Fetcher {
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = 64 << 20
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "muster"
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	transport := &http.Transport{
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives:      true, // feeds are hours apart
		ForceAttemptHTTP2:      true,
	}
	if cfg.Private {
		transport.Proxy = http.ProxyFromEnvironment
	} else {
		// Looked at here, an address is the one that is connected to: a name cannot
		// lead elsewhere the second time, and redirects come by as well.
		dialer.Control = func(_, address string, _ syscall.RawConn) error { return public(address) }
	}
	f := &Fetcher{cfg: cfg, client: &http.Client{Transport: transport, CheckRedirect: checkRedirect}}
	return f
}

// CheckURL returns an error of code Invalid for what cannot be a feed's URL.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || len(text) > 2000 {
		return muster.Errorf(muster.Invalid, "url: expected one like https://example.org/list.txt")
	}
	if u.User != nil {
		return muster.Errorf(muster.Invalid, "url: expected one without user and password, which would be shown with the list")
	}
	return nil
}

// public refuses the addresses that an outsider could have this host ask on
// their behalf.
func public(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("expected an address and a port to connect to, got %q", address)
	}
	addr := ap.Addr().Unmap().WithZone("")
	if b := addr.As16(); addr.Is6() && b[0] == 0x20 && b[1] == 0x02 { // 6to4 leads to the IPv4 address in it
		addr = netip.AddrFrom4([4]byte(b[2:6]))
	}
	if muster.SourceFromAddr(addr).IsReserved() {
		return muster.Errorf(muster.Forbidden, "%s is private or reserved: feeds are fetched from there only with blocklists.private_feeds", addr)
	}
	return nil
}

func checkRedirect(r *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return muster.Errorf(muster.Invalid, "it redirects more than %d times", maxRedirects)
	case via[0].URL.Scheme == "https" && r.URL.Scheme != "https":
		return muster.Errorf(muster.Invalid, "it redirects from https to %s, where anybody on the way could change it", r.URL.Scheme)
	}
	return CheckURL(r.URL.String())
}

// Request is what to fetch.
type Request struct {
	URL                string
	ETag, LastModified string // of what is known; "" = nothing is
	Format             string
	Max                int // entries
}

// Answer is what came.
type Answer struct {
	Unchanged          bool // nothing new; Parsed is empty
	ETag, LastModified string
	Parsed
}

// Fetch fetches and reads a feed. Errors say what was wrong and name neither
// the URL, which may hold a key, nor what the content says beyond 64 bytes; they
// may have a RetryAfter.
func (f *Fetcher) Fetch(ctx context.Context, q Request) (Answer, error) {
	if err := CheckURL(q.URL); err != nil {
		return Answer{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, f.cfg.Timeout, fmt.Errorf("it took longer than %s", f.cfg.Timeout))
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, q.URL, nil)
	if err != nil {
		return Answer{}, muster.Errorf(muster.Invalid, "url: expected one like https://example.org/list.txt")
	}
	r.Header.Set("User-Agent", f.cfg.UserAgent)
	if q.ETag != "" {
		r.Header.Set("If-None-Match", q.ETag)
	}
	if q.LastModified != "" {
		r.Header.Set("If-Modified-Since", q.LastModified)
	}
	resp, err := f.client.Do(r)
	if err != nil {
		return Answer{}, unavailable(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // read as far as it is wanted
	switch {
	case resp.StatusCode == http.StatusNotModified && (q.ETag != "" || q.LastModified != ""):
		return Answer{Unchanged: true, ETag: q.ETag, LastModified: q.LastModified}, nil
	case resp.StatusCode != http.StatusOK:
		return Answer{}, &muster.Error{Code: muster.Unavailable, Message: "it was answered with " + clip(resp.Status) + ": expected 200", RetryAfter: retryAfter(resp)}
	}
	body, err := f.read(resp.Body)
	if err != nil {
		return Answer{}, unavailable(ctx, err)
	}
	parsed, err := Parse(body, q.Format, q.Max)
	return Answer{ETag: header(resp, "ETag"), LastModified: header(resp, "Last-Modified"), Parsed: parsed}, err
}

// unavailable says why a fetch failed, without the URL that errors of
// net/http begin with.
func unavailable(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	var asURL *url.Error
	if errors.As(err, &asURL) {
		err = asURL.Err
	}
	if known := (*muster.Error)(nil); errors.As(err, &known) {
		return known
	}
	return muster.Errorf(muster.Unavailable, "it could not be fetched: %w", err)
}

// header returns a header that is sent back with the next fetch.
func header(resp *http.Response, name string) string {
	if v := resp.Header.Get(name); len(v) <= 256 {
		return v
	}
	return ""
}

// retryAfter returns how long the server asks to wait, up to a day.
func retryAfter(resp *http.Response) time.Duration {
	n, err := strconv.Atoi(strings.TrimSpace(resp.Header.Get("Retry-After")))
	if err != nil || n < 0 {
		return 0
	}
	return time.Duration(min(n, 24*60*60)) * time.Second
}

// read reads what came, and decompresses a file that is compressed itself.
func (f *Fetcher) read(from io.Reader) ([]byte, error) {
	body, err := f.readAll(from)
	if err != nil || !bytes.HasPrefix(body, []byte{0x1f, 0x8b}) {
		return body, err
	}
	zr, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "it looks compressed and is not: %w", err)
	}
	return f.readAll(zr)
}

func (f *Fetcher) readAll(from io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(from, f.cfg.MaxBytes+1))
	if err == nil && int64(len(body)) > f.cfg.MaxBytes {
		err = muster.Errorf(muster.TooLarge, "it is larger than %d bytes", f.cfg.MaxBytes)
	}
	return body, err
}
