package join

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLeaveUndoesJoin(t *testing.T) {
	m := newMachine(t)
	m.write("online_api_credentials.yaml", crowdsecs)
	if err := Join(t.Context(), m.options); err != nil {
		t.Fatal(err)
	}
	leave := LeaveOptions{Config: m.options.Config, Out: &m.out}
	joined := m.read("online_api_credentials.yaml")

	leave.DryRun = true
	if err := Leave(leave); err != nil || m.read("online_api_credentials.yaml") != joined {
		t.Errorf("a dry run changed the file, or failed: %v", err)
	}
	leave.DryRun = false
	if err := Leave(leave); err != nil {
		t.Fatal(err)
	}
	if got := m.read("online_api_credentials.yaml"); got != crowdsecs {
		t.Errorf("expected the old file, got %q", got)
	}
	if files := m.files(); len(files) != 2 {
		t.Errorf("expected nothing left beside it, got %v", files)
	}
	if err := Leave(leave); err == nil || !strings.Contains(err.Error(), "did not join") {
		t.Errorf("a second time: expected a clear refusal, got %v", err)
	}
}

func TestLeaveTakesTheNewest(t *testing.T) {
	m := newMachine(t)
	m.write("online_api_credentials.yaml", crowdsecs)
	start := m.options.Now()
	var before []string
	for i := range 3 {
		other := newMachine(t)
		m.options.URL = other.url
		m.options.Now = func() time.Time { return start.Add(time.Duration(i) * time.Second) }
		before = append(before, m.read("online_api_credentials.yaml"))
		if err := Join(t.Context(), m.options); err != nil {
			t.Fatal(err)
		}
	}
	for i := 2; i >= 0; i-- {
		if err := Leave(LeaveOptions{Credentials: filepath.Join(m.dir, "online_api_credentials.yaml")}); err != nil {
			t.Fatal(err)
		}
		if got := m.read("online_api_credentials.yaml"); got != before[i] {
			t.Errorf("step %d back: expected %q, got %q", 3-i, before[i], got)
		}
	}
}
