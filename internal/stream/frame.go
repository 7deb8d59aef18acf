package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/s2"

	"muster"
)

// A frame is what one Append writes: records of different partitions.
//
//	byte     format, 1
//	uvarint  number of records, 1 to 64
//	each:    byte partition, uvarint length
//	s2 block of the records' data, joined
//
// A later format gets the next number, so that two releases can read each
// other's log during an upgrade.
const frameFormat = 1

// MaxRecord is the largest record, in bytes, that Append takes on an embedded
// server. A cluster takes what its max_payload allows.
const MaxRecord = 7 << 20

// maxFrameData bounds what a frame may claim to decompress to.
const maxFrameData = 64 << 20

// frameHead is the most that a frame has beside its s2 block.
const frameHead = 2 + muster.Partitions*(1+binary.MaxVarintLen32)

var frameBuffers = sync.Pool{New: func() any { return new(frameBuffer) }}

// frameBuffer is the scratch space for encoding one frame.
type frameBuffer struct {
	joined, frame []byte
}

// encode returns the frame of records, valid until the next call.
func (b *frameBuffer) encode(records []muster.Record) []byte {
	b.joined = b.joined[:0]
	b.frame = append(b.frame[:0], frameFormat)
	b.frame = binary.AppendUvarint(b.frame, uint64(len(records)))
	for _, r := range records {
		b.frame = append(b.frame, r.Partition)
		b.frame = binary.AppendUvarint(b.frame, uint64(len(r.Data)))
		b.joined = append(b.joined, r.Data...)
	}
	head := len(b.frame)
	need := head + s2.MaxEncodedLen(len(b.joined))
	if cap(b.frame) < need {
		b.frame = append(make([]byte, 0, need), b.frame...)
	}
	block := s2.Encode(b.frame[head:need], b.joined)
	b.frame = b.frame[:head+len(block)]
	return b.frame
}

// decodeFrame appends to entries those records of a frame at position that
// keep wants. Their data shares one allocation.
func decodeFrame(entries []muster.Entry, frame []byte, position uint64, keep func(uint8) bool) ([]muster.Entry, error) {
	if len(frame) == 0 {
		return entries, errors.New("empty frame")
	}
	if frame[0] != frameFormat {
		return entries, fmt.Errorf("expected frame format %d, got %d: written by a newer release?", frameFormat, frame[0])
	}
	n, used := binary.Uvarint(frame[1:])
	if used <= 0 || n == 0 || n > muster.Partitions {
		return entries, fmt.Errorf("expected 1 to %d records, got %d", muster.Partitions, n)
	}
	head := frame[1+used:]
	first, total := len(entries), uint64(0)
	type span struct{ from, to uint64 }
	var spans [muster.Partitions]span
	for range n {
		if len(head) == 0 || head[0] >= muster.Partitions {
			return entries[:first], errors.New("bad partition in the frame's head")
		}
		partition := head[0]
		size, used := binary.Uvarint(head[1:])
		if used <= 0 || size > maxFrameData || total+size > maxFrameData {
			return entries[:first], errors.New("bad length in the frame's head")
		}
		head = head[1+used:]
		if keep(partition) {
			spans[len(entries)-first] = span{total, total + size}
			entries = append(entries, muster.Entry{Partition: partition, Position: position})
		}
		total += size
	}
	if len(entries) == first {
		return entries, nil
	}
	if size, err := s2.DecodedLen(head); err != nil || uint64(size) != total {
		return entries[:first], fmt.Errorf("expected %d bytes of records, the block has %d: %w", total, size, errors.Join(err, s2.ErrCorrupt))
	}
	data, err := s2.Decode(nil, head)
	if err != nil {
		return entries[:first], fmt.Errorf("decompressing: %w", err)
	}
	for i := range entries[first:] {
		s := spans[i]
		entries[first+i].Data = data[s.from:s.to:s.to]
	}
	return entries, nil
}
