package testkit

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Hub serves the shared hub on loopback, as the engine's hub URL template
// wants it.
type Hub struct {
	Template string // for cscli.__hub_url_template__
	Index    string // path of its .index.json
}

// StartHub unpacks and serves the hub for the length of the test.
func StartHub(t testing.TB) *Hub {
	t.Helper()
	dir := HubFolder(t)
	srv := httptest.NewServer(http.StripPrefix("/hub/master/", http.FileServer(http.Dir(dir))))
	t.Cleanup(srv.Close)
	return &Hub{Template: srv.URL + "/hub/%s/%s", Index: filepath.Join(dir, ".index.json")}
}

// HubFolder unpacks the shared hub and returns the folder.
func HubFolder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unpack(Shared(t, "data", "hub.tar.gz"), dir); err != nil {
		t.Fatalf("unpacking the hub: %v", err)
	}
	return dir
}

func unpack(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Clean(h.Name)
		if h.Typeflag == tar.TypeDir {
			if err := root.MkdirAll(name, 0o755); err != nil {
				return err
			}
			continue
		}
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		out, err := root.Create(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, r)
		if err = errors.Join(err, out.Close()); err != nil {
			return err
		}
	}
}

// Guard is a proxy that lets nothing through and remembers who asked. Programs
// that are pointed at it can reach loopback only.
type Guard struct {
	URL string

	mu    sync.Mutex
	asked []string
}

// StartGuard starts a guard; at the end of the test it fails it when anything
// tried to leave.
func StartGuard(t testing.TB) *Guard {
	t.Helper()
	g := &Guard{}
	srv := httptest.NewServer(g)
	t.Cleanup(func() {
		srv.Close()
		for _, host := range g.Asked() {
			t.Errorf("something tried to reach %s, outside this machine", host)
		}
	})
	g.URL = srv.URL
	return g
}

func (g *Guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	g.asked = append(g.asked, r.Method+" "+r.Host)
	g.mu.Unlock()
	http.Error(w, "nothing leaves this machine", http.StatusForbidden)
}

// Asked returns what was asked for.
func (g *Guard) Asked() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.asked...)
}

// environment points a program at the guard. Loopback is never proxied.
func (g *Guard) environment() []string {
	return []string{"HTTP_PROXY=" + g.URL, "HTTPS_PROXY=" + g.URL}
}
