// Package filteryaml reads rules of package filter from YAML. It stands beside
// that package because the pure layer knows no file's syntax.
package filteryaml

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"muster/internal/filter"
)

// maxNodes bounds a file, with what its aliases stand for.
const maxNodes = 1_000_000

// Read reads a file of rules, of filters.d for example: one rule, a list of
// rules, or several documents of either kind. name is the file's, for problems.
// What is no rule, or no YAML, is left out and reported.
func Read(name string, data []byte) ([]filter.Rule, filter.Problems) {
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, filter.Problems{broken(name, err)}
	}
	var rules []filter.Rule
	var problems filter.Problems
	for i, doc := range file.Docs {
		if doc.Body == nil && (i > 0 || len(file.Docs) > 1) {
			continue // nothing but a comment between two ---
		}
		node, err := Node(doc.Body)
		if err != nil {
			problems = append(problems, broken(name, err))
			continue
		}
		read, wrong := filter.ReadRules(name, node)
		rules = append(rules, read...)
		problems = append(problems, wrong...)
	}
	return rules, problems
}

func broken(name string, err error) filter.Problem {
	p := filter.Problem{File: name, Message: "expected YAML: " + err.Error(), Refused: true}
	if at := yaml.Error(nil); errors.As(err, &at) {
		p.Message = "expected YAML: " + at.GetMessage()
		if t := at.GetToken(); t != nil && t.Position != nil {
			p.Line = t.Position.Line
		}
	}
	if at := new(nodeError); errors.As(err, &at) {
		p.Line, p.Message = at.line, at.message
	}
	return p
}

type nodeError struct {
	line    int
	message string
}

func (e *nodeError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.message) }

// Node takes over a part of a YAML document, as the rules in a configuration.
// Anchors, aliases and merges are resolved; nil is null.
func Node(n ast.Node) (*filter.Node, error) {
	c := converter{anchors: map[string]*filter.Node{}}
	return c.node(n)
}

type converter struct {
	anchors map[string]*filter.Node
	nodes   int
}

func lineOf(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

func (c *converter) node(n ast.Node) (*filter.Node, error) {
	if n == nil {
		return &filter.Node{}, nil
	}
	line := lineOf(n)
	if c.nodes++; c.nodes > maxNodes {
		return nil, &nodeError{line, fmt.Sprintf("expected at most %d values", maxNodes)}
	}
	out := &filter.Node{Line: line}
	switch n := n.(type) {
	case *ast.NullNode:
	case *ast.BoolNode:
		out.Kind, out.Bool = filter.BoolNode, n.Value
	case *ast.IntegerNode:
		return number(out, n.Value)
	case *ast.FloatNode:
		return number(out, n.Value)
	case *ast.InfinityNode:
		return number(out, n.Value)
	case *ast.NanNode:
		return number(out, math.NaN())
	case *ast.StringNode:
		out.Kind, out.Text = filter.StringNode, n.Value
	case *ast.LiteralNode:
		out.Kind, out.Text = filter.StringNode, n.Value.Value
		out.Line++ // the text begins below its | or >
	case *ast.SequenceNode:
		out.Kind = filter.ListNode
		for _, value := range n.Values {
			item, err := c.node(value)
			if err != nil {
				return nil, err
			}
			out.Items = append(out.Items, item)
		}
	case *ast.MappingNode:
		return c.mapping(out, n.Values)
	case *ast.MappingValueNode:
		return c.mapping(out, []*ast.MappingValueNode{n})
	case *ast.AnchorNode:
		value, err := c.node(n.Value)
		if err == nil {
			c.anchors[n.Name.GetToken().Value] = value
		}
		return value, err
	case *ast.AliasNode:
		value, ok := c.anchors[n.Value.GetToken().Value]
		if !ok {
			return nil, &nodeError{line, fmt.Sprintf("there is no anchor &%s before this", n.Value.GetToken().Value)}
		}
		if c.nodes += size(value); c.nodes > maxNodes {
			return nil, &nodeError{line, fmt.Sprintf("expected at most %d values", maxNodes)}
		}
		return value, nil
	case *ast.TagNode:
		return c.tagged(n)
	default:
		return nil, &nodeError{line, fmt.Sprintf("expected a value, got %s", n.Type())}
	}
	return out, nil
}

// size counts the values in a tree.
func size(n *filter.Node) int {
	all := 1
	for _, item := range n.Items {
		all += size(item)
	}
	for _, field := range n.Fields {
		all += size(field.Value)
	}
	return all
}

func number(out *filter.Node, v any) (*filter.Node, error) {
	out.Kind = filter.NumberNode
	switch v := v.(type) {
	case int64:
		out.Number = float64(v)
	case uint64:
		out.Number = float64(v)
	case float64:
		out.Number = v
	default:
		return nil, &nodeError{out.Line, fmt.Sprintf("expected a number, got %v", v)}
	}
	return out, nil
}

// tagged reads !!str 5 as a text; of other tags the value alone counts.
func (c *converter) tagged(n *ast.TagNode) (*filter.Node, error) {
	if n.Start.Value == string(token.StringTag) {
		if scalar, ok := n.Value.(ast.ScalarNode); ok && scalar.Type() != ast.StringType && scalar.Type() != ast.LiteralType {
			return &filter.Node{Kind: filter.StringNode, Text: scalar.GetToken().Value, Line: lineOf(n)}, nil
		}
	}
	return c.node(n.Value)
}

func (c *converter) mapping(out *filter.Node, values []*ast.MappingValueNode) (*filter.Node, error) {
	out.Kind = filter.MapNode
	if len(values) > 0 {
		out.Line = lineOf(values[0].Key)
	}
	for _, entry := range values {
		value, err := c.node(entry.Value)
		if err != nil {
			return nil, err
		}
		if entry.Key.IsMergeKey() {
			if value.Kind != filter.MapNode {
				return nil, &nodeError{lineOf(entry.Key), "expected a mapping to merge with <<"}
			}
			// What the mapping says itself comes behind and wins.
			out.Fields = append(append([]filter.Field(nil), value.Fields...), out.Fields...)
			continue
		}
		out.Fields = append(out.Fields, filter.Field{
			Name: strings.Trim(entry.Key.GetToken().Value, " "), Line: lineOf(entry.Key), Value: value,
		})
	}
	return out, nil
}
