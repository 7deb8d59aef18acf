package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"time"

	"muster"
)

// Allowlists returns all lists in order of their organisations and names, the
// installation's first.
func (db *DB) Allowlists(ctx context.Context) ([]muster.Allowlist, error) {
	return list(ctx, db.reader, scanAllowlist, selectAllowlists+` ORDER BY organisation, name`)
}

const selectAllowlists = `SELECT id, organisation, name, description, targets, created_at, updated_at, created_by FROM allowlists`

func scanAllowlist(rows *sql.Rows) (muster.Allowlist, error) {
	var l muster.Allowlist
	err := rows.Scan(&l.ID, &l.Organisation, &l.Name, &l.Description, (*targetsColumn)(&l.Targets),
		(*timeColumn)(&l.CreatedAt), (*timeColumn)(&l.UpdatedAt), &l.CreatedBy)
	for i := range l.Targets {
		l.Targets[i].Organisation = l.Organisation
	}
	return l, err
}

// target is a subscriber as it is stored: its organisation is the list's.
type target struct {
	Kind muster.SubscriberKind `json:"kind"`
	ID   string                `json:"id,omitempty"`
}

// targetsColumn scans the JSON form.
type targetsColumn []muster.Subscriber

func (c *targetsColumn) Scan(src any) error {
	*c = nil
	var stored []target
	if err := scanJSON(src, &stored); err != nil {
		return err
	}
	for _, t := range stored {
		*c = append(*c, muster.Subscriber{Kind: t.Kind, ID: t.ID})
	}
	return nil
}

func targetsJSON(targets []muster.Subscriber) string {
	stored := make([]target, len(targets))
	for i, t := range targets {
		stored[i] = target{t.Kind, t.ID}
	}
	b, err := json.Marshal(stored)
	if err != nil {
		panic(err) // strings always have a JSON form
	}
	return string(b)
}

// CreateAllowlist stores a new list. The error is of code Exists when an engine
// could see another list of its name, TooLarge when its owner has
// muster.MaxAllowlists already.
func (db *DB) CreateAllowlist(ctx context.Context, l muster.Allowlist, audit ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		if err := checkAllowlistName(ctx, tx, l); err != nil {
			return err
		}
		count, err := one(ctx, tx, "table", scalar[int], `SELECT COUNT(*) FROM allowlists WHERE organisation = ?`, l.Organisation)
		if err != nil {
			return err
		}
		if count >= muster.MaxAllowlists {
			return muster.Errorf(muster.TooLarge, "there are %d allowlists of this owner, the most that there can be: delete one first", count)
		}
		n, err := tx.exec(insertAllowlist, l.ID, l.Organisation, l.Name, l.Description, targetsJSON(l.Targets),
			micros(l.CreatedAt), micros(l.UpdatedAt), l.CreatedBy)
		if err != nil {
			return err
		}
		if n == 0 {
			return muster.Errorf(muster.Exists, "there is an allowlist %q already", l.ID)
		}
		return putAudit(tx, audit)
	})
}

const insertAllowlist = `INSERT INTO allowlists (id, organisation, name, description, targets, created_at, updated_at, created_by)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`

// checkAllowlistName refuses a name that an engine would see twice: it gets the
// installation's lists and its organisation's.
func checkAllowlistName(ctx context.Context, tx *writer, l muster.Allowlist) error {
	taken, err := list(ctx, tx, scalar[string],
		`SELECT id FROM allowlists WHERE name = ? AND id <> ? AND (organisation = ? OR organisation = '' OR ? = '')`,
		l.Name, l.ID, l.Organisation, l.Organisation)
	if err == nil && len(taken) > 0 {
		err = muster.Errorf(muster.Exists, "there is an allowlist named %q already, of the same owner or the installation's: engines take each name once", l.Name)
	}
	return err
}

// UpdateAllowlist reads a list, lets change edit it and writes it back in one
// transaction. An error of change's is returned as it is and nothing is written.
// The id, the owner and the creation cannot change.
func (db *DB) UpdateAllowlist(ctx context.Context, id string, change func(*muster.Allowlist) error, audit ...muster.AuditEntry) (muster.Allowlist, error) {
	var l muster.Allowlist
	err := db.write(ctx, func(tx *writer) (err error) {
		if l, err = one(ctx, tx, "allowlist", scanAllowlist, selectAllowlists+` WHERE id = ?`, id); err != nil {
			return err
		}
		owner := l.Organisation
		if err := change(&l); err != nil {
			return err
		}
		l.ID, l.Organisation = id, owner
		if err := checkAllowlistName(ctx, tx, l); err != nil {
			return err
		}
		_, err = tx.exec(`UPDATE allowlists SET name = ?, description = ?, targets = ?, updated_at = ? WHERE id = ?`,
			l.Name, l.Description, targetsJSON(l.Targets), micros(l.UpdatedAt), id)
		if err != nil {
			return err
		}
		return putAudit(tx, audit)
	})
	if err != nil {
		return muster.Allowlist{}, err
	}
	return l, nil
}

// DeleteAllowlist forgets a list with its items, or returns an error of code
// NotFound.
func (db *DB) DeleteAllowlist(ctx context.Context, id string, audit ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`DELETE FROM allowlists WHERE id = ?`, id)
		if err != nil {
			return err
		}
		if n == 0 {
			return muster.Errorf(muster.NotFound, "there is no such allowlist")
		}
		if _, err := tx.exec(`DELETE FROM allow_items WHERE list = ?`, id); err != nil {
			return err
		}
		return putAudit(tx, audit)
	})
}

// EachAllowItem calls yield with every item of a list ("" = of all), in order of
// kinds and values, until it fails. yield must not take long: meanwhile the
// database cannot reuse space.
func (db *DB) EachAllowItem(ctx context.Context, list string, yield func(muster.AllowItem) error) error {
	w := where{}
	if list != "" {
		w.add(`list = ?`, list)
	}
	return each(ctx, db.reader, scanAllowItem, yield, selectAllowItems+w.sql()+` ORDER BY list, kind, value`, w.args...)
}

const selectAllowItems = `SELECT list, kind, value, reason, created_at, expires_at, by FROM allow_items`

func scanAllowItem(rows *sql.Rows) (muster.AllowItem, error) {
	var (
		i     muster.AllowItem
		value []byte
	)
	err := rows.Scan(&i.List, &i.Kind, &value, &i.Reason, (*timeColumn)(&i.CreatedAt), (*timeColumn)(&i.ExpiresAt), &i.By)
	if err != nil {
		return i, err
	}
	i.Value = string(value)
	if i.Kind == muster.AllowAddress || i.Kind == muster.AllowRange {
		source, err := muster.SourceFromBinary(value)
		i.Value = source.String()
		return i, err
	}
	return i, nil
}

// itemKey is how the value of an item is stored.
func itemKey(i *muster.AllowItem) []byte {
	if s := i.Source(); s.IsValid() {
		return sourceKey(s)
	}
	return []byte(i.Value)
}

// PutAllowItems stores items of a list at a time, each in place of the one of its
// value; or none and an error of code NotFound when there is no such list,
// TooLarge when it would have more than muster.MaxAllowItems.
func (db *DB) PutAllowItems(ctx context.Context, list string, at time.Time, items []muster.AllowItem, audit ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		if err := touchAllowlist(tx, list, at); err != nil {
			return err
		}
		if err := putAllowItems(ctx, tx, list, items); err != nil {
			return err
		}
		return putAudit(tx, audit)
	})
}

func touchAllowlist(tx *writer, id string, at time.Time) error {
	n, err := tx.exec(`UPDATE allowlists SET updated_at = ? WHERE id = ?`, micros(at), id)
	if err == nil && n == 0 {
		err = muster.Errorf(muster.NotFound, "there is no such allowlist")
	}
	return err
}

func putAllowItems(ctx context.Context, tx *writer, list string, items []muster.AllowItem) error {
	err := tx.many(`INSERT INTO allow_items (list, kind, value, reason, created_at, expires_at, by) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (list, kind, value) DO UPDATE SET reason = excluded.reason, created_at = excluded.created_at,
			expires_at = excluded.expires_at, by = excluded.by`,
		len(items), func(n int, args row) {
			i := &items[n]
			args.set(list, string(i.Kind), itemKey(i), i.Reason, micros(i.CreatedAt), micros(i.ExpiresAt), i.By)
		}, nil)
	if err != nil {
		return err
	}
	count, err := one(ctx, tx, "table", scalar[int], `SELECT COUNT(*) FROM allow_items WHERE list = ?`, list)
	if err == nil && count > muster.MaxAllowItems {
		err = muster.Errorf(muster.TooLarge, "the list would have %d items: expected %d at most: name ranges instead, or make another list", count, muster.MaxAllowItems)
	}
	return err
}

// DeleteAllowItems forgets items of a list by their kinds and values at a time;
// or none and an error of code NotFound when one of them is not there.
func (db *DB) DeleteAllowItems(ctx context.Context, list string, at time.Time, items []muster.AllowItem, audit ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		if err := touchAllowlist(tx, list, at); err != nil {
			return err
		}
		missing := -1
		err := tx.many(`DELETE FROM allow_items WHERE list = ? AND kind = ? AND value = ?`, len(items),
			func(n int, args row) { args.set(list, string(items[n].Kind), itemKey(&items[n])) },
			func(n int, changed int64) {
				if changed == 0 {
					missing = n
				}
			})
		if err != nil {
			return err
		}
		if missing >= 0 {
			return muster.Errorf(muster.NotFound, "%s is not on the allowlist", items[missing].Value)
		}
		return putAudit(tx, audit)
	})
}

// DeleteExpiredAllowItems forgets the items that have expired at now, in one
// transaction, and returns how many there were.
func (db *DB) DeleteExpiredAllowItems(ctx context.Context, now time.Time) (deleted int, err error) {
	err = db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`DELETE FROM allow_items WHERE expires_at BETWEEN 1 AND ?`, micros(now))
		deleted = int(n)
		return err
	})
	return deleted, err
}

// PutAllowEntries stores entries of the installation's list
// muster.CentralAllowlist, which it makes when it is not there; each in place of
// the one for its source, all or none.
func (db *DB) PutAllowEntries(ctx context.Context, entries []muster.AllowEntry) error {
	if len(entries) == 0 {
		return nil
	}
	items := make([]muster.AllowItem, len(entries))
	for n, e := range entries {
		items[n] = muster.AllowItem{Kind: muster.AllowAddress, Value: e.Source.String(), Reason: e.Reason, CreatedAt: e.CreatedAt, ExpiresAt: e.ExpiresAt}
		if e.Source.IsRange() {
			items[n].Kind = muster.AllowRange
		}
	}
	last := slices.MaxFunc(entries, func(a, b muster.AllowEntry) int { return a.CreatedAt.Compare(b.CreatedAt) }).CreatedAt
	return db.write(ctx, func(tx *writer) error {
		const central = muster.CentralAllowlist
		if _, err := tx.exec(insertAllowlist, central, "", central, "", "[]", micros(last), micros(last), ""); err != nil {
			return err
		}
		if err := touchAllowlist(tx, central, last); err != nil {
			return err
		}
		return putAllowItems(ctx, tx, central, items)
	})
}

// DeleteAllowEntry forgets the entry of the installation's list
// muster.CentralAllowlist for exactly that source, or returns an error of code
// NotFound.
func (db *DB) DeleteAllowEntry(ctx context.Context, source muster.Source) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`DELETE FROM allow_items WHERE list = ? AND kind IN ('address', 'range') AND value = ?`, muster.CentralAllowlist, sourceKey(source))
		if err == nil && n == 0 {
			err = muster.Errorf(muster.NotFound, "%s is not on the allowlist", source)
		}
		return err
	})
}

// AllowEntries returns the addresses and ranges of the installation's list
// muster.CentralAllowlist that have not expired at now, in order.
func (db *DB) AllowEntries(ctx context.Context, now time.Time) ([]muster.AllowEntry, error) {
	scan := func(rows *sql.Rows) (muster.AllowEntry, error) {
		var e muster.AllowEntry
		err := rows.Scan((*sourceColumn)(&e.Source), &e.Reason, (*timeColumn)(&e.CreatedAt), (*timeColumn)(&e.ExpiresAt))
		return e, err
	}
	return list(ctx, db.reader, scan, `SELECT value, reason, created_at, expires_at FROM allow_items
		WHERE list = ? AND kind IN ('address', 'range') AND (expires_at = 0 OR expires_at > ?) ORDER BY value`, muster.CentralAllowlist, micros(now))
}

// AllowWithdrawals returns the lists that machines are to let go of, by machine
// and list.
func (db *DB) AllowWithdrawals(ctx context.Context) ([]muster.AllowWithdrawal, error) {
	scan := func(rows *sql.Rows) (muster.AllowWithdrawal, error) {
		var w muster.AllowWithdrawal
		err := rows.Scan(&w.Machine, &w.List, &w.Name, (*timeColumn)(&w.Since), (*timeColumn)(&w.Ordered))
		return w, err
	}
	return list(ctx, db.reader, scan, `SELECT machine, list, name, since, ordered FROM allow_withdrawals ORDER BY machine, list`)
}

// PutAllowWithdrawals stores withdrawals, each in place of the one of its machine
// and list, in one transaction.
func (db *DB) PutAllowWithdrawals(ctx context.Context, ws []muster.AllowWithdrawal) error {
	return db.write(ctx, func(tx *writer) error {
		return tx.many(`INSERT INTO allow_withdrawals (machine, list, name, since, ordered) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (machine, list) DO UPDATE SET name = excluded.name, since = excluded.since, ordered = excluded.ordered`,
			len(ws), func(i int, args row) {
				w := &ws[i]
				args.set(w.Machine, w.List, w.Name, micros(w.Since), micros(w.Ordered))
			}, nil)
	})
}

// DeleteAllowWithdrawals forgets withdrawals by machine and list; those that are
// not there are no error.
func (db *DB) DeleteAllowWithdrawals(ctx context.Context, ws []muster.AllowWithdrawal) error {
	return db.write(ctx, func(tx *writer) error {
		return tx.many(`DELETE FROM allow_withdrawals WHERE machine = ? AND list = ?`, len(ws), func(i int, args row) {
			args.set(ws[i].Machine, ws[i].List)
		}, nil)
	})
}

// EachAllowAnswer calls yield with what each name stood for when it was last
// asked, until it fails.
func (db *DB) EachAllowAnswer(ctx context.Context, yield func(name string, at time.Time, data []byte) error) error {
	type answer struct {
		name string
		at   time.Time
		data []byte
	}
	scan := func(rows *sql.Rows) (a answer, err error) {
		return a, rows.Scan(&a.name, (*timeColumn)(&a.at), &a.data)
	}
	return each(ctx, db.reader, scan, func(a answer) error { return yield(a.name, a.at, a.data) }, `SELECT name, at, data FROM allow_answers ORDER BY name`)
}

// PutAllowAnswer stores what a name stands for, in place of what it stood for.
func (db *DB) PutAllowAnswer(ctx context.Context, name string, at time.Time, data []byte) error {
	return db.write(ctx, func(tx *writer) error {
		_, err := tx.exec(`INSERT INTO allow_answers (name, at, data) VALUES (?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET at = excluded.at, data = excluded.data`, name, micros(at), blob(data))
		return err
	})
}

// DeleteAllowAnswer forgets a name; one that is not there is no error.
func (db *DB) DeleteAllowAnswer(ctx context.Context, name string) error {
	return db.write(ctx, func(tx *writer) error {
		_, err := tx.exec(`DELETE FROM allow_answers WHERE name = ?`, name)
		return err
	})
}
