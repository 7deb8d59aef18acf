package abuse

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"muster"
	"muster/internal/ratelimit"
)

// memory is a Store that keeps everything in maps. Its conduct is that of the
// real one, which storetest holds to the same contract.
type memory struct {
	mu        sync.Mutex
	fail      error // answered by every write
	writes    int
	bans      map[netip.Prefix]ratelimit.Ban
	limits    map[string]ratelimit.Limit
	overrides map[string]ratelimit.Override
	audit     []muster.AuditEntry
}

func newMemory() *memory {
	return &memory{
		bans: map[netip.Prefix]ratelimit.Ban{}, limits: map[string]ratelimit.Limit{}, overrides: map[string]ratelimit.Override{},
	}
}

func (m *memory) Bans(_ context.Context, now time.Time) ([]ratelimit.Ban, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []ratelimit.Ban
	for _, b := range m.bans {
		if b.Until.IsZero() || b.Until.After(now) {
			all = append(all, b)
		}
	}
	return all, nil
}

func (m *memory) write(fn func() error, audit ...muster.AuditEntry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if err := fn(); err != nil {
		return err
	}
	m.writes++
	m.audit = append(m.audit, audit...)
	return nil
}

func (m *memory) ChangeBans(_ context.Context, put, extended []ratelimit.Ban, gone []netip.Prefix, audit ...muster.AuditEntry) error {
	return m.write(func() error {
		for _, b := range put {
			m.bans[b.Prefix] = b
		}
		for _, b := range extended {
			if have, ok := m.bans[b.Prefix]; ok && have.Until.Before(b.Until) {
				have.Until = b.Until
				m.bans[b.Prefix] = have
			}
		}
		for _, p := range gone {
			delete(m.bans, p)
		}
		return nil
	}, audit...)
}

func (m *memory) ChangedLimits(context.Context) ([]ratelimit.Limit, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []ratelimit.Limit
	for _, l := range m.limits {
		all = append(all, l)
	}
	return all, nil
}

func (m *memory) PutLimit(_ context.Context, l ratelimit.Limit, audit muster.AuditEntry) error {
	return m.write(func() error { m.limits[l.Name] = l; return nil }, audit)
}

func (m *memory) DeleteLimit(_ context.Context, name string, audit muster.AuditEntry) error {
	return m.write(func() error {
		if _, ok := m.limits[name]; !ok {
			return muster.Errorf(muster.NotFound, "no such limit")
		}
		delete(m.limits, name)
		return nil
	}, audit)
}

func (m *memory) Overrides(_ context.Context, now time.Time) ([]ratelimit.Override, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []ratelimit.Override
	for _, o := range m.overrides {
		if o.Until.IsZero() || o.Until.After(now) {
			all = append(all, o)
		}
	}
	return all, nil
}

func (m *memory) PutOverride(_ context.Context, o ratelimit.Override, audit muster.AuditEntry) error {
	return m.write(func() error { m.overrides[o.ID] = o; return nil }, audit)
}

func (m *memory) DeleteOverride(_ context.Context, id string, audit muster.AuditEntry) error {
	return m.write(func() error {
		if _, ok := m.overrides[id]; !ok {
			return muster.Errorf(muster.NotFound, "no such override")
		}
		delete(m.overrides, id)
		return nil
	}, audit)
}
