package store_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"muster"
	"muster/internal/ratelimit"
	"muster/internal/store"
)

const transaction = 5000 // rows, as tally commits them under load

func openBench(b *testing.B) *store.DB {
	b.Helper()
	db, err := store.Open(b.Context(), "sqlite:"+filepath.Join(b.TempDir(), "muster.db"), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	return db
}

// signals makes reports as busy engines send them: 100 organisations of 10
// machines, 450 bytes of detail.
func signals(r *rand.Rand, n int) ([]uint8, []*muster.Signal) {
	parts, out := make([]uint8, n), make([]*muster.Signal, n)
	detail := []byte(`{"message":"Ip 192.0.2.7 performed 'crowdsecurity/ssh-bf' (6 events over 11.2s)","context":"` + strings.Repeat("target_user root ", 20) + `"}`)
	for i := range out {
		machine := r.IntN(1000)
		s := &muster.Signal{
			Machine:      fmt.Sprintf("%048d", machine),
			Organisation: fmt.Sprintf("0193a000-0000-7000-8000-%012d", machine/10),
			Received:     time.Unix(1_800_000_000, 0).Add(time.Duration(r.Int64N(2e9))).UTC(),
			At:           time.Unix(1_800_000_000-r.Int64N(60), 0).UTC(),
			Source:       source(r.Uint32()),
			Scenario:     "crowdsecurity/ssh-bf",
			ScenarioHash: strings.Repeat("ab", 32),
			Version:      "0.3",
			Trust:        muster.TrustCertified,
			Kind:         "crowdsec",
			Country:      "DE",
			ASN:          3320,
			ASName:       "Deutsche Telekom AG",
			Flags:        muster.Counts | muster.Decided,
			Detail:       detail,
		}
		parts[i], out[i] = uint8(r.IntN(muster.Partitions)), s
	}
	renew(r, out, 0)
	return parts, out
}

// renew makes other reports of the same ones, later ones.
func renew(r *rand.Rand, signals []*muster.Signal, later time.Duration) {
	for _, s := range signals {
		binary.LittleEndian.PutUint64(s.ID[:], r.Uint64())
		binary.LittleEndian.PutUint64(s.ID[8:], r.Uint64())
		s.At, s.Received = s.At.Add(later), s.Received.Add(later)
	}
}

func source(n uint32) muster.Source {
	return muster.SourceFromAddr(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n))))
}

// scattered spreads numbers over the address space, as attackers are.
func scattered(n uint32) muster.Source { return source(n * 2654435761) }

// measure runs op, a transaction of some rows, and reports rows per second and
// the processor's time for each, which other processes disturb less.
func measure(b *testing.B, rows int, op func() error) {
	b.Helper()
	b.ReportAllocs()
	before := processorTime(b)
	for b.Loop() {
		if err := op(); err != nil {
			b.Fatal(err)
		}
	}
	n := float64(b.N) * float64(rows)
	b.ReportMetric(float64((processorTime(b)-before).Microseconds())/n, "cpu-µs/row")
	b.ReportMetric(n/b.Elapsed().Seconds(), "rows/s")
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkInsertAlerts is the rate that the judge can sustain. Of the ways to
// insert that were tried on SQLite (a statement per row through database/sql or
// the driver, statements of 4 to 250 rows, RETURNING to learn what is new) none
// was faster than a statement per row through the driver by more than the noise.
func BenchmarkInsertAlerts(b *testing.B) {
	for _, partitions := range []uint8{muster.Partitions, 1} {
		b.Run(fmt.Sprintf("partitions=%d", partitions), func(b *testing.B) {
			db, r := openBench(b), rand.New(rand.NewPCG(1, 2))
			parts, batch := signals(r, transaction)
			for i := range parts {
				parts[i] %= partitions
			}
			measure(b, transaction, func() error {
				renew(r, batch, 100*time.Millisecond)
				return db.Tally(b.Context(), func(tx *store.TallyTx) error {
					_, err := tx.InsertAlerts(parts, batch)
					return err
				})
			})
		})
	}
	b.Run("replayed", func(b *testing.B) {
		db, r := openBench(b), rand.New(rand.NewPCG(1, 2))
		parts, batch := signals(r, transaction)
		measure(b, transaction, func() error {
			return db.Tally(b.Context(), func(tx *store.TallyTx) error {
				_, err := tx.InsertAlerts(parts, batch)
				return err
			})
		})
	})
}

func BenchmarkPutEvidence(b *testing.B) {
	for _, sources := range []uint32{20_000, 500_000} {
		b.Run(fmt.Sprintf("sources=%d", sources), func(b *testing.B) {
			db, r := openBench(b), rand.New(rand.NewPCG(1, 2))
			batch := make([]muster.EvidenceRow, transaction)
			put := func(number func(i int) uint32) error {
				for i := range batch {
					n := number(i)
					batch[i] = muster.EvidenceRow{Partition: uint8(n % muster.Partitions), Source: scattered(n), Last: time.Unix(1_800_000_000, 0), Data: make([]byte, 200)}
				}
				return db.Tally(b.Context(), func(tx *store.TallyTx) error { return tx.PutEvidence(batch) })
			}
			for first := uint32(0); first < sources; first += transaction {
				if err := put(func(i int) uint32 { return first + uint32(i) }); err != nil {
					b.Fatal(err)
				}
			}
			measure(b, transaction, func() error { return put(func(int) uint32 { return r.Uint32N(sources) }) })
		})
	}
}

// BenchmarkListNew lists sources of which nothing was known beside 200,000 others,
// sorted and as they come. Sorted rows go through the pages of each index once.
func BenchmarkListNew(b *testing.B) {
	const before = 200_000
	for _, sorted := range []bool{false, true} {
		for _, each := range []int{5_000, 20_000} {
			b.Run(fmt.Sprintf("sorted=%t/transaction=%d", sorted, each), func(b *testing.B) {
				db, next, moment := openBench(b), uint32(0), time.Unix(1_800_000_000, 0).UTC()
				list := func(n int) error {
					verdicts, evidence, parts := make([]muster.Verdict, n), make([]muster.EvidenceRow, n), make([]uint8, n)
					moment = moment.Add(time.Second)
					for i := range verdicts {
						next++
						verdicts[i] = muster.Verdict{
							Source: scattered(next), Audience: "018f3c5e-7b1a-7000-8000-0123456789ab", Listed: true, Remedy: muster.RemedyBan,
							Scenario: "crowdsecurity/ssh-bf", Since: moment, Until: moment.Add(24 * time.Hour), Changed: moment,
							Reasons: muster.Reasons{
								Machines: 1, Organisations: 1, Scenarios: []string{"crowdsecurity/ssh-bf"}, First: moment.Unix(), Last: moment.Unix(),
								Rule: "listed: a machine of this organisation reported it", Basis: "fleet", Support: 1.5, Threshold: 6, Diversity: 1,
								Independent: 1, Needed: 2, Reports: []int{1}, Epoch: 7, Parameters: 3,
							},
						}
					}
					if sorted {
						slices.SortFunc(verdicts, func(a, b muster.Verdict) int { return a.Source.Compare(b.Source) })
					}
					for i := range verdicts {
						group := verdicts[i].Source.Addr().As4()
						parts[i] = uint8(crc32.ChecksumIEEE(group[:]) % muster.Partitions)
						evidence[i] = muster.EvidenceRow{Partition: parts[i], Source: verdicts[i].Source, Last: moment, Data: make([]byte, 70)}
					}
					return db.Tally(b.Context(), func(tx *store.TallyTx) error {
						return errors.Join(tx.PutEvidence(evidence), tx.PutVerdicts(parts, verdicts))
					})
				}
				for next < before {
					if err := list(20_000); err != nil {
						b.Fatal(err)
					}
				}
				measure(b, each, func() error { return list(each) })
			})
		}
	}
}

func BenchmarkTouchMachines(b *testing.B) {
	db := openBench(b)
	touches := make([]muster.MachineTouch, transaction)
	for i := range touches {
		touches[i].ID = fmt.Sprintf("%048d", i)
		if err := db.CreateMachine(b.Context(), muster.Machine{ID: touches[i].ID, State: muster.Active}); err != nil {
			b.Fatal(err)
		}
	}
	moment := time.Unix(1_800_000_000, 0)
	measure(b, transaction, func() error {
		moment = moment.Add(time.Second)
		for i := range touches {
			touches[i].Seen.Heartbeat = moment
		}
		return db.TouchMachines(b.Context(), touches)
	})
}

// BenchmarkChangeBans is a flood that ends in bans: so many at once is the most
// that a server tells the database, here beside all the bans that it can hold.
func BenchmarkChangeBans(b *testing.B) {
	const kept, changed = 250_000, 10_000
	moment := time.Unix(1_800_000_000, 0)
	bans := func(r *rand.Rand, n int) []ratelimit.Ban {
		bans := make([]ratelimit.Ban, n)
		for i := range bans {
			bans[i] = ratelimit.Ban{
				Prefix: scattered(r.Uint32N(kept)).Prefix(), Scope: ratelimit.ScopeAll, Limit: "login-not-sharing-not-enrolled",
				Reason: "more than 20 logins in 50 minutes from one address", Since: moment, Until: moment.Add(time.Hour), Extend: time.Hour,
			}
		}
		return bans
	}
	fill := func(b *testing.B) (*store.DB, *rand.Rand) {
		db, r := openBench(b), rand.New(rand.NewPCG(1, 2))
		all := bans(r, kept)
		for i := range all {
			all[i].Prefix = scattered(uint32(i)).Prefix()
		}
		for some := range slices.Chunk(all, changed) {
			if err := db.ChangeBans(b.Context(), some, nil, nil); err != nil {
				b.Fatal(err)
			}
		}
		return db, r
	}
	b.Run("put first", func(b *testing.B) {
		db, n := openBench(b), uint32(0)
		batch := bans(rand.New(rand.NewPCG(1, 2)), changed)
		measure(b, changed, func() error {
			for i := range batch {
				batch[i].Prefix = scattered(n).Prefix()
				n++
			}
			return db.ChangeBans(b.Context(), batch, nil, nil)
		})
	})
	// again makes bans of ranges that are banned, always until a later time: what
	// is the same is not written.
	again := func(r *rand.Rand, round int) []ratelimit.Ban {
		batch := bans(r, changed)
		for i := range batch {
			batch[i].Until = batch[i].Until.Add(time.Duration(round) * time.Second)
		}
		return batch
	}
	for name, change := range map[string]func(db *store.DB, r *rand.Rand, round int) error{
		"put again": func(db *store.DB, r *rand.Rand, round int) error {
			return db.ChangeBans(b.Context(), again(r, round), nil, nil)
		},
		"extended": func(db *store.DB, r *rand.Rand, round int) error {
			return db.ChangeBans(b.Context(), nil, again(r, round), nil)
		},
		"both": func(db *store.DB, r *rand.Rand, round int) error {
			return db.ChangeBans(b.Context(), again(r, round), again(r, round+1), nil)
		},
	} {
		b.Run(name, func(b *testing.B) {
			db, r := fill(b)
			round := 0
			measure(b, changed, func() error {
				round += 2
				return change(db, r, round)
			})
		})
	}
	b.Run("ended", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			db, _ := fill(b)
			b.StartTimer()
			if n, err := db.DeleteEndedBans(b.Context(), moment.Add(time.Hour)); n != kept || err != nil {
				b.Fatal(n, err)
			}
		}
		b.ReportMetric(kept*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	})
	b.Run("read", func(b *testing.B) {
		db, _ := fill(b)
		measure(b, kept, func() error {
			_, err := db.Bans(b.Context(), moment)
			return err
		})
	})
}

func BenchmarkMachine(b *testing.B) {
	db := openBench(b)
	if err := db.CreateMachine(b.Context(), muster.Machine{ID: "a", State: muster.Active, Tags: []string{"web"}}); err != nil {
		b.Fatal(err)
	}
	measure(b, 1, func() error {
		_, err := db.Machine(b.Context(), "a")
		return err
	})
}

// BenchmarkEach reads all verdicts and evidence, as a server does at its start.
func BenchmarkEach(b *testing.B) {
	db := openBench(b)
	const n = 100_000
	parts, verdicts, evidence := make([]uint8, n), make([]muster.Verdict, n), make([]muster.EvidenceRow, n)
	for i := range verdicts {
		parts[i] = uint8(i % muster.Partitions)
		verdicts[i] = muster.Verdict{Source: source(uint32(i)), Listed: i%2 == 0, Scenario: "crowdsecurity/ssh-bf", Changed: time.Unix(1_800_000_000, 0), Reasons: muster.Reasons{Rule: "three"}}
		evidence[i] = muster.EvidenceRow{Partition: parts[i], Source: verdicts[i].Source, Data: make([]byte, 200)}
	}
	err := db.Tally(b.Context(), func(tx *store.TallyTx) error {
		return errors.Join(tx.PutVerdicts(parts, verdicts), tx.PutEvidence(evidence))
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("verdict", func(b *testing.B) {
		measure(b, n, func() error {
			return db.EachVerdict(b.Context(), false, func(muster.Verdict) error { return nil })
		})
	})
	b.Run("verdict in brief", func(b *testing.B) {
		measure(b, n, func() error {
			return db.EachVerdictInBrief(b.Context(), func(muster.Verdict) error { return nil })
		})
	})
	b.Run("evidence", func(b *testing.B) {
		measure(b, n, func() error {
			return db.EachEvidence(b.Context(), func(muster.EvidenceRow) error { return nil })
		})
	})
}
