package jury

import (
	"hash/maphash"
	"iter"

	"muster"
)

// key is the binary form of a source.
type key [muster.SourceSize]byte

func keyOf(s muster.Source) (k key) {
	s.AppendBinary(k[:0])
	return k
}

// sources are all of which something is held. There are millions, so they stand
// in large chunks, which never move, and are found by a table of slots; the
// zero value is none.
type sources struct {
	seed   maphash.Seed
	table  []uint32 // by hash of the key, or the next places behind: a slot plus one, 0 = free
	chunks []*[chunkSize]held
	free   []uint32 // slots that were given back
	slots  uint32   // that were ever used
	count  int
}

const (
	chunkSize    = 512
	minTable     = 1024
	tableQuarter = 4 // a table is at most three quarters full
)

func (t *sources) at(slot uint32) *held { return &t.chunks[slot/chunkSize][slot%chunkSize] }

// home is where the search for a key begins.
func (t *sources) home(k *key) uint64 {
	return maphash.Bytes(t.seed, k[:]) & uint64(len(t.table)-1)
}

// place returns where a key stands in the table, or could be put.
func (t *sources) place(k *key) (place uint64, there bool) {
	mask := uint64(len(t.table) - 1)
	for place = t.home(k); ; place = (place + 1) & mask {
		switch slot := t.table[place]; {
		case slot == 0:
			return place, false
		case t.at(slot-1).key == *k:
			return place, true
		}
	}
}

// get returns what is held on a source, nil for nothing. It stays where it is
// until it is dropped.
func (t *sources) get(source muster.Source) *held {
	if t.count == 0 {
		return nil
	}
	k := keyOf(source)
	if place, there := t.place(&k); there {
		return t.at(t.table[place] - 1)
	}
	return nil
}

// add returns what is held on a source, of which nothing was until now.
func (t *sources) add(source muster.Source) *held {
	if (t.count+1)*tableQuarter > len(t.table)*(tableQuarter-1) {
		t.grow()
	}
	slot := t.slots
	if n := len(t.free); n > 0 {
		slot, t.free = t.free[n-1], t.free[:n-1]
	} else {
		if slot%chunkSize == 0 {
			t.chunks = append(t.chunks, new([chunkSize]held))
		}
		t.slots++
	}
	h := t.at(slot)
	h.key, h.slot = keyOf(source), slot
	place, _ := t.place(&h.key)
	t.table[place] = slot + 1
	t.count++
	return h
}

func (t *sources) grow() {
	if t.table == nil {
		t.seed = maphash.MakeSeed()
	}
	t.table = make([]uint32, max(minTable, 2*len(t.table)))
	for h := range t.all() {
		place, _ := t.place(&h.key)
		t.table[place] = h.slot + 1
	}
}

// drop forgets what is held on a source. Others behind it in the table move up
// when the search for them would end at its place.
func (t *sources) drop(h *held) {
	hole, there := t.place(&h.key)
	if !there {
		return
	}
	mask := uint64(len(t.table) - 1)
	for next := (hole + 1) & mask; t.table[next] != 0; next = (next + 1) & mask {
		if home := t.home(&t.at(t.table[next] - 1).key); (next-home)&mask >= (next-hole)&mask {
			t.table[hole], hole = t.table[next], next
		}
	}
	t.table[hole] = 0
	t.free = append(t.free, h.slot)
	t.count--
	*h = held{}
}

// all yields what is held on each; meanwhile none must be added.
func (t *sources) all() iter.Seq[*held] {
	return func(yield func(*held) bool) {
		for slot := range t.slots {
			if h := t.at(slot); h.key != (key{}) && !yield(h) {
				return
			}
		}
	}
}
