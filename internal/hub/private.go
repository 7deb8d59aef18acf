package hub

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// readPrivate reads the private folder: by its index when it has one, else by
// the files in it.
func (m *Mirror) readPrivate() (items []*item, problems []Problem, err error) {
	if m.cfg.Private == "" {
		return nil, nil, nil
	}
	root, err := os.OpenRoot(m.cfg.Private)
	if m.cfg.PrivateOptional && errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the folder of private items (setting hub.private): %w", err)
	}
	defer func() { _ = root.Close() }()
	raw, err := readFile(root.FS(), indexName, maxIndex)
	if err == nil {
		items, problems, err = readIndex(raw, root.FS(), true)
	} else if errors.Is(err, fs.ErrNotExist) {
		items, problems, err = m.readLoose(root.FS())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("private items in %s: %w", m.cfg.Private, err)
	}
	return items, problems, nil
}

// readLoose makes index entries of the files in a folder.
func (m *Mirror) readLoose(fsys fs.FS) (items []*item, problems []Problem, err error) {
	grown := false
	for _, kind := range Types {
		err := fs.WalkDir(fsys, kind, func(name string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && name == kind {
				return fs.SkipDir
			}
			if err != nil {
				return err
			}
			ext := path.Ext(name)
			if d.IsDir() || ext != ".yaml" && ext != ".yml" {
				return nil
			}
			if len(items)+len(problems) >= maxItems {
				return fmt.Errorf("there are more than %d items", maxItems)
			}
			i, fresh, err := m.readOwn(fsys, kind, name)
			if err != nil {
				problems = append(problems, Problem{Item: clip(name), Reason: err.Error()})
				return nil
			}
			grown = grown || fresh
			items = append(items, i)
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	if grown {
		if err := m.history.write(m.cfg.History); err != nil {
			return nil, nil, fmt.Errorf("keeping the versions of private items: %w", err)
		}
	}
	return items, problems, nil
}

// document is what an index tells of an item's YAML.
type document struct {
	Description  string   `yaml:"description"`
	References   []string `yaml:"references"`
	Labels       any      `yaml:"labels"`
	Dependencies `yaml:",inline"`
}

// readOwn makes an item of a file.
func (m *Mirror) readOwn(fsys fs.FS, kind, name string) (i *item, fresh bool, err error) {
	body, err := readFile(fsys, name, maxItem)
	if err != nil {
		return nil, false, fmt.Errorf("it cannot be read: %w", err)
	}
	var doc document
	// Further documents of the file are further scenarios; the first gives the title.
	if err := yaml.NewDecoder(bytes.NewReader(body)).Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, false, fmt.Errorf("expected YAML as the hub's items are: %s", yaml.FormatError(err, false, false))
	}
	labels, err := json.Marshal(doc.Labels)
	if err != nil {
		return nil, false, fmt.Errorf("labels: %w", err)
	}
	parts := strings.Split(name, "/")
	i = &item{kind: kind, private: true, body: body, digest: digestOf(body)}
	if (kind == "parsers" || kind == "postoverflows") && len(parts) == 4 {
		i.Stage = parts[1]
		parts = slices.Delete(parts, 1, 2)
	}
	if len(parts) != 3 {
		return nil, false, errors.New("expected a path like scenarios/author/name.yaml, with a stage for parsers and postoverflows: parsers/s01-parse/author/name.yaml")
	}
	i.name = parts[1] + "/" + strings.TrimSuffix(parts[2], path.Ext(parts[2]))
	i.Path, i.Description, i.References = name, doc.Description, doc.References
	if kind == "collections" {
		i.Dependencies = doc.Dependencies
	}
	i.Versions = map[string]version{"0.1": {Digest: i.digest}}
	i.Version = "0.1"
	if err := i.check(); err != nil { // before it is remembered
		return nil, false, err
	}
	i.Version, i.Versions, fresh = m.history.note(i.key(), i.digest, m.cfg.Now())
	meta, err := json.Marshal(struct {
		Path        string             `json:"path"`
		Stage       string             `json:"stage,omitempty"`
		Version     string             `json:"version"`
		Versions    map[string]version `json:"versions"`
		Description string             `json:"description,omitempty"`
		Author      string             `json:"author"`
		References  []string           `json:"references,omitempty"`
		Labels      json.RawMessage    `json:"labels"`
		Dependencies
	}{i.Path, i.Stage, i.Version, i.Versions, i.Description, parts[1], i.References, labels, i.Dependencies})
	if err != nil {
		return nil, false, err
	}
	i.meta, err = canonical(meta)
	return i, fresh, err
}

// canonical orders the keys of an object, so that an index that is read again
// comes out as it was.
func canonical(object []byte) ([]byte, error) {
	var keys map[string]any
	if err := json.Unmarshal(object, &keys); err != nil {
		return nil, err
	}
	return json.Marshal(keys)
}

// history is the versions of private items, by their keys, earliest first.
type history map[string][]kept

// kept is a version that was served once.
type kept struct {
	Version string    `json:"version"`
	Digest  string    `json:"digest"`
	Since   time.Time `json:"since"`
}

const (
	maxHistory  = 32 << 20
	maxVersions = 200 // of an item
)

func readHistory(name string) (history, error) {
	if name == "" {
		return history{}, nil
	}
	raw, err := readFile(os.DirFS(filepath.Dir(name)), filepath.Base(name), maxHistory)
	if errors.Is(err, fs.ErrNotExist) {
		return history{}, nil
	}
	h := history{}
	if err == nil {
		err = json.Unmarshal(raw, &h)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the versions of private items in %s: %w", name, err)
	}
	return h, nil
}

// note returns the latest version of an item, which is a new one unless the
// content is that of the last, and all that there were.
func (h history) note(key, digest string, now time.Time) (latest string, all map[string]version, fresh bool) {
	list := h[key]
	if n := len(list); n == 0 || list[n-1].Digest != digest {
		number := 1
		if n > 0 {
			last, err := strconv.Atoi(strings.TrimPrefix(list[n-1].Version, "0."))
			if err == nil {
				number = last + 1
			}
		}
		list = append(slices.Clone(list), kept{"0." + strconv.Itoa(number), digest, now.UTC()})
		list = list[max(0, len(list)-maxVersions):]
		h[key], fresh = list, true
	}
	all = make(map[string]version, len(list))
	for _, k := range list {
		all[k.Version] = version{Digest: k.Digest}
	}
	return list[len(list)-1].Version, all, fresh
}

// write puts a new file in place of the old.
func (h history) write(name string) error {
	if name == "" {
		return nil
	}
	raw, err := json.MarshalIndent(maps.Clone(h), "", " ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
