package roles

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"muster"
	"muster/internal/console"
	"muster/internal/enroll"
	"muster/internal/ops"
)

// SocketName is the administrator's socket in the data directory.
const SocketName = "admin.sock"

// lockDir makes the data directory and takes it for this process: two servers
// on one directory would corrupt it.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the data directory (setting data_dir): %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the data directory %s must be writable (setting data_dir): %w", dir, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("another Muster runs with the data directory %s: stop it, or set data_dir", dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// longestSocket is the longest path that a Unix socket may have on Linux; other
// systems take a few bytes less.
const longestSocket = 103

// listenSocket opens the administrator's socket, for this user only. The
// directory's lock is held, so a socket that is there is a dead one.
func listenSocket(ctx context.Context, dir string) (net.Listener, error) {
	path := filepath.Join(dir, SocketName)
	if len(path) > longestSocket {
		return nil, fmt.Errorf("the admin socket's path %s has %d bytes, and systems allow %d: use a shorter data_dir", path, len(path), longestSocket)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing the old admin socket: %w", err)
	}
	// The directory is 0700, so nobody gets at the socket before its mode is set.
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening the admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// firstRun makes what an installation begins with: an organisation, an
// administrator whose password is shown once, and a key for the first engines.
func (n *node) firstRun(ctx context.Context) error {
	users, err := n.db.CountUsers(ctx)
	if err != nil || users > 0 {
		return err
	}
	org, err := console.NewOrganisation("default", n.now())
	if err != nil {
		return err
	}
	if list, err := n.db.Organisations(ctx); err != nil {
		return err
	} else if len(list) == 0 { // a first run that was cut short may have got so far
		if err := n.db.CreateOrganisation(ctx, org); err != nil {
			return err
		}
	} else {
		org = list[0]
	}
	if err := n.machines.OrganisationsChanged(ctx); err != nil {
		return err
	}
	password := strings.ToLower(rand.Text())
	hash, err := n.machines.HashPassword(ctx, password)
	if err != nil {
		return err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	key, _, err := n.machines.CreateKey(ctx, enroll.KeyRequest{Organisation: org.ID, AutoAccept: true, TTL: firstKeyLife})
	if err != nil {
		return err
	}
	// The user comes last: where there is one, the first run is over.
	err = n.db.CreateUser(ctx, muster.User{
		ID: id.String(), Name: console.FirstUser, PasswordHash: hash, Role: muster.Admin, CreatedAt: n.now().UTC(),
	})
	if err != nil {
		return err
	}
	n.first = &firstSecrets{password, key}
	return nil
}

// firstKeyLife is how long the key that the first start prints may be used.
const firstKeyLife = 24 * time.Hour

// firstSecrets are shown at the first start and never again.
type firstSecrets struct{ password, key string }

// greet tells the person at the terminal where Muster is and what comes next.
func (n *node) greet(context.Context) error {
	fmt.Fprintf(n.out, "Muster %s serves on %s (data in %s)\n", n.version, n.public, n.cfg.DataDir)
	if n.first == nil {
		fmt.Fprintf(n.out, "Connect an engine:  muster admin key create --accept   then on its machine:  muster join %s --key KEY\n", n.public)
		return nil
	}
	fmt.Fprintf(n.out, "\n  Administrator:      %s\n  Password:           %s   (shown only now)\n", console.FirstUser, n.first.password)
	fmt.Fprintf(n.out, "  Connect an engine:  muster join %s --key %s\n", n.public, n.first.key)
	fmt.Fprintf(n.out, "                      (run it on the engine's machine; the key is good for %s, later ones: muster admin key create --accept)\n\n", FormatDuration(firstKeyLife))
	return nil
}

// pathOf returns the path of a base URL.
func pathOf(base string) string {
	u, err := url.Parse(base)
	if err != nil {
		return "/"
	}
	return u.Path
}

// closing closes something at the end and logs what cannot be returned.
func closing(log *slog.Logger, name string, close func() error) {
	if err := close(); err != nil {
		log.Error("could not be closed cleanly", ops.KeyName, name, ops.KeyError, err)
	}
}
