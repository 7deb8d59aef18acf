package roles

import (
	"context"
	"net/netip"
	"time"

	"muster"
	"muster/internal/ingest"
	"muster/internal/jury"
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
type unbanJudge struct{ *jury.Worker }

func (j unbanJudge) Granted(ctx context.Context, source muster.Source, at time.Time) error {
	return j.Unban(ctx, source, at)
}

// asnOf says in which AS an address is.
func (n *node) asnOf(addr netip.Addr) uint32 {
	number, _ := n.asn.Of(addr)
	return number
}
