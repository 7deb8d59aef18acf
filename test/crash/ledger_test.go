package crash

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// signalID is a stored signal's identity: the first 16 bytes, in hex, of the
// SHA-256 over "uuid", the machine and the uuid, with zero bytes between.
// Computed here anew, so that a change of the rule is seen.
type signalID string

func idOf(machine, uuid string) signalID {
	sum := sha256.Sum256([]byte("uuid\x00" + machine + "\x00" + strings.ToLower(uuid)))
	return signalID(hex.EncodeToString(sum[:16]))
}

// ledger is what the clients know about their signals.
type ledger struct {
	mu      sync.Mutex
	signals map[signalID]*delivery
}

type delivery struct {
	round int // of the first sending
	times int
	acked bool
}

func newLedger() *ledger { return &ledger{signals: map[signalID]*delivery{}} }

func (l *ledger) sent(ids []signalID, round int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		d := l.signals[id]
		if d == nil {
			d = &delivery{round: round}
			l.signals[id] = d
		}
		d.times++
	}
}

func (l *ledger) acknowledged(ids []signalID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		l.signals[id].acked = true
	}
}

func (l *ledger) counts() (known, acked, again int) {
	for _, d := range l.signals {
		if known++; d.acked {
			acked++
		}
		if d.times > 1 {
			again++
		}
	}
	return known, acked, again
}

// audit compares with what is stored: everything acknowledged exactly once,
// everything else sent at most once, and nothing that was never sent. Each kind
// of problem is one line with some examples.
func (l *ledger) audit(stored []signalID) (problems []string) {
	count := map[signalID]int{}
	for _, id := range stored {
		count[id]++
	}
	var lost, doubled, unknown []string
	for id, d := range l.signals {
		if d.acked && count[id] == 0 {
			lost = append(lost, fmt.Sprintf("%s (round %d, sent %d times)", id, d.round, d.times))
		}
	}
	for id, n := range count {
		d := l.signals[id]
		switch {
		case d == nil:
			unknown = append(unknown, string(id))
		case n > 1:
			doubled = append(doubled, fmt.Sprintf("%s (round %d, sent %d times, stored %d times)", id, d.round, d.times, n))
		}
	}
	for _, kind := range []struct {
		what string
		ids  []string
	}{
		{"acknowledged and not stored", lost},
		{"stored more than once", doubled},
		{"stored and never sent", unknown},
	} {
		if len(kind.ids) > 0 {
			slices.Sort(kind.ids)
			problems = append(problems, fmt.Sprintf("%d signals %s: %s", len(kind.ids), kind.what, strings.Join(kind.ids[:min(8, len(kind.ids))], ", ")))
		}
	}
	return problems
}

// readStored reads the lines of muster admin alert list --json --all.
func readStored(lines []byte) ([]signalID, error) {
	var ids []signalID
	for line := range bytes.Lines(lines) {
		var alert struct{ ID signalID }
		if err := json.Unmarshal(line, &alert); err != nil {
			return nil, fmt.Errorf("expected an alert, got %q: %w", line, err)
		}
		if alert.ID == "" {
			return nil, fmt.Errorf("expected an alert with an id, got %q", line)
		}
		ids = append(ids, alert.ID)
	}
	return ids, nil
}

// storedCount reads the number of alerts from muster admin status --json.
func storedCount(status []byte) (int, error) {
	var s struct{ Alerts *int }
	if err := json.Unmarshal(status, &s); err != nil {
		return 0, fmt.Errorf("expected an object, got %q: %w", status, err)
	}
	if s.Alerts == nil {
		return 0, fmt.Errorf("expected an object with alerts, got %q", status)
	}
	return *s.Alerts, nil
}

func TestAudit(t *testing.T) {
	book := newLedger()
	book.sent([]signalID{"a", "b", "c", "d"}, 1)
	book.acknowledged([]signalID{"a", "b"})
	book.sent([]signalID{"b"}, 2)
	for name, tc := range map[string]struct {
		stored []signalID
		want   []string
	}{
		"all acknowledged":         {[]signalID{"b", "a"}, nil},
		"and one that was not":     {[]signalID{"a", "c", "b"}, nil},
		"one lost":                 {[]signalID{"a"}, []string{"1 signals acknowledged and not stored: b (round 1, sent 2 times)"}},
		"one twice":                {[]signalID{"a", "b", "b"}, []string{"1 signals stored more than once: b (round 1, sent 2 times, stored 2 times)"}},
		"unacknowledged one twice": {[]signalID{"a", "b", "c", "c"}, []string{"1 signals stored more than once: c (round 1, sent 1 times, stored 2 times)"}},
		"one from nowhere":         {[]signalID{"a", "b", "x"}, []string{"1 signals stored and never sent: x"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, book.audit(tc.stored)); diff != "" {
				t.Error(diff)
			}
		})
	}
	if known, acked, again := book.counts(); known != 4 || acked != 2 || again != 1 {
		t.Errorf("counts: %d known, %d acknowledged, %d again", known, acked, again)
	}
}

func TestReadStored(t *testing.T) {
	got, err := readStored([]byte("{\"id\":\"a\",\"machine\":\"m\"}\n{\"id\":\"b\"}\n"))
	if diff := cmp.Diff([]signalID{"a", "b"}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for _, bad := range []string{"no", "{}\n", "[]"} {
		if _, err := readStored([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if n, err := storedCount([]byte(`{"alerts":7}`)); n != 7 || err != nil {
		t.Error(n, err)
	}
	if _, err := storedCount([]byte(`{}`)); err == nil {
		t.Error("an answer without a count was taken")
	}
}
