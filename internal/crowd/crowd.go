// Package crowd turns reports into verdicts and keeps account of whose word
// may be trusted. It is pure: no clock, no randomness, no I/O; the same reports
// in the same order, judged with the same trust tables at the same times, give
// the same verdicts.
//
// The way of a report:
//
//	table.Fold(&evidence, report)              // remember it, in bounded memory
//	table.Judge(&evidence, now, facts, &out)   // verdicts that changed, events about machines
//	records[e.Machine].Apply(e, &parameters)   // every event of a batch, sorted with Compare
//	table = NewTrustTable(snapshot)            // the next epoch, every few minutes
//
// Evidence is of one source and is touched by one goroutine; only the immutable
// TrustTable crosses from shard to shard.
//
// Nothing about a machine is frozen into evidence: its weight is looked up
// whenever the source is judged, so that a strike makes all that it said
// worthless at once. Two things are frozen, because they are about a moment:
// how new a report was when it came (whoever repeats a list must not earn by
// it), and who supported a listing when it was made (those answer for it).
//
// Machines, organisations, AS and behaviours are numbers that the caller gives
// out and keeps; 0 means unknown and, as an audience, the network. Times are
// Unix seconds.
package crowd

// Report is one eligible report about one source.
type Report struct {
	Machine      uint32 // never 0
	Organisation uint32 // 0 = none: it never reaches a fleet
	AS           uint32 // of the reporter's address, 0 = unknown
	Prefix       uint64 // the reporter's /24 or /48 as a number, 0 = unknown
	Behaviour    uint16 // index in the Taxonomy
	At           int64  // Unix seconds
	Counts       bool   // may be evidence for the network (muster.Counts)
	Fleet        bool   // goes to its organisation's other machines at once (muster.Fleet)
	Honeypot     bool   // by a machine that nobody has business with
}

// Prior is what the hub's taxonomy says about a behaviour.
type Prior struct {
	Confidence uint8 // 0 (a guess, counts for nothing) to 3 (nothing else looks like it)
	Spoofable  uint8 // 0 (a handshake proves the address) to 3 (one forged packet)
}

// Taxonomy holds the priors by behaviour number; behaviours beyond its end have
// the prior of index 0.
type Taxonomy []Prior

// Facts is what the caller knows about a source beside its evidence.
type Facts struct {
	// Never says in words why the source must not be listed for anybody (reserved
	// space, an allowlist); "" = nothing against it.
	Never string
	// Canary: the source is known to be good, and whoever reports it is wrong.
	Canary bool
	// Shared: many people sit behind it (carrier NAT, VPN, cloud egress): more
	// is asked for, the remedy is softer and the listing shorter.
	Shared bool
	// Dynamic: the address changes hands often: the listing is shorter.
	Dynamic bool
}

// points are thousandths of a point of log-odds. Whole numbers make sums exact,
// hence independent of the order of voices.
type points int64

const point = 1000

func toPoints(f float64) points { return points(f*point + 0.5) }

func (p points) float() float32 { return float32(p) / point }

// clock fits a time into evidence: Unix seconds up to the year 2106, 0 = never.
func clock(at int64) uint32 { return uint32(min(max(at, 0), 1<<32-1)) }
