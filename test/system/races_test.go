package system

import (
	"sync"
	"sync/atomic"
	"testing"
)

// TestOneOfManyWinsAnID lets machines with the same id and different passwords
// register at once: one gets it, the others are told that it is taken.
func TestOneOfManyWinsAnID(t *testing.T) {
	t.Parallel()
	s := shared(t)
	id := s.client(engine178).id
	var won, lost atomic.Int32
	var winner atomic.Pointer[client]
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			c := s.client(phpCurl)
			c.id = id
			switch a := c.register(t); a.code {
			case 200:
				won.Add(1)
				winner.Store(c)
			case 500:
				lost.Add(1)
			default:
				t.Errorf("answered %d %s", a.code, a.body)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 || lost.Load() != 15 {
		t.Fatalf("%d won, %d lost", won.Load(), lost.Load())
	}
	winner.Load().login(t)
}

// TestAKeyIsUsedNoMoreThanItMay spends a key of three uses sixteen times at once.
func TestAKeyIsUsedNoMoreThanItMay(t *testing.T) {
	t.Parallel()
	s := shared(t)
	var key struct{ ID, Key string }
	s.admin(t, "POST", "/keys", map[string]any{"organisation": s.organisation(t), "auto_accept": true, "max_uses": 3}, &key)
	var in, out atomic.Int32
	var all sync.WaitGroup
	for range 16 {
		c := s.registered(t, engine178)
		all.Go(func() {
			switch a := c.enrol(t, key.Key); a.code {
			case 201:
				in.Add(1)
			case 403:
				out.Add(1)
			default:
				t.Errorf("answered %d %s", a.code, a.body)
			}
		})
	}
	all.Wait()
	if in.Load() != 3 || out.Load() != 13 {
		t.Errorf("%d enrolled, %d were refused", in.Load(), out.Load())
	}
}

// TestTheSameReportAtOnce sends one report over many connections: it is kept
// once.
func TestTheSameReportAtOnce(t *testing.T) {
	t.Parallel()
	s := shared(t)
	c := s.member(t, engine178, s.organisation(t))
	source, marker := address(), address()
	sig := attack(source)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() { c.push(t, sig) })
	}
	all.Wait()
	c.push(t, attack(marker))
	s.judged(t, marker, 1)
	s.judged(t, source, 1)
}
