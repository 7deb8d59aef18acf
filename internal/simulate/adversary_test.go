package simulate

import (
	"slices"
	"testing"

	"muster/internal/crowd"
)

// story is a run of a tiny world that stands before the given day.
func story(t *testing.T, a Adversary, before int) *run {
	t.Helper()
	s := tiny(t)
	s.Adversary = a
	if err := s.check(); err != nil {
		t.Fatal(err)
	}
	r := newRun(&s, crowd.Default(), 5)
	for day := range before {
		r.day(day)
	}
	return r
}

func (r *run) day(day int) {
	for hour := range 24 {
		r.hour(day, int32(day*24+hour))
	}
	r.meter.endDay(r)
}

// planned returns the reports by the adversary that are planned.
func (r *run) planned() (reports []event) {
	for _, slot := range r.queue.later {
		for _, e := range slot {
			if e.kind == report && r.world.machines[e.machine].class == Adverse {
				reports = append(reports, e)
			}
		}
	}
	return reports
}

// bySource groups reports by what they are about.
func bySource(reports []event) map[uint32][]event {
	by := map[uint32][]event{}
	for _, e := range reports {
		by[e.source] = append(by[e.source], e)
	}
	return by
}

func (r *run) networksOf(reports []event) int {
	as := map[uint32]bool{}
	for _, e := range reports {
		as[r.world.machines[e.machine].as] = true
	}
	return len(as)
}

func TestSybilsAreWhereTheyAreSaidToBe(t *testing.T) {
	r := story(t, Adversary{Aim: Slander, Share: 0.3, Networks: 5, Joins: 1, Attacks: 3, PerDay: 3, Disguise: Silent}, 0)
	as, organisations := map[uint32]bool{}, map[uint32]bool{}
	for _, id := range r.adversary.machines {
		m := r.world.machines[id]
		as[m.as], organisations[m.organisation] = true, true
		if m.class != Adverse || m.sensors != 0 || m.joins != 24 {
			t.Fatalf("machine %d is %+v", id, m)
		}
	}
	if n := len(r.adversary.machines); n != 26 || len(as) != 5 || len(organisations) != n {
		t.Errorf("%d machines of %d organisations in %d AS; expected 26 of as many in 5", n, len(organisations), len(as))
	}
}

func TestSlandererSlandersOtherAddressesEveryDay(t *testing.T) {
	a := Adversary{Aim: Slander, Machines: 20, Networks: 4, Joins: 1, Attacks: 3, PerDay: 3, Disguise: Silent}
	r := story(t, a, 0)
	r.scheme(2)
	if n := len(r.planned()); n != 0 {
		t.Fatalf("%d reports before the attack", n)
	}
	r.scheme(3)
	first := bySource(r.planned())
	if len(first) != 3 {
		t.Fatalf("%d victims on the first day; expected 3", len(first))
	}
	for v, reports := range first {
		if tr := r.engine.sources[v].truth; tr != good && tr != canary {
			t.Errorf("the victim's truth is %d", tr)
		}
		if len(reports) != 20 || r.networksOf(reports) != 4 {
			t.Errorf("%d reports from %d AS; expected 20 from 4", len(reports), r.networksOf(reports))
		}
	}
	r.scheme(4)
	if n := len(bySource(r.planned())); n != 6 {
		t.Errorf("%d victims in two days; expected 6", n)
	}

	a.Aim, a.Votes = SlanderIt, 3
	r = story(t, a, 0)
	r.scheme(3)
	r.scheme(4)
	for v, reports := range bySource(r.planned()) {
		if len(reports) != 6 || r.networksOf(reports) < 3 || r.engine.sources[v].truth != good {
			t.Errorf("%d reports from %d AS on one address; expected 3 on each of 2 days from 3 AS or 4", len(reports), r.networksOf(reports))
		}
	}
	if n := len(bySource(r.planned())); n != 1 {
		t.Errorf("%d victims; expected one, every day again", n)
	}
}

func TestSlanderIsCountedOnceAndNotOfCanaries(t *testing.T) {
	r := story(t, Adversary{Aim: Slander, Machines: 20, Networks: 4, Joins: 1, Attacks: 2, PerDay: 120, Disguise: Silent}, 4)
	if want := len(r.good) + len(r.unknownCanaries); r.meter.targets != want {
		t.Errorf("%d targets of 120 victims a day for two days; expected the %d good addresses, each once", r.meter.targets, want)
	}
	if r.meter.targetsListed > r.meter.targets {
		t.Errorf("%d of %d targets listed", r.meter.targetsListed, r.meter.targets)
	}
}

func TestSleepersReportTheTruthUntilTheyAttack(t *testing.T) {
	r := story(t, Adversary{Aim: Slander, Machines: 30, Networks: 4, Joins: 0, Attacks: 8, PerDay: 3, Disguise: Genuine}, 8)
	heard, days := 0, 0
	for _, id := range r.adversary.machines {
		if rec := r.engine.records[id]; rec.LastHeard > 0 {
			heard++
			days += int(rec.Tenure)
		}
	}
	if heard < 25 || days < 5*heard {
		t.Errorf("%d of 30 sleepers were heard, on %d days in all; expected nearly all, most days", heard, days)
	}
	if r.meter.targets != 0 || len(r.meter.liars) != 0 {
		t.Errorf("%d targets and %d liars before the attack", r.meter.targets, len(r.meter.liars))
	}
	r.day(8)
	if r.meter.targets == 0 || len(r.meter.liars) == 0 {
		t.Errorf("%d targets, %d liars on the day of the attack", r.meter.targets, len(r.meter.liars))
	}
}

func TestCopycatsRepeatTheList(t *testing.T) {
	r := story(t, Adversary{Aim: Slander, Machines: 10, Networks: 4, Joins: 1, Attacks: 8, PerDay: 3, Disguise: Copy}, 5)
	r.queue.later = [horizon][]event{}
	r.scheme(5)
	reports := r.planned()
	for _, e := range reports {
		if !r.engine.sources[e.source].onList {
			t.Fatal("a copycat reports what is not listed")
		}
	}
	if len(reports) < 100 {
		t.Errorf("%d reports by 10 copycats a day, with %d lines on the list", len(reports), r.engine.onList)
	}
}

func TestRingReportsWhatItInvented(t *testing.T) {
	r := story(t, Adversary{Aim: Slander, Machines: 20, Networks: 4, Joins: 1, Attacks: 8, PerDay: 3, Disguise: Ring}, 0)
	r.scheme(1)
	by := bySource(r.planned())
	for src, reports := range by {
		if r.engine.sources[src].truth != invented || len(reports) != 10 || r.networksOf(reports) != 4 {
			t.Errorf("%d reports from %d AS on a source of truth %d", len(reports), r.networksOf(reports), r.engine.sources[src].truth)
		}
	}
	if len(by) != 3 {
		t.Errorf("%d addresses invented on a day; expected 3", len(by))
	}
}

func TestProberSlandersWhatWasTriedWithImpunity(t *testing.T) {
	r := story(t, Adversary{Aim: Probe, Machines: 30, Networks: 4, Joins: 0, Attacks: 8, PerDay: 30, Disguise: Genuine}, 8)
	r.day(8)
	scouts := r.adversary.tried
	if len(scouts) != 30 || r.meter.targets > 30 {
		t.Fatalf("%d addresses tried, %d slandered on the first day", len(scouts), r.meter.targets)
	}
	tried := map[uint32]bool{}
	for v := range scouts {
		tried[v] = true
	}
	r.queue.later = [horizon][]event{}
	r.scheme(9)
	if r.meter.canariesFound == 0 {
		t.Error("no canary was found out among 30 of 120 good addresses")
	}
	for v, reports := range bySource(r.planned()) {
		if len(reports) == 30 && (!tried[v] || r.engine.sources[v].truth == canary) {
			t.Error("slandered: an address that was not tried, or a canary that gave its scout away")
		}
	}
}

func TestBombedWatchersSeemLiars(t *testing.T) {
	r := story(t, Adversary{Aim: Bomb, Machines: 20, Networks: 4, Joins: 0, Attacks: 8, PerDay: 2, Disguise: Genuine}, 8)
	r.scheme(8)
	if n := len(r.adversary.bombed); n != bombs {
		t.Fatalf("%d watchers are bombed; expected %d", n, bombs)
	}
	unbans, byVictims := 0, 0
	for _, slot := range r.queue.later {
		for _, e := range slot {
			if e.kind == unban && r.engine.sources[e.source].truth == accuser {
				unbans++
			}
			if e.kind == report && slices.Contains(r.adversary.bombed, e.machine) && r.engine.sources[e.source].truth == accuser {
				byVictims++
			}
		}
	}
	if unbans != 2 || byVictims != 2*bombs {
		t.Errorf("%d unbans and %d reports by the bombed; expected 2 and %d", unbans, byVictims, 2*bombs)
	}

	r = story(t, Adversary{Aim: BombForge, Machines: 20, Networks: 4, Joins: 0, Attacks: 8, PerDay: 2, Disguise: Genuine}, 8)
	r.scheme(8)
	forged := 0
	for _, slot := range r.queue.later {
		for _, e := range slot {
			if slices.Contains(r.adversary.bombed, e.machine) && r.engine.sources[e.source].truth == canary && e.behaviour == portScan {
				forged++
			}
		}
	}
	if forged < len(r.adversary.bombed) {
		t.Errorf("%d forged packets for %d watchers", forged, len(r.adversary.bombed))
	}
}

func TestWhitewashersComeBack(t *testing.T) {
	r := story(t, Adversary{Aim: Whitewash, Networks: 1, Joins: 1, Attacks: 4, PerDay: 3, Disguise: Silent}, 0)
	unbanned, back := 0, 0
	quiet := true
	for day := range 8 {
		r.day(day)
		for i := range r.engine.sources {
			s := &r.engine.sources[i]
			if s.truth != washer {
				continue
			}
			if s.washedAt > 0 {
				unbanned++
			}
			if s.againAt > 0 {
				back++
				quiet = quiet && s.againAt >= s.washedAt+washPause
			}
		}
	}
	if unbanned == 0 || back+len(r.meter.relisted) == 0 || !quiet {
		t.Errorf("%d unbanned, %d back and %d listed again, quiet for two hours: %v", unbanned, back, len(r.meter.relisted), quiet)
	}
}

func TestFloodIsAFlood(t *testing.T) {
	r := story(t, Adversary{Aim: Flood, Machines: 10, Networks: 4, Joins: 1, Attacks: 2, PerDay: 100, Disguise: Silent}, 2)
	r.scheme(2)
	reports := r.planned()
	fresh := 0
	for _, e := range reports {
		if r.engine.sources[e.source].truth == nobody {
			fresh++
		}
	}
	if len(reports) != 1000 || fresh != 500 {
		t.Errorf("%d reports, %d on addresses that nobody knows; expected 1000 and 500", len(reports), fresh)
	}
}

// TestFloodIsForgotten: memory is bounded by what is remembered, not by what was
// ever said.
func TestFloodIsForgotten(t *testing.T) {
	r := story(t, Adversary{Aim: Flood, Machines: 10, Networks: 4, Joins: 0, Attacks: 0, PerDay: 100, Disguise: Silent}, 12)
	live := 0
	for i := range r.engine.sources {
		if s := &r.engine.sources[i]; s.truth == nobody && s.ev.Last() > 0 {
			live++
		}
	}
	days := int(crowd.Default().Listing.Memory.Hours()/24) + 1
	if limit := 500 * (days + 1); live > limit {
		t.Errorf("%d addresses that one machine reported once are remembered after 12 days; expected those of %d days, %d at most", live, days, limit)
	}
}
