package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"muster"
	"muster/internal/ratelimit"
)

// ChangedLimits returns the limits that were changed at run time, in order of
// their names.
func (db *DB) ChangedLimits(ctx context.Context) ([]ratelimit.Limit, error) {
	scan := func(rows *sql.Rows) (ratelimit.Limit, error) {
		var l ratelimit.Limit
		err := rows.Scan((*limitColumn)(&l), &l.Name, (*timeColumn)(&l.SetAt), &l.SetBy)
		return l, err
	}
	return list(ctx, db.reader, scan, `SELECT data, name, set_at, set_by FROM limits ORDER BY name`)
}

// PutLimit stores a limit in place of the one of that name, with its audit
// entry.
func (db *DB) PutLimit(ctx context.Context, l ratelimit.Limit, audit muster.AuditEntry) error {
	setAt, setBy := l.SetAt, l.SetBy
	l.SetAt, l.SetBy = time.Time{}, ""
	data, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("store: encoding the limit %q: %w", l.Name, err)
	}
	return db.write(ctx, func(tx *writer) error {
		_, err := tx.exec(`INSERT INTO limits (name, data, set_at, set_by) VALUES (?, ?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET data = excluded.data, set_at = excluded.set_at, set_by = excluded.set_by`,
			l.Name, string(data), micros(setAt), setBy)
		if err != nil {
			return err
		}
		return putAudit(tx, []muster.AuditEntry{audit})
	})
}

// DeleteLimit forgets that a limit was changed, and keeps the audit entry; or
// returns an error of code NotFound and keeps nothing.
func (db *DB) DeleteLimit(ctx context.Context, name string, audit muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`DELETE FROM limits WHERE name = ?`, name)
		if err != nil {
			return err
		}
		if n == 0 {
			return muster.Errorf(muster.NotFound, "no limit %q was changed at run time", name)
		}
		return putAudit(tx, []muster.AuditEntry{audit})
	})
}

// Overrides returns those that have not ended at now, in order of their ids,
// which is that of their creation.
func (db *DB) Overrides(ctx context.Context, now time.Time) ([]ratelimit.Override, error) {
	scan := func(rows *sql.Rows) (ratelimit.Override, error) {
		var o ratelimit.Override
		err := rows.Scan((*overrideColumn)(&o), &o.ID, (*timeColumn)(&o.Since), (*timeColumn)(&o.Until))
		return o, err
	}
	return list(ctx, db.reader, scan, `SELECT data, id, since, until FROM overrides WHERE until = 0 OR until > ? ORDER BY id`, micros(now))
}

// PutOverride stores an override in place of the one of that id, with its audit
// entry.
func (db *DB) PutOverride(ctx context.Context, o ratelimit.Override, audit muster.AuditEntry) error {
	id, since, until := o.ID, o.Since, o.Until
	o.ID, o.Since, o.Until = "", time.Time{}, time.Time{}
	data, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("store: encoding the override %q: %w", id, err)
	}
	return db.write(ctx, func(tx *writer) error {
		_, err := tx.exec(`INSERT INTO overrides (id, data, since, until) VALUES (?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET data = excluded.data, since = excluded.since, until = excluded.until`,
			id, string(data), micros(since), micros(until))
		if err != nil {
			return err
		}
		return putAudit(tx, []muster.AuditEntry{audit})
	})
}

// DeleteOverride forgets an override, ended or not, and keeps the audit entry;
// or returns an error of code NotFound and keeps nothing.
func (db *DB) DeleteOverride(ctx context.Context, id string, audit muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`DELETE FROM overrides WHERE id = ?`, id)
		if err != nil {
			return err
		}
		if n == 0 {
			return muster.Errorf(muster.NotFound, "there is no override %q", id)
		}
		return putAudit(tx, []muster.AuditEntry{audit})
	})
}

// DeleteEndedOverrides forgets the overrides that have ended at now and returns
// how many there were.
func (db *DB) DeleteEndedOverrides(ctx context.Context, now time.Time) (int, error) {
	var deleted int64
	err := db.write(ctx, func(tx *writer) (err error) {
		deleted, err = tx.exec(`DELETE FROM overrides WHERE until BETWEEN 1 AND ?`, micros(now))
		return err
	})
	return int(deleted), err
}
