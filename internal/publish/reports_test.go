package publish

import (
	"fmt"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"muster"
)

func TestReports(t *testing.T) {
	c := &clock{at: start}
	m := NewReports(72*time.Hour, c.now)
	report := func(organisation, source, scenario string, age time.Duration, flags muster.SignalFlags) {
		t.Helper()
		s, err := muster.ParseSource(source)
		if err != nil {
			t.Fatal(err)
		}
		m.Observe(&muster.Signal{Organisation: organisation, Source: s, Scenario: scenario, Received: c.now().Add(-age), Flags: flags})
	}
	report("A", "35.188.49.1", "ssh", 2*time.Hour, muster.Counts)
	report("A", "35.188.49.2", "http", time.Hour, muster.Counts)
	report("A", "35.188.49.1", "ssh", 0, 0)
	report("A", "10.0.0.1", "ssh", 0, 0)
	report("A", "35.188.49.3", "old", 73*time.Hour, muster.Counts)
	report("B", "35.188.49.4", "ssh", 71*time.Hour, muster.Counts)
	report("", "35.188.49.5", "ssh", 0, muster.Counts)
	want := func(what, organisation string, counted int, sources, scenarios []string) {
		t.Helper()
		list, _ := m.Sources(organisation)
		var got []string
		for _, s := range list {
			got = append(got, s.String())
		}
		names, _ := m.Scenarios(organisation)
		if diff := gocmp.Diff(sources, got); diff != "" {
			t.Errorf("%s: sources (-want +got):\n%s", what, diff)
		}
		if diff := gocmp.Diff(scenarios, names); diff != "" {
			t.Errorf("%s: scenarios (-want +got):\n%s", what, diff)
		}
		if n := m.Counted(organisation); n != counted {
			t.Errorf("%s: %d counted, want %d", what, n, counted)
		}
	}
	want("before the refresh", "A", 0, nil, nil)
	m.Refresh()
	want("A", "A", 2, []string{"35.188.49.1", "35.188.49.2"}, []string{"http", "ssh"})
	want("B", "B", 1, []string{"35.188.49.4"}, []string{"ssh"})
	want("nobody", "", 0, nil, nil)

	_, favoured := m.Sources("A")
	_, footprint := m.Scenarios("A")
	m.Refresh()
	if _, again := m.Sources("A"); again != favoured {
		t.Error("nothing changed but the number of the sources")
	}
	c.advance(2 * time.Hour)
	m.Refresh()
	want("B, when the window has passed", "B", 0, nil, nil)
	report("A", "35.188.49.9", "ssh", 0, 0)
	c.advance(69 * time.Hour)
	m.Refresh()
	want("A, when some has passed", "A", 1, []string{"35.188.49.9", "35.188.49.1", "35.188.49.2"}, []string{"http", "ssh"})
	if _, n := m.Sources("A"); n == favoured {
		t.Error("other sources have the same number")
	}
	c.advance(2 * time.Hour)
	m.Refresh()
	want("A, when more has", "A", 0, []string{"35.188.49.9"}, []string{"ssh"})
	if _, n := m.Scenarios("A"); n == footprint {
		t.Error("other scenarios have the same number")
	}
}

func TestReportsAreBounded(t *testing.T) {
	m := NewReports(72*time.Hour, func() time.Time { return start })
	for i := range maxOwnSources + 100 {
		s, err := muster.ParseSource(fmt.Sprintf("35.%d.%d.1", i>>8, i&255))
		if err != nil {
			t.Fatal(err)
		}
		m.Observe(&muster.Signal{Organisation: "A", Source: s, Scenario: fmt.Sprint("s", i), Received: start})
	}
	m.Refresh()
	sources, _ := m.Sources("A")
	scenarios, _ := m.Scenarios("A")
	if len(sources) != maxOwnSources || len(scenarios) != maxReportedScenarios {
		t.Errorf("%d sources and %d scenarios are remembered", len(sources), len(scenarios))
	}
}
