package feed

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"muster"
)

// maxDepth bounds how deep JSON is nested.
const maxDepth = 32

// level is an object or an array that a token is in; place is all of them.
type level struct {
	object, hasKey bool
	key            string
}

type place []level

func (w place) isKey() bool { return len(w) > 0 && w[len(w)-1].object && !w[len(w)-1].hasKey }

func (w place) valueEnds() {
	if len(w) > 0 {
		w[len(w)-1].hasKey = false
	}
}

// name returns what a text here is called: its field, or that of the array that
// it is in; "" in an array that has no name.
func (w place) name() string {
	for i := len(w) - 1; i >= 0; i-- {
		if w[i].object {
			return strings.ToLower(w[i].key)
		}
	}
	return ""
}

// has reports whether a text here is at a path, arrays left out.
func (w place) has(path string) bool {
	for i := range w {
		if !w[i].object {
			continue
		}
		rest, ok := strings.CutPrefix(path, w[i].key)
		if !ok || rest != "" && rest[0] != '.' {
			return false
		}
		path = strings.TrimPrefix(rest, ".")
	}
	return path == ""
}

// texts calls yield with every text of a JSON document, or of several, until it
// fails.
func texts(body []byte, yield func(at place, text string) error) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	var at place
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) && len(at) == 0 {
			return nil
		}
		if err != nil {
			return muster.Errorf(muster.Invalid, "expected JSON: %w", err)
		}
		switch token := token.(type) {
		case json.Delim:
			if token == '{' || token == '[' {
				if len(at) == maxDepth {
					return muster.Errorf(muster.Invalid, "the JSON is nested deeper than %d levels", maxDepth)
				}
				at = append(at, level{object: token == '{'})
				continue
			}
			at = at[:len(at)-1]
			at.valueEnds()
		case string:
			if at.isKey() {
				at[len(at)-1].key, at[len(at)-1].hasKey = token, true
				continue
			}
			if err := yield(at, token); err != nil {
				return err
			}
			at.valueEnds()
		default:
			at.valueEnds()
		}
	}
}

// json reads the texts at a path, or without one those that are called as
// addresses are.
func (p *parser) json(body []byte, path string) error {
	wanted := func(at place) bool { return at.has(path) }
	if path == "" {
		names, err := addressNames(body)
		if err != nil {
			return err
		}
		wanted = func(at place) bool { return slices.Contains(names, at.name()) }
	}
	return texts(body, func(at place, text string) error {
		if !wanted(at) {
			return nil
		}
		if p.take(text); len(p.Sources) > p.most {
			return p.tooMany()
		}
		return nil
	})
}

// families are names that only stand beside each other for IPv4 and IPv6.
var families = [][]string{{"ipv4", "ipv6"}, {"ip_prefix", "ipv6_prefix"}, {"ipv4prefix", "ipv6prefix"}}

// addressNames returns what the best texts of a document are called that are
// addresses, as its first thousand texts tell.
func addressNames(body []byte) ([]string, error) {
	const looks = 1000
	found := map[string]struct{}{}
	n := 0
	errEnough := errors.New("enough")
	err := texts(body, func(at place, text string) error {
		if _, err := muster.ParseSource(text); err == nil {
			found[at.name()] = struct{}{}
		}
		if n++; n == looks {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	best, rank := "", len(titles)
	for _, name := range slices.Sorted(maps.Keys(found)) {
		singular := strings.TrimSuffix(name, "s")
		i := slices.IndexFunc(titles, func(t string) bool { return name == t || singular == t || singular == t+"e" })
		if name == "" {
			i = 0 // a list of nothing else
		}
		if i >= 0 && i < rank {
			best, rank = name, i
		}
	}
	switch {
	case rank < len(titles):
		for _, family := range families {
			if slices.Contains(family, best) {
				return family, nil
			}
		}
		return []string{best}, nil
	case len(found) == 1:
		return slices.Collect(maps.Keys(found)), nil
	case len(found) == 0:
		return nil, muster.Errorf(muster.Invalid, "no address is in its first %d texts: expected the path of the addresses, as in json:data.ip", looks)
	}
	return nil, muster.Errorf(muster.Invalid, "several fields have addresses (%s): expected the path of the right one, as in json:data.ip", strings.Join(slices.Sorted(maps.Keys(found)), ", "))
}
