package swarm

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestServerLife(t *testing.T) {
	s := startAsMuster(t)
	if s.Ready <= 0 || s.Ready > 20*time.Second {
		t.Errorf("ready after %s", s.Ready)
	}
	key, err := s.EnrolmentKey(t.Context())
	if err == nil || !strings.Contains(err.Error(), "exit status 2: started as muster, but not told to play it") {
		t.Errorf("got key %q, %v, want the program's own complaint", key, err)
	}
	t.Setenv(asMuster, "well") // Admin inherits the environment
	if key, err = s.EnrolmentKey(t.Context()); err != nil || key != stubKey {
		t.Errorf("got key %q, %v, want %q", key, err, stubKey)
	}
	if _, err := s.AwaitCounted(t.Context()); err != nil {
		t.Error(err)
	}
	res, err := Run(t.Context(), func() Config {
		cfg := short(Heartbeat, s.URL)
		cfg.Usage = ProcessUsage(s.PID())
		return cfg
	}())
	if err != nil || res.Errors > 0 || res.ServerCPU == nil || *res.ServerRSS < 1<<20 {
		t.Errorf("got %+v, %v, want the server measured", res, err)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if err := s.Kill(); err != nil {
		t.Errorf("killing what has ended: %v", err)
	}
}

func TestServerKilledAndStartedInTheSamePlace(t *testing.T) {
	s := startAsMuster(t)
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Exited():
	default:
		t.Fatal("Kill returned before the process was gone")
	}
	cfg := s.cfg
	cfg.Listen = s.Listen
	again, err := StartServer(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Kill() }()
	if again.URL != s.URL {
		t.Errorf("got %s, want %s again", again.URL, s.URL)
	}
}

func TestServerThatDoesNotStartSaysWhy(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	_, err = StartServer(t.Context(), ServerConfig{Binary: self, DataDir: t.TempDir() + "/data", Env: []string{asMuster + "=broken"}})
	if err == nil || !strings.Contains(err.Error(), "pancake") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v, want its status and the end of its log", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = StartServer(ctx, ServerConfig{Binary: self, DataDir: t.TempDir() + "/data", Env: []string{asMuster + "=well"}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that the context was cancelled", err)
	}
}
