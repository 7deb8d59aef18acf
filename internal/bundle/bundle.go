// Package bundle reads and writes bundles: one signed file that carries a hub,
// lists, allowlists and databases to a Muster that has no network.
//
// A bundle is a tar archive, compressed with zstd. Its first file is the
// manifest, which names every other with its size and SHA-256; the second is the
// Ed25519 signature of the manifest; then come the files, in the manifest's
// order. Nothing is decompressed, beyond the first two, before the signature has
// been verified, and nothing that the manifest does not name is read.
package bundle

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"muster"
)

// Format is the version of the format that is written and read.
const Format = 1

// Bounds on bundles.
const (
	MaxFiles = 20_000
	MaxBytes = 8 << 30 // of all files, decompressed
	MaxList  = 1_000_000
	maxHead  = 16 << 20 // the manifest, and the signature
	maxLists = 1_000
)

// Names of the first two files.
const (
	manifestName  = "manifest.json"
	signatureName = "manifest.sig"
)

// Folders of a bundle.
const (
	HubDir     = "hub"     // a public hub, as internal/hub reads it
	PrivateDir = "private" // private items, likewise
	ListsDir   = "lists"
	AllowDir   = "allowlists"
	EnrichDir  = "enrich"
)

// Databases that a bundle may have.
const (
	ASNFile     = EnrichDir + "/asn.mmdb"
	CountryFile = EnrichDir + "/country.mmdb"
)

// Manifest says what is in a bundle.
type Manifest struct {
	Format     int         `json:"format"`
	ID         string      `json:"id"` // of this bundle, and of no other
	MadeAt     time.Time   `json:"made_at"`
	ValidUntil time.Time   `json:"valid_until"` // entries of lists end then at the latest
	From       string      `json:"from"`        // public URL of the Muster that it was made on
	Version    string      `json:"version"`     // of that Muster
	Lists      []List      `json:"lists"`
	Allowlists []Allowlist `json:"allowlists"`
	Files      []File      `json:"files"`
}

// File is one file of a bundle.
type File struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // hex
}

// List is a blocklist in a bundle. Its entries are in the file lists/NAME.jsonl.
type List struct {
	Name        string        `json:"name"` // as muster.Blocklist's
	Label       string        `json:"label"`
	Description string        `json:"description"`
	Remedy      muster.Remedy `json:"remedy"`
	Lifetime    time.Duration `json:"lifetime"` // ns
	Entries     int           `json:"entries"`
}

// Path returns where the entries are.
func (l *List) Path() string { return ListsDir + "/" + l.Name + ".jsonl" }

// Allowlist is an allowlist in a bundle. Its items are in the file
// allowlists/NAME.jsonl.
type Allowlist struct {
	Name        string `json:"name"` // as muster.Allowlist's
	Description string `json:"description"`
	Items       int    `json:"items"`
}

// Path returns where the items are.
func (l *Allowlist) Path() string { return AllowDir + "/" + l.Name + ".jsonl" }

// Entry is one line of a List's file.
type Entry struct {
	Value   string    `json:"value"` // an address or a range
	Comment string    `json:"comment,omitempty"`
	Until   time.Time `json:"until,omitzero"`
}

// AllowItem is one line of an Allowlist's file.
type AllowItem struct {
	Value  string    `json:"value"` // as muster.ParseAllowItem reads it
	Reason string    `json:"reason,omitempty"`
	Until  time.Time `json:"until,omitzero"`
}

// Has reports whether the bundle has a file, or one in a folder.
func (m *Manifest) Has(name string) bool {
	return slices.ContainsFunc(m.Files, func(f File) bool { return f.Path == name || strings.HasPrefix(f.Path, name+"/") })
}

// Bytes returns the size of all files.
func (m *Manifest) Bytes() (n int64) {
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

var (
	hexForm  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	idForm   = regexp.MustCompile(`^[0-9a-f-]{36}$`)
	listForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,56}$`) // bundle- comes before it
)

// check refuses a manifest that is not of the form, whoever has signed it.
func (m *Manifest) check() error {
	switch {
	case m.Format != Format:
		return fmt.Errorf("expected a bundle of format %d, got %d: it was made by another release of Muster", Format, m.Format)
	case !idForm.MatchString(m.ID) || m.MadeAt.IsZero() || !m.ValidUntil.After(m.MadeAt):
		return errors.New("expected an id, and valid_until after made_at")
	case len(m.Files) > MaxFiles || len(m.Lists) > maxLists || len(m.Allowlists) > muster.MaxAllowlists:
		return fmt.Errorf("expected at most %d files, %d lists and %d allowlists, got %d, %d and %d",
			MaxFiles, maxLists, muster.MaxAllowlists, len(m.Files), len(m.Lists), len(m.Allowlists))
	}
	seen, total := map[string]bool{}, int64(0)
	for _, f := range m.Files {
		total += f.Size
		switch {
		case !fs.ValidPath(f.Path) || f.Path != path.Clean(f.Path) || strings.ContainsAny(f.Path, "\\\x00:") || len(f.Path) > 300 || !inFolder(f.Path):
			return fmt.Errorf("%q cannot be the path of a file in a bundle", clip(f.Path))
		case seen[f.Path]:
			return fmt.Errorf("%s is there twice", f.Path)
		case f.Size < 0 || f.Size > MaxBytes || total > MaxBytes:
			return fmt.Errorf("%s: expected at most %d bytes in all", f.Path, int64(MaxBytes))
		case !hexForm.MatchString(f.SHA256):
			return fmt.Errorf("%s: expected a SHA-256 in hex, got %q", f.Path, clip(f.SHA256))
		}
		seen[f.Path] = true
	}
	names := map[string]bool{}
	for i := range m.Lists {
		l := &m.Lists[i]
		if !listForm.MatchString(l.Name) || names[l.Path()] || !seen[l.Path()] || l.Remedy != muster.RemedyBan && l.Remedy != muster.RemedyCaptcha || l.Entries < 0 || l.Entries > MaxList {
			return fmt.Errorf("the list %q is not of the form, is there twice, or its file is missing", clip(l.Name))
		}
		names[l.Path()] = true
	}
	for i := range m.Allowlists {
		l := &m.Allowlists[i]
		if !listForm.MatchString(l.Name) || names[l.Path()] || !seen[l.Path()] || l.Items < 0 || l.Items > muster.MaxAllowItems {
			return fmt.Errorf("the allowlist %q is not of the form, is there twice, or its file is missing", clip(l.Name))
		}
		names[l.Path()] = true
	}
	return nil
}

// inFolder reports whether a path is in one of the folders of a bundle.
func inFolder(name string) bool {
	folder, _, ok := strings.Cut(name, "/")
	return ok && slices.Contains([]string{HubDir, PrivateDir, ListsDir, AllowDir, EnrichDir}, folder)
}

// Keys are text: a word for what they are, and base64.
const (
	privatePrefix = "muster-bundle-private-"
	publicPrefix  = "muster-bundle-public-"
)

// NewKey makes a key to sign with.
func NewKey() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

// FormatPrivate writes a private key as text.
func FormatPrivate(k ed25519.PrivateKey) string {
	return privatePrefix + base64.RawURLEncoding.EncodeToString(k.Seed())
}

// FormatPublic writes a public key as text.
func FormatPublic(k ed25519.PublicKey) string {
	return publicPrefix + base64.RawURLEncoding.EncodeToString(k)
}

// ParsePrivate reads what FormatPrivate wrote. The error does not quote it.
func ParsePrivate(text string) (ed25519.PrivateKey, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), privatePrefix)
	seed, err := base64.RawURLEncoding.DecodeString(rest)
	if !ok || err != nil || len(seed) != ed25519.SeedSize {
		return nil, muster.Errorf(muster.Invalid, "expected a private key as muster bundle keygen writes it: %s…", privatePrefix)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// ParsePublic reads what FormatPublic wrote. The error does not quote it: it may
// be a private key by mistake.
func ParsePublic(text string) (ed25519.PublicKey, error) {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, privatePrefix) {
		return nil, muster.Errorf(muster.Invalid, "expected a public key, got a private one: whoever verifies needs the public key alone")
	}
	rest, ok := strings.CutPrefix(text, publicPrefix)
	key, err := base64.RawURLEncoding.DecodeString(rest)
	if !ok || err != nil || len(key) != ed25519.PublicKeySize {
		return nil, muster.Errorf(muster.Invalid, "expected a public key as muster bundle keygen writes it: %s…", publicPrefix)
	}
	return key, nil
}

// signature is the second file.
type signature struct {
	Key       string `json:"key"` // FormatPublic
	Signature string `json:"signature"`
}

// signed is what is signed: nothing else that a key might sign begins like it.
func signed(manifest []byte) []byte { return append([]byte("muster bundle 1\n"), manifest...) }

func sign(manifest []byte, key ed25519.PrivateKey) ([]byte, error) {
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("the key is no Ed25519 key")
	}
	return json.Marshal(signature{FormatPublic(public), hex.EncodeToString(ed25519.Sign(key, signed(manifest)))})
}

// verify returns by which of the keys the manifest is signed.
func verify(manifest, sig []byte, trusted []ed25519.PublicKey) (ed25519.PublicKey, error) {
	var s signature
	if err := json.Unmarshal(sig, &s); err != nil {
		return nil, muster.Errorf(muster.Invalid, "the bundle's signature is not of the form: %w", err)
	}
	raw, err := hex.DecodeString(s.Signature)
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "the bundle's signature is not of the form: %w", err)
	}
	for _, key := range trusted {
		if FormatPublic(key) != s.Key {
			continue
		}
		if !ed25519.Verify(key, signed(manifest), raw) {
			return nil, muster.Errorf(muster.Invalid, "the bundle's signature is wrong: it was damaged, or changed after it was made")
		}
		return key, nil
	}
	return nil, muster.Errorf(muster.Forbidden, "the bundle is signed with the key %s, which is not one of those named", clip(s.Key))
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
