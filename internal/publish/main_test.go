package publish

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"muster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden files of testdata anew")

var start = time.Date(2026, 11, 20, 12, 20, 0, 0, time.UTC)

// clock is a settable clock.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// changelog is a table of verdicts as the store keeps it: one row for each
// audience and source.
type changelog struct {
	mu    sync.Mutex
	rows  map[changelogKey]muster.Verdict
	fail  error
	reads int
}

type changelogKey struct {
	audience muster.Audience
	source   muster.Source
}

func (c *changelog) put(vs ...muster.Verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rows == nil {
		c.rows = map[changelogKey]muster.Verdict{}
	}
	for _, v := range vs {
		c.rows[changelogKey{v.Audience, v.Source}] = v
	}
}

func (c *changelog) setFail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = err
}

func (c *changelog) Listed(_ context.Context, fn func(muster.Verdict) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.rows {
		if err := fn(v); err != nil {
			return err
		}
	}
	return c.fail
}

func (c *changelog) Changed(_ context.Context, since time.Time, limit int) ([]muster.Verdict, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	if c.fail != nil {
		return nil, c.fail
	}
	var out []muster.Verdict
	for _, v := range c.rows {
		if v.Changed.After(since) {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, func(a, b muster.Verdict) int {
		return cmp.Or(a.Changed.Compare(b.Changed), cmp.Compare(a.Source.String(), b.Source.String()))
	})
	end := min(limit, len(out))
	for end > 0 && end < len(out) && out[end].Changed.Equal(out[end-1].Changed) {
		end++
	}
	return out[:end], nil
}

// rig is a publisher with its changelog and clock.
type rig struct {
	*Publisher
	log     *changelog
	clock   *clock
	allowed map[muster.Source]bool
	stamp   time.Time
}

func newRig(change ...func(*Config)) *rig {
	r := &rig{log: &changelog{}, clock: &clock{at: start}, allowed: map[muster.Source]bool{}, stamp: start.Add(-time.Hour)}
	cfg := Config{
		Verdicts: r.log, Now: r.clock.now, Logger: slog.New(slog.DiscardHandler),
		Allowed: func(s muster.Source) bool { return r.allowed[s] },
	}
	for _, f := range change {
		f(&cfg)
	}
	r.Publisher = New(cfg)
	return r
}

// judge puts a verdict into the changelog: hours is how long from the start on
// the listing lasts, listed false withdraws it.
func (r *rig) judge(t testing.TB, a muster.Audience, text, scenario string, hours float64, listed bool) {
	t.Helper()
	s, err := muster.ParseSource(text)
	if err != nil {
		t.Fatal(err)
	}
	r.stamp = r.stamp.Add(time.Microsecond)
	r.log.put(muster.Verdict{
		Source: s, Audience: a, Listed: listed, Scenario: scenario, Since: start.Add(-2 * time.Hour), Changed: r.stamp,
		Until: start.Add(time.Duration(hours * float64(time.Hour))),
	})
}

// read brings the publisher up to date and lets coalescing pass.
func (r *rig) read(t testing.TB) {
	t.Helper()
	if err := r.follow(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.clock.advance(coalesce)
}

// golden compares JSON with testdata/name, indented so that people can read it.
// The exact bytes are compared too, through compaction.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		var b bytes.Buffer
		if err := json.Indent(&b, got, "", "  "); err != nil {
			t.Fatalf("%s: not JSON: %v\n%s", name, err, got)
		}
		b.WriteByte('\n')
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, want); err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(compact.String(), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// got is what a reader got.
type got struct {
	ETag           string
	Identity, Gzip []byte
	Entries        int
}

// Edition pulls as a machine of an organisation that was never here; empty is
// without the community list.
func (r *rig) Edition(organisation string, version Version, empty bool) *got {
	return r.pull(&Reader{Organisation: organisation}, Want{Version: version, Community: !empty, Lists: true})
}

func (r *rig) pull(reader *Reader, want Want) *got {
	a := r.Pull(reader, want)
	g := &got{ETag: a.ETag, Entries: a.Entries}
	var b bytes.Buffer
	for _, gzip := range []bool{false, true} {
		b.Reset()
		if err := a.Write(&b, gzip); err != nil {
			panic(err)
		}
		if b.Len() != a.Length(gzip) {
			panic(fmt.Sprintf("gzip %t: %d bytes of %d announced", gzip, b.Len(), a.Length(gzip)))
		}
		if gzip {
			g.Gzip = bytes.Clone(b.Bytes())
		} else {
			g.Identity = bytes.Clone(b.Bytes())
		}
	}
	return g
}

// sent is an answer as a reader understands it: "value duration scenario" of
// the new decisions, and the deleted values, in order.
func sent(t testing.TB, e *got) (list, deleted []string) {
	t.Helper()
	var doc struct {
		New []struct {
			Scenario  string
			Scope     string
			Decisions []struct{ Value, Duration string }
		}
		Deleted []struct {
			Scope     string
			Decisions []string
		}
	}
	if err := json.Unmarshal(e.Identity, &doc); err != nil {
		t.Fatalf("%v in %s", err, e.Identity)
	}
	for _, g := range doc.New {
		for _, d := range g.Decisions {
			list = append(list, d.Value+" "+strings.TrimSuffix(d.Duration, "0m0s")+" "+g.Scenario)
		}
	}
	for _, g := range doc.Deleted {
		deleted = append(deleted, g.Decisions...)
	}
	return list, deleted
}

func (r *rig) wantSent(t *testing.T, what, organisation string, list, deleted []string) {
	t.Helper()
	gotList, gotDeleted := sent(t, r.Edition(organisation, V3, false))
	slices.Sort(list)
	slices.Sort(gotList)
	if diff := gocmp.Diff(list, gotList); diff != "" {
		t.Errorf("%s: new (-want +got):\n%s", what, diff)
	}
	if diff := gocmp.Diff(deleted, gotDeleted); diff != "" {
		t.Errorf("%s: deleted (-want +got):\n%s", what, diff)
	}
}
