package policy

import (
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/gaissmai/bart"

	"muster"
)

// Canaries is an immutable set of what is known to be good. The nil and the
// zero Canaries are empty. It is safe for concurrent use.
type Canaries struct {
	all   []muster.Canary
	table *bart.Table[uint32] // addresses and ranges, by index in all
	as    map[uint32]uint32
	names map[string]uint32 // by what follows the star
	id    uint32            // of names
}

// NewCanaries compiles canaries as muster.NewCanary makes them; others are left
// out. Of several with one value the one with the first ID stands for it.
func NewCanaries(list []muster.Canary) *Canaries {
	c := &Canaries{table: new(bart.Table[uint32]), as: map[uint32]uint32{}, names: map[string]uint32{}}
	c.all = make([]muster.Canary, 0, len(list))
	for _, canary := range list {
		i := uint32(len(c.all))
		switch canary.Kind {
		case muster.CanaryAddress, muster.CanaryRange:
			source := canary.Source()
			if !source.IsValid() {
				continue
			}
			if have, ok := c.table.Get(source.Prefix()); ok && c.all[have].ID <= canary.ID {
				i = have
			}
			c.table.Insert(source.Prefix(), i)
		case muster.CanaryAS:
			n, err := strconv.ParseUint(strings.TrimPrefix(canary.Value, "AS"), 10, 32)
			if err != nil || n == 0 {
				continue
			}
			if have, ok := c.as[uint32(n)]; ok && c.all[have].ID <= canary.ID {
				i = have
			}
			c.as[uint32(n)] = i
		case muster.CanaryName:
			suffix, ok := strings.CutPrefix(canary.Value, "*.")
			if !ok || suffix == "" {
				continue
			}
			if have, ok := c.names[suffix]; ok && c.all[have].ID <= canary.ID {
				i = have
			}
			c.names[suffix] = i
		default:
			continue
		}
		c.all = append(c.all, canary)
	}
	digest := fnv.New32a()
	for _, suffix := range slices.Sorted(maps.Keys(c.names)) {
		digest.Write([]byte(suffix + "\n"))
	}
	c.id = digest.Sum32()
	return c
}

// Len returns the number of canaries.
func (c *Canaries) Len() int {
	if c == nil {
		return 0
	}
	return len(c.all)
}

// ASes returns how many canaries are whole AS.
func (c *Canaries) ASes() int {
	if c == nil {
		return 0
	}
	return len(c.as)
}

// Names returns how many canaries are patterns of names, which only lookups can
// tell.
func (c *Canaries) Names() int {
	if c == nil {
		return 0
	}
	return len(c.names)
}

// NamesID tells sets of patterns of names apart.
func (c *Canaries) NamesID() uint32 {
	if c == nil {
		return 0
	}
	return c.id
}

// Match returns the canary that s is, or lies in; the narrowest one, and the one
// of its AS (0 = not known) only when there is no other. Canaries inside a
// range s are Inside's to tell.
func (c *Canaries) Match(s muster.Source, asn uint32) (muster.Canary, bool) {
	if c.Len() == 0 || !s.IsValid() {
		return muster.Canary{}, false
	}
	var i uint32
	var ok bool
	if s.IsRange() {
		i, ok = c.table.LookupPrefix(s.Prefix())
	} else {
		i, ok = c.table.Lookup(s.Addr())
	}
	if !ok && asn != 0 {
		i, ok = c.as[asn]
	}
	if !ok {
		return muster.Canary{}, false
	}
	return c.all[i], true
}

// Inside reports whether any address of s is a canary: then s must not be
// published. A range may hold canaries without being one: whoever reports it is
// not judged for that.
func (c *Canaries) Inside(s muster.Source) bool {
	return c.Len() > 0 && s.IsValid() && c.table.OverlapsPrefix(s.Prefix())
}

// MatchName returns the canary that covers a name, the narrowest one, in either
// case and with or without the dot of the root. That the address whose reverse
// name it is owns the name has to be confirmed: anybody can claim any name.
func (c *Canaries) MatchName(name string) (muster.Canary, bool) {
	if c.Names() == 0 || len(name) > 254 {
		return muster.Canary{}, false
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for {
		label, rest, ok := strings.Cut(name, ".")
		if !ok || label == "" {
			return muster.Canary{}, false
		}
		if i, ok := c.names[rest]; ok {
			return c.all[i], true
		}
		name = rest
	}
}

// builtIn is what is good wherever Muster runs: services whose addresses are
// facts, are known to nearly all hosts and appear in logs as forged sources or
// as answers, never as attackers.
var builtIn = []struct {
	reason string
	values string
}{
	{"root name server (IANA's named.root)", `
		198.41.0.4 170.247.170.2 192.33.4.12 199.7.91.13 192.203.230.10 192.5.5.241 192.112.36.4
		198.97.190.53 192.36.148.17 192.58.128.30 193.0.14.129 199.7.83.42 202.12.27.33
		2001:503:ba3e::2:30 2801:1b8:10::b 2001:500:2::c 2001:500:2d::d 2001:500:a8::e 2001:500:2f::f 2001:500:12::d0d
		2001:500:1::53 2001:7fe::53 2001:503:c27::2:30 2001:7fd::1 2001:500:9f::42 2001:dc3::35`},
	{"public resolver of Cloudflare", "1.1.1.1 1.0.0.1 2606:4700:4700::1111 2606:4700:4700::1001"},
	{"public resolver of Google", "8.8.8.8 8.8.4.4 2001:4860:4860::8888 2001:4860:4860::8844"},
	{"public resolver of Quad9", "9.9.9.9 149.112.112.112 2620:fe::fe 2620:fe::9"},
	{"public resolver of OpenDNS", "208.67.222.222 208.67.220.220 2620:119:35::35 2620:119:53::53"},
	{"sink for reverse queries about private space, AS112 (RFC 7534, RFC 7535)", "192.31.196.0/24 192.175.48.0/24 2620:4f:8000::/48"},
	{"automatic multicast tunnelling (RFC 7450)", "192.52.193.0/24"},
}

// BuiltInCanaries returns the canaries that every Muster has: root name servers,
// public resolvers that nearly everybody uses, and address space for special
// purposes that is not reserved. They have no CreatedAt.
func BuiltInCanaries() []muster.Canary {
	var all []muster.Canary
	for _, group := range builtIn {
		for _, value := range strings.Fields(group.values) {
			c, err := muster.NewCanary(muster.OriginBuiltIn, value)
			if err != nil {
				panic(err) // a test makes them all
			}
			c.Reason = group.reason
			all = append(all, c)
		}
	}
	return all
}
