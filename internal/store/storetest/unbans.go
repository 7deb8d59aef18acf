package storetest

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"muster"
	"muster/internal/store"
)

// unban is a request that waits; ids grow with n.
func unban(n int, value, requester string) muster.UnbanRequest {
	s := source(value)
	return muster.UnbanRequest{
		ID: fmt.Sprintf("0193a000-0000-7000-8000-%012d", n), Source: s, Address: s.Addr(), Requester: netip.MustParseAddr(requester),
		Contact: awkward, Text: awkward + "\n" + awkward, State: muster.UnbanWaiting, Requested: at(n), Reason: awkward,
	}
}

func granted(r muster.UnbanRequest, decided time.Time) muster.UnbanRequest {
	r.State, r.Proof, r.Decided, r.GraceUntil, r.Round = muster.UnbanGranted, muster.ProofSameAddress, decided, decided.Add(time.Hour), 1
	return r
}

func refused(r muster.UnbanRequest, decided time.Time) muster.UnbanRequest {
	r.State, r.Decided, r.By = muster.UnbanRefused, decided, "ada"
	return r
}

// putUnbans stores requests as they are.
func putUnbans(t *testing.T, db *store.DB, put ...muster.UnbanRequest) {
	t.Helper()
	ok(t, db.ChangeUnbans(t.Context(), put[0], muster.UnbanSince{}, func(muster.UnbanHistory) ([]muster.UnbanRequest, []muster.AuditEntry, error) {
		return put, nil, nil
	}))
}

func testUnbans(t *testing.T, db *store.DB) {
	ctx := t.Context()
	find := func(q muster.UnbanQuery) []muster.UnbanRequest {
		t.Helper()
		return must(db.Unbans(ctx, q))(t)
	}
	equal(t, "requests at first", find(muster.UnbanQuery{}), nil)

	v4 := unban(1, "192.0.2.7", "192.0.2.7")
	v6 := granted(unban(2, "2001:db8::7", "2001:db8::8"), at(9))
	inRange := unban(3, "198.51.100.0/24", "198.51.100.9")
	inRange.Address = netip.MustParseAddr("198.51.100.9")
	bare := muster.UnbanRequest{ID: unban(4, "10.0.0.1", "10.0.0.1").ID, Source: source("10.0.0.1"), State: muster.UnbanWithdrawn}
	all := []muster.UnbanRequest{v4, v6, inRange, bare}
	putUnbans(t, db, bare, inRange, v6, v4)
	for _, tt := range []struct {
		query muster.UnbanQuery
		want  []muster.UnbanRequest
	}{
		{muster.UnbanQuery{}, all},
		{muster.UnbanQuery{Limit: 2}, all[:2]},
		{muster.UnbanQuery{Limit: 2, After: v6.ID}, all[2:]},
		{muster.UnbanQuery{LastFirst: true, Limit: 2}, []muster.UnbanRequest{bare, inRange}},
		{muster.UnbanQuery{LastFirst: true, After: inRange.ID}, []muster.UnbanRequest{v6, v4}},
		{muster.UnbanQuery{ID: v6.ID}, all[1:2]},
		{muster.UnbanQuery{ID: "none"}, nil},
		{muster.UnbanQuery{State: muster.UnbanWaiting}, []muster.UnbanRequest{v4, inRange}},
		{muster.UnbanQuery{Source: inRange.Source}, all[2:3]},
		{muster.UnbanQuery{Source: source("198.51.100.9")}, nil},
		{muster.UnbanQuery{Address: inRange.Address}, all[2:3]},
		{muster.UnbanQuery{Untold: true}, all[1:2]},
	} {
		equal(t, fmt.Sprintf("%+v", tt.query), find(tt.query), tt.want)
	}

	ok(t, db.UnbanDelivered(ctx, v6.ID))
	ok(t, db.UnbanDelivered(ctx, v6.ID))
	wantCode(t, db.UnbanDelivered(ctx, "none"), muster.NotFound)
	v6.Delivered = true
	equal(t, "one that the judge knows", find(muster.UnbanQuery{ID: v6.ID}), []muster.UnbanRequest{v6})
	equal(t, "those that it does not", find(muster.UnbanQuery{Untold: true}), nil)

	// What came of it is replaced; what was asked stays.
	decided := refused(v4, at(20))
	other := decided
	other.Source, other.Address, other.Requester, other.Contact, other.Text, other.Requested = source("9.9.9.9"), bare.Source.Addr(), bare.Source.Addr(), "x", "x", at(50)
	putUnbans(t, db, other)
	equal(t, "one that is decided", find(muster.UnbanQuery{ID: v4.ID}), []muster.UnbanRequest{decided})

	ok(t, db.TidyUnbans(ctx, at(9), at(0)))
	equal(t, "before anything is old", find(muster.UnbanQuery{}), []muster.UnbanRequest{decided, v6, inRange}) // bare was decided in no time
	ok(t, db.TidyUnbans(ctx, at(20), at(9)))
	v6.Contact, v6.Text = "", ""
	equal(t, "when one is too old for what was written", find(muster.UnbanQuery{}), []muster.UnbanRequest{decided, v6, inRange})
	untold := granted(unban(5, "192.0.2.9", "192.0.2.9"), at(9))
	putUnbans(t, db, untold)
	ok(t, db.TidyUnbans(ctx, at(10), at(10)))
	untold.Contact, untold.Text = "", ""
	equal(t, "when it is too old", find(muster.UnbanQuery{}), []muster.UnbanRequest{decided, inRange, untold})
}

func testUnbanHistory(t *testing.T, db *store.DB) {
	ctx := t.Context()
	since := muster.UnbanSince{Rounds: at(100), Network: at(100), Asker: at(100), All: at(100)}
	history := func(r muster.UnbanRequest) muster.UnbanHistory {
		t.Helper()
		h := must(db.UnbanHistory(ctx, r, since))(t)
		ok(t, db.ChangeUnbans(ctx, r, since, func(inside muster.UnbanHistory) ([]muster.UnbanRequest, []muster.AuditEntry, error) {
			equal(t, "the history in a transaction", inside, h)
			return nil, nil, nil
		}))
		return h
	}
	r := unban(200, "192.0.2.7", "192.0.2.7")
	equal(t, "the history at first", history(r), muster.UnbanHistory{})

	proven := refused(unban(101, "192.0.2.7", "8.8.8.8"), at(120))
	proven.Proof = muster.ProofSameAddress
	last := granted(unban(102, "192.0.2.7", "8.8.8.8"), at(130))
	open := unban(103, "192.0.2.7", "192.0.2.99") // of the same asker
	putUnbans(t, db,
		granted(unban(1, "192.0.2.7", "192.0.2.7"), at(99)), // too long ago
		proven, last, open,
		refused(unban(104, "192.0.2.7", "8.8.8.8"), at(140)),                // without proof
		granted(unban(105, "192.0.2.8", "192.0.2.8"), at(100)),              // a neighbour, in the first moment that counts
		granted(unban(106, "192.0.2.0/28", "1.1.1.1"), at(150)),             // a range in the network
		granted(unban(107, "192.0.3.7", "1.1.1.1"), at(150)),                // elsewhere
		unban(108, "198.51.100.0/24", "192.0.2.1"),                          // of the same asker, and waits
		granted(unban(109, "2001:db8::1", "2001:db8::1"), at(150)),          // v6
		granted(unban(110, "2001:db8:0:1::/64", "2001:db8::ffff"), at(160)), // in its /48, asked from its /64
	)
	equal(t, "the history", history(r), muster.UnbanHistory{Open: &open, Last: &last, Rounds: 2, Network: 3, Asker: 3, All: 6, Waiting: 2})

	h := history(unban(200, "2001:db8::2", "2001:db8::2")) // the same line as ::1
	equal(t, "the line's last", h.Last.ID, unban(109, "2001:db8::1", "2001:db8::1").ID)
	h.Last = nil
	equal(t, "the history of a v6 address", h, muster.UnbanHistory{Rounds: 1, Network: 2, Asker: 2, All: 6, Waiting: 2})
}

func testUnbansOneByOne(t *testing.T, db *store.DB) {
	ctx := t.Context()
	file := func(n int, value string, at time.Time) error {
		r := unban(n, value, "9.9.9.9")
		return db.ChangeUnbans(ctx, r, muster.UnbanSince{}, func(past muster.UnbanHistory) ([]muster.UnbanRequest, []muster.AuditEntry, error) {
			if past.Waiting >= 3 {
				return nil, nil, muster.Errorf(muster.Unavailable, "full")
			}
			return []muster.UnbanRequest{r}, []muster.AuditEntry{entry(n, "unban.test", value)}, nil
		})
	}
	full := 0
	for _, err := range parallel(10, func(i int) error { return file(i, numbered(i).String(), at(i)) }) {
		if err != nil {
			wantCode(t, err, muster.Unavailable)
			full++
		}
	}
	equal(t, "how many found the queue full", full, 7)
	waiting := must(db.Unbans(ctx, muster.UnbanQuery{State: muster.UnbanWaiting}))(t)
	equal(t, "how many wait", len(waiting), 3)

	// A second one for a source, or a failure half way, leaves all as it was.
	second := waiting[0]
	second.ID = unban(99, "10.0.0.1", "10.0.0.1").ID
	decided := refused(waiting[1], at(50))
	failed := errors.New("failed")
	for what, tt := range map[string]struct {
		put   []muster.UnbanRequest
		audit []muster.AuditEntry
		err   error
		want  error
	}{
		"a second one that waits": {put: []muster.UnbanRequest{decided, second}, want: muster.Exists},
		"an error of decide's":    {put: []muster.UnbanRequest{decided}, err: failed, want: failed},
		"an audit id taken": {
			put:   []muster.UnbanRequest{decided},
			audit: must(db.Audit(ctx, store.AuditQuery{Limit: 1}))(t), want: muster.Exists,
		},
	} {
		err := db.ChangeUnbans(ctx, waiting[0], muster.UnbanSince{}, func(muster.UnbanHistory) ([]muster.UnbanRequest, []muster.AuditEntry, error) {
			return tt.put, tt.audit, tt.err
		})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: expected %v, got %v", what, tt.want, err)
		}
		equal(t, "what waits after "+what, must(db.Unbans(ctx, muster.UnbanQuery{State: muster.UnbanWaiting}))(t), waiting)
	}

	// One may take another's place in one transaction.
	putUnbans(t, db, refused(waiting[0], at(60)), second)
	equal(t, "what took its place", must(db.Unbans(ctx, muster.UnbanQuery{State: muster.UnbanWaiting, Source: second.Source}))(t), []muster.UnbanRequest{second})
}

func testNarrowestListed(t *testing.T, db *store.DB) {
	ctx := t.Context()
	verdict := func(value string, audience muster.Audience, listed bool) muster.Verdict {
		return muster.Verdict{
			Source: source(value), Audience: audience, Listed: listed, Scenario: "a/b", Since: at(0), Until: at(60), Changed: at(0),
			Reasons: muster.Reasons{Scenarios: []string{awkward}},
		}
	}
	wide, narrow := verdict("192.0.2.0/24", muster.Network, true), verdict("192.0.2.0/28", muster.Network, true)
	ok(t, db.Tally(ctx, func(tx *store.TallyTx) error {
		return tx.PutVerdicts([]uint8{1, 2, 3, 3, 4}, []muster.Verdict{
			wide, narrow, verdict("192.0.2.7", muster.Network, false), verdict("192.0.2.7", "o1", true), verdict("192.0.2.4/30", muster.Network, true),
		})
	}))
	around := []muster.Source{source("192.0.2.7"), source("192.0.2.4/30"), source("192.0.2.0/28"), source("192.0.2.0/24"), source("192.0.0.0/16")}
	equal(t, "the narrowest", must(db.NarrowestListed(ctx, []uint8{3, 9, 2, 1, 1}, around))(t), narrow) // the /30 is elsewhere
	equal(t, "one alone", must(db.NarrowestListed(ctx, []uint8{1}, around[3:4]))(t), wide)
	_, err := db.NarrowestListed(ctx, []uint8{3}, around[:1])
	wantCode(t, err, muster.NotFound)
	if _, err = db.NarrowestListed(ctx, []uint8{3}, around); err == nil || muster.CodeOf(err) != "" {
		t.Errorf("partitions and sources that do not match: %v", err)
	}
	if _, err = db.NarrowestListed(ctx, nil, nil); err == nil {
		t.Error("no sources: expected an error")
	}
}
