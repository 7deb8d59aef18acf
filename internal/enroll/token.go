package enroll

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"muster"
)

// claims is the body of a token. Engines read organization_id (its presence
// means enrolled), subscription_type and exp; the rest is ours.
type claims struct {
	jwt.RegisteredClaims
	Machine string `json:"machine_id"`
	// Epoch is Machine.TokensFrom when the token was issued. A token whose epoch
	// is not its machine's is revoked: unlike a comparison of times this is exact
	// within one second and between nodes whose clocks differ.
	Epoch        int64       `json:"epoch"`
	Organisation string      `json:"organization_id,omitempty"`
	Plan         muster.Plan `json:"subscription_type,omitempty"`
}

// grant is what a verified token says.
type grant struct {
	machine      string
	organisation string
	plan         muster.Plan
	epoch        int64
	expires      int64 // Unix seconds
}

// tokenKeysSecret names the two live signing keys in the store, newest first.
const tokenKeysSecret = "token-keys"

// tokenKey is one signing key as it is stored.
type tokenKey struct {
	ID   string `json:"id"`
	Seed []byte `json:"seed"`
}

func newTokenKey() tokenKey {
	k := tokenKey{ID: strings.ToLower(rand.Text()[:12]), Seed: make([]byte, ed25519.SeedSize)}
	rand.Read(k.Seed)
	return k
}

// keyring is an immutable set of live keys.
type keyring struct {
	stored []byte // as in the store
	keys   []tokenKey
	signer ed25519.PrivateKey // of keys[0]
	public map[string]ed25519.PublicKey
}

func newKeyring(stored []byte) (*keyring, error) {
	r := &keyring{stored: stored, public: make(map[string]ed25519.PublicKey)}
	if err := json.Unmarshal(stored, &r.keys); err != nil {
		return nil, fmt.Errorf("secret %s: %w", tokenKeysSecret, err)
	}
	for i, k := range r.keys {
		if len(k.Seed) != ed25519.SeedSize || k.ID == "" {
			return nil, fmt.Errorf("secret %s: key %d is damaged", tokenKeysSecret, i)
		}
		private := ed25519.NewKeyFromSeed(k.Seed)
		r.public[k.ID] = private.Public().(ed25519.PublicKey)
		if i == 0 {
			r.signer = private
		}
	}
	if r.signer == nil {
		return nil, fmt.Errorf("secret %s: it holds no key", tokenKeysSecret)
	}
	return r, nil
}

// tokens signs and verifies.
type tokens struct {
	store   Secrets
	now     func() time.Time
	ring    atomic.Pointer[keyring]
	parser  *jwt.Parser
	cache   *tokenCache
	loading sync.Mutex
	loaded  time.Time // guarded by loading
}

func newTokens(store Secrets, now func() time.Time, cacheSize int) *tokens {
	return &tokens{
		store: store,
		now:   now,
		cache: newTokenCache(cacheSize),
		parser: jwt.NewParser(
			jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
			jwt.WithExpirationRequired(),
			jwt.WithStrictDecoding(),
			jwt.WithTimeFunc(now),
		),
	}
}

// load reads the live keys from the store, making the first one if need be.
func (t *tokens) load(ctx context.Context) error {
	t.loading.Lock()
	defer t.loading.Unlock()
	return t.loadLocked(ctx)
}

func (t *tokens) loadLocked(ctx context.Context) error {
	t.loaded = t.now()
	fresh, err := json.Marshal([]tokenKey{newTokenKey()})
	if err != nil {
		return err
	}
	stored, err := t.store.EnsureSecret(ctx, tokenKeysSecret, fresh)
	if err != nil {
		return fmt.Errorf("secret %s: %w", tokenKeysSecret, err)
	}
	if r := t.ring.Load(); r != nil && bytes.Equal(r.stored, stored) {
		return nil
	}
	r, err := newKeyring(stored)
	if err != nil {
		return err
	}
	t.ring.Store(r)
	// A key that has gone must not live on in what it signed.
	t.cache.clear()
	return nil
}

// rotate puts a new key in front and keeps the one that signed until now.
func (t *tokens) rotate(ctx context.Context) error {
	t.loading.Lock()
	defer t.loading.Unlock()
	if err := t.loadLocked(ctx); err != nil {
		return err
	}
	r := t.ring.Load()
	next, err := json.Marshal([]tokenKey{newTokenKey(), r.keys[0]})
	if err != nil {
		return err
	}
	if err := t.store.ReplaceSecret(ctx, tokenKeysSecret, r.stored, next); err != nil {
		return fmt.Errorf("secret %s: %w", tokenKeysSecret, err)
	}
	return t.loadLocked(ctx)
}

// sign issues a token for g.
func (t *tokens) sign(g grant) (string, error) {
	r := t.ring.Load()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Subject:   g.machine,
			IssuedAt:  jwt.NewNumericDate(t.now()),
			ExpiresAt: jwt.NewNumericDate(time.Unix(g.expires, 0)),
		},
		Machine:      g.machine,
		Epoch:        g.epoch,
		Organisation: g.organisation,
		Plan:         g.plan,
	})
	token.Header["kid"] = r.keys[0].ID
	return token.SignedString(r.signer)
}

// maxToken is over the length of any token that was issued, in bytes: those of
// machines with the longest ids have about 800.
const maxToken = 1024

var (
	errNoToken      = muster.Errorf(muster.Unauthorized, "no token: log in at /v3/watchers/login and send it in the Authorization header")
	errBadToken     = muster.Errorf(muster.Unauthorized, "the token is not valid: log in again")
	errExpiredToken = muster.Errorf(muster.Unauthorized, "the token has expired: log in again")
	errRevokedToken = muster.Errorf(muster.Unauthorized, "the token was revoked: log in again")

	errUnknownKey = errors.New("no live key has this kid")
)

// verify returns what a token says if its signature is good and it has not
// expired. The second result says whether it was known already.
func (t *tokens) verify(ctx context.Context, text string) (g grant, cached bool, err error) {
	switch {
	case text == "":
		return grant{}, false, errNoToken
	case len(text) > maxToken:
		return grant{}, false, errBadToken
	}
	key := tokenDigest(text)
	g, cached = t.cache.get(key)
	if !cached {
		generation := t.cache.generation()
		if g, err = t.parse(text); errors.Is(err, errUnknownKey) && t.reload(ctx) {
			generation = t.cache.generation()
			g, err = t.parse(text)
		}
		switch {
		case errors.Is(err, jwt.ErrTokenExpired):
			return grant{}, false, errExpiredToken
		case err != nil:
			return grant{}, false, errBadToken
		}
		t.cache.put(key, g, generation)
	}
	if t.now().Unix() >= g.expires {
		return grant{}, cached, errExpiredToken
	}
	return g, cached, nil
}

func (t *tokens) parse(text string) (grant, error) {
	var c claims
	ring := t.ring.Load()
	_, err := t.parser.ParseWithClaims(text, &c, func(token *jwt.Token) (any, error) {
		kid, _ := token.Header["kid"].(string)
		if key, ok := ring.public[kid]; ok {
			return key, nil
		}
		return nil, errUnknownKey
	})
	if err != nil {
		return grant{}, err
	}
	if c.Machine == "" || c.Subject != c.Machine {
		return grant{}, errors.New("the claims machine_id and sub differ")
	}
	return grant{
		machine:      c.Machine,
		organisation: c.Organisation,
		plan:         c.Plan,
		epoch:        c.Epoch,
		expires:      c.ExpiresAt.Unix(),
	}, nil
}

// reload fetches the keys anew, because another node may have rotated them, at
// most every five seconds: anybody can make up a kid. It reports whether the
// token is worth a second look.
func (t *tokens) reload(ctx context.Context) bool {
	t.loading.Lock()
	defer t.loading.Unlock()
	if t.now().Sub(t.loaded) < 5*time.Second {
		return false
	}
	return t.loadLocked(ctx) == nil
}
