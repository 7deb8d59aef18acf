package roles

import (
	"context"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"

	"muster"
	"muster/internal/console"
	"muster/internal/ingest"
	"muster/internal/jury"
	"muster/internal/store"
)

// ledger gives the judge its view of the database.
type ledger struct{ db *store.DB }

func (l ledger) Positions(ctx context.Context) ([muster.Partitions]uint64, error) {
	return l.db.Positions(ctx)
}

func (l ledger) EachEvidence(ctx context.Context, fn func(muster.EvidenceRow) error) error {
	return l.db.EachEvidence(ctx, fn)
}

func (l ledger) LastVerdict(ctx context.Context) (time.Time, error) { return l.db.LastVerdict(ctx) }

func (l ledger) EachNumber(ctx context.Context, fn func(muster.Number) error) error {
	return l.db.EachNumber(ctx, fn)
}

func (l ledger) EachTrust(ctx context.Context, fn func(muster.TrustRow) error) error {
	return l.db.EachTrust(ctx, fn)
}

func (l ledger) EachBehaviour(ctx context.Context, fn func(muster.BehaviourRow) error) error {
	return l.db.EachBehaviour(ctx, fn)
}

func (l ledger) Epoch(ctx context.Context) (uint64, []byte, error) { return l.db.Epoch(ctx) }

func (l ledger) Commit(ctx context.Context, fn func(jury.Tx) error) error {
	err := l.db.Tally(ctx, func(tx *store.TallyTx) error { return fn(ledgerTx{tx}) })
	if errors.Is(err, store.ErrFenced) {
		return fencedOff{err}
	}
	return err
}

func (l ledger) Reports(ctx context.Context, organisation, machine string, since time.Time, limit int) ([]muster.Signal, error) {
	var all []muster.Signal
	q := store.AlertQuery{Organisation: organisation, Machine: machine, Since: since}
	for len(all) < limit {
		page, err := l.db.Alerts(ctx, q)
		if err != nil || len(page) == 0 {
			return all, err
		}
		all = append(all, page...)
		q.After = store.CursorAfter(page[len(page)-1])
	}
	return all[:limit], nil
}

// fencedOff tells the judge that another process took over.
type fencedOff struct{ error }

func (fencedOff) Fenced() bool    { return true }
func (f fencedOff) Unwrap() error { return f.error }

type ledgerTx struct{ *store.TallyTx }

func (t ledgerTx) PutVerdicts(vs []muster.Verdict) error {
	parts := make([]uint8, len(vs))
	for i := range vs {
		parts[i] = ingest.SourcePartition(vs[i].Source)
	}
	return t.TallyTx.PutVerdicts(parts, vs)
}

// changelog gives the publisher its view of the verdicts, of whose reasons it
// wants what ranks them.
type changelog struct{ db *store.DB }

func (c changelog) Listed(ctx context.Context, fn func(muster.Verdict) error) error {
	return c.db.EachVerdictInBrief(ctx, fn)
}

func (c changelog) Changed(ctx context.Context, since time.Time, limit int) ([]muster.Verdict, error) {
	return c.db.VerdictsChangedInBrief(ctx, since, limit)
}

// reports keeps what machines tell about themselves.
type reports struct {
	db    *store.DB
	bells *bells
	usage func(body []byte) // hears of usage metrics
}

func (r reports) PutMachineReport(ctx context.Context, machine, kind string, at time.Time, body []byte) error {
	if store.ReportKind(kind) == store.UsageReport {
		r.usage(body)
	}
	return r.db.PutMachineReports(ctx, []store.MachineReport{{Machine: machine, Kind: store.ReportKind(kind), At: at, Body: body}})
}

func (r reports) AppendRemovals(ctx context.Context, removal muster.Removal) error {
	if err := r.db.AppendRemovals(ctx, removal); err != nil {
		return err
	}
	r.bells.ring(bellRemovals, "")
	return nil
}

// records gives the management API its view of the database.
type records struct{ *store.DB }

func (r records) Machines(ctx context.Context, q console.MachineQuery) ([]muster.Machine, error) {
	return r.DB.Machines(ctx, store.MachineQuery(q))
}

func (r records) MachineReport(ctx context.Context, machine, kind string) ([]byte, time.Time, error) {
	report, err := r.DB.MachineReport(ctx, machine, store.ReportKind(kind))
	return report.Body, report.At, err
}

func (r records) Verdicts(ctx context.Context, source muster.Source) ([]muster.Verdict, error) {
	return r.VerdictsOf(ctx, jury.SubjectOf(source))
}

func (r records) Audit(ctx context.Context, q console.AuditQuery) ([]muster.AuditEntry, error) {
	return r.DB.Audit(ctx, store.AuditQuery(q))
}

// Alerts turns the store's cursor into text: microseconds and the id.
func (r records) Alerts(ctx context.Context, q console.AlertQuery) ([]muster.Signal, string, error) {
	after, err := parseCursor(q.After)
	if err != nil {
		return nil, "", err
	}
	list, err := r.DB.Alerts(ctx, store.AlertQuery{
		Organisation: q.Organisation, Machine: q.Machine, Source: q.Source, Scenario: q.Scenario,
		Since: q.Since, Until: q.Until, After: after, Limit: q.Limit,
	})
	if err != nil || len(list) < q.Limit {
		return list, "", err
	}
	last := list[len(list)-1]
	return list, strconv.FormatInt(last.At.UnixMicro(), 36) + "-" + hex.EncodeToString(last.ID[:]), nil
}

func parseCursor(text string) (store.AlertCursor, error) {
	if text == "" {
		return store.AlertCursor{}, nil
	}
	at, id, ok := strings.Cut(text, "-")
	micros, err := strconv.ParseInt(at, 36, 64)
	raw, err2 := hex.DecodeString(id)
	if !ok || err != nil || err2 != nil || len(raw) != len(muster.SignalID{}) {
		return store.AlertCursor{}, muster.Errorf(muster.Invalid, "after: expected the next of an earlier page")
	}
	return store.AlertCursor{At: time.UnixMicro(micros).UTC(), ID: muster.SignalID(raw)}, nil
}
