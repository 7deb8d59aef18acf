package store

import (
	"bytes"
	"context"
	"time"

	"muster"
)

// VerdictsOf returns the verdicts on one source for all audiences.
func (db *DB) VerdictsOf(ctx context.Context, source muster.Source) ([]muster.Verdict, error) {
	return list(ctx, db.reader, scanVerdict, selectVerdicts+ofAnyPart+`verdicts.part WHERE source = ? ORDER BY audience`, sourceKey(source))
}

// PruneVerdicts deletes verdicts that are not listed and did not change since a
// time, in one transaction of at most limit, and returns how many it deleted.
func (db *DB) PruneVerdicts(ctx context.Context, before time.Time, limit int) (int, error) {
	var n int64
	err := db.write(ctx, func(tx *writer) (err error) {
		n, err = tx.exec(`DELETE FROM verdicts WHERE (part, audience, source) IN
			(SELECT part, audience, source FROM verdicts WHERE changed < ? AND listed = ? ORDER BY changed LIMIT ?)`, micros(before), false, limit)
		return err
	})
	return int(n), err
}

// ReplaceSecret stores value under name if old is what is stored there, or
// returns an error of code Exists: somebody else was faster.
func (db *DB) ReplaceSecret(ctx context.Context, name string, old, value []byte) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`UPDATE secrets SET value = ? WHERE name = ? AND value = ?`, blob(value), name, blob(old))
		if err == nil && n == 0 && !bytes.Equal(old, value) {
			err = muster.Errorf(muster.Exists, "another process has replaced the secret %s", name)
		}
		return err
	})
}
