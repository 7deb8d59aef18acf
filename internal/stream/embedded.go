package stream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"muster"
)

// maxPayload is the largest frame that the embedded server takes.
const maxPayload = 8 << 20

// embedded is the server inside the process.
type embedded struct {
	*server.Server
	lock   *os.File
	logger *serverLog
	hadLog bool // the folder held a log before the start
}

// startEmbedded starts a server without a listener over cfg.Dir.
func startEmbedded(cfg Config) (_ *embedded, err error) {
	if cfg.Dir == "" {
		return nil, errors.New("stream: no folder for the log: set Dir")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("stream: making the folder of the log: %w", err)
	}
	e := &embedded{logger: &serverLog{log: cfg.Logger}}
	if e.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			e.stop()
		}
	}()
	if e.hadLog, err = syncLog(filepath.Join(cfg.Dir, server.JetStreamStoreDir, "$G", "streams", streamName)); err != nil {
		return nil, err
	}
	e.Server, err = server.NewServer(&server.Options{
		ServerName:             "muster",
		DontListen:             true,
		NoSigs:                 true,
		NoSystemAccount:        true,
		MaxPayload:             maxPayload,
		JetStream:              true,
		StoreDir:               cfg.Dir,
		SyncAlways:             true,
		JetStreamMaxMemory:     32 << 20, // only what readers' cursors take
		JetStreamMaxStore:      1 << 50,  // the log and each bucket have their own limit
		DisableJetStreamBanner: true,
	})
	if err != nil {
		return nil, fmt.Errorf("stream: configuring the embedded server: %w", err)
	}
	e.SetLoggerV2(e.logger, false, false, false)
	e.Start()
	if !e.ReadyForConnections(requestTimeout) || !e.JetStreamEnabled() {
		return nil, fmt.Errorf("stream: the embedded server did not start in %s: %s", cfg.Dir, e.lastError())
	}
	return e, nil
}

func (e *embedded) stop() {
	if e.Server != nil {
		e.Shutdown()
		e.WaitForShutdown()
	}
	_ = e.lock.Close() // gives up the lock
}

// lastError is the server's last complaint, for an error of ours.
func (e *embedded) lastError() string {
	if s := e.logger.last.Load(); s != nil {
		return *s
	}
	return "no reason given"
}

// lockDir takes the folder for this process. The lock goes with the process,
// however it ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("stream: the folder of the log must be writable: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("stream: the log in %s is in use by another process: stop it, or give this one a folder of its own: %w", dir, err)
	}
	return f, nil
}

// syncLog syncs the newest message file that an earlier process left, and
// tells whether there is a log. A process that was killed may have written its
// last frame without syncing it; once a reader has applied that frame, a power
// cut must not take it back and give its position to another.
func syncLog(dir string) (found bool, err error) {
	files, err := os.ReadDir(filepath.Join(dir, "msgs"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("stream: reading the log: %w", err)
	}
	newest := 0
	for _, file := range files {
		if number, isBlock := strings.CutSuffix(file.Name(), ".blk"); isBlock {
			n, _ := strconv.Atoi(number) // anything else is no message file
			newest = max(newest, n)
		}
	}
	if newest == 0 {
		return true, nil
	}
	f, err := os.Open(filepath.Join(dir, "msgs", fmt.Sprintf("%d.blk", newest)))
	if err != nil {
		return true, fmt.Errorf("stream: reading the log: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return true, fmt.Errorf("stream: syncing the log: %w", err)
	}
	return true, nil
}

// diskGuard refuses writes before the disk is full: the server gives up for
// good on the first write that fails.
type diskGuard struct {
	dir string // "" = no guard
	min int64

	mu      sync.Mutex
	checked time.Time
	err     error
}

func (g *diskGuard) check() error {
	if g.dir == "" {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.checked) < time.Second {
		return g.err
	}
	g.checked, g.err = time.Now(), nil
	var st syscall.Statfs_t
	if err := syscall.Statfs(g.dir, &st); err != nil {
		return nil // no figure is no reason to refuse: the write itself will tell
	}
	if free := int64(st.Bavail) * int64(st.Bsize); free < g.min {
		e := muster.Errorf(muster.Unavailable, "the disk of the signal log is nearly full: %d MiB free in %s, at least %d MiB needed: free some space", free>>20, g.dir, g.min>>20)
		e.RetryAfter = time.Minute
		g.err = e
	}
	return g.err
}

// serverLog passes the server's log on: its notices are our debug.
type serverLog struct {
	log  *slog.Logger
	last atomic.Pointer[string] // newest warning or error
}

func (l *serverLog) Noticef(format string, v ...any) { l.write(slog.LevelDebug, format, v) }
func (l *serverLog) Debugf(format string, v ...any)  { l.write(slog.LevelDebug, format, v) }
func (l *serverLog) Tracef(format string, v ...any)  { l.write(slog.LevelDebug, format, v) }
func (l *serverLog) Warnf(format string, v ...any)   { l.write(slog.LevelWarn, format, v) }
func (l *serverLog) Errorf(format string, v ...any)  { l.write(slog.LevelError, format, v) }
func (l *serverLog) Fatalf(format string, v ...any)  { l.write(slog.LevelError, format, v) }

func (l *serverLog) write(level slog.Level, format string, v []any) {
	if level < slog.LevelWarn && !l.log.Enabled(context.Background(), level) {
		return
	}
	text := fmt.Sprintf(format, v...)
	if level >= slog.LevelWarn {
		l.last.Store(&text)
	}
	l.log.Log(context.Background(), level, "stream: server", "text", text)
}
