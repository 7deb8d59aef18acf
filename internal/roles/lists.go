package roles

import (
	"context"
	"time"

	"muster"
	"muster/internal/ops"
	"muster/internal/policy"
	"muster/internal/publish"
	"muster/internal/wire"
)

// readerLists is what other parts have for the readers of the community list.
// Each may be nil, and is set before anybody pulls.
type readerLists struct {
	// allowed returns what must not reach a reader, and a version that stands for
	// it; nil and 0 for nothing.
	allowed func(machine, organisation string, tags []string) (*policy.Allowlist, uint64)
	// allowlists and blocklists are what a machine fetches with a pull.
	allowlists func(machine, organisation string, tags []string) []wire.AllowlistLink
	blocklists func(machine, organisation string, tags []string) []wire.BlocklistLink
}

// newPublisher makes the list engine and what it knows its readers by.
func (n *node) newPublisher(taxonomy *policy.Taxonomy) *publish.Publisher {
	n.reports = publish.NewReports(min(n.cfg.Lists.Window, n.cfg.Stream.MaxAge), n.now)
	if n.cfg.Lists.Tailored {
		n.rankings = publish.NewRankings(publish.RankingsConfig{Sources: n.cfg.Lists.TailoredSources, Now: n.now, Registerer: n.registry})
	}
	return publish.New(publish.Config{
		Verdicts: changelog{n.db}, Allowed: n.truth.covers,
		Behaviour: func(scenario string) string { return taxonomy.Of(scenario).Behaviour },
		Tier:      n.tier, Reported: n.reports.Scenarios,
		Allowlist: func(r *publish.Reader) (publish.Allowlist, uint64) {
			if n.lists.allowed == nil {
				return nil, 0
			}
			list, version := n.lists.allowed(r.Machine, r.Organisation, r.Tags)
			if list == nil || version == 0 {
				return nil, 0
			}
			return list, version
		},
		Preferred: func(r *publish.Reader) ([]muster.Source, uint64) { return n.reports.Sources(r.Organisation) },
		Rankings:  n.rankings,
		Links: func(r *publish.Reader) (links wire.Links) {
			if n.lists.allowlists != nil {
				links.Allowlists = n.lists.allowlists(r.Machine, r.Organisation, r.Tags)
			}
			if n.lists.blocklists != nil {
				links.Blocklists = n.lists.blocklists(r.Machine, r.Organisation, r.Tags)
			}
			return links
		},
		Now: n.now, Logger: n.log, Registerer: n.registry,
	})
}

// tier says what a reader is entitled to.
func (n *node) tier(r *publish.Reader) publish.Tier {
	tiers := &n.cfg.Lists.Tiers
	t := &tiers.Community
	switch {
	case r.Plan == muster.Enterprise || r.Plan == muster.SecOps:
		t = &tiers.Premium
	case n.cfg.Lists.Contribution > 0 && n.reports.Counted(r.Organisation) < n.cfg.Lists.Contribution:
		t = &tiers.Lite
	}
	return publish.Tier{Size: t.Size, Tailoring: publish.Tailoring(t.Tailoring)}
}

// followReports reads the stream, from its beginning on, for what organisations
// reported, as soon as a list depends on it: where everything fits into every
// list, nothing is read. Nobody depends on its being up to date, so its end
// is no reason to stop the server.
func (n *node) followReports(ctx context.Context) error {
	if n.cfg.Lists.Contribution == 0 {
		select {
		case <-n.reports.Asked():
		case <-ctx.Done():
			return nil
		}
	}
	if err := n.readReports(ctx); ctx.Err() == nil {
		n.log.Error("the signal log cannot be read on: until a restart, lists go by what was reported before", ops.KeyError, err)
		<-ctx.Done()
	}
	return nil
}

// readReports reads without a rest until it knows what was reported before the
// start, then a tenth of the time: a flood of signals is the judge's to hurry for,
// and lists can wait.
func (n *node) readReports(ctx context.Context) error {
	const (
		atOnce = 256
		rest   = 9 // times as long as it read
		doze   = 10 * time.Millisecond
	)
	last, err := n.bus.Last(ctx)
	if err != nil {
		return err
	}
	reader, err := n.openReader(ctx, [muster.Partitions]uint64{})
	if err != nil {
		return err
	}
	defer reader.Close()
	var owed time.Duration
	for behind := true; ; {
		if behind && reader.Position() >= last {
			n.reports.Refresh() // as before the start
			if n.rankings != nil {
				n.rankings.Ready()
			}
			behind = false
		}
		if owed >= doze {
			select {
			case <-time.After(min(owed, time.Second)):
			case <-ctx.Done():
				return ctx.Err()
			}
			owed = 0
		}
		entries, err := reader.Next(ctx, atOnce)
		if err != nil {
			return err
		}
		begun := n.now()
		for i := range entries {
			// What is damaged is the judge's to complain about.
			_ = muster.DecodeSignals(entries[i].Data, func(s *muster.Signal) {
				if n.isMember(s.Machine, s.Organisation) {
					n.reports.Observe(s)
					if n.rankings != nil {
						n.rankings.Observe(s)
					}
				}
			})
		}
		if !behind {
			owed += rest * n.now().Sub(begun)
		}
	}
}

// refreshReports shows readers what organisations reported, and ranks by it.
func (n *node) refreshReports() ops.Job {
	return ops.Job{Name: "reports", Interval: time.Minute, Log: n.log, Do: func(context.Context) error {
		n.reports.Refresh()
		n.publisher.Rank()
		return nil
	}}
}
