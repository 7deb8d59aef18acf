package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"muster"
)

// openSQLite opens the file at path. There is one connection that writes,
// because SQLite takes one writer at a time and queues better outside than in;
// and a pool of connections that cannot write, which see the last commit and
// are never in the writer's way (WAL).
func openSQLite(ctx context.Context, path string, opts Options) (*DB, error) {
	if path == "" || path == ":memory:" {
		return nil, muster.Errorf(muster.Invalid, "store: expected the path of a file after sqlite:, got %q", path)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("store: finding the database: %w", err)
	}
	if err := checkFile(path); err != nil {
		return nil, err
	}
	pool, err := sql.Open("sqlite", sqliteDSN(path,
		"journal_mode(wal)",
		"synchronous(full)", // a commit survives the loss of power
		"busy_timeout(10000)",
		"cache_size("+strconv.Itoa(-opts.CacheBytes>>10)+")",
		// 32 MiB of log between checkpoints: under bulk writes a page is copied
		// back once for many commits; and the file shrinks back to that.
		"wal_autocheckpoint(8192)",
		"journal_size_limit(33554432)",
		// An upsert keeps the pages that it changes until it is done, elsewhere:
		// not in a file that is written for every row.
		"temp_store(memory)",
	))
	if err != nil {
		return nil, fmt.Errorf("store: opening %s: %w", path, err)
	}
	pool.SetMaxOpenConns(1)
	if err := migrate(ctx, pool, opts.Logger); err != nil {
		return nil, errors.Join(openError(path, err), pool.Close())
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, errors.Join(openError(path, err), pool.Close())
	}
	reader, err := sql.Open("sqlite", sqliteDSN(path,
		"query_only(1)",
		"busy_timeout(10000)",
		"cache_size(-2048)",
	))
	if err != nil {
		return nil, errors.Join(openError(path, err), conn.Close(), pool.Close())
	}
	reader.SetMaxOpenConns(opts.Readers)
	reader.SetMaxIdleConns(opts.Readers)
	reader.SetConnMaxIdleTime(time.Minute) // gives their memory back
	db := &DB{
		reader: reader,
		pool:   pool,
		writer: &writer{conn: conn, prepared: map[string]*prepared{}, recentSize: opts.RecentAlerts},
		turn:   make(chan struct{}, 1),
		closed: make(chan struct{}),
	}
	db.close = sync.OnceValue(db.shut)
	return db, nil
}

// sqliteDSN escapes path, which may hold any character, and adds the pragmas
// that every new connection runs.
func sqliteDSN(path string, pragmas ...string) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + url.Values{"_pragma": pragmas}.Encode()
}

// checkFile makes the file when it is absent, for its owner only, since it
// holds the server's keys; SQLite gives its log the same mode. It tells what is
// wrong in better words than SQLite can.
func checkFile(path string) error {
	dir := filepath.Dir(path)
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("store: the directory %s does not exist: make it first", dir)
	case err != nil:
		return fmt.Errorf("store: looking for the directory of the database: %w", err)
	case !info.IsDir():
		return fmt.Errorf("store: %s should be a directory and is a file", dir)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("store: the database must be readable and writable by this user: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("store: the database must be readable and writable by this user: %w", err)
	}
	// The log and its index appear beside the file, so the directory itself
	// must take new files.
	probe, err := os.CreateTemp(dir, ".muster-*")
	if err != nil {
		return fmt.Errorf("store: the directory of the database must be writable by this user: %w", err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

func openError(path string, err error) error {
	if sqliteCode(err) == sqlite3.SQLITE_NOTADB {
		return fmt.Errorf("store: %s is no SQLite database (or it is damaged): move it away, or name another file", path)
	}
	return fmt.Errorf("store: opening %s: %w", path, explain(err))
}

// explain gives the database's troubles that callers or operators can act on
// the code Unavailable and words that say what to do.
func explain(err error) error {
	switch sqliteCode(err) {
	case sqlite3.SQLITE_FULL:
		return muster.Errorf(muster.Unavailable, "the disk that holds the database is full: make room: %w", err)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return muster.Errorf(muster.Unavailable, "another process holds the database: is a second server running on it? %w", err)
	}
	return err
}

// sqliteCode returns SQLite's primary result code, 0 for other errors.
func sqliteCode(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// writer is the connection that writes, and with that the transaction of whoever
// has the turn.
type writer struct {
	conn     *sql.Conn
	prepared map[string]*prepared // by text; few, all from this package

	recentSize int
	recent     *recent // nil: to be read when it is needed
	recentUsed bool    // in this transaction
}

// recentAlerts is for the transaction that adds to it.
func (w *writer) recentAlerts() (*recent, error) {
	if w.recent == nil {
		loaded, err := loadRecent(w, w.recentSize)
		if err != nil {
			return nil, err
		}
		w.recent = loaded
	}
	w.recentUsed = true
	return w.recent, nil
}

// background: a write transaction that has begun is not cancelled.
var background = context.Background()

// IMMEDIATE, because a transaction that reads first and then writes could
// otherwise fail when another process wrote in between.
func (w *writer) begin() error {
	w.recentUsed = false
	return w.plain("BEGIN IMMEDIATE")
}

func (w *writer) commit() error { return w.plain("COMMIT") }

// rollback has no error to give: SQLite may have rolled back by itself, and
// what remains open fails the next begin.
func (w *writer) rollback() {
	if w.recentUsed {
		w.recent = nil // it knows alerts that are not stored
	}
	_ = w.plain("ROLLBACK")
}

func (w *writer) plain(stmt string) error {
	_, err := w.conn.ExecContext(background, stmt)
	return err
}

// close closes the statements and the connection.
func (w *writer) close() error {
	err := w.conn.Raw(func(any) error {
		var errs []error
		for _, p := range w.prepared {
			errs = append(errs, p.stmt.Close())
		}
		return errors.Join(errs...)
	})
	return errors.Join(err, w.conn.Close())
}

// exec runs one statement and returns how many rows it changed.
func (w *writer) exec(query string, args ...any) (int64, error) {
	res, err := w.conn.ExecContext(background, query, args...)
	if err != nil {
		return 0, fmt.Errorf("store: writing: %w", explain(err))
	}
	return res.RowsAffected()
}

// QueryContext makes the writer a queryer, for reads inside a transaction.
func (w *writer) QueryContext(_ context.Context, query string, args ...any) (*sql.Rows, error) {
	return w.conn.QueryContext(background, query, args...)
}

// prepared is a statement of the writer that runs for many rows. It calls the
// driver directly: through database/sql it takes three times the memory.
type prepared struct {
	stmt driver.Stmt
	exec driver.StmtExecContext
	args row
}

// row is the parameters of one execution.
type row []driver.NamedValue

// set gives all parameters: int64, float64, string, bool, or []byte that is not
// nil.
func (r row) set(values ...driver.Value) {
	for i, v := range values {
		r[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
}

// many runs query n times in the transaction: bind sets the parameters of the
// i-th time, and done, when not nil, is told how many rows that changed. One
// execution per row: with SQLite, statements of many rows gain nothing (see
// BenchmarkInsertAlerts), and would not tell which row was changed.
func (w *writer) many(query string, n int, bind func(i int, args row), done func(i int, changed int64)) error {
	err := w.conn.Raw(func(dc any) error {
		p, err := w.prepare(dc, query)
		if err != nil {
			return err
		}
		defer clear(p.args) // holds on to nobody's bytes
		for i := range n {
			bind(i, p.args)
			res, err := p.exec.ExecContext(background, p.args)
			if err != nil {
				return err
			}
			if done == nil {
				continue
			}
			changed, err := res.RowsAffected()
			if err != nil {
				return err
			}
			done(i, changed)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store: writing: %w", explain(err))
	}
	return nil
}

func (w *writer) prepare(dc any, query string) (*prepared, error) {
	if p, ok := w.prepared[query]; ok {
		return p, nil
	}
	stmt, err := dc.(driver.ConnPrepareContext).PrepareContext(background, query)
	if err != nil {
		return nil, err
	}
	p := &prepared{
		stmt: stmt,
		exec: stmt.(driver.StmtExecContext),
		args: make(row, strings.Count(query, "?")),
	}
	w.prepared[query] = p
	return p, nil
}
