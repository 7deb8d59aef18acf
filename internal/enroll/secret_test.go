package enroll

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"muster"
)

func TestStrengthOf(t *testing.T) {
	for _, tt := range []struct {
		password string
		want     strength
	}{
		{"", unusable},
		{"1234567", unusable},
		{"12345678", weak},
		{strings.Repeat("a", 64), weak},
		{strings.Repeat("123456789", 8), weak}, // nine distinct characters
		{"abcdefghijklmnopqrstuvwxyz01234", weak},
		{"abcdefghijklmnopqrstuvwxyz012345", strong},
		{strongPassword, strong},
		{strings.Repeat("0123456789", 25) + "012345", strong},
		{strings.Repeat("0123456789", 25) + "0123456", unusable},
	} {
		if got := strengthOf(tt.password); got != tt.want {
			t.Errorf("%q: got %d, want %d", tt.password, got, tt.want)
		}
	}
}

func TestPeoplesPasswords(t *testing.T) {
	b := newRig(t)
	ctx := t.Context()
	hash, err := b.HashPassword(ctx, "correct horse")
	wantError(t, err, "", "")
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatalf("hash: %s", hash)
	}
	if again, _ := b.HashPassword(ctx, "correct horse"); again == hash {
		t.Fatal("two hashes of one password are the same: there is no salt")
	}
	wantError(t, b.VerifyPassword(ctx, hash, "correct horse"), "", "")
	for name, password := range map[string]string{"wrong": "correct horsf", "empty": "", "endless": strings.Repeat("x", 1<<20)} {
		if err := b.VerifyPassword(ctx, hash, password); muster.CodeOf(err) != muster.Unauthorized {
			t.Errorf("%s password: %v", name, err)
		}
	}
	wantError(t, b.VerifyPassword(ctx, "", "correct horse"), muster.Unauthorized, "")
	wantError(t, b.VerifyPassword(ctx, "", ""), muster.Unauthorized, "")
	_, err = b.HashPassword(ctx, "short")
	wantError(t, err, muster.Invalid, "expected 8 to 256")
	if err := b.VerifyPassword(ctx, "$2b$10$abc", "correct horse"); err == nil || muster.CodeOf(err) != "" {
		t.Fatalf("a damaged hash gave %v, want a fault without a code", err)
	}
}

func TestPHCIsBounded(t *testing.T) {
	const salt, sum = "c2FsdHNhbHRzYWx0c2FsdA", "c3Vtc3Vtc3Vtc3Vtc3Vtc3Vtc3Vtc3Vtc3Vtc3Vtc3U"
	if _, err := parsePHC("$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$" + sum); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"",
		"$argon2i$v=19$m=19456,t=2,p=1$" + salt + "$" + sum,
		"$argon2id$v=16$m=19456,t=2,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=4194304,t=2,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=19456,t=1000000,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=19456,t=2,p=255$" + salt + "$" + sum,
		"$argon2id$v=19$m=19456,t=0,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=19456,t=2,p=0$" + salt + "$" + sum,
		"$argon2id$v=19$m=-1,t=2,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=19456,t=2,p=1$$" + sum,
		"$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$",
		"$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$!!!",
		"$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$" + strings.Repeat("c3Vt", 1000),
	} {
		if p, err := parsePHC(text); err == nil {
			t.Errorf("%.80q was taken: %+v", text, p)
		}
	}
}

// At most as many hashes run as there are slots, the rest waits, and whoever
// gives up leaves the queue.
func TestHashQueue(t *testing.T) {
	h := newHasher(1)
	h.slots <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	errs := make(chan error, 3)
	for range 3 {
		wg.Go(func() {
			_, err := h.hash(ctx, "correct horse")
			errs <- err
		})
	}
	for h.queued.Load() != 3 {
		time.Sleep(time.Millisecond) // waiting for others to queue, not for time
	}
	cancel()
	wg.Wait()
	for range 3 {
		wantError(t, <-errs, muster.Unavailable, "gave up waiting")
	}
	if got := h.queued.Load(); got != 0 {
		t.Fatalf("%d are left in the queue", got)
	}
	<-h.slots
	_, err := h.hash(t.Context(), "correct horse")
	wantError(t, err, "", "")
}

func FuzzParsePHC(f *testing.F) {
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$c3Vtc3Vtc3Vtc3Vtc3Vtc3U")
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$$")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePHC(text)
		if err != nil {
			return
		}
		if p.memory > 64*1024 || p.time > 10 || p.threads > 4 || len(p.sum) > 64 || len(p.salt) > 64 {
			t.Fatalf("parameters out of bounds: %+v", p)
		}
		if again, err := parsePHC(p.String()); err != nil || again.String() != p.String() {
			t.Fatalf("%q does not survive a round trip: %v", text, err)
		}
	})
}
