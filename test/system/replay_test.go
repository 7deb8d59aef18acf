package system

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster/internal/testkit"
)

// TestReplay sends hand-made requests in the form of every client, byte for
// byte as they are in testdata.
func TestReplay(t *testing.T) {
	t.Parallel()
	replayAll(t, filepath.Join("testdata", "requests"))
}

// TestReplayCaptures sends every request to CAPI and PAPI that real clients
// were seen to make.
func TestReplayCaptures(t *testing.T) {
	t.Parallel()
	replayAll(t, testkit.Shared(t, "reference", "captures"))
}

// elsewhere are recorded requests that go to something else than CAPI and PAPI:
// an engine's own API, the hub, lists behind links, lookups.
var elsewhere = regexp.MustCompile(`^(lapi-|bouncer-|178-05-|178-06-|178-14-|178-15-|178-16-)`)

func replayAll(t *testing.T, dir string) {
	s := start(t, nil)
	files, err := filepath.Glob(filepath.Join(dir, "*.http"))
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]int{}
	for _, file := range files {
		if elsewhere.MatchString(filepath.Base(file)) {
			continue
		}
		r := readRecorded(t, file)
		calls[r.call]++
		t.Run(strings.TrimSuffix(filepath.Base(file), ".http"), func(t *testing.T) { replay(t, s, r) })
	}
	for call := range recordedCalls {
		if calls[call] == 0 {
			t.Errorf("no recorded request for %s", call)
		}
	}
}

// recorded is one request as a client sent it.
type recorded struct {
	method, target string // target is the path with its query, exactly as sent
	version, call  string // "/v3", "watchers/login"
	header         [][2]string
	body           []byte // decompressed
}

func readRecorded(t *testing.T, file string) recorded {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for bytes.HasPrefix(raw, []byte("#")) {
		_, raw, _ = bytes.Cut(raw, []byte("\n"))
	}
	raw = bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n"))
	head, body, _ := bytes.Cut(raw, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	words := strings.Fields(lines[0])
	if len(words) != 3 {
		t.Fatalf("%s: no request line in %q", file, lines[0])
	}
	r := recorded{method: words[0], target: words[1], body: bytes.TrimSpace(body)}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		r.header = append(r.header, [2]string{name, strings.TrimSpace(value)})
	}
	path, _, _ := strings.Cut(r.target, "?")
	r.version, r.call = path[:3], strings.TrimSuffix(path[4:], "/")
	return r
}

func (r *recorded) get(name string) string {
	for _, h := range r.header {
		if strings.EqualFold(h[0], name) {
			return h[1]
		}
	}
	return ""
}

// recordedCalls says how each call is prepared and what its client accepts.
// prepare makes the sender, and may change the body where it names a secret of
// another server; accept checks the answer.
var recordedCalls = map[string]struct {
	prepare func(*testing.T, *server, *recorded) *client
	accept  func(*testing.T, *server, *client, answer)
}{
	"watchers": {anybody, func(t *testing.T, s *server, c *client, a answer) {
		a.ok(t)
		a = c.register(t) // a Python client that has lost its memory registers again
		a.ok(t)
		c.login(t)
	}},
	"watchers/login": {
		func(t *testing.T, s *server, r *recorded) *client {
			c := anybody(t, s, r)
			c.register(t).status(t, 200)
			return c
		},
		func(t *testing.T, s *server, c *client, a answer) {
			if checkLogin(t, a).enrolled {
				t.Error("a machine that is not enrolled is told that it is")
			}
		},
	},
	"watchers/enroll": {
		func(t *testing.T, s *server, r *recorded) *client {
			c := s.registered(t, engine178)
			refused := r.send(t, s, c)
			if !bytes.Contains(r.body, []byte(`"autoenroll":true`)) {
				refused.status(t, 403)
				if text := refused.problem(t); !strings.Contains(text, "attachment key provided is not valid") {
					t.Errorf("a wrong key is refused with %q", text)
				}
			}
			key := s.key(t, s.organisation(t), true)
			r.body = regexp.MustCompile(`("attachment_key": ?")[^"]*`).ReplaceAll(r.body, []byte("${1}"+key))
			return c
		},
		func(t *testing.T, s *server, c *client, a answer) {
			a.status(t, 201)
			o := a.object(t)
			if o["url"] != nil { // --quick
				at, ok := o["expire_at"].(float64)
				if left := time.Until(time.UnixMilli(int64(at))); !ok || left < time.Minute || left > 24*time.Hour {
					t.Errorf("the link ends in %s: expire_at is in milliseconds", left)
				}
				if !strings.HasPrefix(o["url"].(string), s.url+"/") {
					t.Errorf("url %q", o["url"])
				}
				return
			}
			c.login(t)
			if !parseToken(t, c.token).enrolled {
				t.Error("the token after enrolment says nothing of it")
			}
		},
	},
	"metrics":       {anyMember, func(t *testing.T, s *server, c *client, a answer) { reported(t, s, c, a, false) }},
	"usage-metrics": {anyMember, func(t *testing.T, s *server, c *client, a answer) { reported(t, s, c, a, true) }},
	"decisions/stream": {anyMember, func(t *testing.T, s *server, c *client, a answer) {
		checkStream(t, c.version, a)
	}},
	"signals": {
		func(t *testing.T, s *server, r *recorded) *client {
			// Signals about something older than ingest.max_age are refused, so that
			// the recorded dates are moved to now, each in its own form.
			now := time.Now().UTC().Add(-time.Minute)
			r.body = regexp.MustCompile(`\d{4}-\d\d-\d\d([T ])\d\d:\d\d:\d\d`).
				ReplaceAll(r.body, []byte(now.Format("2006-01-02")+"${1}"+now.Format("15:04:05")))
			return anyMember(t, s, r)
		},
		func(t *testing.T, s *server, c *client, a answer) {
			a.ok(t) // not one was refused
			eventually(t, "the signals are kept", func() string {
				if s.machine(t, c.id).Seen.Push == nil || len(s.alerts(t, "machine="+c.id)) == 0 {
					return "they are not"
				}
				return ""
			})
		},
	},
	"decisions/delete": {anyMember, func(t *testing.T, _ *server, _ *client, a answer) { a.ok(t) }},
	"decisions/stream/poll": {
		func(t *testing.T, s *server, r *recorded) *client {
			c := anyMember(t, s, r)
			s.admin(t, "POST", "/machines/"+c.id+"/orders", map[string]any{"kind": "management/force_pull"}, nil)
			return c // with an order waiting, the poll's 45 s are not waited for
		},
		func(t *testing.T, _ *server, _ *client, a answer) {
			if got := checkPoll(t, a); len(got) != 1 || got[0].kind != "management/force_pull" {
				t.Errorf("events %v", got)
			}
		},
	},
	"permissions": {anyMember, func(t *testing.T, _ *server, _ *client, a answer) {
		a.status(t, 200)
		var in struct {
			Status, Plan string
			Categories   []string
		}
		if err := strict(a.body, &in); err != nil || in.Status != "OK" || in.Plan != "Enterprise" || len(in.Categories) != 3 {
			t.Errorf("%s: %v", a.body, err)
		}
	}},
}

// anybody is whoever the body names, unregistered.
func anybody(t *testing.T, s *server, r *recorded) *client {
	t.Helper()
	var in struct {
		MachineID string `json:"machine_id"`
		Password  string
	}
	if err := json.Unmarshal(r.body, &in); err != nil {
		t.Fatal(err)
	}
	c := s.client(engine178)
	c.id, c.password = in.MachineID, in.Password
	return c
}

// anyMember is a new active machine.
func anyMember(t *testing.T, s *server, r *recorded) *client {
	t.Helper()
	k := engine178
	if r.version == engine146.version {
		k = engine146
	}
	return s.member(t, k, s.organisation(t))
}

// reported checks that a report was kept.
func reported(t *testing.T, s *server, c *client, a answer, usage bool) {
	t.Helper()
	a.ok(t)
	m := s.machine(t, c.id)
	report := m.Metrics
	if usage {
		report = m.Usage
	}
	if m.Seen.Metrics == nil || len(report) == 0 {
		t.Errorf("the report was not kept: %+v", m)
	}
}

func replay(t *testing.T, s *server, r recorded) {
	call, ok := recordedCalls[r.call]
	if !ok {
		t.Fatalf("what does its client accept as an answer to %s?", r.call)
	}
	c := call.prepare(t, s, &r)
	call.accept(t, s, c, r.send(t, s, c))
}

// send writes the request as it was recorded: only the host, the token, and the
// length of a body that was changed are this server's.
func (r *recorded) send(t *testing.T, s *server, c *client) answer {
	t.Helper()
	body := r.body
	if r.get("Content-Encoding") == "gzip" {
		body = zip(body)
	}
	var out bytes.Buffer
	out.WriteString(r.method + " " + r.target + " HTTP/1.1\r\n")
	for _, h := range r.header {
		name, value := h[0], h[1]
		switch name {
		case "Host":
			value = s.cfg.Listen
		case "Content-Length":
			value = strconv.Itoa(len(body))
		case "Authorization":
			switch {
			case r.call == "watchers/login": // an empty bearer
			case strings.HasPrefix(value, "Bearer "):
				value = "Bearer " + c.token
			default:
				value = c.token
			}
		}
		out.WriteString(name + ": " + value + "\r\n")
	}
	out.WriteString("\r\n")
	out.Write(body)
	return sendRaw(t, s, out.Bytes())
}

// sendRaw writes a request as it is and reads the answer.
func sendRaw(t *testing.T, s *server, raw []byte) answer {
	t.Helper()
	conn, err := net.Dial("tcp", s.cfg.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(raw); err != nil {
		t.Fatal(err)
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Close != req.Close {
		t.Errorf("%s: the server closes the connection: %t, asked for: %t", req.URL.Path, resp.Close, req.Close)
	}
	return readAnswer(t, req, resp)
}
