package testkit

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Muster is `muster serve` as a process, with a data directory of its own.
type Muster struct {
	URL     string
	Metrics string // URL of its Prometheus metrics
	DataDir string

	owner   testing.TB // the test that it lives as long as
	bin     string
	env     []string
	listen  string
	process *Process
}

// NewMuster makes a Muster that is not running yet. env are settings like
// MUSTER_SECTION__KEY=value.
func NewMuster(t testing.TB, env ...string) *Muster {
	t.Helper()
	listen, metrics := FreeAddr(t), FreeAddr(t)
	return &Muster{
		URL: "http://" + listen, Metrics: "http://" + metrics + "/metrics", DataDir: t.TempDir(),
		owner: t, bin: MusterBinary(t), listen: listen,
		env: environment(append([]string{"MUSTER_METRICS__LISTEN=" + metrics}, env...)...),
	}
}

// Start starts the server and waits until it is ready. It runs until Kill or
// the end of the test that NewMuster was called with.
func (m *Muster) Start(t testing.TB) {
	t.Helper()
	cmd := exec.Command(m.bin, "serve", "--data-dir", m.DataDir, "--listen", m.listen)
	cmd.Env = m.env
	m.process = StartProcess(m.owner, "muster", cmd)
	client := &http.Client{Timeout: 2 * time.Second}
	defer client.CloseIdleConnections()
	Eventually(t, 30*time.Second, "muster is ready", func() string {
		if how := m.process.Exited(); how != "" {
			t.Fatalf("muster %s", how)
		}
		resp, err := client.Get(m.URL + "/readyz")
		if err != nil {
			return err.Error()
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return resp.Status
		}
		return ""
	})
}

// Kill ends the server at once, as a power cut would.
func (m *Muster) Kill() { m.process.Kill() }

// Output returns what the server has logged since it was started last.
func (m *Muster) Output() string { return m.process.Output() }

// Run runs another muster command and returns its stdout; a failure fails the
// test.
func (m *Muster) Run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := m.TryRun(t, nil, args...)
	if err != nil {
		t.Fatalf("muster %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// TryRun is Run for a command that may fail, with more environment.
func (m *Muster) TryRun(t testing.TB, env []string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(m.bin, args...)
	cmd.Env = append(m.env[:len(m.env):len(m.env)], env...)
	return runLogged(t, "muster", cmd)
}

// Admin runs a command that speaks to the server through its data directory.
func (m *Muster) Admin(t testing.TB, args ...string) string {
	t.Helper()
	return m.Run(t, append(args, "--data-dir", m.DataDir)...)
}

// Query runs a command that speaks to the server, with --json, and decodes what
// it prints into out. Tests poll with it, so only a failure is logged.
func (m *Muster) Query(t testing.TB, out any, args ...string) {
	t.Helper()
	cmd := exec.Command(m.bin, append(args, "--json", "--data-dir", m.DataDir)...)
	cmd.Env = m.env
	text, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(text, out)
	}
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			text = exit.Stderr
		}
		t.Fatalf("muster %s: %v\n%s", strings.Join(args, " "), err, text)
	}
}

// Metric returns the value of a series as Prometheus writes it, like
// `muster_signals_refused_total{reason="reserved"}`; a series that is not there
// is 0.
func (m *Muster) Metric(t testing.TB, series string) float64 {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Get(m.Metrics)
	if err != nil {
		t.Fatalf("metrics: %v", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %s, %v", resp.Status, err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), series+" "); ok {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatalf("metrics: %q: %v", line, err)
			}
			return v
		}
	}
	return 0
}

// Organisation makes an organisation and returns its id; more are further flags.
func (m *Muster) Organisation(t testing.TB, name string, more ...string) string {
	t.Helper()
	return lastLine(m.Admin(t, append([]string{"admin", "org", "create", name}, more...)...))
}

// EnrolmentKey makes a key for an organisation whose machines need no
// acceptance.
func (m *Muster) EnrolmentKey(t testing.TB, organisation string) string {
	t.Helper()
	return lastLine(m.Admin(t, "admin", "key", "create", "--accept", "--org", organisation))
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// Join connects an engine with `muster join`; more are further flags.
func (m *Muster) Join(t testing.TB, e *Engine, more ...string) string {
	t.Helper()
	var env []string
	if e.Bin != "" {
		env = append(env, "PATH="+e.Bin+string(os.PathListSeparator)+os.Getenv("PATH"))
		for _, kv := range e.env {
			if strings.HasPrefix(kv, "LD_LIBRARY_PATH=") {
				env = append(env, kv)
			}
		}
	}
	url := m.URL
	if e.Relay != nil {
		url = e.Relay.URL
	}
	args := append([]string{"join", url, "--crowdsec-config", e.Config, "--name", e.Name}, more...)
	out, err := m.TryRun(t, env, args...)
	if err != nil {
		t.Fatalf("muster join of %s: %v", e.Name, err)
	}
	return out
}
