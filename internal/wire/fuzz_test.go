package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"testing"
	"time"
	"unicode/utf8"

	"muster"
)

// FuzzDecodeSignals compares the scanner with encoding/json: both accept the
// same documents, and what the scanner hands out means the same.
func FuzzDecodeSignals(f *testing.F) {
	for _, name := range []string{"engine17", "engine14", "php", "python", "import"} {
		f.Add(fixture(f, "signals-"+name+".json"))
	}
	for _, s := range []string{
		`[]`, ` [ ] `, `[{}]`, `[1,"x",null,{"uuid":1}]`, `[{"message":"\ud83d\ude00\ud83d\u0041\u00e9\/"}]`, "[{\"message\":\"\xff\xc3\"}]",
		`[{"decisions":[null,{"type":"ban","simulated":true}]}]`, `[{"source":{"as_number":-0.5e+10}}]`, `[{"uuid":"a","uuid":null}]`,
		`[{"context":[["\u0000"]]}]`, `[{"context":["` + "\xfe" + `"]}]`, `[{},]`, `[{"a":1,}]`, `[01]`, `[1.]`, `[-]`, `[tru]`, "[\"\x01\"]", `[] x`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		got, err := tryBatch(body)
		if !bytes.Equal(before, body) {
			t.Fatal("the body was written to")
		}
		isArray := bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("["))
		if want := json.Valid(body) && isArray && depth(body) <= MaxDepth; want != (err == nil) {
			t.Fatalf("encoding/json accepts: %t; got %v", want, err)
		}
		if err != nil {
			if !errors.Is(err, muster.Invalid) && !errors.Is(err, muster.TooLarge) {
				t.Fatalf("error without a code: %v", err)
			}
			return
		}
		var items []json.RawMessage
		if err := json.Unmarshal(body, &items); err != nil {
			t.Fatal(err)
		}
		if len(got.Items)+len(got.Bad) != len(items) {
			t.Fatalf("%d items and %d problems of %d", len(got.Items), len(got.Bad), len(items))
		}
		next := 0
		for i, raw := range items {
			if _, bad := got.Bad[i]; bad {
				continue
			}
			sameSignal(t, raw, &got.Items[next])
			next++
		}
	})
}

// sameSignal reads raw with the standard library, by exact names as the scanner
// does, and compares.
func sameSignal(t *testing.T, raw []byte, s *decoded) {
	t.Helper()
	var fields map[string]json.RawMessage // the last of duplicate keys, too
	if err := json.Unmarshal(raw, &fields); err != nil || fields == nil {
		t.Fatalf("handed out as an object: %s: %v", raw, err)
	}
	for name, got := range map[string]string{
		"uuid": s.UUID, "scenario": s.Scenario, "scenario_hash": s.ScenarioHash, "scenario_version": s.ScenarioVersion,
		"scenario_trust": s.ScenarioTrust, "kind": s.Kind, "message": s.Message, "machine_id": s.MachineID,
	} {
		if want := stringOf(t, fields[name]); want != got {
			t.Fatalf("%s: expected %q, got %q", name, want, got)
		}
	}
	var source map[string]json.RawMessage
	if fields["source"] != nil {
		if err := json.Unmarshal(fields["source"], &source); err != nil {
			t.Fatalf("source: %v", err)
		}
	}
	for name, got := range map[string]string{
		"scope": s.Source.Scope, "value": s.Source.Value, "ip": s.Source.IP, "range": s.Source.Range, "cn": s.Source.Country, "as_name": s.Source.ASName,
	} {
		if want := stringOf(t, source[name]); want != got {
			t.Fatalf("source.%s: expected %q, got %q", name, want, got)
		}
	}
	sameRaw(t, "context", fields["context"], s.Context)
	if s.DecisionCount == 0 {
		if s.Decisions != nil || s.Ban || len(s.First) != 0 {
			t.Fatalf("no decisions but %+v", s)
		}
		return
	}
	sameRaw(t, "decisions", fields["decisions"], s.Decisions)
	var decisions []*map[string]json.RawMessage
	if err := json.Unmarshal(fields["decisions"], &decisions); err != nil {
		t.Fatalf("decisions: %v", err)
	}
	n, ban := 0, false
	for _, d := range decisions {
		if d == nil {
			continue
		}
		if n < len(s.First) && (stringOf(t, (*d)["uuid"]) != s.First[n].UUID || stringOf(t, (*d)["type"]) != s.First[n].Type) {
			t.Fatalf("decision %d: %s, got %+v", n, fields["decisions"], s.First[n])
		}
		n++
		ban = ban || bytes.EqualFold([]byte(stringOf(t, (*d)["type"])), []byte("ban")) && string((*d)["simulated"]) != "true"
	}
	if n != s.DecisionCount || len(s.First) != min(n, MaxDecisions) || ban != s.Ban {
		t.Fatalf("expected %d decisions, ban %t; got %d, %t, %d kept", n, ban, s.DecisionCount, s.Ban, len(s.First))
	}
}

func stringOf(t *testing.T, raw json.RawMessage) (s string) {
	t.Helper()
	if raw != nil {
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Fatalf("handed out as a string: %s", raw)
		}
	}
	return s
}

// sameRaw compares what is kept for storage; an empty array is not kept.
func sameRaw(t *testing.T, name string, want, got json.RawMessage) {
	t.Helper()
	if got == nil {
		var list []any
		if want != nil && (json.Unmarshal(want, &list) != nil || len(list) > 0) {
			t.Fatalf("%s: %s was not kept", name, want)
		}
		return
	}
	var a, b any
	if err := json.Unmarshal(got, &b); err != nil || !utf8.Valid(got) {
		t.Fatalf("%s: %q is no good JSON: %v", name, got, err)
	}
	if utf8.Valid(want) && (json.Unmarshal(want, &a) != nil || !bytes.Equal(mustJSON(t, a), mustJSON(t, b))) {
		t.Fatalf("%s: expected %s, got %s", name, want, got)
	}
}

// depth is how deep valid JSON is nested.
func depth(body []byte) (deepest int) {
	level, quoted := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			level++
			deepest = max(deepest, level)
		case c == ']' || c == '}':
			level--
		}
	}
	return deepest
}

func FuzzDecodeRequests(f *testing.F) {
	f.Add(fixture(f, "usage-metrics.json"))
	for _, s := range []string{
		`{"machine_id":"m","password":"p","scenarios":["a",null]}`, `{"attachment_key":"k","name":"n","tags":["a"],"overwrite":true}`,
		`["u1","",null]`, `[{"scenario":"x"}]`, `{"machines":[{"last_push":"2026-11-20 21:49:54.9 +0000 UTC"}],"bouncers":null}`, `{"password":7}`, `null`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		valid := json.Valid(body)
		start := bytes.TrimLeft(body, " \t\r\n")
		check := func(name string, opening byte, err error) {
			t.Helper()
			code := muster.CodeOf(err)
			if err != nil && code != muster.Invalid && code != muster.TooLarge {
				t.Fatalf("%s: error without a code: %v", name, err)
			}
			if err == nil && (!valid || start[0] != opening) {
				t.Fatalf("%s took %q", name, body)
			}
		}
		_, err := DecodeRegister(body)
		check("register", '{', err)
		login, err := DecodeLogin(body)
		check("login", '{', err)
		enrol, err := DecodeEnrol(body)
		check("enrol", '{', err)
		for _, word := range append(login.Scenarios, enrol.Tags...) {
			if word == "" {
				t.Fatal("an empty scenario or tag was kept")
			}
		}
		_, err = DecodeMetrics(body)
		check("metrics", '{', err)
		_, err = DecodeUsageMetrics(body)
		check("usage metrics", '{', err)
		uuids, err := DecodeDecisionsDelete(body, 100)
		check("decisions delete", '[', err)
		n, err := DecodeDecisionsSync(body, 100)
		check("decisions sync", '[', err)
		if len(uuids) > n {
			t.Fatalf("%d uuids of %d items", len(uuids), n)
		}
	})
}

var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$`)

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{
		"2026-11-20T21:04:24Z", "2024-02-19T12:12:21+0000", "2026-11-20 21:49:54.942228577 +0000 UTC", "2026-11-20T21:46:58.306257",
		"2026-11-20", "2026-11-20 22:49:54 +0100 CET m=+12.5", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999-23:59", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseTime(s)
		if err == nil && got.Location() != time.UTC {
			t.Fatalf("%q: not UTC: %s", s, got)
		}
		if !rfc3339.MatchString(s) {
			return
		}
		want, wantErr := time.Parse(time.RFC3339Nano, s)
		if (err == nil) != (wantErr == nil) || err == nil && !got.Equal(want) {
			t.Fatalf("%q: expected %s, %v; got %s, %v", s, want, wantErr, got, err)
		}
	})
}

func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"7d", "1d12h", "-1d1h", "4h", "24h0m0s", "1.5h", "106751d23h47m16s", "d", "", "1h5d", "9223372036854775807ns"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseDuration(s)
		if want, wantErr := time.ParseDuration(s); wantErr == nil && (err != nil || got != want) {
			t.Fatalf("%q: expected %s, got %s, %v", s, want, got, err)
		}
		if err == nil {
			if again, err := ParseDuration(got.String()); err != nil || again != got {
				t.Fatalf("%q: %s is read back as %s, %v", s, got, again, err)
			}
		}
	})
}
