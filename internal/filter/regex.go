package filter

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxRegex is the length, in UTF-16 units as JavaScript counts, beyond which
// CrowdSieve never matches.
const maxRegex = 500

// maxProgram bounds the work per character of a compiled pattern.
const maxProgram = 10_000

// errNever tells that a pattern never matches in CrowdSieve either, which takes
// it for no reason to refuse the rule.
var errNever = errors.New("never matches")

func never(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errNever, fmt.Sprintf(format, args...))
}

func unsupported(what string) error {
	return fmt.Errorf("%s cannot be matched in bounded time: write it with not, and or several rules", what)
}

// compileRegex compiles a JavaScript pattern without flags, so that it holds
// for the same texts. The error is an errNever when JavaScript refuses the
// pattern, and another when only this package does.
func compileRegex(pattern string, fold bool) (*regexp.Regexp, error) {
	units := 0
	for _, r := range pattern {
		units += max(utf16.RuneLen(r), 1)
	}
	if units > maxRegex {
		return nil, never("expected a pattern of at most %d characters, got %d", maxRegex, units)
	}
	t := jsRegex{text: pattern}
	t.survey()
	body, err := t.alternatives(0)
	if err != nil {
		return nil, err
	}
	if t.at < len(t.text) {
		return nil, never("expected no ) without its (")
	}
	for _, name := range t.references {
		if !t.names[name] {
			return nil, never(`\k<%s> refers to no group`, name)
		}
	}
	if t.unsupported != "" { // only now: JavaScript's own errors come first
		return nil, unsupported(t.unsupported)
	}
	if fold {
		body = "(?i:" + body + ")"
	}
	parsed, err := syntax.Parse(body, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("not possible with Go's regular expressions, which match in bounded time: %w", err)
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if len(program.Inst) > maxProgram {
		return nil, fmt.Errorf("expected a pattern of at most %d steps, got %d: repeat less", maxProgram, len(program.Inst))
	}
	return regexp.Compile(body)
}

// jsRegex translates a JavaScript pattern, as browsers and Node read it without
// the flag u (ECMAScript, annex B.1.2), to one of Go.
type jsRegex struct {
	text        string
	at          int
	groups      int  // capturing groups in the whole pattern
	named       bool // one of them has a name
	unsupported string
	names       map[string]bool
	references  []string // names behind \k
}

// survey counts the capturing groups, which decide what \1 and \k are.
func (t *jsRegex) survey() {
	class := false
	for i := 0; i < len(t.text); i++ {
		switch c := t.text[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '(':
			rest := t.text[i+1:]
			switch {
			case !strings.HasPrefix(rest, "?"):
				t.groups++
			case strings.HasPrefix(rest, "?<") && !strings.HasPrefix(rest, "?<=") && !strings.HasPrefix(rest, "?<!"):
				t.groups++
				t.named = true
			}
		}
	}
}

func (t *jsRegex) next() byte {
	if t.at < len(t.text) {
		return t.text[t.at]
	}
	return 0
}

// cannot notes the first thing that only JavaScript can.
func (t *jsRegex) cannot(what string) {
	if t.unsupported == "" {
		t.unsupported = what
	}
}

func (t *jsRegex) alternatives(depth int) (string, error) {
	if depth > 100 {
		return "", errors.New("groups are nested more than 100 deep")
	}
	var b strings.Builder
	for t.at < len(t.text) && t.text[t.at] != ')' {
		if t.text[t.at] == '|' {
			t.at++
			b.WriteByte('|')
			continue
		}
		atom, repeatable, err := t.atom(depth)
		if err != nil {
			return "", err
		}
		quantifier, err := t.quantifier()
		if err != nil {
			return "", err
		}
		if quantifier != "" && !repeatable {
			return "", never("expected something to repeat before %s", quantifier)
		}
		b.WriteString(atom)
		b.WriteString(quantifier)
	}
	return b.String(), nil
}

// Classes as JavaScript has them, as ranges for a bracket expression.
const (
	lineEnds  = `\n\r\x{2028}\x{2029}`
	spaces    = `\t-\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}`
	notSpaces = `\x00-\x08\x0e-\x1f!-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{fefe}\x{ff00}-\x{10ffff}`
	words     = `0-9A-Z_a-z`
	notWords  = "\\x00-/:-@\\[-\\^`{-\\x{10ffff}"
	digits    = `0-9`
	notDigits = `\x00-/:-\x{10ffff}`
)

// shorthand returns the class of \d, \D, \s, \S, \w, \W, or "".
func shorthand(c byte) string {
	switch c {
	case 'd':
		return digits
	case 'D':
		return notDigits
	case 's':
		return spaces
	case 'S':
		return notSpaces
	case 'w':
		return words
	case 'W':
		return notWords
	}
	return ""
}

// literal writes one character so that it stands for itself, in a class too.
func literal(r rune) string { return fmt.Sprintf(`\x{%x}`, r) }

// atom reads what may be repeated, or an assertion, which may not.
func (t *jsRegex) atom(depth int) (out string, repeatable bool, err error) {
	c := t.text[t.at]
	switch c {
	case '^':
		t.at++
		return `\A`, false, nil
	case '$':
		t.at++
		return `\z`, false, nil
	case '.':
		t.at++
		return "[^" + lineEnds + "]", true, nil
	case '(':
		return t.group(depth)
	case '[':
		out, err = t.class()
		return out, true, err
	case '\\':
		return t.escape()
	case '*', '+', '?':
		return "", false, never("expected something to repeat before %c", c)
	case '{':
		if _, _, size := braces(t.text[t.at:]); size > 0 {
			return "", false, never("expected something to repeat before %s", t.text[t.at:t.at+size])
		}
	}
	r, size := utf8.DecodeRuneInString(t.text[t.at:])
	t.at += size
	return literal(r), true, nil
}

func (t *jsRegex) group(depth int) (out string, repeatable bool, err error) {
	t.at++ // (
	repeatable = true
	if t.next() == '?' {
		rest := t.text[t.at:]
		switch {
		case strings.HasPrefix(rest, "?:"):
			t.at += 2
		case strings.HasPrefix(rest, "?="), strings.HasPrefix(rest, "?!"):
			t.cannot("look-ahead, " + rest[:2] + ",")
			t.at += 2
		case strings.HasPrefix(rest, "?<="), strings.HasPrefix(rest, "?<!"):
			t.cannot("look-behind, " + rest[:3] + ",")
			repeatable = false
			t.at += 3
		case strings.HasPrefix(rest, "?<"):
			name, _, ok := strings.Cut(rest[2:], ">")
			if !ok || !isGroupName(name) {
				return "", false, never("expected the name of a group, as in (?<name>…)")
			}
			if t.names[name] {
				return "", false, never("the group name %s is there twice", name)
			}
			if t.names == nil {
				t.names = map[string]bool{}
			}
			t.names[name] = true
			t.at += len(name) + 3
		default:
			return "", false, never("JavaScript knows no group (%s: to ignore case there is ci_regex", rest[:min(len(rest), 2)])
		}
	}
	body, err := t.alternatives(depth + 1)
	if err != nil {
		return "", false, err
	}
	if t.next() != ')' {
		return "", false, never("expected a ) for every (")
	}
	t.at++
	return "(?:" + body + ")", repeatable, nil
}

func isGroupName(name string) bool {
	for i, r := range name {
		letter := r == '$' || r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= 0x80
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

// quantifier reads *, +, ?, {n}, {n,}, {n,m}, and a ? behind it, or nothing.
func (t *jsRegex) quantifier() (string, error) {
	start := t.at
	switch t.next() {
	case '*', '+', '?':
		t.at++
	case '{':
		low, high, size := braces(t.text[t.at:])
		if size == 0 {
			return "", nil // stands for itself
		}
		if high >= 0 && low > high {
			return "", never("expected {low,high}, got %s", t.text[t.at:t.at+size])
		}
		t.at += size
		if low > 1000 || high > 1000 {
			t.cannot(fmt.Sprintf("%s, more than 1000 times,", t.text[start:t.at]))
			low, high = min(low, 1), min(high, 1)
		}
		out := "{" + strconv.Itoa(low)
		if high != low {
			out += ","
		}
		if high >= 0 && high != low {
			out += strconv.Itoa(high)
		}
		if t.next() == '?' {
			t.at++ // lazy: which match is found does not matter
		}
		return out + "}", nil
	default:
		return "", nil
	}
	out := t.text[start:t.at]
	if t.next() == '?' {
		t.at++
	}
	return out, nil
}

// braces reads {n}, {n,} (high is -1) or {n,m}; size is 0 when it is none.
func braces(s string) (low, high, size int) {
	end := strings.IndexByte(s, '}')
	if end < 0 {
		return 0, 0, 0
	}
	number := func(s string) (int, bool) {
		if s == "" || strings.Trim(s, "0123456789") != "" {
			return 0, false
		}
		n, err := strconv.Atoi(s)
		if err != nil {
			n = 1 << 30
		}
		return n, true
	}
	from, to, isRange := strings.Cut(s[1:end], ",")
	low, ok := number(from)
	if !ok {
		return 0, 0, 0
	}
	switch {
	case !isRange:
		return low, low, end + 1
	case to == "":
		return low, -1, end + 1
	}
	if high, ok = number(to); !ok {
		return 0, 0, 0
	}
	return low, high, end + 1
}

// escape reads a backslash and what it stands for outside a class.
func (t *jsRegex) escape() (out string, repeatable bool, err error) {
	if t.at+1 >= len(t.text) {
		return "", false, never("expected something behind the last backslash")
	}
	c := t.text[t.at+1]
	switch c {
	case 'b', 'B':
		t.at += 2
		return `\` + string(c), false, nil
	case 'k':
		if !t.named {
			t.at += 2
			return literal('k'), true, nil
		}
		name, _, ok := strings.Cut(strings.TrimPrefix(t.text[t.at+2:], "<"), ">")
		if !ok || !strings.HasPrefix(t.text[t.at+2:], "<") || !isGroupName(name) {
			return "", false, never(`expected \k<name>`)
		}
		t.references = append(t.references, name)
		t.cannot(`a back-reference, \k<` + name + ">,")
		t.at += len(name) + 4
		return "", true, nil
	}
	if class := shorthand(c); class != "" {
		t.at += 2
		return "[" + class + "]", true, nil
	}
	if c >= '1' && c <= '9' {
		end := t.at + 2
		for end < len(t.text) && t.text[end] >= '0' && t.text[end] <= '9' {
			end++
		}
		if n, err := strconv.Atoi(t.text[t.at+1 : end]); err == nil && n <= t.groups {
			t.cannot("a back-reference, " + t.text[t.at:end] + ",")
			t.at = end
			return "", true, nil
		}
	}
	return literal(t.escaped(false)), true, nil
}

// escaped reads an escape that stands for one character.
func (t *jsRegex) escaped(inClass bool) rune {
	t.at++ // the backslash
	c, size := utf8.DecodeRuneInString(t.text[t.at:])
	t.at += size
	rest := t.text[t.at:]
	switch c {
	case 't':
		return '\t'
	case 'n':
		return '\n'
	case 'v':
		return '\v'
	case 'f':
		return '\f'
	case 'r':
		return '\r'
	case 'c':
		if rest != "" {
			l := rest[0]
			letter := l >= 'a' && l <= 'z' || l >= 'A' && l <= 'Z'
			if letter || inClass && (l >= '0' && l <= '9' || l == '_') {
				t.at++
				return rune(l % 32)
			}
		}
		t.at-- // the backslash stands for itself
		return '\\'
	case 'x':
		if len(rest) >= 2 {
			high, ok := hexDigit(rest[0])
			low, okLow := hexDigit(rest[1])
			if ok && okLow {
				t.at += 2
				return high<<4 | low
			}
		}
		return 'x'
	case 'u':
		r, ok := hex4(rest)
		if !ok {
			return 'u'
		}
		t.at += 4
		if !utf16.IsSurrogate(r) {
			return r
		}
		if rest = t.text[t.at:]; !inClass && strings.HasPrefix(rest, `\u`) {
			if low, ok := hex4(rest[2:]); ok && utf16.DecodeRune(r, low) != utf8.RuneError {
				t.at += 6
				return utf16.DecodeRune(r, low)
			}
		}
		t.cannot("half a character (a lone surrogate)")
		return utf8.RuneError
	case '0', '1', '2', '3', '4', '5', '6', '7':
		n := c - '0'
		for range 2 {
			if t.at < len(t.text) && t.text[t.at] >= '0' && t.text[t.at] <= '7' && n*8+rune(t.text[t.at]-'0') <= 0o377 {
				n = n*8 + rune(t.text[t.at]-'0')
				t.at++
			}
		}
		return n
	}
	return c
}

// class reads a bracket expression.
func (t *jsRegex) class() (string, error) {
	t.at++ // [
	var b strings.Builder
	negated := t.next() == '^'
	if negated {
		t.at++
	}
	for {
		if t.at >= len(t.text) {
			return "", never("expected a ] for every [")
		}
		if t.text[t.at] == ']' {
			t.at++
			break
		}
		from, set, err := t.classAtom()
		if err != nil {
			return "", err
		}
		if t.next() != '-' || t.at+1 >= len(t.text) || t.text[t.at+1] == ']' {
			b.WriteString(set)
			continue
		}
		t.at++ // -
		to, toSet, err := t.classAtom()
		if err != nil {
			return "", err
		}
		switch {
		case from < 0 || to < 0: // next to \w and the like, - is itself
			b.WriteString(set + literal('-') + toSet)
		case from > to:
			return "", never("expected a range from low to high, got %c-%c", from, to)
		default:
			b.WriteString(literal(from) + "-" + literal(to))
		}
	}
	switch {
	case b.Len() > 0 && negated:
		return "[^" + b.String() + "]", nil
	case b.Len() > 0:
		return "[" + b.String() + "]", nil
	case negated:
		return `[\x00-\x{10ffff}]`, nil
	}
	return noMatch, nil
}

// classAtom reads one member of a class: a character, or a set, with -1.
func (t *jsRegex) classAtom() (rune, string, error) {
	r, size := utf8.DecodeRuneInString(t.text[t.at:])
	if r != '\\' {
		t.at += size
		return r, literal(r), nil
	}
	if t.at+1 >= len(t.text) {
		return 0, "", never("expected something behind the last backslash")
	}
	c := t.text[t.at+1]
	if class := shorthand(c); class != "" {
		t.at += 2
		return -1, class, nil
	}
	if c == 'b' {
		t.at += 2
		return '\b', literal('\b'), nil
	}
	if t.named && c == 'k' {
		return 0, "", never(`expected no \k in a class beside named groups`)
	}
	r = t.escaped(true)
	return r, literal(r), nil
}
