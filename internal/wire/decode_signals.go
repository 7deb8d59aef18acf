package wire

import (
	"bytes"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"muster"
)

// DecodeSignals reads the JSON array of a signals request in one pass. It calls
// item for every object whose fields have the right JSON types and bad for
// every other item, both with the item's index; one bad item never costs
// another. s is reused between calls. Unknown fields are ignored, of duplicate
// keys the last wins, invalid UTF-8 is replaced by U+FFFD.
//
// n is the number of items seen. An error means that the whole request must be
// refused and that what was handed to item must be discarded: muster.Invalid
// for malformed JSON, a top level that is no array or nesting over MaxDepth;
// muster.TooLarge for more than maxItems items.
func DecodeSignals(body []byte, maxItems int, item func(i int, s *Signal), bad func(i int, p Problem)) (n int, err error) {
	d := &signalDecoder{scanner: scanner{data: body}}
	if err := d.expectArray(); err != nil {
		return 0, err
	}
	d.enter()
	for first := true; d.nextItem(first); first = false {
		if n >= maxItems {
			return n, tooManyItems(maxItems)
		}
		d.problem = Problem{}
		d.item()
		switch {
		case d.err != nil:
		case d.problem.Code != "":
			bad(n, d.problem)
		default:
			item(n, &d.signal)
		}
		n++
	}
	d.end()
	return n, d.err
}

func (s *scanner) expectArray() error {
	if s.peek() != '[' {
		return muster.Errorf(muster.Invalid, "the body must be a JSON array, got %s", s.came())
	}
	return nil
}

func tooManyItems(most int) error {
	return muster.Errorf(muster.TooLarge, "the array has more than %d items: send it in parts", most)
}

// signalDecoder fills one Signal after the other.
type signalDecoder struct {
	scanner
	signal  Signal
	first   [MaxDecisions]Decision
	problem Problem // the first one of the current item
	path    string  // of the object being read, for problems
}

func (d *signalDecoder) item() {
	if d.peek() != '{' {
		d.problem = Problem{NotObject, "expected an object, got " + d.came()}
		d.skip()
		return
	}
	s := &d.signal
	*s = Signal{}
	d.enter()
	for first := true; d.nextKey(first); first = false {
		switch d.key {
		case "uuid":
			d.string(&s.UUID)
		case "scenario":
			d.string(&s.Scenario)
		case "scenario_hash":
			d.string(&s.ScenarioHash)
		case "scenario_version":
			d.string(&s.ScenarioVersion)
		case "scenario_trust":
			d.string(&s.ScenarioTrust)
		case "kind":
			d.string(&s.Kind)
		case "message":
			d.string(&s.Message)
		case "machine_id":
			d.string(&s.MachineID)
		case "created_at":
			d.time(&s.CreatedAt)
		case "start_at":
			d.time(&s.StartAt)
		case "stop_at":
			d.time(&s.StopAt)
		case "source":
			d.source()
		case "context":
			d.context()
		case "decisions":
			d.decisions()
		default:
			d.skip()
		}
	}
}

func (d *signalDecoder) source() {
	src := &d.signal.Source
	*src = SignalSource{}
	if d.peek() != '{' {
		d.nullOr("source", "an object")
		return
	}
	d.path = "source."
	d.enter()
	for first := true; d.nextKey(first); first = false {
		switch d.key {
		case "scope":
			d.string(&src.Scope)
		case "value":
			d.string(&src.Value)
		case "ip":
			d.string(&src.IP)
		case "range":
			d.string(&src.Range)
		case "cn":
			d.string(&src.Country)
		case "as_name":
			d.string(&src.ASName)
		case "as_number":
			d.asNumber(&src.ASNumber)
		default:
			d.skip()
		}
	}
	d.path = ""
}

// asNumber reads a string (engines) or a number (other clients).
func (d *signalDecoder) asNumber(dst *uint32) {
	if c := d.peek(); c == '-' || c >= '0' && c <= '9' {
		*dst = parseASN(alias(d.number()))
		return
	}
	var text string
	d.string(&text)
	*dst = parseASN(text)
}

// parseASN reads a number, or one after "AS"; what is none is 0, not known.
func parseASN(s string) uint32 {
	if len(s) > 2 && strings.EqualFold(s[:2], "AS") {
		s = s[2:]
	}
	if len(s) > len("4294967295") {
		return 0
	}
	n, ok := digits(s, math.MaxUint32)
	if !ok {
		return 0
	}
	return uint32(n)
}

func (d *signalDecoder) context() {
	d.signal.Context = nil
	if d.peek() != '[' {
		d.nullOr("context", "an array")
		return
	}
	start := d.mark()
	empty := true
	d.enter()
	for first := true; d.nextItem(first); first = false {
		empty = false
		d.skip()
	}
	if !empty {
		d.signal.Context = d.raw(start)
	}
}

func (d *signalDecoder) decisions() {
	s := &d.signal
	s.Decisions, s.DecisionCount, s.Ban, s.First = nil, 0, false, nil
	if d.peek() != '[' {
		d.nullOr("decisions", "an array")
		return
	}
	start := d.mark()
	d.enter()
	for first := true; d.nextItem(first); first = false {
		if d.peek() != '{' {
			d.nullOr("decisions[]", "an object")
			continue
		}
		var over Decision
		dec := &over
		if s.DecisionCount < MaxDecisions {
			dec = &d.first[s.DecisionCount]
			*dec = Decision{}
		}
		d.decision(dec)
		s.DecisionCount++
		s.Ban = s.Ban || !dec.Simulated && strings.EqualFold(dec.Type, "ban")
	}
	if s.DecisionCount > 0 {
		s.First = d.first[:min(s.DecisionCount, MaxDecisions)]
		s.Decisions = d.raw(start)
	}
}

func (d *signalDecoder) decision(dec *Decision) {
	d.path = "decisions[]."
	d.enter()
	for first := true; d.nextKey(first); first = false {
		switch d.key {
		case "uuid":
			d.string(&dec.UUID)
		case "origin":
			d.string(&dec.Origin)
		case "scope":
			d.string(&dec.Scope)
		case "type":
			d.string(&dec.Type)
		case "value":
			d.string(&dec.Value)
		case "scenario":
			d.string(&dec.Scenario)
		case "duration":
			d.string(&dec.Duration)
		case "simulated":
			d.bool(&dec.Simulated)
		default:
			d.skip()
		}
	}
	d.path = ""
}

// string reads the current member as a string; null is "".
func (d *signalDecoder) string(dst *string) {
	*dst = ""
	if d.peek() == '"' {
		*dst = d.text()
		return
	}
	d.nullOr(d.key, "a string")
}

// bool reads the current member as a boolean; null is false.
func (d *signalDecoder) bool(dst *bool) {
	*dst = false
	switch d.peek() {
	case 't':
		d.literal("true")
		*dst = true
	case 'f':
		d.literal("false")
	default:
		d.nullOr(d.key, "a boolean")
	}
}

// time reads the current member as a time; what is no time is a zero one.
func (d *signalDecoder) time(dst *time.Time) {
	var text string
	d.string(&text)
	*dst, _ = parseTime(text)
}

// nullOr takes a null; any other value makes the item a bad one.
func (d *signalDecoder) nullOr(field, expected string) {
	if d.peek() != 'n' && d.problem.Code == "" {
		d.problem = Problem{WrongType, "field " + d.path + field + ": expected " + expected + ", got " + d.came()}
	}
	d.skip()
}

// mark returns where the value ahead starts, for raw.
func (d *signalDecoder) mark() int {
	d.nonASCII = false
	return d.pos
}

// raw returns the text of the value that began at start, as valid UTF-8.
func (d *signalDecoder) raw(start int) []byte {
	raw := d.data[start:d.pos:d.pos]
	if d.nonASCII && !utf8.Valid(raw) {
		return bytes.ToValidUTF8(raw, []byte("\uFFFD"))
	}
	return raw
}
