package allow

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/zeebo/xxh3"

	"muster"
	"muster/internal/wire"
)

const (
	// linkLife is how long a link is valid at least. Engines follow it seconds after
	// the pull; it ends at a whole hour, so that all get the same one for an hour.
	linkLife = 2 * time.Hour
	// whole and emptied are what a link is to: the list, or nothing in its place.
	whole   = "list"
	emptied = "none"
)

// hourLinks are links as they are given out in one hour.
type hourLinks struct {
	hour    int64
	central *tenant // that was in them
	links   []wire.AllowlistLink
}

// Links returns the lists that an active machine fetches with a pull, the
// installation's and its organisation's. What it returns is shared and must not
// be changed. organisation is "" for machines that are not active: they get none.
//
// A machine that is to let go of a list and takes no orders gets a link to
// nothing in its place, under another name, so that the name is free again.
func (s *Service) Links(machine, organisation string, tags []string) []wire.AllowlistLink {
	if s.key.Load() == nil {
		return nil
	}
	var links []wire.AllowlistLink
	if organisation != "" {
		links = s.currentLinks(machine, organisation, tags)
	}
	if s.leavings.Load() == 0 {
		return links
	}
	return append(s.emptyLinks(machine, organisation, tags), links...)
}

func (s *Service) currentLinks(machine, organisation string, tags []string) []wire.AllowlistLink {
	own, central := s.tenant(organisation), s.tenant("")
	var (
		mask   uint64
		cached *merged
	)
	switch {
	case own != nil:
		mask = own.mask(machine, tags)
		cached = own.merge(mask, &s.next)
	case central != nil:
		cached = central.merge(central.all(), &s.next)
	default:
		return nil
	}
	hour := s.cfg.Now().Unix() / 3600
	if l := cached.links.Load(); l != nil && l.hour == hour && l.central == central {
		return l.links
	}
	made := &hourLinks{hour: hour, central: central}
	until := time.Unix((hour+1)*3600, 0).Add(linkLife)
	if central != nil {
		for _, t := range central.tables {
			if !t.Delivered() {
				continue
			}
			made.links = append(made.links, s.link(&t.Allowlist, whole, until))
		}
	}
	if own != nil {
		for _, t := range own.chosen(mask) {
			made.links = append(made.links, s.link(&t.Allowlist, whole, until))
		}
	}
	cached.links.Store(made)
	return made.links
}

// emptyLinks returns links to nothing for the lists that a machine is to let go
// of.
func (s *Service) emptyLinks(machine, organisation string, tags []string) []wire.AllowlistLink {
	s.mu.Lock()
	defer s.mu.Unlock()
	var links []wire.AllowlistLink
	for _, w := range s.leaving[machine] {
		if l := s.lists[w.List]; l != nil && l.reaches(machine, reader{organisation, tags}) || !w.Ordered.IsZero() {
			continue
		}
		short := w.List
		if len(short) > 8 {
			short = short[len(short)-8:]
		}
		links = append(links, s.link(&muster.Allowlist{
			ID: w.List, Name: w.Name + " (withdrawn " + short + ")", Description: "withdrawn", CreatedAt: w.Since, UpdatedAt: w.Since,
		}, emptied, s.cfg.Now().Add(linkLife)))
	}
	return links
}

func (s *Service) link(l *muster.Allowlist, what string, until time.Time) wire.AllowlistLink {
	return wire.AllowlistLink{
		ID: l.ID, Name: l.Name, Description: l.Description, CreatedAt: l.CreatedAt, UpdatedAt: l.UpdatedAt,
		URL: s.cfg.PublicURL + "allowlists/" + l.ID + "?what=" + what + "&until=" + strconv.FormatInt(until.Unix(), 10) +
			"&sig=" + s.sign(l.ID, what, until.Unix()),
	}
}

// sign returns what proves that a link is this installation's.
func (s *Service) sign(id, what string, until int64) string {
	h := hmac.New(sha256.New, *s.key.Load())
	_, _ = h.Write([]byte("allowlist\n" + what + "\n" + strconv.FormatInt(until, 10) + "\n" + id)) // never fails
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// ServeLink answers GET and HEAD on a signed link, under any prefix, with the id
// as the path's last element.
//
// Engines do not look at the status: they take an empty body, or a line of JSON,
// for the list and let go of what they had (protocol.md 3.6). So an error is a
// sentence that is no JSON, and a machine keeps its list.
func (s *Service) ServeLink(w http.ResponseWriter, r *http.Request) {
	b, status, problem := s.linked(r)
	h := w.Header()
	if problem != "" {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		text := "error: " + problem + "\n"
		h.Set("Content-Length", strconv.Itoa(len(text)))
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			_, _ = w.Write([]byte(text)) // a client that hangs up has its answer
		}
		return
	}
	h.Set("ETag", b.etag)
	h.Set("Last-Modified", b.modified.UTC().Format(http.TimeFormat))
	h.Set("Vary", "Accept-Encoding")
	h.Set("Cache-Control", "private, no-cache")
	if unchanged(r, b) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := b.text
	if len(b.zipped) > 0 && acceptsGzip(r.Header.Get("Accept-Encoding")) {
		body = b.zipped
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Type", "application/x-ndjson")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// linked returns what a link leads to, or what is wrong with it.
func (s *Service) linked(r *http.Request) (b *body, status int, problem string) {
	if s.key.Load() == nil {
		return nil, http.StatusServiceUnavailable, "the server is starting: try again"
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return nil, http.StatusMethodNotAllowed, "expected GET"
	}
	q := r.URL.Query()
	id, what := path.Base(r.URL.Path), q.Get("what")
	until, err := strconv.ParseInt(q.Get("until"), 10, 64)
	if err != nil || !hmac.Equal([]byte(q.Get("sig")), []byte(s.sign(id, what, until))) {
		return nil, http.StatusForbidden, "the link is not one of this server's: engines get theirs with each pull"
	}
	if s.cfg.Now().Unix() >= until {
		return nil, http.StatusGone, "the link has expired: engines get a new one with each pull"
	}
	if what == emptied {
		return &body{etag: `"none"`, modified: time.Unix(until, 0)}, 0, ""
	}
	t := s.table(id)
	if t == nil {
		return nil, http.StatusNotFound, "there is no such allowlist any more"
	}
	return t.content(), 0, ""
}

// table returns a list as it stands now, nil for none.
func (s *Service) table(id string) *table {
	t := s.snap.Load().byID[id]
	if t == nil {
		return nil
	}
	s.tenant(t.Organisation) // takes off what has ended
	return s.snap.Load().byID[id]
}

// body is a list as engines read it.
type body struct {
	text     []byte
	zipped   []byte // nil when it is not worth it
	etag     string
	modified time.Time
}

// minZipped is the least text that is worth compressing.
const minZipped = 1 << 10

func (t *table) content() *body {
	t.made.Do(func() {
		b := &t.body
		for i := range t.entries {
			b.text = t.entries[i].append(b.text)
		}
		sum := xxh3.Hash128(b.text).Bytes()
		b.etag = `"` + hex.EncodeToString(sum[:]) + `"`
		b.modified = t.modified
		if len(b.text) >= minZipped {
			b.zipped = compress(b.text)
		}
	})
	return &t.body
}

// append writes one line of JSON Lines.
func (e *entry) append(b []byte) []byte {
	b = append(b, `{"value":`...)
	b = wire.AppendString(b, muster.SourceFromPrefix(e.prefix).String())
	if reason := e.reason(); reason != "" {
		b = wire.AppendString(append(b, `,"description":`...), reason)
	}
	b = wire.AppendString(append(b, `,"created_at":`...), e.item.CreatedAt.UTC().Format(time.RFC3339))
	if !e.until.IsZero() {
		b = wire.AppendString(append(b, `,"expiration":`...), e.until.UTC().Format(time.RFC3339))
	}
	return append(b, '}', '\n')
}

func compress(text []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(text) // a bytes.Buffer takes everything
	_ = z.Close()
	return out.Bytes()
}

// unchanged reads the conditions of a request (RFC 9110, 13.2.2).
func unchanged(r *http.Request, b *body) bool {
	if match := r.Header.Get("If-None-Match"); match != "" {
		for part := range strings.SplitSeq(match, ",") {
			if part = strings.TrimPrefix(strings.TrimSpace(part), "W/"); part == b.etag || part == "*" {
				return true
			}
		}
		return false
	}
	since, err := http.ParseTime(r.Header.Get("If-Modified-Since"))
	return err == nil && !b.modified.Truncate(time.Second).After(since)
}

func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, q, _ := strings.Cut(strings.ReplaceAll(part, " ", ""), ";")
		if strings.EqualFold(name, "gzip") {
			return !strings.HasPrefix(q, "q=0") || strings.HasPrefix(q, "q=0.") && strings.Trim(q[4:], "0") != ""
		}
	}
	return false
}
