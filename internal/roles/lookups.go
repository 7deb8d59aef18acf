package roles

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"muster"
	"muster/internal/abuse"
	"muster/internal/crowd"
	"muster/internal/cti"
	"muster/internal/ingest"
	"muster/internal/jury"
	"muster/internal/ops"
	"muster/internal/reach"
	"muster/internal/reputation"
)

// newLookups makes what follows the log for lookups, and what answers them.
func (n *node) newLookups() {
	n.reputation = reputation.New(reputation.Config{
		Open: func(ctx context.Context, from [muster.Partitions]uint64) (reputation.Reader, error) {
			return n.openReader(ctx, from)
		},
		Ledger: n.db, Partition: ingest.SourcePartition, Member: n.isMember, Ranks: n.worker.Ranks, Country: n.countries.Of,
		Now: n.now, Logger: n.log, Registerer: n.registry,
	})
	n.lookups = reach.NewLookups(reach.LookupConfig{
		Store: n.db, Community: n.publisher, Days: n.reputation.Days, Good: n.goodness,
		Verdict: func(ctx context.Context, source muster.Source) (muster.Verdict, error) {
			return n.db.Verdict(ctx, muster.Network, jury.SubjectOf(source))
		},
		Changes: n.db.VerdictsChanged, Place: n.placeOf,
		Active:    func() int { return n.machines.Counts().Organisations },
		PublicURL: n.public, Parameters: scoring(crowd.Default()),
		WrongKey: func(addr netip.Addr) error {
			if !n.abuse.Counts(kindWrongSecret) {
				return nil
			}
			return n.abuse.Spend(kindWrongSecret, abuse.Client{Addr: addr})
		},
		Addr: n.clientAddr, Now: n.now, Logger: n.log, Registerer: n.registry,
	})
}

// scoring has lookups weigh evidence as the judge does.
func scoring(judge crowd.Parameters) cti.Parameters {
	p := cti.Default()
	p.Threshold, p.Honeypot, p.SameAS = judge.Listing.Threshold, judge.Voices.Honeypot, judge.Voices.SecondInAS
	p.Confidence, p.Spoofable = judge.Voices.Confidence, judge.Voices.Spoofable
	return p
}

// goodness says whether a source is known to be good, and why a canary is.
func (n *node) goodness(s muster.Source) (cti.Good, string) {
	known := n.truth.current()
	switch {
	case s.IsReserved():
		return cti.Reserved, ""
	case !n.truth.covers(s):
		return cti.NotGood, ""
	}
	if _, ok := known.Allowlist.Covers(s); ok {
		return cti.Allowlisted, ""
	}
	if c, ok := known.Canaries.Match(s, n.asnOf(s.Addr())); ok {
		return cti.Canary, c.Origin + " " + c.Reason
	}
	return cti.Canary, "" // one is inside
}

// placeOf says what files on this host know about where an address is.
func (n *node) placeOf(addr netip.Addr) cti.Place {
	p := cti.Place{Country: n.countries.Of(addr), Network: n.asn.Network(addr)}
	p.ASN, p.ASName = n.asn.Of(addr)
	return p
}

// lookupServices run them.
func (n *node) lookupServices() []ops.Service {
	return []ops.Service{
		{Name: "rollups", Run: n.reputation.Run, StopTimeout: 10 * time.Second},
		{Name: "lookups", Start: n.lookups.Start, Run: n.lookups.Run, StopTimeout: 10 * time.Second},
	}
}

// usageKept is for how long it is kept how often lookup keys were used.
const usageKept = 400 * 24 * time.Hour

// lookupJobs are the chores.
func (n *node) lookupJobs() []ops.Job {
	return []ops.Job{{Name: "retention of rollups", Interval: time.Hour, Jitter: 10 * time.Minute, Log: n.log, Do: func(ctx context.Context) error {
		oldest := cti.DayOf(n.now().Add(-cti.MaxAge))
		if err := prune(func(limit int) (int, error) { return n.db.PruneRollups(ctx, oldest, limit) }); err != nil {
			return err
		}
		return n.db.PruneLookupUsage(ctx, cti.DayOf(n.now().Add(-usageKept)))
	}}}
}

// withLookups serves lookups, and everything else as others does.
func (n *node) withLookups(others http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if reach.ServesLookups(r.URL.Path) {
			n.lookups.ServeHTTP(w, r)
			return
		}
		others.ServeHTTP(w, r)
	})
}
