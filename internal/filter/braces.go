package filter

import (
	"errors"
	"strconv"
	"strings"
)

// maxExpansions bounds what the braces of one glob stand for.
const maxExpansions = 1000

var errExpansions = errors.New("the braces stand for more than " + strconv.Itoa(maxExpansions) + " patterns: use a list of globs, or regex")

// The escaped characters of a brace expression, while it is taken apart.
var (
	hideEscapes = strings.NewReplacer(`\\`, "\x00s", `\{`, "\x00o", `\}`, "\x00c", `\,`, "\x00m", `\.`, "\x00p")
	showEscapes = strings.NewReplacer("\x00s", `\`, "\x00o", "{", "\x00c", "}", "\x00m", ",", "\x00p", ".")
)

// expandBraces returns what a glob with {a,b} and {1..3} stands for, without
// doubles, by bash's rules as the JavaScript package brace-expansion, which
// minimatch uses, understands them: escapes of braces, commas, dots and
// backslashes are resolved on the way.
func expandBraces(glob string) ([]string, error) {
	if !hasBraces(glob) {
		return []string{glob}, nil
	}
	if strings.HasPrefix(glob, "{}") {
		glob = `\{\}` + glob[2:]
	}
	all, err := expand(hideEscapes.Replace(glob), true)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	unique := all[:0]
	for _, one := range all {
		one = showEscapes.Replace(one)
		if !seen[one] {
			seen[one] = true
			unique = append(unique, one)
		}
	}
	return unique, nil
}

// hasBraces tells whether some { is followed by a } on its line.
func hasBraces(glob string) bool {
	for line := range strings.FieldsFuncSeq(glob, func(r rune) bool { return r == '\n' || r == '\r' || r == '\u2028' || r == '\u2029' }) {
		if open := strings.IndexByte(line, '{'); open >= 0 && strings.IndexByte(line[open:], '}') >= 0 {
			return true
		}
	}
	return false
}

// balanced finds the first pair of braces that belong together: when one of
// them is left open, the innermost of those that are closed.
func balanced(s string) (before, body, after string, ok bool) {
	var open []int
	left, right := -1, -1
	for i := range len(s) {
		switch s[i] {
		case '{':
			open = append(open, i)
		case '}':
			if len(open) == 0 {
				continue
			}
			start := open[len(open)-1]
			open = open[:len(open)-1]
			if len(open) == 0 {
				return s[:start], s[start+1 : i], s[i+1:], true
			}
			if left < 0 || start < left {
				left, right = start, i
			}
		}
	}
	if left < 0 {
		return "", "", "", false
	}
	return s[:left], s[left+1 : right], s[right+1:], true
}

// expand expands the first braces of s and what is behind them. At the top,
// empty results of a choice are dropped.
func expand(s string, top bool) ([]string, error) {
	before, body, after, ok := balanced(s)
	if !ok {
		return []string{s}, nil
	}
	rest := func() ([]string, error) {
		if after == "" {
			return []string{""}, nil
		}
		return expand(after, false)
	}
	if strings.HasSuffix(before, "$") {
		tails, err := rest()
		return combine(before, []string{"{" + body + "}"}, tails, false, err)
	}
	values, isSequence := sequence(body)
	switch {
	case isSequence && values == nil:
		return nil, errExpansions
	case isSequence:
	case strings.Contains(body, ","):
		var err error
		if values, err = choices(body); err != nil {
			return nil, err
		}
	default:
		if closesLater(after) { // {a},b}
			return expand(before+"{"+body+"\x00c"+after, true)
		}
		return []string{s}, nil
	}
	tails, err := rest()
	return combine(before, values, tails, top && !isSequence, err)
}

// closesLater tells whether s has a comma, not directly followed by another,
// and a } behind it.
func closesLater(s string) bool {
	for i := range len(s) {
		if s[i] == ',' && i+1 < len(s) && s[i+1] != ',' && strings.IndexByte(s[i+1:], '}') >= 0 {
			return true
		}
	}
	return false
}

// choices returns what {a,b,c} stands for, each part expanded in turn.
func choices(body string) ([]string, error) {
	parts := splitChoices(body)
	embraced := false
	if len(parts) == 1 { // {{a,b}} is {a} and {b}
		inner, err := expand(parts[0], false)
		if err != nil {
			return nil, err
		}
		parts, embraced = inner, true
	}
	var all []string
	for _, part := range parts {
		if embraced {
			part = "{" + part + "}"
		}
		if embraced && len(parts) == 1 {
			return []string{part}, nil
		}
		expanded, err := expand(part, false)
		if err != nil {
			return nil, err
		}
		if all = append(all, expanded...); len(all) > maxExpansions {
			return nil, errExpansions
		}
	}
	return all, nil
}

// splitChoices splits at commas that are in no inner braces.
func splitChoices(s string) []string {
	before, body, after, ok := balanced(s)
	if !ok {
		return strings.Split(s, ",")
	}
	parts := strings.Split(before, ",")
	parts[len(parts)-1] += "{" + body + "}"
	if after != "" {
		rest := splitChoices(after)
		parts[len(parts)-1] += rest[0]
		parts = append(parts, rest[1:]...)
	}
	return parts
}

func combine(before string, values, tails []string, dropEmpty bool, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	if len(values)*len(tails) > maxExpansions {
		return nil, errExpansions
	}
	all := make([]string, 0, len(values)*len(tails))
	for _, v := range values {
		for _, tail := range tails {
			if one := before + v + tail; one != "" || !dropEmpty {
				all = append(all, one)
			}
		}
	}
	return all, nil
}

// sequence returns what {1..5}, {01..10..2} or {a..e} stands for: nil when
// that is too much. ok is false when body is no sequence.
func sequence(body string) (values []string, ok bool) {
	parts := strings.Split(body, "..")
	if len(parts) != 2 && len(parts) != 3 {
		return nil, false
	}
	by := 1
	if len(parts) == 3 {
		n, err := strconv.Atoi(parts[2])
		if err != nil || strings.HasPrefix(parts[2], "+") {
			return nil, false
		}
		if n < 0 {
			n = -n
		}
		by = max(n, 1)
	}
	from, to, letters := 0, 0, false
	if isLetter(parts[0]) && isLetter(parts[1]) {
		from, to, letters = int(parts[0][0]), int(parts[1][0]), true
	} else {
		var errFrom, errTo error
		from, errFrom = strconv.Atoi(parts[0])
		to, errTo = strconv.Atoi(parts[1])
		if errFrom != nil || errTo != nil || strings.HasPrefix(parts[0], "+") || strings.HasPrefix(parts[1], "+") {
			return nil, false
		}
	}
	width := 0
	for _, part := range parts {
		if digits := strings.TrimPrefix(part, "-"); len(digits) > 1 && digits[0] == '0' {
			width = max(len(parts[0]), len(parts[1]))
		}
	}
	if distance := uint64(max(from, to)) - uint64(min(from, to)); distance/uint64(by) >= maxExpansions {
		return nil, true
	}
	step := by
	if to < from {
		step = -by
	}
	for n := from; step > 0 && n <= to || step < 0 && n >= to; n += step {
		switch {
		case letters && n == '\\':
			values = append(values, "")
		case letters:
			values = append(values, string(rune(n)))
		default:
			text := strconv.Itoa(n)
			if missing := width - len(text); missing > 0 {
				zeros := strings.Repeat("0", missing)
				if n < 0 {
					text = "-" + zeros + text[1:]
				} else {
					text = zeros + text
				}
			}
			values = append(values, text)
		}
	}
	return values, true
}

func isLetter(s string) bool {
	return len(s) == 1 && (s[0] >= 'a' && s[0] <= 'z' || s[0] >= 'A' && s[0] <= 'Z')
}
