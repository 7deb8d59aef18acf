package stream

import (
	"context"
	"sync"

	"github.com/nats-io/nats.go"

	"muster"
)

// listenerQueue is how many rings wait for a slow listener.
const listenerQueue = 256

// maxRing is the largest payload of a ring.
const maxRing = 64 << 10

// Ring is what a listener hears.
type Ring struct {
	Payload []byte
	// Missed: rings before this one were lost, because the listener was slow or
	// the connection broke. Whoever works by payload must now look at
	// everything.
	Missed bool
}

// Listener is a subscription to one bell. At most 256 rings wait in C; beyond
// that the oldest are dropped and the newest is marked Missed, so a slow
// listener may miss payloads but never that there was something to hear.
type Listener struct {
	C <-chan Ring // closed by Close, and when the bus closes

	mu     sync.Mutex
	rings  chan Ring
	closed bool
	leave  func(*Listener)
}

// NewListener makes a listener that hears what Hear is given, and a leave that
// its Close calls. It is for implementations of the bus.
func NewListener(leave func(*Listener)) *Listener {
	c := make(chan Ring, listenerQueue)
	return &Listener{C: c, rings: c, leave: leave}
}

// Hear queues a ring and never blocks.
func (l *Listener) Hear(r Ring) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	for {
		select {
		case l.rings <- r:
			return
		default:
		}
		select {
		case <-l.rings:
			r.Missed = true
		default:
		}
	}
}

// Close ends the subscription. It may be called more than once.
func (l *Listener) Close() {
	l.mu.Lock()
	first := !l.closed
	if first {
		l.closed = true
		close(l.rings)
	}
	l.mu.Unlock()
	if first {
		l.leave(l)
	}
}

// Ring wakes all listeners of a bell, on all nodes. It does not wait for them
// and nothing is stored. A bell's name is written like a key of KV. Payloads
// over 64 KiB are TooLarge.
func (b *Bus) Ring(ctx context.Context, bell string, payload []byte) error {
	subject, err := bellSubject(bell)
	if err != nil {
		return err
	}
	if len(payload) > maxRing {
		return muster.Errorf(muster.TooLarge, "ring: the payload has %d bytes: at most %d", len(payload), maxRing)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.nc.Publish(subject, payload); err != nil {
		return muster.Errorf(muster.Unavailable, "bell %s cannot be rung: %w", bell, err)
	}
	return nil
}

// Listen hears a bell from now on: every ring after Listen has returned.
func (b *Bus) Listen(bell string) (*Listener, error) {
	subject, err := bellSubject(bell)
	if err != nil {
		return nil, err
	}
	var sub *nats.Subscription
	l := NewListener(func(l *Listener) {
		_ = sub.Unsubscribe() // fails only on a closed connection
		b.mu.Lock()
		delete(b.listeners, l)
		b.mu.Unlock()
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.life.Err() != nil {
		return nil, errClosed
	}
	if sub, err = b.nc.Subscribe(subject, func(m *nats.Msg) { l.Hear(Ring{Payload: m.Data}) }); err != nil {
		return nil, muster.Errorf(muster.Unavailable, "bell %s cannot be heard: %w", bell, err)
	}
	b.listeners[l] = struct{}{}
	// The server must know of the subscription before another connection rings.
	if err := b.nc.FlushTimeout(requestTimeout); err != nil {
		delete(b.listeners, l)
		_ = sub.Unsubscribe()
		return nil, muster.Errorf(muster.Unavailable, "bell %s cannot be heard: %w", bell, err)
	}
	return l, nil
}

// ringMissed tells every listener that it may have missed rings.
func (b *Bus) ringMissed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for l := range b.listeners {
		l.Hear(Ring{Missed: true})
	}
}

func bellSubject(bell string) (string, error) {
	name, err := encodeKey(bell)
	return "bell." + name, err
}
