package wire

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// request is one recorded request.
type request struct {
	name, method, path string
	query              url.Values
	body               []byte
}

// captures reads the recorded requests to CAPI and PAPI of real clients.
func captures(t *testing.T) []request {
	t.Helper()
	shared := os.Getenv("MUSTER_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared") // beside the project's root
	}
	files, err := filepath.Glob(filepath.Join(shared, "reference", "captures", "*.http"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skipf("no recorded requests of real clients in %s; set MUSTER_SHARED to the folder that holds reference/captures", shared)
	}
	var out []request
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for bytes.HasPrefix(raw, []byte("#")) {
			_, raw, _ = bytes.Cut(raw, []byte("\n"))
		}
		raw = bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n"))
		raw, _, _ = bytes.Cut(raw, []byte("\n### response"))
		head, body, _ := bytes.Cut(raw, []byte("\n\n"))
		line, _, _ := strings.Cut(string(head), "\n")
		words := strings.Fields(line)
		if len(words) < 2 {
			t.Fatalf("%s: no request line in %q", file, line)
		}
		u, err := url.Parse(words[1])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, request{filepath.Base(file), words[0], u.Path, u.Query(), bytes.TrimSpace(body)})
	}
	return out
}

// signalFacts is what a recorded signals request must decode to.
type signalFacts struct {
	items, decisions, bans int
	scenario, trust, kind  string // of the last item
	uuid, scope, value     string
	stop                   string
}

var signalCaptures = map[string]signalFacts{
	"146-04-signals.http": {3, 0, 0, "crowdsecurity/ssh-bf_user-enum", "certified", "", "", "Ip", "192.0.2.77", "2026-11-20T21:51:31.77001751Z"},
	"178-07-signals-certified-and-manual.http": {
		4, 4, 4, "manual 'ban' from '3d1219c7c4c5404aaa1f6d2a48adfda40HFJYEfp4dfsxc6D'", "manual", "cscli",
		"6a2de377-afe1-4f1a-80b6-176f5ea770ef", "Country", "XX", "2026-11-20T21:05:21Z",
	},
	"178-07-signals-papi-ack.http": {
		1, 2, 1, "from console", "custom", "papi",
		"37021169-1d2d-490b-8740-e86df89aa8e8", "Ip", "192.0.2.20", "2026-11-20T21:06:06Z",
	},
	"178-07-signals-import-3000-decisions-TRIMMED.http": {
		1, 2, 1, "import imp.csv: 3000 IPs", "custom", "cscli",
		"76081d9c-0f5e-400f-8841-b6ea884d2f8d", "", "", "2026-11-20T21:35:17Z",
	},
	"php-04-signals.http": {
		1, 1, 1, "acme/http-bf", "manual", "",
		"3bcc6417-2006-4df9-b7f0-274c931739c3", "ip", "192.0.2.9", "2026-11-20T21:47:58.515565Z",
	},
	"php-07-signals-file_get_contents.http": {
		1, 1, 1, "acme/http-bf", "manual", "",
		"438252de-8abb-43dc-958a-453ae43a7e5e", "ip", "192.0.2.9", "2026-11-20T21:47:58.676667Z",
	},
	"py-03-signals.http": {
		1, 1, 1, "crowdsec/ssh-bf", "manual", "",
		"213503f1-4a08-4f8b-938d-6092f036f001", "ip", "192.0.2.1", "2024-02-19T12:12:21Z",
	},
}

func TestRecordedSignals(t *testing.T) {
	seen := 0
	for _, r := range captures(t) {
		if !strings.HasSuffix(r.path, "/signals") {
			continue
		}
		seen++
		t.Run(r.name, func(t *testing.T) {
			got := decodeBatch(t, r.body)
			if len(got.Bad) != 0 || len(got.Items) == 0 {
				t.Fatalf("%d items, problems %v", len(got.Items), got.Bad)
			}
			last := got.Items[len(got.Items)-1]
			facts := signalFacts{
				items: len(got.Items), scenario: last.Scenario, trust: last.ScenarioTrust, kind: last.Kind,
				uuid: last.UUID, scope: last.Source.Scope, value: last.Source.Value, stop: last.StopAt.Format(time.RFC3339Nano),
			}
			for _, s := range got.Items {
				facts.decisions += s.DecisionCount
				if s.Ban {
					facts.bans++
				}
			}
			if want, ok := signalCaptures[r.name]; !ok || facts != want {
				t.Errorf("known %t\nwant %+v\ngot  %+v", ok, want, facts)
			}
		})
	}
	if seen != len(signalCaptures) {
		t.Errorf("expected %d recorded signals requests, saw %d", len(signalCaptures), seen)
	}
}

// recordedChecks decodes what was recorded by call.
var recordedChecks = map[string]func(*testing.T, request){
	"watchers": func(t *testing.T, r request) {
		got, err := DecodeRegister(r.body)
		if err != nil || len(got.MachineID) != 48 || len(got.Password) < 32 {
			t.Errorf("%+v, %v", got, err)
		}
	},
	"watchers/login": func(t *testing.T, r request) {
		got, err := DecodeLogin(r.body)
		scenarios := map[string]int{"178-02-login-with-scenarios-capi-status.http": 6, "php-02-login.http": 2, "py-02-login.http": 2}
		if err != nil || len(got.MachineID) != 48 || len(got.Password) < 32 || len(got.Scenarios) != scenarios[r.name] {
			t.Errorf("%+v, %v", got, err)
		}
		if len(got.Scenarios) == 2 && got.Scenarios[0] != "acme/http-bf" {
			t.Errorf("scenarios %q", got.Scenarios)
		}
	},
	"watchers/enroll": func(t *testing.T, r request) {
		got, err := DecodeEnrol(r.body)
		if err != nil || got.Name == "" || (got.AttachmentKey == "") != got.AutoEnroll {
			t.Errorf("%+v, %v", got, err)
		}
		if strings.Contains(r.name, "name-tags") && (len(got.Tags) != 2 || got.Tags[1] != "b c" || !got.Overwrite) {
			t.Errorf("%+v", got)
		}
	},
	"decisions/delete": func(t *testing.T, r request) {
		got, err := DecodeDecisionsDelete(r.body, 50)
		if err != nil || len(got) != 1 || got[0] != "9424f01a-4ad4-4d93-a808-3236842a7bdf" {
			t.Errorf("%q, %v", got, err)
		}
	},
	"metrics": func(t *testing.T, r request) {
		got, err := DecodeMetrics(r.body)
		if err != nil || len(got.Machines) != 1 || got.Machines[0].LastPush.Year() != 2026 || got.Machines[0].Name == "" {
			t.Errorf("%+v, %v", got, err)
		}
		if strings.HasPrefix(r.name, "php") && (len(got.Bouncers) != 1 || got.Bouncers[0].Type != "php" || got.Bouncers[0].LastPull.Year() != 2026) {
			t.Errorf("%+v", got)
		}
	},
	"usage-metrics": func(t *testing.T, r request) {
		got, err := DecodeUsageMetrics(r.body)
		if err != nil || len(got.LogProcessors)+len(got.RemediationComponents) != 1 || (got.LAPI != nil) != strings.HasPrefix(r.path, "/v3/") {
			t.Errorf("%+v, %v", got, err)
		}
	},
	"decisions/stream/poll": func(t *testing.T, r request) {
		got, err := ParsePoll(r.query)
		if err != nil || got.Timeout != 45*time.Second || got.Since.IsZero() != strings.Contains(r.name, "first") {
			t.Errorf("%+v, %v", got, err)
		}
	},
}

func TestRecordedRequests(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range captures(t) {
		_, call, _ := strings.Cut(strings.Trim(r.path, "/"), "/")
		check, ok := recordedChecks[call]
		if !ok || strings.HasPrefix(r.name, "lapi-") && call != "usage-metrics" {
			continue // has no body, or goes to an engine's own API
		}
		seen[call] = true
		t.Run(r.name, func(t *testing.T) { check(t, r) })
	}
	for call := range recordedChecks {
		if !seen[call] {
			t.Errorf("no recorded request for %s", call)
		}
	}
}
