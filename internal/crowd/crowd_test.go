package crowd

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The world of the tests: behaviours by number, and machines by number.
const (
	guess   = 0 // confidence 0
	brute   = 1 // confidence 3, cannot be forged
	probing = 2 // confidence 1
	scan    = 3 // confidence 2, easily forged
)

var taxonomy = Taxonomy{{0, 0}, {3, 0}, {1, 0}, {2, 3}}

// start is the time at which the stories begin, far from the epoch so that
// everybody can have a past.
var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC).Unix()

const hour = 60 * 60

// veteran is a machine that has behaved for a long time.
func veteran(organisation, as uint32) Record {
	return Record{
		Organisation: organisation, AS: as, Tenure: 200, LastDay: int32(start / daySeconds), LastHeard: start,
		Earned: 300, Validations: 400, Drifted: start,
	}
}

// novice is a machine that has just come.
func novice(organisation, as uint32) Record {
	return Record{Organisation: organisation, AS: as, Tenure: 1, LastDay: int32(start / daySeconds), LastHeard: start, Drifted: start}
}

// matureWorld has 100 veterans (1 to 100) of as many organisations and AS, then
// 100 novices (101 to 200), each organisation o in AS 1000 + o.
func matureWorld() []Record {
	records := make([]Record, 201)
	for m := uint32(1); m <= 100; m++ {
		records[m] = veteran(m, 1000+m)
		records[100+m] = novice(100+m, 1100+m)
	}
	return records
}

func tableOf(at int64, records []Record) *TrustTable {
	return NewTrustTable(Snapshot{Epoch: 1, At: at, Records: records, Taxonomy: taxonomy, Parameters: Default()})
}

// say is a report by a machine at its own place, hours after the start.
func say(records []Record, machine uint32, behaviour uint16, hours float64) Report {
	r := records[machine]
	return Report{
		Machine: machine, Organisation: r.Organisation, AS: r.AS, Prefix: uint64(r.AS)<<8 | uint64(machine), Honeypot: r.Honeypot,
		Behaviour: behaviour, At: start + int64(hours*hour), Counts: true,
	}
}

// story folds reports one after the other and judges after each.
type story struct {
	table *TrustTable
	facts Facts
	ev    Evidence
	out   Outcome
}

func (s *story) hear(reports ...Report) *story {
	for _, r := range reports {
		s.table.Fold(&s.ev, r)
		s.judge(float64(r.At-start) / hour)
	}
	return s
}

func (s *story) judge(hours float64) *story {
	s.table.Judge(&s.ev, start+int64(hours*hour), s.facts, &s.out)
	return s
}

func (s *story) listed() bool {
	_, ok := s.ev.Listed(Network)
	return ok
}

func (s *story) events(kind EventKind) (machines []uint32) {
	for _, e := range s.out.Events {
		if e.Kind == kind {
			machines = append(machines, e.Machine)
		}
	}
	slices.Sort(machines)
	return machines
}

func TestWhoGetsASourceListedInAMatureNetwork(t *testing.T) {
	w := matureWorld()
	w[2].Organisation = 1 // a second machine of organisation 1
	w[4].AS = w[3].AS     // a neighbour of 3
	w[90].Honeypot, w[91].Honeypot = true, true
	w[91].Organisation = w[90].Organisation // the operator's
	table := tableOf(start, w)
	if table.Newcomer != 0 || table.local {
		t.Fatalf("the world of this test is to be mature; newcomers weigh %v", table.Newcomer)
	}
	var sybils, spread []Report
	for m := uint32(101); m <= 200; m++ {
		spread = append(spread, say(w, m, brute, 0))
		r := say(w, m, brute, 0)
		r.AS = 7
		sybils = append(sybils, r)
	}
	veterans := func(n int, behaviour uint16) (rs []Report) {
		for m := range n {
			rs = append(rs, say(w, uint32(10+m), behaviour, float64(m)/10))
		}
		return rs
	}
	oneAS := veterans(30, brute)
	for i := range oneAS {
		oneAS[i].AS = 7
	}
	onePrefix := veterans(30, brute)
	for i := range onePrefix {
		onePrefix[i].Prefix = 7
	}
	oneOrganisation := veterans(30, brute)
	for i := range oneOrganisation {
		oneOrganisation[i].Organisation = 7
	}
	fleet := veterans(30, brute)
	for i := range fleet {
		fleet[i].Counts, fleet[i].Fleet = false, true
	}
	for _, c := range []struct {
		name    string
		facts   Facts
		reports []Report
		now     float64
		want    bool
	}{
		{name: "two veterans of two AS", reports: veterans(2, brute), now: 1, want: true},
		{name: "one veteran, even of the top rank, when nobody else has ever seen the source", reports: veterans(1, brute), now: 1},
		{name: "two machines of one organisation", reports: []Report{say(w, 1, brute, 0), say(w, 2, brute, 0)}, now: 1},
		{name: "two organisations in one AS", reports: []Report{say(w, 3, brute, 0), say(w, 4, brute, 0)}, now: 1},
		{name: "thirty veterans in one AS", reports: oneAS, now: 4},
		{name: "thirty veterans in one prefix", reports: onePrefix, now: 4},
		{name: "thirty veterans of one organisation", reports: oneOrganisation, now: 4},
		{name: "a hundred newcomers in one AS", reports: sybils, now: 1},
		{name: "a hundred newcomers in a hundred AS", reports: spread, now: 1},
		{name: "two veterans that probe is too vague", reports: veterans(2, probing), now: 1},
		{name: "three veterans agree on probing", reports: veterans(3, probing), now: 1, want: true},
		{name: "guesses count for nothing", reports: veterans(30, guess), now: 4},
		{name: "three veterans that may have seen forged packets", reports: veterans(3, scan), now: 1},
		{name: "a honeypot alone", reports: []Report{say(w, 90, brute, 0)}, now: 1},
		{name: "a honeypot and a veteran", reports: []Report{say(w, 90, brute, 0), say(w, 5, probing, 0)}, now: 1, want: true},
		{name: "two honeypots of one operator in two AS", reports: []Report{say(w, 90, brute, 0), say(w, 91, brute, 0)}, now: 1, want: true},
		{name: "forged packets to two honeypots", reports: []Report{say(w, 90, scan, 0), say(w, 91, scan, 0)}, now: 1},
		{name: "a top rank, and somebody saw the source a week ago", reports: []Report{say(w, 5, brute, 0), say(w, 6, brute, 168)}, now: 168, want: true},
		{name: "two veterans too far apart to agree, and vague", reports: []Report{say(w, 5, probing, 0), say(w, 6, probing, 100)}, now: 100},
		{name: "two veterans about a shared address", facts: Facts{Shared: true}, reports: veterans(2, brute), now: 1, want: true},
		{name: "two veterans, one vague, about a shared address", facts: Facts{Shared: true}, reports: []Report{say(w, 5, brute, 0), say(w, 6, probing, 0)}, now: 1},
		{name: "an allowlisted source", facts: Facts{Never: "on the allowlist"}, reports: veterans(20, brute), now: 1},
		{name: "a canary", facts: Facts{Canary: true}, reports: veterans(20, brute), now: 1},
		{name: "reports for fleets alone", reports: fleet, now: 4},
		{name: "until 72 h after the last report", reports: veterans(2, brute), now: 72, want: true},
		{name: "no longer than 72 h after the last report", reports: veterans(2, brute), now: 72.2},
		{name: "a shared address for a day", facts: Facts{Shared: true}, reports: veterans(2, brute), now: 24.2},
		{name: "one veteran keeps a listing alive", reports: append(veterans(2, brute), say(w, 10, brute, 60)), now: 120, want: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &story{table: table, facts: c.facts}
			if got := s.hear(c.reports...).judge(c.now).listed(); got != c.want {
				t.Errorf("listed: %v, want %v: %+v", got, c.want, table.Explain(&s.ev, start+int64(c.now*hour), c.facts))
			}
		})
	}
}

func TestWhoGetsASourceListedInASmallNetwork(t *testing.T) {
	// Two engines of two organisations at one place, both new: a household and its
	// neighbour, or a first try on one host.
	w := []Record{{}, novice(1, 0), novice(2, 0), novice(1, 0)}
	table := tableOf(start, w)
	s := &story{table: table}
	if s.hear(say(w, 1, brute, 0), say(w, 3, brute, 0)).listed() {
		t.Error("listed by two machines of one organisation")
	}
	if !s.hear(say(w, 2, brute, 20)).listed() {
		t.Errorf("not listed by two organisations within a day: %+v", table.Explain(&s.ev, start+20*hour, Facts{}))
	}
	if v := s.out.Verdicts[0]; !v.Reasons.Local || v.Reasons.Independent != 2 {
		t.Errorf("want local evidence of two voices; got %+v", v.Reasons)
	}
	if s = (&story{table: table}); s.hear(say(w, 1, probing, 0), say(w, 2, probing, 20)).listed() == false {
		t.Error("not listed for a vague behaviour: a small network has nobody else to ask")
	}
	if s = (&story{table: table}); s.hear(say(w, 1, scan, 0), say(w, 2, scan, 0)).listed() {
		t.Error("listed for packets that may be forged")
	}
	if s = (&story{table: table}); s.hear(say(w, 1, brute, 0), say(w, 2, brute, 40)).listed() {
		t.Error("listed by two reports that are 40 hours apart")
	}
}

// A network grows out of its smallness: the more organisations have earned
// trust, the less a newcomer's word weighs.
func TestNewcomersWeighLessAsTrustIsEarned(t *testing.T) {
	weight := func(veterans, novices int) float32 {
		w := make([]Record, 1, 1+veterans+novices)
		for i := range uint32(veterans + novices) {
			if int(i) < veterans {
				w = append(w, veteran(i+1, i+1))
			} else {
				w = append(w, novice(i+1, i+1))
			}
		}
		return tableOf(start, w).Newcomer
	}
	got := []float32{weight(0, 2), weight(0, 30), weight(0, 10_000), weight(3, 7), weight(8, 2), weight(20, 0), weight(20, 1000)}
	want := []float32{3, 2, 1, 3, 1.45, 0, 0}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b float32) bool { return a-b < 0.05 && b-a < 0.05 })); diff != "" {
		t.Errorf("the weight of a newcomer (-want +got):\n%s", diff)
	}
}

func TestCanary(t *testing.T) {
	w := matureWorld()
	p := Default()
	table := tableOf(start, w)
	s := &story{table: table, facts: Facts{Canary: true}}
	s.hear(say(w, 1, brute, 0), say(w, 101, brute, 1))
	if diff := cmp.Diff([]uint32{1, 101}, s.events(Held)); diff != "" {
		t.Fatalf("held at once (-want +got):\n%s", diff)
	}
	if s.judge(23).events(Struck) != nil {
		t.Error("struck before the day was over")
	}
	s.out.Reset()
	if diff := cmp.Diff([]uint32{1, 101}, s.judge(25).events(Struck)); diff != "" {
		t.Fatalf("struck after a day (-want +got):\n%s", diff)
	}
	if s.judge(26); len(s.out.Events) != 2 {
		t.Errorf("told twice: %+v", s.out.Events)
	}
	if due := table.Due(&s.ev); due != 0 {
		t.Errorf("due at %d with nothing left to do", due)
	}

	// One poisoning to the bottom, at once, and it stays there for long.
	r := w[1]
	if before := Rate(&r, start, &p); before.Rank != 5 {
		t.Fatalf("a veteran is of rank %d, want 5", before.Rank)
	}
	r.Apply(TrustEvent{Kind: Held, Machine: 1, At: start}, &p)
	if held := Rate(&r, start, &p); held.Rank != 0 || held.Weight != 0 {
		t.Errorf("held, and %+v", held)
	}
	r.Apply(TrustEvent{Kind: Struck, Machine: 1, At: start + 24*hour, Amount: 1}, &p)
	for _, c := range []struct {
		days    int64
		highest uint8
	}{{1, 0}, {7, 0}, {9, 4}, {100, 4}} {
		if got := Rate(&r, start+c.days*24*hour, &p); got.Rank > c.highest {
			t.Errorf("%d days after a strike it is of rank %d, want at most %d", c.days, got.Rank, c.highest)
		}
	}
}

// Whoever sends packets with a canary as their sender must not ruin the machines
// that report them.
func TestForgedCanary(t *testing.T) {
	w := matureWorld()
	p := Default()
	s := &story{table: tableOf(start, w), facts: Facts{Canary: true}}
	s.hear(say(w, 1, scan, 0)).judge(25)
	if got := s.events(Held); got != nil {
		t.Errorf("held for what may be forged: %v", got)
	}
	r := w[1]
	for day := range int64(20) {
		for _, e := range s.out.Events {
			if e.Machine == 1 && e.Kind != Twitched {
				e.At = start + day*daySeconds
				r.Apply(e, &p)
			}
		}
	}
	if got := Rate(&r, start+20*daySeconds, &p); got.Rank < 4 {
		t.Errorf("after a forged packet a day it is of rank %d", got.Rank)
	}
	if !slices.ContainsFunc(s.out.Events, func(e TrustEvent) bool { return e.Kind == Twitched && e.Behaviour == scan }) {
		t.Error("the behaviour is not to blame")
	}
}

func TestCanaryThatManyShotIsExcused(t *testing.T) {
	w := matureWorld()
	w[90].Honeypot = true
	table := tableOf(start, w)
	for _, c := range []struct {
		name      string
		behaviour uint16
		machines  []uint32
		excused   bool
	}{
		{"three AS take a crawler for a prober", probing, []uint32{1, 2, 3}, true},
		{"two do", probing, []uint32{1, 2}, false},
		{"newcomers are no excuse", probing, []uint32{1, 101, 102, 103, 104}, false},
		{"three AS take it for a password guesser: nobody errs like that", brute, []uint32{1, 2, 3}, false},
		{"twelve do: it guesses passwords", brute, []uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, true},
		{"a honeypot saw it too", brute, []uint32{1, 90}, true},
	} {
		s := &story{table: table, facts: Facts{Canary: true}}
		for _, m := range c.machines {
			s.hear(say(w, m, c.behaviour, 0))
		}
		s.judge(25)
		excused, struck := s.events(Excused), s.events(Struck)
		if c.excused != slices.Contains(excused, 1) || c.excused == slices.Contains(struck, 1) {
			t.Errorf("%s: excused %v, struck %v", c.name, excused, struck)
		}
	}
}

// A strike makes what the machine said before worthless, and those who convicted
// with it answer for what nobody else confirms.
func TestStrikeTakesBackEarlierVoices(t *testing.T) {
	w := matureWorld()
	w[9].Tenure = 20 // of little weight
	before := tableOf(start, w)
	p := Default()
	after := func(amount float32) *TrustTable {
		w := slices.Clone(w)
		w[1].Apply(TrustEvent{Kind: Held, Machine: 1, At: start, Amount: amount}, &p)
		return tableOf(start+hour, w)
	}
	erred, lied := after(0.5), after(1)
	v := func(m uint32) Report { return say(w, m, brute, 0) }
	for _, c := range []struct {
		name    string
		reports []Report
		table   *TrustTable
		listed  bool
		company []uint32
	}{
		{"of two voices one lied", []Report{v(1), v(2)}, lied, false, []uint32{2}},
		{"of two voices one erred: the other is enough for a listing that stands", []Report{v(1), v(2)}, erred, true, nil},
		{"of two voices one erred, and little is left", []Report{v(1), v(9)}, erred, false, nil},
		{"another confirmed it before", []Report{v(1), v(2), v(3)}, lied, true, nil},
		{"it was listed without the liar", []Report{v(3), v(2)}, lied, true, nil},
	} {
		s := &story{table: before}
		if !s.hear(c.reports...).listed() {
			t.Fatalf("%s: not listed at first", c.name)
		}
		s.table = c.table
		s.out.Reset()
		s.judge(1)
		if s.listed() != c.listed || !slices.Equal(s.events(Company), c.company) {
			t.Errorf("%s: listed %v, want %v; in bad company %v, want %v", c.name, s.listed(), c.listed, s.events(Company), c.company)
		}
		if !c.listed && s.out.Verdicts[0].Reasons.Rule != Unsupported {
			t.Errorf("%s: %+v", c.name, s.out.Verdicts)
		}
	}
	held := before.Hold(2, 1)
	if !held.Fell(before, 1) || held.Fell(before, 2) || held.Of(1).Weight != 0 {
		t.Error("Hold must take a machine's weight at once, and Fell tell which")
	}
}

func TestUnban(t *testing.T) {
	w := matureWorld()
	table := tableOf(start, w)
	s := &story{table: table}
	s.hear(say(w, 1, brute, 0), say(w, 2, brute, 0))
	s.ev.Unban(start + hour)
	s.out.Reset()
	s.judge(1)
	if s.listed() || len(s.out.Verdicts) != 1 || s.out.Verdicts[0].Reasons.Rule != Cleared {
		t.Fatalf("want it withdrawn by the unban; got %+v", s.out.Verdicts)
	}
	again := &story{table: table}
	again.ev.CopyFrom(&s.ev)
	if again.hear(say(w, 1, probing, 2), say(w, 2, brute, 2)).listed() {
		t.Error("listed again on probation with support that is only enough for others")
	}
	if !again.hear(say(w, 3, brute, 2), say(w, 4, brute, 2)).listed() {
		t.Errorf("not listed again with more support: %+v", again.table.Explain(&again.ev, start+2*hour, Facts{}))
	}
	again.out.Reset()
	if again.judge(24 * 9); len(again.events(Disproved)) > 0 {
		t.Error("an unban that proved wrong was held against those who were right")
	}
	s.out.Reset()
	if diff := cmp.Diff([]uint32{1, 2}, s.judge(24*9).events(Disproved)); diff != "" {
		t.Errorf("disproved by a source that stayed quiet (-want +got):\n%s", diff)
	}
}

func TestValidation(t *testing.T) {
	w := matureWorld()
	w[2].Organisation = 1
	w[4].AS = w[3].AS
	w[90].Honeypot = true
	table := tableOf(start, w)
	amounts := func(reports ...Report) map[uint32]float32 {
		s := &story{table: table}
		s.hear(reports...).judge(240)
		got := map[uint32]float32{}
		for _, e := range s.out.Events {
			if e.Kind == Validated {
				got[e.Machine] = e.Amount
			}
		}
		return got
	}
	near := cmp.Comparer(func(a, b float32) bool { return a-b < 0.02 && b-a < 0.02 })
	for _, c := range []struct {
		name    string
		reports []Report
		want    map[uint32]float32
	}{
		{"nobody else saw it", []Report{say(w, 1, brute, 0)}, map[uint32]float32{}},
		{
			"another did: the first earns most, the second what was new of it",
			[]Report{say(w, 1, brute, 0), say(w, 5, brute, 10)},
			map[uint32]float32{1: 1, 5: 0.30},
		},
		{
			"who repeats what is listed earns nothing",
			[]Report{say(w, 1, brute, 0), say(w, 5, brute, 10), say(w, 6, brute, 11)},
			map[uint32]float32{1: 1, 5: 0.30},
		},
		{"of the same organisation", []Report{say(w, 1, brute, 0), say(w, 2, brute, 1)}, map[uint32]float32{}},
		{"in the same AS", []Report{say(w, 3, brute, 0), say(w, 4, brute, 1)}, map[uint32]float32{}},
		{"by newcomers", []Report{say(w, 1, brute, 0), say(w, 101, brute, 1), say(w, 102, brute, 1)}, map[uint32]float32{101: 0.20, 102: 0.20}},
		{"too late", []Report{say(w, 1, brute, 0), say(w, 5, brute, 73)}, map[uint32]float32{5: 0}},
		{"by a honeypot days later", []Report{say(w, 1, brute, 0), say(w, 90, brute, 60)}, map[uint32]float32{1: 1}},
	} {
		got := amounts(c.reports...)
		for m, a := range c.want {
			if a == 0 {
				delete(c.want, m)
			}
		}
		if diff := cmp.Diff(c.want, got, near); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestJudgeTellsOnlyWhatChanged(t *testing.T) {
	w := matureWorld()
	s := &story{table: tableOf(start, w)}
	s.hear(say(w, 1, brute, 0), say(w, 2, brute, 0))
	if len(s.out.Verdicts) != 1 || s.out.Verdicts[0].Until != start+72*hour || s.out.Verdicts[0].Remedy != Ban {
		t.Fatalf("want one listing for 72 h; got %+v", s.out.Verdicts)
	}
	s.out.Reset()
	if s.hear(say(w, 1, brute, 0.5)); len(s.out.Verdicts) != 0 {
		t.Errorf("an end that moved by half an hour was told: %+v", s.out.Verdicts)
	}
	if s.hear(say(w, 1, brute, 1)); len(s.out.Verdicts) != 1 || s.out.Verdicts[0].Until != start+73*hour || s.out.Verdicts[0].Since != start {
		t.Errorf("want the new end told once with the old beginning; got %+v", s.out.Verdicts)
	}
	s.out.Reset()
	s.facts.Shared = true
	if s.judge(2); len(s.out.Verdicts) != 1 || s.out.Verdicts[0].Remedy != Captcha {
		t.Errorf("want the softer remedy told; got %+v", s.out.Verdicts)
	}
	s.out.Reset()
	s.facts.Never = "on the allowlist: our own"
	if s.judge(3); len(s.out.Verdicts) != 1 || s.out.Verdicts[0].Listed || s.out.Verdicts[0].Reasons.Words() != "on the allowlist: our own (shared address)" {
		t.Errorf("want one withdrawal with its reason; got %+v", s.out.Verdicts)
	}
	s.out.Reset()
	if s.judge(4); len(s.out.Verdicts) != 0 {
		t.Errorf("the withdrawal was told twice: %+v", s.out.Verdicts)
	}
}

func TestFleets(t *testing.T) {
	w := matureWorld()
	tell := func(m uint32, hours float64) Report {
		r := say(w, m, brute, hours)
		r.Counts, r.Fleet = false, true
		return r
	}
	s := &story{table: tableOf(start, w)}
	s.hear(tell(102, 0), tell(101, 0), say(w, 3, brute, 0))
	audiences := func() (got []uint32) {
		for _, st := range s.ev.standing {
			got = append(got, st.audience)
		}
		return got
	}
	if diff := cmp.Diff([]uint32{101, 102}, audiences()); diff != "" {
		t.Fatalf("listed for the fleets of those who reported it (-want +got):\n%s", diff)
	}
	if s.ev.Withdraw(101, start-1) || !s.ev.Withdraw(101, start) || s.ev.Withdraw(101, start) {
		t.Error("Withdraw must tell whether there was something to withdraw, before the time given")
	}
	s.judge(1)
	if diff := cmp.Diff([]uint32{102}, audiences()); diff != "" {
		t.Errorf("after a withdrawal (-want +got):\n%s", diff)
	}
	gone := func(machine, _ uint32) bool { return machine == 102 }
	if !s.ev.Forget(gone) || s.ev.Forget(gone) {
		t.Error("Forget must tell whether there was something to forget")
	}
	s.judge(1)
	if len(audiences()) != 0 {
		t.Errorf("after the machine left: %v", audiences())
	}
	s.hear(tell(103, 2)).judge(75)
	if len(audiences()) != 0 {
		t.Errorf("a fleet listing did not lapse: %v", audiences())
	}
}

func TestConvictedRange(t *testing.T) {
	p := Default().Range
	members := func(n int, groups func(i int) []uint32) (ms []Member) {
		for i := range n {
			ms = append(ms, Member{groups(i)})
		}
		return ms
	}
	many := func(i int) []uint32 { return []uint32{uint32(i), uint32(i + 1)} }
	ring := func(int) []uint32 { return []uint32{1, 2, 3, 4, 5} }
	for _, c := range []struct {
		name     string
		v6, good bool
		members  []Member
		want     bool
	}{
		{name: "six members by many", members: members(6, many), want: true},
		{name: "five members", members: members(5, many)},
		{name: "four /64", v6: true, members: members(4, many), want: true},
		{name: "always by the same", members: members(100, ring)},
		{name: "a canary inside", good: true, members: members(100, many)},
	} {
		if got := p.ConvictRange(c.v6, c.good, c.members); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// The first liars that are found are the tip of a ring: until their AS are
// known, few voices may be more of it.
func TestMoreMustAgreeWhileARingIsFoundOut(t *testing.T) {
	for _, c := range []struct {
		name       string
		liars      int
		strikes    int32
		hoursLater int64
		reports    int
		want       bool
	}{
		{"two liars, two voices", 2, 0, 1, 2, true},
		{"liars of three AS, four voices", 3, 0, 1, 4, false},
		{"liars of three AS, five voices", 3, 0, 1, 5, true},
		{"liars of many AS ask for no more than some", 30, 0, 1, 10, true},
		{"known liars, two voices", 3, 2, 1, 2, true},
		{"two days later", 3, 1, 48, 2, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := matureWorld()
			at := start + c.hoursLater*hour
			for m := 100; m > 100-c.liars; m-- {
				w[m].StruckAt, w[m].StruckFor, w[m].Strikes = 4, 1, c.strikes
				if c.strikes == 0 {
					w[m].HeldUntil = start + 2*daySeconds
				} else {
					w[m].LastStrike, w[m].PausedUntil = start, start+30*daySeconds
				}
			}
			s := &story{table: tableOf(at, w)}
			var reports []Report
			for m := range c.reports {
				reports = append(reports, say(w, uint32(m+1), brute, float64(c.hoursLater)))
			}
			if got := s.hear(reports...).listed(); got != c.want {
				t.Errorf("listed: %v; expected %v", got, c.want)
			}
		})
	}
}
