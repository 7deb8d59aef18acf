package testkit

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A guard that saw nothing would prove nothing.
func TestGuardSeesWhatWantsToLeave(t *testing.T) {
	g := &Guard{}
	srv := httptest.NewServer(g)
	defer srv.Close()
	proxy, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{Proxy: http.ProxyURL(proxy)}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	resp, err := client.Get("http://outside.invalid/a")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("plain: expected 403, got %s", resp.Status)
	}
	if resp, err := client.Get("https://outside.invalid/b"); err == nil {
		resp.Body.Close()
		t.Error("TLS: expected the tunnel to be refused")
	}
	want := []string{"GET outside.invalid", "CONNECT outside.invalid:443"}
	if diff := cmp.Diff(want, g.Asked()); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

func TestFollowsIsAboutTheEnd(t *testing.T) {
	if _, err := os.Stat("/proc/self/fdinfo"); err != nil {
		t.Skip("no /proc here")
	}
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(firstLine), 0o600); err != nil {
		t.Fatal(err)
	}
	if follows(os.Getpid(), path) {
		t.Error("a file that is not open counts as followed")
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if follows(os.Getpid(), path) {
		t.Error("a file that is open at its beginning counts as followed")
	}
	if _, err := f.Seek(0, 2); err != nil {
		t.Fatal(err)
	}
	if !follows(os.Getpid(), path) {
		t.Error("a file that is open at its end does not count as followed")
	}
}
