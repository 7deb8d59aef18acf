package ratelimit

import "time"

// window counts the events of one counter in any stretch of time that is
// spanMs long, to the millisecond when exact, else in slices of sliceMs.
type window struct {
	exact     bool
	spanMs    int64
	sliceMs   int64 // spanMs/(cells-1), rounded up: cells slices cover the window wherever in a slice it ends
	threshold int
}

func windowOf(span time.Duration, threshold int) window {
	ms := span.Milliseconds()
	return window{
		exact: threshold <= ExactThreshold, threshold: threshold,
		spanMs: ms, sliceMs: (ms + cells - 2) / (cells - 1),
	}
}

// holdMs is how long after its last event a counter counts anything.
func (w window) holdMs() int64 {
	if w.exact {
		return w.spanMs
	}
	return w.sliceMs * cells
}

// add counts an event at nowMs unless it would be one too many. It returns the
// events in the window with this one, and after how many milliseconds one more
// would be allowed if it is refused.
//
// A clock that goes back by less than a window stands still until it has
// caught up; one that goes back further starts the counter again.
func (w window) add(s *slot, nowMs int64) (count int, allowed bool, waitMs int64) {
	last := s.ends - w.holdMs()
	switch {
	case nowMs >= s.ends, last-nowMs > w.holdMs(): // all too old, or a clock gone wrong
		s.head, s.n, s.cell = 0, 0, [cells]uint32{}
		last = nowMs
	case nowMs < last:
		nowMs = last
	}
	if w.exact {
		count, allowed, waitMs = w.addTime(s, nowMs)
	} else {
		count, allowed, waitMs = w.addSlice(s, nowMs, last)
	}
	if allowed {
		s.ends = nowMs + w.holdMs()
	}
	s.weight = uint8(min(count, w.threshold) * 255 / w.threshold)
	return count, allowed, waitMs
}

// addTime keeps the time of each event: milliseconds modulo 2^32, which no two
// times in a counter are apart, because it empties after a window without
// events and a window is at most 7 days.
func (w window) addTime(s *slot, nowMs int64) (count int, allowed bool, waitMs int64) {
	age := func(i int) int64 { return int64(uint32(nowMs) - s.cell[(int(s.head)+i)%cells]) }
	for s.n > 0 && age(0) >= w.spanMs {
		s.head = (s.head + 1) % cells
		s.n--
	}
	n := int(s.n)
	if n >= w.threshold {
		return n + 1, false, w.spanMs - age(n-w.threshold)
	}
	s.cell[(int(s.head)+n)%cells] = uint32(nowMs)
	s.n++
	return n + 1, true, 0
}

// addSlice keeps the number of events in each slice of time, in the cell of the
// slice's number modulo cells. The slice that was last written to is last's.
func (w window) addSlice(s *slot, nowMs, lastMs int64) (count int, allowed bool, waitMs int64) {
	slice := nowMs / w.sliceMs
	for old := lastMs/w.sliceMs + 1; old <= slice; old++ { // fewer than cells: add saw to it
		s.cell[old%cells] = 0
	}
	total := 0
	for _, n := range s.cell {
		total += int(n)
	}
	if total < w.threshold {
		s.cell[slice%cells]++
		return total + 1, true, 0
	}
	left, i := total, slice-cells
	for left >= w.threshold {
		i++
		left -= int(s.cell[i%cells])
	}
	return total + 1, false, (i+cells)*w.sliceMs - nowMs
}
