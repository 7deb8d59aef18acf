package swarm

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// AbuseResult is what RunAbuse measured. Its JSON form is what `muster bench
// abuse --json` prints; fields that nobody could measure are null. Latencies
// are those of the good watchers, from the time when a request was due.
type AbuseResult struct {
	Kind Kind `json:"kind"`

	RefusedRate float64 `json:"refused_rate"` // requests of banned clients refused per second
	Refused     int64   `json:"refused"`
	QuietP50    float64 `json:"quiet_p50_ms"`
	QuietP99    float64 `json:"quiet_p99_ms"`
	StormP50    float64 `json:"storm_p50_ms"`
	StormP99    float64 `json:"storm_p99_ms"`
	P99Ratio    float64 `json:"p99_ratio"` // storm to quiet
	// The 99th percentile of how late the generator was to begin with a request;
	// it is a part of the latencies above and no fault of the server.
	QuietLate    float64 `json:"quiet_late_p99_ms"`
	StormLate    float64 `json:"storm_late_p99_ms"`
	GoodRequests int64   `json:"good_requests"` // measured, of both phases
	LoginsToBan  int     `json:"logins_to_ban"` // the one refused first, of the abuser that was let in longest

	Forged         int64   `json:"forged"` // forged clients that were answered
	ForgedRequests int64   `json:"forged_requests"`
	ForgedRate     float64 `json:"forged_rate"` // requests per second
	ForgedSeconds  float64 `json:"forged_s"`

	// Resident memory of the server in bytes: at the start, around the forged
	// log-ins, and the growth from before them to the peak.
	RSSIdle   *int64 `json:"rss_idle"`
	RSSBefore *int64 `json:"rss_before"`
	RSSPeak   *int64 `json:"rss_peak"`
	RSSAfter  *int64 `json:"rss_after"`
	RSSGrowth *int64 `json:"rss_growth"`

	Errors      int64  `json:"errors"`
	FirstError  string `json:"first_error,omitempty"`
	Interrupted bool   `json:"interrupted,omitempty"` // during the forged log-ins

	ServerCPU *float64 `json:"server_cpu_s"` // during the storm
	ClientCPU *float64 `json:"client_cpu_s"` // this process's, during the storm

	Seconds     float64  `json:"duration_s"` // of the storm, really measured
	Watchers    int      `json:"watchers"`
	Pace        int      `json:"pace"`
	Abusers     int      `json:"abusers"`
	Connections int      `json:"connections"`
	Ready       *float64 `json:"ready_ms,omitempty"` // from start to ready, of a server started for the run
}

// WriteTable writes the result as a Markdown table with what was asked for
// beside it.
func (r *AbuseResult) WriteTable(w io.Writer) error {
	latency := func(p50, p99 float64) string { return millis(p50) + " / " + millis(p99) }
	rows := [][]string{
		{"abuse", "here", "asked"},
		{"refused", thousands(r.RefusedRate) + "/s", "60,000/s"},
		{"good watchers, quiet: p50 / p99 ms", latency(r.QuietP50, r.QuietP99), ""},
		{"good watchers, storm: p50 / p99 ms", latency(r.StormP50, r.StormP99), ""},
		{"p99, storm to quiet", fmt.Sprintf("%.2fx", r.P99Ratio), "2x"},
	}
	if r.ForgedRequests > 0 {
		rows = append(rows, [][]string{
			{"forged clients", thousands(float64(r.Forged)), ""},
			{"their log-ins", thousands(r.ForgedRate) + "/s", ""},
			{"memory before / peak / after", megabytes(r.RSSBefore) + " / " + megabytes(r.RSSPeak) + " / " + megabytes(r.RSSAfter), ""},
			{"growth of memory", megabytes(r.RSSGrowth), "200 MB"},
		}...)
	}
	rows = append(rows, []string{"errors", strconv.FormatInt(r.Errors, 10), "0"})
	if err := writeTable(w, rows); err != nil {
		return err
	}
	_, err := io.WriteString(w, r.notes())
	return err
}

func (r *AbuseResult) notes() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d watchers made %d requests/s; %d addresses were banned at log-in %d and retried over %d connections for %.1f s.\n",
		r.Watchers, r.Pace, r.Abusers, r.LoginsToBan, r.Connections, r.Seconds)
	storm := Result{Seconds: r.Seconds}
	fmt.Fprintf(&b, "During the storm: server %s, generator %s; the generator was late by %s ms (p99), before that by %s ms.\n",
		storm.cores(r.ServerCPU), storm.cores(r.ClientCPU), millis(r.StormLate), millis(r.QuietLate))
	if r.Ready != nil {
		fmt.Fprintf(&b, "Ready %.0f ms after start; idle RSS %s.\n", *r.Ready, megabytes(r.RSSIdle))
	}
	if r.Interrupted {
		b.WriteString("Interrupted: the forged log-ins are those so far.\n")
	}
	if r.FirstError != "" {
		fmt.Fprintf(&b, "First error: %s\n", r.FirstError)
	}
	return b.String()
}
