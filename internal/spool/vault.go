package spool

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"muster"
)

// TokenStore keeps sealed tokens.
type TokenStore interface {
	// SpoolTokens returns all of them, oldest first.
	SpoolTokens(ctx context.Context) ([]muster.SpoolToken, error)
	// PutSpoolToken is durable when it returns nil. Of an engine's tokens the
	// newest keep stay.
	PutSpoolToken(ctx context.Context, token muster.SpoolToken, keep int) error
}

// keptTokens is how many tokens of an engine are kept: its latest, and those
// before in case that somebody else sent the latest in its name.
const keptTokens = 4

// Vault keeps engines' tokens, so that what they sent can be forwarded after
// they were answered. On disk they are encrypted (AES-256-GCM); they reach no
// log and no error.
type Vault struct {
	store TokenStore
	seal  cipher.AEAD

	mu      sync.Mutex
	engines map[muster.SieveEngine][]*token // oldest first
	fresh   chan struct{}                   // one token: an engine has a new one
}

type token struct {
	id            muster.SieveToken
	authorization string
	expires       time.Time // zero: unknown
	refused       bool      // the upstream answered 401
	durable       bool
}

// OpenVault reads the tokens in store with the key in keyFile, which is made
// when absent. Tokens that the key does not open are passed over, as are those
// of no use any more: engines bring new ones.
func OpenVault(ctx context.Context, store TokenStore, keyFile string) (*Vault, error) {
	key, err := readKey(keyFile)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("the key in %s: %w", keyFile, err)
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	v := &Vault{store: store, seal: seal, engines: map[muster.SieveEngine][]*token{}, fresh: make(chan struct{}, 1)}
	stored, err := store.SpoolTokens(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range stored {
		authorization, err := v.open(s)
		if err != nil {
			continue
		}
		id, _ := Identify(authorization)
		v.add(s.Engine, &token{id: s.Token, authorization: authorization, expires: id.Expires, durable: true})
	}
	return v, nil
}

const keySize = 32

func readKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	switch {
	case err == nil && len(key) != keySize:
		return nil, muster.Errorf(muster.Invalid, "%s is no key of %d bytes: restore it, or remove it: engines' tokens are then learned anew", path, keySize)
	case err == nil:
		return key, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("reading the key of the engines' tokens: %w", err)
	}
	key = make([]byte, keySize)
	_, _ = rand.Read(key) // never fails
	f, err := os.CreateTemp(filepath.Dir(path), ".muster-*")
	if err != nil {
		return nil, fmt.Errorf("making the key of the engines' tokens: %w", err)
	}
	_, err = f.Write(key)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return nil, fmt.Errorf("making the key of the engines' tokens: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return key, nil
}

func (v *Vault) open(s muster.SpoolToken) (string, error) {
	size := v.seal.NonceSize()
	if len(s.Sealed) < size {
		return "", errors.New("too short")
	}
	text, err := v.seal.Open(nil, s.Sealed[:size], s.Sealed[size:], sealedFor(s.Engine, s.Token))
	return string(text), err
}

// sealedFor binds a sealed token to its place: one cannot be put in another's.
func sealedFor(engine muster.SieveEngine, id muster.SieveToken) []byte {
	return append(engine[:], id[:]...)
}

// Keep makes an engine's token durable, when it is not yet: after nil what the
// engine sent can be forwarded.
func (v *Vault) Keep(ctx context.Context, authorization string, id Identity, now time.Time) error {
	v.mu.Lock()
	known := v.find(id.Engine, id.Token)
	if known == nil {
		if !v.room(id.Engine, now) {
			v.mu.Unlock()
			return &muster.Error{Code: muster.Unavailable, RetryAfter: time.Minute, Message: fmt.Sprintf(
				"%d engines have sent signals lately, the most that this sieve takes: is somebody inventing tokens? Client validation keeps them out (setting client_validation.enabled)", maxEngines)}
		}
		known = &token{id: id.Token, authorization: authorization, expires: id.Expires}
		v.add(id.Engine, known)
		select {
		case v.fresh <- struct{}{}:
		default:
		}
	}
	durable := known.durable
	v.mu.Unlock()
	if durable {
		return nil
	}
	nonce := make([]byte, v.seal.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	sealed := v.seal.Seal(nonce, nonce, []byte(authorization), sealedFor(id.Engine, id.Token))
	if err := v.store.PutSpoolToken(ctx, muster.SpoolToken{Engine: id.Engine, Token: id.Token, Seen: now, Sealed: sealed}, keptTokens); err != nil {
		return fmt.Errorf("keeping the engine's token: %w", err)
	}
	v.mu.Lock()
	known.durable = true
	v.mu.Unlock()
	return nil
}

// maxEngines bounds the engines whose tokens are kept: without client validation
// anybody who can connect can invent one.
const maxEngines = 20_000

// room makes sure that another engine fits: those go whose tokens are of no use
// any more. It is called with mu held.
func (v *Vault) room(engine muster.SieveEngine, now time.Time) bool {
	if _, known := v.engines[engine]; known || len(v.engines) < maxEngines {
		return true
	}
	maps.DeleteFunc(v.engines, func(_ muster.SieveEngine, list []*token) bool {
		return !slices.ContainsFunc(list, func(t *token) bool { return t.usable(now) })
	})
	return len(v.engines) < maxEngines
}

func (t *token) usable(now time.Time) bool {
	return !t.refused && (t.expires.IsZero() || now.Before(t.expires))
}

// add and find are called with mu held, or before anybody else knows of v.
func (v *Vault) add(engine muster.SieveEngine, t *token) {
	list := append(v.engines[engine], t)
	v.engines[engine] = slices.Clone(list[max(0, len(list)-keptTokens):])
}

func (v *Vault) find(engine muster.SieveEngine, id muster.SieveToken) *token {
	for _, t := range v.engines[engine] {
		if t.id == id {
			return t
		}
	}
	return nil
}

// latest returns the newest token of an engine that is worth trying.
func (v *Vault) latest(engine muster.SieveEngine, now time.Time) (authorization string, id muster.SieveToken, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, t := range slices.Backward(v.engines[engine]) {
		if t.usable(now) {
			return t.authorization, t.id, true
		}
	}
	return "", muster.SieveToken{}, false
}

// Refused reports whether the upstream does not take a token any more, or will
// not by what it says of itself.
func (v *Vault) Refused(id Identity, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if t := v.find(id.Engine, id.Token); t != nil && t.refused {
		return true
	}
	return !id.Expires.IsZero() && !now.Before(id.Expires)
}

// refused notes that the upstream does not take a token any more.
func (v *Vault) refused(engine muster.SieveEngine, id muster.SieveToken) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if t := v.find(engine, id); t != nil {
		t.refused = true
	}
}
