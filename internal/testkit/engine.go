package testkit

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Engine is a real engine in a folder of its own, with parsers and scenarios
// of the hub for ssh and http attacks. It has no Central API until it joins
// one.
type Engine struct {
	Name   string
	Dir    string
	Config string // its config.yaml
	Bin    string // folder of its cscli, for the PATH of muster join
	Relay  *Relay // through which it reaches Muster once it has joined; nil: directly

	owner    testing.TB // the test that it lives as long as
	lapi     string     // its local API's URL
	crowdsec string
	cscli    string
	env      []string
	process  *Process
}

// Crowdsec is what engines are made with.
type Crowdsec struct {
	Hub   *Hub
	Guard *Guard
}

// Logs that an engine reads, see Feed.
const (
	AuthLog   = "auth.log"   // sshd through syslog
	ApacheLog = "apache.log" // combined or common log format
	CaddyLog  = "caddy.log"  // JSON
)

// firstLine is in every log from the start: an engine that stands behind it
// follows the log, see Start.
const firstLine = "the log begins here\n"

// items are what the attack logs need, and none of them wants a data file from
// the Internet.
var items = [][]string{
	{"collections", "crowdsecurity/sshd"},
	{"parsers", "crowdsecurity/syslog-logs", "crowdsecurity/dateparse-enrich", "crowdsecurity/apache2-logs", "crowdsecurity/caddy-logs", "crowdsecurity/http-logs"},
	{"scenarios", "crowdsecurity/http-probing", "crowdsecurity/http-generic-bf"},
}

// NewEngine lays out an engine 1.7.8 and does not start it.
func (c Crowdsec) NewEngine(t testing.TB, name string) *Engine {
	t.Helper()
	e := c.layOut(t, name)
	e.crowdsec = peer(t, "build", "bin", "crowdsec")
	e.cscli = peer(t, "build", "bin", "crowdsec-cli")
	source := crowdsecModule(t)
	e.copyDir(t, filepath.Join(source, "config", "patterns"), "patterns")
	e.copyFile(t, filepath.Join(source, "config", "profiles.yaml"), "profiles.yaml")
	e.writeConfig(t, "  pattern_dir: $E/patterns/\n", "  __hub_url_template__: "+c.Hub.Template+"\n")
	e.Cscli(t, "hub", "update")
	for _, item := range items {
		e.Cscli(t, append([]string{item[0], "install"}, item[1:]...)...)
	}
	e.prepare(t)
	return e
}

// NewDebianEngine lays out Debian's engine 1.4.6, which speaks CAPI v2, with
// the hub of its package: its hub host cannot be changed.
func (c Crowdsec) NewDebianEngine(t testing.TB, name string) *Engine {
	t.Helper()
	e := c.layOut(t, name)
	root := peer(t, "fetch-debian", "work", "debian")
	e.Bin = filepath.Join(root, "usr", "bin")
	e.crowdsec, e.cscli = filepath.Join(e.Bin, "crowdsec"), filepath.Join(e.Bin, "cscli")
	if libs, _ := filepath.Glob(filepath.Join(root, "usr", "lib", "*-linux-*")); len(libs) > 0 {
		e.env = append(e.env, "LD_LIBRARY_PATH="+libs[0])
	}
	e.copyDir(t, filepath.Join(root, "etc", "crowdsec", "patterns"), "patterns")
	e.copyFile(t, filepath.Join(root, "etc", "crowdsec", "profiles.yaml"), "profiles.yaml")
	e.copyDir(t, filepath.Join(root, "usr", "share", "crowdsec", "hub"), "hub")
	for item, from := range map[string]string{
		"parsers/s00-raw/syslog-logs.yaml": "parsers/s00-raw/crowdsecurity/syslog-logs.yaml",
		"parsers/s01-parse/sshd-logs.yaml": "parsers/s01-parse/crowdsecurity/sshd-logs.yaml",
		"scenarios/ssh-bf.yaml":            "scenarios/crowdsecurity/ssh-bf.yaml",
	} {
		link := filepath.Join(e.Dir, item)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(e.Dir, "hub", from), link); err != nil {
			t.Fatal(err)
		}
	}
	e.writeConfig(t, "", "") // unknown keys are fatal in this engine
	e.prepare(t)
	return e
}

// prepare makes the engine's database, with its own log processor in it, as
// packages and the entrypoints of containers do.
func (e *Engine) prepare(t testing.TB) {
	t.Helper()
	e.Cscli(t, "machines", "add", "-a", "--force", "-f", filepath.Join(e.Dir, "local_api_credentials.yaml"))
	e.copyDir(t, filepath.Join(e.Dir, "data"), "data-before")
}

// crowdsecModule returns the folder of the engine's source, which holds the
// patterns that its packages install.
func crowdsecModule(t testing.TB) string {
	t.Helper()
	cmd := exec.Command("go", "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", "github.com/crowdsecurity/crowdsec")
	cmd.Dir = filepath.Join(Root(t), "test", "peers")
	out, err := cmd.Output()
	if dir := strings.TrimSpace(string(out)); err == nil && dir != "" {
		return dir
	}
	t.Fatalf("the engine's source is not in the module cache, run test/peers/build: %v", err)
	return ""
}

func (c Crowdsec) layOut(t testing.TB, name string) *Engine {
	t.Helper()
	dir := t.TempDir()
	e := &Engine{
		owner: t, Name: name, Dir: dir, Config: filepath.Join(dir, "config.yaml"),
		env: environment(c.Guard.environment()...),
	}
	for _, sub := range []string{
		"data", "log", "acquis.d", "notifications", "plugins", "contexts",
		"parsers", "scenarios", "collections", "postoverflows", "hub",
	} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for file, text := range map[string]string{
		"simulation.yaml":             "simulation: false\n",
		"console.yaml":                "share_manual_decisions: true\nshare_custom: true\nshare_tainted: true\nshare_context: true\nconsole_management: true\n",
		"acquis.yaml":                 acquisition(dir),
		"local_api_credentials.yaml":  "",
		"online_api_credentials.yaml": "", // as packages leave it before a registration
		AuthLog:                       firstLine,
		ApacheLog:                     firstLine,
		CaddyLog:                      firstLine,
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

func acquisition(dir string) string {
	var docs []string
	for _, l := range [...]struct{ file, label string }{{AuthLog, "syslog"}, {ApacheLog, "apache2"}, {CaddyLog, "caddy"}} {
		docs = append(docs, fmt.Sprintf("filenames: [%s]\nlabels: {type: %s}\n", filepath.Join(dir, l.file), l.label))
	}
	return strings.Join(docs, "---\n")
}

const engineConfig = `common: {log_media: stdout, log_level: info, log_dir: $E/log/}
config_paths:
  config_dir: $E/
  data_dir: $E/data/
  simulation_path: $E/simulation.yaml
  hub_dir: $E/hub/
  index_path: $E/hub/.index.json
  notification_dir: $E/notifications/
  plugin_dir: $E/plugins/
$PATHS
crowdsec_service: {acquisition_path: $E/acquis.yaml, acquisition_dir: $E/acquis.d, parser_routines: 1}
cscli:
  output: human
  color: "no"
  hub_branch: master
$CSCLI
db_config: {type: sqlite, db_path: $E/data/crowdsec.db, use_wal: true, log_level: info, flush: {max_items: 5000, max_age: 7d}}
api:
  client: {insecure_skip_verify: false, credentials_path: $E/local_api_credentials.yaml}
  server:
    log_level: info
    listen_uri: $LAPI
    profiles_path: $E/profiles.yaml
    console_path: $E/console.yaml
    online_client: {credentials_path: $E/online_api_credentials.yaml}
    trusted_ips: [127.0.0.1, "::1"]
prometheus: {enabled: false}
`

func (e *Engine) writeConfig(t testing.TB, paths, cscli string) {
	t.Helper()
	lapi := FreeAddr(t)
	e.lapi = "http://" + lapi
	text := strings.NewReplacer("$PATHS\n", paths, "$CSCLI\n", cscli, "$LAPI", lapi).Replace(engineConfig)
	text = strings.ReplaceAll(text, "$E", e.Dir)
	if err := os.WriteFile(e.Config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (e *Engine) copyDir(t testing.TB, from, to string) {
	t.Helper()
	// The module cache is read-only, and a package's hub has links.
	cmd := exec.Command("cp", "-rL", "--no-preserve=mode", from+"/.", filepath.Join(e.Dir, to))
	if err := os.MkdirAll(filepath.Join(e.Dir, to), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("copying %s: %v\n%s", from, err, out)
	}
}

func (e *Engine) copyFile(t testing.TB, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(filepath.Join(e.Dir, to), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Cscli runs the engine's cscli and returns what it prints on stdout; a
// failure fails the test.
func (e *Engine) Cscli(t testing.TB, args ...string) string {
	t.Helper()
	out, err := e.TryCscli(t, args...)
	if err != nil {
		t.Fatalf("%s: cscli %s: %v", e.Name, strings.Join(args, " "), err)
	}
	return out
}

// TryCscli is Cscli for a command that may fail; the error has its stderr.
func (e *Engine) TryCscli(t testing.TB, args ...string) (string, error) {
	t.Helper()
	return runLogged(t, e.Name, e.cscliCommand(args...))
}

// CscliLog runs cscli and returns what it logged, which goes to stderr.
func (e *Engine) CscliLog(t testing.TB, args ...string) string {
	t.Helper()
	_, log, err := runBoth(t, e.Name, e.cscliCommand(args...))
	if err != nil {
		t.Fatalf("%s: cscli %s: %v", e.Name, strings.Join(args, " "), err)
	}
	return log
}

func (e *Engine) cscliCommand(args ...string) *exec.Cmd {
	cmd := exec.Command(e.cscli, append([]string{"-c", e.Config}, args...)...)
	cmd.Dir, cmd.Env = e.Dir, e.env
	return cmd
}

// ForgetAll takes the engine's database back to what it was before the first
// start: a container does that whose data is not on a volume. It must not run.
func (e *Engine) ForgetAll(t testing.TB) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(e.Dir, "data")); err != nil {
		t.Fatal(err)
	}
	e.copyDir(t, filepath.Join(e.Dir, "data-before"), "data")
}

// Launch starts the engine and does not wait for it. It runs until Stop, Kill or
// the end of the test that it was made with.
func (e *Engine) Launch(t testing.TB) {
	t.Helper()
	cmd := exec.Command(e.crowdsec, "-c", e.Config)
	cmd.Dir, cmd.Env = e.Dir, e.env
	e.process = StartProcess(e.owner, e.Name, cmd)
}

// Start launches the engine and waits until its local API answers and it follows
// its logs: it reads only what is written after that.
func (e *Engine) Start(t testing.TB) {
	t.Helper()
	e.Launch(t)
	client := &http.Client{Timeout: 2 * time.Second}
	defer client.CloseIdleConnections()
	Eventually(t, 60*time.Second, e.Name+" is up", func() string {
		if how := e.process.Exited(); how != "" {
			t.Fatalf("%s %s", e.Name, how)
		}
		resp, err := client.Get(e.lapi + "/health")
		if err != nil {
			return err.Error()
		}
		resp.Body.Close()
		for _, log := range []string{AuthLog, ApacheLog, CaddyLog} {
			if !follows(e.process.PID(), filepath.Join(e.Dir, log)) {
				return "it does not follow " + log
			}
		}
		return ""
	})
}

// follows reports whether a process has read, or jumped, to the end of a file.
func follows(pid int, path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	fds := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(fds)
	for _, fd := range entries {
		if target, _ := os.Readlink(filepath.Join(fds, fd.Name())); target != path {
			continue
		}
		var pos int64
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd.Name()))
		if n, _ := fmt.Sscanf(string(text), "pos: %d", &pos); n == 1 && pos >= info.Size() {
			return true
		}
	}
	return false
}

// Stop stops the engine and waits for its end.
func (e *Engine) Stop(t testing.TB) {
	t.Helper()
	e.process.Stop(t)
}

// Kill ends the engine at once, as running out of memory does.
func (e *Engine) Kill() { e.process.Kill() }

// Exited returns how the engine ended, or "" while it runs.
func (e *Engine) Exited() string { return e.process.Exited() }

// Restart stops the engine and starts it again.
func (e *Engine) Restart(t testing.TB) {
	t.Helper()
	e.Stop(t)
	e.Start(t)
}

// Output returns what the engine wrote since it was started last.
func (e *Engine) Output() string { return e.process.Output() }

// Feed appends lines to a log that the engine reads.
func (e *Engine) Feed(t testing.TB, log string, lines []string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(e.Dir, log), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(strings.Join(lines, "\n") + "\n")
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Decision is an active decision of an engine, as cscli shows it: without its
// uuid.
type Decision struct {
	Origin   string `json:"origin"`
	Type     string `json:"type"`
	Scope    string `json:"scope"`
	Value    string `json:"value"`
	Scenario string `json:"scenario"`
	Duration string `json:"duration"`
}

// Decisions returns all of the engine's active decisions, those of its Central
// API included.
func (e *Engine) Decisions(t testing.TB) []Decision {
	t.Helper()
	// Tests poll this: only a failure is worth a place in the log.
	out, err := e.cscliCommand("decisions", "list", "-a", "-o", "json").Output()
	var alerts []struct{ Decisions []Decision }
	if err == nil {
		err = json.Unmarshal(out, &alerts)
	}
	if err != nil {
		t.Fatalf("%s: reading its decisions: %v\n%s", e.Name, err, out)
	}
	var all []Decision
	for _, a := range alerts {
		all = append(all, a.Decisions...)
	}
	return all
}
