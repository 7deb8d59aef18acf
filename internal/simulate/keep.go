package simulate

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"muster/internal/crowd"
)

// keptAs returns the file in dir for a run: another scenario of the same name,
// or other parameters, have another.
func keptAs(dir string, s *Scenario, p crowd.Parameters, seed uint64) (string, error) {
	data, err := json.Marshal(struct {
		Scenario   *Scenario
		Parameters crowd.Parameters
	}{s, p})
	if err != nil {
		return "", fmt.Errorf("scenario %q: %w", s.Name, err)
	}
	hash := sha256.Sum256(data)
	return filepath.Join(dir, fmt.Sprintf("%s-%x-seed-%d.json", s.Name, hash[:4], seed)), nil
}

// recall reads the trace of a run that ended before; nil = there is none.
func recall(file string) (*Trace, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t := &Trace{}
	if err := json.Unmarshal(data, t); err != nil {
		return nil, fmt.Errorf("%s is not the trace of a run, delete it to run it again: %w", file, err)
	}
	return t, nil
}

// keep writes the trace of a run, whole or not at all.
func (t *Trace) keep(file string) error {
	data, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".part", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".part", file)
}

// run runs a scenario with one seed, unless dir knows what comes of it.
func (o *Outcome) run(ctx context.Context, dir string, seed uint64, tick func()) (*Trace, error) {
	if dir == "" {
		return once(ctx, o.scenario, o.parameters, seed, tick)
	}
	file, err := keptAs(dir, o.scenario, o.parameters, seed)
	if err != nil {
		return nil, err
	}
	t, err := recall(file)
	if err != nil {
		return nil, err
	}
	if t != nil {
		for range o.scenario.Days {
			tick()
		}
		return t, nil
	}
	if t, err = once(ctx, o.scenario, o.parameters, seed, tick); err != nil {
		return nil, err
	}
	return t, t.keep(file)
}
