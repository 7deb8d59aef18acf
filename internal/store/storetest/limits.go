package storetest

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/internal/ratelimit"
	"muster/internal/store"
)

func prefix(text string) netip.Prefix {
	p, err := ratelimit.ParsePrefix(text)
	if err != nil {
		panic(err)
	}
	return p
}

// limiterBan is one as the limiter makes them, for an hour from at(0).
func limiterBan(text string) ratelimit.Ban {
	return ratelimit.Ban{
		Prefix: prefix(text), Scope: ratelimit.ScopeAll, Reason: awkward, Limit: "logins",
		Since: at(0), Until: at(3600), Extend: time.Hour + 1,
	}
}

// entry is an audit entry; ids grow with n.
func entry(n int, action, subject string) muster.AuditEntry {
	return muster.AuditEntry{
		ID: fmt.Sprintf("0193a000-0000-7000-8000-%012d", n), At: at(n), By: "ada",
		Action: action, Subject: subject, Reason: awkward, Detail: []byte(`{"reason":"` + "größer" + `"}`),
	}
}

func testBans(t *testing.T, db *store.DB) {
	ctx := t.Context()
	bans := func(seconds int) []ratelimit.Ban {
		t.Helper()
		return must(db.Bans(ctx, at(seconds)))(t)
	}
	forGood := func(text string) ratelimit.Ban {
		b := limiterBan(text)
		b.Scope, b.Limit, b.Until, b.Extend, b.By = ratelimit.ScopeLogin, "", time.Time{}, 0, awkward
		return b
	}
	ok(t, db.ChangeBans(ctx, nil, nil, nil))
	equal(t, "bans at first", bans(0), nil)

	v4, v6 := limiterBan("192.0.2.7"), limiterBan("2001:db8::7")
	range4, range6 := forGood("192.0.2.0/24"), forGood("2001:db8::/32")
	ok(t, db.ChangeBans(ctx, []ratelimit.Ban{range6, v4, v6, range4}, nil, nil))
	equal(t, "all, by address", bans(0), []ratelimit.Ban{range4, v4, range6, v6})
	equal(t, "a microsecond before the first end", must(db.Bans(ctx, at(3600).Add(-time.Microsecond)))(t), []ratelimit.Ban{range4, v4, range6, v6})
	equal(t, "at the first end", bans(3600), []ratelimit.Ban{range4, range6})

	// A range is banned once, in whatever form it comes, by the last word.
	mapped := limiterBan("192.0.2.7")
	mapped.Prefix = netip.MustParsePrefix("::ffff:192.0.2.7/128")
	mapped.Scope, mapped.Limit, mapped.Since, mapped.Until, mapped.Extend, mapped.By = ratelimit.ScopeLogin, "", at(1), at(2), 0, "ada"
	ok(t, db.ChangeBans(ctx, []ratelimit.Ban{mapped}, nil, nil))
	mapped.Prefix = v4.Prefix
	equal(t, "with one replaced by a shorter one", bans(0), []ratelimit.Ban{range4, mapped, range6, v6})

	ok(t, db.ChangeBans(ctx, []ratelimit.Ban{v4}, nil, nil))
	equal(t, "after the limiter's word against a person's", bans(0), []ratelimit.Ban{range4, mapped, range6, v6})
	after := limiterBan("192.0.2.7")
	after.Since = mapped.Until
	ok(t, db.ChangeBans(ctx, []ratelimit.Ban{after}, nil, nil))
	equal(t, "when the person's has ended", bans(0), []ratelimit.Ban{range4, after, range6, v6})
	ok(t, db.ChangeBans(ctx, []ratelimit.Ban{mapped}, nil, nil))

	ok(t, db.ChangeBans(ctx, nil, nil, []netip.Prefix{range4.Prefix, prefix("198.51.100.7"), prefix("2001:db8::/48"), v6.Prefix}))
	equal(t, "with some gone", bans(0), []ratelimit.Ban{mapped, range6})

	one, other := limiterBan("198.51.100.1"), limiterBan("198.51.100.2")
	later := one
	later.Until = at(7200)
	ok(t, db.ChangeBans(ctx, []ratelimit.Ban{one, other}, []ratelimit.Ban{later}, []netip.Prefix{other.Prefix}))
	equal(t, "put, extended and gone at once", bans(3600), []ratelimit.Ban{later, range6})
}

func testExtendBans(t *testing.T, db *store.DB) {
	ctx := t.Context()
	person := func(since, until time.Time) ratelimit.Ban {
		b := limiterBan("192.0.2.7")
		b.By, b.Since, b.Until = "ada", since, until
		return b
	}
	limiter := func(since, until time.Time) ratelimit.Ban {
		b := person(since, until)
		b.By = ""
		return b
	}
	for _, tt := range []struct {
		name              string
		stored, extension ratelimit.Ban
		want              time.Time
	}{
		{"to a later end", limiter(at(0), at(3600)), limiter(at(0), at(7200)), at(7200)},
		{"by a microsecond", limiter(at(0), at(3600)), limiter(at(0), at(3600).Add(time.Microsecond)), at(3600).Add(time.Microsecond)},
		{"to the same end", limiter(at(0), at(3600)), limiter(at(0), at(3600)), at(3600)},
		{"to an earlier end", limiter(at(0), at(3600)), limiter(at(0), at(1800)), at(3600)},
		{"to no end", limiter(at(0), at(3600)), limiter(at(0), time.Time{}), at(3600)},
		{"of one without end", person(at(0), time.Time{}), person(at(0), at(3600)), time.Time{}},
		{"that another node began", limiter(at(1), at(3600)), limiter(at(0), at(7200)), at(7200)},
		{"of a person's own", person(at(0), at(3600)), person(at(0), at(7200)), at(7200)},
		{"of one that the person decided anew", person(at(1), at(3600)), person(at(0), at(7200)), at(3600)},
		{"of one that a person replaced", person(at(0), at(3600)), limiter(at(0), at(7200)), at(3600)},
		{"of a person's that is over", limiter(at(0), at(3600)), person(at(0), at(7200)), at(3600)},
	} {
		ok(t, db.ChangeBans(ctx, nil, nil, []netip.Prefix{tt.stored.Prefix}))
		ok(t, db.ChangeBans(ctx, []ratelimit.Ban{tt.stored}, nil, nil))
		changed := tt.extension // of an extension, only the end counts
		changed.Scope, changed.Reason, changed.Limit, changed.Extend = ratelimit.ScopeLogin, "other", "other", 0
		ok(t, db.ChangeBans(ctx, nil, []ratelimit.Ban{changed}, nil))
		tt.stored.Until = tt.want
		equal(t, "an extension "+tt.name, must(db.Bans(ctx, at(0)))(t), []ratelimit.Ban{tt.stored})
	}

	lifted := limiterBan("192.0.2.7")
	ok(t, db.ChangeBans(ctx, nil, nil, []netip.Prefix{lifted.Prefix}))
	lifted.Until = at(7200)
	ok(t, db.ChangeBans(ctx, nil, []ratelimit.Ban{lifted}, nil))
	equal(t, "an extension of a ban that was lifted", must(db.Bans(ctx, at(0)))(t), nil)
}

func testManyBans(t *testing.T, db *store.DB) {
	ctx := t.Context()
	const n = 5000 // over what DeleteEndedBans takes at once
	all := make([]ratelimit.Ban, n)
	for i := range all {
		all[i] = limiterBan(numbered(i).String())
		all[i].Until = at(60 + i%2*60)
	}
	ok(t, db.ChangeBans(ctx, all, nil, nil))
	equal(t, "all", must(db.Bans(ctx, at(0)))(t), all)
	forGood := limiterBan("2001:db8::/32")
	forGood.By, forGood.Until = "ada", time.Time{}
	ok(t, db.ChangeBans(ctx, []ratelimit.Ban{forGood}, nil, nil))
	late := limiterBan(numbered(0).String())
	late.Until = at(90)
	ok(t, db.ChangeBans(ctx, nil, []ratelimit.Ban{late}, nil))

	equal(t, "how many had ended before the first end", must(db.DeleteEndedBans(ctx, at(59)))(t), 0)
	equal(t, "how many had ended", must(db.DeleteEndedBans(ctx, at(60)))(t), n/2-1)
	equal(t, "how many are left", len(must(db.Bans(ctx, at(0)))(t)), n/2+2)
	equal(t, "how many ended later", must(db.DeleteEndedBans(ctx, at(120)))(t), n/2+1)
	equal(t, "what never ends", must(db.Bans(ctx, at(0)))(t), []ratelimit.Ban{forGood})
}

func testLimits(t *testing.T, db *store.DB) {
	ctx := t.Context()
	equal(t, "limits at first", must(db.ChangedLimits(ctx))(t), nil)
	yes, no := true, false
	full := ratelimit.Limit{
		Name: "logins", Counted: ratelimit.Counted{Kind: ratelimit.KindLogin, Sharing: &yes, Enrolled: &no},
		Per: ratelimit.PerMachineAddress, Threshold: 20, Window: 50 * time.Minute,
		Penalty:     ratelimit.Penalty{Ban: time.Hour, Scope: ratelimit.ScopeLogin, ExtendOnRetry: true},
		ExemptPlans: []muster.Plan{muster.SecOps, muster.Enterprise}, Off: true, SetAt: at(1), SetBy: awkward,
	}
	bare := ratelimit.Limit{Name: "a", Counted: ratelimit.Counted{Kind: awkward}, Per: ratelimit.PerAddress, Threshold: 1, Window: time.Second, SetAt: at(2)}
	ok(t, db.PutLimit(ctx, full, entry(1, "limit.set", "logins")))
	ok(t, db.PutLimit(ctx, bare, entry(2, "limit.set", "a")))
	equal(t, "all, by name", must(db.ChangedLimits(ctx))(t), []ratelimit.Limit{bare, full})

	bare.Name = "logins"
	ok(t, db.PutLimit(ctx, bare, entry(3, "limit.set", "logins")))
	ok(t, db.DeleteLimit(ctx, "a", entry(4, "limit.reset", "a")))
	wantCode(t, db.DeleteLimit(ctx, "a", entry(5, "limit.reset", "a")), muster.NotFound)
	equal(t, "one replaced, one deleted", must(db.ChangedLimits(ctx))(t), []ratelimit.Limit{bare})
	equal(t, "what was audited", must(db.Audit(ctx, store.AuditQuery{}))(t), []muster.AuditEntry{
		entry(4, "limit.reset", "a"), entry(3, "limit.set", "logins"), entry(2, "limit.set", "a"), entry(1, "limit.set", "logins"),
	})
}

func testOverrides(t *testing.T, db *store.DB) {
	ctx := t.Context()
	range4 := ratelimit.Override{ID: "3", Addresses: prefix("192.0.2.0/24"), Limits: []string{"a", "b"}, Threshold: 200, Since: at(0), Until: at(60), Reason: awkward, By: "ada"}
	range6 := ratelimit.Override{ID: "1", Addresses: prefix("2001:db8::/48"), Exempt: true, Since: at(0), Until: at(90), Reason: "a lab"}
	organisation := ratelimit.Override{ID: "2", Organisation: awkward, Exempt: true, Since: at(0), Reason: "paid"}
	machine := ratelimit.Override{ID: "4", Machine: "m1", Threshold: 1, Since: at(0), Reason: "restarts"}
	for i, o := range []ratelimit.Override{range4, range6, organisation, machine} {
		ok(t, db.PutOverride(ctx, o, entry(i, "override.set", o.ID)))
	}
	equal(t, "all, by id", must(db.Overrides(ctx, at(0)))(t), []ratelimit.Override{range6, organisation, range4, machine})
	equal(t, "at the first end", must(db.Overrides(ctx, at(60)))(t), []ratelimit.Override{range6, organisation, machine})

	machine.Machine, machine.Organisation, machine.Until = "", "o1", at(30)
	ok(t, db.PutOverride(ctx, machine, entry(5, "override.set", "4")))
	equal(t, "one replaced", must(db.Overrides(ctx, at(0)))(t), []ratelimit.Override{range6, organisation, range4, machine})
	equal(t, "how many had ended", must(db.DeleteEndedOverrides(ctx, at(60)))(t), 2)
	equal(t, "the rest", must(db.Overrides(ctx, at(0)))(t), []ratelimit.Override{range6, organisation})

	ok(t, db.DeleteOverride(ctx, "2", entry(6, "override.delete", "2")))
	wantCode(t, db.DeleteOverride(ctx, "2", entry(7, "override.delete", "2")), muster.NotFound)
	ok(t, db.DeleteOverride(ctx, "1", entry(8, "override.delete", "1")))
	equal(t, "none left", must(db.Overrides(ctx, at(0)))(t), nil)
	equal(t, "deletions audited", len(must(db.Audit(ctx, store.AuditQuery{Action: "override.delete"}))(t)), 2)
}

func testAudit(t *testing.T, db *store.DB) {
	ctx := t.Context()
	lift, add := entry(1, "ban.lift", "192.0.2.7"), entry(2, "ban.add", awkward)
	set, other := entry(3, "limit.set", "192.0.2.7"), entry(4, "bandwidth.größer", "x")
	other.Detail = nil
	ok(t, db.PutAudit(ctx))
	ok(t, db.PutAudit(ctx, set, lift))
	ok(t, db.PutAudit(ctx, other, add))
	for _, tt := range []struct {
		query store.AuditQuery
		want  []muster.AuditEntry
	}{
		{store.AuditQuery{}, []muster.AuditEntry{other, set, add, lift}},
		{store.AuditQuery{Limit: 2}, []muster.AuditEntry{other, set}},
		{store.AuditQuery{Before: set.ID, Limit: 1}, []muster.AuditEntry{add}},
		{store.AuditQuery{Before: lift.ID}, nil},
		{store.AuditQuery{Action: "ban."}, []muster.AuditEntry{add, lift}},
		{store.AuditQuery{Action: "ban.", Before: add.ID}, []muster.AuditEntry{lift}},
		{store.AuditQuery{Action: "ban"}, []muster.AuditEntry{other, add, lift}},
		{store.AuditQuery{Action: "bandwidth.größer"}, []muster.AuditEntry{other}},
		{store.AuditQuery{Action: "Ban."}, nil},
		{store.AuditQuery{Action: "b%"}, nil},
		{store.AuditQuery{Action: "ban_"}, nil},
		{store.AuditQuery{Subject: "192.0.2.7"}, []muster.AuditEntry{set, lift}},
		{store.AuditQuery{Subject: awkward, Action: "ban."}, []muster.AuditEntry{add}},
		{store.AuditQuery{Subject: "192.0.2"}, nil},
	} {
		equal(t, fmt.Sprintf("%+v", tt.query), must(db.Audit(ctx, tt.query))(t), tt.want)
	}

	equal(t, "how many were pruned of two", must(db.PruneAudit(ctx, at(3), 1))(t), 1)
	equal(t, "without the oldest", must(db.Audit(ctx, store.AuditQuery{}))(t), []muster.AuditEntry{other, set, add})
	equal(t, "how many were pruned of one", must(db.PruneAudit(ctx, at(3), 10))(t), 1)
	equal(t, "what is left", must(db.Audit(ctx, store.AuditQuery{}))(t), []muster.AuditEntry{other, set})
}

// A change and its audit entry are kept together or not at all: here the
// entry's id is taken.
func testAuditedTogether(t *testing.T, db *store.DB) {
	ctx := t.Context()
	ban, later := limiterBan("192.0.2.7"), limiterBan("192.0.2.7")
	later.Until = at(7200)
	limit := ratelimit.Limit{Name: "logins", Threshold: 1}
	override := ratelimit.Override{ID: "1", Machine: "m1", Exempt: true}
	taken := entry(0, "ban.add", "192.0.2.7")
	ok(t, db.ChangeBans(ctx, []ratelimit.Ban{ban}, nil, nil, taken))
	ok(t, db.PutLimit(ctx, limit, entry(1, "limit.set", "logins")))
	ok(t, db.PutOverride(ctx, override, entry(2, "override.set", "1")))
	before := must(db.Audit(ctx, store.AuditQuery{}))(t)

	limit.Threshold, override.Machine = 2, "m2"
	for what, err := range map[string]error{
		"put":             db.ChangeBans(ctx, []ratelimit.Ban{limiterBan("192.0.2.8")}, nil, nil, entry(9, "ban.add", "192.0.2.8"), taken),
		"extended":        db.ChangeBans(ctx, nil, []ratelimit.Ban{later}, nil, taken),
		"gone":            db.ChangeBans(ctx, nil, nil, []netip.Prefix{ban.Prefix}, taken),
		"put limit":       db.PutLimit(ctx, limit, taken),
		"delete limit":    db.DeleteLimit(ctx, "logins", taken),
		"put override":    db.PutOverride(ctx, override, taken),
		"delete override": db.DeleteOverride(ctx, "1", taken),
		"audit alone":     db.PutAudit(ctx, entry(9, "ban.lift", "192.0.2.7"), taken),
	} {
		if muster.CodeOf(err) != muster.Exists || !strings.Contains(err.Error(), taken.ID) {
			t.Errorf("%s: expected an error of code exists that names %s, got %v", what, taken.ID, err)
		}
	}
	equal(t, "the bans", must(db.Bans(ctx, at(0)))(t), []ratelimit.Ban{ban})
	equal(t, "the limit", must(db.ChangedLimits(ctx))(t)[0].Threshold, 1)
	equal(t, "the override", must(db.Overrides(ctx, at(0)))(t)[0].Machine, "m1")
	equal(t, "the audit", must(db.Audit(ctx, store.AuditQuery{}))(t), before)
}
