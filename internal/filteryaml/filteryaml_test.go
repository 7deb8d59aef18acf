package filteryaml

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/internal/filter"
)

func TestRead(t *testing.T) {
	rules, problems := Read("10-internal.yaml", []byte(`# what is ours
name: internal-ips
enabled: false
description: "Own networks"
filter:
  op: or
  conditions:
    - &ours
      field: source.ip
      op: cidr
      value:
        - "10.0.0.0/8"
        - 'fd00::/8'
    - {field: source.as_number, op: in, value: [!!str 64496, 64497, true, 1.5]}
    - op: not
      condition: *ours
`))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	rule := rules[0]
	rule.Filter = nil
	want := filter.Rule{Name: "internal-ips", Description: "Own networks", Disabled: true, File: "10-internal.yaml", Line: 2}
	if diff := cmp.Diff(want, rule); diff != "" {
		t.Error(diff)
	}
	const tree = `{op:"or"@6,conditions:[{field:"source.ip"@9,op:"cidr"@10,value:["10.0.0.0/8"@12,"fd00::/8"@13]},` +
		`{field:"source.as_number"@14,op:"in"@14,value:["64496"@14,64497@14,true@14,1.5@14]},` +
		`{op:"not"@15,condition:{field:"source.ip"@9,op:"cidr"@10,value:["10.0.0.0/8"@12,"fd00::/8"@13]}}]}`
	if diff := cmp.Diff(tree, dump(rules[0].Filter)); diff != "" {
		t.Error(diff)
	}
}

func dump(n *filter.Node) string {
	var parts []string
	switch n.Kind {
	case filter.ListNode:
		for _, item := range n.Items {
			parts = append(parts, dump(item))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case filter.MapNode:
		for _, field := range n.Fields {
			parts = append(parts, field.Name+":"+dump(field.Value))
		}
		return "{" + strings.Join(parts, ",") + "}"
	case filter.StringNode:
		return fmt.Sprintf("%q@%d", n.Text, n.Line)
	case filter.NumberNode:
		return fmt.Sprintf("%v@%d", n.Number, n.Line)
	case filter.BoolNode:
		return fmt.Sprintf("%v@%d", n.Bool, n.Line)
	default:
		return "null"
	}
}

func TestReadForms(t *testing.T) {
	tests := []struct {
		name, text string
		rules      string // names
		problems   string // one a line
	}{
		{"list", "- {name: a, filter: {op: empty, field: x}}\n- {name: b, expr: 'true'}\n", "a b", ""},
		{"rules", "rules:\n  - {name: a, expr: 'true'}\n", "a", ""},
		{"documents", "---\nname: a\nexpr: 'true'\n---\nname: b\nexpr: 'true'\n", "a b", ""},
		{"JSON", `{"name": "a", "filter": {"field": "kind", "op": "eq", "value": null}}`, "a", ""},
		{"empty", "", "", "f.yaml: expected a rule, got an empty file"},
		{"comment", "# nothing\n", "", "f.yaml: expected a rule, got an empty file"},
		{"scalar", "hello\n", "", "f.yaml:1: expected a rule with name and filter, got a text"},
		{"broken", "name: a\nfilter: [\n", "", "f.yaml:2: expected YAML: sequence end token ']' not found"},
		{"enabled", "name: a\nenabled: \"yes\"\nexpr: 'true'\n", "", `f.yaml:2: rule "a": expected enabled to be a boolean, got a text`},
		{"filter", "name: a\nfilter: cidr\n", "", `f.yaml:2: rule "a": expected filter to be a mapping, got a text`},
		{
			"unknown", "name: a\npriority: 3\nexpr: 'true'\n", "a",
			`f.yaml:2: rule "a": priority is no field of a rule (name, enabled, description, filter, expr) and is ignored`,
		},
		{"one bad of two", "- 5\n- {name: b, expr: 'true'}\n", "b", "f.yaml:1: expected a rule with name and filter, got a number"},
		{"alias", "name: a\nfilter: *x\n", "", "f.yaml:2: there is no anchor &x before this"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rules, problems := Read("f.yaml", []byte(tt.text))
			var names, messages []string
			for _, rule := range rules {
				names = append(names, rule.Name)
			}
			for _, p := range problems {
				messages = append(messages, p.String())
			}
			if got := strings.Join(names, " "); got != tt.rules {
				t.Errorf("rules %q, want %q", got, tt.rules)
			}
			if diff := cmp.Diff(tt.problems, strings.Join(messages, "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The line of a problem inside an expression is the file's.
func TestExpressionLines(t *testing.T) {
	for name, text := range map[string]string{
		"block":  "name: a\nexpr: |\n  scenario == 'x' and\n  scenari == 'y'\n",
		"folded": "# a comment\nname: a\nexpr:\n  scenari == 'y'\n",
		"one":    "name: a\n\n\nexpr: scenari == 'y'\n",
	} {
		t.Run(name, func(t *testing.T) {
			rules, problems := Read("f.yaml", []byte(text))
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			_, problems = filter.Compile(rules, filter.Options{})
			if len(problems) != 1 || problems[0].Line != 4 || !strings.Contains(problems[0].Message, "unknown name scenari") {
				t.Errorf("got %v, want line 4", problems)
			}
		})
	}
}

// An alias of aliases is not unfolded without end.
func TestReadBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	_, problems := Read("f.yaml", []byte(b.String()))
	if len(problems) != 1 || !strings.Contains(problems[0].Message, "expected at most") {
		t.Errorf("got %v", problems)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("name: a\nfilter:\n  field: source.ip\n  op: cidr\n  value: [10.0.0.0/8]\n"))
	f.Add([]byte("- &a {name: a, expr: 'any(decisions, .type == \"ban\")'}\n- <<: *a\n  name: b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rules, problems := Read("f.yaml", data)
		if len(rules) == 0 && len(problems) == 0 {
			t.Skip("an empty list")
		}
		filter.Compile(rules, filter.Options{})
	})
}

// Every example in the manual works, without a warning.
func TestManual(t *testing.T) {
	manual, err := os.ReadFile("../../docs/filters.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(manual), "```yaml\n")[1:]
	if len(blocks) < 4 {
		t.Fatalf("the manual has %d examples", len(blocks))
	}
	for _, block := range blocks {
		text, _, _ := strings.Cut(block, "```")
		rules, problems := Read("filters.md", []byte(text))
		set, wrong := filter.Compile(rules, filter.Options{})
		if problems = append(problems, wrong...); len(problems) > 0 || len(set.Rules()) == 0 {
			t.Errorf("%v in\n%s", problems, text)
		}
	}
}
