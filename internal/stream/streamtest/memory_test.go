package streamtest

import (
	"context"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"muster/internal/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	var mu sync.Mutex
	disks := map[string]*Memory{}
	Run(t, func(_ context.Context, cfg stream.Config) (Bus, error) {
		mu.Lock()
		defer mu.Unlock()
		disk, err := NewMemory(cfg), error(nil)
		if old := disks[cfg.Dir]; old != nil {
			if disk, err = old.Reopen(cfg); err != nil {
				return nil, err
			}
		}
		disks[cfg.Dir] = disk
		return disk, nil
	})
}
