//go:build unix

package swarm

import (
	"os/exec"
	"syscall"
)

// detach gives the child a process group of its own, so that an interrupt from
// the terminal reaches the generator only, which then stops the child itself.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
