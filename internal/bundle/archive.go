package bundle

import (
	"archive/tar"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/klauspost/compress/zstd"

	"muster"
)

// Progress is told how many bytes of how many have been seen to; nil is told
// nothing.
type Progress func(done, total int64)

func (p Progress) tell(done, total int64) {
	if p != nil {
		p(done, total)
	}
}

// Pack writes a bundle of the files in dir, which m describes but for its Files:
// these are set here. Without a key it is not signed, and Unpack takes it only
// when it is told to.
func Pack(w io.Writer, dir string, m *Manifest, key ed25519.PrivateKey, progress Progress) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if err := m.list(root.FS()); err != nil {
		return err
	}
	m.Format = Format
	if err := m.check(); err != nil {
		return err
	}
	manifest, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	if len(manifest) > maxHead {
		return fmt.Errorf("the manifest has %d bytes: expected at most %d", len(manifest), maxHead)
	}
	var sig []byte
	if key != nil {
		if sig, err = sign(manifest, key); err != nil {
			return err
		}
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(maxWindow))
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	for _, head := range []struct {
		name string
		body []byte
	}{{manifestName, manifest}, {signatureName, sig}} {
		if err := t.WriteHeader(header(head.name, int64(len(head.body)), m.MadeAt)); err != nil {
			return err
		}
		if _, err := t.Write(head.body); err != nil {
			return err
		}
	}
	total, done := m.Bytes(), int64(0)
	for _, f := range m.Files {
		if err := packFile(t, root.FS(), f, m.MadeAt, func(n int64) { progress.tell(done+n, total) }); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		done += f.Size
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}

// maxWindow is how far back a bundle's compression may look; it bounds the
// memory of whoever reads it.
const maxWindow = 8 << 20

func header(name string, size int64, at time.Time) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: at.UTC().Truncate(time.Second), Format: tar.FormatPAX}
}

// list sets m.Files, in order of their paths.
func (m *Manifest) list(fsys fs.FS) error {
	m.Files = nil
	return fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s: expected a regular file", name)
		}
		h := newHasher(nil)
		if err := copyFile(h, fsys, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		m.Files = append(m.Files, File{Path: name, Size: h.n, SHA256: h.sum()})
		return nil
	})
}

func copyFile(w io.Writer, fsys fs.FS, name string) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.Copy(w, f)
	return err
}

func packFile(t *tar.Writer, fsys fs.FS, f File, at time.Time, progress func(int64)) error {
	if err := t.WriteHeader(header(f.Path, f.Size, at)); err != nil {
		return err
	}
	h := newHasher(progress)
	if err := copyFile(io.MultiWriter(t, h), fsys, f.Path); err != nil {
		return err
	}
	if h.n != f.Size || h.sum() != f.SHA256 {
		return errors.New("it changed while the bundle was made: try again")
	}
	return nil
}

// hasher hashes and counts what is written to it.
type hasher struct {
	hash.Hash
	n        int64
	progress func(int64)
}

func newHasher(progress func(int64)) *hasher { return &hasher{Hash: sha256.New(), progress: progress} }

func (h *hasher) Write(b []byte) (int, error) {
	h.n += int64(len(b))
	if h.progress != nil {
		h.progress(h.n)
	}
	return h.Hash.Write(b)
}

func (h *hasher) sum() string { return hex.EncodeToString(h.Sum(nil)) }

// Options say how a bundle is read.
type Options struct {
	// Keys are those of whom the reader trusts; one of them must have signed.
	Keys []ed25519.PublicKey
	// Unsigned takes a bundle that nobody has signed: from the server itself.
	Unsigned bool
	// Dir is an empty folder that files are written to; "" = they are verified only.
	Dir      string
	Progress Progress
}

// Read reads and verifies a whole bundle. After an error nothing in Dir is to be
// used. Errors are of code Invalid, Forbidden (an unknown key), or those of the
// file system.
func Read(r io.Reader, o Options) (*Manifest, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(MaxBytes+maxHead))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	t := tar.NewReader(z)
	manifest, err := readHead(t, manifestName)
	if err != nil {
		return nil, err
	}
	sig, err := readHead(t, signatureName)
	if err != nil {
		return nil, err
	}
	if !o.Unsigned || len(sig) > 0 {
		if len(sig) == 0 {
			return nil, muster.Errorf(muster.Forbidden, "the bundle is not signed")
		}
		if _, err := verify(manifest, sig, o.Keys); err != nil {
			return nil, err
		}
	}
	m := &Manifest{}
	if err := json.Unmarshal(manifest, m); err != nil {
		return nil, muster.Errorf(muster.Invalid, "the bundle's manifest is not of the form: %w", err)
	}
	if err := m.check(); err != nil {
		return nil, muster.Errorf(muster.Invalid, "the bundle's manifest: %w", err)
	}
	var root *os.Root
	if o.Dir != "" {
		if root, err = os.OpenRoot(o.Dir); err != nil {
			return nil, err
		}
		defer func() { _ = root.Close() }()
	}
	total, done := m.Bytes(), int64(0)
	for _, f := range m.Files {
		if err := readFile(t, f, root, m.MadeAt, func(n int64) { o.Progress.tell(done+n, total) }); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		done += f.Size
	}
	if _, err := t.Next(); !errors.Is(err, io.EOF) {
		return nil, muster.Errorf(muster.Invalid, "the bundle goes on after the last file that its manifest names")
	}
	return m, nil
}

// next expects a regular file.
func next(t *tar.Reader, name string) (*tar.Header, error) {
	h, err := t.Next()
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "expected %s in the bundle; it is no bundle, or it is cut off or damaged: %w", name, err)
	}
	if h.Name != name || h.Typeflag != tar.TypeReg {
		return nil, muster.Errorf(muster.Invalid, "expected %s in the bundle, got %q", name, clip(h.Name))
	}
	return h, nil
}

func readHead(t *tar.Reader, name string) ([]byte, error) {
	h, err := next(t, name)
	if err != nil {
		return nil, err
	}
	if h.Size > maxHead {
		return nil, muster.Errorf(muster.Invalid, "%s has %d bytes: expected at most %d", name, h.Size, maxHead)
	}
	body, err := io.ReadAll(t)
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "%s cannot be read: the bundle is cut off or damaged: %w", name, err)
	}
	return body, nil
}

// readFile verifies a file and writes it to root unless that is nil.
func readFile(t *tar.Reader, f File, root *os.Root, at time.Time, progress func(int64)) error {
	header, err := next(t, f.Path)
	if err != nil {
		return err
	}
	if header.Size != f.Size {
		return muster.Errorf(muster.Invalid, "expected %d bytes, got %d", f.Size, header.Size)
	}
	h := newHasher(progress)
	var out *os.File
	to := io.Writer(h)
	if root != nil {
		if err := root.MkdirAll(path.Dir(f.Path), 0o750); err != nil {
			return err
		}
		if out, err = root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640); err != nil {
			return err
		}
		to = io.MultiWriter(h, out)
	}
	if _, err = io.Copy(to, t); err != nil {
		err = muster.Errorf(muster.Invalid, "the bundle is cut off or damaged, or there is no room for it: %w", err)
	} else if h.sum() != f.SHA256 {
		err = muster.Errorf(muster.Invalid, "expected SHA-256 %s, got %s: the bundle is damaged", f.SHA256, h.sum())
	}
	if out == nil {
		return err
	}
	// Data files go by the time of the bundle: engines compare it with their own.
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return err
	}
	return root.Chtimes(f.Path, at, at)
}
