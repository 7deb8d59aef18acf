package jury

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

// Whatever is added and dropped, sources are what a map would be, and what is
// held stays where it is.
func TestSourcesAreAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var got sources
		want, places := map[muster.Source]uint32{}, map[muster.Source]*held{}
		few := rapid.SampledFrom([]int{5, 2000}).Draw(t, "sources")
		for i := range rapid.IntRange(1, 3000).Draw(t, "steps") {
			n := (i*i*2654435761 + i) % few
			source := muster.SourceFromAddr(netip.AddrFrom4([4]byte{35, 0, byte(n >> 8), byte(n)}))
			h := got.get(source)
			if h != places[source] {
				t.Fatalf("step %d: %s is at %p, want %p", i, source, h, places[source])
			}
			switch {
			case h == nil:
				h = got.add(source)
				h.asn = uint32(i)
				want[source], places[source] = uint32(i), h
			case n%3 == i%3:
				got.drop(h)
				delete(want, source)
				delete(places, source)
			}
		}
		all := map[muster.Source]uint32{}
		for h := range got.all() {
			all[h.source()] = h.asn
			if got.at(h.slot) != h {
				t.Fatalf("%s is not at its slot", h.source())
			}
		}
		if diff := cmp.Diff(want, all, same); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		if got.count != len(want) {
			t.Fatalf("counted %d, want %d", got.count, len(want))
		}
	})
}

// stack is a reader that has everything at once, and then no more.
type stack struct {
	entries []muster.Entry
	asked   []int
	at      uint64
}

func (s *stack) Next(ctx context.Context, limit int) ([]muster.Entry, error) {
	s.asked = append(s.asked, limit)
	if len(s.entries) == 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	n := min(limit, len(s.entries))
	out := s.entries[:n]
	s.entries, s.at = s.entries[n:], out[n-1].Position
	return out, nil
}

func (s *stack) Position() uint64 { return s.at }
func (s *stack) Close()           {}

// However large records are, a batch has about as much as one transaction may,
// and tells of no position before all up to it has come.
func TestBatchesAreBounded(t *testing.T) {
	for _, size := range []int{1 << 10, 1 << 20, 7 << 20, bytesPerCommit, bytesPerCommit + 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s := &stack{}
			data := make([]byte, size)
			for i := range 300 {
				s.entries = append(s.entries, muster.Entry{Partition: uint8(i % 7), Position: uint64(1 + i/7), Data: data})
			}
			all := s.entries
			w := New(config(nil, nil, func(c *Config) {
				c.Open = func(context.Context, [muster.Partitions]uint64) (Reader, error) { return s, nil }
			}))
			ctx, stop := context.WithCancel(t.Context())
			batches, ended := make(chan batch), make(chan error, 1)
			go func() { ended <- w.follow(ctx, [muster.Partitions]uint64{}, batches) }()
			var came []muster.Entry
			last := uint64(0)
			for len(came) < len(all) {
				b := <-batches
				if bytes := size * len(b.entries); len(b.entries) == 0 || len(b.entries) > 1 && bytes > bytesPerCommit {
					t.Fatalf("a batch of %d records, %d bytes", len(b.entries), bytes)
				}
				came = append(came, b.entries...)
				if b.position < last || b.position > came[len(came)-1].Position {
					t.Fatalf("position %d after %d, when %d has come", b.position, last, came[len(came)-1].Position)
				}
				last = b.position
			}
			stop()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("following ended with %v", err)
			}
			for i := range all {
				if came[i].Partition != all[i].Partition || came[i].Position != all[i].Position {
					t.Fatalf("record %d is that of partition %d at %d", i, came[i].Partition, came[i].Position)
				}
			}
			if last != all[len(all)-1].Position {
				t.Errorf("the last position is %d, want %d", last, all[len(all)-1].Position)
			}
			if most := max(1, bytesPerCommit/size); s.asked[len(s.asked)-1] > most {
				t.Errorf("asked for %d records of %d bytes at last, want %d at most", s.asked[len(s.asked)-1], size, most)
			}
		})
	}
}
