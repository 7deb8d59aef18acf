package muster

import (
	"net/netip"
	"time"
)

// UnbanState says how a request to be taken off the community list stands.
type UnbanState string

// The states. A request that is not waiting never changes its state again.
const (
	UnbanWaiting   UnbanState = "waiting"   // in the operators' queue
	UnbanGranted   UnbanState = "granted"   // what was reported before Decided no longer counts
	UnbanRefused   UnbanState = "refused"   // by an operator
	UnbanWithdrawn UnbanState = "withdrawn" // the source left the list by itself, or a better request took its place
)

// Valid reports whether s is one of the states.
func (s UnbanState) Valid() bool {
	switch s {
	case UnbanWaiting, UnbanGranted, UnbanRefused, UnbanWithdrawn:
		return true
	}
	return false
}

// UnbanProof says why whoever asks is believed to have the address; "" is that
// nothing proves it.
type UnbanProof string

// The proofs.
const (
	ProofSameAddress UnbanProof = "same-address" // the request came from there (a v6 address: from its /64)
	ProofOperator    UnbanProof = "operator"     // an operator vouched for it
)

// UnbanRequest is somebody's request that a source be taken off the community
// list.
type UnbanRequest struct {
	ID        string     // UUIDv7
	Source    Source     // what is on the list: the address, or a range around it
	Address   netip.Addr // that the request is about, in Source
	Requester netip.Addr // that the request came from
	Contact   string     // how to reach who asks, "" for not said
	Text      string     // what they say, "" for nothing
	Proof     UnbanProof
	State     UnbanState
	Requested time.Time // UTC, whole microseconds
	Decided   time.Time // zero while it waits
	By        string    // who decided: a user, or "" for the rules
	Reason    string    // why it waits, or was decided as it was; who asked gets to read it
	// Round counts the source's requests that were granted, and those with proof
	// that were refused, this one included, as far back as the rules remember;
	// 0 while it waits.
	Round int
	// GraceUntil is until when it takes twice as much to list the source again;
	// zero unless granted.
	GraceUntil time.Time
	Delivered  bool // the judge knows that it was granted
}

// Line is who is behind a source: a v4 address itself, all of a v6 address's
// /64, a range itself. Who asks more and more often is counted by it.
func (r UnbanRequest) Line() Source { return SourceFromPrefix(r.Source.Group()) }

// Own reports whether the listing is of the address, or of its line, rather than
// of a range that others have addresses in too.
func (r UnbanRequest) Own() bool { return r.Source.Group() == SourceFromAddr(r.Address).Group() }

// Network is the source's /24 or /48, or the source itself when it is wider:
// requests for many addresses of it are counted together.
func (r UnbanRequest) Network() Source { return around(r.Source.Prefix(), 24, 48) }

// Asker is the requester's /24 or /64: requests from it are counted together.
func (r UnbanRequest) Asker() Source {
	return around(SourceFromAddr(r.Requester).Prefix(), 24, 64)
}

// around widens p to v4 or v6 bits.
func around(p netip.Prefix, v4, v6 int) Source {
	if !p.IsValid() {
		return Source{}
	}
	bits := v6
	if p.Addr().Is4() {
		bits = v4
	}
	return SourceFromPrefix(netip.PrefixFrom(p.Addr(), min(p.Bits(), bits)))
}

// UnbanSince says how far back an UnbanHistory looks.
type UnbanSince struct{ Rounds, Network, Asker, All time.Time }

// UnbanHistory is what was before a request, as far as it matters for it.
type UnbanHistory struct {
	Open    *UnbanRequest // waits for the same source; nil = none
	Last    *UnbanRequest // the line's last of those that Rounds counts; nil = none
	Rounds  int           // granted to the line, or with proof and refused, since Rounds
	Network int           // granted within the source's Network since Network
	Asker   int           // made by the Asker since Asker, in whatever state now
	All     int           // granted to anybody since All
	Waiting int           // in the operators' queue
}

// UnbanQuery selects requests; zero fields select all.
type UnbanQuery struct {
	ID        string
	State     UnbanState
	Source    Source // exactly this one
	Address   netip.Addr
	Untold    bool   // granted, and not Delivered
	After     string // the last id of the page before
	Limit     int    // 1 to 1,000; anything else means 1,000
	LastFirst bool   // newest first, instead of oldest; After goes on towards older ones then
}
