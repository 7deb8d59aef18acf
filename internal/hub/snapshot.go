package hub

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/zeebo/xxh3"

	"muster/internal/policy"
)

// indexName is the file that makes a folder a hub.
const indexName = ".index.json"

// masterBranch is what cscli asks for unless it is older than the hub.
const masterBranch = "master"

// The flavours of the index.
const (
	bare = iota // without content
	full
	flavours
)

// snapshot is all that is served at a time. It is not changed.
type snapshot struct {
	main     *tree            // what branches without a folder get; nil = there is none
	byBranch map[string]*tree // those with a folder
	branches []string         // their names, in order
	private  int              // private items in main
	problems []Problem
	known    *policy.Hub // nil without a public hub
	own      *policy.Hub // of private items; nil without
	taxonomy *policy.Taxonomy
	print    uint64
	at       time.Time
}

func (s *snapshot) items() int {
	if s.main == nil {
		return 0
	}
	return len(s.main.list)
}

// tree is one branch.
type tree struct {
	list  []*item // in order of type and name
	files map[string]*file
	index [flavours]*file
	data  []string // folders whose data files are served, the first that has one wins
}

// file is an answer, prepared.
type file struct {
	body   []byte
	packed []byte // gzip; nil when it saves nothing
	digest string // SHA-256 of body, in hex
}

// read reads both folders.
func (m *Mirror) read() (*snapshot, error) {
	s := &snapshot{byBranch: map[string]*tree{}, problems: []Problem{}, branches: []string{}}
	own, problems, err := m.readPrivate()
	if err != nil {
		return nil, err
	}
	s.problems = append(s.problems, problems...)
	main, branches, err := m.publicFolders()
	if err != nil {
		return nil, err
	}
	if main != "" || len(own) > 0 {
		var raw []byte
		if s.main, raw, err = m.readTree(s, "", main, own); err != nil {
			return nil, err
		}
		if raw != nil {
			if s.known, err = policy.ReadHub(bytes.NewReader(raw)); err != nil {
				return nil, err
			}
		}
		// A hub may be without scenarios: then nothing is known about any.
		s.taxonomy, _ = policy.ReadTaxonomy(bytes.NewReader(s.main.index[bare].body))
	}
	for _, name := range branches {
		if filepath.Join(m.cfg.Public, name) == main {
			s.byBranch[name] = s.main
		} else if s.byBranch[name], _, err = m.readTree(s, name, filepath.Join(m.cfg.Public, name), own); err != nil {
			return nil, fmt.Errorf("branch %s: %w", name, err)
		}
		s.branches = append(s.branches, name)
	}
	if len(own) > 0 {
		s.own, _ = policy.ReadHub(bytes.NewReader(compose(own, false))) // an error says that there are no scenarios among them
	}
	if s.main != nil {
		for _, i := range s.main.list {
			if i.private {
				s.private++
			}
		}
	}
	return s, nil
}

var branchForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// publicFolders finds the hubs in the public folder: the one for branches
// without a folder ("" = none), and the names of the branches that have one.
func (m *Mirror) publicFolders() (main string, branches []string, err error) {
	if m.cfg.Public == "" {
		return "", nil, nil
	}
	list, err := os.ReadDir(m.cfg.Public)
	if m.cfg.PublicOptional && errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("reading the hub's folder: %w", err)
	}
	for _, e := range list {
		if e.IsDir() && branchForm.MatchString(e.Name()) && !slices.Contains(Types, e.Name()) && isHub(filepath.Join(m.cfg.Public, e.Name())) {
			branches = append(branches, e.Name())
		}
	}
	switch {
	case isHub(m.cfg.Public):
		return m.cfg.Public, branches, nil
	case slices.Contains(branches, masterBranch):
		return filepath.Join(m.cfg.Public, masterBranch), branches, nil
	}
	return "", nil, fmt.Errorf("the folder %s has no %s, and no folder %s with one: it should be a copy of the hub's repository, whose %s is on its branch master",
		m.cfg.Public, indexName, masterBranch, indexName)
}

func isHub(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, indexName))
	return err == nil && info.Mode().IsRegular()
}

// readTree reads a public hub (dir "" = none) and puts private items beside what
// is in it. raw is its index as it is: published digests stay known when this
// copy of an item is damaged.
func (m *Mirror) readTree(s *snapshot, branch, dir string, own []*item) (t *tree, raw []byte, err error) {
	t = &tree{files: map[string]*file{}}
	var items []*item
	report := func(problems []Problem) {
		for _, p := range problems {
			p.Branch = branch
			s.problems = append(s.problems, p)
		}
	}
	if dir != "" {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, nil, fmt.Errorf("reading the hub's folder: %w", err)
		}
		defer func() { _ = root.Close() }()
		if raw, err = readFile(root.FS(), indexName, maxIndex); err != nil {
			return nil, nil, fmt.Errorf("reading %s: %w", filepath.Join(dir, indexName), err)
		}
		public, problems, err := readIndex(raw, root.FS(), false)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", filepath.Join(dir, indexName), err)
		}
		report(problems)
		items = public
		t.data = append(t.data, dir)
	}
	merged, problems := beside(items, own)
	report(problems)
	t.list, problems = withoutCycles(merged)
	report(problems)
	if len(own) > 0 {
		t.data = append(t.data, m.cfg.Private)
	}
	w, _ := gzip.NewWriterLevel(nil, gzip.BestCompression) // a level that there is
	for _, i := range t.list {
		t.files[i.Path] = prepare(w, i.body, i.digest)
	}
	for flavour := range t.index {
		body := compose(t.list, flavour == full)
		t.index[flavour] = prepare(w, body, digestOf(body))
	}
	return t, raw, nil
}

// beside adds private items to public ones. A private item does not take the
// place of a public one: engines would install it in the belief that it is the
// hub's.
func beside(public, own []*item) (all []*item, problems []Problem) {
	taken := make(map[string]bool, len(public))
	for _, i := range public {
		taken[i.key()] = true
	}
	all = slices.Clone(public)
	for _, i := range own {
		if taken[i.key()] {
			problems = append(problems, Problem{Item: i.key(), Reason: "the public hub has an item of that name: give the private one another author"})
			continue
		}
		all = append(all, i)
	}
	slices.SortStableFunc(all, func(a, b *item) int {
		return cmp.Or(cmp.Compare(slices.Index(Types, a.kind), slices.Index(Types, b.kind)), cmp.Compare(a.name, b.name))
	})
	return all, problems
}

// prepare compresses a body once for all who will ask for it.
func prepare(w *gzip.Writer, body []byte, digest string) *file {
	f := &file{body: body, digest: digest}
	var b bytes.Buffer
	w.Reset(&b)
	_, _ = w.Write(body) // into memory
	_ = w.Close()
	if b.Len() < len(body) {
		f.packed = bytes.Clone(b.Bytes())
	}
	return f
}

// readFile reads a regular file of at most limit bytes.
func readFile(fsys fs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("expected a regular file")
	}
	body, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("it is larger than %d bytes", limit)
	}
	return body, err
}

// fingerprint stands for names, sizes and times of change of all files in both
// folders; what cannot be looked at counts as absent.
func (m *Mirror) fingerprint() uint64 {
	h := xxh3.New()
	for _, dir := range []string{m.cfg.Public, m.cfg.Private} {
		_, _ = h.WriteString(dir + "\x00")
		if dir == "" {
			continue
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			continue
		}
		files := 0
		_ = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return nil //nolint:nilerr // it counts as absent
			case d.IsDir() && d.Name() == ".git":
				return fs.SkipDir
			case d.IsDir():
				return nil
			}
			if files++; files > maxFiles {
				return fs.SkipAll
			}
			info, err := d.Info()
			if err != nil {
				return nil //nolint:nilerr // likewise
			}
			_, _ = h.WriteString(name)
			_, _ = h.Write(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64([]byte{0}, uint64(info.Size())), uint64(info.ModTime().UnixNano())))
			return nil
		})
		_ = root.Close()
	}
	return h.Sum64() | 1 // 0 stands for none
}
