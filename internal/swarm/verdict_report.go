package swarm

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// VerdictResult is what RunVerdict measured. Its JSON form is what `muster bench
// verdict --json` prints; fields that nobody could measure are null. Latencies
// are from the answer to the report that convicts to the end of the first pull
// that names the attacker.
type VerdictResult struct {
	Kind Kind `json:"kind"`

	P50    float64 `json:"p50_ms"`
	P95    float64 `json:"p95_ms"`
	P99    float64 `json:"p99_ms"`
	Max    float64 `json:"max_ms"`
	Seen   int64   `json:"seen"`   // attackers that a pull named
	Missed int64   `json:"missed"` // attackers that none did in time

	Rate     float64 `json:"rate"` // acknowledged signals per second beside them
	Signals  int64   `json:"signals"`
	Pulls    int64   `json:"pulls"`
	Editions int64   `json:"editions"` // pulls whose answer was another than before
	List     int     `json:"list"`     // addresses in the last one

	Errors     int64  `json:"errors"`
	FirstError string `json:"first_error,omitempty"`

	ServerCPU *float64 `json:"server_cpu_s"`     // while measuring
	ServerRSS *int64   `json:"server_rss_bytes"` // peak since the server started
	ClientCPU *float64 `json:"client_cpu_s"`     // this process's, while measuring

	Seconds       float64  `json:"duration_s"` // really measured
	Attackers     int      `json:"attackers"`
	Voices        int      `json:"voices"`
	Pace          int      `json:"pace"`
	Batch         int      `json:"batch"`
	Watchers      int      `json:"watchers"`
	Organisations int      `json:"organisations"` // that report
	Poll          float64  `json:"poll_ms"`
	Ready         *float64 `json:"ready_ms,omitempty"` // from start to ready, of a server started for the run
}

// WriteTable writes the result as a Markdown table with what was asked for
// beside it.
func (r *VerdictResult) WriteTable(w io.Writer) error {
	rows := [][]string{
		{"verdict", "here", "asked"},
		{"visible in a pull: p50 / p95 ms", millis(r.P50) + " / " + millis(r.P95), ""},
		{"p99 / max ms", millis(r.P99) + " / " + millis(r.Max), "1000"},
		{"attackers seen / missed", strconv.FormatInt(r.Seen, 10) + " / " + strconv.FormatInt(r.Missed, 10), "none missed"},
		{"beside so many signals", thousands(r.Rate) + "/s", thousands(float64(r.Pace)) + "/s"},
		{"errors", strconv.FormatInt(r.Errors, 10), "0"},
	}
	if err := writeTable(w, rows); err != nil {
		return err
	}
	_, err := io.WriteString(w, r.notes())
	return err
}

func (r *VerdictResult) notes() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d machines of %d organisations reported in batches of %d for %.1f s; %d others convicted each attacker.\n",
		r.Watchers, r.Organisations, r.Batch, r.Seconds, r.Voices)
	fmt.Fprintf(&b, "A machine of another organisation pulled every %.0f ms: %d pulls, of which %d had something new; at the end a list of %d addresses.\n",
		r.Poll, r.Pulls, r.Editions, r.List)
	load := Result{Seconds: r.Seconds}
	fmt.Fprintf(&b, "Server %s, peak RSS %s; generator %s.\n", load.cores(r.ServerCPU), megabytes(r.ServerRSS), load.cores(r.ClientCPU))
	if r.Ready != nil {
		fmt.Fprintf(&b, "Ready %.0f ms after start.\n", *r.Ready)
	}
	if r.FirstError != "" {
		fmt.Fprintf(&b, "First error: %s\n", r.FirstError)
	}
	return b.String()
}
