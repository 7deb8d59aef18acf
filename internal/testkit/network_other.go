//go:build !linux

package testkit

import (
	"os/exec"
	"testing"
)

// Network is a network of its own, which only Linux can make.
type Network struct{ Addr string }

// NewNetwork skips the test.
func NewNetwork(t testing.TB, _ string) *Network {
	t.Skip("a network of its own needs Linux")
	return nil
}

// Start is StartProcess.
func (*Network) Start(t testing.TB, name string, cmd *exec.Cmd) *Process {
	return StartProcess(t, name, cmd)
}

// Output runs cmd.
func (*Network) Output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	return string(out), err
}
