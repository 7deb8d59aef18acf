package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"muster"
)

// CreateEnrolmentKey stores a new key, or returns an error of code Exists.
func (db *DB) CreateEnrolmentKey(ctx context.Context, k muster.EnrolmentKey) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`INSERT INTO enrolment_keys
			(id, hash, organisation, tags, auto_accept, max_uses, uses, created_at, expires_at, revoked_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			k.ID, blob(k.Hash), k.Organisation, jsonList(k.Tags), k.AutoAccept, k.MaxUses, k.Uses,
			micros(k.CreatedAt), micros(k.ExpiresAt), micros(k.RevokedAt))
		if err == nil && n == 0 {
			err = muster.Errorf(muster.Exists, "there is such an enrolment key already")
		}
		return err
	})
}

const selectKeys = `SELECT id, hash, organisation, tags, auto_accept, max_uses, uses, created_at, expires_at, revoked_at FROM enrolment_keys`

func scanKey(rows *sql.Rows) (muster.EnrolmentKey, error) {
	var k muster.EnrolmentKey
	err := rows.Scan(&k.ID, &k.Hash, &k.Organisation, (*listColumn)(&k.Tags), &k.AutoAccept, &k.MaxUses, &k.Uses,
		(*timeColumn)(&k.CreatedAt), (*timeColumn)(&k.ExpiresAt), (*timeColumn)(&k.RevokedAt))
	return k, err
}

// EnrolmentKey returns one key, or an error of code NotFound.
func (db *DB) EnrolmentKey(ctx context.Context, id string) (muster.EnrolmentKey, error) {
	return one(ctx, db.reader, fmt.Sprintf("enrolment key %q", id), scanKey, selectKeys+` WHERE id = ?`, id)
}

// EnrolmentKeyByHash returns the key with that hash, usable or not, or an error
// of code NotFound.
func (db *DB) EnrolmentKeyByHash(ctx context.Context, hash []byte) (muster.EnrolmentKey, error) {
	return keyByHash(ctx, db.reader, hash)
}

func keyByHash(ctx context.Context, q queryer, hash []byte) (muster.EnrolmentKey, error) {
	return one(ctx, q, "enrolment key", scanKey, selectKeys+` WHERE hash = ?`, blob(hash))
}

// EnrolmentKeys returns the keys of an organisation, or of all when it is "",
// in order of their ids, which is that of their creation.
func (db *DB) EnrolmentKeys(ctx context.Context, organisation string) ([]muster.EnrolmentKey, error) {
	w := where{}
	if organisation != "" {
		w.add(`organisation = ?`, organisation)
	}
	return list(ctx, db.reader, scanKey, selectKeys+w.sql()+` ORDER BY id`, w.args...)
}

// UseEnrolmentKey counts one use of the key with that hash and returns it with
// the use counted. An error of code NotFound or Gone means that it cannot be
// used; of two machines that try the last use at once, one gets it.
func (db *DB) UseEnrolmentKey(ctx context.Context, hash []byte, now time.Time) (muster.EnrolmentKey, error) {
	var k muster.EnrolmentKey
	err := db.write(ctx, func(tx *writer) (err error) {
		if k, err = keyByHash(ctx, tx, hash); err != nil {
			return err
		}
		if err := k.Usable(now); err != nil {
			return err
		}
		k.Uses++
		_, err = tx.exec(`UPDATE enrolment_keys SET uses = ? WHERE id = ?`, k.Uses, k.ID)
		return err
	})
	if err != nil {
		return muster.EnrolmentKey{}, err
	}
	return k, nil
}

// RevokeEnrolmentKey ends a key's use; revoked again it keeps its first time.
// An error of code NotFound means that there is no such key.
func (db *DB) RevokeEnrolmentKey(ctx context.Context, id string, now time.Time) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`UPDATE enrolment_keys SET revoked_at = CASE WHEN revoked_at = 0 THEN ? ELSE revoked_at END WHERE id = ?`, micros(now), id)
		if err == nil && n == 0 {
			err = muster.Errorf(muster.NotFound, "there is no such enrolment key %q", id)
		}
		return err
	})
}

// CreateClaim stores a claim in place of the machine's earlier one. An error of
// code Exists means that another machine has the same code: draw again.
func (db *DB) CreateClaim(ctx context.Context, c muster.Claim) error {
	return db.write(ctx, func(tx *writer) error {
		if _, err := tx.exec(`DELETE FROM claims WHERE machine = ?`, c.Machine); err != nil {
			return err
		}
		n, err := tx.exec(`INSERT INTO claims (machine, code_hash, name, tags, expires_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			c.Machine, blob(c.Hash), c.Name, jsonList(c.Tags), micros(c.ExpiresAt))
		if err == nil && n == 0 {
			err = muster.Errorf(muster.Exists, "another machine has the same code")
		}
		return err
	})
}

// Claim returns the claim with that code, which may have expired, or an error of
// code NotFound.
func (db *DB) Claim(ctx context.Context, codeHash []byte) (muster.Claim, error) {
	scan := func(rows *sql.Rows) (muster.Claim, error) {
		var c muster.Claim
		err := rows.Scan(&c.Machine, &c.Hash, &c.Name, (*listColumn)(&c.Tags), (*timeColumn)(&c.ExpiresAt))
		return c, err
	}
	return one(ctx, db.reader, "code", scan, `SELECT machine, code_hash, name, tags, expires_at FROM claims WHERE code_hash = ?`, blob(codeHash))
}

// DeleteClaim forgets a claim, which may be gone already.
func (db *DB) DeleteClaim(ctx context.Context, codeHash []byte) error {
	return db.write(ctx, func(tx *writer) error {
		_, err := tx.exec(`DELETE FROM claims WHERE code_hash = ?`, blob(codeHash))
		return err
	})
}
