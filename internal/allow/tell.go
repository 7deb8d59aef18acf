package allow

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"muster"
	"muster/internal/wire"
)

const (
	// settle is how long after a change machines are told, so that many changes are
	// told at once.
	settle = time.Second
	// tellEvery is how often at most the same list is told: a name that leads
	// somewhere else each minute must not have a fleet fetch its list as often.
	tellEvery = 10 * time.Second
	// polls is within which time a machine that takes orders is heard of.
	polls = 10 * time.Minute
	// A machine that takes no orders gets links to nothing for a day of pulls.
	emptyFor = 24 * time.Hour
	// giveUp is when a machine that was never heard of again is left alone.
	giveUp       = 90 * 24 * time.Hour
	withdrawEach = time.Minute
	// linkSpare is how much longer than the order its link is valid.
	linkSpare = time.Hour
)

// untellLocked notes lists that machines are to be told of; s.mu is held.
func (s *Service) untellLocked(ids []string) {
	for _, id := range ids {
		s.untold[id] = struct{}{}
		if s.told[id].IsZero() {
			s.told[id] = s.cfg.Now().Add(settle - tellEvery) // so that it is due after settle
		}
	}
	if len(ids) > 0 {
		ring(s.wakeTell)
	}
}

// tell sees to everything that is due: what has ended is taken off, machines are
// told of lists that changed and of those that they are to let go of. It returns
// when something is due again.
func (s *Service) tell(ctx context.Context) time.Duration {
	now := s.cfg.Now()
	wait := withdrawEach
	if next := s.expire(now); !next.IsZero() {
		wait = min(wait, max(next.Sub(now), time.Millisecond))
	}
	s.tellEnded()
	s.clean(ctx, now)
	s.tellChanges(ctx, now)
	if err := s.tellWithdrawals(ctx, now); err != nil && ctx.Err() == nil {
		s.log.Warn("machines could not be told to let go of allowlists; they are told later", "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.untold {
		wait = min(wait, max(s.told[id].Add(tellEvery).Sub(s.cfg.Now()), time.Millisecond))
	}
	return wait
}

// cleanEach is how often expired items are forgotten.
const cleanEach = time.Hour

func (s *Service) clean(ctx context.Context, now time.Time) {
	if now.Before(s.cleaned.Add(cleanEach)) {
		return
	}
	s.cleaned = now
	n, err := s.cfg.Store.DeleteExpiredAllowItems(ctx, now)
	if err == nil && n > 0 {
		err = s.Reload(ctx)
	}
	if err != nil && ctx.Err() == nil {
		s.log.Warn("expired items of allowlists could not be forgotten; they count no more all the same", "error", err)
	}
}

// tellChanges orders machines to fetch the lists that changed.
func (s *Service) tellChanges(ctx context.Context, now time.Time) {
	type change struct {
		list     muster.Allowlist
		machines []string
	}
	var changes []change
	s.mu.Lock()
	for id := range s.untold {
		if now.Before(s.told[id].Add(tellEvery)) {
			continue
		}
		delete(s.untold, id)
		l := s.lists[id]
		if l == nil {
			delete(s.told, id)
			continue
		}
		s.told[id] = now
		c := change{list: l.Allowlist}
		for machine, r := range s.readers {
			if l.reaches(machine, r) {
				c.machines = append(c.machines, machine)
			}
		}
		changes = append(changes, c)
	}
	for id, at := range s.told {
		if _, open := s.untold[id]; !open && !now.Before(at.Add(tellEvery)) {
			delete(s.told, id)
		}
	}
	s.mu.Unlock()
	for _, c := range changes {
		data, err := wire.ForcePullAllowlistData(s.link(&c.list, whole, now.Add(s.cfg.OrderKeep+linkSpare)))
		if err != nil {
			s.log.Error("no order can be made of an allowlist; machines get it with their next pull", "allowlist", c.list.Name, "error", err)
			continue
		}
		slices.Sort(c.machines)
		told := 0
		for _, machine := range c.machines {
			if s.listens(machine, now) && s.order(ctx, machine, muster.OrderForcePull, data) {
				told++
			}
		}
		if len(c.machines) > 0 {
			s.log.Info("machines were told to fetch an allowlist; the others get it with their next pull",
				"allowlist", c.list.Name, "organisation", c.list.Organisation, "told", told, "machines", len(c.machines))
		}
	}
}

// listens reports whether a machine waits for orders.
func (s *Service) listens(id string, now time.Time) bool {
	m, ok := s.cfg.Machines.Machine(id)
	return ok && m.State == muster.Active && s.cfg.Machines.Plan(m.Organisation).Orders() &&
		!m.Seen.Poll.IsZero() && now.Sub(m.Seen.Poll) < polls
}

func (s *Service) order(ctx context.Context, machine string, kind muster.OrderKind, data json.RawMessage) bool {
	if ctx.Err() != nil {
		return false
	}
	_, err := s.cfg.Orders.Issue(ctx, muster.Order{Machine: machine, Kind: kind, Data: data, Message: "allowlist changed"})
	if err != nil && ctx.Err() == nil {
		s.log.Warn("an order about an allowlist could not be issued", "machine", machine, "kind", kind, "error", err)
	}
	return err == nil
}

// withdraw stores that machines are to let go of lists; s.changing is held.
func (s *Service) withdraw(ctx context.Context, ws []muster.AllowWithdrawal) error {
	if len(ws) == 0 {
		return nil
	}
	if err := s.cfg.Store.PutAllowWithdrawals(ctx, ws); err != nil {
		return err
	}
	s.mu.Lock()
	s.addLeaving(ws)
	s.mu.Unlock()
	ring(s.wakeTell)
	return nil
}

// addLeaving is called with s.mu held.
func (s *Service) addLeaving(ws []muster.AllowWithdrawal) {
	for _, w := range ws {
		s.dropLeaving(w)
		s.leaving[w.Machine] = append(s.leaving[w.Machine], w)
		s.leavings.Add(1)
	}
}

// dropLeaving is called with s.mu held.
func (s *Service) dropLeaving(w muster.AllowWithdrawal) {
	of := s.leaving[w.Machine]
	left := slices.DeleteFunc(slices.Clone(of), func(o muster.AllowWithdrawal) bool { return o.List == w.List })
	s.leavings.Add(int64(len(left) - len(of)))
	if s.leaving[w.Machine] = left; len(left) == 0 {
		delete(s.leaving, w.Machine)
	}
}

// tellWithdrawals orders machines to let go of lists, and forgets those that have
// heard.
func (s *Service) tellWithdrawals(ctx context.Context, now time.Time) error {
	if s.leavings.Load() == 0 {
		return nil
	}
	var all, done, changed []muster.AllowWithdrawal
	s.changing.Lock() // a change stores first who is to let go: half-way through, the list is still for them
	s.mu.Lock()
	for _, ws := range s.leaving {
		all = append(all, ws...)
	}
	held := func(w muster.AllowWithdrawal) bool { // for it again
		l := s.lists[w.List]
		return l != nil && l.reaches(w.Machine, s.readers[w.Machine])
	}
	again := map[muster.AllowWithdrawal]bool{}
	for _, w := range all {
		again[w] = held(w)
	}
	s.mu.Unlock()
	s.changing.Unlock()
	slices.SortFunc(all, func(a, b muster.AllowWithdrawal) int {
		return cmp.Or(cmp.Compare(a.Machine, b.Machine), cmp.Compare(a.List, b.List))
	})
	for _, w := range all {
		m, ok := s.cfg.Machines.Machine(w.Machine)
		ordered := !w.Ordered.IsZero()
		switch {
		case !ok, again[w], now.Sub(w.Since) > giveUp:
			done = append(done, w)
		case ordered && m.Seen.Poll.After(w.Ordered):
			done = append(done, w) // it asked again, so it was answered
		case ordered && now.Sub(w.Ordered) < s.cfg.OrderKeep:
			// The order waits for it.
		case s.listens(w.Machine, now):
			data, err := wire.AllowlistUnsubscribeData(w.List, w.Name)
			if err == nil && s.order(ctx, w.Machine, muster.OrderAllowlistUnsubscribe, data) {
				w.Ordered = now.UTC()
				changed = append(changed, w)
			}
		case ordered:
			w.Ordered = time.Time{} // nobody fetched it: links to nothing from now on
			changed = append(changed, w)
		case m.Seen.Pull.Sub(w.Since) > emptyFor:
			done = append(done, w)
		}
	}
	return s.settleWithdrawals(ctx, done, changed)
}

func (s *Service) settleWithdrawals(ctx context.Context, done, changed []muster.AllowWithdrawal) error {
	if len(done)+len(changed) == 0 {
		return nil
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	renewed := func(w muster.AllowWithdrawal) bool { // meanwhile: for another reason
		return !slices.ContainsFunc(s.leaving[w.Machine], func(o muster.AllowWithdrawal) bool { return o.List == w.List && o.Since.Equal(w.Since) })
	}
	done, changed = slices.DeleteFunc(done, renewed), slices.DeleteFunc(changed, renewed)
	s.mu.Unlock()
	if len(done) > 0 {
		if err := s.cfg.Store.DeleteAllowWithdrawals(ctx, done); err != nil {
			return err
		}
	}
	if len(changed) > 0 {
		if err := s.cfg.Store.PutAllowWithdrawals(ctx, changed); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range done {
		s.dropLeaving(w)
	}
	s.addLeaving(changed)
	return nil
}
