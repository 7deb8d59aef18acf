package roles

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseClouds(t *testing.T) {
	got, err := parseClouds([]string{"aws=/x/ip-ranges.json", "my-edge.v2=https://example.org/ips?v=4"})
	if diff := cmp.Diff(map[string]string{"aws": "/x/ip-ranges.json", "my-edge.v2": "https://example.org/ips?v=4"}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for text, want := range map[string]string{
		"aws": "expected name=path", "=x": "expected name=path", "AWS=x": "in lower case", "aws/s3=x": "expected name=path", "aws=": "expected name=path",
		"aws=ftp://x/": "", "aws=https://me:hunter2@example.org/": "without user and password", "aws=x,aws=y": "there twice",
	} {
		_, err := parseClouds(strings.Split(text, ","))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: expected %q, got %v", text, want, err)
		}
	}
}

func TestRangeFetcher(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/ips", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/large":
			_, _ = w.Write(make([]byte, maxRangeFile+1))
		case "/ips":
			_, _ = w.Write([]byte("192.0.2.0/24\n"))
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	open, guarded := newRangeFetcher(true), newRangeFetcher(false)
	for path, want := range map[string]string{"/ips": "", "/moved": "", "/loop": "redirects too often", "/large": "larger than", "/x?key=hunter2": "got 404"} {
		got, err := open.Fetch(t.Context(), server.URL+path)
		if want == "" && (err != nil || string(got) != "192.0.2.0/24\n") {
			t.Errorf("%s: %q, %v", path, got, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: expected %q, got %v", path, want, err)
		}
	}
	// The server is on this host: whoever can name a URL must not get at it.
	for _, url := range []string{server.URL + "/ips", strings.Replace(server.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1) + "/ips"} {
		if _, err := guarded.Fetch(t.Context(), url); err == nil || !strings.Contains(err.Error(), "private or reserved") {
			t.Errorf("%s: expected to be refused, got %v", url, err)
		}
	}
	file := filepath.Join(t.TempDir(), "ips.txt")
	if err := os.WriteFile(file, []byte("192.0.2.0/24\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := guarded.Fetch(t.Context(), file); err != nil || string(got) != "192.0.2.0/24\n" {
		t.Errorf("a file: %q, %v", got, err)
	}
	if _, err := guarded.Fetch(t.Context(), file+"x"); !os.IsNotExist(err) {
		t.Errorf("no file: %v", err)
	}
}
