package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"muster"
	"muster/internal/store"
)

func testSecrets(t *testing.T, db *store.DB) {
	ctx := t.Context()
	_, err := db.Secret(ctx, "jwt")
	wantCode(t, err, muster.NotFound)

	results := make([][]byte, 8)
	for _, err := range parallel(len(results), func(i int) (err error) {
		results[i], err = db.EnsureSecret(ctx, "jwt", []byte{byte(i), 0, 255})
		return err
	}) {
		ok(t, err)
	}
	for _, r := range results {
		equal(t, "what each of many starters got", r, results[0])
	}
	equal(t, "the secret", must(db.Secret(ctx, "jwt"))(t), results[0])

	ok(t, db.PutSecret(ctx, "jwt", []byte("new")))
	equal(t, "the secret, replaced", must(db.Secret(ctx, "jwt"))(t), []byte("new"))

	replaced := 0
	for _, err := range parallel(8, func(i int) error {
		return db.ReplaceSecret(ctx, "jwt", []byte("new"), []byte{byte(i), 1})
	}) {
		if err == nil {
			replaced++
			continue
		}
		wantCode(t, err, muster.Exists)
	}
	equal(t, "how many of those who knew the old one replaced it", replaced, 1)
	wantCode(t, db.ReplaceSecret(ctx, "none", nil, []byte("x")), muster.Exists)
}

func newMachine(id string) muster.Machine {
	return muster.Machine{
		ID: id, State: muster.Active, Organisation: "org-1", Name: awkward,
		Tags: []string{"web", awkward}, Honeypot: true, Scenarios: []string{"a/b", "c/d"}, Version: "v1.7.8",
		Credential: []byte{1, 0, 255}, RegisteredAt: at(0), EnrolledAt: at(1), TokensFrom: at(2),
		Seen: muster.Contacts{Login: at(3), Pull: at(4), Push: at(5), Metrics: at(6), Poll: at(7), Heartbeat: at(8)},
	}
}

func testMachines(t *testing.T, db *store.DB) {
	ctx := t.Context()
	m, bare := newMachine("m1"), muster.Machine{ID: "m2", State: muster.Pending}
	ok(t, db.CreateMachine(ctx, m))
	ok(t, db.CreateMachine(ctx, bare))
	wantCode(t, db.CreateMachine(ctx, muster.Machine{ID: "m1"}), muster.Exists)
	equal(t, "a machine", must(db.Machine(ctx, "m1"))(t), m)
	bare.Credential = must(db.Machine(ctx, "m2"))(t).Credential // nil or empty
	equal(t, "a machine of which little is known", must(db.Machine(ctx, "m2"))(t), bare)
	if len(bare.Credential) != 0 {
		t.Fatalf("expected no credential, got %x", bare.Credential)
	}
	_, err := db.Machine(ctx, "M1")
	wantCode(t, err, muster.NotFound)
	equal(t, "the states", must(db.CountMachines(ctx))(t), map[muster.MachineState]int{muster.Active: 1, muster.Pending: 1})

	var seen []string
	ok(t, db.EachMachine(ctx, func(m muster.Machine) error { seen = append(seen, m.ID); return nil }))
	if len(seen) != 2 || seen[0] == seen[1] {
		t.Fatalf("expected both machines from EachMachine, got %q", seen)
	}
	stop := errors.New("stop")
	if err := db.EachMachine(ctx, func(muster.Machine) error { return stop }); !errors.Is(err, stop) {
		t.Fatalf("expected the error of the function given to EachMachine, got %v", err)
	}

	updated, err := db.UpdateMachine(ctx, "m2", func(bare *muster.Machine) error {
		*bare = m
		bare.State = muster.Blocked
		return nil
	})
	ok(t, err)
	m.ID, m.State = "m2", muster.Blocked
	equal(t, "the machine that the update returned", updated, m)
	equal(t, "the updated machine", must(db.Machine(ctx, "m2"))(t), m)

	_, err = db.UpdateMachine(ctx, "m2", func(m *muster.Machine) error { m.Name = "lost"; return stop })
	if !errors.Is(err, stop) {
		t.Fatalf("expected the error of the change, got %v", err)
	}
	equal(t, "the machine after a refused update", must(db.Machine(ctx, "m2"))(t), m)
	_, err = db.UpdateMachine(ctx, "m3", func(*muster.Machine) error { return nil })
	wantCode(t, err, muster.NotFound)

	ok(t, db.DeleteMachine(ctx, "m2"))
	wantCode(t, db.DeleteMachine(ctx, "m2"), muster.NotFound)
	_, err = db.Machine(ctx, "m2")
	wantCode(t, err, muster.NotFound)
	ok(t, db.CreateMachine(ctx, muster.Machine{ID: "m2", State: muster.Pending}))
	if seen := must(db.Machine(ctx, "m2"))(t).Seen; seen != (muster.Contacts{}) {
		t.Fatalf("expected a machine that registers again to start without contacts, got %v", seen)
	}
}

func ids(machines []muster.Machine) []string {
	var ids []string
	for _, m := range machines {
		ids = append(ids, m.ID)
	}
	return ids
}

func testMachinePages(t *testing.T, db *store.DB) {
	ctx := t.Context()
	for i := range 25 {
		m := muster.Machine{ID: fmt.Sprintf("Machine%02d", i), State: muster.Active, Organisation: fmt.Sprint("org-", i%2), Name: fmt.Sprintf("100%% web_%d", i)}
		if i%5 == 0 {
			m.State = muster.Pending
		}
		ok(t, db.CreateMachine(ctx, m))
	}
	var all []string
	for q := (store.MachineQuery{Limit: 7}); ; {
		page := ids(must(db.Machines(ctx, q))(t))
		if len(page) == 0 {
			break
		}
		all = append(all, page...)
		q.After = page[len(page)-1]
	}
	equal(t, "pages and the whole", all, ids(must(db.Machines(ctx, store.MachineQuery{}))(t)))
	if len(all) != 25 || all[0] != "Machine00" || all[24] != "Machine24" {
		t.Fatalf("expected Machine00 to Machine24, got %q", all)
	}
	for _, tt := range []struct {
		query store.MachineQuery
		want  []string
	}{
		{store.MachineQuery{Organisation: "org-1", State: muster.Pending}, []string{"Machine05", "Machine15"}},
		{store.MachineQuery{Organisation: "org-2"}, nil},
		{store.MachineQuery{Search: "ACHINE1", Limit: 2, After: "Machine10"}, []string{"Machine11", "Machine12"}},
		{store.MachineQuery{Search: "0% WEB_7"}, []string{"Machine07"}},
		{store.MachineQuery{Search: "web-7"}, nil}, // _ is no wildcard
		{store.MachineQuery{Search: "1%7"}, nil},   // nor is %
		{store.MachineQuery{Search: "!"}, nil},
		{store.MachineQuery{Search: "' OR 1=1 --"}, nil},
	} {
		equal(t, fmt.Sprintf("%+v", tt.query), ids(must(db.Machines(ctx, tt.query))(t)), tt.want)
	}
}

func testUpdateMachineConcurrently(t *testing.T, db *store.DB) {
	ctx := t.Context()
	ok(t, db.CreateMachine(ctx, muster.Machine{ID: "m", State: muster.Active}))
	for _, err := range parallel(20, func(i int) error {
		_, err := db.UpdateMachine(ctx, "m", func(m *muster.Machine) error {
			m.Tags = append(m.Tags, fmt.Sprint(i))
			return nil
		})
		return err
	}) {
		ok(t, err)
	}
	if tags := must(db.Machine(ctx, "m"))(t).Tags; len(tags) != 20 {
		t.Fatalf("expected 20 tags from 20 updates at once, got %q", tags)
	}
}

func testTouchMachines(t *testing.T, db *store.DB) {
	ctx := t.Context()
	m := newMachine("m1")
	ok(t, db.CreateMachine(ctx, m))
	ok(t, db.CreateMachine(ctx, muster.Machine{ID: "m2", State: muster.Active, Scenarios: []string{"old"}}))
	touches := []muster.MachineTouch{
		{ID: "m1", Seen: muster.Contacts{Login: at(100), Pull: at(-100)}},
		{ID: "gone", Seen: muster.Contacts{Login: at(100)}, Version: "v9", Scenarios: []string{"x"}},
		{ID: "m2", Seen: muster.Contacts{Poll: at(1)}, Version: "v1.7.8", Scenarios: []string{"a/b"}},
		{ID: "m2", Seen: muster.Contacts{Poll: at(2), Push: at(3)}},
		{ID: "m2", Seen: muster.Contacts{Metrics: at(4), Heartbeat: at(5)}, Scenarios: []string{}},
	}
	ok(t, db.TouchMachines(ctx, touches))
	m.Seen.Login = at(100)
	equal(t, "a touched machine", must(db.Machine(ctx, "m1"))(t), m)
	got := must(db.Machine(ctx, "m2"))(t)
	equal(t, "what was heard of a machine", got.Seen, muster.Contacts{Poll: at(2), Push: at(3), Metrics: at(4), Heartbeat: at(5)})
	equal(t, "its version", got.Version, "v1.7.8")
	equal(t, "its scenarios, declared empty", got.Scenarios, nil)
	_, err := db.Machine(ctx, "gone")
	wantCode(t, err, muster.NotFound)
	ok(t, db.TouchMachines(ctx, nil))
}

func testMachineReports(t *testing.T, db *store.DB) {
	ctx := t.Context()
	_, err := db.MachineReport(ctx, "m1", store.MetricsReport)
	wantCode(t, err, muster.NotFound)
	first := store.MachineReport{Machine: "m1", Kind: store.MetricsReport, At: at(0), Body: []byte(`{}`)}
	second := store.MachineReport{Machine: "m1", Kind: store.MetricsReport, At: at(1), Body: []byte{0x1f, 0x8b, 0}}
	usage := store.MachineReport{Machine: "m1", Kind: store.UsageReport, At: at(2), Body: []byte(awkward)}
	ok(t, db.PutMachineReports(ctx, []store.MachineReport{first, usage}))
	ok(t, db.PutMachineReports(ctx, []store.MachineReport{second}))
	equal(t, "the last metrics", must(db.MachineReport(ctx, "m1", store.MetricsReport))(t), second)
	equal(t, "the last usage", must(db.MachineReport(ctx, "m1", store.UsageReport))(t), usage)

	ok(t, db.CreateMachine(ctx, muster.Machine{ID: "m1"}))
	ok(t, db.DeleteMachine(ctx, "m1"))
	_, err = db.MachineReport(ctx, "m1", store.UsageReport)
	wantCode(t, err, muster.NotFound)
}

func testOrganisations(t *testing.T, db *store.DB) {
	ctx := t.Context()
	a := muster.Organisation{ID: "o1", Name: awkward, Plan: muster.Enterprise, Fleet: muster.FleetHub, CreatedAt: at(0)}
	b := muster.Organisation{ID: "o2", Name: "Beta", Plan: muster.Community, Fleet: muster.FleetOff}
	ok(t, db.CreateOrganisation(ctx, a))
	ok(t, db.CreateOrganisation(ctx, b))
	wantCode(t, db.CreateOrganisation(ctx, muster.Organisation{ID: "o3", Name: "Beta"}), muster.Exists)
	wantCode(t, db.CreateOrganisation(ctx, muster.Organisation{ID: "o1", Name: "Gamma"}), muster.Exists)
	equal(t, "an organisation", must(db.Organisation(ctx, "o1"))(t), a)
	equal(t, "an organisation by name", must(db.OrganisationByName(ctx, awkward))(t), a)
	_, err := db.OrganisationByName(ctx, "beta")
	wantCode(t, err, muster.NotFound)
	_, err = db.Organisation(ctx, "o3")
	wantCode(t, err, muster.NotFound)
	equal(t, "all, by name", must(db.Organisations(ctx))(t), []muster.Organisation{b, a})

	b.Name, b.Plan, b.Fleet = "Delta", muster.SecOps, muster.FleetAll
	got, err := db.UpdateOrganisation(ctx, "o2", func(o *muster.Organisation) error { *o = b; return nil })
	ok(t, err)
	equal(t, "what the update returned", got, b)
	equal(t, "the updated organisation", must(db.Organisation(ctx, "o2"))(t), b)
	_, err = db.UpdateOrganisation(ctx, "o2", func(o *muster.Organisation) error { o.Name = awkward; return nil })
	wantCode(t, err, muster.Exists)
	_, err = db.UpdateOrganisation(ctx, "o3", func(*muster.Organisation) error { return nil })
	wantCode(t, err, muster.NotFound)
}

func testUsers(t *testing.T, db *store.DB) {
	ctx := t.Context()
	equal(t, "users at first", must(db.CountUsers(ctx))(t), 0)
	u := muster.User{ID: "u1", Name: "admin", PasswordHash: "$argon2id$v=19$x", Role: muster.Admin, CreatedAt: at(0)}
	other := muster.User{ID: "u2", Name: awkward, Role: muster.Admin, Organisation: "o1"}
	ok(t, db.CreateUser(ctx, u))
	ok(t, db.CreateUser(ctx, other))
	wantCode(t, db.CreateUser(ctx, muster.User{ID: "u3", Name: "admin"}), muster.Exists)
	equal(t, "a user", must(db.UserByName(ctx, "admin"))(t), u)
	_, err := db.UserByName(ctx, "Admin")
	wantCode(t, err, muster.NotFound)
	ok(t, db.UpdateUserPassword(ctx, "u1", "$new"))
	u.PasswordHash = "$new"
	equal(t, "all users", must(db.Users(ctx))(t), []muster.User{other, u})
	equal(t, "how many", must(db.CountUsers(ctx))(t), 2)
	wantCode(t, db.UpdateUserPassword(ctx, "u3", "x"), muster.NotFound)

	token := muster.APIToken{ID: "t1", Hash: []byte{1, 0, 2}, User: "u1", Name: awkward, CreatedAt: at(1), ExpiresAt: at(2)}
	lasting := muster.APIToken{ID: "t2", Hash: []byte{1, 0, 3}, User: "u2", CreatedAt: at(1)}
	ok(t, db.CreateAPIToken(ctx, token))
	ok(t, db.CreateAPIToken(ctx, lasting))
	wantCode(t, db.CreateAPIToken(ctx, muster.APIToken{ID: "t3", Hash: token.Hash}), muster.Exists)
	gotToken, gotUser, err := db.APITokenByHash(ctx, token.Hash)
	ok(t, err)
	equal(t, "a token", gotToken, token)
	equal(t, "its user", gotUser, u)
	_, _, err = db.APITokenByHash(ctx, nil)
	wantCode(t, err, muster.NotFound)
	equal(t, "all tokens", must(db.APITokens(ctx))(t), []muster.APIToken{token, lasting})
	ok(t, db.DeleteAPIToken(ctx, "t1"))
	wantCode(t, db.DeleteAPIToken(ctx, "t1"), muster.NotFound)
	_, _, err = db.APITokenByHash(ctx, token.Hash)
	wantCode(t, err, muster.NotFound)
}

func testEnrolmentKeys(t *testing.T, db *store.DB) {
	ctx := t.Context()
	k := muster.EnrolmentKey{ID: "k1", Hash: []byte{0, 1}, Organisation: "o1", Tags: []string{awkward}, AutoAccept: true, MaxUses: 2, CreatedAt: at(0), ExpiresAt: at(60)}
	open := muster.EnrolmentKey{ID: "k2", Hash: []byte{0, 2}, Organisation: "o2", CreatedAt: at(0)}
	ok(t, db.CreateEnrolmentKey(ctx, k))
	ok(t, db.CreateEnrolmentKey(ctx, open))
	wantCode(t, db.CreateEnrolmentKey(ctx, muster.EnrolmentKey{ID: "k3", Hash: k.Hash}), muster.Exists)
	equal(t, "a key", must(db.EnrolmentKey(ctx, "k1"))(t), k)
	equal(t, "a key by hash", must(db.EnrolmentKeyByHash(ctx, k.Hash))(t), k)
	equal(t, "all keys", must(db.EnrolmentKeys(ctx, ""))(t), []muster.EnrolmentKey{k, open})
	equal(t, "an organisation's keys", must(db.EnrolmentKeys(ctx, "o2"))(t), []muster.EnrolmentKey{open})
	_, err := db.EnrolmentKey(ctx, "k3")
	wantCode(t, err, muster.NotFound)

	_, err = db.UseEnrolmentKey(ctx, []byte{9}, at(1))
	wantCode(t, err, muster.NotFound)
	k.Uses = 1
	equal(t, "a used key", must(db.UseEnrolmentKey(ctx, k.Hash, at(1)))(t), k)
	_, err = db.UseEnrolmentKey(ctx, k.Hash, at(60))
	wantCode(t, err, muster.Gone)
	equal(t, "a key after a refused use", must(db.EnrolmentKey(ctx, "k1"))(t), k)

	ok(t, db.RevokeEnrolmentKey(ctx, "k2", at(5)))
	ok(t, db.RevokeEnrolmentKey(ctx, "k2", at(6)))
	open.RevokedAt = at(5)
	equal(t, "a key revoked twice", must(db.EnrolmentKey(ctx, "k2"))(t), open)
	_, err = db.UseEnrolmentKey(ctx, open.Hash, at(7))
	wantCode(t, err, muster.Gone)
	wantCode(t, db.RevokeEnrolmentKey(ctx, "k3", at(5)), muster.NotFound)
}

func testLastUse(t *testing.T, db *store.DB) {
	k := muster.EnrolmentKey{ID: "k1", Hash: []byte{1}, MaxUses: 3}
	ok(t, db.CreateEnrolmentKey(t.Context(), k))
	used := 0
	for _, err := range parallel(12, func(int) error {
		_, err := db.UseEnrolmentKey(t.Context(), k.Hash, at(0))
		return err
	}) {
		if err == nil {
			used++
			continue
		}
		wantCode(t, err, muster.Gone)
	}
	if used != 3 {
		t.Fatalf("expected 3 of 12 uses at once to succeed, got %d", used)
	}
}

func testClaims(t *testing.T, db *store.DB) {
	ctx := t.Context()
	c := muster.Claim{Hash: []byte{0, 1}, Machine: "m1", Name: awkward, Tags: []string{"web"}, ExpiresAt: at(60)}
	ok(t, db.CreateClaim(ctx, c))
	equal(t, "a claim", must(db.Claim(ctx, c.Hash))(t), c)
	_, err := db.Claim(ctx, []byte{9})
	wantCode(t, err, muster.NotFound)
	wantCode(t, db.CreateClaim(ctx, muster.Claim{Hash: c.Hash, Machine: "m2"}), muster.Exists)

	again := muster.Claim{Hash: []byte{0, 2}, Machine: "m1", ExpiresAt: at(90)}
	ok(t, db.CreateClaim(ctx, again))
	_, err = db.Claim(ctx, c.Hash)
	wantCode(t, err, muster.NotFound) // a machine has one claim
	equal(t, "the machine's new claim", must(db.Claim(ctx, again.Hash))(t), again)
	ok(t, db.DeleteClaim(ctx, again.Hash))
	ok(t, db.DeleteClaim(ctx, again.Hash))
	_, err = db.Claim(ctx, again.Hash)
	wantCode(t, err, muster.NotFound)
}

func testAllowlist(t *testing.T, db *store.DB) {
	ctx := t.Context()
	v4 := muster.AllowEntry{Source: source("192.0.2.0/24"), Reason: awkward, CreatedAt: at(0)}
	inside := muster.AllowEntry{Source: source("192.0.2.0"), CreatedAt: at(0), ExpiresAt: at(60)}
	v6 := muster.AllowEntry{Source: source("2001:db8::/32"), CreatedAt: at(0), ExpiresAt: at(90)}
	ok(t, db.PutAllowEntries(ctx, []muster.AllowEntry{v6, v4, inside}))
	equal(t, "the allowlist", must(db.AllowEntries(ctx, at(0)))(t), []muster.AllowEntry{v4, inside, v6})
	equal(t, "the allowlist later", must(db.AllowEntries(ctx, at(60)))(t), []muster.AllowEntry{v4, v6})
	v4.Reason = "ours"
	ok(t, db.PutAllowEntries(ctx, []muster.AllowEntry{v4}))
	ok(t, db.DeleteAllowEntry(ctx, v6.Source))
	wantCode(t, db.DeleteAllowEntry(ctx, v6.Source), muster.NotFound)
	equal(t, "the allowlist, edited", must(db.AllowEntries(ctx, at(60)))(t), []muster.AllowEntry{v4})
}

func testOrders(t *testing.T, db *store.DB) {
	ctx := t.Context()
	order := func(id, machine string, issued, expires time.Time) muster.Order {
		return muster.Order{ID: id, Machine: machine, Kind: muster.OrderAlertAdd, Data: []byte(`{"a":"` + "日本" + `"}`), Message: awkward, IssuedBy: "admin", IssuedAt: issued, ExpiresAt: expires}
	}
	stored, err := db.AppendOrders(ctx, []muster.Order{
		order("1", "m1", at(0), at(60)), order("2", "m1", at(0), at(3600)),
		order("3", "m2", at(-5), at(60)), order("4", "m1", at(-100), at(60)),
	})
	ok(t, err)
	first := at(0).Truncate(time.Millisecond)
	for i, want := range []time.Time{first, first.Add(time.Millisecond), at(-5).Truncate(time.Millisecond), first.Add(2 * time.Millisecond)} {
		equal(t, fmt.Sprintf("when order %d counts as issued", i+1), stored[i].IssuedAt, want)
	}
	one, two, four := stored[0], stored[1], stored[3]
	equal(t, "all of a machine", must(db.Orders(ctx, "m1", time.Time{}, at(0), 0))(t), []muster.Order{one, two, four})
	equal(t, "all of a machine since year 1, as engines ask", must(db.Orders(ctx, "m1", time.UnixMilli(-62135596800000), at(0), 0))(t), []muster.Order{one, two, four})
	equal(t, "the first", must(db.Orders(ctx, "m1", time.Time{}, at(0), 1))(t), []muster.Order{one})
	equal(t, "those after the first", must(db.Orders(ctx, "m1", one.IssuedAt, at(0), 10))(t), []muster.Order{two, four})
	equal(t, "those that have not expired", must(db.Orders(ctx, "m1", time.Time{}, at(60), 10))(t), []muster.Order{two})
	equal(t, "none after the last", must(db.Orders(ctx, "m1", four.IssuedAt, at(0), 10))(t), nil)
	equal(t, "an order", must(db.Order(ctx, "2"))(t), two)
	_, err = db.Order(ctx, "9")
	wantCode(t, err, muster.NotFound)
	equal(t, "the last two", must(db.RecentOrders(ctx, 2))(t), []muster.Order{four, two})

	_, err = db.AppendOrder(ctx, order("2", "m3", at(0), at(60)))
	wantCode(t, err, muster.Exists)
	later := must(db.AppendOrder(ctx, order("5", "m1", at(10), at(99))))(t)
	equal(t, "a later order", later.IssuedAt, at(10).Truncate(time.Millisecond))

	equal(t, "how many had expired", must(db.DeleteExpiredOrders(ctx, at(60)))(t), 3)
	equal(t, "what is left", must(db.Orders(ctx, "m1", time.Time{}, at(0), 0))(t), []muster.Order{two, later})

	for _, err := range parallel(10, func(i int) error {
		_, err := db.AppendOrder(ctx, order(fmt.Sprint("c", i), "m4", at(0), at(60)))
		return err
	}) {
		ok(t, err)
	}
	if n := len(must(db.Orders(ctx, "m4", time.Time{}, at(0), 0))(t)); n != 10 {
		t.Fatalf("expected 10 orders that were issued at once, got %d", n)
	}
}

func testRemovals(t *testing.T, db *store.DB) {
	ctx := t.Context()
	a := muster.Removal{Machine: "m1", Decisions: []string{"d1", "d2"}, At: at(0)}
	b := muster.Removal{Machine: "m2", Decisions: []string{awkward}, At: at(0)}
	c := muster.Removal{Machine: "m1", At: at(-3)}
	ok(t, db.AppendRemovals(ctx, a, b))
	ok(t, db.AppendRemovals(ctx, c))
	b.At, c.At = at(0).Add(time.Microsecond), at(0).Add(2*time.Microsecond)
	equal(t, "all removals", must(db.Removals(ctx, time.Time{}, 0))(t), []muster.Removal{a, b, c})
	equal(t, "the first", must(db.Removals(ctx, time.Time{}, 1))(t), []muster.Removal{a})
	equal(t, "those after it", must(db.Removals(ctx, a.At, 9))(t), []muster.Removal{b, c})
	equal(t, "how many were older", must(db.DeleteRemovalsBefore(ctx, c.At))(t), 2)
	equal(t, "what is left", must(db.Removals(ctx, time.Time{}, 9))(t), []muster.Removal{c})
}
