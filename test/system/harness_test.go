// Package system tests the whole server in this process, over loopback, as its
// clients see it: engines, SDKs and the administrator's socket.
package system

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster/internal/roles"
)

func TestMain(m *testing.M) {
	code := m.Run()
	err := common.close()
	if err == nil {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "after the tests:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// server is one whole Muster with a data directory of its own.
type server struct {
	cfg  *roles.Config
	url  string // without a slash at its end
	log  *tail
	http *http.Client // never follows redirects, never decompresses

	socket *http.Client // the administrator's
	cancel context.CancelFunc
	done   chan error
}

// common is the server that tests share when what they do cannot disturb each
// other: each has machines, organisations and addresses of its own.
var common lazyServer

type lazyServer struct {
	once sync.Once
	s    *server
	err  error
}

func shared(t *testing.T) *server {
	t.Helper()
	common.once.Do(func() { common.s, common.err = launch(nil) })
	if common.err != nil {
		t.Fatal(common.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the shared server's log ends so:\n%s", common.s.log)
		}
	})
	return common.s
}

func (l *lazyServer) close() error {
	if l.s == nil {
		return nil
	}
	return errors.Join(l.s.stop(), os.RemoveAll(l.s.cfg.DataDir))
}

// start runs a server for one test.
func start(t *testing.T, change func(*roles.Config)) *server {
	t.Helper()
	s, err := launch(change)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("stopping the server: %v", err)
		}
		if t.Failed() {
			t.Logf("the server's log ends so:\n%s", s.log)
		}
		if err := os.RemoveAll(s.cfg.DataDir); err != nil {
			t.Error(err)
		}
	})
	return s
}

func launch(change func(*roles.Config)) (*server, error) {
	cfg := roles.DefaultConfig()
	dir, err := os.MkdirTemp("", "muster-system-") // t.TempDir is too long for a socket's path
	if err != nil {
		return nil, err
	}
	cfg.DataDir, cfg.Metrics.Listen, cfg.Log.Level = dir, "", "warn"
	cfg.RateLimit.Exempt = loopback // the clients of all tests are there; those about limits take it out
	if change != nil {
		change(cfg)
	}
	s := &server{cfg: cfg, log: new(tail)}
	return s, s.start()
}

// start runs the server on its data directory and waits until it is ready.
func (s *server) start() error {
	for try := 0; ; try++ {
		err := s.tryStart()
		if err == nil || try == 3 || !strings.Contains(err.Error(), "in use") {
			return err
		}
	}
}

func (s *server) tryStart() error {
	if s.url == "" { // the port cannot be read off a running server: find a free one first
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		s.cfg.Listen = l.Addr().String()
		if err := l.Close(); err != nil {
			return err
		}
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.cfg.Log.Level)); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.done = cancel, make(chan error, 1)
	log := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: level}))
	go func() { s.done <- roles.Serve(ctx, s.cfg, "v0.0.0-test", log, io.Discard) }()

	s.http = &http.Client{
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       time.Minute,
	}
	path := filepath.Join(s.cfg.DataDir, roles.SocketName)
	s.socket = &http.Client{
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}},
		Timeout: time.Minute,
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; {
		select {
		case err := <-s.done:
			s.done <- err
			cancel()
			return fmt.Errorf("the server ended by itself: %w", err)
		case <-tick.C:
		}
		resp, err := s.http.Get("http://" + s.cfg.Listen + "/readyz")
		if err == nil {
			if err = resp.Body.Close(); err == nil && resp.StatusCode == http.StatusOK {
				s.url = "http://" + s.cfg.Listen
				return nil
			}
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("the server is not ready after 30 s: %w", err), s.stop())
		}
	}
}

// stop drains the server and returns what it returned.
func (s *server) stop() error {
	s.http.CloseIdleConnections()
	s.socket.CloseIdleConnections()
	s.cancel()
	select {
	case err := <-s.done:
		s.done <- nil // stopping twice is fine
		return err
	case <-time.After(30 * time.Second):
		return errors.New("the server did not stop within 30 s")
	}
}

// restart stops the server and starts it again on the same data and port.
func (s *server) restart(t *testing.T) {
	t.Helper()
	if err := s.stop(); err != nil {
		t.Fatalf("stopping the server: %v", err)
	}
	if err := s.start(); err != nil {
		t.Fatalf("starting the server again: %v", err)
	}
}

// admin calls the management API over the administrator's socket. in, unless
// nil, is sent as JSON; out, unless nil, is what the answer is decoded into.
func (s *server) admin(t *testing.T, method, path string, in, out any) {
	t.Helper()
	if status, text := s.tryAdmin(t, method, path, in, out); status >= 300 {
		t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
}

// tryAdmin is admin for a call that may be refused.
func (s *server) tryAdmin(t *testing.T, method, path string, in, out any) (status int, text string) {
	t.Helper()
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://socket/api/v1"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.socket.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode < 300 && out != nil {
		if err := json.Unmarshal(raw, out); err != nil {
			t.Fatalf("%s %s answered %q: %v", method, path, raw, err)
		}
	}
	return resp.StatusCode, string(raw)
}

var serial atomic.Int64

// organisation makes an organisation with a plan that takes orders.
func (s *server) organisation(t *testing.T) string {
	t.Helper()
	var org struct{ ID string }
	s.admin(t, "POST", "/organisations", map[string]any{"name": fmt.Sprintf("organisation %d", serial.Add(1))}, &org)
	return org.ID
}

// key makes an enrolment key.
func (s *server) key(t *testing.T, organisation string, accept bool) string {
	t.Helper()
	var key struct{ Key string }
	s.admin(t, "POST", "/keys", map[string]any{"organisation": organisation, "auto_accept": accept}, &key)
	if key.Key == "" {
		t.Fatal("a new key has no text")
	}
	return key.Key
}

// machine is what the management API tells about a machine.
type machine struct {
	ID, State, Organisation, Name, Version string
	Tags, Scenarios                        []string
	Metrics, Usage                         json.RawMessage
	Seen                                   struct{ Login, Pull, Push, Metrics, Poll, Heartbeat *time.Time }
}

func (s *server) machine(t *testing.T, id string) machine {
	t.Helper()
	var m machine
	s.admin(t, "GET", "/machines/"+id, nil, &m)
	return m
}

// alert is a stored signal.
type alert struct {
	Machine, Source, Scope, Scenario, Trust, Kind string
	Counts, Fleet                                 bool
	Detail                                        struct {
		UUID      string
		MachineID string `json:"machine_id"`
		Context   []struct{ Key, Value string }
		Decisions []map[string]any
	}
}

// alerts returns up to a thousand stored signals; query is like "machine=abc".
func (s *server) alerts(t *testing.T, query string) []alert {
	t.Helper()
	var page struct{ Alerts []alert }
	s.admin(t, "GET", "/alerts?limit=1000&"+query, nil, &page)
	return page.Alerts
}

// alertsOf returns the stored signals about exactly this source.
func (s *server) alertsOf(t *testing.T, source string) []alert {
	t.Helper()
	return slices.DeleteFunc(s.alerts(t, "source="+source), func(a alert) bool { return a.Source != source })
}

// stored returns how many signals the server keeps.
func (s *server) stored(t *testing.T) int {
	t.Helper()
	var status struct{ Alerts int }
	s.admin(t, "GET", "/status", nil, &status)
	return status.Alerts
}

// listedFor returns for whom a source is listed: "" is everybody.
func (s *server) listedFor(t *testing.T, source string) []string {
	t.Helper()
	var known struct {
		Verdicts []struct {
			Audience string
			Listed   bool
		}
	}
	s.admin(t, "GET", "/sources/"+source, nil, &known)
	var out []string
	for _, v := range known.Verdicts {
		if v.Listed {
			out = append(out, v.Audience)
		}
	}
	return out
}

// address returns a public address that no other test uses. Nothing is ever
// sent there.
func address() string {
	n := serial.Add(1)
	return fmt.Sprintf("45.83.%d.%d", n/250%250, n%250+1)
}

// eventually waits until try returns "", which says that all is as expected.
func eventually(t *testing.T, what string, try func() string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(15 * time.Second); ; <-tick.C {
		wrong := try()
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 15 s: %s", what, wrong)
		}
	}
}

// tail keeps the end of a log.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if len(l.text) > 2<<20 {
		l.text = append(l.text[:0], l.text[len(l.text)-1<<20:]...)
	}
	return len(p), nil
}

// all returns everything that is kept, at least the last megabyte.
func (l *tail) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// String returns the last 16 KiB.
func (l *tail) String() string {
	text := l.all()
	return text[max(0, len(text)-16<<10):]
}
