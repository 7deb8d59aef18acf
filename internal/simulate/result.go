package simulate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// MarshalJSON writes the name, the number of seeds and one field per measure,
// then medians, worst values, targets and whether they were met.
func (o Outcome) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("{")
	write := func(name string, v any) error {
		data, err := json.Marshal(v)
		fmt.Fprintf(&b, "%q:%s", name, data)
		return err
	}
	if err := write("name", o.Name); err != nil {
		return nil, err
	}
	b.WriteByte(',')
	if err := write("seeds", o.Seeds); err != nil {
		return nil, err
	}
	if err := o.Values.fields(&b, true); err != nil {
		return nil, err
	}
	rest := struct {
		About    string             `json:"about"`
		Days     int                `json:"days"`
		Settings []Setting          `json:"settings,omitempty"`
		Median   Values             `json:"median"`
		Worst    Values             `json:"worst"`
		PerSeed  []Values           `json:"per_seed"`
		Targets  map[string]float64 `json:"targets"`
		Met      map[string]bool    `json:"met"`
	}{o.About, o.Days, o.Settings, o.Median, o.Worst, o.perSeed(), o.Targets, o.Met}
	data, err := json.Marshal(rest)
	if err != nil {
		return nil, err
	}
	b.WriteByte(',')
	b.Write(data[1:])
	return b.Bytes(), nil
}

func (o *Outcome) perSeed() []Values {
	all := make([]Values, len(o.traces))
	for k, t := range o.traces {
		for i, s := range t.Samples {
			all[k][i] = s.Value()
		}
	}
	return all
}

// WriteTable writes a table for people: a block per scenario, and at the end
// how many targets were missed.
func (r *Result) WriteTable(w io.Writer) error {
	for i := range r.Scenarios {
		if err := r.Scenarios[i].writeTable(w); err != nil {
			return err
		}
	}
	targets := 0
	for i := range r.Scenarios {
		targets += len(r.Scenarios[i].Met)
	}
	_, err := fmt.Fprintf(w, "%d of %d targets met, over %d seed%s from %d.\n", targets-r.Missed(), targets, r.Seeds, plural(r.Seeds), r.Seed)
	return err
}

func (o *Outcome) writeTable(w io.Writer) error {
	fmt.Fprintf(w, "%s%s: %s\n", o.Name, o.settingsText(), o.About)
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "  measure\tvalue\tmedian\tworst\ttarget\tmet")
	for i := range measures {
		m := &measures[i]
		if math.IsNaN(o.Values[i]) {
			continue
		}
		target, met := o.judged(i)
		fmt.Fprintf(tab, "  %s\t%s\t%s\t%s\t%s\t%s\n", m.name, m.write(o.Values[i]), m.write(o.Median[i]), m.write(o.Worst[i]), target, met)
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

// judged words the target of a measure and whether it was met.
func (o *Outcome) judged(i int) (target, met string) {
	m := &measures[i]
	limit, ok := o.Targets[m.name]
	if !ok {
		return "", ""
	}
	sign := "≤ "
	if m.higher {
		sign = "≥ "
	}
	if o.Met[m.name] {
		return sign + m.write(limit), "yes"
	}
	return sign + m.write(limit), "NO"
}

// settingsText words the swept values.
func (o *Outcome) settingsText() string {
	if len(o.Settings) == 0 {
		return ""
	}
	texts := make([]string, len(o.Settings))
	for i, s := range o.Settings {
		texts[i] = s.Parameter + "=" + s.Value
	}
	return " [" + strings.Join(texts, ", ") + "]"
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}
