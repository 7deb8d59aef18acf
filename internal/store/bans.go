package store

import (
	"context"
	"database/sql"
	"net/netip"
	"slices"
	"time"

	"muster"
	"muster/internal/ratelimit"
)

// Bans returns the bans that have not ended at now, in order of their addresses.
func (db *DB) Bans(ctx context.Context, now time.Time) ([]ratelimit.Ban, error) {
	scan := func(rows *sql.Rows) (ratelimit.Ban, error) {
		var b ratelimit.Ban
		err := rows.Scan((*prefixColumn)(&b.Prefix), &b.Scope, &b.Reason, &b.Limit,
			(*timeColumn)(&b.Since), (*timeColumn)(&b.Until), &b.Extend, &b.By)
		return b, err
	}
	return list(ctx, db.reader, scan, `SELECT prefix, scope, reason, limit_name, since, until, extend_ns, by FROM bans
		WHERE until = 0 OR until > ? ORDER BY prefix`, micros(now))
}

// The limiter's word does not replace a person's while that holds: another node
// may not have heard of it yet.
const putBan = `INSERT INTO bans (prefix, scope, reason, limit_name, since, until, extend_ns, by) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
	ON CONFLICT (prefix) DO UPDATE SET scope = excluded.scope, reason = excluded.reason, limit_name = excluded.limit_name,
	since = excluded.since, until = excluded.until, extend_ns = excluded.extend_ns, by = excluded.by
	WHERE excluded.by <> '' OR bans.by = '' OR bans.until <> 0 AND bans.until <= excluded.since`

// The limiter's bans of one range are one, whichever node began it; a person's
// is another whenever it is decided anew.
const extendBan = `UPDATE bans SET until = ? WHERE prefix = ? AND by = ? AND (by = '' OR since = ?) AND until <> 0 AND until < ?`

// ChangeBans stores put, each in place of the ban of its range; then moves the
// ends of those in extended; then deletes the bans of gone, whether there are
// any or not: all in one transaction with the audit entries, whose ids must be
// new (code Exists). An extension makes no ban, moves no end to an earlier
// time, and does not touch what took the place of the ban that it is about: a
// ban by another person, by a person instead of the limiter, or the reverse.
func (db *DB) ChangeBans(ctx context.Context, put, extended []ratelimit.Ban, gone []netip.Prefix, audit ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		err := tx.many(putBan, len(put), func(i int, args row) {
			b := &put[i]
			args.set(prefixKey(b.Prefix), string(b.Scope), b.Reason, b.Limit, micros(b.Since), micros(b.Until), int64(b.Extend), b.By)
		}, nil)
		if err != nil {
			return err
		}
		err = tx.many(extendBan, len(extended), func(i int, args row) {
			b := &extended[i]
			until := micros(b.Until)
			args.set(until, prefixKey(b.Prefix), b.By, micros(b.Since), until)
		}, nil)
		if err != nil {
			return err
		}
		err = tx.many(`DELETE FROM bans WHERE prefix = ?`, len(gone), func(i int, args row) {
			args.set(prefixKey(gone[i]))
		}, nil)
		if err != nil {
			return err
		}
		return putAudit(tx, audit)
	})
}

// DeleteEndedBans forgets the bans that have ended at now, in short
// transactions, and returns how many there were. It finds them by reading all
// bans, which is in no writer's way.
func (db *DB) DeleteEndedBans(ctx context.Context, now time.Time) (deleted int, err error) {
	ended, err := list(ctx, db.reader, scalar[[]byte], `SELECT prefix FROM bans WHERE until BETWEEN 1 AND ?`, micros(now))
	if err != nil {
		return 0, err
	}
	for some := range slices.Chunk(ended, pruneChunk) {
		var n int64
		err := db.write(ctx, func(tx *writer) error {
			// Looked at again: it may have been replaced or extended.
			return tx.many(`DELETE FROM bans WHERE prefix = ? AND until BETWEEN 1 AND ?`, len(some),
				func(i int, args row) { args.set(some[i], micros(now)) },
				func(_ int, changed int64) { n += changed })
		})
		if err != nil {
			return deleted, err
		}
		deleted += int(n)
	}
	return deleted, nil
}
