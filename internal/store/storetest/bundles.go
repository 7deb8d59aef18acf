package storetest

import (
	"testing"
	"time"

	"muster"
	"muster/internal/store"
)

func testBundles(t *testing.T, db *store.DB) {
	ctx := t.Context()
	entries := func(values ...string) (all []muster.CustomEntry) {
		for _, v := range values {
			all = append(all, muster.CustomEntry{Source: source(v), Comment: awkward, Until: at(900), AddedAt: at(1), AddedBy: muster.ByBundle})
		}
		return all
	}
	items := func(values ...string) (all []muster.AllowItem) {
		for _, v := range values {
			i, err := muster.ParseAllowItem(v)
			ok(t, err)
			i.Reason, i.CreatedAt, i.By = awkward, at(1), muster.ByBundle
			all = append(all, i)
		}
		return all
	}
	content := func(id string, made int, lists []muster.BundleList, allowlists []muster.BundleAllowlist) muster.BundleContent {
		return muster.BundleContent{Bundle: muster.Bundle{
			ID: id, MadeAt: at(made), ValidUntil: at(900), From: "https://muster.example.org/", Version: "1.0", Key: "k", ImportedAt: at(100 + made), ImportedBy: "ada",
		}, Lists: lists, Allowlists: allowlists}
	}
	list := func(id, name string, values ...string) muster.BundleList {
		return muster.BundleList{Blocklist: muster.Blocklist{
			ID: id, Name: name, Label: awkward, Kind: muster.CustomList, SharedWith: []string{"*"}, Remedy: muster.RemedyBan, Lifetime: time.Hour, CreatedAt: at(1), CreatedBy: muster.ByBundle,
		}, Entries: entries(values...)}
	}
	allowlist := func(id, name string, values ...string) muster.BundleAllowlist {
		return muster.BundleAllowlist{Allowlist: muster.Allowlist{ID: id, Name: name, CreatedAt: at(1), CreatedBy: muster.ByBundle}, Items: items(values...)}
	}
	onList := func(id string) []muster.CustomEntry {
		t.Helper()
		return must(db.CustomEntries(ctx, id, muster.Source{}, 0))(t)
	}
	onAllowlist := func(id string) (values []string) {
		t.Helper()
		ok(t, db.EachAllowItem(ctx, id, func(i muster.AllowItem) error { values = append(values, i.Value); return nil }))
		return values
	}
	equal(t, "bundles at first", must(db.Bundles(ctx, 0))(t), nil)

	first := content("1", 10, []muster.BundleList{list("l1", "bundle-a", "192.0.2.1", "192.0.2.2"), list("l2", "bundle-b", "192.0.2.3")},
		[]muster.BundleAllowlist{allowlist("a1", "bundle-central", "192.0.2.0/24", "AS64496")})
	ok(t, db.ImportBundle(ctx, first, false, entry(1, "bundle.import", "1")))
	equal(t, "bundles", must(db.Bundles(ctx, 0))(t), []muster.Bundle{first.Bundle})
	equal(t, "a list", onList("l1"), entries("192.0.2.1", "192.0.2.2"))
	equal(t, "an allowlist", onAllowlist("a1"), []string{"AS64496", "192.0.2.0/24"})
	equal(t, "the audit", len(must(db.Audit(ctx, store.AuditQuery{}))(t)), 1)
	before := must(db.Blocklists(ctx))(t)

	// The same bundle again changes nothing.
	again := first
	again.Lists = []muster.BundleList{list("l9", "bundle-a", "192.0.2.1", "192.0.2.2"), list("l8", "bundle-b", "192.0.2.3")}
	ok(t, db.ImportBundle(ctx, again, false))
	equal(t, "lists after the same bundle", must(db.Blocklists(ctx))(t), before)
	equal(t, "a list after the same bundle", onList("l1"), entries("192.0.2.1", "192.0.2.2"))
	equal(t, "bundles after the same", must(db.Bundles(ctx, 0))(t), []muster.Bundle{first.Bundle})

	// A later one replaces what is there, and empties what it does not have.
	second := content("2", 20, []muster.BundleList{list("l3", "bundle-a", "192.0.2.9")}, []muster.BundleAllowlist{})
	ok(t, db.ImportBundle(ctx, second, false))
	equal(t, "a list of the second", onList("l1"), entries("192.0.2.9"))
	equal(t, "a list that the second does not have", onList("l2"), nil)
	equal(t, "an allowlist that the second does not have", onAllowlist("a1"), nil)
	equal(t, "all lists stay", len(must(db.Blocklists(ctx))(t)), 2)

	// One without lists leaves them.
	none := content("2", 20, nil, nil)
	ok(t, db.ImportBundle(ctx, none, false))
	equal(t, "a list after a bundle without lists", onList("l1"), entries("192.0.2.9"))

	// What fails changes nothing.
	unchanged := func(what string) {
		t.Helper()
		equal(t, what+": a list", onList("l1"), entries("192.0.2.9"))
		equal(t, what+": bundles", must(db.Bundles(ctx, 0))(t), []muster.Bundle{second.Bundle, first.Bundle})
	}
	wantCode(t, db.ImportBundle(ctx, content("0", 15, []muster.BundleList{list("l1", "bundle-a", "192.0.2.8")}, nil), false), muster.Invalid)
	unchanged("an older bundle")
	ok(t, db.CreateBlocklist(ctx, muster.Blocklist{ID: "own", Name: "bundle-own", Kind: muster.CustomList, CreatedBy: "ada"}))
	wantCode(t, db.ImportBundle(ctx, content("3", 30, []muster.BundleList{list("l1", "bundle-a", "192.0.2.8"), list("l4", "bundle-own", "192.0.2.8")}, nil), false), muster.Exists)
	unchanged("a name that is taken")
	ok(t, db.CreateAllowlist(ctx, muster.Allowlist{ID: "ours", Organisation: "o1", Name: "bundle-x", CreatedAt: at(1), UpdatedAt: at(1)}))
	wantCode(t, db.ImportBundle(ctx, content("3", 30, []muster.BundleList{list("l1", "bundle-a", "192.0.2.8")}, []muster.BundleAllowlist{allowlist("a2", "bundle-x", "192.0.2.8")}), false), muster.Exists)
	unchanged("a name of an allowlist that is taken")

	ok(t, db.ImportBundle(ctx, content("0", 15, []muster.BundleList{list("l1", "bundle-a", "192.0.2.8")}, nil), true))
	equal(t, "an older bundle by force", onList("l1"), entries("192.0.2.8"))
}
