package ops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// Listen opens a TCP listener on address ("host:port"; port 0 picks a free
// one). setting names the configuration key that address came from: an address
// that cannot be had is answered with what to change.
func Listen(ctx context.Context, address, setting string) (net.Listener, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		return ln, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("address %s is in use by another program: stop it or set %s: %w", address, setting, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("address %s does not belong to this machine: set %s to one that does, or to :port for all: %w", address, setting, err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("address %s may not be opened by this user: set %s to a port above 1023: %w", address, setting, err)
	default:
		return nil, fmt.Errorf("listen on %s (%s): %w", address, setting, err)
	}
}

// ServerConfig configures a Server.
type ServerConfig struct {
	Name     string // shown in logs and errors
	Listener net.Listener
	Also     net.Listener // served as well, and closed at the stop; nil = none
	Handler  http.Handler // usually made by NewHTTP
	Log      *slog.Logger // nil discards
	// StopTimeout bounds the drain; zero means 20 s. What still runs then is cut.
	StopTimeout time.Duration
}

// Server serves HTTP on one listener until it is stopped, and drains then: it
// takes no new connections, tells waiting handlers (Draining), and lets the
// requests that it has taken end.
type Server struct {
	cfg      ServerConfig
	http     *http.Server
	drain    chan struct{}
	stopOnce sync.Once
}

// NewServer prepares a Server. It bounds headers to 16 KiB and 10 s, and idle
// connections to 2 minutes; a request's own time is bounded by NewHTTP.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = 20 * time.Second
	}
	s := &Server{cfg: cfg, drain: make(chan struct{})}
	base := context.WithValue(context.Background(), drainKey{}, (<-chan struct{})(s.drain))
	s.http = &http.Server{
		Handler:           cfg.Handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.cfg.Listener.Addr() }

// Service returns s as a part of a Group.
func (s *Server) Service() Service {
	return Service{Name: s.cfg.Name, Run: s.run, Stop: s.stop, StopTimeout: s.cfg.StopTimeout}
}

// run serves until stop, whatever ctx does: the drain decides when to end.
func (s *Server) run(context.Context) error {
	also := make(chan error, 1)
	if s.cfg.Also == nil {
		also <- nil
	} else {
		go func() { also <- s.http.Serve(s.cfg.Also) }()
	}
	err := s.http.Serve(s.cfg.Listener)
	if s.cfg.Also != nil {
		_ = s.cfg.Also.Close() // it has no more to give
	}
	_ = <-also // it ends with the other, and for no reason of its own
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", s.Addr(), err)
	}
	return nil
}

func (s *Server) stop(ctx context.Context) error {
	s.stopOnce.Do(func() { close(s.drain) })
	err := s.http.Shutdown(ctx)
	if err == nil {
		return nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("requests were still running after %s and were cut: shutdown_timeout allows more", s.cfg.StopTimeout)
	}
	return errors.Join(err, s.http.Close())
}
