// Package storetest is what every database under internal/store must pass.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/internal/store"
)

// Run runs the suite. open returns an empty database that is closed when the
// test ends.
func Run(t *testing.T, open func(t *testing.T) *store.DB) {
	for name, test := range map[string]func(*testing.T, *store.DB){
		"secrets":                         testSecrets,
		"machines":                        testMachines,
		"machines page by page":           testMachinePages,
		"machines are updated one by one": testUpdateMachineConcurrently,
		"touches":                         testTouchMachines,
		"machine reports":                 testMachineReports,
		"organisations":                   testOrganisations,
		"users and their tokens":          testUsers,
		"enrolment keys":                  testEnrolmentKeys,
		"the last use of a key":           testLastUse,
		"claims":                          testClaims,
		"allowlist":                       testAllowlist,
		"allowlists":                      testAllowlists,
		"items of allowlists":             testAllowItems,
		"the installation's allowlist":    testCentralAllowlist,
		"withdrawals of allowlists":       testAllowWithdrawals,
		"answers for allowlists":          testAllowAnswers,
		"canaries":                        testCanaries,
		"canaries of a list are replaced": testReplaceCanaries,
		"orders":                          testOrders,
		"removals":                        testRemovals,
		"bans":                            testBans,
		"bans are extended":               testExtendBans,
		"many bans":                       testManyBans,
		"limits":                          testLimits,
		"overrides":                       testOverrides,
		"audit":                           testAudit,
		"changes and their audit":         testAuditedTogether,
		"alerts are stored once":          testInsertAlerts,
		"alerts by query":                 testAlertQueries,
		"alerts page by page":             testAlertPages,
		"alerts are pruned":               testPruneAlerts,
		"evidence":                        testEvidence,
		"verdicts":                        testVerdicts,
		"verdicts by change":              testVerdictsChanged,
		"verdict history":                 testVerdictHistory,
		"operator verdicts":               testOperatorVerdicts,
		"numbers":                         testNumbers,
		"trust":                           testTrust,
		"epochs are fenced":               testEpoch,
		"trust events":                    testTrustEvents,
		"trust events are pruned":         testPruneTrustEvents,
		"a failed transaction on trust":   testTrustRollback,
		"positions are fenced":            testFencing,
		"a failed transaction":            testRollback,
		"readers beside a writer":         testReadersBesideWriter,
		"contexts":                        testContexts,
		"unban requests":                  testUnbans,
		"unban requests before":           testUnbanHistory,
		"unban requests one by one":       testUnbansOneByOne,
		"the narrowest listed":            testNarrowestListed,
		"blocklists":                      testBlocklists,
		"subscriptions":                   testSubscriptions,
		"entries of custom lists":         testCustomEntries,
		"feeds":                           testFeeds,
		"statistics of blocklists":        testListStatistics,
		"sources for rules":               testSourcesForRules,
		"integrations":                    testIntegrations,
		"bundles":                         testBundles,
		"reports to integrations":         testIntegrationReports,
		"rollups for lookups":             testRollups,
		"lookup keys":                     testLookupKeys,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// base is when the tests happen; microseconds are the store's precision.
var base = time.Date(2026, 11, 20, 12, 0, 0, 123_456_000, time.UTC)

// at returns base and some seconds.
func at(seconds int) time.Time { return base.Add(time.Duration(seconds) * time.Second) }

// awkward is text that careless storage breaks.
const awkward = "O'Brien \"%_!\\? größer 🦊 日本"

func source(value string) muster.Source {
	s, err := muster.ParseSource(value)
	if err != nil {
		panic(err)
	}
	return s
}

// sources are of all kinds.
var sources = []muster.Source{
	source("192.0.2.7"), source("198.51.100.0/24"), source("2001:db8::1"), source("2001:db8:1::/48"), {},
}

// numbered is one address of many.
func numbered(n int) muster.Source {
	return muster.SourceFromAddr(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}))
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// must unwraps what a method that should work returned.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		ok(t, err)
		return v
	}
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	sameSource := cmp.Comparer(func(a, b muster.Source) bool { return a == b })
	sameAddr := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	samePrefix := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	// Times must come back as UTC too, so that they print alike everywhere.
	sameTime := cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) && a.Location() == b.Location() })
	if diff := cmp.Diff(want, got, sameSource, sameAddr, samePrefix, sameTime); diff != "" {
		t.Fatalf("%s: want -, got +:\n%s", what, diff)
	}
}

// wantCode checks that an error has a code, and that a caller can read why.
func wantCode(t *testing.T, err error, code muster.Code) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Fatalf("expected an error of code %s, got %v", code, err)
	}
}

// parallel runs n functions at once and returns their errors.
func parallel(n int, fn func(i int) error) []error {
	errs := make([]error, n)
	done := make(chan struct{})
	for i := range n {
		go func() {
			errs[i] = fn(i)
			done <- struct{}{}
		}()
	}
	for range n {
		<-done
	}
	return errs
}

func testContexts(t *testing.T, db *store.DB) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := db.Machines(ctx, store.MachineQuery{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("a read under an ended context: expected context.Canceled, got %v", err)
	}

	// Who waits for the turn can give up waiting.
	err := db.Tally(t.Context(), func(*store.TallyTx) error {
		ctx, cancel := context.WithCancel(context.Background())
		errs := make(chan error)
		go func() { errs <- db.PutSecret(ctx, "k", nil) }()
		cancel()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			return fmt.Errorf("expected context.Canceled from the one who waits, got %w", err)
		}
		return nil
	})
	ok(t, err)

	// Who writes runs to the end.
	ctx, cancel = context.WithCancel(t.Context())
	err = db.Tally(ctx, func(tx *store.TallyTx) error {
		cancel()
		return tx.Advance(3, 0, 7)
	})
	ok(t, err)
	if got := must(db.Positions(t.Context()))(t)[3]; got != 7 {
		t.Fatalf("expected position 7 after a transaction whose context ended half way, got %d", got)
	}

	ok(t, db.Ping(t.Context()))
	ok(t, db.Close())
	ok(t, db.Close())
	wantCode(t, db.PutSecret(t.Context(), "k", nil), muster.Unavailable)
	if err := db.Ping(t.Context()); err == nil {
		t.Fatal("expected an error from Ping after Close")
	}
}
