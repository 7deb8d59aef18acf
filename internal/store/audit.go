package store

import (
	"context"
	"database/sql"
	"time"
	"unicode/utf8"

	"muster"
)

// AuditQuery selects audit entries; zero fields select all. Entries are looked
// at one by one, newest first, until Limit is reached.
type AuditQuery struct {
	Action  string // what actions begin with: "ban.", "limit.set"
	Subject string // exactly this one
	Before  string // the id of the last entry on the page before
	Limit   int    // 1 to 1,000; anything else means 1,000
}

// Audit returns a page of what people changed, newest first, by the time in the
// entries' ids.
func (db *DB) Audit(ctx context.Context, q AuditQuery) ([]muster.AuditEntry, error) {
	scan := func(rows *sql.Rows) (muster.AuditEntry, error) {
		var e muster.AuditEntry
		err := rows.Scan(&e.ID, (*timeColumn)(&e.At), &e.By, &e.Action, &e.Subject, &e.Reason, &e.Detail)
		if len(e.Detail) == 0 {
			e.Detail = nil
		}
		return e, err
	}
	query, args := q.sql()
	return list(ctx, db.reader, scan, query, args...)
}

func (q AuditQuery) sql() (query string, args []any) {
	w := where{}
	if q.Before != "" {
		w.add(`id < ?`, q.Before)
	}
	if q.Action != "" {
		w.add(`SUBSTR(action, 1, ?) = ?`, utf8.RuneCountInString(q.Action), q.Action)
	}
	if q.Subject != "" {
		w.add(`subject = ?`, q.Subject)
	}
	return `SELECT id, at, by, action, subject, reason, detail FROM audit` + w.sql() + ` ORDER BY id DESC LIMIT ?`, append(w.args, page(q.Limit))
}

// PutAudit adds entries in one transaction, or returns an error of code Exists
// and adds none when an id is taken.
func (db *DB) PutAudit(ctx context.Context, entries ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error { return putAudit(tx, entries) })
}

// putAudit is PutAudit beside the changes that the entries are about.
func putAudit(tx *writer, entries []muster.AuditEntry) error {
	taken := -1
	err := tx.many(`INSERT INTO audit (id, at, by, action, subject, reason, detail) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
		len(entries), func(i int, args row) {
			e := &entries[i]
			args.set(e.ID, micros(e.At), e.By, e.Action, e.Subject, e.Reason, blob(e.Detail))
		}, func(i int, changed int64) {
			if changed == 0 {
				taken = i
			}
		})
	if err == nil && taken >= 0 {
		err = muster.Errorf(muster.Exists, "there is an audit entry %q already", entries[taken].ID)
	}
	return err
}

const deleteOldestAudit = `DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ? ORDER BY at LIMIT ?)`

// PruneAudit deletes entries from before a time, oldest first and at most limit
// of them, in short transactions, and returns how many it deleted. Fewer than
// limit means that none is left.
func (db *DB) PruneAudit(ctx context.Context, before time.Time, limit int) (int, error) {
	return db.prune(ctx, limit, deleteOldestAudit, micros(before))
}
