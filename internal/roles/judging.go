package roles

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"muster"
	"muster/internal/ingest"
	"muster/internal/jury"
	"muster/internal/namecheck"
	"muster/internal/ops"
	"muster/internal/unban"
)

// communityList gives the unban service its view of what is listed.
type communityList struct{ *node }

func (c communityList) Listing(ctx context.Context, addr netip.Addr) (muster.Verdict, error) {
	around := unban.Around(addr)
	parts := make([]uint8, len(around))
	for i, s := range around {
		parts[i] = ingest.SourcePartition(s)
	}
	return c.db.NarrowestListed(ctx, parts, around)
}

func (c communityList) Size() int { return c.publisher.Count(muster.Network) }

// unbanJudge tells the judge of unbans.
type unbanJudge struct{ *node }

// Granted also ends an operator's listing from before: requests about those wait
// for operators, so that one of them has thought better of it.
func (j unbanJudge) Granted(ctx context.Context, source muster.Source, at time.Time) error {
	if word, ok := j.truth.current().Listed[jury.SubjectOf(source)]; ok && word.CreatedAt.Before(at) {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		err = j.db.DeleteOperatorVerdict(ctx, word.Source, muster.AuditEntry{
			ID: id.String(), At: j.now().UTC(), Action: "verdict.remove", Subject: word.Source.String(), Reason: "an unban was granted",
		})
		if err != nil && muster.CodeOf(err) != muster.NotFound {
			return err
		}
		j.bells.ring(bellTruth, "")
	}
	return j.worker.Unban(ctx, source, at)
}

// warnOfIdleCanaries says which canaries match nothing as this server is set up.
func (n *node) warnOfIdleCanaries() {
	known := n.truth.current().Canaries
	if count := known.ASes(); count > 0 && n.asn == nil {
		n.log.Warn("AS canaries match nothing without a database of AS numbers (setting enrich.asn)", "canaries", count)
	}
	if count := known.Names(); count > 0 && !n.cfg.Canaries.Names {
		n.log.Warn("canaries that are patterns of names match nothing unless names are looked up (setting canaries.names)", "canaries", count)
	}
}

// newNames makes the service that looks up reverse names; nil unless it is told
// to.
func (n *node) newNames() *namecheck.Service {
	if !n.cfg.Canaries.Names {
		return nil
	}
	return namecheck.New(namecheck.Config{
		Resolver: net.DefaultResolver, Confirmed: n.named, Now: n.now, Registerer: n.registry,
		Wanted: func(name string) bool {
			_, ok := n.truth.current().Canaries.MatchName(name)
			return ok
		},
	})
}

// nameOf gives the judge its view of names; nil when they are not looked up.
func (n *node) nameOf() func(netip.Addr) (string, bool) {
	if n.names == nil {
		return nil
	}
	return func(addr netip.Addr) (string, bool) {
		name, state := n.names.Check(addr)
		return name, state != namecheck.Unknown
	}
}

// named tells the judge that an address owns a name, until it has understood.
func (n *node) named(ctx context.Context, addr netip.Addr, name string) {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		err := n.worker.Named(ctx, addr, name)
		if err == nil || ctx.Err() != nil {
			return
		}
		n.log.Warn("the judge could not be told of a name; it is told again", "address", addr, "reverse_name", name, ops.KeyError, err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// knownAS is asnOf, nil without a database: then nobody's word is taken for it,
// the reporter's least of all, who would have others struck by it.
func (n *node) knownAS() func(netip.Addr) uint32 {
	if n.cfg.Enrich.ASN == "" {
		return nil
	}
	return n.asnOf
}

// asnOf says in which AS an address is.
func (n *node) asnOf(addr netip.Addr) uint32 {
	number, _ := n.asn.Of(addr)
	return number
}
