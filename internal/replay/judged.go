package replay

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"muster"
	"muster/internal/crowd"
	"muster/internal/jury"
	"muster/internal/policy"
)

// JudgeConfig says how recorded signals are judged. Zero values have defaults.
type JudgeConfig struct {
	Settings []Setting        // parameters that are not the default
	Canaries *policy.Canaries // nil: those that every Muster has
	// Taxonomy says what scenarios are worth; nil: the built-in one. Behaviours of
	// honeypots are no scenarios, see priorOfPort.
	Taxonomy *policy.Taxonomy
	// Honeypots takes the sensors of a honeypots' log for honeypots. Otherwise they
	// are machines that have to earn their trust, each of an organisation of its
	// own, in the network of its region: with honeypots alone, whose word needs no
	// trust, most of the judge would have nothing to do.
	Honeypots bool
	FitDays   int           // days at the start that are reported apart; 0: half of them, none of fewer than ListDays
	Delay     time.Duration // from a verdict to the readers' lists; 0: a minute
	Explain   []muster.Source
	Progress  func(Progress)
}

func (c JudgeConfig) withDefaults(days int) (JudgeConfig, error) {
	if c.FitDays == 0 && days >= ListDays {
		c.FitDays = days / 2
	}
	if c.FitDays < 0 || c.FitDays > days-1 {
		return c, fmt.Errorf("expected 0 to %d days to fit on, of %d in the recording, got %d", days-1, days, c.FitDays)
	}
	c.Delay = cmp.Or(c.Delay, time.Minute)
	if c.Canaries == nil {
		c.Canaries = policy.NewCanaries(policy.BuiltInCanaries())
	}
	if c.Taxonomy == nil {
		c.Taxonomy = policy.BuiltInTaxonomy()
	}
	if c.Progress == nil {
		c.Progress = func(Progress) {}
	}
	return c, nil
}

// Judge runs a recording through the server's judge, in the order in which it
// was received, and measures what its one list for all would have been worth to
// those who reported. The result depends on nothing but the recording and the
// configuration.
func Judge(ctx context.Context, rec *Recording, c JudgeConfig) (*Judged, error) {
	c, err := c.withDefaults(rec.Days())
	if err != nil {
		return nil, err
	}
	parameters, err := Parameters(c.Settings)
	if err != nil {
		return nil, err
	}
	j := newJudging(rec, c, parameters)
	cfg := DriverConfig{Parameters: parameters, Taxonomy: c.Taxonomy, Truth: jury.Truth{Canaries: c.Canaries}, Verdict: j.verdict, Event: j.event}
	if rec.Format == Honeypots {
		cfg.Prior = priorOfPort
	}
	d := NewDriver(cfg)
	err = j.run(ctx, d)
	if closed := d.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return nil, err
	}
	return &j.out, nil
}

// priorOfPort is what a packet at a port of a honeypot is taken for: TCP for what
// a service there would have reported, which needs a handshake; UDP for the same
// where the sender may be forged now and then; ICMP for a guess.
func priorOfPort(behaviour string) crowd.Prior {
	protocol, _, _ := strings.Cut(behaviour, "/")
	switch protocol {
	case "TCP":
		return crowd.Prior{Confidence: 2}
	case "UDP":
		return crowd.Prior{Confidence: 2, Spoofable: 1}
	}
	return crowd.Prior{Confidence: 1, Spoofable: 3}
}

// judging takes the measures of a run.
type judging struct {
	cfg      JudgeConfig
	rec      *Recording
	memory   int64            // seconds of silence after which the judge has forgotten a source
	subjects []subject        // in the order in which they were reported
	place    []int32          // of each source of the recording, in subjects
	ids      map[string]int32 // organisations
	blind    bool             // nobody knows any network
	list     listing
	met      map[[2]int32]struct{} // machine and subject
	shooters map[int32]struct{}    // machines that reported canaries
	shot     map[muster.Source]struct{}
	halves   [2]half // before FitDays, and after
	days     []Day
	spent    int64 // up to when the list's size was added up
	now      int64 // of the event that is judged
	out      Judged
}

// subject is what is judged: an address, or the /64 of one.
type subject struct {
	source      muster.Source
	canary      bool
	first, last int64    // reports of an episode, which a long silence ends
	third       int64    // when three machines had reported it, 0 = not yet
	machines    [3]int32 // the first of them
	known       int      // how many of those there are
	listedAt    int64    // first time in this episode, 0 = not yet
	reports     []int64
	listings    []int64
}

// half is what is added up over the days to fit on, or over those after.
type half struct {
	Served
	first, third []float64 // seconds to the list; +Inf: it never came there
	lines        float64   // times seconds
	seconds      float64
}

func newJudging(rec *Recording, c JudgeConfig, p crowd.Parameters) *judging {
	j := &judging{
		cfg: c, rec: rec, memory: int64(p.Listing.Memory / time.Second), place: make([]int32, len(rec.Sources)),
		ids: map[string]int32{}, blind: true, list: listing{since: map[muster.Source]int64{}},
		met: map[[2]int32]struct{}{}, shooters: map[int32]struct{}{}, shot: map[muster.Source]struct{}{},
	}
	places := map[muster.Source]int32{}
	var sources []muster.Source
	for i, s := range rec.Sources {
		j.place[i] = intern(places, &sources, jury.SubjectOf(s))
	}
	j.subjects = make([]subject, len(sources))
	for i, s := range sources {
		_, canary := c.Canaries.Match(s, 0)
		j.subjects[i] = subject{source: s, canary: canary}
	}
	j.list.places = places
	networks := map[uint64]struct{}{}
	var organisations []string
	for _, r := range rec.Reporters {
		intern(j.ids, &organisations, r.Organisation)
		j.blind = j.blind && r.AS == 0 && r.Network == 0
		switch {
		case r.AS != 0:
			networks[uint64(r.AS)] = struct{}{}
		case r.Network != 0:
			networks[r.Network<<32] = struct{}{}
		}
	}
	for _, s := range c.Explain {
		j.out.Explained = append(j.out.Explained, Explained{Source: s, Subject: jury.SubjectOf(s)})
	}
	j.out.Format, j.out.Skipped, j.out.Repeated, j.out.Bad = rec.Format, rec.Skipped, rec.Repeated, rec.Bad
	j.out.Signals, j.out.Sources, j.out.Machines = len(rec.Events), len(sources), len(rec.Victims)
	j.out.Organisations, j.out.Networks = len(organisations), len(networks)
	j.out.FitDays, j.out.Settings, j.out.TrustEvents = c.FitDays, c.Settings, map[string]float64{}
	return j
}

func (j *judging) run(ctx context.Context, d *Driver) error {
	order := make([]int32, len(j.rec.Events))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		return cmp.Compare(j.rec.Events[a].Received, j.rec.Events[b].Received)
	})
	end := j.rec.Events[order[len(order)-1]].Received
	for day := 0; j.rec.start(day) <= end; day++ {
		j.days = append(j.days, Day{Date: j.rec.date(day)})
	}
	j.spent = j.rec.Events[order[0]].Received
	var s muster.Signal
	for n, i := range order {
		if n%4096 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			j.cfg.Progress(Progress{"judging", n, len(order)})
		}
		e := &j.rec.Events[i]
		if err := d.Advance(ctx, e.Received); err != nil {
			return err
		}
		j.meet(e)
		j.signal(e, &s)
		if err := d.Hear(ctx, &s); err != nil {
			return err
		}
	}
	j.spend(end)
	j.finish(end)
	return j.ask(ctx, d)
}

// signal makes of an event what the server would have put into its log.
func (j *judging) signal(e *Event, s *muster.Signal) {
	r := &j.rec.Reporters[e.Reporter]
	*s = muster.Signal{
		Machine: r.Machine, Organisation: r.Organisation, ReporterASN: r.AS, ReporterNet: r.Network,
		At: time.Unix(e.At, 0).UTC(), Received: time.Unix(e.Received, 0).UTC(),
		Source: j.rec.Sources[e.Source], Scenario: j.rec.Behaviours[e.Behaviour], Flags: muster.Counts,
	}
	switch {
	case j.rec.Format == Honeypots:
		s.ReporterNet = uint64(e.Victim) + 1
	case j.blind:
		s.ReporterNet = uint64(j.ids[r.Organisation]) + 1
	}
	if r.Honeypot || j.rec.Format == Honeypots && j.cfg.Honeypots {
		s.Flags |= muster.Honeypot
	}
}

// meet counts what the list would have done about an event.
func (j *judging) meet(e *Event) {
	at := e.Received
	j.spend(at)
	j.now = at
	s := &j.subjects[j.place[e.Source]]
	h, today := j.half(at), &j.days[j.day(at)]
	blocked := j.list.covers(s.source, at-int64(j.cfg.Delay/time.Second))
	if s.last > 0 && at-s.last > j.memory && !j.list.has(s.source) {
		j.endEpisode(s)
	}
	h.Events++
	h.Blocked += one(blocked)
	today.Events++
	today.Blocked += one(blocked)
	if s.first > 0 {
		h.Later++
		h.LaterBlocked += one(blocked)
	}
	pair := [2]int32{e.Victim, j.place[e.Source]}
	if _, known := j.met[pair]; !known {
		j.met[pair] = struct{}{}
		h.FirstContacts++
		h.StoppedAtFirst += one(blocked)
	}
	if s.canary {
		j.out.Canaries.Hits++
		j.shooters[e.Victim] = struct{}{}
		j.shot[s.source] = struct{}{}
	}
	s.hear(e.Victim, at)
}

// hear notes who reported a subject, and when.
func (s *subject) hear(machine int32, at int64) {
	if s.first == 0 {
		s.first = at
	}
	s.last = at
	s.reports = append(s.reports, at)
	if s.known == len(s.machines) || slices.Contains(s.machines[:s.known], machine) {
		return
	}
	s.machines[s.known] = machine
	if s.known++; s.known == len(s.machines) {
		s.third = at
	}
}

// endEpisode notes how long a subject took to the list.
func (j *judging) endEpisode(s *subject) {
	if s.first > 0 && s.listedAt > 0 {
		h := j.half(s.first)
		h.first = append(h.first, float64(s.listedAt-s.first))
	}
	if s.third > 0 && !s.canary {
		h := j.half(s.third)
		h.ThirdReported++
		delay := math.Inf(1)
		if s.listedAt > 0 {
			h.ThirdListed++
			delay = float64(max(0, s.listedAt-s.third))
		}
		h.third = append(h.third, delay)
	}
	s.first, s.third, s.known, s.listedAt = 0, 0, 0, 0
}

// verdict takes note of a verdict of the judge.
func (j *judging) verdict(v *muster.Verdict, at int64) {
	if v.Audience != muster.Network {
		return
	}
	j.out.Verdicts++
	if v.Listed == j.list.has(v.Source) {
		return // its end has moved, or its remedy
	}
	at = max(at, j.spent)
	j.spend(at)
	today := &j.days[j.day(at)]
	if v.Listed {
		j.listed(v, at)
		today.Listed++
	} else {
		j.list.remove(v.Source)
		j.out.Ended++
		today.Ended++
	}
	for i := range j.out.Explained {
		if x := &j.out.Explained[i]; v.Source.Prefix().Overlaps(x.Subject.Prefix()) && v.Source.Prefix().Bits() <= x.Subject.Prefix().Bits() {
			x.History = append(x.History, Change{At: time.Unix(at, 0).UTC(), Source: v.Source, Listed: v.Listed, Rule: v.Reasons.Rule})
		}
	}
}

func (j *judging) listed(v *muster.Verdict, at int64) {
	j.list.add(v.Source, at)
	j.out.Listed++
	h := j.half(at)
	h.ListSizeMax = max(h.ListSizeMax, len(j.list.since))
	if _, canary := j.cfg.Canaries.Match(v.Source, 0); canary || j.cfg.Canaries.Inside(v.Source) {
		j.out.Canaries.Published++
	}
	place, ok := j.list.places[v.Source]
	if !ok {
		j.out.RangesListed++
		return
	}
	s := &j.subjects[place]
	if len(s.listings) == 0 {
		j.out.SourcesListed++
	}
	s.listings = append(s.listings, at)
	if s.listedAt == 0 {
		s.listedAt = at
	}
}

func (j *judging) event(e *muster.TrustEvent) {
	if e.Kind == crowd.Validated.String() {
		j.out.TrustEvents[e.Kind] += e.Amount // there are many, of parts of one
		return
	}
	j.out.TrustEvents[e.Kind]++
}

// spend adds up the size of the list up to a time, by day: the halves begin with
// days.
func (j *judging) spend(at int64) {
	for j.spent < at {
		day, h := j.day(j.spent), j.half(j.spent)
		to := min(at, j.rec.start(day+1))
		h.lines += float64(len(j.list.since)) * float64(to-j.spent)
		h.seconds += float64(to - j.spent)
		h.ListSizeMax = max(h.ListSizeMax, len(j.list.since))
		j.days[day].Size = len(j.list.since)
		j.spent = to
	}
}

func (j *judging) day(at int64) int { return int(at/secondsPerDay - j.rec.firstDay()) }

func (j *judging) half(at int64) *half {
	if at < j.rec.start(j.cfg.FitDays) {
		return &j.halves[0]
	}
	return &j.halves[1]
}

// finish works the measures out.
func (j *judging) finish(end int64) {
	for i := range j.subjects {
		s := &j.subjects[i]
		j.endEpisode(s)
		for _, at := range s.listings {
			if at+again > end {
				continue // the recording ends too soon to tell
			}
			h := j.half(at)
			h.Listings++
			next, _ := slices.BinarySearch(s.reports, at+1)
			h.right += one(next < len(s.reports) && s.reports[next] <= at+again)
		}
	}
	for i := range j.halves {
		j.halves[i].work()
	}
	j.out.Served = j.halves[1].Served
	if j.cfg.FitDays > 0 {
		j.out.First = &j.halves[0].Served
	}
	j.out.Canaries.Hit, j.out.Canaries.Machines = len(j.shot), len(j.shooters)
	j.out.Days = j.days
	j.out.FirstDay, j.out.LastDay = j.days[0].Date, j.days[len(j.days)-1].Date
}

func (h *half) work() {
	h.BlockedRate, h.LaterRate = share(h.Blocked, h.Events), share(h.LaterBlocked, h.Later)
	h.StoppedRate, h.Precision = share(h.StoppedAtFirst, h.FirstContacts), share(h.right, h.Listings)
	h.FirstToList, h.ThirdToList = median(h.first), median(h.third)
	if h.seconds > 0 {
		h.ListSize = h.lines / h.seconds
	}
}

// median is nil when there is nothing, or when most never came there.
func median(all []float64) *float64 {
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	if m := all[(len(all)-1)/2]; !math.IsInf(m, 1) {
		return &m
	}
	return nil
}

// ask asks the judge at the end what it thinks of machines and sources.
func (j *judging) ask(ctx context.Context, d *Driver) error {
	ranks, err := d.Ranks(ctx, j.rec.Victims)
	if err != nil {
		return err
	}
	for _, rank := range ranks {
		j.out.Ranks[rank]++
	}
	population, newcomer, err := d.Network(ctx)
	if err != nil {
		return err
	}
	j.out.TrustedOrganisations, j.out.Newcomer = population.Trusted, newcomer
	for i := range j.out.Explained {
		x := &j.out.Explained[i]
		s, err := d.Explain(ctx, x.Source)
		if err != nil {
			return err
		}
		x.Known, x.Canary, x.Reasons = s.Known, s.Canary, s.Reasons
		x.Listed = j.list.covers(x.Subject, math.MaxInt64)
	}
	return nil
}

// listing is the list for all.
type listing struct {
	since  map[muster.Source]int64
	widths [129]int                // how many there are of each number of bits
	places map[muster.Source]int32 // of subjects; what is listed and is none is a range of them
}

func (l *listing) has(s muster.Source) bool {
	_, ok := l.since[s]
	return ok
}

func (l *listing) add(s muster.Source, at int64) {
	l.since[s] = at
	l.widths[s.Prefix().Bits()]++
}

func (l *listing) remove(s muster.Source) {
	delete(l.since, s)
	l.widths[s.Prefix().Bits()]--
}

// covers reports whether a source, or a range around it, has been listed since a
// time or longer.
func (l *listing) covers(s muster.Source, since int64) bool {
	for bits := s.Prefix().Bits(); bits >= 0; bits-- {
		if l.widths[bits] == 0 {
			continue
		}
		if at, ok := l.since[muster.SourceFromPrefix(netip.PrefixFrom(s.Addr(), bits))]; ok && at <= since {
			return true
		}
	}
	return false
}
