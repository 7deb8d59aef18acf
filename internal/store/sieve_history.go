package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"muster"
)

// SieveHistoryPositions returns up to where in the sieve's log everything is
// stored, by partition. 0 means nothing.
func (db *DB) SieveHistoryPositions(ctx context.Context) (positions [muster.Partitions]uint64, err error) {
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
	_, err = list(ctx, db.reader, scan, `SELECT part, position FROM sieve_history_positions`)
	return positions, err
}

// SieveNames returns all texts that alerts share.
func (db *DB) SieveNames(ctx context.Context) ([]muster.SieveName, error) {
	scan := func(rows *sql.Rows) (n muster.SieveName, err error) {
		err = rows.Scan(&n.ID, &n.Kind, &n.Name)
		return n, err
	}
	return list(ctx, db.reader, scan, `SELECT id, kind, name FROM sieve_names ORDER BY id`)
}

// SieveCombos returns all that came together.
func (db *DB) SieveCombos(ctx context.Context) ([]muster.SieveCombo, error) {
	scan := func(rows *sql.Rows) (c muster.SieveCombo, err error) {
		err = rows.Scan(&c.ID, &c.Scenario, &c.Country, &c.Machine)
		return c, err
	}
	return list(ctx, db.reader, scan, `SELECT id, scenario, country, machine FROM sieve_combos ORDER BY id`)
}

// EachSieveChunk calls yield with all chunks in order, without Times and Prints.
// Their bytes are yield's to keep.
func (db *DB) EachSieveChunk(ctx context.Context, yield func(muster.SieveChunk) error) error {
	scan := func(rows *sql.Rows) (c muster.SieveChunk, err error) {
		err = rows.Scan(&c.Number, &c.Marks, &c.Columns)
		return c, err
	}
	return each(ctx, db.reader, scan, yield, `SELECT chunk, marks, columns FROM sieve_chunks ORDER BY chunk`)
}

// SieveChunkPrints returns the Prints of a chunk.
func (db *DB) SieveChunkPrints(ctx context.Context, chunk int64) ([]byte, error) {
	return one(ctx, db.reader, "chunk", scalar[[]byte], `SELECT prints FROM sieve_chunks WHERE chunk = ?`, chunk)
}

// SieveChunkTimes returns the Times of a chunk.
func (db *DB) SieveChunkTimes(ctx context.Context, chunk int64) ([]byte, error) {
	return one(ctx, db.reader, "chunk", scalar[[]byte], `SELECT times FROM sieve_chunks WHERE chunk = ?`, chunk)
}

func scanSieveBlock(rows *sql.Rows) (b muster.SieveBlock, err error) {
	var position int64
	err = rows.Scan(&b.Number, &position, &b.Data)
	b.Position = uint64(position)
	return b, err
}

const selectSieveBlocks = `SELECT block, position, data FROM sieve_blocks`

// EachSieveBlock calls yield with the blocks of numbers from one up to before
// another, in order. Their bytes are yield's to keep.
func (db *DB) EachSieveBlock(ctx context.Context, from, to int64, yield func(muster.SieveBlock) error) error {
	return each(ctx, db.reader, scanSieveBlock, yield, selectSieveBlocks+` WHERE block >= ? AND block < ? ORDER BY block`, from, to)
}

// FirstSieveBlock returns the lowest number of a block from one on, -1 when there
// is none.
func (db *DB) FirstSieveBlock(ctx context.Context, from int64) (int64, error) {
	return one(ctx, db.reader, "block", scalar[int64], `SELECT COALESCE(MIN(block), -1) FROM sieve_blocks WHERE block >= ?`, from)
}

// sieveBlocksAtOnce is how many blocks one query names.
const sieveBlocksAtOnce = 200

// SieveBlocks returns those blocks of some numbers that are there, in no order.
func (db *DB) SieveBlocks(ctx context.Context, numbers []int64) ([]muster.SieveBlock, error) {
	all := make([]muster.SieveBlock, 0, len(numbers))
	for len(numbers) > 0 {
		some := numbers[:min(len(numbers), sieveBlocksAtOnce)]
		numbers = numbers[len(some):]
		args := make([]any, len(some))
		for i, n := range some {
			args[i] = n
		}
		keep := func(b muster.SieveBlock) error { all = append(all, b); return nil }
		if err := each(ctx, db.reader, scanSieveBlock, keep, sieveBlocksAmong(len(some)), args...); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func sieveBlocksAmong(n int) string {
	return selectSieveBlocks + ` WHERE block IN (` + strings.TrimSuffix(strings.Repeat("?, ", n), ", ") + `)`
}

// From the last block that begins before a position to the last that begins there.
const selectSieveBlocksAt = selectSieveBlocks + ` WHERE
	block >= COALESCE((SELECT MAX(block) FROM sieve_blocks WHERE position = (SELECT MAX(position) FROM sieve_blocks WHERE position < ?)), 0) AND
	block <= (SELECT MAX(block) FROM sieve_blocks WHERE position = (SELECT MAX(position) FROM sieve_blocks WHERE position <= ?))
	ORDER BY block`

// SieveBlocksAt returns the blocks that may hold what came at a position of the
// log, in order.
func (db *DB) SieveBlocksAt(ctx context.Context, position uint64) ([]muster.SieveBlock, error) {
	return list(ctx, db.reader, scanSieveBlock, selectSieveBlocksAt, int64(position), int64(position))
}

// SieveLarge returns what was too large for the block of an alert.
func (db *DB) SieveLarge(ctx context.Context, id int64) ([]byte, error) {
	return one(ctx, db.reader, "alert", scalar[[]byte], `SELECT data FROM sieve_large WHERE id = ?`, id)
}

const selectSieveSource = `SELECT id FROM sieve_sources WHERE chunk = ? AND source = ? ORDER BY id DESC`

// SieveAlertsAbout returns the numbers of the alerts of a chunk that may be about
// an address, highest first.
func (db *DB) SieveAlertsAbout(ctx context.Context, chunk, source int64) ([]int64, error) {
	return list(ctx, db.reader, scalar[int64], selectSieveSource, chunk, source)
}

// EachSieveRollup calls yield with all rollups of a span.
func (db *DB) EachSieveRollup(ctx context.Context, span int64, yield func(muster.SieveRollup) error) error {
	scan := func(rows *sql.Rows) (r muster.SieveRollup, err error) {
		err = rows.Scan(&r.Span, &r.Start, &r.Data)
		return r, err
	}
	return each(ctx, db.reader, scan, yield, `SELECT span, start, data FROM sieve_rollups WHERE span = ? ORDER BY start`, span)
}

func scanSieveMark(rows *sql.Rows) (m muster.SieveMark, err error) {
	var position int64
	err = rows.Scan(&position, &m.Partition, (*timeColumn)(&m.At), &m.Signals)
	m.Position = uint64(position)
	return m, err
}

// EachSieveMark calls yield with all marks at or above a position.
func (db *DB) EachSieveMark(ctx context.Context, from uint64, yield func(muster.SieveMark) error) error {
	return each(ctx, db.reader, scanSieveMark, yield, `SELECT position, part, at, signals FROM sieve_forwarded WHERE position >= ? ORDER BY position`, int64(from))
}

// SieveMarksOf returns the marks of some records that are there, in no order; of
// those that are named only Position and Partition are looked at.
func (db *DB) SieveMarksOf(ctx context.Context, records []muster.SieveMark) ([]muster.SieveMark, error) {
	var all []muster.SieveMark
	for len(records) > 0 {
		some := records[:min(len(records), sieveBlocksAtOnce)]
		records = records[len(some):]
		args := make([]any, 0, 2*len(some))
		for _, r := range some {
			args = append(args, int64(r.Position), int64(r.Partition))
		}
		keep := func(m muster.SieveMark) error { all = append(all, m); return nil }
		if err := each(ctx, db.reader, scanSieveMark, keep, sieveMarksAmong(len(some)), args...); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func sieveMarksAmong(n int) string {
	return `SELECT position, part, at, signals FROM sieve_forwarded WHERE (position, part) IN (VALUES ` + strings.TrimSuffix(strings.Repeat("(?, ?), ", n), ", ") + `)`
}

// PutSieve makes all changes of w in one transaction. The positions from which it
// moves must be the stored ones, or it returns ErrFenced and changes nothing.
func (db *DB) PutSieve(ctx context.Context, w *muster.SieveWrite) error {
	return db.write(ctx, func(tx *writer) error {
		for _, put := range []func(*writer, *muster.SieveWrite) error{
			putSieveNames, putSieveAlerts, putSieveChunks, putSieveRollups, putSieveMarks, moveSieve,
		} {
			if err := put(tx, w); err != nil {
				return err
			}
		}
		return nil
	})
}

func putSieveNames(tx *writer, w *muster.SieveWrite) error {
	err := tx.many(`INSERT INTO sieve_names (id, kind, name) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, len(w.Names), func(i int, args row) {
		args.set(int64(w.Names[i].ID), int64(w.Names[i].Kind), w.Names[i].Name)
	}, nil)
	if err != nil {
		return err
	}
	return tx.many(`INSERT INTO sieve_combos (id, scenario, country, machine) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`, len(w.Combos), func(i int, args row) {
		c := &w.Combos[i]
		args.set(int64(c.ID), int64(c.Scenario), int64(c.Country), int64(c.Machine))
	}, nil)
}

func putSieveAlerts(tx *writer, w *muster.SieveWrite) error {
	err := tx.many(`INSERT INTO sieve_blocks (block, position, data) VALUES (?, ?, ?)
		ON CONFLICT (block) DO UPDATE SET data = excluded.data`, len(w.Blocks), func(i int, args row) {
		args.set(w.Blocks[i].Number, int64(w.Blocks[i].Position), blob(w.Blocks[i].Data))
	}, nil)
	if err != nil {
		return err
	}
	err = tx.many(`INSERT INTO sieve_large (id, data) VALUES (?, ?)`, len(w.Large), func(i int, args row) {
		args.set(w.Large[i].ID, blob(w.Large[i].Data))
	}, nil)
	if err != nil {
		return err
	}
	return tx.many(`INSERT INTO sieve_sources (chunk, source, id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, len(w.Sources), func(i int, args row) {
		args.set(w.Sources[i].ID>>muster.SieveChunkBits, w.Sources[i].Source, w.Sources[i].ID)
	}, nil)
}

func putSieveChunks(tx *writer, w *muster.SieveWrite) error {
	err := tx.many(`INSERT INTO sieve_chunks (chunk, marks, columns, prints, times) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (chunk) DO UPDATE SET marks = excluded.marks, columns = excluded.columns, prints = excluded.prints, times = excluded.times`, len(w.Chunks), func(i int, args row) {
		c := &w.Chunks[i]
		args.set(c.Number, blob(c.Marks), blob(c.Columns), blob(c.Prints), blob(c.Times))
	}, nil)
	if err != nil {
		return err
	}
	return tx.many(`UPDATE sieve_chunks SET marks = ? WHERE chunk = ?`, len(w.ChunkMarks), func(i int, args row) {
		args.set(blob(w.ChunkMarks[i].Marks), w.ChunkMarks[i].Number)
	}, nil)
}

func putSieveRollups(tx *writer, w *muster.SieveWrite) error {
	err := tx.many(`DELETE FROM sieve_rollups WHERE span = ? AND start = ?`, len(w.DropRollups), func(i int, args row) {
		args.set(w.DropRollups[i].Span, w.DropRollups[i].Start)
	}, nil)
	if err != nil {
		return err
	}
	return tx.many(`INSERT INTO sieve_rollups (span, start, data) VALUES (?, ?, ?)
		ON CONFLICT (span, start) DO UPDATE SET data = excluded.data`, len(w.Rollups), func(i int, args row) {
		args.set(w.Rollups[i].Span, w.Rollups[i].Start, blob(w.Rollups[i].Data))
	}, nil)
}

func putSieveMarks(tx *writer, w *muster.SieveWrite) error {
	return tx.many(`INSERT INTO sieve_forwarded (position, part, at, signals) VALUES (?, ?, ?, ?)
		ON CONFLICT (position, part) DO UPDATE SET signals = excluded.signals`, len(w.Marks), func(i int, args row) {
		m := &w.Marks[i]
		args.set(int64(m.Position), int64(m.Partition), micros(m.At), blob(m.Signals))
	}, nil)
}

func moveSieve(tx *writer, w *muster.SieveWrite) error {
	moved := make([]int, 0, muster.Partitions)
	for part := range w.From {
		if w.From[part] != w.To[part] {
			moved = append(moved, part)
		}
	}
	fenced := -1
	err := tx.many(`INSERT INTO sieve_history_positions (part, position) VALUES (?, ?)
		ON CONFLICT (part) DO UPDATE SET position = excluded.position WHERE sieve_history_positions.position = ?`, len(moved), func(i int, args row) {
		args.set(int64(moved[i]), int64(w.To[moved[i]]), int64(w.From[moved[i]]))
	}, func(i int, changed int64) {
		if changed == 0 {
			fenced = moved[i]
		}
	})
	if err == nil && fenced >= 0 {
		err = fmt.Errorf("the sieve's history of partition %d at %d: %w", fenced, w.From[fenced], ErrFenced)
	}
	return err
}

// The parts of the history by what says how old they are.
const (
	deleteOldestSieveBlocks  = `DELETE FROM sieve_blocks WHERE block IN (SELECT block FROM sieve_blocks WHERE block < ? ORDER BY block LIMIT ?)`
	deleteOldestSieveLarge   = `DELETE FROM sieve_large WHERE id IN (SELECT id FROM sieve_large WHERE id < ? ORDER BY id LIMIT ?)`
	deleteOldestSieveSources = `DELETE FROM sieve_sources WHERE (chunk, source, id) IN (SELECT chunk, source, id FROM sieve_sources WHERE chunk < ? ORDER BY chunk LIMIT ?)`
	deleteOldestSieveChunks  = `DELETE FROM sieve_chunks WHERE chunk IN (SELECT chunk FROM sieve_chunks WHERE chunk < ? ORDER BY chunk LIMIT ?)`
	deleteOldestSieveMarks   = `DELETE FROM sieve_forwarded WHERE (position, part) IN (SELECT position, part FROM sieve_forwarded WHERE position < ? ORDER BY position LIMIT ?)`
)

// PruneSieve deletes alerts of numbers below one, which begins a block, with what
// is kept of positions of the log below another, in short transactions. What is
// counted of them stays.
func (db *DB) PruneSieve(ctx context.Context, before int64, position uint64) error {
	const all = 1 << 62
	for _, d := range []struct {
		query string
		below int64
	}{
		{deleteOldestSieveBlocks, before >> muster.SieveBlockBits},
		{deleteOldestSieveLarge, before},
		{deleteOldestSieveSources, before >> muster.SieveChunkBits},
		{deleteOldestSieveChunks, before >> muster.SieveChunkBits},
		{deleteOldestSieveMarks, int64(position)},
	} {
		if _, err := db.prune(ctx, all, d.query, d.below); err != nil {
			return err
		}
	}
	return nil
}
