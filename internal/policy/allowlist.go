// Package policy holds compiled rules that say what may be published or let
// through: allowlists now; filter expressions, globs and canaries beside them.
package policy

import (
	"github.com/gaissmai/bart"

	"muster"
)

// Allowlist is an immutable set of addresses and ranges that are never
// published. The zero Allowlist is empty. It is safe for concurrent use.
type Allowlist struct {
	table   *bart.Table[string]
	entries int
}

// NewAllowlist compiles entries. Expired ones are the caller's to leave out,
// because policy reads no clock.
func NewAllowlist(entries []muster.AllowEntry) *Allowlist {
	a := &Allowlist{table: new(bart.Table[string])}
	for _, e := range entries {
		if e.Source.IsValid() {
			a.table.Insert(e.Source.Prefix(), e.Reason)
			a.entries++
		}
	}
	return a
}

// Len returns the number of entries.
func (a *Allowlist) Len() int {
	if a == nil {
		return 0
	}
	return a.entries
}

// Covers reports whether any address of s is allowlisted, and by which reason:
// a range is refused as soon as one allowlisted address is inside it.
func (a *Allowlist) Covers(s muster.Source) (reason string, ok bool) {
	if a == nil || a.entries == 0 || !s.IsValid() {
		return "", false
	}
	if reason, ok = a.table.LookupPrefix(s.Prefix()); ok {
		return reason, true
	}
	for _, reason := range a.table.Subnets(s.Prefix()) {
		return reason, true
	}
	return "", false
}
