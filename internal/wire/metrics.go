package wire

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// Metrics is the body of POST /metrics: what an engine consists of.
type Metrics struct {
	Version  string           `json:"apil_version"` // of the engine; "" from SDKs
	Machines []MetricsMachine `json:"machines"`
	Bouncers []MetricsBouncer `json:"bouncers"`
}

// MetricsMachine is a log processor of the sender.
type MetricsMachine struct {
	Name       string `json:"name"`
	Version    string `json:"version"`
	LastUpdate Time   `json:"last_update"`
	LastPush   Time   `json:"last_push"`
}

// MetricsBouncer is a remediation component of the sender.
type MetricsBouncer struct {
	Name     string `json:"custom_name"`
	Type     string `json:"name"`
	Version  string `json:"version"`
	LastPull Time   `json:"last_pull"`
}

// DecodeMetrics reads a metrics report.
func DecodeMetrics(body []byte) (Metrics, error) { return decodeObject[Metrics](body) }

// UsageMetrics is the body of POST /usage-metrics. LAPI is nil when log
// processors or bouncers report to a LAPI; lists are nil when null.
type UsageMetrics struct {
	LAPI                  *UsageLAPI          `json:"lapi"`
	LogProcessors         []UsageLogProcessor `json:"log_processors"`
	RemediationComponents []UsageRemediation  `json:"remediation_components"`
}

// UsageComponent is what every reporting component says.
type UsageComponent struct {
	Version      string        `json:"version"`
	OS           UsageOS       `json:"os"`
	FeatureFlags Words         `json:"feature_flags"`
	StartedAt    Time          `json:"utc_startup_timestamp"` // null from engines, though required by the specification
	Metrics      []UsageWindow `json:"metrics"`               // several when earlier reports failed
}

// UsageOS is the operating system of a component.
type UsageOS struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Family  string `json:"family"`
}

// UsageWindow holds the counters of one reporting window.
type UsageWindow struct {
	Items []UsageItem `json:"items"`
	Meta  struct {
		Seconds float64 `json:"window_size_seconds"`
		End     Time    `json:"utc_now_timestamp"`
	} `json:"meta"`
}

// UsageItem is one counter.
type UsageItem struct {
	Name   string            `json:"name"`
	Unit   string            `json:"unit"`
	Value  float64           `json:"value"`
	Labels map[string]string `json:"labels"`
}

// UsageLAPI is the engine's local API.
type UsageLAPI struct {
	UsageComponent
	ConsoleOptions Words `json:"console_options"`
}

// UsageLogProcessor is a log processor as its LAPI relays it.
type UsageLogProcessor struct {
	UsageComponent
	Name        string               `json:"name"`
	LastPush    Time                 `json:"last_push"`
	LastUpdate  Time                 `json:"last_update"`
	Datasources map[string]int64     `json:"datasources"` // type to count
	HubItems    map[string][]HubItem `json:"hub_items"`   // by kind: "scenarios", "parsers", …
}

// HubItem is an installed hub item.
type HubItem struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Status  string `json:"status"` // "official", "custom" or "tainted"
}

// UsageRemediation is a bouncer.
type UsageRemediation struct {
	UsageComponent
	Name     string `json:"name"`
	Type     string `json:"type"`
	LastPull Time   `json:"last_pull"`
}

// DecodeUsageMetrics reads a usage report. Engines drop a report that is
// answered with 422 and send one that is answered with 400 again for ever.
func DecodeUsageMetrics(body []byte) (UsageMetrics, error) { return decodeObject[UsageMetrics](body) }

// Time is a time that clients send in any form: see ParseTime, or a number of
// seconds since 1970. It is zero when never, absent, null or unreadable, which
// is no error: the rest of a report is worth having.
type Time struct{ time.Time }

// UnmarshalJSON implements json.Unmarshaler; it never fails.
func (t *Time) UnmarshalJSON(raw []byte) error {
	t.Time = time.Time{}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		t.Time, _ = parseTime(text)
		return nil
	}
	const lastSecond = 253402300799 // of the year 9999
	if n, err := strconv.ParseFloat(string(raw), 64); err == nil && n > 0 && n <= lastSecond {
		t.Time = time.Unix(int64(n), 0).UTC()
	}
	return nil
}

// Words is a list of words as engines send them: [""] when there are none, and
// several words joined by commas in one.
type Words []string

// UnmarshalJSON implements json.Unmarshaler.
func (w *Words) UnmarshalJSON(raw []byte) error {
	var texts []string
	if err := json.Unmarshal(raw, &texts); err != nil {
		return err
	}
	*w = nil
	for _, text := range texts {
		for word := range strings.SplitSeq(text, ",") {
			if word = strings.TrimSpace(word); word != "" {
				*w = append(*w, word)
			}
		}
	}
	return nil
}
