//go:build !linux

package swarm

import "time"

// sleepUntil waits for t, as precisely as the runtime's timers are.
func sleepUntil(t time.Time) { time.Sleep(time.Until(t)) }
