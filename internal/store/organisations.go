package store

import (
	"context"
	"database/sql"
	"fmt"

	"muster"
)

// CreateOrganisation stores a new organisation, or returns an error of code
// Exists when its id or name is taken.
func (db *DB) CreateOrganisation(ctx context.Context, o muster.Organisation) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`INSERT INTO organisations (id, name, plan, fleet, created_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			o.ID, o.Name, string(o.Plan), string(o.Fleet), micros(o.CreatedAt))
		if err == nil && n == 0 {
			err = muster.Errorf(muster.Exists, "there is an organisation named %q already", o.Name)
		}
		return err
	})
}

const selectOrganisations = `SELECT id, name, plan, fleet, created_at FROM organisations`

func scanOrganisation(rows *sql.Rows) (muster.Organisation, error) {
	var o muster.Organisation
	err := rows.Scan(&o.ID, &o.Name, &o.Plan, &o.Fleet, (*timeColumn)(&o.CreatedAt))
	return o, err
}

// Organisation returns one organisation, or an error of code NotFound.
func (db *DB) Organisation(ctx context.Context, id string) (muster.Organisation, error) {
	return organisation(ctx, db.reader, id)
}

func organisation(ctx context.Context, q queryer, id string) (muster.Organisation, error) {
	return one(ctx, q, fmt.Sprintf("organisation %q", id), scanOrganisation, selectOrganisations+` WHERE id = ?`, id)
}

// OrganisationByName returns the organisation of that exact name, or an error
// of code NotFound.
func (db *DB) OrganisationByName(ctx context.Context, name string) (muster.Organisation, error) {
	return one(ctx, db.reader, fmt.Sprintf("organisation named %q", name), scanOrganisation, selectOrganisations+` WHERE name = ?`, name)
}

// Organisations returns all organisations in order of their names.
func (db *DB) Organisations(ctx context.Context) ([]muster.Organisation, error) {
	return list(ctx, db.reader, scanOrganisation, selectOrganisations+` ORDER BY name`)
}

// UpdateOrganisation reads an organisation, lets change edit it and writes it
// back in one transaction. An error of change's is returned as it is and
// nothing is written. The id cannot change; a name that is taken gives an
// error of code Exists.
func (db *DB) UpdateOrganisation(ctx context.Context, id string, change func(*muster.Organisation) error) (muster.Organisation, error) {
	var o muster.Organisation
	err := db.write(ctx, func(tx *writer) (err error) {
		if o, err = organisation(ctx, tx, id); err != nil {
			return err
		}
		if err := change(&o); err != nil {
			return err
		}
		o.ID = id
		taken, err := list(ctx, tx, scalar[string], `SELECT id FROM organisations WHERE name = ? AND id <> ?`, o.Name, id)
		if err != nil {
			return err
		}
		if len(taken) > 0 {
			return muster.Errorf(muster.Exists, "there is an organisation named %q already", o.Name)
		}
		_, err = tx.exec(`UPDATE organisations SET name = ?, plan = ?, fleet = ?, created_at = ? WHERE id = ?`,
			o.Name, string(o.Plan), string(o.Fleet), micros(o.CreatedAt), id)
		return err
	})
	if err != nil {
		return muster.Organisation{}, err
	}
	return o, nil
}
