// Package store keeps everything that Muster must remember in one SQL
// database, behind one type, DB. SQL is written once, with ? for parameters, in
// the subset that SQLite and PostgreSQL share; what differs between them (how a
// database is opened, its migrations, bulk writes) sits side by side in files
// named after them.
//
// Conventions of the schema: times are microseconds UTC and 0 stands for the
// zero time; sources are the 17 bytes of muster.Source; lists are JSON. There
// are no triggers, advisory locks, sequences on hot tables or notifications,
// and the partition number leads the keys of hot tables, so that distributed
// databases that speak PostgreSQL's protocol stay possible.
//
// A method that writes returns when the change is on disk. Its context bounds
// the wait for the writer's turn; a transaction that has begun runs to its end.
// Methods that change what does not exist return muster.NotFound, those that
// create what exists muster.Exists.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"

	"muster"
)

// Options tunes a DB. The zero value is right for a server.
type Options struct {
	// Readers is the most queries that run at once; further ones wait. 0 means
	// two per processor, at least 4.
	Readers int
	// CacheBytes bounds the memory that the writer keeps of the database; it is
	// taken as it is needed, and with SQLite twice over. 0 means 16 MiB.
	CacheBytes int
	// RecentAlerts is how many of the alerts stored last are recognised for
	// certain when they are sent again. 0 means DefaultRecentAlerts.
	RecentAlerts int
	// Logger hears of migrations. nil means silence.
	Logger *slog.Logger
}

// DB is an open database. It is safe for use by many goroutines.
type DB struct {
	reader *sql.DB // many connections, none of which can write
	pool   *sql.DB // of the one connection in writer
	writer *writer
	turn   chan struct{} // holds a token while a write transaction runs
	closed chan struct{} // is closed by Close
	close  func() error  // runs once
}

// Open opens the database that url names, makes it when absent, and brings its
// schema up to date. The one scheme of this release is sqlite: followed by the
// path of a file in an existing directory. Errors of code muster.Invalid are
// about the url; others about what was found there.
func Open(ctx context.Context, url string, opts Options) (*DB, error) {
	if opts.Readers == 0 {
		opts.Readers = max(4, 2*runtime.GOMAXPROCS(0))
	}
	if opts.CacheBytes == 0 {
		opts.CacheBytes = 16 << 20
	}
	if opts.RecentAlerts == 0 {
		opts.RecentAlerts = DefaultRecentAlerts
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	scheme, rest, _ := strings.Cut(url, ":")
	switch scheme {
	case "sqlite":
		return openSQLite(ctx, rest, opts)
	case "postgres", "postgresql":
		return nil, muster.Errorf(muster.Invalid, "store: PostgreSQL is not in this release: use sqlite:PATH")
	}
	return nil, muster.Errorf(muster.Invalid, "store: expected a URL like sqlite:/var/lib/muster/muster.db, got one with scheme %q", scheme)
}

// Close waits for the running write transaction and closes the database. Closed
// again it does nothing; other methods then return an error.
func (db *DB) Close() error { return db.close() }

func (db *DB) shut() error {
	db.turn <- struct{}{} // and nobody gets it back
	close(db.closed)
	// The writer last: the last connection folds the log into the file.
	return errors.Join(db.reader.Close(), db.writer.close(), db.pool.Close())
}

// Ping checks that the database can be read.
func (db *DB) Ping(ctx context.Context) error {
	var n int
	if err := db.reader.QueryRowContext(ctx, `SELECT COUNT(*) FROM positions`).Scan(&n); err != nil {
		return fmt.Errorf("store: reading positions: %w", explain(err))
	}
	return nil
}

// write runs fn in one write transaction: all of it is kept when fn returns
// nil, nothing of it otherwise. ctx bounds the wait for the turn only. fn must
// not use db's own methods.
func (db *DB) write(ctx context.Context, fn func(tx *writer) error) error {
	select {
	case db.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("store: waiting to write: %w", ctx.Err())
	case <-db.closed:
		return muster.Errorf(muster.Unavailable, "the database is closed")
	}
	defer func() { <-db.turn }()
	if err := db.writer.begin(); err != nil {
		return fmt.Errorf("store: beginning a transaction: %w", explain(err))
	}
	done := false
	defer func() {
		if !done { // fn failed or panics
			db.writer.rollback()
		}
	}()
	if err := fn(db.writer); err != nil {
		return err
	}
	if err := db.writer.commit(); err != nil {
		return fmt.Errorf("store: committing: %w", explain(err))
	}
	done = true
	return nil
}

// queryer is what reads share: the pool of readers, and the writer inside a
// transaction.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// each calls yield with every row that query gives, as scan reads it, until
// yield fails.
func each[T any](ctx context.Context, q queryer, scan func(*sql.Rows) (T, error), yield func(T) error, query string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("store: querying: %w", explain(err))
	}
	defer rows.Close()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return fmt.Errorf("store: reading a row: %w", err)
		}
		if err := yield(v); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("store: reading rows: %w", explain(err))
	}
	return nil
}

// list returns all rows that query gives.
func list[T any](ctx context.Context, q queryer, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	var all []T
	err := each(ctx, q, scan, func(v T) error { all = append(all, v); return nil }, query, args...)
	if err != nil {
		return nil, err
	}
	return all, nil
}

// one returns the first row that query gives, or an error of code NotFound
// that says that there is no such what.
func one[T any](ctx context.Context, q queryer, what string, scan func(*sql.Rows) (T, error), query string, args ...any) (T, error) {
	all, err := list(ctx, q, scan, query, args...)
	if err == nil && len(all) == 0 {
		err = muster.Errorf(muster.NotFound, "there is no such %s", what)
	}
	if err != nil {
		var zero T
		return zero, err
	}
	return all[0], nil
}

// scalar scans a row of one column.
func scalar[T any](rows *sql.Rows) (T, error) {
	var v T
	err := rows.Scan(&v)
	return v, err
}
