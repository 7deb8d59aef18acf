package store

import (
	"context"
	"database/sql"
	"fmt"

	"muster"
)

const evidenceColumns = `evidence.part, source, last_at, data`

func scanEvidence(rows *sql.Rows) (muster.EvidenceRow, error) {
	var e muster.EvidenceRow
	err := rows.Scan(&e.Partition, (*sourceColumn)(&e.Source), (*timeColumn)(&e.Last), &e.Data)
	return e, err
}

// EachEvidence calls yield with all evidence, partition by partition, until it
// fails. What it sees is the state of one moment. yield must not take long:
// meanwhile the database cannot reuse space.
func (db *DB) EachEvidence(ctx context.Context, yield func(muster.EvidenceRow) error) error {
	return each(ctx, db.reader, scanEvidence, yield, `SELECT `+evidenceColumns+` FROM evidence ORDER BY part, source`)
}

// The join, in this order, finds a source whose partition is not at hand in 64
// steps of the primary key.
const selectEvidenceOf = `SELECT ` + evidenceColumns + ` FROM positions CROSS JOIN evidence WHERE evidence.part = positions.part AND source = ?`

// EvidenceOf returns the evidence on one source, or an error of code NotFound.
func (db *DB) EvidenceOf(ctx context.Context, source muster.Source) (muster.EvidenceRow, error) {
	return one(ctx, db.reader, fmt.Sprintf("evidence on %s", source), scanEvidence,
		selectEvidenceOf, sourceKey(source))
}
