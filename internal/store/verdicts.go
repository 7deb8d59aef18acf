package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"muster"
)

const verdictColumns = `audience, source, listed, remedy, scenario, since, until, changed, reasons`

const selectVerdicts = `SELECT ` + verdictColumns + ` FROM verdicts`

func scanVerdict(rows *sql.Rows) (muster.Verdict, error) {
	var v muster.Verdict
	err := rows.Scan(&v.Audience, (*sourceColumn)(&v.Source), &v.Listed, &v.Remedy, &v.Scenario,
		(*timeColumn)(&v.Since), (*timeColumn)(&v.Until), (*timeColumn)(&v.Changed), (*reasonsColumn)(&v.Reasons))
	return v, err
}

// What of the reasons weighs a verdict is in columns of its own too: to read
// all of them takes longer than all the rest.
const briefColumns = `audience, source, listed, remedy, scenario, since, until, changed, support, independent, last`

const selectBrief = `SELECT ` + briefColumns + ` FROM verdicts`

func scanBrief(rows *sql.Rows) (muster.Verdict, error) {
	var v muster.Verdict
	r := &v.Reasons
	err := rows.Scan(&v.Audience, (*sourceColumn)(&v.Source), &v.Listed, &v.Remedy, &v.Scenario,
		(*timeColumn)(&v.Since), (*timeColumn)(&v.Until), (*timeColumn)(&v.Changed), &r.Support, &r.Independent, &r.Last)
	return v, err
}

// The join, in this order, finds a source whose partition is not at hand in 64
// steps of the primary key.
const selectVerdictsOf = `SELECT ` + verdictColumns + ` FROM positions CROSS JOIN verdicts WHERE verdicts.part = positions.part AND source = ?`

// Verdict returns the verdict on one source for one audience, listed or not, or
// an error of code NotFound.
func (db *DB) Verdict(ctx context.Context, audience muster.Audience, source muster.Source) (muster.Verdict, error) {
	return one(ctx, db.reader, fmt.Sprintf("verdict on %s", source), scanVerdict,
		selectVerdictsOf+` AND audience = ?`, sourceKey(source), string(audience))
}

// VerdictsOf returns the verdicts on one source for all audiences, the network's
// first.
func (db *DB) VerdictsOf(ctx context.Context, source muster.Source) ([]muster.Verdict, error) {
	return list(ctx, db.reader, scanVerdict, selectVerdictsOf+` ORDER BY audience`, sourceKey(source))
}

// EachVerdict calls yield with all verdicts, or only with those that are listed,
// partition by partition, until it fails. What it sees is the state of one
// moment. yield must not take long: meanwhile the database cannot reuse space.
func (db *DB) EachVerdict(ctx context.Context, listedOnly bool, yield func(muster.Verdict) error) error {
	w := where{}
	if listedOnly {
		w.add(`listed = ?`, true)
	}
	return each(ctx, db.reader, scanVerdict, yield, selectVerdicts+w.sql()+` ORDER BY part, source, audience`, w.args...)
}

// EachVerdictInBrief calls yield with all verdicts, as EachVerdict does; of their
// reasons there are Support, Independent and Last.
func (db *DB) EachVerdictInBrief(ctx context.Context, yield func(muster.Verdict) error) error {
	return each(ctx, db.reader, scanBrief, yield, selectBrief+` ORDER BY part, source, audience`)
}

const afterChange = ` WHERE changed > ? ORDER BY changed LIMIT ?`

// VerdictsChanged returns verdicts that were made after since, earliest first:
// about limit of them (1 to 1,000; anything else means 1,000), and always all of
// one moment, so that the Changed of the last is the next since. A verdict that
// changed twice is there once, with its last change.
func (db *DB) VerdictsChanged(ctx context.Context, since time.Time, limit int) ([]muster.Verdict, error) {
	return db.verdictsChanged(ctx, selectVerdicts, scanVerdict, since, limit)
}

// VerdictsChangedInBrief is VerdictsChanged; of the reasons there are Support,
// Independent and Last.
func (db *DB) VerdictsChangedInBrief(ctx context.Context, since time.Time, limit int) ([]muster.Verdict, error) {
	return db.verdictsChanged(ctx, selectBrief, scanBrief, since, limit)
}

func (db *DB) verdictsChanged(ctx context.Context, query string, scan func(*sql.Rows) (muster.Verdict, error), since time.Time, limit int) ([]muster.Verdict, error) {
	limit = page(limit)
	changed, err := list(ctx, db.reader, scan, query+afterChange, micros(since), limit)
	if err != nil || len(changed) < limit {
		return changed, err
	}
	last := changed[len(changed)-1].Changed
	for len(changed) > 0 && changed[len(changed)-1].Changed.Equal(last) {
		changed = changed[:len(changed)-1]
	}
	moment, err := list(ctx, db.reader, scan, query+` WHERE changed = ?`, micros(last))
	return append(changed, moment...), err
}

const deleteLapsedVerdicts = `DELETE FROM verdicts WHERE (part, source, audience) IN
	(SELECT part, source, audience FROM verdicts WHERE changed < ? AND listed = ? ORDER BY changed LIMIT ?)`

// PruneVerdicts deletes verdicts that are not listed and have not changed since
// a time, earliest first and at most limit of them, in short transactions, and
// returns how many it deleted. Fewer than limit means that none is left.
func (db *DB) PruneVerdicts(ctx context.Context, before time.Time, limit int) (int, error) {
	return db.prune(ctx, limit, deleteLapsedVerdicts, micros(before), false)
}

// LastVerdict returns when the latest verdict was made, zero when there is none:
// the end of the changelog that VerdictsChanged reads.
func (db *DB) LastVerdict(ctx context.Context) (time.Time, error) {
	return one(ctx, db.reader, "verdict", func(rows *sql.Rows) (t time.Time, err error) {
		return t, rows.Scan((*timeColumn)(&t))
	}, `SELECT COALESCE(MAX(changed), 0) FROM verdicts`)
}

const selectVerdictHistory = `SELECT audience, source, listed, remedy, scenario, since, until, at, reasons FROM verdict_history
	WHERE source = ? AND audience = ? ORDER BY at DESC LIMIT ?`

// VerdictHistory returns the verdicts that listed a source for an audience, with
// one remedy or another, and those that ended its listings, as they were made:
// newest first, at most limit (1 to 1,000; anything else means 1,000).
func (db *DB) VerdictHistory(ctx context.Context, source muster.Source, audience muster.Audience, limit int) ([]muster.Verdict, error) {
	return list(ctx, db.reader, scanVerdict, selectVerdictHistory, sourceKey(source), string(audience), page(limit))
}

const deleteOldestVerdictHistory = `DELETE FROM verdict_history WHERE (at, source, audience) IN
	(SELECT at, source, audience FROM verdict_history WHERE at < ? ORDER BY at LIMIT ?)`

// PruneVerdictHistory deletes history from before a time, oldest first and at
// most limit verdicts, in short transactions, and returns how many it deleted.
// Fewer than limit means that none is left.
func (db *DB) PruneVerdictHistory(ctx context.Context, before time.Time, limit int) (int, error) {
	return db.prune(ctx, limit, deleteOldestVerdictHistory, micros(before))
}
