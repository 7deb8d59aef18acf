package filter

import (
	"net/netip"
	"strings"
	"time"
)

// address returns the address that x is; with mapped_v4, ::ffff:192.0.2.1 is
// 192.0.2.1.
func (o *operand) address(x *value) netip.Addr {
	if o.mapped {
		return x.address().Unmap()
	}
	return x.address()
}

// unmapNetwork returns the IPv4 network that an IPv4-mapped one stands for.
func unmapNetwork(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// compileInList tests whether the value is in a named list, or in one of several.
func compileInList(o *operand) (func(*value) bool, func(*value) string) {
	var lists []List
	texts, lines := o.texts()
	for i, name := range texts {
		list, ok := lookup(o.c.lists, name)
		if !ok {
			o.c.refuse(lines[i], "there is no list named %q", name)
			continue
		}
		lists = append(lists, list)
	}
	first := func(x *value) int {
		if x.kind == kindString {
			addr := o.address(x)
			for i, list := range lists {
				if list.Holds(x.text, addr) {
					return i
				}
			}
		}
		return -1
	}
	return func(x *value) bool { return first(x) >= 0 },
		func(x *value) string {
			if i := first(x); i >= 0 { // a list may change while it is read
				return "in list " + texts[i]
			}
			return "in list"
		}
}

func lookup(lists Lists, name string) (List, bool) {
	if lists == nil {
		return nil, false
	}
	return lists.List(name)
}

// Entries is a List that does not change: addresses, networks and any other
// texts, which are compared as they are. Families never cross.
type Entries struct {
	texts    map[string]struct{}
	networks networks
}

// NewEntries makes a list of what is in entries. Spaces around an entry do not
// count, nor do empty ones.
func NewEntries(entries ...string) *Entries {
	e := &Entries{texts: map[string]struct{}{}}
	for _, entry := range entries {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		if network, err := parseNetwork(entry); err == nil {
			e.networks.add(network, entry)
		}
		e.texts[entry] = struct{}{}
	}
	e.networks.build()
	return e
}

// Holds implements List.
func (e *Entries) Holds(text string, addr netip.Addr) bool {
	if _, ok := e.texts[text]; ok {
		return true
	}
	return e.networks.contains(addr)
}

// NamedLists are Lists in a map.
type NamedLists map[string]List

// List implements Lists.
func (n NamedLists) List(name string) (List, bool) {
	list, ok := n[name]
	return list, ok
}

// parseTime reads a time as clients send it: RFC 3339, also without the colon
// in the offset, as the Python SDK has it, or a date alone.
func parseTime(s string) (time.Time, bool) {
	for _, layout := range [...]string{time.RFC3339, "2006-01-02T15:04:05Z0700", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// parseClock reads 22:30 as the time since midnight.
func parseClock(s string) (time.Duration, bool) {
	if s == "24:00" {
		return 24 * time.Hour, true
	}
	t, err := time.Parse("15:04", s)
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, err == nil
}

// compileBetween tests whether a time is in [from, to): of two instants, or of
// two times of day in UTC, from 22:00 to 06:00 being the night.
func compileBetween(o *operand) (func(*value) bool, func(*value) string) {
	reason := always("between")
	if len(o.list) != 2 || o.list[0].kind != kindString || o.list[1].kind != kindString {
		o.c.refuse(o.line, "expected between to have a list of two times")
		return no, reason
	}
	from, to := o.list[0].text, o.list[1].text
	reason = always("between " + from + " and " + to)
	at := func(x *value) (time.Time, bool) {
		if x.kind != kindString {
			return time.Time{}, false
		}
		return parseTime(x.text)
	}
	if start, ok := parseClock(from); ok {
		end, ok := parseClock(to)
		if !ok || start == end {
			o.c.refuse(o.line, "expected two different times of day like 22:00 and 06:00, got %s and %s", from, to)
			return no, reason
		}
		return func(x *value) bool {
			t, ok := at(x)
			t = t.UTC()
			clock := t.Sub(t.Truncate(24 * time.Hour))
			if start < end {
				return ok && clock >= start && clock < end
			}
			return ok && (clock >= start || clock < end)
		}, reason
	}
	start, okStart := parseTime(from)
	end, okEnd := parseTime(to)
	if !okStart || !okEnd || !start.Before(end) {
		o.c.refuse(o.line, "expected two times like 2026-01-31T08:00:00Z, 2026-01-31 or 22:00, the earlier first, got %s and %s", from, to)
		return no, reason
	}
	return func(x *value) bool {
		t, ok := at(x)
		return ok && !t.Before(start) && t.Before(end)
	}, reason
}
