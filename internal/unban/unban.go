// Package unban lets whoever is on the community list off it: at once when they
// prove that the address is theirs and have not asked too often, else when an
// operator agrees. What comes of a request is decided by Rules, which are pure;
// this package gives them a memory and tells the judge, who then no longer
// counts what was reported before.
package unban

import (
	"context"
	"net/netip"
	"time"

	"muster"
)

// Store keeps requests, for all nodes. Writes are durable when they return.
type Store interface {
	// Unbans returns a page of requests, in order of their ids.
	Unbans(ctx context.Context, q muster.UnbanQuery) ([]muster.UnbanRequest, error)
	// UnbanHistory returns what was before r; only its Source and Requester matter.
	UnbanHistory(ctx context.Context, r muster.UnbanRequest, since muster.UnbanSince) (muster.UnbanHistory, error)
	// ChangeUnbans tells decide what UnbanHistory returns and stores what decide
	// returns, with its audit, all in one transaction: no other node comes between.
	// An error of decide's is returned as it is. A second request that waits for
	// one source is of code Exists.
	ChangeUnbans(ctx context.Context, r muster.UnbanRequest, since muster.UnbanSince,
		decide func(muster.UnbanHistory) (put []muster.UnbanRequest, audit []muster.AuditEntry, err error)) error
	// UnbanDelivered notes that the judge knows of a granted request.
	UnbanDelivered(ctx context.Context, id string) error
	// TidyUnbans forgets what people wrote with requests decided before blank, and
	// all of those decided before forget.
	TidyUnbans(ctx context.Context, blank, forget time.Time) error
}

// List is the community list.
type List interface {
	// Listing returns the network's listing of addr, or else of the narrowest range
	// around it; code NotFound when there is none.
	Listing(ctx context.Context, addr netip.Addr) (muster.Verdict, error)
	// Size returns how many sources are listed, from memory.
	Size() int
}

// Judge decides who is listed.
type Judge interface {
	// Granted says that an unban was granted at a time: evidence from before it is
	// muted, and the source judged anew. It returns when that is durable, or at
	// least certain to happen; the same may be told again, after an error or a crash,
	// and with later ones in between.
	Granted(ctx context.Context, source muster.Source, at time.Time) error
}

// Prover finds out whether whoever asks has the address that they ask for.
// Another one may look for a token at the address, which takes calls to there.
type Prover interface {
	// Prove returns the kind of proof, "" for none. An error is no proof either, and
	// is logged. It must end with ctx.
	Prove(ctx context.Context, requester, address netip.Addr) (muster.UnbanProof, error)
}

// SameAddress is the Prover that believes who speaks from the address: its
// packets arrive there. Of a v6 address it takes the /64, which is one line's.
type SameAddress struct{}

// Prove implements Prover.
func (SameAddress) Prove(_ context.Context, requester, address netip.Addr) (muster.UnbanProof, error) {
	if muster.SourceFromAddr(requester).Group() == muster.SourceFromAddr(address).Group() {
		return muster.ProofSameAddress, nil
	}
	return "", nil
}

// Around returns the sources that would cover addr if they were listed,
// narrowest first: itself and the ranges up to /8, or /19 of v6, as wide as
// registries give out.
func Around(addr netip.Addr) []muster.Source {
	addr = addr.Unmap().WithZone("")
	widest := 8
	if addr.Is6() {
		widest = 19
	}
	var all []muster.Source
	for bits := addr.BitLen(); bits >= widest; bits-- {
		all = append(all, muster.SourceFromPrefix(netip.PrefixFrom(addr, bits)))
	}
	return all
}

// By says which operator decides, and why; who asked gets to read the reason.
type By struct{ User, Reason string }
