package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"muster/internal/roles"
	"muster/internal/swarm"
)

func parseBench(t *testing.T, args ...string) *benchCmd {
	t.Helper()
	var c benchCmd
	parser, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &c
}

func TestBenchRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"a server elsewhere":         {[]string{"ingest", "--url=http://192.0.2.1:8600", "--key=k"}, "not on this machine"},
		"no key":                     {[]string{"ingest", "--url=http://127.0.0.1:8600"}, "--url needs --key"},
		"settings for a running one": {[]string{"pull", "--url=http://127.0.0.1:8600", "--key=k", "--env=A=1"}, "--env is for the server that is started"},
		"a process without its URL":  {[]string{"login", "--pid=1"}, "expected --url with them"},
		"a list that is not there":   {[]string{"pull", "--published=10"}, "expected at least as many addresses published"},
		"no key, abuse":              {[]string{"abuse", "--url=http://127.0.0.1:8600"}, "--url needs --key"},
		"too many abusers":           {[]string{"abuse", "--url=http://127.0.0.1:8600", "--key=k", "--abusers=2000"}, "expected 1 to 1,000 abusers"},
		"another loopback":           {[]string{"abuse", "--url=http://[::1]:8600", "--key=k"}, "on an address of 127.0.0.0/8"},
		"too many connections":       {[]string{"heartbeat", "--url=http://127.0.0.1:8600", "--key=k", "--connections=5000"}, "expected 1 to 4,096 connections"},
		"one key, verdict":           {[]string{"verdict", "--url=http://127.0.0.1:8600", "--key=k"}, "expected keys of at least 3 organisations"},
		"a running one, sources":     {[]string{"sources", "--url=http://127.0.0.1:8600", "--key=k"}, "sources takes no --url"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("MUSTER_ENROLMENT_KEY", "")
			err := parseBench(t, tc.args...).Run()
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
	if err := parseBench(t, "ingest", "--url=http://example.com", "--key=k").Run(); !errors.Is(err, swarm.ErrNotLoopback) {
		t.Errorf("got %v, want ErrNotLoopback", err)
	}
}

func TestBenchEnvTakesCommas(t *testing.T) {
	c := parseBench(t, "ingest", "--env=MUSTER_PUBLISH__ALLOWLIST=192.0.2.1,192.0.2.2", "--env=B=2")
	if len(c.Env) != 2 || c.Env[0] != "MUSTER_PUBLISH__ALLOWLIST=192.0.2.1,192.0.2.2" {
		t.Errorf("got %q", c.Env)
	}
}

// TestBenchSettings checks that engines which share an address are not banned
// where that is not what is measured, and that what is asked for comes last: it
// wins.
func TestBenchSettings(t *testing.T) {
	for kind, want := range map[string][]string{
		"login": {"MUSTER_RATELIMIT__EXEMPT=127.0.0.0/8", "A=1"},
		"pull":  {"MUSTER_RATELIMIT__EXEMPT=127.0.0.0/8", "MUSTER_LISTS__TIERS__PREMIUM__SIZE=15000", "A=1"},
		"abuse": {"MUSTER_PROXIES__TRUSTED=127.0.0.1", "A=1"},
	} {
		got := parseBench(t, kind, "--env=A=1").settings()
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", kind, got, want)
		}
		if _, err := roles.LoadConfig(roles.ConfigSource{Env: got}); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestBenchForgesNoneUnlessAsked(t *testing.T) {
	if c := parseBench(t, "abuse"); c.Forged != nil {
		t.Errorf("got %d without the flag", *c.Forged)
	}
	if c := parseBench(t, "abuse", "--forged=0"); c.Forged == nil || *c.Forged != 0 {
		t.Errorf("got %v, want an explicit 0", c.Forged)
	}
}

func TestBenchPrintsOneObject(t *testing.T) {
	var out bytes.Buffer
	c := parseBench(t, "ingest", "--json")
	if err := c.print(&out, &swarm.Result{Kind: swarm.Ingest, Rate: 25000, FirstError: "a\nb"}); err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(&out)
	var got map[string]any
	if err := d.Decode(&got); err != nil || got["rate"] != 25000.0 {
		t.Errorf("got %v, %v", got, err)
	}
	for _, field := range []string{"rate", "p50_ms", "p95_ms", "p99_ms", "errors", "server_cpu_s", "server_rss_bytes"} {
		if _, ok := got[field]; !ok {
			t.Errorf("%s is missing", field)
		}
	}
	if err := d.Decode(&got); !errors.Is(err, io.EOF) {
		t.Errorf("there is more than one object: %v", err)
	}
}
