package filter

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// valueKind is a JavaScript type, as far as JSON knows it.
type valueKind uint8

const (
	kindUndefined valueKind = iota
	kindNull
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

// value is what a signal holds at a path, or what a rule compares it with.
type value struct {
	kind   valueKind
	bool   bool
	number float64
	text   string // of a string, its content; else as it is in the JSON

	// Computed when the first condition asks.
	lowered     string
	addr        netip.Addr
	hasLowered  bool
	addrIsKnown bool
}

// equal is JavaScript's === for what a rule can compare with: an array or
// object equals nothing.
func (v *value) equal(to *value) bool {
	if v.kind != to.kind {
		return false
	}
	switch v.kind {
	case kindUndefined, kindNull:
		return true
	case kindBool:
		return v.bool == to.bool
	case kindNumber:
		return v.number == to.number
	case kindString:
		return v.text == to.text
	default:
		return false
	}
}

// empty holds for undefined, null, "" and [].
func (v *value) empty() bool {
	switch v.kind {
	case kindUndefined, kindNull:
		return true
	case kindString:
		return v.text == ""
	case kindArray:
		for range v.members() {
			return false
		}
		return true
	default:
		return false
	}
}

// lower returns a string's lower case.
func (v *value) lower() string {
	if !v.hasLowered {
		v.lowered, v.hasLowered = strings.ToLower(v.text), true
	}
	return v.lowered
}

// address returns the address that a string is, without its zone; invalid when
// it is none.
func (v *value) address() netip.Addr {
	if !v.addrIsKnown {
		v.addrIsKnown = true
		if v.kind == kindString {
			v.addr = parseAddr(v.text)
		}
	}
	return v.addr
}

// members yields the values of an array; nothing for any other value.
func (v *value) members() func(yield func(value) bool) {
	return func(yield func(value) bool) {
		if v.kind != kindArray {
			return
		}
		p := scanner{text: v.text, at: 1} // behind its bracket; it has been read once
		for {
			p.space()
			if c := p.peek(); c == ']' || c == 0 {
				return
			}
			member, ok := p.value()
			if !ok || !yield(member) {
				return
			}
			if p.space(); p.peek() == ',' {
				p.at++
			}
		}
	}
}

// fromNode returns the constant that a rule writes; ok is false for lists and
// mappings. A nil node is undefined: the rule does not give a value.
func fromNode(n *Node) (v value, ok bool) {
	if n == nil {
		return value{}, true
	}
	switch n.Kind {
	case NullNode:
		return value{kind: kindNull}, true
	case BoolNode:
		return value{kind: kindBool, bool: n.Bool}, true
	case NumberNode:
		return value{kind: kindNumber, number: n.Number}, true
	case StringNode:
		return value{kind: kindString, text: n.Text}, true
	default:
		return value{}, false
	}
}

// String writes v as JavaScript puts it into a text.
func (v value) String() string {
	switch v.kind {
	case kindUndefined:
		return "undefined"
	case kindNull:
		return "null"
	case kindBool:
		return strconv.FormatBool(v.bool)
	case kindNumber:
		return number(v.number)
	default:
		return v.text
	}
}

// json writes v as JavaScript's JSON.stringify does.
func (v value) json() string {
	if v.kind == kindString {
		return quote(v.text)
	}
	return v.String()
}

// quote writes a JSON string, escaping what JavaScript escapes and no more.
func quote(s string) string {
	b := make([]byte, 0, len(s)+2)
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, `\b`...)
		case '\f':
			b = append(b, `\f`...)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			if c < 0x20 {
				const digits = "0123456789abcdef"
				b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
			} else {
				b = append(b, c)
			}
		}
	}
	return string(append(b, '"'))
}

// number writes a number as JavaScript does.
func number(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	case f == 0:
		return "0"
	}
	if size := math.Abs(f); size >= 1e-6 && size < 1e21 {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	s := strconv.FormatFloat(f, 'e', -1, 64) // 1e-07 in Go, 1e-7 in JavaScript
	mantissa, exponent, _ := strings.Cut(s, "e")
	return mantissa + "e" + exponent[:1] + strings.TrimLeft(exponent[1:], "0")
}
