package crowd

import (
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// live lets a machine be heard every day and validated so many times a day by
// changing partners, and returns its rank after each day.
func live(r *Record, days int, perDay int, partners uint32) (ranks []uint8) {
	p := Default()
	at := start
	for range days {
		r.Heard(1, 1, at)
		for i := range perDay {
			partner := 10 + uint32(len(ranks)*perDay+i)%partners
			r.Apply(TrustEvent{Kind: Validated, Machine: 1, At: at, Amount: 1, Partners: [4]uint32{partner}}, &p)
		}
		at += daySeconds
		ranks = append(ranks, Rate(r, at, &p).Rank)
	}
	return ranks
}

func TestTrustIsEarnedSlowly(t *testing.T) {
	var r Record
	ranks := live(&r, 200, 2, 20)
	day := func(rank uint8) int { return slices.Index(ranks, rank) + 1 }
	if !slices.IsSorted(ranks) {
		t.Errorf("trust was lost by behaving well: %v", ranks)
	}
	for _, c := range []struct {
		rank        uint8
		after, upTo int
	}{{1, 1, 1}, {2, 7, 10}, {3, 31, 40}, {4, 91, 100}, {5, 120, 130}} {
		if got := day(c.rank); got < c.after || got > c.upTo {
			t.Errorf("rank %d after %d days, want %d to %d", c.rank, got, c.after, c.upTo)
		}
	}
}

// Machines that only confirm each other get nowhere near the top.
func TestRingsDoNotRaiseThemselves(t *testing.T) {
	p := Default()
	for _, c := range []struct {
		partners uint32
		highest  float32
	}{{1, 1}, {2, 1.6}} {
		var r Record
		live(&r, 365, 10, c.partners)
		if got := Rate(&r, start+365*daySeconds, &p); got.Weight > c.highest {
			t.Errorf("with %d partners it weighs %v after a year, want at most %v", c.partners, got.Weight, c.highest)
		}
	}
}

func TestHonestMachinesSurviveTrustBombing(t *testing.T) {
	p := Default()
	r := veteran(1, 1)
	before := Rate(&r, start, &p)
	for i := range 100 { // Sybils put it in bad company, and unban what it reported
		at := start + int64(i)*hour
		r.Apply(TrustEvent{Kind: Company, Machine: 1, At: at, Amount: 1}, &p)
		r.Apply(TrustEvent{Kind: Disproved, Machine: 1, At: at, Amount: 0.5}, &p)
		r.Apply(TrustEvent{Kind: Unconfirmed, Machine: 1, At: at}, &p)
	}
	if after := Rate(&r, start+100*hour, &p); before.Rank-after.Rank > 1 {
		t.Errorf("it fell from rank %d to %d", before.Rank, after.Rank)
	}
}

// Events commute, but for strikes, in whatever order shards tell them.
func TestEventsCommute(t *testing.T) {
	p := Default()
	rapid.Check(t, func(t *rapid.T) {
		var events []TrustEvent
		for range rapid.IntRange(1, 40).Draw(t, "n") {
			events = append(events, TrustEvent{
				Kind:     rapid.SampledFrom([]EventKind{Validated, Confirmed, Unconfirmed, Excused}).Draw(t, "kind"),
				At:       start + int64(rapid.IntRange(0, 100*daySeconds).Draw(t, "at")),
				Amount:   float32(rapid.IntRange(1, 4).Draw(t, "amount")) / 4,
				Partners: [4]uint32{}, // by honeypots: no partner's limit
			})
		}
		apply := func(es []TrustEvent) (r Record) {
			for _, e := range es {
				r.Apply(e, &p)
			}
			return r
		}
		if diff := cmp.Diff(apply(events), apply(rapid.Permutation(events).Draw(t, "order")), cmpopts.EquateApprox(1e-9, 1e-9)); diff != "" {
			t.Fatalf("in another order:\n%s", diff)
		}
	})
}

func TestSoloIsLimitedByTheDay(t *testing.T) {
	p := Default()
	r := veteran(1, 1)
	for range p.Trust.SoloPerDay {
		if !Rate(&r, start, &p).Solo {
			t.Fatal("a machine of the top rank may not list alone")
		}
		r.Apply(TrustEvent{Kind: Solo, At: start}, &p)
	}
	if Rate(&r, start, &p).Solo {
		t.Error("it lists alone without end")
	}
	if !Rate(&r, start+daySeconds, &p).Solo {
		t.Error("it may not list alone the next day")
	}
}

func TestTwitchyBehavioursLoseConfidence(t *testing.T) {
	p := Default()
	var r BehaviourRecord
	for range 10 {
		r.Apply(TrustEvent{Kind: Twitched, At: start, Amount: 1}, &p)
	}
	if cut := r.Cut(start, &p); math.Abs(cut-0.5) > 0.01 {
		t.Errorf("after ten shots it keeps %v of its confidence, want half", cut)
	}
	if cut := r.Cut(start+120*daySeconds, &p); cut < 0.9 {
		t.Errorf("after four quiet months it keeps %v, want nearly all", cut)
	}
	w := matureWorld()
	s := Snapshot{At: start, Records: w, Taxonomy: taxonomy, Parameters: p, Behaviours: make([]BehaviourRecord, 3)}
	calm := NewTrustTable(s)
	s.Behaviours[probing] = r
	twitchy := NewTrustTable(s)
	for behaviour, want := range map[uint16]float32{probing: 1, brute: 4} {
		var ev Evidence
		twitchy.Fold(&ev, say(w, 1, behaviour, 0))
		got, before := twitchy.Explain(&ev, start, Facts{}).Support, calm.Explain(&ev, start, Facts{}).Support
		if math.Abs(float64(got-want)) > 0.01 || got > before {
			t.Errorf("behaviour %d has a support of %v, want %v", behaviour, got, want)
		}
	}
}

// An update that makes a behaviour report everybody is the update's fault, and
// not that of those who installed it; a ring is no update.
func TestBrokenBehaviourIsExcused(t *testing.T) {
	p := Default()
	after := func(machines int, as func(i int) uint32) *TrustTable {
		w := matureWorld()
		for i := range machines {
			w = append(w, veteran(uint32(1000+i), as(i)))
			w[len(w)-1].Apply(TrustEvent{Kind: Held, Behaviour: brute, At: start, Amount: 1}, &p)
		}
		return tableOf(start+hour, w)
	}
	support := func(table *TrustTable) float32 {
		var ev Evidence
		table.Fold(&ev, say(matureWorld(), 1, brute, 1))
		return table.Explain(&ev, start+hour, Facts{}).Support
	}
	broken := after(40, func(i int) uint32 { return uint32(5000 + i) })
	if !broken.Twitchy(brute) || broken.Twitchy(probing) {
		t.Errorf("it is twitchy: %v, another is: %v", broken.Twitchy(brute), broken.Twitchy(probing))
	}
	if got := support(broken); got > 0.5 {
		t.Errorf("a veteran's report of a broken behaviour has a support of %v", got)
	}
	s := &story{table: broken, facts: Facts{Canary: true}}
	s.hear(say(matureWorld(), 1, brute, 1)).judge(26)
	if !slices.Equal(s.events(Excused), []uint32{1}) {
		t.Errorf("excused are %v, want machine 1", s.events(Excused))
	}
	if got := support(after(200, func(i int) uint32 { return uint32(5000 + i%20) })); got < 3.9 {
		t.Errorf("a ring of 20 AS broke a behaviour: a veteran's report has a support of %v", got)
	}
}

// An AS where machines of weight were struck is under a cloud: it convicts
// nobody without others. Fresh machines cannot bring that about.
func TestStruckASIsUnderACloud(t *testing.T) {
	p := Default()
	world := func(strike func(r *Record)) *TrustTable {
		w := matureWorld()
		for i := range uint32(20) { // twenty veterans in AS 5, as many novices
			w = append(w, veteran(500+i, 5), novice(600+i, 5))
		}
		for i := 201; i < len(w); i++ {
			strike(&w[i])
		}
		return tableOf(start, w)
	}
	strike := func(r *Record, i *int, most int) {
		if *i++; *i <= most {
			r.Apply(TrustEvent{Kind: Held, At: start - hour, Amount: 1}, &p)
			r.Apply(TrustEvent{Kind: Struck, At: start, Amount: 1}, &p)
		}
	}
	n := 0
	if got := world(func(r *Record) {
		if r.Tenure > 1 {
			strike(r, &n, 3)
		}
	}); !slices.Equal(got.Clouded, []uint32{5}) {
		t.Errorf("three veterans of AS 5 struck: clouded are %v, want AS 5", got.Clouded)
	}
	n = 0
	if got := world(func(r *Record) {
		if r.Tenure == 1 {
			strike(r, &n, 20)
		}
	}); len(got.Clouded) > 0 {
		t.Errorf("twenty novices of AS 5 struck: clouded are %v, want none", got.Clouded)
	}
	if got := world(func(r *Record) {
		for range 6 {
			r.Apply(TrustEvent{Kind: Unconfirmed, At: start}, &p)
		}
	}); !slices.Equal(got.Clouded, []uint32{5}) {
		t.Errorf("what AS 5 lists is never confirmed: clouded are %v, want AS 5", got.Clouded)
	}
}
