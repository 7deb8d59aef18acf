package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"muster"
)

// CreateMachine stores a new machine, or returns an error of code Exists.
func (db *DB) CreateMachine(ctx context.Context, m muster.Machine) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`INSERT INTO machines
			(id, state, organisation, name, tags, scenarios, version, credential, registered_at, enrolled_at, tokens_from, honeypot)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
			m.ID, string(m.State), m.Organisation, m.Name, jsonList(m.Tags), jsonList(m.Scenarios), m.Version, blob(m.Credential),
			micros(m.RegisteredAt), micros(m.EnrolledAt), micros(m.TokensFrom), m.Honeypot)
		if err != nil {
			return err
		}
		if n == 0 {
			return muster.Errorf(muster.Exists, "machine %q is registered already", m.ID)
		}
		return putContacts(tx, m)
	})
}

func putContacts(tx *writer, m muster.Machine) error {
	_, err := tx.exec(`INSERT INTO contacts (machine, login, pull, push, metrics, poll, heartbeat) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (machine) DO UPDATE SET login = excluded.login, pull = excluded.pull, push = excluded.push,
			metrics = excluded.metrics, poll = excluded.poll, heartbeat = excluded.heartbeat`,
		m.ID, micros(m.Seen.Login), micros(m.Seen.Pull), micros(m.Seen.Push),
		micros(m.Seen.Metrics), micros(m.Seen.Poll), micros(m.Seen.Heartbeat))
	return err
}

const selectMachines = `SELECT id, state, organisation, name, tags, scenarios, version, credential,
	registered_at, enrolled_at, tokens_from, honeypot, login, pull, push, metrics, poll, heartbeat
	FROM machines JOIN contacts ON contacts.machine = machines.id`

func scanMachine(rows *sql.Rows) (muster.Machine, error) {
	var m muster.Machine
	err := rows.Scan(&m.ID, &m.State, &m.Organisation, &m.Name, (*listColumn)(&m.Tags), (*listColumn)(&m.Scenarios), &m.Version, &m.Credential,
		(*timeColumn)(&m.RegisteredAt), (*timeColumn)(&m.EnrolledAt), (*timeColumn)(&m.TokensFrom), &m.Honeypot,
		(*timeColumn)(&m.Seen.Login), (*timeColumn)(&m.Seen.Pull), (*timeColumn)(&m.Seen.Push),
		(*timeColumn)(&m.Seen.Metrics), (*timeColumn)(&m.Seen.Poll), (*timeColumn)(&m.Seen.Heartbeat))
	return m, err
}

// Machine returns one machine, or an error of code NotFound.
func (db *DB) Machine(ctx context.Context, id string) (muster.Machine, error) {
	return machine(ctx, db.reader, id)
}

func machine(ctx context.Context, q queryer, id string) (muster.Machine, error) {
	return one(ctx, q, fmt.Sprintf("machine %q", id), scanMachine, selectMachines+` WHERE id = ?`, id)
}

// MachineQuery selects machines; zero fields select all.
type MachineQuery struct {
	Organisation string
	State        muster.MachineState
	Search       string // part of the id or the name; ASCII letters match in either case
	After        string // the last id of the page before
	Limit        int    // 1 to 1,000; anything else means 1,000
}

// Machines returns a page of machines in order of their ids.
func (db *DB) Machines(ctx context.Context, q MachineQuery) ([]muster.Machine, error) {
	w := where{}
	w.add(`id > ?`, q.After)
	if q.Organisation != "" {
		w.add(`organisation = ?`, q.Organisation)
	}
	if q.State != "" {
		w.add(`state = ?`, string(q.State))
	}
	if q.Search != "" {
		pattern := contains(q.Search)
		w.add(`(LOWER(id) LIKE LOWER(?) ESCAPE '!' OR LOWER(name) LIKE LOWER(?) ESCAPE '!')`, pattern, pattern)
	}
	return list(ctx, db.reader, scanMachine, selectMachines+w.sql()+` ORDER BY id LIMIT ?`, append(w.args, page(q.Limit))...)
}

// EachMachine calls yield with every machine, in no order, until it fails. What
// it sees is the state of one moment. yield must not take long: meanwhile the
// database cannot reuse space.
func (db *DB) EachMachine(ctx context.Context, yield func(muster.Machine) error) error {
	return each(ctx, db.reader, scanMachine, yield, selectMachines)
}

// UpdateMachine reads a machine, lets change edit it and writes it back, all in
// one transaction, and returns what was written. An error of change's is
// returned as it is and nothing is written. The id cannot change.
func (db *DB) UpdateMachine(ctx context.Context, id string, change func(*muster.Machine) error) (muster.Machine, error) {
	var m muster.Machine
	err := db.write(ctx, func(tx *writer) (err error) {
		if m, err = machine(ctx, tx, id); err != nil {
			return err
		}
		if err := change(&m); err != nil {
			return err
		}
		m.ID = id
		_, err = tx.exec(`UPDATE machines SET state = ?, organisation = ?, name = ?, tags = ?, scenarios = ?, version = ?,
			credential = ?, registered_at = ?, enrolled_at = ?, tokens_from = ?, honeypot = ? WHERE id = ?`,
			string(m.State), m.Organisation, m.Name, jsonList(m.Tags), jsonList(m.Scenarios), m.Version,
			blob(m.Credential), micros(m.RegisteredAt), micros(m.EnrolledAt), micros(m.TokensFrom), m.Honeypot, id)
		if err != nil {
			return err
		}
		return putContacts(tx, m)
	})
	if err != nil {
		return muster.Machine{}, err
	}
	return m, nil
}

// TouchMachines stores many touches in one transaction; machines that do not
// exist are passed over.
func (db *DB) TouchMachines(ctx context.Context, touches []muster.MachineTouch) error {
	return db.write(ctx, func(tx *writer) error {
		err := tx.many(`UPDATE contacts SET
				login     = CASE WHEN login     < ? THEN ? ELSE login     END,
				pull      = CASE WHEN pull      < ? THEN ? ELSE pull      END,
				push      = CASE WHEN push      < ? THEN ? ELSE push      END,
				metrics   = CASE WHEN metrics   < ? THEN ? ELSE metrics   END,
				poll      = CASE WHEN poll      < ? THEN ? ELSE poll      END,
				heartbeat = CASE WHEN heartbeat < ? THEN ? ELSE heartbeat END
			WHERE machine = ?`,
			len(touches), func(i int, args row) {
				t := &touches[i]
				login, pull, push := micros(t.Seen.Login), micros(t.Seen.Pull), micros(t.Seen.Push)
				metrics, poll, heartbeat := micros(t.Seen.Metrics), micros(t.Seen.Poll), micros(t.Seen.Heartbeat)
				args.set(login, login, pull, pull, push, push, metrics, metrics, poll, poll, heartbeat, heartbeat, t.ID)
			}, nil)
		if err != nil {
			return err
		}
		var versions, scenarios []*muster.MachineTouch
		for i := range touches {
			if touches[i].Version != "" {
				versions = append(versions, &touches[i])
			}
			if touches[i].Scenarios != nil {
				scenarios = append(scenarios, &touches[i])
			}
		}
		err = tx.many(`UPDATE machines SET version = ? WHERE id = ? AND version <> ?`, len(versions), func(i int, args row) {
			t := versions[i]
			args.set(t.Version, t.ID, t.Version)
		}, nil)
		if err != nil {
			return err
		}
		return tx.many(`UPDATE machines SET scenarios = ? WHERE id = ? AND scenarios <> ?`, len(scenarios), func(i int, args row) {
			list := jsonList(scenarios[i].Scenarios)
			args.set(list, scenarios[i].ID, list)
		}, nil)
	})
}

// DeleteMachine forgets a machine with its reports, orders and claims, or
// returns an error of code NotFound. What it reported stays, and with its
// number the trust in it.
func (db *DB) DeleteMachine(ctx context.Context, id string) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`DELETE FROM machines WHERE id = ?`, id)
		if err != nil {
			return err
		}
		if n == 0 {
			return muster.Errorf(muster.NotFound, "there is no such machine %q", id)
		}
		for _, table := range []string{"contacts", "machine_reports", "orders", "claims"} {
			if _, err := tx.exec(`DELETE FROM `+table+` WHERE machine = ?`, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// CountMachines returns how many machines are in each state.
func (db *DB) CountMachines(ctx context.Context) (map[muster.MachineState]int, error) {
	counts := map[muster.MachineState]int{}
	count := func(rows *sql.Rows) (struct{}, error) {
		var state muster.MachineState
		var n int
		err := rows.Scan(&state, &n)
		counts[state] = n
		return struct{}{}, err
	}
	_, err := list(ctx, db.reader, count, `SELECT state, COUNT(*) FROM machines GROUP BY state`)
	if err != nil {
		return nil, err
	}
	return counts, nil
}

// ReportKind says what a machine's report is about.
type ReportKind string

// The kinds.
const (
	MetricsReport ReportKind = "metrics" // POST /metrics
	UsageReport   ReportKind = "usage"   // POST /usage-metrics
)

// MachineReport is the last report of a kind that a machine sent about itself.
type MachineReport struct {
	Machine string
	Kind    ReportKind
	At      time.Time
	Body    []byte // as sent
}

// PutMachineReports keeps each report in place of the machine's last of its
// kind, all in one transaction.
func (db *DB) PutMachineReports(ctx context.Context, reports []MachineReport) error {
	return db.write(ctx, func(tx *writer) error {
		return tx.many(`INSERT INTO machine_reports (machine, kind, at, body) VALUES (?, ?, ?, ?)
			ON CONFLICT (machine, kind) DO UPDATE SET at = excluded.at, body = excluded.body`,
			len(reports), func(i int, args row) {
				r := &reports[i]
				args.set(r.Machine, string(r.Kind), micros(r.At), blob(r.Body))
			}, nil)
	})
}

// MachineReport returns a machine's last report of a kind, or an error of code
// NotFound.
func (db *DB) MachineReport(ctx context.Context, machine string, kind ReportKind) (MachineReport, error) {
	scan := func(rows *sql.Rows) (MachineReport, error) {
		r := MachineReport{Machine: machine, Kind: kind}
		err := rows.Scan((*timeColumn)(&r.At), &r.Body)
		return r, err
	}
	return one(ctx, db.reader, fmt.Sprintf("report of kind %s by machine %q", kind, machine), scan,
		`SELECT at, body FROM machine_reports WHERE machine = ? AND kind = ?`, machine, string(kind))
}

// where collects the conditions of a query.
type where struct {
	conditions []string
	args       []any
}

func (w *where) add(condition string, args ...any) {
	w.conditions = append(w.conditions, condition)
	w.args = append(w.args, args...)
}

func (w *where) sql() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conditions, " AND ")
}

// contains is the LIKE pattern, with ! as its escape, for texts that have part
// in them.
func contains(part string) string {
	return "%" + strings.NewReplacer("!", "!!", "%", "!%", "_", "!_").Replace(part) + "%"
}

// page bounds a limit that a caller gave.
func page(limit int) int {
	if limit < 1 || limit > maxPage {
		return maxPage
	}
	return limit
}

const maxPage = 1000
