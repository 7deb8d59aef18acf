package enroll

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"

	"muster"
)

// Bounds of a password, in bytes. Engines send 64 characters, the PHP client
// 32, the Python SDK 43.
const (
	minPassword = 8
	maxPassword = 256
)

// strength says which verifier a machine's password gets.
type strength uint8

const (
	unusable strength = iota // too short or too long
	weak                     // a person may have chosen it: argon2id
	strong                   // generated: a keyed hash suffices and takes microseconds
)

// strengthOf grades a password. The rule is part of the stored data: a verifier
// is looked for only in the form that its password's strength asks for, so that
// the work of a login depends on what is presented and never on whether the
// machine exists. Changing the rule locks out the machines between old and new.
func strengthOf(password string) strength {
	if len(password) < minPassword || len(password) > maxPassword {
		return unusable
	}
	var seen [256]bool
	distinct := 0
	for i := range len(password) {
		if !seen[password[i]] {
			seen[password[i]] = true
			distinct++
		}
	}
	if len(password) >= 32 && distinct >= 10 {
		return strong
	}
	return weak
}

func checkPassword(password string) error {
	if strengthOf(password) == unusable {
		return muster.Errorf(muster.Invalid, "the password has %d characters: expected %d to %d", len(password), minPassword, maxPassword)
	}
	return nil
}

// keyedScheme leads the verifiers of strong passwords; those of weak ones are
// PHC strings and start with "$argon2id$".
const keyedScheme = "k1:"

// hasher makes and checks verifiers. Argon2id fills 19 MiB and a core for tens
// of milliseconds, so only as many run as there are slots, and few may wait.
type hasher struct {
	pepper []byte // 32 bytes, the same on all nodes
	slots  chan struct{}
	queued atomic.Int64
}

// maxQueued is how many argon2id computations may wait for a slot. 64 take
// about two seconds on two cores, less than any client's patience.
const maxQueued = 64

func newHasher(slots int) *hasher { return &hasher{slots: make(chan struct{}, slots)} }

// machineVerifier returns what to store for a machine's password, which must
// have passed checkPassword.
func (h *hasher) machineVerifier(ctx context.Context, id, password string) ([]byte, error) {
	if strengthOf(password) == strong {
		return h.keyed(id, password), nil
	}
	phc, err := h.hash(ctx, password)
	return []byte(phc), err
}

// verifyMachine reports whether password is the one that verifier was made of.
// A nil verifier stands for an unknown machine: the same work, then false.
func (h *hasher) verifyMachine(ctx context.Context, verifier []byte, id, password string) (bool, error) {
	switch strengthOf(password) {
	case strong:
		return subtle.ConstantTimeCompare(verifier, h.keyed(id, password)) == 1, nil
	case weak:
		if !bytes.HasPrefix(verifier, []byte("$")) {
			verifier = nil
		}
		return h.verify(ctx, string(verifier), password)
	default:
		return false, nil
	}
}

func (h *hasher) keyed(id, password string) []byte {
	mac := hmac.New(sha256.New, h.pepper)
	mac.Write([]byte(id))
	mac.Write([]byte{0})
	mac.Write([]byte(password))
	return mac.Sum([]byte(keyedScheme))
}

// hash returns an argon2id PHC string with a fresh salt.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	p := defaultPHC
	p.salt = make([]byte, 16)
	rand.Read(p.salt)
	sum, err := h.argon2id(ctx, p, password)
	if err != nil {
		return "", err
	}
	p.sum = sum
	return p.String(), nil
}

// verify compares a password with a PHC string; "" costs as much as a real one
// and never matches. The password is bounded by the caller or by strength.
func (h *hasher) verify(ctx context.Context, text, password string) (bool, error) {
	p, known := decoyPHC, text != ""
	if known {
		var err error
		if p, err = parsePHC(text); err != nil {
			return false, err
		}
	}
	sum, err := h.argon2id(ctx, p, password)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(sum, p.sum) == 1 && known, nil
}

func (h *hasher) argon2id(ctx context.Context, p phc, password string) ([]byte, error) {
	select {
	case h.slots <- struct{}{}:
	default:
		defer h.queued.Add(-1)
		if h.queued.Add(1) > maxQueued {
			e := muster.Errorf(muster.Unavailable, "too many weak passwords to check at once: use a generated secret of 32 characters or more, which needs no queue, or try again")
			e.RetryAfter = 5 * time.Second
			return nil, e
		}
		select {
		case h.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, muster.Errorf(muster.Unavailable, "gave up waiting for a password check: %w", context.Cause(ctx))
		}
	}
	defer func() { <-h.slots }()
	return argon2.IDKey([]byte(password), p.salt, p.time, p.memory, p.threads, uint32(len(p.sum))), nil
}

// phc is an argon2id hash in the PHC string format,
// $argon2id$v=19$m=19456,t=2,p=1$salt$sum.
type phc struct {
	memory    uint32 // KiB
	time      uint32
	threads   uint8
	salt, sum []byte
}

// defaultPHC carries the parameters of new hashes (OWASP's second choice).
var defaultPHC = phc{memory: 19 * 1024, time: 2, threads: 1, sum: make([]byte, 32)}

// decoyPHC is computed for those who do not exist.
var decoyPHC = phc{memory: defaultPHC.memory, time: defaultPHC.time, threads: defaultPHC.threads, salt: make([]byte, 16), sum: make([]byte, 32)}

func (p phc) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, p.memory, p.time, p.threads, b64.EncodeToString(p.salt), b64.EncodeToString(p.sum))
}

var errPHC = errors.New("stored password hash: expected argon2id in PHC form with at most 64 MiB, 10 passes and 4 lanes")

// parsePHC reads what String wrote. Parameters are bounded, so that a damaged
// or planted row cannot exhaust the server.
func parsePHC(text string) (phc, error) {
	var p phc
	fields := strings.Split(text, "$")
	if len(text) > 512 || len(fields) != 6 || fields[0] != "" || fields[1] != "argon2id" || fields[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, errPHC
	}
	if _, err := fmt.Sscanf(fields[3], "m=%d,t=%d,p=%d", &p.memory, &p.time, &p.threads); err != nil {
		return p, errPHC
	}
	var errSalt, errSum error
	p.salt, errSalt = base64.RawStdEncoding.Strict().DecodeString(fields[4])
	p.sum, errSum = base64.RawStdEncoding.Strict().DecodeString(fields[5])
	ok := errSalt == nil && errSum == nil &&
		p.memory >= 8*1024 && p.memory <= 64*1024 && p.time >= 1 && p.time <= 10 && p.threads >= 1 && p.threads <= 4 &&
		len(p.salt) >= 8 && len(p.salt) <= 64 && len(p.sum) >= 16 && len(p.sum) <= 64
	if !ok {
		return p, errPHC
	}
	return p, nil
}

// HashPassword hashes a person's password with argon2id into a PHC string.
// Codes: Invalid (under 8 or over 256 bytes), Unavailable (queue full).
func (s *Service) HashPassword(ctx context.Context, password string) (string, error) {
	if err := checkPassword(password); err != nil {
		return "", err
	}
	return s.hasher.hash(ctx, password)
}

// VerifyPassword compares a person's password with a hash. An empty hash stands
// for an unknown person and costs the same. Codes: Unauthorized, Unavailable
// (queue full).
func (s *Service) VerifyPassword(ctx context.Context, hash, password string) error {
	if len(password) > maxPassword {
		password, hash = "", ""
	}
	ok, err := s.hasher.verify(ctx, hash, password)
	if err == nil && !ok {
		err = muster.Errorf(muster.Unauthorized, "the name or password is incorrect")
	}
	return err
}
