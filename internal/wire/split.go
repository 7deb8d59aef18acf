package wire

import "muster"

// RawSignal is one item of a signals request, for those who pass it on as it is.
type RawSignal struct {
	JSON  []byte // the object, byte for byte; it aliases the body
	UUID  string // "" when absent, null or no string
	IP    string // source.ip, else source.value, "" when there is neither
	Scope string // source.scope
	// Origin is the first decision's, "" when there is none.
	Origin string
}

// SplitSignals calls yield for every item of a signals request, in order, with
// nothing checked but that it is an object. Of duplicate keys the last wins.
//
// n is the number of items. An error means that the whole request must be
// refused and that what was yielded must be discarded: muster.Invalid for
// malformed JSON, a top level that is no array, an item that is no object or
// nesting over MaxDepth; muster.TooLarge for more than maxItems items.
func SplitSignals(body []byte, maxItems int, yield func(RawSignal)) (n int, err error) {
	s := &scanner{data: body}
	if err := s.expectArray(); err != nil {
		return 0, err
	}
	s.enter()
	for first := true; s.nextItem(first); first = false {
		if n >= maxItems {
			return n, tooManyItems(maxItems)
		}
		if s.peek() != '{' {
			came := s.came()
			if s.skip(); s.err != nil {
				break
			}
			return n, muster.Errorf(muster.Invalid, "item %d must be an object, got %s", n, came)
		}
		var raw RawSignal
		start := s.pos
		s.rawSignal(&raw)
		if raw.JSON = body[start:s.pos:s.pos]; s.err == nil {
			yield(raw)
		}
		n++
	}
	s.end()
	return n, s.err
}

func (s *scanner) rawSignal(raw *RawSignal) {
	var value string
	s.enter()
	for first := true; s.nextKey(first); first = false {
		switch s.key {
		case "uuid":
			s.textOr(&raw.UUID)
		case "source":
			raw.IP, raw.Scope, value = "", "", ""
			if s.peek() != '{' {
				s.skip()
				continue
			}
			s.enter()
			for first := true; s.nextKey(first); first = false {
				switch s.key {
				case "ip":
					s.textOr(&raw.IP)
				case "value":
					s.textOr(&value)
				case "scope":
					s.textOr(&raw.Scope)
				default:
					s.skip()
				}
			}
		case "decisions":
			s.firstOrigin(&raw.Origin)
		default:
			s.skip()
		}
	}
	if raw.IP == "" {
		raw.IP = value
	}
}

// textOr reads a string; of any other type it is "".
func (s *scanner) textOr(dst *string) {
	*dst = ""
	if s.peek() == '"' {
		*dst = s.text()
		return
	}
	s.skip()
}

func (s *scanner) firstOrigin(dst *string) {
	*dst = ""
	if s.peek() != '[' {
		s.skip()
		return
	}
	s.enter()
	for first := true; s.nextItem(first); first = false {
		if !first || s.peek() != '{' {
			s.skip()
			continue
		}
		s.enter()
		for first := true; s.nextKey(first); first = false {
			if s.key == "origin" {
				s.textOr(dst)
			} else {
				s.skip()
			}
		}
	}
}
