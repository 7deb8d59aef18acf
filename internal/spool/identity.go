package spool

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"muster"
)

// Identity is what an Authorization header says about who sent it. Nothing of it
// is verified: only the upstream that signed the token can do that.
type Identity struct {
	Engine  muster.SieveEngine
	Token   muster.SieveToken
	Machine string    // "" when the token does not say
	Expires time.Time // zero when the token does not say
}

// maxMachine bounds a machine id; the longest of real clients have 64 bytes.
const maxMachine = 256

// Identify reads a header of the form "Bearer <jwt>" or "<jwt>"; Python's SDK
// sends the latter. ok is false when it holds no token at all.
func Identify(authorization string) (id Identity, ok bool) {
	token := bearer(authorization)
	if token == "" {
		return Identity{}, false
	}
	id.Token = muster.SieveToken(digest("token", token))
	claims := readClaims(token)
	for _, name := range []string{claims.Machine, claims.ID, claims.Subject} {
		if name != "" && len(name) <= maxMachine {
			id.Machine = strings.ToValidUTF8(name, "")
			break
		}
	}
	if claims.Expires > 0 && claims.Expires < 1<<40 {
		id.Expires = time.Unix(int64(claims.Expires), 0).UTC()
	}
	if id.Machine != "" {
		id.Engine = muster.SieveEngine(digest("machine", id.Machine))
	} else {
		id.Engine = muster.SieveEngine(id.Token)
	}
	return id, true
}

func bearer(authorization string) string {
	token := strings.TrimSpace(authorization)
	if scheme, rest, found := strings.Cut(token, " "); found && strings.EqualFold(scheme, "bearer") {
		return strings.TrimSpace(rest)
	}
	if strings.EqualFold(token, "bearer") {
		return ""
	}
	return token
}

type claims struct {
	Machine string  `json:"machine_id"`
	ID      string  `json:"id"`
	Subject string  `json:"sub"`
	Expires float64 `json:"exp"`
}

// readClaims returns what can be read, without a look at the signature.
func readClaims(token string) (c claims) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c
	}
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil || json.Unmarshal(text, &c) != nil {
		return claims{}
	}
	return c
}

// digest hashes text for a purpose, so that a machine id cannot be taken for a
// token.
func digest(purpose, text string) [16]byte {
	sum := sha256.Sum256([]byte(purpose + "\x00" + text))
	return [16]byte(sum[:16])
}
