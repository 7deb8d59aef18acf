package upstream

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"muster"
)

// BudgetConfig configures a Budget; its zero value is the rule of CrowdSec's
// Central API for free accounts, kept in memory only.
type BudgetConfig struct {
	// File keeps the state across restarts: whoever forgets what he spent spends
	// it again, and a restart loop is what gets banned. "": in memory.
	File string
	// Threshold is how many logins the upstream allows in a Window. 0: 20.
	Threshold int
	// Reserve of them is left for others behind the same address, such as a
	// person who runs cscli capi status. 0: a quarter of Threshold; below 0: none.
	Reserve int
	Window  time.Duration // 0: 50 minutes
}

// Budget spends logins at an upstream, never more than its threshold in any
// window of time, and keeps silent while banned. It is safe for concurrent use.
//
// Within a process it goes by the monotonic clock. Across a restart it goes by
// the wall clock: one that is set back makes waits longer, by a Window at most;
// one that is set forward while the process is down makes it forget so much.
type Budget struct {
	cfg   BudgetConfig
	limit int
	lock  *os.File

	mu     sync.Mutex
	logins []time.Time // sent in the last Window, oldest first
	ban    *Ban
	seen   time.Time // when ban was learned
}

// OpenBudget reads the state in c.File, if there is one, and keeps others from
// spending from it until Close. The errors are of code Invalid for numbers that
// make no sense and for a file that is no budget, Unavailable for one in use.
func OpenBudget(c BudgetConfig) (*Budget, error) {
	c.Threshold = cmp.Or(c.Threshold, 20)
	c.Reserve = max(cmp.Or(c.Reserve, c.Threshold/4), 0)
	c.Window = cmp.Or(c.Window, 50*time.Minute)
	if c.Threshold < 1 || c.Threshold > maxThreshold || c.Reserve >= c.Threshold || c.Window < 0 {
		return nil, muster.Errorf(muster.Invalid, "login budget: expected a threshold of 1 to %d, a smaller reserve and a positive window, got %d, %d and %s", maxThreshold, c.Threshold, c.Reserve, c.Window)
	}
	b := &Budget{cfg: c, limit: c.Threshold - c.Reserve}
	if c.File == "" {
		return b, nil
	}
	var err error
	if b.lock, err = lockFile(c.File + ".lock"); err != nil {
		return nil, err
	}
	if err := b.load(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// maxThreshold bounds the state: it is read and written with every login.
const maxThreshold = 10_000

// Close lets others spend. A closed Budget must not be used.
func (b *Budget) Close() error {
	if b.lock == nil {
		return nil
	}
	return b.lock.Close()
}

// Spend takes one login. wait is 0 when it may be sent now: it is then on disk
// as spent, whatever becomes of it. Otherwise nothing was taken, and it is
// worth asking again after wait. An error means that the state could not be
// kept and the login must not be sent.
func (b *Budget) Spend(now time.Time) (wait time.Duration, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if left, banned := b.banned(now); banned {
		return left, nil
	}
	b.forget(now)
	if len(b.logins) >= b.limit {
		oldest := b.logins[len(b.logins)-b.limit]
		return b.cfg.Window - now.Sub(oldest) + 1, nil
	}
	b.logins = append(b.logins, now)
	if err := b.save(); err != nil {
		b.logins = b.logins[:len(b.logins)-1]
		return 0, err
	}
	return 0, nil
}

// forget drops the logins that are older than a window. One that lies in the
// future was sent before the clock was set back: it cannot have been later than
// now, so now is the latest that it can count from.
func (b *Budget) forget(now time.Time) {
	b.logins = slices.DeleteFunc(b.logins, func(at time.Time) bool { return now.Sub(at) > b.cfg.Window })
	for i, at := range b.logins {
		if now.Sub(at) < 0 {
			b.logins[i] = now
		}
	}
}

// Left returns how many logins may be sent now, save for a ban.
func (b *Budget) Left(now time.Time) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(now)
	return max(b.limit-len(b.logins), 0)
}

const (
	// afterBan is waited beyond a ban's end, so that the first call does not come
	// a second too early and start it again.
	afterBan = 5 * time.Second
	// recheck is how long a ban without a known end is believed. Bans without end
	// are made by people, and a call does not prolong them.
	recheck = time.Hour
)

// banned returns what is left of the ban. The caller holds mu.
func (b *Budget) banned(now time.Time) (left time.Duration, banned bool) {
	if b.ban == nil {
		return 0, false
	}
	since := now.Sub(b.seen)
	if since < 0 { // the clock was set back: it begins now, and is no longer for it
		if !b.ban.Until.IsZero() {
			b.ban.Until = now.Add(b.ban.Until.Sub(b.seen))
		}
		b.seen, since = now, 0
	}
	if b.ban.Until.IsZero() {
		left = recheck - since
	} else {
		left = b.ban.Until.Sub(now) + afterBan
	}
	return left, left > 0
}

// Ban returns the ban in force, if one is known. While there is one, no call may
// be made, or no login when it is LoginsOnly.
func (b *Budget) Ban(now time.Time) (Ban, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, banned := b.banned(now); !banned {
		return Ban{}, false
	}
	return *b.ban, true
}

// Banned is Ban in short: until when (zero: until somebody lifts it), and why.
func (b *Budget) Banned(now time.Time) (until time.Time, reason string, banned bool) {
	ban, banned := b.Ban(now)
	return ban.Until, ban.Reason, banned
}

// Saw tells of an answer that came at now: bans are learned from it (see BanIn),
// and a login that went well ends one. An error means that the ban is in force
// but could not be kept for the time after a restart.
func (b *Budget) Saw(now time.Time, r *Response, login bool) error {
	ban, banned := BanIn(r, login, now)
	switch {
	case banned:
		return b.set(now, &ban)
	case login && r.Status/100 == 2:
		return b.Lifted()
	}
	return nil
}

// SawBan is Saw for a ban that was learned of in another way.
func (b *Budget) SawBan(now time.Time, ban Ban) error { return b.set(now, &ban) }

// Lifted says that the ban is over, for whoever has asked without a login.
func (b *Budget) Lifted() error {
	b.mu.Lock()
	known := b.ban != nil
	b.mu.Unlock()
	if !known {
		return nil // the usual case costs no write
	}
	return b.set(time.Time{}, nil)
}

func (b *Budget) set(now time.Time, ban *Ban) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ban, b.seen = ban, now
	return b.save()
}

// state is the file.
type state struct {
	Version int         `json:"version"` // 1
	Logins  []time.Time `json:"logins"`
	Ban     *Ban        `json:"ban,omitempty"`
	Seen    time.Time   `json:"seen,omitzero"`
}

func (b *Budget) load() error {
	text, err := os.ReadFile(b.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the login budget: %w", err)
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil || s.Version != 1 {
		return muster.Errorf(muster.Invalid, "%s is not a login budget of this version: remove it when no login was sent for %s", b.cfg.File, b.cfg.Window)
	}
	slices.SortFunc(s.Logins, time.Time.Compare)
	b.logins, b.ban, b.seen = s.Logins[max(0, len(s.Logins)-b.limit):], s.Ban, s.Seen
	return nil
}

// save writes the state durably. The caller holds mu.
func (b *Budget) save() error {
	if b.cfg.File == "" {
		return nil
	}
	text, err := json.Marshal(state{Version: 1, Logins: b.logins, Ban: b.ban, Seen: b.seen})
	if err == nil {
		err = replaceFile(b.cfg.File, text)
	}
	if err != nil {
		return fmt.Errorf("keeping the login budget: %w", err)
	}
	return nil
}

// replaceFile puts text in the place of path: after a crash there is the old
// file or the new one.
func replaceFile(path string, text []byte) (err error) {
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, ".muster-*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp.Name())
		}
	}()
	_, err = temp.Write(text)
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	if err = os.Rename(temp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}
