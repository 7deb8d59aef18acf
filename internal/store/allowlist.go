package store

import (
	"context"
	"database/sql"
	"time"

	"muster"
)

// PutAllowEntries stores entries, each in place of the one for its source, in
// one transaction.
func (db *DB) PutAllowEntries(ctx context.Context, entries []muster.AllowEntry) error {
	return db.write(ctx, func(tx *writer) error {
		return tx.many(`INSERT INTO allowlist (source, reason, created_at, expires_at) VALUES (?, ?, ?, ?)
			ON CONFLICT (source) DO UPDATE SET reason = excluded.reason, created_at = excluded.created_at, expires_at = excluded.expires_at`,
			len(entries), func(i int, args row) {
				e := &entries[i]
				args.set(sourceKey(e.Source), e.Reason, micros(e.CreatedAt), micros(e.ExpiresAt))
			}, nil)
	})
}

// DeleteAllowEntry forgets the entry for exactly that source, or returns an
// error of code NotFound.
func (db *DB) DeleteAllowEntry(ctx context.Context, source muster.Source) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`DELETE FROM allowlist WHERE source = ?`, sourceKey(source))
		if err == nil && n == 0 {
			err = muster.Errorf(muster.NotFound, "%s is not on the allowlist", source)
		}
		return err
	})
}

// AllowEntries returns the entries that have not expired at now, in order of
// their addresses.
func (db *DB) AllowEntries(ctx context.Context, now time.Time) ([]muster.AllowEntry, error) {
	scan := func(rows *sql.Rows) (muster.AllowEntry, error) {
		var e muster.AllowEntry
		err := rows.Scan((*sourceColumn)(&e.Source), &e.Reason, (*timeColumn)(&e.CreatedAt), (*timeColumn)(&e.ExpiresAt))
		return e, err
	}
	return list(ctx, db.reader, scan,
		`SELECT source, reason, created_at, expires_at FROM allowlist WHERE expires_at = 0 OR expires_at > ? ORDER BY source`, micros(now))
}
