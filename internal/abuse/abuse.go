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
	// ChangeBans stores put, each in place of the ban of its range, unless that is a
	// person's in force and this is not; moves the end of those in extended that
	// are still stored, never to an earlier time; and deletes the bans of gone.
	ChangeBans(ctx context.Context, put, extended []ratelimit.Ban, gone []netip.Prefix, audit ...muster.AuditEntry) error

	// ChangedLimits returns the limits that were changed at run time.
	ChangedLimits(ctx context.Context) ([]ratelimit.Limit, error)
	PutLimit(ctx context.Context, l ratelimit.Limit, audit muster.AuditEntry) error
	DeleteLimit(ctx context.Context, name string, audit muster.AuditEntry) error // code NotFound

	// Overrides returns those that have not ended at now.
	Overrides(ctx context.Context, now time.Time) ([]ratelimit.Override, error)
	PutOverride(ctx context.Context, o ratelimit.Override, audit muster.AuditEntry) error
	DeleteOverride(ctx context.Context, id string, audit muster.AuditEntry) error // code NotFound
}

// By says who makes a change, and why.
type By struct {
	User   string // as the API knows them
	Reason string // for whoever reads the audit later
}
