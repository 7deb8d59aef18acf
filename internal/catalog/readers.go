package catalog

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"muster"
)

// readers is what machines subscribe by, as it was when they last changed: what one
// has lost cannot be told from what it is now.
type readers struct {
	mu sync.Mutex // held while a machine is told
	by map[string]reader
}

// reader is what a machine subscribes by, beside its id; the zero reader reads
// nothing.
type reader struct {
	organisation string
	tags         []string
}

func readerOf(m *muster.Machine) reader {
	if m.State != muster.Active {
		return reader{}
	}
	return reader{m.Organisation, m.Tags}
}

func (s *Service) loadReaders(ctx context.Context) error {
	s.readers.mu.Lock()
	defer s.readers.mu.Unlock()
	s.readers.by = map[string]reader{}
	return s.cfg.Machines.EachMachine(ctx, func(m muster.Machine) error {
		s.readers.put(m.ID, readerOf(&m))
		return nil
	})
}

// put is called with mu held.
func (r *readers) put(machine string, now reader) {
	if now.organisation == "" {
		delete(r.by, machine)
		return
	}
	r.by[machine] = now
}

// those returns the ids of the machines that a subscriber stands for, in order.
func (r *readers) those(by muster.Subscriber) (machines []string) {
	if by.Kind == muster.SubscriberMachine {
		return []string{by.ID}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, m := range r.by {
		if m.organisation == by.Organisation && (by.Kind != muster.SubscriberTag || slices.Contains(m.tags, by.ID)) {
			machines = append(machines, id)
		}
	}
	slices.Sort(machines)
	return machines
}

// MachineChanged looks at a machine again after its organisation, tags or state
// have changed: when it takes orders, it is told to drop the lists that it
// subscribes to no longer, and to read those that it does now. After an error the
// next call tells it again.
func (s *Service) MachineChanged(ctx context.Context, id string) error {
	s.readers.mu.Lock()
	defer s.readers.mu.Unlock()
	var now reader
	if m, ok := s.cfg.Machines.Machine(id); ok {
		now = readerOf(&m)
	}
	before := s.readers.by[id]
	changed := s.differing(id, before, now)
	if now.organisation != "" && len(changed) > 0 {
		plan, err := s.cfg.Machines.Plan(ctx, now.organisation)
		if err != nil {
			return err
		}
		if !plan.Orders() {
			changed = nil
		}
		for _, l := range changed {
			t := task{list: *l, subscriber: muster.Subscriber{Kind: muster.SubscriberMachine, ID: id, Organisation: now.organisation}}
			if err := s.order(ctx, t, id); err != nil {
				return fmt.Errorf("ordering a machine to follow its blocklists: %w", err)
			}
		}
	}
	s.readers.put(id, now)
	return nil
}

// differing returns the lists that only one of two readers subscribes to, or with
// another remedy.
func (s *Service) differing(machine string, a, b reader) (lists []*muster.Blocklist) {
	st := s.state.Load()
	of, other := st.of(machine, a.organisation, a.tags), st.of(machine, b.organisation, b.tags)
	for id, sub := range of {
		if in, ok := other[id]; !ok || in.Remedy != sub.Remedy {
			lists = append(lists, st.lists[id])
		}
	}
	for id := range other {
		if _, ok := of[id]; !ok {
			lists = append(lists, st.lists[id])
		}
	}
	return lists
}

// MachinesChanged is MachineChanged for all of them.
func (s *Service) MachinesChanged(ctx context.Context) error {
	ids := map[string]struct{}{}
	err := s.cfg.Machines.EachMachine(ctx, func(m muster.Machine) error {
		ids[m.ID] = struct{}{}
		return nil
	})
	if err != nil {
		return err
	}
	s.readers.mu.Lock()
	for id := range s.readers.by {
		ids[id] = struct{}{}
	}
	s.readers.mu.Unlock()
	for id := range ids {
		if err := s.MachineChanged(ctx, id); err != nil {
			return err
		}
	}
	return nil
}
