package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"muster"
)

// EachNumber calls yield with all numbers that were given out, kind by kind, in
// rising order, until it fails.
func (db *DB) EachNumber(ctx context.Context, yield func(muster.Number) error) error {
	scan := func(rows *sql.Rows) (muster.Number, error) {
		var n muster.Number
		err := rows.Scan(&n.Kind, &n.Name, &n.Number)
		return n, err
	}
	return each(ctx, db.reader, scan, yield, `SELECT kind, name, number FROM numbers ORDER BY kind, number`)
}

// PutNumbers keeps numbers for good; one that is kept already is passed over.
// When a name has another number, or a number another name, it returns
// ErrFenced: somebody else gives out numbers too.
func (t *TallyTx) PutNumbers(numbers []muster.Number) error {
	var kept []*muster.Number
	err := t.tx.many(`INSERT INTO numbers (kind, name, number) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
		len(numbers), func(i int, args row) {
			n := &numbers[i]
			args.set(string(n.Kind), n.Name, int64(n.Number))
		}, func(i int, changed int64) {
			if changed == 0 {
				kept = append(kept, &numbers[i])
			}
		})
	if err != nil {
		return err
	}
	for _, n := range kept {
		_, err := one(background, t.tx, "number", scalar[int64],
			`SELECT number FROM numbers WHERE kind = ? AND name = ? AND number = ?`, string(n.Kind), n.Name, n.Number)
		if errors.Is(err, muster.NotFound) {
			err = fmt.Errorf("number %d for the %s %q is taken, or it has another: %w", n.Number, n.Kind, n.Name, ErrFenced)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

const selectTrust = `SELECT machine, rank, changed, data FROM trust`

func scanTrust(rows *sql.Rows) (muster.TrustRow, error) {
	var r muster.TrustRow
	err := rows.Scan(&r.Machine, &r.Rank, (*timeColumn)(&r.Changed), &r.Data)
	return r, err
}

// EachTrust calls yield with what is known about every machine, in order of
// their numbers, until it fails. What it sees is the state of one moment.
func (db *DB) EachTrust(ctx context.Context, yield func(muster.TrustRow) error) error {
	return each(ctx, db.reader, scanTrust, yield, selectTrust+` ORDER BY machine`)
}

// Trust returns what is known about one machine, or an error of code NotFound.
func (db *DB) Trust(ctx context.Context, machine uint32) (muster.TrustRow, error) {
	return one(ctx, db.reader, fmt.Sprintf("trust in machine %d", machine), scanTrust, selectTrust+` WHERE machine = ?`, machine)
}

// PutTrust stores rows, each in place of the one of its machine.
func (t *TallyTx) PutTrust(rows []muster.TrustRow) error {
	return t.tx.many(`INSERT INTO trust (machine, rank, changed, data) VALUES (?, ?, ?, ?)
		ON CONFLICT (machine) DO UPDATE SET rank = excluded.rank, changed = excluded.changed, data = excluded.data`,
		len(rows), func(i int, args row) {
			r := &rows[i]
			args.set(int64(r.Machine), int64(r.Rank), micros(r.Changed), blob(r.Data))
		}, nil)
}

// EachBehaviour calls yield with what is known about every behaviour, in order
// of their numbers, until it fails.
func (db *DB) EachBehaviour(ctx context.Context, yield func(muster.BehaviourRow) error) error {
	scan := func(rows *sql.Rows) (muster.BehaviourRow, error) {
		var r muster.BehaviourRow
		err := rows.Scan(&r.Behaviour, &r.Data)
		return r, err
	}
	return each(ctx, db.reader, scan, yield, `SELECT behaviour, data FROM behaviours ORDER BY behaviour`)
}

// PutBehaviours stores rows, each in place of the one of its behaviour.
func (t *TallyTx) PutBehaviours(rows []muster.BehaviourRow) error {
	return t.tx.many(`INSERT INTO behaviours (behaviour, data) VALUES (?, ?)
		ON CONFLICT (behaviour) DO UPDATE SET data = excluded.data`,
		len(rows), func(i int, args row) { args.set(int64(rows[i].Behaviour), blob(rows[i].Data)) }, nil)
}

// Epoch returns the epoch of the trust and what was stored with it; 0 and
// nothing at first.
func (db *DB) Epoch(ctx context.Context) (epoch uint64, data []byte, err error) {
	scan := func(rows *sql.Rows) (struct{}, error) { return struct{}{}, rows.Scan(&epoch, &data) }
	_, err = one(ctx, db.reader, "epoch", scan, `SELECT epoch, data FROM epochs`)
	return epoch, data, err
}

// AdvanceEpoch moves the trust to a later epoch, with data of which store knows
// nothing, or returns ErrFenced when the stored one is not from.
func (t *TallyTx) AdvanceEpoch(from, to uint64, data []byte) error {
	n, err := t.tx.exec(`UPDATE epochs SET epoch = ?, data = ? WHERE epoch = ?`, int64(to), blob(data), int64(from))
	if err == nil && n == 0 {
		err = fmt.Errorf("epoch %d: %w", from, ErrFenced)
	}
	return err
}

const selectTrustEvents = `SELECT machine, at, kind, amount, behaviour, source, rank_before, rank_after FROM trust_events
	WHERE machine = ? AND at >= ? ORDER BY at DESC, kind DESC, behaviour DESC, source DESC LIMIT ?`

// TrustEvents returns what moved the trust in a machine since a time, newest
// first, at most limit (1 to 1,000; anything else means 1,000).
func (db *DB) TrustEvents(ctx context.Context, machine uint32, since time.Time, limit int) ([]muster.TrustEvent, error) {
	scan := func(rows *sql.Rows) (muster.TrustEvent, error) {
		var e muster.TrustEvent
		err := rows.Scan(&e.Machine, (*timeColumn)(&e.At), &e.Kind, &e.Amount, &e.Behaviour, (*sourceColumn)(&e.Source), &e.RankBefore, &e.RankAfter)
		return e, err
	}
	return list(ctx, db.reader, scan, selectTrustEvents, machine, micros(since), page(limit))
}

// PutTrustEvents stores events. Those of one machine, time, kind, behaviour and
// source are kept as one: their amounts are summed up, and the rank after it is
// that of the last. So an event that comes by the thousand can be kept as one
// for each hour.
func (t *TallyTx) PutTrustEvents(events []muster.TrustEvent) error {
	source := make([]byte, 0, muster.SourceSize)
	return t.tx.many(`INSERT INTO trust_events (machine, at, kind, amount, behaviour, source, rank_before, rank_after)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (machine, at, kind, behaviour, source) DO UPDATE SET
			amount = trust_events.amount + excluded.amount, rank_after = excluded.rank_after`,
		len(events), func(i int, args row) {
			e := &events[i]
			source = e.Source.AppendBinary(source[:0])
			args.set(int64(e.Machine), micros(e.At), e.Kind, e.Amount, e.Behaviour, source, int64(e.RankBefore), int64(e.RankAfter))
		}, nil)
}

// Hops from machine to machine, because no index is over the times.
const selectMachinesWithEvents = `WITH RECURSIVE machines (machine) AS (
	SELECT MIN(machine) FROM trust_events
	UNION ALL
	SELECT (SELECT MIN(machine) FROM trust_events WHERE trust_events.machine > machines.machine) FROM machines WHERE machine IS NOT NULL)
	SELECT machine FROM machines WHERE EXISTS (SELECT 1 FROM trust_events WHERE trust_events.machine = machines.machine AND at < ?)`

const deleteOldestTrustEvents = `DELETE FROM trust_events WHERE (machine, at, kind, behaviour, source) IN
	(SELECT machine, at, kind, behaviour, source FROM trust_events WHERE machine = ? AND at < ? ORDER BY at LIMIT ?)`

// PruneTrustEvents deletes events from before a time, machine by machine and at
// most limit of them, in short transactions, and returns how many it deleted.
// Fewer than limit means that none is left.
func (db *DB) PruneTrustEvents(ctx context.Context, before time.Time, limit int) (deleted int, err error) {
	machines, err := list(ctx, db.reader, scalar[int64], selectMachinesWithEvents, micros(before))
	if err != nil {
		return 0, err
	}
	for len(machines) > 0 && deleted < limit {
		var n, done int
		err := db.write(ctx, func(tx *writer) error {
			chunk := min(pruneChunk, limit-deleted)
			for n < chunk && done < len(machines) {
				some, err := tx.exec(deleteOldestTrustEvents, machines[done], micros(before), chunk-n)
				if err != nil {
					return err
				}
				if n += int(some); n < chunk {
					done++
				}
			}
			return nil
		})
		if err != nil {
			return deleted, err
		}
		deleted, machines = deleted+n, machines[done:]
	}
	return deleted, nil
}
