package filter

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// glob is a pattern with the meaning that the JavaScript package minimatch
// gives it, without options: * and ? stop at /, a part's leading dot must be
// written, ** stands for any number of parts.
type glob struct {
	text    string
	negated bool
	nothing bool // a comment, or a class that cannot match: no value matches
	// alternatives are what the braces stand for, each cut at its slashes.
	alternatives [][]globPart
}

type partKind uint8

const (
	partLiteral partKind = iota
	partGlobstar
	partSuffix  // any text without a leading dot that ends so: *.log
	partLength  // as many characters, without a leading dot, ending so: ??.log
	partHasDot  // *.*
	partPattern // anything else
)

type globPart struct {
	kind    partKind
	text    string // of partLiteral, the whole; of partSuffix and partLength, the end
	length  int    // in characters, of partLength
	noDot   bool   // of partPattern: a leading dot must not match
	noJump  bool   // of partPattern: "." and ".." must not match
	pattern *regexp.Regexp
}

// maxGlob is the length at which minimatch gives up, in bytes.
const maxGlob = 64 << 10

// compileGlob prepares a pattern; fold ignores case.
func compileGlob(text string, fold bool) (*glob, error) {
	if len(text) > maxGlob {
		return nil, fmt.Errorf("expected a glob of at most %d bytes, got %d", maxGlob, len(text))
	}
	if strings.IndexByte(text, 0) >= 0 {
		return nil, errors.New("expected a glob without NUL")
	}
	g := &glob{text: text}
	if strings.HasPrefix(text, "#") {
		g.nothing = true
		return g, nil
	}
	for strings.HasPrefix(text, "!") {
		g.negated = !g.negated
		text = text[1:]
	}
	expanded, err := expandBraces(text)
	if err != nil {
		return nil, err
	}
	for _, one := range expanded {
		var parts []globPart
		for _, part := range normalParts(one) {
			compiled, err := compilePart(part, fold)
			if err != nil {
				return nil, err
			}
			parts = append(parts, compiled)
		}
		g.alternatives = append(g.alternatives, parts)
	}
	return g, nil
}

// cutParts appends the parts of s, any number of slashes between two, to parts.
func cutParts(parts []string, s string) []string {
	for {
		i := strings.IndexByte(s, '/')
		if i < 0 {
			return append(parts, s)
		}
		parts = append(parts, s[:i])
		for i < len(s) && s[i] == '/' {
			i++
		}
		s = s[i:]
	}
}

// normalParts cuts a pattern into parts, without repeated ** and with a/../b
// resolved.
func normalParts(pattern string) []string {
	var parts []string
	for _, part := range cutParts(nil, pattern) {
		last := ""
		if len(parts) > 0 {
			last = parts[len(parts)-1]
		}
		if part == "**" && last == "**" {
			continue
		}
		if part == ".." && last != "" && last != ".." && last != "." && last != "**" {
			parts = parts[:len(parts)-1]
			continue
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return []string{""}
	}
	return parts
}

const globSpecial = "+@!?*[(" // what ends minimatch's short cuts

func compilePart(part string, fold bool) (globPart, error) {
	if part == "**" {
		return globPart{kind: partGlobstar}, nil
	}
	if err := refuseExtended(part); err != nil {
		return globPart{}, err
	}
	body, literal, magic := translatePart(part)
	if !magic && !fold {
		return globPart{kind: partLiteral, text: literal}, nil
	}
	stars := len(part) - len(strings.TrimLeft(part, "*"))
	marks := len(part) - len(strings.TrimLeft(part, "?"))
	switch {
	case fold: // only the general way ignores case
	case stars > 0 && !strings.ContainsAny(part[stars:], globSpecial):
		return globPart{kind: partSuffix, text: part[stars:]}, nil
	case marks > 0 && !strings.ContainsAny(part[marks:], globSpecial):
		return globPart{kind: partLength, text: part[marks:], length: utf8.RuneCountInString(part)}, nil
	case stars > 0 && strings.Trim(part[stars:], "*") == "." && strings.HasSuffix(part, "*"):
		return globPart{kind: partHasDot}, nil
	}
	compiled := globPart{kind: partPattern}
	compiled.noDot = strings.HasPrefix(body, "[")
	rest := strings.TrimPrefix(body, `\.`)
	compiled.noJump = rest != body && strings.HasPrefix(strings.TrimPrefix(rest, `\.`), "[")
	if strings.Trim(part, "*") == "" {
		body = strings.Replace(body, "*", "+", 1) // alone, * needs something
	}
	flags := "(?s)"
	if fold {
		flags = "(?si)"
	}
	var err error
	if compiled.pattern, err = regexp.Compile(flags + `\A(?:` + body + `)\z`); err != nil {
		return globPart{}, fmt.Errorf("glob part %q: %w", part, err)
	}
	return compiled, nil
}

// refuseExtended refuses what minimatch understands and this package does not.
func refuseExtended(part string) error {
	class := false
	for i := 0; i < len(part); i++ {
		switch c := part[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case strings.IndexByte("?*+@!", c) >= 0 && i+1 < len(part) && part[i+1] == '(':
			return fmt.Errorf("the extended glob %s in %q is not supported: use braces, a list of globs, not, or regex", part[i:i+2]+"…)", part)
		}
	}
	return nil
}

// translatePart writes a part as a regular expression. literal is what it
// stands for when there is no magic in it.
func translatePart(part string) (body, literal string, magic bool) {
	var b, plain strings.Builder
	write := func(r rune) {
		b.WriteString(regexp.QuoteMeta(string(r)))
		plain.WriteRune(r)
	}
	inStar := false
	for i := 0; i < len(part); {
		r, size := utf8.DecodeRuneInString(part[i:])
		if r == '*' {
			if !inStar {
				b.WriteString(`[^/]*`)
			}
			inStar, magic = true, true
			i++
			continue
		}
		inStar = false
		switch {
		case r == '?':
			b.WriteString(`[^/]`)
			magic = true
		case r == '\\' && i+1 < len(part):
			next, nextSize := utf8.DecodeRuneInString(part[i+1:])
			write(next)
			size += nextSize
		case r == '[':
			class := readClass(part[i:])
			if class.size == 0 { // never closed: itself
				write(r)
				break
			}
			if class.single != 0 {
				write(class.single)
			} else {
				b.WriteString(class.pattern)
				magic = true
			}
			size = class.size
		default:
			write(r)
		}
		i += size
	}
	return b.String(), plain.String(), magic
}

// globClass is what readClass found.
type globClass struct {
	size    int    // bytes read; 0 = it is no class
	single  rune   // the only character that it stands for
	pattern string // else, as a regular expression
}

// posixClasses are the names in [[:name:]] with what they stand for; those
// that are named by what they exclude come with negated.
var posixClasses = []struct {
	name, class string
	negated     bool
}{
	{"[:alnum:]", `\p{L}\p{Nl}\p{Nd}`, false},
	{"[:alpha:]", `\p{L}\p{Nl}`, false},
	{"[:ascii:]", `\x00-\x7f`, false},
	{"[:blank:]", `\p{Zs}\t`, false},
	{"[:cntrl:]", `\p{Cc}`, false},
	{"[:digit:]", `\p{Nd}`, false},
	{"[:graph:]", `\p{Z}\p{C}`, true},
	{"[:lower:]", `\p{Ll}`, false},
	{"[:print:]", `\p{C}`, true},
	{"[:punct:]", `\p{P}`, false},
	{"[:space:]", `\p{Z}\t\r\n\v\f`, false},
	{"[:upper:]", `\p{Lu}`, false},
	{"[:word:]", `\p{L}\p{Nl}\p{Nd}\p{Pc}`, false},
	{"[:xdigit:]", `A-Fa-f0-9`, false},
}

// noMatch is a class that matches nothing, which spoils the whole part.
const noMatch = `[^\x00-\x{10ffff}]`

// readClass reads a bracket expression at the start of s.
func readClass(s string) globClass {
	var ranges, excluded []string
	var single, from rune
	negated, started, escaped := false, false, false
	i := 1
	if i < len(s) && (s[i] == '!' || s[i] == '^') {
		negated = true
		i++
	}
	add := func(r rune) {
		ranges = append(ranges, fmt.Sprintf(`\x{%x}`, r))
		single = r
	}
scan:
	for i < len(s) {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == ']' && started && !escaped {
			return finishClass(ranges, excluded, single, negated, i+1, len(s))
		}
		started = true
		if r == '\\' && !escaped {
			escaped = true
			i++
			continue
		}
		if r == '[' && !escaped {
			for _, posix := range posixClasses {
				if !strings.HasPrefix(s[i:], posix.name) {
					continue
				}
				if from != 0 {
					return globClass{size: len(s), pattern: noMatch}
				}
				i += len(posix.name)
				if posix.negated {
					excluded = append(excluded, posix.class)
				} else {
					ranges = append(ranges, posix.class)
					single = 0
				}
				continue scan
			}
		}
		escaped = false
		if from != 0 {
			if r > from {
				ranges = append(ranges, fmt.Sprintf(`\x{%x}-\x{%x}`, from, r))
				single = 0
			} else if r == from {
				add(r)
			}
			from = 0
			i += size
			continue
		}
		switch rest := s[i+size:]; {
		case strings.HasPrefix(rest, "-]"):
			add(r)
			ranges[len(ranges)-1] += `\x{2d}`
			single = 0
			i += size + 1
		case strings.HasPrefix(rest, "-"):
			from = r
			i += size + 1
		default:
			add(r)
			i += size
		}
	}
	return globClass{}
}

func finishClass(ranges, excluded []string, single rune, negated bool, size, whole int) globClass {
	switch {
	case len(ranges) == 0 && len(excluded) == 0:
		return globClass{size: whole, pattern: noMatch}
	case len(ranges) == 1 && len(excluded) == 0 && !negated && single != 0:
		return globClass{size: size, single: single}
	}
	open, openExcluded := "[", "[^"
	if negated {
		open, openExcluded = "[^", "["
	}
	positive, negative := open+strings.Join(ranges, "")+"]", openExcluded+strings.Join(excluded, "")+"]"
	switch {
	case len(excluded) == 0:
		return globClass{size: size, pattern: positive}
	case len(ranges) == 0:
		return globClass{size: size, pattern: negative}
	}
	return globClass{size: size, pattern: "(" + positive + "|" + negative + ")"}
}

// match tells whether the pattern matches the whole of s.
func (g *glob) match(s string) bool {
	if g.nothing {
		return false
	}
	if g.text == "" {
		return s == ""
	}
	var few [16]string
	parts := cutParts(few[:0], s)
	for _, pattern := range g.alternatives {
		if matchParts(parts, pattern) {
			return !g.negated
		}
	}
	return g.negated
}

// matchParts matches a value's parts with a pattern's.
func matchParts(parts []string, pattern []globPart) bool {
	first, last := -1, -1
	for i := range pattern {
		if pattern[i].kind == partGlobstar {
			if last = i; first < 0 {
				first = i
			}
		}
	}
	if first < 0 {
		return matchRun(parts, pattern) && (len(parts) == len(pattern) || len(parts) == len(pattern)+1 && parts[len(pattern)] == "")
	}
	head, tail := pattern[:first], pattern[last+1:]
	if !matchRun(parts, head) {
		return false
	}
	parts = parts[len(head):]
	if len(tail) > 0 {
		switch { // a slash at the end may be there or not
		case len(parts) >= len(tail) && matchRun(parts[len(parts)-len(tail):], tail):
			parts = parts[:len(parts)-len(tail)]
		case len(parts) > len(tail) && parts[len(parts)-1] == "" && matchRun(parts[len(parts)-len(tail)-1:], tail):
			parts = parts[:len(parts)-len(tail)-1]
		default:
			return false
		}
	}
	sawSome := len(tail) > 0
	for middle := pattern[first:last]; len(middle) > 0; {
		middle = middle[1:]
		run := middle
		for i := range middle {
			if middle[i].kind == partGlobstar {
				run = middle[:i]
				break
			}
		}
		middle = middle[len(run):]
		// The earliest place is the best one: parts with a leading dot are what
		// ** cannot stand for, and only a run that names them can take them.
		for !matchRun(parts, run) {
			if len(parts) == 0 || strings.HasPrefix(parts[0], ".") {
				return false
			}
			parts = parts[1:]
		}
		parts = parts[len(run):]
	}
	for _, part := range parts {
		if sawSome = true; strings.HasPrefix(part, ".") {
			return false
		}
	}
	return sawSome
}

// matchRun tells whether parts begin with what a run of parts without **
// stands for.
func matchRun(parts []string, run []globPart) bool {
	if len(parts) < len(run) {
		return false
	}
	for i := range run {
		if !run[i].match(parts[i]) {
			return false
		}
	}
	return true
}

func (p *globPart) match(s string) bool {
	switch p.kind {
	case partLiteral:
		return s == p.text
	case partSuffix:
		return s != "" && s[0] != '.' && strings.HasSuffix(s, p.text)
	case partLength:
		return (s == "" || s[0] != '.') && strings.HasSuffix(s, p.text) && utf8.RuneCountInString(s) == p.length
	case partHasDot:
		return s != "" && s[0] != '.' && strings.IndexByte(s, '.') >= 0
	default: // a pattern
	}
	if p.noDot && strings.HasPrefix(s, ".") || p.noJump && (s == "." || s == "..") {
		return false
	}
	return p.pattern.MatchString(s)
}
