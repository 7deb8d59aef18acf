package hub

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Bounds on what is read.
const (
	maxIndex = 64 << 20
	maxItem  = 1 << 20 // the largest of the public hub has 50 kB
	maxItems = 20_000
	maxFiles = 100_000 // of a folder, data files too
)

// item is one item with its latest content.
type item struct {
	entry
	kind, name string
	meta       json.RawMessage // its entry of the index, without content
	body       []byte
	digest     string // of body
	private    bool
}

func (i *item) key() string { return i.kind + ":" + i.name }

// entry is what cscli reads of an item. It refuses the whole index when one
// entry is of another form, so that such an item is never served.
type entry struct {
	Type         string             `json:"type"`
	Stage        string             `json:"stage"`
	Name         string             `json:"name"`
	FileName     string             `json:"file_name"`
	Description  string             `json:"description"`
	Content      string             `json:"content"`
	References   []string           `json:"references"`
	Path         string             `json:"path"`
	Version      string             `json:"version"`
	Versions     map[string]version `json:"versions"`
	Dependencies `yaml:",inline"`
}

// version is one that was published.
type version struct {
	Digest     string `json:"digest"`
	Deprecated bool   `json:"deprecated"`
}

// Dependencies are what a collection consists of.
type Dependencies struct {
	Parsers       []string `json:"parsers,omitempty" yaml:"parsers"`
	PostOverflows []string `json:"postoverflows,omitempty" yaml:"postoverflows"`
	Scenarios     []string `json:"scenarios,omitempty" yaml:"scenarios"`
	Collections   []string `json:"collections,omitempty" yaml:"collections"`
	Contexts      []string `json:"contexts,omitempty" yaml:"contexts"`
	AppsecConfigs []string `json:"appsec-configs,omitempty" yaml:"appsec-configs"`
	AppsecRules   []string `json:"appsec-rules,omitempty" yaml:"appsec-rules"`
}

// fields are the keys of an entry that mean something to clients. Readers in Go
// take "PATH" for "path" too: such twins are dropped.
var fields = append([]string{
	"type", "stage", "name", "file_name", "description", "content", "references", "path", "version", "versions",
}, Types...)

// readIndex reads an index and the content that it names from fsys, and returns
// what is whole. It fails only when there is no index to be read.
func readIndex(raw []byte, fsys fs.FS, private bool) (items []*item, problems []Problem, err error) {
	var index map[string]json.RawMessage
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, nil, fmt.Errorf("expected a hub index in JSON (the hub's .index.json): %w", err)
	}
	for _, kind := range Types {
		if len(index[kind]) == 0 {
			continue
		}
		var entries map[string]json.RawMessage
		if err := json.Unmarshal(index[kind], &entries); err != nil {
			return nil, nil, fmt.Errorf("the hub index: expected an object of items for %q: %w", kind, err)
		}
		if len(items)+len(problems)+len(entries) > maxItems {
			return nil, nil, fmt.Errorf("the hub index names more than %d items", maxItems)
		}
		for _, name := range slices.Sorted(maps.Keys(entries)) {
			i, err := readItem(kind, name, entries[name], fsys)
			if err != nil {
				problems = append(problems, Problem{Item: kind + ":" + clip(name), Reason: err.Error()})
				continue
			}
			i.private = private
			items = append(items, i)
		}
	}
	if len(items) == 0 {
		if len(problems) > 0 {
			return nil, nil, fmt.Errorf("none of the %d items of the hub index can be served; the first: %s", len(problems), problems[0])
		}
		return nil, nil, errors.New("the hub index names no items: is it the hub's .index.json?")
	}
	return items, problems, nil
}

// readItem reads an entry and its content, and checks both.
func readItem(kind, name string, raw json.RawMessage, fsys fs.FS) (*item, error) {
	i := &item{kind: kind, name: name}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(raw, &keys); err != nil || keys == nil {
		return nil, fmt.Errorf("expected an object, got %s", clip(string(raw)))
	}
	for key := range keys {
		if isTwin(key) {
			delete(keys, key)
		}
	}
	exact, err := json.Marshal(keys)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(exact, &i.entry); err != nil {
		return nil, fmt.Errorf("its entry is not of the index's form: %w", err)
	}
	if err := i.check(); err != nil {
		return nil, err
	}
	if err := i.load(fsys); err != nil {
		return nil, err
	}
	delete(keys, "content")
	i.Content = ""
	if exact, err = json.Marshal(keys); err != nil {
		return nil, err
	}
	i.meta, err = canonical(exact)
	return i, err
}

// isTwin reports whether key is not one of the fields, and Go takes it for one.
func isTwin(key string) bool {
	return slices.ContainsFunc(fields, func(field string) bool { return key != field && strings.EqualFold(key, field) })
}

var (
	nameForm    = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}$`)
	stageForm   = regexp.MustCompile(`^s[0-9]{2}-[a-z0-9-]{1,40}$`)
	versionForm = regexp.MustCompile(`^v?[0-9]{1,9}(\.[0-9]{1,9}){0,2}$`) // cscli stops at what is no semantic version
	digestForm  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// check refuses what cscli would stumble over, and paths that lead elsewhere.
func (i *item) check() error {
	if !nameForm.MatchString(i.name) {
		return errors.New("expected a name like author/name, of letters, digits and the signs - _ . in them")
	}
	if i.Path == "" {
		return errors.New("it has no path")
	}
	prefix := i.kind + "/"
	if i.kind == "parsers" || i.kind == "postoverflows" {
		if !stageForm.MatchString(i.Stage) {
			return fmt.Errorf("expected a stage like s01-parse, got %q", clip(i.Stage))
		}
		prefix += i.Stage + "/"
	} else if i.Stage != "" {
		return fmt.Errorf("expected no stage, got %q", clip(i.Stage))
	}
	// The file's place tells engines which item it is: what is not where its name
	// says would be another item, or none.
	author, base, _ := strings.Cut(i.name, "/")
	ext := path.Ext(i.Path)
	if ext != ".yaml" && ext != ".yml" || i.Path != prefix+author+"/"+base+ext || !fs.ValidPath(i.Path) {
		return fmt.Errorf("expected the path %s%s/%s.yaml, got %q", prefix, author, base, clip(i.Path))
	}
	if _, ok := i.Versions[i.Version]; !ok {
		return fmt.Errorf("its version %q is not among its versions", clip(i.Version))
	}
	for name, v := range i.Versions {
		if !versionForm.MatchString(name) {
			return fmt.Errorf("expected versions like 1.2, got %q", clip(name))
		}
		if !digestForm.MatchString(v.Digest) {
			return fmt.Errorf("expected a SHA-256 in hex as the digest of version %s, got %q", name, clip(v.Digest))
		}
	}
	return nil
}

// load takes the content from the file that the entry names, or from the entry
// when there is no such file. Wherever there is content it must be the latest
// version's.
func (i *item) load(fsys fs.FS) error {
	want := i.Versions[i.Version].Digest
	if i.Content != "" {
		embedded, err := base64.StdEncoding.DecodeString(i.Content)
		if err != nil {
			embedded = []byte(i.Content) // cscli takes it so
		}
		if digestOf(embedded) != want {
			return fmt.Errorf("the content in the index is not that of its version %s: expected SHA-256 %s, got %s", i.Version, want, digestOf(embedded))
		}
		i.body = embedded
	}
	body, err := readFile(fsys, i.Path, maxItem)
	switch {
	case errors.Is(err, fs.ErrNotExist) && i.body != nil:
	case err != nil:
		return fmt.Errorf("its file cannot be read: %w", err)
	case digestOf(body) != want:
		return fmt.Errorf("the file %s is not its version %s: expected SHA-256 %s, got %s", i.Path, i.Version, want, digestOf(body))
	default:
		i.body = body
	}
	if len(i.body) > maxItem {
		return fmt.Errorf("its content is larger than %d bytes", maxItem)
	}
	i.digest = want
	return nil
}

// compose writes an index of items, which are in order of type and name. The
// same items give the same bytes, on every node.
func compose(items []*item, content bool) []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for n, i := range items {
		switch {
		case n == 0:
			fmt.Fprintf(&b, "%q:{", i.kind)
		case items[n-1].kind != i.kind:
			fmt.Fprintf(&b, "\n},\n%q:{", i.kind)
		default:
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n%q:", i.name)
		if !content {
			b.Write(i.meta)
			continue
		}
		b.Write(i.meta[:len(i.meta)-1]) // never empty: it has a path
		b.WriteString(`,"content":"`)
		b.WriteString(base64.StdEncoding.EncodeToString(i.body))
		b.WriteString(`"}`)
	}
	if len(items) > 0 {
		b.WriteString("\n}")
	}
	b.WriteString("}\n")
	return b.Bytes()
}

// withoutCycles leaves out collections that contain themselves: cscli refuses
// the whole hub for one.
func withoutCycles(items []*item) (kept []*item, problems []Problem) {
	collections := map[string]*item{}
	for _, i := range items {
		if i.kind == "collections" {
			collections[i.name] = i
		}
	}
	const under, done = 1, 2
	state, bad := map[string]int{}, map[string]bool{}
	var stack []string
	var visit func(name string)
	visit = func(name string) {
		state[name] = under
		stack = append(stack, name)
		for _, child := range collections[name].Collections {
			switch {
			case collections[child] == nil || state[child] == done:
			case state[child] == under:
				for _, member := range stack[slices.Index(stack, child):] {
					bad[member] = true
				}
			default:
				visit(child)
			}
		}
		stack = stack[:len(stack)-1]
		state[name] = done
	}
	for _, name := range slices.Sorted(maps.Keys(collections)) {
		if state[name] == 0 {
			visit(name)
		}
	}
	for _, i := range items {
		if i.kind == "collections" && bad[i.name] {
			problems = append(problems, Problem{Item: i.key(), Reason: "it contains itself, by way of other collections"})
			continue
		}
		kept = append(kept, i)
	}
	return kept, problems
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
