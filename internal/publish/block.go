package publish

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"sync"
)

// block is some rows of one bucket, which are encoded together: the piece that
// lists are put together from.
type block struct {
	bucket uint32
	fresh  bool     // of newcomers, until the next ranking
	floor  float32  // least rank that belongs here
	slots  []uint32 // best first as of the last ranking, newcomers behind
	sum    float64  // of ranks
	// unsorted says that slots are not in the order of their ranks.
	unsorted bool
	// changes grows with every change that may change the encoding.
	changes uint64

	mu      sync.Mutex // held to encode; with Publisher.mu held for reading
	encoded [2]*fragment
}

const (
	// blockRows is the most rows in a block. Smaller blocks are cheaper to encode
	// anew and compress worse: 256 cost 5 % more bytes than 512, 1024 3 % less.
	blockRows = 512
	// rankMargin is by how much a row must outrank its block, or fall behind it,
	// before it moves: an eighth is six hours of age or 9 % of the points.
	rankMargin = 0.125
)

// fill is how full blocks are made, so that rows can join.
func (s *set) fill() int { return s.most - s.most/8 }

// addFresh puts a new row into the bucket's block of newcomers, which stands
// first so that what was found a moment ago reaches everybody.
func (s *set) addFresh(bucketID, slot uint32) {
	b := s.bucketList[bucketID]
	id := uint32(noBlock)
	if len(b.blocks) > 0 {
		if first := s.blocks[b.blocks[0]]; first.fresh && len(first.slots) < s.most {
			id = b.blocks[0]
		}
	}
	if id == noBlock {
		id = s.newBlock(bucketID)
		s.blocks[id].fresh = true
		b.blocks = slices.Insert(b.blocks, 0, id)
	}
	s.join(id, slot)
	b.moved = true
}

func (s *set) join(id, slot uint32) {
	b := s.blocks[id]
	b.slots = append(b.slots, slot)
	b.sum += float64(s.rows[slot].rank)
	b.changes++
	b.unsorted = true
	s.rows[slot].block = id
	s.layout++
}

func (b *block) drop(slot uint32, rank float32) {
	i := slices.Index(b.slots, slot)
	b.slots = slices.Delete(b.slots, i, i+1)
	b.sum -= float64(rank)
	b.changes++
}

func (b *block) mean() float64 {
	if len(b.slots) == 0 {
		return 0
	}
	return b.sum / float64(len(b.slots))
}

// rerank gives a row another rank; it moves with the next ranking.
func (s *set) rerank(r *row, rank float32) {
	if r.rank == rank {
		return
	}
	if r.block != noBlock {
		s.blocks[r.block].sum += float64(rank - r.rank)
		s.blocks[r.block].unsorted = true
		s.bucketList[r.bucket].moved = true
	}
	r.rank = rank
}

func (s *set) newBlock(bucketID uint32) uint32 {
	b := &block{bucket: bucketID, floor: float32(math.Inf(-1))}
	if n := len(s.freeBlocks); n > 0 {
		id := s.freeBlocks[n-1]
		s.freeBlocks = s.freeBlocks[:n-1]
		s.blocks[id] = b
		return id
	}
	s.blocks = append(s.blocks, b)
	return uint32(len(s.blocks) - 1)
}

func (s *set) freeBlock(id uint32) {
	s.blocks[id] = nil
	s.freeBlocks = append(s.freeBlocks, id)
	s.layout++
}

// arrange brings the blocks of a bucket in order: rows whose rank has left their
// block for good move to where they belong, newcomers among the others, blocks
// that grew too large are split, small neighbours joined. A block that nothing
// happened to keeps its encoding.
func (s *set) arrange(bucketID uint32) {
	b := s.bucketList[bucketID]
	if b == nil || !b.moved {
		return
	}
	b.moved = false
	moving := s.takeMoving(b)
	if len(b.blocks) == 0 {
		b.blocks = append(b.blocks, s.newBlock(bucketID))
	}
	for _, slot := range moving {
		s.join(b.blocks[s.place(b, s.rows[slot].rank)], slot)
	}
	var blocks []uint32
	for _, id := range b.blocks {
		last := len(blocks) - 1
		switch n := len(s.blocks[id].slots); {
		case n == 0:
			s.freeBlock(id)
		case n > s.most:
			blocks = append(blocks, s.split(id)...)
		case last >= 0 && n+len(s.blocks[blocks[last]].slots) <= s.fill()/2:
			s.merge(blocks[last], id)
		default:
			blocks = append(blocks, id)
		}
	}
	b.blocks = blocks
	for _, id := range blocks {
		if bl := s.blocks[id]; bl.unsorted {
			s.sort(bl.slots)
			bl.unsorted = false
		}
	}
}

// sort puts rows in the order of their ranks.
func (s *set) sort(slots []uint32) {
	slices.SortFunc(slots, func(x, y uint32) int {
		a, b := &s.rows[x], &s.rows[y]
		return cmp.Or(cmp.Compare(b.rank, a.rank), bytes.Compare(a.key[:], b.key[:]))
	})
}

// takeMoving takes the rows out of their blocks that belong elsewhere.
func (s *set) takeMoving(b *bucket) []uint32 {
	var (
		moving []uint32
		kept   = b.blocks[:0]
		roof   = float32(math.Inf(1))
	)
	for _, id := range b.blocks {
		bl := s.blocks[id]
		if bl.fresh {
			moving = append(moving, bl.slots...)
			s.freeBlock(id)
			continue
		}
		kept = append(kept, id)
		stay := bl.slots[:0]
		for _, slot := range bl.slots {
			if rank := s.rows[slot].rank; rank < bl.floor-rankMargin || rank > roof+rankMargin {
				moving = append(moving, slot)
				bl.sum -= float64(rank)
				bl.changes++
				continue
			}
			stay = append(stay, slot)
		}
		bl.slots = stay
		roof = bl.floor
	}
	b.blocks = kept
	return moving
}

// place returns which of the bucket's blocks a rank belongs to; their floors
// descend, the last one has none.
func (s *set) place(b *bucket, rank float32) int {
	i, _ := slices.BinarySearchFunc(b.blocks, rank, func(id uint32, rank float32) int {
		if s.blocks[id].floor <= rank {
			return 1
		}
		return -1
	})
	return min(i, len(b.blocks)-1)
}

// split makes several blocks of one that is too large, the first of which is the
// old one.
func (s *set) split(id uint32) []uint32 {
	b := s.blocks[id]
	slots, floor := b.slots, b.floor
	s.sort(slots)
	pieces := (len(slots) + s.fill() - 1) / s.fill()
	ids := []uint32{id}
	for i := 1; i < pieces; i++ {
		ids = append(ids, s.newBlock(b.bucket))
	}
	for i, id := range ids {
		part := slots[i*len(slots)/pieces : (i+1)*len(slots)/pieces]
		b := s.blocks[id]
		b.slots, b.sum = slices.Clone(part), 0
		b.floor = floor
		if i < pieces-1 {
			b.floor = s.rows[part[len(part)-1]].rank
		}
		for _, slot := range part {
			s.rows[slot].block = id
			b.sum += float64(s.rows[slot].rank)
		}
		b.changes++
	}
	s.layout++
	return ids
}

// merge puts the rows of a block into the one before it.
func (s *set) merge(into, from uint32) {
	a, b := s.blocks[into], s.blocks[from]
	for _, slot := range b.slots {
		s.join(into, slot)
	}
	a.floor = b.floor
	s.freeBlock(from)
}
