package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"muster"
)

const insertAlert = `INSERT INTO alerts (part, id, at, received, organisation, machine,
	source, scope, value, scenario, scenario_hash, version, trust, kind,
	country, asn, as_name, flags, detail)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
	ON CONFLICT DO NOTHING`

const selectAlerts = `SELECT id, at, received, organisation, machine, source, scope, value,
	scenario, scenario_hash, version, trust, kind, country, asn, as_name, flags, detail FROM alerts`

func scanAlert(rows *sql.Rows) (muster.Signal, error) {
	var s muster.Signal
	var id []byte
	err := rows.Scan(&id, (*timeColumn)(&s.At), (*timeColumn)(&s.Received), &s.Organisation, &s.Machine, (*sourceColumn)(&s.Source), &s.Scope, &s.Value,
		&s.Scenario, &s.ScenarioHash, &s.Version, &s.Trust, &s.Kind, &s.Country, &s.ASN, &s.ASName, &s.Flags, &s.Detail)
	if err == nil && copy(s.ID[:], id) != len(s.ID) {
		err = fmt.Errorf("expected an alert's id of %d bytes, got %d", len(s.ID), len(id))
	}
	return s, err
}

// AlertQuery selects alerts; zero fields select all. Queries by Organisation and
// Since use an index; the other fields are looked at row by row, until Limit is
// reached, so bound them with Since.
type AlertQuery struct {
	Organisation string
	Machine      string
	Source       muster.Source // exactly this address or range
	Scenario     string        // exactly this name
	Since        time.Time     // happened at or after
	Until        time.Time     // happened before
	After        AlertCursor   // the page before
	Limit        int           // 1 to 1,000; anything else means 1,000
}

// AlertCursor marks the end of a page of alerts; zero is the start.
type AlertCursor struct {
	At time.Time
	ID muster.SignalID
}

// CursorAfter returns the cursor for the page that follows s.
func CursorAfter(s muster.Signal) AlertCursor { return AlertCursor{s.At, s.ID} }

// Alerts returns a page of stored signals, what happened last first.
func (db *DB) Alerts(ctx context.Context, q AlertQuery) ([]muster.Signal, error) {
	query, args := q.sql()
	return list(ctx, db.reader, scanAlert, query, args...)
}

func (q AlertQuery) sql() (query string, args []any) {
	w := where{}
	if q.Organisation != "" {
		w.add(`organisation = ?`, q.Organisation)
	}
	if q.Machine != "" {
		w.add(`machine = ?`, q.Machine)
	}
	if q.Source.IsValid() {
		w.add(`source = ?`, sourceKey(q.Source))
	}
	if q.Scenario != "" {
		w.add(`scenario = ?`, q.Scenario)
	}
	if !q.Since.IsZero() {
		w.add(`at >= ?`, micros(q.Since))
	}
	if !q.Until.IsZero() {
		w.add(`at < ?`, micros(q.Until))
	}
	if q.After != (AlertCursor{}) {
		w.add(`(at, id) < (?, ?)`, micros(q.After.At), q.After.ID[:])
	}
	return selectAlerts + w.sql() + ` ORDER BY at DESC, id DESC LIMIT ?`, append(w.args, page(q.Limit))
}

// CountAlerts returns how many alerts are stored. It reads the whole index.
func (db *DB) CountAlerts(ctx context.Context) (int, error) {
	return one(ctx, db.reader, "count", scalar[int], `SELECT COUNT(*) FROM alerts`)
}

const deleteOldestAlerts = `DELETE FROM alerts WHERE (at, id) IN (SELECT at, id FROM alerts WHERE at < ? ORDER BY at LIMIT ?)`

// PruneAlerts deletes alerts of what happened before a time, oldest first and at
// most limit of them, in short transactions, and returns how many it deleted.
// Fewer than limit means that none is left.
func (db *DB) PruneAlerts(ctx context.Context, before time.Time, limit int) (int, error) {
	return db.prune(ctx, limit, deleteOldestAlerts, micros(before))
}

// pruneChunk keeps the transactions of prune short, because everybody else who
// writes waits for them.
const pruneChunk = 2000

// prune repeats a deletion, whose last parameter is how many rows at most, until
// limit rows are deleted or none is left.
func (db *DB) prune(ctx context.Context, limit int, deletion string, args ...any) (deleted int, err error) {
	for deleted < limit {
		chunk := min(pruneChunk, limit-deleted)
		var n int64
		err := db.write(ctx, func(tx *writer) (err error) {
			n, err = tx.exec(deletion, append(slices.Clip(args), chunk)...)
			return err
		})
		deleted += int(n)
		if err != nil || int(n) < chunk {
			return deleted, err
		}
	}
	return deleted, nil
}
