package reach

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/zeebo/xxh3"

	"muster"
)

// overlap is how far before a bouncer's last pull changes are told again, as an
// engine does.
const overlap = int64(2 * time.Second)

// stream answers GET …/v1/decisions/stream: all decisions, or what has changed
// since the bouncer's last pull that was written to its end. community_pull and
// additional_pull, which the Go library always sends, are not for this.
func (s *Service) stream(w http.ResponseWriter, r *http.Request, id string) error {
	who, err := s.bouncer(r, id)
	if err != nil {
		return err
	}
	if r.Method == http.MethodHead { // AppSec looks whether a key is good: nobody is told anything
		write(w, http.StatusOK, "application/json", nil)
		return nil
	}
	q := r.URL.Query()
	startup, _ := strconv.ParseBool(q.Get("startup"))
	rd, err := s.readWithin(r.Context(), who)
	if err != nil {
		return err
	}
	rd.filter = parseFilter(q)
	now, addr := s.cfg.Now(), s.cfg.Addr(r)
	key := cursorKey{integration: id, addr: addr, ask: xxh3.HashString(strings.Join(
		[]string{r.UserAgent(), q.Get("scopes"), q.Get("origins"), q.Get("scenarios_containing"), q.Get("scenarios_not_containing"), q.Get("type")}, "\x00"))}
	was, known := s.cursors.of(key)

	out := newAnswer(w, r)
	out.text(`{"new": [`)
	if startup || !known || !rd.changesSince(was.at) || was.keys != rd.keys || was.allowVersion != rd.allowVersion {
		s.tellAll(out, &rd, now)
		out.text(`], "deleted": [`)
		if known && !startup {
			s.tellTaken(out, &rd, was, now)
		}
	} else {
		s.tellChanges(out, &rd, was.at-overlap, now)
	}
	out.text(`]}`)
	if err := out.close(); err != nil {
		return &muster.Error{Code: muster.Unavailable, Message: "the answer could not be written to its end", Cause: err}
	}
	s.cursors.put(key, cursor{at: now.UnixNano(), keys: rd.keys, allowVersion: rd.allowVersion})
	who.touch(now, r.UserAgent(), addr, out.decisions)
	return nil
}

// changesSince reports whether the lists know all that changed since a time.
func (rd *reading) changesSince(at int64) bool {
	for _, l := range rd.lists {
		if l.since > at {
			return false
		}
	}
	return true
}

// tellAll writes everything that the reader is told.
func (s *Service) tellAll(out *answer, rd *reading, now time.Time) {
	rd.each(now.Unix(), func(it *item) {
		if !s.cfg.Forbidden(it.source) {
			out.decision(it, now)
		}
	})
}

// tellTaken writes as deleted what a reader may have been told and is told no
// more, because its lists or its allowlist changed.
func (s *Service) tellTaken(out *answer, rd *reading, was cursor, now time.Time) {
	out.begin()
	var taken []*item
	look := func(l *snapshot) {
		for i := range l.gone {
			taken = append(taken, &l.gone[i].item)
		}
		for i := range l.items {
			taken = append(taken, &l.items[i])
		}
	}
	for _, l := range rd.lists {
		look(l)
	}
	for key := range strings.SplitSeq(was.keys, ";") {
		if !slices.Contains(strings.Split(rd.keys, ";"), key) {
			for _, l := range s.formerly(key, rd.reader.Organisation) {
				look(l)
			}
		}
	}
	s.tellDeleted(out, rd, taken, now)
}

// formerly returns the lists of a reading's key that are still remembered.
func (s *Service) formerly(key, organisation string) (lists []*snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, t := range s.tracked {
		if now := t.now.Load(); k.text() == key && (k.organisation == organisation || k.organisation == "") && now != nil {
			lists = append(lists, now)
		}
	}
	return lists
}

// tellChanges writes what has changed since a time.
func (s *Service) tellChanges(out *answer, rd *reading, since int64, now time.Time) {
	var changed []muster.Source
	var taken []*item
	for _, l := range rd.lists {
		if l.changed <= since {
			continue
		}
		for i := range l.items {
			if l.items[i].changed > since {
				changed = append(changed, l.items[i].source)
			}
		}
		for i := len(l.gone) - 1; i >= 0 && l.gone[i].at > since; i-- {
			changed, taken = append(changed, l.gone[i].source), append(taken, &l.gone[i].item)
		}
	}
	slices.SortFunc(changed, muster.Source.Compare)
	for _, source := range slices.Compact(changed) {
		if it := rd.winner(source, now.Unix()); it != nil && !s.cfg.Forbidden(source) {
			out.decision(it, now)
		}
	}
	out.text(`], "deleted": [`)
	out.begin()
	s.tellDeleted(out, rd, taken, now)
}

// tellDeleted writes those of taken that do not stand any more, each once: there
// is nothing for the source, or something else is to be done about it.
func (s *Service) tellDeleted(out *answer, rd *reading, taken []*item, now time.Time) {
	slices.SortFunc(taken, func(a, b *item) int {
		return cmp.Or(a.source.Compare(b.source), cmp.Compare(a.remedy(), b.remedy()))
	})
	for i, it := range taken {
		again := i > 0 && taken[i-1].source == it.source && taken[i-1].captcha == it.captcha
		if again || !rd.reader.takes(it.source) || !rd.filter.passes(it) {
			continue
		}
		if best := rd.winner(it.source, now.Unix()); best != nil && best.captcha == it.captcha {
			continue
		}
		ended := *it
		ended.until = min(ended.until, now.Unix()-1)
		out.decision(&ended, now)
	}
}

// answer writes decisions as they come, compressed if there are many and the
// client can read that.
type answer struct {
	w         http.ResponseWriter
	mayZip    bool
	zip       *gzip.Writer // nil: not compressed
	buf       []byte
	begun     bool // something is written
	decisions int
	first     bool // of its array
	err       error
}

// full is when the buffer is passed on.
const full = 32 << 10

// zips are gzip writers, which are large.
var zips = sync.Pool{New: func() any {
	zip, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a good one
	}
	return zip
}}

func newAnswer(w http.ResponseWriter, r *http.Request) *answer {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept-Encoding")
	return &answer{w: w, first: true, mayZip: takesGzip(r)}
}

// takesGzip reports whether a client says that it can read gzip.
func takesGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, q, _ := strings.Cut(part, ";")
		if name = strings.TrimSpace(name); strings.EqualFold(name, "gzip") || strings.EqualFold(name, "x-gzip") {
			value, ok := strings.CutPrefix(strings.ReplaceAll(q, " ", ""), "q=")
			weight, err := strconv.ParseFloat(value, 64)
			return !ok || err == nil && weight > 0
		}
	}
	return false
}

func (a *answer) text(s string) { a.buf = append(a.buf, s...) }

// begin starts another array.
func (a *answer) begin() { a.first = true }

func (a *answer) decision(it *item, now time.Time) {
	if !a.first {
		a.buf = append(a.buf, ',')
	}
	a.first = false
	a.buf = appendDecision(a.buf, it, now)
	a.decisions++
	if len(a.buf) >= full {
		a.pass()
	}
}

func (a *answer) pass() {
	if !a.begun && a.mayZip && len(a.buf) >= full {
		a.w.Header().Set("Content-Encoding", "gzip")
		a.zip = zips.Get().(*gzip.Writer)
		a.zip.Reset(a.w)
	}
	a.begun = true
	if a.err == nil {
		var to io.Writer = a.w
		if a.zip != nil {
			to = a.zip
		}
		_, a.err = to.Write(a.buf)
	}
	a.buf = a.buf[:0]
}

// close writes what is left, to the connection.
func (a *answer) close() error {
	a.pass()
	if a.zip != nil {
		if err := a.zip.Close(); a.err == nil {
			a.err = err
		}
		zips.Put(a.zip)
	}
	if a.err == nil {
		a.err = http.NewResponseController(a.w).Flush()
	}
	if errors.Is(a.err, errors.ErrUnsupported) {
		return nil
	}
	return a.err
}
