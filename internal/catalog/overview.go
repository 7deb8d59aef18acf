package catalog

import (
	"context"

	"muster"
)

// Overview is a list with what people want to see first.
type Overview struct {
	muster.Blocklist
	BuiltIn       bool
	Size          int // entries that readers without allowlists of their own get; -1 = not known yet, or another for each organisation
	Subscriptions int
	Fetched       muster.FeedState // of a feed
	Note          string           // what is to be known about it, "" = nothing
}

// Overviews returns those of all lists, as Lists does. Sizes are of the last
// look.
func (s *Service) Overviews() []Overview {
	lists := s.Lists()
	all := make([]Overview, len(lists))
	for i := range lists {
		all[i] = s.overview(&lists[i])
	}
	return all
}

// Overview returns that of a list, found by id or name, with its size now.
func (s *Service) Overview(ctx context.Context, ref string) (Overview, error) {
	l, err := s.List(ref)
	if err != nil {
		return Overview{}, err
	}
	o := s.overview(&l)
	if l.Rule.Own {
		return o, nil
	}
	entries, err := s.glance(ctx, &l)
	o.Size = len(entries)
	return o, err
}

func (s *Service) overview(l *muster.Blocklist) Overview {
	st := s.state.Load()
	o := Overview{
		Blocklist: *l, BuiltIn: BuiltIn(l.ID), Size: -1, Subscriptions: len(st.subscribers[l.ID]), Fetched: st.feeds[l.ID],
	}
	o.Note = o.Fetched.Problem
	if l.Kind == muster.FeedList && o.Fetched.TriedAt.IsZero() {
		o.Note = "it has not been fetched yet"
	}
	if len(l.Rule.Countries) > 0 && !s.cfg.Countries {
		o.Note = "countries are not known without a database of them (setting enrich.country): it is empty"
	}
	if len(l.Rule.ASNs) > 0 && !s.cfg.ASNs {
		o.Note = "AS numbers are not known without a database of them (setting enrich.asn): it is empty"
	}
	c := &s.statistics
	c.mu.Lock()
	defer c.mu.Unlock()
	if d, ok := c.today[l.ID]; ok {
		o.Size = d.Size
	}
	return o
}
