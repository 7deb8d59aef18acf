package wire

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"

	"muster"
)

// scanner walks a JSON document (RFC 8259) once, without building a tree. After
// the first error every method does nothing, so that callers check err once.
// It accepts exactly what encoding/json accepts, but for MaxDepth.
type scanner struct {
	data  []byte
	pos   int
	depth int
	err   error
	key   string // of the current object member, set by nextKey
	// nonASCII is set when a string with a byte over 0x7f was passed; callers
	// clear it.
	nonASCII bool
	arena    []byte // holds strings that had to be rewritten
}

// fail records that something other than expected stands at pos.
func (s *scanner) fail(expected string) {
	if s.err != nil {
		return
	}
	if s.pos >= len(s.data) {
		s.err = muster.Errorf(muster.Invalid, "malformed JSON: expected %s, got the end of the document at byte %d", expected, len(s.data))
		return
	}
	s.err = muster.Errorf(muster.Invalid, "malformed JSON at byte %d: expected %s, got %q", s.pos, expected, s.data[s.pos])
}

// peek skips white space and returns the byte that follows, or 0 at the end.
func (s *scanner) peek() byte {
	for ; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// came names the type of the value ahead for an error text.
func (s *scanner) came() string {
	switch s.peek() {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return "a number"
	case 0:
		return "nothing"
	}
	return "no JSON"
}

// enter takes the opening brace or bracket that peek saw.
func (s *scanner) enter() {
	if s.depth++; s.depth > MaxDepth && s.err == nil {
		s.err = muster.Errorf(muster.Invalid, "JSON nested deeper than %d levels at byte %d", MaxDepth, s.pos)
	}
	s.pos++
}

// nextItem moves to the next item of the array that was entered; false means
// that the array ended or that there was an error.
func (s *scanner) nextItem(first bool) bool { return s.next(first, ']', "',' or ']'") }

// nextKey moves to the next member of the object that was entered, sets key and
// leaves pos before the member's value; false means that the object ended or
// that there was an error.
func (s *scanner) nextKey(first bool) bool {
	if !s.next(first, '}', "',' or '}'") {
		return false
	}
	if s.peek() != '"' {
		s.fail("a member name in quotes")
		return false
	}
	s.key = s.text()
	if s.peek() != ':' {
		s.fail("':'")
		return false
	}
	s.pos++
	return s.err == nil
}

func (s *scanner) next(first bool, end byte, expected string) bool {
	if s.err != nil {
		return false
	}
	c := s.peek()
	switch {
	case c == end:
		s.pos++
		s.depth--
		return false
	case first:
		return true
	case c != ',':
		s.fail(expected)
		return false
	}
	s.pos++
	if s.peek() == end {
		s.fail("a value after ','")
		return false
	}
	return true
}

// end checks that nothing but white space is left.
func (s *scanner) end() {
	if s.err == nil && (s.peek() != 0 || s.pos < len(s.data)) {
		s.fail("the end of the document")
	}
}

// skip passes over one value of any type and checks it.
func (s *scanner) skip() {
	if s.err != nil {
		return
	}
	switch c := s.peek(); {
	case c == '"':
		s.quoted()
	case c == '{':
		s.enter()
		for first := true; s.nextKey(first); first = false {
			s.skip()
		}
	case c == '[':
		s.enter()
		for first := true; s.nextItem(first); first = false {
			s.skip()
		}
	case c == '-' || c >= '0' && c <= '9':
		s.number()
	case c == 't':
		s.literal("true")
	case c == 'f':
		s.literal("false")
	case c == 'n':
		s.literal("null")
	default:
		s.fail("a value")
	}
}

func (s *scanner) literal(word string) {
	for i := range len(word) {
		if s.pos >= len(s.data) || s.data[s.pos] != word[i] {
			s.fail(word)
			return
		}
		s.pos++
	}
}

// number passes over the number at pos and returns its text.
func (s *scanner) number() []byte {
	start := s.pos
	if s.data[s.pos] == '-' {
		s.pos++
	}
	if s.pos < len(s.data) && s.data[s.pos] == '0' {
		s.pos++
	} else {
		s.digits()
	}
	if s.pos < len(s.data) && s.data[s.pos] == '.' {
		s.pos++
		s.digits()
	}
	if s.pos < len(s.data) && s.data[s.pos]|0x20 == 'e' {
		s.pos++
		if s.pos < len(s.data) && (s.data[s.pos] == '+' || s.data[s.pos] == '-') {
			s.pos++
		}
		s.digits()
	}
	return s.data[start:s.pos]
}

// digits passes over one digit or more.
func (s *scanner) digits() {
	start := s.pos
	for s.pos < len(s.data) && s.data[s.pos]-'0' <= 9 {
		s.pos++
	}
	if s.pos == start {
		s.fail("a digit")
	}
}

// text reads the string at pos. The result aliases the document or the arena.
func (s *scanner) text() string {
	raw, escaped, nonASCII := s.quoted()
	switch {
	case nonASCII && !utf8.Valid(raw):
		return s.rewrite(raw, 3*len(raw)) // a bad byte becomes the three of U+FFFD
	case escaped:
		return s.rewrite(raw, len(raw))
	}
	return alias(raw)
}

// alias gives b as a string without a copy.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

const (
	eachByte = 0x0101010101010101
	topBits  = 0x8080808080808080
)

// stops has the top bit set in the first byte of w, in little-endian order,
// that is a quote, a backslash or a control character; bits above that one mean
// nothing.
func stops(w uint64) uint64 {
	quote := w ^ '"'*eachByte
	slash := w ^ '\\'*eachByte
	return ((w-0x20*eachByte)&^w | (quote-eachByte)&^quote | (slash-eachByte)&^slash) & topBits
}

// quoted passes over the string at pos, checks it, and returns what stands
// between the quotes, eight bytes at a time.
func (s *scanner) quoted() (raw []byte, escaped, nonASCII bool) {
	data, start := s.data, s.pos+1
	i := start
	var seen uint64 // all bytes or-ed together
	for {
		for len(data)-i >= 8 {
			w := binary.LittleEndian.Uint64(data[i:])
			m := stops(w)
			if m == 0 {
				seen |= w
				i += 8
				continue
			}
			n := bits.TrailingZeros64(m) &^ 7 // bits before the stop
			seen |= w & (1<<n - 1)
			i += n / 8
			break
		}
		for i < len(data) && data[i] >= 0x20 && data[i] != '"' && data[i] != '\\' {
			seen |= uint64(data[i])
			i++
		}
		s.pos = i
		switch {
		case i >= len(data):
			s.fail("the closing quote of a string")
			return nil, false, false
		case data[i] == '"':
			s.pos++
			nonASCII = seen&topBits != 0
			s.nonASCII = s.nonASCII || nonASCII
			return data[start:i:i], escaped, nonASCII
		case data[i] == '\\':
			escaped = true
			if s.escape(); s.err != nil {
				return nil, false, false
			}
			i = s.pos
		default:
			s.fail("no control character in a string")
			return nil, false, false
		}
	}
}

// escape passes over the escape sequence at pos.
func (s *scanner) escape() {
	s.pos++
	if s.pos >= len(s.data) {
		s.fail("the rest of an escape sequence")
		return
	}
	switch s.data[s.pos] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos++
	case 'u':
		s.pos++
		for range 4 {
			if s.pos >= len(s.data) || hexDigit(s.data[s.pos]) < 0 {
				s.fail("a hexadecimal digit")
				return
			}
			s.pos++
		}
	default:
		s.fail(`an escape character out of "\/bfnrtu`)
	}
}

func hexDigit(c byte) rune {
	switch {
	case c >= '0' && c <= '9':
		return rune(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return rune(c|0x20-'a') + 10
	}
	return -1
}

// arenaSize is the least that is allocated when a string must be rewritten.
const arenaSize = 2048

// rewrite copies a checked string into the arena, where it takes most bytes at
// most: escapes resolved, bytes that are no UTF-8 and halves of surrogate pairs
// replaced by U+FFFD.
func (s *scanner) rewrite(raw []byte, most int) string {
	if cap(s.arena)-len(s.arena) < most {
		s.arena = make([]byte, 0, max(arenaSize, most)) // older strings keep the older arena
	}
	start := len(s.arena)
	out := s.arena
	for i := 0; i < len(raw); {
		c := raw[i]
		switch {
		case c == '\\':
			r, n := unescapeRune(raw[i:])
			out = utf8.AppendRune(out, r)
			i += n
		case c < utf8.RuneSelf:
			out = append(out, c)
			i++
		default:
			r, n := utf8.DecodeRune(raw[i:])
			out = utf8.AppendRune(out, r)
			i += n
		}
	}
	s.arena = out
	return alias(out[start:])
}

// unescapeRune reads the checked escape sequence that raw begins with, and the
// second half of a surrogate pair.
func unescapeRune(raw []byte) (r rune, n int) {
	switch c := raw[1]; c {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r = hexRune(raw[2:])
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		if len(raw) >= 12 && raw[6] == '\\' && raw[7] == 'u' {
			if pair := utf16.DecodeRune(r, hexRune(raw[8:])); pair != utf8.RuneError {
				return pair, 12
			}
		}
		return utf8.RuneError, 6
	default:
		return rune(c), 2
	}
}

func hexRune(raw []byte) (r rune) {
	for _, c := range raw[:4] {
		r = r<<4 | hexDigit(c)
	}
	return r
}
