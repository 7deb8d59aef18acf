package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"muster"
	"muster/internal/upstream"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) {
	time.Local = time.UTC // engines before 1.5 log in local time
	goleak.VerifyTestMain(m)
}

// machine is a machine with an engine on it.
type machine struct {
	t   *testing.T
	dir string
	o   Options
}

const loginID = "0123456789abcdef0123456789abcdefAbCdEfGhIjKlMnOp"

// newMachine has an engine with credentials for central and a log.
func newMachine(t *testing.T, central, log string, now time.Time) *machine {
	m := &machine{t: t, dir: t.TempDir()}
	m.write("config.yaml", "common: {log_media: file, log_dir: "+m.dir+"}\ndb_config: {type: sqlite, db_path: "+m.dir+"/crowdsec.db}\n"+
		"api: {server: {online_client: {credentials_path: "+m.dir+"/online.yaml}}}\n")
	m.write("online.yaml", fmt.Sprintf("url: %[1]s\nlogin: %s\npassword: secretsecret\npapi_url: %[1]s\n", central, loginID))
	m.write("crowdsec.db", "")
	m.write("crowdsec.log", log)
	m.o = Options{Config: filepath.Join(m.dir, "config.yaml"), Now: func() time.Time { return now }}
	return m
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) examine() Report {
	m.t.Helper()
	r, err := Examine(m.t.Context(), m.o)
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

func text(t *testing.T, r Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Write(&b, Style{}); err != nil {
		t.Fatal(err)
	}
	if b.WriteString("\nto do: " + r.ToDo() + "\n"); strings.Contains(b.String(), "secretsecret") {
		t.Error("the report has the password")
	}
	return b.String()
}

func golden(t *testing.T, name, got string, hide ...string) {
	t.Helper()
	got = strings.NewReplacer(hide...).Replace(got)
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("the report differs from %s (-want +got):\n%s", path, diff)
	}
}

// A Central API that is no Muster: the engine's log has to do.
func noMuster(t *testing.T, now time.Time) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
		http.NotFound(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL + "/"
}

// The logs are those of real engines 1.7.8 (and Debian's 1.4.6), some of them as
// the journal and Docker keep them.
func TestLogs(t *testing.T) {
	for _, test := range []struct {
		log   string
		later time.Duration // after the end of the log
	}{
		{"loop", 3 * time.Minute},         // restarts with an empty database until it is banned, and on
		{"plain-403", 30 * time.Minute},   // CrowdSec's answer to a banned client
		{"while-running", time.Minute},    // banned in the midst of its work
		{"wrong-password", time.Minute},   // the server forgot the machine
		{"quiet", time.Minute},            // well
		{"busy", time.Minute},             // 503 at every try
		{"debian-1.4.6", 2 * time.Minute}, // no retries, another time format, cscli in the same log
		{"journal", 2 * time.Hour},        // long over
		{"docker", 30 * time.Minute},
		{"journal-fatal", 3 * time.Minute}, // only the last words
	} {
		t.Run(test.log, func(t *testing.T) {
			log, err := os.ReadFile(filepath.Join("testdata", test.log+".log"))
			if err != nil {
				t.Fatal(err)
			}
			now := scan(log).last.Add(test.later)
			central := noMuster(t, now)
			m := newMachine(t, central, string(log), now)
			golden(t, test.log, text(t, m.examine()), m.dir, "ENGINE", central, "http://MUSTER/")
		})
	}
}

// What all forms of the same log tell is the same.
func TestFormsOfALogAgree(t *testing.T) {
	var want []eventKind
	for _, form := range []string{"plain-403", "journal", "docker"} {
		log, err := os.ReadFile(filepath.Join("testdata", form+".log"))
		if err != nil {
			t.Fatal(err)
		}
		h := scan(log)
		var got []eventKind
		for _, e := range h.events {
			got = append(got, e.kind)
			if e.at.IsZero() {
				t.Errorf("%s: %q has no time", form, e.text)
			}
		}
		if want == nil {
			want = got
		}
		if len(got) < 6*6 || !slices.Equal(want, got) {
			t.Errorf("%s: expected %v, got %v", form, want, got)
		}
	}
}

func TestWhatTheLocalAPIAnswersIsNoBan(t *testing.T) {
	for _, line := range []string{
		`time="2026-11-21T02:41:44Z" level=fatal msg="crowdsec init: authenticate watcher (lapi): API error: http code 403, no response body"`,
		`time="2026-11-21T02:41:44Z" level=error msg="Get \"http://127.0.0.1:8080/v1/decisions\": API error: access forbidden"`,
		`time="2026-11-21T02:41:44Z" level=info msg="Ip 192.0.2.1 performed 'crowdsecurity/http-403' banned: API error: banned: "`,
	} {
		for _, e := range scan([]byte(line + "\n")).events {
			if e.kind != died {
				t.Errorf("%s: taken for %v", line, e.kind)
			}
		}
	}
}

func TestOnlyTheLastDayIsJudged(t *testing.T) {
	log, err := os.ReadFile("testdata/loop.log")
	if err != nil {
		t.Fatal(err)
	}
	h := scan(log)
	for later, want := range map[time.Duration]int{time.Hour: 12, 25 * time.Hour: 0} {
		if got := len(h.busiest(started, h.last.Add(later))); got != want {
			t.Errorf("%s later: expected %d starts, got %d", later, want, got)
		}
	}
}

func TestTailIsBoundedAndWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("first\nsecond\nthird\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int64]string{100: "first\nsecond\nthird\n", 19: "first\nsecond\nthird\n", 15: "second\nthird\n", 8: "third\n"} {
		got, err := tail(path, n)
		if err != nil || string(got) != want {
			t.Errorf("%d bytes: expected %q, got %q, %v", n, want, got, err)
		}
	}
	if _, err := tail(filepath.Dir(path), 10); err == nil {
		t.Error("a folder was read as a log")
	}
}

func FuzzScan(f *testing.F) {
	logs, err := filepath.Glob("testdata/*.log")
	if err != nil || len(logs) < 5 {
		f.Fatal("no logs:", err)
	}
	for _, path := range logs {
		log, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(log)
	}
	f.Fuzz(func(t *testing.T, log []byte) {
		h := scan(log)
		now := h.last.Add(time.Hour)
		for _, found := range [][]muster.Finding{
			checkRefusals(h, "m", nil, now), checkRefusals(h, "m", &upstream.Standing{}, now), checkEnd(h, "m"),
			checkRestarts(h, "m", "", now), checkLogins(h, "m", now),
		} {
			for _, finding := range found {
				if finding.Fix == "" || finding.Summary == "" || len(finding.Evidence) > 8 {
					t.Errorf("a finding without summary or fix, or with too much evidence: %+v", finding)
				}
			}
		}
	})
}

// muster answers as a Muster does.
func aMuster(t *testing.T, status int, date time.Time, body string) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/prefix/api/v1/ban" {
			t.Errorf("unexpected %s %s: every other call prolongs a ban or spends a login", r.Method, r.URL.Path)
		}
		w.Header().Set("Date", date.UTC().Format(http.TimeFormat))
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(srv.Close)
	return srv.URL + "/prefix/"
}

const (
	standingBanned = `{"address":"203.0.113.9","banned":true,"until":"2026-11-21T04:00:00Z","reason":"more than 20 logins in 50 minutes from one address","scope":"all","extends_on_retry":true,` +
		`"limit":"login-sharing-enrolled","check":["A restart loop: run journalctl -u crowdsec -n 100."],"look":"https://muster.example.org/api/v1/ban","appeal":"abuse@muster.example.org",` +
		`"findings":[{"kind":"restart-loop","severity":"warning","summary":"An engine at this address logged in 21 times without any work in between.","fix":"Look why it stops."}],"server":"muster"}`
	standingByHand = `{"address":"203.0.113.9","banned":true,"until":null,"reason":"\u001b[31mwe do not \u202eknow you","scope":"login","extends_on_retry":false,"limit":"","check":null,"look":"","appeal":"","findings":[],"server":"muster"}`
	standingFree   = `{"address":"203.0.113.9","banned":false,"findings":[],"server":"muster"}`
)

func TestCentralAPI(t *testing.T) {
	log, err := os.ReadFile("testdata/loop.log")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 21, 3, 2, 0, 0, time.UTC)
	for _, test := range []struct {
		name   string
		status int
		date   time.Time
		body   string
	}{
		{"central-banned", 200, now, standingBanned},
		{"central-banned-by-hand", 200, now, standingByHand},
		{"central-free", 200, now, standingFree}, // whatever the log says
		{"central-skew", 200, now.Add(time.Hour), standingFree},
		{"central-old-muster", 404, now, `{"message":"no such thing"}`},
		{"central-broken", 502, now, "<html>Bad Gateway</html>"},
	} {
		t.Run(test.name, func(t *testing.T) {
			central := aMuster(t, test.status, test.date, test.body)
			m := newMachine(t, central, string(log), now)
			golden(t, test.name, text(t, m.examine()), m.dir, "ENGINE", central, "http://MUSTER/", strings.TrimSuffix(strings.TrimPrefix(central, "http://"), "/prefix/"), "MUSTER")
		})
	}
}

func TestClockSkew(t *testing.T) {
	now := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	for skew, want := range map[time.Duration]string{
		0: "", 5 * time.Minute: "", -5 * time.Minute: "", 5*time.Minute + time.Second: "ahead of", -time.Hour: "behind",
	} {
		h := http.Header{"Date": {now.Add(-skew).Format(http.TimeFormat)}}
		found := checkClock(h, now, now)
		if (len(found) == 1) != (want != "") || want != "" && !strings.Contains(found[0].Summary, want) {
			t.Errorf("%s: expected %q, got %v", skew, want, found)
		}
	}
	if found := checkClock(http.Header{}, now, now); len(found) > 0 {
		t.Errorf("no date: expected nothing, got %v", found)
	}
}

func TestCrowdSecIsNotAsked(t *testing.T) {
	m := newMachine(t, "https://api.crowdsec.net/", "", time.Now())
	m.o.HTTP = nil
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a call would fail
	r, err := Examine(ctx, m.o)
	if err != nil {
		t.Fatal(err)
	}
	if todo := r.ToDo(); todo != "" || !strings.Contains(text(t, r), "it is not asked") {
		t.Errorf("expected no call and nothing to do, got %s\n%s", todo, text(t, r))
	}
}

func TestCredentials(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	for _, test := range []struct {
		name  string
		setup func(*machine)
		want  []muster.FindingKind
	}{
		{"well", func(*machine) {}, nil},
		{"none", func(m *machine) { m.write("online.yaml", "") }, []muster.FindingKind{NoCredentials}},
		{"no slash", func(m *machine) { m.write("online.yaml", "url: "+gone.URL+"\nlogin: a\npassword: b\npapi_url: x\n") }, []muster.FindingKind{NoCredentials, Unreachable}},
		{"nobody there", func(m *machine) {
			m.write("online.yaml", "url: "+gone.URL+"/\nlogin: a\npassword: b\npapi_url: "+gone.URL+"/\n")
		}, []muster.FindingKind{Unreachable}},
		{"no local API", func(m *machine) { m.write("config.yaml", "api: {}\n") }, []muster.FindingKind{NoCredentials, NoEngineLog}},
		{"no papi_url", func(m *machine) {
			m.write("online.yaml", "url: "+gone.URL+"/\nlogin: a\npassword: b\n")
		}, []muster.FindingKind{ForeignPolling, Unreachable}},
		{"no log", func(m *machine) {
			if err := os.Remove(filepath.Join(m.dir, "crowdsec.log")); err != nil {
				m.t.Fatal(err)
			}
		}, []muster.FindingKind{NoEngineLog}},
		{"the journal instead", func(m *machine) {
			m.write("config.yaml.local", "common: {log_media: stdout}\n")
			m.o.Journal = func(context.Context) ([]byte, error) { return os.ReadFile("testdata/plain-403.log") }
			m.o.Now = func() time.Time { return time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC) }
		}, []muster.FindingKind{Banned, muster.RestartLoop, ManyLogins}},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
			m := newMachine(t, noMuster(t, now), "", now)
			test.setup(m)
			var got []muster.FindingKind
			for _, s := range m.examine().Sections {
				for _, f := range s.Findings {
					got = append(got, f.Kind)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

// fakeServer answers with the JSON at each path.
type fakeServer map[string]string

func (fakeServer) Name() string { return "/var/lib/muster" }

func (s fakeServer) Get(_ context.Context, path string, out any) error {
	body, ok := s[path]
	if !ok {
		return errors.New("no such route")
	}
	return json.Unmarshal([]byte(body), out)
}

func TestServer(t *testing.T) {
	const up = `{"version":"0.3.0","health":{"status":"ready","checks":[{"name":"store","status":"ok","since":"2026-11-21T02:00:00Z"},{"name":"stream","status":"ok","since":"2026-11-21T02:00:00Z"}]}}`
	for name, server := range map[string]fakeServer{
		"server-well": {"/status": up, "/bans": `{"bans":[],"next":""}`, "/findings": `{"findings":[]}`},
		"server-misused": {
			"/status":   up,
			"/bans":     `{"bans":[{"address":"203.0.113.9","scope":"all","reason":"x","until":null},{"address":"2001:db8::/64","scope":"login","reason":"y","until":"2026-11-21T04:00:00Z"}],"next":""}`,
			"/findings": `{"findings":[{"kind":"shared-credentials","severity":"info","machine":"m1","summary":"Machine m1 is in use at 3 addresses.","evidence":["198.51.100.1"],"fix":"Give each engine its own.","count":3},{"kind":"restart-loop","severity":"critical","machine":"m2","address":"203.0.113.9/32","summary":"Machine m2 logged in 25 times.","fix":"Look why it stops.","count":25}]}`,
		},
		"server-sick": {"/status": `{"version":"0.3.0","health":{"status":"unready","checks":[{"name":"store","status":"failed","reason":"disk full","since":"2026-11-21T02:00:00Z"},{"name":"stream","status":"degraded","reason":"away","since":"2026-11-21T02:00:00Z"}]}}`},
		"server-away": {},
	} {
		t.Run(name, func(t *testing.T) {
			r := Report{Sections: []Section{examineServer(t.Context(), server)}}
			r.sort()
			golden(t, name, text(t, r))
		})
	}
}

func TestNothingToExamine(t *testing.T) {
	_, err := os.Stat("/etc/crowdsec/config.yaml")
	if err == nil {
		t.Skip("an engine is installed on this machine")
	}
	_, err = Examine(t.Context(), Options{})
	if !errors.Is(err, muster.NotFound) || !strings.Contains(err.Error(), "--engine-config") || !strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("expected to be told what to name, got %v", err)
	}
	if _, err := Examine(t.Context(), Options{Config: "missing.yaml"}); err == nil || !strings.Contains(err.Error(), "missing.yaml") {
		t.Errorf("a missing configuration: expected a refusal, got %v", err)
	}
	r, err := Examine(t.Context(), Options{Log: "testdata/quiet.log", Now: func() time.Time { return time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC) }})
	if err != nil || len(r.Sections) != 1 || r.ToDo() != "" {
		t.Errorf("a log alone: expected it to be examined, got %+v, %v", r, err)
	}
}

func TestJSONHasNoNull(t *testing.T) {
	m := newMachine(t, noMuster(t, time.Now()), "", time.Now())
	text, err := json.Marshal(m.examine())
	if err != nil {
		t.Fatal(err)
	}
	if s := string(text); strings.Contains(s, "null") || !strings.Contains(s, `"findings":[]`) {
		t.Errorf("expected lists, got %s", s)
	}
}

func TestTerminalsAreNotSteered(t *testing.T) {
	r := Report{Sections: []Section{{Name: "engine", Findings: []muster.Finding{{
		Severity: muster.Warning, Summary: "a\x1b[2Jb\u009bc", Evidence: []string{"\u202ed\ne"}, Fix: "f\x07",
	}}}}}
	if got := text(t, r); strings.ContainsAny(got, "\x1b\x07\u009b\u202e") {
		t.Errorf("control characters reach the terminal: %q", got)
	}
	var b bytes.Buffer
	if err := r.Write(&b, Style{Marks: true}); err != nil || !strings.Contains(b.String(), "\x1b[33mwarning\x1b[0m") {
		t.Errorf("expected colours on a terminal, got %q, %v", b.String(), err)
	}
}
