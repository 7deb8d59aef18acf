package history

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"muster"
	"muster/internal/wire"
)

// tally is what is counted of the alerts of an hour, of a day, or of a period.
type tally struct {
	alerts, filtered, forwarded, decisions uint64

	min, max   int64               // received; 0 when there are no alerts
	categories [categories]uint64  // of decisions, by duration
	hours      [2][24]uint64       // alerts and decisions by hour of the day, UTC
	counts     map[countKey]uint64 // by name

	// Of periods only: alerts and decisions by day of the week, alerts by day.
	weekdays [2][7]uint64
	trend    map[int64]uint64 // by day since 1970
}

// countKey is what is counted of a name, and its number.
type countKey uint64

const (
	alertsOfScenario countKey = iota << 32
	alertsOfCountry
	decisionsOfScenario
	decisionsOfCountry
)

func (k countKey) name() uint32   { return uint32(k) }
func (k countKey) kind() countKey { return k &^ 0xffffffff }

// categories of decisions by duration.
const categories = 4

var categoryNames = [categories]string{"<1h", "1-24h", "1-7d", ">7d"}

// categoryOf returns the category of a duration as engines write it, -1 when it
// cannot be read.
func categoryOf(duration string) int {
	d, err := wire.ParseDuration(duration)
	switch {
	case err != nil:
		return -1
	case d < time.Hour:
		return 0
	case d < 24*time.Hour:
		return 1
	case d < 7*24*time.Hour:
		return 2
	}
	return 3
}

func newTally() *tally { return &tally{counts: map[countKey]uint64{}} }

func (t *tally) clone() *tally {
	c := *t
	c.counts = maps.Clone(t.counts)
	c.trend = maps.Clone(t.trend)
	return &c
}

// see counts an alert that was received at a time.
func (t *tally) see(received int64) {
	t.alerts++
	if t.min == 0 || received < t.min {
		t.min = received
	}
	t.max = max(t.max, received)
}

// add counts what another has, which is of an hour or a day that starts at an hour
// since 1970.
func (t *tally) add(o *tally, start int64) {
	t.alerts += o.alerts
	t.filtered += o.filtered
	t.forwarded += o.forwarded
	t.decisions += o.decisions
	if o.min != 0 && (t.min == 0 || o.min < t.min) {
		t.min = o.min
	}
	t.max = max(t.max, o.max)
	for i, n := range o.categories {
		t.categories[i] += n
	}
	for what := range o.hours {
		for i, n := range o.hours[what] {
			t.hours[what][i] += n
		}
	}
	for k, n := range o.counts {
		t.counts[k] += n
	}
	day := floorDiv(start, 24)
	weekday := ((day+4)%7 + 7) % 7 // 1970 began on a Thursday
	t.weekdays[0][weekday] += o.alerts
	t.weekdays[1][weekday] += o.decisions
	if t.trend == nil {
		t.trend = map[int64]uint64{}
	}
	if o.alerts > 0 {
		t.trend[day] += o.alerts
	}
}

// subtract takes away what add added, but for when the first and the last came.
func (t *tally) subtract(o *tally, start int64) {
	t.alerts -= o.alerts
	t.filtered -= o.filtered
	t.forwarded -= o.forwarded
	t.decisions -= o.decisions
	for i, n := range o.categories {
		t.categories[i] -= n
	}
	for what := range o.hours {
		for i, n := range o.hours[what] {
			t.hours[what][i] -= n
		}
	}
	for k, n := range o.counts {
		if t.counts[k] -= n; t.counts[k] == 0 {
			delete(t.counts, k)
		}
	}
	day := floorDiv(start, 24)
	weekday := ((day+4)%7 + 7) % 7
	t.weekdays[0][weekday] -= o.alerts
	t.weekdays[1][weekday] -= o.decisions
	if t.trend[day] -= o.alerts; t.trend[day] == 0 {
		delete(t.trend, day)
	}
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// hourOf returns the hour since 1970 of a time in milliseconds.
func hourOf(ms int64) int64 { return floorDiv(ms, 3_600_000) }

// rollupVersion leads the stored form.
const rollupVersion = 1

func (t *tally) encode(p *packer) []byte {
	b := []byte{rollupVersion}
	for _, n := range [...]uint64{t.alerts, t.filtered, t.forwarded, t.decisions, uint64(t.min), uint64(t.max)} {
		b = binary.AppendUvarint(b, n)
	}
	for _, n := range t.categories {
		b = binary.AppendUvarint(b, n)
	}
	for what := range t.hours {
		for _, n := range t.hours[what] {
			b = binary.AppendUvarint(b, n)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(t.counts)))
	last := countKey(0)
	for _, k := range slices.Sorted(maps.Keys(t.counts)) {
		b = binary.AppendUvarint(b, uint64(k-last))
		b = binary.AppendUvarint(b, t.counts[k])
		last = k
	}
	return p.pack(b)
}

func decodeTally(data []byte, p *packer) (*tally, error) {
	plain, err := p.unpack(data, nil)
	if err != nil {
		return nil, err
	}
	c, t := cursor{data: plain}, newTally()
	if v := c.byte(); v != rollupVersion {
		return nil, fmt.Errorf("expected counts of alerts of version %d, got %d: written by a newer release?", rollupVersion, v)
	}
	t.alerts, t.filtered, t.forwarded, t.decisions = c.uvarint(), c.uvarint(), c.uvarint(), c.uvarint()
	t.min, t.max = int64(c.uvarint()), int64(c.uvarint())
	for i := range t.categories {
		t.categories[i] = c.uvarint()
	}
	for what := range t.hours {
		for i := range t.hours[what] {
			t.hours[what][i] = c.uvarint()
		}
	}
	last := countKey(0)
	for range c.uvarint() {
		last += countKey(c.uvarint())
		t.counts[last] = c.uvarint()
		if c.bad {
			break
		}
	}
	if c.bad || len(c.data) > 0 {
		return nil, fmt.Errorf("counts of alerts are damaged")
	}
	return t, nil
}

// keptHours is of how many hours counts are kept apart; what is older is kept by
// day. A month and a day, so that the last 30 days are counted to the hour.
const keptHours = 31 * 24

// rollups are all counts. A tally in it does not change: another takes its place.
type rollups struct {
	hours map[int64]*tally // the last keptHours at least
	all   *tally           // of everything, its days too
}

// named is how often something occurred.
type named struct {
	name  string
	count uint64
}

// top returns what is counted of a kind, most first, at most n; names that are
// empty are left out.
func (t *tally) top(kind countKey, n int, name func(uint32) string) []named {
	var all []named
	for k, count := range t.counts {
		if k.kind() == kind && count > 0 {
			all = append(all, named{name(k.name()), count})
		}
	}
	all = slices.DeleteFunc(all, func(a named) bool { return a.name == "" })
	slices.SortFunc(all, func(a, b named) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.name, b.name))
	})
	return all[:min(n, len(all))]
}

// ScenarioCount is how many alerts, or decisions, a scenario has.
type ScenarioCount struct {
	Scenario string `json:"scenario"`
	Count    uint64 `json:"count"`
}

// CountryCount is how many alerts a country has.
type CountryCount struct {
	Country string `json:"country"`
	Count   uint64 `json:"count"`
}

// NamedCountryCount is how many alerts, or decisions, a country has.
type NamedCountryCount struct {
	CountryCode string `json:"countryCode"`
	CountryName string `json:"countryName"`
	Count       uint64 `json:"count"`
}

// DayCount is how much fell on a day of the week; 0 is Sunday.
type DayCount struct {
	Day     int    `json:"day"`
	DayName string `json:"dayName"`
	Count   uint64 `json:"count"`
}

// HourCount is how much fell in an hour of the day, UTC.
type HourCount struct {
	Hour  int    `json:"hour"`
	Count uint64 `json:"count"`
}

// CategoryCount is how many decisions have a duration.
type CategoryCount struct {
	Category string `json:"category"`
	Count    uint64 `json:"count"`
}

// DateCount is how many alerts came on a day, UTC.
type DateCount struct {
	Date  string `json:"date"`
	Count uint64 `json:"count"`
}

// Stats is what is counted of everything.
type Stats struct {
	Total, Filtered, Forwarded uint64
	TopScenarios               []ScenarioCount // 10
	AllScenarios               []ScenarioCount // 500
	TopCountries               []CountryCount  // 10
	Min, Max                   time.Time       // received, of the alerts that are kept; zero when there are none
}

// Distribution is how alerts of a period spread.
type Distribution struct {
	ByDayOfWeek []DayCount
	ByHourOfDay []HourCount
	ByCountry   []NamedCountryCount // 15
	ByScenario  []ScenarioCount     // 10
	DailyTrend  []DateCount
	Total       uint64
	From, To    time.Time // received; zero when there are none
}

// DecisionStats is how decisions of a period spread.
type DecisionStats struct {
	Total              uint64
	ByDayOfWeek        []DayCount
	ByHourOfDay        []HourCount
	ByDurationCategory []CategoryCount
	TopScenarios       []ScenarioCount     // 10
	ByCountry          []NamedCountryCount // 15
}

// Stats returns what is counted of everything, local audit rows left out.
func (s *Service) Stats() Stats {
	s.cols.mu.RLock()
	defer s.cols.mu.RUnlock()
	t := s.rollups.all
	st := Stats{
		Total: t.alerts, Filtered: t.filtered, Forwarded: t.forwarded,
		AllScenarios: s.scenarios(t, alertsOfScenario, 500),
	}
	st.TopScenarios = st.AllScenarios[:min(10, len(st.AllScenarios))]
	for _, n := range t.top(alertsOfCountry, 10, s.names.name) {
		st.TopCountries = append(st.TopCountries, CountryCount{n.name, n.count})
	}
	lowest, highest := int64(0), int64(0)
	for _, c := range s.cols.chunks {
		if len(c.rows) > 0 {
			if lowest == 0 || c.min < lowest {
				lowest = c.min
			}
			highest = max(highest, c.max)
		}
	}
	st.Min, st.Max = timeOrZero(max(lowest, s.oldest)), timeOrZero(highest)
	if lowest == 0 {
		st.Min = time.Time{}
	}
	return st
}

func timeOrZero(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return fromMillis(ms)
}

// period returns what is counted since a time, to the hour; zero means of
// everything.
func (s *Service) period(since time.Time) *tally {
	s.cols.mu.RLock()
	defer s.cols.mu.RUnlock()
	if since.IsZero() {
		return s.rollups.all.clone()
	}
	t, from := newTally(), hourOf(since.UnixMilli())
	for start, hour := range s.rollups.hours {
		if start >= from {
			t.add(hour, start)
		}
	}
	return t
}

// Distribution returns how the alerts received since a time spread, to the hour;
// since zero means all.
func (s *Service) Distribution(since time.Time) Distribution {
	t := s.period(since)
	d := Distribution{
		ByDayOfWeek: weekdayCounts(&t.weekdays[0]), ByHourOfDay: hourCounts(&t.hours[0]),
		Total: t.alerts, From: timeOrZero(t.min), To: timeOrZero(t.max),
	}
	s.cols.mu.RLock()
	defer s.cols.mu.RUnlock()
	d.ByCountry = s.countries(t, alertsOfCountry)
	d.ByScenario = s.scenarios(t, alertsOfScenario, 10)
	for _, day := range slices.Sorted(maps.Keys(t.trend)) {
		d.DailyTrend = append(d.DailyTrend, DateCount{time.Unix(day*86400, 0).UTC().Format(time.DateOnly), t.trend[day]})
	}
	return d
}

// DecisionStats returns how the decisions of alerts received since a time spread,
// to the hour; since zero means all.
func (s *Service) DecisionStats(since time.Time) DecisionStats {
	t := s.period(since)
	d := DecisionStats{Total: t.decisions, ByDayOfWeek: weekdayCounts(&t.weekdays[1]), ByHourOfDay: hourCounts(&t.hours[1])}
	for i, n := range t.categories {
		if n > 0 {
			d.ByDurationCategory = append(d.ByDurationCategory, CategoryCount{categoryNames[i], n})
		}
	}
	slices.SortStableFunc(d.ByDurationCategory, func(a, b CategoryCount) int { return cmp.Compare(b.Count, a.Count) })
	s.cols.mu.RLock()
	defer s.cols.mu.RUnlock()
	d.TopScenarios = s.scenarios(t, decisionsOfScenario, 10)
	d.ByCountry = s.countries(t, decisionsOfCountry)
	return d
}

func (s *Service) scenarios(t *tally, kind countKey, n int) (counts []ScenarioCount) {
	for _, c := range t.top(kind, n, s.names.name) {
		counts = append(counts, ScenarioCount{c.name, c.count})
	}
	return counts
}

func (s *Service) countries(t *tally, kind countKey) (counts []NamedCountryCount) {
	for _, c := range t.top(kind, 15, s.names.name) {
		counts = append(counts, NamedCountryCount{c.name, cmp.Or(s.names.countries[c.name], c.name), c.count})
	}
	return counts
}

func weekdayCounts(days *[7]uint64) (counts []DayCount) {
	for i, n := range days {
		if n > 0 {
			counts = append(counts, DayCount{i, time.Weekday(i).String()[:3], n})
		}
	}
	return counts
}

func hourCounts(hours *[24]uint64) (counts []HourCount) {
	for i, n := range hours {
		if n > 0 {
			counts = append(counts, HourCount{i, n})
		}
	}
	return counts
}

// loadRollups reads all counts.
func (s *Service) loadRollups(load func(span int64, yield func(muster.SieveRollup) error) error) (rollups, error) {
	r := rollups{hours: map[int64]*tally{}, all: newTally()}
	for _, span := range []int64{24, 1} {
		err := load(span, func(row muster.SieveRollup) error {
			t, err := decodeTally(row.Data, s.packer)
			if err != nil { // it counts nothing: the alerts are there
				s.cfg.Logger.Error("counts of alerts cannot be read and are left out", "start", row.Start, "hours", row.Span, "error", err)
				return nil
			}
			if span == 1 {
				r.hours[row.Start] = t
			}
			r.all.add(t, row.Start)
			return nil
		})
		if err != nil {
			return rollups{}, err
		}
	}
	return r, nil
}
