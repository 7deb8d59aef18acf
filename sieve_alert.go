package muster

import "time"

// SieveAlert is one alert in the sieve's history, field for field what
// CrowdSieve's API answers. A nil pointer is null there: the engine did not say.
// StartAt, StopAt and CreatedAt are the engine's own texts.
type SieveAlert struct {
	ID              int64   `json:"id"`
	UUID            *string `json:"uuid"`
	MachineID       *string `json:"machineId"` // of the signal: the log processor
	Scenario        string  `json:"scenario"`
	ScenarioHash    *string `json:"scenarioHash"`
	ScenarioVersion *string `json:"scenarioVersion"`
	Message         *string `json:"message"`
	EventsCount     *int64  `json:"eventsCount"` // not on the wire of the Central API, nor the next four
	Capacity        *int64  `json:"capacity"`
	Leakspeed       *string `json:"leakspeed"`
	StartAt         *string `json:"startAt"`
	StopAt          *string `json:"stopAt"`
	CreatedAt       *string `json:"createdAt"`

	ReceivedAt   time.Time `json:"receivedAt"` // arrival at the sieve
	Simulated    *bool     `json:"simulated"`
	Remediation  *bool     `json:"remediation"`
	HasDecisions bool      `json:"hasDecisions"`
	Replicated   bool      `json:"replicated"` // its decisions were pushed to the other LAPIs

	SourceScope    *string `json:"sourceScope"`
	SourceValue    *string `json:"sourceValue"`
	SourceIP       *string `json:"sourceIp"`
	SourceRange    *string `json:"sourceRange"`
	SourceASNumber *string `json:"sourceAsNumber"`
	SourceASName   *string `json:"sourceAsName"`
	SourceCN       *string `json:"sourceCn"`

	GeoCountryCode *string  `json:"geoCountryCode"` // from files on this host, like all geo fields
	GeoCountryName *string  `json:"geoCountryName"`
	GeoCity        *string  `json:"geoCity"`
	GeoRegion      *string  `json:"geoRegion"`
	GeoLatitude    *float64 `json:"geoLatitude"`
	GeoLongitude   *float64 `json:"geoLongitude"`
	GeoTimezone    *string  `json:"geoTimezone"`
	GeoISP         *string  `json:"geoIsp"`
	GeoOrg         *string  `json:"geoOrg"`

	Filtered        bool       `json:"filtered"`      // withheld from the upstream
	FilterReasons   *string    `json:"filterReasons"` // a JSON array as text
	ForwardedToCAPI bool       `json:"forwardedToCapi"`
	ForwardedAt     *time.Time `json:"forwardedAt"`
	LocalAudit      bool       `json:"localAudit"` // made here by what a person did: never forwarded, in no statistics
	Actor           *string    `json:"actor"`      // who that was, at most MaxActor characters
	RawJSON         *string    `json:"rawJson"`    // the signal as it came
}

// MaxActor is how many characters of an actor are kept.
const MaxActor = 256

// SieveRef names one signal by where the sieve's log has it.
type SieveRef struct {
	Partition uint8
	Position  uint64
	Index     int // among the signals of all batches of the record, from 0
}
