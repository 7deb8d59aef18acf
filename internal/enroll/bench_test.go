package enroll

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"muster"
)

// FuzzAuthenticate looks for a text other than the issued token that passes.
func FuzzAuthenticate(f *testing.F) {
	b := newRig(f)
	b.activate(machineID, "org-a")
	good := b.login(machineID).Text
	parts := strings.Split(good, ".")
	f.Add(good)
	f.Add(parts[0] + ".." + parts[2])
	f.Add("eyJhbGciOiJub25lIn0." + parts[1] + ".")
	f.Add("..")
	f.Add(good[:len(good)-1])
	f.Fuzz(func(t *testing.T, text string) {
		id, err := b.Authenticate(t.Context(), text)
		if text == good {
			if err != nil || id.State != muster.Active {
				t.Fatalf("the good token gave %+v, %v", id, err)
			}
			return
		}
		if !errors.Is(err, muster.Unauthorized) || id != (Identity{}) {
			t.Fatalf("%q gave %+v, %v", text, id, err)
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	r := newRig(b)
	tokens := make([]string, 1000)
	for i := range tokens {
		id := fmt.Sprint(machineID, i)
		r.activate(id, "org-a")
		tokens[i] = r.login(id).Text
	}
	ctx := b.Context()
	b.Run("cached", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := r.Authenticate(ctx, tokens[i%len(tokens)]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cached parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if _, err := r.Authenticate(ctx, tokens[i%len(tokens)]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if i%len(tokens) == 0 {
				r.tokens.cache.clear()
			}
			if _, err := r.Authenticate(ctx, tokens[i%len(tokens)]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkLogin(b *testing.B) {
	r := newRig(b)
	r.activate(machineID, "org-a")
	scenarios := make([]string, 60)
	for i := range scenarios {
		scenarios[i] = fmt.Sprint("crowdsecurity/scenario-", i)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Login(b.Context(), Login{MachineID: machineID, Password: strongPassword, Scenarios: scenarios, UserAgent: "crowdsec/v1.7.8-linux"}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTouch(b *testing.B) {
	r := newRig(b)
	r.register(machineID)
	b.ReportAllocs()
	for b.Loop() {
		r.Touch(machineID, ContactPush, "v1.7.8-linux")
	}
}

// The way of every request must not make garbage.
func TestAuthenticateDoesNotAllocate(t *testing.T) {
	b := newRig(t)
	b.activate(machineID, "org-a")
	token := b.login(machineID).Text
	ctx := t.Context()
	got := testing.AllocsPerRun(100, func() {
		if _, err := b.Authenticate(ctx, token); err != nil {
			t.Fatal(err)
		}
		b.Touch(machineID, ContactPush, "v1")
	})
	if got > 0 {
		t.Fatalf("authenticating and touching allocates %v times, want 0", got)
	}
}
