package testkit

import (
	"io"
	"net"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
)

// Network is a network of its own, with its own packet filter, in which there is
// nothing but a way to one address outside.
type Network struct {
	Addr string // inside, leads to the address outside

	do chan func()
}

// NewNetwork makes a network from which outside, an address and port, can be
// reached. It lasts until the end of the test, which is skipped where that is not
// allowed.
func NewNetwork(t testing.TB, outside string) *Network {
	t.Helper()
	n := &Network{do: make(chan func())}
	made := make(chan error)
	go n.run(made)
	if err := <-made; err != nil {
		t.Skipf("a network of its own cannot be made: %v", err)
	}
	t.Cleanup(func() { close(n.do) })
	var l net.Listener
	var err error
	n.within(func() { l, err = net.Listen("tcp", "127.0.0.1:0") })
	if err != nil {
		t.Fatal(err)
	}
	n.Addr = l.Addr().String()
	var relays sync.WaitGroup
	relays.Go(func() {
		for {
			inside, err := l.Accept()
			if err != nil {
				return
			}
			relays.Go(func() { relayTo(inside, outside) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		relays.Wait()
	})
	return n
}

// run keeps a thread that is in the network. It is never unlocked, so that it
// ends with the goroutine.
func (n *Network) run(made chan<- error) {
	runtime.LockOSThread()
	err := syscall.Unshare(syscall.CLONE_NEWNET)
	if err == nil {
		err = exec.Command("ip", "link", "set", "lo", "up").Run()
	}
	made <- err
	if err != nil {
		return
	}
	for fn := range n.do {
		fn()
	}
}

// within calls fn on a thread that is in the network.
func (n *Network) within(fn func()) {
	done := make(chan struct{})
	n.do <- func() {
		defer close(done)
		fn()
	}
	<-done
}

// Start is StartProcess in the network.
func (n *Network) Start(t testing.TB, name string, cmd *exec.Cmd) (p *Process) {
	t.Helper()
	n.within(func() { p = StartProcess(t, name, cmd) })
	return p
}

// Output runs cmd in the network and returns what it prints, also when it fails.
func (n *Network) Output(cmd *exec.Cmd) (text string, err error) {
	n.within(func() {
		var out []byte
		out, err = cmd.CombinedOutput()
		text = string(out)
	})
	return text, err
}

// relayTo copies both ways until both are done.
func relayTo(inside net.Conn, address string) {
	defer inside.Close()
	outside, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer outside.Close()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{inside, outside}, {outside, inside}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = way[0].(*net.TCPConn).CloseWrite()
			_ = way[1].(*net.TCPConn).CloseRead()
		})
	}
	both.Wait()
}
