package swarm

import (
	"fmt"
	"io"
)

// LiveResult is what RunLive measured. Its JSON form is what `muster bench
// sources --json` prints. Sizes are in bytes.
type LiveResult struct {
	Kind    Kind  `json:"kind"`
	Sources int   `json:"sources"`
	Voices  int   `json:"voices"`
	Signals int64 `json:"signals"`

	TakenRate   float64 `json:"taken_rate"`   // signals acknowledged per second
	CountedRate float64 `json:"counted_rate"` // signals judged per second, from the first report to the last verdict
	CPU         float64 `json:"server_cpu_s"`

	// Resident memory: before the reports, at the most, when all was judged, and
	// its growth by source; then of the server that was started again.
	RSSIdle   int64   `json:"rss_idle"`
	RSSPeak   int64   `json:"rss_peak"`
	RSS       int64   `json:"rss"`
	PerSource float64 `json:"rss_per_source"`
	AgainPeak int64   `json:"rss_again_peak"`
	Again     int64   `json:"rss_again"`

	Database int64 `json:"database_bytes"` // its log included
	Stream   int64 `json:"stream_bytes"`

	StopMS    float64 `json:"stop_ms"`
	ReadyMS   float64 `json:"ready_ms"`   // from start to serving
	JudgingMS float64 `json:"judging_ms"` // from start to evidence on all sources in memory
}

// WriteTable writes the result as a Markdown table with what was asked for
// beside it.
func (r *LiveResult) WriteTable(w io.Writer) error {
	mb := func(n int64) string { return megabytes(&n) }
	each := func(n int64) string {
		return fmt.Sprintf("%s, %.0f bytes a source", mb(n), float64(n)/float64(r.Sources))
	}
	rows := [][]string{
		{"sources", "here", "asked"},
		{"live", thousands(float64(r.Sources)), ""},
		{"memory before / peak / judged", mb(r.RSSIdle) + " / " + mb(r.RSSPeak) + " / " + mb(r.RSS), "700 MB"},
		{"growth by source", fmt.Sprintf("%.0f bytes", r.PerSource), ""},
		{"memory after a start, peak / then", mb(r.AgainPeak) + " / " + mb(r.Again), "700 MB"},
		{"database", each(r.Database), ""},
		{"stream", each(r.Stream), ""},
		{"signals taken / judged", thousands(r.TakenRate) + "/s / " + thousands(r.CountedRate) + "/s", "25,000/s"},
		{"stop / serving again / judging again", fmt.Sprintf("%.0f / %.0f / %.0f ms", r.StopMS, r.ReadyMS, r.JudgingMS), ""},
	}
	if err := writeTable(w, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d signals by %d machines of one organisation; the server used %.1f s of CPU for them.\n", r.Signals, r.Voices, r.CPU)
	return err
}
