package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"time"

	"muster"
	"muster/internal/ingest"
	"muster/internal/policy"
	"muster/internal/roles"
	"muster/internal/store"
)

// The published list of a measurement is the same each time.
const benchSeed = 20260

// publish fills the database of a server that is not started yet with a community
// list, as the judge would have left it.
func (c *benchCmd) publish(ctx context.Context, dataDir string) (err error) {
	if c.Published < c.List || c.List < 1 {
		return fmt.Errorf("expected at least as many addresses published as in each answer, and one at least, got %d and %d", c.Published, c.List)
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return err
	}
	cfg := roles.DefaultConfig()
	cfg.DataDir = dataDir
	db, err := store.Open(ctx, cfg.DatabaseURL(), store.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for vs := range slices.Chunk(listings(c.Published, time.Now().UTC()), 5_000) {
		parts := make([]uint8, len(vs))
		for i := range vs {
			parts[i] = ingest.SourcePartition(vs[i].Source)
		}
		if err := db.Tally(ctx, func(tx *store.TallyTx) error { return tx.PutVerdicts(parts, vs) }); err != nil {
			return err
		}
	}
	return nil
}

// benchScenarios are the hub's, in another order than that of their names, so
// that those with most addresses are of many kinds.
func benchScenarios(random *rand.Rand) (names []string) {
	policy.BuiltInTaxonomy().All(func(name string, _ policy.Prior) bool {
		names = append(names, name)
		return true
	})
	random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return names
}

// listings makes verdicts on n addresses, over the hub's scenarios as on real
// networks: few of them have most.
func listings(n int, now time.Time) []muster.Verdict {
	random := rand.New(rand.NewPCG(benchSeed, 1)) // the same each time
	names := benchScenarios(random)
	scenario := rand.NewZipf(random, 1.2, 3, uint64(len(names)-1))
	seen := make(map[uint32]bool, n)
	list := make([]muster.Verdict, 0, n)
	for len(list) < n {
		a := random.Uint32()
		source := muster.SourceFromAddr(netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}))
		if seen[a] || source.IsReserved() {
			continue
		}
		seen[a] = true
		last := now.Add(-time.Duration(random.Int64N(int64(60 * time.Hour))))
		list = append(list, muster.Verdict{
			Source: source, Listed: true, Remedy: muster.RemedyBan, Scenario: names[scenario.Uint64()],
			Since: last, Until: last.Add(72 * time.Hour), Changed: now.Add(-time.Minute),
			Reasons: muster.Reasons{
				Machines: 3, Organisations: 3, Last: last.Unix(), Support: float32(4 + 4*random.ExpFloat64()), Independent: 2 + random.IntN(4),
			},
		})
	}
	return list
}

// footprints makes n different sets of scenarios, of 20 to 80 each.
func footprints(n int) [][]string {
	random := rand.New(rand.NewPCG(benchSeed, 1)) // the same each time
	names := benchScenarios(random)
	all := make([][]string, n)
	for i := range all {
		set := make([]string, 0, 80)
		for range 20 + random.IntN(60) {
			set = append(set, names[min(int(random.ExpFloat64()*60), len(names)-1)])
		}
		all[i] = muster.CanonicalScenarios(set)
	}
	return all
}
