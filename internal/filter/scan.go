package filter

import (
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep a signal may be nested: real ones reach four.
const maxDepth = 512

// scope is a set of paths that conditions need, read in one pass over a JSON
// text: the signal, or one member of a list in it for any and all.
type scope struct {
	index int // among the set's scopes
	root  *step
	steps int
	slots int
}

// step is a node of the trie of paths.
type step struct {
	name     string
	id       int // within the scope
	slot     int // where the value goes; -1 = only steps below are wanted
	children []*step
	indexed  bool // a child may be an index or the length of an array
}

func newScope(index int) *scope {
	return &scope{index: index, root: &step{slot: -1}, steps: 1}
}

// slot returns the slot of a path, which is dots only: no escapes, and an array
// is entered by a number as in JavaScript.
func (s *scope) slot(path string) int {
	at := s.root
	for name := range strings.SplitSeq(path, ".") {
		next := at.child(name)
		if next == nil {
			next = &step{name: name, id: s.steps, slot: -1}
			s.steps++
			at.children = append(at.children, next)
			at.indexed = at.indexed || name == "length" || isIndex(name)
		}
		at = next
	}
	if at.slot < 0 {
		at.slot = s.slots
		s.slots++
	}
	return at.slot
}

func (s *step) child(name string) *step {
	for _, c := range s.children {
		if c.name == name {
			return c
		}
	}
	return nil
}

// isIndex tells whether name is an array's index as JavaScript writes it.
func isIndex(name string) bool {
	n, err := strconv.ParseUint(name, 10, 31)
	return err == nil && strconv.FormatUint(n, 10) == name
}

// view holds the values of a scope's slots for one JSON text.
type view struct {
	slots []value
	seen  []bool // by step: a name that comes twice counts the last time
}

func newView(s *scope) view {
	return view{slots: make([]value, s.slots), seen: make([]bool, s.steps)}
}

func (v *view) clear() {
	clear(v.slots)
	clear(v.seen)
}

// forget clears what was read at and below a step.
func (v *view) forget(s *step) {
	if s.slot >= 0 {
		v.slots[s.slot] = value{}
	}
	for _, c := range s.children {
		v.seen[c.id] = false
		v.forget(c)
	}
}

// read fills v from a JSON text. It returns false when text is no JSON or is
// nested too deep; v then holds nothing.
func (s *scope) read(text string, v *view) bool {
	v.clear()
	p := scanner{text: text}
	p.space()
	if p.fill(s.root, v) {
		if p.space(); p.at == len(text) {
			return true
		}
	}
	v.clear()
	return false
}

// scanner walks over JSON. Its methods start at the first byte of what they
// read, stop behind its last, and return false when it is malformed.
type scanner struct {
	text string
	at   int
}

func (p *scanner) space() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

// peek returns the next byte, 0 at the end.
func (p *scanner) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

// fill reads a value that the trie knows.
func (p *scanner) fill(s *step, v *view) bool {
	if v.seen[s.id] {
		v.forget(s)
	}
	v.seen[s.id] = true
	start := p.at
	var ok bool
	switch c := p.peek(); {
	case c == '{' && len(s.children) > 0:
		ok = p.object(s, v)
	case c == '[' && s.indexed:
		ok = p.array(s, v)
	case s.slot < 0:
		return p.skip()
	default:
		read, ok := p.value()
		v.slots[s.slot] = read
		return ok
	}
	if ok && s.slot >= 0 {
		kind := kindObject
		if p.text[start] == '[' {
			kind = kindArray
		}
		v.slots[s.slot] = value{kind: kind, text: p.text[start:p.at]}
	}
	return ok
}

func (p *scanner) object(s *step, v *view) bool {
	p.at++
	for first := true; ; first = false {
		p.space()
		if p.peek() == '}' && first {
			p.at++
			return true
		}
		name, escaped, ok := p.quoted()
		if !ok {
			return false
		}
		if escaped {
			name = unescape(name)
		}
		if p.space(); p.peek() != ':' {
			return false
		}
		p.at++
		p.space()
		if child := s.child(name); child != nil {
			ok = p.fill(child, v)
		} else {
			ok = p.skip()
		}
		if !ok {
			return false
		}
		p.space()
		c := p.peek()
		p.at++
		if c == '}' {
			return true
		}
		if c != ',' {
			return false
		}
	}
}

func (p *scanner) array(s *step, v *view) bool {
	p.at++
	n := 0
	for ; ; n++ {
		p.space()
		if p.peek() == ']' && n == 0 {
			p.at++
			break
		}
		var child *step
		for _, c := range s.children {
			if at, err := strconv.Atoi(c.name); err == nil && at == n && isIndex(c.name) {
				child = c
			}
		}
		if child != nil && !p.fill(child, v) || child == nil && !p.skip() {
			return false
		}
		p.space()
		c := p.peek()
		p.at++
		if c == ']' {
			n++
			break
		}
		if c != ',' {
			return false
		}
	}
	if length := s.child("length"); length != nil && length.slot >= 0 {
		v.slots[length.slot] = value{kind: kindNumber, number: float64(n), text: strconv.Itoa(n)}
	}
	return true
}

// value reads any value; of an array or object it keeps the text.
func (p *scanner) value() (value, bool) {
	start := p.at
	switch c := p.peek(); c {
	case '"':
		text, escaped, ok := p.quoted()
		if escaped && ok {
			text = unescape(text)
		}
		return value{kind: kindString, text: text}, ok
	case '{':
		ok := p.skip()
		return value{kind: kindObject, text: p.text[start:min(p.at, len(p.text))]}, ok
	case '[':
		ok := p.skip()
		return value{kind: kindArray, text: p.text[start:min(p.at, len(p.text))]}, ok
	case 't', 'f':
		ok := p.word()
		return value{kind: kindBool, bool: c == 't'}, ok
	case 'n':
		return value{kind: kindNull}, p.word()
	default:
		ok := p.numeral()
		if !ok {
			return value{}, false
		}
		text := p.text[start:p.at]
		number, _ := strconv.ParseFloat(text, 64) // too large is infinite, as in JavaScript
		return value{kind: kindNumber, number: number, text: text}, true
	}
}

// skip passes over any value without recursion.
func (p *scanner) skip() bool {
	var objects [maxDepth / 64]uint64 // by depth: an object rather than an array
	depth := 0
	for {
		p.space()
		switch c := p.peek(); c {
		case '{', '[':
			if depth == maxDepth {
				return false
			}
			p.at++
			p.space()
			if n := p.peek(); n == c+2 { // closed at once
				p.at++
				break
			}
			bit := uint64(1) << (depth % 64)
			if c == '{' {
				objects[depth/64] |= bit
				depth++
				if !p.name() {
					return false
				}
				continue
			}
			objects[depth/64] &^= bit
			depth++
			continue
		case '"':
			if _, _, ok := p.quoted(); !ok {
				return false
			}
		case 't', 'f', 'n':
			if !p.word() {
				return false
			}
		default:
			if !p.numeral() {
				return false
			}
		}
		// A value has ended: close what it closes.
		for {
			if depth == 0 {
				return true
			}
			p.space()
			inObject := objects[(depth-1)/64]&(1<<((depth-1)%64)) != 0
			c := p.peek()
			p.at++
			if c == ',' {
				if p.space(); inObject && !p.name() {
					return false
				}
				break
			}
			if inObject && c == '}' || !inObject && c == ']' {
				depth--
				continue
			}
			return false
		}
	}
}

// name passes over an object's name and its colon.
func (p *scanner) name() bool {
	if _, _, ok := p.quoted(); !ok {
		return false
	}
	if p.space(); p.peek() != ':' {
		return false
	}
	p.at++
	return true
}

// quoted reads a string, returning what is between the quotes and whether that
// needs unescape.
func (p *scanner) quoted() (content string, escaped, ok bool) {
	if p.peek() != '"' {
		return "", false, false
	}
	start := p.at + 1
	for i := plain(p.text, start); i < len(p.text); i = plain(p.text, i+1) {
		switch c := p.text[i]; {
		case c == '"':
			p.at = i + 1
			return p.text[start:i], escaped, true
		case c < 0x20:
			return "", false, false
		case c == '\\':
			escaped = true
			if i++; i >= len(p.text) {
				return "", false, false
			}
			switch p.text[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if _, ok := hex4(p.text[i+1:]); !ok {
					return "", false, false
				}
				i += 4
			default:
				return "", false, false
			}
		}
	}
	return "", false, false
}

// plain returns the index at or behind i of the first byte that ends a string
// or needs care in it, looking at eight at once; the last seven are not looked at.
func plain(s string, i int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(s); i += 8 {
		b := s[i : i+8]
		w := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
		quotes, backslashes := w^(ones*'"'), w^(ones*'\\')
		// The lowest byte found is one; those above it may not be, for the borrow.
		found := ((w-ones*0x20)&^w | (quotes-ones)&^quotes | (backslashes-ones)&^backslashes) & highs
		if found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	return i
}

func hex4(s string) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	var r rune
	for i := range 4 {
		d, ok := hexDigit(s[i])
		if !ok {
			return 0, false
		}
		r = r<<4 | d
	}
	return r, true
}

func hexDigit(c byte) (rune, bool) {
	switch {
	case c >= '0' && c <= '9':
		return rune(c - '0'), true
	case c >= 'a' && c <= 'f':
		return rune(c-'a') + 10, true
	case c >= 'A' && c <= 'F':
		return rune(c-'A') + 10, true
	}
	return 0, false
}

// unescape resolves the escapes of a string that quoted accepted.
func unescape(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b = append(b, s[i])
			continue
		}
		i++
		switch s[i] {
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r, _ := hex4(s[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				pair := rune(utf8.RuneError)
				if rest := s[i+1:]; strings.HasPrefix(rest, `\u`) {
					low, _ := hex4(rest[2:])
					pair = utf16.DecodeRune(r, low)
				}
				if r = pair; r != utf8.RuneError {
					i += 6
				}
			}
			b = utf8.AppendRune(b, r)
		default:
			b = append(b, s[i])
		}
	}
	return string(b)
}

func (p *scanner) word() bool {
	for _, word := range [...]string{"true", "false", "null"} {
		if strings.HasPrefix(p.text[p.at:], word) {
			p.at += len(word)
			return true
		}
	}
	return false
}

func (p *scanner) numeral() bool {
	if p.peek() == '-' {
		p.at++
	}
	if p.peek() == '0' {
		p.at++
	} else if !p.digits() {
		return false
	}
	if p.peek() == '.' {
		if p.at++; !p.digits() {
			return false
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.at++
		if c := p.peek(); c == '+' || c == '-' {
			p.at++
		}
		return p.digits()
	}
	return true
}

// digits passes over one digit or more.
func (p *scanner) digits() bool {
	start := p.at
	for p.at < len(p.text) && p.text[p.at] >= '0' && p.text[p.at] <= '9' {
		p.at++
	}
	return p.at > start
}
