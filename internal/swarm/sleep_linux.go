package swarm

import (
	"syscall"
	"time"
)

// sleepUntil waits for t, which should be near: nothing wakes it before. The
// runtime's timers are late by up to a millisecond when the process is idle,
// and then precise under load, which would flatter the latter.
func sleepUntil(t time.Time) {
	for d := time.Until(t); d > 0; d = time.Until(t) {
		ts := syscall.NsecToTimespec(int64(d))
		_ = syscall.Nanosleep(&ts, nil) // interrupted: the loop sleeps the rest
	}
}
