package muster

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// anySignal draws signals that fill every field, the odd ones included: no
// address, times before 1970, empty and long strings.
var anySignal = rapid.Custom(func(t *rapid.T) Signal {
	text := rapid.OneOf(rapid.Just(""), rapid.StringN(0, 12, -1), rapid.StringN(100, 300, -1))
	micros := rapid.OneOf(rapid.Int64Range(0, 4e15), rapid.Int64())
	return Signal{
		ID:      SignalID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")),
		Machine: text.Draw(t, "machine"), Organisation: text.Draw(t, "organisation"),
		Received: time.UnixMicro(micros.Draw(t, "received")).UTC(), At: time.UnixMicro(micros.Draw(t, "at")).UTC(),
		Source: anySource.Draw(t, "source"), Scope: text.Draw(t, "scope"), Value: text.Draw(t, "value"),
		Scenario: text.Draw(t, "scenario"), ScenarioHash: text.Draw(t, "hash"), Version: text.Draw(t, "version"),
		Trust: ScenarioTrust(rapid.Byte().Draw(t, "trust")), Kind: text.Draw(t, "kind"),
		Country: text.Draw(t, "country"), ASN: rapid.Uint32().Draw(t, "asn"), ReporterASN: rapid.Uint32().Draw(t, "reporter asn"), ReporterNet: rapid.Uint64().Draw(t, "net"), SourceASN: rapid.Uint32().Draw(t, "source asn"), ASName: text.Draw(t, "as"),
		Flags: SignalFlags(rapid.Byte().Draw(t, "flags")), Detail: rapid.SliceOfN(rapid.Byte(), 0, 400).Draw(t, "detail"),
	}
})

var sameSignals = cmp.Options{cmpopts.EquateComparable(Source{}), cmpopts.EquateEmpty()}

func decoded(data []byte) (out []Signal, err error) {
	err = DecodeSignals(data, func(s *Signal) { out = append(out, *s) })
	return out, err
}

func TestSignalsSurviveTheirBinaryForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOfN(anySignal, 0, 6).Draw(t, "signals")
		var data []byte
		for i := range in {
			data = AppendSignal(data, &in[i])
		}
		out, err := decoded(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(in, out, sameSignals); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// The strings of a decoded signal outlive the record's buffer; the details do
// not, and a caller that appends to one must not write into its neighbour.
func TestDecodedSignalsAndTheirBuffer(t *testing.T) {
	a := Signal{Machine: "m1", Scenario: "s1", Detail: []byte("first")}
	b := Signal{Machine: "m2", Scenario: "s2", Detail: []byte("second")}
	data := AppendSignal(AppendSignal(nil, &a), &b)
	out, err := decoded(data)
	if err != nil {
		t.Fatal(err)
	}
	_ = append(out[0].Detail, "overwritten"...)
	if again, err := decoded(data); err != nil || again[1].Machine != "m2" {
		t.Errorf("an append to a detail damaged the record: %+v, %v", again, err)
	}
	clear(data)
	if out[0].Machine != "m1" || out[1].Scenario != "s2" {
		t.Errorf("strings alias the record: %+v", out)
	}
}

// signalGolden is one signal in the form that streams on disk hold. When this
// test fails, the format has changed: recordVersion must grow, and
// DecodeSignals go on reading the old form.
const signalGolden = "03" + "05" + "01" + // version, flags, trust
	"000102030405060708090a0b0c0d0e0f" +
	"00000000000000000000ffff23bc31b080" + // source
	"c0a4e5debf969803" + "80a0a8debf969803" + "c703" + // received, at, ASN
	"c91e" + "8aa3b804" + // reporter's AS and network
	"89a203" + // the source's AS, by the operator's database
	"026d31" + "026f31" + // machine, organisation
	"1463726f776473656375726974792f7373682d6266" + "00" + "03302e31" + // scenario, hash, version
	"0863726f7764736563" + "025553" + "06476f6f676c65" + "00" + "00" + // kind, country, AS, scope, value
	"027b7d" // detail

func TestSignalGolden(t *testing.T) {
	s := Signal{
		ID: SignalID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, Machine: "m1", Organisation: "o1",
		Received: time.Date(2026, 11, 20, 12, 0, 1, 0, time.UTC), At: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
		Source: source(t, "35.188.49.176"), Scenario: "crowdsecurity/ssh-bf", Version: "0.1", Trust: TrustCertified,
		Kind: "crowdsec", Country: "US", ASN: 455, ASName: "Google", Flags: Counts | Decided, Detail: []byte("{}"),
		ReporterASN: 3913, ReporterNet: 0x8e118a, SourceASN: 53513,
	}
	if got := hex.EncodeToString(AppendSignal(nil, &s)); got != signalGolden {
		t.Errorf("got  %s\nwant %s", got, signalGolden)
	}
	data, err := hex.DecodeString(signalGolden)
	if err != nil {
		t.Fatal(err)
	}
	out, err := decoded(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Signal{s}, out, sameSignals); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// The versions before, as they stand in streams during an upgrade.
	third := "89a203"
	second := strings.Replace("02"+strings.TrimPrefix(signalGolden, "03"), third, "", 1)
	first := strings.Replace("01"+strings.TrimPrefix(second, "02"), "c91e"+"8aa3b804", "", 1)
	s.SourceASN = 0
	for version, text := range []string{1: first, 2: second} {
		if text == "" {
			continue
		}
		old := s
		if version == 1 {
			old.ReporterASN, old.ReporterNet = 0, 0
		}
		if data, err = hex.DecodeString(text); err != nil {
			t.Fatal(err)
		}
		if out, err = decoded(data); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Signal{old}, out, sameSignals); diff != "" {
			t.Errorf("version %d (-want +got):\n%s", version, diff)
		}
		if got := SignalBoundary(append(data, data...), len(data)); got != len(data) {
			t.Errorf("boundary at %d of two signals of version %d with %d bytes", got, version, len(data))
		}
	}
}

func TestDecodeSignalsTellsDamage(t *testing.T) {
	whole := AppendSignal(nil, &Signal{Machine: "m1", Scenario: "s", Source: source(t, "192.0.2.7"), Detail: []byte("{}")})
	two := append(bytes.Clone(whole), whole...)
	for cut := len(whole) + 1; cut < len(two); cut++ {
		out, err := decoded(two[:cut])
		if err == nil || len(out) != 1 {
			t.Fatalf("cut at %d of %d: %d signals, error %v; want the first one and an error", cut, len(two), len(out), err)
		}
	}
	newer := append(bytes.Clone(whole), recordVersion+1)
	if _, err := decoded(newer); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("offset %d", len(whole))) {
		t.Errorf("a newer version: got %v, want an error with the offset", err)
	}
	badSource := bytes.Clone(whole)
	badSource[3+16+16] = 129
	if _, err := decoded(badSource); err == nil || !strings.Contains(err.Error(), "129") {
		t.Errorf("a source of 129 bits: got %v", err)
	}
}

func TestSignalBoundary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOfN(anySignal, 1, 6).Draw(t, "signals")
		var data []byte
		ends := []int{0}
		for i := range in {
			data = AppendSignal(data, &in[i])
			ends = append(ends, len(data))
		}
		limit := rapid.IntRange(0, len(data)+10).Draw(t, "limit")
		want := ends[1]
		for _, end := range ends[1:] {
			if end <= limit {
				want = end
			}
		}
		if got := SignalBoundary(data, limit); got != want {
			t.Fatalf("limit %d of %v: got %d, want %d", limit, ends, got, want)
		}
	})
	if got := SignalBoundary(nil, 10); got != 0 {
		t.Errorf("no data: got %d", got)
	}
}

func FuzzDecodeSignals(f *testing.F) {
	one := AppendSignal(nil, &Signal{Machine: "m1", Scenario: "crowdsecurity/ssh-bf", Source: SourceFromPrefix(anySource.Example(1).Prefix()), Detail: []byte(`{"uuid":"x"}`)})
	f.Add(one)
	f.Add(append(bytes.Clone(one), one...))
	f.Add(one[:len(one)-1])
	f.Add([]byte{recordVersion})
	f.Add(append(bytes.Clone(one[:44]), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01))
	f.Fuzz(func(t *testing.T, data []byte) {
		// A reader that goes past the end would find the record's neighbour.
		neighbour := append(bytes.Clone(data), one...)
		out, err := decoded(neighbour[:len(data)])
		size := 0
		for i := range out {
			size += len(out[i].Machine) + len(out[i].Scenario) + len(out[i].Value) + len(out[i].Detail)
		}
		if size > len(data) {
			t.Fatalf("%d bytes came out of %d", size, len(data))
		}
		if n := SignalBoundary(data, 1<<20); n < 0 || n > len(data) || len(data) > 0 && n == 0 {
			t.Fatalf("boundary %d of %d bytes", n, len(data))
		}
		if err != nil {
			return
		}
		var again []byte
		for i := range out {
			again = AppendSignal(again, &out[i])
		}
		back, err := decoded(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(out, back, sameSignals); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func benchmarkRecord(tb testing.TB, n int) []byte {
	s := Signal{
		Machine: strings.Repeat("m", 48), Organisation: strings.Repeat("o", 36), Scenario: "crowdsecurity/http-bad-user-agent",
		ScenarioHash: strings.Repeat("f", 64), Version: "0.4", Kind: "crowdsec", Source: source(tb, "35.188.49.176"),
		Received: time.UnixMicro(1795176001000000), At: time.UnixMicro(1795176000000000), Detail: bytes.Repeat([]byte("x"), 600),
	}
	var b []byte
	for range n {
		b = AppendSignal(b, &s)
	}
	return b
}

func BenchmarkAppendSignal(b *testing.B) {
	out, err := decoded(benchmarkRecord(b, 1))
	if err != nil {
		b.Fatal(err)
	}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendSignal(buf[:0], &out[0])
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkDecodeSignals(b *testing.B) {
	data := benchmarkRecord(b, 50)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		if err := DecodeSignals(data, func(*Signal) { n++ }); err != nil || n != 50 {
			b.Fatal(n, err)
		}
	}
}
