package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"muster"
	"muster/internal/groupcommit"
)

// run starts the committer's writer and returns what ends it and waits for that.
func run(t testing.TB, c *Committer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// batchOf returns a batch with n signals named after its own name.
func batchOf(c *Committer, name string, n int) *Batch {
	b := c.Batch(sender)
	for i := range n {
		it := ban()
		it.UUID = fmt.Sprintf("%s-%d", name, i)
		it.Version = it.UUID
		it.Value = fmt.Sprintf("35.188.%d.%d", len(name), i%8)
		b.Add(i, &it)
	}
	return b
}

// commit commits a new batch in the background and returns where its outcome
// arrives.
func commit(ctx context.Context, c *Committer, name string, n int) <-chan error {
	out := make(chan error, 1)
	go func() {
		b := batchOf(c, name, n)
		defer b.Drop()
		out <- b.Commit(ctx)
	}()
	return out
}

func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const batches, each = 200, 3
		gate := make(chan struct{})
		log := &fakeLog{enter: func(int) error { <-gate; return nil }}
		c := newCommitter(log)
		run(t, c)

		first := commit(t.Context(), c, "first", each)
		synctest.Wait() // it is on its way to the disk
		var rest []<-chan error
		for i := range batches {
			rest = append(rest, commit(t.Context(), c, fmt.Sprint("b", i), each))
		}
		synctest.Wait()
		released := func(outs []<-chan error) (n int) {
			for _, out := range outs {
				n += len(out)
			}
			return n
		}
		if log.appends() != 1 || len(first)+released(rest) != 0 {
			t.Fatalf("%d appends begun, %d released before the first one ended", log.appends(), len(first)+released(rest))
		}
		gate <- struct{}{}
		synctest.Wait()
		if len(first) != 1 || released(rest) != 0 || log.appends() != 2 {
			t.Fatalf("after the first append: first released %d, others %d, appends begun %d", len(first), released(rest), log.appends())
		}
		gate <- struct{}{}
		synctest.Wait()
		if released(rest) != batches || log.appends() != 2 {
			t.Fatalf("%d of %d released by %d appends, want all by 2", released(rest), batches, log.appends())
		}
		for _, out := range append(rest, first) {
			if err := <-out; err != nil {
				t.Fatal(err)
			}
		}

		seen := map[string]bool{}
		next := map[string]int{}
		for _, s := range log.signals(t) {
			if seen[s.Version] {
				t.Fatalf("%s was appended twice", s.Version)
			}
			seen[s.Version] = true
			name, number, _ := strings.Cut(s.Version, "-")
			i, err := strconv.Atoi(number)
			if err != nil {
				t.Fatal(err)
			}
			key := name + s.Source.String()
			if i < next[key] {
				t.Fatalf("%s came after %d", s.Version, next[key])
			}
			next[key] = i
		}
		if want := (batches + 1) * each; len(seen) != want {
			t.Fatalf("%d signals were appended, want %d", len(seen), want)
		}
		if n := testutil.ToFloat64(c.accepted); n != float64(len(seen)) {
			t.Errorf("the counter says %v", n)
		}
	})
}

// What one machine sends in one batch about one source stays in its order.
func TestOrderWithinABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &fakeLog{}
		c := newCommitter(log)
		run(t, c)
		for i := range 3 {
			if err := <-commit(t.Context(), c, fmt.Sprint("b", i), 100); err != nil {
				t.Fatal(err)
			}
		}
		last := map[muster.Source]int{}
		for _, s := range log.signals(t) {
			var batch, i int
			if _, err := fmt.Sscanf(s.Version, "b%d-%d", &batch, &i); err != nil {
				t.Fatal(err)
			}
			if at := batch*1000 + i + 1; at <= last[s.Source] {
				t.Fatalf("%s came after %d", s.Version, last[s.Source])
			} else {
				last[s.Source] = at
			}
		}
		if len(last) != 8 {
			t.Fatalf("%d sources, want 8", len(last))
		}
	})
}

func TestAnErrorReachesExactlyItsWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan error)
		log := &fakeLog{enter: func(int) error { return <-gate }}
		c := newCommitter(log)
		run(t, c)
		failing := []<-chan error{commit(t.Context(), c, "a", 2)}
		synctest.Wait()
		lucky := []<-chan error{commit(t.Context(), c, "b", 2), commit(t.Context(), c, "c", 2)}
		synctest.Wait()
		cause := errors.New("disk full")
		gate <- cause
		gate <- nil
		synctest.Wait()
		failing = append(failing, commit(t.Context(), c, "d", 1))
		synctest.Wait()
		named := &muster.Error{Code: muster.TooLarge, Message: "named by the log"}
		gate <- named
		for _, out := range lucky {
			if err := <-out; err != nil {
				t.Errorf("a waiter of another pool got %v", err)
			}
		}
		err := <-failing[0]
		var e *muster.Error
		if !errors.Is(err, muster.Unavailable) || !errors.Is(err, cause) || !errors.As(err, &e) || e.RetryAfter <= 0 {
			t.Errorf("got %#v, want code unavailable with its cause and a time to wait", err)
		}
		if strings.Contains(err.Error(), "disk full") {
			t.Errorf("the sender is told about our disk: %v", err)
		}
		if err := <-failing[1]; !errors.Is(err, named) || err.Error() != named.Message {
			t.Errorf("an error that has a code must pass as it is; got %v", err)
		}
		if n := testutil.ToFloat64(c.accepted); n != 4 {
			t.Errorf("%v signals are counted as accepted, want 4", n)
		}
		// A failed pool must not come back with the next one.
		if got := len(log.signals(t)); got != 4 {
			t.Errorf("%d signals are in the log, want 4", got)
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		log := &fakeLog{enter: func(int) error { <-gate; return nil }}
		one := len(batchOf(newCommitter(nil), "x", 1).buf)
		registry := prometheus.NewRegistry()
		c := newCommitter(log, func(cfg *Config) { cfg.QueueBytes, cfg.Registerer = 2*one+one/2, registry })
		run(t, c)
		writing := commit(t.Context(), c, "a", 1)
		synctest.Wait()
		waiting := []<-chan error{commit(t.Context(), c, "b", 1), commit(t.Context(), c, "c", 1)}
		synctest.Wait()
		if n := testutil.ToFloat64(c.waiting); n != float64(2*one) {
			t.Errorf("the gauge says %v, want %d", n, 2*one)
		}
		err := <-commit(t.Context(), c, "d", 1)
		var e *muster.Error
		if !errors.Is(err, muster.Unavailable) || !errors.As(err, &e) || e.RetryAfter <= 0 || !strings.Contains(err.Error(), "ingest.queue") {
			t.Errorf("over the bound: got %v, want code unavailable, a time to wait and the setting", err)
		}
		gate <- struct{}{}
		gate <- struct{}{}
		for _, out := range append(waiting, writing) {
			if err := <-out; err != nil {
				t.Error(err)
			}
		}
		// A batch that is larger than the queue must pass when nothing waits, or
		// its sender would try for ever.
		large := commit(t.Context(), c, "large", 50)
		gate <- struct{}{}
		if err := <-large; err != nil {
			t.Errorf("a batch larger than the queue: %v", err)
		}
		if n := testutil.ToFloat64(c.waiting); n != 0 {
			t.Errorf("the gauge says %v at rest", n)
		}
		if got := len(log.signals(t)); got != 53 {
			t.Errorf("%d signals are in the log, want 53", got)
		}
	})
}

func TestShutdownCommitsWhatWaits(t *testing.T) {
	for range 20 { // the end and the waiting batch are seen in either order
		synctest.Test(t, shutdownCommitsWhatWaits)
	}
}

func shutdownCommitsWhatWaits(t *testing.T) {
	gate := make(chan struct{})
	log := &fakeLog{enter: func(int) error { <-gate; return nil }}
	c := newCommitter(log)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	writing := commit(t.Context(), c, "a", 1)
	synctest.Wait()
	waiting := commit(t.Context(), c, "b", 1)
	synctest.Wait()
	cancel()
	synctest.Wait()
	if len(ended) != 0 {
		t.Fatal("Run ended while a batch waited")
	}
	gate <- struct{}{}
	gate <- struct{}{}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for _, out := range []<-chan error{writing, waiting} {
		if err := <-out; err != nil {
			t.Error(err)
		}
	}
	err := <-commit(t.Context(), c, "late", 1)
	var e *muster.Error
	if !errors.Is(err, muster.Unavailable) || !errors.As(err, &e) || e.RetryAfter <= 0 {
		t.Errorf("after the end: got %v, want code unavailable and a time to wait", err)
	}
	if got := len(log.signals(t)); got != 2 {
		t.Errorf("%d signals are in the log, want 2", got)
	}
}

func TestACancelledContextStopsTheWaitNotTheWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		log := &fakeLog{enter: func(int) error { <-gate; return nil }}
		c := newCommitter(log)
		run(t, c)
		gone := errors.New("client hung up")
		ctx, cancel := context.WithCancelCause(t.Context())
		writing := commit(ctx, c, "a", 2)
		synctest.Wait()
		waiting := commit(ctx, c, "b", 2)
		stays := commit(t.Context(), c, "c", 2)
		synctest.Wait()
		cancel(gone)
		for _, out := range []<-chan error{writing, waiting} {
			if err := <-out; !errors.Is(err, gone) {
				t.Errorf("got %v, want the reason of the cancellation", err)
			}
		}
		// The buffers of those who left are used again while the write runs.
		after := commit(t.Context(), c, "d", 2)
		synctest.Wait()
		gate <- struct{}{}
		gate <- struct{}{}
		for _, out := range []<-chan error{stays, after} {
			if err := <-out; err != nil {
				t.Error(err)
			}
		}
		if got := len(log.signals(t)); got != 8 {
			t.Errorf("%d signals are in the log, want 8", got)
		}
	})
}

func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &fakeLog{}
		c := newCommitter(log, func(cfg *Config) { cfg.Linger = 10 * time.Millisecond })
		stop := run(t, c)
		start := time.Now()
		outs := []<-chan error{commit(t.Context(), c, "a", 1)}
		<-time.After(9 * time.Millisecond)
		outs = append(outs, commit(t.Context(), c, "b", 1))
		for _, out := range outs {
			if err := <-out; err != nil {
				t.Error(err)
			}
		}
		if since := time.Since(start); since != 10*time.Millisecond || log.appends() != 1 {
			t.Errorf("%d appends after %s, want one after 10 ms", log.appends(), since)
		}
		// Shutting down does not wait for company.
		start = time.Now()
		last := commit(t.Context(), c, "c", 1)
		synctest.Wait()
		stop()
		if err := <-last; err != nil || time.Since(start) != 0 {
			t.Errorf("at shutdown: %v after %s", err, time.Since(start))
		}
	})
}

func TestAnEmptyBatchNeedsNoDisk(t *testing.T) {
	c := newCommitter(nil) // no log, no Run
	b := c.Batch(sender)
	b.Add(0, &Item{})
	if err := b.Commit(t.Context()); err != nil || b.Refused != 1 {
		t.Errorf("%v, %d refused", err, b.Refused)
	}
}

// Buffers go from batch to pool to log and back. Every signal carries a text
// that is its own; under the race detector and with pools of all sizes, each
// must arrive once and whole.
func TestBuffersAreReusedWithoutHarm(t *testing.T) {
	log := &fakeLog{enter: func(call int) error {
		if call%7 == 0 {
			return errors.New("try again")
		}
		return nil
	}}
	c := newCommitter(log)
	run(t, c)
	const workers, rounds = 8, 60
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		sent = map[string]string{}
	)
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			for r := range rounds {
				b := c.Batch(sender)
				mine := map[string]string{}
				for i := range 1 + rng.IntN(40) {
					it := ban()
					it.UUID = fmt.Sprintf("%d-%d-%d", w, r, i)
					it.Version = it.UUID
					it.Value = fmt.Sprintf("35.188.%d.%d", rng.IntN(4), rng.IntN(250))
					it.Detail = bytes.Repeat([]byte{byte('a' + w)}, rng.IntN(2000))
					b.Add(i, &it)
					mine[it.UUID] = string(it.Detail)
					clear(it.Detail) // the caller may reuse it
				}
				err := b.Commit(t.Context())
				b.Drop()
				if err == nil {
					mu.Lock()
					for id, detail := range mine {
						sent[id] = detail
					}
					mu.Unlock()
				} else if !errors.Is(err, muster.Unavailable) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, s := range log.signals(t) {
		detail, ok := sent[s.Version]
		if !ok || detail != string(s.Detail) {
			t.Fatalf("%s: acknowledged %t, %d bytes of %d arrived", s.Version, ok, len(s.Detail), len(detail))
		}
		delete(sent, s.Version)
	}
	if len(sent) > 0 {
		t.Fatalf("%d acknowledged signals are not in the log", len(sent))
	}
}

// One giant batch must not pin its memory for ever.
func TestGiantBuffersAreLetGo(t *testing.T) {
	c := newCommitter(&fakeLog{})
	run(t, c)
	for range 3 {
		b := c.Batch(sender)
		it := ban()
		it.Detail = make([]byte, maxDetail)
		for i := range 3 {
			it.UUID = fmt.Sprint(i)
			b.Add(i, &it)
		}
		if err := b.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.Drop()
		if cap(b.buf) > groupcommit.MaxRecord {
			t.Errorf("a dropped batch holds %d bytes", cap(b.buf))
		}
	}
}

type discard struct{}

func (discard) Append(context.Context, []muster.Record) error { return nil }

// BenchmarkCommit is admission and group commit without the disk: eight senders
// with batches of 50.
func BenchmarkCommit(b *testing.B) {
	c := newCommitter(discard{}, func(cfg *Config) { cfg.Rules = rules })
	run(b, c)
	items := make([]Item, 50)
	for i := range items {
		items[i] = ban()
		items[i].UUID = fmt.Sprintf("0d5b2b6c-6a3c-4f0e-9a6f-%012d", i)
		items[i].Value = fmt.Sprintf("35.188.49.%d", i)
		items[i].Detail = []byte(`{"uuid":"` + items[i].UUID + `","message":"` + strings.Repeat("x", 500) + `"}`)
	}
	b.ReportAllocs()
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			batch := c.Batch(sender)
			for i := range items {
				batch.Add(i, &items[i])
			}
			if err := batch.Commit(context.Background()); err != nil {
				b.Error(err)
			}
			batch.Drop()
		}
	})
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(items)), "ns/signal")
}
