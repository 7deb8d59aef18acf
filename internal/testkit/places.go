package testkit

import (
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Root returns the project's folder.
func Root(t testing.TB) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("testkit: where is the source?")
	}
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Shared returns the path of something in the shared folder (../shared, or
// MUSTER_SHARED), and skips the test where there is none.
func Shared(t testing.TB, elem ...string) string {
	t.Helper()
	dir := os.Getenv("MUSTER_SHARED")
	if dir == "" {
		dir = filepath.Join(Root(t), "..", "shared")
	}
	path := filepath.Join(append([]string{dir}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the shared data is not here: %v", err)
	}
	return path
}

// peer returns the path of something that a script in test/peers makes.
func peer(t testing.TB, script string, elem ...string) string {
	t.Helper()
	path := filepath.Join(append([]string{Root(t), "test", "peers"}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" || os.Getenv("MUSTER_E2E") != "" {
			t.Fatalf("a real engine is missing, run test/peers/%s: %v", script, err)
		}
		t.Skipf("a real engine is missing, run test/peers/%s or make e2e: %v", script, err)
	}
	return path
}

// build is the muster binary, made once for all tests of a process.
var build struct {
	sync.Once
	dir, path string
	err       error
	out       []byte
}

// MusterBinary builds cmd/muster. The package's TestMain calls RemoveMuster at
// its end.
func MusterBinary(t testing.TB) string {
	t.Helper()
	build.Do(func() {
		if build.dir, build.err = os.MkdirTemp("", "muster-bin-"); build.err != nil {
			return
		}
		build.path = filepath.Join(build.dir, "muster")
		cmd := exec.Command("go", "build", "-o", build.path, "./cmd/muster")
		cmd.Dir = Root(t)
		build.out, build.err = cmd.CombinedOutput()
	})
	if build.err != nil {
		t.Fatalf("building muster: %v\n%s", build.err, build.out)
	}
	return build.path
}

// RemoveMuster removes what MusterBinary made.
func RemoveMuster() {
	if build.dir != "" {
		os.RemoveAll(build.dir)
	}
}

// given are the ports that FreeAddr has returned.
var given struct {
	sync.Mutex
	ports map[int]bool
}

// FreeAddr returns a loopback address that nobody listens on, and that it has
// not returned before. It is not of the ports that systems choose themselves
// (on Linux from 32768 on), so that none is taken before it is used.
func FreeAddr(t testing.TB) string {
	t.Helper()
	given.Lock()
	defer given.Unlock()
	if given.ports == nil {
		given.ports = map[int]bool{}
	}
	for range 1000 {
		port := 15_000 + rand.IntN(15_000)
		if given.ports[port] {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		given.ports[port] = true
		return l.Addr().String()
	}
	t.Fatal("no port is free")
	return ""
}

// Eventually calls try until it returns "", and fails the test with what it
// returned last when that takes longer than limit.
func Eventually(t testing.TB, limit time.Duration, what string, try func() string) {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		last := try()
		if last == "" {
			t.Logf("%s: after %s", what, time.Since(start).Round(10*time.Millisecond))
			return
		}
		if time.Since(start) > limit {
			t.Fatalf("%s: not within %s: %s", what, limit, last)
		}
		<-tick.C
	}
}
