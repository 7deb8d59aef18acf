package roles

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"muster"
	"muster/internal/catalog"
	"muster/internal/catalog/feed"
	"muster/internal/ops"
	"muster/internal/policy"
	"muster/internal/publish"
	"muster/internal/store"
)

// bellLists rings when blocklists or subscriptions changed; payload: a list's id.
const bellLists = "lists"

// newCatalog makes the catalogue of blocklists, for the readers of the community
// list among others.
func (n *node) newCatalog(taxonomy *policy.Taxonomy) {
	cfg := &n.cfg.Blocklists
	n.catalog = catalog.New(catalog.Config{
		Store: n.db, Network: convicted{n.publisher, n.db}, Machines: members{n}, Orders: n.orders,
		Forbidden: n.truth.covers, Allowlist: n.allowedBy,
		Locate:    func(addr netip.Addr) (string, uint32) { return n.countries.Of(addr), n.asnOf(addr) },
		Countries: n.countries != nil, ASNs: n.asn != nil,
		Behaviour: func(scenario string) string { return taxonomy.Of(scenario).Behaviour },
		Fetch: feed.New(feed.Config{
			Private: cfg.PrivateFeeds, MaxBytes: int64(cfg.FeedBytes), Timeout: cfg.FeedTimeout, UserAgent: "muster/" + n.version,
		}),
		MaxEntries: cfg.MaxEntries, PublicURL: n.public,
		MaxSubscriptions: map[muster.Plan]int{
			muster.Community: cfg.Subscriptions.Community, muster.SecOps: cfg.Subscriptions.SecOps, muster.Enterprise: cfg.Subscriptions.Enterprise,
		},
		Changed: func(list string) { n.bells.ring(bellLists, list) },
		Now:     n.now, Logger: n.log, Registerer: n.registry,
	})
	n.lists.blocklists = n.catalog.Links
}

// allowedBy is what an organisation allows itself.
func (n *node) allowedBy(organisation string) (*policy.Allowlist, uint64) {
	if n.lists.allowed == nil {
		return nil, 0
	}
	return n.lists.allowed("", organisation, nil)
}

// listsChanged reads blocklists again that another node changed.
func (n *node) listsChanged(ctx context.Context, list string, all bool) {
	if all {
		list = ""
	}
	if err := n.catalog.Refresh(ctx, list); err != nil && ctx.Err() == nil {
		n.log.Error("changed blocklists could not be read: they stay as they were until they change again, or a restart", ops.KeyError, err)
	}
}

// catalogMachineChanged has a machine that changed, or all when nobody knows which
// did, follow the blocklists that it subscribes to now.
func (n *node) catalogMachineChanged(ctx context.Context, id string, all bool) {
	change := n.catalog.MachinesChanged
	if !all {
		if id == "" {
			return
		}
		change = func(ctx context.Context) error { return n.catalog.MachineChanged(ctx, id) }
	}
	if err := change(ctx); err != nil && ctx.Err() == nil {
		n.log.Error("a machine that has changed could not be told which blocklists are for it; it reads new ones with its next pull, and drops others when their time is up", ops.KeyMachine, id, ops.KeyError, err)
	}
}

// catalogJobs are the catalogue's periodic chores.
func (n *node) catalogJobs() []ops.Job {
	return []ops.Job{
		{Name: "feeds", Interval: time.Minute, Jitter: 10 * time.Second, Log: n.log, Do: n.catalog.FetchDue},
		{Name: "blocklists", Interval: 20 * time.Minute, Jitter: time.Minute, Log: n.log, Do: func(ctx context.Context) error {
			return errors.Join(n.catalog.EndEntries(ctx), n.catalog.Observe(ctx))
		}},
		{Name: "countries", Interval: time.Minute, Log: n.log, Do: func(context.Context) error {
			changed, err := n.countries.Reload()
			if changed {
				n.log.Info("the database of countries was read anew", "path", n.cfg.Enrich.Country)
				n.catalog.Guarded() // rules may be of countries
				err = n.rangesReloaded()
			}
			return err
		}},
	}
}

// mountLists serves what links lead to.
func (n *node) mountLists(mux *http.ServeMux) {
	mux.HandleFunc(catalog.Path+"{id}", func(w http.ResponseWriter, r *http.Request) {
		ops.RecordOf(r.Context()).Route = r.Method + " " + catalog.Path + "{id}"
		n.catalog.ServeLink(w, r)
	})
}

// convicted gives the catalogue its view of what the network has convicted.
type convicted struct {
	*publish.Publisher
	*store.DB
}

// members gives the catalogue its view of machines.
type members struct{ *node }

func (m members) Machine(id string) (muster.Machine, bool) { return m.machines.Machine(id) }

func (m members) EachMachine(ctx context.Context, fn func(muster.Machine) error) error {
	return m.db.EachMachine(ctx, fn)
}

func (m members) Plan(_ context.Context, organisation string) (muster.Plan, error) {
	plan := m.machines.Plan(organisation)
	if plan == "" {
		return "", muster.Errorf(muster.NotFound, "there is no organisation %q", organisation)
	}
	return plan, nil
}
