package swarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ServerConfig says how StartServer runs a server of its own.
type ServerConfig struct {
	Binary  string   // the muster program
	DataDir string   // its data; existing data is taken up
	Listen  string   // "" takes a free port of 127.0.0.1
	Env     []string // settings, as MUSTER_…=value; those of this process's environment are left out
	Log     string   // file for its output, appended to; "" is DataDir with .log at its end
}

// Server is a muster process on this machine, started for a test or a
// measurement.
type Server struct {
	URL     string
	Metrics string        // URL of its metrics page
	Listen  string        // for a start in the same place
	Ready   time.Duration // from the start of the process to its first ready answer

	cfg    ServerConfig
	cmd    *exec.Cmd
	start  time.Time
	exited chan struct{} // closed when the process has ended
	err    error         // how; set before exited is closed
}

const (
	readyTimeout = 30 * time.Second
	readyPoll    = 5 * time.Millisecond
	stopTimeout  = 30 * time.Second
)

// StartServer starts `muster serve` and waits until it is ready. When ctx ends
// before that, or after 30 s, the process is killed. An error quotes the end of
// the server's log.
func StartServer(ctx context.Context, cfg ServerConfig) (*Server, error) {
	s, err := Launch(cfg)
	if err != nil {
		return nil, err
	}
	if err := s.AwaitReady(ctx); err != nil {
		_ = s.Kill()
		return nil, fmt.Errorf("%w\n%s", err, s.logTail())
	}
	return s, nil
}

// Launch starts `muster serve` and does not wait for it.
func Launch(cfg ServerConfig) (*Server, error) {
	if cfg.Log == "" {
		cfg.Log = filepath.Clean(cfg.DataDir) + ".log"
	}
	listen, metrics := cfg.Listen, ""
	for _, addr := range []*string{&listen, &metrics} {
		if *addr != "" {
			continue
		}
		free, err := freeAddress()
		if err != nil {
			return nil, err
		}
		*addr = free
	}
	log, err := os.OpenFile(cfg.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own descriptor
	s := &Server{
		URL: "http://" + listen, Metrics: "http://" + metrics + "/metrics", Listen: listen,
		cfg: cfg, exited: make(chan struct{}),
	}
	s.cmd = exec.Command(cfg.Binary, "serve", "--data-dir", cfg.DataDir, "--listen", listen)
	s.cmd.Env = append(append(cleanEnviron(), cfg.Env...), "MUSTER_METRICS__LISTEN="+metrics)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	detach(s.cmd)
	s.start = time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s serve: %w", cfg.Binary, err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.exited)
	}()
	return s, nil
}

// cleanEnviron is the environment without Muster's own settings: they are those
// of another server, whose database and data must not be touched.
func cleanEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MUSTER_") })
}

// freeAddress returns an address that nobody listens on at the moment.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// PID is the process id.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Exited is closed when the process has ended, for whatever reason.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// ending says how the process ended.
func (s *Server) ending() error {
	if s.err == nil {
		return errors.New("exit status 0")
	}
	return s.err
}

// AwaitReady waits for the first ready answer, for at most 30 s.
func (s *Server) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("the server was not ready within %s", readyTimeout))
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	for {
		res, err := client.Get(s.URL + "/readyz")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				s.Ready = time.Since(s.start)
				return nil
			}
		}
		select {
		case <-poll.C:
		case <-s.exited:
			return fmt.Errorf("the server ended before it was ready: %w", s.ending())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Stop asks the server to end (SIGTERM) and waits; after 30 s it is killed,
// which is an error.
func (s *Server) Stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	late := time.NewTimer(stopTimeout)
	defer late.Stop()
	select {
	case <-s.exited:
	case <-late.C:
		_ = s.Kill()
		return fmt.Errorf("the server did not end within %s of SIGTERM and was killed\n%s", stopTimeout, s.logTail())
	}
	if s.err != nil {
		return fmt.Errorf("the server ended badly: %w\n%s", s.err, s.logTail())
	}
	return nil
}

// again starts the server that has ended anew, in the same place, and waits
// until it is ready.
func (s *Server) again(ctx context.Context) error {
	cfg := s.cfg
	cfg.Listen = s.Listen
	next, err := StartServer(ctx, cfg)
	if err == nil {
		*s = *next
	}
	return err
}

// Kill ends the server at once (SIGKILL) and waits until it is gone.
func (s *Server) Kill() error {
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-s.exited
	return nil
}

// Admin runs `muster admin …` on the server's data directory and returns what
// it printed.
func (s *Server) Admin(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.cfg.Binary, append(append([]string{"admin"}, args...), "--data-dir", s.cfg.DataDir)...)
	cmd.Env = cleanEnviron()
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("muster admin %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(complaint.Bytes()))
	}
	return out, nil
}

// EnrolmentKey makes a key that accepts machines at once.
func (s *Server) EnrolmentKey(ctx context.Context) (string, error) {
	return s.lastLine(ctx, "key", "create", "--accept")
}

// Organisation makes an organisation with a fleet policy (off, hub or all), and
// a key that accepts machines into it at once.
func (s *Server) Organisation(ctx context.Context, name, fleet string) (key string, err error) {
	id, err := s.lastLine(ctx, "org", "create", name, "--fleet", fleet)
	if err != nil {
		return "", err
	}
	return s.lastLine(ctx, "key", "create", "--accept", "--org", id)
}

// lastLine is where admin commands print what they made.
func (s *Server) lastLine(ctx context.Context, args ...string) (string, error) {
	out, err := s.Admin(ctx, args...)
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if last == "" {
		return "", fmt.Errorf("muster admin %s %s: expected what it made on the last line, got nothing", args[0], args[1])
	}
	return last, nil
}

// Lag returns how many accepted entries are not yet counted.
func (s *Server) Lag(ctx context.Context) (int64, error) {
	m, err := Scrape(ctx, s.Metrics)
	if err != nil {
		return 0, err
	}
	lag, ok := m["muster_tally_lag_entries"]
	if !ok || math.IsNaN(lag) {
		return 0, errors.New("the metrics page has no value for muster_tally_lag_entries")
	}
	return int64(lag), nil
}

// AwaitCounted waits until the server has counted all it accepted, and returns
// how long that took.
func (s *Server) AwaitCounted(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		lag, err := s.Lag(ctx)
		if err != nil {
			return 0, err
		}
		if lag == 0 {
			return time.Since(start), nil
		}
		select {
		case <-poll.C:
		case <-s.exited:
			return 0, fmt.Errorf("the server ended with %d entries not counted: %w", lag, s.ending())
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: %d entries not counted", context.Cause(ctx), lag)
		}
	}
}

// logTail is the end of the server's log, for error messages.
func (s *Server) logTail() string {
	log, err := os.ReadFile(s.cfg.Log)
	if err != nil {
		return ""
	}
	const enough = 2000
	if len(log) > enough {
		log = log[len(log)-enough:]
	}
	return string(bytes.TrimSpace(log))
}
