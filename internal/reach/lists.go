package reach

import (
	"context"
	"fmt"
	"strings"
	"time"

	"muster"
	"muster/internal/firewall"
)

// trackedKey names a list as it is for some readers.
type trackedKey struct {
	list         string // Blocklist.ID, or the id of an integration that has a budget
	organisation string
	remedy       muster.Remedy
	kind         trackedKind
	budget       int
	families     uint8
}

// text names the list among those of one reader.
func (k trackedKey) text() string {
	return fmt.Sprintf("%d:%s:%s:%d:%d", k.kind, k.list, k.remedy, k.budget, k.families)
}

type trackedKind uint8

const (
	ofNetwork   trackedKind = iota // the network's verdicts
	ofFleet                        // those of the organisation's own fleet
	ofCatalogue                    // a list of the catalogue
	ofBudget                       // what of all lists one bouncer is given
)

// reading is what one integration reads at one moment.
type reading struct {
	reader       *reader
	filter       filter // the zero filter lets everything through
	lists        []*snapshot
	keys         string // which lists those are
	allow        Allowed
	allowVersion uint64
}

// read returns what an integration reads, all of it.
func (s *Service) read(ctx context.Context, r *reader) (reading, error) {
	rd := reading{reader: r}
	rd.allow, rd.allowVersion = s.cfg.Allowlist(r.ID, r.Organisation)
	by := muster.Subscriber{Kind: muster.SubscriberIntegration, ID: r.ID, Organisation: r.Organisation}
	var keys strings.Builder
	for _, l := range s.cfg.Catalogue.Subscribed(by) {
		for _, key := range keysOf(l, r.Organisation) {
			t := s.follow(key, l)
			now, err := s.snapshot(ctx, t)
			if muster.CodeOf(err) == muster.NotFound {
				continue // it was deleted a moment ago
			}
			if err != nil {
				return reading{}, fmt.Errorf("list %s: %w", l.Name, err)
			}
			rd.lists = append(rd.lists, now)
			keys.WriteString(key.text() + ";")
		}
	}
	rd.keys = keys.String()
	return rd, nil
}

// readWithin is read for a bouncer that may have a budget.
func (s *Service) readWithin(ctx context.Context, r *reader) (reading, error) {
	if r.Budget <= 0 {
		return s.read(ctx, r)
	}
	key := trackedKey{list: r.ID, organisation: r.Organisation, kind: ofBudget, budget: r.Budget}
	if r.NoIPv4 {
		key.families |= 1
	}
	if r.NoIPv6 {
		key.families |= 2
	}
	held := map[muster.Source]struct{}(nil)
	now, err := s.snapshot(ctx, s.track(key, func() *tracked {
		return &tracked{life: defaultLife, load: func(ctx context.Context, have any) ([]item, any, error) {
			// The reader's settings that count here are in the key.
			rd, err := s.read(ctx, r)
			if err != nil {
				return nil, nil, err
			}
			version := rd.version()
			if have == version {
				return nil, version, nil
			}
			var items []item
			items, held = s.within(rd, held)
			return items, version, nil
		}}
	}))
	if err != nil {
		return reading{}, err
	}
	rd := reading{reader: r, lists: []*snapshot{now}, keys: key.text() + ";"}
	rd.allow, rd.allowVersion = s.cfg.Allowlist(r.ID, r.Organisation)
	return rd, nil
}

// version stands for all that a reading depends on.
func (rd *reading) version() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d", rd.keys, rd.allowVersion)
	for _, l := range rd.lists {
		fmt.Fprintf(&b, " %d", l.made)
	}
	return b.String()
}

// within chooses what of a reading fits into its reader's budget. Ranges stay as
// they are: a bouncer is told changes, and would be told of ranges that come and
// go with every neighbour.
func (s *Service) within(rd reading, held map[muster.Source]struct{}) ([]item, map[muster.Source]struct{}) {
	var items []item
	rd.each(s.cfg.Now().Unix(), func(it *item) {
		items = append(items, *it)
		items[len(items)-1].open = false // its list moves the end on
	})
	entries := make([]firewall.Entry, len(items))
	for i, it := range items {
		entries[i] = firewall.Entry{Source: it.source, Own: it.own, Score: it.score, Until: it.until}
	}
	c := firewall.Choose(entries, held, firewall.Needs{
		Max: rd.reader.Budget, NoIPv4: rd.reader.NoIPv4, NoIPv6: rd.reader.NoIPv6, Separate: true, Forbidden: s.cfg.Forbidden,
	})
	if c.Holds == nil {
		return items, nil // there is room for all
	}
	kept := items[:0]
	for _, it := range items {
		if _, ok := c.Holds[it.source]; ok {
			kept = append(kept, it)
		}
	}
	return kept, c.Holds
}

// keysOf says what a list is made of: the network's own comes with what the
// organisation's fleet met.
func keysOf(l muster.Blocklist, organisation string) []trackedKey {
	if l.ID != muster.CommunityList {
		return []trackedKey{{list: l.ID, organisation: organisation, remedy: l.Remedy, kind: ofCatalogue}}
	}
	keys := []trackedKey{{list: l.ID, remedy: l.Remedy, kind: ofNetwork}}
	if organisation != "" {
		keys = append(keys, trackedKey{list: l.ID, organisation: organisation, remedy: l.Remedy, kind: ofFleet})
	}
	return keys
}

// follow returns the list of a key, from now on with its changes.
func (s *Service) follow(key trackedKey, l muster.Blocklist) *tracked {
	return s.track(key, func() *tracked {
		t := &tracked{life: l.Lifetime}
		if t.life <= 0 {
			t.life = defaultLife
		}
		if key.kind == ofCatalogue {
			t.load = s.catalogueLoader(key, l)
		} else {
			t.load = s.communityLoader(key)
		}
		return t
	})
}

func (s *Service) track(key trackedKey, make func() *tracked) *tracked {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.tracked[key]
	if !ok {
		t = make()
		t.checked.Store(s.cfg.Now().UnixNano()) // not forgotten before it is read
		s.tracked[key] = t
	}
	return t
}

// forget drops lists and positions of bouncers that nobody has used for long.
func (s *Service) forget() {
	now := s.cfg.Now()
	s.mu.Lock()
	for key, t := range s.tracked {
		if now.UnixNano()-t.checked.Load() > unused {
			delete(s.tracked, key)
		}
	}
	s.mu.Unlock()
	s.cursors.forget(now.Add(-time.Duration(remember)).UnixNano())
}

func (s *Service) communityLoader(key trackedKey) func(context.Context, any) ([]item, any, error) {
	audience := muster.Network
	if key.kind == ofFleet {
		audience = muster.Audience(key.organisation)
	}
	return func(_ context.Context, have any) ([]item, any, error) {
		version := s.cfg.Community.Version(audience)
		if have == version {
			return nil, version, nil
		}
		var items []item
		s.cfg.Community.Each(audience, func(e muster.ListEntry) bool {
			items = append(items, verdictItem(e, key))
			return true
		})
		return items, version, nil
	}
}

// verdictItem is an entry of the network's or a fleet's.
func verdictItem(e muster.ListEntry, key trackedKey) item {
	return item{
		source: e.Source, scenario: e.Scenario, until: e.Until.Unix(), score: e.Score, open: e.Until.IsZero(),
		network: true, own: key.kind == ofFleet, captcha: e.Remedy == muster.RemedyCaptcha || key.remedy == muster.RemedyCaptcha,
	}
}

// catalogueLoader takes what people of the own organisation put on a list for
// what it met itself.
func (s *Service) catalogueLoader(key trackedKey, l muster.Blocklist) func(context.Context, any) ([]item, any, error) {
	return func(ctx context.Context, have any) ([]item, any, error) {
		entries, version, err := s.cfg.Catalogue.Entries(ctx, key.list, key.organisation)
		if err != nil || have == version {
			return nil, version, err
		}
		items := make([]item, len(entries))
		for i, e := range entries {
			items[i] = item{
				source: e.Source, scenario: l.Name, until: e.Until.Unix(), score: e.Score, open: e.Until.IsZero(),
				own: l.Kind == muster.CustomList && l.Organisation == key.organisation, captcha: captcha(e.Remedy, key.remedy),
			}
		}
		return items, version, nil
	}
}

// captcha says what to do about an entry of a list: what the subscriber or else
// the list says, unless neither does.
func captcha(entry, list muster.Remedy) bool {
	if list != "" {
		return list == muster.RemedyCaptcha
	}
	return entry == muster.RemedyCaptcha
}

// admits reports whether a reader may be told of an item.
func (rd *reading) admits(it *item, now int64) bool {
	return it.until > now && rd.reader.takes(it.source) && rd.filter.passes(it) && !rd.covers(it.source)
}

// takes reports whether a reader is told of a source's family.
func (r *reader) takes(source muster.Source) bool {
	if source.Addr().Is4() {
		return !r.NoIPv4
	}
	return !r.NoIPv6
}

// covers reports whether the reader's organisation allows a source itself.
func (rd *reading) covers(source muster.Source) bool {
	if rd.allow == nil {
		return false
	}
	_, ok := rd.allow.Covers(source)
	return ok
}

// better reports whether of two items of one source a is the one to be told: a
// ban before a captcha, then the own fleet's, then the one that lasts longer.
func better(a, b *item) bool {
	switch {
	case a.captcha != b.captcha:
		return b.captcha
	case a.own != b.own:
		return a.own
	}
	return a.until > b.until
}

// winner returns what the reader is told of exactly a source, if anything.
func (rd *reading) winner(source muster.Source, now int64) (best *item) {
	for _, l := range rd.lists {
		if it, ok := l.find(source); ok && rd.admits(it, now) && (best == nil || better(it, best)) {
			best = it
		}
	}
	return best
}

// each calls fn with all that the reader is told, in order of the sources, each
// of them once.
func (rd *reading) each(now int64, fn func(*item)) {
	at := make([]int, len(rd.lists))
	for {
		var next *item
		for i, l := range rd.lists {
			if at[i] < len(l.items) {
				if it := &l.items[at[i]]; next == nil || it.source.Compare(next.source) < 0 {
					next = it
				}
			}
		}
		if next == nil {
			return
		}
		source, best := next.source, (*item)(nil)
		for i, l := range rd.lists {
			if at[i] < len(l.items) && l.items[at[i]].source == source {
				if it := &l.items[at[i]]; rd.admits(it, now) && (best == nil || better(it, best)) {
					best = it
				}
				at[i]++
			}
		}
		if best != nil {
			fn(best)
		}
	}
}
