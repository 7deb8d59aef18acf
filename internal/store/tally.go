package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"muster"
)

// ErrFenced means that somebody else moved a partition's position, advanced the
// epoch or gave out numbers: this process does not own them, must drop what it
// folded and read anew.
var ErrFenced = errors.New("store: another process does the same work")

// Tally runs fn in one write transaction: everything that fn did is on disk
// when Tally returns nil, and nothing of it otherwise. It waits for its turn
// until ctx ends and then runs to its end. Transactions of a few thousand
// signals are best; those of one partition touch fewer pages than those of many.
func (db *DB) Tally(ctx context.Context, fn func(tx *TallyTx) error) error {
	return db.write(ctx, func(tx *writer) error { return fn(&TallyTx{tx}) })
}

// TallyTx is the transaction inside Tally, and of no use after it. After an
// error of any method, fn must return that error.
type TallyTx struct {
	tx *writer
}

// InsertAlerts stores signals as alerts; parts says the partition of each. It
// tells which of them were new. A signal is not when its id came earlier in the
// same call, or is stored with the same time of what happened (so a report that
// is sent again as it was never counts twice), or is of one of the last alerts
// stored (Options.RecentAlerts; up to twice as many).
func (t *TallyTx) InsertAlerts(parts []uint8, signals []*muster.Signal) (fresh []bool, err error) {
	if len(parts) != len(signals) {
		return nil, fmt.Errorf("store: %d partitions for %d signals", len(parts), len(signals))
	}
	known, err := t.tx.recentAlerts()
	if err != nil {
		return nil, err
	}
	unknown := make([]int, 0, len(signals))
	for i, s := range signals {
		if known.add(s.ID) {
			unknown = append(unknown, i)
		}
	}
	fresh = make([]bool, len(signals))
	source := make([]byte, 0, muster.SourceSize)
	err = t.tx.many(insertAlert, len(unknown), func(i int, args row) {
		s := signals[unknown[i]]
		source = s.Source.AppendBinary(source[:0])
		args.set(int64(parts[unknown[i]]), s.ID[:], micros(s.At), micros(s.Received), s.Organisation, s.Machine,
			source, s.Scope, s.Value, s.Scenario, s.ScenarioHash, s.Version, int64(s.Trust), s.Kind,
			s.Country, int64(s.ASN), s.ASName, int64(s.Flags), blob(s.Detail))
	}, func(i int, changed int64) {
		fresh[unknown[i]] = changed == 1
	})
	return fresh, err
}

// PutEvidence stores evidence in place of what was there for its partition and
// source.
func (t *TallyTx) PutEvidence(evidence []muster.EvidenceRow) error {
	source := make([]byte, 0, muster.SourceSize)
	return t.tx.many(`INSERT INTO evidence (part, source, last_at, data) VALUES (?, ?, ?, ?)
		ON CONFLICT (part, source) DO UPDATE SET last_at = excluded.last_at, data = excluded.data`,
		len(evidence), func(i int, args row) {
			e := &evidence[i]
			source = e.Source.AppendBinary(source[:0])
			args.set(int64(e.Partition), source, micros(e.Last), blob(e.Data))
		}, nil)
}

// DeleteEvidence forgets evidence; what is not there is passed over.
func (t *TallyTx) DeleteEvidence(part uint8, sources []muster.Source) error {
	return t.tx.many(`DELETE FROM evidence WHERE part = ? AND source = ?`, len(sources), func(i int, args row) {
		args.set(int64(part), sourceKey(sources[i]))
	}, nil)
}

// A verdict is a change when it lists what was not listed, or with another
// remedy, and when it ends a listing.
const putVerdictHistory = `INSERT INTO verdict_history (at, source, audience, listed, remedy, scenario, since, until, reasons)
	SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?
	WHERE ? <> (SELECT COUNT(*) FROM verdicts WHERE part = ? AND source = ? AND audience = ? AND listed = ? AND (remedy = ? OR NOT ?))
	ON CONFLICT (at, source, audience) DO UPDATE SET listed = excluded.listed, remedy = excluded.remedy, scenario = excluded.scenario,
		since = excluded.since, until = excluded.until, reasons = excluded.reasons`

const putVerdict = `INSERT INTO verdicts (part, source, audience, listed, remedy, scenario, since, until, changed, reasons,
		support, independent, last)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
	ON CONFLICT (part, source, audience) DO UPDATE SET listed = excluded.listed, remedy = excluded.remedy, scenario = excluded.scenario,
		since = excluded.since, until = excluded.until, changed = excluded.changed, reasons = excluded.reasons,
		support = excluded.support, independent = excluded.independent, last = excluded.last`

// PutVerdicts stores verdicts in place of those for the same partition,
// audience and source, of which one call has at most one; parts says the
// partition of each, which must be the same for a source for ever. Those that
// list, change the remedy or end a listing are kept in the history too.
func (t *TallyTx) PutVerdicts(parts []uint8, verdicts []muster.Verdict) error {
	if len(parts) != len(verdicts) {
		return fmt.Errorf("store: %d partitions for %d verdicts", len(parts), len(verdicts))
	}
	reasons := make([]string, len(verdicts))
	for i := range verdicts {
		b, err := json.Marshal(verdicts[i].Reasons)
		if err != nil {
			return fmt.Errorf("store: the reasons of the verdict on %s: %w", verdicts[i].Source, err)
		}
		reasons[i] = string(b)
	}
	source := make([]byte, 0, muster.SourceSize)
	err := t.tx.many(putVerdictHistory, len(verdicts), func(i int, args row) {
		v := &verdicts[i]
		source = v.Source.AppendBinary(source[:0])
		args.set(micros(v.Changed), source, string(v.Audience), v.Listed, string(v.Remedy), v.Scenario,
			micros(v.Since), micros(v.Until), reasons[i],
			v.Listed, int64(parts[i]), source, string(v.Audience), true, string(v.Remedy), v.Listed)
	}, nil)
	if err != nil {
		return err
	}
	return t.tx.many(putVerdict, len(verdicts), func(i int, args row) {
		v := &verdicts[i]
		source = v.Source.AppendBinary(source[:0])
		args.set(int64(parts[i]), source, string(v.Audience), v.Listed, string(v.Remedy), v.Scenario,
			micros(v.Since), micros(v.Until), micros(v.Changed), reasons[i],
			float64(v.Reasons.Support), int64(v.Reasons.Independent), v.Reasons.Last)
	}, nil)
}

// VerdictKey names a stored verdict.
type VerdictKey struct {
	Part     uint8
	Audience muster.Audience
	Source   muster.Source
}

// DeleteVerdicts forgets verdicts; what is not there is passed over. Followers
// of VerdictsChanged hear nothing of it, so a listed verdict is first stored as
// not listed.
func (t *TallyTx) DeleteVerdicts(keys []VerdictKey) error {
	return t.tx.many(`DELETE FROM verdicts WHERE part = ? AND source = ? AND audience = ?`, len(keys), func(i int, args row) {
		k := &keys[i]
		args.set(int64(k.Part), sourceKey(k.Source), string(k.Audience))
	}, nil)
}

// Advance moves a partition's position from one entry of the stream to a later
// one, or returns ErrFenced when the stored position is not from.
func (t *TallyTx) Advance(part uint8, from, to uint64) error {
	n, err := t.tx.exec(`UPDATE positions SET position = ? WHERE part = ? AND position = ?`, int64(to), int64(part), int64(from))
	if err == nil && n == 0 {
		err = fmt.Errorf("partition %d at %d: %w", part, from, ErrFenced)
	}
	return err
}

// Positions returns the position of every partition: all entries of the stream
// up to it are in the database. 0 means none.
func (db *DB) Positions(ctx context.Context) ([muster.Partitions]uint64, error) {
	var positions [muster.Partitions]uint64
	scan := func(rows *sql.Rows) (struct{}, error) {
		var part, position int64
		if err := rows.Scan(&part, &position); err != nil {
			return struct{}{}, err
		}
		if part < 0 || part >= muster.Partitions {
			return struct{}{}, fmt.Errorf("expected partitions 0 to %d, found %d", muster.Partitions-1, part)
		}
		positions[part] = uint64(position)
		return struct{}{}, nil
	}
	_, err := list(ctx, db.reader, scan, `SELECT part, position FROM positions`)
	return positions, err
}
