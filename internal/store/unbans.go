package store

import (
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"muster"
)

const unbanColumns = `id, source, address, requester, contact, message, proof, state, requested, decided, by, reason, round, grace_until, delivered`

const selectUnbans = `SELECT ` + unbanColumns + ` FROM unbans`

func scanUnban(rows *sql.Rows) (muster.UnbanRequest, error) {
	var r muster.UnbanRequest
	err := rows.Scan(&r.ID, (*sourceColumn)(&r.Source), (*addrColumn)(&r.Address), (*addrColumn)(&r.Requester), &r.Contact, &r.Text, &r.Proof, &r.State,
		(*timeColumn)(&r.Requested), (*timeColumn)(&r.Decided), &r.By, &r.Reason, &r.Round, (*timeColumn)(&r.GraceUntil), &r.Delivered)
	return r, err
}

// addrColumn scans addrKey.
type addrColumn netip.Addr

func (c *addrColumn) Scan(src any) error {
	var source muster.Source
	err := (*sourceColumn)(&source).Scan(src)
	*c = addrColumn(source.Addr())
	return err
}

// addrKey is how an address is stored; the zero Addr is the zero Source.
func addrKey(addr netip.Addr) []byte {
	if !addr.IsValid() {
		return sourceKey(muster.Source{})
	}
	return sourceKey(muster.SourceFromAddr(addr))
}

// Unbans returns a page of requests in order of their ids, which is that of
// their making.
func (db *DB) Unbans(ctx context.Context, q muster.UnbanQuery) ([]muster.UnbanRequest, error) {
	query, args := unbansSQL(q)
	return list(ctx, db.reader, scanUnban, query, args...)
}

func unbansSQL(q muster.UnbanQuery) (query string, args []any) {
	w, after, order := where{}, `id > ?`, ` ORDER BY id LIMIT ?`
	if q.LastFirst {
		after, order = `id < ?`, ` ORDER BY id DESC LIMIT ?`
	}
	if q.After != "" {
		w.add(after, q.After)
	}
	if q.ID != "" {
		w.add(`id = ?`, q.ID)
	}
	if q.State != "" {
		w.add(`state = ?`, string(q.State))
	}
	if q.Source.IsValid() {
		w.add(`source = ?`, sourceKey(q.Source))
	}
	if q.Address.IsValid() {
		w.add(`address = ?`, addrKey(q.Address))
	}
	if q.Untold {
		w.add(`state = 'granted' AND delivered = 0`)
	}
	return selectUnbans + w.sql() + order, append(w.args, page(q.Limit))
}

// What an UnbanHistory is read from.
const (
	selectOpenUnban    = selectUnbans + ` WHERE source = ? AND state = 'waiting'`
	selectUnbanRounds  = selectUnbans + ` WHERE line = ? AND decided >= ? AND (state = 'granted' OR state = 'refused' AND proof <> '') ORDER BY decided DESC, id DESC`
	countUnbansNetwork = `SELECT COUNT(*) FROM unbans WHERE network = ? AND decided >= ? AND state = 'granted'`
	countUnbansAsker   = `SELECT COUNT(*) FROM unbans WHERE asker = ? AND requested >= ?`
	countUnbansGranted = `SELECT COUNT(*) FROM unbans WHERE state = 'granted' AND decided >= ?`
	countUnbansWaiting = `SELECT COUNT(*) FROM unbans WHERE state = 'waiting'`
)

// UnbanHistory returns what was before r, of which only Source and Requester
// are looked at.
func (db *DB) UnbanHistory(ctx context.Context, r muster.UnbanRequest, since muster.UnbanSince) (muster.UnbanHistory, error) {
	return unbanHistory(ctx, db.reader, r, since)
}

func unbanHistory(ctx context.Context, q queryer, r muster.UnbanRequest, since muster.UnbanSince) (muster.UnbanHistory, error) {
	var h muster.UnbanHistory
	open, err := list(ctx, q, scanUnban, selectOpenUnban, sourceKey(r.Source))
	if err != nil {
		return h, err
	}
	if len(open) > 0 {
		h.Open = &open[0]
	}
	rounds, err := list(ctx, q, scanUnban, selectUnbanRounds, sourceKey(r.Line()), micros(since.Rounds))
	if err != nil {
		return h, err
	}
	if h.Rounds = len(rounds); h.Rounds > 0 {
		h.Last = &rounds[0]
	}
	for _, c := range []struct {
		into  *int
		query string
		args  []any
	}{
		{&h.Network, countUnbansNetwork, []any{sourceKey(r.Network()), micros(since.Network)}},
		{&h.Asker, countUnbansAsker, []any{sourceKey(r.Asker()), micros(since.Asker)}},
		{&h.All, countUnbansGranted, []any{micros(since.All)}},
		{&h.Waiting, countUnbansWaiting, nil},
	} {
		if *c.into, err = one(ctx, q, "count", scalar[int], c.query, c.args...); err != nil {
			return h, err
		}
	}
	return h, nil
}

const putUnban = `INSERT INTO unbans (` + unbanColumns + `, line, network, asker) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
	ON CONFLICT (id) DO UPDATE SET proof = excluded.proof, state = excluded.state, decided = excluded.decided, by = excluded.by, reason = excluded.reason,
	round = excluded.round, grace_until = excluded.grace_until, delivered = excluded.delivered`

// ChangeUnbans tells decide what was before r, and stores what it returns, in
// that order and with the audit entries, all in one transaction. Of a request
// that is stored already, what came of it is replaced; what was asked stays. An
// error of decide's is returned as it is, and nothing is stored. A second request
// that waits for one source is of code Exists.
func (db *DB) ChangeUnbans(ctx context.Context, r muster.UnbanRequest, since muster.UnbanSince,
	decide func(muster.UnbanHistory) (put []muster.UnbanRequest, audit []muster.AuditEntry, err error),
) error {
	return db.write(ctx, func(tx *writer) error {
		before, err := unbanHistory(ctx, tx, r, since)
		if err != nil {
			return err
		}
		put, audit, err := decide(before)
		if err != nil {
			return err
		}
		for i := range put {
			if err := storeUnban(ctx, tx, &put[i]); err != nil {
				return err
			}
		}
		return putAudit(tx, audit)
	})
}

func storeUnban(ctx context.Context, tx *writer, r *muster.UnbanRequest) error {
	if r.State == muster.UnbanWaiting {
		open, err := list(ctx, tx, scanUnban, selectOpenUnban, sourceKey(r.Source))
		if err != nil {
			return err
		}
		if len(open) > 0 && open[0].ID != r.ID {
			return muster.Errorf(muster.Exists, "a request for %s is waiting already", r.Source)
		}
	}
	_, err := tx.exec(putUnban, r.ID, sourceKey(r.Source), addrKey(r.Address), addrKey(r.Requester), r.Contact, r.Text, string(r.Proof), string(r.State),
		micros(r.Requested), micros(r.Decided), r.By, r.Reason, r.Round, micros(r.GraceUntil), r.Delivered,
		sourceKey(r.Line()), sourceKey(r.Network()), sourceKey(r.Asker()))
	return err
}

// UnbanDelivered notes that the judge knows of a granted request.
func (db *DB) UnbanDelivered(ctx context.Context, id string) error {
	return db.write(ctx, func(tx *writer) error {
		n, err := tx.exec(`UPDATE unbans SET delivered = 1 WHERE id = ?`, id)
		if err == nil && n == 0 {
			err = muster.Errorf(muster.NotFound, "there is no unban request %q", id)
		}
		return err
	})
}

// TidyUnbans forgets what people wrote with requests that were decided before
// blank, and all of those that were decided before forget, save for what the
// judge does not know yet. It reads all requests; there are few.
func (db *DB) TidyUnbans(ctx context.Context, blank, forget time.Time) error {
	return db.write(ctx, func(tx *writer) error {
		_, err := tx.exec(`DELETE FROM unbans WHERE state <> 'waiting' AND decided < ? AND (state <> 'granted' OR delivered = 1)`, micros(forget))
		if err != nil {
			return err
		}
		_, err = tx.exec(`UPDATE unbans SET contact = '', message = '' WHERE state <> 'waiting' AND decided < ? AND (contact <> '' OR message <> '')`, micros(blank))
		return err
	})
}

const selectListedAmong = selectVerdicts + ` WHERE audience = '' AND listed = 1 AND (part, source) IN (VALUES `

// NarrowestListed returns the network's listing of the narrowest of sources that
// is listed, parts being their partitions, or an error of code NotFound.
func (db *DB) NarrowestListed(ctx context.Context, parts []uint8, sources []muster.Source) (muster.Verdict, error) {
	if len(parts) != len(sources) || len(parts) == 0 {
		return muster.Verdict{}, fmt.Errorf("store: %d partitions for %d sources", len(parts), len(sources))
	}
	args := make([]any, 0, 2*len(parts))
	for i := range parts {
		args = append(args, int64(parts[i]), sourceKey(sources[i]))
	}
	listed, err := list(ctx, db.reader, scanVerdict, listedAmong(len(parts)), args...)
	if err != nil {
		return muster.Verdict{}, err
	}
	var narrowest muster.Verdict
	for _, v := range listed {
		if !narrowest.Listed || v.Source.Prefix().Bits() > narrowest.Source.Prefix().Bits() {
			narrowest = v
		}
	}
	if !narrowest.Listed {
		return narrowest, muster.Errorf(muster.NotFound, "none of %d sources is on the community list", len(sources))
	}
	return narrowest, nil
}

func listedAmong(n int) string {
	return selectListedAmong + strings.TrimSuffix(strings.Repeat(`(?, ?), `, n), ", ") + `)`
}
