package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"muster"
)

// MaxIntegrationReports is from how many addresses an integration's reports are
// kept: of more, those that have not reported for longest are forgotten.
const MaxIntegrationReports = 32

const integrationColumns = `id, organisation, name, kind, format, budget, collateral, no_ipv4, no_ipv6, pull_every, username, secret, created_at, created_by, rotated_at`

const selectIntegrations = `SELECT ` + integrationColumns + `, COALESCE(pull, 0), COALESCE(agent, ''), COALESCE(address, x'0000000000000000000000000000000000'), COALESCE(entries, 0)
	FROM integrations LEFT JOIN integration_contacts ON integration_contacts.integration = integrations.id`

func scanIntegration(rows *sql.Rows) (muster.Integration, error) {
	var i muster.Integration
	var every int64
	err := rows.Scan(&i.ID, &i.Organisation, &i.Name, &i.Kind, &i.Format, &i.Budget, &i.Collateral, &i.NoIPv4, &i.NoIPv6, &every, &i.User, &i.Secret,
		(*timeColumn)(&i.CreatedAt), &i.CreatedBy, (*timeColumn)(&i.RotatedAt),
		(*timeColumn)(&i.Seen.Pull), &i.Seen.Agent, (*addrColumn)(&i.Seen.Addr), &i.Seen.Entries)
	i.Interval = time.Duration(every) * time.Microsecond
	return i, err
}

// Integrations returns all integrations in order of their ids, which is that of
// their making.
func (db *DB) Integrations(ctx context.Context) ([]muster.Integration, error) {
	return list(ctx, db.reader, scanIntegration, selectIntegrations+` ORDER BY id`)
}

// Integration returns one integration, or an error of code NotFound.
func (db *DB) Integration(ctx context.Context, id string) (muster.Integration, error) {
	return integration(ctx, db.reader, id)
}

func integration(ctx context.Context, q queryer, id string) (muster.Integration, error) {
	return one(ctx, q, fmt.Sprintf("integration %q", id), scanIntegration, selectIntegrations+` WHERE id = ?`, id)
}

// CreateIntegration stores a new integration that nobody has read yet, or returns
// an error of code Exists when its organisation has one of that name.
func (db *DB) CreateIntegration(ctx context.Context, i muster.Integration, audit ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`INSERT INTO integrations (`+integrationColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			i.ID, i.Organisation, i.Name, string(i.Kind), i.Format, i.Budget, i.Collateral, i.NoIPv4, i.NoIPv6, i.Interval.Microseconds(),
			i.User, blob(i.Secret), micros(i.CreatedAt), i.CreatedBy, micros(i.RotatedAt))
		if err != nil {
			return err
		}
		if n == 0 {
			return muster.Errorf(muster.Exists, "there is an integration %q already", i.Name)
		}
		return putAudit(tx, audit)
	})
}

// UpdateIntegration reads an integration, lets change edit it and writes it back
// with the audit entries, all in one transaction, and returns what was written.
// Its id, organisation, kind, creation and contact cannot change. An error of
// change's is returned as it is and nothing is written.
func (db *DB) UpdateIntegration(ctx context.Context, id string, change func(*muster.Integration) error, audit ...muster.AuditEntry) (muster.Integration, error) {
	var written muster.Integration
	err := db.write(ctx, func(tx *writer) error {
		i, err := integration(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := change(&i); err != nil {
			return err
		}
		named, err := list(ctx, tx, scalar[string], `SELECT id FROM integrations WHERE organisation = ? AND name = ? AND id <> ?`, i.Organisation, i.Name, id)
		if err != nil {
			return err
		}
		if len(named) > 0 {
			return muster.Errorf(muster.Exists, "there is an integration %q already", i.Name)
		}
		_, err = tx.exec(`UPDATE integrations SET name = ?, format = ?, budget = ?, collateral = ?, no_ipv4 = ?, no_ipv6 = ?, pull_every = ?,
			username = ?, secret = ?, rotated_at = ? WHERE id = ?`,
			i.Name, i.Format, i.Budget, i.Collateral, i.NoIPv4, i.NoIPv6, i.Interval.Microseconds(), i.User, blob(i.Secret), micros(i.RotatedAt), id)
		if err != nil {
			return err
		}
		if written, err = integration(ctx, tx, id); err != nil {
			return err
		}
		return putAudit(tx, audit)
	})
	return written, err
}

// DeleteIntegration forgets an integration with its subscriptions, contact and
// reports, and keeps the audit entries; or returns an error of code NotFound.
func (db *DB) DeleteIntegration(ctx context.Context, id string, audit ...muster.AuditEntry) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`DELETE FROM integrations WHERE id = ?`, id)
		if err != nil {
			return err
		}
		if n == 0 {
			return muster.Errorf(muster.NotFound, "there is no integration %q", id)
		}
		for _, stmt := range []string{
			`DELETE FROM integration_contacts WHERE integration = ?`,
			`DELETE FROM integration_reports WHERE integration = ?`,
			`DELETE FROM subscriptions WHERE kind = 'integration' AND subscriber = ?`,
		} {
			if _, err := tx.exec(stmt, id); err != nil {
				return err
			}
		}
		return putAudit(tx, audit)
	})
}

// TouchIntegrations stores contacts by the ids of integrations, unless a later
// one is stored; those of integrations that do not exist are passed over.
func (db *DB) TouchIntegrations(ctx context.Context, seen map[string]muster.IntegrationContact) error {
	ids := make([]string, 0, len(seen))
	for id := range seen {
		ids = append(ids, id)
	}
	return db.write(ctx, func(tx *writer) error {
		return tx.many(`INSERT INTO integration_contacts (integration, pull, agent, address, entries) SELECT id, ?, ?, ?, ? FROM integrations WHERE id = ?
			ON CONFLICT (integration) DO UPDATE SET pull = excluded.pull, agent = excluded.agent, address = excluded.address, entries = excluded.entries
			WHERE excluded.pull > integration_contacts.pull`,
			len(ids), func(n int, args row) {
				c := seen[ids[n]]
				args.set(micros(c.Pull), c.Agent, addrKey(c.Addr), int64(c.Entries), ids[n])
			}, nil)
	})
}

// PutIntegrationReport keeps a report in place of the one before from the same
// address, and no more than MaxIntegrationReports of an integration. That of one
// that does not exist is passed over.
func (db *DB) PutIntegrationReport(ctx context.Context, r muster.IntegrationReport) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`INSERT INTO integration_reports (integration, address, at, body) SELECT id, ?, ?, ? FROM integrations WHERE id = ?
			ON CONFLICT (integration, address) DO UPDATE SET at = excluded.at, body = excluded.body`,
			addrKey(r.Addr), micros(r.At), blob(r.Body), r.Integration)
		if err != nil || n == 0 {
			return err
		}
		_, err = tx.exec(`DELETE FROM integration_reports WHERE integration = ? AND address IN
			(SELECT address FROM integration_reports WHERE integration = ? ORDER BY at DESC, address LIMIT 1000 OFFSET ?)`,
			r.Integration, r.Integration, MaxIntegrationReports)
		return err
	})
}

// IntegrationReports returns the last report from each address, newest first.
func (db *DB) IntegrationReports(ctx context.Context, id string) ([]muster.IntegrationReport, error) {
	scan := func(rows *sql.Rows) (muster.IntegrationReport, error) {
		r := muster.IntegrationReport{Integration: id}
		err := rows.Scan((*addrColumn)(&r.Addr), (*timeColumn)(&r.At), &r.Body)
		return r, err
	}
	return list(ctx, db.reader, scan, `SELECT address, at, body FROM integration_reports WHERE integration = ? ORDER BY at DESC, address`, id)
}
