package catalog

import (
	"bytes"
	"context"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"muster"
)

// maxComment is the longest comment of an entry, in bytes.
const maxComment = 200

// Stored is what came of adding entries to a custom list.
type Stored struct {
	Entries  int             // that were taken
	Withheld int             // of those: reserved, allowlisted or canaries, which nobody is sent as long as they are
	Examples []muster.Source // of Withheld, up to 5
}

// PutEntries adds entries to a custom list, each in place of the one for its
// source; replace takes all others off. AddedAt and AddedBy are set here. Errors
// are of code NotFound, Invalid or TooLarge, and then nothing is changed.
func (s *Service) PutEntries(ctx context.Context, ref string, entries []muster.CustomEntry, replace bool, by By) (Stored, error) {
	l, err := s.custom(ref)
	if err != nil {
		return Stored{}, err
	}
	if len(entries) == 0 && !replace {
		return Stored{}, muster.Errorf(muster.Invalid, "expected at least one entry")
	}
	if len(entries) > s.cfg.MaxEntries {
		return Stored{}, muster.Errorf(muster.TooLarge, "expected at most %d entries, got %d (setting blocklists.max_entries)", s.cfg.MaxEntries, len(entries))
	}
	now := s.instant()
	var done Stored
	for i := range entries {
		e := &entries[i]
		e.AddedAt, e.AddedBy, e.Comment = now, by.User, strings.TrimSpace(e.Comment)
		if err := checkEntry(e, now); err != nil {
			return Stored{}, err
		}
		if e.Source.IsReserved() || s.cfg.Forbidden(e.Source) {
			if done.Withheld++; len(done.Examples) < 5 {
				done.Examples = append(done.Examples, e.Source)
			}
		}
	}
	done.Entries = len(entries)
	entry, err := s.audit("blocklist.entries.add", l.Name, by, map[string]any{"entries": len(entries), "replace": replace, "first": firstOf(entries)})
	if err != nil {
		return Stored{}, err
	}
	if err := s.cfg.Store.PutCustomEntries(ctx, l.ID, entries, replace, s.cfg.MaxEntries, entry); err != nil {
		return Stored{}, err
	}
	return done, s.changed(ctx, l.ID)
}

// firstOf tells an audit what was added, as far as it is short.
func firstOf(entries []muster.CustomEntry) []string {
	var all []string
	for _, e := range entries[:min(len(entries), 20)] {
		all = append(all, e.Source.String())
	}
	return all
}

func checkEntry(e *muster.CustomEntry, now time.Time) error {
	p := e.Source.Prefix()
	switch {
	case !e.Source.IsValid():
		return muster.Errorf(muster.Invalid, "expected an address or a range like 198.51.100.0/24")
	case p.Addr().Is4() && p.Bits() < muster.MinCanaryBits4 || p.Addr().Is6() && p.Bits() < muster.MinCanaryBits6:
		return muster.Errorf(muster.Invalid, "%s is too wide: expected /%d or narrower, IPv6 /%d", e.Source, muster.MinCanaryBits4, muster.MinCanaryBits6)
	case len(e.Comment) > maxComment || !utf8.ValidString(e.Comment) || strings.ContainsFunc(e.Comment, unicode.IsControl):
		return muster.Errorf(muster.Invalid, "%s: expected a comment of one line and up to %d bytes", e.Source, maxComment)
	case !e.Until.IsZero() && !e.Until.After(now):
		return muster.Errorf(muster.Invalid, "%s: expected an end that is to come, got %s", e.Source, e.Until.Format(time.RFC3339))
	}
	return nil
}

// custom finds a list that people keep.
func (s *Service) custom(ref string) (muster.Blocklist, error) {
	l, err := s.List(ref)
	if err == nil && l.Kind != muster.CustomList {
		err = muster.Errorf(muster.Invalid, "%s is a %s list: only custom lists have entries of their own", l.Name, l.Kind)
	}
	return l, err
}

// RemoveEntries takes sources off a custom list and returns how many were on it.
// Engines keep what is taken off for the list's lifetime; with atOnce those that
// take orders drop the list and read it again.
func (s *Service) RemoveEntries(ctx context.Context, ref string, sources []muster.Source, atOnce bool, by By) (int, error) {
	l, err := s.custom(ref)
	if err != nil {
		return 0, err
	}
	if len(sources) == 0 {
		return 0, muster.Errorf(muster.Invalid, "expected at least one entry")
	}
	entry, err := s.audit("blocklist.entries.remove", l.Name, by, map[string]any{"entries": len(sources), "first": textsOf(sources[:min(len(sources), 20)])})
	if err != nil {
		return 0, err
	}
	n, err := s.cfg.Store.DeleteCustomEntries(ctx, l.ID, sources, entry)
	if err != nil {
		return 0, err
	}
	err = s.changed(ctx, l.ID)
	if atOnce && n > 0 {
		for _, sub := range s.state.Load().subscribers[l.ID] {
			s.enqueue(task{list: l, subscriber: sub.Subscriber, again: true})
		}
	}
	return n, err
}

func textsOf(sources []muster.Source) []string {
	all := make([]string, len(sources))
	for i, source := range sources {
		all[i] = source.String()
	}
	return all
}

// CustomEntries returns a page of a custom list in order of the addresses, those
// after a source.
func (s *Service) CustomEntries(ctx context.Context, ref string, after muster.Source, limit int) ([]muster.CustomEntry, error) {
	l, err := s.custom(ref)
	if err != nil {
		return nil, err
	}
	return s.cfg.Store.CustomEntries(ctx, l.ID, after, limit)
}

// Upload is a file with entries, as it was read.
type Upload struct {
	Entries []muster.CustomEntry
	Skipped int    // lines that are no entry
	Example string // the first of them, up to 64 bytes
}

// ReadUpload reads lines with an address or a range, and after a comma,
// semicolon or tab a comment and an end: a time like 2027-01-31T00:00:00Z, a day
// like 2027-01-31 or a duration from now like 24h or 7d, in either order. A #
// begins a comment of its own line. Titles ("value,comment,until") are passed
// over. Errors are of code Invalid, when there are more other lines than entries,
// or TooLarge.
func (s *Service) ReadUpload(text []byte) (Upload, error) {
	var up Upload
	now := s.instant()
	seen := map[muster.Source]int{}
	for number := 1; len(text) > 0; number++ {
		raw, rest, _ := bytes.Cut(text, []byte("\n"))
		text = rest
		line := strings.TrimSpace(strings.TrimPrefix(string(raw), "\ufeff"))
		if line == "" || line[0] == '#' {
			continue
		}
		e, ok := readLine(line, now)
		if !ok {
			if number == 1 && strings.ContainsAny(line, ",;\t") {
				continue // titles
			}
			if up.Skipped++; up.Example == "" {
				up.Example = clip(line)
			}
			continue
		}
		if i, ok := seen[e.Source]; ok {
			up.Entries[i] = e
			continue
		}
		seen[e.Source] = len(up.Entries)
		if up.Entries = append(up.Entries, e); len(up.Entries) > s.cfg.MaxEntries {
			return Upload{}, muster.Errorf(muster.TooLarge, "the file has more than %d entries (setting blocklists.max_entries)", s.cfg.MaxEntries)
		}
	}
	if up.Skipped > len(up.Entries) {
		return Upload{}, muster.Errorf(muster.Invalid, "%d lines are no address or range, and only %d are, for example %q", up.Skipped, len(up.Entries), up.Example)
	}
	return up, nil
}

// readLine reads a line of an upload.
func readLine(line string, now time.Time) (muster.CustomEntry, bool) {
	var e muster.CustomEntry
	fields := strings.FieldsFunc(line, func(r rune) bool { return r == ',' || r == ';' || r == '\t' })
	if len(fields) == 0 {
		return e, false
	}
	first, comment, commented := strings.Cut(fields[0], "#")
	source, err := muster.ParseSource(unquoted(first))
	if err != nil {
		return e, false
	}
	e.Source = source
	var words []string
	if commented {
		words = append(words, strings.TrimSpace(comment))
	}
	for _, field := range fields[1:] {
		if field = unquoted(field); field == "" {
			continue
		}
		if until, ok := readEnd(field, now); ok && e.Until.IsZero() {
			e.Until = until
			continue
		}
		words = append(words, strings.TrimLeft(field, "# "))
	}
	e.Comment = strings.Join(words, ", ")
	return e, checkEntry(&e, now) == nil
}

func unquoted(text string) string {
	return strings.TrimSpace(strings.Trim(strings.TrimSpace(text), `"`))
}

// readEnd reads when an entry ends.
func readEnd(text string, now time.Time) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC(), true
		}
	}
	days := time.Duration(1)
	if n, ok := strings.CutSuffix(text, "d"); ok {
		text, days = n+"h", 24
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > 100*365*24*time.Hour/days {
		return time.Time{}, false
	}
	return now.Add(d * days), true
}

// EndEntries forgets entries of custom lists that have ended.
func (s *Service) EndEntries(ctx context.Context) error {
	_, err := s.cfg.Store.DeleteEndedEntries(ctx, s.instant())
	return err
}
