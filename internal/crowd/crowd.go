// Package crowd turns reports into verdicts and keeps account of whose word
// may be trusted. It is pure: no clock, no randomness, no I/O; the same reports
// in the same order, judged with the same trust tables at the same times, give
// the same verdicts.
//
// The way of a report:
//
//	table.Fold(&evidence, report)              // remember it, in bounded memory
//	table.Judge(&evidence, now, facts, &out)   // verdicts that changed, events about machines
//	records[e.Machine].Apply(e, parameters)    // for each event, in the order of Compare
//	table = NewTrustTable(…, records, …)       // the next epoch, every few minutes
//
// Evidence is of one source and is touched by one goroutine; only the immutable
// TrustTable crosses from shard to shard.
//
// Machines, organisations, AS and behaviours are numbers that the caller gives
// out and keeps; number 0 means unknown and, as an audience, the network.
// Times are Unix seconds.
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
	Confidence uint8 // 0 (a guess) to 3 (nothing else looks like it)
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
