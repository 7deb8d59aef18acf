package console

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"muster"
	"muster/internal/jury"
	"muster/internal/policy"
)

// wantGolden compares a text with testdata/name.
func wantGolden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is another (-update writes it anew; -want +got):\n%s", name, diff)
	}
}

// indented makes JSON readable.
func indented(t *testing.T, body string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(body), "", "  "); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return b.String()
}

// crowdReasons are what the judge thinks of a source that three machines reported.
func crowdReasons(change func(*muster.Reasons)) muster.Reasons {
	r := muster.Reasons{
		Machines: 3, Organisations: 2, Scenarios: []string{"crowdsecurity/ssh-bf", "crowdsecurity/http-probing"}, Reports: []int{12, 1},
		First: now.Add(-26 * time.Hour).Unix(), Last: now.Add(-10 * time.Minute).Unix(), Rule: "2 independent voices support it", Basis: "crowd",
		Support: 6.26, Threshold: 5, Diversity: 1.96, Independent: 2, Needed: 2, Bands: [6]int{4: 2, 1: 1}, Convictions: 1, Epoch: 77, Parameters: 1,
	}
	if change != nil {
		change(&r)
	}
	return r
}

// unlisted is what the judge thinks of a source that is not listed.
func unlisted(basis string, change func(*muster.Reasons)) *muster.Reasons {
	r := crowdReasons(func(r *muster.Reasons) {
		r.Basis, r.Rule = basis, "a rule called "+basis
		r.Machines, r.Independent, r.Support, r.Diversity, r.Bands, r.Convictions = 1, 1, 0.75, 1, [6]int{2: 1}, 0
		if change != nil {
			change(r)
		}
	})
	return &r
}

// explained is one source in the golden file.
type explained struct {
	title, ask string
	listed     *muster.Reasons // the network's verdict: listed
	remedy     muster.Remedy
	ended      *muster.Reasons // or: listed no longer
	standing   *muster.Reasons
	due        time.Duration
	canary     bool // the judge says so
	history    []muster.Verdict
	fleets     []muster.Audience
	change     func(r *rig)
}

var explanations = []explained{
	{title: "Listed by the crowd", ask: "45.83.1.1", listed: new(crowdReasons(nil)), standing: new(crowdReasons(func(r *muster.Reasons) {
		r.Basis, r.Confirmed = "standing", true
	}))},
	{
		title: "By a honeypot, in a small network, again", ask: "45.83.1.2", listed: new(crowdReasons(func(r *muster.Reasons) { r.Basis = "honeypot" })),
		standing: new(crowdReasons(func(r *muster.Reasons) {
			r.Basis, r.Local, r.Honeypots, r.Bands = "standing", true, 1, [6]int{5: 2, 1: 1}
		})),
		history: []muster.Verdict{
			{Listed: true, Since: now.Add(-3 * time.Hour), Changed: now.Add(-3 * time.Hour)},
			{Listed: false, Since: now.Add(-90 * 24 * time.Hour), Changed: now.Add(-80 * 24 * time.Hour), Reasons: muster.Reasons{Basis: "lapsed"}},
			{Listed: true, Since: now.Add(-90 * 24 * time.Hour), Changed: now.Add(-90 * 24 * time.Hour)},
		},
	},
	{
		title: "Shared by many, and so softly", ask: "45.83.1.3", remedy: muster.RemedyCaptcha, listed: new(crowdReasons(func(r *muster.Reasons) { r.Shared = true })),
		standing: new(crowdReasons(func(r *muster.Reasons) { r.Basis, r.Shared, r.Threshold = "standing", true, 7.5 })),
	},
	{title: "By a crowd that is too large to be remembered", ask: "45.83.1.4", listed: new(crowdReasons(nil)), standing: new(crowdReasons(func(r *muster.Reasons) {
		r.Machines, r.Bands, r.Independent, r.Diversity = 1500, [6]int{1, 2, 3, 4, 5, 6}, 19, 17.5
	}))},
	{title: "Too little for a listing", ask: "45.83.1.5", standing: unlisted("undecided", nil)},
	{title: "A hair too little", ask: "45.83.1.15", standing: unlisted("undecided", func(r *muster.Reasons) { r.Independent, r.Support = 2, 4.98 })},
	{
		title: "Enough once, but used up", ask: "45.83.1.6", standing: unlisted("undecided", func(r *muster.Reasons) { r.Independent, r.Support = 2, 5.5 }),
		ended: &muster.Reasons{Basis: "lapsed"}, history: []muster.Verdict{
			{Since: now.Add(-4 * 24 * time.Hour), Changed: now.Add(-25 * time.Hour), Reasons: muster.Reasons{Basis: "lapsed"}},
			{Listed: true, Since: now.Add(-4 * 24 * time.Hour), Changed: now.Add(-4 * 24 * time.Hour)},
		},
	},
	{title: "From machines under suspicion", ask: "45.83.1.7", standing: unlisted("suspicious", func(r *muster.Reasons) { r.Support, r.Independent = 9, 0 })},
	{title: "Waits for others", ask: "45.83.1.8", standing: unlisted("waiting", func(r *muster.Reasons) { r.Support, r.Independent = 9, 3 }), due: 5 * time.Hour},
	{title: "After an unban", ask: "45.83.1.9", standing: unlisted("undecided", func(r *muster.Reasons) {
		r.Machines, r.Bands, r.Support, r.Independent, r.Threshold, r.Probation = 0, [6]int{}, 0, 0, 7.5, true
	}), history: []muster.Verdict{
		{Since: now.Add(-5 * time.Hour), Changed: now.Add(-2 * time.Hour), Reasons: muster.Reasons{Basis: "cleared"}},
		{Listed: true, Since: now.Add(-5 * time.Hour), Changed: now.Add(-5 * time.Hour)},
		{Since: now.Add(-95 * time.Hour), Changed: now.Add(-32 * time.Hour), Reasons: muster.Reasons{Basis: "cleared"}},
	}},
	{title: "Nobody knows it", ask: "45.83.1.10"},
	{
		title: "For organisations only", ask: "45.83.1.11", fleets: []muster.Audience{"org-a", "org-b", "org-gone", "org-more", "org-most"},
		standing: unlisted("undecided", func(r *muster.Reasons) { r.Machines, r.Bands, r.Support, r.Independent = 0, [6]int{}, 0, 0 }),
	},
	{title: "For an organisation, and the judge has forgotten it", ask: "45.83.1.12", fleets: []muster.Audience{"org-a"}},
	{title: "An address of v6", ask: "2001:4860:1::7", listed: new(crowdReasons(nil)), standing: new(crowdReasons(nil))},
	{title: "Reserved", ask: "10.1.2.3"},
	{title: "A canary that was reported", ask: "8.8.8.8", canary: true, standing: unlisted("canary", nil)},
	{title: "A canary that the judge alone knows", ask: "45.83.1.13", canary: true},
	{title: "On the allowlist", ask: "45.83.2.77", standing: unlisted("never", func(r *muster.Reasons) { r.Never = "on the allowlist: our office" })},
	{title: "On the allowlist without a reason", ask: "45.83.3.1"},
	{title: "An operator's word", ask: "45.83.4.4", standing: unlisted("never", func(r *muster.Reasons) { r.Never = "on the allowlist: operator: a partner" })},
	{title: "Listed by an operator", ask: "45.86.4.4", listed: &muster.Reasons{Rule: "listed: an operator decided so", Basis: "operator", Epoch: 77, Parameters: 1}},
	{title: "Listed by an operator and reported", ask: "45.86.4.5", listed: &muster.Reasons{Basis: "operator"}, standing: unlisted("undecided", nil)},
	{title: "A range that an operator listed", ask: "45.86.5.0/24", listed: &muster.Reasons{Basis: "operator"}},
	{title: "In that", ask: "45.86.5.200"},
	{title: "Listed by an operator once", ask: "45.86.4.6", ended: &muster.Reasons{Basis: "operator"}, history: []muster.Verdict{
		{Since: now.Add(-5 * time.Hour), Changed: now.Add(-2 * time.Hour), Reasons: muster.Reasons{Basis: "operator"}},
		{Listed: true, Since: now.Add(-5 * time.Hour), Changed: now.Add(-5 * time.Hour), Reasons: muster.Reasons{Basis: "operator"}},
	}},
	{title: "Of an AS that is a canary", ask: "45.85.1.1", canary: true},
	{title: "That owns the name of a crawler", ask: "45.83.1.16", canary: true, change: func(r *rig) {
		s := r.bench.standings[muster.SourceFromAddr(netip.MustParseAddr("45.83.1.16"))]
		s.Name = "crawl-1.googlebot.com"
		r.bench.standings[muster.SourceFromAddr(netip.MustParseAddr("45.83.1.16"))] = s
	}},
	{title: "A range with a canary inside", ask: "8.8.0.0/16", standing: unlisted("never", func(r *muster.Reasons) { r.Never = "an address that is known to be good is inside" })},
	{title: "A range for its members", ask: "45.84.1.0/24", listed: &muster.Reasons{
		Machines: 9, Scenarios: []string{"crowdsecurity/ssh-bf"}, First: 1, Last: 2, Rule: "listed: so many of its addresses were convicted that it is listed as a whole", Basis: "range", Epoch: 77, Parameters: 1,
	}},
	{title: "Inside of that range", ask: "45.84.1.200"},
	{title: "A range inside of that range", ask: "45.84.1.128/25"},
	{title: "Around that range", ask: "45.84.0.0/16"},
	{
		title: "Listed, and the judge does not answer", ask: "45.83.1.14", listed: new(crowdReasons(nil)),
		change: func(r *rig) { r.bench.fail = muster.Errorf(muster.Unavailable, "away") },
	},
}

// put has the world be as e says.
func (e *explained) put(t *testing.T, r *rig) {
	source := jury.SubjectOf(mustSource(t, e.ask))
	v := muster.Verdict{Source: source, Remedy: muster.RemedyBan, Scenario: "crowdsecurity/ssh-bf", Since: now.Add(-3 * time.Hour), Until: now.Add(70 * time.Hour), Changed: now.Add(-time.Hour)}
	if e.remedy != "" {
		v.Remedy = e.remedy
	}
	switch {
	case e.listed != nil:
		v.Listed, v.Reasons = true, *e.listed
		r.store.verdicts = append(r.store.verdicts, v)
	case e.ended != nil:
		v.Reasons = *e.ended
		r.store.verdicts = append(r.store.verdicts, v)
	}
	for _, organisation := range e.fleets {
		v.Audience, v.Listed, v.Reasons = organisation, true, muster.Reasons{Machines: 1, Basis: "fleet"}
		r.store.verdicts = append(r.store.verdicts, v)
	}
	for _, h := range e.history {
		h.Source, h.Remedy, h.Until, h.Reasons.Rule = source, v.Remedy, h.Since.Add(72*time.Hour), "a rule"
		r.store.history = append(r.store.history, h)
	}
	s := jury.Standing{Canary: e.canary}
	if e.standing != nil {
		s.Known, s.Reasons = true, *e.standing
	}
	if e.due != 0 {
		s.Due = now.Add(e.due)
	}
	r.bench.standings[source] = s
	if e.change != nil {
		e.change(r)
	}
}

func TestExplanations(t *testing.T) {
	r := newRig(t)
	r.truth = jury.Truth{
		Canaries: policy.NewCanaries(append(policy.BuiltInCanaries(), mustCanary(t, "AS64600"), mustCanary(t, "*.googlebot.com"))),
		Allowlist: policy.NewAllowlist([]muster.AllowEntry{
			{Source: mustSource(t, "45.83.2.0/24"), Reason: "our office"},
			{Source: mustSource(t, "45.83.3.1")},
			{Source: mustSource(t, "45.83.4.0/24"), Reason: OperatorPrefix + "a partner"},
		}),
	}
	r.store.words = []muster.OperatorVerdict{
		{Source: mustSource(t, "45.83.0.0/16"), Until: now.Add(-time.Hour), Reason: "ended", By: "eve", CreatedAt: now.Add(-48 * time.Hour)},
		{Source: mustSource(t, "45.83.4.0/24"), Until: now.Add(36 * time.Hour), Reason: "a partner.", By: "jane", CreatedAt: now.Add(-48 * time.Hour)},
		{Source: mustSource(t, "45.83.4.4"), Listed: true, Remedy: muster.RemedyBan, Until: now.Add(36 * time.Hour), Reason: "an older word", By: "eve", CreatedAt: now.Add(-50 * time.Hour)},
		{Source: mustSource(t, "45.86.4.4"), Listed: true, Remedy: muster.RemedyBan, Until: now.Add(70 * time.Hour), Reason: "a flood.", By: "jane", CreatedAt: now.Add(-3 * time.Hour)},
		{Source: mustSource(t, "45.86.4.5"), Listed: true, Remedy: muster.RemedyBan, Until: now.Add(70 * time.Hour), Reason: "a flood", By: "jane", CreatedAt: now.Add(-3 * time.Hour)},
		{Source: mustSource(t, "45.86.5.0/24"), Listed: true, Remedy: muster.RemedyBan, Until: now.Add(70 * time.Hour), Reason: "a bad neighbourhood", By: "jane", CreatedAt: now.Add(-3 * time.Hour)},
	}
	var text, whole strings.Builder
	for _, e := range explanations {
		e.put(t, r)
		a := r.want(200, "", "GET", "/api/v1/explain/"+e.ask, "")
		var v explainView
		a.into(t, &v)
		if len(v.Lines) < 2 || len(v.Lines) > maxLines {
			t.Errorf("%s: %d lines", e.title, len(v.Lines))
		}
		fmt.Fprintf(&text, "# %s\n%s\n\n", e.title, strings.Join(v.Lines, "\n"))
		switch e.ask {
		case "45.83.1.2", "45.83.1.10", "45.83.4.4", "2001:4860:1::7":
			fmt.Fprintf(&whole, "# %s\n%s\n\n", e.title, indented(t, a.body))
		}
	}
	wantGolden(t, "explain.txt", text.String())
	wantGolden(t, "explain.json.txt", whole.String())
	if bad := regexp.MustCompile(`(?i)%!|<nil>|\b0001-|\b1970-|\.\.|  |\bNaN`).FindString(text.String()); bad != "" {
		t.Errorf("the lines have %q in them", bad)
	}
}

func mustCanary(t testing.TB, value string) muster.Canary {
	t.Helper()
	c, err := muster.NewCanary(muster.OriginOperator, value)
	if err != nil {
		t.Fatal(err)
	}
	c.Reason = "known"
	return c
}

func TestExplainRefuses(t *testing.T) {
	r := newRig(t)
	r.want(400, "expected an IPv4 or IPv6 address", "GET", "/api/v1/explain/XX", "")
	r.want(200, `"source":"45.83.9.0/24"`, "GET", "/api/v1/explain/45.83.9.7/24", "")
	r.bench.fail = fmt.Errorf("broken")
	r.want(500, "internal", "GET", "/api/v1/explain/45.83.9.9", "")
	r.bench.fail = nil
	r.store.fail = fmt.Errorf("broken")
	r.want(500, "internal", "GET", "/api/v1/explain/45.83.9.9", "")
}

// A server that does not judge says what was decided.
func TestNoJudge(t *testing.T) {
	r := newRig(t)
	r.machine("m1", "web-1", "org-a")
	r.cfg.Judge = nil
	r.want(200, `"judged":false,"standing":null`, "GET", "/api/v1/explain/45.83.9.9", "")
	r.want(200, `"trust":null,"events":[]`, "GET", "/api/v1/machines/m1", "")
	r.want(200, `"id":"m1"`, "GET", "/api/v1/machines", "")
	r.want(503, "does not judge", "GET", "/api/v1/machines/m1/trust", "")
	r.want(503, "does not judge", "GET", "/api/v1/network", "")
	r.want(503, "does not judge", "GET", "/api/v1/behaviours", "")
}

// deaf is a judge that loads its evidence.
type deaf struct{ *bench }

func (deaf) Explain(ctx context.Context, _ muster.Source) (s jury.Standing, err error) {
	<-ctx.Done()
	return s, ctx.Err()
}

// Nobody waits for a judge that is busy longer than a person would.
func TestBusyJudge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &API{cfg: Config{Judge: deaf{}}}
		start := time.Now()
		_, err := askJudge(t.Context(), a, func(ctx context.Context, j Judge) (jury.Standing, error) { return j.Explain(ctx, muster.Source{}) })
		if muster.CodeOf(err) != muster.Unavailable || time.Since(start) != judgePatience {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
	})
}
