package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
)

func TestDecodeSignalsOfRealShape(t *testing.T) {
	for _, name := range []string{"engine17", "engine14", "php", "python", "import"} {
		t.Run(name, func(t *testing.T) {
			got := decodeBatch(t, fixture(t, "signals-"+name+".json"))
			golden(t, "signals-"+name+".golden.json", mustJSON(t, got))
		})
	}
}

func TestDecodeSignalsTolerates(t *testing.T) {
	now := time.Date(2026, 11, 19, 8, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name, body string
		want       Signal
	}{
		{"an empty object", `[{}]`, Signal{}},
		{"nulls everywhere", `[{"uuid":null,"scenario":null,"scenario_hash":null,"scenario_version":null,
			"scenario_trust":null,"kind":null,"message":null,"machine_id":null,"created_at":null,"start_at":null,
			"stop_at":null,"source":null,"context":null,"decisions":null}]`, Signal{}},
		{"nulls inside", `[{"source":{"scope":null,"value":null,"ip":null,"range":null,"cn":null,"as_name":null,
			"as_number":null},"decisions":[null],"context":[]}]`, Signal{}},
		{"unknown fields", `[{"sent":false,"alert_id":1,"labels":{"a":[1,2.5e-3,{"b":null}]},"uuid":"u"}]`, Signal{UUID: "u"}},
		{
			"the last of duplicate keys", `[{"uuid":"a","source":{"scope":"ip","value":"x"},"uuid":"b","source":{"value":"y"}}]`,
			Signal{UUID: "b", Source: SignalSource{Value: "y"}},
		},
		{"a null after a value", `[{"uuid":"a","uuid":null}]`, Signal{}},
		{
			"decisions given twice", `[{"decisions":[{"type":"ban"}],"decisions":[{"type":"captcha"}]}]`,
			Signal{Decisions: []byte(`[{"type":"captcha"}]`), DecisionCount: 1, First: []Decision{{Type: "captcha"}}},
		},
		{"escaped keys", `[{"\u0075uid":"u"}]`, Signal{UUID: "u"}},
		{
			"escapes", `[{"message":"a\"b\\c\/d\b\f\n\r\t\u0041\u00e9\ud83d\ude00\ud83d\ud83dx"}]`,
			Signal{Message: "a\"b\\c/d\b\f\n\r\tAé😀\uFFFD\uFFFDx"},
		},
		{
			"bytes that are no UTF-8", "[{\"message\":\"a\xffb\xc3\",\"context\":[\"\xfe\"]}]",
			Signal{Message: "a\uFFFDb\uFFFD", Context: []byte("[\"\uFFFD\"]")},
		},
		{"AS numbers as number", `[{"source":{"as_number":64500}}]`, Signal{Source: SignalSource{ASNumber: 64500}}},
		{"AS numbers as AS", `[{"source":{"as_number":"AS64500"}}]`, Signal{Source: SignalSource{ASNumber: 64500}}},
		{
			"AS numbers that are none", `[{"source":{"as_number":"4294967296"}},{"source":{"as_number":-1}},{"source":{"as_number":"x"}},{"source":{"as_number":1.5}}]`,
			Signal{},
		},
		{"unreadable times", `[{"created_at":"soon","start_at":"","stop_at":"2026-11-19T08:00:00+0000"}]`, Signal{StopAt: now}},
		{"white space", " [ {\t\"uuid\" :\r\n\"u\" , \"decisions\" : [ ] } ]\n", Signal{UUID: "u"}},
		{
			"a simulated ban", `[{"decisions":[{"type":"ban","simulated":true},{"type":"captcha"}]}]`,
			Signal{
				Decisions: []byte(`[{"type":"ban","simulated":true},{"type":"captcha"}]`), DecisionCount: 2,
				First: []Decision{{Type: "ban", Simulated: true}, {Type: "captcha"}},
			},
		},
		{
			"a ban", `[{"decisions":[{"type":"captcha"},{"type":"Ban","simulated":null}]}]`,
			Signal{
				Decisions: []byte(`[{"type":"captcha"},{"type":"Ban","simulated":null}]`), DecisionCount: 2, Ban: true,
				First: []Decision{{Type: "captcha"}, {Type: "Ban"}},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seen := 0
			_, err := DecodeSignals([]byte(tt.body), 10, func(_ int, s *Signal) {
				seen++
				if diff := cmp.Diff(tt.want, *s); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}, func(i int, p Problem) { t.Errorf("item %d: %v", i, p) })
			if err != nil || seen == 0 {
				t.Errorf("err %v after %d items", err, seen)
			}
		})
	}
}

func TestDecodeSignalsKeepsGoodItemsBesideBadOnes(t *testing.T) {
	got := decodeBatch(t, []byte(`[7,{"uuid":"good1"},{"uuid":5},"x",null,[],true,
		{"source":"192.0.2.1"},{"source":{"value":1}},{"source":{"as_number":[]}},
		{"decisions":{}},{"decisions":["x"]},{"decisions":[{"simulated":"no"}]},{"decisions":[{"duration":3600}]},
		{"context":"x"},{"start_at":1795110701},{"uuid":"good2"}]`))
	want := map[int]Problem{
		0:  {NotObject, "expected an object, got a number"},
		2:  {WrongType, "field uuid: expected a string, got a number"},
		3:  {NotObject, "expected an object, got a string"},
		4:  {NotObject, "expected an object, got null"},
		5:  {NotObject, "expected an object, got an array"},
		6:  {NotObject, "expected an object, got a boolean"},
		7:  {WrongType, "field source: expected an object, got a string"},
		8:  {WrongType, "field source.value: expected a string, got a number"},
		9:  {WrongType, "field source.as_number: expected a string, got an array"},
		10: {WrongType, "field decisions: expected an array, got an object"},
		11: {WrongType, "field decisions[]: expected an object, got a string"},
		12: {WrongType, "field decisions[].simulated: expected a boolean, got a string"},
		13: {WrongType, "field decisions[].duration: expected a string, got a number"},
		14: {WrongType, "field context: expected an array, got a string"},
		15: {WrongType, "field start_at: expected a string, got a number"},
	}
	if diff := cmp.Diff(want, got.Bad); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	if len(got.Items) != 2 || got.Items[0].UUID != "good1" || got.Items[1].UUID != "good2" {
		t.Errorf("expected good1 and good2, got %+v", got.Items)
	}
}

func TestDecodeSignalsRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, body, want string
		code             muster.Code
	}{
		{"nothing", ``, "the body must be a JSON array, got nothing", muster.Invalid},
		{"null", `null`, "the body must be a JSON array, got null", muster.Invalid},
		{"an object", `{"uuid":"u"}`, "the body must be a JSON array, got an object", muster.Invalid},
		{"text", `hello`, "the body must be a JSON array, got no JSON", muster.Invalid},
		{"an open array", `[`, "expected a value, got the end of the document at byte 1", muster.Invalid},
		{"an open string", `[{"uuid":"abc`, "expected the closing quote of a string, got the end", muster.Invalid},
		{"a missing comma", `[{} {}]`, "at byte 4: expected ',' or ']', got '{'", muster.Invalid},
		{"a trailing comma", `[{},]`, "at byte 4: expected a value after ',', got ']'", muster.Invalid},
		{"a leading comma", `[,{}]`, "at byte 1: expected a value, got ','", muster.Invalid},
		{"a bare key", `[{uuid:1}]`, "at byte 2: expected a member name in quotes, got 'u'", muster.Invalid},
		{"a missing colon", `[{"uuid" 1}]`, "expected ':'", muster.Invalid},
		{"a bad escape", `[{"uuid":"\x"}]`, "expected an escape character", muster.Invalid},
		{"a short \\u", `[{"uuid":"\u12"}]`, "expected a hexadecimal digit", muster.Invalid},
		{"a control character", "[{\"uuid\":\"a\nb\"}]", "expected no control character in a string", muster.Invalid},
		{"a number with a leading zero", `[{"id":01}]`, "expected ',' or '}', got '1'", muster.Invalid},
		{"a number that ends in a point", `[{"id":1.}]`, "expected a digit", muster.Invalid},
		{"a lone minus", `[{"id":-}]`, "expected a digit", muster.Invalid},
		{"a misspelt literal", `[{"id":nul}]`, "expected null", muster.Invalid},
		{"more after the array", `[] []`, "at byte 3: expected the end of the document, got '['", muster.Invalid},
		{"a NUL after the array", "[]\x00", "expected the end of the document", muster.Invalid},
		{"malformed unknown fields", `[{"labels":{"a":}}]`, "expected a value, got '}'", muster.Invalid},
		{"too many items", `[{},{},{},{}]`, "more than 3 items", muster.TooLarge},
		{"deep nesting", `[{"labels":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `}]`, "nested deeper than 64 levels", muster.Invalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := DecodeSignals([]byte(tt.body), 3, func(int, *Signal) {}, func(int, Problem) {})
			if !errors.Is(err, tt.code) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("expected %s with %q, got %v", tt.code, tt.want, err)
			}
		})
	}
}

func TestDecodeSignalsTakesTheDepthAllowed(t *testing.T) {
	body := `[{"labels":` + strings.Repeat("[", 62) + strings.Repeat("]", 62) + `}]`
	if got := decodeBatch(t, []byte(body)); len(got.Items) != 1 {
		t.Errorf("expected one item, got %d", len(got.Items))
	}
}

func TestDecodeSignalsCountsDecisionsBeyondThoseItKeeps(t *testing.T) {
	var items []string
	for i := range 3000 {
		typ := "captcha"
		if i == 2999 {
			typ = "ban"
		}
		items = append(items, fmt.Sprintf(`{"uuid":"u%d","type":%q}`, i, typ))
	}
	raw := "[" + strings.Join(items, ",") + "]"
	got := decodeBatch(t, []byte(`[{"decisions":`+raw+`}]`)).Items[0]
	if got.DecisionCount != 3000 || !got.Ban || string(got.Decisions) != raw {
		t.Errorf("count %d, ban %t, raw equal %t", got.DecisionCount, got.Ban, string(got.Decisions) == raw)
	}
	if len(got.First) != MaxDecisions || got.First[MaxDecisions-1].UUID != "u15" {
		t.Errorf("expected the first %d, got %d ending in %+v", MaxDecisions, len(got.First), got.First[len(got.First)-1])
	}
}

// Rewritten strings live in chunks; a later one must not overwrite an earlier.
func TestDecodeSignalsRewrittenStringsStayApart(t *testing.T) {
	var body []byte
	want := []string{}
	for i := range 500 {
		text := fmt.Sprintf("%d/%s", i, strings.Repeat("é\n", i%60))
		want = append(want, text)
		item, _ := json.Marshal(map[string]string{"message": text})
		body = append(append(body, ','), item...)
	}
	body[0] = '['
	var got []string
	_, err := DecodeSignals(append(body, ']'), 1000, func(_ int, s *Signal) { got = append(got, s.Message) }, nil)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
