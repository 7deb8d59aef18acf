package catalog

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"muster"
	"muster/internal/wire"
)

// Subscribed returns the lists that a subscriber itself subscribes to, with its
// remedy in place of the list's; of a machine not those of its tags and its
// organisation. The list of id muster.CommunityList may be among them.
func (s *Service) Subscribed(by muster.Subscriber) []muster.Blocklist {
	st := s.state.Load()
	var lists []muster.Blocklist
	for _, sub := range st.by[by] {
		if l := st.lists[sub.Blocklist]; MayRead(l, by.Organisation) {
			lists = append(lists, subscribed(l, sub.Remedy))
		}
	}
	return lists
}

func subscribed(l *muster.Blocklist, remedy muster.Remedy) muster.Blocklist {
	list := *l
	if remedy != "" {
		list.Remedy = remedy
	}
	return list
}

// of returns what a machine subscribes to, itself, by a tag or by its
// organisation, by list; of several subscriptions to one list that counts which
// is nearest to the machine.
func (st *state) of(machine, organisation string, tags []string) map[string]muster.Subscription {
	if organisation == "" || len(st.by) == 0 {
		return nil
	}
	var all map[string]muster.Subscription
	add := func(kind muster.SubscriberKind, id string) {
		for _, sub := range st.by[muster.Subscriber{Kind: kind, ID: id, Organisation: organisation}] {
			if all == nil {
				all = map[string]muster.Subscription{}
			}
			if _, ok := all[sub.Blocklist]; !ok {
				all[sub.Blocklist] = sub
			}
		}
	}
	add(muster.SubscriberMachine, machine)
	for _, tag := range tags {
		add(muster.SubscriberTag, tag)
	}
	add(muster.SubscriberOrganisation, organisation)
	return all
}

// Subscriptions returns those of one list (by id), or of all for "", in order of
// the lists.
func (s *Service) Subscriptions(list string) []muster.Subscription {
	st := s.state.Load()
	if list != "" {
		return slices.Clone(st.subscribers[list])
	}
	var all []muster.Subscription
	for _, l := range s.Lists() {
		all = append(all, st.subscribers[l.ID]...)
	}
	return all
}

// Subscribe has a subscriber read a list, found by id or name, from now on;
// CreatedAt and CreatedBy are set here. Machines that take orders are told at
// once. Errors are of code NotFound, Invalid, or Payment when the organisation
// has as many lists as its plan allows.
func (s *Service) Subscribe(ctx context.Context, sub muster.Subscription, by By) (muster.Subscription, error) {
	l, err := s.List(sub.Blocklist)
	if err != nil {
		return sub, err
	}
	sub.Blocklist, sub.CreatedAt, sub.CreatedBy = l.ID, s.instant(), by.User
	if sub.Subscriber, err = s.subscriber(&l, sub.Subscriber); err != nil {
		return sub, err
	}
	if sub.Remedy != "" {
		if err := checkRemedy(sub.Remedy); err != nil {
			return sub, err
		}
	}
	if err := s.withinPlan(ctx, l.ID, sub.Subscriber.Organisation); err != nil {
		return sub, err
	}
	entry, err := s.audit("subscription.add", l.Name, by, sub)
	if err != nil {
		return sub, err
	}
	if err := s.cfg.Store.PutSubscription(ctx, sub, entry); err != nil {
		return sub, err
	}
	err = s.changed(ctx, l.ID)
	s.enqueue(task{list: l, subscriber: sub.Subscriber})
	return sub, err
}

// subscriber checks that one may read a list, and completes it.
func (s *Service) subscriber(l *muster.Blocklist, by muster.Subscriber) (muster.Subscriber, error) {
	switch by.Kind {
	case muster.SubscriberMachine:
		m, ok := s.cfg.Machines.Machine(by.ID)
		if !ok || m.State != muster.Active {
			return by, muster.Errorf(muster.NotFound, "there is no active machine %q", clip(by.ID))
		}
		if by.Organisation != "" && by.Organisation != m.Organisation {
			return by, muster.Errorf(muster.Invalid, "the machine %q is not of the organisation %q", clip(by.ID), clip(by.Organisation))
		}
		by.Organisation = m.Organisation
	case muster.SubscriberOrganisation:
		if by.Organisation == "" {
			by.Organisation = by.ID
		}
		by.ID = by.Organisation
	case muster.SubscriberTag, muster.SubscriberIntegration:
	default:
		return by, muster.Errorf(muster.Invalid, "expected a machine, tag, organisation or integration, got %q", clip(string(by.Kind)))
	}
	switch {
	case by.ID == "" || len(by.ID) > 200:
		return by, muster.Errorf(muster.Invalid, "expected the id of the %s that subscribes", by.Kind)
	case by.Organisation == "":
		return by, muster.Errorf(muster.Invalid, "expected the organisation that the %s belongs to", by.Kind)
	case !MayRead(l, by.Organisation):
		return by, muster.Errorf(muster.NotFound, "the blocklist %s is not shared with this organisation", l.Name)
	case l.ID == muster.CommunityList && by.Kind != muster.SubscriberIntegration:
		return by, muster.Errorf(muster.Invalid, "engines get the community list with every pull: only integrations subscribe to it")
	}
	return by, nil
}

// withinPlan checks that an organisation may have one more list.
func (s *Service) withinPlan(ctx context.Context, list, organisation string) error {
	plan, err := s.cfg.Machines.Plan(ctx, organisation)
	if err != nil {
		return err
	}
	most := s.cfg.MaxSubscriptions[plan]
	if most <= 0 {
		return nil
	}
	has := map[string]bool{}
	for by, subs := range s.state.Load().by {
		if by.Organisation != organisation {
			continue
		}
		for _, sub := range subs {
			has[sub.Blocklist] = true
		}
	}
	if delete(has, muster.CommunityList); has[list] || list == muster.CommunityList || len(has) < most {
		return nil
	}
	return muster.Errorf(muster.Payment, "the plan %s allows subscriptions to %d blocklists, and the organisation has %d (setting blocklists.subscriptions)", plan, most, len(has))
}

// Unsubscribe ends a subscription; code NotFound when there is none. Machines
// that take orders and do not get the list in another way drop it at once;
// others keep its entries for the list's lifetime.
func (s *Service) Unsubscribe(ctx context.Context, ref string, subscriber muster.Subscriber, by By) error {
	l, err := s.List(ref)
	if err != nil {
		return err
	}
	if subscriber.Kind == muster.SubscriberOrganisation && subscriber.Organisation == "" {
		subscriber.Organisation = subscriber.ID
	}
	if subscriber.Organisation == "" { // a machine that is gone, or moved, has subscriptions of its old organisation
		for _, sub := range s.state.Load().subscribers[l.ID] {
			if sub.Subscriber.Kind == subscriber.Kind && sub.Subscriber.ID == subscriber.ID && subscriber.Kind != muster.SubscriberTag {
				subscriber.Organisation = sub.Subscriber.Organisation
			}
		}
	}
	entry, err := s.audit("subscription.remove", l.Name, by, subscriber)
	if err != nil {
		return err
	}
	if err := s.cfg.Store.DeleteSubscription(ctx, l.ID, subscriber, entry); err != nil {
		return err
	}
	err = s.changed(ctx, l.ID)
	s.enqueue(task{list: l, subscriber: subscriber})
	return err
}

// task is orders that a change asks for.
type task struct {
	list       muster.Blocklist
	subscriber muster.Subscriber
	again      bool // drop the list before it is read
}

// Bounds of what is ordered.
const (
	maxTasks  = 1000
	maxOrders = 20_000 // of one task
)

// enqueue has Run tell the machines concerned. It does not wait: whoever is not
// told finds out with its next pull.
func (s *Service) enqueue(t task) {
	if t.subscriber.Kind == muster.SubscriberIntegration {
		return
	}
	select {
	case s.tasks <- t:
	default:
		s.log.Warn("too many changes of subscriptions at once: machines are not ordered to follow, and do with their next pull", "list", t.list.Name)
	}
}

// tell orders the machines that a task concerns to read a list, or to drop it.
func (s *Service) tell(ctx context.Context, t task) {
	by := t.subscriber
	plan, err := s.cfg.Machines.Plan(ctx, by.Organisation)
	if err != nil {
		s.log.Warn("machines could not be ordered to follow a change of subscriptions; they do with their next pull", "list", t.list.Name, "error", err)
		return
	}
	if !plan.Orders() {
		return
	}
	machines := s.readers.those(by)
	if len(machines) > maxOrders {
		s.log.Warn("not all machines are ordered to follow a change of subscriptions; the others do with their next pull", "list", t.list.Name, "machines", len(machines), "ordered", maxOrders)
		machines = machines[:maxOrders]
	}
	for _, id := range machines {
		if err := s.order(ctx, t, id); err != nil {
			if ctx.Err() == nil {
				s.log.Warn("machines could not be ordered to follow a change of subscriptions; they do with their next pull", "list", t.list.Name, "machine", id, "error", err)
			}
			return
		}
	}
}

// order tells one machine to read a list, or to drop it when nothing makes it
// subscribe any more.
func (s *Service) order(ctx context.Context, t task, machine string) error {
	m, ok := s.cfg.Machines.Machine(machine)
	if !ok || m.State != muster.Active || m.Organisation != t.subscriber.Organisation {
		return nil
	}
	sub, subscribes := s.state.Load().of(machine, m.Organisation, m.Tags)[t.list.ID]
	if t.again && sub.Subscriber != t.subscriber {
		return nil // the one that is nearer to the machine has a task of its own
	}
	if !subscribes || t.again {
		for _, name := range namesOf(t.list.Name) {
			data, err := wire.BlocklistUnsubscribeData(name)
			if err != nil {
				return fmt.Errorf("making an order: %w", err)
			}
			if err := s.issue(ctx, machine, muster.OrderBlocklistUnsubscribe, data, name); err != nil {
				return err
			}
		}
	}
	if !subscribes {
		return nil
	}
	for _, link := range s.appendLinks(ctx, nil, sub) {
		data, err := wire.ForcePullBlocklistData(link)
		if err != nil {
			return fmt.Errorf("making an order: %w", err)
		}
		if err := s.issue(ctx, machine, muster.OrderForcePull, data, link.Name); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) issue(ctx context.Context, machine string, kind muster.OrderKind, data json.RawMessage, name string) error {
	_, err := s.cfg.Orders.Issue(ctx, muster.Order{Machine: machine, Kind: kind, Data: data, Message: "blocklist " + name})
	return err
}
