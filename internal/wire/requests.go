package wire

import (
	"time"

	"muster"
)

// Credentials is the body of POST /watchers (register) and /watchers/reset.
type Credentials struct {
	MachineID string `json:"machine_id"`
	Password  string `json:"password"`
}

// Login is the body of POST /watchers/login.
type Login struct {
	MachineID string   `json:"machine_id"`
	Password  string   `json:"password"`
	Scenarios []string `json:"scenarios"` // nil when empty, null or absent: says nothing about the footprint
}

// Enrol is the body of POST /watchers/enroll.
type Enrol struct {
	AttachmentKey string   `json:"attachment_key"` // "" with AutoEnroll (cscli console enroll --quick)
	Name          string   `json:"name"`
	Tags          []string `json:"tags"`
	Overwrite     bool     `json:"overwrite"`
	AutoEnroll    bool     `json:"autoenroll"`
}

// DecodeRegister reads a registration. Contents are not validated: see
// muster.ValidateMachineID.
func DecodeRegister(body []byte) (Credentials, error) { return decodeObject[Credentials](body) }

// DecodeReset reads a password reset.
func DecodeReset(body []byte) (Credentials, error) { return decodeObject[Credentials](body) }

// DecodeLogin reads a login.
func DecodeLogin(body []byte) (Login, error) { return decodeObject[Login](body) }

// DecodeEnrol reads an enrolment; empty tags are dropped.
func DecodeEnrol(body []byte) (Enrol, error) { return decodeObject[Enrol](body) }

// DecodeDecisionsDelete reads the uuids of POST /decisions/delete. Empty and
// null entries, which engines send for decisions that have no uuid, are
// dropped. More than maxItems entries are muster.TooLarge.
func DecodeDecisionsDelete(body []byte, maxItems int) ([]string, error) {
	return nil, muster.Errorf(muster.Invalid, "not yet")
}

// DecodeDecisionsSync counts the items of POST /decisions/sync, whatever they
// are. More than maxItems items are muster.TooLarge.
func DecodeDecisionsSync(body []byte, maxItems int) (int, error) {
	return 0, muster.Errorf(muster.Invalid, "not yet")
}

func decodeObject[T any](body []byte) (T, error) {
	var v T
	return v, muster.Errorf(muster.Invalid, "not yet")
}

// Metrics is the body of POST /metrics: what an engine consists of.
type Metrics struct {
	Version  string // of the engine ("apil_version"), "" from SDKs
	Machines []MetricsMachine
	Bouncers []MetricsBouncer
}

// MetricsMachine is a log processor of the sender. Times are zero when never,
// absent or unreadable.
type MetricsMachine struct {
	Name, Version        string
	LastUpdate, LastPush time.Time
}

// MetricsBouncer is a remediation component of the sender.
type MetricsBouncer struct {
	Name     string // "custom_name" on the wire
	Type     string // "name" on the wire
	Version  string
	LastPull time.Time
}

// DecodeMetrics reads a metrics report.
func DecodeMetrics(body []byte) (Metrics, error) {
	return Metrics{}, muster.Errorf(muster.Invalid, "not yet")
}

// UsageMetrics is the body of POST /usage-metrics. LAPI is nil when log
// processors or bouncers report to a LAPI; lists are nil when null.
type UsageMetrics struct {
	LAPI                  *UsageLAPI
	LogProcessors         []UsageLogProcessor
	RemediationComponents []UsageRemediation
}

// UsageComponent is what every reporting component says.
type UsageComponent struct {
	Version      string
	OS           UsageOS
	FeatureFlags []string
	StartedAt    time.Time // zero when null or absent
	Metrics      []UsageWindow
}

// UsageOS is the operating system of a component.
type UsageOS struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Family  string `json:"family"`
}

// UsageWindow holds the counters of one reporting window that ended at At.
type UsageWindow struct {
	At     time.Time
	Length time.Duration
	Items  []UsageItem
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
	ConsoleOptions []string
}

// UsageLogProcessor is a log processor as its LAPI relays it.
type UsageLogProcessor struct {
	UsageComponent
	Name                 string
	LastPush, LastUpdate time.Time
	Datasources          map[string]int64     // type to count
	HubItems             map[string][]HubItem // by kind: "scenarios", "parsers", …
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
	Name     string
	Type     string
	LastPull time.Time // zero when never
}

// DecodeUsageMetrics reads a usage report.
func DecodeUsageMetrics(body []byte) (UsageMetrics, error) {
	return UsageMetrics{}, muster.Errorf(muster.Invalid, "not yet")
}

// ParseTime reads a time as clients write it.
func ParseTime(s string) (time.Time, error) {
	return time.Time{}, muster.Errorf(muster.Invalid, "not yet")
}

// ParseDuration reads a duration as people configure it.
func ParseDuration(s string) (time.Duration, error) {
	return 0, muster.Errorf(muster.Invalid, "not yet")
}
