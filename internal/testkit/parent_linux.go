package testkit

import (
	"os/exec"
	"syscall"
)

// dieWithParent ends cmd when the test binary is killed, for then no clean-up
// of its own runs.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
