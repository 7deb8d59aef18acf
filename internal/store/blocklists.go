package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"muster"
)

const blocklistColumns = `id, name, label, description, kind, organisation, shared_with, remedy, lifetime, rule, feed, created_at, created_by`

// ruleColumn and feedColumn scan the JSON forms.
type (
	ruleColumn muster.ListRule
	feedColumn muster.Feed
)

func (c *ruleColumn) Scan(src any) error { return scanJSON(src, (*muster.ListRule)(c)) }
func (c *feedColumn) Scan(src any) error { return scanJSON(src, (*muster.Feed)(c)) }

func scanBlocklist(rows *sql.Rows) (muster.Blocklist, error) {
	var l muster.Blocklist
	var lifetime int64
	err := rows.Scan(&l.ID, &l.Name, &l.Label, &l.Description, &l.Kind, &l.Organisation, (*listColumn)(&l.SharedWith), &l.Remedy, &lifetime,
		(*ruleColumn)(&l.Rule), (*feedColumn)(&l.Feed), (*timeColumn)(&l.CreatedAt), &l.CreatedBy)
	l.Lifetime = time.Duration(lifetime) * time.Microsecond
	return l, err
}

// Blocklists returns all lists, in order of their names.
func (db *DB) Blocklists(ctx context.Context) ([]muster.Blocklist, error) {
	return list(ctx, db.reader, scanBlocklist, `SELECT `+blocklistColumns+` FROM blocklists ORDER BY name`)
}

// CreateBlocklist stores a list, or returns an error of code Exists when its
// name is taken.
func (db *DB) CreateBlocklist(ctx context.Context, l muster.Blocklist, audit ...muster.AuditEntry) error {
	rule, feed, err := listDetails(&l)
	if err != nil {
		return err
	}
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`INSERT INTO blocklists (`+blocklistColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			l.ID, l.Name, l.Label, l.Description, string(l.Kind), l.Organisation, jsonList(l.SharedWith), string(l.Remedy), l.Lifetime.Microseconds(),
			rule, feed, micros(l.CreatedAt), l.CreatedBy)
		if err != nil {
			return err
		}
		if n == 0 {
			return muster.Errorf(muster.Exists, "there is a blocklist named %q already", l.Name)
		}
		return putAudit(tx, audit)
	})
}

// UpdateBlocklist stores all of l but its name, kind and creation.
func (db *DB) UpdateBlocklist(ctx context.Context, l muster.Blocklist, audit ...muster.AuditEntry) error {
	rule, feed, err := listDetails(&l)
	if err != nil {
		return err
	}
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`UPDATE blocklists SET label = ?, description = ?, organisation = ?, shared_with = ?, remedy = ?, lifetime = ?, rule = ?, feed = ? WHERE id = ?`,
			l.Label, l.Description, l.Organisation, jsonList(l.SharedWith), string(l.Remedy), l.Lifetime.Microseconds(), rule, feed, l.ID)
		if err != nil {
			return err
		}
		if n == 0 {
			return noBlocklist(l.ID)
		}
		return putAudit(tx, audit)
	})
}

func listDetails(l *muster.Blocklist) (rule, feed string, err error) {
	r, err := json.Marshal(l.Rule)
	if err != nil {
		return "", "", err
	}
	f, err := json.Marshal(l.Feed)
	return string(r), string(f), err
}

func noBlocklist(id string) error {
	return muster.Errorf(muster.NotFound, "there is no blocklist %q", id)
}

// DeleteBlocklist forgets a list with its entries, feed, statistics and
// subscriptions.
func (db *DB) DeleteBlocklist(ctx context.Context, id string, audit ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`DELETE FROM blocklists WHERE id = ?`, id)
		if err != nil {
			return err
		}
		if n == 0 {
			return noBlocklist(id)
		}
		for _, table := range []string{"blocklist_entries", "subscriptions", "feeds", "feed_entries", "blocklist_days", "blocklist_hits"} {
			if _, err := tx.exec(`DELETE FROM `+table+` WHERE list = ?`, id); err != nil {
				return err
			}
		}
		return putAudit(tx, audit)
	})
}

// Subscriptions returns all subscriptions, list by list.
func (db *DB) Subscriptions(ctx context.Context) ([]muster.Subscription, error) {
	scan := func(rows *sql.Rows) (muster.Subscription, error) {
		var s muster.Subscription
		err := rows.Scan(&s.Blocklist, &s.Subscriber.Kind, &s.Subscriber.ID, &s.Subscriber.Organisation, &s.Remedy, (*timeColumn)(&s.CreatedAt), &s.CreatedBy)
		return s, err
	}
	return list(ctx, db.reader, scan, `SELECT list, kind, subscriber, organisation, remedy, created_at, created_by FROM subscriptions
		ORDER BY list, kind, subscriber, organisation`)
}

// PutSubscription stores a subscription in place of the one of its list and
// subscriber.
func (db *DB) PutSubscription(ctx context.Context, s muster.Subscription, audit ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		_, err := tx.exec(`INSERT INTO subscriptions (list, kind, subscriber, organisation, remedy, created_at, created_by) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (list, kind, subscriber, organisation) DO UPDATE SET remedy = excluded.remedy, created_at = excluded.created_at, created_by = excluded.created_by`,
			s.Blocklist, string(s.Subscriber.Kind), s.Subscriber.ID, s.Subscriber.Organisation, string(s.Remedy), micros(s.CreatedAt), s.CreatedBy)
		if err != nil {
			return err
		}
		return putAudit(tx, audit)
	})
}

// DeleteSubscription forgets a subscription, or returns an error of code
// NotFound.
func (db *DB) DeleteSubscription(ctx context.Context, list string, by muster.Subscriber, audit ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`DELETE FROM subscriptions WHERE list = ? AND kind = ? AND subscriber = ? AND organisation = ?`, list, string(by.Kind), by.ID, by.Organisation)
		if err != nil {
			return err
		}
		if n == 0 {
			return muster.Errorf(muster.NotFound, "%s %q does not subscribe to the blocklist %q", by.Kind, by.ID, list)
		}
		return putAudit(tx, audit)
	})
}

func scanCustomEntry(rows *sql.Rows) (muster.CustomEntry, error) {
	var e muster.CustomEntry
	err := rows.Scan((*sourceColumn)(&e.Source), &e.Comment, (*timeColumn)(&e.Until), (*timeColumn)(&e.AddedAt), &e.AddedBy)
	return e, err
}

const selectCustomEntries = `SELECT source, comment, until, added_at, added_by FROM blocklist_entries WHERE list = ?`

// CustomEntries returns a page of a custom list in order of the addresses, those
// after a source; the zero Source is before all.
func (db *DB) CustomEntries(ctx context.Context, listID string, after muster.Source, limit int) ([]muster.CustomEntry, error) {
	return list(ctx, db.reader, scanCustomEntry, selectCustomEntries+` AND source > ? ORDER BY source LIMIT ?`, listID, sourceKey(after), page(limit))
}

// EachCustomEntry calls yield with all of a custom list in order of the
// addresses until it fails. yield must not take long: meanwhile the database
// cannot reuse space.
func (db *DB) EachCustomEntry(ctx context.Context, listID string, yield func(muster.CustomEntry) error) error {
	return each(ctx, db.reader, scanCustomEntry, yield, selectCustomEntries+` ORDER BY source`, listID)
}

// PutCustomEntries stores entries, each in place of the one for its source, and
// with replace deletes all others first; or changes nothing and returns an
// error of code TooLarge when there would be more than most, NotFound without
// the list.
func (db *DB) PutCustomEntries(ctx context.Context, listID string, entries []muster.CustomEntry, replace bool, most int, audit ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		there, err := one(ctx, tx, "table", scalar[int], `SELECT COUNT(*) FROM blocklists WHERE id = ?`, listID)
		if err != nil {
			return err
		}
		if there == 0 {
			return noBlocklist(listID)
		}
		if replace {
			if _, err := tx.exec(`DELETE FROM blocklist_entries WHERE list = ?`, listID); err != nil {
				return err
			}
		}
		err = tx.many(`INSERT INTO blocklist_entries (list, source, comment, until, added_at, added_by) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (list, source) DO UPDATE SET comment = excluded.comment, until = excluded.until, added_at = excluded.added_at, added_by = excluded.added_by`,
			len(entries), func(i int, args row) {
				e := &entries[i]
				args.set(listID, sourceKey(e.Source), e.Comment, micros(e.Until), micros(e.AddedAt), e.AddedBy)
			}, nil)
		if err != nil {
			return err
		}
		count, err := one(ctx, tx, "table", scalar[int], `SELECT COUNT(*) FROM blocklist_entries WHERE list = ?`, listID)
		if err != nil {
			return err
		}
		if count > most {
			return muster.Errorf(muster.TooLarge, "the list would have %d entries: expected at most %d (setting blocklists.max_entries)", count, most)
		}
		return putAudit(tx, audit)
	})
}

// DeleteCustomEntries forgets the entries for exactly those sources and returns
// how many there were.
func (db *DB) DeleteCustomEntries(ctx context.Context, listID string, sources []muster.Source, audit ...muster.AuditEntry) (deleted int, err error) {
	err = db.write(ctx, func(tx *writer) error {
		err := tx.many(`DELETE FROM blocklist_entries WHERE list = ? AND source = ?`, len(sources),
			func(i int, args row) { args.set(listID, sourceKey(sources[i])) },
			func(_ int, changed int64) { deleted += int(changed) })
		if err != nil {
			return err
		}
		return putAudit(tx, audit)
	})
	return deleted, err
}

// DeleteEndedEntries forgets what ended before now and returns how many there
// were.
func (db *DB) DeleteEndedEntries(ctx context.Context, now time.Time) (deleted int, err error) {
	err = db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`DELETE FROM blocklist_entries WHERE until <> 0 AND until <= ?`, micros(now))
		deleted = int(n)
		return err
	})
	return deleted, err
}

const feedColumns = `list, etag, last_modified, format, tried_at, good_at, changed_at, next_at, failures, problem, size, skipped, forbidden, held_at, held_size, held_reason`

// FeedStates returns how all feeds stand that were tried once.
func (db *DB) FeedStates(ctx context.Context) ([]muster.FeedState, error) {
	scan := func(rows *sql.Rows) (muster.FeedState, error) {
		var s muster.FeedState
		err := rows.Scan(&s.List, &s.ETag, &s.LastModified, &s.Format, (*timeColumn)(&s.TriedAt), (*timeColumn)(&s.GoodAt), (*timeColumn)(&s.ChangedAt),
			(*timeColumn)(&s.NextAt), &s.Failures, &s.Problem, &s.Size, &s.Skipped, &s.Forbidden, (*timeColumn)(&s.HeldAt), &s.HeldSize, &s.HeldReason)
		return s, err
	}
	return list(ctx, db.reader, scan, `SELECT `+feedColumns+` FROM feeds ORDER BY list`)
}

// FeedEntries returns what is in force of a feed, or what is held: nothing when
// there is none.
func (db *DB) FeedEntries(ctx context.Context, listID string, held bool) ([]muster.Source, error) {
	blobs, err := list(ctx, db.reader, scalar[[]byte], `SELECT sources FROM feed_entries WHERE list = ? AND held = ?`, listID, held)
	if err != nil || len(blobs) == 0 {
		return nil, err
	}
	b := blobs[0]
	if len(b)%muster.SourceSize != 0 {
		return nil, fmt.Errorf("store: the entries of the feed %s have %d bytes: expected a multiple of %d", listID, len(b), muster.SourceSize)
	}
	sources := make([]muster.Source, len(b)/muster.SourceSize)
	for i := range sources {
		if sources[i], err = muster.SourceFromBinary(b[i*muster.SourceSize : (i+1)*muster.SourceSize]); err != nil {
			return nil, fmt.Errorf("store: the entries of the feed %s: %w", listID, err)
		}
	}
	return sources, nil
}

// PutFeed stores how a feed stands, and what is in force or held of it: nil
// leaves what is stored, an empty list deletes it. It is of code NotFound when
// the list is gone.
func (db *DB) PutFeed(ctx context.Context, s muster.FeedState, inForce, held []muster.Source, audit ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		there, err := one(ctx, tx, "table", scalar[int], `SELECT COUNT(*) FROM blocklists WHERE id = ?`, s.List)
		if err != nil {
			return err
		}
		if there == 0 {
			return noBlocklist(s.List)
		}
		if _, err := tx.exec(`DELETE FROM feeds WHERE list = ?`, s.List); err != nil {
			return err
		}
		_, err = tx.exec(`INSERT INTO feeds (`+feedColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			s.List, s.ETag, s.LastModified, s.Format, micros(s.TriedAt), micros(s.GoodAt), micros(s.ChangedAt), micros(s.NextAt), s.Failures, s.Problem,
			s.Size, s.Skipped, s.Forbidden, micros(s.HeldAt), s.HeldSize, s.HeldReason)
		if err != nil {
			return err
		}
		for held, sources := range map[bool][]muster.Source{false: inForce, true: held} {
			if err := putFeedEntries(tx, s.List, held, sources); err != nil {
				return err
			}
		}
		return putAudit(tx, audit)
	})
}

func putFeedEntries(tx *writer, listID string, held bool, sources []muster.Source) error {
	if sources == nil {
		return nil
	}
	if _, err := tx.exec(`DELETE FROM feed_entries WHERE list = ? AND held = ?`, listID, held); err != nil || len(sources) == 0 {
		return err
	}
	b := make([]byte, 0, len(sources)*muster.SourceSize)
	for _, source := range sources {
		b = source.AppendBinary(b)
	}
	_, err := tx.exec(`INSERT INTO feed_entries (list, held, sources) VALUES (?, ?, ?)`, listID, held, b)
	return err
}

// PutListDays stores what happened on days, each in place of the one of its list
// and day.
func (db *DB) PutListDays(ctx context.Context, days []muster.ListDay) error {
	return db.write(ctx, func(tx *writer) error {
		return tx.many(`INSERT INTO blocklist_days (list, day, size, added, removed) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (list, day) DO UPDATE SET size = excluded.size, added = excluded.added, removed = excluded.removed`,
			len(days), func(i int, args row) {
				d := &days[i]
				args.set(d.List, micros(d.Day), int64(d.Size), int64(d.Added), int64(d.Removed))
			}, nil)
	})
}

// ListDays returns what happened to a list since a day, earliest first.
func (db *DB) ListDays(ctx context.Context, listID string, since time.Time) ([]muster.ListDay, error) {
	scan := func(rows *sql.Rows) (muster.ListDay, error) {
		d := muster.ListDay{List: listID}
		err := rows.Scan((*timeColumn)(&d.Day), &d.Size, &d.Added, &d.Removed)
		return d, err
	}
	return list(ctx, db.reader, scan, `SELECT day, size, added, removed FROM blocklist_days WHERE list = ? AND day >= ? ORDER BY day`, listID, micros(since))
}

// AddListHits adds hits to those of their list, day and unit.
func (db *DB) AddListHits(ctx context.Context, hits []muster.ListHits) error {
	return db.write(ctx, func(tx *writer) error {
		return tx.many(`INSERT INTO blocklist_hits (list, day, unit, hits) VALUES (?, ?, ?, ?)
			ON CONFLICT (list, day, unit) DO UPDATE SET hits = blocklist_hits.hits + excluded.hits`,
			len(hits), func(i int, args row) {
				h := &hits[i]
				args.set(h.List, micros(h.Day), h.Unit, h.Count)
			}, nil)
	})
}

// ListHits returns the hits of a list since a day, earliest first.
func (db *DB) ListHits(ctx context.Context, listID string, since time.Time) ([]muster.ListHits, error) {
	scan := func(rows *sql.Rows) (muster.ListHits, error) {
		h := muster.ListHits{List: listID}
		err := rows.Scan((*timeColumn)(&h.Day), &h.Unit, &h.Count)
		return h, err
	}
	return list(ctx, db.reader, scan, `SELECT day, unit, hits FROM blocklist_hits WHERE list = ? AND day >= ? ORDER BY day, unit`, listID, micros(since))
}

// PruneListDays forgets what happened before a day.
func (db *DB) PruneListDays(ctx context.Context, before time.Time) error {
	return db.write(ctx, func(tx *writer) error {
		if _, err := tx.exec(`DELETE FROM blocklist_days WHERE day < ?`, micros(before)); err != nil {
			return err
		}
		_, err := tx.exec(`DELETE FROM blocklist_hits WHERE day < ?`, micros(before))
		return err
	})
}

// What rule lists look at besides the published set.
const selectReportedBy = `SELECT DISTINCT source FROM alerts WHERE organisation = ? AND at >= ?`

// ReportedBy returns what an organisation's machines reported since a time.
func (db *DB) ReportedBy(ctx context.Context, organisation string, since time.Time) (map[muster.Source]struct{}, error) {
	return db.sources(ctx, selectReportedBy, organisation, micros(since))
}

func (db *DB) sources(ctx context.Context, query string, args ...any) (map[muster.Source]struct{}, error) {
	scan := func(rows *sql.Rows) (muster.Source, error) {
		var s muster.Source
		err := rows.Scan((*sourceColumn)(&s))
		return s, err
	}
	all := map[muster.Source]struct{}{}
	err := each(ctx, db.reader, scan, func(s muster.Source) error { all[s] = struct{}{}; return nil }, query, args...)
	return all, err
}
