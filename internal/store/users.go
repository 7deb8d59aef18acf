package store

import (
	"context"
	"database/sql"
	"fmt"

	"muster"
)

// CreateUser stores a new user, or returns an error of code Exists when the id
// or the name is taken.
func (db *DB) CreateUser(ctx context.Context, u muster.User) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`INSERT INTO users (id, name, password_hash, role, organisation, created_at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			u.ID, u.Name, u.PasswordHash, string(u.Role), u.Organisation, micros(u.CreatedAt))
		if err == nil && n == 0 {
			err = muster.Errorf(muster.Exists, "there is a user named %q already", u.Name)
		}
		return err
	})
}

const userColumns = `users.id, users.name, users.password_hash, users.role, users.organisation, users.created_at`

func userFields(u *muster.User) []any {
	return []any{&u.ID, &u.Name, &u.PasswordHash, &u.Role, &u.Organisation, (*timeColumn)(&u.CreatedAt)}
}

func scanUser(rows *sql.Rows) (muster.User, error) {
	var u muster.User
	err := rows.Scan(userFields(&u)...)
	return u, err
}

// UserByName returns the user of that login name, or an error of code NotFound.
func (db *DB) UserByName(ctx context.Context, name string) (muster.User, error) {
	return one(ctx, db.reader, fmt.Sprintf("user %q", name), scanUser, `SELECT `+userColumns+` FROM users WHERE name = ?`, name)
}

// Users returns all users in order of their names.
func (db *DB) Users(ctx context.Context) ([]muster.User, error) {
	return list(ctx, db.reader, scanUser, `SELECT `+userColumns+` FROM users ORDER BY name`)
}

// CountUsers returns how many users there are.
func (db *DB) CountUsers(ctx context.Context) (int, error) {
	return one(ctx, db.reader, "count", scalar[int], `SELECT COUNT(*) FROM users`)
}

// UpdateUserPassword replaces a user's password hash, or returns an error of
// code NotFound.
func (db *DB) UpdateUserPassword(ctx context.Context, id, passwordHash string) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`UPDATE users SET password_hash = ? WHERE id = ?`, passwordHash, id)
		if err == nil && n == 0 {
			err = muster.Errorf(muster.NotFound, "there is no such user %q", id)
		}
		return err
	})
}

// CreateAPIToken stores a new token, or returns an error of code Exists.
func (db *DB) CreateAPIToken(ctx context.Context, t muster.APIToken) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`INSERT INTO api_tokens (id, hash, user_id, name, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			t.ID, blob(t.Hash), t.User, t.Name, micros(t.CreatedAt), micros(t.ExpiresAt))
		if err == nil && n == 0 {
			err = muster.Errorf(muster.Exists, "there is such an API token already")
		}
		return err
	})
}

const tokenColumns = `api_tokens.id, api_tokens.hash, api_tokens.user_id, api_tokens.name, api_tokens.created_at, api_tokens.expires_at`

func tokenFields(t *muster.APIToken) []any {
	return []any{&t.ID, &t.Hash, &t.User, &t.Name, (*timeColumn)(&t.CreatedAt), (*timeColumn)(&t.ExpiresAt)}
}

// APITokenByHash returns the token with that hash, expired or not, and its
// user; or an error of code NotFound.
func (db *DB) APITokenByHash(ctx context.Context, hash []byte) (muster.APIToken, muster.User, error) {
	var t muster.APIToken
	var u muster.User
	scan := func(rows *sql.Rows) (struct{}, error) {
		return struct{}{}, rows.Scan(append(tokenFields(&t), userFields(&u)...)...)
	}
	_, err := one(ctx, db.reader, "API token", scan,
		`SELECT `+tokenColumns+`, `+userColumns+` FROM api_tokens JOIN users ON users.id = api_tokens.user_id WHERE api_tokens.hash = ?`, blob(hash))
	return t, u, err
}

// APITokens returns all tokens in order of their ids, which is that of their
// creation.
func (db *DB) APITokens(ctx context.Context) ([]muster.APIToken, error) {
	scan := func(rows *sql.Rows) (muster.APIToken, error) {
		var t muster.APIToken
		err := rows.Scan(tokenFields(&t)...)
		return t, err
	}
	return list(ctx, db.reader, scan, `SELECT `+tokenColumns+` FROM api_tokens ORDER BY id`)
}

// DeleteAPIToken forgets a token, or returns an error of code NotFound.
func (db *DB) DeleteAPIToken(ctx context.Context, id string) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`DELETE FROM api_tokens WHERE id = ?`, id)
		if err == nil && n == 0 {
			err = muster.Errorf(muster.NotFound, "there is no such API token %q", id)
		}
		return err
	})
}
