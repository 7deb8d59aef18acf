package simulate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Sample is a measure of one run: a number of cases among others, or a value of
// one case. Of no cases there is no value.
type Sample struct{ Num, Den float64 }

// Value returns Num / Den; NaN when nothing was there to be measured.
func (s Sample) Value() float64 {
	if s.Den == 0 {
		return math.NaN()
	}
	return s.Num / s.Den
}

// Samples holds one sample per measure, in the order of measures.
type Samples [measureCount]Sample

func (s *Samples) put(name string, num, den float64) {
	i, ok := measureNamed(name)
	if !ok {
		panic("simulate: no measure " + name)
	}
	if den == 0 || math.IsNaN(num) {
		return
	}
	s[i] = Sample{num, den}
}

// measure is one number that is taken.
type measure struct {
	name   string
	title  string
	unit   unit
	higher bool // is better
	over   over // how the runs of several seeds become the number that is held against the target
}

type unit uint8

const (
	number unit = iota
	ratio
	secondsUnit
	hours
)

type over uint8

const (
	median over = iota
	pooled      // cases of all runs together
	worst       // of all runs
	total       // of all runs
)

const measureCount = 14

var measures = [measureCount]measure{
	{name: "canaries_published", title: "canaries of the engine ever published", over: total},
	{name: "benign_published_rate", title: "good addresses nobody slandered, of all publications", unit: ratio, over: pooled},
	{name: "target_published_rate", title: "slandered good addresses that were published", unit: ratio, over: pooled},
	{name: "exposed_within_h", title: "last liar of weight exposed (rank 0) after its first lie", unit: hours, over: worst},
	{name: "exposed_share", title: "liars of weight exposed by the end", unit: ratio, higher: true, over: pooled},
	{name: "third_report_to_list_s", title: "attacker seen by 3 watchers: third report to list, median", unit: secondsUnit},
	{name: "first_report_to_list_s", title: "attacker seen by 3 watchers: first report to list, median", unit: secondsUnit},
	{name: "blocked_share_of_oracle", title: "attacks blocked, of those that an oracle's list blocks", unit: ratio, higher: true},
	{name: "blocked_share", title: "attacks blocked, of all", unit: ratio, higher: true},
	{name: "rank_lost", title: "ranks lost by the worst hit of the bombed watchers, mean over the days", over: worst},
	{name: "relisted_after_s", title: "unbanned attacker attacks again: to list, median", unit: secondsUnit},
	{name: "canaries_found", title: "canaries that the adversary found out", over: median},
	{name: "list_lines", title: "lines of the list, at most", over: worst},
	{name: "reports", title: "reports folded and judged", over: total},
}

func measureNamed(name string) (int, bool) {
	i := slices.IndexFunc(measures[:], func(m measure) bool { return m.name == name })
	return i, i >= 0
}

func measureNames() []string {
	names := make([]string, len(measures))
	for i := range measures {
		names[i] = measures[i].name
	}
	return names
}

// combine returns the number for a measure over the runs of several seeds.
func (m *measure) combine(how over, samples []Sample) float64 {
	var values []float64
	sum := Sample{}
	for _, s := range samples {
		if v := s.Value(); !math.IsNaN(v) {
			values = append(values, v)
			sum.Num += s.Num
			sum.Den += s.Den
		}
	}
	if len(values) == 0 {
		return math.NaN()
	}
	slices.Sort(values)
	switch how {
	case pooled:
		return sum.Value()
	case total:
		return sum.Num
	case worst:
		if m.higher {
			return values[0]
		}
		return values[len(values)-1]
	case median:
	}
	half := len(values) / 2
	if len(values)%2 == 0 {
		return (values[half-1] + values[half]) / 2
	}
	return values[half]
}

// meets reports whether a value is on the good side of a target.
func (m *measure) meets(value, target float64) bool {
	if m.higher {
		return value >= target
	}
	return value <= target
}

// write puts a value in words.
func (m *measure) write(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	switch m.unit {
	case ratio:
		if v != 0 && math.Abs(v) < 0.01 {
			return strconv.FormatFloat(v*100, 'g', 2, 64) + " %"
		}
		return strconv.FormatFloat(v*100, 'f', 1, 64) + " %"
	case secondsUnit:
		switch {
		case v < 120:
			return strconv.FormatFloat(v, 'f', 0, 64) + " s"
		case v < 2*hourSeconds:
			return strconv.FormatFloat(v/60, 'f', 0, 64) + " min"
		}
		return strconv.FormatFloat(v/hourSeconds, 'f', 1, 64) + " h"
	case hours:
		return strconv.FormatFloat(v, 'f', 1, 64) + " h"
	case number:
	}
	return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64)
}

// Values are numbers by measure; those that were not measured are left out.
type Values [measureCount]float64

// MarshalJSON writes the values in the order of the measures.
func (v Values) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	err := v.fields(&b, false)
	b.WriteByte('}')
	return b.Bytes(), err
}

func (v Values) fields(b *bytes.Buffer, comma bool) error {
	for i, x := range v {
		if math.IsNaN(x) {
			continue
		}
		if comma {
			b.WriteByte(',')
		}
		comma = true
		n, err := json.Marshal(math.Round(x*1e6) / 1e6)
		if err != nil {
			return fmt.Errorf("%s is %v: %w", measures[i].name, x, err)
		}
		fmt.Fprintf(b, "%q:%s", measures[i].name, n)
	}
	return nil
}
