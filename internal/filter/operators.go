package filter

import (
	"errors"
	"math"
	"regexp"
	"slices"
	"strings"
)

// operator is how an op of a field condition is compiled.
type operator struct {
	compile   func(o *operand) (check func(x *value) bool, reason func(x *value) string)
	folds     bool // there is a ci_ variant
	addresses bool // takes mapped_v4
	typed     bool // holds or not by the value's type alone, when types differ
}

// operators are the ops of field conditions: CrowdSieve's and, last, our own.
var operators map[string]operator

// operatorNames lists them for messages.
var operatorNames string

func init() { // not in the declaration: the functions refer to each other
	operators = map[string]operator{
		"eq":           {compile: compileEqual, folds: true, typed: true},
		"ne":           {compile: compileNotEqual, folds: true, typed: true},
		"gt":           {compile: ordering(">", func(a, b float64) bool { return a > b }), typed: true},
		"gte":          {compile: ordering(">=", func(a, b float64) bool { return a >= b }), typed: true},
		"lt":           {compile: ordering("<", func(a, b float64) bool { return a < b }), typed: true},
		"lte":          {compile: ordering("<=", func(a, b float64) bool { return a <= b }), typed: true},
		"in":           {compile: membership(false), folds: true, typed: true},
		"not_in":       {compile: membership(true), folds: true, typed: true},
		"contains":     {compile: containment(false), folds: true},
		"not_contains": {compile: containment(true), folds: true},
		"starts_with":  {compile: affix("starts with", strings.HasPrefix), folds: true},
		"ends_with":    {compile: affix("ends with", strings.HasSuffix), folds: true},
		"empty":        {compile: compileEmpty},
		"not_empty":    {compile: compileNotEmpty},
		"glob":         {compile: compileGlobs, folds: true},
		"regex":        {compile: compileRegexes, folds: true},
		"cidr":         {compile: compileNetworks, addresses: true},
		"between":      {compile: compileBetween},
		"in_list":      {compile: compileInList, addresses: true},
	}
	var names []string
	for name, op := range operators {
		names = append(names, name)
		if op.folds {
			names = append(names, "ci_"+name)
		}
	}
	slices.Sort(names)
	operatorNames = strings.Join(names, ", ")
}

// operand is the right side of a field condition.
type operand struct {
	c      *compiler
	op     string
	field  string
	fold   bool
	mapped bool
	line   int
	value  value   // a list is of kindArray, which equals nothing
	list   []value // of a list
	isList bool
	lines  []int // of the list's members, for problems
}

// read takes the value over; it returns false when it is none that a rule may
// have.
func (o *operand) read(n *Node) bool {
	if n != nil && n.Line > 0 {
		o.line = n.Line
	}
	if n != nil && n.Kind == ListNode {
		o.isList, o.value.kind = true, kindArray
		for _, item := range n.Items {
			member, ok := fromNode(item)
			if !ok || member.kind == kindNull || math.IsNaN(member.number) {
				o.c.refuse(item.Line, "expected texts, numbers and booleans in the list of %s, got %s", o.op, item.Kind)
				return false
			}
			o.list = append(o.list, member)
			o.lines = append(o.lines, item.Line)
		}
		return true
	}
	v, ok := fromNode(n)
	if !ok || math.IsNaN(v.number) {
		o.c.refuse(o.line, "expected the value of %s to be a text, a number, a boolean, null or a list of such, got %s", o.op, n.Kind)
		return false
	}
	o.value = v
	return true
}

func (o *operand) warn(format string, args ...any) { o.c.warn(o.line, format, args...) }

// warnOfTypes warns when a field that is always a text is compared with
// something else.
func (o *operand) warnOfTypes() {
	values := o.list
	if !o.isList {
		values = []value{o.value}
	}
	for _, v := range values {
		if v.kind == kindNumber || v.kind == kindBool {
			o.warn("%s is a text in signals, which no %s compares with %s: write %s", o.field, o.op, v.json(), quote(v.String()))
			return
		}
	}
}

// texts returns the operand's texts: one or a list. Whatever else is in a list
// is passed over, as CrowdSieve does.
func (o *operand) texts() (texts []string, lines []int) {
	if o.value.kind == kindString {
		return []string{o.value.text}, []int{o.line}
	}
	if !o.isList {
		o.warn("expected a text or a list of texts, got %s: %s never holds", o.value.json(), o.op)
		return nil, nil
	}
	for i, member := range o.list {
		if member.kind != kindString {
			o.c.warn(o.lines[i], "expected a text, got %s: it is passed over", member.json())
			continue
		}
		texts = append(texts, member.text)
		lines = append(lines, o.lines[i])
	}
	return texts, lines
}

// folded returns a constant in the form in which it is compared.
func (o *operand) folded(v value) value {
	if o.fold && v.kind == kindString {
		v.text = strings.ToLower(v.text)
	}
	return v
}

// text returns a string's text in the form in which it is compared.
func (o *operand) text(x *value) string {
	if o.fold {
		return x.lower()
	}
	return x.text
}

// equal compares a signal's value with a constant that went through folded.
func equalFunc(fold bool) func(x, to *value) bool {
	if !fold {
		return (*value).equal
	}
	return func(x, to *value) bool {
		if x.kind == kindString && to.kind == kindString {
			return x.lower() == to.text
		}
		return x.equal(to)
	}
}

// always returns a reason that does not depend on the value.
func always(text string) func(*value) string { return func(*value) string { return text } }

func no(*value) bool { return false }

func compileEqual(o *operand) (func(*value) bool, func(*value) string) {
	switch {
	case o.isList:
		o.warn("%s never holds for a list: use in", o.op)
	case o.value.kind == kindUndefined:
		o.warn("%s without a value holds when the field is missing", o.op)
	}
	equal, to := equalFunc(o.fold), o.folded(o.value)
	return func(x *value) bool { return equal(x, &to) }, always("equals " + o.value.json())
}

func compileNotEqual(o *operand) (func(*value) bool, func(*value) string) {
	switch {
	case o.isList:
		o.warn("%s always holds for a list: use not_in", o.op)
	case o.value.kind == kindUndefined:
		o.warn("%s without a value holds when the field is there", o.op)
	}
	equal, to := equalFunc(o.fold), o.folded(o.value)
	text := o.value.json()
	if o.isList {
		text = "[" + joined(o.list, ",", value.json) + "]"
	}
	return func(x *value) bool { return !equal(x, &to) }, always("not equals " + text)
}

func ordering(sign string, holds func(a, b float64) bool) func(*operand) (func(*value) bool, func(*value) string) {
	return func(o *operand) (func(*value) bool, func(*value) string) {
		if o.value.kind != kindNumber {
			o.warn("%s compares numbers only, so that it never holds; for times there is between", o.op)
			return no, always("")
		}
		to := o.value.number
		return func(x *value) bool { return x.kind == kindNumber && holds(x.number, to) }, always(sign + " " + o.value.String())
	}
}

// joined writes a list as JavaScript's join does.
func joined(list []value, separator string, write func(value) string) string {
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = write(v)
	}
	return strings.Join(texts, separator)
}

// smallSet is how many members are compared one by one rather than looked up.
const smallSet = 4

func membership(negated bool) func(*operand) (func(*value) bool, func(*value) string) {
	return func(o *operand) (func(*value) bool, func(*value) string) {
		if !o.isList {
			o.warn("expected %s to have a list, got %s: it never holds", o.op, o.value.json())
			return no, always("")
		}
		verb := "in"
		if negated {
			verb = "not in"
		}
		is := memberFunc(o)
		return func(x *value) bool { return is(x) != negated },
			always(verb + " [" + joined(o.list, ", ", value.String) + "]")
	}
}

// memberFunc tells whether a value is in the operand's list.
func memberFunc(o *operand) func(x *value) bool {
	members := make([]value, len(o.list))
	for i, member := range o.list {
		members[i] = o.folded(member)
	}
	if len(members) <= smallSet {
		equal := equalFunc(o.fold)
		return func(x *value) bool {
			for i := range members {
				if equal(x, &members[i]) {
					return true
				}
			}
			return false
		}
	}
	texts, numbers, bools := map[string]struct{}{}, map[float64]struct{}{}, [2]bool{}
	for _, member := range members {
		switch member.kind {
		case kindString:
			texts[member.text] = struct{}{}
		case kindNumber:
			numbers[member.number] = struct{}{}
		case kindBool:
			bools[index(member.bool)] = true
		default: // equals nothing
		}
	}
	return func(x *value) (ok bool) {
		switch x.kind {
		case kindString:
			_, ok = texts[o.text(x)]
		case kindNumber:
			_, ok = numbers[x.number]
		case kindBool:
			ok = bools[index(x.bool)]
		default: // equals nothing
		}
		return ok
	}
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}

func containment(negated bool) func(*operand) (func(*value) bool, func(*value) string) {
	return func(o *operand) (func(*value) bool, func(*value) string) {
		verb := "contains "
		if negated {
			verb = "not contains "
		}
		if o.isList || o.value.kind == kindUndefined {
			o.warn("%s looks for one value: for several use or", o.op)
		}
		equal, to := equalFunc(o.fold), o.folded(o.value)
		check := func(x *value) bool {
			switch {
			case x.kind == kindString && to.kind == kindString:
				return strings.Contains(o.text(x), to.text) != negated
			case x.kind == kindArray:
				for member := range x.members() {
					if equal(&member, &to) {
						return !negated
					}
				}
				return negated
			}
			return false // not_contains, too, holds for texts and lists only
		}
		written := o.value.json()
		if o.isList {
			written = "[" + joined(o.list, ",", value.json) + "]"
		}
		return check, func(x *value) string {
			if x.kind == kindString {
				return verb + `"` + o.value.text + `"`
			}
			return verb + written
		}
	}
}

func affix(verb string, holds func(s, part string) bool) func(*operand) (func(*value) bool, func(*value) string) {
	return func(o *operand) (func(*value) bool, func(*value) string) {
		if o.value.kind != kindString {
			o.warn("expected %s to have a text, got another kind: it never holds", o.op)
			return no, always("")
		}
		to := o.folded(o.value).text
		return func(x *value) bool { return x.kind == kindString && holds(o.text(x), to) },
			always(verb + ` "` + o.value.text + `"`)
	}
}

func compileEmpty(*operand) (func(*value) bool, func(*value) string) {
	return (*value).empty, always("is empty")
}

func compileNotEmpty(*operand) (func(*value) bool, func(*value) string) {
	return func(x *value) bool { return !x.empty() }, always("is not empty")
}

func compileGlobs(o *operand) (func(*value) bool, func(*value) string) {
	var globs []*glob
	texts, lines := o.texts()
	for i, text := range texts {
		g, err := compileGlob(text, o.fold)
		if err != nil {
			o.c.refuse(lines[i], "%v", err)
			continue
		}
		switch {
		case g.nothing:
			o.c.warn(lines[i], "a glob with a leading # is a comment: it never matches")
		case text == "*" && strings.HasSuffix(o.field, "scenario"):
			o.c.warn(lines[i], "* stops at /, which names of scenarios contain: write **")
		}
		globs = append(globs, g)
	}
	first := func(s string) int {
		return slices.IndexFunc(globs, func(g *glob) bool { return g.match(s) })
	}
	return func(x *value) bool { return x.kind == kindString && first(x.text) >= 0 },
		func(x *value) string { return `matches glob "` + globs[first(x.text)].text + `"` }
}

func compileRegexes(o *operand) (func(*value) bool, func(*value) string) {
	var patterns []*regexp.Regexp
	var written []string
	texts, lines := o.texts()
	for i, text := range texts {
		pattern, err := compileRegex(text, o.fold)
		switch {
		case errors.Is(err, errNever):
			o.c.warn(lines[i], "regex %q %v", text, err)
			continue
		case err != nil:
			o.c.refuse(lines[i], "regex %q: %v", text, err)
			continue
		}
		patterns = append(patterns, pattern)
		written = append(written, text)
	}
	first := func(s string) int {
		return slices.IndexFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(s) })
	}
	return func(x *value) bool { return x.kind == kindString && first(x.text) >= 0 },
		func(x *value) string { return `matches regex "` + written[first(x.text)] + `"` }
}

func compileNetworks(o *operand) (func(*value) bool, func(*value) string) {
	var set networks
	texts, lines := o.texts()
	for i, text := range texts {
		network, err := parseNetwork(text)
		if err != nil {
			o.c.warn(lines[i], "%v: it holds no address", err)
			continue
		}
		if o.mapped {
			network = unmapNetwork(network)
		}
		set.add(network, text)
	}
	set.build()
	return func(x *value) bool { return set.contains(o.address(x)) },
		func(x *value) string { return "in CIDR " + set.texts[set.first(o.address(x))] }
}
