package storetest

import (
	"errors"
	"slices"
	"testing"

	"muster"
	"muster/internal/store"
)

func canary(t *testing.T, origin, value string) muster.Canary {
	t.Helper()
	c := must(muster.NewCanary(origin, value))(t)
	c.Reason, c.CreatedAt, c.By = awkward, at(1), "ada"
	return c
}

func testCanaries(t *testing.T, db *store.DB) {
	ctx := t.Context()
	all := func() []muster.Canary {
		t.Helper()
		return must(db.Canaries(ctx, muster.CanaryQuery{}))(t)
	}
	equal(t, "canaries at first", all(), nil)
	crawlers, resolver := canary(t, "misp:crawlers", "34.100.182.96/28"), canary(t, "misp:resolvers", "8.8.8.8")
	as, mine, name := canary(t, "operator", "AS64496"), canary(t, "operator", "8.8.8.8"), canary(t, "operator", "*.crawl.example.org")
	ok(t, db.PutCanaries(ctx, []muster.Canary{mine, as, resolver}, entry(1, "canary.add", "a")))
	ok(t, db.PutCanaries(ctx, []muster.Canary{crawlers, name}))
	ok(t, db.PutCanaries(ctx, nil))
	ordered := []muster.Canary{crawlers, resolver, name, mine, as}
	equal(t, "all, by origin", all(), ordered)
	equal(t, "the audit", must(db.Audit(ctx, store.AuditQuery{}))(t), []muster.AuditEntry{entry(1, "canary.add", "a")})

	again := mine
	again.Reason, again.CreatedAt, again.By = "ours", at(9), "bob"
	ok(t, db.PutCanaries(ctx, []muster.Canary{again}))
	again.CreatedAt = mine.CreatedAt
	ordered[3] = again
	equal(t, "with one put again", all(), ordered)

	for _, tt := range []struct {
		query muster.CanaryQuery
		want  []muster.Canary
	}{
		{muster.CanaryQuery{Origin: "operator"}, ordered[2:]},
		{muster.CanaryQuery{Origin: "Operator"}, nil},
		{muster.CanaryQuery{Origin: "misp"}, nil},
		{muster.CanaryQuery{Limit: 2}, ordered[:2]},
		{muster.CanaryQuery{Limit: 2, After: resolver.ID}, ordered[2:4]},
		{muster.CanaryQuery{Origin: "operator", After: name.ID}, ordered[3:]},
		{muster.CanaryQuery{After: as.ID}, nil},
		{muster.CanaryQuery{Search: "8.8.8"}, []muster.Canary{resolver, again}},
		{muster.CanaryQuery{Search: "8.8.8", Origin: "operator"}, []muster.Canary{again}},
		{muster.CanaryQuery{Search: "CRAWL"}, []muster.Canary{crawlers, name}},
		{muster.CanaryQuery{Search: "o'brien"}, []muster.Canary{crawlers, resolver, name, as}},
		{muster.CanaryQuery{Search: "%"}, []muster.Canary{crawlers, resolver, name, as}},
		{muster.CanaryQuery{Search: "8_8"}, nil},
	} {
		equal(t, "a query", must(db.Canaries(ctx, tt.query))(t), tt.want)
	}

	var each []string
	ok(t, db.EachCanary(ctx, func(c muster.Canary) error { each = append(each, c.ID); return nil }))
	slices.Sort(each)
	equal(t, "each", each, []string{crawlers.ID, resolver.ID, name.ID, mine.ID, as.ID})
	stop := errors.New("stop")
	if err := db.EachCanary(ctx, func(muster.Canary) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("expected the error of the function given to EachCanary, got %v", err)
	}

	wantCode(t, db.DeleteCanary(ctx, "operator/8.8.4.4", entry(2, "canary.remove", "b")), muster.NotFound)
	ok(t, db.DeleteCanary(ctx, mine.ID, entry(3, "canary.remove", mine.ID)))
	_, err := db.DeleteCanariesOf(ctx, "misp", entry(4, "canary.drop", "misp"))
	wantCode(t, err, muster.NotFound)
	equal(t, "how many were dropped", must(db.DeleteCanariesOf(ctx, "operator", entry(5, "canary.drop", "operator")))(t), 2)
	equal(t, "what is left", all(), []muster.Canary{crawlers, resolver})
	equal(t, "how much was audited", len(must(db.Audit(ctx, store.AuditQuery{}))(t)), 3)

	// A change and its audit entry are kept together or not at all.
	taken := entry(5, "canary.drop", "x")
	for _, err := range []error{
		db.PutCanaries(ctx, []muster.Canary{as}, taken),
		db.ReplaceCanaries(ctx, "misp:resolvers", nil, taken),
		db.DeleteCanary(ctx, crawlers.ID, taken),
		errorOf(db.DeleteCanariesOf(ctx, "misp:crawlers", taken)),
	} {
		wantCode(t, err, muster.Exists)
	}
	equal(t, "what failed changes changed", all(), []muster.Canary{crawlers, resolver})
}

func errorOf[T any](_ T, err error) error { return err }

func testReplaceCanaries(t *testing.T, db *store.DB) {
	ctx := t.Context()
	all := func() []muster.Canary {
		t.Helper()
		return must(db.Canaries(ctx, muster.CanaryQuery{}))(t)
	}
	a, b, c, mine := canary(t, "misp:x", "8.8.4.4"), canary(t, "misp:x", "8.8.8.8"), canary(t, "misp:x", "9.9.9.0/24"), canary(t, "operator", "8.8.8.8")
	ok(t, db.PutCanaries(ctx, []muster.Canary{mine}))
	ok(t, db.ReplaceCanaries(ctx, "misp:x", []muster.Canary{a, b}, entry(1, "canary.import", "misp:x")))
	equal(t, "the first import", all(), []muster.Canary{a, b, mine})
	later := b
	later.CreatedAt, later.By = at(9), "bob"
	ok(t, db.ReplaceCanaries(ctx, "misp:x", []muster.Canary{later, c}, entry(2, "canary.import", "misp:x")))
	later.CreatedAt = b.CreatedAt
	equal(t, "the second import", all(), []muster.Canary{later, c, mine})
	ok(t, db.ReplaceCanaries(ctx, "misp:x", nil))
	equal(t, "an empty import", all(), []muster.Canary{mine})
	equal(t, "the audit", len(must(db.Audit(ctx, store.AuditQuery{}))(t)), 2)
}
