package store

import (
	"context"
	"database/sql"
	"slices"
	"time"

	"muster"
)

const bundleColumns = `id, made_at, valid_until, made_on, version, signed_by, imported_at, imported_by`

func scanBundle(rows *sql.Rows) (muster.Bundle, error) {
	var b muster.Bundle
	err := rows.Scan(&b.ID, (*timeColumn)(&b.MadeAt), (*timeColumn)(&b.ValidUntil), &b.From, &b.Version, &b.Key, (*timeColumn)(&b.ImportedAt), &b.ImportedBy)
	return b, err
}

// Bundles returns the bundles that were imported, the last one first.
func (db *DB) Bundles(ctx context.Context, limit int) ([]muster.Bundle, error) {
	return list(ctx, db.reader, scanBundle, `SELECT `+bundleColumns+` FROM bundles ORDER BY imported_at DESC, id LIMIT ?`, page(limit))
}

// ImportBundle stores all lists of a bundle, in place of what bundles before
// brought, in one transaction; what an earlier bundle brought and this one does
// not have becomes empty, so that whoever subscribes to it stays subscribed. Nil
// Lists, or nil Allowlists, leave them as they are. The error is of code Invalid when a later bundle has been imported and force does
// not say that this does not matter, Exists when a list of the name is
// somebody's.
func (db *DB) ImportBundle(ctx context.Context, c muster.BundleContent, force bool, audit ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		last, err := list(ctx, tx, scanBundle, `SELECT `+bundleColumns+` FROM bundles ORDER BY imported_at DESC, id LIMIT 1`)
		if err != nil {
			return err
		}
		if len(last) > 0 && last[0].MadeAt.After(c.MadeAt) && !force {
			return muster.Errorf(muster.Invalid, "the bundle was made at %s, before the one imported last (%s): expected a later one (--force takes it all the same)",
				c.MadeAt.UTC().Format(time.RFC3339), last[0].MadeAt.UTC().Format(time.RFC3339))
		}
		if err := importLists(ctx, tx, c.Lists); err != nil {
			return err
		}
		if err := importAllowlists(ctx, tx, c.Allowlists, c.ImportedAt); err != nil {
			return err
		}
		if _, err := tx.exec(`DELETE FROM bundles WHERE id = ?`, c.ID); err != nil {
			return err
		}
		_, err = tx.exec(`INSERT INTO bundles (`+bundleColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			c.ID, micros(c.MadeAt), micros(c.ValidUntil), c.From, c.Version, c.Key, micros(c.ImportedAt), c.ImportedBy)
		if err != nil {
			return err
		}
		return putAudit(tx, audit)
	})
}

// brought is a list of a bundle before.
type brought struct{ id, name, by string }

func scanBrought(rows *sql.Rows) (b brought, err error) {
	err = rows.Scan(&b.id, &b.name, &b.by)
	return b, err
}

// findBrought finds the list of a name among all of the kind: "" when there is
// none, an error of code Exists when no bundle has brought it.
func findBrought(all []brought, what, name string) (id string, err error) {
	i := slices.IndexFunc(all, func(b brought) bool { return b.name == name })
	if i < 0 {
		return "", nil
	}
	if all[i].by != muster.ByBundle {
		return "", muster.Errorf(muster.Exists, "there is %s %q that no bundle has brought: give it another name, or delete it", what, name)
	}
	return all[i].id, nil
}

func importLists(ctx context.Context, tx *writer, lists []muster.BundleList) error {
	if lists == nil {
		return nil
	}
	all, err := list(ctx, tx, scanBrought, `SELECT id, name, created_by FROM blocklists`)
	if err != nil {
		return err
	}
	for _, b := range all {
		if b.by == muster.ByBundle {
			if _, err := tx.exec(`DELETE FROM blocklist_entries WHERE list = ?`, b.id); err != nil {
				return err
			}
		}
	}
	for i := range lists {
		l := &lists[i]
		id, err := findBrought(all, "a blocklist", l.Name)
		if err != nil {
			return err
		}
		rule, feed, err := listDetails(&l.Blocklist)
		if err != nil {
			return err
		}
		if id == "" {
			id = l.ID
			_, err = tx.exec(`INSERT INTO blocklists (id, name, label, description, kind, organisation, shared_with, remedy, lifetime, rule, feed, created_at, created_by)
				VALUES (?, ?, ?, ?, ?, '', ?, ?, ?, ?, ?, ?, ?)`, id, l.Name, l.Label, l.Description, string(muster.CustomList), jsonList(l.SharedWith), string(l.Remedy),
				l.Lifetime.Microseconds(), rule, feed, micros(l.CreatedAt), muster.ByBundle)
		} else { // whom it is shared with is up to people here
			_, err = tx.exec(`UPDATE blocklists SET label = ?, description = ?, remedy = ?, lifetime = ? WHERE id = ?`,
				l.Label, l.Description, string(l.Remedy), l.Lifetime.Microseconds(), id)
		}
		if err != nil {
			return err
		}
		err = tx.many(`INSERT INTO blocklist_entries (list, source, comment, until, added_at, added_by) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (list, source) DO UPDATE SET comment = excluded.comment, until = excluded.until, added_at = excluded.added_at, added_by = excluded.added_by`,
			len(l.Entries), func(i int, args row) {
				e := &l.Entries[i]
				args.set(id, sourceKey(e.Source), e.Comment, micros(e.Until), micros(e.AddedAt), e.AddedBy)
			}, nil)
		if err != nil {
			return err
		}
	}
	return nil
}

func importAllowlists(ctx context.Context, tx *writer, lists []muster.BundleAllowlist, at time.Time) error {
	if lists == nil {
		return nil
	}
	all, err := list(ctx, tx, scanBrought, `SELECT id, name, created_by FROM allowlists WHERE organisation = ''`)
	if err != nil {
		return err
	}
	for _, b := range all {
		if b.by != muster.ByBundle {
			continue
		}
		n, err := tx.exec(`DELETE FROM allow_items WHERE list = ?`, b.id)
		if err != nil {
			return err
		}
		if n > 0 {
			if err := touchAllowlist(tx, b.id, at); err != nil {
				return err
			}
		}
	}
	for i := range lists {
		l := &lists[i]
		id, err := findBrought(all, "an allowlist", l.Name)
		if err != nil {
			return err
		}
		if id == "" {
			if err := checkAllowlistName(ctx, tx, l.Allowlist); err != nil {
				return err
			}
			id = l.ID
			if _, err := tx.exec(insertAllowlist, id, "", l.Name, l.Description, targetsJSON(nil), micros(l.CreatedAt), micros(at), muster.ByBundle); err != nil {
				return err
			}
		} else if _, err := tx.exec(`UPDATE allowlists SET description = ?, updated_at = ? WHERE id = ?`, l.Description, micros(at), id); err != nil {
			return err
		}
		if err := putAllowItems(ctx, tx, id, l.Items); err != nil {
			return err
		}
	}
	count, err := one(ctx, tx, "table", scalar[int], `SELECT COUNT(*) FROM allowlists WHERE organisation = ''`)
	if err == nil && count > muster.MaxAllowlists {
		err = muster.Errorf(muster.TooLarge, "the installation would have %d allowlists: expected at most %d", count, muster.MaxAllowlists)
	}
	return err
}
