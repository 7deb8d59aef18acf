package filter

import "fmt"

// Kind is what a Node is.
type Kind uint8

// The kinds.
const (
	NullNode Kind = iota
	BoolNode
	NumberNode
	StringNode
	ListNode
	MapNode
)

func (k Kind) String() string {
	return [...]string{"null", "a boolean", "a number", "a text", "a list", "a mapping"}[min(k, MapNode)]
}

// Node is a piece of a decoded file of rules that knows where it stands, so
// that this package need not know the file's syntax. It is read only.
type Node struct {
	Kind   Kind
	Bool   bool
	Number float64
	Text   string
	Items  []*Node // of a list
	Fields []Field // of a mapping, in the file's order
	Line   int     // from 1; 0 = unknown
}

// Field is one entry of a mapping.
type Field struct {
	Name  string
	Line  int
	Value *Node
}

// get returns the value of a mapping's last field of that name, or nil.
func (n *Node) get(name string) *Node {
	for i := len(n.Fields) - 1; i >= 0; i-- {
		if n.Fields[i].Name == name {
			return n.Fields[i].Value
		}
	}
	return nil
}

// Expand replaces every text in the tree below n by what replace makes of it:
// for what ${…} stands for, which CrowdSieve allows in its main file.
func (n *Node) Expand(replace func(string) string) {
	if n == nil {
		return
	}
	if n.Kind == StringNode {
		n.Text = replace(n.Text)
	}
	for _, item := range n.Items {
		item.Expand(replace)
	}
	for _, field := range n.Fields {
		field.Value.Expand(replace)
	}
}

// ReadRules reads the rules of a decoded file: one rule, as in CrowdSieve's
// filters.d, a list of rules, or a mapping with such a list under rules. What is
// no rule is left out and reported.
func ReadRules(file string, tree *Node) ([]Rule, Problems) {
	r := ruleReader{file: file}
	switch {
	case tree == nil || tree.Kind == NullNode:
		r.refuse(tree, "", "expected a rule, got an empty file")
	case tree.Kind == ListNode:
		r.list(tree)
	case tree.Kind == MapNode && tree.get("rules") != nil && tree.get("filter") == nil && tree.get("expr") == nil:
		rules := tree.get("rules")
		if rules.Kind != ListNode {
			r.refuse(rules, "", fmt.Sprintf("expected rules to be a list, got %s", rules.Kind))
			break
		}
		r.list(rules)
	default:
		r.rule(tree)
	}
	return r.rules, r.problems
}

type ruleReader struct {
	file     string
	rules    []Rule
	problems Problems
}

func (r *ruleReader) refuse(at *Node, rule, message string) {
	p := Problem{File: r.file, Rule: rule, Message: message, Refused: true}
	if at != nil {
		p.Line = at.Line
	}
	r.problems = append(r.problems, p)
}

func (r *ruleReader) list(list *Node) {
	for _, item := range list.Items {
		r.rule(item)
	}
}

func (r *ruleReader) rule(n *Node) {
	if n.Kind != MapNode {
		r.refuse(n, "", fmt.Sprintf("expected a rule with name and filter, got %s", n.Kind))
		return
	}
	rule := Rule{File: r.file, Line: n.Line}
	if name := n.get("name"); name != nil && name.Kind == StringNode {
		rule.Name = name.Text
	}
	for _, field := range n.Fields {
		expected := func(kind Kind) bool {
			if field.Value.Kind == kind {
				return true
			}
			r.refuse(field.Value, rule.Name, fmt.Sprintf("expected %s to be %s, got %s", field.Name, kind, field.Value.Kind))
			return false
		}
		switch field.Name {
		case "name":
			if !expected(StringNode) {
				return
			}
		case "description":
			if !expected(StringNode) {
				return
			}
			rule.Description = field.Value.Text
		case "enabled":
			if !expected(BoolNode) {
				return
			}
			rule.Disabled = !field.Value.Bool
		case "filter":
			if !expected(MapNode) {
				return
			}
			rule.Filter = field.Value
		case "expr":
			if !expected(StringNode) {
				return
			}
			rule.Expr, rule.ExprLine = field.Value.Text, field.Value.Line
		default:
			r.problems = append(r.problems, Problem{
				File: r.file, Line: field.Line, Rule: rule.Name,
				Message: fmt.Sprintf("%s is no field of a rule (name, enabled, description, filter, expr) and is ignored", field.Name),
			})
		}
	}
	r.rules = append(r.rules, rule)
}
