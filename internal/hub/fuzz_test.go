package hub

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"pgregory.net/rapid"
)

// asClient reads an index as cscli does, and says what it would stumble over.
func asClient(raw []byte) error {
	var all map[string]map[string]*entry
	if err := json.Unmarshal(raw, &all); err != nil {
		return err
	}
	for kind, items := range all {
		for name, i := range items {
			switch {
			case i == nil:
				return fmt.Errorf("%s:%s has no index metadata", kind, name)
			case i.Path == "" || !filepath.IsLocal(i.Path) || !fs.ValidPath(i.Path) || !strings.HasPrefix(i.Path, kind+"/"):
				return fmt.Errorf("%s:%s has the path %q", kind, name, i.Path)
			case (kind == "parsers" || kind == "postoverflows") && i.Stage == "":
				return fmt.Errorf("%s:%s has no stage", kind, name)
			case i.Versions[i.Version].Digest == "":
				return fmt.Errorf("%s:%s: latest version missing", kind, name)
			}
			if i.Content != "" {
				body, err := base64.StdEncoding.DecodeString(i.Content)
				if err != nil || digestOf(body) != i.Versions[i.Version].Digest {
					return fmt.Errorf("%s:%s: its content is not its latest version", kind, name)
				}
			}
		}
	}
	return nil
}

// Whatever an index has in it, what is served of it is read by cscli, and is what
// its digests say.
func FuzzIndex(f *testing.F) {
	h := tiny{}
	h.add("scenarios", "acme/ssh-bf", "scenarios/acme/ssh-bf.yaml", sshBF, map[string]any{"content": base64.StdEncoding.EncodeToString([]byte(sshBF))})
	h.add("parsers", "acme/logs", "parsers/s01-parse/acme/logs.yaml", "x", map[string]any{"stage": "s01-parse", "content": "x"})
	h.add("collections", "acme/a", "collections/acme/a.yaml", "y", map[string]any{"content": "eQ==", "collections": []string{"acme/a"}})
	seed, err := json.Marshal(h)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(strings.Replace(string(seed), `"path"`, `"PATH"`, 1)))
	f.Add([]byte(strings.Replace(string(seed), `"path":"`, `"path":"../`, 1)))
	f.Add([]byte(`{"scenarios":{"a/b":null},"x":7}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		items, _, err := readIndex(raw, fstest.MapFS{"scenarios/acme/ssh-bf.yaml": {Data: []byte(sshBF)}}, false)
		if err != nil {
			return
		}
		items, _ = withoutCycles(items)
		for _, content := range []bool{false, true} {
			out := compose(items, content)
			if err := asClient(out); err != nil {
				t.Fatalf("%v in\n%s", err, out)
			}
			if len(items) == 0 {
				continue
			}
			again, problems, err := readIndex(out, fstest.MapFS{"scenarios/acme/ssh-bf.yaml": {Data: []byte(sshBF)}}, false)
			if content && (err != nil || len(problems) > 0 || string(compose(again, true)) != string(out)) {
				t.Fatalf("what is served is not read again as it is: %v %v", err, problems)
			}
		}
	})
}

// No path leads out of the folders, to a dot file, or to what is not an item or a
// data file; and no path makes the mirror panic or redirect.
func TestNoPathLeadsElsewhere(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "hub")
	h := tiny{}
	h.add("scenarios", "acme/ssh-bf", "scenarios/acme/ssh-bf.yaml", sshBF, nil)
	write(t, dir, "scenarios/acme/ssh-bf.yaml", sshBF)
	write(t, dir, "scenarios/acme/not-in-the-index.yaml", "secret")
	write(t, dir, "data/list.txt", "public")
	write(t, dir, "data/.git/config", "secret")
	write(t, dir, ".git/config", "secret")
	write(t, parent, "secret", "secret")
	write(t, parent, "hub2/data/secret", "secret")
	for link, to := range map[string]string{"data/up": "../..", "data/file": "../../secret", "data/abs": "/etc/passwd", "taxonomy": "../hub2/data"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	h.write(t, dir)
	m := open(t, Config{Public: dir})
	part := rapid.SampledFrom([]string{
		"..", ".", "", "data", "taxonomy", "up", "file", "abs", "secret", "hub2", ".git", "config", "scenarios", "acme", "ssh-bf.yaml", "not-in-the-index.yaml",
		"list.txt", "%2e%2e", "..%2f", `..\`, "etc", "passwd", "\x00", ".index.json", "hub", "C:", "~",
	})
	rapid.Check(t, func(t *rapid.T) {
		branch := rapid.SampledFrom([]string{"master", "v1.7.8", "..", "scenarios", "data", ""}).Draw(t, "branch")
		path := "/hub/" + branch + "/" + strings.Join(rapid.SliceOfN(part, 0, 6).Draw(t, "path"), "/")
		r := httptest.NewRequest("GET", "/hub/", nil)
		r.URL.Path = path
		w := httptest.NewRecorder()
		m.ServeHTTP(w, r)
		switch body := w.Body.String(); {
		case w.Code == 404:
		case w.Code == 200 && (body == sshBF || body == "public" || strings.HasPrefix(body, "{")):
		default:
			t.Fatalf("%q: got %d %q", path, w.Code, body)
		}
	})
}

func FuzzOwn(f *testing.F) {
	f.Add("scenarios/acme/x.yaml", "name: a\nlabels: {a: 1}\nreferences: [x]\n")
	f.Add("parsers/s01-parse/acme/x.yaml", "---\n")
	f.Add("collections/acme/x.yml", "scenarios:\n- a/b\n")
	f.Fuzz(func(t *testing.T, name, body string) {
		if !fs.ValidPath(name) || len(body) > 4096 {
			return
		}
		m := &Mirror{cfg: Config{Now: func() time.Time { return time.Time{} }}, history: history{}}
		kind, _, _ := strings.Cut(name, "/")
		i, _, err := m.readOwn(fstest.MapFS{name: {Data: []byte(body)}}, kind, name)
		if err != nil {
			return
		}
		if err := asClient(compose([]*item{i}, true)); err != nil {
			t.Fatalf("%v of %q", err, name)
		}
	})
}
