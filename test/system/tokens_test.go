package system

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"muster/internal/store"
)

// signingKey reads the server's newest token key out of its database, for
// forgeries that are as good as they can get.
func (s *server) signingKey(t *testing.T) (kid string, key ed25519.PrivateKey) {
	t.Helper()
	db, err := store.Open(t.Context(), s.cfg.DatabaseURL(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	raw, err := db.EnsureSecret(t.Context(), "token-keys", []byte("none"))
	if err != nil {
		t.Fatal(err)
	}
	var keys []struct {
		ID   string
		Seed []byte
	}
	if err := json.Unmarshal(raw, &keys); err != nil || len(keys) == 0 {
		t.Fatalf("%d keys: %v", len(keys), err)
	}
	return keys[0].ID, ed25519.NewKeyFromSeed(keys[0].Seed)
}

// TestForgedTokens makes tokens from a good one: each change of claims, key or
// algorithm is 401, and never 403, which engines take for something else.
func TestForgedTokens(t *testing.T) {
	t.Parallel()
	v := newVictim(t, nil)
	org := v.organisation(t)
	c := v.member(t, engine178, org)
	pending := v.registered(t, engine178)
	kid, key := v.signingKey(t)
	_, foreign, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public := key.Public().(ed25519.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})

	// claims returns those of c's own token, with changes; nil removes one.
	claims := func(changes map[string]any) jwt.MapClaims {
		out := jwt.MapClaims{}
		for name, value := range parseToken(t, c.token).claims {
			out[name] = value
		}
		for name, value := range changes {
			if out[name] = value; value == nil {
				delete(out, name)
			}
		}
		return out
	}
	sign := func(method jwt.SigningMethod, header string, with any, cl jwt.MapClaims) string {
		t.Helper()
		tok := jwt.NewWithClaims(method, cl)
		if header != "" {
			tok.Header["kid"] = header
		}
		text, err := tok.SignedString(with)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	ours := func(changes map[string]any) string { return sign(jwt.SigningMethodEdDSA, kid, key, claims(changes)) }
	hour := func(h int) int64 { return time.Now().Add(time.Duration(h) * time.Hour).Unix() }

	c.token, c.org = ours(nil), org // the same claims and key: the way of forging is right
	c.pull(t, "")
	good := c.token

	forgeries := map[string]string{
		"expired":                     ours(map[string]any{"exp": hour(-1)}),
		"without exp":                 ours(map[string]any{"exp": nil}),
		"exp is no number":            ours(map[string]any{"exp": "2099-01-01T00:00:00Z"}),
		"not yet valid":               ours(map[string]any{"nbf": hour(1)}),
		"another machine":             ours(map[string]any{"machine_id": v.healthy.id}),
		"another machine, both names": ours(map[string]any{"machine_id": v.healthy.id, "sub": v.healthy.id}),
		"an unknown machine":          ours(map[string]any{"machine_id": "nobody", "sub": "nobody"}),
		"no machine":                  ours(map[string]any{"machine_id": nil, "sub": nil}),
		"another organisation":        ours(map[string]any{"organization_id": "01a1fb8c-0000-7000-8000-000000000000"}),
		"no organisation":             ours(map[string]any{"organization_id": nil}),
		"a better plan":               ours(map[string]any{"subscription_type": "SECOPS"}),
		"an earlier epoch":            ours(map[string]any{"epoch": 1}),
		"a later epoch":               ours(map[string]any{"epoch": time.Now().Add(time.Hour).UnixMicro()}),
		"foreign key, our kid":        sign(jwt.SigningMethodEdDSA, kid, foreign, claims(nil)),
		"foreign key, its own kid":    sign(jwt.SigningMethodEdDSA, "foreign", foreign, claims(nil)),
		"our key without kid":         sign(jwt.SigningMethodEdDSA, "", key, claims(nil)),
		"alg none":                    sign(jwt.SigningMethodNone, kid, jwt.UnsafeAllowNoneSignatureType, claims(nil)),
		"HS256 with the public key":   sign(jwt.SigningMethodHS256, kid, []byte(public), claims(nil)),
		"HS256 with the public PEM":   sign(jwt.SigningMethodHS256, kid, publicPEM, claims(nil)),
		"HS256 with an empty key":     sign(jwt.SigningMethodHS256, kid, []byte{}, claims(nil)),
		"without a signature":         good[:len(good)-86],
		"a signature cut short":       good[:len(good)-1],
		"twice":                       good + good,
		"as base64 again":             base64.RawURLEncoding.EncodeToString([]byte(good)),
		"of another server":           "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ4IiwiZXhwIjo0MTAyNDQ0ODAwfQ.c2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJl",
		"nothing":                     "",
		"a word":                      "token",
		"dots":                        "..",
		"braces":                      "{}.{}.{}",
	}
	for name, text := range forgeries {
		t.Run(name, func(t *testing.T) {
			for _, k := range []kind{engine178, engine146, phpCurl, python} {
				f := client{kind: k, s: v.server, token: text}
				f.get(t, k.version+"/decisions/stream").status(t, 401)
				f.post(t, "/signals", []signal{attack(address())}).status(t, 401)
				f.post(t, "/metrics"+k.slash, map[string]any{}).status(t, 401)
			}
			f := client{kind: engine178, s: v.server, token: text, id: "forger"}
			f.get(t, "/v1/decisions/stream/poll?timeout=1").status(t, 401)
			f.get(t, "/v1/permissions").status(t, 401)
			f.enrol(t, "key").status(t, 401)
			f.post(t, "/decisions/delete", []string{newUUID()}).status(t, 401)
			f.send(t, "DELETE", "/v3/watchers/self", nil, true).status(t, 401)
		})
	}
	v.unharmed(t)
	c.pull(t, "") // the good one is still good

	// What a pending machine is told to be it cannot raise.
	pending.token = sign(jwt.SigningMethodEdDSA, kid, foreign, jwt.MapClaims{"machine_id": pending.id, "sub": pending.id, "exp": hour(1), "organization_id": org})
	pending.get(t, "/v3/decisions/stream").status(t, 401)
}
