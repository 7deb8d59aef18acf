package wire

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"

	"muster"
)

// Credentials is the body of POST /watchers (register) and /watchers/reset.
type Credentials struct {
	MachineID string `json:"machine_id"`
	Password  string `json:"password"`
}

// Login is the body of POST /watchers/login.
type Login struct {
	MachineID string   `json:"machine_id"`
	Password  string   `json:"password"`
	Scenarios []string `json:"scenarios"` // empty when null, absent or []: says nothing about the footprint
}

// Enrol is the body of POST /watchers/enroll.
type Enrol struct {
	AttachmentKey string   `json:"attachment_key"` // "" with AutoEnroll (cscli console enroll --quick)
	Name          string   `json:"name"`
	Tags          []string `json:"tags"`
	Overwrite     bool     `json:"overwrite"`
	AutoEnroll    bool     `json:"autoenroll"`
}

// DecodeRegister reads a registration. Contents are not validated: see
// muster.ValidateMachineID.
func DecodeRegister(body []byte) (Credentials, error) { return decodeObject[Credentials](body) }

// DecodeReset reads a password reset.
func DecodeReset(body []byte) (Credentials, error) { return decodeObject[Credentials](body) }

// DecodeLogin reads a login; empty and null scenarios are dropped.
func DecodeLogin(body []byte) (Login, error) {
	login, err := decodeObject[Login](body)
	login.Scenarios = notEmpty(login.Scenarios)
	return login, err
}

// DecodeEnrol reads an enrolment; empty and null tags are dropped.
func DecodeEnrol(body []byte) (Enrol, error) {
	enrol, err := decodeObject[Enrol](body)
	enrol.Tags = notEmpty(enrol.Tags)
	return enrol, err
}

// DecodeDecisionsDelete reads the uuids of POST /decisions/delete. Empty and
// null entries, which engines send for decisions that have no uuid, are
// dropped. More than maxItems entries are muster.TooLarge. The result aliases
// body.
func DecodeDecisionsDelete(body []byte, maxItems int) ([]string, error) {
	var uuids []string
	_, err := eachItem(body, maxItems, func(s *scanner) {
		switch s.peek() {
		case '"':
			if id := s.text(); id != "" {
				uuids = append(uuids, id)
			}
		case 'n':
			s.literal("null")
		default:
			came := s.came()
			if s.skip(); s.err == nil {
				s.err = muster.Errorf(muster.Invalid, "expected an array of decision uuids, got %s in it before byte %d", came, s.pos)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return uuids, nil
}

// DecodeDecisionsSync counts the items of POST /decisions/sync, whatever they
// are. More than maxItems items are muster.TooLarge.
func DecodeDecisionsSync(body []byte, maxItems int) (int, error) {
	return eachItem(body, maxItems, (*scanner).skip)
}

// eachItem calls take before each item of the array that body must be; take
// passes over it.
func eachItem(body []byte, maxItems int, take func(*scanner)) (n int, err error) {
	s := &scanner{data: body}
	if err := s.expectArray(); err != nil {
		return 0, err
	}
	s.enter()
	for first := true; s.nextItem(first); first = false {
		if n >= maxItems {
			return n, tooManyItems(maxItems)
		}
		take(s)
		n++
	}
	s.end()
	return n, s.err
}

// notEmpty drops empty strings, which is also what null becomes.
func notEmpty(in []string) []string {
	return slices.DeleteFunc(in, func(s string) bool { return s == "" })
}

// decodeObject reads a JSON object into a struct. Null leaves a field at its
// zero value and unknown fields are ignored, as encoding/json does it.
func decodeObject[T any](body []byte) (v T, err error) {
	s := scanner{data: body}
	if s.peek() != '{' {
		return v, muster.Errorf(muster.Invalid, "the body must be a JSON object, got %s", s.came())
	}
	if err := json.Unmarshal(body, &v); err != nil {
		var zero T
		return zero, explain(err)
	}
	return v, nil
}

// explain turns an error of encoding/json into one for the client, without the
// values that it may quote.
func explain(err error) error {
	var wrong *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &wrong):
		came, _, _ := strings.Cut(wrong.Value, " ")                     // "number 1.5"
		field := strings.ReplaceAll(wrong.Field, "UsageComponent.", "") // embedded: not on the wire
		return muster.Errorf(muster.Invalid, "field %s: expected %s, got %s", field, jsonType(wrong.Type), article(came))
	case errors.As(err, &syntax):
		return muster.Errorf(muster.Invalid, "malformed JSON at byte %d: %s", syntax.Offset, syntax.Error())
	}
	return muster.Errorf(muster.Invalid, "malformed JSON")
}

func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "a boolean"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map, reflect.Pointer:
		return "an object"
	case reflect.Float32, reflect.Float64:
		return "a number"
	default:
		return "a whole number"
	}
}

func article(jsonType string) string {
	switch jsonType {
	case "object", "array":
		return "an " + jsonType
	case "bool":
		return "a boolean"
	}
	return "a " + jsonType
}
