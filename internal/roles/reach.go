package roles

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"muster"
	"muster/internal/abuse"
	"muster/internal/ops"
	"muster/internal/reach"
)

// bellIntegrations rings when an integration changed; no payload.
const bellIntegrations = "integrations"

// kindWrongSecret is what limits count requests to integrations as that have a
// wrong password or key. No limit does unless an operator makes one: guessing 130
// bits is hopeless, and refusing costs next to nothing, while a ban for a key
// that was mistyped would shut out the engines behind the same address.
const kindWrongSecret = "wrong-secret"

// newReach makes what serves firewalls, and bouncers without an engine.
func (n *node) newReach() {
	n.reach = reach.New(reach.Config{
		Store: n.db, Community: n.publisher, Catalogue: n.catalog, Forbidden: n.truth.covers,
		Allowlist: func(integration, organisation string) (reach.Allowed, uint64) {
			list, version := n.allow.For(integration, organisation, nil)
			if list == nil {
				return nil, version // not an interface that holds nil
			}
			return list, version
		},
		WrongSecret: func(addr netip.Addr, _ string) error {
			if !n.abuse.Counts(kindWrongSecret) {
				return nil
			}
			err := n.abuse.Spend(kindWrongSecret, abuse.Client{Addr: addr})
			var banned *abuse.Banned
			if errors.As(err, &banned) {
				return muster.Errorf(muster.Forbidden, "%s", banned.Error())
			}
			return err
		},
		Reported: n.catalog.CountHits, Addr: n.clientAddr, Now: n.now, Logger: n.log, Registerer: n.registry,
	})
}

// reachService runs it.
func (n *node) reachService() ops.Service {
	return ops.Service{Name: "integrations", Start: n.reach.Start, Run: n.reach.Run, StopTimeout: 10 * time.Second}
}

// integrationsChanged reads the integrations again.
func (n *node) integrationsChanged(ctx context.Context, _ string, _ bool) {
	if err := n.reach.Refresh(ctx); err != nil && ctx.Err() == nil {
		n.log.Error("changed integrations could not be read: they stay as they were until they change again, or a restart", ops.KeyError, err)
	}
}

// withIntegrations serves integrations, and everything else as others does. It
// stands before any ServeMux, which would redirect an address with a doubled
// slash: bouncers make some.
func (n *node) withIntegrations(others http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if reach.Serves(r.URL.Path) {
			n.reach.ServeHTTP(w, r)
			return
		}
		others.ServeHTTP(w, r)
	})
}
