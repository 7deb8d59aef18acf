package replay

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"text/tabwriter"

	"muster/internal/tailor"
)

// Hits holds a mean per reader and day for every length of list, under the
// names hits_100 and so on.
type Hits map[string]float64

// Gain is how many hits per reader and day ours has over a baseline: the mean,
// and the interval that holds it with 95 % if other days were drawn (bootstrap
// over days).
type Gain struct {
	Mean float64 `json:"mean"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Next compares the methods on some days.
type Next struct {
	Days            int             `json:"days"`
	Ours            Hits            `json:"ours"`
	PlainCount      Hits            `json:"plain_count"`
	LocalCount      Hits            `json:"local_count"`
	Decay           Hits            `json:"decay"`
	SimilarityDecay Hits            `json:"similarity_decay"`
	Ceiling         float64         `json:"ceiling"` // share of those who came that were seen anywhere before
	GainPlainCount  map[string]Gain `json:"gain_over_plain_count"`
	GainLocalCount  map[string]Gain `json:"gain_over_local_count"`
	GainDecay       map[string]Gain `json:"gain_over_decay"`
	GainSimilarity  map[string]Gain `json:"gain_over_similarity_decay"`
}

// Result is what a replay measured. Its JSON form is what `muster replay --json`
// prints.
type Result struct {
	Format   Format `json:"format"`
	Events   int    `json:"events"`
	Skipped  int    `json:"skipped"`
	Sources  int    `json:"sources"`
	Sensors  int    `json:"sensors"`
	Readers  int    `json:"readers"`
	FirstDay string `json:"first_day"`
	LastDay  string `json:"last_day"`
	FitDays  int    `json:"fit_days"`
	N        []int  `json:"n"`

	Next                        // on the days after those to fit on
	First    Next               `json:"fit_days_result"` // on the days to fit on, for comparison
	Better   bool               `json:"better_at_every_n"`
	Replaced map[string]float64 `json:"replaced_per_day"` // share of a list's entries, by hits_N's names
	Weights  tailor.Weights     `json:"weights"`

	// Online, on the same days as Next. Times are of the recording.
	ListLimit      int     `json:"list_limit"`
	EventsOnline   int     `json:"events_online"`
	EventsBlocked  int     `json:"events_blocked"`
	BlockedRate    float64 `json:"events_blocked_rate"`
	FirstContacts  int     `json:"first_contacts"`
	StoppedAtFirst int     `json:"attackers_stopped_at_first_contact"`
	StoppedRate    float64 `json:"attackers_stopped_at_first_contact_rate"`
	ListSize       float64 `json:"list_size"` // mean
	ListSizeMax    int     `json:"list_size_max"`
	Listings       int     `json:"listings"`
	Precision      float64 `json:"precision"` // of Listings: seen again by any sensor within 7 days
}

func (n *nextDay) result(o *online) *Result {
	rec := n.rec
	r := &Result{
		Format: rec.Format, Events: len(rec.Events), Skipped: rec.Skipped, Sources: len(rec.Sources),
		Sensors: len(rec.Victims), Readers: len(n.readers),
		FirstDay: rec.date(0), LastDay: rec.date(rec.Days() - 1), FitDays: n.fit, N: n.cfg.N,
		Next: n.compare(n.fit, rec.Days()), First: n.compare(n.warm, n.fit),
		Better: true, Replaced: map[string]float64{}, Weights: n.weights,
		ListLimit: n.cfg.Size, EventsOnline: o.events, EventsBlocked: o.blocked, BlockedRate: share(o.blocked, o.events),
		FirstContacts: o.contacts, StoppedAtFirst: o.stopped, StoppedRate: share(o.stopped, o.contacts),
		ListSizeMax: o.sizeMax, Listings: o.listings, Precision: share(o.right, o.listings),
	}
	if o.samples > 0 {
		r.ListSize = o.sizes / float64(o.samples)
	}
	for k, size := range n.cfg.N {
		name := hitsName(size)
		r.Replaced[name] = mean(n.churn[k][n.fit:])
		for _, base := range []Hits{r.PlainCount, r.LocalCount, r.Decay, r.SimilarityDecay} {
			r.Better = r.Better && r.Ours[name] > base[name]
		}
	}
	return r
}

func share(part, of int) float64 {
	if of == 0 {
		return 0
	}
	return float64(part) / float64(of)
}

func hitsName(size int) string { return "hits_" + strconv.Itoa(size) }

// compare sums the days from first to before last up.
func (n *nextDay) compare(first, last int) Next {
	hits := func(m method) Hits {
		h := Hits{}
		for k, size := range n.cfg.N {
			h[hitsName(size)] = mean(n.hits[m][k][first:last])
		}
		return h
	}
	gain := func(m method) map[string]Gain {
		g := map[string]Gain{}
		for k, size := range n.cfg.N {
			diff := make([]float64, last-first)
			for i := range diff {
				diff[i] = n.hits[ours][k][first+i] - n.hits[m][k][first+i]
			}
			g[hitsName(size)] = bootstrap(diff)
		}
		return g
	}
	return Next{
		Days: last - first, Ours: hits(ours), PlainCount: hits(plainCount), LocalCount: hits(localCount),
		Decay: hits(decay), SimilarityDecay: hits(similarityDecay), Ceiling: mean(n.known[first:last]),
		GainPlainCount: gain(plainCount), GainLocalCount: gain(localCount), GainDecay: gain(decay), GainSimilarity: gain(similarityDecay),
	}
}

// bootstrap draws as many days as there are, with replacement, many times, from
// a fixed seed.
func bootstrap(days []float64) Gain {
	const draws = 2000
	rng := rand.New(rand.NewPCG(1, 2))
	means := make([]float64, draws)
	for i := range means {
		sum := 0.0
		for range days {
			sum += days[rng.IntN(len(days))]
		}
		means[i] = sum / float64(len(days))
	}
	slices.Sort(means)
	at := func(q float64) float64 { return means[int(math.Round(q*(draws-1)))] }
	return Gain{Mean: mean(days), Low: at(0.025), High: at(0.975)}
}

// WriteTable writes the result as text for people.
func (r *Result) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%d events of %d sources at %d sensors, %s to %s (%s); %d skipped.\n",
		r.Events, r.Sources, r.Sensors, r.FirstDay, r.LastDay, r.Format, r.Skipped)
	fmt.Fprintf(w, "\nNext-day hits per reader, %d days after %d days to fit on:\n\n", r.Days, r.FitDays)
	fmt.Fprint(t, "list of\t")
	for _, size := range r.N {
		fmt.Fprintf(t, "%d\t", size)
	}
	fmt.Fprintln(t)
	for _, line := range []struct {
		name string
		hits Hits
		gain map[string]Gain
	}{
		{"Muster", r.Ours, nil},
		{"plain count", r.PlainCount, r.GainPlainCount},
		{"local count", r.LocalCount, r.GainLocalCount},
		{"decay", r.Decay, r.GainDecay},
		{"similarity × decay", r.SimilarityDecay, r.GainSimilarity},
	} {
		fmt.Fprint(t, line.name, "\t")
		for _, size := range r.N {
			fmt.Fprintf(t, "%.1f\t", line.hits[hitsName(size)])
		}
		fmt.Fprintln(t)
		if line.gain == nil {
			continue
		}
		fmt.Fprint(t, "Muster's gain, 95 %\t")
		for _, size := range r.N {
			g := line.gain[hitsName(size)]
			fmt.Fprintf(t, "%+.1f … %+.1f\t", g.Low, g.High)
		}
		fmt.Fprintln(t)
	}
	fmt.Fprint(t, "replaced per day\t")
	for _, size := range r.N {
		fmt.Fprintf(t, "%.0f %%\t", 100*r.Replaced[hitsName(size)])
	}
	fmt.Fprintln(t)
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, `
%.0f %% of those who come to a reader were seen anywhere before.

Online, lists of at most %d (mean %.0f):
  events blocked                       %d of %d (%.1f %%)
  attackers stopped at first contact   %d of %d (%.1f %%)
  listed and seen again within 7 days  %.1f %% of %d
`, 100*r.Ceiling, r.ListLimit, r.ListSize, r.EventsBlocked, r.EventsOnline, 100*r.BlockedRate,
		r.StoppedAtFirst, r.FirstContacts, 100*r.StoppedRate, 100*r.Precision, r.Listings)
	return err
}
