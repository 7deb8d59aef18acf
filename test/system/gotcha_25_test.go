package system

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"muster/internal/roles"
)

// TestGotcha25HubETag: cscli asks with HEAD and then GET, sends the SHA-256 of
// the file that it has without quotes, and reads no ETag. What it has is the
// uncompressed file, and one of two flavours of the index. The hub's digests are
// also what reports are checked against, as the folder has them now.
func TestGotcha25HubETag(t *testing.T) {
	t.Parallel()
	const text, changed = "name: crowdsecurity/ssh-bf\n", "name: crowdsecurity/ssh-bf\n# changed\n"
	dir := t.TempDir()
	write := func(text string, versions ...string) {
		t.Helper()
		all := map[string]any{}
		latest := ""
		for n, v := range versions {
			latest = []string{"0.1", "0.2"}[n]
			all[latest] = map[string]string{"digest": sum(v)}
		}
		index, err := json.Marshal(map[string]any{"scenarios": map[string]any{"crowdsecurity/ssh-bf": map[string]any{
			"path": "scenarios/crowdsecurity/ssh-bf.yaml", "version": latest, "versions": all,
		}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, "scenarios/crowdsecurity"), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{".index.json": string(index), "scenarios/crowdsecurity/ssh-bf.yaml": text} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(text, text)
	s := start(t, func(c *roles.Config) { c.Hub.Dir = dir })
	ask := func(method, path string, header ...string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(header); n += 2 {
			req.Header.Set(header[n], header[n+1])
		}
		resp, err := s.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(body)
	}
	digests := map[string]bool{}
	for _, path := range []string{"/hub/master/.index.json", "/hub/v1.7.8/.index.json?with_content=true", "/hub/master/scenarios/crowdsecurity/ssh-bf.yaml"} {
		resp, body := ask("GET", path)
		if resp.StatusCode != 200 || body == "" {
			t.Fatalf("%s: %s %q", path, resp.Status, body)
		}
		digests[sum(body)] = true
		for _, method := range []string{"HEAD", "GET"} {
			if resp, _ := ask(method, path, "If-None-Match", sum(body), "Accept-Encoding", "gzip"); resp.StatusCode != 304 {
				t.Errorf("%s %s: expected 304 for the digest of what it sends, got %s", method, path, resp.Status)
			}
			if resp, _ := ask(method, path, "If-None-Match", sum("x"), "Accept-Encoding", "gzip"); resp.StatusCode != 200 {
				t.Errorf("%s %s: expected 200 for another digest, got %s", method, path, resp.Status)
			}
		}
	}
	if len(digests) != 3 {
		t.Error("two of three files are the same")
	}
	for _, path := range []string{"/hub/master/.git/config", "/hub/master/scenarios/crowdsecurity/none.yaml", "/hub/nightly/.index.json", "/hub/"} {
		if resp, body := ask("GET", path); resp.StatusCode != 404 || body == "" {
			t.Errorf("%s: expected 404 with a reason, got %s %q", path, resp.Status, body)
		}
	}

	c := s.member(t, engine178, s.organisation(t))
	report := func(hash string) (counts bool) {
		t.Helper()
		source := address()
		a := attack(source)
		a["scenario_hash"] = hash
		c.push(t, a)
		eventually(t, "the report is stored", func() string {
			all := s.alertsOf(t, source)
			if len(all) == 0 {
				return "not yet"
			}
			counts = all[0].Counts
			return ""
		})
		return counts
	}
	if !report(sum(text)) || report(sum(changed)) {
		t.Error("expected a report of the hub's scenario to count, and one of a changed scenario not to")
	}
	write(changed, text, changed)
	s.admin(t, "POST", "/hub/verify", nil, nil)
	if !report(sum(text)) || !report(sum(changed)) {
		t.Error("expected reports of both versions to count once the hub has both, without a restart")
	}
}

func sum(text string) string {
	digest := sha256.Sum256([]byte(text))
	return hex.EncodeToString(digest[:])
}
