package peer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// The PROXY protocol, as HAProxy's proxy-protocol.txt has it: version 1 is a
// line of text, version 2 is binary.
const (
	signature1 = "PROXY "
	signature2 = "\r\n\r\n\x00\r\nQUIT\n"
	maxLine1   = 107      // the longest line of version 1, with its end
	fixed2     = 16       // signature, command, family, length
	maxBody2   = 16 << 10 // addresses and TLVs of version 2: some send a client's certificate
)

// Commands and families of version 2. A family's low bits are the transport.
const (
	commandLocal = 0x20
	commandProxy = 0x21

	familyUnspec   = 0x00
	familyTCP4     = 0x11
	familyUDP4     = 0x12
	familyTCP6     = 0x21
	familyUDP6     = 0x22
	familyStream   = 0x31 // Unix sockets
	familyDatagram = 0x32
)

// noAddr stands for a client of which the proxy does not name an IP address. It
// is never the proxy's own address, which would have the client's HTTP headers
// believed as the proxy's; nor the path of a Unix socket, which the client may
// choose to read like an address.
type noAddr string

func (a noAddr) Network() string { return string(a) }
func (a noAddr) String() string  { return string(a) }

const (
	unknownClient noAddr = "unknown"
	unixClient    noAddr = "unix"
)

// headerError is a PROXY header that cannot be used.
type headerError struct {
	reason Reason
	text   string
}

func (e *headerError) Error() string { return "PROXY header: " + e.text }

func malformed(format string, args ...any) error {
	return &headerError{Malformed, fmt.Sprintf(format, args...)}
}

// preface reads what a connection begins with. buf[off:n] is what was read and
// belongs to the connection's user.
type preface struct {
	off, n int
	buf    [256]byte // any address block and any line of version 1 fit in
}

// read takes a PROXY header from the start of r. A connection without one is
// left as it was, and found is false. Without error, client is who the header
// names, or nil when the proxy speaks for itself (LOCAL). TLVs are skipped
// unread, their checksum too. Other errors than headerErrors are r's.
func (p *preface) read(r io.Reader) (client net.Addr, found bool, err error) {
	version, sure := versionOf(p.buf[:p.n])
	for !sure {
		if err := p.fill(r, p.n+1); err != nil {
			return nil, false, err
		}
		version, sure = versionOf(p.buf[:p.n])
	}
	switch version {
	case 1:
		client, err = p.read1(r)
	case 2:
		client, err = p.read2(r)
	}
	return client, version != 0, err
}

// versionOf tells by its first bytes which PROXY header a connection has, 0 for
// none. It is sure as soon as one byte differs.
func versionOf(b []byte) (version int, sure bool) {
	for i, signature := range []string{signature1, signature2} {
		if n := min(len(b), len(signature)); string(b[:n]) == signature[:n] {
			return i + 1, n == len(signature)
		}
	}
	return 0, true
}

func (p *preface) read1(r io.Reader) (net.Addr, error) {
	end := bytes.Index(p.buf[:p.n], []byte("\r\n"))
	for end < 0 && p.n < maxLine1 {
		if err := p.fill(r, p.n+1); err != nil {
			return nil, err
		}
		end = bytes.Index(p.buf[:p.n], []byte("\r\n"))
	}
	if end < 0 || end+2 > maxLine1 {
		return nil, &headerError{TooLarge, fmt.Sprintf("expected a line of at most %d bytes", maxLine1)}
	}
	p.off = end + 2
	fields := strings.Split(string(p.buf[len(signature1):end]), " ")
	if fields[0] == "UNKNOWN" {
		return unknownClient, nil
	}
	if len(fields) != 5 || fields[0] != "TCP4" && fields[0] != "TCP6" {
		return nil, malformed("expected TCP4 or TCP6, two addresses and two ports")
	}
	var addrs [2]netip.Addr
	var ports [2]uint16
	for i := range 2 {
		addr, err := netip.ParseAddr(fields[1+i])
		if err != nil || addr.Zone() != "" || addr.Is4() != (fields[0] == "TCP4") {
			return nil, malformed("expected a %s address, got %q", fields[0], fields[1+i])
		}
		port, err := strconv.ParseUint(fields[3+i], 10, 16)
		if err != nil {
			return nil, malformed("expected a port, got %q", fields[3+i])
		}
		addrs[i], ports[i] = addr, uint16(port)
	}
	return tcpAddr(addrs[0], ports[0]), nil
}

func (p *preface) read2(r io.Reader) (net.Addr, error) {
	if err := p.fill(r, fixed2); err != nil {
		return nil, err
	}
	command, family, length := p.buf[12], p.buf[13], int(binary.BigEndian.Uint16(p.buf[14:]))
	switch {
	case command != commandLocal && command != commandProxy:
		return nil, malformed("expected version 2 with LOCAL or PROXY, got command 0x%02x", command)
	case length > maxBody2:
		return nil, &headerError{TooLarge, fmt.Sprintf("expected at most %d bytes, got %d", maxBody2, length)}
	case command == commandLocal: // its family says nothing
		return nil, p.skip(r, fixed2+length)
	}
	var size int
	switch family {
	case familyUnspec:
	case familyTCP4, familyUDP4:
		size = 12
	case familyTCP6, familyUDP6:
		size = 36
	case familyStream, familyDatagram:
		size = 216
	default:
		return nil, malformed("family 0x%02x is not defined", family)
	}
	if length < size {
		return nil, malformed("expected %d bytes of addresses, got %d", size, length)
	}
	if err := p.fill(r, fixed2+size); err != nil {
		return nil, err
	}
	var client net.Addr
	body := p.buf[fixed2:] // source, destination, source port, destination port
	switch size {
	case 12:
		client = tcpAddr(netip.AddrFrom4([4]byte(body[:4])), binary.BigEndian.Uint16(body[8:]))
	case 36:
		client = tcpAddr(netip.AddrFrom16([16]byte(body[:16])), binary.BigEndian.Uint16(body[32:]))
	case 216:
		client = unixClient
	default:
		client = unknownClient
	}
	return client, p.skip(r, fixed2+length)
}

func tcpAddr(addr netip.Addr, port uint16) net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr.Unmap(), port))
}

// fill reads until want bytes are there, or more.
func (p *preface) fill(r io.Reader, want int) error {
	if p.n >= want {
		return nil
	}
	n, err := io.ReadAtLeast(r, p.buf[p.n:], want-p.n)
	p.n += n
	return err
}

// skip drops the first total bytes of the connection, read or not.
func (p *preface) skip(r io.Reader, total int) error {
	if p.n >= total {
		p.off = total
		return nil
	}
	left := total - p.n
	p.off = p.n // all of it is the header's; buf serves to read the rest
	for left > 0 {
		n, err := io.ReadFull(r, p.buf[:min(left, len(p.buf))])
		if err != nil {
			return err
		}
		left -= n
	}
	return nil
}
