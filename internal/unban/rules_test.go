package unban

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

func TestWaits(t *testing.T) {
	days := func(r Rules, rounds ...int) (waits []int) {
		r = r.withDefaults()
		for _, n := range rounds {
			waits = append(waits, int(r.wait(n)/day))
		}
		return waits
	}
	for name, c := range map[string]struct {
		rules Rules
		want  []int
	}{
		"as designed":     {Rules{}, []int{0, 3, 10, 30, 60, 120, 240, 365, 365}},
		"always the same": {Rules{Waits: []time.Duration{day}, Memory: day}, []int{0, 1, 1, 1, 1, 1, 1, 1, 1}},
		"none at all":     {Rules{Waits: []time.Duration{}}, []int{0, 0, 0, 0, 0, 0, 0, 0, 0}},
		"short memory":    {Rules{Memory: 20 * day}, []int{0, 3, 10, 20, 20, 20, 20, 20, 20}},
	} {
		if diff := cmp.Diff(c.want, days(c.rules, 0, 1, 2, 3, 4, 5, 6, 7, 1000)); diff != "" {
			t.Errorf("%s: days before a round (-want +got):\n%s", name, diff)
		}
	}
}

func TestDecide(t *testing.T) {
	const proof = muster.ProofSameAddress
	now := start
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	request := func(source_, address string, proof muster.UnbanProof) muster.UnbanRequest {
		return muster.UnbanRequest{ID: "new", Source: source(source_), Address: addr(address), Requester: addr(address), Proof: proof}
	}
	own := request("1.2.3.4", "1.2.3.4", proof)
	foreign := request("1.2.3.4", "1.2.3.4", "")
	open := func(p muster.UnbanProof) *muster.UnbanRequest {
		return &muster.UnbanRequest{ID: "open", State: muster.UnbanWaiting, Proof: p}
	}
	granted := func(at time.Time) *muster.UnbanRequest {
		return &muster.UnbanRequest{ID: "last", State: muster.UnbanGranted, Decided: at}
	}
	refusedAt := func(at time.Time) *muster.UnbanRequest {
		return &muster.UnbanRequest{ID: "last", State: muster.UnbanRefused, Proof: proof, Requested: at, Decided: at, Reason: "still at it"}
	}
	for name, c := range map[string]struct {
		request muster.UnbanRequest
		since   time.Time // of the listing; zero = an hour ago
		past    muster.UnbanHistory
		listed  int
		basis   string // of the listing
		want    string
	}{
		"listed by hand":                          {request: own, basis: muster.BasisOperator, want: "queue: an operator listed it by hand"},
		"listed for what it did":                  {request: own, basis: "crowd", want: "grant"},
		"the first time":                          {request: own, want: "grant"},
		"a v6 address":                            {request: request("2a00::1", "2a00::1", proof), want: "grant"},
		"the /64 of a v6 address":                 {request: request("2a00::/64", "2a00::1", proof), want: "grant"},
		"a part of that":                          {request: request("2a00::/80", "2a00::1", proof), want: "grant"},
		"more than that":                          {request: request("2a00::/56", "2a00::1", proof), want: "queue: 2a00::1 is not listed by itself, but with the range 2a00::/56"},
		"in a range":                              {request: request("1.2.3.0/24", "1.2.3.4", proof), want: "queue: 1.2.3.4 is not listed by itself, but with the range 1.2.3.0/24"},
		"without proof":                           {request: foreign, want: "queue: nothing proves"},
		"in a range, without proof":               {request: request("1.2.3.0/24", "1.2.3.4", ""), want: "queue: nothing proves"},
		"one waits":                               {request: own, past: muster.UnbanHistory{Open: open(proof), Waiting: 1}, want: "same: open"},
		"a stranger's waits":                      {request: own, past: muster.UnbanHistory{Open: open(""), Waiting: 1}, want: "grant"},
		"the owner's waits for a stranger":        {request: foreign, past: muster.UnbanHistory{Open: open(proof), Waiting: 1}, want: "same: open"},
		"a stranger's waits for a stranger":       {request: foreign, past: muster.UnbanHistory{Open: open(""), Waiting: 1}, want: "same: open"},
		"just granted, still listed":              {request: own, past: muster.UnbanHistory{Last: granted(ago(time.Minute)), Rounds: 1}, want: "same: last"},
		"that for a stranger":                     {request: foreign, past: muster.UnbanHistory{Last: granted(ago(time.Minute)), Rounds: 1}, want: "same: last"},
		"listed again":                            {request: own, past: muster.UnbanHistory{Last: granted(ago(2 * time.Hour)), Rounds: 1}, want: "rate_limited 70h0m0s: it was taken off the list on 2026-11-20 and reported again since: find what attacks from there, and ask again from 2026-11-23 10:00 UTC on"},
		"that for a stranger: operators":          {request: foreign, past: muster.UnbanHistory{Last: granted(ago(2 * time.Hour)), Rounds: 1}, want: "queue: nothing proves"},
		"a moment before the second round":        {request: own, past: muster.UnbanHistory{Last: granted(ago(3*day - time.Microsecond)), Rounds: 1}, want: "rate_limited 1µs"},
		"the second round":                        {request: own, past: muster.UnbanHistory{Last: granted(ago(3 * day)), Rounds: 1}, want: "grant"},
		"a moment before the third":               {request: own, past: muster.UnbanHistory{Last: granted(ago(10*day - time.Microsecond)), Rounds: 2}, want: "rate_limited 1µs"},
		"the third":                               {request: own, past: muster.UnbanHistory{Last: granted(ago(10 * day)), Rounds: 2}, want: "grant"},
		"the fourth":                              {request: own, past: muster.UnbanHistory{Last: granted(ago(30 * day)), Rounds: 3}, want: "grant"},
		"too early for the fifth":                 {request: own, past: muster.UnbanHistory{Last: granted(ago(30 * day)), Rounds: 4}, want: "rate_limited 720h0m0s"},
		"granted long ago and never off the list": {request: own, since: ago(9 * day), past: muster.UnbanHistory{Last: granted(ago(4 * day)), Rounds: 1}, want: "grant"},
		"refused":                                 {request: own, past: muster.UnbanHistory{Last: refusedAt(ago(day)), Rounds: 1}, want: "rate_limited 48h0m0s: it was asked for on 2026-11-19 and refused (still at it): ask again from 2026-11-22 12:00 UTC on"},
		"refused, for a stranger":                 {request: foreign, past: muster.UnbanHistory{Last: refusedAt(ago(day)), Rounds: 1}, want: "queue: nothing proves"},
		"refused some time ago":                   {request: own, past: muster.UnbanHistory{Last: refusedAt(ago(3 * day)), Rounds: 1}, want: "queue: it was refused before (still at it)"},
		"the fifth in the network":                {request: own, past: muster.UnbanHistory{Network: 4}, want: "grant"},
		"the sixth":                               {request: own, past: muster.UnbanHistory{Network: 5}, want: "rate_limited 24h0m0s: 5 addresses of 1.2.3.0/24 were taken off the list within a day"},
		"the sixth, v6":                           {request: request("2a00::1", "2a00::1", proof), past: muster.UnbanHistory{Network: 5}, want: "rate_limited 24h0m0s: 5 addresses of 2a00::/48"},
		"the sixth, for operators":                {request: foreign, past: muster.UnbanHistory{Network: 5}, want: "queue: nothing proves"},
		"the tenth of an asker":                   {request: own, past: muster.UnbanHistory{Asker: 9}, want: "grant"},
		"the eleventh":                            {request: own, past: muster.UnbanHistory{Asker: 10}, want: "rate_limited 24h0m0s: there were 10 requests from 1.2.3.0/24 within a week"},
		"the eleventh, v6, without proof":         {request: request("2a00::1", "2a00::1", ""), past: muster.UnbanHistory{Asker: 10}, want: "rate_limited 24h0m0s: there were 10 requests from 2a00::/64"},
		"one percent of the list":                 {request: own, listed: 5000, past: muster.UnbanHistory{All: 50}, want: "alarm: 50 requests were granted within a day, which is unusual"},
		"less":                                    {request: own, listed: 5000, past: muster.UnbanHistory{All: 49}, want: "grant"},
		"a small list":                            {request: own, listed: 10, past: muster.UnbanHistory{All: 19}, want: "grant"},
		"too many for a small list":               {request: own, listed: 10, past: muster.UnbanHistory{All: 20}, want: "alarm"},
		"the last that the queue takes":           {request: foreign, past: muster.UnbanHistory{Waiting: 999}, want: "queue"},
		"a full queue":                            {request: foreign, past: muster.UnbanHistory{Waiting: 1000}, want: "unavailable 24h0m0s: operators must decide (nothing proves that the address is the requester's), and too many"},
		"a full queue, which it does not need":    {request: own, past: muster.UnbanHistory{Waiting: 1000}, want: "grant"},
	} {
		if c.since.IsZero() {
			c.since = ago(time.Hour)
		}
		o := Rules{}.withDefaults().decide(situation{now: now, request: c.request, since: c.since, basis: c.basis, past: c.past, listed: c.listed})
		var got string
		switch {
		case o.grant:
			got = "grant"
		case o.alarm:
			got = "alarm: " + o.queue
		case o.queue != "":
			got = "queue: " + o.queue
		case o.same != nil:
			got = "same: " + o.same.ID
		default:
			got = string(o.refuse.code) + " " + o.refuse.next.Sub(now).String() + ": " + o.refuse.why
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, c.want)
		}
	}
}

// Whoever is told when to come back may ask then, and the reading of a clock
// with minutes is never too early.
func TestNextIsNotTooEarly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Rules{}.withDefaults()
		s := situation{
			now:     start,
			request: muster.UnbanRequest{Source: source("1.2.3.4"), Address: addr("1.2.3.4"), Requester: addr("1.2.3.4"), Proof: muster.ProofSameAddress},
			since:   start,
			past:    muster.UnbanHistory{Rounds: rapid.IntRange(1, 12).Draw(t, "rounds")},
		}
		last := muster.UnbanRequest{State: muster.UnbanGranted, Decided: start.Add(-time.Duration(rapid.Int64Range(1, int64(400*day)).Draw(t, "ago")))}
		s.past.Last = &last
		o := r.decide(s)
		if o.grant {
			return
		}
		if o.refuse == nil || !o.refuse.next.After(s.now) {
			t.Fatalf("got %+v", o)
		}
		said := o.refuse.why[strings.Index(o.refuse.why, "from 20")+5:]
		at, err := time.Parse("2006-01-02 15:04 MST", strings.TrimSuffix(said, " on"))
		if err != nil || at.Before(o.refuse.next) || at.Sub(o.refuse.next) >= time.Minute {
			t.Fatalf("%q is not the minute after %s: %v", said, o.refuse.next, err)
		}
		s.now = o.refuse.next
		if o := r.decide(s); !o.grant {
			t.Fatalf("at that time: %+v", o)
		}
	})
}
