package muster

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Record is what one group commit appends to one partition of the stream: some
// signals in binary form (AppendSignal).
type Record struct {
	Partition uint8
	Data      []byte
}

// Entry is a Record read back. Positions grow within a partition and are never
// reused; they need not be dense.
type Entry struct {
	Partition uint8
	Position  uint64
	Data      []byte
}

// recordVersion leads every signal in a record, so that a release can read the
// stream of those before. Version 1 does not say from where a signal came,
// version 2 not in which AS its source is.
const recordVersion = 3

// signalStrings is how many strings AppendSignal writes between the fixed
// fields and the detail.
const signalStrings = 10

// AppendSignal appends the binary form of s to b: a version byte, the fixed
// fields, then strings and bytes with uvarint lengths. Times are microseconds.
func AppendSignal(b []byte, s *Signal) []byte {
	b = append(b, recordVersion, byte(s.Flags), byte(s.Trust))
	b = append(b, s.ID[:]...)
	b = s.Source.AppendBinary(b)
	b = binary.AppendUvarint(b, uint64(s.Received.UnixMicro()))
	b = binary.AppendUvarint(b, uint64(s.At.UnixMicro()))
	b = binary.AppendUvarint(b, uint64(s.ASN))
	b = binary.AppendUvarint(b, uint64(s.ReporterASN))
	b = binary.AppendUvarint(b, s.ReporterNet)
	b = binary.AppendUvarint(b, uint64(s.SourceASN))
	for _, str := range [signalStrings]string{
		s.Machine, s.Organisation, s.Scenario, s.ScenarioHash, s.Version,
		s.Kind, s.Country, s.ASName, s.Scope, s.Value,
	} {
		b = binary.AppendUvarint(b, uint64(len(str)))
		b = append(b, str...)
	}
	b = binary.AppendUvarint(b, uint64(len(s.Detail)))
	return append(b, s.Detail...)
}

// DecodeSignals calls yield for every signal in a record's data. The strings
// share one copy of data; Detail aliases data. An error means that the data is
// damaged or from a newer release: nothing after it can be trusted.
func DecodeSignals(data []byte, yield func(*Signal)) error {
	text := string(data)
	for off := 0; off < len(data); {
		d := decoder{data: data, text: text, off: off}
		v := d.byte()
		if v < 1 || v > recordVersion {
			return fmt.Errorf("record: expected version 1 to %d at offset %d, got %d: written by a newer release?", recordVersion, off, v)
		}
		var s Signal
		s.Flags, s.Trust = SignalFlags(d.byte()), ScenarioTrust(d.byte())
		copy(s.ID[:], d.take(len(s.ID)))
		src, err := SourceFromBinary(d.take(SourceSize))
		if err == nil {
			s.Source = src
		} else if d.err == nil {
			d.err = err
		}
		s.Received = time.UnixMicro(int64(d.uvarint())).UTC()
		s.At = time.UnixMicro(int64(d.uvarint())).UTC()
		s.ASN = uint32(d.uvarint())
		if v > 1 {
			s.ReporterASN = uint32(d.uvarint())
			s.ReporterNet = d.uvarint()
		}
		if v > 2 {
			s.SourceASN = uint32(d.uvarint())
		}
		for _, str := range [signalStrings]*string{
			&s.Machine, &s.Organisation, &s.Scenario, &s.ScenarioHash, &s.Version,
			&s.Kind, &s.Country, &s.ASName, &s.Scope, &s.Value,
		} {
			*str = d.string()
		}
		s.Detail = d.take(int(d.uvarint()))
		if d.err != nil {
			return fmt.Errorf("record: signal at offset %d: %w", off, d.err)
		}
		yield(&s)
		off = d.off
	}
	return nil
}

// SignalBoundary returns the length of the longest run of whole signals at the
// start of data that is not over limit, and at least one signal; data is what
// AppendSignal wrote.
func SignalBoundary(data []byte, limit int) int {
	end := 0
	for end < len(data) {
		d := decoder{data: data, off: end}
		numbers := 6
		switch d.byte() {
		case 1:
			numbers = 3
		case 2:
			numbers = 5
		}
		d.take(2 + len(SignalID{}) + SourceSize)
		for range numbers {
			d.uvarint()
		}
		for range signalStrings + 1 {
			d.take(int(d.uvarint()))
		}
		if d.err != nil || end > 0 && d.off > limit {
			break
		}
		end = d.off
	}
	if end == 0 {
		return len(data)
	}
	return end
}

// decoder reads one signal; after the first error every read is a zero.
type decoder struct {
	data []byte
	text string
	off  int
	err  error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil {
		return nil
	}
	if n < 0 || n > len(d.data)-d.off {
		d.err = fmt.Errorf("%d bytes wanted, %d left", n, len(d.data)-d.off)
		return nil
	}
	b := d.data[d.off : d.off+n : d.off+n]
	d.off += n
	return b
}

func (d *decoder) byte() byte {
	if b := d.take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.data[d.off:])
	if n <= 0 {
		d.err = fmt.Errorf("bad length at offset %d", d.off)
		return 0
	}
	d.off += n
	return v
}

func (d *decoder) string() string {
	n := int(d.uvarint())
	start := d.off
	if d.take(n); d.err != nil {
		return ""
	}
	return d.text[start : start+n]
}
