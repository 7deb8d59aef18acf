package hub

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Export writes what is served into folders that another Mirror can be given:
// indexes with content, and data files. A folder for which there is nothing is
// not made.
func (m *Mirror) Export(public, private string) error {
	s := m.current.Load()
	if s.main == nil {
		return nil
	}
	trees := map[string]*tree{"": s.main}
	for name, t := range s.byBranch {
		if t != s.main {
			trees[name] = t
		}
	}
	for name, t := range trees {
		if err := writeIndex(filepath.Join(public, name), t.list, false); err != nil {
			return err
		}
		for _, dir := range t.data {
			if dir != m.cfg.Private {
				if err := copyData(dir, filepath.Join(public, name)); err != nil {
					return err
				}
			}
		}
	}
	if s.private == 0 {
		return nil
	}
	if err := writeIndex(private, s.main.list, true); err != nil {
		return err
	}
	return copyData(m.cfg.Private, private)
}

// writeIndex writes an index of the private items, or of the others.
func writeIndex(dir string, items []*item, private bool) error {
	var chosen []*item
	for _, i := range items {
		if i.private == private {
			chosen = append(chosen, i)
		}
	}
	if len(chosen) == 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, indexName), compose(chosen, true), 0o600)
}

// copyData copies the data files that are served.
func copyData(from, to string) error {
	root, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for _, folder := range dataFolders {
		err := fs.WalkDir(root.FS(), folder, func(name string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !d.Type().IsRegular() || !isData(name) {
				return err
			}
			return copyOne(root, name, filepath.Join(to, filepath.FromSlash(name)))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func copyOne(root *os.Root, name, to string) error {
	in, err := root.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
