package storetest

import (
	"fmt"
	"testing"
	"time"

	"muster"
	"muster/internal/store"
)

func allowlist(id, organisation, name string, targets ...muster.Subscriber) muster.Allowlist {
	return muster.Allowlist{
		ID: id, Organisation: organisation, Name: name, Description: awkward, Targets: targets,
		CreatedAt: at(1), UpdatedAt: at(2), CreatedBy: "ada",
	}
}

func allowItem(t *testing.T, list, value string, expires time.Time) muster.AllowItem {
	t.Helper()
	i := must(muster.ParseAllowItem(value))(t)
	i.List, i.Reason, i.CreatedAt, i.ExpiresAt, i.By = list, awkward, at(3), expires, "bob"
	return i
}

func testAllowlists(t *testing.T, db *store.DB) {
	ctx := t.Context()
	all := func() []muster.Allowlist {
		t.Helper()
		return must(db.Allowlists(ctx))(t)
	}
	equal(t, "lists at first", all(), nil)
	central := allowlist("c", "", "partners")
	web := allowlist("a", "o1", "web",
		muster.Subscriber{Kind: muster.SubscriberTag, ID: awkward, Organisation: "o1"},
		muster.Subscriber{Kind: muster.SubscriberOrganisation, Organisation: "o1"})
	office := allowlist("b", "o1", "office")
	other := allowlist("d", "o2", "office")
	for n, l := range []muster.Allowlist{web, office, other, central} {
		ok(t, db.CreateAllowlist(ctx, l, entry(n, "allowlist.create", l.ID)))
	}
	equal(t, "lists", all(), []muster.Allowlist{central, office, web, other})

	// A name is taken for whoever could see both lists.
	for _, taken := range []muster.Allowlist{
		allowlist("e", "o1", "office"), allowlist("e", "o1", "partners"), allowlist("e", "", "office"), allowlist("a", "o3", "new"),
	} {
		wantCode(t, db.CreateAllowlist(ctx, taken, entry(9, "allowlist.create", "e")), muster.Exists)
	}
	rename := func(id, name string) error {
		_, err := db.UpdateAllowlist(ctx, id, func(l *muster.Allowlist) error { l.Name = name; return nil }, entry(9, "allowlist.set", id))
		return err
	}
	wantCode(t, rename("a", "office"), muster.Exists)
	wantCode(t, rename("d", "partners"), muster.Exists)
	wantCode(t, rename("x", "new"), muster.NotFound)
	updated := must(db.UpdateAllowlist(ctx, "a", func(l *muster.Allowlist) error {
		l.ID, l.Organisation = "z", "o2" // neither can change
		l.Name, l.Description, l.UpdatedAt, l.Targets = "www", "", at(5), nil
		return nil
	}, entry(9, "allowlist.set", "a")))(t)
	web.Name, web.Description, web.UpdatedAt, web.Targets = "www", "", at(5), nil
	equal(t, "the updated list", updated, web)
	equal(t, "lists after it", all(), []muster.Allowlist{central, office, web, other})

	wantCode(t, db.DeleteAllowlist(ctx, "x"), muster.NotFound)
	ok(t, db.PutAllowItems(ctx, "b", at(4), []muster.AllowItem{allowItem(t, "b", "192.0.2.1", time.Time{})}))
	ok(t, db.DeleteAllowlist(ctx, "b", entry(10, "allowlist.delete", "b")))
	equal(t, "lists in the end", all(), []muster.Allowlist{central, web, other})
	equal(t, "items in the end", allowItems(t, db), nil)
	equal(t, "how much was audited", len(must(db.Audit(ctx, store.AuditQuery{}))(t)), 6)

	for n := range muster.MaxAllowlists {
		ok(t, db.CreateAllowlist(ctx, allowlist(fmt.Sprintf("m%d", n), "o9", fmt.Sprintf("n%d", n))))
	}
	wantCode(t, db.CreateAllowlist(ctx, allowlist("over", "o9", "over")), muster.TooLarge)
}

func allowItems(t *testing.T, db *store.DB) (all []muster.AllowItem) {
	t.Helper()
	ok(t, db.EachAllowItem(t.Context(), "", func(i muster.AllowItem) error { all = append(all, i); return nil }))
	return all
}

func testAllowItems(t *testing.T, db *store.DB) {
	ctx := t.Context()
	ok(t, db.CreateAllowlist(ctx, allowlist("l", "o1", "office")))
	v4, v6 := allowItem(t, "l", "192.0.2.7", at(60)), allowItem(t, "l", "2001:db8::1", time.Time{})
	wide := allowItem(t, "l", "198.51.100.0/24", time.Time{})
	as, country := allowItem(t, "l", "AS64496", time.Time{}), allowItem(t, "l", "country:DE", at(90))
	host, cloud := allowItem(t, "l", "office.example.org", time.Time{}), allowItem(t, "l", "cloud:aws/s3", time.Time{})
	ok(t, db.PutAllowItems(ctx, "l", at(9), []muster.AllowItem{host, v6, wide, as, cloud, country, v4}, entry(1, "allowlist.add", "office")))
	equal(t, "items", allowItems(t, db), []muster.AllowItem{v4, v6, as, cloud, country, host, wide})
	equal(t, "when the list changed", must(db.Allowlists(ctx))(t)[0].UpdatedAt, at(9))
	wantCode(t, db.PutAllowItems(ctx, "x", at(9), []muster.AllowItem{v4}), muster.NotFound)

	host.Reason, host.ExpiresAt = "again", at(61)
	ok(t, db.PutAllowItems(ctx, "l", at(10), []muster.AllowItem{host}))
	wantCode(t, db.DeleteAllowItems(ctx, "l", at(11), []muster.AllowItem{as, allowItem(t, "l", "AS1", time.Time{})}, entry(2, "allowlist.remove", "l")), muster.NotFound)
	equal(t, "items after a removal that failed", allowItems(t, db), []muster.AllowItem{v4, v6, as, cloud, country, host, wide})
	ok(t, db.DeleteAllowItems(ctx, "l", at(11), []muster.AllowItem{as, wide, v6}, entry(2, "allowlist.remove", "l")))
	equal(t, "how many expired", must(db.DeleteExpiredAllowItems(ctx, at(60)))(t), 1)
	equal(t, "items in the end", allowItems(t, db), []muster.AllowItem{cloud, country, host})

	ok(t, db.CreateAllowlist(ctx, allowlist("k", "o1", "other")))
	ok(t, db.PutAllowItems(ctx, "k", at(12), []muster.AllowItem{allowItem(t, "k", "AS1", time.Time{})}))
	var of []string
	ok(t, db.EachAllowItem(ctx, "k", func(i muster.AllowItem) error { of = append(of, i.List+" "+i.Value); return nil }))
	equal(t, "items of one list", of, []string{"k AS1"})
	ok(t, db.DeleteAllowlist(ctx, "k"))

	many := make([]muster.AllowItem, muster.MaxAllowItems)
	for n := range many {
		many[n] = allowItem(t, "l", numbered(n).String(), time.Time{})
	}
	wantCode(t, db.PutAllowItems(ctx, "l", at(12), many), muster.TooLarge)
	equal(t, "items after too many", len(allowItems(t, db)), 3)
	ok(t, db.PutAllowItems(ctx, "l", at(12), many[3:]))
}

// The installation's list takes the place of the table of releases before.
func testCentralAllowlist(t *testing.T, db *store.DB) {
	ctx := t.Context()
	ok(t, db.PutAllowEntries(ctx, nil))
	equal(t, "lists at first", must(db.Allowlists(ctx))(t), nil)
	ok(t, db.PutAllowEntries(ctx, []muster.AllowEntry{
		{Source: source("192.0.2.0/24"), Reason: "ours", CreatedAt: at(5)}, {Source: source("192.0.2.7"), CreatedAt: at(4), ExpiresAt: at(60)},
	}))
	central := muster.Allowlist{ID: "central", Name: "central", CreatedAt: at(5), UpdatedAt: at(5)}
	equal(t, "lists", must(db.Allowlists(ctx))(t), []muster.Allowlist{central})
	ok(t, db.PutAllowItems(ctx, "central", at(8), []muster.AllowItem{allowItem(t, "central", "AS64496", time.Time{})}))
	equal(t, "entries", len(must(db.AllowEntries(ctx, at(9)))(t)), 2)
	equal(t, "items", allowItems(t, db), []muster.AllowItem{
		{List: "central", Kind: muster.AllowAddress, Value: "192.0.2.7", CreatedAt: at(4), ExpiresAt: at(60)},
		allowItem(t, "central", "AS64496", time.Time{}),
		{List: "central", Kind: muster.AllowRange, Value: "192.0.2.0/24", Reason: "ours", CreatedAt: at(5)},
	})
}

func testAllowWithdrawals(t *testing.T, db *store.DB) {
	ctx := t.Context()
	all := func() []muster.AllowWithdrawal {
		t.Helper()
		return must(db.AllowWithdrawals(ctx))(t)
	}
	equal(t, "withdrawals at first", all(), nil)
	a := muster.AllowWithdrawal{Machine: "m1", List: "l1", Name: awkward, Since: at(1)}
	b := muster.AllowWithdrawal{Machine: "m1", List: "l2", Name: "x", Since: at(1), Ordered: at(2)}
	c := muster.AllowWithdrawal{Machine: "m2", List: "l1", Name: "y", Since: at(1)}
	ok(t, db.PutAllowWithdrawals(ctx, []muster.AllowWithdrawal{c, b, a}))
	a.Ordered, a.Name = at(9), "z"
	ok(t, db.PutAllowWithdrawals(ctx, []muster.AllowWithdrawal{a}))
	equal(t, "withdrawals", all(), []muster.AllowWithdrawal{a, b, c})
	ok(t, db.DeleteAllowWithdrawals(ctx, []muster.AllowWithdrawal{b, {Machine: "m3", List: "l1"}}))
	equal(t, "withdrawals in the end", all(), []muster.AllowWithdrawal{a, c})
}

func testAllowAnswers(t *testing.T, db *store.DB) {
	ctx := t.Context()
	ok(t, db.PutAllowAnswer(ctx, "host:b", at(1), []byte(awkward)))
	ok(t, db.PutAllowAnswer(ctx, "host:a", at(2), nil))
	ok(t, db.PutAllowAnswer(ctx, "host:b", at(3), []byte{0, 255}))
	ok(t, db.PutAllowAnswer(ctx, "host:c", at(3), nil))
	ok(t, db.DeleteAllowAnswer(ctx, "host:c"))
	ok(t, db.DeleteAllowAnswer(ctx, "host:c"))
	var got []string
	ok(t, db.EachAllowAnswer(ctx, func(name string, when time.Time, data []byte) error {
		got = append(got, fmt.Sprintf("%s %d %x", name, when.Sub(at(0))/time.Second, data))
		return nil
	}))
	equal(t, "answers", got, []string{"host:a 2 ", "host:b 3 00ff"})
}
