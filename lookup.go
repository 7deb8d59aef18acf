package muster

import "time"

// LookupKey lets a program ask what is known about addresses, over the CTI API,
// the dumps, TAXII and MISP.
type LookupKey struct {
	ID           string // UUIDv7
	Name         string // for people; 1 to 64 bytes
	Organisation string // owner's id; "" = the installation
	Hash         []byte // SHA-256 of the key, which is shown once
	PerDay       int    // most calls of a day (UTC); 0 = no limit
	PerMonth     int    // most calls of a month (UTC); 0 = no limit
	CreatedAt    time.Time
	CreatedBy    string
	RevokedAt    time.Time // zero = in force
}

// LookupUsage is how often a key was used on a day.
type LookupUsage struct {
	Key   string // LookupKey.ID
	Day   int64  // days since 1970, UTC
	Calls int64
}

// ValidateLookupKey checks what people choose of a key. Errors are of code
// Invalid.
func ValidateLookupKey(k LookupKey) error {
	switch {
	case k.Name == "" || len(k.Name) > 64:
		return Errorf(Invalid, "name: expected 1 to 64 bytes, got %q", clip(k.Name))
	case k.PerDay < 0 || k.PerMonth < 0 || k.PerDay > 1e9 || k.PerMonth > 1e9:
		return Errorf(Invalid, "quota: expected 1 to 1000000000 calls, or 0 for no limit, got %d a day and %d a month", k.PerDay, k.PerMonth)
	}
	return nil
}

// RollupKey names what was reported of a source on one day.
type RollupKey struct {
	Partition uint8
	Source    Source
	Day       int64 // days since 1970, UTC
}

// RollupRow is the stored form of a rollup.
type RollupRow struct {
	RollupKey
	Data []byte // internal/cti's own binary form
}
