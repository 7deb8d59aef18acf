package history

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"muster"
)

// loose is a text that may come as a number.
type loose string

func (l *loose) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, (*string)(l))
	}
	if n, err := strconv.ParseFloat(string(data), 64); err == nil {
		*l = loose(strconv.FormatFloat(n, 'f', -1, 64))
	}
	return nil
}

// facts is what is indexed and counted of a signal.
type facts struct {
	UUID      string `json:"uuid"`
	Scenario  string `json:"scenario"`
	MachineID string `json:"machine_id"`
	Source    struct {
		IP    string `json:"ip"`
		Value string `json:"value"`
		CN    string `json:"cn"`
	} `json:"source"`
	Decisions []struct {
		Duration string `json:"duration"`
		Scenario string `json:"scenario"`
	} `json:"decisions"`
}

// full is what is shown of a signal.
type full struct {
	UUID            *string `json:"uuid"`
	MachineID       *string `json:"machine_id"`
	Scenario        string  `json:"scenario"`
	ScenarioHash    *string `json:"scenario_hash"`
	ScenarioVersion *string `json:"scenario_version"`
	Message         *string `json:"message"`
	EventsCount     *int64  `json:"events_count"`
	Capacity        *int64  `json:"capacity"`
	Leakspeed       *string `json:"leakspeed"`
	StartAt         *string `json:"start_at"`
	StopAt          *string `json:"stop_at"`
	CreatedAt       *string `json:"created_at"`
	Simulated       *bool   `json:"simulated"`
	Remediation     *bool   `json:"remediation"`
	Source          struct {
		Scope     *string  `json:"scope"`
		Value     *string  `json:"value"`
		IP        *string  `json:"ip"`
		Range     *string  `json:"range"`
		ASNumber  *loose   `json:"as_number"`
		ASName    *string  `json:"as_name"`
		CN        *string  `json:"cn"`
		Latitude  *float64 `json:"latitude"`
		Longitude *float64 `json:"longitude"`
	} `json:"source"`
	Decisions []struct{} `json:"decisions"`
	Events    []struct {
		Meta []struct {
			Key   string `json:"key"`
			Value string `json:"value"`
		} `json:"meta"`
	} `json:"events"`
}

// decode reads as much of a signal as has the right types: the rest is as if it
// were absent, since engines and SDKs differ.
func decode(raw []byte, into any) error {
	err := json.Unmarshal(raw, into)
	if e := (*json.UnmarshalTypeError)(nil); errors.As(err, &e) {
		return nil
	}
	return err
}

// alertOf returns what is shown of a stored alert; whether it was forwarded or
// replicated by the log is added by others.
func alertOf(id int64, s *stored) muster.SieveAlert {
	var f full
	_ = decode(s.raw, &f) // what cannot be read is null
	raw := string(s.raw)
	a := muster.SieveAlert{
		ID: id, UUID: f.UUID, MachineID: f.MachineID, Scenario: f.Scenario, ScenarioHash: f.ScenarioHash,
		ScenarioVersion: f.ScenarioVersion, Message: f.Message, EventsCount: f.EventsCount, Capacity: f.Capacity,
		Leakspeed: f.Leakspeed, StartAt: f.StartAt, StopAt: f.StopAt, CreatedAt: f.CreatedAt,
		ReceivedAt: fromMillis(s.received), Simulated: f.Simulated, Remediation: f.Remediation,
		HasDecisions: len(f.Decisions) > 0, Replicated: s.flags&flagReplicated != 0,
		SourceScope: f.Source.Scope, SourceValue: f.Source.Value, SourceIP: f.Source.IP, SourceRange: f.Source.Range,
		SourceASNumber: (*string)(f.Source.ASNumber), SourceASName: f.Source.ASName, SourceCN: f.Source.CN,
		GeoCountryCode: orNil(s.geo.CountryCode), GeoCountryName: orNil(s.geo.CountryName), GeoCity: orNil(s.geo.City),
		GeoRegion: orNil(s.geo.Region), GeoLatitude: s.geo.Latitude, GeoLongitude: s.geo.Longitude,
		GeoTimezone: orNil(s.geo.Timezone), GeoISP: orNil(s.geo.ISP), GeoOrg: orNil(s.geo.Organisation),
		Filtered: s.flags&flagFiltered != 0, FilterReasons: orNil(s.reasons),
		LocalAudit: s.flags&flagLocal != 0, Actor: orNil(s.actor), RawJSON: &raw,
	}
	if s.given != "" {
		a.UUID = &s.given
	}
	if a.GeoCountryCode == nil {
		a.GeoCountryCode = f.Source.CN
	}
	if a.GeoLatitude == nil {
		a.GeoLatitude = f.Source.Latitude
	}
	if a.GeoLongitude == nil {
		a.GeoLongitude = f.Source.Longitude
	}
	if s.forwarded != 0 {
		at := fromMillis(s.forwarded)
		a.ForwardedToCAPI, a.ForwardedAt = true, &at
	}
	for _, e := range f.Events {
		for _, m := range e.Meta {
			if a.Actor == nil && m.Key == "actor" {
				a.Actor = orNil(clipActor(m.Value))
			}
		}
	}
	return a
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// clipActor keeps muster.MaxActor characters.
func clipActor(s string) string {
	s = strings.ToValidUTF8(strings.TrimSpace(s), "\uFFFD")
	if utf8.RuneCountInString(s) <= muster.MaxActor {
		return s
	}
	return string([]rune(s)[:muster.MaxActor])
}

// countryOf returns the country that an alert is searched and counted by: that of
// the files on this host, else what the engine said.
func countryOf(geo *muster.SieveGeo, cn string) string {
	if geo.CountryCode != "" {
		return geo.CountryCode
	}
	return cn
}

// addressOf returns the one form of an address, or the zero Addr when text is
// none.
func addressOf(text string) netip.Addr {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return a
}
