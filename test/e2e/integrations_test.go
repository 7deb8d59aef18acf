package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/internal/firewall"
	"muster/internal/testkit"
)

// guarded is Muster with an address and a range that are listed, and what reads
// them without an engine.
type guarded struct {
	muster *testkit.Muster
	key    string // of the bouncers' integration
	url    string // of their local API
}

var (
	loud   = netip.MustParseAddr("185.220.101.60")
	louder = netip.MustParseAddr("185.220.101.61")
	forgot = netip.MustParseAddr("185.220.101.62")
	noisy  = netip.MustParsePrefix("185.220.102.0/24")
)

// TestIntegrations is what firewalls and bouncers get without any engine. Its
// steps build on one another.
func TestIntegrations(t *testing.T) {
	if testing.Short() {
		t.Skip("real bouncers take half a minute: skipped with -short")
	}
	g := &guarded{muster: testkit.NewMuster(t, "MUSTER_LOG__LEVEL=debug")}
	g.muster.Start(t)
	g.lists(t, loud.String(), noisy.String())
	var web integration
	g.muster.Query(t, &web, "admin", "integration", "create", "web", "--for", "bouncer")
	g.key, g.url = web.Secret, web.URL
	for _, step := range []struct {
		name string
		run  func(*guarded, *testing.T)
	}{
		{"curl fetches the list in every firewall's form", everyFirewall},
		{"the Go library asks about one address", goLive},
		{"the Go library follows what changes", goStream},
		{"Debian's custom bouncer runs its program", debianCustom},
		{"Debian's firewall bouncer fills the packet filter", debianFirewall},
		{"the operator sees who reads, and rotates the key", readers},
	} {
		t.Run(step.name, func(t *testing.T) { step.run(g, t) })
	}
}

// integration is what muster admin integration says, as far as it matters here.
type integration struct {
	ID, Name, URL, User, Secret, State string
	LastClient                         string `json:"last_client"`
	LastEntries                        int    `json:"last_entries"`
	Usage                              []struct {
		Report struct {
			Components []struct{ Type string } `json:"remediation_components"`
		}
	}
}

// lists has an operator list sources for everybody.
func (g *guarded) lists(t *testing.T, sources ...string) {
	t.Helper()
	for _, source := range sources {
		g.muster.Admin(t, "admin", "verdict", "set", source, "--listed", "--ttl", "12h", "--reason", "a test")
	}
}

// curl runs curl and returns what it prints.
func curl(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("curl", append([]string{"--silent", "--show-error", "--max-time", "20"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("curl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func everyFirewall(g *guarded, t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is missing")
	}
	lines := map[string]string{
		"checkpoint": "crowdsec-185.220.101.60,185.220.101.60,IP,high,high,AB,C&C server IP\ncrowdsec-185.220.102.0_24,185.220.102.0-185.220.102.255,IP Range,high,high,AB,C&C server IP\n",
		"juniper":    "185.220.101.60/32\n185.220.102.0/24\n",
		"f5":         "185.220.101.60,32,BL,crowdsec-fw-f5\n185.220.102.0,24,BL,crowdsec-fw-f5\n",
		"mikrotik": "/ip firewall address-list add list=crowdsec-integration address=185.220.101.60 comment=\"crowdsec/mikrotik\" timeout=48h;\n" +
			"/ip firewall address-list add list=crowdsec-integration address=185.220.102.0/24 comment=\"crowdsec/mikrotik\" timeout=48h;\n",
		"sophos": "", // below
	}
	var sophos strings.Builder
	fmt.Fprintln(&sophos, loud)
	for addr := noisy.Addr(); noisy.Contains(addr); addr = addr.Next() {
		fmt.Fprintln(&sophos, addr)
	}
	lines["sophos"] = sophos.String()
	for _, f := range firewall.Formats() {
		want, ok := lines[f.Name]
		if !ok {
			want = "185.220.101.60\n185.220.102.0/24\n"
		}
		var i integration
		g.muster.Query(t, &i, "admin", "integration", "create", "fw-"+strings.ReplaceAll(f.Name, "_", "-"), "--for", f.Name)
		credentials := i.User + ":" + i.Secret
		var got string
		testkit.Eventually(t, 10*time.Second, f.Name+" has what is listed", func() string {
			if got = curl(t, "--user", credentials, i.URL); got == want {
				return ""
			}
			return got
		})
		for name, args := range map[string][]string{
			"compressed":                {"--compressed", "--user", credentials, i.URL},
			"with the password as key":  {"--header", "X-Api-Key: " + i.Secret, i.URL},
			"credentials in the URL":    {strings.Replace(i.URL, "://", "://"+credentials+"@", 1)},
			"as Junos wants an address": {"--user", credentials, i.URL + ".txt"},
		} {
			if got := curl(t, args...); got != want {
				t.Errorf("%s, %s: got %q", f.Name, name, got)
			}
		}
		const status = "%{http_code}"
		for name, tt := range map[string]struct {
			args []string
			want string
		}{
			"without credentials": {[]string{i.URL}, "401"},
			"wrong password":      {[]string{"--user", i.User + ":wrong", i.URL}, "403"},
			"head":                {[]string{"--head", "--user", credentials, i.URL}, "200"},
			"second page":         {[]string{"--user", credentials, i.URL + "?page=2&page_size=1000"}, "204"},
			"page of nothing":     {[]string{"--user", credentials, i.URL + "?page=none"}, "422"},
			"another one":         {[]string{"--user", credentials, strings.Replace(i.URL, i.ID, "x", 1)}, "404"},
		} {
			if got := curl(t, append(tt.args, "--output", os.DevNull, "--write-out", status)...); got != tt.want {
				t.Errorf("%s, %s: got %s", f.Name, name, got)
			}
		}
		etag := filepath.Join(t.TempDir(), "etag")
		curl(t, "--user", credentials, "--etag-save", etag, i.URL)
		if got := curl(t, "--user", credentials, "--etag-compare", etag, "--output", os.DevNull, "--write-out", status, i.URL); got != "304" {
			t.Errorf("%s, unchanged: got %s", f.Name, got)
		}
	}
}

// toldDecision is one line of the Go bouncer.
type toldDecision struct {
	New                                            bool
	Value, Scope, Type, Origin, Scenario, Duration string
	Pull                                           int
}

func goLive(g *guarded, t *testing.T) {
	bouncer := testkit.GoBouncer(t)
	for addr, want := range map[string]string{loud.String(): loud.String(), "185.220.102.9": noisy.String(), "8.8.8.8": "", "2606:4700::1111": ""} {
		out, err := exec.Command(bouncer, "live", g.url, g.key, addr).Output()
		var d toldDecision
		if err == nil && len(out) > 0 {
			err = json.Unmarshal(out, &d)
		}
		if err != nil || d.Value != want || want != "" && (d.Type != "ban" || d.Origin != "CAPI" || d.Duration == "") {
			t.Errorf("%s: got %s, %v", addr, out, err)
		}
	}
	if out, err := exec.Command(bouncer, "live", g.url, "wrong", loud.String()).CombinedOutput(); err == nil || !strings.Contains(string(out), "access forbidden") {
		t.Errorf("a wrong key: got %s, %v", out, err)
	}
}

func goStream(g *guarded, t *testing.T) {
	cmd := exec.Command(testkit.GoBouncer(t), "stream", g.url+"/", g.key) // it is used to a slash at the end
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	p := testkit.StartProcess(t, "bouncer", cmd)
	holds := func() (held []string, pulls int) {
		for line := range strings.Lines(p.Output()) {
			var d toldDecision
			if json.Unmarshal([]byte(line), &d) != nil {
				continue
			}
			switch {
			case d.Pull > 0:
				pulls = d.Pull
			case d.New:
				held = append(held, d.Value)
			default:
				held = slices.DeleteFunc(held, func(v string) bool { return v == d.Value })
			}
		}
		slices.Sort(held)
		return slices.Compact(held), pulls
	}
	wait := func(what string, want ...string) {
		t.Helper()
		testkit.Eventually(t, 15*time.Second, what, func() string {
			if how := p.Exited(); how != "" {
				t.Fatalf("the bouncer %s", how)
			}
			if held, pulls := holds(); !slices.Equal(held, want) || pulls == 0 {
				return fmt.Sprintf("%v after %d pulls", held, pulls)
			}
			return ""
		})
	}
	wait("everything at the start", loud.String(), noisy.String())
	before := len(p.Output())
	g.lists(t, louder.String())
	wait("one more", loud.String(), louder.String(), noisy.String())
	if again := p.Output()[before:]; strings.Contains(again, noisy.String()) {
		t.Errorf("expected that only what changed is told, got %s", again)
	}
	g.muster.Admin(t, "admin", "allow", "add", louder.String(), "--reason", "ours")
	wait("one less", loud.String(), noisy.String())
	testkit.Eventually(t, 15*time.Second, "its metrics are kept", func() string {
		var i integration
		g.muster.Query(t, &i, "admin", "integration", "show", "web")
		for _, u := range i.Usage {
			if c := u.Report.Components; len(c) == 1 && c[0].Type == "muster-test-bouncer" {
				return ""
			}
		}
		return fmt.Sprintf("%+v", i.Usage)
	})
}

func debianCustom(g *guarded, t *testing.T) {
	bin := testkit.DebianBouncer(t, "crowdsec-custom-bouncer")
	dir := t.TempDir()
	log, program, config := filepath.Join(dir, "calls"), filepath.Join(dir, "program"), filepath.Join(dir, "bouncer.yaml")
	// It is called as: program add|del VALUE SECONDS REASON JSON.
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho \"$1 $2\" >> "+log+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("bin_path: %s\npiddir: %s\nupdate_frequency: 1s\ncache_retention_duration: 1s\ndaemonize: false\nlog_mode: stdout\nlog_level: info\n"+
		"api_url: %s/\napi_key: %s\nprometheus: {enabled: false}\n", program, dir, g.url, g.key)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := testkit.StartProcess(t, "custom-bouncer", exec.Command(bin, "-c", config))
	called := func(want string) {
		t.Helper()
		testkit.Eventually(t, 20*time.Second, "its program is called: "+want, func() string {
			if how := p.Exited(); how != "" {
				t.Fatalf("the bouncer %s", how)
			}
			calls, _ := os.ReadFile(log)
			if slices.Contains(strings.Split(string(calls), "\n"), want) {
				return ""
			}
			return string(calls)
		})
	}
	called("add " + loud.String())
	called("add " + noisy.String())
	g.lists(t, forgot.String())
	called("add " + forgot.String())
	g.muster.Admin(t, "admin", "allow", "add", forgot.String(), "--reason", "ours")
	called("del " + forgot.String())
}

func debianFirewall(g *guarded, t *testing.T) {
	bin := testkit.DebianBouncer(t, "crowdsec-firewall-bouncer")
	network := testkit.NewNetwork(t, strings.TrimPrefix(g.muster.URL, "http://"))
	dir := t.TempDir()
	config := filepath.Join(dir, "bouncer.yaml")
	text := fmt.Sprintf(`mode: nftables
pid_dir: %s
update_frequency: 1s
daemonize: false
log_mode: stdout
log_level: info
api_url: %s/
api_key: %s
disable_ipv6: false
deny_action: DROP
supported_decisions_types: [ban]
blacklists_ipv4: crowdsec-blacklists
blacklists_ipv6: crowdsec6-blacklists
nftables:
  ipv4: {enabled: true, set-only: false, table: crowdsec, chain: crowdsec-chain}
  ipv6: {enabled: true, set-only: false, table: crowdsec6, chain: crowdsec6-chain}
prometheus: {enabled: false}
`, dir, strings.Replace(g.url, strings.TrimPrefix(g.muster.URL, "http://"), network.Addr, 1), g.key)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := network.Output(testkit.Nft(t, "add", "table", "ip", "try")); err != nil {
		t.Skipf("this kernel has no packet filter for a network of its own: %v %s", err, out)
	}
	p := network.Start(t, "firewall-bouncer", exec.Command(bin, "-c", config))
	filter := func(what string, has bool, value string) {
		t.Helper()
		testkit.Eventually(t, 20*time.Second, what, func() string {
			if how := p.Exited(); how != "" {
				t.Fatalf("the bouncer %s", how)
			}
			rules, err := network.Output(testkit.Nft(t, "list", "table", "ip", "crowdsec"))
			if err == nil && strings.Contains(rules, value) == has {
				return ""
			}
			return fmt.Sprintf("%v %s", err, rules)
		})
	}
	filter("the address is dropped", true, loud.String())
	filter("the range is dropped", true, "185.220.102.0")
	added := netip.MustParseAddr("185.220.101.63")
	g.lists(t, added.String())
	filter("another one is dropped", true, added.String())
	g.muster.Admin(t, "admin", "allow", "add", added.String(), "--reason", "ours")
	filter("it is let in again", false, added.String())
}

func readers(g *guarded, t *testing.T) {
	var list []integration
	g.muster.Query(t, &list, "admin", "integration", "list")
	for _, i := range list {
		if i.State != "ok" {
			t.Errorf("%s: expected that it was read, got %+v", i.Name, i)
		}
		if strings.HasPrefix(i.Name, "fw-") && !strings.HasPrefix(i.LastClient, "curl/") {
			t.Errorf("%s: expected curl, got %q", i.Name, i.LastClient)
		}
	}
	var web integration
	g.muster.Query(t, &web, "admin", "integration", "rotate", "web", "--reason", "a test")
	if web.Secret == "" || web.Secret == g.key {
		t.Fatalf("expected another key, got %+v", web)
	}
	status := func(key string) string {
		return curl(t, "--header", "X-Api-Key: "+key, "--output", os.DevNull, "--write-out", "%{http_code}", g.url+"/v1/decisions?ip=8.8.8.8")
	}
	testkit.Eventually(t, 10*time.Second, "the old key is refused", func() string {
		if got := status(g.key); got != "403" {
			return got
		}
		return ""
	})
	if got := status(web.Secret); got != "200" {
		t.Errorf("the new key: got %s", got)
	}
	g.muster.Admin(t, "admin", "integration", "delete", "web", "--reason", "a test")
	testkit.Eventually(t, 10*time.Second, "it is gone", func() string {
		if got := status(web.Secret); got != "403" {
			return got
		}
		return ""
	})
}
