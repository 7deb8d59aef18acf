package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/internal/testkit"
)

// ownScenario is a scenario that no hub has.
const ownScenario = `type: leaky
name: acme/own-bf
description: "Guessed passwords of our own service"
filter: "evt.Meta.log_type == 'ssh_failed-auth'"
leakspeed: "20s"
capacity: 3
groupby: evt.Meta.source_ip
blackhole: 1m
labels:
  service: ssh
  confidence: 2
  spoofable: 0
  behavior: "ssh:bruteforce"
  remediation: true
`

// item is what cscli tells about one.
type item struct {
	Name    string `json:"name"`
	Status  string `json:"status"`
	Version string `json:"local_version"`
}

func installed(t *testing.T, e *testkit.Engine, kind string) map[string]item {
	t.Helper()
	var all map[string][]item
	if err := json.Unmarshal([]byte(e.Cscli(t, kind, "list", "-o", "json")), &all); err != nil {
		t.Fatal(err)
	}
	byName := map[string]item{}
	for _, i := range all[kind] {
		byName[i.Name] = i
	}
	return byName
}

func wantInstalled(t *testing.T, e *testkit.Engine, kind, name, version string) {
	t.Helper()
	got := installed(t, e, kind)[name]
	if got.Status != "enabled" || version != "" && got.Version != version {
		t.Errorf("expected %s to be enabled and unmodified, version %q, got %+v", name, version, got)
	}
}

func writeFile(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// hubStatus is muster admin hub status.
type hubStatus struct {
	Serving      bool
	Items        map[string]int
	PrivateItems int `json:"private_items"`
	Problems     []struct{ Item, Reason string }
}

// TestHubMirror has the real cscli fetch everything from Muster: the index, a
// collection, a private scenario beside it, and upgrades.
func TestHubMirror(t *testing.T) {
	if testing.Short() {
		t.Skip("real engines take their time: skipped with -short")
	}
	dir, private := testkit.HubFolder(t), t.TempDir()
	writeFile(t, private, "scenarios/acme/own-bf.yaml", ownScenario)
	writeFile(t, private, "collections/acme/own.yaml", "name: acme/own\ndescription: Ours\ncollections:\n  - crowdsecurity/sshd\nscenarios:\n  - acme/own-bf\n")
	writeFile(t, dir, "scenarios/crowdsecurity/telnet-bf.yaml", "name: crowdsecurity/telnet-bf\n# changed by somebody\n")
	m := testkit.NewMuster(t, "MUSTER_HUB__DIR="+dir, "MUSTER_HUB__PRIVATE="+private)
	m.Start(t)

	// Laying an engine out is cscli hub update, and installing crowdsecurity/sshd
	// with parsers and scenarios.
	e := testkit.Crowdsec{Hub: &testkit.Hub{Template: m.URL + "/hub/%s/%s"}, Guard: testkit.StartGuard(t)}.NewEngine(t, "mirrored")
	wantInstalled(t, e, "collections", "crowdsecurity/sshd", "")
	wantInstalled(t, e, "scenarios", "crowdsecurity/ssh-bf", "")
	if items := m.Metric(t, `muster_hub_requests_total{file="item",status="200"}`); items == 0 {
		t.Error("cscli fetched no item by itself, as it does when the index has no content")
	}

	t.Run("an index that has not changed is not sent again", func(t *testing.T) {
		const same, sent = `muster_hub_requests_total{file="index",status="304"}`, `muster_hub_requests_total{file="index",status="200"}`
		before, beforeSent := m.Metric(t, same), m.Metric(t, sent)
		e.Cscli(t, "hub", "update")
		if m.Metric(t, same) != before+1 || m.Metric(t, sent) != beforeSent {
			t.Errorf("expected one answer 304 more and no 200, got %v and %v", m.Metric(t, same)-before, m.Metric(t, sent)-beforeSent)
		}
		// The flavour with content is another file, whatever the engine has.
		e.Cscli(t, "hub", "update", "--with-content")
		if got := m.Metric(t, sent); got <= beforeSent {
			t.Error("the index with content was not sent")
		}
		before, beforeSent = m.Metric(t, same), m.Metric(t, sent)
		e.Cscli(t, "hub", "update", "--with-content")
		if m.Metric(t, same) != before+1 || m.Metric(t, sent) != beforeSent {
			t.Error("the index with content was sent again")
		}
		e.Cscli(t, "scenarios", "install", "crowdsecurity/mysql-bf")
		wantInstalled(t, e, "scenarios", "crowdsecurity/mysql-bf", "")
	})

	t.Run("a damaged item is not served", func(t *testing.T) {
		var st hubStatus
		m.Query(t, &st, "admin", "hub", "status")
		if len(st.Problems) != 1 || st.Problems[0].Item != "scenarios:crowdsecurity/telnet-bf" || st.PrivateItems != 2 {
			t.Errorf("got %+v", st)
		}
		if _, err := e.TryCscli(t, "scenarios", "install", "crowdsecurity/telnet-bf"); err == nil {
			t.Error("a damaged scenario was installed")
		}
		if _, err := m.TryRun(t, nil, "admin", "hub", "verify", "--data-dir", m.DataDir); err == nil {
			t.Error("muster admin hub verify ends well with a damaged item")
		}
	})

	t.Run("private items", func(t *testing.T) {
		e.Cscli(t, "hub", "update")
		e.Cscli(t, "collections", "install", "acme/own")
		wantInstalled(t, e, "scenarios", "acme/own-bf", "0.1")
		wantInstalled(t, e, "collections", "acme/own", "0.1")

		// A new version is an upgrade, not a modification.
		writeFile(t, private, "scenarios/acme/own-bf.yaml", strings.Replace(ownScenario, "capacity: 3", "capacity: 4", 1))
		testkit.Eventually(t, 60*time.Second, "the mirror has read the change", func() string {
			var index map[string]map[string]struct{ Version string }
			if err := json.Unmarshal([]byte(get(t, m.URL+"/hub/master/.index.json")), &index); err != nil {
				t.Fatal(err)
			}
			if v := index["scenarios"]["acme/own-bf"].Version; v != "0.2" {
				return "it has version " + v
			}
			return ""
		})
		e.Cscli(t, "hub", "update")
		e.Cscli(t, "hub", "upgrade")
		wantInstalled(t, e, "scenarios", "acme/own-bf", "0.2")
	})
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v\n%.300s", url, resp.Status, err, body)
	}
	return string(body)
}

// TestBundle carries what one Muster has to another that has nothing, and has
// the real cscli install from there.
func TestBundle(t *testing.T) {
	if testing.Short() {
		t.Skip("real engines take their time: skipped with -short")
	}
	private, media := t.TempDir(), t.TempDir()
	writeFile(t, private, "scenarios/acme/own-bf.yaml", ownScenario)
	from := testkit.NewMuster(t, "MUSTER_HUB__DIR="+testkit.HubFolder(t), "MUSTER_HUB__PRIVATE="+private)
	from.Start(t)
	from.Admin(t, "admin", "blocklist", "create", "ours")
	from.Admin(t, "admin", "blocklist", "entries", "add", "ours", "185.220.101.50", "185.220.102.0/24")
	from.Admin(t, "admin", "allow", "add", "185.220.103.7")
	key, file := filepath.Join(media, "bundle.key"), filepath.Join(media, "muster.bundle")
	from.Run(t, "bundle", "keygen", key)
	from.Admin(t, "bundle", "export", file, "--key", key)
	expect(t, from.Run(t, "bundle", "verify", file, "--key", key+".pub"), "The bundle is whole", "List ours", "2 entries")

	to := testkit.NewMuster(t)
	to.Start(t)
	nothing := func(why string) {
		t.Helper()
		var st hubStatus
		to.Query(t, &st, "admin", "hub", "status")
		var lists []struct{ Name string }
		to.Query(t, &lists, "admin", "blocklist", "list")
		for _, l := range lists {
			if strings.HasPrefix(l.Name, "bundle-") {
				t.Errorf("%s: the list %s was made", why, l.Name)
			}
		}
		if st.Serving {
			t.Errorf("%s: a hub is served", why)
		}
	}
	importing := func(file, key string, more ...string) (string, error) {
		t.Helper()
		return to.TryRun(t, nil, append([]string{"bundle", "import", file, "--key", key, "--data-dir", to.DataDir}, more...)...)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte(nil), good...)
	damaged[len(damaged)/2] ^= 1
	writeFile(t, media, "damaged.bundle", string(damaged))
	if _, err := importing(filepath.Join(media, "damaged.bundle"), key+".pub"); err == nil {
		t.Error("a damaged bundle was imported")
	}
	nothing("a damaged bundle")
	other := filepath.Join(media, "other.key")
	to.Run(t, "bundle", "keygen", other)
	if _, err := importing(file, other+".pub"); err == nil {
		t.Error("a bundle of an unknown key was imported")
	}
	if _, err := importing(file, key+".pub", "--dry-run"); err != nil {
		t.Error(err)
	}
	nothing("a dry run")

	for range 2 { // the second time changes nothing
		if _, err := importing(file, key+".pub"); err != nil {
			t.Fatal(err)
		}
		var st hubStatus
		to.Query(t, &st, "admin", "hub", "status")
		if !st.Serving || st.PrivateItems != 1 || st.Items["scenarios"] != 784 || len(st.Problems) != 0 {
			t.Errorf("expected the hub and a private scenario, got %+v", st)
		}
		for _, list := range []string{"bundle-community", "bundle-ours"} {
			var l struct{ Name, Kind string }
			to.Query(t, &l, "admin", "blocklist", "show", list)
			if l.Kind != "custom" {
				t.Errorf("expected %s to be a custom list, got %+v", list, l)
			}
		}
		expect(t, to.Admin(t, "admin", "blocklist", "entries", "list", "bundle-ours"), "185.220.101.50", "185.220.102.0/24")
		expect(t, to.Admin(t, "admin", "allowlist", "show", "bundle-central"), "185.220.103.7")
	}
	if a, b := get(t, from.URL+"/hub/master/.index.json?with_content=true"), get(t, to.URL+"/hub/master/.index.json?with_content=true"); a != b {
		t.Error("both serve different indexes")
	}

	// It outlives a kill, and an older one is refused.
	to.Kill()
	to.Start(t)
	e := testkit.Crowdsec{Hub: &testkit.Hub{Template: to.URL + "/hub/%s/%s"}, Guard: testkit.StartGuard(t)}.NewEngine(t, "offline")
	e.Cscli(t, "scenarios", "install", "acme/own-bf")
	wantInstalled(t, e, "scenarios", "acme/own-bf", "0.1")

	newer := filepath.Join(media, "newer.bundle")
	from.Admin(t, "bundle", "export", newer, "--key", key, "--without", "hub")
	if _, err := importing(newer, key+".pub"); err != nil {
		t.Fatal(err)
	}
	if _, err := importing(file, key+".pub"); err == nil || !strings.Contains(err.Error(), "expected a later one") {
		t.Errorf("expected an older bundle to be refused, got %v", err)
	}
	if _, err := importing(file, key+".pub", "--force"); err != nil {
		t.Errorf("expected --force to take it, got %v", err)
	}
	get(t, to.URL+"/hub/master/scenarios/acme/own-bf.yaml")
}
