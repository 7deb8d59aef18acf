package swarm

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"go.uber.org/goleak"
)

// asMuster, in the environment, makes the test binary play the muster program:
// `serve` with the stub behind it ("limiting": that bans), and `admin key create`.
const asMuster = "SWARM_TEST_AS_MUSTER"

func TestMain(m *testing.M) {
	if mode := os.Getenv(asMuster); mode != "" {
		playMuster(mode, os.Args[1:])
		return
	}
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		// Never run the tests here: they would start this again, without end.
		fmt.Fprintln(os.Stderr, "started as muster, but not told to play it")
		os.Exit(2)
	}
	goleak.VerifyTestMain(m)
}

func playMuster(mode string, args []string) {
	flag := func(name string) string {
		for i, a := range args {
			if a == name {
				return args[i+1]
			}
		}
		return ""
	}
	switch {
	case mode == "broken":
		fmt.Fprintln(os.Stderr, "expected a data directory, got a pancake")
		os.Exit(3)
	case args[0] == "admin" && args[1] == "org":
		fmt.Printf("Organisation %s made. Its id:\norg-%[1]s-%s\n", args[3], flag("--fleet"))
	case args[0] == "admin" && flag("--org") != "":
		fmt.Printf("A key:\nkey-of-%s\n", flag("--org"))
	case args[0] == "admin":
		fmt.Printf("An enrolment key for %s:\n%s\n", flag("--data-dir"), stubKey)
	case args[0] == "serve":
		stub := newStub()
		if mode == "limiting" {
			stub.logins, stub.trusts = 20, true
		}
		metrics := http.NewServeMux()
		metrics.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, "# TYPE muster_tally_lag_entries gauge\nmuster_tally_lag_entries{partition=\"0\"} 0\nmuster_tally_sources %d\n", stubSources)
		})
		go func() { fmt.Fprintln(os.Stderr, http.ListenAndServe(os.Getenv("MUSTER_METRICS__LISTEN"), metrics)) }()
		go func() { fmt.Fprintln(os.Stderr, http.ListenAndServe(flag("--listen"), stub)) }()
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		<-ctx.Done()
	}
}

// startAsMuster starts the test binary as a server.
func startAsMuster(t testing.TB) *Server { return startInMode(t, "well") }

func startInMode(t testing.TB, mode string) *Server {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, err := StartServer(t.Context(), ServerConfig{Binary: self, DataDir: t.TempDir() + "/data", Env: []string{asMuster + "=" + mode}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Kill() })
	return s
}

const stubKey = "clstub0123456789"

// stubSources is what a stub in a process of its own says to have evidence on.
const stubSources = 300

// stub is a Central API that believes everything and keeps next to nothing.
type stub struct {
	check  bool // decode the signals
	logins int  // that an address may make before it is banned; 0: any number
	trusts bool // 127.0.0.1 as a proxy

	mu       sync.Mutex
	machines map[string]string // id to password
	enrolled map[string]bool
	uuids    map[string]int             // times that each signal came, when check
	listed   map[string]string          // banned value to scenario
	voices   map[string]map[string]bool // machines that reported a value
	prepared []byte                     // the list, compressed; nil when it changed
	badItems int
	count    map[netip.Addr]int  // log-ins by address, when logins
	good     map[netip.Addr]bool // addresses that sent what takes a token

	signals atomic.Int64
	fail    func(*http.Request) (status int, body string) // status 0 goes on
}

func newStub() *stub {
	return &stub{machines: map[string]string{}, enrolled: map[string]bool{}, uuids: map[string]int{}, listed: map[string]string{}, voices: map[string]map[string]bool{}, count: map[netip.Addr]int{}, good: map[netip.Addr]bool{}}
}

// startStub serves s in this process and returns its URL.
func startStub(t testing.TB, s *stub) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-ended })
	return "http://" + l.Addr().String()
}

func (s *stub) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if s.fail != nil {
		if status, body := s.fail(req); status != 0 {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			return
		}
	}
	_, path, _ := strings.Cut(req.URL.Path, "/v3")
	if s.logins > 0 && s.refused(w, req, path == "/watchers/login") {
		return
	}
	switch path {
	case "":
		w.WriteHeader(http.StatusOK) // /readyz
	case "/watchers":
		var c struct {
			ID       string `json:"machine_id"`
			Password string `json:"password"`
		}
		decode(req, &c)
		s.mu.Lock()
		s.machines[c.ID] = c.Password
		s.mu.Unlock()
		_, _ = io.WriteString(w, `{"message":"OK"}`)
	case "/watchers/login":
		s.login(w, req)
	case "/watchers/enroll":
		var e struct {
			Key string `json:"attachment_key"`
		}
		decode(req, &e)
		if e.Key != stubKey {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"message":"the attachment key provided is not valid"}`)
			return
		}
		s.mu.Lock()
		s.enrolled[machineOf(req)] = true
		s.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"message":"OK"}`)
	case "/signals":
		s.take(w, req)
	case "/decisions/stream":
		s.stream(w)
	case "/heartbeat":
		w.WriteHeader(http.StatusOK)
	default:
		http.NotFound(w, req)
	}
}

// refused answers banned clients, and bans those that log in too often.
func (s *stub) refused(w http.ResponseWriter, req *http.Request, login bool) bool {
	addr := netip.MustParseAddrPort(req.RemoteAddr).Addr()
	if s.trusts && addr == netip.AddrFrom4([4]byte{127, 0, 0, 1}) && req.Header.Get("X-Forwarded-For") != "" {
		addr = netip.MustParseAddr(req.Header.Get("X-Forwarded-For"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if login && s.count[addr] <= s.logins {
		s.count[addr]++
	}
	if s.count[addr] <= s.logins {
		if strings.HasPrefix(req.Header.Get("Authorization"), "Bearer e30.") {
			s.good[addr] = true
		}
		return false
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusForbidden)
	fmt.Fprintf(w, `{"message":"banned: too many log-ins","code":"banned","until":%q,"retry_after":3600}`, time.Now().Add(time.Hour).Format(time.RFC3339))
	return true
}

func (s *stub) login(w http.ResponseWriter, req *http.Request) {
	var c struct {
		ID        string   `json:"machine_id"`
		Password  string   `json:"password"`
		Scenarios []string `json:"scenarios"`
	}
	decode(req, &c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machines[c.ID] != c.Password || len(c.Scenarios) < len(scenarios) {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	claims := `{"machine_id":"` + c.ID + `"}`
	if s.enrolled[c.ID] {
		claims = `{"machine_id":"` + c.ID + `","organization_id":"o"}`
	}
	token := base64.RawURLEncoding.EncodeToString([]byte(claims))
	fmt.Fprintf(w, `{"code":200,"expire":"2030-01-01T00:00:00Z","token":"e30.%s.c2ln"}`, token)
}

// machineOf reads the machine out of a token of login.
func machineOf(req *http.Request) string {
	_, rest, _ := strings.Cut(req.Header.Get("Authorization"), ".")
	claims, _, _ := strings.Cut(rest, ".")
	plain, _ := base64.RawURLEncoding.DecodeString(claims)
	var c struct {
		ID string `json:"machine_id"`
	}
	_ = json.Unmarshal(plain, &c)
	return c.ID
}

func (s *stub) take(w http.ResponseWriter, req *http.Request) {
	if !s.check {
		_, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(w, `{"message":"OK"}`)
		return
	}
	var batch []signal178
	decode(req, &batch)
	s.signals.Add(int64(len(batch)))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range batch {
		s.uuids[batch[i].UUID]++
		if len(batch[i].Decisions) != 1 {
			s.badItems++
			continue
		}
		value := batch[i].Decisions[0].Value
		s.listed[value] = batch[i].Scenario
		if s.voices[value] == nil {
			s.voices[value] = map[string]bool{}
		}
		s.voices[value][machineOf(req)] = true
	}
	s.prepared = nil
	if machineOf(req) == "" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_, _ = io.WriteString(w, `{"message":"OK"}`)
}

func (s *stub) stream(w http.ResponseWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.prepared == nil {
		var list bytes.Buffer
		list.WriteString(`{"new":[{"scenario":"crowdsecurity/ssh-bf","scope":"ip","decisions":[`)
		sep := ""
		for value := range s.listed {
			fmt.Fprintf(&list, `%s{"value":%q,"duration":"72h0m0s"}`, sep, value)
			sep = ","
		}
		list.WriteString(`]}],"deleted":[],"links":{}}`)
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, _ = z.Write(list.Bytes())
		_ = z.Close()
		s.prepared = packed.Bytes()
	}
	w.Header().Set("Content-Encoding", "gzip")
	w.Header().Set("Content-Length", fmt.Sprint(len(s.prepared)))
	_, _ = w.Write(s.prepared)
}

func decode(req *http.Request, v any) {
	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			panic(err)
		}
		body = z
	}
	d := json.NewDecoder(body)
	if err := d.Decode(v); err != nil {
		panic(fmt.Sprintf("%s: %v", req.URL.Path, err))
	}
}

// signal178 has exactly the fields that engine 1.7.8 sends, as it types them.
type signal178 struct {
	Context []struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	} `json:"context"`
	Decisions []struct {
		Duration string `json:"duration"`
		ID       int    `json:"id"`
		Origin   string `json:"origin"`
		Scenario string `json:"scenario"`
		Scope    string `json:"scope"`
		Type     string `json:"type"`
		UUID     string `json:"uuid"`
		Value    string `json:"value"`
	} `json:"decisions"`
	Kind            string `json:"kind"`
	MachineID       string `json:"machine_id"`
	Message         string `json:"message"`
	Scenario        string `json:"scenario"`
	ScenarioHash    string `json:"scenario_hash"`
	ScenarioTrust   string `json:"scenario_trust"`
	ScenarioVersion string `json:"scenario_version"`
	Source          struct {
		ASName    string  `json:"as_name"`
		ASNumber  string  `json:"as_number"`
		CN        string  `json:"cn"`
		IP        string  `json:"ip"`
		Latitude  float32 `json:"latitude"`
		Longitude float32 `json:"longitude"`
		Range     string  `json:"range"`
		Scope     string  `json:"scope"`
		Value     string  `json:"value"`
	} `json:"source"`
	StartAt string `json:"start_at"`
	StopAt  string `json:"stop_at"`
	UUID    string `json:"uuid"`
}
