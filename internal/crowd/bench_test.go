package crowd

import (
	"runtime"
	"testing"
)

// busy folds and judges reports on many sources, as a shard does, each source
// with so many voices.
func busy(b *testing.B, voices int) {
	w := matureWorld()
	table := tableOf(start, w)
	const sources = 1 << 12
	evs := make([]Evidence, sources)
	var out Outcome
	for i := range evs {
		for m := range voices {
			table.Fold(&evs[i], say(w, uint32(1+(m*7+i)%199), brute, float64(m)/8))
			table.Judge(&evs[i], start+4*hour, Facts{}, &out)
		}
		out.Reset()
	}
	reports := make([]Report, 1024)
	for i := range reports {
		reports[i] = say(w, uint32(1+(i%max(1, voices)*7+i)%199), brute, 4)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		ev := &evs[i*2654435761%sources]
		r := reports[i%len(reports)]
		r.Machine = ev.voices[i%len(ev.voices)].machine
		table.Fold(ev, r)
		table.Judge(ev, r.At, Facts{}, &out)
		out.Reset()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signals/s")
}

func BenchmarkFoldAndJudge(b *testing.B) {
	b.Run("1 voice", func(b *testing.B) { busy(b, 1) })
	b.Run("3 voices", func(b *testing.B) { busy(b, 3) })
	b.Run("8 voices", func(b *testing.B) { busy(b, 8) })
	b.Run("24 voices", func(b *testing.B) { busy(b, 24) })
}

// BenchmarkCrowdedSource folds reports of ever new machines on one source that
// has all the voices that it may have.
func BenchmarkCrowdedSource(b *testing.B) {
	w := matureWorld()
	table := tableOf(start, w)
	var ev Evidence
	var out Outcome
	b.ReportAllocs()
	for i := range b.N {
		r := say(w, uint32(1+i%200), brute, 1)
		r.Machine = uint32(1 + i%100_000)
		table.Fold(&ev, r)
		table.Judge(&ev, r.At, Facts{}, &out)
		out.Reset()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signals/s")
}

func BenchmarkBinary(b *testing.B) {
	w := matureWorld()
	table := tableOf(start, w)
	var ev, back Evidence
	var out Outcome
	for m := range uint32(3) {
		table.Fold(&ev, say(w, 1+m, brute, 0))
		table.Judge(&ev, start, Facts{}, &out)
	}
	var data []byte
	b.ReportAllocs()
	for b.Loop() {
		data = ev.AppendBinary(data[:0])
		if err := back.UnmarshalBinary(data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(data)), "bytes")
}

func BenchmarkNewTrustTable(b *testing.B) {
	w := make([]Record, 100_001)
	for m := range w[1:] {
		w[m+1] = veteran(uint32(m/3+1), uint32(m%2000+1))
	}
	b.ReportAllocs()
	for b.Loop() {
		tableOf(start, w)
	}
}

// BenchmarkMemory says what a source takes in memory, with a map to find it, when
// most have one or two voices and a few very many.
func BenchmarkMemory(b *testing.B) {
	w := matureWorld()
	table := tableOf(start, w)
	const sources = 1 << 16
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		evs := make(map[[24]byte]*Evidence, sources)
		var out Outcome
		voices, packed := 0, 0
		for i := range sources {
			ev := &Evidence{}
			n := 1 + int(mix(uint64(i))%3) // one to three
			if i%20 == 0 {
				n = MaxVoices
			}
			for m := range n {
				table.Fold(ev, say(w, uint32(1+(i+m*7)%199), brute, 0))
			}
			table.Judge(ev, start, Facts{}, &out)
			out.Reset()
			evs[[24]byte{byte(i), byte(i >> 8), byte(i >> 16)}] = ev
			voices += n
			packed += len(ev.AppendBinary(nil))
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/sources, "B/source")
		b.ReportMetric(float64(voices)/sources, "voices/source")
		b.ReportMetric(float64(packed)/sources, "packed-B/source")
		runtime.KeepAlive(evs)
	}
}
