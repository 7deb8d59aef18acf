package catalog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster"
	"muster/internal/catalog/feed"
)

func TestSubscribe(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxSubscriptions = map[muster.Plan]int{muster.Community: 2} })
	r.machine("m1", "o1")
	blocked := muster.Machine{ID: "m2", State: muster.Blocked, Organisation: "o1"}
	r.machines.known["m2"] = blocked
	r.machines.plans["o2"] = muster.Enterprise
	r.create(t, muster.Blocklist{Name: "theirs", Kind: muster.CustomList, Organisation: "o2"})
	add := func(list string, by muster.Subscriber) error {
		_, err := r.Subscribe(t.Context(), muster.Subscription{Blocklist: list, Subscriber: by}, jane)
		return err
	}
	for _, c := range []struct {
		list string
		by   muster.Subscriber
		code muster.Code
		says string
	}{
		{"nothing", muster.Subscriber{Kind: muster.SubscriberMachine, ID: "m1"}, muster.NotFound, "no blocklist"},
		{"muster-ssh", muster.Subscriber{Kind: muster.SubscriberMachine, ID: "m9"}, muster.NotFound, "no active machine"},
		{"muster-ssh", muster.Subscriber{Kind: muster.SubscriberMachine, ID: "m2"}, muster.NotFound, "no active machine"},
		{"muster-ssh", muster.Subscriber{Kind: muster.SubscriberMachine, ID: "m1", Organisation: "o2"}, muster.Invalid, "not of the organisation"},
		{"muster-ssh", muster.Subscriber{Kind: muster.SubscriberTag, ID: "web"}, muster.Invalid, "organisation that the tag belongs to"},
		{"muster-ssh", muster.Subscriber{Kind: muster.SubscriberTag, Organisation: "o1"}, muster.Invalid, "id of the tag"},
		{"muster-ssh", muster.Subscriber{Kind: "person", ID: "x", Organisation: "o1"}, muster.Invalid, "expected a machine, tag"},
		{"theirs", muster.Subscriber{Kind: muster.SubscriberMachine, ID: "m1"}, muster.NotFound, "not shared"},
		{"community", muster.Subscriber{Kind: muster.SubscriberMachine, ID: "m1"}, muster.Invalid, "with every pull"},
	} {
		wantCode(t, fmt.Sprint(c.list, " ", c.by), add(c.list, c.by), c.code, c.says)
	}
	_, err := r.Subscribe(t.Context(), muster.Subscription{Blocklist: "muster-ssh", Subscriber: muster.Subscriber{Kind: muster.SubscriberMachine, ID: "m1"}, Remedy: "x"}, jane)
	wantCode(t, "remedy", err, muster.Invalid, "remedy: expected")

	// Two lists, however often; the community list does not count.
	r.subscribe(t, "community", muster.SubscriberIntegration, "i1", "o1")
	r.subscribe(t, "muster-ssh", muster.SubscriberMachine, "m1", "")
	r.subscribe(t, "muster-http", muster.SubscriberTag, "web", "o1")
	r.subscribe(t, "muster-ssh", muster.SubscriberIntegration, "i1", "o1")
	wantCode(t, "a third list", add("muster-own", muster.Subscriber{Kind: muster.SubscriberMachine, ID: "m1"}), muster.Payment, "allows subscriptions to 2 blocklists, and the organisation has 2")
	for _, list := range []string{"muster-ssh", "muster-http", "muster-own"} {
		r.subscribe(t, list, muster.SubscriberOrganisation, "o2", "")
	}

	var names []string
	for _, l := range r.Subscribed(muster.Subscriber{Kind: muster.SubscriberIntegration, ID: "i1", Organisation: "o1"}) {
		names = append(names, l.Name+" "+string(l.Remedy))
	}
	if diff := cmp.Diff("community ban,muster-ssh ban", strings.Join(names, ",")); diff != "" {
		t.Error(diff)
	}
	if got := r.Subscribed(muster.Subscriber{Kind: muster.SubscriberIntegration, ID: "i1", Organisation: "o2"}); got != nil {
		t.Errorf("another organisation's: %v", got)
	}
	if n, all := len(r.Subscriptions("muster-ssh")), len(r.Subscriptions("")); n != 3 || all != 7 {
		t.Errorf("%d of muster-ssh, %d in all", n, all)
	}
	for _, id := range []string{"m1", "m9"} {
		err = r.Unsubscribe(t.Context(), "muster-ssh", muster.Subscriber{Kind: muster.SubscriberMachine, ID: id}, jane)
		if (err == nil) != (id == "m1") {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestOrdersFollowSubscriptions(t *testing.T) {
	r := newRig(t)
	r.machines.plans["o1"] = muster.SecOps
	r.machine("m1", "o1", "web")
	r.machine("m2", "o1", "web", "eu")
	r.machine("m3", "o1")
	r.machine("x1", "o2", "web") // whose plan has no orders
	r.keep(t, "mine", "11.0.0.1")
	r.keep(t, "empty", "")
	const pull, drop = "management/force_pull", "management/blocklist_unsubscribe"
	all := func(list string, kind string, machines ...string) (orders []string) {
		for _, m := range machines {
			orders = append(orders, m+" "+kind+" blocklist "+list)
			if kind == drop {
				orders = append(orders, m+" "+kind+" blocklist "+list+"-ranges")
			}
		}
		return orders
	}
	unsubscribe := func(kind muster.SubscriberKind, id string) {
		t.Helper()
		if err := r.Unsubscribe(t.Context(), "mine", muster.Subscriber{Kind: kind, ID: id, Organisation: "o1"}, jane); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, r.carryOut(t)); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	r.subscribe(t, "mine", muster.SubscriberTag, "web", "o1")
	want("by tag", all("mine", pull, "m1", "m2")...)
	r.subscribe(t, "mine", muster.SubscriberMachine, "m2", "")
	want("by itself too", all("mine", pull, "m2")...)
	r.subscribe(t, "mine", muster.SubscriberOrganisation, "o2", "")
	r.subscribe(t, "mine", muster.SubscriberIntegration, "i1", "o1")
	r.subscribe(t, "empty", muster.SubscriberMachine, "m1", "")
	want("who takes no orders, and nothing to read")
	if _, err := r.RemoveEntries(t.Context(), "mine", sourcesOf("11.0.0.9"), true, jane); err != nil {
		t.Fatal(err)
	}
	want("what was not there")
	if _, err := r.PutEntries(t.Context(), "mine", entriesOf("11.0.0.2"), false, jane); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RemoveEntries(t.Context(), "mine", sourcesOf("11.0.0.1"), true, jane); err != nil {
		t.Fatal(err)
	}
	got := r.carryOut(t)
	slices.SortStableFunc(got, func(a, b string) int { return strings.Compare(a[:2], b[:2]) })
	again := func(machine string) []string {
		return append(all("mine", drop, machine), all("mine", pull, machine)...)
	}
	if diff := cmp.Diff(append(again("m1"), again("m2")...), got); diff != "" {
		t.Errorf("again, without an entry: %s", diff)
	}
	unsubscribe(muster.SubscriberTag, "web")
	want("one still does", append(all("mine", drop, "m1"), all("mine", pull, "m2")...)...)
	if _, err := r.Delete(t.Context(), "mine", jane); err != nil {
		t.Fatal(err)
	}
	want("deleted", all("mine", drop, "m2")...)
	r.keep(t, "wide", "11.0.0.1 11.0.1.0/24")
	r.subscribe(t, "wide", muster.SubscriberMachine, "m1", "")
	want("with ranges", all("wide", pull, "m1")[0], all("wide-ranges", pull, "m1")[0])
}

func TestOrdersFollowMachines(t *testing.T) {
	r := newRig(t)
	r.machines.plans["o1"], r.machines.plans["o2"] = muster.Enterprise, muster.SecOps
	r.machine("m1", "o1", "web", "eu")
	r.machine("m2", "o1", "web")
	for _, name := range []string{"ours", "webs", "eus", "theirs"} {
		r.keep(t, name, "11.0.0.1")
	}
	r.subscribe(t, "ours", muster.SubscriberOrganisation, "o1", "")
	r.subscribe(t, "webs", muster.SubscriberTag, "web", "o1")
	r.subscribe(t, "eus", muster.SubscriberTag, "eu", "o1")
	r.subscribe(t, "theirs", muster.SubscriberOrganisation, "o2", "")
	r.subscribe(t, "webs", muster.SubscriberOrganisation, "o2", "")
	r.carryOut(t)
	become := func(state muster.MachineState, organisation string, tags ...string) {
		r.machines.known["m1"] = muster.Machine{ID: "m1", State: state, Organisation: organisation, Tags: tags}
	}
	want := func(what string, want ...string) {
		t.Helper()
		for i, w := range want {
			kind, list, _ := strings.Cut(w, " ")
			want[i] = "m1 management/" + map[string]string{"drop": "blocklist_unsubscribe", "read": "force_pull"}[kind] + " blocklist " + list
			if kind == "drop" {
				want = append(want, want[i]+"-ranges")
			}
		}
		if err := r.MachinesChanged(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := r.MachineChanged(t.Context(), "m1"); err != nil {
			t.Fatal(err)
		}
		got := r.carryOut(t)
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	want("nothing changed")
	become(muster.Active, "o1", "web")
	r.refuse = errors.New("away")
	if err := r.MachineChanged(t.Context(), "m1"); err == nil {
		t.Error("expected that what could not be told is told")
	}
	r.refuse = nil
	want("a tag lost, after a failure", "drop eus")
	become(muster.Active, "o1", "eu")
	want("another tag", "drop webs", "read eus")
	become(muster.Active, "o2", "eu")
	want("moved", "drop ours", "drop eus", "read theirs", "read webs")
	become(muster.Blocked, "o2")
	want("blocked")
	become(muster.Active, "o1")
	want("moved back meanwhile", "read ours")
	r.machines.plans["o3"] = muster.Community
	become(muster.Active, "o3")
	want("where no orders are")
	become(muster.Active, "o2")
	want("moved from there", "read theirs", "read webs")
	delete(r.machines.known, "m1")
	want("gone")
	if _, kept := r.readers.by["m1"]; kept {
		t.Error("a machine that is gone is remembered")
	}
	again := New(r.config())
	if err := again.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := again.readers.by["m2"]; got.organisation != "o1" || len(again.readers.by) != 1 {
		t.Errorf("after a restart: %+v", again.readers.by)
	}
}

func TestRunCarriesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.machines.plans["o1"] = muster.Enterprise
		r.machine("m1", "o1")
		r.keep(t, "mine", "11.0.0.1")
		go func() { _ = r.Run(t.Context()) }()
		r.subscribe(t, "mine", muster.SubscriberMachine, "m1", "")
		synctest.Wait()
		if len(r.orders) != 1 {
			t.Errorf("orders: %q", r.orders)
		}
		r.CountHits([]byte(usage))
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if n := len(r.store.hits); n != 2 {
			t.Errorf("%d kinds of hits stored", n)
		}
	})
}

const usage = `{"log_processors":null,"remediation_components":[{"type":"x","metrics":[
	{"items":[{"name":"dropped","unit":"packet","value":12,"labels":{"origin":"lists:mine","ip_type":"ipv4"}},{"name":"dropped","unit":"packet","value":3,"labels":{"origin":"lists:mine-ranges","ip_type":"ipv6"}},
		{"name":"dropped","unit":"byte","value":900,"labels":{"origin":"lists:mine"}},{"name":"dropped","unit":"packet","value":5,"labels":{"origin":"CAPI"}},
		{"name":"dropped","unit":"packet","value":5,"labels":{"origin":"lists:unknown"}},{"name":"processed","unit":"packet","value":5,"labels":{"origin":"lists:mine"}},
		{"name":"dropped","unit":"packet","value":-5,"labels":{"origin":"lists:mine"}},{"name":"dropped","unit":"parsec","value":5,"labels":{"origin":"lists:mine"}}],
	"meta":{"utc_now_timestamp":1795210734,"window_size_seconds":5}},
	{"items":[{"name":"dropped","unit":"packet","value":1,"labels":{"origin":"lists:mine"}}],"meta":{}}]}]}`

func TestStatistics(t *testing.T) {
	r := newRig(t)
	l := r.keep(t, "mine", "11.0.0.1 11.0.0.2")
	r.keep(t, "other", "11.0.0.2 11.0.0.3")
	r.machine("m1", "o1")
	r.subscribe(t, "mine", muster.SubscriberMachine, "m1", "")
	observe := func() {
		t.Helper()
		if err := r.Observe(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	replace := func(list string) {
		t.Helper()
		if _, err := r.PutEntries(t.Context(), "mine", entriesOf(list), true, jane); err != nil {
			t.Fatal(err)
		}
	}
	observe()
	replace("11.0.0.2 11.0.0.3 11.0.0.4")
	observe()
	r.advance(10 * 24 * time.Hour)
	observe()
	replace("11.0.0.2")
	observe()
	observe()
	r.CountHits([]byte(usage))
	r.CountHits([]byte(`{"lists:": nonsense`))
	r.store.fail = errors.New("away")
	r.keepHits(t.Context())
	r.store.fail = nil
	r.CountHits([]byte(usage))
	r.keepHits(t.Context())
	st, err := r.Statistics(t.Context(), "mine")
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%d %d +%d-%d +%d-%d", st.Size, st.Subscriptions, st.Added2, st.Removed2, st.Added30, st.Removed30)
	if want := "1 1 +0-2 +2-3"; got != want || len(st.Days) != 2 || st.Days[0].Size != 3 {
		t.Errorf("got %s, %+v, want %s", got, st.Days, want)
	}
	month := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	wantHits := []muster.ListHits{{List: l.ID, Day: month, Unit: "byte", Count: 1800}, {List: l.ID, Day: month, Unit: "packet", Count: 32}}
	if diff := cmp.Diff(wantHits, st.Hits); diff != "" {
		t.Error(diff)
	}
	if len(st.Overlaps) != 1 || st.Overlaps[0].Entries != 1 {
		t.Errorf("overlaps: %v", st.Overlaps)
	}
	// Another process goes on with the day.
	again := New(r.config())
	if err := again.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := again.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err = again.Statistics(t.Context(), "mine"); err != nil || st.Removed2 != 2 {
		t.Errorf("after a restart: %+v, %v", st, err)
	}
}

func (r *rig) follow(t *testing.T, feed muster.Feed) muster.Blocklist {
	t.Helper()
	feed.URL = "https://lists.example.org/a?key=1"
	return r.create(t, muster.Blocklist{Name: "feed", Kind: muster.FeedList, Feed: feed})
}

// due fetches what is due and returns the feed's state.
func (r *rig) due(t *testing.T) muster.FeedState {
	t.Helper()
	if err := r.FetchDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := r.List("feed")
	if err != nil {
		t.Fatal(err)
	}
	return r.FeedState(l.ID)
}

func TestFeedIsFetchedWhenDue(t *testing.T) {
	r := newRig(t)
	r.follow(t, muster.Feed{Interval: time.Hour})
	r.wantEntries(t, "not fetched yet", "feed", "", "")
	r.deny("11.0.0.9")
	r.has("11.0.0.1 11.0.0.2 11.0.0.9", `"1"`)
	st := r.due(t)
	if st.Size != 2 || st.Forbidden != 1 || st.ETag != `"1"` || !st.NextAt.Equal(start.Add(time.Hour)) || !st.GoodAt.Equal(start) || st.Problem != "" {
		t.Errorf("%+v", st)
	}
	r.wantEntries(t, "fetched", "feed", "", "11.0.0.1 11.0.0.2")
	r.due(t)
	if len(r.requests) != 1 {
		t.Errorf("%d requests though the time had not come", len(r.requests))
	}
	// Nor does a restart fetch.
	r.Service = New(r.config())
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.due(t)
	r.wantEntries(t, "after a restart", "feed", "", "11.0.0.1 11.0.0.2")
	if len(r.requests) != 1 {
		t.Errorf("%d requests after a restart", len(r.requests))
	}
	r.advance(time.Hour)
	r.answers = append(r.answers, func(q feed.Request) (feed.Answer, error) {
		return feed.Answer{Unchanged: q.ETag == `"1"`, ETag: q.ETag}, nil
	})
	if st = r.due(t); !st.GoodAt.Equal(r.now) || !st.ChangedAt.Equal(start) || st.Size != 2 || st.ETag != `"1"` {
		t.Errorf("unchanged: %+v", st)
	}
	if _, err := r.Update(t.Context(), "feed", jane, func(l *muster.Blocklist) error { l.Feed.URL += "2"; return nil }); err != nil {
		t.Fatal(err)
	}
	r.has("11.0.0.3", "")
	if st = r.due(t); len(r.requests) != 3 || r.requests[2].ETag != "" || st.Size != 1 {
		t.Errorf("another source: %+v", st)
	}
	_, err := r.FetchNow(t.Context(), "muster-ssh")
	wantCode(t, "a rule's", err, muster.Invalid, "only feeds are fetched")
}

func TestFeedFails(t *testing.T) {
	r := newRig(t)
	r.follow(t, muster.Feed{Interval: time.Hour, Keep: 3 * time.Hour})
	r.has("11.0.0.1", "")
	r.due(t)
	var waits []time.Duration
	fails := func(err error) muster.FeedState {
		r.answers = append(r.answers, func(feed.Request) (feed.Answer, error) { return feed.Answer{}, err })
		st := r.FeedState(r.Lists()[0].ID)
		r.advance(st.NextAt.Sub(r.now))
		st = r.due(t)
		waits = append(waits, st.NextAt.Sub(r.now))
		return st
	}
	for range 3 {
		fails(muster.Errorf(muster.Unavailable, "away"))
	}
	r.wantEntries(t, "the last good version", "feed", "", "11.0.0.1")
	st := fails(&muster.Error{Code: muster.Unavailable, Message: "busy", RetryAfter: 50 * time.Minute})
	fails(muster.Errorf(muster.Unavailable, "away"))
	if diff := cmp.Diff([]time.Duration{5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 50 * time.Minute, time.Hour}, waits); diff != "" || st.Problem != "busy" || st.Failures != 4 {
		t.Errorf("%+v %s", st, diff)
	}
	r.advance(start.Add(3 * time.Hour).Sub(r.now))
	r.wantEntries(t, "too old", "feed", "", "")
	r.has("11.0.0.1", "")
	r.advance(time.Hour)
	if st = r.due(t); st.Failures != 0 || st.Problem != "" {
		t.Errorf("%+v", st)
	}
	r.wantEntries(t, "good again", "feed", "", "11.0.0.1")
}

func TestFeedIsHeld(t *testing.T) {
	r := newRig(t)
	r.follow(t, muster.Feed{Interval: time.Hour})
	next := func(list, etag string) muster.FeedState {
		t.Helper()
		r.has(list, etag)
		r.advance(time.Hour)
		return r.due(t)
	}
	next("11.0.0.1 11.0.0.2", "")
	if st := next("11.0.0.1 11.0.0.2 11.0.0.3 11.0.0.4", ""); !st.HeldAt.IsZero() || st.Size != 4 {
		t.Errorf("twice as many: %+v", st)
	}
	for what, c := range map[string]struct{ list, says string }{
		"more": {"11.0.0.1 11.0.0.2 11.0.0.3 11.0.0.4 11.0.0.5 11.0.0.6 11.0.0.7 11.0.0.8 11.0.0.9", "it grew from 4 to 9"},
		"less": {"11.0.0.1", "it shrank from 4 to 1"},
	} {
		st := next(c.list, what)
		if st.HeldReason != c.says+" entries" || !strings.Contains(st.Problem, "waits for a person's word") || st.Size != 4 || st.HeldSize != len(strings.Fields(c.list)) || st.ETag != what {
			t.Errorf("%s: %+v", what, st)
		}
		r.wantEntries(t, what, "feed", "", "11.0.0.1 11.0.0.2 11.0.0.3 11.0.0.4")
	}
	if st := next("11.0.0.1 11.0.0.2 11.0.0.3", ""); !st.HeldAt.IsZero() || st.Problem != "" || st.Size != 3 {
		t.Errorf("as before, nearly: %+v", st)
	}
	_, err := r.Approve(t.Context(), "feed", jane)
	wantCode(t, "nothing held", err, muster.NotFound, "no version of feed waits")

	next("11.0.0.1", "")
	if st, err := r.Discard(t.Context(), "feed", jane); err != nil || !st.HeldAt.IsZero() || st.Size != 3 {
		t.Errorf("discarded: %+v, %v", st, err)
	}
	r.wantEntries(t, "discarded", "feed", "", "11.0.0.1 11.0.0.2 11.0.0.3")
	next("11.0.0.1", "")
	if st, err := r.Approve(t.Context(), "feed", jane); err != nil || !st.HeldAt.IsZero() || st.Size != 1 || st.Problem != "" || !st.GoodAt.Equal(r.now) {
		t.Errorf("approved: %+v, %v", st, err)
	}
	r.wantEntries(t, "approved", "feed", "", "11.0.0.1")

	if _, err := r.Update(t.Context(), "feed", jane, func(l *muster.Blocklist) error { l.Feed.Hold = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if st := next("11.0.0.2", ""); st.HeldReason != "the feed is on hold" {
		t.Errorf("on hold: %+v", st)
	}
	r.wantEntries(t, "on hold", "feed", "", "11.0.0.1")
}

func TestFeedIsRefused(t *testing.T) {
	r := newRig(t)
	r.follow(t, muster.Feed{Interval: time.Hour, Forbidden: 1})
	r.has("11.0.0.1 11.0.0.2", "good")
	r.due(t)
	r.deny("11.0.0.1 11.0.0.2 11.0.0.3")
	r.advance(time.Hour)
	r.has("11.0.0.1 11.0.0.2 11.0.0.4", "bad")
	st := r.due(t)
	if !strings.Contains(st.Problem, "2 of its entries are allowlisted or canaries, such as 11.0.0.1") || st.ETag != "good" || st.Failures != 1 || !st.GoodAt.Equal(start) {
		t.Errorf("%+v", st)
	}
	r.has("11.0.0.3", "bad")
	r.advance(time.Hour)
	if st = r.due(t); !strings.Contains(st.Problem, "all of its 1 entries") {
		t.Errorf("%+v", st)
	}
	r.deny("")
	r.wantEntries(t, "as it was", "feed", "", "11.0.0.1 11.0.0.2")
}
