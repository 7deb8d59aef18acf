package ops

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serve runs a group with one server and returns its URL, a function that
// begins the stop, and the group's result.
func serve(t *testing.T, h http.Handler, stopTimeout time.Duration) (url string, stop func(), result <-chan error) {
	t.Helper()
	ln, err := Listen(t.Context(), "127.0.0.1:0", "listen")
	if err != nil {
		t.Fatal(err)
	}
	srv := NewServer(ServerConfig{Name: "edge", Listener: ln, Handler: h, StopTimeout: stopTimeout})
	var g Group
	g.Add(srv.Service())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return "http://" + srv.Addr().String(), cancel, done
}

func TestStopDrains(t *testing.T) {
	entered := make(chan string, 2)
	finish := make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entered <- r.URL.Path
		if r.URL.Path == "/poll" {
			select {
			case <-Draining(r.Context()):
				_, _ = io.WriteString(w, "nothing yet")
			case <-r.Context().Done():
			}
			return
		}
		<-finish
		_, _ = io.WriteString(w, "stored")
	})
	url, stop, result := serve(t, NewHTTP(h, HTTPConfig{}), 10*time.Second)

	answers := map[string]chan string{"/poll": make(chan string, 1), "/work": make(chan string, 1)}
	for path, answer := range answers {
		go func() {
			resp, err := http.Get(url + path)
			if err != nil {
				answer <- err.Error()
				return
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			answer <- string(b)
		}()
	}
	<-entered
	<-entered
	stop()
	if got := <-answers["/poll"]; got != "nothing yet" {
		t.Errorf("the poll was answered %q", got)
	}
	select {
	case err := <-result:
		t.Fatalf("stopped with a request at work: %v", err)
	default:
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("new connection during the drain: %v", err)
	}
	close(finish)
	if got := <-answers["/work"]; got != "stored" {
		t.Errorf("the request at work was answered %q", got)
	}
	if err := <-result; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestStopCutsWhatDoesNotEnd(t *testing.T) {
	entered := make(chan struct{})
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	})
	url, stop, result := serve(t, h, 50*time.Millisecond)
	failed := make(chan error, 1)
	go func() {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	<-entered
	stop()
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
	if err := <-result; err == nil || !strings.Contains(err.Error(), "shutdown_timeout") {
		t.Errorf("Run: %v, want one that names shutdown_timeout", err)
	}
}

func TestListenErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = Listen(t.Context(), taken.Addr().String(), "metrics.listen")
	want := "address " + taken.Addr().String() + " is in use by another program: stop it or set metrics.listen"
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err = Listen(t.Context(), "192.0.2.1:0", "listen"); err == nil || !strings.Contains(err.Error(), "does not belong to this machine") {
		t.Errorf("foreign address: %v", err)
	}
}
