package peer

import (
	"net/netip"
	"strings"
)

// cutLast cuts the element behind the last comma off a list; more says that
// there was a comma. Commas in quoted strings count only when quotes is not
// set. Reading from the right keeps an unbalanced quote of the client away from
// the elements that proxies appended. It fails on an element over maxElement.
func cutLast(list string, quotes bool) (before, element string, more, ok bool) {
	quoted := false
	for i := len(list) - 1; i >= 0; i-- {
		if len(list)-i > maxElement {
			return "", "", false, false
		}
		switch c := list[i]; {
		case c == '"' && quotes:
			if !quoted || !escaped(list, i) {
				quoted = !quoted
			}
		case c == ',' && !quoted:
			return list[:i], list[i+1:], true, true
		}
	}
	return "", list, false, true
}

// escaped reports whether an odd number of backslashes stands before s[i].
func escaped(s string, i int) bool {
	before := strings.TrimRight(s[max(0, i-maxElement):i], `\`)
	return (min(i, maxElement)-len(before))%2 == 1
}

// parseForwarded reads the for parameter of one element of Forwarded
// (RFC 7239, 4). An element has at most one.
func parseForwarded(element string) (addr netip.Addr, ok bool) {
	for more := true; more; {
		var pair string
		pair, element, more = cutPair(element)
		name, value, _ := strings.Cut(pair, "=")
		if !strings.EqualFold(trim(name), "for") {
			continue
		}
		if ok {
			return netip.Addr{}, false
		}
		node, closed := unquote(trim(value))
		if !closed {
			return netip.Addr{}, false
		}
		if addr, ok = parseNode(node); !ok {
			return netip.Addr{}, false
		}
	}
	return addr, ok
}

// cutPair cuts the parameter before the first semicolon that is in no quoted
// string.
func cutPair(element string) (pair, rest string, more bool) {
	quoted := false
	for i := 0; i < len(element); i++ {
		switch c := element[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == ';' && !quoted:
			return element[:i], element[i+1:], true
		}
	}
	return element, "", false
}

// unquote returns what a quoted string holds, and a token as it is. It fails on
// a quoted string that does not end where the value does.
func unquote(value string) (string, bool) {
	if !strings.HasPrefix(value, `"`) {
		return value, true
	}
	if inner := value[1:]; strings.HasSuffix(inner, `"`) && !strings.ContainsAny(inner[:len(inner)-1], `"\`) {
		return inner[:len(inner)-1], true
	}
	var plain []byte
	for i := 1; i < len(value); i++ {
		switch c := value[i]; {
		case c == '"':
			return string(plain), i == len(value)-1
		case c == '\\' && i+1 < len(value):
			i++
			plain = append(plain, value[i])
		default:
			plain = append(plain, c)
		}
	}
	return "", false
}

// parseNode reads the address of one hop: 192.0.2.1, 192.0.2.1:80, 2001:db8::1,
// [2001:db8::1] and [2001:db8::1]:80. Proxies write all of these, under either
// header. "unknown" and identifiers like _hidden are no addresses.
func parseNode(s string) (netip.Addr, bool) {
	s = trim(s)
	host, port, hasPort := s, "", false
	bracketed := strings.HasPrefix(s, "[")
	if bracketed {
		var after string
		var closed bool
		if host, after, closed = strings.Cut(s[1:], "]"); !closed {
			return netip.Addr{}, false
		}
		if port, hasPort = strings.CutPrefix(after, ":"); !hasPort && after != "" {
			return netip.Addr{}, false
		}
	} else if before, after, _ := strings.Cut(s, ":"); strings.IndexByte(after, ':') < 0 {
		host, port, hasPort = before, after, len(before) < len(s)
	}
	if hasPort && !isPort(port) {
		return netip.Addr{}, false
	}
	host, _, zoned := strings.Cut(host, "%") // a zone means something on the host that wrote it
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Is4() && (bracketed || zoned) {
		return netip.Addr{}, false
	}
	return plain(addr), true
}

// isPort reports whether s is a node-port of RFC 7239: one to five digits, or
// an underscore and a name.
func isPort(s string) bool {
	if name, hidden := strings.CutPrefix(s, "_"); hidden {
		return name != "" && strings.IndexFunc(name, func(c rune) bool {
			return !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '.' || c == '_' || c == '-')
		}) < 0
	}
	return s != "" && len(s) <= 5 && strings.Trim(s, "0123456789") == ""
}

// trim takes off optional white space (RFC 9110, 5.6.3).
func trim(s string) string { return strings.Trim(s, " \t") }
