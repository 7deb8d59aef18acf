package filter

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"
)

// What an expression may cost.
const (
	maxExpression = 16 << 10 // bytes of its text
	maxNodes      = 500      // of its syntax tree
	maxElements   = 100_000  // of lists made during an evaluation
	maxWork       = 4 << 20  // bytes of texts made, and tickCost for each turn of a loop
	tickCost      = 64
	maxText       = 64 << 10 // bytes of a text in the signal
)

// builtins are what is taken over from expr: what neither makes texts nor reads
// the clock. The first ones run their predicate once for each member.
var (
	predicates = map[string]bool{
		"all": true, "none": true, "any": true, "one": true, "filter": true,
		"find": true, "findIndex": true, "findLast": true, "findLastIndex": true, "count": true,
	}
	mappings  = map[string]bool{"map": true, "sum": true}
	functions = []string{
		"len", "int", "float", "abs", "ceil", "floor", "round", "max", "min", "hasPrefix", "hasSuffix",
		"indexOf", "lastIndexOf", "trim", "trimPrefix", "trimSuffix", "date", "duration", "first", "last",
	}
)

// expression is a compiled rule of the kind expr.
type expression struct {
	program *vm.Program
	set     *Set
}

func (c *compiler) expression() *expression {
	if len(c.rule.Expr) > maxExpression {
		c.refuse(c.rule.ExprLine, "expected an expression of at most %d bytes, got %d", maxExpression, len(c.rule.Expr))
		return nil
	}
	guard := &guard{c: c, used: map[string]bool{}}
	options := []expr.Option{
		expr.Env(run{}), expr.AsBool(), expr.MaxNodes(maxNodes), expr.Patch(guard), expr.DisableAllBuiltins(),
	}
	for name := range predicates {
		options = append(options, expr.EnableBuiltin(name))
	}
	for name := range mappings {
		options = append(options, expr.EnableBuiltin(name))
	}
	for _, name := range functions {
		options = append(options, expr.EnableBuiltin(name))
	}
	program, err := expr.Compile(c.rule.Expr, options...)
	if err != nil {
		line, message := c.rule.ExprLine, err.Error()
		if at := new(file.Error); errors.As(err, &at) {
			line += max(at.Line, 1) - 1
			message = fmt.Sprintf("%s (column %d)", at.Message, at.Column+1)
		}
		c.refuse(line, "expression: %s", message)
		return nil
	}
	if guard.err != nil {
		c.refuse(c.rule.ExprLine, "expression: %v", guard.err)
		return nil
	}
	for i, field := range signalFields {
		root, _, _ := strings.Cut(field.path, ".")
		if guard.used[root] && !c.set.hasField(i) {
			c.set.fields = append(c.set.fields, usedField{index: i, slot: c.set.root.slot(field.path)})
		}
	}
	if c.set.decisions == nil && (guard.used["decisions"] || guard.used["context"]) {
		c.set.decisions = c.memberScope(decisionPaths)
		c.set.context = c.memberScope(contextPaths)
	}
	return &expression{program: program, set: c.set}
}

func (c *compiler) memberScope(paths []string) *scope {
	s := newScope(len(c.set.scopes))
	c.set.scopes = append(c.set.scopes, s)
	for _, path := range paths {
		s.slot(path)
	}
	return s
}

func (s *Set) hasField(index int) bool {
	for _, f := range s.fields {
		if f.index == index {
			return true
		}
	}
	return false
}

func (e *expression) holds(f *frame) (bool, error) {
	if f.run == nil {
		f.run = newRun(e.set)
	}
	if f.run.stale {
		f.run.fill(f)
	}
	if f.run.tooLong != "" {
		return false, fmt.Errorf("expected texts of at most %d bytes, but %s is longer", maxText, f.run.tooLong)
	}
	f.run.left = maxWork
	out, err := f.run.vm.Run(e.program, f.run)
	if err != nil {
		if at := new(file.Error); errors.As(err, &at) {
			return false, errors.New(at.Message)
		}
		return false, err
	}
	holds, ok := out.(bool)
	if !ok {
		return false, fmt.Errorf("expected the expression to be true or false, got %T", out)
	}
	return holds, nil
}

// guard goes over an expression's syntax tree, bounds what it may cost and
// notes which variables it uses.
type guard struct {
	c    *compiler
	used map[string]bool
	err  error // the first one
}

func (g *guard) refuse(format string, args ...any) {
	if g.err == nil {
		g.err = fmt.Errorf(format, args...)
	}
}

// Visit implements ast.Visitor; it comes to a node after those below it.
func (g *guard) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		g.used[n.Value] = true
		if n.Value == "$env" {
			g.refuse("$env is not available")
		}
	case *ast.BinaryNode:
		g.binary(node, n)
	case *ast.BuiltinNode:
		g.builtin(n)
	case *ast.CallNode:
		g.call(n)
	}
}

func (g *guard) binary(node *ast.Node, n *ast.BinaryNode) {
	switch n.Operator {
	case "..":
		g.refuse("ranges, as 1..9, are not available")
	case "matches":
		if _, ok := n.Right.(*ast.StringNode); !ok {
			g.refuse("expected a text in quotes behind matches")
		}
	case "+":
		left, right := kindOf(n.Left), kindOf(n.Right)
		switch {
		case left == reflect.String && right == reflect.String:
			call := callTo("Concat", n.Left, n.Right)
			call.SetType(n.Left.Type())
			ast.Patch(node, call)
		case left == reflect.Interface || right == reflect.Interface:
			g.refuse("+ needs to know what it adds: use ToString, int or float")
		}
	}
}

func kindOf(n ast.Node) reflect.Kind {
	if t := n.Type(); t != nil {
		return t.Kind()
	}
	return reflect.Interface
}

func callTo(name string, arguments ...ast.Node) ast.Node {
	return &ast.CallNode{Callee: &ast.IdentifierNode{Value: name}, Arguments: arguments}
}

// builtin makes every turn of a loop count.
func (g *guard) builtin(n *ast.BuiltinNode) {
	if len(n.Arguments) < 2 {
		return
	}
	predicate, ok := n.Arguments[1].(*ast.PredicateNode)
	switch {
	case !ok:
	case predicates[n.Name]:
		predicate.Node = &ast.BinaryNode{Operator: "and", Left: callTo("Tick"), Right: predicate.Node}
	case mappings[n.Name]:
		n.Arguments[0] = &ast.BuiltinNode{
			Name:      "filter",
			Arguments: []ast.Node{n.Arguments[0], &ast.PredicateNode{Node: callTo("Tick")}},
		}
	}
}

func (g *guard) call(n *ast.CallNode) {
	if name, ok := n.Callee.(*ast.IdentifierNode); !ok || name.Value != "InList" || len(n.Arguments) != 2 {
		return
	}
	list, ok := n.Arguments[1].(*ast.StringNode)
	if !ok {
		g.refuse("expected the list's name in quotes: InList(source.ip, \"name\")")
		return
	}
	if _, ok := lookup(g.c.lists, list.Value); !ok {
		g.refuse("there is no list named %q", list.Value)
	}
	g.c.set.lists = g.c.lists
}
