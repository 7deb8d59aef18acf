package crowd

import (
	"cmp"
	"math"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// mixedWorld draws machines of all sorts at a few places, so that they meet.
func mixedWorld(t *rapid.T, n int) []Record {
	records := matureWorld() // enough trusted organisations that newcomers have no weight
	for i := range records {
		records[i].Organisation += 1000
		records[i].AS += 10_000
	}
	for range n {
		r := veteran(uint32(rapid.IntRange(1, 12).Draw(t, "organisation")), uint32(rapid.IntRange(0, 12).Draw(t, "as")))
		r.Earned = rapid.Float64Range(0, 300).Draw(t, "earned")
		r.Tenure = int32(rapid.IntRange(0, 200).Draw(t, "tenure"))
		r.Honeypot = rapid.IntRange(0, 9).Draw(t, "honeypot") == 0
		if rapid.IntRange(0, 9).Draw(t, "clouded") == 0 {
			r.CloudUntil = math.MaxInt64
		}
		records = append(records, r)
	}
	return records
}

// firstMixed is the number of the first machine that mixedWorld draws.
const firstMixed = 201

// drawReport draws a report by one of the drawn machines within hours of the
// start. A machine's place is always the same.
func drawReport(t *rapid.T, records []Record, hours int) Report {
	m := uint32(rapid.IntRange(firstMixed, len(records)-1).Draw(t, "machine"))
	r := say(records, m, uint16(rapid.IntRange(0, 3).Draw(t, "behaviour")), 0)
	r.Prefix = uint64(m%7) + uint64(r.AS)<<8
	r.At += int64(rapid.IntRange(0, hours*hour).Draw(t, "at"))
	r.Fleet = rapid.IntRange(0, 3).Draw(t, "fleet") == 0
	r.Counts = !r.Fleet || rapid.Bool().Draw(t, "counts")
	return r
}

func drawReports(t *rapid.T, records []Record, most, hours int) []Report {
	reports := make([]Report, rapid.IntRange(1, most).Draw(t, "reports"))
	for i := range reports {
		reports[i] = drawReport(t, records, hours)
	}
	return reports
}

// view is what a judgement rests on, but for who came first.
type view struct {
	Reasons Reasons
	Until   uint32
	Fleets  []standing
}

func viewOf(table *TrustTable, reports []Report, now int64) view {
	var ev Evidence
	for _, r := range reports {
		table.Fold(&ev, r)
	}
	var c choir
	c.gather(table, &ev, clock(now))
	var wanted [MaxVoices + 2]standing
	n := table.fleets(&ev, clock(now), &wanted, 0)
	return view{table.Explain(&ev, now, Facts{}), table.decide(&ev, clock(now), Facts{}, &c).until, wanted[:n]}
}

// As long as all voices are remembered, what the network thinks depends on the
// reports of a few days and not on their order.
func TestOrderOfReportsDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := mixedWorld(t, rapid.IntRange(1, MaxVoices).Draw(t, "machines"))
		table := tableOf(start, w)
		reports := drawReports(t, w, 60, 70)
		now := start + int64(rapid.IntRange(0, 200*hour).Draw(t, "now"))
		shuffled := rapid.Permutation(reports).Draw(t, "shuffled")
		if diff := gocmp.Diff(viewOf(table, reports, now), viewOf(table, shuffled, now), gocmp.AllowUnexported(standing{})); diff != "" {
			t.Fatalf("in another order:\n%s", diff)
		}
	})
}

// Nobody can silence a source by speaking about it: a report more never lowers
// the support.
func TestReportsNeverLowerSupport(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := mixedWorld(t, rapid.IntRange(1, MaxVoices).Draw(t, "machines"))
		table := tableOf(start, w)
		reports := drawReports(t, w, 60, 70)
		now := start + 72*hour
		before := viewOf(table, reports[:len(reports)-1], now)
		after := viewOf(table, reports, now)
		if after.Reasons.Support < before.Reasons.Support {
			t.Fatalf("%+v lowered the support from %v to %v", reports[len(reports)-1], before.Reasons.Support, after.Reasons.Support)
		}
		if after.Reasons.Independent < before.Reasons.Independent {
			t.Fatalf("%+v lowered the number of independent voices from %d to %d", reports[len(reports)-1], before.Reasons.Independent, after.Reasons.Independent)
		}
	})
}

// A crowd in one place is one voice: whatever its number.
func TestCrowdInOnePlaceIsOneVoice(t *testing.T) {
	const full = 4
	for _, c := range []struct {
		place string
		put   func(*Report)
		most  float32
	}{
		{"organisation", func(r *Report) { r.Organisation, r.Honeypot = 77, false }, full},
		{"prefix", func(r *Report) { r.Prefix = 77 }, full},
		{"AS", func(r *Report) { r.AS = 77 }, full * 4. / 3},
	} {
		rapid.Check(t, func(t *rapid.T) {
			w := mixedWorld(t, rapid.IntRange(1, 60).Draw(t, "machines"))
			table := tableOf(start, w)
			reports := drawReports(t, w, 100, 24)
			for i := range reports {
				c.put(&reports[i])
			}
			v := viewOf(table, reports, start+24*hour)
			if v.Reasons.Support > c.most {
				t.Fatalf("a crowd of one %s has a support of %v, more than %v", c.place, v.Reasons.Support, c.most)
			}
			if v.Reasons.Independent > 1 {
				t.Fatalf("a crowd of one %s is %d independent voices", c.place, v.Reasons.Independent)
			}
		})
	}
}

func TestSupportDecays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := mixedWorld(t, 20)
		table := tableOf(start, w)
		reports := drawReports(t, w, 40, 70)
		now := start + 70*hour
		last := viewOf(table, reports, now).Reasons.Support
		for range 20 {
			now += int64(rapid.IntRange(0, 40*hour).Draw(t, "later"))
			support := viewOf(table, reports, now).Reasons.Support
			if support > last {
				t.Fatalf("the support grew from %v to %v by waiting", last, support)
			}
			last = support
		}
	})
}

// Without reports a listing goes on until the end that was told, and then ends
// for good. Between the times that Due tells, judging changes nothing.
func TestListingsEndOnceAndWhenTold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := mixedWorld(t, 20)
		s := &story{table: tableOf(start, w), facts: Facts{Shared: rapid.Bool().Draw(t, "shared"), Canary: rapid.IntRange(0, 9).Draw(t, "canary") == 0}}
		reports := drawReports(t, w, 60, 100)
		slices.SortStableFunc(reports, func(a, b Report) int { return cmp.Compare(a.At, b.At) })
		s.hear(reports...)
		now := start + 100*hour
		s.judge(100)
		for range 60 {
			due := s.table.Due(&s.ev)
			if due == 0 {
				break
			}
			if due <= now {
				t.Fatalf("after a judgement it is due again at once: %d hours after the start", (due-start)/hour)
			}
			s.out.Reset()
			between := now + int64(rapid.Float64Range(0, 0.999).Draw(t, "between")*float64(due-now))
			s.table.Judge(&s.ev, between, s.facts, &s.out)
			if len(s.out.Verdicts)+len(s.out.Events) > 0 {
				t.Fatalf("changed before it was due: %+v", s.out)
			}
			was := s.ev.standing
			s.table.Judge(&s.ev, due, s.facts, &s.out)
			for _, v := range s.out.Verdicts {
				if v.Listed && s.ev.reached == 0 && len(was) >= len(s.ev.standing) {
					t.Fatalf("listed without news: %+v", v)
				}
			}
			now = due
		}
		if len(s.ev.standing) > 0 || s.table.Due(&s.ev) != 0 {
			t.Fatalf("after 60 steps something is still to be done: %+v", s.ev)
		}
		if !s.table.Stale(&s.ev, now+31*24*hour) {
			t.Fatal("evidence is kept for ever")
		}
	})
}

func TestNeverMeansNever(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := mixedWorld(t, 40)
		f := rapid.SampledFrom([]Facts{{Canary: true}, {Never: "reserved"}}).Draw(t, "facts")
		s := &story{table: tableOf(start, w)}
		s.hear(drawReports(t, w, 30, 70)...)
		s.facts = f
		s.out.Reset()
		s.hear(drawReports(t, w, 30, 70)...)
		if len(s.ev.standing) > 0 {
			t.Fatalf("listed: %+v", s.ev.standing)
		}
		for _, v := range s.out.Verdicts {
			if v.Listed {
				t.Fatalf("told to be listed: %+v", v)
			}
		}
	})
}

// Machines that earned nothing change no verdict of a mature network, however
// many there are and wherever they sit.
func TestNewcomersConvictNobody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := matureWorld()
		for range rapid.IntRange(1, 100).Draw(t, "machines") {
			w = append(w, novice(uint32(rapid.IntRange(1, 1000).Draw(t, "organisation")), uint32(rapid.IntRange(1, 1000).Draw(t, "as"))))
		}
		s := &story{table: tableOf(start, w)}
		for _, r := range drawReports(t, w, 100, 70) {
			r.Fleet = false
			if s.hear(r).listed() {
				t.Fatal("listed by newcomers")
			}
		}
	})
}

// Evidence is bounded, and a restart in between changes nothing: neither what is
// judged nor what is told of machines.
func TestEvidenceIsBoundedAndSurvivesItsBinaryForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := mixedWorld(t, 60)
		table := tableOf(start, w)
		whole, halted := &story{table: table}, &story{table: table}
		for _, r := range drawReports(t, w, 120, 300) {
			if rapid.IntRange(0, 19).Draw(t, "unban") == 0 {
				whole.ev.Unban(r.At)
				halted.ev.Unban(r.At)
			}
			whole.facts.Canary = rapid.IntRange(0, 19).Draw(t, "canary") == 0
			halted.facts = whole.facts
			whole.hear(r)
			halted.hear(r)
			data := halted.ev.AppendBinary(nil)
			if !halted.ev.canary && (len(data) > 1500 || len(halted.ev.voices) > MaxVoices) {
				t.Fatalf("%d voices take %d bytes", len(halted.ev.voices), len(data))
			}
			halted.ev = Evidence{}
			if err := halted.ev.UnmarshalBinary(data); err != nil {
				t.Fatal(err)
			}
		}
		if diff := gocmp.Diff(whole.out, halted.out); diff != "" {
			t.Fatalf("with a restart after each report:\n%s", diff)
		}
	})
}

// Shards judge their sources alone and tell of machines in any order: the
// records come out the same.
func TestShardsAgree(t *testing.T) {
	type heard struct {
		source int
		report Report
	}
	rapid.Check(t, func(t *rapid.T) {
		w := mixedWorld(t, 30)
		const sources = 12
		var log []heard
		for _, r := range drawReports(t, w, 150, 200) {
			log = append(log, heard{rapid.IntRange(0, sources-1).Draw(t, "source"), r})
		}
		slices.SortStableFunc(log, func(a, b heard) int { return cmp.Compare(a.report.At, b.report.At) })
		canary := func(source int) Facts { return Facts{Canary: source == 0} }
		run := func(shards int) ([]Record, [][]Verdict) {
			records := slices.Clone(w)
			p := Default()
			evs := make([]Evidence, sources)
			verdicts := make([][]Verdict, sources)
			table := tableOf(start, records)
			for epoch := range 4 {
				var events []TrustEvent
				for shard := range shards {
					var out Outcome
					for i, h := range log {
						if i*4/len(log) == epoch && h.source%shards == shard {
							table.Fold(&evs[h.source], h.report)
							out.Verdicts = verdicts[h.source]
							table.Judge(&evs[h.source], h.report.At, canary(h.source), &out)
							verdicts[h.source] = out.Verdicts
						}
					}
					events = append(events, out.Events...)
				}
				slices.SortFunc(events, Compare)
				for _, e := range events {
					records[e.Machine].Apply(e, &p)
				}
				table = tableOf(start+int64(epoch+1)*50*hour, records)
			}
			return records, verdicts
		}
		records1, verdicts1 := run(1)
		records3, verdicts3 := run(3)
		if diff := gocmp.Diff(records1, records3); diff != "" {
			t.Fatalf("records of one shard and of three:\n%s", diff)
		}
		if diff := gocmp.Diff(verdicts1, verdicts3); diff != "" {
			t.Fatalf("verdicts of one shard and of three:\n%s", diff)
		}
	})
}

func TestSameReportsSameVerdicts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := mixedWorld(t, 30)
		table := tableOf(start, w)
		reports := drawReports(t, w, 100, 200)
		run := func() Outcome {
			s := &story{table: table}
			s.hear(reports...)
			return s.out
		}
		if diff := gocmp.Diff(run(), run()); diff != "" {
			t.Fatalf("two runs differ:\n%s", diff)
		}
	})
}
