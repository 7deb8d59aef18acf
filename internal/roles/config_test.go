package roles

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

var update = flag.Bool("update", false, "write docs/configuration.md instead of comparing with it")

// write puts text into a file named muster.yaml in a fresh, current folder.
func write(t *testing.T, text string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("muster.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// equal compares configurations; sources have unexported parts.
var equal = cmp.Comparer(func(a, b muster.Source) bool { return a == b })

func TestNoFileAtAll(t *testing.T) {
	got, err := LoadConfig(ConfigSource{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(DefaultConfig(), got, equal); diff != "" {
		t.Error(diff)
	}
}

func TestEmptyFiles(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "log:\n  # level: debug\n"} {
		write(t, text)
		got, err := LoadConfig(ConfigSource{File: "muster.yaml"})
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if diff := cmp.Diff(DefaultConfig(), got, equal); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

// TestEverySettingFromEverySource sets each key to another value through file,
// environment and flag, and sees it arrive.
func TestEverySettingFromEverySource(t *testing.T) {
	other := map[string]string{
		"data_dir": "/srv/muster", "listen": "[::]:80", "public_url": "https://example.org/m/", "database": "sqlite:/x.db",
		"shutdown_timeout": "1m", "registration": "closed", "log.level": "warn", "log.format": "json", "metrics.listen": "127.0.0.1:1",
		"traces.endpoint": "http://c:4318", "traces.sample": "0.5", "tokens.lifetime": "1h", "tokens.spread": "0.1",
		"limits.body": "1MiB", "limits.decoded": "2MiB", "limits.signals": "5", "limits.inflight": "1GiB", "limits.request_timeout": "5s",
		"limits.poll": "10s", "limits.polls": "7", "ingest.max_age": "1d", "ingest.max_future": "1s", "ingest.linger": "10ms",
		"ingest.queue": "1GiB", "stream.max_age": "7d", "stream.max_bytes": "1TiB", "retention.alerts": "365d",
		"publish.expiry": "2d", "publish.allowlist": "1.2.3.4,2001:db8::/32",
		"lists.contribution": "10", "lists.window": "2d", "lists.tiers.lite.size": "1", "lists.tiers.lite.tailoring": "none",
		"lists.tiers.community.size": "0", "lists.tiers.community.tailoring": "reported",
		"lists.tiers.premium.size": "50000", "lists.tiers.premium.tailoring": "none",
		"lists.tailored": "false", "lists.tailored_sources": "5000",
		"allowlists.clouds": "aws=/x/ip-ranges.json,edge=https://example.org/ips", "allowlists.private_urls": "true", "allowlists.max_ranges": "500", "allowlists.host_keep": "2d",
		"hub.index": "/hub/.index.json", "hub.dir": "/hub", "hub.private": "/own", "hub.private_counts": "true", "orders.keep": "1h", "proxies.trusted": "10.0.0.0/8,fd00::1", "proxies.header": "forwarded",
		"ratelimit.logins": "0", "ratelimit.wrong_passwords": "3", "ratelimit.window": "10m", "ratelimit.ban.duration": "6h",
		"ratelimit.ban.scope": "login", "ratelimit.ban.extend_on_retry": "false", "ratelimit.exempt": "192.0.2.0/24,2001:db8::/48",
		"ratelimit.appeal": "abuse@example.org", "ratelimit.max_bans": "1000", "ratelimit.max_counters": "50000", "retention.audit": "30d", "retention.history": "7d", "publish.shared": "100.64.0.0/10,2001:db8::/32", "enrich.asn": "/x.mmdb",
		"canaries.names": "true", "enrich.country": "/geo/country.mmdb",
		"blocklists.max_entries": "5000", "blocklists.private_feeds": "true", "blocklists.feed_bytes": "1MiB", "blocklists.feed_timeout": "5s",
		"blocklists.subscriptions.community": "3", "blocklists.subscriptions.secops": "30", "blocklists.subscriptions.enterprise": "300",
	}
	settings, _ := settingsOf(DefaultConfig())
	for _, s := range settings {
		if s.path == "bus" || s.path == "proxies.protocol" {
			continue // the one takes nothing but its default, the other nothing else without proxies.trusted
		}
		value, ok := other[s.path]
		if !ok {
			t.Errorf("%s: add another value to this test", s.path)
			continue
		}
		text, indent := "", ""
		for i, key := range strings.Split(s.path, ".") {
			if i > 0 {
				indent += "  "
				text += "\n"
			}
			text += indent + key + ":"
		}
		text += " "
		if s.isList() {
			text += "[" + strings.ReplaceAll(`"`+value+`"`, ",", `", "`) + "]\n"
		} else {
			text += `"` + value + "\"\n"
		}
		write(t, text)
		for name, src := range map[string]ConfigSource{
			"file": {File: "muster.yaml"},
			"env":  {Env: []string{s.env() + "=" + value}},
			"flag": {Flags: map[string]string{s.path: value}},
		} {
			c, err := LoadConfig(src)
			if err != nil {
				t.Errorf("%s from %s: %v", s.path, name, err)
				continue
			}
			want := DefaultConfig()
			for _, w := range must(settingsOf(want)) {
				if w.path == s.path {
					if err := w.set(value); err != nil {
						t.Fatal(err)
					}
				}
			}
			if reflect.DeepEqual(want, DefaultConfig()) {
				t.Fatalf("%s: %s is the default", s.path, value)
			}
			if diff := cmp.Diff(want, c, equal); diff != "" {
				t.Errorf("%s from %s: %s", s.path, name, diff)
			}
		}
	}
}

func must(settings []setting, _ []section) []setting { return settings }

func TestPrecedence(t *testing.T) {
	write(t, "listen: 127.0.0.1:1\nregistration: key\nlog: {level: warn}\n")
	src := ConfigSource{
		File:  "muster.yaml",
		Env:   []string{"MUSTER_LISTEN=127.0.0.1:2", "MUSTER_LOG__LEVEL=error", "MUSTER_CONFIG=ignored", "MUSTER_SHARED=x", "PATH=/bin"},
		Flags: map[string]string{"listen": "127.0.0.1:3"},
	}
	c, err := LoadConfig(src)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:3" || c.Log.Level != "error" || c.Registration != "key" || c.Log.Format != "auto" {
		t.Errorf("listen %s, log.level %s, registration %s, log.format %s", c.Listen, c.Log.Level, c.Registration, c.Log.Format)
	}
	shown, err := ShowConfig(src)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"127.0.0.1:3", "# --listen\n", "# MUSTER_LOG__LEVEL\n", "# muster.yaml:2\n", "# default\n"} {
		if !strings.Contains(shown, want) {
			t.Errorf("config show lacks %q:\n%s", want, shown)
		}
	}
}

func TestExpansion(t *testing.T) {
	env := []string{"HOST=192.0.2.1", "EMPTY=", "N=4", "TEXT=a: b # ${HOST}"}
	for value, want := range map[string]string{
		"${HOST}:8600":           "192.0.2.1:8600",
		`"${HOST}:8600"`:         "192.0.2.1:8600",
		"${NONE:-127.0.0.1}:1":   "127.0.0.1:1",
		"${EMPTY:-127.0.0.1}:1":  "127.0.0.1:1",
		"${NONE:-${HOST}":        "", // no nesting: what is left does not parse as an address
		"127.0.0.1:${N}${N}":     "127.0.0.1:44",
		"${none}:1":              "",
		"$HOST:1":                "",
		"${}:1":                  "",
		"${HOST:1":               "",
		"example.org$$:${EMPTY}": "",
	} {
		write(t, "listen: "+value+"\n")
		c, err := LoadConfig(ConfigSource{File: "muster.yaml", Env: env})
		switch {
		case want == "" && err == nil:
			t.Errorf("%s: taken as %q", value, c.Listen)
		case want == "" && !strings.Contains(err.Error(), "muster.yaml:1:9: listen: "):
			t.Errorf("%s: the error lacks its place: %v", value, err)
		case want != "" && err != nil:
			t.Errorf("%s: %v", value, err)
		case want != "" && c.Listen != want:
			t.Errorf("%s: %q, want %q", value, c.Listen, want)
		}
	}
	// What a variable holds is a value, never more YAML; numbers may come from it.
	write(t, "data_dir: ${TEXT}/$$x\nlimits:\n  signals: ${N}\n")
	c, err := LoadConfig(ConfigSource{File: "muster.yaml", Env: env})
	if err != nil {
		t.Fatal(err)
	}
	if c.DataDir != "a: b # ${HOST}/$x" || c.Limits.Signals != 4 {
		t.Errorf("data_dir %q, limits.signals %d", c.DataDir, c.Limits.Signals)
	}
}

// TestErrors compares whole messages with testdata/config: for each x.yaml what
// stands in x.txt.
func TestErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/config/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("found %d files, %v", len(files), err)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		write(t, string(data))
		c, err := LoadConfig(ConfigSource{File: "muster.yaml"})
		if err == nil {
			t.Errorf("%s: taken: %+v", file, c)
			continue
		}
		golden := filepath.Join(dir, strings.TrimSuffix(file, ".yaml")+".txt")
		got := err.Error() + "\n"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s: %s", file, diff)
		}
		if strings.Contains(got, "hunter2") {
			t.Errorf("%s: the password is in the error: %s", file, got)
		}
	}
}

func TestErrorsOfEnvironmentAndFlags(t *testing.T) {
	for name, tc := range map[string]struct {
		src  ConfigSource
		want string
	}{
		"variable": {
			ConfigSource{Env: []string{"MUSTER_LIMITS__BODY=16MB"}},
			`MUSTER_LIMITS__BODY: limits.body: expected a size like 512KiB, 16MiB or 8GiB, got "16MB"`,
		},
		"unknown variable": {
			ConfigSource{Env: []string{"MUSTER_LOG__LEVLE=debug"}},
			"MUSTER_LOG__LEVLE: is no setting of Muster: see muster config defaults",
		},
		"flag": {
			ConfigSource{Flags: map[string]string{"data_dir": ""}},
			"--data-dir: data_dir: expected a directory, got nothing",
		},
		"combination": {
			ConfigSource{Env: []string{"MUSTER_LIMITS__DECODED=1GiB"}},
			"limits.inflight: is 256MiB: expected at least limits.decoded, 1GiB, or no such body could ever be taken",
		},
		"no file": {
			ConfigSource{File: "absent.yaml"},
			"configuration file: open absent.yaml: no such file or directory",
		},
	} {
		if _, err := LoadConfig(tc.src); err == nil || err.Error() != tc.want {
			t.Errorf("%s:\n got %v\nwant %s", name, err, tc.want)
		}
	}
}

func TestPasswordsAreHidden(t *testing.T) {
	src := ConfigSource{Env: []string{"MUSTER_TRACES__ENDPOINT=https://me:hunter2@collector:4318"}}
	shown, err := ShowConfig(src)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(shown, "hunter2") || !strings.Contains(shown, "https://me:***@collector:4318") {
		t.Error(shown)
	}
	c, err := LoadConfig(src)
	if err != nil || !strings.Contains(c.Traces.Endpoint, "hunter2") {
		t.Errorf("the setting itself lost its password: %v", err)
	}
	for _, password := range []string{"hunter2", "hun@hunter2", "hun/hunter2@hunter2", "hun:hunter2"} {
		_, err := LoadConfig(ConfigSource{Env: []string{"MUSTER_DATABASE=postgres://me:" + password + "@db/muster"}})
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "@db/muster") {
			t.Errorf("database: %v", err)
		}
	}
}

func TestDefaultsAreAccepted(t *testing.T) {
	text := ConfigDefaults()
	write(t, text)
	got, err := LoadConfig(ConfigSource{File: "muster.yaml"})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	got.Publish.Allowlist, got.Proxies.Trusted, got.RateLimit.Exempt, got.Publish.Shared, got.Allowlists.Clouds = nil, nil, nil, nil, nil // [] reads as an empty list
	if diff := cmp.Diff(DefaultConfig(), got, equal); diff != "" {
		t.Error(diff)
	}
	settings, _ := settingsOf(DefaultConfig())
	for _, s := range settings {
		key := s.path[strings.LastIndexByte(s.path, '.')+1:]
		if !strings.Contains(text, key+": "+s.yaml()+"\n") {
			t.Errorf("%s is missing", s.path)
		}
	}
	for _, line := range strings.Split(text, "\n") {
		if len(line) > 100 {
			t.Errorf("line of %d characters: %s", len(line), line)
		}
	}
}

func TestEveryKeyIsExplained(t *testing.T) {
	settings, sections := settingsOf(DefaultConfig())
	for _, s := range settings {
		if len(s.doc()) < 20 || !strings.HasSuffix(s.doc(), ".") {
			t.Errorf("%s: doc %q", s.path, s.doc())
		}
		// Setting the default again goes through its type, words and range.
		if err := s.set(strings.Trim(s.text(), "[]")); err != nil {
			t.Errorf("%s: its own default is refused: %v", s.path, err)
		}
	}
	for _, s := range sections {
		if s.doc() == "" {
			t.Errorf("%s: no doc", s.path)
		}
	}
}

// TestReference compares docs/configuration.md with what it is made from.
func TestReference(t *testing.T) {
	const path = "../../docs/configuration.md"
	want := ConfigReference()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, []byte(want)) {
		t.Errorf("%s is stale: run go generate ./internal/roles\n%s", path, cmp.Diff(string(got), want))
	}
}

func TestBaseURL(t *testing.T) {
	for _, tc := range []struct{ public, address, want string }{
		{"", "127.0.0.1:8600", "http://127.0.0.1:8600/"},
		{"", "0.0.0.0:8600", "http://127.0.0.1:8600/"},
		{"", "[::]:8600", "http://127.0.0.1:8600/"},
		{"", ":8600", "http://127.0.0.1:8600/"},
		{"", "[2001:db8::1]:80", "http://[2001:db8::1]:80/"},
		{"https://example.org", "127.0.0.1:8600", "https://example.org/"},
		{"https://example.org:8443/capi", "127.0.0.1:8600", "https://example.org:8443/capi/"},
		{"https://example.org/capi/", "127.0.0.1:8600", "https://example.org/capi/"},
	} {
		c, err := LoadConfig(ConfigSource{Flags: map[string]string{"public_url": tc.public}})
		if err != nil {
			t.Errorf("%q: %v", tc.public, err)
			continue
		}
		if got := c.BaseURL(tc.address); got != tc.want {
			t.Errorf("public_url %q, listening on %s: %s, want %s", tc.public, tc.address, got, tc.want)
		}
	}
	for _, bad := range []string{"example.org", "ftp://x/", "https:///x", "https://x/?a=1", "https://u:p@x/", "https://x/#f"} {
		if _, err := LoadConfig(ConfigSource{Flags: map[string]string{"public_url": bad}}); err == nil {
			t.Errorf("public_url %q is taken", bad)
		}
	}
}

func TestDatabaseURL(t *testing.T) {
	c := DefaultConfig()
	c.DataDir = "/srv/m"
	if got := c.DatabaseURL(); got != "sqlite:/srv/m/muster.db" {
		t.Error(got)
	}
	c.Database = "sqlite:/fast/x.db"
	if got := c.DatabaseURL(); got != "sqlite:/fast/x.db" {
		t.Error(got)
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0s": 0, "500ms": 500 * time.Millisecond, "30s": 30 * time.Second, "1h30m": 90 * time.Minute,
		"7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "106751d": 106751 * 24 * time.Hour,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "5", "d", "-1h", "1d-1h", "7 d", "1w", "106752d", "106751d24h", "99999999999999999999d", "1h7d"} {
		if got, err := ParseDuration(bad); err == nil {
			t.Errorf("%q is taken as %s", bad, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "17": 17, "17B": 17, "512KiB": 512 << 10, "16MiB": 16 << 20, "8 GiB": 8 << 30, "2TiB": 2 << 40,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "MiB", "16MB", "16M", "1.5GiB", "-1", "9000000TiB", "99999999999999999999"} {
		if got, err := ParseSize(bad); err == nil {
			t.Errorf("%q is taken as %d", bad, got)
		}
	}
}

// TestValuesReadBack: what is shown is read as the same value.
func TestValuesReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := Size(rapid.Int64Min(0).Draw(t, "size"))
		if got, err := ParseSize(size.String()); err != nil || got != size {
			t.Fatalf("%d is shown as %s and read as %d, %v", size, size, got, err)
		}
		d := time.Duration(rapid.Int64Min(0).Draw(t, "duration"))
		if got, err := ParseDuration(FormatDuration(d)); err != nil || got != d {
			t.Fatalf("%d is shown as %s and read as %d, %v", d, FormatDuration(d), got, err)
		}
	})
}

// FuzzConfig: no file makes the loader panic or answer without a reason.
func FuzzConfig(f *testing.F) {
	f.Add("listen: ${A}\nlog: {level: debug}\n")
	f.Add(ConfigDefaults())
	f.Add("publish:\n  allowlist: [1.2.3.4, &a b, *a]\n? [x]\n: y\n<<: {a: 1}\n")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "muster.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := LoadConfig(ConfigSource{File: path})
		if (c == nil) == (err == nil) || err != nil && err.Error() == "" {
			t.Fatalf("config %v, error %v", c, err)
		}
	})
}
