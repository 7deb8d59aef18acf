package history

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
	"muster/internal/store"
)

// base is when the tests happen.
var base = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// rig is a history on a database, and a log in memory.
type rig struct {
	t   testing.TB
	db  *store.DB
	dir string
	now time.Time
	*Service
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, dir: t.TempDir(), now: base.Add(time.Hour)}
	r.db = openStore(t, r.dir)
	t.Cleanup(func() { _ = r.db.Close() })
	r.restart()
	return r
}

func (r *rig) restart() {
	r.t.Helper()
	r.Service = New(Config{Ledger: r.db, Now: func() time.Time { return r.now }})
	if err := r.Start(context.Background()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) add(entries ...muster.Entry) {
	r.t.Helper()
	if err := r.take(context.Background(), entries, 0); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) mark(at time.Time, refs ...muster.SieveRef) {
	r.t.Helper()
	if err := r.MarkForwarded(context.Background(), refs, at); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) list(q Query) []muster.SieveAlert {
	r.t.Helper()
	alerts, err := r.Alerts(context.Background(), q)
	if err != nil {
		r.t.Fatal(err)
	}
	return alerts
}

// uuids are what a list is told by.
func (r *rig) uuids(q Query) (all []string) {
	r.t.Helper()
	for _, a := range r.list(q) {
		all = append(all, text(a.UUID))
	}
	return all
}

func entryOf(part uint8, position uint64, received time.Time, signals ...muster.SievedSignal) muster.Entry {
	b := muster.SievedBatch{Received: received, Signals: signals}
	return muster.Entry{Partition: part, Position: position, Data: muster.AppendSievedBatch(nil, &b)}
}

func plain(uuid string) muster.SievedSignal {
	return muster.SievedSignal{UUID: uuid, Raw: fmt.Appendf(nil, `{"uuid":%q,"scenario":"a/b","machine_id":"m","source":{"ip":"192.0.2.1","value":"192.0.2.1","scope":"Ip"},"decisions":[{"duration":"4h","scenario":"a/b"}]}`, uuid)}
}

const captured = `{"context":[],"decisions":[{"duration":"4h","origin":"crowdsec","scenario":"crowdsecurity/ssh-bf","scope":"Ip","type":"ban","value":"192.0.2.77"}],"events_count":6,"capacity":5,"leakspeed":"10s","simulated":false,"remediation":true,"created_at":"2026-11-20T12:00:00Z","machine_id":"lp1","message":"Ip 192.0.2.77 performed 'crowdsecurity/ssh-bf'","scenario":"crowdsecurity/ssh-bf","scenario_hash":"24","scenario_version":"0.3","source":{"as_name":"X","as_number":64500,"cn":"FR","ip":"192.0.2.77","range":"192.0.2.0/24","scope":"Ip","value":"192.0.2.77","latitude":1.5,"longitude":-2},"start_at":"2026-11-20T11:59:59.41Z","stop_at":"2026-11-20T11:59:59.5Z","uuid":"u1","events":[{"meta":[{"key":"actor","value":"ada"}]}]}`

func TestAlertHasAllFields(t *testing.T) {
	r := newRig(t)
	r.add(entryOf(3, 7, base.Add(123456*time.Microsecond), muster.SievedSignal{
		Raw: []byte(captured), UUID: "u1", Withheld: true, Reasons: []string{`rule "a"`, "b"},
		Geo: muster.SieveGeo{CountryCode: "DE", CountryName: "Germany", City: "Bonn", Region: "NW", Timezone: "Europe/Berlin", ISP: "I", Organisation: "O", Latitude: ptr(50.7), Longitude: ptr(7.1), ASN: 64500, ASName: "X"},
	}))
	r.restart()
	want := muster.SieveAlert{
		ID: firstLive, UUID: ptr("u1"), MachineID: ptr("lp1"), Scenario: "crowdsecurity/ssh-bf", ScenarioHash: ptr("24"), ScenarioVersion: ptr("0.3"),
		Message: ptr("Ip 192.0.2.77 performed 'crowdsecurity/ssh-bf'"), EventsCount: ptr(int64(6)), Capacity: ptr(int64(5)), Leakspeed: ptr("10s"),
		StartAt: ptr("2026-11-20T11:59:59.41Z"), StopAt: ptr("2026-11-20T11:59:59.5Z"), CreatedAt: ptr("2026-11-20T12:00:00Z"),
		ReceivedAt: base.Add(123 * time.Millisecond), Simulated: ptr(false), Remediation: ptr(true), HasDecisions: true,
		SourceScope: ptr("Ip"), SourceValue: ptr("192.0.2.77"), SourceIP: ptr("192.0.2.77"), SourceRange: ptr("192.0.2.0/24"), SourceASNumber: ptr("64500"), SourceASName: ptr("X"), SourceCN: ptr("FR"),
		GeoCountryCode: ptr("DE"), GeoCountryName: ptr("Germany"), GeoCity: ptr("Bonn"), GeoRegion: ptr("NW"), GeoLatitude: ptr(50.7), GeoLongitude: ptr(7.1), GeoTimezone: ptr("Europe/Berlin"), GeoISP: ptr("I"), GeoOrg: ptr("O"),
		Filtered: true, FilterReasons: ptr(`["rule \"a\"","b"]`), Actor: ptr("ada"), RawJSON: ptr(captured),
	}
	if diff := cmp.Diff([]muster.SieveAlert{want}, r.list(Query{})); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	one, err := r.Alert(t.Context(), firstLive)
	if diff := cmp.Diff(want, one); err != nil || diff != "" {
		t.Errorf("%v, want -, got +:\n%s", err, diff)
	}
	for _, id := range []int64{0, 1, firstLive + 1, 1 << 40} {
		if _, err := r.Alert(t.Context(), id); !errors.Is(err, muster.NotFound) {
			t.Errorf("alert %d: expected an error of code not_found, got %v", id, err)
		}
	}
}

// What engines of other makes send is kept, however odd.
func TestOddSignals(t *testing.T) {
	r := newRig(t)
	large := `{"uuid":"large","scenario":"import","decisions":[` + strings.TrimSuffix(strings.Repeat(`{"duration":"8d","scenario":"i","value":"192.0.2.1"},`, 2000), ",") + `]}`
	odd := []string{`{}`, `{"scenario":7,"uuid":"typed","source":{"ip":null,"value":5,"cn":"NL"}}`, `{"source":null,"decisions":null}`, large, `[]`, `not JSON`, `{"scenario":"one"}`}
	var signals []muster.SievedSignal
	for i, raw := range odd {
		signals = append(signals, muster.SievedSignal{Raw: []byte(raw), UUID: fmt.Sprint("given", i), Given: true})
	}
	r.add(entryOf(0, 1, base, signals...))
	check := func() {
		t.Helper()
		alerts := r.list(Query{})
		slices.Reverse(alerts)
		if len(alerts) != len(odd) {
			t.Fatalf("%d alerts, want %d", len(alerts), len(odd))
		}
		for i, a := range alerts {
			if *a.RawJSON != odd[i] || text(a.UUID) != fmt.Sprint("given", i) {
				t.Errorf("%d: %s %.50s", i, text(a.UUID), *a.RawJSON)
			}
		}
		if got := r.uuids(Query{Country: "NL"}); !slices.Equal(got, []string{"given1"}) {
			t.Errorf("in NL: %v", got)
		}
		if d := r.DecisionStats(time.Time{}); d.Total != 2000 || !slices.Equal(d.ByDurationCategory, []CategoryCount{{">7d", 2000}}) {
			t.Errorf("decisions: %+v", d)
		}
	}
	check()
	r.restart()
	check()
}

func TestExactlyOnce(t *testing.T) {
	r := newRig(t)
	entries := []muster.Entry{entryOf(0, 1, base, plain("a"), plain("b"), plain("a")), entryOf(5, 1, base, plain("c")), entryOf(0, 2, base, plain("b"), plain("d"))}
	want := []string{"d", "c", "b", "a"}
	for range 2 {
		r.add(entries...) // a replay of positions
		if got := r.uuids(Query{}); !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		r.restart()
	}
	r.add(entryOf(9, 3, base, plain("c"), plain("e"))) // sent again
	if got := r.uuids(Query{}); !slices.Equal(got, append([]string{"e"}, want...)) {
		t.Errorf("sent again: %v", got)
	}
	if s := r.Stats(); s.Total != 5 {
		t.Errorf("counted %d", s.Total)
	}

	// Another keeper has gone on meanwhile: nothing is stored twice.
	stale := r.Service
	r.restart()
	r.add(entryOf(0, 4, base, plain("f")))
	if err := stale.take(t.Context(), []muster.Entry{entryOf(0, 4, base, plain("f"))}, 0); err == nil {
		t.Error("expected that a keeper that is behind is fenced")
	}
	r.restart()
	if got := r.uuids(Query{}); len(got) != 6 {
		t.Errorf("after a fenced keeper: %v", got)
	}
}

func TestForwarded(t *testing.T) {
	r := newRig(t)
	sent := muster.SievedBatch{Received: base, Fate: muster.SieveSent, Signals: []muster.SievedSignal{plain("sent")}}
	r.add(entryOf(0, 1, base, plain("a"), plain("b")), entryOf(1, 2, base, plain("c")), muster.Entry{Partition: 2, Position: 3, Data: muster.AppendSievedBatch(nil, &sent)})
	later := base.Add(time.Minute)
	r.mark(later, muster.SieveRef{Position: 1, Index: 1}, muster.SieveRef{Partition: 1, Position: 2}, muster.SieveRef{Partition: 1, Position: 4, Index: 9}, muster.SieveRef{Partition: 1, Position: 4})
	r.mark(later.Add(time.Hour), muster.SieveRef{Position: 1, Index: 1}) // again
	check := func(want ...string) {
		t.Helper()
		got := map[string]time.Time{}
		for _, a := range r.list(Query{Forwarded: ptr(true)}) {
			if !a.ForwardedToCAPI || a.ForwardedAt == nil {
				t.Fatalf("%s: %t, %v", *a.UUID, a.ForwardedToCAPI, a.ForwardedAt)
			}
			got[*a.UUID] = *a.ForwardedAt
		}
		for _, uuid := range want {
			at := later
			if uuid == "sent" {
				at = base
			}
			if !got[uuid].Equal(at) {
				t.Errorf("%s was forwarded at %s, want %s", uuid, got[uuid], at)
			}
		}
		if s := r.Stats(); len(got) != len(want) || s.Forwarded != uint64(len(want)) {
			t.Errorf("forwarded: %v, %d counted, want %v", got, s.Forwarded, want)
		}
	}
	check("b", "c", "sent")
	r.restart()
	check("b", "c", "sent")
	r.add(entryOf(1, 4, base, plain("early"), plain("d")))
	check("b", "c", "sent", "early")
	r.restart()
	check("b", "c", "sent", "early")
	if got := r.uuids(Query{Forwarded: ptr(false)}); !slices.Equal(got, []string{"d", "a"}) {
		t.Errorf("not forwarded: %v", got)
	}
}

func TestReplicatedAndAudit(t *testing.T) {
	r := newRig(t)
	r.add(entryOf(0, 1, base, plain("a"), plain("b")))
	id, err := r.AddAudit(t.Context(), AuditRow{Scenario: "crowdsieve/unban", Message: "m", Actor: " " + strings.Repeat("ü", 300), Scope: "Ip", Value: "192.0.2.9", Reason: "why"})
	if err != nil || id != firstLive+2 {
		t.Fatalf("%d, %v", id, err)
	}
	if err := r.SetReplicated(t.Context(), []int64{firstLive + 1, 5}); err != nil {
		t.Fatal(err)
	}
	r.add(entryOf(0, 2, base, plain("c")))
	for range 2 {
		if a, _ := r.Alert(t.Context(), firstLive+1); !a.Replicated {
			t.Error("b is not replicated")
		}
		a, err := r.Alert(t.Context(), id)
		if err != nil || !a.LocalAudit || !a.Filtered || a.ForwardedToCAPI || text(a.Actor) != strings.Repeat("ü", 256) || text(a.FilterReasons) != `["why"]` || text(a.SourceIP) != "192.0.2.9" || a.Scenario != "crowdsieve/unban" {
			t.Errorf("%+v, %v", a, err)
		}
		if s := r.Stats(); s.Total != 3 || s.Filtered != 0 || len(s.AllScenarios) != 1 {
			t.Errorf("the audit is counted: %+v", s)
		}
		r.restart()
	}
}

// A model that goes through everything answers as the history does.
func TestQueries(t *testing.T) {
	r := newRig(t)
	g := newTraffic(base, time.Second)
	for range 40 {
		e := g.entry(50)
		r.add(e)
		r.mark(g.at, forwardedOf(t, []muster.Entry{e})[5:20]...)
	}
	all := r.list(Query{Limit: 1000})
	all = append(all, r.list(Query{Limit: 1000, Offset: 1000})...)
	if len(all) != 2000 || len(r.list(Query{Offset: 2000})) != 0 || len(r.list(Query{})) != DefaultLimit {
		t.Fatalf("%d alerts", len(all))
	}
	r.restart()
	rapid.Check(t, func(rt *rapid.T) {
		q := Query{Offset: rapid.IntRange(0, 200).Draw(rt, "offset"), Limit: rapid.IntRange(1, 300).Draw(rt, "limit")}
		some := all[rapid.IntRange(0, len(all)-1).Draw(rt, "like")]
		if rapid.Bool().Draw(rt, "by scenario") {
			q.Scenario = strings.ToUpper(some.Scenario[rapid.IntRange(0, len(some.Scenario)-1).Draw(rt, "from"):])
		}
		if rapid.Bool().Draw(rt, "by country") {
			q.Country = *some.GeoCountryCode
		}
		if rapid.Bool().Draw(rt, "by machine") {
			q.Machine = *some.MachineID
		}
		if rapid.Bool().Draw(rt, "by address") {
			q.Addr = netip.MustParseAddr(*some.SourceIP)
		}
		if rapid.Bool().Draw(rt, "by since") {
			q.Since = some.ReceivedAt.Add(time.Duration(rapid.IntRange(-2, 2).Draw(rt, "a")) * 500 * time.Microsecond)
		}
		if rapid.Bool().Draw(rt, "by until") {
			q.Until = some.ReceivedAt.Add(time.Duration(rapid.IntRange(0, 4e6).Draw(rt, "b")) * 500 * time.Microsecond)
		}
		for _, flag := range []**bool{&q.Filtered, &q.Forwarded} {
			if rapid.Bool().Draw(rt, "by flag") {
				*flag = ptr(rapid.Bool().Draw(rt, "flag"))
			}
		}
		var want []muster.SieveAlert
		for _, a := range all {
			if (q.Scenario == "" || strings.Contains(strings.ToLower(a.Scenario), strings.ToLower(q.Scenario))) &&
				(q.Country == "" || *a.GeoCountryCode == q.Country) && (q.Machine == "" || *a.MachineID == q.Machine) &&
				(!q.Addr.IsValid() || *a.SourceIP == q.Addr.String()) &&
				(q.Since.IsZero() || !a.ReceivedAt.Before(q.Since)) && (q.Until.IsZero() || !a.ReceivedAt.After(q.Until)) &&
				(q.Filtered == nil || a.Filtered == *q.Filtered) && (q.Forwarded == nil || a.ForwardedToCAPI == *q.Forwarded) {
				want = append(want, a)
			}
		}
		want = want[min(q.Offset, len(want)):]
		want = want[:min(q.Limit, len(want))]
		got, err := r.Alerts(context.Background(), q)
		if err != nil || !slices.EqualFunc(got, want, func(a, b muster.SieveAlert) bool { return a.ID == b.ID }) {
			rt.Fatalf("%+v: %v, %d alerts, want %d", q, err, len(got), len(want))
		}
	})
}

// Chunks that are full are stored and read as those in memory are.
func TestChunks(t *testing.T) {
	if testing.Short() {
		t.Skip("stores 140,000 alerts")
	}
	r := newRig(t)
	g := newTraffic(base.Add(-40*24*time.Hour), 20*time.Second)
	var entries, early []muster.Entry
	for i := range 140 {
		e := g.entry(1000)
		if entries = append(entries, e); len(entries) == 10 {
			r.add(entries...)
			entries = nil
		}
		if i == 3 {
			early = append(early, e)
		}
	}
	r.mark(g.at, forwardedOf(t, early)[:7]...) // of a chunk that is stored
	if err := r.SetReplicated(t.Context(), []int64{firstLive + 99, firstLive + 100_000}); err != nil {
		t.Fatal(err)
	}
	queries := []Query{
		{Limit: 1000},
		{Offset: 139_000, Limit: 1000},
		{Forwarded: ptr(true)},
		{Scenario: "attack-007", Country: "AB", Limit: 1000},
		{Since: g.at.Add(-30 * 24 * time.Hour), Until: g.at.Add(-29 * 24 * time.Hour), Offset: 100},
		{Addr: netip.MustParseAddr(*r.list(Query{Offset: 100_000, Limit: 1})[0].SourceIP)},
	}
	var before [][]muster.SieveAlert
	for _, q := range queries {
		before = append(before, r.list(q))
	}
	stats, month := r.Stats(), r.Distribution(g.at.Add(-7*24*time.Hour))
	if len(before[2]) != 7 || stats.Forwarded != 7 || stats.Total != 140_000 {
		t.Errorf("%d forwarded, %+v", len(before[2]), stats)
	}
	r.restart()
	if len(r.cols.chunks) != 3 || !r.cols.chunks[1].sealed || r.cols.chunks[2].sealed {
		t.Fatalf("%d chunks", len(r.cols.chunks))
	}
	for i, q := range queries {
		if diff := cmp.Diff(before[i], r.list(q)); diff != "" {
			t.Errorf("%+v: before -, after +:\n%s", q, diff)
		}
	}
	if diff := cmp.Diff(stats, r.Stats()); diff != "" {
		t.Errorf("stats: %s", diff)
	}
	if a, _ := r.Alert(t.Context(), firstLive+99); !a.Replicated {
		t.Error("not replicated")
	}
	r.add(muster.Entry{Partition: 63, Position: 1000, Data: entryOf(0, 0, g.at, plain("z")).Data}, muster.Entry{Partition: 62, Position: 1000, Data: early[0].Data})
	if got := r.Stats().Total; got != 140_001 {
		t.Errorf("an early record that was sent again is counted: %d", got)
	}

	// Retention takes blocks, and leaves what is counted.
	r.now = g.at
	if err := r.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	cutoff := r.now.Add(-30 * 24 * time.Hour)
	for range 2 {
		first, err := r.After(t.Context(), 0, 1)
		if err != nil || len(first) != 1 || first[0].ReceivedAt.Before(cutoff.Add(-20*1000*time.Second)) || first[0].ReceivedAt.After(cutoff.Add(20*1000*time.Second)) {
			t.Fatalf("the first that is kept: %v, %v", first, err)
		}
		if _, err := r.Alert(t.Context(), first[0].ID-1); !errors.Is(err, muster.NotFound) {
			t.Errorf("the one before it: %v", err)
		}
		after := r.Stats()
		if after.Total != 140_001 || after.Min.Before(cutoff.Add(-20*1000*time.Second)) {
			t.Errorf("%+v", after)
		}
		week := r.Distribution(g.at.Add(-7 * 24 * time.Hour))
		if week.Total-1 != month.Total {
			t.Errorf("%d in a week, want %d", week.Total-1, month.Total)
		}
		all := r.Distribution(time.Time{})
		if all.Total != 140_001 || len(all.DailyTrend) < 32 {
			t.Errorf("%d, %d days", all.Total, len(all.DailyTrend))
		}
		r.restart()
	}
}

func TestStats(t *testing.T) {
	r := newRig(t)
	sunday := time.Date(2026, 11, 15, 23, 30, 0, 0, time.UTC)
	de := muster.SieveGeo{CountryCode: "DE", CountryName: "Germany"}
	withheld := muster.SievedSignal{UUID: "3", Withheld: true, Geo: de, Raw: []byte(`{"scenario":"x/y","decisions":[{"duration":"59m","scenario":"d1"},{"duration":"24h0m0s","scenario":"d2"},{"duration":"7d","scenario":"d1"}]}`)}
	r.add(entryOf(0, 1, sunday, plain("1"), plain("2"), withheld), entryOf(0, 2, base, muster.SievedSignal{UUID: "4", Raw: []byte(`{"scenario":"a/b","source":{"cn":"FR"}}`)}))
	for range 2 {
		stats := Stats{
			Total: 4, Filtered: 1, TopScenarios: []ScenarioCount{{"a/b", 3}, {"x/y", 1}}, AllScenarios: []ScenarioCount{{"a/b", 3}, {"x/y", 1}},
			TopCountries: []CountryCount{{"DE", 1}, {"FR", 1}}, Min: sunday, Max: base,
		}
		if diff := cmp.Diff(stats, r.Stats()); diff != "" {
			t.Errorf("stats: want -, got +:\n%s", diff)
		}
		all := Distribution{
			ByDayOfWeek: []DayCount{{0, "Sun", 3}, {5, "Fri", 1}}, ByHourOfDay: []HourCount{{12, 1}, {23, 3}},
			ByCountry: []NamedCountryCount{{"DE", "Germany", 1}, {"FR", "FR", 1}}, ByScenario: []ScenarioCount{{"a/b", 3}, {"x/y", 1}},
			DailyTrend: []DateCount{{"2026-11-15", 3}, {"2026-11-20", 1}}, Total: 4, From: sunday, To: base,
		}
		if diff := cmp.Diff(all, r.Distribution(time.Time{})); diff != "" {
			t.Errorf("distribution: want -, got +:\n%s", diff)
		}
		recent := Distribution{
			ByDayOfWeek: []DayCount{{5, "Fri", 1}}, ByHourOfDay: []HourCount{{12, 1}}, ByCountry: []NamedCountryCount{{"FR", "FR", 1}},
			ByScenario: []ScenarioCount{{"a/b", 1}}, DailyTrend: []DateCount{{"2026-11-20", 1}}, Total: 1, From: base, To: base,
		}
		if diff := cmp.Diff(recent, r.Distribution(base.Add(-24*time.Hour))); diff != "" {
			t.Errorf("distribution of a day: want -, got +:\n%s", diff)
		}
		decisions := DecisionStats{
			Total: 5, ByDayOfWeek: []DayCount{{0, "Sun", 5}}, ByHourOfDay: []HourCount{{23, 5}},
			ByDurationCategory: []CategoryCount{{"1-24h", 2}, {"<1h", 1}, {"1-7d", 1}, {">7d", 1}},
			TopScenarios:       []ScenarioCount{{"a/b", 2}, {"d1", 2}, {"d2", 1}}, ByCountry: []NamedCountryCount{{"DE", "Germany", 3}},
		}
		if diff := cmp.Diff(decisions, r.DecisionStats(time.Time{})); diff != "" {
			t.Errorf("decisions: want -, got +:\n%s", diff)
		}
		r.restart()
	}
	if r.HasNewer(base) || !r.HasNewer(base.Add(-time.Millisecond)) {
		t.Error("newer")
	}
}

func TestImport(t *testing.T) {
	r := newRig(t)
	r.add(entryOf(0, 1, base, plain("live")))
	old := func(n int) muster.SieveAlert {
		return muster.SieveAlert{ID: int64(n), UUID: ptr(fmt.Sprint("old", n)), Scenario: "o/p", ReceivedAt: base.Add(time.Duration(n-1000) * time.Minute), Filtered: n%2 == 0, ForwardedToCAPI: n%2 == 1, ForwardedAt: ptr(base), LocalAudit: n == 4, Actor: ptr("ada"), Replicated: n == 5}
	}
	for n := range 20 {
		if err := r.Import(t.Context(), []muster.SieveAlert{old(n)}); err != nil {
			t.Fatal(err)
		}
		if n == 10 {
			r.restart() // cut short
			if got := r.Imported(); got != 11 {
				t.Fatalf("%d imported", got)
			}
		}
	}
	if err := r.FinishImport(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got := r.list(Query{})
		if len(got) != 21 || *got[0].UUID != "live" || *got[1].UUID != "old19" || *got[20].UUID != "old0" || r.Imported() != 20 {
			t.Fatalf("%d: %v", len(got), got)
		}
		if a := got[16]; !a.LocalAudit || *a.Actor != "ada" || !a.Filtered {
			t.Errorf("%+v", a)
		}
		if a := got[15]; !a.Replicated || !a.ForwardedToCAPI || !a.ForwardedAt.Equal(base) {
			t.Errorf("%+v", a)
		}
		if s := r.Stats(); s.Total != 20 || s.Forwarded != 10 {
			t.Errorf("%+v", s)
		}
		r.restart()
	}
	r.add(entryOf(0, 2, base, plain("live2")))
	if err := r.Import(t.Context(), []muster.SieveAlert{old(30)}); err != nil {
		t.Fatal(err)
	}
	r.restart()
	if got := r.uuids(Query{Limit: 4}); !slices.Equal(got, []string{"live2", "live", "old30", "old19"}) {
		t.Errorf("%v", got)
	}
}

// brokenLedger fails writes while it is broken.
type brokenLedger struct {
	Ledger
	broken error
}

func (l *brokenLedger) PutSieve(ctx context.Context, w *muster.SieveWrite) error {
	if l.broken != nil {
		return l.broken
	}
	return l.Ledger.PutSieve(ctx, w)
}

// What could not be stored is not shown, not counted, and stored when it comes
// again.
func TestBrokenLedger(t *testing.T) {
	r := newRig(t)
	ledger := &brokenLedger{Ledger: r.db}
	r.Service = New(Config{Ledger: ledger, Now: func() time.Time { return r.now }})
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.add(entryOf(0, 1, base, plain("a")))
	before := r.Stats()
	ledger.broken = errors.New("disk full")
	entry := entryOf(0, 2, base, plain("b"), muster.SievedSignal{UUID: "c", Raw: []byte(`{"scenario":"new/one","machine_id":"other"}`)})
	_, auditErr := r.AddAudit(t.Context(), AuditRow{Scenario: "x"})
	for what, err := range map[string]error{
		"take": r.take(t.Context(), []muster.Entry{entry}, 0), "mark": r.MarkForwarded(t.Context(), []muster.SieveRef{{Position: 1}}, base),
		"replicated": r.SetReplicated(t.Context(), []int64{firstLive}), "audit": auditErr, "import": r.Import(t.Context(), make([]muster.SieveAlert, 1)),
	} {
		if !errors.Is(err, ledger.broken) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := r.list(Query{}); len(got) != 1 || got[0].ForwardedToCAPI || got[0].Replicated {
		t.Errorf("%v", got)
	}
	if diff := cmp.Diff(before, r.Stats()); diff != "" {
		t.Errorf("counted: %s", diff)
	}
	ledger.broken = nil
	r.add(entry)
	r.mark(base, muster.SieveRef{Position: 1})
	for range 2 {
		if got := r.uuids(Query{}); !slices.Equal(got, []string{"", "b", "a"}) {
			t.Errorf("%v", got)
		}
		if got := r.list(Query{Scenario: "new/", Machine: "other"}); len(got) != 1 || r.Stats().Forwarded != 1 {
			t.Errorf("%v", got)
		}
		r.restart()
	}
}

func TestReadersBesideKeeper(t *testing.T) {
	r := newRig(t)
	g := newTraffic(base, time.Second)
	stop, done := make(chan struct{}), make(chan error)
	for reader := range 3 {
		go func() {
			var err error
			for reading := true; reading && err == nil; {
				select {
				case <-stop:
					reading = false
				default:
				}
				switch reader {
				case 0:
					_, err = r.Alerts(context.Background(), Query{Scenario: "attack", Forwarded: ptr(true), Since: base.Add(time.Minute)})
				case 1:
					r.Stats()
					r.Distribution(time.Time{})
					r.DecisionStats(base)
				case 2:
					_, err = r.After(context.Background(), r.Last()-5, 10)
				}
			}
			done <- err
		}()
	}
	for range 20 {
		e := g.entry(20)
		r.add(e)
		r.mark(g.at, forwardedOf(t, []muster.Entry{e})...)
		if err := r.SetReplicated(t.Context(), []int64{r.Last()}); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if s := r.Stats(); s.Total != 400 || s.Forwarded != s.Total-s.Filtered {
		t.Errorf("%+v", s)
	}
}

// memoryLog gives its entries, then waits.
type memoryLog struct {
	entries []muster.Entry
	from    [muster.Partitions]uint64
	passed  uint64
}

func (l *memoryLog) Next(ctx context.Context, limit int) ([]muster.Entry, error) {
	for len(l.entries) > 0 {
		e := l.entries[0]
		l.entries = l.entries[1:]
		l.passed = e.Position
		if e.Position > l.from[e.Partition] {
			return []muster.Entry{e}, nil
		}
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (l *memoryLog) Position() uint64 { return l.passed }
func (l *memoryLog) Close()           {}

func TestRun(t *testing.T) {
	r := newRig(t)
	r.cfg.Open = func(_ context.Context, from [muster.Partitions]uint64) (Reader, error) {
		return &memoryLog{entries: []muster.Entry{entryOf(0, 1, base, plain("a")), entryOf(1, 2, base, plain("b")), {Partition: 2, Position: 3, Data: []byte("damaged")}, entryOf(0, 4, base, plain("c"))}, from: from}, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	if err := r.Wait(ctx, firstLive+1); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := r.uuids(Query{}); !slices.Equal(got, []string{"c", "b", "a"}) || r.Applied() != 4 {
		t.Errorf("%v at %d", got, r.Applied())
	}
	r.restart()
	for p, position := range r.applied {
		if position < 3 {
			t.Errorf("partition %d is at %d", p, position)
		}
	}
	after, err := r.After(t.Context(), firstLive, 10)
	if err != nil || len(after) != 2 || *after[0].UUID != "b" {
		t.Errorf("%v, %v", after, err)
	}
	n := 0
	if err := r.EachLatest(t.Context(), 2, func(muster.SieveAlert) error { n++; return nil }); err != nil || n != 2 {
		t.Errorf("%d, %v", n, err)
	}
}

// What is read fast is what is read tolerantly.
func TestReadFast(t *testing.T) {
	geo := &muster.SieveGeo{}
	for _, raw := range []string{
		captured, `{"scenario":"a","source":{"ip":"::ffff:1.2.3.4","value":"1.2.3.4"},"decisions":[{"duration":"4h"}]}`,
		`{"uuid":"\u00e9","scenario":"\"q\"","source":{"cn":"DE"},"decisions":null}`, string(plain("a").Raw), string(newTraffic(base, 0).signal().Raw),
	} {
		slow := tolerantArrival([]byte(raw), geo)
		slow.raw = []byte(raw)
		fast := arrivalsOf([][]byte{[]byte(raw)}, []*muster.SieveGeo{geo})[0]
		if diff := cmp.Diff(slow, fast, cmp.AllowUnexported(arrival{}, stored{}, ref{}, decision{})); diff != "" {
			t.Errorf("%s: tolerant -, fast +:\n%s", raw, diff)
		}
	}
}

// However odd a signal, those beside it are read as they are.
func FuzzArrivals(f *testing.F) {
	f.Add([]byte(captured))
	f.Add([]byte(`{}],[{}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		geo := &muster.SieveGeo{}
		all := arrivalsOf([][]byte{raw, []byte(`{"scenario":"next"}`)}, []*muster.SieveGeo{geo, geo})
		if len(all) != 2 || all[1].scenario != "next" {
			t.Errorf("%q: %+v", raw, all)
		}
	})
}
