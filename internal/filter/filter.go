// Package filter decides which signals are withheld from the upstream: rules in
// the language of CrowdSieve 0.5.1, with its exact results, and rules as
// expressions in the language of CrowdSec's engine. It computes alone: no I/O,
// no clock. docs/filters.md is the language's manual.
package filter

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Mode says what a matching rule does.
type Mode uint8

// The modes.
const (
	Block Mode = iota // a signal that any rule matches is withheld
	Allow             // a signal that no rule matches is withheld: without rules, every one
)

// ParseMode reads "block" or "allow"; "" is Block, the default.
func ParseMode(s string) (Mode, error) {
	switch s {
	case "", "block":
		return Block, nil
	case "allow":
		return Allow, nil
	}
	return Block, fmt.Errorf("expected the mode block or allow, got %q", s)
}

func (m Mode) String() string {
	if m == Allow {
		return "allow"
	}
	return "block"
}

// Rule is a rule as it was written, not yet checked: see ReadRules and Compile.
type Rule struct {
	Name        string
	Description string
	Disabled    bool   // checked, never evaluated
	Filter      *Node  // the condition; nil when Expr is set
	Expr        string // an expression in place of Filter
	File        string // where the rule comes from, for problems; may be ""
	Line        int    // of the rule in File, from 1; 0 = unknown
	ExprLine    int    // of the first line of Expr in File; 0 = unknown
}

// Options are what rules are compiled with. The zero value blocks and knows no
// named lists.
type Options struct {
	Mode  Mode
	Lists Lists // for in_list; nil = there are none
}

// Lists gives the named lists that in_list and InList refer to.
type Lists interface {
	// List returns the list of that name, and whether there is one. It is called
	// when rules are compiled; what it returns is kept, and may change what it
	// holds later.
	List(name string) (List, bool)
}

// List is a named list: an allowlist, the offices, the customers' networks.
type List interface {
	// Holds tells whether text is in the list. addr is the address that text is,
	// or invalid when it is none. It is called for each signal, by several
	// goroutines at once, and must neither block nor keep text.
	Holds(text string, addr netip.Addr) bool
}

// Problem is something wrong with a rule or a file of rules.
type Problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"` // from 1; 0 = unknown
	Rule    string `json:"rule,omitempty"`
	Message string `json:"message"`
	// Refused: the rule is left out. Otherwise it works, as CrowdSieve's would,
	// but hardly as it was meant.
	Refused bool `json:"refused"`
}

func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
	} else if p.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", p.Line)
	}
	if p.Rule != "" {
		fmt.Fprintf(&b, "rule %q: ", p.Rule)
	}
	b.WriteString(p.Message)
	return b.String()
}

// Problems is all that is wrong, in the order of the rules.
type Problems []Problem

// Refused returns the problems that cost a rule.
func (p Problems) Refused() Problems {
	return slices.DeleteFunc(slices.Clone(p), func(p Problem) bool { return !p.Refused })
}

// Compile makes rules ready for evaluation, in their order. A rule that is
// broken is left out and reported; the others work without it. The set is safe
// for use by several goroutines.
func Compile(rules []Rule, o Options) (*Set, Problems) {
	set := &Set{mode: o.Mode, root: newScope(0)}
	set.scopes = []*scope{set.root}
	var problems Problems
	for _, rule := range rules {
		c := compiler{set: set, lists: o.Lists, rule: rule}
		compiled := &compiledRule{rule: rule}
		kept := len(set.scopes)
		c.compile(compiled)
		problems = append(problems, c.problems...)
		if c.refused {
			set.scopes = set.scopes[:kept]
			continue
		}
		set.rules = append(set.rules, compiled)
	}
	set.frames.New = func() any { return newFrame(set) }
	return set, problems
}

// compiler compiles one rule.
type compiler struct {
	set      *Set
	lists    Lists
	rule     Rule
	problems Problems
	refused  bool
}

func (c *compiler) compile(to *compiledRule) {
	switch {
	case c.rule.Name == "":
		c.refuse(c.rule.Line, "expected a name")
	case c.rule.Filter != nil && c.rule.Expr != "":
		c.refuse(c.rule.Line, "expected filter or expr, got both")
	case c.rule.Filter != nil:
		to.test = c.condition(c.rule.Filter, c.set.root, 0)
	case c.rule.Expr != "":
		to.expression = c.expression()
	default:
		c.refuse(c.rule.Line, "expected filter: with a condition, or expr: with an expression")
	}
}

// refuse reports what makes the rule unusable.
func (c *compiler) refuse(line int, format string, args ...any) {
	c.refused = true
	c.report(line, true, format, args)
}

// warn reports what the rule's author will not have meant.
func (c *compiler) warn(line int, format string, args ...any) {
	c.report(line, false, format, args)
}

func (c *compiler) report(line int, refused bool, format string, args []any) {
	if line == 0 {
		line = c.rule.Line
	}
	c.problems = append(c.problems, Problem{
		File: c.rule.File, Line: line, Rule: c.rule.Name, Message: fmt.Sprintf(format, args...), Refused: refused,
	})
}
