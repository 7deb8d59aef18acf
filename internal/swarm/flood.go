package swarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"
)

// flood sends requests as fast as they are answered, over several lanes. One
// goroutine drives them all in turn: each has one request under way at a time,
// as real clients have, and when its turn comes the answer is mostly there. So
// it is read at the first try, without the wait and the wake-up that a goroutine
// for each would cost (see BenchmarkFlood): one core could send 150,000 requests/s.
type flood struct {
	// next returns the lane's next request, valid until the lane's next; nil when
	// there is none left.
	next func(*lane) []byte
	// check says what is wrong with an answer. It is called for each and must be
	// cheap.
	check func(l *lane, status int, body []byte) error

	faults   *faults
	answered *atomic.Int64 // whatever the answers were
	stopped  atomic.Bool
}

// lane is one keep-alive connection of a flood.
type lane struct {
	target Target
	local  netip.Addr // invalid: the system chooses

	nc       net.Conn
	deadline time.Time
	waiting  bool // for an answer
	done     bool // nothing is left to send
	in, out  []byte

	turn  int  // requests so far, for next and check
	index int  // of the forged address, -1 before the first
	again bool // the address has been used once
}

// maxFloodAnswer bounds an answer with its head.
const maxFloodAnswer = 16 << 10

func newLane(t Target, local netip.Addr) *lane {
	return &lane{target: t, local: local, in: make([]byte, maxFloodAnswer), index: -1}
}

// run drives lanes until nothing is left to send, the flood is stopped or ctx
// ends. Answers that are awaited then are still read.
func (f *flood) run(ctx context.Context, lanes []*lane) {
	for busy := true; busy; {
		busy = false
		now := time.Now()
		ending := f.stopped.Load() || ctx.Err() != nil
		for _, l := range lanes {
			if err := f.step(ctx, l, now, ending); err != nil {
				l.close()
				f.faults.add(ctx, err)
				pause(ctx, pauseAfterError)
			}
			busy = busy || l.waiting || !l.done && !ending
		}
	}
	for _, l := range lanes {
		l.close()
	}
}

// step takes the answer that a lane waits for and sends its next request.
func (f *flood) step(ctx context.Context, l *lane, now time.Time, ending bool) error {
	if l.waiting {
		status, body, err := l.receive()
		if err != nil {
			return err
		}
		l.waiting = false
		f.answered.Add(1)
		if err := f.check(l, status, body); err != nil {
			f.faults.add(ctx, err)
		}
	}
	if ending || l.done {
		return nil
	}
	request := f.next(l)
	if request == nil {
		l.done = true
		return nil
	}
	return l.send(ctx, request, now)
}

func (l *lane) close() {
	if l.nc != nil {
		_ = l.nc.Close()
		l.nc = nil
	}
	l.waiting = false
}

func (l *lane) send(ctx context.Context, request []byte, now time.Time) error {
	if l.nc == nil {
		nc, err := l.target.dial(ctx, l.local)
		if err != nil {
			return err
		}
		l.nc, l.deadline = nc, time.Time{}
	}
	if l.deadline.Sub(now) < requestTimeout-time.Second {
		l.deadline = now.Add(requestTimeout)
		if err := l.nc.SetDeadline(l.deadline); err != nil {
			return err
		}
	}
	l.turn++
	_, err := l.nc.Write(request)
	l.waiting = err == nil
	return err
}

// receive reads one answer; body is valid until the next.
func (l *lane) receive() (status int, body []byte, err error) {
	for n := 0; n < len(l.in); {
		m, err := l.nc.Read(l.in[n:])
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, nil, fmt.Errorf("reading the answer: %w", err)
		}
		n += m
		status, body, complete, err := parseAnswer(l.in[:n])
		if complete || err != nil {
			return status, body, err
		}
	}
	return 0, nil, fmt.Errorf("expected an answer of at most %d bytes, got more", maxFloodAnswer)
}

var (
	endOfHead    = []byte("\r\n\r\n")
	statusPrefix = []byte("HTTP/1.1 ")
	lengthPrefix = []byte("\r\nContent-Length: ") // as Go's servers write it
)

// parseAnswer reads what a flood needs of an answer. complete is false while
// some of it is still to come.
func parseAnswer(b []byte) (status int, body []byte, complete bool, err error) {
	end := bytes.Index(b, endOfHead)
	if end < 0 {
		return 0, nil, false, nil
	}
	head, body := b[:end+2], b[end+4:]
	if len(head) < len(statusPrefix)+3 || !bytes.HasPrefix(head, statusPrefix) {
		return 0, nil, false, fmt.Errorf("expected an HTTP/1.1 status line, got %q", clip(head))
	}
	for _, d := range head[len(statusPrefix):][:3] {
		status = status*10 + int(d-'0')
	}
	at := bytes.Index(head, lengthPrefix)
	if at < 0 {
		return status, nil, false, fmt.Errorf("expected an answer with a Content-Length, got %q", clip(head))
	}
	digits, _, _ := bytes.Cut(head[at+len(lengthPrefix):], []byte("\r"))
	length, err := strconv.Atoi(string(digits))
	switch {
	case err != nil || length < 0:
		return status, nil, false, fmt.Errorf("expected a Content-Length, got %q", clip(digits))
	case len(body) > length:
		return status, nil, false, fmt.Errorf("expected %d bytes after the head, got %d", length, len(body))
	}
	return status, body, len(body) == length, nil
}
