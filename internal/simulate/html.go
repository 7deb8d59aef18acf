package simulate

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
)

//go:embed report.html
var reportText string

var reportPage = template.Must(template.New("report").Parse(reportText))

// block is a scenario on the page.
type block struct {
	*Outcome
	ID    string
	Title string
	Rows  []row
	Plots []template.HTML
	Good  bool
}

// row is a measure on the page.
type row struct {
	Name, Title, Value, Median, Worst, Target, Met string
}

// WriteHTML writes a report with plots: one file that needs no other and runs no
// script, for light and dark screens. command says how it came about.
func (r *Result) WriteHTML(w io.Writer, command string) error {
	page := struct {
		*Result
		Command      string
		Blocks       []block
		Met, Targets int
	}{Result: r, Command: command}
	for i := range r.Scenarios {
		o := &r.Scenarios[i]
		b := block{Outcome: o, ID: fmt.Sprintf("s%d", i), Title: o.Name + o.settingsText(), Good: true}
		for _, p := range o.plots() {
			b.Plots = append(b.Plots, p.figure())
		}
		for k := range measures {
			m := &measures[k]
			if math.IsNaN(o.Values[k]) {
				continue
			}
			target, met := o.judged(k)
			b.Rows = append(b.Rows, row{m.name, m.title, m.write(o.Values[k]), m.write(o.Median[k]), m.write(o.Worst[k]), target, met})
			b.Good = b.Good && met != "NO"
		}
		page.Targets += len(o.Met)
		page.Blocks = append(page.Blocks, b)
	}
	page.Met = page.Targets - r.Missed()
	return reportPage.Execute(w, page)
}
