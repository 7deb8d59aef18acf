package peer

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"muster"
)

// Mode says what a listener does with the PROXY protocol.
type Mode string

// The modes; the zero Mode is Off.
const (
	Off Mode = "off" // every connection stays as it is
	// Optional reads a header from trusted proxies where there is one; all other
	// connections stay as they are. It is for the time of a change: when a
	// trusted proxy relays connections without a header, a client can send one
	// through it.
	Optional Mode = "optional"
	// Required refuses connections of others than trusted proxies, and those
	// without a header.
	Required Mode = "required"
)

// Reason says why a connection was closed before its first byte was served. It
// is fit for a metric's label.
type Reason string

// The reasons.
const (
	Untrusted Reason = "untrusted" // required, and no trusted proxy
	Missing   Reason = "missing"   // required, and no header
	Malformed Reason = "malformed"
	TooLarge  Reason = "too_large"
	Timeout   Reason = "timeout" // no whole header in time
	Ended     Reason = "ended"   // the connection ended within the header
)

// Config is what a listener needs.
type Config struct {
	Mode  Mode
	Trust Trust // whose headers are read; must not be empty unless the mode is off
	// Timeout is how long a header may take, counted from the first use of the
	// connection; 0 is 5 s. The protocol asks for 3 s at least.
	Timeout time.Duration
	// Refused, when set, is called once for each connection that is closed for
	// its header, with the address that it came from. It must not block: the
	// accept loop calls it too.
	Refused func(from netip.Addr, reason Reason)
}

// Listener returns inner with the PROXY protocol, versions 1 and 2, in front of
// whatever its connections speak. It belongs below TLS. The RemoteAddr of a
// connection is then the client's; for a client without an IP address it is no
// address, of which Trust.Addr makes the zero Addr. LOCAL connections keep the
// proxy's.
//
// Accept does not wait for headers. The first Read or RemoteAddr of a
// connection does, up to the timeout; http.Server makes these on the
// connection's own goroutine, but calls its ConnState and ConnContext hooks on
// the accept loop: these must not ask for the RemoteAddr. A connection with a
// bad header is closed and its Read fails.
//
// Connections without an IP address, as of Unix sockets, are nobody's that is
// trusted. The error is of code Invalid: an unknown mode, or no trusted proxy
// while the mode is not off.
func Listener(inner net.Listener, c Config) (net.Listener, error) {
	switch c.Mode {
	case Off, "":
		return inner, nil
	case Optional, Required:
	default:
		return nil, muster.Errorf(muster.Invalid, "PROXY protocol: expected %s, %s or %s, got %q", Off, Optional, Required, c.Mode)
	}
	if len(c.Trust.proxies) == 0 {
		return nil, muster.Errorf(muster.Invalid, "PROXY protocol: it is %s and no proxy is trusted; name the proxies' ranges", c.Mode)
	}
	if c.Timeout <= 0 {
		c.Timeout = 5 * time.Second
	}
	return &listener{inner, c}, nil
}

type listener struct {
	net.Listener
	config Config
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		inner, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := addrOf(inner.RemoteAddr())
		switch {
		case l.config.Trust.trusts(from):
			return &conn{Conn: inner, listener: l, from: from}, nil
		case l.config.Mode == Optional:
			return inner, nil
		}
		inner.Close()
		l.refused(from, Untrusted)
	}
}

func (l *listener) refused(from netip.Addr, reason Reason) {
	if l.config.Refused != nil {
		l.config.Refused(from, reason)
	}
}

// addrOf returns the IP address of a connection's end, zero when it has none.
func addrOf(a net.Addr) netip.Addr {
	if ip, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		return plain(ip.AddrPort().Addr())
	}
	return netip.Addr{}
}

// conn is a connection of a trusted proxy. Its header is read on first use.
type conn struct {
	net.Conn
	listener *listener
	from     netip.Addr

	header sync.Once
	remote net.Addr
	err    error // why the connection was closed

	mu       sync.Mutex
	preface  preface
	readBy   time.Time // the user's deadline
	headerBy time.Time // the header's, while it is being read
}

// Read reads what comes behind the header.
func (c *conn) Read(b []byte) (int, error) {
	c.header.Do(c.readHeader)
	if c.err != nil {
		return 0, c.err
	}
	c.mu.Lock()
	p := &c.preface
	if p.off < p.n {
		defer c.mu.Unlock()
		n := copy(b, p.buf[p.off:p.n])
		p.off += n
		return n, nil
	}
	c.mu.Unlock()
	return c.Conn.Read(b)
}

// RemoteAddr returns the client's address, and the proxy's where it speaks for
// itself or its header was bad.
func (c *conn) RemoteAddr() net.Addr {
	c.header.Do(c.readHeader)
	return c.remote
}

// CloseWrite lets http.Server end a connection so that its last answer arrives
// even though the request was not read to its end.
func (c *conn) CloseWrite() error {
	if inner, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return inner.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline holds for the header too, where it is before the header's own.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readBy = t
	return c.applyDeadline()
}

// applyDeadline sets the earlier one of the user's and the header's deadline.
func (c *conn) applyDeadline() error {
	t := c.readBy
	if t.IsZero() || !c.headerBy.IsZero() && c.headerBy.Before(t) {
		t = c.headerBy
	}
	return c.Conn.SetReadDeadline(t)
}

// setHeaderBy sets the header's deadline, or takes it away.
func (c *conn) setHeaderBy(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headerBy = t
	return c.applyDeadline()
}

func (c *conn) readHeader() {
	c.remote = c.Conn.RemoteAddr()
	client, err := c.takeHeader()
	if err == nil {
		if client != nil {
			c.remote = client
		}
		return
	}
	c.err = err
	c.Conn.Close()
	var bad *headerError
	switch {
	case errors.As(err, &bad):
		c.listener.refused(c.from, bad.reason)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.listener.refused(c.from, Timeout)
	case c.preface.n > 0 && !errors.Is(err, net.ErrClosed):
		c.listener.refused(c.from, Ended)
	default: // closed unused, as health checks do, or by this side
	}
}

func (c *conn) takeHeader() (net.Addr, error) {
	if err := c.setHeaderBy(time.Now().Add(c.listener.config.Timeout)); err != nil {
		return nil, err
	}
	client, found, err := c.preface.read(c.Conn)
	if err != nil {
		return nil, err
	}
	if !found && c.listener.config.Mode == Required {
		return nil, &headerError{Missing, "expected one before anything else"}
	}
	_ = c.setHeaderBy(time.Time{}) // fails when the connection is closed, which the next Read tells
	return client, nil
}
