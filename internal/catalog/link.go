package catalog

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"muster"
	"muster/internal/wire"
)

// Path begins the path of links, behind that of the public URL.
const Path = "/lists/"

// Scopes of links. Under "ip" an engine holds ranges as well and answers bouncers
// that ask about an address within; but many of those that fetch everything go by
// the scope and drop a range that is called an address. So ranges have a link of
// their own.
const (
	scopeIP    = "ip"
	scopeRange = "range"
)

// RangesSuffix ends the name under which engines know the ranges of a list: they
// keep by name when they read a list last. No list's own name ends in it.
const RangesSuffix = "-ranges"

// namesOf are those under which engines know a list.
func namesOf(list string) []string { return []string{list, list + RangesSuffix} }

// linkStep rounds the ends of links: within an hour a reader gets the same ones,
// good for one to two hours. Engines fetch them within seconds.
const linkStep = time.Hour

// Links returns the lists that a machine subscribes to, itself or by a tag or its
// organisation, for its pull. Lists that have nothing for it are left out: an
// engine whose allowlists cover all of a list crashes. Softer remedies come
// first, because an address that is on several lists is kept for the last.
func (s *Service) Links(machine, organisation string, tags []string) []wire.BlocklistLink {
	subscriptions := s.state.Load().of(machine, organisation, tags)
	if len(subscriptions) == 0 {
		return nil
	}
	links := make([]wire.BlocklistLink, 0, len(subscriptions))
	for _, sub := range subscriptions {
		links = s.appendLinks(context.Background(), links, sub)
	}
	slices.SortFunc(links, func(a, b wire.BlocklistLink) int {
		return cmp.Or(cmp.Compare(hardness(a.Remediation), hardness(b.Remediation)), cmp.Compare(a.Name, b.Name))
	})
	return links
}

func hardness(remedy string) int {
	if remedy == string(muster.RemedyBan) {
		return 1
	}
	return 0
}

// appendLinks adds the links of a subscription: one to the addresses that the list
// has for it and one to the ranges.
func (s *Service) appendLinks(ctx context.Context, links []wire.BlocklistLink, sub muster.Subscription) []wire.BlocklistLink {
	organisation := sub.Subscriber.Organisation
	known, err := s.listFor(sub.Blocklist, organisation)
	if err != nil || known.ID == muster.CommunityList {
		return links
	}
	l := subscribed(known, sub.Remedy)
	r, err := s.read(ctx, known, organisation)
	if err != nil {
		s.log.Warn("a blocklist is missing from a pull: it could not be read", "list", l.Name, "error", err)
		return links
	}
	now := s.cfg.Now()
	link := wire.BlocklistLink{Name: l.Name, Remediation: string(l.Remedy), Scope: scopeIP, Duration: r.lasts(l.Lifetime, now)}
	if len(r.entries) > r.ranges {
		link.URL = s.url(linkKey{l.ID, organisation, scopeIP}, now)
		links = append(links, link)
	}
	if r.ranges > 0 {
		link.Name, link.Scope, link.URL = l.Name+RangesSuffix, scopeRange, s.url(linkKey{l.ID, organisation, scopeRange}, now)
		links = append(links, link)
	}
	return links
}

// linkKey is what a link leads to.
type linkKey struct{ list, organisation, scope string }

// links is the URLs that were made of one hour, by linkKey.
type links struct {
	end int64
	sync.Map
}

// url returns the link to a list's addresses or ranges for an organisation.
func (s *Service) url(to linkKey, now time.Time) string {
	end := now.Truncate(linkStep).Add(2 * linkStep).Unix()
	made := s.made.Load()
	if made == nil || made.end != end {
		made = &links{end: end}
		s.made.Store(made)
	}
	if known, ok := made.Load(to); ok {
		return known.(string)
	}
	text := fmt.Sprintf("%s%s%s?%s", s.cfg.PublicURL, strings.TrimPrefix(Path, "/"), url.PathEscape(to.list), url.Values{
		"organisation": {to.organisation}, "scope": {to.scope}, "end": {strconv.FormatInt(end, 10)}, "signature": {s.sign(to, end)},
	}.Encode())
	made.Store(to, text)
	return text
}

// sign binds a link to what it leads to and to its end.
func (s *Service) sign(to linkKey, end int64) string {
	mac := hmac.New(sha256.New, s.key)
	fmt.Fprintf(mac, "%q %q %q %d", to.list, to.organisation, to.scope, end) // never fails
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// checkLink returns what a link leads to.
func (s *Service) checkLink(r *http.Request) (to linkKey, ok bool) {
	q := r.URL.Query()
	to = linkKey{r.PathValue("id"), q.Get("organisation"), q.Get("scope")}
	end, err := strconv.ParseInt(q.Get("end"), 10, 64)
	if err != nil || !hmac.Equal([]byte(q.Get("signature")), []byte(s.sign(to, end))) {
		return linkKey{}, false
	}
	return to, s.cfg.Now().Unix() < end
}

// lateness is how much earlier than it says a reader may have read a list: its
// download takes a while, and it notes the time at the end.
const lateness = time.Minute

// ServeLink answers GET and HEAD of /lists/{id}, as Links makes them, with a
// value on each line. Whatever is no list is answered with another status than
// 200: engines then keep what they have, while they would take an error's text,
// or nothing, for the list.
func (s *Service) ServeLink(w http.ResponseWriter, r *http.Request) {
	answer := func(status int, label, text string) {
		s.served.WithLabelValues(label).Inc()
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, text, status)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		answer(http.StatusMethodNotAllowed, "method", "error: expected GET or HEAD")
		return
	}
	to, ok := s.checkLink(r)
	if !ok {
		answer(http.StatusForbidden, "refused", "error: this link is not valid, or no longer: the next pull brings another")
		return
	}
	l, err := s.listFor(to.list, to.organisation)
	if err != nil {
		answer(http.StatusNotFound, "gone", "error: there is no such list")
		return
	}
	list, err := s.read(r.Context(), l, to.organisation)
	if err != nil {
		s.log.Warn("a blocklist could not be served", "list", l.Name, "error", err)
		w.Header().Set("Retry-After", "60")
		answer(http.StatusServiceUnavailable, "unavailable", "error: the list cannot be read now")
		return
	}
	body, zipped := list.bodies(to.scope)
	if len(body) == 0 {
		answer(http.StatusNotFound, "empty", "error: nothing is on the list")
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "private, no-cache")
	h.Set("Last-Modified", list.updated.UTC().Format(http.TimeFormat))
	h.Set("Vary", "Accept-Encoding")
	// The time is that of the reader's clock at its last download, not one of ours.
	if since, err := http.ParseTime(r.Header.Get("If-Modified-Since")); err == nil && !list.updated.After(since.Add(-lateness)) {
		s.served.WithLabelValues("unchanged").Inc()
		w.WriteHeader(http.StatusNotModified)
		return
	}
	s.served.WithLabelValues("list").Inc()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if len(zipped) > 0 && len(zipped) < len(body) && acceptsGzip(r) {
		h.Set("Content-Encoding", "gzip")
		body = zipped
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(body) // the reader hung up; it asks again
	}
}

// acceptsGzip reports whether a reader takes compressed answers.
func acceptsGzip(r *http.Request) bool {
	for _, value := range r.Header.Values("Accept-Encoding") {
		for coding := range strings.SplitSeq(value, ",") {
			name, parameters, _ := strings.Cut(coding, ";")
			weight, weighed := strings.CutPrefix(strings.ReplaceAll(parameters, " ", ""), "q=")
			if strings.EqualFold(strings.TrimSpace(name), "gzip") && !(weighed && strings.Trim(weight, "0.") == "") {
				return true
			}
		}
	}
	return false
}
