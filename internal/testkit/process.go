package testkit

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a program of a test's own, whose output goes to the test's log
// line by line. It ends with the test, or with the test binary.
type Process struct {
	name string
	cmd  *exec.Cmd
	log  *logWriter
	done chan struct{}
	err  error // valid when done is closed
}

// StartProcess starts cmd. It is stopped at the end of the test.
func StartProcess(t testing.TB, name string, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{name: name, cmd: cmd, log: &logWriter{t: t, name: name}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.WaitDelay = 5 * time.Second
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		p.log.flush()
		close(p.done)
	}()
	t.Cleanup(func() { p.Stop(t) })
	return p
}

// Stop asks the process to end, and kills it after 20 seconds.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("stopping %s: %v", p.name, err)
	}
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		t.Errorf("%s did not stop within 20 s: killed", p.name)
		p.Kill()
	}
}

// Kill ends the process at once, as a power cut would.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// PID returns the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited returns how the process ended, or "" while it runs.
func (p *Process) Exited() string {
	select {
	case <-p.done:
		return "ended: " + p.cmd.ProcessState.String()
	default:
		return ""
	}
}

// Output returns what the process has written so far.
func (p *Process) Output() string { return p.log.text() }

// logWriter passes whole lines to the test's log and keeps them.
type logWriter struct {
	t    testing.TB
	name string

	mu   sync.Mutex
	all  bytes.Buffer
	rest int // start of the line that has no end yet
}

func (w *logWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all.Write(b)
	for {
		line, _, ok := bytes.Cut(w.all.Bytes()[w.rest:], []byte("\n"))
		if !ok {
			return len(b), nil
		}
		w.rest += len(line) + 1
		w.t.Logf("%s| %s", w.name, line)
	}
}

func (w *logWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if tail := w.all.Bytes()[w.rest:]; len(tail) > 0 {
		w.t.Logf("%s| %s", w.name, tail)
		w.rest = w.all.Len()
	}
}

func (w *logWriter) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.String()
}

// runLogged runs cmd to its end, logs it, and returns its output.
func runLogged(t testing.TB, name string, cmd *exec.Cmd) (stdout string, err error) {
	t.Helper()
	stdout, _, err = runBoth(t, name, cmd)
	return stdout, err
}

// runBoth is runLogged for programs that say what matters on stderr.
func runBoth(t testing.TB, name string, cmd *exec.Cmd) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = 5 * time.Second
	dieWithParent(cmd)
	err = cmd.Run()
	t.Logf("%s$ %s\n%s%s", name, strings.Join(cmd.Args[1:], " "), out.String(), errs.String())
	if err != nil {
		err = errors.Join(err, errors.New(strings.TrimSpace(errs.String())))
	}
	return out.String(), errs.String(), err
}

// environment is the test's own, without what would lead a program elsewhere.
func environment(add ...string) []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasSuffix(strings.ToLower(name), "_proxy") && !strings.HasPrefix(name, "MUSTER_") {
			env = append(env, kv)
		}
	}
	return append(env, add...)
}
