package reach

import (
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"muster"
)

// live answers GET …/v1/decisions: what is to be done about one address or
// range, or all decisions. Nothing is null, as an engine's local API says it.
func (s *Service) live(w http.ResponseWriter, r *http.Request, id string) error {
	who, err := s.bouncer(r, id)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	ask, err := parseQuestion(q)
	if err != nil {
		return err
	}
	now := s.cfg.Now()
	out := answer{w: w, first: true}
	switch {
	case ask.nobody:
	case ask.address:
		out.buf = make([]byte, 0, 1024)
		out.text("[")
		err = s.lookUp(r, who, ask.at.Addr(), parseFilter(q), func(it *item) { out.decision(it, now) })
	default:
		out.buf = make([]byte, 0, 4096)
		out.text("[")
		err = s.search(r, who, ask, parseFilter(q), func(it *item) { out.buffer(it, now) })
	}
	if err != nil {
		return err
	}
	if out.decisions == 0 {
		out.buf = append(out.buf[:0], "null"...)
	} else {
		out.text("]")
	}
	write(w, http.StatusOK, "application/json; charset=utf-8", out.buf)
	who.touch(now, r.UserAgent(), s.cfg.Addr(r), out.decisions)
	return nil
}

// question is what a bouncer asks.
type question struct {
	at      netip.Prefix // invalid: about everything
	address bool         // by ip=, or scope and value
	within  bool         // contains=false: what is inside, instead of what is around
	exactly bool         // by scope and value: only that
	nobody  bool         // about something that is no address: a country
	limit   int          // 0 = none
	offset  int
}

func parseQuestion(q url.Values) (ask question, err error) {
	text := q.Get("ip")
	if value := q.Get("value"); text == "" && value != "" {
		switch scope := strings.ToLower(q.Get("scope")); scope {
		case "", "ip", "range":
			text, ask.exactly = value, true
		default:
			ask.nobody = true
			return ask, nil
		}
	}
	if text == "" {
		text = q.Get("range")
	}
	if text != "" {
		source, err := muster.ParseSource(text)
		if err != nil {
			return ask, err
		}
		ask.at, ask.address = source.Prefix(), !source.IsRange() && !ask.exactly
	}
	if contains := q.Get("contains"); contains != "" {
		yes, err := strconv.ParseBool(contains)
		if err != nil {
			return ask, muster.Errorf(muster.Invalid, "contains: expected true or false")
		}
		ask.within = !yes
		ask.address = ask.address && yes
	}
	for name, into := range map[string]*int{"limit": &ask.limit, "offset": &ask.offset} {
		if text := q.Get(name); text != "" {
			if *into, err = strconv.Atoi(text); err != nil || *into < 0 {
				return ask, muster.Errorf(muster.Invalid, "%s: expected a number", name)
			}
		}
	}
	return ask, nil
}

// lookUp calls fn with what there is about an address. The network's verdicts
// are asked themselves, which needs no copy of them; every other list is
// remembered.
func (s *Service) lookUp(r *http.Request, who *reader, addr netip.Addr, f filter, fn func(*item)) error {
	rd := reading{reader: who, filter: f}
	rd.allow, rd.allowVersion = s.cfg.Allowlist(who.ID, who.Organisation)
	now, at := s.cfg.Now(), netip.PrefixFrom(addr, addr.BitLen())
	tell := func(it *item) {
		if rd.admits(it, now.Unix()) && !it.source.IsReserved() && !s.cfg.Forbidden(it.source) {
			fn(it)
		}
	}
	by := muster.Subscriber{Kind: muster.SubscriberIntegration, ID: who.ID, Organisation: who.Organisation}
	for _, l := range s.cfg.Catalogue.Subscribed(by) {
		for _, key := range keysOf(l, who.Organisation) {
			if key.kind == ofCatalogue {
				list, err := s.snapshot(r.Context(), s.follow(key, l))
				if muster.CodeOf(err) == muster.NotFound {
					continue
				}
				if err != nil {
					return err
				}
				list.covering(at, tell)
				continue
			}
			audience := muster.Network
			if key.kind == ofFleet {
				audience = muster.Audience(key.organisation)
			}
			if e, ok := s.cfg.Community.Lookup(audience, addr); ok {
				it := verdictItem(e, key)
				if it.open {
					it.until = now.Add(defaultLife).Unix()
				}
				tell(&it)
			}
		}
	}
	return nil
}

// search calls fn with the decisions that a question other than about one address
// is about.
func (s *Service) search(r *http.Request, who *reader, ask question, f filter, fn func(*item)) error {
	rd, err := s.read(r.Context(), who)
	if err != nil {
		return err
	}
	rd.filter = f
	now, told := s.cfg.Now().Unix(), 0
	tell := func(it *item) {
		if !rd.admits(it, now) || s.cfg.Forbidden(it.source) {
			return
		}
		if told++; told > ask.offset && (ask.limit == 0 || told <= ask.offset+ask.limit) {
			fn(it)
		}
	}
	switch {
	case !ask.at.IsValid():
		rd.each(now, tell)
	case ask.exactly:
		for _, l := range rd.lists {
			if it, ok := l.find(muster.SourceFromPrefix(ask.at)); ok {
				tell(it)
			}
		}
	default:
		for _, l := range rd.lists {
			if ask.within {
				l.inside(ask.at, tell)
			} else {
				l.covering(ask.at, tell)
			}
		}
	}
	return nil
}

// buffer is decision for an answer that is written as a whole.
func (a *answer) buffer(it *item, now time.Time) {
	if !a.first {
		a.buf = append(a.buf, ',')
	}
	a.first = false
	a.buf = appendDecision(a.buf, it, now)
	a.decisions++
}
