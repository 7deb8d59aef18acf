package enroll

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"muster"
)

func TestRegister(t *testing.T) {
	long := strings.Repeat("a1", 64)
	for _, tt := range []struct {
		name string
		mode string
		reg  Registration
		code muster.Code
		text string
	}{
		{"engine", "open", Registration{MachineID: machineID, Password: strongPassword}, "", ""},
		{"python SDK with a long id", "open", Registration{MachineID: long, Password: "Zk3_x-9Qw7eR5tY1uI2oP4aS6dF8gH0jK_lL-mN-bVc"}, "", ""},
		{"person's password", "open", Registration{MachineID: machineID, Password: "correct horse"}, "", ""},
		{"no id", "open", Registration{Password: strongPassword}, muster.Invalid, "machine_id is empty"},
		{"id too long", "open", Registration{MachineID: long + "x", Password: strongPassword}, muster.Invalid, "129 characters"},
		{"id with a slash", "open", Registration{MachineID: "a/b", Password: strongPassword}, muster.Invalid, "neither letter nor digit"},
		{"no password", "open", Registration{MachineID: machineID}, muster.Invalid, "0 characters"},
		{"short password", "open", Registration{MachineID: machineID, Password: "seven77"}, muster.Invalid, "expected 8 to 256"},
		{"long password", "open", Registration{MachineID: machineID, Password: strings.Repeat("x", 257)}, muster.Invalid, "257 characters"},
		{"taken", "open", Registration{MachineID: "taken", Password: strongPassword + "2"}, muster.Exists, "User already registered."},
		{"taken, weak", "open", Registration{MachineID: "taken", Password: "password1"}, muster.Exists, "User already registered."},
		{"the same again", "open", Registration{MachineID: "taken", Password: strongPassword}, "", ""},
		{"closed", "closed", Registration{MachineID: machineID, Password: strongPassword}, muster.Forbidden, "registration is closed"},
		{"key missing", "key", Registration{MachineID: machineID, Password: strongPassword}, muster.Forbidden, "muster join"},
		{"key unknown", "key", Registration{MachineID: machineID, Password: strongPassword, Key: "nosuchkey"}, muster.Forbidden, "attachment key provided is not valid"},
		{"key spent", "key", Registration{MachineID: machineID, Password: strongPassword, Key: "SPENT"}, muster.Forbidden, "used 1 of 1 times"},
		{"key good", "key", Registration{MachineID: machineID, Password: strongPassword, Key: "GOOD"}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newRig(t)
			b.register("taken")
			good := b.key(KeyRequest{Organisation: "org-a"})
			spent := b.key(KeyRequest{Organisation: "org-a", MaxUses: 1})
			if _, err := b.Enrol(t.Context(), "taken", Enrolment{Key: spent}); err != nil {
				t.Fatal(err)
			}
			tt.reg.Key = strings.NewReplacer("GOOD", good, "SPENT", spent).Replace(tt.reg.Key)
			s := b.node(func(c *Config) { c.Registration = tt.mode })

			err := s.Register(t.Context(), tt.reg)

			wantError(t, err, tt.code, tt.text)
			if tt.code == "" {
				m, ok := s.Machine(tt.reg.MachineID)
				if !ok || m.State != muster.Pending {
					t.Fatalf("got %+v, %v; want a pending machine", m, ok)
				}
				if strings.Contains(string(m.Credential), tt.reg.Password) {
					t.Fatal("the verifier holds the password")
				}
			}
			if got := b.store.uses(good); got != 0 {
				t.Fatalf("registration spent %d uses of the key", got)
			}
		})
	}
}

func TestRegisterOnTwoNodes(t *testing.T) {
	b := newRig(t)
	other := b.node()
	b.register(machineID)
	// The other node has heard no bell and must notice in the store.
	wantError(t, other.Register(t.Context(), Registration{MachineID: machineID, Password: strongPassword}), "", "")
	wantError(t, other.Register(t.Context(), Registration{MachineID: machineID, Password: strongPassword + "2"}), muster.Exists, "")
}

func TestRegisterIsBounded(t *testing.T) {
	b := newRig(t, func(c *Config) { c.MaxMachines = 1 })
	b.register("one")
	err := b.Register(t.Context(), Registration{MachineID: "two", Password: strongPassword})
	wantError(t, err, muster.Unavailable, "no more than 1 machines")
}

func TestConcurrentRegistrationHasOneWinner(t *testing.T) {
	b := newRig(t)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			errs[i] = b.Register(t.Context(), Registration{MachineID: machineID, Password: fmt.Sprint(strongPassword, i)})
		})
	}
	wg.Wait()
	winners := 0
	for _, err := range errs {
		if err == nil {
			winners++
		} else {
			wantError(t, err, muster.Exists, "")
		}
	}
	if winners != 1 {
		t.Fatalf("%d registrations of one id succeeded, want 1", winners)
	}
}

func TestLogin(t *testing.T) {
	for _, tt := range []struct {
		name  string
		login Login
		code  muster.Code
		text  string
	}{
		{"good", Login{MachineID: "strong", Password: strongPassword}, "", ""},
		{"good, weak password", Login{MachineID: "weak", Password: "correct horse"}, "", ""},
		{"wrong", Login{MachineID: "strong", Password: strongPassword + "2"}, muster.Unauthorized, "The machine_id or password is incorrect"},
		{"wrong, weak", Login{MachineID: "strong", Password: "correct horse"}, muster.Unauthorized, "The machine_id or password is incorrect"},
		{"wrong for a weak one", Login{MachineID: "weak", Password: strongPassword}, muster.Unauthorized, "The machine_id or password is incorrect"},
		{"unknown machine", Login{MachineID: "nobody", Password: strongPassword}, muster.Unauthorized, "The machine_id or password is incorrect"},
		{"unknown machine, weak", Login{MachineID: "nobody", Password: "correct horse"}, muster.Unauthorized, "The machine_id or password is incorrect"},
		{"empty password", Login{MachineID: "strong"}, muster.Unauthorized, "The machine_id or password is incorrect"},
		{"another's password", Login{MachineID: "blocked", Password: strongPassword + "2"}, muster.Unauthorized, "The machine_id or password is incorrect"},
		{"blocked", Login{MachineID: "blocked", Password: strongPassword}, muster.Forbidden, "blocked"},
		{"unregistered", Login{MachineID: "gone", Password: strongPassword}, muster.Unauthorized, "The machine_id or password is incorrect"},
		{"no id", Login{Password: strongPassword}, muster.Invalid, "machine_id is empty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newRig(t)
			for _, id := range []string{"strong", "blocked", "gone"} {
				b.register(id)
			}
			wantError(t, b.Register(t.Context(), Registration{MachineID: "weak", Password: "correct horse"}), "", "")
			wantError(t, b.Block(t.Context(), "blocked"), "", "")
			wantError(t, b.Unregister(t.Context(), "gone"), "", "")
			writes := b.store.writes

			token, err := b.Login(t.Context(), tt.login)

			wantError(t, err, tt.code, tt.text)
			if (err == nil) != (token.Text != "") {
				t.Fatalf("got token %q with error %v", token.Text, err)
			}
			if b.store.writes != writes {
				t.Fatalf("a login made %d writes to the store", b.store.writes-writes)
			}
		})
	}
}

// The secrets of two machines must have nothing to do with each other, and a
// verifier is worth nothing on a server with another pepper.
func TestVerifiersAreBoundToMachineAndServer(t *testing.T) {
	b := newRig(t)
	b.register("one")
	b.register("two")
	one, two := b.store.machines["one"].Credential, b.store.machines["two"].Credential
	if string(one) == string(two) {
		t.Fatal("two machines with one password have one verifier")
	}
	other := newRig(t)
	other.register("one")
	if string(one) == string(other.store.machines["one"].Credential) {
		t.Fatal("two servers have one verifier")
	}
}

// The work of a login depends on what is presented and not on the machine: a
// weak password waits for an argon2id slot even in the name of nobody, and a
// strong one never does.
func TestEqualWork(t *testing.T) {
	b := newRig(t)
	b.register("strong")
	wantError(t, b.Register(t.Context(), Registration{MachineID: "weak", Password: "correct horse"}), "", "")
	for range cap(b.hasher.slots) {
		b.hasher.slots <- struct{}{}
	}
	b.hasher.queued.Store(maxQueued)
	for _, id := range []string{"strong", "weak", "nobody"} {
		_, err := b.Login(t.Context(), Login{MachineID: id, Password: "correct horse"})
		wantError(t, err, muster.Unavailable, "too many weak passwords")
		if e := new(muster.Error); !errors.As(err, &e) || e.RetryAfter == 0 {
			t.Fatalf("%s: the error says not when to try again", id)
		}
		_, err = b.Login(t.Context(), Login{MachineID: id, Password: strongPassword + "2"})
		wantError(t, err, muster.Unauthorized, "")
	}
	if got := b.hasher.queued.Load(); got != maxQueued {
		t.Fatalf("refused logins left %d in the queue, want %d", got, maxQueued)
	}
}

func TestLoginKeepsFootprint(t *testing.T) {
	b := newRig(t)
	b.register(machineID)
	login := func(agent string, scenarios ...string) {
		t.Helper()
		_, err := b.Login(t.Context(), Login{MachineID: machineID, Password: strongPassword, Scenarios: scenarios, UserAgent: agent})
		wantError(t, err, "", "")
	}
	check := func(version string, scenarios ...string) {
		t.Helper()
		m, _ := b.Machine(machineID)
		if diff := cmp.Diff(scenarios, m.Scenarios); diff != "" || m.Version != version {
			t.Fatalf("version %q, want %q; scenarios (-want +got):\n%s", m.Version, version, diff)
		}
	}
	login("crowdsec/v1.7.8-linux")
	check("v1.7.8")
	login("crowdsec/v1.7.8-linux", "b/two", "a/one", "b/two", " ")
	check("v1.7.8", "a/one", "b/two")
	login("")
	check("v1.7.8", "a/one", "b/two")
	b.Touch(machineID, ContactMetrics, "v1.7.8")
	check("v1.7.8", "a/one", "b/two")
	// A reload before the flush must not bring the older row back.
	wantError(t, b.Refresh(t.Context(), machineID), "", "")
	check("v1.7.8", "a/one", "b/two")
	wantError(t, b.flush(t.Context()), "", "")
	check("v1.7.8", "a/one", "b/two")
	if got := b.store.machines[machineID].Scenarios; !slices.Equal(got, []string{"a/one", "b/two"}) {
		t.Fatalf("the store has scenarios %v", got)
	}
	login("csphpcapi_wp/v3.5.2 (x)", "c/three")
	check("csphpcapi_wp/v3.5.2", "c/three")
}

func TestLoginWithStoreAway(t *testing.T) {
	b := newRig(t)
	b.register(machineID)
	b.store.setFail(errors.New("disk on fire"))
	token := b.login(machineID)
	wantIdentity(t, b.Service, token.Text, Identity{Machine: machineID, State: muster.Pending})
	_, err := b.Login(t.Context(), Login{MachineID: "other", Password: strongPassword})
	wantError(t, err, muster.Unavailable, "cannot be looked up now")
	if strings.Contains(err.Error(), "fire") {
		t.Fatalf("the fault reached the client: %v", err)
	}
	wantError(t, b.Register(t.Context(), Registration{MachineID: "another", Password: strongPassword}), muster.Unavailable, "")
	wantError(t, b.Accept(t.Context(), machineID, "org-a"), muster.Unavailable, "")
	wantIdentity(t, b.Service, token.Text, Identity{Machine: machineID, State: muster.Pending})
}

// claimsOf reads a token's claims as engines do: without verifying.
func claimsOf(t testing.TB, token string) map[string]any {
	t.Helper()
	body, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(body, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestTokenClaims(t *testing.T) {
	b := newRig(t)
	b.register(machineID)
	token := b.login(machineID)
	now := b.clock.now()
	if want := now.Add(12 * time.Hour).Truncate(time.Second); !token.Expires.Equal(want) {
		t.Fatalf("expires %v, want %v", token.Expires, want)
	}
	want := map[string]any{
		"machine_id": machineID,
		"sub":        machineID,
		"iat":        float64(now.Unix()),
		"exp":        float64(token.Expires.Unix()),
		"epoch":      float64(now.UnixMicro()),
	}
	if diff := cmp.Diff(want, claimsOf(t, token.Text)); diff != "" {
		t.Fatalf("pending machine's claims (-want +got):\n%s", diff)
	}
	b.clock.advance(time.Minute)
	wantError(t, b.Accept(t.Context(), machineID, "org-a"), "", "")
	claims := claimsOf(t, b.login(machineID).Text)
	if claims["organization_id"] != "org-a" || claims["subscription_type"] != "ENTERPRISE" {
		t.Fatalf("active machine's claims: %v", claims)
	}
}

// Tokens over maxToken would be refused unread.
func TestLongestTokenIsTaken(t *testing.T) {
	b := newRig(t)
	org := strings.Repeat("0", 36) // a UUID's length
	b.store.orgs[org] = muster.Organisation{ID: org, Plan: muster.Enterprise}
	id := strings.Repeat("x", muster.MaxMachineID)
	b.activate(id, org)
	wantIdentity(t, b.Service, b.login(id).Text, Identity{Machine: id, Organisation: org, State: muster.Active, Plan: muster.Enterprise})
}

func TestTokenLifetimesAreSpread(t *testing.T) {
	for rand, want := range map[float64]time.Duration{0: 9 * time.Hour, 0.5: 12 * time.Hour, 0.75: 13*time.Hour + 30*time.Minute} {
		b := newRig(t, func(c *Config) { c.Rand = func() float64 { return rand } })
		b.register(machineID)
		got := b.login(machineID).Expires
		if wanted := b.clock.now().Add(want).Truncate(time.Second); !got.Equal(wanted) {
			t.Errorf("rand %v: expires %v, want %v", rand, got, wanted)
		}
	}
}

// craft makes a token as an attacker or another server would.
func craft(t testing.TB, method jwt.SigningMethod, key any, kid string, change func(jwt.MapClaims), base map[string]any) string {
	t.Helper()
	claims := jwt.MapClaims{}
	for k, v := range base {
		claims[k] = v
	}
	if change != nil {
		change(claims)
	}
	token := jwt.NewWithClaims(method, claims)
	if kid != "" {
		token.Header["kid"] = kid
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// respelt returns a last letter that means the same bytes: of its six bits four
// are left over after the 64 bytes of a signature.
func respelt(last byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.IndexByte(alphabet, last)|1])
}

func TestBadTokens(t *testing.T) {
	b := newRig(t)
	b.register(machineID)
	good := b.login(machineID).Text
	ring := b.tokens.ring.Load()
	kid, public := ring.keys[0].ID, ring.public[ring.keys[0].ID]
	_, foreign, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	base := claimsOf(t, good)
	base["epoch"] = b.clock.now().UnixMicro() // floats would be written with an exponent
	parts := strings.Split(good, ".")
	eddsa := jwt.SigningMethodEdDSA

	// The crafting itself must be able to make a good token, else the refusals
	// below would prove nothing.
	wantIdentity(t, b.Service, craft(t, eddsa, ring.signer, kid, nil, base), Identity{Machine: machineID, State: muster.Pending})

	for name, token := range map[string]string{
		"empty":                     "",
		"no JWT":                    "opaque",
		"with Bearer":               "Bearer " + good,
		"two parts":                 parts[0] + "." + parts[1],
		"four parts":                good + ".x",
		"trailing bytes":            good + "AA",
		"signature of another":      parts[0] + "." + parts[1] + "." + strings.Repeat("A", 86),
		"no signature":              parts[0] + "." + parts[1] + ".",
		"padded":                    good + "=",
		"other spelling":            good[:len(good)-1] + respelt(good[len(good)-1]),
		"huge":                      parts[0] + "." + strings.Repeat("A", 1<<20) + "." + parts[2],
		"alg none":                  craft(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, kid, nil, base),
		"HS256 with the public key": craft(t, jwt.SigningMethodHS256, []byte(public), kid, nil, base),
		"foreign key":               craft(t, eddsa, foreign, kid, nil, base),
		"foreign kid":               craft(t, eddsa, foreign, "foreign", nil, base),
		"no kid":                    craft(t, eddsa, ring.signer, "", nil, base),
		"expired":                   craft(t, eddsa, ring.signer, kid, func(c jwt.MapClaims) { c["exp"] = b.clock.now().Unix() }, base),
		"no exp":                    craft(t, eddsa, ring.signer, kid, func(c jwt.MapClaims) { delete(c, "exp") }, base),
		"exp as text":               craft(t, eddsa, ring.signer, kid, func(c jwt.MapClaims) { c["exp"] = "tomorrow" }, base),
		"no machine":                craft(t, eddsa, ring.signer, kid, func(c jwt.MapClaims) { delete(c, "machine_id") }, base),
		"unknown machine":           craft(t, eddsa, ring.signer, kid, func(c jwt.MapClaims) { c["machine_id"], c["sub"] = "nobody", "nobody" }, base),
		"sub of another":            craft(t, eddsa, ring.signer, kid, func(c jwt.MapClaims) { c["sub"] = "nobody" }, base),
		"earlier epoch":             craft(t, eddsa, ring.signer, kid, func(c jwt.MapClaims) { c["epoch"] = b.clock.now().UnixMicro() - 1 }, base),
		"later epoch":               craft(t, eddsa, ring.signer, kid, func(c jwt.MapClaims) { c["epoch"] = b.clock.now().UnixMicro() + 1 }, base),
		"made-up organisation":      craft(t, eddsa, ring.signer, kid, func(c jwt.MapClaims) { c["organization_id"], c["subscription_type"] = "org-a", "ENTERPRISE" }, base),
		"made-up plan":              craft(t, eddsa, ring.signer, kid, func(c jwt.MapClaims) { c["subscription_type"] = "SECOPS" }, base),
	} {
		t.Run(name, func(t *testing.T) {
			wantRefused(t, b.Service, token)
			wantRefused(t, b.Service, token) // from the cache, if it came there
		})
	}
	wantIdentity(t, b.Service, good, Identity{Machine: machineID, State: muster.Pending})
	b.clock.advance(12*time.Hour - 100*time.Millisecond)
	wantRefused(t, b.Service, good) // exp is whole seconds, rounded down
}

// After each change every earlier token is refused, even one issued in the
// same microsecond, and a login right after it gives a good one.
func TestChangesEndTokens(t *testing.T) {
	active := func(org string, plan muster.Plan, fleet muster.FleetPolicy) Identity {
		return Identity{Machine: machineID, Organisation: org, State: muster.Active, Plan: plan, Fleet: fleet}
	}
	pending := Identity{Machine: machineID, State: muster.Pending}
	for _, tt := range []struct {
		name   string
		change func(*rig) error
		want   Identity
	}{
		{"acceptance", func(b *rig) error { return b.Accept(b.t.Context(), machineID, "org-b") }, active("org-b", muster.Community, muster.FleetOff)},
		{"another organisation and back", func(b *rig) error {
			return errors.Join(b.Accept(b.t.Context(), machineID, "org-b"), b.Accept(b.t.Context(), machineID, "org-a"))
		}, active("org-a", muster.Enterprise, muster.FleetHub)},
		{"release", func(b *rig) error { return b.Release(b.t.Context(), machineID) }, pending},
		{"blocking and back", func(b *rig) error {
			return errors.Join(b.Block(b.t.Context(), machineID), b.Unblock(b.t.Context(), machineID))
		}, pending},
		{"plan", func(b *rig) error {
			b.store.setPlan("org-a", muster.SecOps)
			return b.OrganisationsChanged(b.t.Context())
		}, active("org-a", muster.SecOps, muster.FleetHub)},
		{"new registration", func(b *rig) error {
			return errors.Join(b.Unregister(b.t.Context(), machineID), b.Register(b.t.Context(), Registration{MachineID: machineID, Password: strongPassword}))
		}, pending},
		{"enrolment elsewhere", func(b *rig) error {
			_, err := b.Enrol(b.t.Context(), machineID, Enrolment{Key: b.key(KeyRequest{Organisation: "org-b", AutoAccept: true}), Overwrite: true})
			return err
		}, active("org-b", muster.Community, muster.FleetOff)},
		{"request elsewhere", func(b *rig) error {
			_, err := b.Enrol(b.t.Context(), machineID, Enrolment{Key: b.key(KeyRequest{Organisation: "org-b"}), Overwrite: true})
			return err
		}, pending},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newRig(t)
			rung := make(chan string, 16)
			b.cfg.Notify = func(id string) { rung <- id }
			other := b.node()
			b.activate(machineID, "org-a")
			before := b.login(machineID).Text
			wantIdentity(t, b.Service, before, active("org-a", muster.Enterprise, muster.FleetHub))
			wantIdentity(t, other, before, active("org-a", muster.Enterprise, muster.FleetHub))
			for len(rung) > 0 {
				<-rung
			}

			wantError(t, tt.change(b), "", "")

			for len(rung) > 0 {
				wantError(t, other.Refresh(t.Context(), <-rung), "", "")
			}
			for _, s := range []*Service{b.Service, other} {
				wantRefused(t, s, before)
				wantRefused(t, s, before)
			}
			after := b.login(machineID).Text
			wantIdentity(t, b.Service, after, tt.want)
			wantIdentity(t, other, after, tt.want)
		})
	}
}

func TestBlockedMachineIsLockedOut(t *testing.T) {
	b := newRig(t)
	b.activate(machineID, "org-a")
	token := b.login(machineID).Text
	wantError(t, b.Block(t.Context(), machineID), "", "")
	wantRefused(t, b.Service, token)
	wantError(t, b.Unregister(t.Context(), machineID), "", "")
	wantError(t, b.Register(t.Context(), Registration{MachineID: machineID, Password: strongPassword}), "", "")
	_, err := b.Login(t.Context(), Login{MachineID: machineID, Password: strongPassword})
	wantError(t, err, muster.Forbidden, "blocked")
	_, err = b.Enrol(t.Context(), machineID, Enrolment{Key: b.key(KeyRequest{Organisation: "org-a", AutoAccept: true})})
	wantError(t, err, muster.Forbidden, "blocked")
	_, err = b.Enrol(t.Context(), machineID, Enrolment{Auto: true})
	wantError(t, err, muster.Forbidden, "blocked")
	wantError(t, b.Accept(t.Context(), machineID, "org-a"), muster.Forbidden, "unblock it first")
}

// A row that was blocked by other means, with its tokens left alone, is
// blocked all the same.
func TestBlockedInTheStore(t *testing.T) {
	b := newRig(t)
	b.register(machineID)
	token := b.login(machineID).Text
	m := b.store.machines[machineID]
	m.State = muster.Blocked
	b.store.machines[machineID] = m
	wantError(t, b.Refresh(t.Context(), machineID), "", "")
	wantRefused(t, b.Service, token)
}

func TestReset(t *testing.T) {
	b := newRig(t)
	b.register(machineID)
	wantError(t, b.Reset(t.Context(), machineID), muster.Forbidden, "cscli capi register")
	wantError(t, b.Reset(t.Context(), ""), muster.Invalid, "")
	b.login(machineID)
}

func TestRotate(t *testing.T) {
	b := newRig(t)
	other := b.node()
	b.register(machineID)
	pending := Identity{Machine: machineID, State: muster.Pending}
	first := b.login(machineID).Text
	wantIdentity(t, b.Service, first, pending)
	wantError(t, b.Rotate(t.Context()), "", "")
	second := b.login(machineID).Text
	wantIdentity(t, b.Service, first, pending)
	wantIdentity(t, b.Service, second, pending)
	// A node that missed the bell sees an unknown kid, but asks the store for
	// it only every five seconds.
	wantRefused(t, other, second)
	b.clock.advance(5 * time.Second)
	wantIdentity(t, other, second, pending)
	wantIdentity(t, other, first, pending)
	wantError(t, b.Rotate(t.Context()), "", "")
	wantError(t, other.Refresh(t.Context(), ""), "", "")
	for _, s := range []*Service{b.Service, other} {
		wantRefused(t, s, first)
		wantIdentity(t, s, second, pending)
	}
	// Any node may rotate.
	wantError(t, other.Rotate(t.Context()), "", "")
	third := loginAt(t, other, machineID).Text
	b.clock.advance(5 * time.Second)
	wantIdentity(t, b.Service, third, pending)
}

// A node that missed every bell catches up when a token proves that somebody
// knows more, and at the latest at its next comparison with the store.
func TestMissedBells(t *testing.T) {
	b := newRig(t)
	other := b.node()
	b.register(machineID)
	pending := Identity{Machine: machineID, State: muster.Pending}
	active := Identity{Machine: machineID, Organisation: "org-a", State: muster.Active, Plan: muster.Enterprise, Fleet: muster.FleetHub}
	wantIdentity(t, other, b.login(machineID).Text, pending)
	b.clock.advance(time.Minute)
	wantError(t, b.Accept(t.Context(), machineID, "org-a"), "", "")
	token := b.login(machineID).Text
	wantIdentity(t, other, token, active)

	wantError(t, b.Block(t.Context(), machineID), "", "")
	wantIdentity(t, other, token, active) // nothing can have told it
	wantError(t, other.resync(t.Context()), "", "")
	wantRefused(t, other, token)

	delete(b.store.machines, machineID)
	wantError(t, other.resync(t.Context()), "", "")
	if _, ok := other.Machine(machineID); ok || other.Counts() != (Counts{}) {
		t.Fatalf("a machine that left the store is still known: %+v", other.Counts())
	}
}

// The names of machines that do not exist must not each cost a query.
func TestUnknownMachinesAreRemembered(t *testing.T) {
	b := newRig(t)
	for range 10 {
		_, err := b.Login(t.Context(), Login{MachineID: "nobody", Password: strongPassword})
		wantError(t, err, muster.Unauthorized, "")
	}
	if b.store.reads != 1 {
		t.Fatalf("ten logins of an unknown machine made %d queries, want 1", b.store.reads)
	}
	// But not for long, and not once it is there.
	b.clock.advance(2 * recentFor)
	_, err := b.Login(t.Context(), Login{MachineID: "nobody", Password: strongPassword})
	wantError(t, err, muster.Unauthorized, "")
	if b.store.reads != 2 {
		t.Fatalf("%d queries after the memory ran out, want 2", b.store.reads)
	}
	b.register("nobody")
	b.login("nobody")

	// A token of a later epoch than the store's, after it was restored from a
	// backup, makes the node look, but not at every request.
	row := b.store.machines["nobody"]
	wantError(t, b.Accept(t.Context(), "nobody", "org-a"), "", "")
	token := b.login("nobody").Text
	b.store.machines["nobody"] = row
	wantError(t, b.Refresh(t.Context(), "nobody"), "", "")
	b.clock.advance(2 * recentFor)
	reads := b.store.reads
	for range 10 {
		wantRefused(t, b.Service, token)
	}
	if got := b.store.reads - reads; got != 1 {
		t.Fatalf("ten requests with a token from the future made %d queries, want 1", got)
	}
}

// A row that was read before a flush and arrives after it is older than what
// memory had, although nothing is unsaved any more.
func TestReloadDuringFlush(t *testing.T) {
	b := newRig(t)
	b.register(machineID)
	_, err := b.Login(t.Context(), Login{MachineID: machineID, Password: strongPassword, Scenarios: []string{"a/b"}, UserAgent: "crowdsec/v1"})
	wantError(t, err, "", "")
	before := b.directory.unsavedOf(machineID)
	row, err := b.store.Machine(t.Context(), machineID)
	wantError(t, err, "", "")
	wantError(t, b.flush(t.Context()), "", "")
	b.directory.put(row, before)
	if m, _ := b.Machine(machineID); m.Version != "v1" || !slices.Equal(m.Scenarios, []string{"a/b"}) {
		t.Fatalf("memory fell back to %q, %v", m.Version, m.Scenarios)
	}
}
