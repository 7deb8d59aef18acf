package testkit

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// maxRelayed is how many connections a Relay has at once; more wait.
const maxRelayed = 64

// Relay passes bytes on from an address of its own, so that who uses it is
// another client to the server. It adds nothing to them, and keeps a copy: see
// Exchanges.
type Relay struct {
	URL  string     // where its users reach the server
	From netip.Addr // where the server sees them

	to     string
	dialer net.Dialer
	slots  chan struct{}
	group  sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil when closed
	tapes []*tape               // of all connections there were
}

// NewRelay relays to the server, from a loopback address, for the length of the
// test. It skips the test on systems where that address is not this machine's.
func NewRelay(t testing.TB, m *Muster, from string) *Relay {
	t.Helper()
	return newRelay(t, m.listen, netip.MustParseAddr(from))
}

func newRelay(t testing.TB, to string, from netip.Addr) *Relay {
	t.Helper()
	source := &net.TCPAddr{IP: from.AsSlice()}
	probe, err := net.ListenTCP("tcp", source)
	if err != nil {
		t.Skipf("%s is no address of this machine: %v", from, err)
	}
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{
		URL: "http://" + listener.Addr().String(), From: from,
		to: to, dialer: net.Dialer{LocalAddr: source},
		slots: make(chan struct{}, maxRelayed), conns: map[net.Conn]struct{}{},
	}
	r.group.Go(func() { r.serve(listener) })
	t.Cleanup(func() {
		listener.Close()
		r.closeAll()
		r.group.Wait()
	})
	return r
}

func (r *Relay) serve(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		r.slots <- struct{}{} // one comes free at the latest when all are closed
		r.group.Go(func() {
			defer func() { <-r.slots }()
			r.pass(client)
		})
	}
}

// pass relays one connection until either side ends it.
func (r *Relay) pass(client net.Conn) {
	defer client.Close()
	server, err := r.dialer.Dial("tcp", r.to)
	if err != nil {
		return // to the client it is a server that is away
	}
	defer server.Close()
	if !r.keep(client, server) {
		return
	}
	defer r.drop(client, server)
	said := r.record()
	var group sync.WaitGroup
	one := func(from, to net.Conn, copied *copied) {
		_, _ = io.Copy(to, io.TeeReader(from, copied)) // an end is an end
		client.Close()
		server.Close()
	}
	group.Go(func() { one(client, server, &said.asked) })
	group.Go(func() { one(server, client, &said.answered) })
	group.Wait()
}

func (r *Relay) keep(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		if r.conns == nil {
			return false
		}
		r.conns[c] = struct{}{}
	}
	return true
}

func (r *Relay) drop(conns ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		delete(r.conns, c)
	}
}

func (r *Relay) closeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.Close()
	}
	r.conns = nil
}
