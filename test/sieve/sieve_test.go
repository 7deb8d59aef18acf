// Package sieve_test runs the sieve's intake and spool on their real log and
// database, in a process of its own that is killed.
package sieve_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster"
	"muster/internal/sieve"
	"muster/internal/spool"
	"muster/internal/store"
	"muster/internal/stream"
	"muster/internal/upstream"
)

const (
	childDir      = "SIEVE_TEST_DIR"
	childUpstream = "SIEVE_TEST_UPSTREAM"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir, os.Getenv(childUpstream)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// parts is a sieve without its configuration.
type parts struct {
	handler   http.Handler
	intake    *spool.Intake
	forwarder *spool.Forwarder
}

func open(ctx context.Context, dir, central string) (*parts, func(), error) {
	db, err := store.Open(ctx, "sqlite:"+filepath.Join(dir, "sieve.db"), store.Options{})
	if err != nil {
		return nil, nil, err
	}
	bus, err := stream.Open(ctx, stream.Config{Dir: filepath.Join(dir, "stream"), Section: "spool"})
	if err != nil {
		return nil, nil, err
	}
	vault, err := spool.OpenVault(ctx, db, filepath.Join(dir, "tokens.key"))
	if err != nil {
		return nil, nil, err
	}
	base, err := url.Parse(central)
	if err != nil {
		return nil, nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	p := &parts{
		intake: spool.NewIntake(spool.IntakeConfig{Log: bus, Now: time.Now, Logger: quiet}),
		forwarder: spool.New(spool.Config{
			Read: func(ctx context.Context, partitions []uint8, from [muster.Partitions]uint64) (spool.Reader, error) {
				return bus.Read(ctx, partitions, from)
			},
			Store: db, Vault: vault, Upstream: spool.NewHTTP(spool.HTTPConfig{Base: base, Timeout: 5 * time.Second}),
			Backoff: upstream.Backoff{Base: 50 * time.Millisecond, Cap: time.Second}, Now: time.Now, Logger: quiet,
		}),
	}
	p.handler = sieve.NewSignals(sieve.SignalsConfig{Log: p.intake, Tokens: vault, Now: time.Now, Logger: quiet})
	ctx, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { _ = p.intake.Run(ctx) }) // has no errors
	work.Go(func() {
		if err := p.forwarder.Run(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "forwarder:", err)
		}
	})
	return p, func() { stop(); work.Wait(); bus.Close(); _ = db.Close() }, nil
}

// child serves until its parent kills it or is gone.
func child(dir, central string) error {
	p, closed, err := open(context.Background(), dir, central)
	if err != nil {
		return err
	}
	defer closed()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() { _ = http.Serve(l, p.handler) }()
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// central counts a signal once per machine and uuid, as a Central API does, and
// fails as it is told.
type central struct {
	down atomic.Bool

	mu      sync.Mutex
	rng     *rand.Rand // nil: nothing fails
	order   map[string][]string
	seen    map[string]bool
	repeats int
}

func newCentral(rng *rand.Rand) *central {
	return &central{rng: rng, order: map[string][]string{}, seen: map[string]bool{}}
}

func (c *central) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if c.down.Load() {
		panic(http.ErrAbortHandler)
	}
	src := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, `{"message":"bad gzip"}`, http.StatusBadRequest)
			return
		}
		src = z
	}
	var items []struct{ UUID string }
	if err := json.NewDecoder(src).Decode(&items); err != nil {
		http.Error(w, `{"message":"bad JSON"}`, http.StatusBadRequest)
		return
	}
	id, _ := spool.Identify(r.Header.Get("Authorization"))
	fate := c.take(id.Machine, items)
	switch fate {
	case 0: // taken, and the connection breaks before the answer
		panic(http.ErrAbortHandler)
	case 1:
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	case 2:
		w.WriteHeader(http.StatusInternalServerError)
	default:
		_, _ = io.WriteString(w, `{"message":"OK"}`)
	}
}

// take decides what becomes of a call; of 1 and 2 nothing is kept.
func (c *central) take(machine string, items []struct{ UUID string }) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	fate := 9
	if c.rng != nil {
		fate = c.rng.IntN(12)
	}
	if fate == 1 || fate == 2 {
		return fate
	}
	for _, it := range items {
		if key := machine + " " + it.UUID; c.seen[key] {
			c.repeats++
		} else {
			c.seen[key] = true
			c.order[machine] = append(c.order[machine], it.UUID)
		}
	}
	return fate
}

func (c *central) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seen)
}

func authorization(machine string) string {
	claims := fmt.Sprintf(`{"machine_id":%q,"exp":%d}`, machine, time.Now().Add(time.Hour).Unix())
	return "Bearer eyJhbGciOiJIUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

// request is one batch as an engine sends it, gzipped.
func request(machine string, batch, signals int) (body []byte, uuids []string) {
	var plain bytes.Buffer
	for i := range signals {
		uuid := fmt.Sprintf("%s-%d-%d", machine, batch, i)
		uuids = append(uuids, uuid)
		fmt.Fprintf(&plain, `,{"uuid":%q,"scenario":"crowdsecurity/ssh-bf","scenario_hash":"4441dcff07020f6690d998b7101e642359ba405c2abb83565bbbdcee36de280f","scenario_version":"0.3","scenario_trust":"certified","kind":"crowdsec","message":"Ip 35.188.49.%d performed 'crowdsecurity/ssh-bf' (6 events over 2.1s)","machine_id":"7b1c","start_at":"2026-11-21T07:51:44.123456789Z","stop_at":"2026-11-21T07:51:46.2Z","source":{"scope":"Ip","value":"35.188.49.%d","ip":"35.188.49.%d","cn":"US","as_name":"GOOGLE-CLOUD-PLATFORM","as_number":"396982","latitude":37.7,"longitude":-97.8},"context":[{"key":"target_user","value":"[\"admin%d\",\"root\"]"}],"decisions":[{"uuid":"d-%s","id":0,"origin":"crowdsec","duration":"4h","scope":"Ip","type":"ban","value":"35.188.49.%d","scenario":"crowdsecurity/ssh-bf"}]}`,
			uuid, i%250, i%250, i%250, batch, uuid, i%250)
	}
	raw := plain.Bytes()
	raw[0] = '['
	raw = append(raw, ']')
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(raw)
	_ = z.Close()
	return packed.Bytes(), uuids
}

func post(client *http.Client, address, token string, body []byte) error {
	r, err := http.NewRequest(http.MethodPost, "http://"+address+"/v3/signals", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", token)
	r.Header.Set("Content-Encoding", "gzip")
	r.Header.Set("User-Agent", "crowdsec/v1.7.8-linux")
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, answer)
	}
	return err
}

// process is a sieve in a process of its own.
type process struct {
	cmd     *exec.Cmd
	address string
}

func start(t *testing.T, dir, central string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, childUpstream+"="+central)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd}
	t.Cleanup(func() { _ = stdin.Close(); p.kill() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the sieve did not start: %v", err)
	}
	p.address = strings.TrimSpace(line)
	return p
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// Every acknowledged signal arrives upstream once and in order, though the
// upstream fails and goes away, and the sieve is killed again and again.
func TestKilledSieve(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes for some seconds")
	}
	up := newCentral(rand.New(rand.NewPCG(7, 11)))
	server := httptest.NewServer(up)
	defer server.Close()
	dir := t.TempDir()
	var (
		mu      sync.Mutex
		acked   = map[string][]string{}
		address string
	)
	sieve := start(t, dir, server.URL)
	address = sieve.address
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var engines sync.WaitGroup
	for e := range 6 {
		engines.Go(func() {
			machine := fmt.Sprintf("machine%d", e)
			token, client := authorization(machine), &http.Client{Timeout: 5 * time.Second}
			for batch := 0; ctx.Err() == nil; batch++ {
				body, uuids := request(machine, batch, 20)
				mu.Lock()
				to := address
				mu.Unlock()
				if post(client, to, token, body) != nil { // lost by the engine, as real ones do; it may have arrived
					select {
					case <-time.After(20 * time.Millisecond):
					case <-ctx.Done():
					}
					continue
				}
				mu.Lock()
				acked[machine] = append(acked[machine], uuids...)
				mu.Unlock()
			}
		})
	}
	// more waits for the engines to have sent so much more.
	more := func(signals int) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		goal := count(acked) + signals
		for deadline := time.Now().Add(60 * time.Second); count(acked) < goal; {
			if time.Now().After(deadline) {
				t.Fatalf("%d signals were acknowledged, expected %d", count(acked), goal)
			}
			mu.Unlock()
			time.Sleep(5 * time.Millisecond)
			mu.Lock()
		}
	}
	for round := range 5 {
		more(600)
		up.down.Store(round%2 == 1)
		more(400)
		sieve.kill()
		sieve = start(t, dir, server.URL)
		mu.Lock()
		address = sieve.address
		mu.Unlock()
	}
	up.down.Store(false)
	stop()
	engines.Wait()

	total := count(acked)
	for deadline := time.Now().Add(90 * time.Second); missing(up, acked) != ""; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d acknowledged, %d arrived: %s", total, up.count(), missing(up, acked))
		}
	}
	t.Logf("%d acknowledged, %d arrived, %d were sent again", total, up.count(), up.repeats)
}

func count(acked map[string][]string) (n int) {
	for _, list := range acked {
		n += len(list)
	}
	return n
}

// missing says what was acknowledged and is not upstream in its order.
func missing(up *central, acked map[string][]string) string {
	up.mu.Lock()
	defer up.mu.Unlock()
	for machine, want := range acked {
		got := up.order[machine]
		at := 0
		for _, uuid := range want {
			for at < len(got) && got[at] != uuid {
				at++ // of a batch that was not acknowledged
			}
			if at == len(got) {
				return uuid + " is missing, or not in its order"
			}
		}
	}
	return ""
}

// BenchmarkIntake is the way over HTTP to the disk, the forwarder at work beside
// it: 32 connections send 50 gzipped signals each; senders, sieve and upstream
// share the processors.
func BenchmarkIntake(b *testing.B) {
	up := newCentral(nil)
	server := httptest.NewServer(up)
	defer server.Close()
	p, closed, err := open(b.Context(), b.TempDir(), server.URL)
	if err != nil {
		b.Fatal(err)
	}
	defer closed()
	front := httptest.NewServer(p.handler)
	defer front.Close()
	address := strings.TrimPrefix(front.URL, "http://")
	bodies := make([][]byte, 64)
	tokens := make([]string, len(bodies))
	for i := range bodies {
		machine := fmt.Sprintf("m%d", i)
		bodies[i], _ = request(machine, i, 50)
		tokens[i] = authorization(machine)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	var next atomic.Int64
	b.SetParallelism(16)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := int(next.Add(1)) % len(bodies)
			if err := post(client, address, tokens[i], bodies[i]); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(50*b.N)/b.Elapsed().Seconds(), "signals/s")
	s := p.forwarder.Status()
	b.ReportMetric(float64(50*b.N-s.Depth)/b.Elapsed().Seconds(), "forwarded/s")
	client.CloseIdleConnections()
}
