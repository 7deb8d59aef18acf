package system

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"muster/internal/abuse"
	"muster/internal/ratelimit"
	"muster/internal/store"
	"muster/internal/stream"
)

// TestBansHoldOnEveryNode runs the rate limits of three nodes on one database
// and one bus. (Whole nodes on one bus come with the cluster.)
func TestBansHoldOnEveryNode(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	dir := t.TempDir()
	db, err := store.Open(ctx, "sqlite:"+filepath.Join(dir, "muster.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	bus, err := stream.Open(ctx, stream.Config{Dir: filepath.Join(dir, "stream")})
	if err != nil {
		t.Fatal(err)
	}
	var nodes []*abuse.Service
	done := make(chan error, 6)
	for range 3 {
		s, err := abuse.New(abuse.Config{Store: db, Share: func(message []byte) {
			if err := bus.Ring(ctx, "abuse", message); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(ctx); err != nil {
			t.Fatal(err)
		}
		bell, err := bus.Listen("abuse")
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, s)
		go func() { done <- s.Run(ctx) }()
		go func() {
			defer bell.Close()
			for {
				select {
				case r := <-bell.C:
					if err := s.Hear(ctx, r.Payload, r.Missed); err != nil && ctx.Err() == nil {
						t.Error(err)
					}
				case <-ctx.Done():
					done <- nil
					return
				}
			}
		}()
	}
	t.Cleanup(func() {
		cancel()
		for range 6 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		bus.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})

	// Logins that come by turns are counted together: the 21st bans, wherever.
	addr := netip.MustParseAddr("198.51.100.7")
	c := abuse.Client{Addr: addr, Machine: "m"}
	holds := func(want bool) {
		began := time.Now()
		eventually(t, fmt.Sprintf("every node agrees that banned is %t", want), func() string {
			for i, n := range nodes {
				if _, banned := n.BanOf(addr); banned != want {
					return fmt.Sprint("not node ", i)
				}
			}
			return ""
		})
		t.Logf("every node agrees that banned is %t after %s", want, time.Since(began))
	}
	ban := 0
	for i := 1; ban == 0; i++ {
		if err := nodes[i%3].Login(c); err != nil {
			ban = i
			break
		}
		if i > 60 {
			t.Fatal("never banned")
		}
		eventually(t, "the nodes know each other's logins", func() string {
			// What is told in one batch is heard together with a ban of another range.
			marker := netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 32)
			return markerHeard(ctx, nodes, i%3, marker)
		})
	}
	if ban != 21 {
		t.Errorf("banned at login %d over three nodes, expected 21", ban)
	}
	holds(true)
	if _, err := nodes[1].LiftBan(ctx, netip.PrefixFrom(addr, 32), abuse.By{User: "ada", Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	holds(false)
}

// markerHeard bans a range at one node, once, and says "" when all know of it:
// messages of one node come in order, so they know then what it told before.
func markerHeard(ctx context.Context, nodes []*abuse.Service, at int, p netip.Prefix) string {
	if _, banned := nodes[at].BanOf(p.Addr()); !banned {
		if err := banRange(ctx, nodes[at], p); err != nil {
			return err.Error()
		}
	}
	for i, n := range nodes {
		if _, banned := n.BanOf(p.Addr()); !banned {
			return fmt.Sprint("not node ", i)
		}
	}
	return ""
}

func banRange(ctx context.Context, n *abuse.Service, p netip.Prefix) error {
	_, err := n.AddBan(ctx, ratelimit.Ban{Prefix: p, Scope: ratelimit.ScopeAll, Reason: "marker"}, abuse.By{User: "test"})
	return err
}
