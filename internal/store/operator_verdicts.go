package store

import (
	"context"
	"database/sql"
	"time"

	"muster"
)

// PutOperatorVerdict stores a person's word in place of the one on its source,
// with its audit entry.
func (db *DB) PutOperatorVerdict(ctx context.Context, v muster.OperatorVerdict, audit muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		_, err := tx.exec(`INSERT INTO operator_verdicts (source, listed, remedy, until, reason, by, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (source) DO UPDATE SET listed = excluded.listed, remedy = excluded.remedy, until = excluded.until, reason = excluded.reason,
				by = excluded.by, created_at = excluded.created_at`,
			sourceKey(v.Source), v.Listed, string(v.Remedy), micros(v.Until), v.Reason, v.By, micros(v.CreatedAt))
		if err != nil {
			return err
		}
		return putAudit(tx, []muster.AuditEntry{audit})
	})
}

// DeleteOperatorVerdict forgets the word on exactly that source, ended or not,
// and keeps the audit entry; or returns an error of code NotFound and keeps
// nothing.
func (db *DB) DeleteOperatorVerdict(ctx context.Context, source muster.Source, audit muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`DELETE FROM operator_verdicts WHERE source = ?`, sourceKey(source))
		if err != nil {
			return err
		}
		if n == 0 {
			return muster.Errorf(muster.NotFound, "nobody has decided about %s", source)
		}
		return putAudit(tx, []muster.AuditEntry{audit})
	})
}

// OperatorVerdicts returns those that have not ended at now, in order of their
// addresses.
func (db *DB) OperatorVerdicts(ctx context.Context, now time.Time) ([]muster.OperatorVerdict, error) {
	scan := func(rows *sql.Rows) (muster.OperatorVerdict, error) {
		var v muster.OperatorVerdict
		err := rows.Scan((*sourceColumn)(&v.Source), &v.Listed, &v.Remedy, (*timeColumn)(&v.Until), &v.Reason, &v.By, (*timeColumn)(&v.CreatedAt))
		return v, err
	}
	return list(ctx, db.reader, scan, `SELECT source, listed, remedy, until, reason, by, created_at FROM operator_verdicts
		WHERE until = 0 OR until > ? ORDER BY source`, micros(now))
}
