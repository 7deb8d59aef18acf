package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"muster"
	"muster/internal/publish"
	"muster/internal/testkit"
)

// pulled is what engines of the recording's sensors are sent when each sensor is
// an organisation and everything is listed that anybody saw within three days.
type pulled struct {
	rec      *Recording
	now      time.Time
	reports  *publish.Reports
	rankings *publish.Rankings
	listed   map[int32]*muster.Verdict // by source
}

// Listed gives what was seen within three days.
func (p *pulled) Listed(_ context.Context, fn func(muster.Verdict) error) error {
	for _, v := range p.listed {
		if v.Until.After(p.now) {
			if err := fn(*v); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *pulled) Changed(context.Context, time.Time, int) ([]muster.Verdict, error) { return nil, nil }

// report takes in one event, as a signal and as a verdict.
func (p *pulled) report(e Event) {
	at, source := time.Unix(e.At, 0).UTC(), p.rec.Sources[e.Source]
	s := muster.Signal{
		Organisation: p.rec.Victims[e.Victim], Source: source, Scenario: p.rec.Behaviours[e.Behaviour],
		At: at, Received: at, Flags: muster.Counts,
	}
	p.now = at
	p.reports.Observe(&s)
	p.rankings.Observe(&s)
	v := p.listed[e.Source]
	if v == nil || !v.Until.After(at) {
		v = &muster.Verdict{Source: source, Listed: true, Since: at}
		p.listed[e.Source] = v
	}
	v.Scenario, v.Changed, v.Until = s.Scenario, at, at.Add(72*time.Hour)
	v.Reasons.Last = at.Unix()
	v.Reasons.Support = min(v.Reasons.Support+1, 8)
}

// publisher has what is listed now; ranked says by what limited lists are chosen.
func (p *pulled) publisher(t *testing.T, size int, ranked bool) *publish.Publisher {
	cfg := publish.Config{
		Verdicts: p, Allowed: muster.Source.IsReserved, Reported: p.reports.Scenarios,
		Tier:      func(*publish.Reader) publish.Tier { return publish.Tier{Size: size, Tailoring: publish.TailorReported} },
		Preferred: func(r *publish.Reader) ([]muster.Source, uint64) { return p.reports.Sources(r.Organisation) },
		Behaviour: func(scenario string) string { return scenario },
		Now:       func() time.Time { return p.now }, Logger: slog.New(slog.DiscardHandler),
	}
	if ranked {
		cfg.Rankings = p.rankings
	}
	list := publish.New(cfg)
	if err := list.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return list
}

// pull returns how many of those who are to come are sent, of how many lines.
func pull(t *testing.T, list *publish.Publisher, organisation string, come map[string]bool) (hits, lines int) {
	answer := list.Pull(&publish.Reader{Organisation: organisation}, publish.Want{Version: publish.V3, Community: true})
	var body bytes.Buffer
	if err := answer.Write(&body, false); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		New []struct {
			Decisions []struct{ Value string }
		}
	}
	if err := json.Unmarshal(body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	for _, group := range doc.New {
		for _, d := range group.Decisions {
			if lines++; come[d.Value] {
				hits++
			}
		}
	}
	return hits, lines
}

// What engines pull holds more of the next day's attackers when the ranking has a
// word in it, on what real attackers did.
func TestRankedPullsHoldMoreOfTheNextDay(t *testing.T) {
	if testing.Short() || raced {
		t.Skip("takes half a minute, and minutes with the race detector")
	}
	f, err := os.Open(testkit.Shared(t, "data", "honeypots", "sensors-2013-03-to-06.csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rec, err := Read(f, Options{})
	if err != nil {
		t.Fatal(err)
	}
	const from, days = 61, 14 // the weights were fitted on those before
	p := &pulled{rec: rec, listed: map[int32]*muster.Verdict{}}
	clock := func() time.Time { return p.now }
	p.reports = publish.NewReports(72*time.Hour, clock)
	p.rankings = publish.NewRankings(publish.RankingsConfig{Now: clock})
	p.rankings.Ready()
	next, published := 0, 0
	sizes := []int{100, 300, 1000, 3000}
	var hits [2][4]int
	lines := [2][4]int{}
	for d := range from + days {
		if d >= from {
			p.now = rec.midnight(d)
			p.reports.Refresh()
			come := map[string]map[string]bool{}
			for i := next; i < len(rec.Events) && rec.day(rec.Events[i]) == d; i++ {
				e := rec.Events[i]
				if come[rec.Victims[e.Victim]] == nil {
					come[rec.Victims[e.Victim]] = map[string]bool{}
				}
				come[rec.Victims[e.Victim]][rec.Sources[e.Source].String()] = true
			}
			for s := len(sizes) - 1; s >= 0; s-- {
				plain, ranked := p.publisher(t, sizes[s], false), p.publisher(t, sizes[s], true)
				published = ranked.Count(muster.Network)
				for _, organisation := range rec.Victims { // as if they had been here before
					pull(t, ranked, organisation, nil)
				}
				ranked.Rank()
				p.now = p.now.Add(time.Second)
				for _, organisation := range rec.Victims {
					for i, list := range []*publish.Publisher{plain, ranked} {
						h, n := pull(t, list, organisation, come[organisation])
						hits[i][s] += h
						lines[i][s] += n
					}
				}
			}
		}
		for ; next < len(rec.Events) && rec.day(rec.Events[next]) == d; next++ {
			p.report(rec.Events[next])
		}
	}
	readers := float64(days * len(rec.Victims))
	for s, size := range sizes {
		without, with := float64(hits[0][s])/readers, float64(hits[1][s])/readers
		what := fmt.Sprintf("lists of %d of some %d: %.1f of the next day's attackers without the ranking, %.1f with it", size, published, without, with)
		t.Log(what)
		if lines[0][s] != lines[1][s] {
			t.Errorf("%d lines without the ranking, %d with it", lines[0][s], lines[1][s])
		}
		if size < published && with <= without {
			t.Errorf("%s: expected more", what)
		}
	}
}
