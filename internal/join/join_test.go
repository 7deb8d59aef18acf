package join

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// central is a Central API that knows its machines by heart.
type central struct {
	t          *testing.T
	machines   map[string]string // login → password
	enrolled   map[string]bool
	accept     bool // enrolment needs no person
	key        string
	closed     bool   // registration refused
	busy       int    // answers of 503 before it serves
	banned     string // what GET api/v1/ban says; "": this is no Muster that tells
	registered int
	lastEnrol  map[string]any
}

func (c *central) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	say := func(status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(body); err != nil {
			c.t.Error(err)
		}
	}
	message := func(status int, text string) { say(status, map[string]string{"message": text}) }
	switch path := strings.TrimPrefix(r.URL.Path, "/prefix"); {
	case path == "/api/v1/ban" && c.banned != "":
		w.Header().Set("Date", "Fri, 20 Nov 2026 23:59:58 GMT") // as Options.Now
		fmt.Fprint(w, c.banned)
		return
	case path == "/api/v1/ban":
		http.NotFound(w, r)
		return
	case c.banned != "":
		c.t.Errorf("%s %s during a ban: that prolongs it", r.Method, r.URL.Path)
	case c.busy > 0:
		c.busy--
		w.Header().Set("Retry-After", "0")
		message(503, "starting up")
		return
	}
	var body map[string]any
	if r.Method == http.MethodPost {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			message(400, err.Error())
			return
		}
	}
	login, _ := body["machine_id"].(string)
	password, _ := body["password"].(string)
	switch strings.TrimPrefix(r.URL.Path, "/prefix") {
	case "/v3/decisions/stream":
		message(401, "no token")
	case "/v3/watchers":
		switch {
		case c.closed:
			message(403, "registration is closed: ask the operator for an enrolment key")
		case c.machines[login] != "":
			message(500, "User already registered.")
		default:
			c.registered++
			c.machines[login] = password
			message(200, "OK")
		}
	case "/v3/watchers/login":
		if password == "" || c.machines[login] != password {
			message(401, "The machine_id or password is incorrect")
			return
		}
		claims := map[string]any{"exp": 4102444800, "id": login}
		if c.enrolled[login] && c.accept {
			claims["organization_id"], claims["subscription_type"] = "org", "ENTERPRISE"
		}
		payload, err := json.Marshal(claims)
		if err != nil {
			c.t.Error(err)
		}
		enc := base64.RawURLEncoding.EncodeToString
		say(200, map[string]any{"code": 200, "expire": "2099-01-01T00:00:00Z", "token": enc([]byte(`{"alg":"HS256"}`)) + "." + enc(payload) + ".c2ln"})
	case "/v3/watchers/enroll":
		payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(r.Header.Get("Authorization"), ".")[1])
		var claims struct{ ID string }
		if err := json.Unmarshal(payload, &claims); err != nil {
			c.t.Error(err)
		}
		c.lastEnrol = body
		switch {
		case body["attachment_key"] != c.key || r.Header.Get("X-Enrolment-Key") != c.key:
			message(403, "the attachment key provided is not valid")
		case c.enrolled[claims.ID] && body["overwrite"] != true:
			message(200, "the security engine is already enrolled")
		default:
			c.enrolled[claims.ID] = true
			message(201, "OK")
		}
	default:
		http.NotFound(w, r)
	}
}

// machine is an engine's folder and the Central API that it is to join.
type machine struct {
	t       *testing.T
	dir     string
	api     *central
	url     string
	options Options
	out     bytes.Buffer
}

const crowdsecs = "url: https://api.crowdsec.net/\nlogin: old\npassword: oldsecret\n"

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, dir: t.TempDir(), api: &central{
		t: t, machines: map[string]string{}, enrolled: map[string]bool{}, accept: true, key: "goodkey",
	}}
	srv := httptest.NewServer(m.api)
	t.Cleanup(srv.Close)
	m.url = srv.URL
	m.write("config.yaml", fmt.Sprintf("config_paths: {config_dir: %[1]s}\napi:\n  server:\n    online_client:\n      credentials_path: %[1]s/online_api_credentials.yaml\n", m.dir))
	m.options = Options{
		URL: m.url, Key: "goodkey", Config: filepath.Join(m.dir, "config.yaml"), Name: "host1",
		Out: &m.out, Random: &counter{}, HostID: "0123456789abcdef0123456789abcdef",
		Now: func() time.Time { return time.Date(2026, 11, 20, 23, 59, 58, 0, time.UTC) },
	}
	return m
}

// counter is a source of bytes that are the same in every run.
type counter struct{ n byte }

func (c *counter) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = c.n
		c.n++
	}
	return len(b), nil
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) read(name string) string {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}

func (m *machine) files() []string {
	m.t.Helper()
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		m.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// golden compares everything that a person sees, and every file, with what is
// checked in.
func (m *machine) golden(err error) {
	m.t.Helper()
	var b strings.Builder
	b.WriteString(m.out.String())
	if err != nil {
		fmt.Fprintf(&b, "error: %v\n", err)
	}
	for _, name := range m.files() {
		if name != "config.yaml" {
			fmt.Fprintf(&b, "-- %s --\n%s", name, m.read(name))
		}
	}
	got := strings.NewReplacer(m.dir, "ENGINE", m.url, "http://MUSTER", strings.TrimPrefix(m.url, "http://"), "MUSTER").Replace(b.String())
	path := filepath.Join("testdata", strings.TrimPrefix(m.t.Name(), "TestJoin/")+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			m.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		m.t.Errorf("output and files differ from %s (-want +got):\n%s", path, diff)
	}
}

func TestJoin(t *testing.T) {
	const name = "online_api_credentials.yaml"
	for _, test := range []struct {
		name  string
		setup func(*machine)
	}{
		{"first", func(*machine) {}},
		{"before-was-crowdsec", func(m *machine) { m.write(name, crowdsecs) }},
		{"kept-before", func(m *machine) {
			m.write(name, crowdsecs)
			m.write(name+backupSuffix, "url: https://elsewhere.example/\n")
		}},
		{"empty-file", func(m *machine) { m.write(name, "") }},
		{"same-address", func(m *machine) {
			m.api.machines["kept"] = "keptsecret"
			m.write(name, "url: "+m.url+"\nlogin: kept\npassword: keptsecret\n")
		}},
		{"unchanged", func(m *machine) {
			m.api.machines["kept"], m.api.enrolled["kept"] = "keptsecret", true
			m.write(name, "url: "+m.url+"/\nlogin: kept\npassword: keptsecret\npapi_url: "+m.url+"/\n")
		}},
		{"server-set-up-anew", func(m *machine) {
			m.write(name, "url: "+m.url+"/\nlogin: kept\npassword: keptsecret\npapi_url: "+m.url+"/\n")
		}},
		{"password-differs", func(m *machine) {
			m.api.machines["kept"] = "other"
			m.write(name, "url: "+m.url+"/\nlogin: kept\npassword: keptsecret\npapi_url: "+m.url+"/\n")
		}},
		{"person-accepts", func(m *machine) { m.api.accept = false; m.options.Tags = []string{"web", "eu"} }},
		{"without-key", func(m *machine) { m.options.Key = "" }},
		{"dry-run", func(m *machine) { m.options.DryRun = true }},
		{"prefix", func(m *machine) { m.options.URL += "/prefix" }},
		{"old-engine", func(m *machine) {
			m.options.Cscli = script(m.t, `echo "2026/11/20 23:55:24 version: v1.4.6-6~deb12u1+b1-debian" >&2`)
		}},
		{"new-engine", func(m *machine) { m.options.Cscli = script(m.t, `echo "version: v1.7.8"`) }},
		{"no-papi", func(m *machine) { m.options.NoPAPI = true }},
		{"closed", func(m *machine) { m.api.closed = true; m.write(name, crowdsecs) }},
		{"bad-key", func(m *machine) { m.options.Key = "badkey"; m.write(name, crowdsecs) }},
		{"busy", func(m *machine) { m.api.busy = 1 }},
		{"banned", func(m *machine) {
			m.api.banned = `{"address":"203.0.113.9","banned":true,"until":"2026-11-21T01:00:00Z","reason":"more than 20 logins in 50 minutes from one address","scope":"all","extends_on_retry":true,"appeal":"abuse@muster.example.org","findings":[],"server":"muster"}`
		}},
		{"no-local-api", func(m *machine) { m.write("config.yaml", "api:\n  client: {}\n") }},
		{"no-online-client", func(m *machine) { m.write("config.yaml", "api:\n  server: {listen_uri: 127.0.0.1:8080}\n") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			test.setup(m)
			m.golden(Join(t.Context(), m.options))
		})
	}
}

// script makes a program out of a line of shell.
func script(t *testing.T, line string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cscli")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+line+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestJoinSendsWhatEnginesSend(t *testing.T) {
	m := newMachine(t)
	m.options.Tags, m.options.Overwrite = []string{"web"}, true
	if err := Join(t.Context(), m.options); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"attachment_key": "goodkey", "name": "host1", "tags": []any{"web"}, "overwrite": true}
	if diff := cmp.Diff(want, m.api.lastEnrol); diff != "" {
		t.Errorf("enrolment differs (-want +got):\n%s", diff)
	}
	for login, password := range m.api.machines {
		if len(login) != 48 || len(password) != 64 {
			t.Errorf("expected 48 and 64 characters as cscli makes them, got %d and %d", len(login), len(password))
		}
	}
}

// A server that does not tell of bans refuses the first call.
func TestJoinExplainsARefusalAsABan(t *testing.T) {
	calls := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"message":"banned: 203.0.113.9 is not served","code":"banned","address":"203.0.113.9","scope":"all","until":"2026-11-21T01:00:00Z","retry_after":3600,"extends_on_retry":true,"reason":"too many logins"}`)
	}))
	defer srv.Close()
	m := newMachine(t)
	m.options.URL = srv.URL
	err := Join(t.Context(), m.options)
	if err == nil {
		t.Fatal("expected an error")
	}
	for _, want := range []string{"banned there until 2026-11-21T00:59:58Z", "too many logins", "muster admin ban lift 203.0.113.9"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("expected %q in: %v", want, err)
		}
	}
	if calls != 1 {
		t.Errorf("expected to stop at the first refusal, made %d calls", calls)
	}
}

func TestJoinTwiceIsOneMachine(t *testing.T) {
	m := newMachine(t)
	m.write("online_api_credentials.yaml", crowdsecs)
	for range 2 {
		if err := Join(t.Context(), m.options); err != nil {
			t.Fatal(err)
		}
	}
	if m.api.registered != 1 {
		t.Errorf("expected one registration, got %d", m.api.registered)
	}
	if want := []string{"config.yaml", "online_api_credentials.yaml", "online_api_credentials.yaml.before-muster"}; !slices.Equal(want, m.files()) {
		t.Errorf("files: expected %v, got %v", want, m.files())
	}
}

func TestJoinRefusesWhatIsNoCentralAPI(t *testing.T) {
	html := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }))
	defer html.Close()
	redirect := httptest.NewServer(http.RedirectHandler("https://muster.example.org/", http.StatusMovedPermanently))
	defer redirect.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	private := httptest.NewUnstartedServer(&central{t: t})
	private.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains about us
	private.StartTLS()
	defer private.Close()
	for _, test := range []struct{ name, url, want string }{
		{"a web page", html.URL, "not as a Central API does"},
		{"a redirect", redirect.URL, "redirects to https://muster.example.org/"},
		{"nobody", gone.URL, "cannot be reached"},
		{"a private authority", private.URL, "does not trust"},
		{"no address", "muster.example.org:8600", "expected an address like"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			m.options.URL = test.url
			err := Join(t.Context(), m.options)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("expected an error with %q, got %v", test.want, err)
			}
			if files := m.files(); len(files) != 1 {
				t.Errorf("expected nothing written, got %v", files)
			}
		})
	}
}

func TestJoinWritesNothingItCannotKeep(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Log("as root every folder can be written; a missing one stands in")
	}
	m := newMachine(t)
	m.options.Credentials = filepath.Join(m.dir, "missing", "online_api_credentials.yaml")
	err := Join(t.Context(), m.options)
	if err == nil || !strings.Contains(err.Error(), "cannot be written") {
		t.Fatalf("expected a refusal, got %v", err)
	}
	if m.api.registered != 0 {
		t.Error("a machine was registered although its credentials could not be kept")
	}
}

func TestCredentialsAreForTheOwnerOnly(t *testing.T) {
	m := newMachine(t)
	path := filepath.Join(m.dir, "online_api_credentials.yaml")
	m.write("online_api_credentials.yaml", crowdsecs)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 4242, 4243); err != nil {
			t.Fatal(err)
		}
	}
	if err := Join(t.Context(), m.options); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, path + backupSuffix} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s: expected mode 0600, got %v", filepath.Base(p), info.Mode())
		}
		if uid, gid, ok := ownerOf(info); ok && os.Geteuid() == 0 && (uid != 4242 || gid != 4243) {
			t.Errorf("%s: expected the owner of the old file, got %d:%d", filepath.Base(p), uid, gid)
		}
	}
}

func TestJoinFollowsLinks(t *testing.T) {
	m := newMachine(t)
	m.write("elsewhere.yaml", crowdsecs)
	link := filepath.Join(m.dir, "online_api_credentials.yaml")
	if err := os.Symlink("elsewhere.yaml", link); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	if err := Join(t.Context(), m.options); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("expected the link to stay, got %v %v", info, err)
	}
	if got := m.read("elsewhere.yaml"); !strings.Contains(got, m.url) {
		t.Errorf("expected Muster's address in the file behind the link, got %q", got)
	}
}

func TestJoinStopsWithItsContext(t *testing.T) {
	m := newMachine(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Join(ctx, m.options); err == nil {
		t.Fatal("expected an error from a cancelled context")
	}
	if files := m.files(); len(files) != 1 {
		t.Errorf("expected nothing written, got %v", files)
	}
}
