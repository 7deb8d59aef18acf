package filter

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestModes(t *testing.T) {
	match := rule(t, `{"field":"scenario","op":"eq","value":"a"}`)
	match.Name = "is-a"
	also := rule(t, `{"field":"scenario","op":"starts_with","value":"a"}`)
	also.Name = "like-a"
	off := rule(t, `{"field":"scenario","op":"not_empty"}`)
	off.Name, off.Disabled = "off", true
	broken := rule(t, `{"field":"scenario","op":"regex","value":"(?=a)"}`)
	broken.Name = "broken"
	failing := Rule{Name: "failing", Expr: `decisions[0].value == "x"`}
	tests := []struct {
		name     string
		mode     Mode
		rules    []Rule
		signal   string
		withheld bool
		reasons  string
		failures int
	}{
		{"block nothing", Block, nil, `{"scenario":"a"}`, false, "", 0},
		{"allow nothing", Allow, nil, `{"scenario":"a"}`, true, "", 0},
		{"block match", Block, []Rule{match}, `{"scenario":"a"}`, true, "is-a", 0},
		{"block other", Block, []Rule{match}, `{"scenario":"b"}`, false, "", 0},
		{"allow match", Allow, []Rule{match}, `{"scenario":"a"}`, false, "is-a", 0},
		{"allow other", Allow, []Rule{match}, `{"scenario":"b"}`, true, "", 0},
		{"every reason", Block, []Rule{match, also}, `{"scenario":"a"}`, true, "is-a like-a", 0},
		{"disabled", Block, []Rule{off}, `{"scenario":"a"}`, false, "", 0},
		{"allow disabled", Allow, []Rule{off}, `{"scenario":"a"}`, true, "", 0},
		{"broken beside", Block, []Rule{broken, match}, `{"scenario":"a"}`, true, "is-a", 0},
		{"allow broken", Allow, []Rule{broken}, `{"scenario":"a"}`, true, "", 0},
		{"failing beside", Block, []Rule{failing, match}, `{"scenario":"a"}`, true, "is-a", 1},
		{"allow failing", Allow, []Rule{failing}, `{"scenario":"a"}`, true, "", 1},
		{"no JSON", Block, []Rule{match}, `{"scenario":"a"`, false, "", 1},
		{"allow no JSON", Allow, []Rule{match}, `{"scenario":"a"} x`, true, "", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set, _ := Compile(tt.rules, Options{Mode: tt.mode})
			got := set.Eval([]byte(tt.signal))
			var names []string
			for _, reason := range got.Reasons {
				names = append(names, reason.Rule)
			}
			if got.Withheld != tt.withheld || strings.Join(names, " ") != tt.reasons || len(got.Failures) != tt.failures {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestReasons(t *testing.T) {
	set := one(t, rule(t, `{"op":"and","conditions":[
		{"field":"source.ip","op":"cidr","value":["10.0.0.0/8"]},
		{"op":"not","condition":{"field":"source.cn","op":"eq","value":"DE"}},
		{"op":"any","field":"decisions","condition":{"field":"origin","op":"in","value":["cscli"]}}]}`), Options{})
	got := set.Eval([]byte(`{"source":{"ip":"10.1.2.3","cn":"FR"},"decisions":[{"origin":"crowdsec"},{"origin":"cscli"}]}`))
	want := `[{"rule":"r","reason":"source.ip in CIDR 10.0.0.0/8 AND NOT(condition) AND any decisions (origin in [cscli])",` +
		`"matched":[{"field":"source.ip","op":"cidr","value":"\"10.1.2.3\""},{"field":"source.cn","op":"not eq","value":"\"FR\""},` +
		`{"field":"decisions[].origin","op":"in","value":"\"cscli\""}]}]`
	if diff := cmp.Diff(want, string(got.ReasonsJSON())); diff != "" {
		t.Error(diff)
	}
	stored := `["source.ip in CIDR 10.0.0.0/8 AND NOT(condition) AND any decisions (origin in [cscli])"]`
	if diff := cmp.Diff(stored, got.FilterReasons()); diff != "" {
		t.Error(diff)
	}
	none := set.Eval([]byte(`{}`))
	if none.FilterReasons() != "" || string(none.ReasonsJSON()) != "[]" {
		t.Errorf("got %q and %s of nothing", none.FilterReasons(), none.ReasonsJSON())
	}
	long := one(t, rule(t, `{"field":"message","op":"not_empty"}`), Options{})
	long.Eval([]byte(`{"message":"` + strings.Repeat("é", 40000) + `"}`))
	if value := long.Eval([]byte(`{"message":"` + strings.Repeat("é", 4000) + `"}`)).Reasons[0].Matched[0].Value; len(value) > maxExcerpt+3 {
		t.Errorf("a reason repeats %d bytes", len(value))
	}
	if status := long.Rules()[0]; status.Matched != 2 {
		t.Errorf("counted %+v", status)
	}
}

func TestProblemString(t *testing.T) {
	_, problems := Compile([]Rule{
		{File: "a.yaml", Line: 3, Filter: &Node{}}, {Name: "b", Line: 4}, {Name: "c", Filter: &Node{}, Expr: "true", File: "c.yaml"},
	}, Options{})
	want := `a.yaml:3: expected a name
line 4: rule "b": expected filter: with a condition, or expr: with an expression
c.yaml: rule "c": expected filter or expr, got both`
	var got []string
	for _, p := range problems {
		got = append(got, p.String())
	}
	if diff := cmp.Diff(want, strings.Join(got, "\n")); diff != "" {
		t.Error(diff)
	}
	if _, err := ParseMode("deny"); err == nil {
		t.Error("ParseMode takes deny")
	}
}

func TestExpand(t *testing.T) {
	n := parse(t, `{"field":"${F}","op":"in","value":["${F}",5]}`)
	n.Expand(func(s string) string { return strings.ReplaceAll(s, "${F}", "source.cn") })
	if got := one(t, Rule{Name: "r", Filter: n}, Options{}).Eval([]byte(`{"source":{"cn":"source.cn"}}`)); !got.Withheld {
		t.Error(got)
	}
}

func TestDiff(t *testing.T) {
	before := one(t, rule(t, `{"field":"a","op":"in","value":[1,2]}`), Options{})
	after := one(t, rule(t, `{"field":"a","op":"in","value":[2,3]}`), Options{})
	signals := [][]byte{[]byte(`{"a":0}`), []byte(`{"a":1}`), []byte(`{"a":2}`), []byte(`{"a":3}`), []byte(`{"a":3}`), []byte(`x`)}
	got := Diff(before, after, slices.Values(signals), 2)
	want := Difference{Signals: 6, Withheld: 1, Forwarded: 2, NowWithheld: 2, NowForwarded: 1, Failed: 1, Changes: []Change{
		{Index: 1, Signal: signals[1], Before: before.Eval(signals[1]), After: after.Eval(signals[1])},
		{Index: 3, Signal: signals[3], Before: before.Eval(signals[3]), After: after.Eval(signals[3])},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if after.Rules()[0].Matched != 1 {
		t.Error("Diff counts for the rules' status")
	}
}

func TestConcurrent(t *testing.T) {
	set, problems := Compile(twentyRules(t), Options{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 200 {
				if got := set.Eval([]byte(certified)); len(got.Failures) > 0 || got.Withheld {
					t.Error(got)
				}
			}
		})
	}
	group.Wait()
}

// JSON draws a value of any shape that signals and more can have.
func drawJSON(t *rapid.T, depth int) any {
	kinds := []string{"text", "number", "null", "bool", "address"}
	if depth > 0 {
		kinds = append(kinds, "list", "object", "object")
	}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case "text":
		return rapid.SampledFrom([]string{"", "a", "A", "ab", "a/b", ".a", "é\"\n", "5"}).Draw(t, "text")
	case "address":
		return rapid.SampledFrom([]string{"10.0.0.1", "::1", "::ffff:10.0.0.1", "2026-01-01T12:00:00Z"}).Draw(t, "address")
	case "number":
		return rapid.SampledFrom([]float64{0, 1, 5, -1.5, 1e30}).Draw(t, "number")
	case "bool":
		return rapid.Bool().Draw(t, "bool")
	case "list":
		list := []any{}
		for range rapid.IntRange(0, 3).Draw(t, "length") {
			list = append(list, drawJSON(t, depth-1))
		}
		return list
	case "object":
		object := map[string]any{}
		for range rapid.IntRange(0, 3).Draw(t, "size") {
			object[rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")] = drawJSON(t, depth-1)
		}
		return object
	}
	return nil
}

// drawField draws a field condition that compiles.
func drawField(t *rapid.T) map[string]any {
	names := make([]string, 0, len(operators))
	for name, op := range operators {
		names = append(names, name)
		if op.folds {
			names = append(names, "ci_"+name)
		}
	}
	slices.Sort(names)
	op := rapid.SampledFrom(names).Draw(t, "op")
	c := map[string]any{"op": op, "field": rapid.SampledFrom([]string{"a", "a.b", "a.0", "b", "c.a.length"}).Draw(t, "field")}
	switch op {
	case "between":
		c["value"] = []any{"08:00", "18:00"}
	case "in_list":
		c["value"] = "known"
	default:
		c["value"] = rapid.SampledFrom([]any{
			"a", "", "5", 5.0, true, nil, "10.0.0.0/8", []any{"a", 5.0, "::/0"}, []any{}, []any{"a*", "b", "c", "d", "é\"\n", 1.0},
		}).Draw(t, "value")
	}
	return c
}

// drawCondition draws conditions of every kind.
func drawCondition(t *rapid.T, depth int) map[string]any {
	kind := "field"
	if depth > 0 {
		kind = rapid.SampledFrom([]string{"field", "and", "or", "not", "any", "all"}).Draw(t, "condition")
	}
	switch kind {
	case "and", "or":
		var list []any
		for range rapid.IntRange(1, 3).Draw(t, "conditions") {
			list = append(list, drawCondition(t, depth-1))
		}
		return map[string]any{"op": kind, "conditions": list}
	case "not":
		return map[string]any{"op": "not", "condition": drawCondition(t, depth-1)}
	case "any", "all":
		return map[string]any{"op": kind, "field": "a", "condition": drawCondition(t, depth-1)}
	}
	return drawField(t)
}

func holds(t *rapid.T, condition any, signal []byte) bool {
	set, problems := Compile([]Rule{{Name: "r", Filter: nodeOf(condition)}}, Options{Lists: NamedLists{"known": NewEntries("a", "10.0.0.0/8")}})
	if refused := problems.Refused(); len(refused) > 0 {
		t.Fatal(refused)
	}
	got := set.Eval(signal)
	if len(got.Failures) > 0 {
		t.Fatal(got.Failures)
	}
	allow, _ := Compile([]Rule{{Name: "r", Filter: nodeOf(condition)}}, Options{Mode: Allow, Lists: NamedLists{"known": NewEntries("a", "10.0.0.0/8")}})
	if other := allow.Eval(signal); other.Withheld == got.Withheld {
		t.Fatalf("block and allow agree on %s", signal)
	}
	return got.Withheld
}

func not(c any) map[string]any { return map[string]any{"op": "not", "condition": c} }
func and(c ...any) map[string]any {
	return map[string]any{"op": "and", "conditions": c}
}
func or(c ...any) map[string]any { return map[string]any{"op": "or", "conditions": c} }

// The laws of logic hold for any conditions and signals.
func TestLogic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		signal, _ := json.Marshal(drawJSON(t, 4))
		a, b := drawCondition(t, 2), drawCondition(t, 2)
		isA, isB := holds(t, a, signal), holds(t, b, signal)
		for name, law := range map[string]struct{ got, want bool }{
			"not":          {holds(t, not(a), signal), !isA},
			"not not":      {holds(t, not(not(a)), signal), isA},
			"and":          {holds(t, and(a, b), signal), isA && isB},
			"or":           {holds(t, or(a, b), signal), isA || isB},
			"De Morgan":    {holds(t, not(and(a, b)), signal), holds(t, or(not(a), not(b)), signal)},
			"De Morgan or": {holds(t, not(or(a, b)), signal), holds(t, and(not(a), not(b)), signal)},
		} {
			if law.got != law.want {
				t.Errorf("%s: got %v, want %v", name, law.got, law.want)
			}
		}
	})
}

// Operators that come in pairs are each other's opposite where CrowdSieve says
// so, and read nothing but the field's value: what json decodes differently
// written is the same to them.
func TestPairs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree := drawJSON(t, 3)
		signal, _ := json.Marshal(tree)
		c := drawField(t)
		for _, pair := range [][2]string{{"eq", "ne"}, {"ci_eq", "ci_ne"}, {"empty", "not_empty"}} {
			c["op"] = pair[0]
			is := holds(t, c, signal)
			c["op"] = pair[1]
			if holds(t, c, signal) == is {
				t.Errorf("%s and %s agree on %s", pair[0], pair[1], signal)
			}
		}
		var spaced []byte
		spaced, _ = json.MarshalIndent(tree, " ", "\t")
		if holds(t, c, signal) != holds(t, c, spaced) {
			t.Errorf("spaces matter in %s", spaced)
		}
	})
}

// What read finds at a path is what package json finds.
func TestScan(t *testing.T) {
	paths := []string{"a", "a.b", "a.b.c", "b", "c.a", "a.0", "a.1.b", "b.length"}
	s := newScope(0)
	for _, path := range paths {
		s.slot(path)
	}
	v := newView(s)
	rapid.Check(t, func(t *rapid.T) {
		tree := drawJSON(t, 4)
		signal, _ := json.Marshal(tree)
		if !s.read(string(signal), &v) {
			t.Fatalf("cannot read %s", signal)
		}
		for i, path := range paths {
			want, there := at(tree, path)
			got := v.slots[i]
			if there != (got.kind != kindUndefined) {
				t.Fatalf("%s of %s: got %v, want %v", path, signal, got, want)
			}
			if there {
				var decoded any
				if err := json.Unmarshal([]byte(got.json()), &decoded); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, decoded); diff != "" {
					t.Fatalf("%s of %s: %s", path, signal, diff)
				}
			}
		}
	})
}

// at finds a path as JavaScript does.
func at(tree any, path string) (any, bool) {
	for name := range strings.SplitSeq(path, ".") {
		switch below := tree.(type) {
		case map[string]any:
			next, ok := below[name]
			if !ok {
				return nil, false
			}
			tree = next
		case []any:
			i := strings.Index("01", name)
			switch {
			case name == "length":
				tree = float64(len(below))
			case i >= 0 && i < len(below):
				tree = below[i]
			default:
				return nil, false
			}
		default:
			return nil, false
		}
	}
	return tree, true
}

// read accepts what package json accepts, and nothing else.
func FuzzScan(f *testing.F) {
	f.Add([]byte(certified))
	for _, text := range []string{
		``, ` `, `{}`, `[]`, `{"a":}`, `{"a":1,}`, `[1,]`, `[,1]`, `{"a" 1}`, `{a:1}`, `"\u12g4"`, `"\ud800\u0041"`, `01`, `-`, `1.`, `1e`, `-0.5E+3`,
		`{"a":{"b":[[],{},[{"a":[1,2,"]"]}]]}}`, `{"a":tru}`, `nul`, "\"\x01\"", `{"a":1}}`, `[1}`, `{"a":[}`, `"`, `"\`, `{"a":"\x"}`, "\xff", `{"\u0061":{"b":2}}`,
	} {
		f.Add([]byte(text))
	}
	paths := newScope(0)
	for _, path := range []string{"a", "a.b", "a.b.c", "a.0", "b.1.length", "source.ip", "decisions"} {
		paths.slot(path)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Count(string(data), "[")+strings.Count(string(data), "{") >= maxDepth {
			t.Skip("maybe too deep")
		}
		for _, s := range []*scope{newScope(0), paths} {
			v := newView(s)
			if got, want := s.read(string(data), &v), json.Valid(data); got != want {
				t.Errorf("got %v, want %v for %q", got, want, data)
			}
		}
	})
}

// Nothing that a rule or a signal holds makes Compile or Eval panic, and a set
// gives the same answer twice.
func FuzzCompile(f *testing.F) {
	for _, row := range append(cells(f, "testdata/operators.tsv"), cells(f, "testdata/extras.tsv")...) {
		f.Add(row[0], "", row[1])
	}
	f.Add(`{}`, `any(decisions, .origin == "x" and Match("a*", scenario + "b"))`, certified)
	f.Add(`{"field":"scenario","op":"regex","value":"(?<a>[^\\w\\-]{2,}?)|\\bx"}`, `len(map(filter(decisions, true), .id)) > 0`, certified)
	f.Fuzz(func(t *testing.T, condition, expression, signal string) {
		var tree any
		if json.Unmarshal([]byte(condition), &tree) != nil {
			tree = nil
		}
		rules := []Rule{{Name: "e", Expr: expression}, {Name: "f", Filter: nodeOf(tree)}}
		set, _ := Compile(rules, Options{Lists: NamedLists{"offices": NewEntries("192.0.2.0/24")}})
		first := set.Eval([]byte(signal))
		if diff := cmp.Diff(first, set.Eval([]byte(signal))); diff != "" {
			t.Error(diff)
		}
	})
}

// twentyRules is a plausible set: what the benchmark and the target speak of.
func twentyRules(t testing.TB) []Rule {
	conditions := []string{
		`{"field":"decisions","op":"empty"}`,
		`{"field":"source.ip","op":"cidr","value":["10.0.0.0/8","172.16.0.0/12","192.168.0.0/16","127.0.0.0/8"]}`,
		`{"field":"source.ip","op":"cidr","value":["198.51.100.0/24","203.0.113.0/24","2001:db8::/32","fc00::/7","fe80::/10","100.64.0.0/10","169.254.0.0/16","224.0.0.0/4"]}`,
		`{"field":"source.range","op":"cidr","value":"10.0.0.0/8"}`,
		`{"field":"scenario","op":"in","value":["crowdsecurity/http-crawl-non_statics","crowdsecurity/http-probing","a/b","c/d","e/f"]}`,
		`{"field":"scenario","op":"glob","value":["*/http-*","crowdsecurity/iptables-*"]}`,
		`{"field":"scenario","op":"regex","value":"^crowdsecurity/(vpatch|appsec)-"}`,
		`{"field":"scenario","op":"starts_with","value":"manual "}`,
		`{"field":"source.cn","op":"in","value":["FR","BE","LU","CH","AT"]}`,
		`{"field":"source.as_number","op":"eq","value":"64497"}`,
		`{"field":"source.as_name","op":"contains","value":"Hosting"}`,
		`{"field":"scenario_trust","op":"in","value":["custom","tainted"]}`,
		`{"field":"scenario_version","op":"empty"}`,
		`{"field":"machine_id","op":"starts_with","value":"test-"}`,
		`{"field":"kind","op":"eq","value":"papi"}`,
		`{"field":"message","op":"contains","value":"simulation"}`,
		`{"op":"and","conditions":[{"field":"source.scope","op":"eq","value":"Country"},{"field":"source.cn","op":"ne","value":"DE"}]}`,
		`{"op":"or","conditions":[{"field":"source.scope","op":"eq","value":"Username"},{"op":"not","condition":{"field":"uuid","op":"not_empty"}}]}`,
		`{"op":"any","field":"decisions","condition":{"field":"origin","op":"eq","value":"console"}}`,
		`{"field":"scenario_hash","op":"eq","value":"0000000000000000000000000000000000000000000000000000000000000000"}`,
	}
	var rules []Rule
	for _, c := range conditions {
		rules = append(rules, rule(t, c))
	}
	return rules
}

// BenchmarkEval evaluates a batch of 50 signals with 20 rules.
func BenchmarkEval(b *testing.B) {
	sets := map[string][]Rule{"none-match": twentyRules(b)}
	all := twentyRules(b)
	all[8] = rule(b, `{"field":"source.cn","op":"in","value":["DE","BE","LU","CH","AT"]}`)
	sets["one-matches"] = all
	withExpr := slices.Clone(twentyRules(b))
	withExpr[18] = Rule{Name: "e", Expr: `any(decisions, .origin == "console")`}
	withExpr[19] = Rule{Name: "e2", Expr: `scenario == "a" and IpInRange(source.ip, "10.0.0.0/8")`}
	sets["two-expressions"] = withExpr
	sets["no-rules"] = nil
	for _, name := range []string{"none-match", "one-matches", "two-expressions", "no-rules"} {
		b.Run(name, func(b *testing.B) {
			set, problems := Compile(sets[name], Options{})
			if len(problems) > 0 {
				b.Fatal(problems)
			}
			signal := []byte(certified)
			b.ReportAllocs()
			b.SetBytes(int64(50 * len(signal)))
			for b.Loop() {
				for range 50 {
					if got := set.Eval(signal); len(got.Failures) > 0 {
						b.Fatal(got)
					}
				}
			}
		})
	}
}

// BenchmarkNetworks looks an address up in a long list.
func BenchmarkNetworks(b *testing.B) {
	var set networks
	random := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		network, err := parseNetwork("10." + number(float64(random.IntN(256))) + "." + number(float64(random.IntN(256))) + ".0/24")
		if err != nil {
			b.Fatal(err)
		}
		set.add(network, "")
	}
	set.build()
	addr := parseAddr("10.255.255.1")
	b.ReportAllocs()
	for b.Loop() {
		set.contains(addr)
	}
}
