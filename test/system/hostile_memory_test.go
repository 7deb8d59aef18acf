package system

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/internal/roles"
)

// sendEndless writes a head and a body of size spaces, as far as the server
// takes it, and reads the answer meanwhile.
func sendEndless(t *testing.T, s *server, head string, chunked bool, size int) answer {
	t.Helper()
	conn, err := net.Dial("tcp", s.cfg.Listen)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	piece := bytes.Repeat([]byte(" "), 64<<10)
	if chunked {
		piece = append(append([]byte("10000\r\n"), piece...), "\r\n"...)
	}
	var writing sync.WaitGroup
	defer writing.Wait()
	defer conn.Close()
	writing.Go(func() {
		_, err := io.WriteString(conn, head)
		for n := 0; err == nil && n < size; n += 64 << 10 {
			_, err = conn.Write(piece) // fails when the server has had enough
		}
	})
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, req, resp)
}

// TestSlowBody sends a body that never ends: the request is given up in time,
// and its sender is told.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	v := newVictim(t, func(c *roles.Config) { c.Limits.RequestTimeout = time.Second })
	for _, path := range []string{"/v3/signals", "/v3/watchers/login"} {
		conn, err := net.Dial("tcp", v.cfg.Listen)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
			t.Fatal(err)
		}
		head := "POST " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + v.healthy.token + "\r\nContent-Length: 1000\r\n\r\n["
		if _, err := io.WriteString(conn, head); err != nil {
			t.Fatal(err)
		}
		v.unharmed(t)
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), req)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if a := readAnswer(t, req, resp).status(t, 400); !strings.Contains(a.problem(t), "in time") {
			t.Errorf("%s", a.body)
		}
		if !resp.Close {
			t.Error("the connection stays open with half of a body on it")
		}
	}
	v.unharmed(t)
}

// TestBombsDoNotFillMemory sends more bombs at once than memory is set aside
// for: bounded memory, 413 or 503 for the attacker, and everybody else works. It
// runs alone, because it looks at this process's memory.
func TestBombsDoNotFillMemory(t *testing.T) {
	const inFlight = 32 << 20
	v := newVictim(t, func(c *roles.Config) { c.Limits.InFlight = inFlight })
	attacker := v.member(t, engine146, v.organisation(t))
	payload := bomb()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var most atomic.Uint64
	var sampling sync.WaitGroup
	sampling.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most.Store(max(most.Load(), m.HeapInuse))
			<-tick.C
		}
	})
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)

	const parallel, rounds = 48, 2
	var mu sync.Mutex
	statuses := map[int]int{}
	var bombs sync.WaitGroup
	for i := range parallel {
		bombs.Go(func() {
			path := [...]string{"signals", "watchers/login", "metrics"}[i%3]
			for range rounds {
				a := hostile{path: path, body: payload, header: map[string]string{"Content-Encoding": "gzip"}}.send(t, attacker)
				if a.code == 503 && a.header.Get("Retry-After") == "" {
					t.Error("503 without Retry-After")
				}
				mu.Lock()
				statuses[a.code]++
				mu.Unlock()
			}
		})
	}
	bombs.Wait()
	stop()
	sampling.Wait()
	t.Logf("answers %v; heap %d MiB before, %d MiB at most", statuses, before.HeapInuse>>20, most.Load()>>20)
	if statuses[413]+statuses[503] != parallel*rounds || statuses[413] == 0 {
		t.Errorf("answers %v", statuses)
	}
	// All bombs at once would be 48 x 16 MiB; twice the budget and what the
	// garbage collector lags behind is less than half of that.
	if grown := int64(most.Load()) - int64(before.HeapInuse); grown > 320<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	v.unharmed(t)
}

// TestFullMemoryKeepsLoginsAndPulls fills the memory for bodies with uploads
// that stand still: signals are told to come back, logins and pulls go on.
func TestFullMemoryKeepsLoginsAndPulls(t *testing.T) {
	t.Parallel()
	v := newVictim(t, func(c *roles.Config) { c.Limits.InFlight, c.Limits.Decoded = 16<<20, 16<<20 })
	attacker := v.member(t, engine178, v.organisation(t))
	var conns []net.Conn
	stall := func(size int) {
		conn, err := net.Dial("tcp", v.cfg.Listen)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() }) // a second time
		conns = append(conns, conn)
		if _, err := fmt.Fprintf(conn, "POST /v3/signals HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
			attacker.token, size+1, strings.Repeat(" ", size)); err != nil {
			t.Fatal(err)
		}
	}
	push := func() answer { return v.healthy.post(t, "/signals", []signal{}) }
	stall(12 << 20)
	eventually(t, "full memory", func() string {
		stall(1)
		a := push()
		if a.code != 503 {
			return fmt.Sprintf("answered %d", a.code)
		}
		if a.header.Get("Retry-After") == "" || !strings.Contains(a.problem(t), "limits.inflight") {
			t.Fatalf("%v %s", a.header, a.body)
		}
		return ""
	})
	v.healthy.tryLogin(t).status(t, 200)
	v.healthy.pull(t, "?startup=true")
	v.registered(t, python)
	for _, conn := range conns {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "memory given back", func() string {
		if a := push(); a.code != 200 {
			return fmt.Sprintf("answered %d", a.code)
		}
		return ""
	})
	v.unharmed(t)
}

// bomb is gzip of a gigabyte of zeros, in about a megabyte: the same block over
// and over.
var bomb = sync.OnceValue(func() []byte {
	var buf bytes.Buffer
	buf.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255})
	w, err := flate.NewWriter(&buf, flate.BestCompression)
	if err != nil {
		panic(err) // the level is a valid one
	}
	zeros := make([]byte, 1<<20)
	for range 2 {
		if _, err := w.Write(zeros); err != nil {
			panic(err) // a bytes.Buffer takes everything
		}
		if err := w.Flush(); err != nil {
			panic(err)
		}
	}
	var block []byte // a megabyte of zeros after a megabyte of zeros
	mark := buf.Len()
	if _, err := w.Write(zeros); err != nil {
		panic(err)
	}
	if err := w.Flush(); err != nil {
		panic(err)
	}
	block = bytes.Clone(buf.Bytes()[mark:])
	for range 1021 {
		buf.Write(block)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return buf.Bytes()
})

func manyWords(n int) []string {
	words := make([]string, n)
	for i := range words {
		words[i] = fmt.Sprint("word", i)
	}
	return words
}

// TestBombIsABomb keeps the tests above from being about a broken file.
func TestBombIsABomb(t *testing.T) {
	t.Parallel()
	r := flate.NewReader(bytes.NewReader(bomb()[10:]))
	n, err := io.CopyN(io.Discard, r, 64<<20)
	if err != nil || n != 64<<20 || len(bomb()) > 2<<20 {
		t.Errorf("%d bytes give %d: %v", len(bomb()), n, err)
	}
}
