package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"muster"
)

// SpoolState returns what the forwarder goes on from.
func (db *DB) SpoolState(ctx context.Context) (s muster.SpoolState, err error) {
	position := func(rows *sql.Rows) (struct{}, error) {
		var part, position int64
		if err := rows.Scan(&part, &position); err != nil {
			return struct{}{}, err
		}
		if part < 0 || part >= muster.Partitions {
			return struct{}{}, fmt.Errorf("expected partitions 0 to %d, found %d", muster.Partitions-1, part)
		}
		s.Positions[part] = uint64(position)
		return struct{}{}, nil
	}
	if _, err = list(ctx, db.reader, position, `SELECT part, position FROM spool_positions`); err != nil {
		return s, err
	}
	cursor := func(rows *sql.Rows) (c muster.SpoolCursor, err error) {
		var engine []byte
		var position int64
		err = rows.Scan(&engine, &position, &c.Index)
		copy(c.Engine[:], engine)
		c.Position = uint64(position)
		return c, err
	}
	s.Cursors, err = list(ctx, db.reader, cursor, `SELECT engine, position, signal FROM spool_cursors ORDER BY engine`)
	return s, err
}

// mostRefused is how many signals that were set aside are kept; beyond it the
// oldest go.
const mostRefused = 10_000

// CommitSpool keeps all of p in one transaction.
func (db *DB) CommitSpool(ctx context.Context, p muster.SpoolProgress) error {
	parts := make([]uint8, 0, len(p.Positions))
	for part := range p.Positions {
		parts = append(parts, part)
	}
	return db.write(ctx, func(tx *writer) error {
		err := tx.many(`INSERT INTO spool_positions (part, position) VALUES (?, ?)
			ON CONFLICT (part) DO UPDATE SET position = excluded.position`, len(parts), func(i int, args row) {
			args.set(int64(parts[i]), int64(p.Positions[parts[i]]))
		}, nil)
		if err != nil {
			return err
		}
		err = tx.many(`INSERT INTO spool_cursors (engine, part, position, signal) VALUES (?, ?, ?, ?)
			ON CONFLICT (engine) DO UPDATE SET position = excluded.position, signal = excluded.signal`, len(p.Cursors), func(i int, args row) {
			c := &p.Cursors[i]
			args.set(c.Engine[:], int64(c.Engine.Partition()), int64(c.Position), int64(c.Index))
		}, nil)
		if err != nil {
			return err
		}
		err = tx.many(`DELETE FROM spool_cursors WHERE part = ? AND position <= ?`, len(parts), func(i int, args row) {
			args.set(int64(parts[i]), int64(p.Positions[parts[i]]))
		}, nil)
		if err != nil || len(p.Refused) == 0 {
			return err
		}
		err = tx.many(`INSERT INTO spool_refused (engine, machine, uuid, received, at, status, reason, raw) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			len(p.Refused), func(i int, args row) {
				r := &p.Refused[i]
				args.set(r.Engine[:], r.Machine, r.UUID, micros(r.Received), micros(r.At), int64(r.Status), r.Reason, blob(r.Raw))
			}, nil)
		if err != nil {
			return err
		}
		_, err = tx.exec(`DELETE FROM spool_refused WHERE id <= (SELECT MAX(id) FROM spool_refused) - ?`, int64(mostRefused))
		return err
	})
}

// SpoolRefused returns at most limit signals that the upstream would not have,
// the latest first.
func (db *DB) SpoolRefused(ctx context.Context, limit int) ([]muster.SpoolRefusal, error) {
	scan := func(rows *sql.Rows) (r muster.SpoolRefusal, err error) {
		var engine []byte
		err = rows.Scan(&engine, &r.Machine, &r.UUID, (*timeColumn)(&r.Received), (*timeColumn)(&r.At), &r.Status, &r.Reason, &r.Raw)
		copy(r.Engine[:], engine)
		return r, err
	}
	return list(ctx, db.reader, scan, `SELECT engine, machine, uuid, received, at, status, reason, raw FROM spool_refused ORDER BY id DESC LIMIT ?`, limit)
}

// SpoolTokens returns all sealed tokens, oldest first.
func (db *DB) SpoolTokens(ctx context.Context) ([]muster.SpoolToken, error) {
	scan := func(rows *sql.Rows) (t muster.SpoolToken, err error) {
		var engine, token []byte
		err = rows.Scan(&engine, &token, (*timeColumn)(&t.Seen), &t.Sealed)
		copy(t.Engine[:], engine)
		copy(t.Token[:], token)
		return t, err
	}
	return list(ctx, db.reader, scan, `SELECT engine, token, seen, sealed FROM spool_tokens ORDER BY seen, engine, token`)
}

// oldToken is the age from which no token is of use: real ones live for hours.
const oldToken = 30 * 24 * time.Hour

// PutSpoolToken keeps a token and those of the engine's before it, keep in all;
// it forgets all that are older than 30 days.
func (db *DB) PutSpoolToken(ctx context.Context, t muster.SpoolToken, keep int) error {
	return db.write(ctx, func(tx *writer) error {
		_, err := tx.exec(`INSERT INTO spool_tokens (engine, token, seen, sealed) VALUES (?, ?, ?, ?)
			ON CONFLICT (engine, token) DO UPDATE SET sealed = excluded.sealed`, t.Engine[:], t.Token[:], micros(t.Seen), blob(t.Sealed))
		if err != nil {
			return err
		}
		_, err = tx.exec(`DELETE FROM spool_tokens WHERE engine = ? AND token NOT IN (
			SELECT token FROM spool_tokens WHERE engine = ? ORDER BY seen DESC LIMIT ?)`, t.Engine[:], t.Engine[:], keep)
		if err != nil {
			return err
		}
		_, err = tx.exec(`DELETE FROM spool_tokens WHERE seen < ?`, micros(t.Seen.Add(-oldToken)))
		return err
	})
}
