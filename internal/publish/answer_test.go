package publish

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"

	"muster"
	"muster/internal/wire"
)

func TestCRCCombine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.SliceOf(rapid.Byte()).Draw(t, "a"), rapid.SliceOf(rapid.Byte()).Draw(t, "b")
		want := crc32.ChecksumIEEE(slices.Concat(a, b))
		if got := crcCombine(crc32.ChecksumIEEE(a), crc32.ChecksumIEEE(b), len(b)); got != want {
			t.Fatalf("%08x, want %08x", got, want)
		}
	})
	long := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	if got, want := crcCombine(crc32.ChecksumIEEE(long), crc32.ChecksumIEEE(long), len(long)), crc32.ChecksumIEEE(slices.Concat(long, long)); got != want {
		t.Errorf("of 1 MiB: %08x, want %08x", got, want)
	}
}

func (r *rig) serve(t *testing.T, reader *Reader) (*httptest.Server, *got) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		a := r.Pull(reader, wanted)
		compressed := strings.Contains(req.Header.Get("Accept-Encoding"), "gzip")
		if compressed {
			w.Header().Set("Content-Encoding", "gzip")
		}
		w.Header().Set("Content-Length", fmt.Sprint(a.Length(compressed)))
		_ = a.Write(w, compressed) // a client that hangs up fails its test
	}))
	t.Cleanup(s.Close)
	return s, r.pull(reader, wanted)
}

// What was put together from pieces is one gzip member to others than Go, too.
func TestOthersDecompress(t *testing.T) {
	r := crowded(20_000, 15_000)
	r.cfg.Links = func(*Reader) wire.Links {
		// More than one stored block holds.
		return wire.Links{Blocklists: slices.Repeat([]wire.BlocklistLink{{
			Name: "a", URL: "https://x/" + strings.Repeat("y", 900), Remediation: "ban", Scope: "ip", Duration: time.Hour,
		}}, 100)}
	}
	for i := range 3_000 {
		r.judge(t, network, fmt.Sprintf("35.%d.%d.9", i>>8, i&255), "x", 72, false)
	}
	r.judge(t, "A", "35.188.49.1", "crowdsecurity/ssh-bf", 72, true)
	r.read(t)
	reader := footprintsOf(1)[0]
	reader.Organisation = "A"
	server, g := r.serve(t, reader)
	for name, command := range map[string][]string{
		"curl":   {"curl", "-sS", "--compressed", server.URL},
		"python": {"python3", "-c", "import sys,zlib; d=zlib.decompressobj(31); b=d.decompress(sys.stdin.buffer.read()); assert d.eof and not d.unused_data; sys.stdout.buffer.write(b)"},
		"gzip":   {"gzip", "-dc"},
	} {
		t.Run(name, func(t *testing.T) {
			path, err := exec.LookPath(command[0])
			if err != nil {
				t.Skipf("there is no %s here", command[0])
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, path, command[1:]...)
			cmd.Stdin = bytes.NewReader(g.Gzip)
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out, g.Identity) {
				t.Errorf("%d bytes, want the %d of identity", len(out), len(g.Identity))
			}
		})
	}
	t.Run("no compression", func(t *testing.T) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept-Encoding", "identity")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if body, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(body, g.Identity) {
			t.Errorf("%d bytes: %v", len(body), err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
}

// A reader is told what was withdrawn since it was last here and somewhat before,
// and everything when it starts or was never here.
func TestDeletionsSinceTheLastPull(t *testing.T) {
	r := newRig()
	r.stamp = start.Add(-20 * time.Hour)
	r.judge(t, network, "35.188.49.1", "x", 72, false)
	r.stamp = start.Add(-10 * time.Hour)
	r.judge(t, network, "35.188.49.2", "x", 72, false)
	r.judge(t, "A", "35.188.49.3", "x", 72, false)
	r.stamp = start.Add(-time.Hour)
	r.judge(t, network, "45.9.20.0/24", "x", 72, false)
	r.read(t)
	all := []string{"35.188.49.1", "35.188.49.2", "45.9.20.0/24"}
	for _, tc := range []struct {
		name   string
		reader Reader
		want   []string
	}{
		{"never here", Reader{}, all},
		{"at a start", Reader{LastPull: start.Add(-time.Minute), Startup: true}, all},
		{"two hours ago", Reader{LastPull: start.Add(-2 * time.Hour)}, all[2:]},
		{"half a day ago", Reader{LastPull: start.Add(-12 * time.Hour)}, all[1:]},
		{"two days ago", Reader{LastPull: start.Add(-48 * time.Hour)}, all},
		{"with a clock that was ahead", Reader{LastPull: start.Add(48 * time.Hour)}, all},
		{"of A", Reader{Organisation: "A", LastPull: start.Add(-12 * time.Hour)}, []string{"35.188.49.2", "35.188.49.3", "45.9.20.0/24"}},
	} {
		_, deleted := sent(t, r.pull(&tc.reader, wanted))
		if diff := gocmp.Diff(tc.want, deleted); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
	if _, deleted := sent(t, r.pull(&Reader{}, Want{Version: V3, Lists: true})); deleted != nil {
		t.Errorf("without the community list: %q", deleted)
	}
	a, b := r.Pull(&Reader{LastPull: start.Add(-2 * time.Hour)}, wanted), r.Pull(&Reader{LastPull: start.Add(-2*time.Hour - 10*time.Minute)}, wanted)
	if a.more[2] != b.more[2] {
		t.Error("readers who were here at about the same time do not share what was deleted")
	}
	for i := range maxWithdrawn + 10 {
		r.judge(t, network, fmt.Sprintf("35.%d.%d.9", i>>8, i&255), "x", 72, false)
	}
	r.read(t)
	if _, deleted := sent(t, r.pull(&Reader{}, wanted)); len(deleted) != maxWithdrawn || slices.Contains(deleted, "35.188.49.1") {
		t.Errorf("%d deletions, want the newest %d", len(deleted), maxWithdrawn)
	}
}

func TestLinks(t *testing.T) {
	r := newRig()
	blocklist := wire.BlocklistLink{Name: "bad", URL: "https://x/lists/1", Remediation: "ban", Scope: "ip", Duration: 24 * time.Hour}
	allowlist := wire.AllowlistLink{ID: "1", Name: "good", URL: "https://x/allowlists/1", CreatedAt: start, UpdatedAt: start}
	r.cfg.Links = func(reader *Reader) wire.Links {
		if reader.Machine != "m" {
			return wire.Links{Blocklists: []wire.BlocklistLink{{Name: "a link that lacks the rest kills engines"}}}
		}
		return wire.Links{Blocklists: []wire.BlocklistLink{blocklist}, Allowlists: []wire.AllowlistLink{allowlist}}
	}
	end := func(reader *Reader, want Want) string {
		t.Helper()
		_, after, _ := strings.Cut(string(r.pull(reader, want).Identity), `"deleted":[]`)
		return after
	}
	const (
		lists  = `"blocklists":[{"name":"bad","url":"https://x/lists/1","remediation":"ban","scope":"ip","duration":"24h0m0s"}]`
		allows = `"allowlists":[{"id":"1","name":"good","description":"good","url":"https://x/allowlists/1","created_at":"2026-11-20T12:20:00Z","updated_at":"2026-11-20T12:20:00Z"}]`
	)
	for _, tc := range []struct {
		name    string
		machine string
		want    Want
		end     string
	}{
		{"all", "m", Want{V3, true, true}, `,"links":{` + lists + `,` + allows + `}}`},
		{"no community list", "m", Want{V3, false, true}, `,"links":{` + lists + `,` + allows + `}}`},
		{"no other lists", "m", Want{V3, true, false}, `,"links":{"blocklists":[],` + allows + `}}`},
		{"an old engine", "m", Want{V2, true, true}, `}`},
		{"a bad link", "other", Want{V3, true, true}, `,"links":{"blocklists":[],"allowlists":[]}}`},
	} {
		if got := end(&Reader{Machine: tc.machine}, tc.want); got != tc.end {
			t.Errorf("%s: %s", tc.name, got)
		}
	}
	if n := testutil.ToFloat64(r.dropped); n != 1 {
		t.Errorf("one link was kept back, %v are counted", n)
	}
	before := r.pull(&Reader{Machine: "m"}, wanted).ETag
	blocklist.URL = "https://x/lists/2"
	if r.pull(&Reader{Machine: "m"}, wanted).ETag == before {
		t.Error("the tag does not cover the links")
	}
}

// A verdict for a captcha is for those who can show one: engines are not told,
// and told to let go of a ban that it replaces.
func TestCaptcha(t *testing.T) {
	r := newRig()
	r.judge(t, network, "35.188.49.1", "x", 72, true)
	r.judge(t, network, "35.188.49.2", "x", 72, true)
	r.read(t)
	s, err := muster.ParseSource("35.188.49.1")
	if err != nil {
		t.Fatal(err)
	}
	r.stamp = r.stamp.Add(time.Second)
	r.log.put(muster.Verdict{Source: s, Listed: true, Remedy: muster.RemedyCaptcha, Scenario: "x", Changed: r.stamp, Until: start.Add(72 * time.Hour)})
	r.read(t)
	r.wantSent(t, "a captcha", "", []string{"35.188.49.2 71h x"}, []string{"35.188.49.1"})
	if e, ok := r.Lookup(network, s.Addr()); !ok || e.Remedy != muster.RemedyCaptcha {
		t.Errorf("looked up: %+v, %t", e, ok)
	}
	if n := r.Count(network); n != 1 {
		t.Errorf("%d are counted, want the ban alone", n)
	}
	r.judge(t, network, "35.188.49.1", "x", 72, true)
	r.read(t)
	r.wantSent(t, "a ban again", "", []string{"35.188.49.1 71h x", "35.188.49.2 71h x"}, nil)
}

// A short list holds something that no allowlist covers.
func TestCompanion(t *testing.T) {
	const companion = `,{"scenario":"muster/companion","scope":"Muster","decisions":[{"value":"companion","duration":"4h0m0s"}]}],"deleted"`
	r := newRig()
	get := func(v Version, engine bool) *got {
		return r.pull(&Reader{Engine: engine}, Want{Version: v, Community: true})
	}
	has := func() bool { return strings.Contains(string(get(V3, true).Identity), companion) }
	if has() {
		t.Error("an empty list has a companion: engines do nothing with an empty one")
	}
	for i := range fewEntries {
		r.judge(t, network, fmt.Sprintf("35.188.49.%d", i), "x", 72, true)
	}
	r.read(t)
	e := get(V3, true)
	if !has() || e.Entries != fewEntries {
		t.Errorf("%d entries without a companion", e.Entries)
	}
	z, err := gzip.NewReader(bytes.NewReader(e.Gzip))
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(z); err != nil || !bytes.Equal(body, e.Identity) || !json.Valid(body) {
		t.Errorf("decompressed: %v, %s", err, body)
	}
	for name, other := range map[string]*got{"an old engine, which has no allowlists": get(V2, true), "an SDK": get(V3, false)} {
		if strings.Contains(string(other.Identity), "companion") || other.ETag == e.ETag {
			t.Errorf("%s has the companion, or the same tag", name)
		}
	}
	r.judge(t, network, "35.188.50.1", "x", 72, true)
	r.read(t)
	if has() {
		t.Error("a longer list has a companion")
	}
}
