package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"muster"
	"muster/internal/store"
)

// crowdVerdict is one with all that consensus says about it.
func crowdVerdict(n uint32, moment time.Time, listed bool) muster.Verdict {
	return muster.Verdict{
		Source: scattered(n), Listed: listed, Remedy: muster.RemedyBan, Scenario: "crowdsecurity/ssh-bf", Since: moment, Until: moment, Changed: moment,
		Reasons: muster.Reasons{
			Machines: 5, Organisations: 4, Scenarios: []string{"crowdsecurity/ssh-bf", "crowdsecurity/ssh-slow-bf"}, Reports: []int{7, 1},
			First: 1_800_000_000, Last: 1_800_000_000, Rule: "4 independent voices support it with 7.2 points (needed: 2 with 5.0)",
			Basis: "crowd", Support: 7.2, Threshold: 5, Diversity: 3.1, Independent: 4, Needed: 2, Bands: [6]int{0, 1, 2, 1, 1, 0},
			Convictions: 1, Epoch: 4711, Parameters: 1,
		},
	}
}

// BenchmarkPutVerdicts is of 100,000 sources: of listings that go on, which is
// most of what is written, and of those that begin or end. An update that tells
// what went on, so that history is looked for only of the rest, was tried: it
// gained a tenth for the former and lost a fifth for the latter.
func BenchmarkPutVerdicts(b *testing.B) {
	for _, change := range []bool{false, true} {
		b.Run(fmt.Sprintf("change=%v", change), func(b *testing.B) {
			const sources = 100_000
			db, r := openBench(b), rand.New(rand.NewPCG(1, 2))
			parts, batch := make([]uint8, transaction), make([]muster.Verdict, transaction)
			moment, listed := time.Unix(1_800_000_000, 0), make([]bool, sources)
			put := func(number func(i int) uint32, change bool) error {
				moment = moment.Add(time.Second)
				for i := range batch {
					n := number(i)
					listed[n] = listed[n] != change
					parts[i], batch[i] = uint8(n%muster.Partitions), crowdVerdict(n, moment, listed[n])
				}
				return db.Tally(b.Context(), func(tx *store.TallyTx) error { return tx.PutVerdicts(parts, batch) })
			}
			for first := uint32(0); first < sources; first += transaction {
				if err := put(func(i int) uint32 { return first + uint32(i) }, true); err != nil {
					b.Fatal(err)
				}
			}
			measure(b, transaction, func() error {
				first := r.Uint32N(sources)
				return put(func(i int) uint32 { return (first + uint32(i)*17) % sources }, change)
			})
		})
	}
}

func trustRows(r *rand.Rand, n, machines int, moment time.Time) []muster.TrustRow {
	rows := make([]muster.TrustRow, n)
	for i, m := range r.Perm(machines)[:n] {
		rows[i] = muster.TrustRow{Machine: uint32(m + 1), Rank: 3, Changed: moment, Data: make([]byte, 200)}
	}
	return rows
}

func BenchmarkPutTrust(b *testing.B) {
	for _, machines := range []int{5_000, 100_000} {
		b.Run(fmt.Sprintf("machines=%d", machines), func(b *testing.B) {
			db, r := openBench(b), rand.New(rand.NewPCG(1, 2))
			put := func(rows []muster.TrustRow) error {
				return db.Tally(b.Context(), func(tx *store.TallyTx) error { return tx.PutTrust(rows) })
			}
			if err := put(trustRows(r, machines, machines, time.Unix(1_800_000_000, 0))); err != nil {
				b.Fatal(err)
			}
			rows := trustRows(r, transaction, machines, time.Unix(1_800_000_001, 0))
			measure(b, transaction, func() error { return put(rows) })
		})
	}
}

// trustEvents is what a while brings about 1,000 machines.
func trustEvents(r *rand.Rand, n int, at time.Time, bySource bool) []muster.TrustEvent {
	events := make([]muster.TrustEvent, n)
	for i := range events {
		events[i] = muster.TrustEvent{Machine: r.Uint32N(1000) + 1, At: at, Kind: "validated", Amount: 0.5, Behaviour: "ssh:bruteforce", RankBefore: 3, RankAfter: 3}
		if bySource {
			events[i].Source = scattered(r.Uint32())
		}
	}
	return events
}

// BenchmarkPutTrustEvents keeps an event for each source, or one for each
// machine and hour.
func BenchmarkPutTrustEvents(b *testing.B) {
	for _, bySource := range []bool{true, false} {
		b.Run(fmt.Sprintf("source=%v", bySource), func(b *testing.B) {
			db, r := openBench(b), rand.New(rand.NewPCG(1, 2))
			at := time.Unix(1_800_000_000, 0)
			measure(b, transaction, func() error {
				if bySource {
					at = at.Add(time.Second)
				}
				events := trustEvents(r, transaction, at, bySource)
				return db.Tally(b.Context(), func(tx *store.TallyTx) error { return tx.PutTrustEvents(events) })
			})
		})
	}
}

// BenchmarkTally is a transaction as consensus makes it of 5,000 signals about
// 20,000 sources; trust adds to it what is written of 1,000 machines.
func BenchmarkTally(b *testing.B) {
	for _, trust := range []bool{false, true} {
		b.Run(fmt.Sprintf("trust=%v", trust), func(b *testing.B) {
			const sources, changed, events = 20_000, transaction / 10, transaction / 5
			db, r := openBench(b), rand.New(rand.NewPCG(1, 2))
			parts, signals := signals(r, transaction)
			evidence, verdicts, verdictParts := make([]muster.EvidenceRow, transaction/2), make([]muster.Verdict, changed), make([]uint8, changed)
			moment, epoch := time.Unix(1_800_000_000, 0), uint64(0)
			measure(b, transaction, func() error {
				moment = moment.Add(time.Second)
				renew(r, signals, time.Second)
				first := r.Uint32N(sources)
				for i := range evidence {
					n := (first + uint32(i)*7) % sources
					evidence[i] = muster.EvidenceRow{Partition: uint8(n % muster.Partitions), Source: scattered(n), Last: moment, Data: make([]byte, 200)}
				}
				for i := range verdicts {
					n := (first + uint32(i)*7) % sources
					verdictParts[i], verdicts[i] = uint8(n%muster.Partitions), crowdVerdict(n, moment, i%10 > 0)
				}
				rows := trustRows(r, 1000, 1000, moment)
				happened := trustEvents(r, events, moment.Truncate(time.Hour), false)
				return db.Tally(b.Context(), func(tx *store.TallyTx) error {
					if _, err := tx.InsertAlerts(parts, signals); err != nil {
						return err
					}
					if err := errors.Join(tx.PutEvidence(evidence), tx.PutVerdicts(verdictParts, verdicts)); err != nil || !trust {
						return err
					}
					epoch++
					return errors.Join(tx.PutTrust(rows), tx.PutTrustEvents(happened), tx.AdvanceEpoch(epoch-1, epoch, nil))
				})
			})
		})
	}
}
