package allow

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"muster"
)

// Overview is a list with what it comes to.
type Overview struct {
	muster.Allowlist
	Items       int // that have not expired
	Ranges      int // addresses and ranges that they stand for now
	Bytes       int // that an engine downloads, uncompressed
	Machines    int // for which it is
	Withdrawing int // machines that are still to let go of it
}

// ItemState is an item with what it stands for.
type ItemState struct {
	muster.AllowItem
	Ranges    int          // addresses and ranges that it stands for now
	Addresses []netip.Addr // of a host name
	Problem   string       // why it stands for nothing, or for what it did before; "" = all is well
}

// Hit is an item that covers a source.
type Hit struct {
	List   muster.Allowlist
	Item   muster.AllowItem
	Prefix netip.Prefix // the range by which it does
	Until  time.Time    // zero = for as long as the item is there
}

// Lists returns the lists that an organisation's machines can get: its own and
// the installation's; all lists for "*". They are in order of owners and names.
func (s *Service) Lists(organisation string) []Overview {
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Overview
	for _, l := range s.lists {
		if organisation == "*" || l.Central() || l.Organisation == organisation {
			out = append(out, s.overviewLocked(l, now))
		}
	}
	slices.SortFunc(out, func(a, b Overview) int {
		return cmp.Or(cmp.Compare(a.Organisation, b.Organisation), cmp.Compare(a.Name, b.Name))
	})
	return out
}

func (s *Service) overviewLocked(l *list, now time.Time) Overview {
	o := Overview{Allowlist: l.Allowlist, Items: len(l.current(now))}
	if t := s.snap.Load().byID[l.ID]; t != nil {
		o.Ranges, o.Bytes = len(t.entries), len(t.content().text)
	}
	for machine, r := range s.readers {
		if l.reaches(machine, r) {
			o.Machines++
		}
	}
	for _, ws := range s.leaving {
		for _, w := range ws {
			if w.List == l.ID {
				o.Withdrawing++
			}
		}
	}
	return o
}

// List returns one list by its id, or by the name that it has among those of
// Lists(organisation); an error of code NotFound, or Invalid when several have
// the name.
func (s *Service) List(ref, organisation string) (Overview, error) {
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lists[ref]; l != nil && (organisation == "*" || l.Central() || l.Organisation == organisation) {
		return s.overviewLocked(l, now), nil
	}
	var found *list
	for _, l := range s.lists {
		if l.Name != ref || organisation != "*" && !l.Central() && l.Organisation != organisation {
			continue
		}
		if found != nil {
			return Overview{}, muster.Errorf(muster.Invalid, "several organisations have an allowlist named %q: name it by its id", ref)
		}
		found = l
	}
	if found == nil {
		return Overview{}, muster.Errorf(muster.NotFound, "there is no such allowlist")
	}
	return s.overviewLocked(found, now), nil
}

// Items returns the items of a list that have not expired, by kind and value.
func (s *Service) Items(id string) ([]ItemState, error) {
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lists[id]
	if l == nil {
		return nil, muster.Errorf(muster.NotFound, "there is no such allowlist")
	}
	var out []ItemState
	for _, i := range l.current(now) {
		st := ItemState{AllowItem: i, Problem: s.known.problem(&i)}
		s.known.expand(&i, func(p netip.Prefix, until time.Time) {
			if until.IsZero() || now.Before(until) {
				st.Ranges++
				if i.Kind == muster.AllowHost {
					st.Addresses = append(st.Addresses, p.Addr())
				}
			}
		})
		slices.SortFunc(st.Addresses, netip.Addr.Compare)
		out = append(out, st)
	}
	return out, nil
}

// Covering returns what lets a source through, whole or in part, among the lists
// of Lists(organisation).
func (s *Service) Covering(source muster.Source, organisation string) []Hit {
	snap := s.snap.Load()
	var hits []Hit
	for id := range snap.byID {
		t := s.table(id)
		if t == nil || organisation != "*" && !t.Central() && t.Organisation != organisation {
			continue
		}
		for i := range t.entries {
			if e := &t.entries[i]; e.prefix.Overlaps(source.Prefix()) {
				hits = append(hits, Hit{t.Allowlist, *e.item, e.prefix, e.until})
			}
		}
	}
	slices.SortFunc(hits, func(a, b Hit) int {
		return cmp.Or(cmp.Compare(a.List.Organisation, b.List.Organisation), cmp.Compare(a.List.Name, b.List.Name), a.Prefix.Compare(b.Prefix))
	})
	return hits
}

// Create makes a list of an owner, a name, a description and targets; the rest
// is filled in.
func (s *Service) Create(ctx context.Context, l muster.Allowlist, audit ...muster.AuditEntry) (Overview, error) {
	now := s.cfg.Now().UTC()
	id, err := uuid.NewV7()
	if err != nil {
		return Overview{}, err
	}
	l.ID, l.CreatedAt, l.UpdatedAt = id.String(), now, now
	if err := check(&l); err != nil {
		return Overview{}, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.cfg.Store.CreateAllowlist(ctx, l, audit...); err != nil {
		return Overview{}, err
	}
	if err := s.reloadList(ctx, l, false); err != nil {
		return Overview{}, err
	}
	return s.List(l.ID, "*")
}

// check refuses a list that engines could not take, or that would do nothing.
func check(l *muster.Allowlist) error {
	if err := muster.CheckAllowlistName(l.Name); err != nil {
		return err
	}
	switch {
	case l.Name == muster.CentralAllowlist && l.ID != muster.CentralAllowlist:
		return muster.Errorf(muster.Exists, "the name %s is that of the list which every installation has", l.Name)
	case len(l.Description) > muster.MaxAllowDescription:
		return muster.Errorf(muster.Invalid, "description: expected %d bytes at most, got %d", muster.MaxAllowDescription, len(l.Description))
	case len(l.Targets) > muster.MaxAllowTargets:
		return muster.Errorf(muster.Invalid, "targets: expected %d at most, got %d: use tags", muster.MaxAllowTargets, len(l.Targets))
	case l.Central() && len(l.Targets) > 0:
		return muster.Errorf(muster.Invalid, "targets: expected none for a list of the installation, which is for everybody")
	}
	for i := range l.Targets {
		t := &l.Targets[i]
		t.Organisation = l.Organisation
		switch {
		case !t.Kind.Valid():
			return muster.Errorf(muster.Invalid, "targets: expected organisation, tag, machine or integration, got %q", t.Kind)
		case t.Kind == muster.SubscriberOrganisation:
			t.ID = "" // there is but one
		case t.ID == "" || len(t.ID) > 128:
			return muster.Errorf(muster.Invalid, "targets: expected the %s's id or name of 1 to 128 bytes, got %d", t.Kind, len(t.ID))
		}
	}
	slices.SortFunc(l.Targets, func(a, b muster.Subscriber) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID)) })
	l.Targets = slices.Compact(l.Targets)
	return nil
}

// Update lets change edit a list's name, description and targets. Machines that
// it is not for any more are told to let go of it.
func (s *Service) Update(ctx context.Context, id string, change func(*muster.Allowlist) error, audit ...muster.AuditEntry) (Overview, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	was := s.listOf(id)
	if was == nil {
		return Overview{}, muster.Errorf(muster.NotFound, "there is no such allowlist")
	}
	after := was.Allowlist
	after.Targets = slices.Clone(after.Targets)
	if err := change(&after); err != nil {
		return Overview{}, err
	}
	after.ID, after.Organisation, after.UpdatedAt = was.ID, was.Organisation, s.cfg.Now().UTC()
	if err := check(&after); err != nil {
		return Overview{}, err
	}
	if id == muster.CentralAllowlist && after.Name != was.Name {
		return Overview{}, muster.Errorf(muster.Invalid, "name: expected %s, which this list is always called", was.Name)
	}
	// First it is stored who is to let go, then why: a crash in between changes
	// nothing, since machines that a list is for are left out.
	if err := s.withdraw(ctx, s.losing(was, &list{Allowlist: after})); err != nil {
		return Overview{}, err
	}
	stored, err := s.cfg.Store.UpdateAllowlist(ctx, id, func(l *muster.Allowlist) error {
		l.Name, l.Description, l.Targets, l.UpdatedAt = after.Name, after.Description, after.Targets, after.UpdatedAt
		return nil
	}, audit...)
	if err != nil {
		return Overview{}, err
	}
	if err := s.reloadList(ctx, stored, false); err != nil {
		return Overview{}, err
	}
	return s.List(id, "*")
}

// losing returns the machines that a list is not for any more; after is nil when
// it is deleted.
func (s *Service) losing(was, after *list) []muster.AllowWithdrawal {
	now := s.cfg.Now().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()
	var gone []muster.AllowWithdrawal
	for machine, r := range s.readers {
		if was.reaches(machine, r) && (after == nil || !after.reaches(machine, r)) {
			gone = append(gone, muster.AllowWithdrawal{Machine: machine, List: was.ID, Name: was.Name, Since: now})
		}
	}
	return gone
}

func (s *Service) listOf(id string) *list {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lists[id]
}

// Delete forgets a list with its items. Machines that have it are told to let go
// of it.
func (s *Service) Delete(ctx context.Context, id string, audit ...muster.AuditEntry) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	was := s.listOf(id)
	if was == nil {
		return muster.Errorf(muster.NotFound, "there is no such allowlist")
	}
	if err := s.withdraw(ctx, s.losing(was, nil)); err != nil {
		return err
	}
	if err := s.cfg.Store.DeleteAllowlist(ctx, id, audit...); err != nil {
		return err
	}
	return s.reloadList(ctx, was.Allowlist, true)
}

// Put puts items on a list, each in place of the one of its value, all or none.
// Only Kind, Value, Reason, ExpiresAt and By are looked at, as
// muster.ParseAllowItem writes them. What stands for ranges is looked up before,
// and refused when it stands for nothing, or when the list would stand for more
// than MaxRanges (code TooLarge). The list muster.CentralAllowlist is made when
// it is not there.
func (s *Service) Put(ctx context.Context, id string, items []muster.AllowItem, audit ...muster.AuditEntry) ([]ItemState, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	now := s.cfg.Now().UTC()
	l := s.listOf(id)
	switch {
	case len(items) == 0:
		return nil, muster.Errorf(muster.Invalid, "expected at least one item")
	case l == nil && id != muster.CentralAllowlist:
		return nil, muster.Errorf(muster.NotFound, "there is no such allowlist")
	case l == nil:
		l = &list{Allowlist: muster.Allowlist{ID: id, Name: id, CreatedAt: now, UpdatedAt: now}}
	}
	for i := range items {
		items[i].List, items[i].CreatedAt = id, now
		if err := checkItem(&items[i], now); err != nil {
			return nil, err
		}
	}
	after := l.with(items, now)
	if err := s.checkHosts(after); err != nil {
		return nil, err
	}
	if err := s.learn(ctx, items); err != nil {
		return nil, err
	}
	if err := s.checkSize(after, now); err != nil {
		return nil, err
	}
	if s.listOf(id) == nil {
		if err := s.cfg.Store.CreateAllowlist(ctx, l.Allowlist); err != nil {
			return nil, err
		}
	}
	if err := s.cfg.Store.PutAllowItems(ctx, id, now, items, audit...); err != nil {
		return nil, err
	}
	stored := l.Allowlist
	stored.UpdatedAt = now
	if err := s.reloadList(ctx, stored, false); err != nil {
		return nil, err
	}
	states, err := s.Items(id)
	return slices.DeleteFunc(states, func(st ItemState) bool {
		return !slices.ContainsFunc(items, func(i muster.AllowItem) bool { return i.Kind == st.Kind && i.Value == st.Value })
	}), err
}

func checkItem(i *muster.AllowItem, now time.Time) error {
	read, err := muster.ParseAllowItem(i.Value)
	switch {
	case err != nil:
		return err
	case read.Kind != i.Kind || read.Value != i.Value:
		return muster.Errorf(muster.Invalid, "expected %s as a %s, got it as a %s", read.Value, read.Kind, i.Kind)
	case len(i.Reason) > muster.MaxAllowReason:
		return muster.Errorf(muster.Invalid, "reason: expected %d bytes at most, got %d", muster.MaxAllowReason, len(i.Reason))
	case !i.ExpiresAt.IsZero() && !i.ExpiresAt.After(now):
		return muster.Errorf(muster.Invalid, "expected an end in the future, got %s", i.ExpiresAt.UTC().Format(time.RFC3339))
	}
	return nil
}

// with returns the list as it would be with items.
func (l *list) with(items []muster.AllowItem, now time.Time) *list {
	put := map[string]bool{}
	for _, i := range items {
		put[i.Value] = true
	}
	after := &list{Allowlist: l.Allowlist, items: slices.Clone(items)}
	for _, i := range l.current(now) {
		if !put[i.Value] {
			after.items = append(after.items, i)
		}
	}
	return after
}

// checkHosts refuses more names than the server is willing to look up.
func (s *Service) checkHosts(l *list) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	here, fresh := 0, 0
	for i := range l.items {
		if item := &l.items[i]; item.Kind == muster.AllowHost {
			here++
			if s.known.hosts[item.Value] == nil {
				fresh++
			}
		}
	}
	if here > muster.MaxAllowHosts {
		return muster.Errorf(muster.TooLarge, "the list would have %d host names: expected %d at most, since the server looks each up again and again", here, muster.MaxAllowHosts)
	}
	if all := len(s.known.hosts) + fresh; fresh > 0 && all > s.cfg.MaxHosts {
		return muster.Errorf(muster.TooLarge, "there would be %d host names on all allowlists: expected %d at most", all, s.cfg.MaxHosts)
	}
	return nil
}

// learn looks up what items stand for.
func (s *Service) learn(ctx context.Context, items []muster.AllowItem) error {
	if err := s.learnPrefixes(items, false); err != nil {
		return err
	}
	if err := s.learnClouds(ctx, items); err != nil {
		return err
	}
	s.learnHosts(ctx, items)
	return s.checkKnown(items)
}

// checkSize refuses a list that stands for more ranges than engines can take,
// and says which item is to blame.
func (s *Service) checkSize(l *list, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.known.compile(l, nil, now).entries)
	if n <= s.cfg.MaxRanges {
		return nil
	}
	widest, most := "", 0
	for i := range l.items {
		if c := s.known.count(&l.items[i]); c > most {
			widest, most = l.items[i].Value, c
		}
	}
	return muster.Errorf(muster.TooLarge, "the list would stand for %d addresses and ranges, %d of them for %s: expected %d at most, since engines store each "+
		"(setting allowlists.max_ranges)", n, most, widest, s.cfg.MaxRanges)
}

// Remove takes items off a list by their kinds and values, all or none; code
// NotFound when one is not there.
func (s *Service) Remove(ctx context.Context, id string, items []muster.AllowItem, audit ...muster.AuditEntry) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	l := s.listOf(id)
	if l == nil {
		return muster.Errorf(muster.NotFound, "there is no such allowlist")
	}
	now := s.cfg.Now().UTC()
	if err := s.cfg.Store.DeleteAllowItems(ctx, id, now, items, audit...); err != nil {
		return err
	}
	after := l.Allowlist
	after.UpdatedAt = now
	return s.reloadList(ctx, after, false)
}

// metrics are what the service counts.
type metrics struct {
	hosts *prometheus.CounterVec
}

func newMetrics(s *Service, r prometheus.Registerer) metrics {
	m := metrics{hosts: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "muster_allow_lookups_total", Help: "Host names on allowlists that were looked up, by result.",
	}, []string{"result"})}
	if r == nil {
		return m
	}
	r.MustRegister(m.hosts,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "muster_allow_lists", Help: "Allowlists, the installation's and organisations'.",
		}, func() float64 { return float64(len(s.snap.Load().byID)) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "muster_allow_ranges", Help: "Addresses and ranges that all allowlists stand for.",
		}, func() float64 {
			n := 0
			for _, t := range s.snap.Load().byID {
				n += len(t.entries)
			}
			return float64(n)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "muster_allow_withdrawals", Help: "Allowlists that machines are still to let go of.",
		}, func() float64 { return float64(s.leavings.Load()) }))
	return m
}
