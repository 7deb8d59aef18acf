package join

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// Credentials is the engine's online_api_credentials.yaml.
type Credentials struct {
	URL      string `yaml:"url"`
	Login    string `yaml:"login"`
	Password string `yaml:"password"`
	// An engine from 1.5 on that finds none polls CrowdSec's own host, and shows
	// it the machine's token; one before 1.5 does not start when there is one.
	PapiURL string `yaml:"papi_url,omitempty"`
}

// ReadCredentials returns the zero Credentials when there is no file, or none
// that an engine could use.
func ReadCredentials(path string) (Credentials, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Credentials{}, nil
	}
	if err != nil {
		return Credentials{}, fmt.Errorf("reading the engine's present credentials: %w (run this as root?)", err)
	}
	var c Credentials
	// The parser's message would quote the password: it is not passed on.
	if yaml.Unmarshal(text, &c) != nil || c.URL == "" || c.Login == "" || c.Password == "" {
		return Credentials{}, nil
	}
	return c, nil
}

const alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// newCredentials makes an account as cscli does: 32 characters of the
// machine's identity and 16 random ones, and a password of 64.
func newCredentials(random io.Reader, host string) (Credentials, error) {
	if host == "" {
		host = machineID()
	}
	if host == "" {
		id := make([]byte, 16)
		if _, err := io.ReadFull(random, id); err != nil {
			return Credentials{}, err
		}
		host = hex.EncodeToString(id)
	}
	suffix, err := randomText(random, 16)
	if err != nil {
		return Credentials{}, err
	}
	password, err := randomText(random, 64)
	return Credentials{Login: host + suffix, Password: password}, err
}

func machineID() string {
	for _, path := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		text, err := os.ReadFile(path)
		id := strings.ReplaceAll(strings.TrimSpace(string(text)), "-", "")
		if _, bad := hex.DecodeString(id); err == nil && bad == nil && len(id) >= 32 {
			return id[:32]
		}
	}
	return ""
}

// randomText returns n letters and digits, each equally likely.
func randomText(random io.Reader, n int) (string, error) {
	const fair = 256 - 256%len(alphanumeric)
	text, b := make([]byte, 0, n), make([]byte, 1)
	for len(text) < n {
		if _, err := io.ReadFull(random, b); err != nil {
			return "", fmt.Errorf("making a password: %w", err)
		}
		if int(b[0]) < fair {
			text = append(text, alphanumeric[int(b[0])%len(alphanumeric)])
		}
	}
	return string(text), nil
}

// replacement is a file that is about to take the place of another one. It is
// opened before anything is asked of the network, so that a machine is not
// registered when its credentials could not be kept.
type replacement struct {
	path string
	temp *os.File
}

func replace(path string) (*replacement, error) {
	temp, err := os.CreateTemp(filepath.Dir(path), ".muster-*") // 0600
	if err != nil {
		return nil, fmt.Errorf("the engine's credentials at %s cannot be written: %w (run this as root?)", path, err)
	}
	return &replacement{path: path, temp: temp}, nil
}

// discard removes the temporary file; after commit it does nothing.
func (r *replacement) discard() {
	if r.temp != nil {
		r.temp.Close()
		os.Remove(r.temp.Name())
	}
}

// keep copies the file that is about to be replaced, and returns the path of
// the copy, or "" when there is no file.
func (r *replacement) keep(now time.Time) (string, error) {
	old, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	info, statErr := os.Stat(r.path)
	if err = errors.Join(err, statErr); err != nil {
		return "", fmt.Errorf("keeping the old credentials: %w", err)
	}
	backup := r.path + backupSuffix
	if _, err := os.Lstat(backup); err == nil {
		backup += "-" + now.UTC().Format("20060102T150405.000Z")
	}
	f, err := os.OpenFile(backup, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("keeping the old credentials: %w", err)
	}
	if err := fill(f, old, info); err != nil {
		os.Remove(backup)
		return "", err
	}
	return backup, nil
}

// commit puts content in place, with the owner of the file before it.
func (r *replacement) commit(content []byte) error {
	owner, err := os.Stat(r.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := fill(r.temp, content, owner); err != nil {
		return err
	}
	if err := os.Rename(r.temp.Name(), r.path); err != nil {
		return fmt.Errorf("putting the credentials in place: %w", err)
	}
	r.temp = nil
	return nil
}

// fill writes content durably and closes f.
func fill(f *os.File, content []byte, owner fs.FileInfo) error {
	_, err := f.Write(content)
	if err == nil && owner != nil {
		err = chown(f, owner)
	}
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", f.Name(), err)
	}
	return nil
}

const backupSuffix = ".before-muster"

// newestBackup returns the copy of path that was kept last, or "".
func newestBackup(path string) (string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+backupSuffix) {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return "", nil
	}
	// The first copy has no time in its name and sorts first.
	return filepath.Join(filepath.Dir(path), slices.Max(names)), nil
}

// randomSource returns r, or the system's when r is nil.
func randomSource(r io.Reader) io.Reader {
	if r == nil {
		return rand.Reader
	}
	return r
}
