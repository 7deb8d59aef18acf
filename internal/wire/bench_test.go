package wire

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"muster"
)

// realBatch is n signals of about 1 kB as engine 1.7.8 sends them.
func realBatch(n int) []byte {
	var b strings.Builder
	b.WriteByte('[')
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		ip := fmt.Sprintf("203.0.%d.%d", i/250, i%250)
		fmt.Fprintf(&b, `{"context":[{"key":"target_user","value":"[\"admin%d\",\"root\",\"backup\",\"oracle\"]"}],`+
			`"decisions":[{"duration":"4h","id":0,"origin":"crowdsec","scenario":"crowdsecurity/ssh-bf","scope":"Ip","type":"ban","uuid":"542085a5-41e0-4506-9216-%012d","value":"%s"}],`+
			`"kind":"crowdsec","machine_id":"lp01aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",`+
			`"message":"Ip %s performed 'crowdsecurity/ssh-bf' (6 events over 9.458968ms) at 2026-11-20 21:05:20.419598133 +0000 UTC",`+
			`"scenario":"crowdsecurity/ssh-bf","scenario_hash":"aa00bb11cc22dd33ee44ff55aa66bb77cc88dd99ee00ff11aa22bb33cc44dd55","scenario_trust":"certified","scenario_version":"0.3",`+
			`"source":{"as_name":"Example Networks","as_number":"64500","cn":"NL","ip":"%s","latitude":52.3824,"longitude":4.8995,"range":"203.0.113.0/24","scope":"Ip","value":"%s"},`+
			`"start_at":"2026-11-20T21:05:20.410139633Z","stop_at":"2026-11-20T21:05:20.419598601Z","uuid":"bdc440d4-fb8e-4a90-9543-%012d"}`,
			i, i, ip, ip, ip, ip, i)
	}
	b.WriteByte(']')
	return []byte(b.String())
}

func BenchmarkDecodeSignals(b *testing.B) {
	for _, tt := range []struct {
		name string
		body []byte
	}{
		{"engine", realBatch(50)},
		{"escapes", []byte(strings.ReplaceAll(string(realBatch(50)), "crowdsecurity/", `crowdsecurity\/`))},
		{"spaces", spaced(realBatch(50))},
	} {
		b.Run(tt.name, func(b *testing.B) {
			b.SetBytes(int64(len(tt.body)))
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				if _, err := DecodeSignals(tt.body, 50, func(int, *Signal) { n++ }, nil); err != nil || n != 50 {
					b.Fatal(n, err)
				}
			}
			b.ReportMetric(float64(b.N)*50/b.Elapsed().Seconds(), "signals/s")
		})
	}
}

// spaced is body as Python writes it.
func spaced(body []byte) []byte {
	s := strings.ReplaceAll(string(body), `":`, `": `)
	return []byte(strings.ReplaceAll(s, `,"`, `, "`))
}

// BenchmarkDecodeSignalsStandard is what the scanner is measured against.
func BenchmarkDecodeSignalsStandard(b *testing.B) {
	type signal struct {
		UUID            string          `json:"uuid"`
		Scenario        string          `json:"scenario"`
		ScenarioHash    string          `json:"scenario_hash"`
		ScenarioVersion string          `json:"scenario_version"`
		ScenarioTrust   string          `json:"scenario_trust"`
		Kind            string          `json:"kind"`
		Message         string          `json:"message"`
		MachineID       string          `json:"machine_id"`
		StartAt         time.Time       `json:"start_at"`
		StopAt          time.Time       `json:"stop_at"`
		Source          SignalSource    `json:"source"`
		Context         json.RawMessage `json:"context"`
		Decisions       []Decision      `json:"decisions"`
	}
	body := realBatch(50)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var signals []signal
		if err := json.Unmarshal(body, &signals); err != nil {
			b.Fatal(err)
		}
	}
}

// communityStream is entries addresses over eight scenarios.
func communityStream(entries int) Stream {
	var s Stream
	for g := range 8 {
		group := Group{Scenario: fmt.Sprintf("crowdsecurity/scenario-%d", g), Scope: "ip"}
		for i := range entries / 8 {
			n := g*entries/8 + i
			addr := netip.AddrFrom4([4]byte{23, byte(n >> 16), byte(n >> 8), byte(n)})
			group.Decisions = append(group.Decisions, Entry{Value{Source: muster.SourceFromAddr(addr)}, time.Duration(24+n%48) * time.Hour})
		}
		s.New = append(s.New, group)
	}
	return s
}

func BenchmarkAppendStream(b *testing.B) {
	s := communityStream(15_000)
	for name, encode := range map[string]func([]byte, Stream) ([]byte, int){"v3": AppendStreamV3, "v2": AppendStreamV2} {
		b.Run(name, func(b *testing.B) {
			buf, _ := encode(nil, s)
			b.SetBytes(int64(len(buf)))
			b.ReportAllocs()
			for b.Loop() {
				if _, dropped := encode(buf[:0], s); dropped != 0 {
					b.Fatal(dropped)
				}
			}
		})
	}
}

// The budgets: a batch costs its decoder and, with escapes, a few chunks of
// rewritten text; a stream costs nothing when the buffer is large enough.
func TestAllocationBudgets(t *testing.T) {
	body := realBatch(50)
	if got := testing.AllocsPerRun(20, func() { _, _ = DecodeSignals(body, 50, func(int, *Signal) {}, nil) }); got > 1 {
		t.Errorf("decoding a batch of 50: expected 1 allocation, got %g", got)
	}
	s := communityStream(800)
	buf, _ := AppendStreamV3(nil, s)
	if got := testing.AllocsPerRun(20, func() { AppendStreamV3(buf[:0], s) }); got > 0 {
		t.Errorf("encoding a stream: expected no allocation, got %g", got)
	}
}
