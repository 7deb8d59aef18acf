package reach

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"muster"
	"muster/internal/cti"
)

// lookupKeys keeps all keys that are in force, with what they used.
type lookupKeys struct {
	mu     sync.Mutex
	byHash map[[sha256.Size]byte]*lookupKey
	byID   map[string]*lookupKey
}

// lookupKey is one key. All but what never changes is guarded by lookupKeys.mu.
type lookupKey struct {
	muster.LookupKey
	keys *lookupKeys

	stored  map[int64]int64 // calls by day, of this month
	pending map[int64]int64 // those that are not written down yet
	next    time.Time       // up to when the rate is used up; in the past when it is not
}

func (k *lookupKeys) find(secret string) *lookupKey {
	hash := sha256.Sum256([]byte(secret)) // so that the time of a comparison tells nothing
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.byHash[hash]
}

// replace takes all keys as they are stored.
func (k *lookupKeys) replace(list []muster.LookupKey, used []muster.LookupUsage) {
	k.mu.Lock()
	defer k.mu.Unlock()
	byHash, byID := map[[sha256.Size]byte]*lookupKey{}, map[string]*lookupKey{}
	for _, key := range list {
		if !key.RevokedAt.IsZero() || len(key.Hash) != sha256.Size {
			continue
		}
		n := &lookupKey{LookupKey: key, keys: k, stored: map[int64]int64{}, pending: map[int64]int64{}}
		if old := k.byID[key.ID]; old != nil {
			n.pending, n.next = old.pending, old.next
		}
		byHash[[sha256.Size]byte(key.Hash)], byID[key.ID] = n, n
	}
	for _, u := range used {
		if key := byID[u.Key]; key != nil {
			key.stored[u.Day] = u.Calls
		}
	}
	k.byHash, k.byID = byHash, byID
}

// unwritten returns what was used and is not written down.
func (k *lookupKeys) unwritten() []muster.LookupUsage {
	k.mu.Lock()
	defer k.mu.Unlock()
	var used []muster.LookupUsage
	for _, key := range k.byID {
		for day, calls := range key.pending {
			used = append(used, muster.LookupUsage{Key: key.ID, Day: day, Calls: calls})
		}
	}
	return used
}

// settled takes note that something was written down.
func (k *lookupKeys) settled(used []muster.LookupUsage) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, u := range used {
		key := k.byID[u.Key]
		if key == nil {
			continue
		}
		key.stored[u.Day] += u.Calls
		if key.pending[u.Day] -= u.Calls; key.pending[u.Day] <= 0 {
			delete(key.pending, u.Day)
		}
	}
}

// spentError tells a quota that is used up from requests that come too fast:
// waiting for a second helps against the one, not against the other.
type spentError struct{ error }

func (e spentError) Unwrap() error { return e.error }

// spend counts calls, or refuses them.
func (k *lookupKey) spend(calls int, now time.Time, rate, burst float64) error {
	k.keys.mu.Lock()
	defer k.keys.mu.Unlock()
	today := cti.DayOf(now)
	month := monthOf(today)
	ofDay, ofMonth := int64(0), int64(0)
	for _, counts := range [...]map[int64]int64{k.stored, k.pending} {
		for day, n := range counts {
			if day >= month {
				ofMonth += n
			}
			if day == today {
				ofDay += n
			}
		}
	}
	if k.PerDay > 0 && ofDay+int64(calls) > int64(k.PerDay) {
		return spent(calls, k.PerDay, ofDay, "day", time.Unix((today+1)*86400, 0).Sub(now))
	}
	if k.PerMonth > 0 && ofMonth+int64(calls) > int64(k.PerMonth) {
		end := time.Unix(month*86400, 0).UTC().AddDate(0, 1, 0)
		return spent(calls, k.PerMonth, ofMonth, "month", end.Sub(now))
	}
	// A virtual queue: each call takes its share of a second, up to burst of them may
	// be ahead of the clock.
	if k.next.Before(now) {
		k.next = now
	}
	cost := time.Duration(float64(calls) / rate * float64(time.Second))
	ahead := time.Duration(burst / rate * float64(time.Second))
	if wait := k.next.Add(cost).Sub(now) - ahead; wait > 0 && k.next.After(now) {
		e := muster.Errorf(muster.RateLimited, "too many requests: this key may make %g calls a second; try again in %s", rate, wait.Round(time.Millisecond))
		e.RetryAfter = wait
		return e
	}
	k.next = k.next.Add(cost)
	k.pending[today] += int64(calls)
	return nil
}

func spent(calls, quota int, used int64, of string, wait time.Duration) error {
	left := int64(quota) - used
	text := "the quota is used up"
	if left > 0 && calls > 1 {
		text = fmt.Sprintf("%d calls wanted and %d left of the quota", calls, left)
	}
	e := muster.Errorf(muster.RateLimited, "%s: this key may make %d calls a %s; it may again in %s", text, quota, of, wait.Round(time.Minute))
	e.RetryAfter = wait
	return spentError{e}
}

// monthOf returns the first day of the month that a day is in.
func monthOf(day int64) int64 {
	t := time.Unix(day*86400, 0).UTC()
	return cti.DayOf(time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC))
}
