package console

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	gocmp "github.com/google/go-cmp/cmp"

	"muster"
)

var update = flag.Bool("update", false, "write the golden files of testdata anew")

// nest keeps canaries in memory.
type nest struct {
	list  []muster.Canary
	audit []muster.AuditEntry
	fail  error
}

func (n *nest) Canaries(_ context.Context, q muster.CanaryQuery) (out []muster.Canary, err error) {
	for _, c := range n.list {
		if c.ID > q.After && (q.Origin == "" || c.Origin == q.Origin) && strings.Contains(strings.ToLower(c.ID+" "+c.Reason), strings.ToLower(q.Search)) {
			out = append(out, c)
		}
	}
	return out[:min(len(out), q.Limit)], n.fail
}

func (n *nest) PutCanaries(_ context.Context, canaries []muster.Canary, audit ...muster.AuditEntry) error {
	if n.fail != nil {
		return n.fail
	}
	for _, c := range canaries {
		n.list = slices.DeleteFunc(n.list, func(have muster.Canary) bool { return have.ID == c.ID })
		n.list = append(n.list, c)
	}
	slices.SortFunc(n.list, func(x, y muster.Canary) int { return cmp.Compare(x.ID, y.ID) })
	n.audit = append(n.audit, audit...)
	return nil
}

func (n *nest) ReplaceCanaries(ctx context.Context, origin string, canaries []muster.Canary, audit ...muster.AuditEntry) error {
	n.list = slices.DeleteFunc(n.list, func(c muster.Canary) bool { return c.Origin == origin })
	return n.PutCanaries(ctx, canaries, audit...)
}

func (n *nest) remove(which func(muster.Canary) bool, audit []muster.AuditEntry) (int, error) {
	before := len(n.list)
	n.list = slices.DeleteFunc(n.list, which)
	if before == len(n.list) {
		return 0, missing("canary")
	}
	n.audit = append(n.audit, audit...)
	return before - len(n.list), n.fail
}

func (n *nest) DeleteCanary(_ context.Context, id string, audit ...muster.AuditEntry) error {
	_, err := n.remove(func(c muster.Canary) bool { return c.ID == id }, audit)
	return err
}

func (n *nest) DeleteCanariesOf(_ context.Context, origin string, audit ...muster.AuditEntry) (int, error) {
	return n.remove(func(c muster.Canary) bool { return c.Origin == origin }, audit)
}

func newNestRig(t testing.TB) (*rig, *nest) {
	t.Helper()
	r, n := newRig(t), &nest{}
	r.cfg.Canaries = n
	r.cfg.CanariesChanged = func(context.Context) error { r.changed = append(r.changed, "canaries"); return nil }
	return r, n
}

// What an administrator does with canaries, from the first to the last.
func TestCanariesGolden(t *testing.T) {
	r, n := newNestRig(t)
	misp := `{"name":"List of known Googlebot IP ranges","version":1,"description":"d","type":"cidr","list":["66.249.64.0/19","66.249.64.0/19","www.google.com","10.0.0.0/8"]}`
	var b strings.Builder
	for _, q := range []struct{ method, path, body string }{
		{"GET", "/canaries?search=quad9", ""},
		{"POST", "/canaries", `{"values":["198.41.0.5","AS15169","*.GoogleBot.com.","203.0.114.7/24"],"reason":"ours"}`},
		{"POST", "/canaries", `{"values":["203.0.114.0/24"],"reason":"our office"}`},
		{"POST", "/canaries/import?list=gb&dry_run=true", misp},
		{"GET", "/canaries?origin=misp:gb", ""},
		{"POST", "/canaries/import?file=list.json.gz&reason=crawlers", misp},
		{"POST", "/canaries/import?list=a&list=b", `{"a":["66.249.64.0/19"],"b":["8.8.8.8"],"vpn":["1.12.0.0/14"]}`},
		{"GET", "/canaries?origin=misp:googlebot-ip-ranges", ""},
		{"GET", "/canaries?origin=operator&limit=2", ""},
		{"GET", "/canaries?origin=operator&limit=2&after=operator/198.41.0.5", ""},
		{"DELETE", "/canaries/operator%2F203.0.114.0%2F24?reason=moved", ""},
		{"DELETE", "/canaries/AS15169", ""},
		{"DELETE", "/canaries?origin=list:a&reason=old", ""},
		{"DELETE", "/canaries?origin=list:a", ""},
		{"DELETE", "/canaries/built-in%2F1.1.1.1", ""},
		{"GET", "/canaries?after=built-in/zzz", ""},
	} {
		a := r.do(q.method, "/api/v1"+q.path, q.body)
		fmt.Fprintf(&b, "%s %s\n%s\n%d %s\n\n", q.method, q.path, q.body, a.status, a.body)
	}
	b.WriteString("The audit:\n")
	for _, e := range n.audit {
		fmt.Fprintf(&b, "%s %s: %s %s (%s) %s\n", e.At.Format("15:04"), e.By, e.Action, e.Subject, e.Reason, e.Detail)
	}
	fmt.Fprintf(&b, "Told to all nodes: %q\n", r.changed)
	got := regexp.MustCompile(`\n\n(\d)`).ReplaceAllString(b.String(), "\n$1") // requests without a body
	const golden = "testdata/canaries.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), got); diff != "" {
		t.Errorf("the conversation is another (-update writes it anew):\n%s", diff)
	}
}

func TestCanariesRefuse(t *testing.T) {
	many := `["` + strings.Repeat(`8.8.8.8","`, maxCanaryValues) + `8.8.8.8"]`
	for _, c := range []struct {
		status                   int
		method, path, body, want string
	}{
		{400, "POST", "", `{"values":["8.8.8.8"]}`, "reason: expected one line"},
		{400, "POST", "", `{"reason":"x"}`, "values: expected 1 to 1000, got 0"},
		{400, "POST", "", `{"values":` + many + `,"reason":"x"}`, "got 1001: import longer lists"},
		{400, "POST", "", `{"values":["8.8.4.4","web1"],"reason":"x"}`, `got \"web1\"`},
		{400, "POST", "", `{"values":["10.0.0.1"],"reason":"x"}`, "reserved space"},
		{400, "POST", "", `{"values":["8.0.0.0/7"],"reason":"x"}`, "too wide"},
		{400, "POST", "", `{"value":"8.8.4.4","reason":"x"}`, "unknown field"},
		{400, "GET", "?limit=0", "", "limit: expected"},
		{400, "DELETE", "", "", "origin: expected"},
		{400, "DELETE", "?origin=built-in", "", "built in"},
		{400, "DELETE", "/built-in/1.1.1.1", "", "built in"},
		{400, "DELETE", "?origin=x&reason=a%0Ab", "", "reason: expected one line"},
		{404, "DELETE", "?origin=misp:none", "", "no such canary"},
		{404, "DELETE", "/8.8.4.4", "", "no such canary"},
		{400, "POST", "/import", "8.8.4.4\n", "expected a name for the list"},
		{400, "POST", "/import?file=x", "<html>", "can be a canary"},
		{400, "POST", "/import?list=x&reason=a%0Ab", "8.8.4.4", "reason: expected one line"},
		{400, "POST", "/import?list=x&dry_run=maybe", "8.8.4.4", "dry_run: expected"},
		{413, "POST", "/import?list=x", strings.Repeat("8.8.4.4\n", 200_001), "at most 200000"},
	} {
		r, n := newNestRig(t)
		r.want(c.status, c.want, c.method, "/api/v1/canaries"+c.path, c.body)
		if len(n.list) != 0 || len(n.audit) != 0 || len(r.changed) != 0 {
			t.Errorf("%s %s: changed something", c.method, c.path)
		}
	}
	r, n := newNestRig(t)
	n.fail = muster.Errorf(muster.TooLarge, "there would be 500001 canaries")
	r.want(413, "500001", "POST", "/api/v1/canaries", `{"values":["8.8.4.4"],"reason":"x"}`)
	r.want(413, "500001", "POST", "/api/v1/canaries/import?list=x", "8.8.4.4")
	r.want(413, "500001", "GET", "/api/v1/canaries", "")
	a := send(t, r.Trusted(), "POST", "/api/v1/canaries/import?list=x", "", func(q *http.Request) {
		q.Body = io.NopCloser(iotest.ErrReader(errors.New("connection reset")))
	})
	if a.status != 400 || !strings.Contains(a.body, "could not be read") {
		t.Errorf("a body that breaks off: got %d %s", a.status, a.body)
	}
}

// Those that are built in and the others come in one order, on pages of any size.
func TestCanariesInPages(t *testing.T) {
	r, _ := newNestRig(t)
	r.want(200, "", "POST", "/api/v1/canaries/import?list=x", "8.8.4.4\n9.9.9.9\n17.0.0.0/8\n")
	r.want(200, "", "POST", "/api/v1/canaries", `{"values":["8.8.4.4","*.example.org"],"reason":"x"}`)
	get := func(query url.Values) (ids []string, next string) {
		t.Helper()
		var page struct {
			Canaries []canaryView
			Next     string
		}
		r.want(200, "", "GET", "/api/v1/canaries?"+query.Encode(), "").into(t, &page)
		for _, c := range page.Canaries {
			ids = append(ids, c.ID)
		}
		return ids, page.Next
	}
	all, next := get(url.Values{})
	if len(all) < 40 || next != "" || !slices.IsSorted(all) || all[len(all)-1] != "operator/8.8.4.4" {
		t.Fatalf("%d canaries, next %q: %q", len(all), next, all)
	}
	for _, size := range []int{1, 7, len(all) - 1, len(all)} {
		var got []string
		after := ""
		for range len(all) + 1 {
			page, next := get(url.Values{"limit": {fmt.Sprint(size)}, "after": {after}})
			if got = append(got, page...); next == "" {
				break
			}
			after = next
		}
		if !slices.Equal(got, all) {
			t.Errorf("in pages of %d: %q", size, got)
		}
	}
	if found, _ := get(url.Values{"search": {"8.8.4.4"}}); !slices.Equal(found, []string{"built-in/8.8.4.4", "list:x/8.8.4.4", "operator/8.8.4.4"}) {
		t.Errorf("found %q", found)
	}
}

// Canaries that would match nothing are refused one by one, and counted in lists.
func TestCanariesThatNeedWhatIsNotThere(t *testing.T) {
	r := newRig(t)
	r.cfg.Canaries = &nest{}
	r.cfg.ASN, r.cfg.Names = nil, false
	r.want(400, "AS64600: AS canaries need a database of AS numbers on this server (setting enrich.asn)", "POST", "/api/v1/canaries", `{"values":["8.8.4.4","AS64600"],"reason":"x"}`)
	r.want(400, "(setting canaries.names)", "POST", "/api/v1/canaries", `{"values":["*.example.org"],"reason":"x"}`)
	r.want(200, `"canaries":3,"idle":2`, "POST", "/api/v1/canaries/import?list=x", "8.8.4.4\nAS64600\n*.example.org\n")
	r.cfg.ASN = func(netip.Addr) uint32 { return 0 }
	r.want(200, `"canaries":3,"idle":1`, "POST", "/api/v1/canaries/import?list=x", "8.8.4.4\nAS64600\n*.example.org\n")
	r.want(200, "", "POST", "/api/v1/canaries", `{"values":["AS64600"],"reason":"x"}`)
}
