package swarm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// requestTimeout bounds one request: the server has that long for its answer.
// It is twice what an engine allows for a batch of signals.
const requestTimeout = 10 * time.Second

const userAgent = "crowdsec/v1.7.8-linux"

// Limits on what a server may answer.
const (
	maxHeaders = 100
	maxAnswer  = 256 << 20
)

// Conn is one keep-alive HTTP/1.1 connection. It dials when first used and
// again after an error or when the server closed. It is not safe for
// concurrent use.
//
// It exists because net/http spends two goroutine switches and some twenty
// allocations per request, which at the rates measured here is a good part of
// the processor that the server should have (see BenchmarkRoundTrip).
type Conn struct {
	target   Target
	local    netip.Addr // invalid: the system chooses
	nc       net.Conn
	detach   func() bool // ends the watch over the context
	r        *bufio.Reader
	out      []byte
	body     []byte
	deadline time.Time
}

// NewConn makes a connection that dials on first use.
func NewConn(t Target) *Conn {
	return &Conn{target: t, r: bufio.NewReaderSize(nil, 64<<10)}
}

// NewConnFrom makes a connection that dials on first use from one of this
// machine's addresses. Its buffer is small: there may be a thousand of them.
func NewConnFrom(t Target, local netip.Addr) *Conn {
	return &Conn{target: t, local: local, r: bufio.NewReaderSize(nil, 8<<10)}
}

// Close closes the connection; it may be used again.
func (c *Conn) Close() {
	if c.nc == nil {
		return
	}
	c.detach()
	_ = c.nc.Close()
	c.nc = nil
}

// Request is what Do sends.
type Request struct {
	Method string
	Path   string // from /v3 on, with the query
	Token  string // "" sends an empty bearer, as engines do at log-in
	Body   []byte // nil for none
	Gzip   bool   // Body is compressed
	Keep   int    // how much of the answer's body Response.Body shall hold at most; the rest is read and dropped
}

// Response is an answer. Body is valid until the next request on the same Conn.
type Response struct {
	Status  int
	Body    []byte
	Length  int64 // of the whole body, as sent
	Gzip    bool  // the body is compressed
	Elapsed time.Duration
}

// Do sends a request and reads the whole answer. Elapsed counts from the first
// byte sent to the last one read, without dialling. When ctx ends, or after
// 10 s, the connection is cut. After an error the server may or may not have
// taken the request: nothing is sent twice.
func (c *Conn) Do(ctx context.Context, req Request) (Response, error) {
	res, err := c.do(ctx, req)
	if err != nil {
		c.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return res, fmt.Errorf("%s %s: %w", req.Method, req.Path, err)
	}
	return res, nil
}

func (c *Conn) do(ctx context.Context, req Request) (Response, error) {
	if c.nc == nil {
		if err := c.open(ctx); err != nil {
			return Response{}, err
		}
	}
	c.out = c.target.appendRequest(c.out[:0], &req)
	start := time.Now()
	// Moving a deadline costs about as much as a system call; once a second will do.
	if c.deadline.Sub(start) < requestTimeout-time.Second {
		c.deadline = start.Add(requestTimeout)
		if err := c.nc.SetDeadline(c.deadline); err != nil {
			return Response{}, err
		}
	}
	if _, err := c.nc.Write(c.out); err != nil {
		return Response{}, err
	}
	res, closing, err := c.read(req.Keep)
	res.Elapsed = time.Since(start)
	if closing {
		c.Close()
	}
	return res, err
}

func (c *Conn) open(ctx context.Context) error {
	nc, err := c.target.dial(ctx, c.local)
	if err != nil {
		return err
	}
	c.nc, c.deadline = nc, time.Time{}
	c.r.Reset(nc)
	c.detach = context.AfterFunc(ctx, func() { _ = nc.Close() })
	return nil
}

// appendRequest writes the headers in the order of engine 1.7.8.
func (t Target) appendRequest(b []byte, req *Request) []byte {
	b = append(append(b, req.Method...), ' ')
	b = append(append(b, t.prefix...), req.Path...)
	b = append(append(b, " HTTP/1.1\r\nHost: "...), t.host...)
	b = append(b, "\r\nUser-Agent: "+userAgent...)
	if req.Body != nil {
		b = append(b, "\r\nContent-Length: "...)
		b = strconv.AppendInt(b, int64(len(req.Body)), 10)
	}
	b = append(append(b, "\r\nAuthorization: Bearer "...), req.Token...)
	if req.Gzip {
		b = append(b, "\r\nContent-Encoding: gzip"...)
	}
	if req.Body != nil {
		b = append(b, "\r\nContent-Type: application/json"...)
	}
	b = append(b, "\r\nAccept-Encoding: gzip\r\n\r\n"...)
	return append(b, req.Body...)
}

// head is what matters of an answer's header.
type head struct {
	status  int
	length  int64 // -1: not said
	chunked bool
	closing bool
	gzip    bool
}

// read reads one answer; closing says that the connection ends with it.
func (c *Conn) read(keep int) (res Response, closing bool, err error) {
	h, err := c.readHead()
	for err == nil && h.status < 200 { // 100 Continue and the like
		h, err = c.readHead()
	}
	if err != nil {
		return res, true, fmt.Errorf("reading the answer: %w", err)
	}
	res.Status, res.Gzip = h.status, h.gzip
	c.body = c.body[:0]
	switch {
	case h.status == 204 || h.status == 304:
	case h.chunked:
		res.Length, err = c.readChunks(keep)
	case h.length >= 0:
		res.Length = h.length
		err = c.readBody(h.length, keep)
	default:
		return res, true, errors.New("reading the answer: it says neither its length nor that it is chunked")
	}
	if err != nil {
		return res, true, fmt.Errorf("reading the body of a %d answer: %w", h.status, err)
	}
	res.Body = c.body
	return res, h.closing, nil
}

func (c *Conn) readHead() (head, error) {
	h := head{length: -1}
	line, err := c.readLine()
	if err != nil {
		return h, err
	}
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return h, fmt.Errorf("expected an HTTP/1.1 status line, got %q", clip(line))
	}
	h.status, err = strconv.Atoi(string(line[9:12]))
	if err != nil || h.status < 100 {
		return h, fmt.Errorf("expected a status of three digits, got %q", clip(line))
	}
	h.closing = line[7] == '0'
	for range maxHeaders {
		line, err = c.readLine()
		if err != nil {
			return h, err
		}
		if len(line) == 0 {
			return h, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case equalFold(name, "content-length"):
			n, err := strconv.ParseInt(string(value), 10, 64)
			if err != nil || n < 0 || n > maxAnswer {
				return h, fmt.Errorf("expected a Content-Length of at most %d, got %q", maxAnswer, clip(value))
			}
			h.length = n
		case equalFold(name, "transfer-encoding"):
			h.chunked = equalFold(value, "chunked")
		case equalFold(name, "connection"):
			h.closing = h.closing || equalFold(value, "close")
		case equalFold(name, "content-encoding"):
			h.gzip = equalFold(value, "gzip")
		}
	}
	return h, fmt.Errorf("more than %d header lines", maxHeaders)
}

// readLine returns a line without its end, valid until the next read.
func (c *Conn) readLine() ([]byte, error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

// readBody reads n bytes and keeps the first ones of the whole body in c.body.
func (c *Conn) readBody(n int64, keep int) error {
	if room := int64(keep - len(c.body)); room > 0 {
		take := min(n, room)
		at := len(c.body)
		c.body = append(c.body, make([]byte, take)...)
		if _, err := io.ReadFull(c.r, c.body[at:]); err != nil {
			return err
		}
		n -= take
	}
	for n > 0 {
		step, err := c.r.Discard(int(min(n, 1<<30)))
		if n -= int64(step); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) readChunks(keep int) (total int64, err error) {
	for {
		line, err := c.readLine()
		if err != nil {
			return total, err
		}
		digits, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseInt(string(bytes.TrimSpace(digits)), 16, 64)
		if err != nil || n < 0 || total+n > maxAnswer {
			return total, fmt.Errorf("expected the size of a chunk, got %q", clip(line))
		}
		if n > 0 {
			total += n
			if err := c.readBody(n, keep); err != nil {
				return total, err
			}
		}
		line, err = c.readLine() // the end of the chunk, or of an empty trailer
		if err != nil {
			return total, err
		}
		if len(line) != 0 {
			return total, fmt.Errorf("expected the end of a chunk, got %q", clip(line))
		}
		if n == 0 {
			return total, nil
		}
	}
}

// equalFold compares with a lower-case ASCII name.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range len(lower) {
		c := b[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// clip shortens what a server sent before it is quoted.
func clip(b []byte) []byte { return b[:min(len(b), 200)] }
