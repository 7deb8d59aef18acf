package store

import (
	"context"
	"database/sql"

	"muster"
)

// MaxCanaries is how many canaries can be kept: compiled they take about 200
// bytes each in every node's memory.
const MaxCanaries = 500_000

// PutCanaries stores canaries, each in place of the one of its id, whose time of
// creation stays; or returns an error of code TooLarge and stores none when
// there would be more than MaxCanaries.
func (db *DB) PutCanaries(ctx context.Context, canaries []muster.Canary, audit ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		if err := putCanaries(ctx, tx, canaries); err != nil {
			return err
		}
		return putAudit(tx, audit)
	})
}

// ReplaceCanaries is PutCanaries for all of an origin: others of it are deleted
// in the same transaction.
func (db *DB) ReplaceCanaries(ctx context.Context, origin string, canaries []muster.Canary, audit ...muster.AuditEntry) error {
	keep := make(map[string]struct{}, len(canaries))
	for i := range canaries {
		keep[canaries[i].ID] = struct{}{}
	}
	return db.write(ctx, func(tx *writer) error {
		ids, err := list(ctx, tx, scalar[string], `SELECT id FROM canaries WHERE origin = ?`, origin)
		if err != nil {
			return err
		}
		gone := ids[:0]
		for _, id := range ids {
			if _, ok := keep[id]; !ok {
				gone = append(gone, id)
			}
		}
		err = tx.many(`DELETE FROM canaries WHERE id = ?`, len(gone), func(i int, args row) { args.set(gone[i]) }, nil)
		if err != nil {
			return err
		}
		if err := putCanaries(ctx, tx, canaries); err != nil {
			return err
		}
		return putAudit(tx, audit)
	})
}

func putCanaries(ctx context.Context, tx *writer, canaries []muster.Canary) error {
	err := tx.many(`INSERT INTO canaries (id, kind, value, origin, reason, created_at, by) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET reason = excluded.reason, by = excluded.by`,
		len(canaries), func(i int, args row) {
			c := &canaries[i]
			args.set(c.ID, string(c.Kind), c.Value, c.Origin, c.Reason, micros(c.CreatedAt), c.By)
		}, nil)
	if err != nil {
		return err
	}
	count, err := one(ctx, tx, "table", scalar[int], `SELECT COUNT(*) FROM canaries`)
	if err == nil && count > MaxCanaries {
		err = muster.Errorf(muster.TooLarge, "there would be %d canaries: expected %d at most: drop an origin first", count, MaxCanaries)
	}
	return err
}

// DeleteCanary forgets a canary and keeps the audit entries; or returns an error
// of code NotFound and keeps nothing.
func (db *DB) DeleteCanary(ctx context.Context, id string, audit ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`DELETE FROM canaries WHERE id = ?`, id)
		if err != nil {
			return err
		}
		if n == 0 {
			return muster.Errorf(muster.NotFound, "there is no canary %q", id)
		}
		return putAudit(tx, audit)
	})
}

// DeleteCanariesOf forgets all canaries of an origin, keeps the audit entries
// and returns how many there were; or returns an error of code NotFound and
// keeps nothing.
func (db *DB) DeleteCanariesOf(ctx context.Context, origin string, audit ...muster.AuditEntry) (deleted int, err error) {
	err = db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`DELETE FROM canaries WHERE origin = ?`, origin)
		if err != nil {
			return err
		}
		if n == 0 {
			return muster.Errorf(muster.NotFound, "there are no canaries of origin %q", origin)
		}
		deleted = int(n)
		return putAudit(tx, audit)
	})
	return deleted, err
}

// Canaries returns a page of canaries in order of their ids, which is by
// origin.
func (db *DB) Canaries(ctx context.Context, q muster.CanaryQuery) ([]muster.Canary, error) {
	w := where{}
	w.add(`id > ?`, q.After)
	if q.Origin != "" {
		w.add(`origin = ?`, q.Origin)
	}
	if q.Search != "" {
		pattern := contains(q.Search)
		w.add(`(LOWER(id) LIKE LOWER(?) ESCAPE '!' OR LOWER(reason) LIKE LOWER(?) ESCAPE '!')`, pattern, pattern)
	}
	return list(ctx, db.reader, scanCanary, selectCanaries+w.sql()+` ORDER BY id LIMIT ?`, append(w.args, page(q.Limit))...)
}

// EachCanary calls yield with every canary, in no order, until it fails. yield
// must not take long: meanwhile the database cannot reuse space.
func (db *DB) EachCanary(ctx context.Context, yield func(muster.Canary) error) error {
	return each(ctx, db.reader, scanCanary, yield, selectCanaries)
}

const selectCanaries = `SELECT id, kind, value, origin, reason, created_at, by FROM canaries`

func scanCanary(rows *sql.Rows) (muster.Canary, error) {
	var c muster.Canary
	err := rows.Scan(&c.ID, &c.Kind, &c.Value, &c.Origin, &c.Reason, (*timeColumn)(&c.CreatedAt), &c.By)
	return c, err
}
