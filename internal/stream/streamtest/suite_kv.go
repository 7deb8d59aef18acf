package streamtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/internal/stream"
)

func (b *bench) listen(bell string) *stream.Listener {
	b.Helper()
	l, err := b.Listen(bell)
	if err != nil {
		b.Fatalf("Listen: %v", err)
	}
	return l
}

func (b *bench) ring(bell, payload string) {
	b.Helper()
	if err := b.Ring(b.ctx, bell, []byte(payload)); err != nil {
		b.Fatalf("Ring: %v", err)
	}
}

func (b *bench) hear(l *stream.Listener) stream.Ring {
	b.Helper()
	select {
	case r := <-l.C:
		return r
	case <-b.ctx.Done():
		b.Fatal("nothing was heard")
		return stream.Ring{}
	}
}

func bells(t *testing.T, b *bench) {
	one, two, other := b.listen("verdicts"), b.listen("verdicts"), b.listen("orders")
	b.ring("verdicts", "a")
	b.ring("verdicts", "b")
	b.ring("orders", "c")
	b.ring("unheard", "d")
	for _, l := range []*stream.Listener{one, two} {
		for _, want := range []string{"a", "b"} {
			if got := b.hear(l); string(got.Payload) != want || got.Missed {
				t.Errorf("heard %q (missed %v), want %q", got.Payload, got.Missed, want)
			}
		}
	}
	if got := b.hear(other); string(got.Payload) != "c" {
		t.Errorf("the other bell rang %q, want %q", got.Payload, "c")
	}
	one.Close()
	one.Close()
	if _, open := <-one.C; open {
		t.Error("a closed listener still hears")
	}
	b.ring("verdicts", "e")
	if got := b.hear(two); string(got.Payload) != "e" {
		t.Errorf("heard %q, want %q", got.Payload, "e")
	}
}

func slowListener(t *testing.T, b *bench) {
	const rings = 2000
	l := b.listen("bell")
	for i := range rings {
		b.ring("bell", fmt.Sprint(i))
	}
	heard, missed := 0, false
	for last := fmt.Sprint(rings - 1); ; {
		r := b.hear(l)
		heard++
		missed = missed || r.Missed
		if string(r.Payload) == last {
			break
		}
	}
	if missed == (heard == rings) {
		t.Errorf("heard %d of %d rings, told that some were missed: %v", heard, rings, missed)
	}
}

func (b *bench) kv(bucket string, ttl time.Duration) stream.KV {
	b.Helper()
	kv, err := b.KV(b.ctx, bucket, ttl)
	if err != nil {
		b.Fatalf("KV: %v", err)
	}
	return kv
}

func (b *bench) put(kv stream.KV, key, value string) uint64 {
	b.Helper()
	revision, err := kv.Put(b.ctx, key, []byte(value))
	if err != nil {
		b.Fatalf("Put %s: %v", key, err)
	}
	return revision
}

func (b *bench) wantValue(kv stream.KV, key, want string, revision uint64) {
	b.Helper()
	value, got, err := kv.Get(b.ctx, key)
	if err != nil || string(value) != want || got != revision {
		b.Errorf("Get %s: %q, revision %d, error %v; want %q, revision %d", key, value, got, err, want, revision)
	}
}

func keyValue(t *testing.T, b *bench) {
	kv, other := b.kv("bucket", 0), b.kv("other", 0)
	_, _, err := kv.Get(b.ctx, "k")
	b.wantCode("Get of nothing", err, muster.NotFound)
	first := b.put(kv, "k", "a")
	b.wantValue(kv, "k", "a", first)
	_, _, err = other.Get(b.ctx, "k")
	b.wantCode("Get from another bucket", err, muster.NotFound)
	second := b.put(kv, "k", "b")
	b.wantValue(kv, "k", "b", second)
	_, err = kv.Create(b.ctx, "k", []byte("c"))
	b.wantCode("Create of what is there", err, muster.Exists)
	if err := kv.Delete(b.ctx, "k"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	_, _, err = kv.Get(b.ctx, "k")
	b.wantCode("Get of what was deleted", err, muster.NotFound)
	third, err := kv.Create(b.ctx, "k", nil)
	if err != nil {
		t.Errorf("Create after Delete: %v", err)
	}
	b.wantValue(kv, "k", "", third)
	if !(first < second && second < third) {
		t.Errorf("revisions do not grow: %d, %d, %d", first, second, third)
	}
	if err := kv.Delete(b.ctx, "never"); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
	_, err = kv.Put(b.ctx, "large", make([]byte, 1<<20))
	b.wantCode("Put of too large a value", err, muster.TooLarge)
}

func anyKeys(t *testing.T, b *bench) {
	kv := b.kv("bucket", 0)
	keys := []string{"ban.192.0.2.1", "ban.2001:db8::1", "a=3Ab", "a:b", "ünïcode", "with space", "*", ">", "a.*.b", "-/_", "\x00\xff", "="}
	for _, key := range keys {
		b.put(kv, key, key)
	}
	for _, key := range keys {
		if value, _, err := kv.Get(b.ctx, key); err != nil || string(value) != key {
			t.Errorf("Get %q: %q, %v", key, value, err)
		}
	}
	changes, err := kv.Watch(b.ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	for i := range keys {
		if c := <-changes; c.Key != keys[i] {
			t.Errorf("watched %q, want %q", c.Key, keys[i])
		}
	}
	for _, key := range []string{"", ".", "a.", ".a", "a..b", fmt.Sprintf("%0257d", 0)} {
		_, err := kv.Put(b.ctx, key, nil)
		b.wantCode(fmt.Sprintf("Put %q", key), err, muster.Invalid)
		_, _, err = kv.Get(b.ctx, key)
		b.wantCode(fmt.Sprintf("Get %q", key), err, muster.Invalid)
	}
}

func createAtOnce(t *testing.T, b *bench) {
	kv := b.kv("bucket", 0)
	var wg sync.WaitGroup
	var won atomic.Int32
	for range 8 {
		wg.Go(func() {
			switch _, err := kv.Create(b.ctx, "k", nil); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, muster.Exists):
				t.Errorf("Create: %v", err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 8 created the key", won.Load())
	}
}

// change takes the next change as "key=value", "key deleted" or "end".
func (b *bench) change(changes <-chan stream.Change) string {
	b.Helper()
	select {
	case c, open := <-changes:
		switch {
		case !open:
			return "closed"
		case c.Key == "":
			return "end"
		case c.Deleted:
			return c.Key + " deleted"
		}
		return c.Key + "=" + string(c.Value)
	case <-b.ctx.Done():
		b.Fatal("no change was told")
		return ""
	}
}

func watch(t *testing.T, b *bench) {
	kv := b.kv("bucket", 0)
	b.put(kv, "ban.a", "0")
	b.put(kv, "banner.a", "1")
	b.put(kv, "ban", "2")
	b.put(kv, "ban.b", "3")
	b.put(kv, "ban.a", "4")
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	changes, err := kv.Watch(ctx, "ban")
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want ...string) {
		t.Helper()
		for _, w := range want {
			if got := b.change(changes); got != w {
				t.Errorf("the watcher was told %q, want %q", got, w)
			}
		}
	}
	expect("ban.b=3", "ban.a=4", "end")
	b.put(kv, "banner.b", "5")
	b.put(kv, "ban.x:y", "6")
	expect("ban.x:y=6")
	if err := kv.Delete(b.ctx, "ban.b"); err != nil {
		t.Fatal(err)
	}
	expect("ban.b deleted")
	cancel()
	expect("closed")

	empty, err := b.kv("empty", 0).Watch(b.ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := b.change(empty); got != "end" {
		t.Errorf("of an empty bucket the watcher was told %q", got)
	}
}

func keysExpire(t *testing.T, b *bench) {
	kv := b.kv("bucket", time.Second)
	changes, err := kv.Watch(b.ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	b.put(kv, "k", "v")
	var told []string
	for range 3 {
		told = append(told, b.change(changes))
	}
	if diff := cmp.Diff([]string{"end", "k=v", "k deleted"}, told); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	_, _, err = kv.Get(b.ctx, "k")
	b.wantCode("Get of what expired", err, muster.NotFound)
	if _, err := kv.Create(b.ctx, "k", nil); err != nil {
		t.Errorf("Create of what expired: %v", err)
	}
}

func keyValueReopen(t *testing.T, b *bench) {
	kv := b.kv("bucket", 0)
	revision := b.put(kv, "k", "v")
	b.reopen()
	kv = b.kv("bucket", 0)
	b.wantValue(kv, "k", "v", revision)
	if next := b.put(kv, "k", "w"); next <= revision {
		t.Errorf("after revision %d came %d", revision, next)
	}
}
