package crash

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/internal/crowd"
	"muster/internal/ingest"
	"muster/internal/jury"
	"muster/internal/policy"
	"muster/internal/store"
	"muster/internal/stream"
)

// The environment of the process that is killed: the folder of the log and the
// database makes the test binary be that process; it takes at most so many
// records at a time, and waits for its end when it has come so far.
const (
	replayDir   = "MUSTER_CRASH_REPLAY_DIR"
	replayLimit = "MUSTER_CRASH_REPLAY_LIMIT"
	replayStop  = "MUSTER_CRASH_REPLAY_STOP"
)

// Records at a time of those who are killed, and frames that each of them leaves
// to each of those that follow: more than they are in.
const (
	mostAtOnce = 40
	leftToEach = 20
)

// TestReplayAfterKill has a judge work through the log of nine days that is
// there already, killed 20 times on the way (5 with -short, or
// MUSTER_CRASH_ROUNDS), and another one that nobody disturbs and that takes as
// much at a time as it gets. Both must have stored the same in the end.
// MUSTER_CRASH_SEED repeats the log, and the moments as far as the machine lets
// it.
func TestReplayAfterKill(t *testing.T) {
	if dir := os.Getenv(replayDir); dir != "" {
		if err := judgeLog(t.Context(), dir, number(t, replayLimit, 1<<20), uint64(number(t, replayStop, math.MaxInt))); err != nil {
			t.Fatal(err)
		}
		return
	}
	kills := min(30, number(t, "MUSTER_CRASH_ROUNDS", 20)) // the log is too short for more
	if testing.Short() && os.Getenv("MUSTER_CRASH_ROUNDS") == "" {
		kills = 5
	}
	seed := uint64(number(t, "MUSTER_CRASH_SEED", int(time.Now().UnixNano())))
	t.Logf("%d kills, MUSTER_CRASH_SEED=%d", kills, seed)
	rng := rand.New(rand.NewPCG(seed, 1))

	quiet, troubled := filepath.Join(t.TempDir(), "quiet"), filepath.Join(t.TempDir(), "troubled")
	h := newHistory(seed)
	began := time.Now()
	last := h.write(t, quiet)
	if err := os.CopyFS(troubled, os.DirFS(quiet)); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d signals (%d of them sent again) in %d records in %d frames, written in %.1f s",
		h.signals, h.resent, h.records, last, time.Since(began).Seconds())

	l := begin(t, quiet)
	l.end(t)
	t.Logf("undisturbed: %d commits in %.1f s", l.commits, time.Since(l.began).Seconds())

	began = time.Now()
	at := uint64(0)
	for kill := 1; kill <= kills; kill++ {
		stop := last - uint64(leftToEach*(kills-kill+1))
		l := begin(t, troubled, fmt.Sprint(replayLimit, "=", 1+rng.IntN(mostAtOnce)), fmt.Sprint(replayStop, "=", stop))
		if l.from < at {
			t.Fatalf("life %d: begins at %d, but %d was durable", kill, l.from, at)
		}
		// Each life goes its share of what is left on the average, and is killed
		// in whatever it does a moment later.
		share := 2 * (last - l.from) / uint64(kills-kill+2)
		if !l.reach(min(stop, max(l.from+1, l.from+rng.Uint64N(share+1)))) {
			t.Fatalf("life %d: ended by itself at %d of %d", kill, l.at, last)
		}
		l.kill(t, time.Duration(rng.Int64N(int64(40*time.Millisecond))))
		t.Logf("life %d: from %d to %d of %d in %d commits, killed after %s", kill, l.from, l.at, last, l.commits, time.Since(l.began).Round(time.Millisecond))
		at = l.at
	}
	l = begin(t, troubled)
	l.end(t)
	t.Logf("life %d: from %d to the end; all of them took %.1f s", kills+1, l.from, time.Since(began).Seconds())

	want, got := look(t, quiet), look(t, troubled)
	t.Logf("undisturbed, there are %s", want.summary())
	for _, sign := range []string{"listed", "ended", "captcha", "fleet", "range", "validated", "struck", "twitched", "evidence gone"} {
		if want.signs[sign] == 0 {
			t.Errorf("the test did not test: nothing of kind %q happened", sign)
		}
	}
	for _, problem := range want.differences(got) {
		t.Error(problem)
	}
}

// life is one run of the process that judges.
type life struct {
	cmd     *exec.Cmd
	said    *bufio.Scanner
	began   time.Time
	from    uint64 // the position that it began at
	at      uint64 // the last position that it said was durable
	commits int
}

// begin starts a life and waits until it knows what was durable before it.
func begin(t *testing.T, dir string, env ...string) *life {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	l := &life{cmd: exec.CommandContext(ctx, os.Args[0], "-test.run=^TestReplayAfterKill$"), began: time.Now()}
	l.cmd.Env = append(append(os.Environ(), replayDir+"="+dir), env...)
	l.cmd.Stderr = os.Stderr
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.said = bufio.NewScanner(out)
	for l.said.Scan() {
		if n, _ := fmt.Sscanf(l.said.Text(), "from %d", &l.from); n == 1 {
			l.at = l.from
			return l
		}
		t.Log(l.said.Text())
	}
	t.Fatalf("the judge did not begin: %v", l.cmd.Wait())
	return nil
}

// reach follows a life until it has come to a position, and is false when it
// ended before.
func (l *life) reach(position uint64) bool {
	for l.at < position && l.said.Scan() {
		if n, _ := fmt.Sscanf(l.said.Text(), "at %d", &l.at); n == 1 {
			l.commits++
		}
	}
	return l.at >= position
}

// end waits until a life has ended by itself, as it should.
func (l *life) end(t *testing.T) {
	t.Helper()
	l.reach(^uint64(0))
	if err := l.cmd.Wait(); err != nil {
		t.Fatalf("the judge at position %d: %v", l.at, err)
	}
}

// kill ends a life after a moment.
func (l *life) kill(t *testing.T, after time.Duration) {
	t.Helper()
	<-time.After(after)
	if err := l.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	l.reach(^uint64(0)) // what it said meanwhile
	var exit *exec.ExitError
	if err := l.cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("expected that the judge is killed at position %d, got %v", l.at, err)
	}
}

// judgeLog judges the log in dir until its end. It says on the standard output
// from where it begins and, after each commit, how far it is.
func judgeLog(ctx context.Context, dir string, limit int, stop uint64) error {
	db, err := store.Open(ctx, databaseIn(dir), store.Options{})
	if err != nil {
		return err
	}
	defer db.Close()
	positions, err := db.Positions(ctx)
	if err != nil {
		return err
	}
	from := slices.Max(positions[:])
	bus, err := stream.Open(ctx, stream.Config{Dir: filepath.Join(dir, "stream"), Floor: from})
	if err != nil {
		return err
	}
	defer bus.Close()
	last, err := bus.Last(ctx)
	if err != nil {
		return err
	}
	fmt.Println("from", from)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	committed := func(position uint64) {
		fmt.Println("at", position)
		if position == last { // which is of one record
			cancel()
		}
	}
	taxonomy := policy.BuiltInTaxonomy()
	var scenarios []string
	taxonomy.All(func(scenario string, _ policy.Prior) bool {
		scenarios = append(scenarios, scenario)
		return true
	})
	slices.Sort(scenarios)
	return jury.New(jury.Config{
		Open: func(ctx context.Context, from [muster.Partitions]uint64) (jury.Reader, error) {
			var all []uint8
			for p := range uint8(muster.Partitions) {
				all = append(all, p)
			}
			r, err := bus.Read(ctx, all, from)
			return sips{r, limit, stop}, err
		},
		Ledger: judgeLedger{db, committed}, Partition: ingest.SourcePartition, Parameters: crowd.Default(),
		Prior: func(scenario string) crowd.Prior {
			p := taxonomy.Of(scenario)
			return crowd.Prior{Confidence: p.Confidence, Spoofable: p.Spoofable}
		},
		Scenarios: scenarios, Truth: knownTruth(),
		Member:  func(machine, _ string) bool { return machine != stranger },
		Changed: func() {},
		// Long before the log, so that the clock never goes on by itself.
		Now:    func() time.Time { return time.Unix(1, 0) },
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}).Run(ctx)
}

// sips is a reader that takes a little at a time, until it has come so far.
type sips struct {
	jury.Reader
	limit int
	stop  uint64
}

func (s sips) Next(ctx context.Context, limit int) ([]muster.Entry, error) {
	if s.Position() >= s.stop {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Reader.Next(ctx, min(limit, s.limit))
}

// judgeLedger gives the judge its view of the database.
type judgeLedger struct {
	*store.DB
	committed func(position uint64)
}

func (l judgeLedger) Commit(ctx context.Context, fn func(jury.Tx) error) error {
	at := uint64(0)
	err := l.Tally(ctx, func(tx *store.TallyTx) error { return fn(judgeTx{tx, &at}) })
	if err == nil {
		l.committed(at)
	}
	return err
}

func (judgeLedger) Reports(context.Context, string, string, time.Time, int) ([]muster.Signal, error) {
	return nil, errors.New("nobody deletes decisions here")
}

type judgeTx struct {
	*store.TallyTx
	at *uint64
}

func (t judgeTx) PutVerdicts(vs []muster.Verdict) error {
	parts := make([]uint8, len(vs))
	for i := range vs {
		parts[i] = ingest.SourcePartition(vs[i].Source)
	}
	return t.TallyTx.PutVerdicts(parts, vs)
}

func (t judgeTx) Advance(partition uint8, from, to uint64) error {
	*t.at = max(*t.at, to)
	return t.TallyTx.Advance(partition, from, to)
}

func databaseIn(dir string) string { return "sqlite:" + filepath.Join(dir, "muster.db") }

// picture is what a database holds, but for the stamps of the changelog, which
// are the clock's.
type picture struct {
	rows  map[string][]string // by kind, a line each
	signs map[string]int      // of what happened
	kept  map[muster.Source]bool
}

func (p *picture) add(kind, format string, args ...any) {
	p.rows[kind] = append(p.rows[kind], fmt.Sprintf(format, args...))
}

func look(t *testing.T, dir string) picture {
	t.Helper()
	db, err := store.Open(t.Context(), databaseIn(dir), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	p := picture{map[string][]string{}, map[string]int{}, map[muster.Source]bool{}}
	for _, read := range []func(context.Context, *store.DB) error{p.verdicts, p.trust, p.evidence, p.alerts} {
		if err := read(t.Context(), db); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *picture) verdicts(ctx context.Context, db *store.DB) error {
	var last []muster.Verdict
	err := db.EachVerdict(ctx, false, func(v muster.Verdict) error {
		last = append(last, v)
		return nil
	})
	if err != nil {
		return err
	}
	for _, v := range last {
		p.sign(v)
		v.Changed = time.Time{}
		p.add("verdicts", "%+v", v)
		made, err := db.VerdictHistory(ctx, v.Source, v.Audience, 1000)
		if err != nil {
			return err
		}
		for i, v := range made {
			p.sign(v)
			v.Changed = time.Time{}
			p.add("history", "%d of %d: %+v", i+1, len(made), v)
		}
	}
	return nil
}

// sign counts what a verdict shows.
func (p *picture) sign(v muster.Verdict) {
	switch {
	case !v.Listed:
		p.signs["ended"]++
	case v.Audience != muster.Network:
		p.signs["fleet"]++
	case v.Remedy == muster.RemedyCaptcha:
		p.signs["captcha"]++
	case v.Reasons.Basis == "range":
		p.signs["range"]++
	default:
		p.signs["listed"]++
	}
}

func (p *picture) trust(ctx context.Context, db *store.DB) error {
	err := db.EachNumber(ctx, func(n muster.Number) error { p.add("numbers", "%+v", n); return nil })
	if err != nil {
		return err
	}
	var known []uint32
	err = db.EachTrust(ctx, func(r muster.TrustRow) error {
		known = append(known, r.Machine)
		p.add("trust", "machine %d, rank %d, changed %s: %x", r.Machine, r.Rank, r.Changed, r.Data)
		return nil
	})
	if err != nil {
		return err
	}
	for _, machine := range append(known, 0) { // 0: of behaviours
		events, err := db.TrustEvents(ctx, machine, time.Time{}, 1000)
		if err != nil {
			return err
		}
		for _, e := range events {
			p.signs[e.Kind]++
			p.add("trust events", "%+v", e)
		}
	}
	err = db.EachBehaviour(ctx, func(r muster.BehaviourRow) error { p.add("behaviours", "%d: %x", r.Behaviour, r.Data); return nil })
	if err != nil {
		return err
	}
	epoch, data, err := db.Epoch(ctx)
	p.add("epoch", "%d: %s", epoch, data)
	return err
}

func (p *picture) evidence(ctx context.Context, db *store.DB) error {
	return db.EachEvidence(ctx, func(r muster.EvidenceRow) error {
		p.kept[r.Source] = true
		p.add("evidence", "partition %d, %s, %s: %x", r.Partition, r.Source, r.Last, r.Data)
		return nil
	})
}

func (p *picture) alerts(ctx context.Context, db *store.DB) error {
	positions, err := db.Positions(ctx)
	if err != nil {
		return err
	}
	p.add("positions", "%d", positions)
	for q := (store.AlertQuery{}); ; {
		page, err := db.Alerts(ctx, q)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, s := range page {
			if s.Machine != stranger && s.Flags&(muster.Counts|muster.Fleet) != 0 && !p.kept[jury.SubjectOf(s.Source)] {
				p.signs["evidence gone"]++
			}
			p.add("alerts", "%x, %s, %s, received %s", s.ID, s.Machine, s.Source, s.Received)
		}
		q.After = store.CursorAfter(page[len(page)-1])
	}
}

func (p *picture) summary() string {
	var words []string
	for _, kind := range slices.Sorted(maps.Keys(p.rows)) {
		words = append(words, fmt.Sprint(len(p.rows[kind]), " ", kind))
	}
	for _, sign := range slices.Sorted(maps.Keys(p.signs)) {
		words = append(words, fmt.Sprint(p.signs[sign], "x ", sign))
	}
	return strings.Join(words, ", ")
}

// differences says in what another picture differs, some examples of each kind.
func (p *picture) differences(other picture) (problems []string) {
	for _, kind := range slices.Sorted(maps.Keys(p.rows)) {
		want, got := p.rows[kind], other.rows[kind]
		if slices.Equal(want, got) {
			continue
		}
		missing, extra := without(want, got), without(got, want)
		problems = append(problems, fmt.Sprintf("%s: of %d undisturbed and %d after kills, these differ:\n%d undisturbed:\n%s\n%d after kills:\n%s",
			kind, len(want), len(got), len(missing), strings.Join(missing[:min(4, len(missing))], "\n"), len(extra), strings.Join(extra[:min(4, len(extra))], "\n")))
	}
	return problems
}

// without returns the lines of a that b does not have.
func without(a, b []string) (rest []string) {
	have := make(map[string]bool, len(b))
	for _, line := range b {
		have[line] = true
	}
	for _, line := range a {
		if !have[line] {
			rest = append(rest, line)
		}
	}
	return rest
}
