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
	if ev.canary {
		return
	}
	for i := range ev.voices {
		c.add(t, ev, i, at)
	}
}

// add adds voice i of ev with what it is worth at a time; what is worth nothing
// or muted is left out.
func (c *choir) add(t *TrustTable, ev *Evidence, i int, at uint32) {
	v := &ev.voices[i]
	if v.counted == 0 || v.counted <= ev.unbanned {
		return
	}
	age := uint32(0)
	if at > v.counted {
		age = at - v.counted
	}
	c.insert(t, v, i, t.decayed(t.worth(v), age))
}

// insert adds a voice with given points.
func (c *choir) insert(t *TrustTable, v *voice, i int, p points) {
	if p <= 0 {
		return
	}
	k := c.n
	for k > 0 && c.parts[k-1].points < p {
		c.parts[k] = c.parts[k-1]
		k--
	}
	c.n++
	c.parts[k] = part{
		points: p, prefix: v.prefix, organisation: uint64(v.organisation), as: t.group(v), voice: uint8(i),
		clear: !t.rating(v.machine).clouded, honeypot: v.flags&honeypot != 0,
	}
	m := &c.parts[k]
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
	for i := range c.parts[:c.n] {
		m := &c.parts[i]
		same := c.before(i)
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

func (c *choir) before(i int) (n counts) {
	m := &c.parts[i]
	for j := range c.parts[:i] {
		o := &c.parts[j]
		if o.organisation == m.organisation {
			n.organisation++
		}
		if o.prefix == m.prefix {
			n.prefix++
		}
		if o.as == m.as {
			n.as++
		}
	}
	return n
}

// discounted returns what part i is worth beside the better ones.
func (c *choir) discounted(t *TrustTable, i int) points {
	same := c.before(i)
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
	for i := range c.parts[:c.n] {
		m := &c.parts[i]
		if m.points < t.minVoice {
			break
		}
		if only && !m.clear {
			continue
		}
		newOrganisation, newPrefix, newAS := 1, 1, 1
		for j := range c.parts[:i] {
			o := &c.parts[j]
			if only && !o.clear {
				continue
			}
			if o.organisation == m.organisation {
				newOrganisation = 0
			}
			if o.prefix == m.prefix {
				newPrefix = 0
			}
			if o.as == m.as {
				newAS = 0
			}
		}
		organisations += newOrganisation
		prefixes += newPrefix
		as += newAS
	}
	if t.small {
		return organisations
	}
	return min(organisations, prefixes, as)
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
