package store

import (
	"encoding/binary"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"muster"
)

func numbered(n uint64) (id muster.SignalID) {
	binary.LittleEndian.PutUint64(id[:], n*0x9e3779b97f4a7c15)
	return id
}

// What was added within the last size distinct ids is always known, what was
// never added or came before the last 2·size never is.
func TestRecent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &recent{size: rapid.IntRange(1, 100).Draw(t, "size")}
		var added []uint64 // without repeats, oldest first
		for range rapid.IntRange(1, 500).Draw(t, "steps") {
			n := rapid.Uint64Range(0, 300).Draw(t, "n")
			last := slices.Index(added, n)
			unknown := r.add(numbered(n))
			switch age := len(added) - last; {
			case unknown && last >= 0 && age <= r.size:
				t.Fatalf("%d was added %d ids ago and is unknown", n, age)
			case !unknown && last < 0:
				t.Fatalf("%d was never added and is known", n)
			case !unknown && age > 2*r.size:
				t.Fatalf("%d was added %d ids ago and is known still", n, age)
			}
			if unknown {
				if last >= 0 {
					added = slices.Delete(added, last, last+1)
				}
				added = append(added, n)
			}
		}
	})
}

func BenchmarkRecent(b *testing.B) {
	r := &recent{size: DefaultRecentAlerts}
	b.ReportAllocs()
	var n uint64
	for b.Loop() {
		n++
		if !r.add(numbered(n)) {
			b.Fatal("known")
		}
	}
}
