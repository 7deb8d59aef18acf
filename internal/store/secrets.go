package store

import (
	"context"
	"fmt"

	"muster"
)

// Secret returns the value stored under name, such as a signing key, or an
// error of code NotFound.
func (db *DB) Secret(ctx context.Context, name string) ([]byte, error) {
	return secret(ctx, db.reader, name)
}

// EnsureSecret stores value under name unless something is there already, and
// returns what is there: of many processes that start at once, all get the same.
func (db *DB) EnsureSecret(ctx context.Context, name string, value []byte) ([]byte, error) {
	var current []byte
	err := db.write(ctx, func(tx *writer) error {
		_, err := tx.exec(`INSERT INTO secrets (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING`, name, blob(value))
		if err != nil {
			return err
		}
		current, err = secret(ctx, tx, name)
		return err
	})
	return current, err
}

// PutSecret stores value under name, in place of what was there.
func (db *DB) PutSecret(ctx context.Context, name string, value []byte) error {
	return db.write(ctx, func(tx *writer) error {
		_, err := tx.exec(`INSERT INTO secrets (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, blob(value))
		return err
	})
}

// ReplaceSecret stores value under name if old is what is stored there, or
// returns an error of code Exists: somebody else was faster.
func (db *DB) ReplaceSecret(ctx context.Context, name string, old, value []byte) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`UPDATE secrets SET value = ? WHERE name = ? AND value = ?`, blob(value), name, blob(old))
		if err == nil && n == 0 {
			err = muster.Errorf(muster.Exists, "another process has replaced the secret %q", name)
		}
		return err
	})
}

func secret(ctx context.Context, q queryer, name string) ([]byte, error) {
	return one(ctx, q, fmt.Sprintf("secret %q", name), scalar[[]byte], `SELECT value FROM secrets WHERE name = ?`, name)
}
