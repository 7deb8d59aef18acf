package jury

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"muster"
	"muster/internal/crowd"
)

// state is what the worker knows. It runs ahead of the ledger while a
// transaction is under way; when that fails, it is loaded anew.
type state struct {
	evidence sources
	wheel    map[int64][]uint32 // slots of what is to be judged at which tick; one may stand there in vain

	numbers       [3]numbers // by kind, see below
	records       []crowd.Record
	behaviours    []crowd.BehaviourRecord
	priors        crowd.Taxonomy
	table         *crowd.TrustTable
	rated         rating // what table was made from, so that it can be made again after a crash
	tick          int64  // Unix seconds up to which what was due is done, a multiple of tickSeconds
	epoch, stored uint64

	loaded bool            // all of it
	again  []muster.Source // what the machines and the truth of today judge otherwise than what was loaded
	heard  []*held         // since the last judgement
	fallen []uint32        // machines whose word lost its weight since the last tick
	moved  map[uint32]bool // machines whose records changed since they were rated

	ranges  map[muster.Source]convicted // that are listed for the conviction of their members
	touched map[muster.Source]bool      // ranges to be judged at the next tick
	change  change
}

// rating is what a table was made from: it stands for an epoch, while records
// move on.
type rating struct {
	at         int64
	records    []crowd.Record
	behaviours []crowd.BehaviourRecord
	priors     int      // how many of them there were
	held       []uint32 // machines without weight since
}

// change is what the transaction under way has to write.
type change struct {
	evidence   []*held // one that was dropped and used again stands here twice
	gone       []muster.Source
	verdicts   [][]muster.Verdict // first those told first on each source and list, then those told second, …
	told       map[told]int       // how often
	numbers    []muster.Number
	trust      map[uint32]int64 // machines, and the tick after which they changed last
	behaviours map[uint16]struct{}
	events     []muster.TrustEvent
	timed      bool // tick or epoch moved
}

// told is what a reader follows: a source on one list.
type told struct {
	audience muster.Audience
	source   muster.Source
}

// The kinds of numbers.
const (
	machines = iota
	organisations
	scenarios
)

var kindOf = [...]muster.NumberKind{muster.MachineNumber, muster.OrganisationNumber, muster.BehaviourNumber}

// numbers are names and their numbers, which begin with 1.
type numbers struct {
	of    map[string]uint32
	names []string // by number
}

func (n *numbers) name(number uint32) string {
	if int(number) < len(n.names) {
		return n.names[number]
	}
	return ""
}

// maxScenarios bounds the scenarios that get a number: senders invent those of
// their own, and evidence has 16 bits for them. Beyond it they are as one.
const maxScenarios = 30_000

// number returns a name's number, and gives it one when it has none.
func (w *Worker) number(kind int, name string) uint32 {
	n := &w.numbers[kind]
	if number, ok := n.of[name]; ok {
		return number
	}
	if name == "" || kind == scenarios && len(n.names) > maxScenarios {
		return 0
	}
	number := uint32(len(n.names))
	name = string([]byte(name)) // of a record's text, which it would keep alive
	n.put(name, number)
	w.change.numbers = append(w.change.numbers, muster.Number{Kind: kindOf[kind], Name: name, Number: number})
	w.grow(kind, name)
	return number
}

func (n *numbers) put(name string, number uint32) {
	for int(number) >= len(n.names) {
		n.names = append(n.names, "")
	}
	n.names[number] = name
	n.of[name] = number
}

// grow makes room for what is kept by number.
func (w *Worker) grow(kind int, name string) {
	number := int(w.numbers[kind].of[name])
	switch kind {
	case machines:
		for len(w.records) <= number {
			w.records = append(w.records, crowd.Record{})
		}
	case scenarios:
		for len(w.priors) <= number {
			w.priors = append(w.priors, w.cfg.Prior(""))
		}
		w.priors[number] = w.cfg.Prior(name)
		for len(w.behaviours) <= number {
			w.behaviours = append(w.behaviours, crowd.BehaviourRecord{})
		}
	}
}

func (w *Worker) reset() {
	w.state = state{
		wheel: map[int64][]uint32{}, moved: map[uint32]bool{},
		ranges: map[muster.Source]convicted{}, touched: map[muster.Source]bool{},
	}
	for kind := range w.numbers {
		w.numbers[kind] = numbers{of: map[string]uint32{}, names: []string{""}}
	}
	w.records, w.behaviours = make([]crowd.Record, 1), make([]crowd.BehaviourRecord, 1)
	w.priors = crowd.Taxonomy{w.cfg.Prior("")}
	w.change.clear()
}

func (c *change) clear() {
	*c = change{
		evidence: c.evidence[:0], gone: c.gone[:0], numbers: c.numbers[:0], events: c.events[:0],
		told: map[told]int{}, trust: map[uint32]int64{}, behaviours: map[uint16]struct{}{},
	}
}

// load reads everything, and judges again what changed while nobody ran.
func (w *Worker) load(ctx context.Context) error {
	if err := w.read(ctx); err != nil {
		return err
	}
	if !w.owes() {
		return nil
	}
	return w.commit(ctx, func(Tx) error { return nil })
}

// owes reports whether what was loaded has yet to be brought in line with what
// is known today, which the next commit does.
func (w *Worker) owes() bool { return len(w.again)+len(w.change.trust) > 0 }

// read reads everything; voices of machines that no longer count are dropped on
// the way.
func (w *Worker) read(ctx context.Context) (err error) {
	w.reset()
	if w.positions, err = w.cfg.Ledger.Positions(ctx); err != nil {
		return fmt.Errorf("reading the log positions: %w", err)
	}
	for _, pos := range w.positions {
		w.applied.Store(max(w.applied.Load(), pos))
	}
	stamped, err := w.cfg.Ledger.LastVerdict(ctx)
	if err != nil {
		return fmt.Errorf("reading the end of the changelog: %w", err)
	}
	if stamped.After(w.stamped) {
		w.stamped = stamped
	}
	if err := w.loadTrust(ctx); err != nil {
		return err
	}
	err = w.cfg.Ledger.EachEvidence(ctx, func(row muster.EvidenceRow) error {
		h := w.evidence.add(row.Source)
		if err := h.unmarshal(row.Data); err != nil {
			return fmt.Errorf("%s: %w", row.Source, err)
		}
		gone := h.ev.Forget(func(machine, organisation uint32) bool { return !w.isMember(machine, organisation) })
		if gone || w.isOutdated(row.Source, h) {
			w.again = append(w.again, row.Source)
		}
		w.schedule(h)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the evidence: %w", err)
	}
	w.orderNew()
	w.sources.Set(float64(w.evidence.count))
	w.loaded = true
	return nil
}

func (w *Worker) isMember(machine, organisation uint32) bool {
	return w.cfg.Member(w.numbers[machines].name(machine), w.numbers[organisations].name(organisation))
}

func (w *Worker) loadTrust(ctx context.Context) error {
	kinds := map[muster.NumberKind]int{}
	for kind, name := range kindOf {
		kinds[name] = kind
	}
	err := w.cfg.Ledger.EachNumber(ctx, func(n muster.Number) error {
		kind, known := kinds[n.Kind]
		if !known {
			return nil // a later release's
		}
		w.numbers[kind].put(n.Name, n.Number)
		w.grow(kind, n.Name)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the numbers of machines: %w", err)
	}
	for _, name := range w.cfg.Scenarios {
		w.number(scenarios, name)
	}
	epoch, data, err := w.cfg.Ledger.Epoch(ctx)
	if err != nil {
		return fmt.Errorf("reading the epoch of the trust: %w", err)
	}
	var then epochData
	if len(data) > 0 {
		if err := json.Unmarshal(data, &then); err != nil {
			return fmt.Errorf("reading the epoch of the trust: %w", err)
		}
	}
	w.epoch, w.stored, w.tick, w.fallen = epoch, epoch, then.Tick, then.Fallen
	for _, c := range then.Ranges {
		r, err := muster.ParseSource(c.Range)
		if err != nil {
			return fmt.Errorf("reading the convicted ranges: %w", err)
		}
		w.ranges[r] = c
		if f := w.facts(r, nil); f.Never != "" || f.Canary || f.Shared {
			w.touched[r] = true // an address inside became one while nobody ran
		}
	}
	for _, r := range then.Touched {
		w.touched[r] = true
	}
	w.rated = rating{
		at: then.RatedAt, priors: max(1, min(then.Behaviours, len(w.priors))), held: then.Held,
		records:    make([]crowd.Record, max(1, min(then.Machines, len(w.records)))),
		behaviours: make([]crowd.BehaviourRecord, max(1, min(then.Behaviours, len(w.behaviours)))),
	}
	err = w.cfg.Ledger.EachTrust(ctx, func(row muster.TrustRow) error {
		if int(row.Machine) >= len(w.records) {
			return fmt.Errorf("trust in a machine of number %d, which nobody has", row.Machine)
		}
		var both [2]crowd.Record
		if err := decodeFixed(row.Data, &both); err != nil {
			return err
		}
		w.records[row.Machine] = both[0]
		if int(row.Machine) < len(w.rated.records) {
			w.rated.records[row.Machine] = both[1]
		}
		if both[0] != both[1] {
			w.moved[row.Machine] = true
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the trust in machines: %w", err)
	}
	err = w.cfg.Ledger.EachBehaviour(ctx, func(row muster.BehaviourRow) error {
		if int(row.Behaviour) >= len(w.behaviours) {
			return fmt.Errorf("a behaviour of number %d, which nobody has", row.Behaviour)
		}
		var both [2]crowd.BehaviourRecord
		if err := decodeFixed(row.Data, &both); err != nil {
			return err
		}
		w.behaviours[row.Behaviour] = both[0]
		if int(row.Behaviour) < len(w.rated.behaviours) {
			w.rated.behaviours[row.Behaviour] = both[1]
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading what is known about behaviours: %w", err)
	}
	// Who was blocked or admitted while nobody ran is rated so at the next epoch,
	// as if it had just happened.
	for machine := 1; machine < len(w.records); machine++ {
		if m := uint32(machine); w.records[m].Blocked == w.counts(m) {
			w.move(m).Blocked = !w.counts(m)
		}
	}
	w.makeTable()
	if len(w.rated.held) > 0 {
		w.table = w.table.Hold(w.epoch, w.rated.held...)
	}
	w.machines.Set(float64(len(w.records) - 1))
	return nil
}

// epochData is what is stored with an epoch.
type epochData struct {
	Tick       int64    `json:"tick"`
	RatedAt    int64    `json:"rated_at"`
	Machines   int      `json:"machines"`   // that were rated
	Behaviours int      `json:"behaviours"` // likewise
	Held       []uint32 `json:"held,omitempty"`
	Fallen     []uint32 `json:"fallen,omitempty"`

	Ranges  []convicted     `json:"ranges,omitempty"`
	Touched []muster.Source `json:"touched,omitempty"`
}

// counts reports whether a machine counts in the organisation that it counted
// in; one that never counted has nothing to lose.
func (w *Worker) counts(machine uint32) bool {
	organisation := w.records[machine].Organisation
	return organisation == 0 || w.isMember(machine, organisation)
}

// rate makes the next epoch's table. What it is made from is written with it,
// for the machines that have moved.
func (w *Worker) rate(at int64) {
	for machine := range w.moved { // some to where they were
		if int(machine) >= len(w.rated.records) || w.rated.records[machine] != w.records[machine] {
			w.change.trust[machine] = w.tick
		}
	}
	w.rated = rating{at: at, records: slices.Clone(w.records), behaviours: slices.Clone(w.behaviours), priors: len(w.priors)}
	for b := range w.behaviours {
		if w.behaviours[b] != (crowd.BehaviourRecord{}) {
			w.change.behaviours[uint16(b)] = struct{}{}
		}
	}
	clear(w.moved)
	w.makeTable()
}

func (w *Worker) makeTable() {
	r := &w.rated
	w.table = crowd.NewTrustTable(crowd.Snapshot{
		Epoch: w.epoch, At: r.at, Records: r.records, Behaviours: r.behaviours, Taxonomy: w.priors[:r.priors], Parameters: w.cfg.Parameters,
	})
}

// move notes that a machine's record changes.
func (w *Worker) move(machine uint32) *crowd.Record {
	w.change.trust[machine] = w.tick
	w.moved[machine] = true
	return &w.records[machine]
}

// recordVersion leads the stored form of records, whose layout is that of the
// structs.
const recordVersion = 1

func encodeFixed(v any) []byte {
	b, err := binary.Append([]byte{recordVersion}, binary.LittleEndian, v)
	if err != nil {
		panic(fmt.Sprintf("jury: %T is not of fixed size: %v", v, err)) // any test finds it
	}
	return b
}

func decodeFixed(data []byte, v any) error {
	if len(data) == 0 || data[0] != recordVersion || len(data) != 1+binary.Size(v) {
		return fmt.Errorf("expected %d bytes of version %d, got %d bytes: written by another release?", 1+binary.Size(v), recordVersion, len(data))
	}
	_, err := binary.Decode(data[1:], binary.LittleEndian, v)
	return err
}

// stamp returns the time for the changelog, which only grows: those who follow
// it would miss what a clock that was set back has stamped.
func (w *Worker) stamp() time.Time {
	now := w.cfg.Now().UTC().Truncate(time.Microsecond)
	if !now.After(w.stamped) {
		now = w.stamped.Add(time.Microsecond)
	}
	w.stamped = now
	return now
}

// commit runs fn, which changes the state, and writes what it changed, in one
// transaction. After an error the state is what the ledger has.
func (w *Worker) commit(ctx context.Context, fn func(Tx) error) error {
	if !w.loaded { // it was to be, after a commit that failed
		if err := w.read(ctx); err != nil {
			return err
		}
	}
	verdicts := 0
	touched := false
	err := w.cfg.Ledger.Commit(ctx, func(tx Tx) error {
		touched = true
		w.rejudge(w.again, w.now())
		w.again = nil
		if err := fn(tx); err != nil {
			return err
		}
		verdicts = len(w.change.told)
		return w.write(tx)
	})
	if err != nil {
		if touched {
			if again := w.read(ctx); again != nil {
				return fmt.Errorf("%w; then the state could not be loaded again: %w", err, again)
			}
		}
		return err
	}
	w.stored = w.epoch
	w.change.clear()
	w.sources.Set(float64(w.evidence.count))
	w.machines.Set(float64(len(w.records) - 1))
	if verdicts > 0 {
		w.verdicts.Add(float64(verdicts))
		w.cfg.Changed()
	}
	return nil
}

// maxArena bounds what is kept of the memory that evidence is written from.
const maxArena = 16 << 20

// write writes what changed, rows by their source: a ledger that is sorted by it
// then goes through its pages once.
func (w *Worker) write(tx Tx) error {
	c := &w.change
	if err := tx.PutNumbers(c.numbers); err != nil {
		return err
	}
	if err := w.writeEvidence(tx); err != nil {
		return err
	}
	if err := w.writeTrust(tx); err != nil {
		return err
	}
	for _, verdicts := range c.verdicts { // each has its place in the history
		changed := w.stamp()
		for i := range verdicts {
			verdicts[i].Changed = changed
		}
		slices.SortFunc(verdicts, func(a, b muster.Verdict) int { return a.Source.Compare(b.Source) })
		if err := tx.PutVerdicts(verdicts); err != nil {
			return err
		}
	}
	return nil
}

func (w *Worker) writeEvidence(tx Tx) error {
	rows := make([]muster.EvidenceRow, 0, len(w.change.evidence))
	arena := w.arena[:0]
	for _, h := range w.change.evidence {
		if !h.changed {
			continue // it went again, or has been written
		}
		h.changed = false
		source := h.source()
		start := len(arena)
		arena = h.appendBinary(arena)
		rows = append(rows, muster.EvidenceRow{
			Partition: w.cfg.Partition(source), Source: source,
			Last: time.Unix(h.ev.Last(), 0).UTC(), Data: arena[start:len(arena):len(arena)],
		})
	}
	if cap(arena) <= maxArena {
		w.arena = arena
	}
	slices.SortFunc(rows, func(a, b muster.EvidenceRow) int { return a.Source.Compare(b.Source) })
	if err := tx.PutEvidence(rows); err != nil {
		return err
	}
	byPartition := map[uint8][]muster.Source{}
	for _, source := range w.change.gone {
		if w.evidence.get(source) != nil {
			continue // it came again
		}
		p := w.cfg.Partition(source)
		byPartition[p] = append(byPartition[p], source)
	}
	for p, sources := range byPartition {
		if err := tx.DeleteEvidence(p, sources); err != nil {
			return err
		}
	}
	return nil
}

func (w *Worker) writeTrust(tx Tx) error {
	c := &w.change
	rows := make([]muster.TrustRow, 0, len(c.trust))
	for machine, at := range c.trust {
		both := [2]crowd.Record{w.records[machine]}
		if int(machine) < len(w.rated.records) {
			both[1] = w.rated.records[machine]
		}
		rows = append(rows, muster.TrustRow{
			Machine: machine, Rank: crowd.Rate(&both[0], max(at, 1), &w.cfg.Parameters).Rank,
			Changed: time.Unix(at, 0).UTC(), Data: encodeFixed(&both),
		})
	}
	slices.SortFunc(rows, func(a, b muster.TrustRow) int { return int(a.Machine) - int(b.Machine) })
	if err := tx.PutTrust(rows); err != nil {
		return err
	}
	behaviours := make([]muster.BehaviourRow, 0, len(c.behaviours))
	for b := range c.behaviours {
		both := [2]crowd.BehaviourRecord{w.behaviours[b]}
		if int(b) < len(w.rated.behaviours) {
			both[1] = w.rated.behaviours[b]
		}
		behaviours = append(behaviours, muster.BehaviourRow{Behaviour: uint32(b), Data: encodeFixed(&both)})
	}
	if err := tx.PutBehaviours(behaviours); err != nil {
		return err
	}
	if err := tx.PutTrustEvents(c.events); err != nil {
		return err
	}
	if !c.timed {
		return nil
	}
	data, err := json.Marshal(epochData{
		Tick: w.tick, RatedAt: w.rated.at, Machines: len(w.rated.records), Behaviours: w.rated.priors,
		Held: w.rated.held, Fallen: w.fallen,
		Ranges:  slices.SortedFunc(maps.Values(w.ranges), func(a, b convicted) int { return cmp.Compare(a.Range, b.Range) }),
		Touched: slices.SortedFunc(maps.Keys(w.touched), muster.Source.Compare),
	})
	if err != nil {
		return fmt.Errorf("writing the epoch: %w", err)
	}
	return tx.AdvanceEpoch(w.stored, w.epoch, data)
}
