package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"muster"
)

// AppendOrders adds orders to the logs of their machines in one transaction and
// returns them as stored: IssuedAt is cut to milliseconds and, where it is not
// later than the machine's last order, one millisecond after that. An error of
// code Exists means that an id is taken.
func (db *DB) AppendOrders(ctx context.Context, orders []muster.Order) ([]muster.Order, error) {
	stored := make([]muster.Order, len(orders))
	err := db.write(ctx, func(tx *writer) error {
		for i, o := range orders {
			last, err := one(ctx, tx, "order", scalar[int64], `SELECT COALESCE(MAX(issued_at), 0) FROM orders WHERE machine = ?`, o.Machine)
			if err != nil {
				return err
			}
			issued := max(o.IssuedAt.UnixMilli()*1000, last+1000)
			n, err := tx.exec(`INSERT INTO orders (machine, issued_at, id, kind, data, message, issued_by, expires_at)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
				o.Machine, issued, o.ID, string(o.Kind), blob(o.Data), o.Message, o.IssuedBy, micros(o.ExpiresAt))
			if err != nil {
				return err
			}
			if n == 0 {
				return muster.Errorf(muster.Exists, "there is an order %q already", o.ID)
			}
			o.IssuedAt = time.UnixMicro(issued).UTC()
			stored[i] = o
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return stored, nil
}

// AppendOrder is AppendOrders for one.
func (db *DB) AppendOrder(ctx context.Context, o muster.Order) (muster.Order, error) {
	stored, err := db.AppendOrders(ctx, []muster.Order{o})
	if err != nil {
		return muster.Order{}, err
	}
	return stored[0], nil
}

const selectOrders = `SELECT machine, issued_at, id, kind, data, message, issued_by, expires_at FROM orders`

func scanOrder(rows *sql.Rows) (muster.Order, error) {
	var o muster.Order
	var data []byte
	err := rows.Scan(&o.Machine, (*timeColumn)(&o.IssuedAt), &o.ID, &o.Kind, &data, &o.Message, &o.IssuedBy, (*timeColumn)(&o.ExpiresAt))
	o.Data = data
	return o, err
}

const selectOrdersAfter = selectOrders + ` WHERE machine = ? AND issued_at > ? AND expires_at > ? ORDER BY issued_at LIMIT ?`

// Orders returns a machine's orders that were issued after since and have not
// expired at now, oldest first. limit is 1 to 1,000; anything else means 1,000.
func (db *DB) Orders(ctx context.Context, machine string, since, now time.Time, limit int) ([]muster.Order, error) {
	return list(ctx, db.reader, scanOrder, selectOrdersAfter, machine, micros(since), micros(now), page(limit))
}

// Order returns one order, expired or not, or an error of code NotFound.
func (db *DB) Order(ctx context.Context, id string) (muster.Order, error) {
	return one(ctx, db.reader, fmt.Sprintf("order %q", id), scanOrder, selectOrders+` WHERE id = ?`, id)
}

// RecentOrders returns the last orders to all machines, newest first. limit is
// 1 to 1,000; anything else means 1,000.
func (db *DB) RecentOrders(ctx context.Context, limit int) ([]muster.Order, error) {
	return list(ctx, db.reader, scanOrder, selectOrders+` ORDER BY issued_at DESC, id DESC LIMIT ?`, page(limit))
}

// DeleteExpiredOrders forgets the orders that have expired at now and returns
// how many there were.
func (db *DB) DeleteExpiredOrders(ctx context.Context, now time.Time) (int, error) {
	var deleted int64
	err := db.write(ctx, func(tx *writer) (err error) {
		deleted, err = tx.exec(`DELETE FROM orders WHERE expires_at <= ?`, micros(now))
		return err
	})
	return int(deleted), err
}

// AppendRemovals adds to the log of withdrawn decisions. A removal whose time
// is not later than the last one's gets the next microsecond, so that readers
// can follow the log by time.
func (db *DB) AppendRemovals(ctx context.Context, removals ...muster.Removal) error {
	return db.write(ctx, func(tx *writer) error {
		last, err := one(ctx, tx, "removal", scalar[int64], `SELECT COALESCE(MAX(at), 0) FROM removals`)
		if err != nil {
			return err
		}
		for _, r := range removals {
			last = max(micros(r.At), last+1)
			if _, err := tx.exec(`INSERT INTO removals (at, machine, decisions) VALUES (?, ?, ?)`, last, r.Machine, jsonList(r.Decisions)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Removals returns what was withdrawn after since, oldest first; each time is
// there once. limit is 1 to 1,000; anything else means 1,000.
func (db *DB) Removals(ctx context.Context, since time.Time, limit int) ([]muster.Removal, error) {
	scan := func(rows *sql.Rows) (muster.Removal, error) {
		var r muster.Removal
		err := rows.Scan((*timeColumn)(&r.At), &r.Machine, (*listColumn)(&r.Decisions))
		return r, err
	}
	return list(ctx, db.reader, scan, `SELECT at, machine, decisions FROM removals WHERE at > ? ORDER BY at LIMIT ?`, micros(since), page(limit))
}

// DeleteRemovalsBefore forgets removals from before t and returns how many.
func (db *DB) DeleteRemovalsBefore(ctx context.Context, t time.Time) (int, error) {
	var deleted int64
	err := db.write(ctx, func(tx *writer) (err error) {
		deleted, err = tx.exec(`DELETE FROM removals WHERE at < ?`, micros(t))
		return err
	})
	return int(deleted), err
}
