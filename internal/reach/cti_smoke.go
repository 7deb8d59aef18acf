package reach

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"muster"
	"muster/internal/cti"
)

// Item returns what is known about an address; known is false when that is
// nothing.
func (l *Lookups) Item(ctx context.Context, addr netip.Addr) (item cti.Item, known bool, err error) {
	now := l.cfg.Now()
	e := cti.Evidence{Addr: addr, Now: now, Place: l.cfg.Place(addr), Active: l.cfg.Active()}
	e.Good, e.Why = l.cfg.Good(muster.SourceFromAddr(addr))
	if e.Good == cti.NotGood {
		e.Listed = l.listedAs(addr)
		if e.Days, err = l.cfg.Days(ctx, addr, now); err != nil {
			return item, false, err
		}
		subject := muster.SourceFromAddr(addr)
		if e.Listed.Source.IsValid() {
			subject = e.Listed.Source
		}
		v, err := l.cfg.Verdict(ctx, subject)
		switch {
		case err == nil:
			if e.Verdict = &v; !v.Listed && v.Reasons.Basis == "canary" { // by its name, which only the judge knows
				e.Good = cti.Canary
			}
		case muster.CodeOf(err) != muster.NotFound:
			return item, false, err
		}
		around := l.listed()
		e.Near = around.within(nearOf(addr))
		if e.Place.Network.IsValid() {
			e.Around = around.within(e.Place.Network)
		}
	}
	item, known = l.cfg.Parameters.Compute(l.vocabulary, &e)
	return item, known, nil
}

// listedAs returns where an address stands on the network's list, the zero entry
// for nowhere.
func (l *Lookups) listedAs(addr netip.Addr) muster.ListEntry {
	e, ok := l.cfg.Community.Lookup(muster.Network, addr)
	if !ok || l.forbidden(e.Source) {
		return muster.ListEntry{}
	}
	return e
}

// nearOf returns the /24 or /56 of an address.
func nearOf(addr netip.Addr) netip.Prefix {
	bits := 56
	if addr = addr.Unmap(); addr.Is4() {
		bits = 24
	}
	p, _ := addr.Prefix(bits) // which there is
	return p
}

// How long an answer is given again, and how many are kept.
const (
	answerKeep = 10 * time.Second
	maxAnswers = 4096 // and as many older ones
)

// lookupCache keeps the last answers.
type lookupCache struct {
	mu         sync.Mutex
	young, old map[netip.Addr]cachedAnswer
}

// cachedAnswer is one, with what must not have changed since.
type cachedAnswer struct {
	at     time.Time
	good   cti.Good
	listed muster.Remedy // "" = not listed
	known  bool
	body   []byte
}

func (c *lookupCache) get(addr netip.Addr) (cachedAnswer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.young[addr]
	if !ok {
		a, ok = c.old[addr]
	}
	return a, ok
}

func (c *lookupCache) put(addr netip.Addr, a cachedAnswer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.young) >= maxAnswers || c.young == nil {
		c.old, c.young = c.young, make(map[netip.Addr]cachedAnswer, 64)
	}
	c.young[addr] = a
}

// answer returns what is told about an address, as JSON.
func (l *Lookups) answer(ctx context.Context, addr netip.Addr) (body []byte, known bool, err error) {
	now := l.cfg.Now()
	good, _ := l.cfg.Good(muster.SourceFromAddr(addr))
	listed := muster.Remedy("")
	if good == cti.NotGood {
		if e := l.listedAs(addr); e.Source.IsValid() {
			listed = cmp.Or(e.Remedy, muster.RemedyBan)
		}
	}
	if a, ok := l.cache.get(addr); ok && now.Sub(a.at) < answerKeep && a.good == good && a.listed == listed {
		l.served.WithLabelValues("cache").Inc()
		return a.body, a.known, nil
	}
	item, known, err := l.Item(ctx, addr)
	if err != nil {
		return nil, false, err
	}
	if body, err = json.Marshal(item); err != nil {
		return nil, false, err
	}
	l.served.WithLabelValues("computed").Inc()
	l.cache.put(addr, cachedAnswer{now, good, listed, known, body})
	return body, known, nil
}

func parseAddr(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(strings.TrimSpace(text))
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, muster.Errorf(muster.Invalid, "expected an IPv4 or IPv6 address, got %q", clipped(text))
	}
	return addr.Unmap(), nil
}

func clipped(text string) string {
	if len(text) > 64 {
		return text[:64] + "…"
	}
	return text
}

// smoke answers GET /v2/smoke/{ip}.
func (l *Lookups) smoke(w http.ResponseWriter, r *http.Request, key *lookupKey, text string) error {
	addr, err := parseAddr(text)
	if err != nil {
		return err
	}
	if err := l.spend(key, 1); err != nil {
		return err
	}
	body, known, err := l.answer(r.Context(), addr)
	if err != nil {
		return err
	}
	if !known {
		return muster.Errorf(muster.NotFound, "nothing is known about %s: nobody has reported it for three months", addr)
	}
	l.write(w, r, http.StatusOK, "application/json", body)
	return nil
}

func (l *Lookups) spend(key *lookupKey, calls int) error {
	return key.spend(calls, l.cfg.Now(), l.cfg.Rate, l.cfg.Burst)
}

// maxSmoke is how many addresses one request may name.
const maxSmoke = 100

// smokeMany answers GET /v2/smoke?ips=a,b. Each address is a call.
func (l *Lookups) smokeMany(w http.ResponseWriter, r *http.Request, key *lookupKey) error {
	var addrs []netip.Addr
	for text := range strings.SplitSeq(strings.Join(r.URL.Query()["ips"], ","), ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		addr, err := parseAddr(text)
		if err != nil {
			return err
		}
		if !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
		if len(addrs) > maxSmoke {
			return muster.Errorf(muster.Invalid, "ips: expected 1 to %d addresses", maxSmoke)
		}
	}
	if len(addrs) == 0 {
		return muster.Errorf(muster.Invalid, "ips: expected 1 to %d addresses between commas", maxSmoke)
	}
	if err := l.spend(key, len(addrs)); err != nil {
		return err
	}
	items := []json.RawMessage{}
	for _, addr := range addrs {
		body, known, err := l.answer(r.Context(), addr)
		if err != nil {
			return err
		}
		if known {
			items = append(items, body)
		}
	}
	return l.writeJSON(w, r, "application/json", struct {
		Total    int               `json:"total"`
		NotFound int               `json:"not_found"`
		Items    []json.RawMessage `json:"items"`
	}{len(items), len(addrs) - len(items), items})
}

// How many items a page of fire has.
const (
	fireLimit    = 50
	maxFireLimit = 1000
)

type href struct {
	Href string `json:"href"`
}

type fireLinks struct {
	First *href `json:"first"`
	Self  *href `json:"self"`
	Prev  *href `json:"prev"`
	Next  *href `json:"next"` // null ends the pages
}

// fire answers GET /v2/fire with a page of what is listed, in the order of
// addresses. An IPv6 line stands there with its first address; wider ranges do
// not.
func (l *Lookups) fire(w http.ResponseWriter, r *http.Request, key *lookupKey) error {
	q := r.URL.Query()
	page, err := number(q, "page", 1, 1, 1_000_000)
	if err != nil {
		return err
	}
	limit, err := number(q, "limit", fireLimit, 1, maxFireLimit)
	if err != nil {
		return err
	}
	since, err := l.sinceOf(q.Get("since"))
	if err != nil {
		return err
	}
	if err := l.spend(key, 1); err != nil {
		return err
	}
	done, err := l.begin(r.Context())
	if err != nil {
		return err
	}
	defer done()
	addrs, more, err := l.firePage(r.Context(), since, (page-1)*limit, limit)
	if err != nil {
		return err
	}
	items := []cti.Item{}
	for _, addr := range addrs {
		listed := l.listedAs(addr)
		if !listed.Source.IsValid() || listed.Remedy == muster.RemedyCaptcha {
			continue // it left the list a moment ago
		}
		item, _, err := l.Item(r.Context(), addr)
		if err != nil {
			return err
		}
		until := cti.ZonelessTime(listed.Until)
		item.State, item.Expiration = "validated", &until
		items = append(items, item)
	}
	link := func(page int) *href {
		v := url.Values{"page": {strconv.Itoa(page)}, "limit": {strconv.Itoa(limit)}}
		if text := q.Get("since"); text != "" {
			v.Set("since", text)
		}
		return &href{l.cfg.PublicURL + "v2/fire?" + v.Encode()}
	}
	links := fireLinks{First: link(1), Self: link(page)}
	if page > 1 {
		links.Prev = link(page - 1)
	}
	if more {
		links.Next = link(page + 1)
	}
	return l.writeJSON(w, r, "application/json", struct {
		Links fireLinks  `json:"_links"`
		Items []cti.Item `json:"items"`
	}{links, items})
}

func number(q url.Values, name string, otherwise, least, most int) (int, error) {
	text := q.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, muster.Errorf(muster.Invalid, "%s: expected a number from %d to %d, got %q", name, least, most, clipped(text))
	}
	return n, nil
}

// sinceOf reads a time, or how long ago it is ("24h", "7d"); zero for "".
func (l *Lookups) sinceOf(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", time.DateOnly} {
		if t, err := time.Parse(form, text); err == nil {
			return t, nil
		}
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n < 10_000 {
			return l.cfg.Now().AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return l.cfg.Now().Add(-d), nil
	}
	return time.Time{}, muster.Errorf(muster.Invalid, "since: expected a time like 2026-11-20T12:00:00Z, or 24h or 7d, got %q", clipped(text))
}

// firePage returns some of the addresses that are listed, and whether there are
// more behind them.
func (l *Lookups) firePage(ctx context.Context, since time.Time, skip, limit int) (page []netip.Addr, more bool, err error) {
	if since.IsZero() {
		all := l.listed()
		return all.page(skip, limit), skip+limit < all.size(), nil
	}
	var addrs []netip.Addr
	err = l.eachChange(ctx, since, func(v *muster.Verdict) bool {
		if v.Listed && !v.Since.Before(since) && single(v.Source) && !l.forbidden(v.Source) {
			addrs = append(addrs, v.Source.Addr())
		}
		return true
	})
	if err != nil {
		return nil, false, err
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	rest := addrs[min(len(addrs), skip):]
	return rest[:min(len(rest), limit)], len(rest) > limit, nil
}

// single reports whether a source is one line: an address, or a /64.
func single(s muster.Source) bool { return !s.IsRange() || s.Addr().Is6() && s.Prefix().Bits() >= 64 }

// eachChange calls fn with the network's verdicts that changed after a time,
// earliest first and those of one moment in the order of their sources, until it
// returns false.
func (l *Lookups) eachChange(ctx context.Context, since time.Time, fn func(*muster.Verdict) bool) error {
	for {
		const limit = 1000
		list, err := l.cfg.Changes(ctx, since, limit)
		if err != nil {
			return fmt.Errorf("reading the changelog: %w", err)
		}
		// One moment is whole in one look, so that the order holds over all.
		slices.SortFunc(list, func(a, b muster.Verdict) int { return cmp.Or(a.Changed.Compare(b.Changed), a.Source.Compare(b.Source)) })
		for i := range list {
			if list[i].Audience == muster.Network && !fn(&list[i]) {
				return nil
			}
		}
		if len(list) < limit {
			return nil
		}
		since = list[len(list)-1].Changed
	}
}
