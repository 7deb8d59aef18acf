package roles

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/internal/abuse"
	"muster/internal/allow"
	"muster/internal/catalog"
	"muster/internal/console"
	"muster/internal/crowd"
	"muster/internal/edge"
	"muster/internal/enrich"
	"muster/internal/enroll"
	"muster/internal/hub"
	"muster/internal/ingest"
	"muster/internal/jury"
	"muster/internal/namecheck"
	"muster/internal/ops"
	"muster/internal/orders"
	"muster/internal/peer"
	"muster/internal/policy"
	"muster/internal/publish"
	"muster/internal/reach"
	"muster/internal/reputation"
	"muster/internal/store"
	"muster/internal/stream"
	"muster/internal/unban"
)

// Serve runs the edge, judge and console roles in this process until ctx ends,
// and drains. What a person should see at the start (where it listens, how to
// connect an engine, the first password) goes to out.
func Serve(ctx context.Context, cfg *Config, version string, log *slog.Logger, out io.Writer) error {
	lock, err := lockDir(cfg.DataDir)
	if err != nil {
		return err
	}
	defer closing(log, "lock of the data directory", lock.Close)

	n := &node{cfg: cfg, version: version, log: log, out: out, registry: ops.NewRegistry(), now: time.Now}
	// Listening comes first: whoever finds a port taken has changed nothing.
	if err := n.open(ctx); err != nil {
		return err
	}
	if n.db, err = store.Open(ctx, cfg.DatabaseURL(), store.Options{Logger: log}); err != nil {
		return fmt.Errorf("opening the database (setting database): %w", err)
	}
	defer closing(log, "database", n.db.Close)
	if n.bus, err = openBus(ctx, cfg, n.db, n.registry, log); err != nil {
		return err
	}
	defer n.bus.Close()
	if err := n.build(ctx); err != nil {
		return err
	}
	if n.asn != nil {
		defer closing(log, "database of AS numbers", n.asn.Close)
	}
	defer closing(log, "database of countries", n.countries.Close)
	return n.run(ctx)
}

// node is one process with its services, built once and then run.
type node struct {
	cfg      *Config
	version  string
	log      *slog.Logger
	out      io.Writer
	registry *prometheus.Registry
	db       *store.DB
	bus      *stream.Bus
	now      func() time.Time

	traces     *ops.Traces
	health     *ops.Health
	bells      *bells
	machines   *enroll.Service
	abuse      *abuse.Service
	committer  *ingest.Committer
	publisher  *publish.Publisher
	reports    *publish.Reports
	rankings   *publish.Rankings // nil unless lists are tailored
	lists      readerLists
	catalog    *catalog.Service
	mirror     *hub.Mirror
	bundles    *bundles
	countries  *enrich.Country // nil without a database
	reach      *reach.Service
	lookups    *reach.Lookups
	reputation *reputation.Service
	worker     *jury.Worker
	unbans     *unban.Service
	asn        *enrich.ASN        // nil without a database
	names      *namecheck.Service // nil unless names are looked up
	orders     *orders.Service
	allow      *allow.Service
	truth      *truth

	listener, admin, debug net.Listener // debug is nil when metrics.listen is empty
	public                 string       // base URL, ends in "/"
	trust                  peer.Trust   // whose word about a client is believed

	first   *firstSecrets // set at the first start
	removed time.Time     // up to when deleted decisions have been seen to; the bell's own goroutine's
}

// open takes the addresses that this node listens on. A failure further on ends
// the process, and with it the listeners.
func (n *node) open(ctx context.Context) (err error) {
	if n.listener, err = ops.Listen(ctx, n.cfg.Listen, "listen"); err != nil {
		return err
	}
	n.public = n.cfg.BaseURL(n.listener.Addr().String())
	if n.trust, err = n.cfg.Proxies.trust(); err != nil {
		return err
	}
	if n.listener, err = n.cfg.Proxies.behindProxies(n.listener, n.trust, n.registry); err != nil {
		return err
	}
	if n.admin, err = listenSocket(ctx, n.cfg.DataDir); err != nil {
		return err
	}
	if n.cfg.Metrics.Listen != "" {
		n.debug, err = ops.Listen(ctx, n.cfg.Metrics.Listen, "metrics.listen")
	}
	return err
}

// openBus starts the stream above every position that the database has applied,
// so that a stream that was lost does not hand out old positions again.
func openBus(ctx context.Context, cfg *Config, db *store.DB, reg prometheus.Registerer, log *slog.Logger) (*stream.Bus, error) {
	positions, err := db.Positions(ctx)
	if err != nil {
		return nil, err
	}
	rollups, err := db.RollupPositions(ctx)
	if err != nil {
		return nil, err
	}
	floor := max(slices.Max(positions[:]), slices.Max(rollups[:]))
	bus, err := stream.Open(ctx, stream.Config{
		URL: cfg.Bus, Dir: filepath.Join(cfg.DataDir, "stream"), Floor: floor,
		MaxAge: cfg.Stream.MaxAge, MaxBytes: int64(cfg.Stream.MaxBytes),
		Registerer: reg, Logger: log,
	})
	if err != nil {
		return nil, fmt.Errorf("starting the signal stream: %w", err)
	}
	return bus, nil
}

// build makes the services, innermost first.
func (n *node) build(ctx context.Context) (err error) {
	cfg := n.cfg
	n.traces, err = ops.NewTraces(ctx, ops.TraceConfig{Endpoint: cfg.Traces.Endpoint, Sample: cfg.Traces.Sample, Version: n.version})
	if err != nil {
		return err
	}
	if err := n.useBundle(ctx); err != nil {
		return err
	}
	known, taxonomy, err := n.buildHub()
	if err != nil {
		return err
	}
	n.bells = &bells{bus: n.bus, log: n.log}
	n.machines, err = enroll.New(enroll.Config{
		Store: n.db, Registration: cfg.Registration,
		TokenLifetime: cfg.Tokens.Lifetime, TokenSpread: noneAsNegative(cfg.Tokens.Spread), PublicURL: n.public,
		Notify: n.bells.machine, Now: n.now, Logger: n.log, Registerer: n.registry,
	})
	if err != nil {
		return err
	}
	if n.abuse, err = n.newAbuse(); err != nil {
		return err
	}
	if cfg.Enrich.ASN != "" {
		if n.asn, err = enrich.Open(cfg.Enrich.ASN); err != nil {
			return err
		}
	}
	if cfg.Enrich.Country != "" {
		if n.countries, err = enrich.OpenCountry(cfg.Enrich.Country); err != nil {
			return err
		}
	}
	rules := ingest.Rules{Hub: known, MaxAge: cfg.Ingest.MaxAge, MaxFuture: cfg.Ingest.MaxFuture, ASN: n.knownAS()}
	n.committer = ingest.NewCommitter(ingest.Config{
		Log: n.bus, Rules: rules, Linger: cfg.Ingest.Linger, QueueBytes: int(cfg.Ingest.Queue),
		Now: n.now, Logger: n.log, Registerer: n.registry,
	})
	n.orders = orders.New(orders.Config{
		Outbox: n.db, Ring: n.bells.order, Keep: cfg.Orders.Keep, MaxWaiting: cfg.Limits.Polls,
		Now: n.now, Logger: n.log, Registerer: n.registry,
	})
	if err := n.buildAllow(ctx); err != nil {
		return err
	}
	n.truth = &truth{db: n.db, lists: n.allow.CentralEntries, fixed: cfg.Publish.Allowlist, wide: policy.NewAllowlist(entriesOf(cfg.Publish.Shared)), now: n.now, asn: n.knownAS()}
	if err := n.truth.load(ctx); err != nil {
		return err
	}
	n.warnOfIdleCanaries()
	n.publisher = n.newPublisher(taxonomy)
	n.names = n.newNames()
	parameters := crowd.Default()
	parameters.Listing.Expiry = cfg.Publish.Expiry
	parameters.Listing.ShortExpiry = min(parameters.Listing.ShortExpiry, cfg.Publish.Expiry)
	n.worker = jury.New(jury.Config{
		Open: n.openReader, Ledger: ledger{n.db}, Partition: ingest.SourcePartition, Parameters: parameters,
		Prior: priors(taxonomy), Scenarios: scenariosOf(taxonomy), Truth: n.truth.current(),
		Member: n.isMember, Name: n.nameOf(), Changed: func() { n.bells.ring(bellVerdicts, "") },
		Now: n.now, Logger: n.log, Registerer: n.registry,
	})
	n.unbans = unban.New(unban.Config{
		Store: n.db, List: communityList{n}, Judge: unbanJudge{n}, Now: n.now, Logger: n.log, Registerer: n.registry,
	})
	n.newCatalog(taxonomy)
	n.newReach()
	n.newLookups()
	n.health = n.checks()
	n.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "muster_tally_lag_entries", Help: "Records of the signal log that are not judged yet.",
	}, n.lag))
	return nil
}

// lag counts records between the log's head and what is judged; positions are
// those of one stream, so they can be subtracted.
func (n *node) lag() float64 {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	last, err := n.bus.Last(ctx)
	if err != nil {
		return math.NaN()
	}
	return float64(last - min(last, n.worker.Applied()))
}

// noneAsNegative lets an operator's explicit 0 mean none, where the service's
// zero value means its default.
func noneAsNegative(v float64) float64 {
	if v == 0 {
		return -1
	}
	return v
}

// readHub returns what the hub's index knows: the digests of its scenarios, nil
// without an index, and what they are worth as evidence.
func readHub(path string) (*policy.Hub, *policy.Taxonomy, error) {
	if path == "" {
		return nil, policy.BuiltInTaxonomy(), nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the hub index (setting hub.index): %w", err)
	}
	hub, err := policy.ReadHub(bytes.NewReader(raw))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the hub index %s (setting hub.index): %w", path, err)
	}
	taxonomy, err := policy.ReadTaxonomy(bytes.NewReader(raw))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the hub index %s (setting hub.index): %w", path, err)
	}
	return hub, taxonomy, nil
}

// priors gives the judge its view of the taxonomy.
func priors(t *policy.Taxonomy) func(string) crowd.Prior {
	return func(scenario string) crowd.Prior {
		p := t.Of(scenario)
		return crowd.Prior{Confidence: p.Confidence, Spoofable: p.Spoofable}
	}
}

// scenariosOf lists what a taxonomy knows.
func scenariosOf(t *policy.Taxonomy) []string {
	names := make([]string, 0, t.Len())
	t.All(func(scenario string, _ policy.Prior) bool {
		names = append(names, scenario)
		return true
	})
	slices.Sort(names)
	return names
}

// isMember reports whether a machine's word as a member of organisation counts.
func (n *node) isMember(id, organisation string) bool {
	m, ok := n.machines.Machine(id)
	return ok && m.State == muster.Active && m.Organisation == organisation
}

// openReader follows the partitions that this node owns: all of them, while
// there is one node.
func (n *node) openReader(ctx context.Context, from [muster.Partitions]uint64) (jury.Reader, error) {
	all := make([]uint8, muster.Partitions)
	for p := range all {
		all[p] = uint8(p)
	}
	return n.bus.Read(ctx, all, from)
}

// run starts the services in order and stops them in reverse: first nobody is
// let in any more, then what was accepted is made durable, then it is judged.
func (n *node) run(ctx context.Context) error {
	group := ops.Group{Log: n.log}
	group.Add(
		n.traces.Service(),
		ops.Service{Name: "machines", Start: n.machines.Start, Run: n.machines.Run, StopTimeout: 15 * time.Second},
		ops.Service{Name: "first run", Start: n.firstRun},
		ops.Service{Name: "rate limits", Start: n.abuse.Start, Run: n.abuse.Run, StopTimeout: 15 * time.Second},
		ops.Service{Name: "publisher", Start: n.publisher.Load, Run: n.publisher.Run},
		ops.Service{Name: "blocklists", Start: n.catalog.Load, Run: n.catalog.Run, StopTimeout: 15 * time.Second},
		n.reachService(),
		ops.Service{Name: "bells", Start: n.listen, Run: n.bells.run},
		ops.Service{Name: "allowlists", Run: n.allow.Run, StopTimeout: 15 * time.Second},
		ops.Service{Name: "reports", Run: n.followReports},
		ops.Service{Name: "judge", Run: n.worker.Run, StopTimeout: 30 * time.Second},
		ops.Service{Name: "unbans", Run: n.unbans.Run, StopTimeout: 15 * time.Second},
		ops.Service{Name: "ingest", Run: n.committer.Run, StopTimeout: 30 * time.Second},
	)
	if n.names != nil {
		group.Add(ops.Service{Name: "reverse names", Run: n.names.Run, StopTimeout: 15 * time.Second})
	}
	group.Add(n.lookupServices()...)
	for _, job := range slices.Concat(n.jobs(), n.catalogJobs(), n.hubJobs(), n.lookupJobs()) {
		group.Add(job.Service())
	}
	if n.debug != nil {
		handler := ops.NewHTTP(ops.NewDebug(n.registry, n.health), ops.HTTPConfig{Log: n.log, Metrics: n.registry, Name: "debug"})
		group.Add(ops.NewServer(ops.ServerConfig{Name: "metrics", Listener: n.debug, Handler: handler, Log: n.log}).Service())
	}
	api := console.NewAPI(n.consoleConfig())
	gate, returned := edge.Gate(n.traces.Wrap(ops.NewHTTP(n.edge(api), ops.HTTPConfig{
		Log: n.log, Metrics: n.registry, Name: "edge", Timeout: n.cfg.Limits.RequestTimeout, Peer: peerOf(n.trust),
	})), edge.GateConfig{
		Refuse: n.abuse.Refuse, Addr: n.clientAddr, Direct: n.trust.Direct, Prefix: pathOf(n.public), Answer: n.answer(), Now: n.now,
	})
	group.Add(
		ops.NewServer(ops.ServerConfig{
			Name: "admin socket", Listener: n.admin, Log: n.log,
			Handler: ops.NewHTTP(api.Trusted(), ops.HTTPConfig{Log: n.log, Metrics: n.registry, Name: "admin"}),
		}).Service(),
		ops.NewServer(ops.ServerConfig{
			Name: "edge and console", Listener: n.listener, Log: n.log, StopTimeout: n.cfg.ShutdownTimeout,
			Handler: gate, Also: returned,
		}).Service(),
		ops.Service{Name: "greeting", Start: n.greet},
	)
	return group.Run(ctx)
}

// edge puts the engines' API in front of everything else on the main listener.
func (n *node) edge(api *console.API) *edge.Edge {
	others := http.NewServeMux()
	others.Handle("/api/", api)
	n.mountLists(others)
	n.mountHub(others)
	others.HandleFunc("/allowlists/", n.serveAllowlist)
	others.HandleFunc("GET /healthz", n.health.Live)
	others.HandleFunc("GET /readyz", n.health.Ready)
	others.Handle("/", console.NewWeb(n.consoleConfig()))
	l := n.cfg.Limits
	return edge.New(edge.Config{
		Machines: n.machines, Ingest: n.committer, Publisher: n.publisher, Orders: n.orders,
		Reports: reports{n.db, n.bells, n.catalog.CountHits}, Abuse: n.abuse, Addr: n.clientAddr, ASN: n.asnOf, Answer: n.answer(), Prefix: pathOf(n.public), Fallback: n.withLookups(n.withIntegrations(others)), Now: n.now,
		Limits: edge.Limits{
			Body: int64(l.Body), Decoded: int64(l.Decoded), Signals: l.Signals,
			InFlight: int64(l.InFlight), Poll: l.Poll,
		},
	})
}

func (n *node) consoleConfig() console.Config {
	return console.Config{
		Store: records{n.db}, Machines: n.machines, Orders: n.orders, Status: n.status,
		Canaries: n.db, Abuse: limits{n.abuse}, ClientAddr: n.trust.Addr, Appeal: n.cfg.RateLimit.Appeal,
		Unbans: n.unbans, Judge: n.worker, Truth: n.truth.current, ASN: n.knownAS(), Names: n.cfg.Canaries.Names, Listing: communityList{n}.Listing, Listed: communityList{n}.Size,
		Hub: hubView{n.mirror}, Bundles: n.bundles,
		Blocklists: n.catalog, Integrations: n.db, IntegrationLists: n.catalog, IntegrationContact: n.reach.Contact,
		Lookups: n.lookups, LookupKeys: n.db, LookupKeysChanged: n.lookups.Refresh,
		IntegrationsChanged:  func(context.Context) error { n.bells.ring(bellIntegrations, ""); return nil },
		Allowlists:           n.allow,
		AllowlistChanged:     n.centralChanged,
		CanariesChanged:      func(context.Context) error { n.bells.ring(bellTruth, ""); return nil },
		OrganisationsChanged: n.machines.OrganisationsChanged,
		PublicURL:            n.public, Version: n.version, Now: n.now,
	}
}

// machineCounts is enroll.Counts as the API shows it.
type machineCounts struct {
	Pending       int `json:"pending"`
	Active        int `json:"active"`
	Blocked       int `json:"blocked"`
	Organisations int `json:"organisations"` // that have an active machine
}

// status is what muster admin status shows.
func (n *node) status(ctx context.Context) any {
	alerts, err := n.db.CountAlerts(ctx)
	if err != nil {
		n.log.Warn("alerts could not be counted", ops.KeyError, err)
	}
	return struct {
		Version  string               `json:"version"`
		URL      string               `json:"url"`
		Machines machineCounts        `json:"machines"`
		Alerts   int                  `json:"alerts"`
		Listed   int                  `json:"listed"`  // on the community blocklist
		Network  *console.NetworkView `json:"network"` // null while the judge does not answer
		Health   ops.Report           `json:"health"`
	}{n.version, n.public, machineCounts(n.machines.Counts()), alerts, n.publisher.Count(muster.Network), n.network(ctx), n.health.Report(ctx)}
}

// network is what the judge says about the network, nil unless it says so soon.
func (n *node) network(ctx context.Context) *console.NetworkView {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	population, newcomer, err := n.worker.Network(ctx)
	if err != nil {
		return nil
	}
	v := console.ViewNetwork(population, newcomer, n.publisher.Count(muster.Network), n.truth.current().Canaries.Len())
	return &v
}

// checks are what /readyz looks at.
func (n *node) checks() *ops.Health {
	h := ops.NewHealth(n.log, n.now)
	h.Check("database", n.db.Ping)
	h.Check("stream", func(ctx context.Context) error {
		_, err := n.bus.Last(ctx)
		return err
	})
	h.Check("judge", func(context.Context) error {
		select {
		case <-n.worker.Ready():
			return nil
		default:
			return ops.Degraded("evidence is being loaded: lists are served as they were, signals are taken and judged later")
		}
	})
	return h
}

// jobs are the periodic chores.
func (n *node) jobs() []ops.Job {
	return []ops.Job{
		n.refreshReports(),
		{Name: "allowlist", Interval: 30 * time.Second, Log: n.log, Do: func(context.Context) error {
			if n.truth.due() {
				n.bells.ring(bellTruth, "")
			}
			return nil
		}},
		{Name: "AS numbers", Interval: time.Minute, Log: n.log, Do: func(context.Context) error {
			if n.asn == nil {
				return nil
			}
			changed, err := n.asn.Reload()
			if changed {
				n.log.Info("the database of AS numbers was read anew", "path", n.cfg.Enrich.ASN)
				n.catalog.Guarded() // canaries and rules may be of AS
				err = n.rangesReloaded()
			}
			return err
		}},
		{Name: "late removals", Interval: lateReports / 3, Log: n.log, Do: n.withdrawLate},
		{Name: "retention", Interval: 10 * time.Minute, Jitter: time.Minute, Log: n.log, Do: func(ctx context.Context) error {
			now := n.now()
			before := now.Add(-n.cfg.Retention.Alerts)
			err1 := prune(func(limit int) (int, error) { return n.db.PruneAlerts(ctx, before, limit) })
			err2 := prune(func(limit int) (int, error) { return n.db.PruneVerdicts(ctx, before, limit) })
			_, err3 := n.db.DeleteExpiredOrders(ctx, now)
			_, err4 := n.db.DeleteRemovalsBefore(ctx, now.Add(-n.cfg.Publish.Expiry))
			_, err5 := n.db.DeleteEndedBans(ctx, now)
			_, err6 := n.db.DeleteEndedOverrides(ctx, now)
			err7 := prune(func(limit int) (int, error) { return n.db.PruneAudit(ctx, now.Add(-n.cfg.Retention.Audit), limit) })
			history := now.Add(-n.cfg.Retention.History)
			err8 := prune(func(limit int) (int, error) { return n.db.PruneTrustEvents(ctx, history, limit) })
			err9 := prune(func(limit int) (int, error) { return n.db.PruneVerdictHistory(ctx, history, limit) })
			return errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9)
		}},
	}
}

// pruneChunk is how many rows are deleted at once, so that others get to write in
// between.
const pruneChunk = 5_000

// prune repeats a deletion of at most limit rows until fewer are left.
func prune(once func(limit int) (int, error)) error {
	for {
		if n, err := once(pruneChunk); err != nil || n < pruneChunk {
			return err
		}
	}
}
