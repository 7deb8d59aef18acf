package filter

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// nodeOf makes a node of a value as package json decodes it; every line is 1.
func nodeOf(v any) *Node {
	n := &Node{Line: 1}
	switch v := v.(type) {
	case bool:
		n.Kind, n.Bool = BoolNode, v
	case float64:
		n.Kind, n.Number = NumberNode, v
	case string:
		n.Kind, n.Text = StringNode, v
	case []any:
		n.Kind = ListNode
		for _, item := range v {
			n.Items = append(n.Items, nodeOf(item))
		}
	case map[string]any:
		n.Kind = MapNode
		for name, value := range v {
			n.Fields = append(n.Fields, Field{Name: name, Line: 1, Value: nodeOf(value)})
		}
	}
	return n
}

// parse makes a node of JSON.
func parse(t testing.TB, text string) *Node {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return nodeOf(v)
}

// rule makes a rule of a condition in JSON.
func rule(t testing.TB, condition string) Rule {
	t.Helper()
	return Rule{Name: "r", Filter: parse(t, condition), File: "f.yaml", Line: 1}
}

// one compiles a rule that must work.
func one(t testing.TB, r Rule, o Options) *Set {
	t.Helper()
	set, problems := Compile([]Rule{r}, o)
	if refused := problems.Refused(); len(refused) > 0 {
		t.Fatal(refused)
	}
	return set
}

// cells reads a golden table: name, condition, signal, true or false, and the
// reason, between tabs.
func cells(t testing.TB, name string) (rows [][]string) {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if line := lines.Text(); line != "" && line[0] != '#' {
			rows = append(rows, strings.Split(line, "\t"))
		}
	}
	if len(rows) < 10 {
		t.Fatalf("%s has %d rows", name, len(rows))
	}
	return rows
}

// TestOperators checks every cell of CrowdSieve's table of operators
// (features.md 3.2), with its reasons, and our own operators.
func TestOperators(t *testing.T) {
	lists := NamedLists{"offices": NewEntries("192.0.2.0/24", " 2001:db8::/32 ", "DE", "")}
	seen := map[string]bool{}
	for _, name := range []string{"testdata/operators.tsv", "testdata/extras.tsv"} {
		for _, row := range cells(t, name) {
			if len(row) < 4 {
				t.Errorf("expected condition, signal, result and cell in %q", row)
				continue
			}
			condition, signal, want, cell := row[0], row[1], row[2], row[3]
			t.Run(cell, func(t *testing.T) {
				var op struct{ Op string }
				if err := json.Unmarshal([]byte(condition), &op); err != nil {
					t.Fatal(err)
				}
				seen[op.Op] = true
				got := one(t, rule(t, condition), Options{Lists: lists}).Eval([]byte(signal))
				reason := ""
				if got.Withheld {
					reason = got.Reasons[0].Text
				}
				if len(got.Failures) > 0 {
					t.Error(got.Failures)
				}
				wantReason, matched := strings.CutPrefix(want, "true: ")
				if got.Withheld != matched || matched && reason != wantReason {
					t.Errorf("%s\non %s\ngot %v %s, want %s", condition, signal, got.Withheld, reason, want)
				}
				if !matched && want != "false" {
					t.Errorf("expected false or true with a reason, got %q", want)
				}
			})
		}
	}
	for name, op := range operators {
		if !seen[name] || op.folds && !seen["ci_"+name] {
			t.Errorf("%s is not in the tables", name)
		}
	}
}

// TestGlobs checks globs against results of minimatch 10.2.5.
func TestGlobs(t *testing.T) {
	for _, row := range cells(t, "testdata/globs.tsv") {
		var pattern, value string
		if json.Unmarshal([]byte(row[0]), &pattern) != nil || json.Unmarshal([]byte(row[1]), &value) != nil {
			t.Fatalf("bad row %q", row)
		}
		g, err := compileGlob(pattern, false)
		if err != nil {
			t.Errorf("%q: %v", pattern, err)
			continue
		}
		if got, want := g.match(value), row[2] == "true"; got != want {
			t.Errorf("%q on %q: got %v, want %v", pattern, value, got, want)
		}
	}
}

// TestRegexes checks regexes against results of Node 20: true, false, or invalid
// when JavaScript refuses the pattern.
func TestRegexes(t *testing.T) {
	for _, row := range cells(t, "testdata/regexes.tsv") {
		var pattern, value string
		if json.Unmarshal([]byte(row[0]), &pattern) != nil || json.Unmarshal([]byte(row[1]), &value) != nil {
			t.Fatalf("bad row %q", row)
		}
		got := "invalid"
		re, err := compileRegex(pattern, false)
		if err == nil {
			got = map[bool]string{true: "true", false: "false"}[re.MatchString(value)]
		}
		if got != row[2] {
			t.Errorf("%q on %q: got %s (%v), want %s", pattern, value, got, err, row[2])
		}
	}
}

func TestRegexProblems(t *testing.T) {
	tests := []struct {
		pattern string
		refused bool
		message string
	}{
		{`^(?!admin)`, true, "look-ahead, ?!, cannot be matched in bounded time"},
		{`foo(?=bar)`, true, "look-ahead, ?=, cannot be matched"},
		{`(?<=a)b`, true, "look-behind, ?<=, cannot be matched"},
		{`(?<!a)b`, true, "look-behind, ?<!, cannot be matched"},
		{`(a)\1`, true, `a back-reference, \1, cannot be matched`},
		{`(?<x>a)\k<x>`, true, `a back-reference, \k<x>, cannot be matched`},
		{`a{1001}`, true, "{1001}, more than 1000 times, cannot be matched"},
		{`((a{40}){40}){40}`, true, "not possible with Go's regular expressions"},
		{`(.{900}|.{901}|.{902}|.{903}|.{904}|.{905}|.{906}|.{907}|.{908}|.{909}|.{910}|.{911})`, true, "expected a pattern of at most 10000 steps"},
		{`\ud800`, true, "half a character"},
		{`(?<x>a)\k<y>`, false, `never matches: \k<y> refers to no group`},
		{`(a`, false, "never matches: expected a ) for every ("},
		{`a)`, false, "never matches: expected no ) without its ("},
		{`[a`, false, "never matches: expected a ] for every ["},
		{`*a`, false, "never matches: expected something to repeat before *"},
		{`^*`, false, "never matches: expected something to repeat before *"},
		{`a{2,1}`, false, "never matches: expected {low,high}, got {2,1}"},
		{`[z-a]`, false, "never matches: expected a range from low to high, got z-a"},
		{`(?i)a`, false, "never matches: JavaScript knows no group (?i: to ignore case there is ci_regex"},
		{`a\`, false, "never matches: expected something behind the last backslash"},
		{strings.Repeat("a", 501), false, "never matches: expected a pattern of at most 500 characters, got 501"},
		{strings.Repeat("😀", 251), false, "never matches: expected a pattern of at most 500 characters, got 502"},
	}
	for _, tt := range tests {
		text, _ := json.Marshal(map[string]any{"field": "scenario", "op": "regex", "value": []string{"fine", tt.pattern}})
		set, problems := Compile([]Rule{rule(t, string(text))}, Options{})
		if len(problems) != 1 || problems[0].Refused != tt.refused || !strings.Contains(problems[0].Message, tt.message) {
			t.Errorf("%q: got %v, want refused %v: %s", tt.pattern, problems, tt.refused, tt.message)
			continue
		}
		if tt.refused != (len(set.Rules()) == 0) {
			t.Errorf("%q: refused %v, yet the set has %d rules", tt.pattern, tt.refused, len(set.Rules()))
		}
		if !tt.refused && !set.Eval([]byte(`{"scenario":"fine"}`)).Withheld {
			t.Errorf("%q spoils the patterns beside it", tt.pattern)
		}
	}
	if _, err := compileRegex(strings.Repeat("😀", 250), false); err != nil {
		t.Errorf("500 units: %v", err)
	}
}

func TestProblems(t *testing.T) {
	for _, row := range cells(t, "testdata/problems.tsv") {
		condition, want := row[0], row[1]
		_, problems := Compile([]Rule{rule(t, condition)}, Options{Lists: NamedLists{"known": NewEntries()}})
		var got []string
		for _, p := range problems {
			word := "warned: "
			if p.Refused {
				word = "refused: "
			}
			got = append(got, word+p.Message)
		}
		if diff := cmp.Diff(want, strings.Join(got, " | ")); diff != "" {
			t.Errorf("%s:\n%s", condition, diff)
		}
	}
}
