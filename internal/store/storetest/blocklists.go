package storetest

import (
	"slices"
	"testing"
	"time"

	"muster"
	"muster/internal/store"
)

func blocklist(id, name string) muster.Blocklist {
	return muster.Blocklist{
		ID: id, Name: name, Label: awkward, Description: awkward, Kind: muster.FeedList, Organisation: "o1", SharedWith: []string{"*"},
		Remedy: muster.RemedyCaptcha, Lifetime: 90 * time.Minute, CreatedAt: at(1), CreatedBy: "ada",
		Rule: muster.ListRule{Behaviours: []string{"ssh"}, Countries: []string{"DE"}, ASNs: []uint32{64496}, Since: time.Hour, Own: true, Top: 7},
		Feed: muster.Feed{URL: "https://lists.example.org/a?b=" + awkward, Format: "csv:ip", Interval: time.Hour, Max: 9, Swing: 1.5, Forbidden: 3, Keep: time.Minute},
	}
}

func testBlocklists(t *testing.T, db *store.DB) {
	ctx := t.Context()
	all := func() []muster.Blocklist { t.Helper(); return must(db.Blocklists(ctx))(t) }
	equal(t, "lists at first", all(), nil)
	b, a := blocklist("2", "b"), muster.Blocklist{ID: "1", Name: "a", Kind: muster.CustomList}
	ok(t, db.CreateBlocklist(ctx, b, entry(1, "blocklist.create", "b")))
	ok(t, db.CreateBlocklist(ctx, a))
	equal(t, "all, by name", all(), []muster.Blocklist{a, b})
	wantCode(t, db.CreateBlocklist(ctx, muster.Blocklist{ID: "3", Name: "b"}, entry(2, "blocklist.create", "b")), muster.Exists)
	equal(t, "the audit", must(db.Audit(ctx, store.AuditQuery{}))(t), []muster.AuditEntry{entry(1, "blocklist.create", "b")})

	changed := b
	changed.Name, changed.Kind, changed.CreatedBy = "c", muster.RuleList, "bob" // which stay
	changed.Label, changed.Lifetime, changed.SharedWith = "another", time.Hour, []string{"o2", "o3"}
	ok(t, db.UpdateBlocklist(ctx, changed, entry(3, "blocklist.update", "b")))
	changed.Name, changed.Kind, changed.CreatedBy = b.Name, b.Kind, b.CreatedBy
	equal(t, "after a change", all(), []muster.Blocklist{a, changed})
	wantCode(t, db.UpdateBlocklist(ctx, muster.Blocklist{ID: "3"}), muster.NotFound)

	// With a list goes what belongs to it, and nothing else.
	for _, id := range []string{"1", "2"} {
		ok(t, db.PutCustomEntries(ctx, id, []muster.CustomEntry{{Source: source("192.0.2.7")}}, false, 9))
		ok(t, db.PutSubscription(ctx, muster.Subscription{Blocklist: id, Subscriber: muster.Subscriber{Kind: muster.SubscriberMachine, ID: "m"}}))
		ok(t, db.PutFeed(ctx, muster.FeedState{List: id}, []muster.Source{source("192.0.2.7")}, nil))
		ok(t, db.PutListDays(ctx, []muster.ListDay{{List: id, Day: at(1)}}))
		ok(t, db.AddListHits(ctx, []muster.ListHits{{List: id, Day: at(1), Unit: "packet", Count: 1}}))
	}
	ok(t, db.DeleteBlocklist(ctx, "2", entry(4, "blocklist.delete", "b")))
	wantCode(t, db.DeleteBlocklist(ctx, "2"), muster.NotFound)
	equal(t, "what is left", all(), []muster.Blocklist{a})
	for id, want := range map[string]int{"1": 1, "2": 0} {
		subscriptions := slices.DeleteFunc(must(db.Subscriptions(ctx))(t), func(s muster.Subscription) bool { return s.Blocklist != id })
		states := slices.DeleteFunc(must(db.FeedStates(ctx))(t), func(s muster.FeedState) bool { return s.List != id })
		for what, n := range map[string]int{
			"entries": len(must(db.CustomEntries(ctx, id, muster.Source{}, 9))(t)), "subscriptions": len(subscriptions), "feeds": len(states),
			"fetched": len(must(db.FeedEntries(ctx, id, false))(t)), "days": len(must(db.ListDays(ctx, id, time.Time{}))(t)),
			"hits": len(must(db.ListHits(ctx, id, time.Time{}))(t)),
		} {
			if n != want {
				t.Errorf("list %s: %d %s, want %d", id, n, what, want)
			}
		}
	}
	wantCode(t, db.PutCustomEntries(ctx, "2", nil, false, 9), muster.NotFound)
	wantCode(t, db.PutFeed(ctx, muster.FeedState{List: "2"}, nil, nil), muster.NotFound)
}

func testSubscriptions(t *testing.T, db *store.DB) {
	ctx := t.Context()
	tag := muster.Subscription{
		Blocklist: "l", Subscriber: muster.Subscriber{Kind: muster.SubscriberTag, ID: awkward, Organisation: "o1"},
		Remedy: muster.RemedyCaptcha, CreatedAt: at(1), CreatedBy: "ada",
	}
	other := tag
	other.Subscriber.Organisation = "o2" // its tag of that name is another
	ok(t, db.PutSubscription(ctx, other, entry(1, "subscription.add", "l")))
	ok(t, db.PutSubscription(ctx, tag))
	tag.Remedy, tag.CreatedBy = "", "bob"
	ok(t, db.PutSubscription(ctx, tag))
	equal(t, "subscriptions", must(db.Subscriptions(ctx))(t), []muster.Subscription{tag, other})
	ok(t, db.DeleteSubscription(ctx, "l", tag.Subscriber, entry(2, "subscription.remove", "l")))
	wantCode(t, db.DeleteSubscription(ctx, "l", tag.Subscriber), muster.NotFound)
	equal(t, "what is left", must(db.Subscriptions(ctx))(t), []muster.Subscription{other})
	equal(t, "the audit", must(db.Audit(ctx, store.AuditQuery{}))(t), []muster.AuditEntry{entry(2, "subscription.remove", "l"), entry(1, "subscription.add", "l")})
}

func testCustomEntries(t *testing.T, db *store.DB) {
	ctx := t.Context()
	ok(t, db.CreateBlocklist(ctx, blocklist("l", "l")))
	ok(t, db.CreateBlocklist(ctx, blocklist("k", "k")))
	ok(t, db.PutCustomEntries(ctx, "k", []muster.CustomEntry{{Source: source("192.0.2.9")}}, false, 9))
	low := muster.CustomEntry{Source: source("192.0.2.1"), Comment: awkward, Until: at(60), AddedAt: at(1), AddedBy: "ada"}
	wide := muster.CustomEntry{Source: source("192.0.2.0/24"), AddedAt: at(1)}
	six := muster.CustomEntry{Source: source("2001:db8::/48"), AddedAt: at(1)}
	all := func() []muster.CustomEntry {
		t.Helper()
		var list []muster.CustomEntry
		ok(t, db.EachCustomEntry(ctx, "l", func(e muster.CustomEntry) error { list = append(list, e); return nil }))
		return list
	}
	ok(t, db.PutCustomEntries(ctx, "l", []muster.CustomEntry{six, low, wide}, false, 3, entry(1, "blocklist.entries", "l")))
	ordered := []muster.CustomEntry{wide, low, six}
	equal(t, "all, in order", all(), ordered)
	equal(t, "a page", must(db.CustomEntries(ctx, "l", wide.Source, 1))(t), []muster.CustomEntry{low})

	low.Comment, low.Until, low.AddedBy = "", time.Time{}, "bob"
	ok(t, db.PutCustomEntries(ctx, "l", []muster.CustomEntry{low}, false, 3))
	ordered[1] = low
	equal(t, "put again", all(), ordered)
	more := muster.CustomEntry{Source: source("198.51.100.1"), Until: at(60)}
	wantCode(t, db.PutCustomEntries(ctx, "l", []muster.CustomEntry{more}, false, 3, entry(2, "blocklist.entries", "l")), muster.TooLarge)
	wantCode(t, db.PutCustomEntries(ctx, "l", []muster.CustomEntry{more, low}, true, 1), muster.TooLarge)
	equal(t, "after what was too much", all(), ordered)
	ok(t, db.PutCustomEntries(ctx, "l", []muster.CustomEntry{more, low}, true, 2))
	equal(t, "replaced", all(), []muster.CustomEntry{low, more})

	if n := must(db.DeleteEndedEntries(ctx, at(59)))(t); n != 0 {
		t.Errorf("%d ended before their time", n)
	}
	if n := must(db.DeleteEndedEntries(ctx, at(60)))(t); n != 1 {
		t.Errorf("%d ended, want 1", n)
	}
	if n := must(db.DeleteCustomEntries(ctx, "l", []muster.Source{low.Source, more.Source}, entry(3, "blocklist.entries", "l")))(t); n != 1 {
		t.Errorf("%d deleted, want 1", n)
	}
	equal(t, "emptied", all(), nil)
	equal(t, "another list", len(must(db.CustomEntries(ctx, "k", muster.Source{}, 9))(t)), 1)
}

func testFeeds(t *testing.T, db *store.DB) {
	ctx := t.Context()
	ok(t, db.CreateBlocklist(ctx, blocklist("l", "l")))
	state := muster.FeedState{
		List: "l", ETag: `W/"` + awkward, LastModified: "Sat, 21 Nov 2026 06:00:00 GMT", Format: "plain", TriedAt: at(1), GoodAt: at(2), ChangedAt: at(3), NextAt: at(4),
		Failures: 5, Problem: awkward, Size: 6, Skipped: 7, Forbidden: 8, HeldAt: at(9), HeldSize: 10, HeldReason: awkward,
	}
	inForce, held := []muster.Source{source("192.0.2.0/24"), source("2001:db8::1")}, []muster.Source{source("::/0")}
	stored := func(what string, wantInForce, wantHeld []muster.Source) {
		t.Helper()
		equal(t, what+": state", must(db.FeedStates(ctx))(t), []muster.FeedState{state})
		equal(t, what+": in force", must(db.FeedEntries(ctx, "l", false))(t), wantInForce)
		equal(t, what+": held", must(db.FeedEntries(ctx, "l", true))(t), wantHeld)
	}
	equal(t, "at first", must(db.FeedEntries(ctx, "l", false))(t), nil)
	ok(t, db.PutFeed(ctx, state, inForce, held, entry(1, "feed.fetch", "l")))
	stored("put", inForce, held)
	state = muster.FeedState{List: "l", Failures: 1}
	ok(t, db.PutFeed(ctx, state, nil, nil))
	stored("state alone", inForce, held)
	ok(t, db.PutFeed(ctx, state, held, []muster.Source{}))
	stored("approved", held, nil)
}

func testListStatistics(t *testing.T, db *store.DB) {
	ctx, day := t.Context(), time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	next := day.AddDate(0, 0, 1)
	first, second := muster.ListDay{List: "l", Day: day, Size: 5, Added: 5}, muster.ListDay{List: "l", Day: next, Size: 4, Added: 1, Removed: 2}
	ok(t, db.PutListDays(ctx, []muster.ListDay{{List: "l", Day: next, Size: 9}, first, {List: "k", Day: day}}))
	ok(t, db.PutListDays(ctx, []muster.ListDay{second}))
	equal(t, "days", must(db.ListDays(ctx, "l", day))(t), []muster.ListDay{first, second})
	equal(t, "the last day", must(db.ListDays(ctx, "l", next))(t), []muster.ListDay{second})

	ok(t, db.AddListHits(ctx, []muster.ListHits{hits("l", day, "packet", 3), hits("l", day, "byte", 1<<40), hits("l", next, "packet", 1), hits("k", day, "packet", 7)}))
	ok(t, db.AddListHits(ctx, []muster.ListHits{hits("l", day, "packet", 2)}))
	equal(t, "hits", must(db.ListHits(ctx, "l", day))(t), []muster.ListHits{hits("l", day, "byte", 1<<40), hits("l", day, "packet", 5), hits("l", next, "packet", 1)})
	ok(t, db.PruneListDays(ctx, next))
	equal(t, "days left", must(db.ListDays(ctx, "l", day))(t), []muster.ListDay{second})
	equal(t, "hits left", must(db.ListHits(ctx, "l", day))(t), []muster.ListHits{hits("l", next, "packet", 1)})
}

func testSourcesForRules(t *testing.T, db *store.DB) {
	ctx := t.Context()
	alerts := []*muster.Signal{
		{ID: muster.SignalID{1}, Organisation: "o1", At: at(5), Received: at(5), Source: source("192.0.2.1")},
		{ID: muster.SignalID{2}, Organisation: "o1", At: at(6), Received: at(6), Source: source("192.0.2.1")},
		{ID: muster.SignalID{3}, Organisation: "o1", At: at(4), Received: at(4), Source: source("192.0.2.2")},
		{ID: muster.SignalID{4}, Organisation: "o2", At: at(5), Received: at(5), Source: source("192.0.2.3")},
	}
	ok(t, db.Tally(ctx, func(tx *store.TallyTx) error {
		_, err := tx.InsertAlerts(make([]uint8, len(alerts)), alerts)
		return err
	}))
	equal(t, "reported", must(db.ReportedBy(ctx, "o1", at(5)))(t), map[muster.Source]struct{}{source("192.0.2.1"): {}})
}

func hits(list string, day time.Time, unit string, n int64) muster.ListHits {
	return muster.ListHits{List: list, Day: day, Unit: unit, Count: n}
}
