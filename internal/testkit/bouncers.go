package testkit

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// GoBouncer returns a bouncer made of CrowdSec's Go library; test/peers/bouncer
// says what it does.
func GoBouncer(t testing.TB) string {
	t.Helper()
	return peer(t, "build", "bin", "bouncer")
}

// DebianBouncer returns one of Debian's: crowdsec-custom-bouncer or
// crowdsec-firewall-bouncer.
func DebianBouncer(t testing.TB, name string) string {
	t.Helper()
	return peer(t, "fetch-bouncers", "work", "bouncers", "usr", "bin", name)
}

// Nft returns a command of nft, which shows the rules of the network that it is
// run in.
func Nft(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	root := peer(t, "fetch-bouncers", "work", "bouncers")
	cmd := exec.Command(filepath.Join(root, "usr", "sbin", "nft"), args...)
	libs, err := filepath.Glob(filepath.Join(root, "usr", "lib", "*-linux-*"))
	if err != nil || len(libs) != 1 {
		t.Fatalf("expected one folder with the libraries of nft under %s, got %v, %v", root, libs, err)
	}
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+libs[0])
	return cmd
}
