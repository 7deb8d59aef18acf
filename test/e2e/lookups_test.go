package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"

	"muster/internal/testkit"
)

// looked is an item as CrowdSec's client has read it.
type looked struct {
	IP, Reputation, State, Expiration string
	Classifications                   struct {
		FalsePositives  []struct{ Name string } `json:"false_positives"`
		Classifications []struct{ Name string }
	}
	Scores struct{ Overall struct{ Total int } }
}

func (l *looked) listed() bool {
	return slices.ContainsFunc(l.Classifications.Classifications, func(c struct{ Name string }) bool { return c.Name == "community-blocklist" })
}

// TestLookups has the engine's own client read what is told about addresses.
func TestLookups(t *testing.T) {
	client := testkit.CTIClient(t)
	g := &guarded{muster: testkit.NewMuster(t)}
	g.muster.Start(t)
	g.lists(t, loud.String(), louder.String(), noisy.String())
	var key, small struct{ Key string }
	g.muster.Query(t, &key, "admin", "lookup-key", "create", "siem")
	g.muster.Query(t, &small, "admin", "lookup-key", "create", "small", "--per-day", "1")
	ask := func(out any, key string, args ...string) string {
		t.Helper()
		raw, err := exec.Command(client, append([]string{g.muster.URL, key}, args...)...).Output()
		if err != nil {
			var exit *exec.ExitError
			if !errors.As(err, &exit) {
				t.Fatal(err)
			}
			return string(exit.Stderr)
		}
		if err := json.Unmarshal(raw, out); err != nil {
			t.Fatalf("%v: %s", err, raw)
		}
		return ""
	}
	var one looked
	testkit.Eventually(t, 20*time.Second, "what is listed is malicious", func() string {
		one = looked{}
		if failure := ask(&one, key.Key, "smoke", loud.String()); failure != "" || one.Reputation != "malicious" || !one.listed() {
			return failure + one.Reputation
		}
		return ""
	})
	var unknown looked
	if failure := ask(&unknown, key.Key, "smoke", "185.220.103.1"); failure != "" || unknown.IP != "" {
		t.Errorf("an unknown address: %s %+v", failure, unknown)
	}
	var found struct {
		Total    int
		NotFound int `json:"not_found"`
		Items    []looked
	}
	if failure := ask(&found, key.Key, "search", louder.String(), "185.220.103.1", "185.220.102.9"); failure != "" || found.Total != 2 || found.NotFound != 1 || !found.Items[1].listed() {
		t.Errorf("several: %s %+v", failure, found)
	}
	var pages [][]looked
	if failure := ask(&pages, key.Key, "fire", "1"); failure != "" || len(pages) != 2 || pages[0][0].IP != loud.String() || pages[1][0].IP != louder.String() {
		t.Errorf("all: %s %+v", failure, pages)
	}
	for _, page := range pages {
		if until, err := time.Parse(time.RFC3339, page[0].Expiration); err != nil || until.Before(time.Now()) || page[0].State != "validated" {
			t.Errorf("%+v: %v", page[0], err)
		}
	}
	if failure := ask(nil, "wrong", "smoke", loud.String()); !strings.Contains(failure, "unauthorized") {
		t.Errorf("a wrong key: %s", failure)
	}
	ask(&one, small.Key, "smoke", loud.String())
	if failure := ask(nil, small.Key, "smoke", loud.String()); !strings.Contains(failure, "quota exceeded") {
		t.Errorf("a quota that is spent: %s", failure)
	}

	// What people let through is safe, at once and by every way.
	g.muster.Admin(t, "admin", "allow", "add", louder.String(), "--reason", "a customer")
	testkit.Eventually(t, 20*time.Second, "what is allowlisted is safe", func() string {
		one = looked{}
		if failure := ask(&one, key.Key, "smoke", louder.String()); failure != "" || one.Reputation != "safe" || len(one.Classifications.FalsePositives) != 1 || one.listed() {
			return failure + one.Reputation
		}
		return ""
	})
	file := filepath.Join(t.TempDir(), "muster.mmdb")
	g.muster.Admin(t, "admin", "dump", "--format", "mmdb", "-o", file)
	db, err := maxminddb.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if !db.Lookup(loud).Found() || db.Lookup(louder).Found() || !db.Lookup(noisy.Addr().Next()).Found() || db.Lookup(forgot).Found() {
		t.Error("the dump has not what is listed")
	}
	if lines := g.muster.Admin(t, "admin", "dump"); strings.Count(lines, "\n") != 2 || strings.Contains(lines, louder.String()) {
		t.Errorf("the dump as lines: %s", lines)
	}
	if text := g.muster.Admin(t, "admin", "lookup", loud.String()); !strings.Contains(text, "malicious") || !strings.Contains(text, "three months") {
		t.Errorf("muster admin lookup: %s", text)
	}
	if text := g.muster.Admin(t, "admin", "lookup-key", "list"); !strings.Contains(text, "small") {
		t.Errorf("muster admin lookup-key list: %s", text)
	}
	if _, err := exec.LookPath("curl"); err != nil {
		return
	}
	if got := curl(t, "--user", "x:"+key.Key, "--header", "Accept: application/taxii+json;version=2.1", g.muster.URL+"/taxii2/root/collections/community/objects/"); strings.Count(got, `"indicator"`) != 2 || strings.Contains(got, louder.String()) {
		t.Errorf("TAXII: %s", got)
	}
	if got := curl(t, "--user", "x:"+key.Key, g.muster.URL+"/misp/hashes.csv"); strings.Count(got, "\n") != 2 {
		t.Errorf("MISP: %s", got)
	}
	gz := filepath.Join(t.TempDir(), "dump.gz")
	curl(t, "--header", "X-Api-Key: "+key.Key, "--output", gz, g.muster.URL+"/v2/dump.jsonl.gz")
	if info, err := os.Stat(gz); err != nil || info.Size() == 0 {
		t.Errorf("the dump by curl: %v", err)
	}
}
