package replay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/internal/policy"
)

// told writes what was read of each event.
func told(rec *Recording) []string {
	var all []string
	for _, e := range rec.Events {
		r := rec.Reporters[e.Reporter]
		network := ""
		if r.Network != 0 {
			network = fmt.Sprintf(" net %x", r.Network)
		}
		honeypot := ""
		if r.Honeypot {
			honeypot = " honeypot"
		}
		all = append(all, fmt.Sprintf("%s +%ds %s of %s AS%d%s%s: %s %s", time.Unix(e.At, 0).UTC().Format("02T15:04:05"), e.Received-e.At,
			r.Machine, r.Organisation, r.AS, network, honeypot, rec.Sources[e.Source], rec.Behaviours[e.Behaviour]))
	}
	return all
}

func TestReadSignals(t *testing.T) {
	// sent is a signal on the wire with some of its fields changed or added.
	sent := func(fields string) string {
		return `{` + fields + `"scenario":"crowdsecurity/ssh-bf","scenario_trust":"certified","stop_at":"2026-03-01T08:00:00.5Z","source":{"scope":"Ip","value":"80.1.1.1"}}`
	}
	for _, tt := range []struct {
		name, line string
		want       string // "" = skipped
	}{
		{"the least there is", sent(`"machine_id":"lp",`), "01T08:00:00 +0s lp of lp AS0: 80.1.1.1 crowdsecurity/ssh-bf"},
		{
			"all that may stand beside",
			sent(`"machine_id":"lp","machine":"m","organisation":"o","received":"2026-03-01T08:00:10Z","reporter_as":64500,"reporter_network":"198.51.100.9","honeypot":true,`),
			"01T08:00:00 +10s m of o AS64500 net 1c63364 honeypot: 80.1.1.1 crowdsecurity/ssh-bf",
		},
		{"an AS in words, a network as a range", sent(`"machine":"m","reporter_as":"as64500","reporter_network":"2001:db8::/32",`), "01T08:00:00 +0s m of m AS64500 net 120010db80000: 80.1.1.1 crowdsecurity/ssh-bf"},
		{"from a clock that runs ahead", sent(`"machine":"m","received":"2026-03-01T07:59:00Z",`), "01T07:59:00 +0s m of m AS0: 80.1.1.1 crowdsecurity/ssh-bf"},
		{"over v2, in a Go time", `{"machine_id":"lp","created_at":"2026-03-01 08:00:00 +0000 UTC","scenario":"s","scenario_trust":"certified","source":{"scope":"ip","value":"2001:db9::1"}}`, "01T08:00:00 +0s lp of lp AS0: 2001:db9::1 s"},
		{"of an own scenario", strings.Replace(sent(`"machine":"m",`), "certified", "custom", 1), ""},
		{"by a person", sent(`"machine":"m","kind":"cscli",`), ""},
		{"of a simulation", sent(`"machine":"m","decisions":[{"type":"ban","simulated":true}],`), ""},
		{"about private space", strings.Replace(sent(`"machine":"m",`), "80.1.1.1", "10.1.1.1", 1), ""},
		{"about a country", strings.Replace(strings.Replace(sent(`"machine":"m",`), "80.1.1.1", "FR", 1), "Ip", "Country", 1), ""},
		{"stored", `{"id":"00","machine":"m","organisation":"o","at":"2026-03-01T08:00:00Z","received":"2026-03-01T08:00:07Z","source":"80.1.1.1","scope":"ip","scenario":"s","counts":true,"reporter_as":7}`, "01T08:00:00 +7s m of o AS7: 80.1.1.1 s"},
		{"stored, received before it happened", `{"machine":"m","at":"2026-03-01T08:00:00Z","received":"2026-03-01T07:00:00Z","source":"80.1.0.0/16","scope":"range","scenario":"s","counts":true}`, "01T08:00:00 +0s m of m AS0: 80.1.0.0/16 s"},
		{"stored, and no evidence", `{"machine":"m","at":"2026-03-01T08:00:00Z","source":"80.1.1.1","scope":"ip","scenario":"s","counts":false}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// One that is good stands before, so that there is a recording at all.
			rec := read(t, sent(`"machine":"first","received":"2026-03-01T08:00:00Z",`)+"\n\n"+tt.line+"\n")
			var got string
			for _, line := range told(rec) {
				if !strings.Contains(line, " first of ") {
					got = line
				}
			}
			if got != tt.want {
				t.Errorf("expected %q, got %q", tt.want, got)
			}
			if skipped := tt.want == ""; skipped != (rec.Skipped == 1) || rec.Bad != 0 {
				t.Errorf("got %d skipped, %d bad", rec.Skipped, rec.Bad)
			}
		})
	}
}

// What clients have sent is read as it is, one signal after the other.
func TestReadCaptures(t *testing.T) {
	for _, tt := range []struct {
		name         string
		skipped, bad int // they are about addresses for documentation, and some name no machine
	}{
		{"engine17", 2, 1},
		{"engine14", 1, 0},
		{"php", 1, 0},
		{"python", 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body, err := os.ReadFile("../wire/testdata/signals-" + tt.name + ".json")
			if err != nil {
				t.Fatal(err)
			}
			var list []json.RawMessage
			if err := json.Unmarshal(body, &list); err != nil {
				t.Fatal(err)
			}
			var lines bytes.Buffer
			for _, one := range list {
				if err := json.Compact(&lines, one); err != nil {
					t.Fatal(err)
				}
				lines.WriteByte('\n')
			}
			lines.WriteString(sentSignal)
			rec, err := Read(&lines, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if len(rec.Events) != 1 || rec.Skipped != tt.skipped || rec.Bad != tt.bad {
				t.Errorf("got %d events, %d skipped of %d, bad: %q", len(rec.Events), rec.Skipped, len(list), rec.BadLines)
			}
		})
	}
}

func TestRepeatedSignalsCountOnce(t *testing.T) {
	withID := strings.Replace(sentSignal, "{", `{"uuid":"b1d0a001-0000-4000-8000-000000000001",`, 1)
	stored := `{"id":"00112233445566778899aabbccddeeff","machine":"m","at":"2026-03-01T08:00:00Z","source":"80.1.1.1","scope":"ip","scenario":"s","counts":true}` + "\n"
	rec := read(t, sentSignal+sentSignal+withID+withID+stored+stored)
	if len(rec.Events) != 3 || rec.Repeated != 3 {
		t.Errorf("expected 3 events and 3 repeated ones, got %d and %d", len(rec.Events), rec.Repeated)
	}
}

func TestBadLinesAreCounted(t *testing.T) {
	text := sentSignal + "{\n" + strings.Replace(sentSignal, "80.1.1.1", "80.1.1.2", 1) + "nonsense\n"
	rec, err := Read(strings.NewReader(text), Options{MaxBad: 2})
	if err != nil || len(rec.Events) != 2 || rec.Bad != 2 || len(rec.BadLines) != 2 || !strings.HasPrefix(rec.BadLines[1], "line 4: expected a signal") {
		t.Errorf("expected two events and two bad lines, got %+v, %v", rec, err)
	}
	if _, err := Read(strings.NewReader(text), Options{MaxBad: 1}); err == nil || !strings.Contains(err.Error(), "at most 1 bad lines") || !strings.Contains(err.Error(), "line 2: ") {
		t.Errorf("expected an error that names both lines, got %v", err)
	}
	csv := header + "yesterday,a,1,TCP,,1,2\n2013-03-03 21:57:01,a,1\n2013-03-03 21:57:01,a,1032051418,UDP,,5270,5060\n"
	if rec, err := Read(strings.NewReader(csv), Options{}); err != nil || len(rec.Events) != 1 || rec.Bad != 2 {
		t.Errorf("expected one event and two bad lines, got %+v, %v", rec, err)
	}
}

// The hub decides which scenarios are unmodified, when there is its index.
func TestHubDecides(t *testing.T) {
	const hash = "aa00bb11cc22dd33ee44ff55aa66bb77cc88dd99ee00ff11aa22bb33cc44dd55"
	hub, err := policy.ReadHub(strings.NewReader(`{"scenarios":{"crowdsecurity/ssh-bf":{"versions":{"0.3":{"digest":"` + hash + `"}}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	text := sentSignal + strings.Replace(sentSignal, "{", `{"uuid":"other","scenario_hash":"`+hash+`",`, 1)
	rec, err := Read(strings.NewReader(text), Options{Hub: hub})
	if err != nil || len(rec.Events) != 1 || rec.Skipped != 1 {
		t.Errorf("expected that of a known hash alone, got %+v, %v", rec, err)
	}
}

func TestSensorsOfOneRegionShareTheirNetwork(t *testing.T) {
	row := func(host string) string { return "2013-03-03 21:57:01," + host + ",1032051418,UDP,,5270,5060\n" }
	rec := read(t, header+row("groucho-norcal")+row("groucho-eu")+row("zeppo-norcal"))
	as := map[string]uint32{}
	for _, r := range rec.Reporters {
		as[r.Machine] = r.AS
	}
	if diff := cmp.Diff(map[string]uint32{"groucho-norcal": 64496, "groucho-eu": 64497, "zeppo-norcal": 64496}, as); diff != "" {
		t.Errorf("AS of sensors (-want +got):\n%s", diff)
	}
}

func FuzzReadSignals(f *testing.F) {
	f.Add(sentSignal)
	f.Add(`{"id":"00","machine":"m","at":"2026-03-01T08:00:00Z","source":"80.1.1.1","scope":"ip","scenario":"s","counts":true}`)
	f.Add(`{"machine":"m","source":{},"scenario":"s","stop_at":"2026-03-01"}`)
	f.Fuzz(func(t *testing.T, text string) {
		rec, err := Read(strings.NewReader("{"+text), Options{})
		if err != nil {
			return
		}
		for _, e := range rec.Events {
			if e.Received < e.At || !rec.Sources[e.Source].IsValid() || rec.Reporters[e.Reporter].Machine == "" {
				t.Errorf("event %+v of %+v", e, rec.Reporters[e.Reporter])
			}
		}
	})
}
