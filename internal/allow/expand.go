package allow

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"muster"
	"muster/internal/firewall"
)

// known is what items that are no address stand for.
type known struct {
	as        map[uint32][]netip.Prefix
	countries map[string][]netip.Prefix
	clouds    map[string]*cloud
	hosts     map[string]*host
	keep      time.Duration // of a host's last answer
}

func newKnown(keep time.Duration) known {
	return known{
		as: map[uint32][]netip.Prefix{}, countries: map[string][]netip.Prefix{},
		clouds: map[string]*cloud{}, hosts: map[string]*host{}, keep: keep,
	}
}

// expand calls fn with the ranges that an item stands for, each with its end,
// zero for none.
func (k *known) expand(item *muster.AllowItem, fn func(p netip.Prefix, until time.Time)) {
	var all []netip.Prefix
	switch item.Kind {
	case muster.AllowAddress, muster.AllowRange:
		if s := item.Source(); s.IsValid() {
			fn(s.Prefix(), time.Time{})
		}
	case muster.AllowAS:
		all = k.as[item.ASN()]
	case muster.AllowCountry:
		all = k.countries[item.Country()]
	case muster.AllowCloud:
		set, part := item.Cloud()
		if c := k.clouds[set]; c != nil {
			all = c.of(part)
		}
	case muster.AllowHost:
		if h := k.hosts[item.Value]; h != nil {
			for addr, until := range h.addresses(k.keep) {
				fn(netip.PrefixFrom(addr, addr.BitLen()), until)
			}
		}
	}
	for _, p := range all {
		fn(p, time.Time{})
	}
}

// count returns for how many ranges an item stands.
func (k *known) count(item *muster.AllowItem) (n int) {
	k.expand(item, func(netip.Prefix, time.Time) { n++ })
	return n
}

// problem says why an item stands for nothing, or for what it stood for before;
// "" = nothing is wrong.
func (k *known) problem(item *muster.AllowItem) string {
	switch item.Kind {
	case muster.AllowAS, muster.AllowCountry:
		if k.count(item) == 0 {
			return "nothing is known about it: is the database there (settings enrich.asn, enrich.country)?"
		}
	case muster.AllowCloud:
		set, _ := item.Cloud()
		if c := k.clouds[set]; c != nil && c.problem != "" {
			return c.problem
		}
		if k.count(item) == 0 {
			return "no ranges of it are known (setting allowlists.clouds)"
		}
	case muster.AllowHost:
		if h := k.hosts[item.Value]; h != nil {
			return h.problem
		}
	default: // addresses and ranges are what they are
	}
	return ""
}

// fewest sorts ranges and puts together what covers the same addresses.
func fewest(ps []netip.Prefix) []netip.Prefix {
	slices.SortFunc(ps, netip.Prefix.Compare)
	return firewall.Aggregate(nil, ps, firewall.Aggregation{})
}

// learnRanges looks up the AS and countries on lists that are not known yet.
func (s *Service) learnRanges(lists map[string]*list) {
	var items []muster.AllowItem
	for _, l := range lists {
		items = append(items, l.items...)
	}
	if err := s.learnPrefixes(items, false); err != nil {
		s.log.Warn("AS or countries on allowlists could not be looked up; they let nobody through until they can", "error", err)
	}
}

// learnPrefixes looks up the AS and countries among items that are not known
// yet, or all of them, in one go through the databases.
func (s *Service) learnPrefixes(items []muster.AllowItem, again bool) error {
	var (
		numbers []uint32
		codes   []string
	)
	s.mu.Lock()
	for i := range items {
		item := &items[i]
		if asn := item.ASN(); asn != 0 && (again || s.known.as[asn] == nil) {
			numbers = append(numbers, asn)
		}
		if code := item.Country(); code != "" && (again || s.known.countries[code] == nil) {
			codes = append(codes, code)
		}
	}
	s.mu.Unlock()
	var (
		as         map[uint32][]netip.Prefix
		countries  map[string][]netip.Prefix
		err1, err2 error
	)
	if len(numbers) > 0 {
		as, err1 = s.cfg.Ranges.ASPrefixes(numbers)
	}
	if len(codes) > 0 {
		countries, err2 = s.cfg.Ranges.CountryPrefixes(codes)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, ps := range as {
		s.known.as[n] = fewest(ps)
	}
	for c, ps := range countries {
		s.known.countries[c] = fewest(ps)
	}
	return errors.Join(err1, err2)
}

// RangesChanged looks up all AS and countries again: a database has changed.
func (s *Service) RangesChanged() error {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	var items []muster.AllowItem
	var ids []string
	for id, l := range s.lists {
		for _, i := range l.items {
			if i.Kind == muster.AllowAS || i.Kind == muster.AllowCountry {
				items = append(items, i)
				if len(ids) == 0 || ids[len(ids)-1] != id {
					ids = append(ids, id)
				}
			}
		}
	}
	s.mu.Unlock()
	if err := s.learnPrefixes(items, true); err != nil {
		return err
	}
	s.refresh(ids)
	return nil
}

// refresh compiles lists anew whose items stand for something else now, and has
// machines told of those that differ.
func (s *Service) refresh(ids []string) {
	s.mu.Lock()
	before := s.snap.Load()
	central, any := s.rebuildLocked(s.cfg.Now(), ids)
	after := s.snap.Load()
	var differ []string
	for _, id := range ids {
		if a, b := before.byID[id], after.byID[id]; a != nil && b != nil && gained(a, b) {
			differ = append(differ, id)
		}
		if b := after.byID[id]; b != nil && len(b.entries) > s.cfg.MaxRanges {
			s.log.Error("an allowlist has outgrown what a list may stand for; it stays whole, but engines take long over it",
				"allowlist", b.Name, "ranges", len(b.entries), "most", s.cfg.MaxRanges)
		}
	}
	s.untellLocked(differ)
	s.mu.Unlock()
	s.changed(central, any)
}

// gained reports whether b covers something that a does not. What a list loses
// ends on engines by the ends that they were told, or with their next pull.
func gained(a, b *table) bool {
	i := 0
	for j := range b.entries {
		for i < len(a.entries) && a.entries[i].prefix.Compare(b.entries[j].prefix) < 0 {
			i++
		}
		if i == len(a.entries) || a.entries[i].prefix != b.entries[j].prefix {
			return true
		}
	}
	return false
}

// expectLocked makes what is asked about the names and providers on lists, and
// forgets those that are on none any more; s.mu is held.
func (s *Service) expectLocked() {
	hosts, clouds := map[string]bool{}, map[string]bool{}
	for _, l := range s.lists {
		for i := range l.items {
			item := &l.items[i]
			switch item.Kind {
			case muster.AllowHost:
				hosts[item.Value] = true
			case muster.AllowCloud:
				set, _ := item.Cloud()
				clouds[set] = true
			default: // nothing to look up
			}
		}
	}
	for name := range hosts {
		if s.known.hosts[name] == nil {
			s.known.hosts[name] = newHost()
		}
	}
	for set := range clouds {
		if s.known.clouds[set] == nil {
			s.known.clouds[set] = &cloud{}
		}
	}
	for name, h := range s.known.hosts {
		h.wanted = hosts[name]
	}
	for set, c := range s.known.clouds {
		c.wanted = clouds[set]
	}
	ring(s.wakeHosts)
	ring(s.wakeClouds)
}

// checkKnown refuses items that stand for nothing, with what can be done.
func (s *Service) checkKnown(items []muster.AllowItem) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range items {
		item := &items[i]
		if s.known.count(item) > 0 {
			continue
		}
		switch item.Kind {
		case muster.AllowAS:
			return muster.Errorf(muster.Invalid, "the database of AS numbers (setting enrich.asn) has no ranges of %s: is the number right?", item.Value)
		case muster.AllowCountry:
			return muster.Errorf(muster.Invalid, "the database of countries (setting enrich.country) has no ranges of %s: is the code right?", item.Value)
		case muster.AllowCloud:
			set, part := item.Cloud()
			if c := s.known.clouds[set]; part != "" && c != nil && len(c.ranges) > 0 {
				return muster.Errorf(muster.Invalid, "cloud:%s has no service or region %q: it has %s", set, part, strings.Join(c.parts(8), ", "))
			}
			return muster.Errorf(muster.Unavailable, "the ranges of cloud:%s could not be read yet: try again, and look for it in the server's log", set)
		case muster.AllowHost:
			return muster.Errorf(muster.Invalid, "%s leads to no address now: expected a name that the server can look up", item.Value)
		default: // addresses and ranges are what they are
		}
	}
	return nil
}
