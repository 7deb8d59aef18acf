// Package crash kills a real Muster with SIGKILL at random moments while it is
// under load, and then looks whether what it had acknowledged is there, once.
package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster/internal/swarm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	connections = 8   // each is a machine of its own
	perRound    = 150 // batches that one connection makes per life of the server at most
)

// TestKill lives 20 lives (4 with -short, or MUSTER_CRASH_ROUNDS). In each, eight
// machines push as fast as they can until the server is killed; the next life
// begins with resending: what was not acknowledged, and some of what was.
// MUSTER_CRASH_SEED repeats the moments of an earlier run as far as the machine
// lets it.
func TestKill(t *testing.T) {
	rounds := number(t, "MUSTER_CRASH_ROUNDS", 20)
	if testing.Short() && os.Getenv("MUSTER_CRASH_ROUNDS") == "" {
		rounds = 4
	}
	seed := uint64(number(t, "MUSTER_CRASH_SEED", int(time.Now().UnixNano())))
	t.Logf("%d rounds, MUSTER_CRASH_SEED=%d", rounds, seed)
	rng := rand.New(rand.NewPCG(seed, 0))

	dir := t.TempDir()
	cfg := swarm.ServerConfig{Binary: build(t, dir), DataDir: filepath.Join(dir, "data"), Log: filepath.Join(dir, "log")}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(cfg.Log)
			t.Logf("the end of the server's log:\n%s", log[max(0, len(log)-8000):])
		}
	})
	server := start(t, cfg)
	cfg.Listen = server.Listen
	book := newLedger()
	clients := enrol(t, server, book, seed)

	for round := 1; round <= rounds; round++ {
		after := time.Duration(rng.Int64N(int64(400 * time.Millisecond)))
		first, acked := live(t, server, clients, round, after)
		t.Logf("round %d: ready after %s, first acknowledgement %s later, killed %s later, %d batches acknowledged",
			round, server.Ready.Round(time.Millisecond), first.Round(time.Millisecond), after.Round(time.Millisecond), acked)
		if rng.IntN(3) == 0 {
			killWhileStarting(t, cfg, time.Duration(rng.Int64N(int64(150*time.Millisecond))))
		}
		server = start(t, cfg)
	}
	// The last life is not cut short: what it is sent again arrives.
	for _, c := range clients {
		c.begin(rounds + 1)
		c.resendAll(t)
	}
	verify(t, server, book)
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
}

// live runs one life: all clients push until the server is killed, after past
// the first acknowledgement. It returns how long that took to come, and how
// many batches were acknowledged.
func live(t *testing.T, server *swarm.Server, clients []*client, round int, after time.Duration) (wait time.Duration, acked int) {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	first := make(chan struct{})
	var once sync.Once
	var group sync.WaitGroup
	for _, c := range clients {
		c.begin(round)
		group.Go(func() { c.push(ctx, func() { once.Do(func() { close(first) }) }) })
	}
	ended := make(chan struct{})
	go func() { group.Wait(); close(ended) }()
	select {
	case <-first:
	case <-ended: // each says below why
	case <-ctx.Done():
		t.Error("nothing was acknowledged within a minute")
	}
	wait = time.Since(began)
	moment := time.NewTimer(after)
	defer moment.Stop()
	<-moment.C
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	for _, c := range clients {
		if c.failed != nil {
			t.Fatalf("round %d: machine %s: %v", round, c.watcher.Machine, c.failed)
		}
		acked += c.acked
	}
	if acked == 0 {
		t.Fatalf("round %d: nothing was acknowledged", round)
	}
	return wait, acked
}

// killWhileStarting ends a life before it has really begun, in the middle of
// recovery.
func killWhileStarting(t *testing.T, cfg swarm.ServerConfig, after time.Duration) {
	t.Helper()
	server, err := swarm.Launch(cfg)
	if err != nil {
		t.Fatal(err)
	}
	moment := time.NewTimer(after)
	defer moment.Stop()
	<-moment.C
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	t.Logf("killed again %s after its start", after.Round(time.Millisecond))
}

func start(t *testing.T, cfg swarm.ServerConfig) *swarm.Server {
	t.Helper()
	server, err := swarm.StartServer(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Kill() })
	return server
}

// enrol makes the machines, whose accounts and tokens then have to outlive
// every crash.
func enrol(t *testing.T, server *swarm.Server, book *ledger, seed uint64) []*client {
	t.Helper()
	key, err := server.EnrolmentKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	target, err := swarm.ParseTarget(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	sources := swarm.NewSources(5000, 1.1, seed)
	var clients []*client
	for i := range connections {
		c := &client{
			watcher: swarm.NewWatcher(seed, i),
			conn:    swarm.NewConn(target),
			feed:    swarm.NewFeed(sources, [2]uint64{seed, uint64(i)}),
			rng:     rand.New(rand.NewPCG(seed, uint64(1000+i))),
			book:    book,
		}
		t.Cleanup(c.conn.Close)
		if err := c.watcher.Join(t.Context(), c.conn, key); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	return clients
}

// build makes the program under test, unless MUSTER_BINARY names one.
func build(t *testing.T, dir string) string {
	t.Helper()
	if binary := os.Getenv("MUSTER_BINARY"); binary != "" {
		return binary
	}
	binary := filepath.Join(dir, "muster")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "muster/cmd/muster").CombinedOutput()
	if err != nil {
		t.Fatalf("building muster: %v\n%s", err, out)
	}
	return binary
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s: expected a number over 0, got %q", name, text)
	}
	return n
}

// verify waits until everything accepted is stored and compares.
func verify(t *testing.T, server *swarm.Server, book *ledger) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	took, err := server.AwaitCounted(ctx)
	if err != nil {
		t.Fatal(err)
	}
	out, err := server.Admin(ctx, "alert", "list", "--json", "--all")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := readStored(out)
	if err != nil {
		t.Fatal(err)
	}
	known, acked, again := book.counts()
	t.Logf("%d signals sent, %d of them acknowledged, %d more than once; %d stored, the last %.1f s after the load",
		known, acked, again, len(stored), took.Seconds())
	if acked == 0 || again == 0 || acked == known {
		t.Error("the test did not test: expected acknowledged, unacknowledged and repeated signals")
	}
	for _, problem := range book.audit(stored) {
		t.Error(problem)
	}
	status, err := server.Admin(ctx, "status", "--json")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := storedCount(status); err != nil || n != len(stored) {
		t.Errorf("muster admin status counts %d alerts (%v), the list has %d", n, err, len(stored))
	}
}

// client is one machine with one connection.
type client struct {
	watcher *swarm.Watcher
	conn    *swarm.Conn
	feed    *swarm.Feed
	rng     *rand.Rand
	book    *ledger

	round  int
	again  []*batch // to be sent again first
	done   []*batch // acknowledged in this life
	open   []*batch // not acknowledged in this life
	acked  int
	failed error
}

// batch is one request as it was sent.
type batch struct {
	body    []byte
	gzipped bool
	ids     []signalID
}

// begin starts a life: of what the last one left unacknowledged one half is
// sent again and the other never, and of what it acknowledged three are.
func (c *client) begin(round int) {
	c.again = nil
	for _, b := range c.open {
		if c.rng.IntN(2) == 0 {
			c.again = append(c.again, b)
		}
	}
	for range min(3, len(c.done)) {
		c.again = append(c.again, c.done[c.rng.IntN(len(c.done))])
	}
	c.round, c.done, c.open, c.acked = round, nil, nil, 0
}

// push sends until the server goes away.
func (c *client) push(ctx context.Context, acknowledged func()) {
	for range perRound {
		if err := c.send(ctx, c.next()); err != nil {
			return // killed: whether the last one arrived nobody knows
		}
		if c.failed != nil {
			return
		}
		acknowledged()
	}
}

// next returns a batch to repeat, or a new one of 1 to 50 signals.
func (c *client) next() *batch {
	if n := len(c.again); n > 0 {
		b := c.again[n-1]
		c.again = c.again[:n-1]
		return b
	}
	body, gzipped := c.feed.Pack(c.feed.Batch(1+c.rng.IntN(50), c.watcher.Machine, time.Now()))
	b := &batch{body: append([]byte(nil), body...), gzipped: gzipped}
	for _, uuid := range c.feed.UUIDs() {
		b.ids = append(b.ids, idOf(c.watcher.Machine, uuid.String()))
	}
	return b
}

// send sends b and books what came of it. The error is the connection's; an
// answer other than that all was accepted is the server's failure.
func (c *client) send(ctx context.Context, b *batch) error {
	c.book.sent(b.ids, c.round)
	res, err := c.conn.Do(ctx, c.watcher.SignalsRequest(b.body, b.gzipped))
	switch {
	case err != nil:
		c.open = append(c.open, b)
		return err
	case swarm.Accepted(&res):
		c.book.acknowledged(b.ids)
		c.done = append(c.done, b)
		c.acked++
	default:
		c.open = append(c.open, b)
		c.failed = fmt.Errorf("expected that the batch is accepted, got status %d: %s", res.Status, res.Body)
	}
	return nil
}

// resendAll sends what begin chose, to a server that stays.
func (c *client) resendAll(t *testing.T) {
	t.Helper()
	for len(c.again) > 0 {
		if err := c.send(t.Context(), c.next()); err != nil || c.failed != nil {
			t.Fatalf("machine %s, resending: %v %v", c.watcher.Machine, err, c.failed)
		}
	}
}
