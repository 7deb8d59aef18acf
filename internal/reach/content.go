package reach

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/zeebo/xxh3"

	"muster"
	"muster/internal/firewall"
)

// file is what a firewall is given, until something changes.
type file struct {
	version string // of all that it was made from
	format  *firewall.Format
	choice  firewall.Choice
	body    []byte
	zipped  []byte
	etag    string // without quotes
	changed time.Time
}

// content answers GET …/content with the lists in the firewall's form: all of
// it, or a page. 204 says that there is nothing.
func (s *Service) content(w http.ResponseWriter, r *http.Request, id string) error {
	who, err := s.firewall(w, r, id)
	if err != nil {
		return err
	}
	page, size, err := parsePage(r.URL.Query())
	if err != nil {
		return err
	}
	now, addr := s.cfg.Now(), s.cfg.Addr(r)
	counts := r.Method == http.MethodGet && page == 1
	if counts {
		if err := who.file.admit(addr, now, who.Interval); err != nil {
			return err
		}
	}
	f, err := s.fileOf(r.Context(), who)
	if err != nil {
		return err
	}
	body, zipped, etag := f.body, f.zipped, f.etag
	if size > 0 {
		entries := f.choice.Entries[min(len(f.choice.Entries), (page-1)*size):]
		entries = entries[:min(len(entries), size)]
		body, zipped, etag = f.format.Append(nil, entries, who.Name), nil, fmt.Sprintf("%s-%d-%d", f.etag, page, size)
	} else if page > 1 {
		body = nil
	}
	if counts {
		who.file.note(addr, now, who.Interval)
		who.touch(now, r.UserAgent(), addr, len(f.choice.Entries))
	}
	h := w.Header()
	h.Set("Cache-Control", "private, no-cache")
	h.Set("Vary", "Accept-Encoding")
	if len(body) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if zipped != nil && takesGzip(r) {
		h.Set("Content-Encoding", "gzip")
		body, etag = zipped, etag+"-gzip"
	}
	h.Set("ETag", `"`+etag+`"`)
	h.Set("Last-Modified", f.changed.UTC().Format(http.TimeFormat))
	if unchanged(r, etag, f.changed) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", f.format.ContentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		_, _ = w.Write(body) // a firewall that hangs up comes again
	}
	return nil
}

// parsePage returns a page from 1 on and its size, 0 for all.
func parsePage(q url.Values) (page, size int, err error) {
	page = 1
	if text := q.Get("page"); text != "" {
		if page, err = strconv.Atoi(text); err != nil || page < 1 || page > 1_000_000 {
			return 0, 0, muster.Errorf(muster.Invalid, "page: expected a number from 1")
		}
	}
	if text := q.Get("page_size"); text != "" && text != "null" {
		if size, err = strconv.Atoi(text); err != nil || size < 1 || size > 10_000_000 {
			return 0, 0, muster.Errorf(muster.Invalid, "page_size: expected a number from 1 to 10000000, or nothing for all")
		}
	}
	return page, size, nil
}

// unchanged reports whether the client has what it would be given.
func unchanged(r *http.Request, etag string, changed time.Time) bool {
	if match := r.Header.Get("If-None-Match"); match != "" {
		for tag := range strings.SplitSeq(match, ",") {
			tag = strings.Trim(strings.TrimPrefix(strings.TrimSpace(tag), "W/"), `"`)
			if tag == "*" || strings.TrimSuffix(tag, "-gzip") == strings.TrimSuffix(etag, "-gzip") {
				return true
			}
		}
		return false
	}
	since, err := http.ParseTime(r.Header.Get("If-Modified-Since"))
	return err == nil && !changed.Truncate(time.Second).After(since)
}

// maxPullers bounds from how many addresses an integration's pulls are
// remembered.
const maxPullers = 64

// admit refuses an address that was given the file less than interval ago.
func (f *firewalls) admit(addr netip.Addr, now time.Time, interval time.Duration) error {
	if interval <= 0 {
		return nil
	}
	f.pulls.Lock()
	defer f.pulls.Unlock()
	if wait := f.pulled[addr].Add(interval).Sub(now); wait > 0 {
		e := muster.Errorf(muster.RateLimited, "this integration may be pulled every %s: try again in %s", interval, wait.Round(time.Second))
		e.RetryAfter = wait
		return e
	}
	return nil
}

// note remembers that an address was given the file.
func (f *firewalls) note(addr netip.Addr, now time.Time, interval time.Duration) {
	if interval <= 0 {
		return
	}
	f.pulls.Lock()
	defer f.pulls.Unlock()
	if f.pulled == nil || len(f.pulled) >= maxPullers {
		old := f.pulled
		f.pulled = map[netip.Addr]time.Time{}
		for a, at := range old {
			if at.Add(interval).After(now) && len(f.pulled) < maxPullers-1 {
				f.pulled[a] = at
			}
		}
	}
	f.pulled[addr] = now
}

// fileOf returns what a firewall is given now.
func (s *Service) fileOf(ctx context.Context, who *reader) (*file, error) {
	rd, err := s.read(ctx, who)
	if err != nil {
		return nil, err
	}
	version := fmt.Sprintf("%s|%d|%s %s %d %v %t %t", rd.version(), s.generation.Load(),
		who.Name, who.Format, who.Budget, who.Collateral, who.NoIPv4, who.NoIPv6)
	if f := who.file.file.Load(); f != nil && f.version == version {
		return f, nil
	}
	who.file.mu.Lock()
	defer who.file.mu.Unlock()
	old := who.file.file.Load()
	if old != nil && old.version == version {
		return old, nil // somebody else has just made it
	}
	start := time.Now()
	f, err := s.makeFile(&rd, old)
	if err != nil {
		return nil, err
	}
	f.version = version
	who.file.file.Store(f)
	s.chosen.Observe(time.Since(start).Seconds())
	return f, nil
}

// makeFile chooses what fits the firewall, and writes it. A firewall can only
// block: what others are asked to solve a captcha for is not for it.
func (s *Service) makeFile(rd *reading, old *file) (*file, error) {
	who := rd.reader
	format, err := firewall.Of(who.Format)
	if err != nil {
		return nil, fmt.Errorf("integration %s: %w", who.ID, err)
	}
	now := s.cfg.Now()
	var entries []firewall.Entry
	rd.each(now.Unix(), func(it *item) {
		if !it.captcha {
			entries = append(entries, firewall.Entry{Source: it.source, Own: it.own, Score: it.score, Until: it.until})
		}
	})
	var held map[muster.Source]struct{}
	if old != nil {
		held = old.choice.Holds
	}
	f := &file{format: format, changed: now}
	f.choice = firewall.Choose(entries, held, firewall.Needs{
		Max: who.Budget, NoIPv4: who.NoIPv4, NoIPv6: who.NoIPv6 || !format.IPv6, NoRanges: !format.Ranges, Collateral: who.Collateral,
		Forbidden: func(source muster.Source) bool { return s.cfg.Forbidden(source) || rd.covers(source) },
	})
	f.body = format.Append(nil, f.choice.Entries, who.Name)
	f.etag = strconv.FormatUint(xxh3.Hash(f.body), 16)
	if old != nil && old.etag == f.etag {
		f.changed, f.zipped = old.changed, old.zipped
		return f, nil
	}
	var zipped bytes.Buffer
	zip := gzip.NewWriter(&zipped)
	if _, err := zip.Write(f.body); err != nil {
		return nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	f.zipped = zipped.Bytes()
	return f, nil
}
