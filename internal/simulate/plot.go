package simulate

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
)

// line is one line of a plot.
type line struct {
	label string
	ys    []float64 // NaN = no point
}

// plot is a drawing of lines over days or over delays.
type plot struct {
	name   string // of its file
	title  string
	lines  []line
	xs     []float64
	xTicks []tick
	top    float64 // of the y axis
	yTick  func(float64) string
	from   float64 // when the attack began, NaN = never
}

type tick struct {
	at    float64
	label string
}

// plots draws precision, coverage, trust and delays, each the mean over seeds.
func (o *Outcome) plots() []*plot {
	days := make([]float64, o.Days)
	var ticks []tick
	step := 1
	for _, step = range []int{1, 2, 5, 10, 20, 25, 50, 100, 200, 500} {
		if o.Days/step <= 8 {
			break
		}
	}
	for i := range days {
		days[i] = float64(i + 1)
		if i%step == 0 {
			ticks = append(ticks, tick{float64(i), strconv.Itoa(i)})
		}
	}
	attack := math.NaN()
	if a := o.scenario.Adversary; a.Aim != Nothing {
		attack = float64(a.Attacks)
	}
	share := func(num, den func(*Day) float64) []float64 {
		return o.overDays(func(d *Day) float64 {
			if den(d) == 0 {
				return math.NaN()
			}
			return num(d) / den(d)
		})
	}
	percent := func(y float64) string { return strconv.FormatFloat(100*y, 'f', 0, 64) + " %" }
	listed := func(d *Day) float64 { return float64(d.Listed) }
	events := func(d *Day) float64 { return float64(d.Events) }
	return []*plot{
		{
			name: "precision", title: "Precision: share of the list that are attackers", xs: days, xTicks: ticks, top: 1, yTick: percent, from: attack,
			lines: []line{{"on the list", share(func(d *Day) float64 { return float64(d.Attackers) }, listed)}},
		},
		{
			name: "coverage", title: "Coverage: share of attacks by addresses on the list", xs: days, xTicks: ticks, top: 1, yTick: percent, from: attack,
			lines: []line{
				{"this list", share(func(d *Day) float64 { return float64(d.Blocked) }, events)},
				{"an oracle's", share(func(d *Day) float64 { return float64(d.Oracle) }, events)},
			},
		},
		{
			name: "lines", title: "Lines of the list", xs: days, xTicks: ticks, from: attack,
			lines: []line{{"lines", o.overDays(listed)}},
			yTick: func(y float64) string { return strconv.FormatFloat(y, 'f', 0, 64) },
		},
		{
			name: "trust", title: "Trust: mean weight of a machine's word, by class", xs: days, xTicks: ticks, top: 4, from: attack,
			yTick: func(y float64) string { return strconv.FormatFloat(y, 'f', 1, 64) }, lines: o.trust(),
		},
		o.delayPlot(),
	}
}

// overDays returns the mean over the seeds by day.
func (o *Outcome) overDays(of func(*Day) float64) []float64 {
	ys := make([]float64, o.Days)
	for i := range ys {
		sum, n := 0.0, 0
		for _, t := range o.traces {
			if v := of(&t.Days[i]); !math.IsNaN(v) {
				sum += v
				n++
			}
		}
		ys[i] = math.NaN()
		if n > 0 {
			ys[i] = sum / float64(n)
		}
	}
	return ys
}

func (o *Outcome) trust() (lines []line) {
	for c := range classes {
		there := slices.ContainsFunc(o.traces, func(t *Trace) bool {
			return slices.ContainsFunc(t.Days, func(d Day) bool { return d.Ranks[c] != [6]int{} })
		})
		if there {
			lines = append(lines, line{c.String(), o.overDays(func(d *Day) float64 { return d.Weight[c] })})
		}
	}
	return lines
}

// delayPlot shows which share of attackers was listed within which time.
func (o *Outcome) delayPlot() *plot {
	const steps = 100
	p := &plot{
		name: "delay", title: "Publication delay: share of attackers seen by 3 watchers that are listed within …", top: 1, from: math.NaN(),
		yTick: func(y float64) string { return strconv.FormatFloat(100*y, 'f', 0, 64) + " %" },
		lines: []line{{label: "of the third report"}, {label: "of the first"}},
	}
	last := math.Log10(7 * daySeconds)
	for _, t := range []struct {
		at    float64
		label string
	}{{1, "1 s"}, {10, "10 s"}, {60, "1 min"}, {600, "10 min"}, {hourSeconds, "1 h"}, {6 * hourSeconds, "6 h"}, {daySeconds, "1 d"}, {7 * daySeconds, "7 d"}} {
		p.xTicks = append(p.xTicks, tick{math.Log10(t.at) / last, t.label})
	}
	for i := range steps + 1 {
		x := float64(i) / steps
		p.xs = append(p.xs, x)
		within := math.Pow(10, x*last)
		var third, first Sample
		for _, t := range o.traces {
			third.Num += float64(countUpTo(t.Delays.Third, within))
			third.Den += float64(len(t.Delays.Third))
			first.Num += float64(countUpTo(t.Delays.First, within))
			first.Den += float64(len(t.Delays.First))
		}
		p.lines[0].ys = append(p.lines[0].ys, third.Value())
		p.lines[1].ys = append(p.lines[1].ys, first.Value())
	}
	return p
}

func countUpTo(sorted []float64, limit float64) int {
	n, _ := slices.BinarySearchFunc(sorted, limit, func(x, limit float64) int {
		if x <= limit {
			return -1
		}
		return 1
	})
	return n
}

// The plot's measures, in pixels.
const (
	plotWidth, plotHeight         = 460, 220
	plotLeft, plotRight           = 46, 12
	plotAbove, plotBelow          = 12, 26
	innerWidth, innerHeight       = plotWidth - plotLeft - plotRight, plotHeight - plotAbove - plotBelow
	gridLines                     = 4
	firstX, lastX           int64 = plotLeft, plotLeft + innerWidth
)

// figure returns the plot with its title and legend for a page.
func (p *plot) figure() template.HTML {
	var b strings.Builder
	title := template.HTMLEscapeString(p.title)
	fmt.Fprintf(&b, `<figure><figcaption>%s</figcaption><svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, title, plotWidth, plotHeight, title)
	attack := p.draw(&b)
	b.WriteString(`</svg><p class="legend">`)
	for i, l := range p.lines {
		fmt.Fprintf(&b, `<span><i class="l%d"></i>%s</span>`, i, template.HTMLEscapeString(l.label))
	}
	if attack {
		b.WriteString(`<span><i class="attack"></i>the attack begins</span>`)
	}
	b.WriteString(`</p></figure>`)
	return template.HTML(b.String()) // #nosec G203 -- every text in it is escaped above
}

// fileStyle makes a plot's own file fit light and dark pages.
const fileStyle = `
:root{--page:#fff;--ink:#1d2430;--faint:#667084;--rule:#dfe3ea;--bad:#b3261e;--c0:#1f5fbf;--c1:#c46210;--c2:#8a2f8f}
@media (prefers-color-scheme:dark){:root{--page:#14181f;--ink:#e4e8ee;--faint:#98a2b3;--rule:#303845;--bad:#ff8a80;--c0:#74a9ff;--c1:#f0a35e;--c2:#d78bdc}}
text{fill:var(--faint);font:11px system-ui,sans-serif}text.title{fill:var(--ink);font-weight:600;font-size:12px}
text.y{text-anchor:end}text.x{text-anchor:middle}.page{fill:var(--page)}.grid{stroke:var(--rule)}
path{fill:none;stroke-width:2;stroke-linejoin:round}
.l0{stroke:var(--c0)}.l1{stroke:var(--c1);stroke-dasharray:7 3}.l2{stroke:var(--c2);stroke-dasharray:2 3}.attack{stroke:var(--bad);stroke-dasharray:4 4}
`

// file returns the plot as an SVG file of its own, with title and legend.
func (p *plot) file(scenario string) []byte {
	const titleHeight, legendHeight, letter = 22, 20, 6
	var b strings.Builder
	title := template.HTMLEscapeString(scenario + ": " + p.title)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s"><style>%s</style><rect class="page" width="100%%" height="100%%" rx="8"/>`,
		plotWidth, titleHeight+plotHeight+legendHeight, title, fileStyle)
	fmt.Fprintf(&b, `<text class="title" x="12" y="18">%s</text><g transform="translate(0 %d)">`, title, titleHeight)
	attack := p.draw(&b)
	b.WriteString(`</g>`)
	at, middle := firstX, titleHeight+plotHeight+legendHeight/2-2
	entry := func(class, label string) {
		fmt.Fprintf(&b, `<path class="%s" d="M%d %dh18"/><text x="%d" y="%d">%s</text>`, class, at, middle, at+24, middle+4, template.HTMLEscapeString(label))
		at += 40 + letter*int64(len(label))
	}
	for i, l := range p.lines {
		entry("l"+strconv.Itoa(i), l.label)
	}
	if attack {
		entry("attack", "the attack begins")
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

// Plots calls yield with every plot as an SVG file and a name for it, such as
// calm-coverage, until it returns false.
func (r *Result) Plots(yield func(name string, svg []byte) bool) {
	for i := range r.Scenarios {
		o := &r.Scenarios[i]
		for _, p := range o.plots() {
			if !yield(o.Name+o.settingsText()+"-"+p.name, p.file(o.Name+o.settingsText())) {
				return
			}
		}
	}
}

// draw writes axes and lines, and reports whether the beginning of an attack is
// among them.
func (p *plot) draw(b *strings.Builder) (attack bool) {
	top := p.top
	if top == 0 {
		for _, l := range p.lines {
			for _, y := range l.ys {
				if y > top { // never of NaN
					top = y
				}
			}
		}
		top = max(1, top*1.05)
	}
	from, to := p.xs[0], p.xs[len(p.xs)-1]
	x := func(v float64) float64 { return plotLeft + innerWidth*(v-from)/max(to-from, 1e-9) }
	y := func(v float64) float64 { return plotAbove + innerHeight*(1-min(v, top)/top) }
	for i := range gridLines + 1 {
		v := top * float64(i) / gridLines
		fmt.Fprintf(b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text class="y" x="%d" y="%.1f">%s</text>`,
			firstX, lastX, y(v), y(v), plotLeft-6, y(v)+4, template.HTMLEscapeString(p.yTick(v)))
	}
	for _, t := range p.xTicks {
		if t.at <= to {
			fmt.Fprintf(b, `<text class="x" x="%.1f" y="%d">%s</text>`, x(max(t.at, from)), plotHeight-8, template.HTMLEscapeString(t.label))
		}
	}
	attack = p.from >= from && p.from <= to
	if attack {
		fmt.Fprintf(b, `<line class="attack" x1="%.1f" x2="%.1f" y1="%d" y2="%d"><title>the attack begins</title></line>`,
			x(p.from), x(p.from), plotAbove, plotAbove+innerHeight)
	}
	for i, l := range p.lines {
		fmt.Fprintf(b, `<path class="l%d" d="%s"><title>%s</title></path>`, i, path(p.xs, l.ys, x, y), template.HTMLEscapeString(l.label))
	}
	return attack
}

// path is the line through the points that there are.
func path(xs, ys []float64, x, y func(float64) float64) string {
	var b strings.Builder
	pen := byte('M')
	for i, v := range ys {
		if math.IsNaN(v) {
			pen = 'M'
			continue
		}
		fmt.Fprintf(&b, "%c%.1f %.1f", pen, x(xs[i]), y(v))
		pen = 'L'
	}
	return b.String()
}
