package store

import (
	"database/sql"
	"encoding/binary"

	"muster"
)

// DefaultRecentAlerts is how many of the alerts stored last are known for
// certain when they are sent again; up to twice as many are. That takes up to
// 16 MiB.
const DefaultRecentAlerts = 1 << 19

// recent knows the ids of the alerts stored last, so that a report that is sent
// again with another time is not counted again; one that is sent again as it was
// is known for ever, by the unique index over time and id. An index over the ids
// alone would know both for ever, and was given up: ids are hashes, so every new
// row touches another page of it, which at four million alerts took two thirds of
// the time to store one, and rising; and neither PostgreSQL's partitions per day
// nor files per day could have it.
//
// It has two generations: ids go to the younger; when that is full it becomes
// the older, and the older is forgotten.
type recent struct {
	size           int
	younger, older idSet
}

// loadRecent reads the ids of the last size alerts.
func loadRecent(q queryer, size int) (*recent, error) {
	r := &recent{size: size}
	var id sql.RawBytes
	scan := func(rows *sql.Rows) (struct{}, error) {
		err := rows.Scan(&id)
		if err == nil {
			r.older.add(fingerprint(muster.SignalID(id)))
		}
		return struct{}{}, err
	}
	err := each(background, q, scan, func(struct{}) error { return nil }, `SELECT id FROM alerts ORDER BY at DESC LIMIT ?`, size)
	return r, err
}

// add tells whether an id was unknown, and remembers it.
func (r *recent) add(id muster.SignalID) bool {
	print := fingerprint(id)
	if r.older.has(print) || !r.younger.add(print) {
		return false
	}
	if r.younger.n == r.size {
		r.younger, r.older = r.older, r.younger
		clear(r.younger.slots)
		r.younger.n = 0
	}
	return true
}

// fingerprint is never 0. Of two million ids, which are hashes, the chance that
// any two share one is one in ten million.
func fingerprint(id muster.SignalID) uint64 {
	return max(1, binary.LittleEndian.Uint64(id[:8])^binary.LittleEndian.Uint64(id[8:])*0x9e3779b97f4a7c15)
}

// idSet is a hash set of numbers other than 0, at most two thirds full. A map
// would take three times the memory.
type idSet struct {
	slots []uint64 // a power of two, or none
	n     int
}

func (s *idSet) has(print uint64) bool {
	return len(s.slots) > 0 && s.slots[s.find(print)] == print
}

// add tells whether print was not there.
func (s *idSet) add(print uint64) bool {
	if 3*(s.n+1) > 2*len(s.slots) {
		old := s.slots
		s.slots = make([]uint64, max(64, 2*len(old)))
		for _, p := range old {
			if p != 0 {
				s.slots[s.find(p)] = p
			}
		}
	}
	slot := s.find(print)
	if s.slots[slot] == print {
		return false
	}
	s.slots[slot] = print
	s.n++
	return true
}

// find returns the slot that print is in, or the free one where it belongs.
func (s *idSet) find(print uint64) int {
	mask := len(s.slots) - 1
	for i := int(print) & mask; ; i = (i + 1) & mask {
		if s.slots[i] == print || s.slots[i] == 0 {
			return i
		}
	}
}
