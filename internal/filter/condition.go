package filter

import (
	"slices"
	"strings"
)

// maxNesting bounds how deep conditions may be nested.
const maxNesting = 64

// test is a compiled condition.
type test interface {
	// holds tells whether the condition is met by the values in v.
	holds(f *frame, v *view) bool
	// explain returns CrowdSieve's reason for a condition that holds, and
	// appends to m what decided.
	explain(f *frame, v *view, m *[]Match) string
}

type andTest []test

func (t andTest) holds(f *frame, v *view) bool {
	for _, one := range t {
		if !one.holds(f, v) {
			return false
		}
	}
	return true
}

func (t andTest) explain(f *frame, v *view, m *[]Match) string {
	var reasons []string
	for _, one := range t {
		reasons = append(reasons, one.explain(f, v, m))
	}
	return strings.Join(reasons, " AND ")
}

type orTest []test

func (t orTest) holds(f *frame, v *view) bool { return t.first(f, v) != nil }

// first returns the first condition that holds, or nil.
func (t orTest) first(f *frame, v *view) test {
	for _, one := range t {
		if one.holds(f, v) {
			return one
		}
	}
	return nil
}

func (t orTest) explain(f *frame, v *view, m *[]Match) string {
	return t.first(f, v).explain(f, v, m)
}

type notTest struct{ inner test }

func (t notTest) holds(f *frame, v *view) bool { return !t.inner.holds(f, v) }

func (t notTest) explain(_ *frame, v *view, m *[]Match) string {
	if field, ok := t.inner.(*fieldTest); ok {
		field.note(v, "not "+field.op, m)
	}
	return "NOT(condition)"
}

// memberTest is any or all over a list, with a condition on each member.
type memberTest struct {
	field string
	slot  int
	all   bool
	inner test
	scope *scope // the members' paths
}

func (t *memberTest) holds(f *frame, v *view) bool {
	some, below := false, &f.views[t.scope.index]
	for member := range v.slots[t.slot].members() {
		some = true
		if t.holdsFor(f, &member, below) {
			if !t.all {
				return true
			}
		} else if t.all {
			return false
		}
	}
	return some && t.all
}

// holdsFor reads a member into below and tests it. One that is neither object
// nor list has no fields: all are missing.
func (t *memberTest) holdsFor(f *frame, member *value, below *view) bool {
	if member.kind == kindObject || member.kind == kindArray {
		t.scope.read(member.text, below)
	} else {
		below.clear()
	}
	return t.inner.holds(f, below)
}

// explain tells of the first member that meets the condition.
func (t *memberTest) explain(f *frame, v *view, m *[]Match) string {
	which := "any "
	if t.all {
		which = "all "
	}
	below := &f.views[t.scope.index]
	for member := range v.slots[t.slot].members() {
		if t.holdsFor(f, &member, below) {
			from := len(*m)
			reason := t.inner.explain(f, below, m)
			for i := from; i < len(*m); i++ {
				(*m)[i].Field = t.field + "[]." + (*m)[i].Field
			}
			return which + t.field + " (" + reason + ")"
		}
	}
	return which + t.field
}

// fieldTest compares the value at a path with what the rule gives.
type fieldTest struct {
	field  string
	op     string
	slot   int
	check  func(x *value) bool
	reason func(x *value) string
}

func (t *fieldTest) holds(_ *frame, v *view) bool { return t.check(&v.slots[t.slot]) }

func (t *fieldTest) explain(_ *frame, v *view, m *[]Match) string {
	t.note(v, t.op, m)
	return t.field + " " + t.reason(&v.slots[t.slot])
}

func (t *fieldTest) note(v *view, op string, m *[]Match) {
	*m = append(*m, Match{Field: t.field, Op: op, Value: excerpt(v.slots[t.slot].json())})
}

// maxExcerpt is how many bytes of a value a reason repeats.
const maxExcerpt = 200

func excerpt(s string) string {
	if len(s) <= maxExcerpt {
		return s
	}
	return strings.ToValidUTF8(s[:maxExcerpt], "") + "…"
}

// neverTest is what takes the place of a refused condition.
func neverTest() test { return orTest(nil) }

// condition compiles a node; a refusal is noted in c.
func (c *compiler) condition(n *Node, in *scope, depth int) test {
	if depth > maxNesting {
		c.refuse(n.Line, "conditions are nested more than %d deep", maxNesting)
		return neverTest()
	}
	if n.Kind != MapNode {
		c.refuse(n.Line, "expected a condition with op, got %s", n.Kind)
		return neverTest()
	}
	op := n.get("op")
	if op == nil || op.Kind != StringNode {
		for _, word := range []string{"and", "or", "not"} {
			if n.get(word) != nil {
				c.refuse(n.Line, "expected op: %s with conditions below it, got %s as a key", word, word)
				return neverTest()
			}
		}
		c.refuse(n.Line, "expected a condition with op")
		return neverTest()
	}
	switch op.Text {
	case "and", "or":
		c.onlyKeys(n, "op", "conditions")
		list := n.get("conditions")
		if list == nil || list.Kind != ListNode || len(list.Items) == 0 {
			c.refuse(n.Line, "expected %s to have conditions, at least one", op.Text)
			return neverTest()
		}
		var all []test
		for _, item := range list.Items {
			all = append(all, c.condition(item, in, depth+1))
		}
		if op.Text == "and" {
			return andTest(all)
		}
		return orTest(all)
	case "not":
		c.onlyKeys(n, "op", "condition")
		inner := n.get("condition")
		if inner == nil {
			c.refuse(n.Line, "expected not to have a condition")
			return neverTest()
		}
		return notTest{c.condition(inner, in, depth+1)}
	case "any", "all":
		return c.members(n, op.Text == "all", in, depth)
	}
	return c.field(n, op, in)
}

// onlyKeys warns of keys that CrowdSieve ignores.
func (c *compiler) onlyKeys(n *Node, known ...string) {
	for _, field := range n.Fields {
		if !slices.Contains(known, field.Name) {
			c.warn(field.Line, "%s is ignored here; expected %s", field.Name, strings.Join(known, ", "))
		}
	}
}

func (c *compiler) members(n *Node, all bool, in *scope, depth int) test {
	c.onlyKeys(n, "field", "op", "condition")
	field, inner := n.get("field"), n.get("condition")
	if field == nil || field.Kind != StringNode || inner == nil {
		c.refuse(n.Line, "expected any and all to have a field, as decisions, and a condition for its members")
		return neverTest()
	}
	slot, ok := c.path(field, in)
	if !ok {
		return neverTest()
	}
	below := newScope(len(c.set.scopes))
	c.set.scopes = append(c.set.scopes, below)
	return &memberTest{field: field.Text, slot: slot, all: all, scope: below, inner: c.condition(inner, below, depth+1)}
}

// maxPath bounds how many steps a path has.
const maxPath = 32

func (c *compiler) path(field *Node, in *scope) (slot int, ok bool) {
	if strings.Count(field.Text, ".") >= maxPath {
		c.refuse(field.Line, "expected a path of at most %d steps", maxPath)
		return 0, false
	}
	if in.index == 0 {
		first, rest, below := strings.Cut(field.Text, ".")
		step, _, _ := strings.Cut(rest, ".")
		switch {
		case slices.Contains(neverSent, first):
			c.warn(field.Line, "no engine sends %s: the field is always missing", first)
		case below && (first == "decisions" || first == "context") && step != "length" && !isIndex(step):
			c.warn(field.Line, "%s is a list, so %s is always missing: use op: any with field: %s", first, field.Text, first)
		case strings.Contains(field.Text, "["):
			c.warn(field.Line, "a path has dots only, so %s is always missing", field.Text)
		}
	}
	return in.slot(field.Text), true
}

// neverSent are fields of an engine's own alerts that its signals do not have.
var neverSent = []string{"simulated", "remediation", "events", "events_count", "capacity", "leakspeed", "labels"}

// textOnWire are paths whose value is a text in every client's signals.
var textOnWire = []string{
	"uuid", "scenario", "scenario_hash", "scenario_version", "scenario_trust", "kind", "message", "machine_id",
	"created_at", "start_at", "stop_at", "source.scope", "source.value", "source.ip", "source.range", "source.cn",
	"source.as_name", "source.as_number",
}

func (c *compiler) field(n, op *Node, in *scope) test {
	compile, known := operators[strings.TrimPrefix(op.Text, "ci_")]
	fold := strings.HasPrefix(op.Text, "ci_")
	if !known || fold && !compile.folds {
		c.refuse(op.Line, "%s is no operator: expected and, or, not, any, all, %s", op.Text, operatorNames)
		return neverTest()
	}
	field := n.get("field")
	if field == nil || field.Kind != StringNode {
		c.refuse(n.Line, "expected %s to have a field", op.Text)
		return neverTest()
	}
	keys := []string{"field", "op", "value"}
	o := operand{c: c, op: op.Text, fold: fold, line: n.Line, field: field.Text}
	if compile.addresses {
		keys = append(keys, "mapped_v4")
		if mapped := n.get("mapped_v4"); mapped != nil {
			if mapped.Kind != BoolNode {
				c.refuse(mapped.Line, "expected mapped_v4 to be a boolean, got %s", mapped.Kind)
			}
			o.mapped = mapped.Bool
		}
	}
	c.onlyKeys(n, keys...)
	if !o.read(n.get("value")) {
		return neverTest()
	}
	slot, ok := c.path(field, in)
	if !ok {
		return neverTest()
	}
	t := &fieldTest{field: field.Text, op: op.Text, slot: slot}
	if in.index == 0 && slices.Contains(textOnWire, field.Text) && compile.typed {
		o.warnOfTypes()
	}
	t.check, t.reason = compile.compile(&o)
	return t
}
