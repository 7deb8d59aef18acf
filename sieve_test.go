package muster

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

var anySieved = rapid.Custom(func(t *rapid.T) SievedBatch {
	text := rapid.OneOf(rapid.Just(""), rapid.StringN(0, 12, -1), rapid.StringN(100, 300, -1))
	float := rapid.Float64Range(-180, 180)
	b := SievedBatch{
		Engine:  SieveEngine(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "engine")),
		Token:   SieveToken(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "token")),
		Machine: text.Draw(t, "machine"), UserAgent: text.Draw(t, "agent"),
		V2: rapid.Bool().Draw(t, "v2"), Fate: SieveFate(rapid.Byte().Draw(t, "fate")),
		Received: time.UnixMicro(rapid.Int64().Draw(t, "received")).UTC(),
	}
	for range rapid.IntRange(0, 5).Draw(t, "signals") {
		s := SievedSignal{
			Raw: rapid.SliceOfN(rapid.Byte(), 0, 400).Draw(t, "raw"), UUID: text.Draw(t, "uuid"),
			Given: rapid.Bool().Draw(t, "given"), Withheld: rapid.Bool().Draw(t, "withheld"),
			Reasons: rapid.SliceOfN(text, 0, 3).Draw(t, "reasons"),
			Geo: SieveGeo{
				CountryCode: text.Draw(t, "code"), CountryName: text.Draw(t, "country"), City: text.Draw(t, "city"),
				Region: text.Draw(t, "region"), Timezone: text.Draw(t, "zone"), ISP: text.Draw(t, "isp"),
				Organisation: text.Draw(t, "organisation"), ASN: rapid.Uint32().Draw(t, "asn"), ASName: text.Draw(t, "as"),
			},
		}
		if rapid.Bool().Draw(t, "place") {
			latitude, longitude := float.Draw(t, "latitude"), float.Draw(t, "longitude")
			s.Geo.Latitude, s.Geo.Longitude = &latitude, &longitude
		}
		b.Signals = append(b.Signals, s)
	}
	return b
})

func decodedSieved(data []byte) (out []SievedBatch, err error) {
	err = DecodeSievedBatches(data, func(b *SievedBatch) { out = append(out, *b) })
	return out, err
}

func TestSievedBatchesSurviveTheirBinaryForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOfN(anySieved, 0, 4).Draw(t, "batches")
		var data []byte
		for i := range in {
			data = AppendSievedBatch(data, &in[i])
		}
		out, err := decodedSieved(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(in, out, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		limit := rapid.IntRange(1, len(data)+1).Draw(t, "limit")
		for rest := data; len(rest) > 0; {
			end := SievedBoundary(rest, limit)
			part, err := decodedSieved(rest[:end])
			if err != nil || end > limit && len(part) != 1 {
				t.Fatalf("%d bytes of %d at a limit of %d hold %d batches: %v", end, len(rest), limit, len(part), err)
			}
			rest = rest[end:]
		}
	})
}

func TestDamagedSievedBatchesAreRefused(t *testing.T) {
	whole := AppendSievedBatch(nil, &SievedBatch{Machine: "m", Signals: []SievedSignal{{Raw: []byte(`{}`), UUID: "u", Reasons: []string{"r"}}}})
	for n := 1; n < len(whole); n++ {
		if _, err := decodedSieved(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes were taken for whole", n, len(whole))
		}
	}
	newer := bytes.Clone(whole)
	newer[0]++
	if _, err := decodedSieved(newer); err == nil || !strings.Contains(err.Error(), "newer release") {
		t.Errorf("a newer version: %v", err)
	}
	longer := append(bytes.Clone(whole), 0)
	longer[4]++
	if _, err := decodedSieved(longer); err == nil {
		t.Error("a byte more than the signals need was taken")
	}
}

func FuzzDecodeSievedBatches(f *testing.F) {
	f.Add(AppendSievedBatch(nil, &SievedBatch{Machine: "m", Signals: []SievedSignal{{Raw: []byte(`{}`), UUID: "u"}}}))
	f.Add([]byte{sievedVersion, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		batches, err := decodedSieved(data)
		if err != nil {
			return
		}
		var again []byte
		for i := range batches {
			again = AppendSievedBatch(again, &batches[i])
		}
		reread, err := decodedSieved(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(batches, reread, cmpopts.EquateEmpty(), cmpopts.EquateNaNs()); diff != "" {
			t.Fatalf("(-first +second):\n%s", diff)
		}
	})
}
