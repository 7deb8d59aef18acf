package swarm

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Result is what a run measured. Its JSON form is what `muster bench --json`
// prints; fields that nobody could measure are null.
type Result struct {
	Kind   Kind    `json:"kind"`
	Rate   float64 `json:"rate"` // in Unit
	Unit   string  `json:"unit"` // "signals/s", "pulls/s", "logins/s", "requests/s"
	P50    float64 `json:"p50_ms"`
	P95    float64 `json:"p95_ms"`
	P99    float64 `json:"p99_ms"`
	Max    float64 `json:"max_ms"`
	Errors int64   `json:"errors"` // warm-up included

	FirstError  string `json:"first_error,omitempty"`
	Interrupted bool   `json:"interrupted,omitempty"`

	ServerCPU *float64 `json:"server_cpu_s"`     // while measuring
	ServerRSS *int64   `json:"server_rss_bytes"` // peak since the server started
	ClientCPU *float64 `json:"client_cpu_s"`     // this process's, while measuring

	Seconds     float64 `json:"duration_s"` // really measured
	Requests    int64   `json:"requests"`
	Units       int64   `json:"units"` // what Rate counts
	Received    int64   `json:"received_bytes"`
	Watchers    int     `json:"watchers"`
	Connections int     `json:"connections"`
	Batch       int     `json:"batch,omitempty"`
	List        int     `json:"list,omitempty"`
	Footprints  int     `json:"footprints,omitempty"`

	// Naive is what marshalling and compressing one answer of a pull takes, here in
	// the generator.
	Naive *float64 `json:"naive_cpu_s,omitempty"`

	Ready   *float64 `json:"ready_ms,omitempty"`        // from start to ready, of a server started for the run
	IdleRSS *int64   `json:"idle_rss_bytes,omitempty"`  // of that server before the load
	Backlog *int64   `json:"backlog_entries,omitempty"` // accepted and not yet counted when the load ended
	Drain   *float64 `json:"drain_s,omitempty"`         // until that was none
}

// WriteTable writes the result as a Markdown table of one row, fit for a
// document, and lines for what is not in every run.
func (r *Result) WriteTable(w io.Writer) error {
	err := writeTable(w, [][]string{
		{"kind", "connections", "rate", "p50 ms", "p95 ms", "p99 ms", "max ms", "errors", "server CPU", "server peak RSS", "generator CPU"},
		{
			string(r.Kind), strconv.Itoa(r.Connections), thousands(r.Rate) + " " + r.Unit,
			millis(r.P50), millis(r.P95), millis(r.P99), millis(r.Max), strconv.FormatInt(r.Errors, 10),
			r.cores(r.ServerCPU), megabytes(r.ServerRSS), r.cores(r.ClientCPU),
		},
	})
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, r.notes())
	return err
}

// writeTable writes a Markdown table; the first row is its heading.
func writeTable(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 0, ' ', tabwriter.AlignRight|tabwriter.Debug)
	rule := make([]string, len(rows[0]))
	for i, column := range rows[0] {
		rule[i] = strings.Repeat("-", len(column))
	}
	for _, row := range slices.Insert(rows, 1, rule) {
		for _, cell := range row {
			fmt.Fprint(t, "\t ", cell, " ")
		}
		fmt.Fprintln(t, "\t")
	}
	return t.Flush()
}

// notes is what the table has no column for.
func (r *Result) notes() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d requests in %.1f s by %d watchers", r.Requests, r.Seconds, r.Watchers)
	if r.Batch > 0 {
		fmt.Fprintf(&b, ", %d signals each", r.Batch)
	}
	if r.List > 0 && r.Requests > 0 {
		fmt.Fprintf(&b, ", a list of %d addresses, %d bytes each", r.List, r.Received/r.Requests)
	}
	b.WriteString(".\n")
	if r.Naive != nil && r.ServerCPU != nil && r.Requests > 0 {
		each := *r.ServerCPU / float64(r.Requests)
		fmt.Fprintf(&b, "%.0f µs of server CPU each; to marshal and compress each anew would add %.1f ms, %.0f times as much.\n", each*1e6, *r.Naive*1e3, *r.Naive/each)
	}
	if r.Ready != nil {
		fmt.Fprintf(&b, "Ready %.0f ms after start; idle RSS %s.\n", *r.Ready, megabytes(r.IdleRSS))
	}
	if r.Backlog != nil {
		fmt.Fprintf(&b, "Backlog when the load ended: %d entries", *r.Backlog)
		if r.Drain != nil {
			fmt.Fprintf(&b, ", counted %.1f s later", *r.Drain)
		}
		b.WriteString(".\n")
	}
	if r.Interrupted {
		b.WriteString("Interrupted: these are the figures so far.\n")
	}
	if r.FirstError != "" {
		fmt.Fprintf(&b, "First error: %s\n", r.FirstError)
	}
	return b.String()
}

// cores is CPU time as a number of busy processors.
func (r *Result) cores(cpu *float64) string {
	if cpu == nil || r.Seconds == 0 {
		return "?"
	}
	return fmt.Sprintf("%.2f cores", *cpu/r.Seconds)
}

func megabytes(n *int64) string {
	if n == nil {
		return "?"
	}
	return fmt.Sprintf("%.0f MB", float64(*n)/1e6)
}

// millis has three significant digits.
func millis(ms float64) string {
	switch {
	case ms >= 100:
		return fmt.Sprintf("%.0f", ms)
	case ms >= 10:
		return fmt.Sprintf("%.1f", ms)
	default:
		return fmt.Sprintf("%.2f", ms)
	}
}

// thousands rounds to a whole number with separators.
func thousands(f float64) string {
	s := strconv.FormatInt(int64(math.Round(f)), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
