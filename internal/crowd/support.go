package crowd

// choir is the voices of one source with what each is worth, best first. It
// lives on the stack.
type choir struct {
	parts [MaxVoices + 1]part
	n     int
}

// part is one voice in the choir.
type part struct {
	points       points
	prefix       uint64
	organisation uint64
	as           uint32
	voice        uint8 // its index in the evidence
	clear        bool  // above suspicion
	honeypot     bool
}

// gather adds all voices of a source; those who speak about a canary are heard
// by nobody.
func (c *choir) gather(t *TrustTable, ev *Evidence, at uint32) {
	if !ev.canary {
		c.addAll(t, ev, -1, at)
	}
}

// addAll adds the voices of ev, except one, with what they are worth at a time;
// what is worth nothing or muted is left out. It is called for every report:
// numbers are sorted before the parts are made.
func (c *choir) addAll(t *TrustTable, ev *Evidence, except int, at uint32) {
	var order ranking
	for i := range ev.voices {
		v := &ev.voices[i]
		if i == except || v.counted == 0 || v.counted <= ev.unbanned {
			continue
		}
		age := uint32(0)
		if at > v.counted {
			age = at - v.counted
		}
		if p := t.decayed(t.worth(v), age); p > 0 {
			order.add(uint64(p), i)
		}
	}
	for k, x := range order.keys[:order.n] {
		i := 255 - int(x&255)
		c.parts[k].set(t, &ev.voices[i], i, points(x>>8))
	}
	c.n = order.n
}

// ranking sorts numbers below 2^56, the greatest first, with what they are of;
// of equals in the order in which they were added.
type ranking struct {
	keys [MaxVoices + 1]uint64
	n    int
}

func (r *ranking) add(x uint64, of int) {
	key := x<<8 | uint64(255-of)
	k := r.n
	for k > 0 && r.keys[k-1] < key {
		r.keys[k] = r.keys[k-1]
		k--
	}
	r.keys[k] = key
	r.n++
}

// insert adds a voice with given points.
func (c *choir) insert(t *TrustTable, v *voice, i int, p points) {
	if p <= 0 {
		return
	}
	k := c.n
	for k > 0 && c.parts[k-1].points < p {
		k--
	}
	copy(c.parts[k+1:c.n+1], c.parts[k:c.n])
	c.n++
	c.parts[k].set(t, v, i, p)
}

func (m *part) set(t *TrustTable, v *voice, i int, p points) {
	*m = part{
		points: p, prefix: v.prefix, organisation: uint64(v.organisation), as: t.group(v), voice: uint8(i),
		clear: !t.rating(v.machine).clouded, honeypot: v.flags&honeypot != 0,
	}
	if m.honeypot { // the operator's honeypots are many eyes of one organisation
		m.organisation = 1<<32 | uint64(v.machine)
	}
	if m.prefix == 0 {
		m.prefix = 1<<63 | m.organisation
	}
}

// support adds up the choir: by organisation, by prefix and by AS, each with
// its cap, and the least of the three. Each sum grows with every voice, so
// their least does too: nobody can silence a source by speaking against it.
func (c *choir) support(t *TrustTable) points {
	var byOrganisation, byPrefix, byAS points
	var met places
	for i := range c.parts[:c.n] {
		m := &c.parts[i]
		same := c.before(i, &met)
		if same.organisation == 0 {
			byOrganisation += m.points
		}
		byPrefix += m.points * t.inPrefix[same.prefix] >> shareBits
		byAS += m.points * t.inAS[same.as] >> shareBits
	}
	return min(byOrganisation, byPrefix, byAS)
}

// counts says how many better voices are in the same place.
type counts struct{ organisation, prefix, as int }

// places has a bit for every place met so far, shared by a few: where it is not
// set nobody need be compared.
type places struct{ organisations, prefixes, as uint64 }

func bit(x uint64) uint64 { return 1 << (x * 0x9e3779b97f4a7c15 >> 58) }

// before counts the parts before i by place; met is of those, and part i is
// added to it.
func (c *choir) before(i int, met *places) (n counts) {
	m := &c.parts[i]
	organisation, prefix, as := bit(m.organisation), bit(m.prefix), bit(uint64(m.as))
	if met.organisations&organisation != 0 {
		for j := range c.parts[:i] {
			if c.parts[j].organisation == m.organisation {
				n.organisation++
			}
		}
	}
	if met.prefixes&prefix != 0 {
		for j := range c.parts[:i] {
			if c.parts[j].prefix == m.prefix {
				n.prefix++
			}
		}
	}
	if met.as&as != 0 {
		for j := range c.parts[:i] {
			if c.parts[j].as == m.as {
				n.as++
			}
		}
	}
	met.organisations |= organisation
	met.prefixes |= prefix
	met.as |= as
	return n
}

// discounted returns what part i is worth beside the better ones, which met is
// of.
func (c *choir) discounted(t *TrustTable, i int, met *places) points {
	same := c.before(i, met)
	if same.organisation > 0 {
		return 0
	}
	m := &c.parts[i]
	return m.points * min(t.inPrefix[same.prefix], t.inAS[same.as]) >> shareBits
}

// groups counts the independent groups that are heard: organisations while the
// network is small, else AS, and never more than organisations or prefixes. only
// limits it to those above suspicion.
func (c *choir) groups(t *TrustTable, only bool) int {
	organisations, prefixes, as := 0, 0, 0
	var met places
	for i := range c.parts[:c.n] {
		m := &c.parts[i]
		if m.points < t.minVoice {
			break
		}
		if only && !m.clear {
			continue
		}
		fresh := c.fresh(i, only, &met)
		organisations += fresh.organisation
		prefixes += fresh.prefix
		as += fresh.as
	}
	if t.small {
		return organisations
	}
	return min(organisations, prefixes, as)
}

// fresh says of which kinds part i is the first of its place, 1 each; only
// looks at those above suspicion. met is of those before, and i is added to it.
func (c *choir) fresh(i int, only bool, met *places) counts {
	m := &c.parts[i]
	organisation, prefix, as := bit(m.organisation), bit(m.prefix), bit(uint64(m.as))
	n := counts{1, 1, 1}
	if met.organisations&organisation != 0 || met.prefixes&prefix != 0 || met.as&as != 0 {
		for j := range c.parts[:i] {
			o := &c.parts[j]
			if only && !o.clear {
				continue
			}
			if o.organisation == m.organisation {
				n.organisation = 0
			}
			if o.prefix == m.prefix {
				n.prefix = 0
			}
			if o.as == m.as {
				n.as = 0
			}
		}
	}
	met.organisations |= organisation
	met.prefixes |= prefix
	met.as |= as
	return n
}

// trapped reports whether a honeypot is heard.
func (c *choir) trapped(t *TrustTable) bool {
	for i := range c.parts[:c.n] {
		if c.parts[i].honeypot && c.parts[i].points >= t.minVoice {
			return true
		}
	}
	return false
}

// diversity is the effective number of groups, the inverse of Simpson's index.
func (c *choir) diversity(t *TrustTable) float32 {
	var total, squares float64
	for i := range c.parts[:c.n] {
		first, sum := true, 0.0
		for j := range c.parts[:c.n] {
			if t.small && c.parts[j].organisation == c.parts[i].organisation || !t.small && c.parts[j].as == c.parts[i].as {
				first = first && j >= i
				sum += float64(c.parts[j].points)
			}
		}
		if first {
			total += sum
			squares += sum * sum
		}
	}
	if squares == 0 {
		return 0
	}
	return float32(total * total / squares)
}
