package replay

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"muster"
)

// Served is what the judge's list was worth on some days, to those who reported:
// they are taken to read it, and an event of a source that is on it counts as
// blocked.
type Served struct {
	Events         int     `json:"events_online"`
	Blocked        int     `json:"events_blocked"`
	BlockedRate    float64 `json:"events_blocked_rate"`
	Later          int     `json:"later_reports"` // of sources that somebody had reported before
	LaterBlocked   int     `json:"later_reports_blocked"`
	LaterRate      float64 `json:"later_reports_blocked_rate"`
	FirstContacts  int     `json:"first_contacts"` // first events of a source at a machine
	StoppedAtFirst int     `json:"attackers_stopped_at_first_contact"`
	StoppedRate    float64 `json:"attackers_stopped_at_first_contact_rate"`
	ListSize       float64 `json:"list_size"` // mean over time; a range counts as one line beside its members
	ListSizeMax    int     `json:"list_size_max"`
	Listings       int     `json:"listings"`  // of sources, seven days or more before the recording's end
	Precision      float64 `json:"precision"` // of Listings: reported again by anybody within seven days
	right          int

	// Medians, in seconds of the recording's time; null: none, or most were never
	// listed. The first is over those that were listed, the third over all that
	// three machines reported.
	FirstToList   *float64 `json:"first_report_to_list_s"`
	ThirdToList   *float64 `json:"third_report_to_list_s"`
	ThirdReported int      `json:"third_reported"`
	ThirdListed   int      `json:"third_reported_listed"`
}

// Day is what happened on one day of the recording.
type Day struct {
	Date    string `json:"date"`
	Events  int    `json:"events"`
	Blocked int    `json:"events_blocked"`
	Listed  int    `json:"listed"`
	Ended   int    `json:"ended"`
	Size    int    `json:"list_size"` // at its end
}

// CanaryCount is what became of those that are known to be good.
type CanaryCount struct {
	Hits      int `json:"signals"`   // that reported one
	Hit       int `json:"hit"`       // different ones
	Machines  int `json:"machines"`  // that reported one
	Published int `json:"published"` // must be 0
}

// Change is a source, or a range around it, that was listed or was no more.
type Change struct {
	At     time.Time     `json:"at"`
	Source muster.Source `json:"source"`
	Listed bool          `json:"listed"`
	Rule   string        `json:"rule"`
}

// Explained is what the judge thinks of a source at the end, and thought before.
type Explained struct {
	Source  muster.Source  `json:"source"`
	Subject muster.Source  `json:"subject"` // what is judged: the /64 of an IPv6 address
	Known   bool           `json:"known"`   // there is evidence
	Listed  bool           `json:"listed"`
	Canary  bool           `json:"canary"`
	Reasons muster.Reasons `json:"reasons"`
	History []Change       `json:"history"`
}

// Judged is what a run through the judge measured.
type Judged struct {
	Format        Format    `json:"format"`
	Signals       int       `json:"signals"`
	Skipped       int       `json:"skipped"`
	Repeated      int       `json:"repeated"`
	Bad           int       `json:"bad_lines"`
	Sources       int       `json:"sources"`
	Machines      int       `json:"machines"`
	Organisations int       `json:"organisations"`
	Networks      int       `json:"networks"` // AS, or /24 and /48 where none is known; 0 = nobody knows any
	FirstDay      string    `json:"first_day"`
	LastDay       string    `json:"last_day"`
	FitDays       int       `json:"fit_days"`
	Settings      []Setting `json:"settings"`

	Served         // on the days after those to fit on
	First  *Served `json:"fit_days_result"` // on those, for comparison; null: there are none

	Verdicts      int                `json:"verdicts"` // all that were told, also that an end has moved
	Listed        int                `json:"listed"`   // times that a source or a range was listed
	Ended         int                `json:"ended"`
	SourcesListed int                `json:"sources_listed"`
	RangesListed  int                `json:"ranges_listed"`
	Canaries      CanaryCount        `json:"canaries"`
	TrustEvents   map[string]float64 `json:"trust_events"` // by kind; of validations the sum
	Ranks         [6]int             `json:"ranks"`        // machines by rank, at the end

	TrustedOrganisations int     `json:"trusted_organisations"` // at the end
	Newcomer             float32 `json:"newcomer_weight"`       // at the end, points

	Days      []Day       `json:"days"`
	Explained []Explained `json:"explained,omitempty"`
}

// WriteTable writes the result as text for people, beside that of the tailored
// lists unless lists is nil.
func (r *Judged) WriteTable(w io.Writer, lists *Result) error {
	var b strings.Builder
	fmt.Fprintf(&b, "The judge: %d signals about %d sources, by %d machines of %d organisations in %s, %s to %s (%s); %d skipped, %d repeated, %d bad lines.\n",
		r.Signals, r.Sources, r.Machines, r.Organisations, cmp.Or(plural(r.Networks, "network"), "networks that nobody knows (organisations stand for them)"),
		r.FirstDay, r.LastDay, r.Format, r.Skipped, r.Repeated, r.Bad)
	for _, s := range r.Settings {
		fmt.Fprintf(&b, "  %s = %s\n", s.Parameter, s.Value)
	}
	b.WriteString("\n")
	r.writeServed(&b, lists)
	fmt.Fprintf(&b, `
  verdicts             %d; %d sources listed %d times (%s among them), ended %d times
  canaries             %d reported, by %d signals of %s; %d published
`, r.Verdicts, r.SourcesListed, r.Listed, plural(r.RangesListed, "range"), r.Ended,
		r.Canaries.Hit, r.Canaries.Hits, plural(r.Canaries.Machines, "machine"), r.Canaries.Published)
	b.WriteString("  machines by rank     ")
	for rank, n := range r.Ranks {
		fmt.Fprintf(&b, " %d: %d", rank, n)
		if rank < len(r.Ranks)-1 {
			b.WriteByte(',')
		}
	}
	fmt.Fprintf(&b, "\n  trust                 %s trusted, newcomers weigh %.2f points;", plural(r.TrustedOrganisations, "organisation"), r.Newcomer)
	for _, kind := range slices.Sorted(maps.Keys(r.TrustEvents)) {
		fmt.Fprintf(&b, " %s %.0f", kind, r.TrustEvents[kind])
	}
	b.WriteString("\n")
	for i := range r.Explained {
		r.Explained[i].write(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func plural(n int, what string) string {
	switch n {
	case 0:
		if what == "network" {
			return ""
		}
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// writeServed writes what lists were worth, one column for each.
func (r *Judged) writeServed(b *strings.Builder, lists *Result) {
	type column struct {
		name string
		*Served
	}
	columns := []column{{"judge", &r.Served}}
	if r.First != nil {
		columns = append(columns, column{fmt.Sprintf("(first %d days)", r.FitDays), r.First})
	}
	if lists != nil {
		columns = slices.Insert(columns, 0, column{"tailored", &Served{
			Events: lists.EventsOnline, Blocked: lists.EventsBlocked, BlockedRate: lists.BlockedRate,
			FirstContacts: lists.FirstContacts, StoppedAtFirst: lists.StoppedAtFirst, StoppedRate: lists.StoppedRate,
			ListSize: lists.ListSize, ListSizeMax: lists.ListSizeMax, Listings: lists.Listings, Precision: lists.Precision,
		}})
	}
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, cell func(s *Served) string) {
		fmt.Fprint(t, name, "\t")
		for _, c := range columns {
			fmt.Fprint(t, cell(c.Served), "\t")
		}
		fmt.Fprintln(t)
	}
	of := func(part, all int, rate float64) string {
		if all == 0 {
			return "–"
		}
		return fmt.Sprintf("%d of %d (%.1f %%)", part, all, 100*rate)
	}
	fmt.Fprint(t, "online, by the list of\t")
	for _, c := range columns {
		fmt.Fprint(t, c.name, "\t")
	}
	fmt.Fprintln(t)
	row("events blocked", func(s *Served) string { return of(s.Blocked, s.Events, s.BlockedRate) })
	row("of known sources", func(s *Served) string { return of(s.LaterBlocked, s.Later, s.LaterRate) })
	row("stopped at first contact", func(s *Served) string { return of(s.StoppedAtFirst, s.FirstContacts, s.StoppedRate) })
	row("list, mean (most)", func(s *Served) string { return fmt.Sprintf("%.0f (%d)", s.ListSize, s.ListSizeMax) })
	row("listed and seen again within 7 days", func(s *Served) string {
		if s.Listings == 0 {
			return "–"
		}
		return fmt.Sprintf("%.1f %% of %d", 100*s.Precision, s.Listings)
	})
	row("first report to list, median", func(s *Served) string { return seconds(s.FirstToList) })
	row("third report to list, median", func(s *Served) string { return seconds(s.ThirdToList) })
	row("reported by three, and listed", func(s *Served) string {
		return of(s.ThirdListed, s.ThirdReported, share(s.ThirdListed, s.ThirdReported))
	})
	_ = t.Flush() // to memory
}

func seconds(s *float64) string {
	if s == nil {
		return "–"
	}
	return (time.Duration(*s) * time.Second).String()
}

func (x *Explained) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n%s", x.Source)
	if x.Subject != x.Source {
		fmt.Fprintf(b, ", judged as %s", x.Subject)
	}
	r := &x.Reasons
	switch {
	case x.Canary:
		b.WriteString(" is known to be good, and never listed.\n")
	case r.Never != "":
		fmt.Fprintf(b, " is never listed: %s.\n", r.Never)
	case x.Listed:
		b.WriteString(" is listed at the end.\n")
	case x.Known:
		b.WriteString(" is not listed at the end.\n")
	default:
		b.WriteString(" is not known at the end.\n")
	}
	for _, c := range x.History {
		what := "ended"
		if c.Listed {
			what = "listed"
		}
		fmt.Fprintf(b, "  %s  %-6s  %s: %s\n", c.At.Format(time.DateTime), what, c.Source, c.Rule)
	}
	if !x.Known {
		return
	}
	fmt.Fprintf(b, "  %s\n  %d machines from %s to %s; %.1f points of %.1f, %d independent of %d; listed %d times\n",
		r.Rule, r.Machines, time.Unix(r.First, 0).UTC().Format(time.DateTime), time.Unix(r.Last, 0).UTC().Format(time.DateTime),
		r.Support, r.Threshold, r.Independent, r.Needed, r.Convictions)
	for i, name := range r.Scenarios {
		fmt.Fprintf(b, "  %s: %d reports\n", name, r.Reports[i])
	}
}
