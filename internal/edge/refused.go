package edge

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"muster/internal/abuse"
	"muster/internal/ratelimit"
)

// refused serves the connections of banned clients in net/http's place, at a
// third of the cost: a storm of retries must leave the processor to others. It
// reads no more of HTTP than a plain request of an engine, and gives a
// connection back to net/http at the first that is anything else, or whose
// client is no longer banned.
type refused struct {
	refuse func(addr netip.Addr, login bool) (ratelimit.Ban, bool)
	prefix string
	answer abuse.Answer
	now    func() time.Time

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	back   chan net.Conn
	done   chan struct{} // closed by Close
}

const (
	maxRefused  = 50_000          // connections; those beyond stay with net/http
	refusedIdle = 2 * time.Minute // between two requests, as in net/http
)

func newRefused(cfg GateConfig) *refused {
	return &refused{
		refuse: cfg.Refuse, prefix: cfg.Prefix, answer: cfg.Answer, now: cfg.Now,
		conns: map[net.Conn]struct{}{}, back: make(chan net.Conn), done: make(chan struct{}),
	}
}

// Accept implements net.Listener: it returns connections that net/http shall
// serve again.
func (f *refused) Accept() (net.Conn, error) {
	select {
	case c := <-f.back:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (f *refused) Addr() net.Addr { return &net.TCPAddr{} }

// Close implements net.Listener; it ends all connections too.
func (f *refused) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		close(f.done)
		for c := range f.conns {
			_ = c.Close() // nobody waits for more from it
		}
	}
	return nil
}

// keep registers a connection, or says that there is no room for it.
func (f *refused) keep(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || len(f.conns) >= maxRefused {
		return false
	}
	f.conns[c] = struct{}{}
	return true
}

func (f *refused) forget(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
}

// take serves the connection of a refused request from addr until it ends or is
// given back, and reports whether it did.
func (f *refused) take(w http.ResponseWriter, r *http.Request, addr netip.Addr, ban ratelimit.Ban) bool {
	if r.ProtoMajor != 1 || r.ProtoMinor != 1 || r.Close || r.Method == http.MethodHead || r.Header.Get("Expect") != "" {
		return false
	}
	f.mu.Lock()
	room := !f.closed && len(f.conns) < maxRefused
	f.mu.Unlock()
	if !room {
		return false
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return false
	}
	if !f.keep(conn) {
		_ = conn.Close()
		return true
	}
	// The request is not answered yet; its body is all that is left of it.
	next := plain{papi: strings.HasPrefix(routePath(r.URL.Path, f.prefix), "/v1/"), body: int(r.ContentLength)}
	f.serve(conn, buf.Reader, addr, ban, next)
	return true
}

// serve answers next and what comes after it.
func (f *refused) serve(conn net.Conn, in *bufio.Reader, addr netip.Addr, ban ratelimit.Ban, next plain) {
	defer f.forget(conn)
	var deadline time.Time
	for {
		now := f.now()
		// Moving a deadline costs about as much as a system call; now and then will do.
		if deadline.Sub(now) < refusedIdle-10*time.Second {
			deadline = now.Add(refusedIdle)
			if conn.SetDeadline(deadline) != nil {
				break
			}
		}
		if _, err := in.Discard(next.body); err != nil {
			break
		}
		if err := f.write(conn, next.papi, now, addr, &ban); err != nil {
			break
		}
		head, ok := peekHead(in)
		if !ok && in.Buffered() == 0 {
			break // it ended, or was idle for too long
		}
		if next, ok = parsePlain(head, f.prefix); ok {
			if ban, ok = f.refuse(addr, next.login); ok {
				_, _ = in.Discard(len(head)) // it is there
				continue
			}
		}
		f.giveBack(conn, in)
		return
	}
	_ = conn.Close() // it has failed, or the client ended it
}

func (f *refused) write(conn net.Conn, papi bool, now time.Time, addr netip.Addr, ban *ratelimit.Ban) error {
	buf := banBuffers.Get().(*[]byte)
	defer banBuffers.Put(buf)
	*buf = f.append((*buf)[:0], papi, now, addr, ban)
	_, err := conn.Write(*buf)
	return err
}

// append makes a whole response.
func (f *refused) append(b []byte, papi bool, now time.Time, addr netip.Addr, ban *ratelimit.Ban) []byte {
	const head = "HTTP/1.1 403 Forbidden\r\nCache-Control: no-store\r\nContent-Type: application/json\r\nRetry-After: "
	b = append(b, head...)
	b = strconv.AppendInt(b, abuse.RetryAfter(now, ban), 10)
	b = append(b, "\r\nDate: "...)
	b = now.UTC().AppendFormat(b, http.TimeFormat)
	b = append(b, "\r\nContent-Length: "...)
	at := len(b)
	b = append(b, "00000\r\n\r\n"...) // leading zeros are digits too
	body := len(b)
	b = f.answer.Append(b, banField(papi), now, addr, ban)
	for n, i := len(b)-body, at+4; n > 0; n, i = n/10, i-1 {
		b[i] = byte('0' + n%10)
	}
	return b
}

// giveBack lets net/http serve a connection again, from the request on that in
// holds the beginning of.
func (f *refused) giveBack(conn net.Conn, in *bufio.Reader) {
	_ = conn.SetDeadline(time.Time{}) // net/http sets its own
	select {
	case f.back <- &returned{Conn: conn, in: in}:
	case <-f.done:
		_ = conn.Close()
	}
}

// returned is a connection of which something has been read ahead.
type returned struct {
	net.Conn
	in *bufio.Reader
}

func (c *returned) Read(p []byte) (int, error) {
	if n := c.in.Buffered(); n > 0 {
		return c.in.Read(p[:min(n, len(p))])
	}
	return c.Conn.Read(p)
}

// plain is what matters of a request that parsePlain understands.
type plain struct {
	papi  bool
	login bool
	body  int // bytes after the head
}

// peekHead waits for a request's head and returns it, with its empty line, not
// yet taken from in. It is false when the connection ends, or when the head is
// longer than in's buffer.
func peekHead(in *bufio.Reader) ([]byte, bool) {
	for want := 1; ; {
		if _, err := in.Peek(want); err != nil {
			return nil, false
		}
		there, _ := in.Peek(in.Buffered())
		if i := bytes.Index(there, []byte("\r\n\r\n")); i >= 0 {
			return there[:i+4], true
		}
		if want = len(there) + 1; want > in.Size() {
			return nil, false
		}
	}
}

// parsePlain reads the head of a plain request to the Central API: GET, POST or
// DELETE of HTTP/1.1, a path without escapes, and a body whose length is said.
// Whatever may mean anything beyond that is not plain.
func parsePlain(head []byte, prefix string) (p plain, ok bool) {
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	method, line, _ := bytes.Cut(line, []byte(" "))
	target, proto, _ := bytes.Cut(line, []byte(" "))
	switch {
	case string(method) != "GET" && string(method) != "POST" && string(method) != "DELETE", string(proto) != "HTTP/1.1":
		return p, false
	case len(target) == 0 || target[0] != '/' || bytes.HasPrefix(target, []byte("//")):
		return p, false
	}
	for _, c := range target {
		if c <= ' ' || c >= 0x7f || c == '%' || c == '#' {
			return p, false
		}
	}
	raw, _, _ := bytes.Cut(target, []byte("?"))
	path := routePath(string(raw), prefix)
	if !isEngines(path) {
		return p, false
	}
	p.papi, p.login = strings.HasPrefix(path, "/v1/"), needsNoToken(path)
	host, sized := false, false
	for len(rest) > 2 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, colon := bytes.Cut(line, []byte(":"))
		if !colon || !isName(name) || !isValue(value) {
			return p, false
		}
		switch {
		case fold(name, "content-length"):
			n, err := strconv.ParseUint(string(bytes.Trim(value, " \t")), 10, 16)
			if err != nil || n > maxSkipped || sized {
				return p, false
			}
			p.body, sized = int(n), true
		case fold(name, "host"):
			if host {
				return p, false
			}
			host = true
		case fold(name, "connection"):
			if !fold(bytes.Trim(value, " \t"), "keep-alive") {
				return p, false
			}
		case fold(name, "transfer-encoding"), fold(name, "expect"), fold(name, "upgrade"), fold(name, "trailer"):
			return p, false
		}
	}
	return p, host
}

// isName reports whether b is a header's name made of letters, digits and
// dashes, as all are that clients send.
func isName(b []byte) bool {
	for _, c := range b {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return len(b) > 0
}

func isValue(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c >= 0x7f {
			return false
		}
	}
	return true
}

// fold compares ASCII text with one in lower case.
func fold(text []byte, lower string) bool {
	return len(text) == len(lower) && strings.EqualFold(string(text), lower)
}
