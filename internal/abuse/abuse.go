// Package abuse keeps a shared Central API alive: it counts what clients ask
// for, bans addresses that ask for too much, tells why, and finds what is
// behind it. What must be decided on every request is in memory; bans, changed
// limits and overrides are kept in the store and told to the other nodes.
//
// The rules are those of package ratelimit, the observations those of package
// misuse; this package gives them time, a memory and company.
package abuse

import (
	"context"
	"net/netip"
	"time"

	"muster"
	"muster/internal/ratelimit"
)

// Store keeps what must outlive a restart, and is shared by all nodes. Writes
// are durable when they return, each in one transaction with its audit entry.
type Store interface {
	// Bans returns those that have not ended at now.
	Bans(ctx context.Context, now time.Time) ([]ratelimit.Ban, error)
	// ChangeBans stores put, each in place of the ban of its range; moves the end
	// of those in extended that are still stored; and deletes the bans of gone.
	ChangeBans(ctx context.Context, put, extended []ratelimit.Ban, gone []netip.Prefix, audit ...muster.AuditEntry) error

	// LimitChanges returns the limits that were changed at run time.
	LimitChanges(ctx context.Context) ([]LimitChange, error)
	PutLimitChange(ctx context.Context, c LimitChange, audit muster.AuditEntry) error
	DeleteLimitChange(ctx context.Context, name string, audit muster.AuditEntry) error // code NotFound

	// Overrides returns those that have not ended at now.
	Overrides(ctx context.Context, now time.Time) ([]Override, error)
	PutOverride(ctx context.Context, o Override, audit muster.AuditEntry) error
	DeleteOverride(ctx context.Context, id string, audit muster.AuditEntry) error // code NotFound
}

// Limit is a limit with where it comes from.
type Limit struct {
	ratelimit.Limit
	Off       bool      // not counted
	Changed   bool      // at run time, in place of the configuration's, or beside them
	ChangedAt time.Time // zero unless Changed
	ChangedBy string
}

// LimitChange is a limit that was changed at run time.
type LimitChange struct {
	Limit ratelimit.Limit
	Off   bool
	At    time.Time
	By    string
}

// Override is an exception with an id.
type Override struct {
	ID        string // UUIDv7
	CreatedAt time.Time
	ratelimit.Override
}

// By says who makes a change, and why.
type By struct {
	User   string // as the API knows them
	Reason string // for whoever reads the audit later
}
