package store_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"muster"
	"muster/internal/store"
)

// crashURL, when set, makes the test binary the process that is killed.
const crashURL = "MUSTER_STORE_CRASH_URL"

const alertsPerCommit = 25

// commit is what tally does: at position n of a partition it stores alerts and
// evidence that follow from both alone, and advances.
func commit(ctx context.Context, db *store.DB, part uint8, from uint64) error {
	return db.Tally(ctx, func(tx *store.TallyTx) error {
		parts, signals := make([]uint8, alertsPerCommit), make([]*muster.Signal, alertsPerCommit)
		for i := range signals {
			s := &muster.Signal{Machine: "m", Organisation: "o", At: time.Unix(int64(from), 0), Source: source(uint32(part)), Detail: make([]byte, 450)}
			hash := sha256.Sum256(fmt.Append(nil, part, from, i))
			s.ID = muster.SignalID(hash[:16])
			parts[i], signals[i] = part, s
		}
		fresh, err := tx.InsertAlerts(parts, signals)
		if err != nil {
			return err
		}
		for i := range fresh {
			if !fresh[i] {
				return fmt.Errorf("partition %d has an alert of position %d and stands before it", part, from)
			}
		}
		evidence := muster.EvidenceRow{Partition: part, Source: source(uint32(part)), Data: binary.BigEndian.AppendUint64(nil, from+1)}
		if err := tx.PutEvidence([]muster.EvidenceRow{evidence}); err != nil {
			return err
		}
		return tx.Advance(part, from, from+1)
	})
}

// commitForEver is the process that is killed. It prints a byte, the partition,
// after each commit.
func commitForEver(url string) error {
	ctx := context.Background()
	db, err := store.Open(ctx, url, store.Options{})
	if err != nil {
		return err
	}
	positions, err := db.Positions(ctx)
	if err != nil {
		return err
	}
	for {
		part := uint8(rand.IntN(muster.Partitions))
		if err := commit(ctx, db, part, positions[part]); err != nil {
			return err
		}
		positions[part]++
		if _, err := os.Stdout.Write([]byte{part}); err != nil {
			return err
		}
	}
}

// Killed at any moment, the database has whole transactions, and all that were
// acknowledged.
func TestKill(t *testing.T) {
	url := "sqlite:" + filepath.Join(t.TempDir(), "muster.db")
	var acknowledged [muster.Partitions]uint64
	for round := range 8 {
		after := 1 + rand.IntN(60) // commits
		delay := time.Duration(rand.IntN(3000)) * time.Microsecond
		killAfter(t, url, &acknowledged, after, delay)

		db := open(t, url)
		positions, err := db.Positions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		total := uint64(0)
		for part, position := range positions {
			if position < acknowledged[part] {
				t.Fatalf("round %d: partition %d: %d commits were acknowledged, the position is %d", round, part, acknowledged[part], position)
			}
			acknowledged[part] = position
			total += position
			if position == 0 {
				continue
			}
			e, err := db.EvidenceOf(t.Context(), source(uint32(part)))
			if err != nil {
				t.Fatal(err)
			}
			if got := binary.BigEndian.Uint64(e.Data); got != position {
				t.Fatalf("round %d: partition %d: the evidence is of position %d, the position is %d", round, part, got, position)
			}
		}
		count, err := db.CountAlerts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if uint64(count) != total*alertsPerCommit {
			t.Fatalf("round %d: the positions stand for %d alerts, there are %d", round, total*alertsPerCommit, count)
		}
		// Whoever goes on finds nothing in its way.
		if err := commit(t.Context(), db, 0, positions[0]); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killAfter runs the process until it has acknowledged some commits, and a
// little longer, and counts all that it acknowledged.
func killAfter(t *testing.T, url string, acknowledged *[muster.Partitions]uint64, commits int, delay time.Duration) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), crashURL+"="+url)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func() { _ = cmd.Process.Kill() } // fails only when it has ended by itself
	defer time.AfterFunc(30*time.Second, kill).Stop()
	r := bufio.NewReader(out)
	n := 0
	for ; ; n++ {
		part, err := r.ReadByte()
		if err != nil {
			break
		}
		acknowledged[part]++
		if n == commits {
			defer time.AfterFunc(delay, kill).Stop()
		}
	}
	_ = cmd.Wait() // killed
	if n < commits {
		t.Fatalf("the process ended by itself after %d commits", n)
	}
}
