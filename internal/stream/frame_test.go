package stream

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

func everything(uint8) bool { return true }

func TestFrameRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var records []muster.Record
		var want []muster.Entry
		wanted := uint8(rapid.IntRange(0, muster.Partitions).Draw(t, "wanted"))
		for _, p := range rapid.SliceOfNDistinct(rapid.Uint8Range(0, muster.Partitions-1), 1, muster.Partitions, rapid.ID).Draw(t, "partitions") {
			r := muster.Record{Partition: p, Data: rapid.SliceOf(rapid.Byte()).Draw(t, "data")}
			records = append(records, r)
			if p < wanted {
				want = append(want, muster.Entry{Partition: p, Position: 9, Data: bytes.Clone(r.Data)})
			}
		}
		frame := new(frameBuffer).encode(records)
		got, err := decodeFrame(nil, frame, 9, func(p uint8) bool { return p < wanted })
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(bytes.Equal)); diff != "" {
			t.Fatalf("entries (-want +got):\n%s", diff)
		}
	})
}

func TestDecodeFrameRefuses(t *testing.T) {
	good := new(frameBuffer).encode([]muster.Record{{Partition: 1, Data: []byte("abc")}, {Partition: 2, Data: []byte("defg")}})
	change := func(at int, to byte) []byte {
		bad := bytes.Clone(good)
		bad[at] = to
		return bad
	}
	before := []muster.Entry{{Partition: 5}}
	for name, frame := range map[string][]byte{
		"nothing":            nil,
		"a newer format":     change(0, 2),
		"no records":         change(1, 0),
		"too many records":   change(1, 65),
		"partition 64":       change(2, 64),
		"a length too short": change(3, 2),
		"a length too long":  change(5, 9),
		"a cut head":         good[:4],
		"a cut block":        good[:len(good)-1],
		"an absurd length":   {1, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x7f},
	} {
		t.Run(name, func(t *testing.T) {
			entries, err := decodeFrame(before, frame, 1, everything)
			if err == nil {
				t.Error("no error")
			}
			if diff := cmp.Diff(before, entries); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzDecodeFrame(f *testing.F) {
	f.Add(new(frameBuffer).encode([]muster.Record{{Partition: 1, Data: []byte("abc")}, {Partition: 2, Data: []byte("defg")}}))
	f.Add([]byte{frameFormat, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, frame []byte) {
		entries, err := decodeFrame(nil, frame, 1, everything)
		if err != nil {
			return
		}
		var records []muster.Record
		for _, e := range entries {
			records = append(records, muster.Record{Partition: e.Partition, Data: e.Data})
		}
		again, err := decodeFrame(nil, new(frameBuffer).encode(records), 1, everything)
		if err != nil {
			t.Fatalf("encoding what was decoded: %v", err)
		}
		if diff := cmp.Diff(entries, again, cmp.Comparer(bytes.Equal)); diff != "" {
			t.Fatalf("entries (-first +again):\n%s", diff)
		}
	})
}
