package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"muster"
)

// RollupPositions returns up to where in the signal log rollups have everything,
// by partition. 0 means nothing.
func (db *DB) RollupPositions(ctx context.Context) (positions [muster.Partitions]uint64, err error) {
	scan := func(rows *sql.Rows) (struct{}, error) {
		var part, position int64
		if err := rows.Scan(&part, &position); err != nil {
			return struct{}{}, err
		}
		if part < 0 || part >= muster.Partitions {
			return struct{}{}, fmt.Errorf("expected partitions 0 to %d, found %d", muster.Partitions-1, part)
		}
		positions[part] = uint64(position)
		return struct{}{}, nil
	}
	_, err = list(ctx, db.reader, scan, `SELECT part, position FROM rollup_positions`)
	return positions, err
}

// PutRollups stores rollups in place of those before and moves positions, all in
// one transaction: those from which they move must be the stored ones, or it
// returns ErrFenced and stores nothing.
func (db *DB) PutRollups(ctx context.Context, rollups []muster.RollupRow, from, to [muster.Partitions]uint64) error {
	return db.write(ctx, func(tx *writer) error {
		source := make([]byte, 0, muster.SourceSize)
		err := tx.many(`INSERT INTO rollups (part, source, day, data) VALUES (?, ?, ?, ?)
			ON CONFLICT (part, source, day) DO UPDATE SET data = excluded.data`, len(rollups), func(i int, args row) {
			r := &rollups[i]
			source = r.Source.AppendBinary(source[:0])
			args.set(int64(r.Partition), source, r.Day, blob(r.Data))
		}, nil)
		if err != nil {
			return err
		}
		moved := make([]int, 0, len(from))
		for part := range from {
			if from[part] != to[part] {
				moved = append(moved, part)
			}
		}
		fenced := -1
		err = tx.many(`INSERT INTO rollup_positions (part, position) VALUES (?, ?)
			ON CONFLICT (part) DO UPDATE SET position = excluded.position WHERE rollup_positions.position = ?`, len(moved), func(i int, args row) {
			args.set(int64(moved[i]), int64(to[moved[i]]), int64(from[moved[i]]))
		}, func(i int, changed int64) {
			if changed == 0 {
				fenced = moved[i]
			}
		})
		if err == nil && fenced >= 0 {
			err = fmt.Errorf("rollups of partition %d at %d: %w", fenced, from[fenced], ErrFenced)
		}
		return err
	})
}

const selectRollups = `SELECT day, data FROM rollups WHERE part = ? AND source = ? AND day >= ? ORDER BY day`

// Rollups returns what was reported of a source since a day, earliest first.
func (db *DB) Rollups(ctx context.Context, part uint8, source muster.Source, since int64) ([]muster.RollupRow, error) {
	scan := func(rows *sql.Rows) (muster.RollupRow, error) {
		r := muster.RollupRow{RollupKey: muster.RollupKey{Partition: part, Source: source}}
		err := rows.Scan(&r.Day, &r.Data)
		return r, err
	}
	return list(ctx, db.reader, scan, selectRollups, int64(part), sourceKey(source), since)
}

// rollupsAtOnce is how many keys one query names.
const rollupsAtOnce = 200

// RollupsOf returns the rollups of some days that are stored, in no order.
func (db *DB) RollupsOf(ctx context.Context, keys []muster.RollupKey) ([]muster.RollupRow, error) {
	scan := func(rows *sql.Rows) (r muster.RollupRow, err error) {
		err = rows.Scan(&r.Partition, (*sourceColumn)(&r.Source), &r.Day, &r.Data)
		return r, err
	}
	var all []muster.RollupRow
	for len(keys) > 0 {
		some := keys[:min(len(keys), rollupsAtOnce)]
		keys = keys[len(some):]
		args := make([]any, 0, 3*len(some))
		for _, k := range some {
			args = append(args, int64(k.Partition), sourceKey(k.Source), k.Day)
		}
		found, err := list(ctx, db.reader, scan, rollupsAmong(len(some)), args...)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func rollupsAmong(n int) string {
	return `SELECT part, source, day, data FROM rollups WHERE (part, source, day) IN (VALUES ` + strings.TrimSuffix(strings.Repeat("(?, ?, ?), ", n), ", ") + `)`
}

const deleteOldestRollups = `DELETE FROM rollups WHERE (part, source, day) IN (SELECT part, source, day FROM rollups WHERE day < ? ORDER BY day LIMIT ?)`

// PruneRollups deletes rollups of days before one, oldest first and at most
// limit, in short transactions, and returns how many it deleted. Fewer than limit
// means that none is left.
func (db *DB) PruneRollups(ctx context.Context, before int64, limit int) (int, error) {
	return db.prune(ctx, limit, deleteOldestRollups, before)
}

const selectLookupKeys = `SELECT id, organisation, name, hash, per_day, per_month, created_at, created_by, revoked_at FROM lookup_keys`

func scanLookupKey(rows *sql.Rows) (muster.LookupKey, error) {
	var k muster.LookupKey
	err := rows.Scan(&k.ID, &k.Organisation, &k.Name, &k.Hash, &k.PerDay, &k.PerMonth,
		(*timeColumn)(&k.CreatedAt), &k.CreatedBy, (*timeColumn)(&k.RevokedAt))
	return k, err
}

// LookupKeys returns all keys, revoked ones too, in order of their ids, which is
// that of their making.
func (db *DB) LookupKeys(ctx context.Context) ([]muster.LookupKey, error) {
	return list(ctx, db.reader, scanLookupKey, selectLookupKeys+` ORDER BY id`)
}

// CreateLookupKey stores a new key.
func (db *DB) CreateLookupKey(ctx context.Context, k muster.LookupKey, audit ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`INSERT INTO lookup_keys (id, organisation, name, hash, per_day, per_month, created_at, created_by, revoked_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT DO NOTHING`,
			k.ID, k.Organisation, k.Name, blob(k.Hash), k.PerDay, k.PerMonth, micros(k.CreatedAt), k.CreatedBy)
		if err != nil {
			return err
		}
		if n == 0 {
			return muster.Errorf(muster.Exists, "there is a lookup key %q already", k.ID)
		}
		return putAudit(tx, audit)
	})
}

// RevokeLookupKey ends a key, or returns an error of code NotFound. One that was
// revoked stays so since then.
func (db *DB) RevokeLookupKey(ctx context.Context, id string, at time.Time, audit ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`UPDATE lookup_keys SET revoked_at = CASE WHEN revoked_at = 0 THEN ? ELSE revoked_at END WHERE id = ?`, micros(at), id)
		if err != nil {
			return err
		}
		if n == 0 {
			return muster.Errorf(muster.NotFound, "there is no lookup key %q", id)
		}
		return putAudit(tx, audit)
	})
}

// AddLookupUsage adds calls to what is counted of a key's day.
func (db *DB) AddLookupUsage(ctx context.Context, used []muster.LookupUsage) error {
	return db.write(ctx, func(tx *writer) error {
		return tx.many(`INSERT INTO lookup_usage (lookup_key, day, calls) VALUES (?, ?, ?)
			ON CONFLICT (lookup_key, day) DO UPDATE SET calls = calls + excluded.calls`, len(used), func(i int, args row) {
			args.set(used[i].Key, used[i].Day, used[i].Calls)
		}, nil)
	})
}

// LookupUsage returns how often keys were used since a day, by key and day.
func (db *DB) LookupUsage(ctx context.Context, since int64) ([]muster.LookupUsage, error) {
	scan := func(rows *sql.Rows) (u muster.LookupUsage, err error) {
		err = rows.Scan(&u.Key, &u.Day, &u.Calls)
		return u, err
	}
	return list(ctx, db.reader, scan, `SELECT lookup_key, day, calls FROM lookup_usage WHERE day >= ? ORDER BY lookup_key, day`, since)
}

// PruneLookupUsage forgets what is counted of days before one.
func (db *DB) PruneLookupUsage(ctx context.Context, before int64) error {
	return db.write(ctx, func(tx *writer) error {
		_, err := tx.exec(`DELETE FROM lookup_usage WHERE day < ?`, before)
		return err
	})
}
