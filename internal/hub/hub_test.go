package hub

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/internal/policy"
	"muster/internal/testkit"
)

// tiny is a hub by hand.
type tiny map[string]map[string]map[string]any

const sshBF = "type: leaky\nname: acme/ssh-bf\n"

// add puts an item into the index, with content or without.
func (h tiny) add(kind, name, path, body string, more map[string]any) map[string]any {
	if h[kind] == nil {
		h[kind] = map[string]map[string]any{}
	}
	e := map[string]any{
		"path": path, "version": "0.2", "labels": map[string]any{"confidence": 3, "spoofable": 0, "behavior": "ssh:bruteforce"},
		"versions": map[string]any{
			"0.1": map[string]any{"digest": digestOf([]byte("old " + body)), "deprecated": false},
			"0.2": map[string]any{"digest": digestOf([]byte(body)), "deprecated": false},
		},
	}
	for k, v := range more {
		e[k] = v
	}
	h[kind][name] = e
	return e
}

func (h tiny) write(t testing.TB, dir string) {
	t.Helper()
	raw, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, indexName, string(raw))
}

func write(t testing.TB, dir, name, body string) {
	t.Helper()
	full := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
}

// small is a folder with one scenario, one parser and a collection of both.
func small(t testing.TB) (dir string, h tiny) {
	t.Helper()
	dir, h = t.TempDir(), tiny{}
	h.add("scenarios", "acme/ssh-bf", "scenarios/acme/ssh-bf.yaml", sshBF, nil)
	h.add("parsers", "acme/sshd-logs", "parsers/s01-parse/acme/sshd-logs.yaml", "name: acme/sshd-logs\n", map[string]any{"stage": "s01-parse"})
	h.add("collections", "acme/sshd", "collections/acme/sshd.yaml", "name: acme/sshd\n", map[string]any{"scenarios": []string{"acme/ssh-bf"}, "parsers": []string{"acme/sshd-logs"}})
	write(t, dir, "scenarios/acme/ssh-bf.yaml", sshBF)
	write(t, dir, "parsers/s01-parse/acme/sshd-logs.yaml", "name: acme/sshd-logs\n")
	write(t, dir, "collections/acme/sshd.yaml", "name: acme/sshd\n")
	h.write(t, dir)
	return dir, h
}

func open(t testing.TB, cfg Config) *Mirror {
	t.Helper()
	m, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func ask(m *Mirror, method, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for n := 0; n+1 < len(header); n += 2 {
		r.Header.Set(header[n], header[n+1])
	}
	w := httptest.NewRecorder()
	m.ServeHTTP(w, r)
	return w
}

func reasons(m *Mirror) []string {
	var all []string
	for _, p := range m.Status().Problems {
		all = append(all, p.String())
	}
	return all
}

// index reads a served index as cscli does.
func index(t testing.TB, m *Mirror, target string) map[string]map[string]*entry {
	t.Helper()
	w := ask(m, "GET", target)
	if w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", target, w.Code, w.Body)
	}
	var all map[string]map[string]*entry
	if err := json.Unmarshal(w.Body.Bytes(), &all); err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	return all
}

// Gotcha 25: the ETag is the SHA-256 of what would be sent uncompressed, sent by
// the client without quotes, and HEAD comes before GET.
func TestConditionalRequests(t *testing.T) {
	dir, _ := small(t)
	m := open(t, Config{Public: dir})
	const bareIndex, fullIndex, file = "/hub/master/.index.json", "/hub/master/.index.json?with_content=true", "/hub/master/scenarios/acme/ssh-bf.yaml"
	digests := map[string]string{}
	for _, target := range []string{bareIndex, fullIndex, file} {
		plain := ask(m, "GET", target)
		digest := digestOf(plain.Body.Bytes())
		digests[target] = digest
		if plain.Code != 200 || plain.Header().Get("Content-Encoding") != "" {
			t.Fatalf("%s: expected 200 uncompressed, got %d %q", target, plain.Code, plain.Header())
		}
		packed := ask(m, "GET", target, "Accept-Encoding", "gzip")
		body := packed.Body.Bytes()
		if packed.Header().Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if body, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		if digestOf(body) != digest {
			t.Errorf("%s: gzip gives something else", target)
		}
		head := ask(m, "HEAD", target, "Accept-Encoding", "gzip")
		if head.Code != 200 || head.Body.Len() != 0 || head.Header().Get("Content-Length") != packed.Header().Get("Content-Length") {
			t.Errorf("%s: HEAD is not GET without body: %d %q", target, head.Code, head.Header())
		}
		for _, tag := range []string{digest, `"` + digest + `"`, `W/"` + digest + `"`, "x, " + digest, "*"} {
			for _, method := range []string{"HEAD", "GET"} {
				if w := ask(m, method, target, "If-None-Match", tag, "Accept-Encoding", "gzip"); w.Code != 304 || w.Body.Len() != 0 {
					t.Errorf("%s %s with If-None-Match %s: expected 304, got %d", method, target, tag, w.Code)
				}
			}
		}
		if w := ask(m, "GET", target, "If-None-Match", digestOf(packed.Body.Bytes())); body != nil && packed.Header().Get("Content-Encoding") == "gzip" && w.Code != 200 {
			t.Errorf("%s: the digest of the compressed body was taken for the file's", target)
		}
	}
	if digests[bareIndex] == digests[fullIndex] {
		t.Error("both flavours of the index are the same")
	}
	if w := ask(m, "GET", fullIndex, "If-None-Match", digests[bareIndex]); w.Code != 200 {
		t.Errorf("a client that has the other flavour was told that nothing changed: %d", w.Code)
	}
	if packed := ask(m, "GET", fullIndex, "Accept-Encoding", "gzip"); packed.Header().Get("Content-Encoding") != "gzip" {
		t.Error("the index is not compressed")
	}
}

func TestFlavours(t *testing.T) {
	dir, _ := small(t)
	m := open(t, Config{Public: dir})
	for target, want := range map[string]string{
		"/hub/master/.index.json":                    "",
		"/hub/master/.index.json?with_content=false": "",
		"/hub/v1.4.6/.index.json?with_content=true":  base64.StdEncoding.EncodeToString([]byte(sshBF)),
	} {
		if got := index(t, m, target)["scenarios"]["acme/ssh-bf"].Content; got != want {
			t.Errorf("%s: expected content %q, got %q", target, want, got)
		}
	}
	got := index(t, m, "/hub/master/.index.json")["collections"]["acme/sshd"]
	if diff := cmp.Diff([]string{"acme/ssh-bf"}, got.Scenarios); diff != "" {
		t.Error(diff)
	}
}

func TestDamagedItemsAreLeftOut(t *testing.T) {
	good := digestOf([]byte("x"))
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir string, h tiny)
		want   string
	}{
		"file": {func(t *testing.T, dir string, _ tiny) {
			write(t, dir, "scenarios/acme/bad.yaml", "changed")
		}, "the file scenarios/acme/bad.yaml is not its version 0.2"},
		"embedded": {func(_ *testing.T, _ string, h tiny) {
			h["scenarios"]["acme/bad"]["content"] = base64.StdEncoding.EncodeToString([]byte("changed"))
		}, "the content in the index is not that of its version 0.2"},
		"no file": {func(t *testing.T, dir string, _ tiny) {
			if err := os.Remove(filepath.Join(dir, "scenarios/acme/bad.yaml")); err != nil {
				t.Fatal(err)
			}
		}, "its file cannot be read"},
		"null":    {func(_ *testing.T, _ string, h tiny) { h["scenarios"]["acme/bad"] = nil }, "expected an object, got null"},
		"no path": {func(_ *testing.T, _ string, h tiny) { delete(h["scenarios"]["acme/bad"], "path") }, "it has no path"},
		"path of another": {func(_ *testing.T, _ string, h tiny) {
			h["scenarios"]["acme/bad"]["path"] = "scenarios/acme/ssh-bf.yaml"
		}, "expected the path scenarios/acme/bad.yaml"},
		"path out": {func(_ *testing.T, _ string, h tiny) { h["scenarios"]["acme/bad"]["path"] = "../bad.yaml" }, "expected the path scenarios/acme/bad.yaml"},
		"twin of the path": {func(_ *testing.T, _ string, h tiny) {
			e := h["scenarios"]["acme/bad"]
			e["PATH"] = e["path"]
			delete(e, "path")
		}, "it has no path"},
		"version": {func(_ *testing.T, _ string, h tiny) { h["scenarios"]["acme/bad"]["version"] = "9" }, `its version "9" is not among its versions`},
		"no semantic version": {func(_ *testing.T, _ string, h tiny) {
			h["scenarios"]["acme/bad"]["versions"].(map[string]any)["new"] = map[string]any{"digest": good}
		}, `expected versions like 1.2, got "new"`},
		"digest": {func(_ *testing.T, _ string, h tiny) {
			h["scenarios"]["acme/bad"]["versions"].(map[string]any)["0.1"] = map[string]any{"digest": "00"}
		}, "expected a SHA-256 in hex as the digest of version 0.1"},
		"form":      {func(_ *testing.T, _ string, h tiny) { h["scenarios"]["acme/bad"]["references"] = "https://example.org" }, "not of the index's form"},
		"no parser": {func(_ *testing.T, _ string, h tiny) { h["scenarios"]["acme/bad"]["stage"] = "s01-parse" }, "expected no stage"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, h := small(t)
			h.add("scenarios", "acme/bad", "scenarios/acme/bad.yaml", "whole", nil)
			write(t, dir, "scenarios/acme/bad.yaml", "whole")
			h.write(t, dir)
			if m := open(t, Config{Public: dir}); m.current.Load().main.files["scenarios/acme/bad.yaml"] == nil {
				t.Fatal("the item is not served before it is damaged: ", reasons(m))
			}
			c.damage(t, dir, h)
			h.write(t, dir)
			m := open(t, Config{Public: dir})
			if got := reasons(m); len(got) != 1 || !strings.Contains(got[0], c.want) || !strings.HasPrefix(got[0], "scenarios:acme/bad: ") {
				t.Errorf("expected one problem with %q, got %q", c.want, got)
			}
			for _, target := range []string{"/hub/master/.index.json", "/hub/master/.index.json?with_content=true"} {
				all := index(t, m, target)
				if _, ok := all["scenarios"]["acme/bad"]; ok || all["scenarios"]["acme/ssh-bf"] == nil {
					t.Errorf("%s: expected all but the damaged item, got %v", target, all)
				}
			}
			if w := ask(m, "GET", "/hub/master/scenarios/acme/bad.yaml"); w.Code != 404 {
				t.Errorf("the damaged item is served: %d", w.Code)
			}
		})
	}
}

// A published digest stays known when this copy of the item is damaged: engines
// that have a whole one are not to blame.
func TestKnows(t *testing.T) {
	dir, _ := small(t)
	write(t, dir, "scenarios/acme/ssh-bf.yaml", "damaged")
	private := t.TempDir()
	const own = "type: trigger\nname: corp/own\n"
	write(t, private, "scenarios/corp/own.yaml", own)
	for _, counts := range []bool{false, true} {
		m := open(t, Config{Public: dir, Private: private, PrivateCounts: counts})
		for body, want := range map[string]bool{sshBF: true, "old " + sshBF: true, own: counts, "damaged": false, "name: acme/sshd-logs\n": false} {
			if got := m.Knows(digestOf([]byte(body))); got != want {
				t.Errorf("private_counts %v: expected Knows(%q) = %v", counts, body, want)
			}
		}
	}
	if m := open(t, Config{Private: private}); !m.Knows("anything") {
		t.Error("without a public hub the engine's word counts")
	}
	if m := open(t, Config{Public: filepath.Join(dir, "none"), PublicOptional: true}); !m.Knows("anything") {
		t.Error("without a hub the engine's word counts")
	}
}

func TestPrivateItems(t *testing.T) {
	dir, _ := small(t)
	private := t.TempDir()
	history := filepath.Join(t.TempDir(), "versions.json")
	write(t, private, "scenarios/corp/own.yaml", "name: corp/own\ndescription: Ours\nlabels:\n  confidence: 2\n  spoofable: 0\n  behavior: \"http:scan\"\n---\nname: corp/own-2\n")
	write(t, private, "parsers/s01-parse/corp/app-logs.yaml", "name: corp/app-logs\n")
	write(t, private, "collections/corp/all.yaml", "parsers:\n- corp/app-logs\nscenarios: [corp/own, acme/ssh-bf]\ncollections: [acme/sshd]\n")
	write(t, private, "contexts/corp/more.yaml", "context:\n  a: [b]\n")
	write(t, private, "scenarios/acme/ssh-bf.yaml", "name: acme/ssh-bf\n")
	write(t, private, "scenarios/flat.yaml", "name: flat\n")
	write(t, private, "parsers/corp/no-stage.yaml", "name: corp/no-stage\n")
	write(t, private, "scenarios/corp/torn.yaml", "name: [\n")
	write(t, private, "README.md", "not an item")
	cfg := Config{Public: dir, Private: private, History: history}
	m := open(t, cfg)
	all := index(t, m, "/hub/master/.index.json?with_content=true")
	own, coll := all["scenarios"]["corp/own"], all["collections"]["corp/all"]
	if own == nil || own.Description != "Ours" || own.Version != "0.1" || own.Path != "scenarios/corp/own.yaml" {
		t.Fatalf("got %+v of %v", own, reasons(m))
	}
	if coll == nil || cmp.Diff([]string{"corp/own", "acme/ssh-bf"}, coll.Scenarios) != "" || cmp.Diff([]string{"acme/sshd"}, coll.Collections) != "" {
		t.Fatalf("got %+v", coll)
	}
	if p := all["parsers"]["corp/app-logs"]; p == nil || p.Stage != "s01-parse" {
		t.Errorf("got %+v", p)
	}
	if all["contexts"]["corp/more"] == nil {
		t.Error("the context is missing")
	}
	if p := m.Taxonomy().Of("corp/own"); p.Behaviour != "http:scan" || p.Confidence != 2 {
		t.Errorf("got %+v", p)
	}
	if st := m.Status(); st.PrivateItems != 4 || len(st.Problems) != 4 {
		t.Errorf("expected 4 private items and 4 problems, got %+v", st)
	}
	if got := all["scenarios"]["acme/ssh-bf"].Versions["0.2"].Digest; got != digestOf([]byte(sshBF)) {
		t.Error("a private item took the place of a public one")
	}

	// What was served once stays known to engines, also after a restart.
	write(t, private, "scenarios/corp/own.yaml", "name: corp/own\n# better\n")
	m = open(t, cfg)
	after := index(t, m, "/hub/master/.index.json")["scenarios"]["corp/own"]
	if after.Version != "0.2" || after.Versions["0.1"].Digest != own.Versions["0.1"].Digest || after.Versions["0.2"].Digest != digestOf([]byte("name: corp/own\n# better\n")) {
		t.Errorf("expected a second version beside the first, got %+v", after)
	}
	if again := index(t, open(t, cfg), "/hub/master/.index.json")["scenarios"]["corp/own"]; cmp.Diff(after, again, cmp.AllowUnexported(entry{})) != "" {
		t.Errorf("the same files give other versions: %+v", again)
	}
}

func TestBranches(t *testing.T) {
	dir, _ := small(t)
	other, oh := filepath.Join(dir, "v1.6.0"), tiny{}
	oh.add("scenarios", "acme/old", "scenarios/acme/old.yaml", "old", map[string]any{"content": base64.StdEncoding.EncodeToString([]byte("old"))})
	if err := os.MkdirAll(other, 0o755); err != nil {
		t.Fatal(err)
	}
	oh.write(t, other)
	m := open(t, Config{Public: dir})
	for branch, want := range map[string]string{"master": "acme/ssh-bf", "v1.7.8": "acme/ssh-bf", "v1.6.0": "acme/old", "v1.4.6-6~deb12u1": "", "nightly": "", "..": "", "": ""} {
		w := ask(m, "GET", "/hub/"+branch+"/.index.json")
		if want == "" {
			if w.Code != 404 {
				t.Errorf("branch %q: expected 404, got %d", branch, w.Code)
			}
			continue
		}
		if all := index(t, m, "/hub/"+branch+"/.index.json"); all["scenarios"][want] == nil {
			t.Errorf("branch %q: expected %s, got %v", branch, want, all)
		}
	}

	// A folder of branches alone.
	parent := t.TempDir()
	if err := os.Rename(dir, filepath.Join(parent, "master")); err != nil {
		t.Fatal(err)
	}
	m = open(t, Config{Public: parent})
	for _, branch := range []string{"master", "v1.7.8"} {
		if all := index(t, m, "/hub/"+branch+"/.index.json"); all["scenarios"]["acme/ssh-bf"] == nil {
			t.Errorf("branch %q: got %v", branch, all)
		}
	}
	if _, err := Open(Config{Public: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "no .index.json") {
		t.Errorf("expected an error about the folder, got %v", err)
	}
}

func TestDataFiles(t *testing.T) {
	dir, _ := small(t)
	secret := t.TempDir()
	write(t, secret, "secret", "secret")
	write(t, dir, "data/agents.txt", "bad\n")
	write(t, dir, "data/.hidden", "hidden")
	write(t, dir, "LICENSE", "not served")
	if err := os.Symlink(filepath.Join(secret, "secret"), filepath.Join(dir, "data/out")); err != nil {
		t.Fatal(err)
	}
	changed := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	if err := os.Chtimes(filepath.Join(dir, "data/agents.txt"), changed, changed); err != nil {
		t.Fatal(err)
	}
	m := open(t, Config{Public: dir})
	for _, method := range []string{"HEAD", "GET"} {
		w := ask(m, method, "/hub/master/data/agents.txt")
		if w.Code != 200 || w.Header().Get("Last-Modified") != "Sun, 01 Mar 2026 12:00:00 GMT" || method == "GET" && w.Body.String() != "bad\n" {
			t.Errorf("%s: got %d %q %q", method, w.Code, w.Header(), w.Body)
		}
	}
	for _, name := range []string{
		"data/out", "data/none", "data/.hidden", "data", "data/", "LICENSE", "data/../LICENSE", "data/../../" + filepath.Base(secret) + "/secret",
		"../" + filepath.Base(secret) + "/secret", "/etc/passwd", "data//etc/passwd", `data\..\LICENSE`, "data/agents.txt/", "scenarios", "",
	} {
		r := httptest.NewRequest("GET", "/hub/master/x", nil)
		r.URL.Path = "/hub/master/" + name
		w := httptest.NewRecorder()
		if m.ServeHTTP(w, r); w.Code != 404 {
			t.Errorf("%q: expected 404, got %d %q", name, w.Code, w.Body)
		}
	}
	if w := ask(m, "POST", "/hub/master/.index.json"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: expected 405, got %d", w.Code)
	}
}

func TestPoll(t *testing.T) {
	dir, h := small(t)
	m := open(t, Config{Public: dir})
	poll := func() {
		t.Helper()
		if err := m.Poll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	has := func() bool { return index(t, m, "/hub/master/.index.json")["scenarios"]["acme/new"] != nil }
	poll()
	h.add("scenarios", "acme/new", "scenarios/acme/new.yaml", "new", nil)
	write(t, dir, "scenarios/acme/new.yaml", "n") // a copy under way
	poll()
	write(t, dir, "scenarios/acme/new.yaml", "new")
	h.write(t, dir)
	poll()
	if has() {
		t.Error("a folder that is being changed was read")
	}
	poll()
	if !has() || m.Status().Failure != nil {
		t.Errorf("a changed folder was not read: %+v", m.Status())
	}

	// What cannot be read changes nothing, and is said once.
	write(t, dir, indexName, "{")
	poll()
	if err := m.Poll(t.Context()); err == nil {
		t.Error("expected an error about the index")
	}
	poll()
	if !has() || m.Status().Failure == nil {
		t.Error("expected what was served before, and a failure")
	}
	h.write(t, dir)
	poll()
	poll()
	if m.Status().Failure != nil {
		t.Errorf("the failure is over: %+v", m.Status().Failure)
	}
}

func TestCollectionsThatContainThemselves(t *testing.T) {
	dir, h := small(t)
	for name, children := range map[string][]string{"a": {"acme/b"}, "b": {"acme/c", "acme/sshd"}, "c": {"acme/a"}, "self": {"acme/self"}, "above": {"acme/a", "acme/none"}} {
		h.add("collections", "acme/"+name, "collections/acme/"+name+".yaml", name, map[string]any{"collections": children})
		write(t, dir, "collections/acme/"+name+".yaml", name)
	}
	h.write(t, dir)
	m := open(t, Config{Public: dir})
	all := index(t, m, "/hub/master/.index.json")["collections"]
	if len(all) != 2 || all["acme/sshd"] == nil || all["acme/above"] == nil || len(reasons(m)) != 4 {
		t.Errorf("got %v, %v", all, reasons(m))
	}
}

func TestRealHub(t *testing.T) {
	dir := testkit.HubFolder(t)
	m := open(t, Config{Public: dir})
	st := m.Status()
	total := 0
	for _, n := range st.Items {
		total += n
	}
	if total != 1359 || len(st.Problems) != 0 {
		t.Errorf("expected the hub's 1359 items and no problem, got %d, %v", total, st.Problems)
	}
	raw, err := os.ReadFile(filepath.Join(dir, indexName))
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]map[string]*entry
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, index(t, m, "/hub/master/.index.json?with_content=true"), cmp.AllowUnexported(entry{})); diff != "" {
		t.Errorf("what is served is not what is there:\n%.2000s", diff)
	}
	known, err := policy.ReadHub(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	taxonomy, err := policy.ReadTaxonomy(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if st.Known != known.Len() || m.Taxonomy().Len() != taxonomy.Len() {
		t.Errorf("expected %d scenarios, %d by name, got %d and %d", known.Len(), taxonomy.Len(), st.Known, m.Taxonomy().Len())
	}
	t.Logf("index with content %d bytes, %d compressed; without %d, %d", st.Bytes, st.Compressed,
		len(m.current.Load().main.index[bare].body), len(m.current.Load().main.index[bare].packed))
}

func BenchmarkReload(b *testing.B) {
	m := open(b, Config{Public: testkit.HubFolder(b)})
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Reload(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPoll(b *testing.B) {
	m := open(b, Config{Public: testkit.HubFolder(b)})
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Poll(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIndexNotModified(b *testing.B) {
	m := open(b, Config{Public: testkit.HubFolder(b)})
	r := httptest.NewRequest("HEAD", "/hub/master/.index.json?with_content=true", nil)
	r.Header.Set("If-None-Match", m.Status().Digest)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		if m.ServeHTTP(w, r); w.Code != 304 {
			b.Fatal(w.Code)
		}
	}
}

// What is exported is served like what it was made from.
func TestExport(t *testing.T) {
	dir, _ := small(t)
	write(t, dir, "data/agents.txt", "bad\n")
	private := t.TempDir()
	write(t, private, "scenarios/corp/own.yaml", "name: corp/own\n")
	write(t, private, "data/own/list.txt", "x\n")
	m := open(t, Config{Public: dir, Private: private})
	write(t, private, "scenarios/corp/own.yaml", "name: corp/own\n# better\n")
	if err := m.Reload(); err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	public2, private2 := filepath.Join(to, "hub"), filepath.Join(to, "private")
	if err := m.Export(public2, private2); err != nil {
		t.Fatal(err)
	}
	copied := open(t, Config{Public: public2, Private: private2})
	for _, target := range []string{"/hub/master/.index.json", "/hub/master/.index.json?with_content=1", "/hub/master/scenarios/corp/own.yaml", "/hub/master/data/agents.txt", "/hub/master/data/own/list.txt"} {
		if want, got := ask(m, "GET", target), ask(copied, "GET", target); want.Code != 200 || got.Code != want.Code || got.Body.String() != want.Body.String() {
			t.Errorf("%s: expected %d %q, got %d %q", target, want.Code, want.Body, got.Code, got.Body)
		}
	}
	if own := digestOf([]byte("name: corp/own\n")); copied.Knows(own) || copied.Status().PrivateItems != 1 {
		t.Error("a private item became a public one")
	}
	if err := open(t, Config{}).Export(filepath.Join(to, "none"), filepath.Join(to, "none2")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(to, "none")); err == nil {
		t.Error("a folder was made for nothing")
	}
}
