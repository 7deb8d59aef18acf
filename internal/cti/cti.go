// Package cti computes what is told about an address in answer to a lookup, in
// the form of CrowdSec's CTI API (protocol.md 9, features.md 4), from what was
// reported about it day by day and from the network's verdict. It does no I/O.
package cti

import (
	"encoding/json"
	"net/netip"
	"time"
)

// Reputation is an address's standing in a word.
type Reputation string

// The reputations.
const (
	Malicious  Reputation = "malicious"  // listed, or attacks and is believed to
	Suspicious Reputation = "suspicious" // reported by many, or listed for a captcha, but not convicted
	Known      Reputation = "known"      // reported, and that is all
	Safe       Reputation = "safe"       // known to be good: never to be treated as malicious
	Benign     Reputation = "benign"     // a scanner that is known to mean no harm
	Unknown    Reputation = "unknown"    // nobody has reported it for three months
)

// Level grades confidence and background noise.
type Level string

// The levels.
const (
	High   Level = "high"
	Medium Level = "medium"
	Low    Level = "low"
	None   Level = "none"
)

// Item is what is told about an address. The types of its fields are those of
// CrowdSec's clients, which refuse a whole answer for one that differs; lists
// are never null.
type Item struct {
	IP                   string          `json:"ip"`
	Reputation           Reputation      `json:"reputation"`
	Confidence           Level           `json:"confidence"`
	BackgroundNoise      Level           `json:"background_noise"`
	BackgroundNoiseScore *int            `json:"background_noise_score"` // 0 to 10; null: not enough is known
	IPRange              *string         `json:"ip_range"`
	IPRangeScore         int             `json:"ip_range_score"` // 0 to 5
	IPRange24            *string         `json:"ip_range_24"`    // null for IPv6
	IPRange24Reputation  Reputation      `json:"ip_range_24_reputation"`
	IPRange24Score       int             `json:"ip_range_24_score"`
	ASName               *string         `json:"as_name"`
	ASNum                *int            `json:"as_num"`
	Location             Location        `json:"location"`
	ReverseDNS           *string         `json:"reverse_dns"`
	ProxyOrVPN           bool            `json:"proxy_or_vpn"`
	Behaviors            []Label         `json:"behaviors"`
	AttackDetails        []AttackDetail  `json:"attack_details"`
	MitreTechniques      []Label         `json:"mitre_techniques"`
	CVEs                 []string        `json:"cves"`
	Classifications      Classifications `json:"classifications"`
	History              History         `json:"history"`
	TargetCountries      map[string]int  `json:"target_countries"` // percent of the organisations that reported
	Scores               Scores          `json:"scores"`
	References           []Label         `json:"references"`
	State                string          `json:"state,omitempty"`      // of an Item in a list: "validated"
	Expiration           *ZonelessTime   `json:"expiration,omitempty"` // of an Item in a list
}

// Label is a word of a vocabulary with what it means.
type Label struct {
	Name        string `json:"name"`
	Label       string `json:"label"`
	Description string `json:"description"`
}

// AttackDetail is a scenario that was reported.
type AttackDetail struct {
	Label
	References []string `json:"references"`
}

// Location is where an address is, as far as files on the server tell.
type Location struct {
	Country   *string  `json:"country"` // ISO 3166 alpha-2
	City      *string  `json:"city"`
	Latitude  *float64 `json:"latitude"`
	Longitude *float64 `json:"longitude"`
}

// Classifications are what an address is known to be. One false positive says
// that it must not be treated as malicious.
type Classifications struct {
	FalsePositives  []Label `json:"false_positives"`
	Classifications []Label `json:"classifications"`
}

// History is when an address was seen.
type History struct {
	FirstSeen *string `json:"first_seen"` // "2022-05-28T16:00:00+00:00"
	LastSeen  *string `json:"last_seen"`
	FullAge   int     `json:"full_age"` // days from the first sighting to today
	DaysAge   int     `json:"days_age"` // days from the first sighting to the last
}

// Scores are those of four windows that end now.
type Scores struct {
	Overall   Score `json:"overall"` // three months
	LastDay   Score `json:"last_day"`
	LastWeek  Score `json:"last_week"`
	LastMonth Score `json:"last_month"`
}

// Score grades what was seen within a window, each from 0 to 5.
type Score struct {
	Aggressiveness int `json:"aggressiveness"` // how much
	Threat         int `json:"threat"`         // how bad
	Trust          int `json:"trust"`          // how believable
	Anomaly        int `json:"anomaly"`        // what is odd about the device
	Total          int `json:"total"`          // all of it; at most one more than Trust
}

// ZonelessTime is written without its zone, in UTC, because CrowdSec's clients
// read "2022-12-11T14:15:47.553000" and nothing else.
type ZonelessTime time.Time

// MarshalJSON writes microseconds.
func (t ZonelessTime) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Time(t).UTC().Format("2006-01-02T15:04:05.000000"))
}

// Place is where an address is in the network and on the ground; zero fields are
// not known.
type Place struct {
	Country string // ISO 3166 alpha-2
	ASN     uint32
	ASName  string
	Network netip.Prefix // that is routed, or as narrow as the file tells
}
