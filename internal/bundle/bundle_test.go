package bundle

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"muster"
)

var made = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func key(t testing.TB, seed byte) ed25519.PrivateKey {
	t.Helper()
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) []ed25519.PublicKey {
	return []ed25519.PublicKey{k.Public().(ed25519.PublicKey)}
}

func sample() *Manifest {
	return &Manifest{
		ID: "0190b0a0-0000-7000-8000-000000000001", MadeAt: made, ValidUntil: made.AddDate(0, 0, 30), From: "https://muster.example.org/", Version: "1.0",
		Lists:      []List{{Name: "community", Remedy: muster.RemedyBan, Lifetime: time.Hour, Entries: 2}},
		Allowlists: []Allowlist{{Name: "central", Items: 1}},
	}
}

var contents = map[string]string{
	"hub/.index.json":           `{"scenarios":{}}`,
	"hub/data/agents.txt":       strings.Repeat("bad agent\n", 1000),
	"lists/community.jsonl":     "{\"value\":\"198.51.100.7\",\"comment\":\"crowdsecurity/ssh-bf\"}\n{\"value\":\"203.0.114.0/24\"}\n",
	"allowlists/central.jsonl":  "{\"value\":\"192.0.2.0/24\",\"reason\":\"ours\"}\n",
	"enrich/asn.mmdb":           "database",
	"private/scenarios/a/b.yml": "",
}

func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func packed(t testing.TB, k ed25519.PrivateKey) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Pack(&b, folder(t, contents), sample(), k, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func filesIn(t testing.TB, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := os.ReadFile(filepath.Join(dir, name))
		got[name] = string(body)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRoundTrip(t *testing.T) {
	k, dir := key(t, 1), t.TempDir()
	var last, total int64
	m, err := Read(bytes.NewReader(packed(t, k)), Options{Keys: append(public(key(t, 2)), public(k)...), Dir: dir, Progress: func(d, all int64) {
		if d < last {
			t.Errorf("progress went back from %d to %d", last, d)
		}
		last, total = d, all
	}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(contents, filesIn(t, dir)); diff != "" {
		t.Error(diff)
	}
	if last != m.Bytes() || total != m.Bytes() {
		t.Errorf("expected progress to end at %d, got %d of %d", m.Bytes(), last, total)
	}
	want := sample()
	want.Files, want.Format = m.Files, Format
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
	if info, err := os.Stat(filepath.Join(dir, "hub/data/agents.txt")); err != nil || !info.ModTime().Equal(made) {
		t.Errorf("expected the bundle's time, got %v, %v", info.ModTime(), err)
	}
	if a, b := packed(t, k), packed(t, k); !bytes.Equal(a, b) {
		t.Error("the same content gives another bundle")
	}
}

func TestTrust(t *testing.T) {
	k := key(t, 1)
	for name, c := range map[string]struct {
		bundle []byte
		o      Options
		code   muster.Code
		say    string
	}{
		"another key":  {packed(t, key(t, 2)), Options{Keys: public(k)}, muster.Forbidden, "not one of those named"},
		"no key":       {packed(t, k), Options{}, muster.Forbidden, "not one of those named"},
		"not signed":   {packed(t, nil), Options{Keys: public(k)}, muster.Forbidden, "not signed"},
		"signed wrong": {packed(t, key(t, 2)), Options{Unsigned: true}, muster.Forbidden, "not one of those named"},
		"no bundle":    {[]byte("hello"), Options{Keys: public(k)}, muster.Invalid, "it is no bundle"},
		"cut off":      {packed(t, k)[:400], Options{Keys: public(k)}, muster.Invalid, ""},
	} {
		_, err := Read(bytes.NewReader(c.bundle), c.o)
		if muster.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: expected %s with %q, got %v", name, c.code, c.say, err)
		}
	}
	if _, err := Read(bytes.NewReader(packed(t, nil)), Options{Unsigned: true}); err != nil {
		t.Errorf("expected an unsigned bundle to be taken where that is wanted, got %v", err)
	}
}

// repack changes the files of a bundle as somebody without the key can.
func repack(t *testing.T, bundle []byte, change func(name string, body []byte) []tarFile) []byte {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(bundle))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(w)
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range change(h.Name, body) {
			head := *h
			head.Name, head.Size, head.PAXRecords = f.name, int64(len(f.body)), nil
			if f.link != "" {
				head.Typeflag, head.Linkname, head.Size = tar.TypeSymlink, f.link, 0
			}
			if err := tw.WriteHeader(&head); err != nil {
				t.Fatal(err)
			}
			if f.link == "" {
				if _, err := tw.Write(f.body); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

type tarFile struct {
	name string
	body []byte
	link string
}

func TestTampering(t *testing.T) {
	k := key(t, 1)
	good := packed(t, k)
	same := func(name string, body []byte) []tarFile { return []tarFile{{name: name, body: body}} }
	if _, err := Read(bytes.NewReader(repack(t, good, same)), Options{Keys: public(k)}); err != nil {
		t.Fatalf("an unchanged bundle is refused: %v", err)
	}
	const victim = "enrich/asn.mmdb"
	for name, change := range map[string]func(name string, body []byte) []tarFile{
		"content": func(n string, b []byte) []tarFile {
			if n == victim {
				b = []byte("databasf")
			}
			return same(n, b)
		},
		"length": func(n string, b []byte) []tarFile {
			if n == victim {
				b = append(b, 'x')
			}
			return same(n, b)
		},
		"a file more": func(n string, b []byte) []tarFile {
			if n == victim {
				return append(same(n, b), tarFile{name: "enrich/more", body: b})
			}
			return same(n, b)
		},
		"a file at the end": func(n string, b []byte) []tarFile {
			if n == "private/scenarios/a/b.yml" {
				return append(same(n, b), tarFile{name: "private/more", body: b})
			}
			return same(n, b)
		},
		"a file less": func(n string, b []byte) []tarFile {
			if n == victim {
				return nil
			}
			return same(n, b)
		},
		"a link": func(n string, b []byte) []tarFile {
			if n == victim {
				return []tarFile{{name: n, link: "/etc/passwd"}}
			}
			return same(n, b)
		},
		"another name": func(n string, b []byte) []tarFile {
			if n == victim {
				n = "../" + n
			}
			return same(n, b)
		},
		"the manifest": func(n string, b []byte) []tarFile {
			if n == manifestName {
				b = bytes.Replace(b, []byte("muster.example.org"), []byte("master.example.org"), 1)
			}
			return same(n, b)
		},
	} {
		dir := t.TempDir()
		if _, err := Read(bytes.NewReader(repack(t, good, change)), Options{Keys: public(k), Dir: dir}); muster.CodeOf(err) != muster.Invalid {
			t.Errorf("%s: expected it to be refused as invalid, got %v", name, err)
		}
	}
}

// No byte of a bundle can be changed without its being refused, or its meaning
// the same.
func TestEveryByteMatters(t *testing.T) {
	k := key(t, 1)
	good := packed(t, k)
	rapid.Check(t, func(t *rapid.T) {
		bad := bytes.Clone(good)
		at := rapid.IntRange(0, len(bad)-1).Draw(t, "at")
		bad[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		dir, err := os.MkdirTemp("", "bundle")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if _, err := Read(bytes.NewReader(bad), Options{Keys: public(k), Dir: dir}); err != nil {
			return
		}
		for name, body := range contents {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != body {
				t.Fatalf("%s was taken as %q, %v", name, got, err)
			}
		}
	})
}

// What a signature covers may still be hostile: a key can be stolen.
func TestManifestsThatAreRefused(t *testing.T) {
	sum := strings.Repeat("0", 64)
	for name, change := range map[string]func(*Manifest){
		"format":         func(m *Manifest) { m.Format = 2 },
		"id":             func(m *Manifest) { m.ID = "../x" },
		"no end":         func(m *Manifest) { m.ValidUntil = m.MadeAt },
		"path out":       func(m *Manifest) { m.Files[0].Path = "hub/../../x" },
		"absolute":       func(m *Manifest) { m.Files[0].Path = "/hub/x" },
		"other folder":   func(m *Manifest) { m.Files[0].Path = "muster.db" },
		"twice":          func(m *Manifest) { m.Files = append(m.Files, m.Files[0]) },
		"size":           func(m *Manifest) { m.Files[0].Size = -1 },
		"huge":           func(m *Manifest) { m.Files[0].Size = MaxBytes; m.Files[1].Size = 1 },
		"hash":           func(m *Manifest) { m.Files[0].SHA256 = "x" },
		"list twice":     func(m *Manifest) { m.Lists = append(m.Lists, m.Lists[0]) },
		"list name":      func(m *Manifest) { m.Lists[0].Name = "../x" },
		"no list file":   func(m *Manifest) { m.Lists[0].Name = "other" },
		"remedy":         func(m *Manifest) { m.Lists[0].Remedy = "shoot" },
		"allowlist name": func(m *Manifest) { m.Allowlists[0].Name = "" },
	} {
		m := sample()
		m.Format = Format
		for _, path := range []string{"hub/x", "lists/community.jsonl", "allowlists/central.jsonl"} {
			m.Files = append(m.Files, File{Path: path, SHA256: sum})
		}
		if err := m.check(); err != nil {
			t.Fatal(err)
		}
		change(m)
		if err := m.check(); err == nil {
			t.Errorf("%s: expected the manifest to be refused", name)
		}
	}
}

func TestLists(t *testing.T) {
	m := sample()
	early := made.Add(time.Hour)
	fsys := fstest.MapFS{
		"lists/community.jsonl": {Data: []byte(`{"value":"198.18.0.1"}
{"value":"8.8.4.0/24","comment":"a\nb"}
{"value":"9.9.9.1","until":"2026-05-01T13:00:00Z"}
{"value":"9.9.9.2","until":"2036-05-01T13:00:00Z"}
`)},
		"allowlists/central.jsonl": {Data: []byte(`{"value":"AS64496","reason":"partner","until":"2026-05-01T13:00:00Z"}` + "\n")},
	}
	m.Lists[0].Entries = 4
	got, reserved, err := ReadList(fsys, m, &m.Lists[0])
	if err != nil {
		t.Fatal(err)
	}
	entry := func(value, comment string, until time.Time) muster.CustomEntry {
		s, err := muster.ParseSource(value)
		if err != nil {
			t.Fatal(err)
		}
		return muster.CustomEntry{Source: s, Comment: comment, Until: until, AddedAt: made, AddedBy: muster.ByBundle}
	}
	want := []muster.CustomEntry{entry("8.8.4.0/24", "a b", m.ValidUntil), entry("9.9.9.1", "", early), entry("9.9.9.2", "", m.ValidUntil)}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b muster.Source) bool { return a == b })); diff != "" || reserved != 1 {
		t.Errorf("%d reserved: %s", reserved, diff)
	}
	items, err := ReadAllowlist(fsys, m, &m.Allowlists[0])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]muster.AllowItem{{Kind: muster.AllowAS, Value: "AS64496", Reason: "partner", CreatedAt: made, ExpiresAt: early, By: muster.ByBundle}}, items); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"", "{\"value\":\"x\"}\n", "[]\n", "{\"value\":\"9.9.9.1\"}\n{\"value\":\"9.9.9.2\"}\n", strings.Repeat(" ", 70_000)} {
		m.Lists[0].Entries = 1
		if _, _, err := ReadList(fstest.MapFS{"lists/community.jsonl": {Data: []byte(bad)}}, m, &m.Lists[0]); muster.CodeOf(err) != muster.Invalid {
			t.Errorf("%.40q: expected it to be refused, got %v", bad, err)
		}
	}
}

func TestKeys(t *testing.T) {
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	private, pub := FormatPrivate(k), FormatPublic(public(k)[0])
	if got, err := ParsePrivate(private + "\n"); err != nil || !got.Equal(k) {
		t.Errorf("got another key, %v", err)
	}
	if got, err := ParsePublic(" " + pub); err != nil || !got.Equal(k.Public()) {
		t.Errorf("got another key, %v", err)
	}
	for _, text := range []string{"", private, "x" + pub, pub[:len(pub)-1], pub + "AAAA"} {
		if _, err := ParsePublic(text); err == nil || strings.Contains(err.Error(), private[len(privatePrefix):]) {
			t.Errorf("expected an error that does not tell the key, got %v", err)
		}
	}
	if _, err := ParsePrivate(pub); err == nil {
		t.Error("a public key was taken for a private one")
	}
}

func FuzzRead(f *testing.F) {
	k := key(f, 1)
	good := packed(f, k)
	f.Add(good)
	f.Add(good[:100])
	f.Add(packed(f, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Read(bytes.NewReader(b), Options{Keys: public(k)})
		if err != nil {
			return
		}
		want := sample()
		want.Files, want.Format = m.Files, Format
		if diff := cmp.Diff(want, m); diff != "" {
			t.Errorf("something was taken that nobody signed: %s", diff)
		}
	})
}

func FuzzManifest(f *testing.F) {
	m := sample()
	m.Format, m.Files = Format, []File{{Path: "lists/community.jsonl", SHA256: strings.Repeat("0", 64)}}
	seed, err := json.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Manifest
		if json.Unmarshal(b, &m) != nil || m.check() != nil {
			return
		}
		for _, file := range m.Files {
			if !filepath.IsLocal(file.Path) || strings.Contains(file.Path, "..") && !fs.ValidPath(file.Path) {
				t.Errorf("%q leads elsewhere", file.Path)
			}
		}
	})
}
