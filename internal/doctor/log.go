package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// maxLog is how much of the end of a log is read.
const maxLog = 4 << 20

// tail returns whole lines from the end of a file, at most n bytes.
func tail(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", path)
	}
	from := max(info.Size()-n, 0)
	text, err := io.ReadAll(io.NewSectionReader(f, from, n))
	if err != nil {
		return nil, err
	}
	if from > 0 {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	return text, nil
}

// HasJournal reports whether systemd runs this machine.
func HasJournal() bool {
	_, err := os.Stat("/run/systemd/system")
	if err != nil {
		return false
	}
	_, err = exec.LookPath("journalctl")
	return err == nil
}

// Journal returns the newest 2000 lines that systemd keeps of the engine.
func Journal(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "journalctl", "-u", "crowdsec", "-n", "2000", "--no-pager", "-o", "short-iso")
	cmd.WaitDelay = time.Second
	out := &limited{left: maxLog}
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("asking the journal (run this as root?): %w", err)
	}
	if out.Len() == 0 || bytes.HasPrefix(out.Bytes(), []byte("-- No entries --")) {
		return nil, errors.New("the journal has nothing about crowdsec (run this as root?)")
	}
	return out.Bytes(), nil
}

// limited keeps the first bytes that are written to it and drops the rest.
type limited struct {
	bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	keep := min(len(p), l.left)
	l.left -= keep
	l.Buffer.Write(p[:keep])
	return len(p), nil
}
