package roles

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"muster"
	"muster/internal/ops"
	"muster/internal/stream"
)

// The bells, by which nodes tell each other (and a node itself) what to look at
// again. A bell carries a hint, or a
// copy, never the truth, which is in the database.
const (
	bellVerdicts = "verdicts" // verdicts changed; no payload
	bellMachines = "machines" // a machine changed; payload: its id, or "" for organisations and token keys
	bellOrders   = "orders"   // a machine has an order; payload: its id
	bellRemovals = "removals" // decisions were deleted by operators; no payload
	bellAllow    = "allow"    // allowlists changed; no payload
	bellTruth    = "truth"    // the allowlist or the canaries changed; no payload
	bellAbuse    = "abuse"    // bans and logins at other nodes; payload: abuse's own
)

// bells rings and answers bells.
type bells struct {
	bus *stream.Bus
	log *slog.Logger

	answers []answer
}

// answer is what a node does when a bell rings; all means that rings were lost,
// so that the payload says nothing.
type answer struct {
	listener *stream.Listener
	do       func(ctx context.Context, payload string, all bool)
}

// ring tells everybody, this node included; whoever cannot be told looks by
// itself after a while.
func (b *bells) ring(bell, payload string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := b.bus.Ring(ctx, bell, []byte(payload)); err != nil {
		b.log.Warn("other nodes could not be told of a change; they find it by themselves later", ops.KeyName, bell, ops.KeyError, err)
	}
}

// machine implements enroll's Notify.
func (b *bells) machine(id string) { b.ring(bellMachines, id) }

// order implements orders' Ring.
func (b *bells) order(ctx context.Context, machine string) error {
	return b.bus.Ring(ctx, bellOrders, []byte(machine))
}

// on answers a bell from now on.
func (b *bells) on(bell string, do func(ctx context.Context, payload string, all bool)) error {
	l, err := b.bus.Listen(bell)
	if err != nil {
		return err
	}
	b.answers = append(b.answers, answer{l, do})
	return nil
}

// run answers until ctx ends; each bell has a goroutine of its own, so that a
// slow answer to one does not hold up the others.
func (b *bells) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, a := range b.answers {
		group.Go(func() error {
			defer a.listener.Close()
			for {
				select {
				case r, ok := <-a.listener.C:
					if !ok {
						return nil
					}
					a.do(ctx, string(r.Payload), r.Missed)
				case <-ctx.Done():
					return nil
				}
			}
		})
	}
	return group.Wait()
}

// listen decides what this node does at each bell.
func (n *node) listen(context.Context) error {
	for bell, do := range map[string]func(ctx context.Context, payload string, all bool){
		bellVerdicts: func(context.Context, string, bool) { n.publisher.Notify() },
		bellOrders: func(_ context.Context, machine string, all bool) {
			if all {
				n.orders.WakeAll()
				return
			}
			n.orders.Wake(machine)
		},
		bellMachines:     n.machineChanged,
		bellLists:        n.listsChanged,
		bellIntegrations: n.integrationsChanged,
		bellRemovals:     func(ctx context.Context, _ string, _ bool) { n.withdraw(ctx) },
		bellAllow:        n.reloadAllow,
		bellTruth:        func(ctx context.Context, _ string, _ bool) { n.truthChanged(ctx) },
		bellAbuse: func(ctx context.Context, message string, all bool) {
			if err := n.abuse.Hear(ctx, []byte(message), all); err != nil {
				n.log.Warn("what another node told about bans was not taken in; the next comparison with the database finds it", ops.KeyError, err)
			}
		},
	} {
		if err := n.bells.on(bell, do); err != nil {
			return err
		}
	}
	n.bells.ring(bellRemovals, "") // what was deleted while nobody ran
	return nil
}

// machineChanged reads a machine again, and takes back what it said when it no
// longer counts, or as a member of an organisation that it has left.
func (n *node) machineChanged(ctx context.Context, id string, all bool) {
	if all {
		id = ""
	}
	if err := n.machines.Refresh(ctx, id); err != nil {
		n.log.Warn("a changed machine could not be read; the next full comparison finds it", ops.KeyMachine, id, ops.KeyError, err)
	}
	n.allowMachineChanged(ctx, id, all)
	n.catalogMachineChanged(ctx, id, all)
	if all {
		// Which machines changed is lost, and one of them may have been blocked.
		if err := n.worker.ForgetStrangers(ctx); err != nil && ctx.Err() == nil {
			n.log.Error("what machines reported that no longer count could not be taken back; a restart does it", ops.KeyError, err)
		}
	}
	if id == "" {
		return
	}
	member := "" // of no organisation, unless it is active
	if m, ok := n.machines.Machine(id); ok && m.State == muster.Active {
		member = m.Organisation
	}
	if err := n.worker.Forget(ctx, id, member); err != nil && ctx.Err() == nil {
		n.log.Error("what a machine reported could not be taken back; a restart does it", ops.KeyMachine, id, ops.KeyError, err)
	}
}

// lateReports is for how long a report may come after the removal of its
// decision: engines push both every ten seconds, in no order, and the judge may
// be behind.
const lateReports = 3 * time.Minute

// withdraw takes decisions that operators deleted off their fleets' lists. It
// looks at all removals that can still matter, because doing one twice changes
// nothing.
func (n *node) withdraw(ctx context.Context) {
	const most = 10_000
	since := n.removed
	if late := n.now().Add(-lateReports); late.Before(since) {
		since = late
	}
	list, err := n.db.Removals(ctx, since, most)
	if err != nil {
		n.log.Error("deleted decisions could not be read", ops.KeyError, err)
		return
	}
	for _, r := range list {
		m, ok := n.machines.Machine(r.Machine)
		if !ok {
			continue
		}
		if err := n.worker.Withdraw(ctx, m.Organisation, r, r.At.Add(-n.cfg.Publish.Expiry)); err != nil {
			if ctx.Err() == nil {
				n.log.Error("a deleted decision could not be taken off its fleet's list", ops.KeyMachine, r.Machine, ops.KeyError, err)
			}
			return
		}
		n.removed = r.At
	}
}

// withdrawLate looks again at decisions that were deleted a moment ago, for
// reports that have come since.
func (n *node) withdrawLate(ctx context.Context) error {
	list, err := n.db.Removals(ctx, n.now().Add(-lateReports), 1)
	if err == nil && len(list) > 0 {
		n.bells.ring(bellRemovals, "")
	}
	return err
}

// truthChanged reads the allowlist and the canaries and judges again what they
// concern.
func (n *node) truthChanged(ctx context.Context) {
	names := n.truth.current().Canaries.NamesID()
	if err := n.truth.load(ctx); err != nil {
		n.log.Error("the allowlist, the operators' verdicts and the canaries could not be read: those before stay in force, and they are read again soon", ops.KeyError, err)
		return
	}
	if n.names != nil && names != n.truth.current().Canaries.NamesID() {
		n.names.Forget()
	}
	n.publisher.Invalidate()
	n.catalog.Guarded()
	n.reach.Invalidate()
	if err := n.worker.SetTruth(ctx, n.truth.current()); err != nil && ctx.Err() == nil {
		n.log.Error("verdicts could not be brought in line with the allowlist and the canaries; the next commit does it, and what they name is kept out of every answer all the same", ops.KeyError, err)
	}
}
