package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
)

const orderID = "01939d2c-6b7a-7c3e-9f10-3f2a5b6c7d8e"

func sampleAlert() AlertAdd {
	return AlertAdd{UUID: "37021169-1d2d-490b-8740-e86df89aa8e8", CreatedAt: at, Decisions: []AlertDecision{
		{
			UUID: "cae71587-68a2-4039-a075-6ed42d8f5cd2", Scenario: "blocked by jane", Type: "ban", Scope: "ip",
			Value: Value{Source: source("23.1.2.3")}, Duration: 4*time.Hour + time.Millisecond,
		},
		{
			UUID: "cae71587-68a2-4039-a075-6ed42d8f5cd3", Scenario: "blocked by jane", Type: "captcha", Scope: "RANGE",
			Value: Value{Text: "2a00:1::/32"}, Duration: 90 * time.Minute,
		},
		{
			UUID: "cae71587-68a2-4039-a075-6ed42d8f5cd4", Scenario: "blocked by jane", Type: "ban", Scope: "Country",
			Value: Value{Text: "XX"}, Duration: time.Hour,
		},
	}}
}

func TestEventsOfEveryKind(t *testing.T) {
	var events []Event
	for i, o := range []muster.Order{
		{Kind: muster.OrderDecisionDelete, Data: must(DecisionDeleteData([]string{"9424f01a-4ad4-4d93-a808-3236842a7bdf"}))},
		{Kind: muster.OrderAlertAdd, Data: must(AlertAddData(sampleAlert())), IssuedBy: `jane "j" doe`, Message: "blocked <by> jane\n"},
		{Kind: muster.OrderForcePull, Data: ForcePullData()},
		{Kind: muster.OrderForcePull},
		{Kind: muster.OrderReauth, Data: ReauthData()},
		{Kind: muster.OrderBlocklistUnsubscribe, Data: must(BlocklistUnsubscribeData("tor"))},
		{Kind: muster.OrderAllowlistUnsubscribe, Data: must(AllowlistUnsubscribeData("i", "office"))},
	} {
		o.ID, o.IssuedAt = orderID, at.Add(time.Duration(i)*time.Millisecond)
		e, err := EncodeEvent(o)
		if err != nil {
			t.Fatalf("%s: %v", o.Kind, err)
		}
		checkEnvelope(t, o, e)
		events = append(events, e)
	}
	golden(t, "papi-events.golden.json", AppendEvents(nil, events))
}

// checkEnvelope reads an event as an engine does.
func checkEnvelope(t *testing.T, o muster.Order, e Event) {
	t.Helper()
	var m struct {
		Header struct {
			Type      string                 `json:"operation_type"`
			Cmd       string                 `json:"operation_cmd"`
			Source    *struct{ User string } `json:"source"`
			Timestamp time.Time              `json:"timestamp"`
			Message   string                 `json:"message"`
		} `json:"header"`
		Data any `json:"data"`
	}
	if err := json.Unmarshal([]byte(e.Data), &m); err != nil {
		t.Fatalf("%s: %v\n%s", o.Kind, err, e.Data)
	}
	h := m.Header
	if h.Type+"/"+h.Cmd != string(o.Kind) || h.Source == nil || h.Source.User == "" || h.Timestamp.IsZero() ||
		(h.Type == "alert" && h.Message == "") || e.Timestamp <= 0 || e.Timestamp != o.IssuedAt.UnixMilli() {
		t.Errorf("%s: header %+v, event %+v", o.Kind, h, e)
	}
}

func TestAnAlertOrderAlwaysHasAMessage(t *testing.T) {
	o := muster.Order{ID: orderID, Kind: muster.OrderAlertAdd, Data: must(AlertAddData(sampleAlert())), IssuedAt: at}
	e, err := EncodeEvent(o)
	if err != nil || !strings.Contains(e.Data, `"message":"order by muster"`) {
		t.Errorf("%v, %s", err, e.Data)
	}
}

func TestEncodeEventRefuses(t *testing.T) {
	alert := func(change func(*alertData)) json.RawMessage {
		var d alertData
		if err := json.Unmarshal(must(AlertAddData(sampleAlert())), &d); err != nil {
			t.Fatal(err)
		}
		change(&d)
		return mustJSON(t, d)
	}
	decision := func(change func(*alertDecisionData)) json.RawMessage {
		return alert(func(d *alertData) { change(&d.Decisions[0]) })
	}
	good := muster.Order{ID: orderID, Kind: muster.OrderReauth, IssuedAt: at}
	for _, tt := range []struct {
		name  string
		order func(*muster.Order)
		want  string
	}{
		{"an id that is no UUID", func(o *muster.Order) { o.ID = "order-1" }, "is no UUID"},
		{"a UUID in braces", func(o *muster.Order) { o.ID = "{" + orderID + "}" }, "is no UUID"},
		{"a UUID with other dashes", func(o *muster.Order) { o.ID = strings.Replace(orderID, "-", "a", 1) }, "is no UUID"},
		{"no issue time", func(o *muster.Order) { o.IssuedAt = time.Time{} }, "no issue time"},
		{"an unknown kind", func(o *muster.Order) { o.Kind = "management/reboot" }, "unknown order kind"},
		{"data that is no JSON", func(o *muster.Order) { o.Data = []byte(`{"a":`) }, "malformed JSON"},
		{"deletion of nothing", data(muster.OrderDecisionDelete, `{"decisions":[]}`), "no decision uuids"},
		{"deletion without data", data(muster.OrderDecisionDelete, ``), "got null"},
		{"deletion of an empty uuid", data(muster.OrderDecisionDelete, `{"decisions":[""]}`), "is no UUID"},
		{"an alert without uuid", data(muster.OrderAlertAdd, alert(func(d *alertData) { d.UUID = "" })), "alert uuid"},
		{"an alert without decisions", data(muster.OrderAlertAdd, alert(func(d *alertData) { d.Decisions = nil })), "no decisions"},
		{"an alert without time", data(muster.OrderAlertAdd, alert(func(d *alertData) { d.StopAt = "" })), "alert time"},
		{"a decision without uuid", data(muster.OrderAlertAdd, decision(func(d *alertDecisionData) { d.UUID = "" })), "decision uuid"},
		{"a decision of another origin", data(muster.OrderAlertAdd, decision(func(d *alertDecisionData) { d.Origin = "cscli" })), "expected console"},
		{"a decision without scenario", data(muster.OrderAlertAdd, decision(func(d *alertDecisionData) { d.Scenario = "" })), "decision scenario is empty"},
		{"a decision without type", data(muster.OrderAlertAdd, decision(func(d *alertDecisionData) { d.Type = "" })), "decision type is empty"},
		{"a decision without scope", data(muster.OrderAlertAdd, decision(func(d *alertDecisionData) { d.Scope = "" })), "decision scope is empty"},
		{"a scope in small letters", data(muster.OrderAlertAdd, decision(func(d *alertDecisionData) { d.Scope = "ip" })), `engines only match "Ip"`},
		{"a decision without value", data(muster.OrderAlertAdd, decision(func(d *alertDecisionData) { d.Value = "" })), "decision value is empty"},
		{"a value that is no address", data(muster.OrderAlertAdd, decision(func(d *alertDecisionData) { d.Value = "x" })), "expected an IPv4 or IPv6 address"},
		{"a value with a space", data(muster.OrderAlertAdd, decision(func(d *alertDecisionData) { d.Value = " 23.1.2.3" })), "canonical"},
		{"a decision without duration", data(muster.OrderAlertAdd, decision(func(d *alertDecisionData) { d.Duration = "" })), "duration"},
		{"a duration in days", data(muster.OrderAlertAdd, decision(func(d *alertDecisionData) { d.Duration = "7d" })), "duration"},
		{"a null in a decision", data(muster.OrderAlertAdd, []byte(strings.Replace(string(alert(func(*alertData) {})), `"ban"`, `null`, 1))), "decision type is empty"},
		{"two lists to pull", data(muster.OrderForcePull, `{"blocklist":{},"allowlist":{}}`), "expected one list"},
		{"a blocklist without fields", data(muster.OrderForcePull, `{"blocklist":{"name":"n"}}`), "blocklist remediation is empty"},
		{"an allowlist without description", data(muster.OrderForcePull, `{"allowlist":{"id":"i","name":"n"}}`), "allowlist description is empty"},
		{"an allowlist without dates", data(muster.OrderForcePull, `{"allowlist":{"id":"i","name":"n","description":"d"}}`), "allowlist created_at is empty"},
		{"reauthentication with a list", data(muster.OrderReauth, `[]`), "got an array"},
		{"unsubscribing from nothing", data(muster.OrderBlocklistUnsubscribe, `{"name":""}`), "list name is empty"},
		{"unsubscribing without id", data(muster.OrderAllowlistUnsubscribe, `{"name":"n"}`), "allowlist id is empty"},
		{"unsubscribing without name", data(muster.OrderAllowlistUnsubscribe, `{"id":"n"}`), "list name is empty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := good
			tt.order(&o)
			e, err := EncodeEvent(o)
			if !errors.Is(err, muster.Invalid) || !strings.Contains(err.Error(), tt.want) || e != (Event{}) {
				t.Errorf("expected %q, got %v and %+v", tt.want, err, e)
			}
		})
	}
}

func data[T ~string | ~[]byte](kind muster.OrderKind, raw T) func(*muster.Order) {
	return func(o *muster.Order) { o.Kind, o.Data = kind, json.RawMessage(raw) }
}

func TestBuildersRefuse(t *testing.T) {
	list, allow := sampleStream().Links.Blocklists[0], sampleStream().Links.Allowlists[0]
	for name, build := range map[string]func() (json.RawMessage, error){
		"no uuids": func() (json.RawMessage, error) { return DecisionDeleteData(nil) },
		"no address": func() (json.RawMessage, error) {
			a := sampleAlert()
			a.Decisions[0].Value = Value{Text: "nowhere"}
			return AlertAddData(a)
		},
		"no creation time": func() (json.RawMessage, error) {
			a := sampleAlert()
			a.CreatedAt = time.Time{}
			return AlertAddData(a)
		},
		"a short duration": func() (json.RawMessage, error) {
			a := sampleAlert()
			a.Decisions[1].Duration = time.Second - 1
			return AlertAddData(a)
		},
		"a blocklist without URL":  func() (json.RawMessage, error) { l := list; l.URL = ""; return ForcePullBlocklistData(l) },
		"an allowlist without URL": func() (json.RawMessage, error) { l := allow; l.URL = "x"; return ForcePullAllowlistData(l) },
		"no list":                  func() (json.RawMessage, error) { return BlocklistUnsubscribeData(" ") },
		"no list id":               func() (json.RawMessage, error) { return AllowlistUnsubscribeData("", "n") },
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := build(); !errors.Is(err, muster.Invalid) || got != nil {
				t.Errorf("expected an error of code invalid, got %s, %v", got, err)
			}
		})
	}
}

func TestLinkErrorsDoNotQuoteTheURL(t *testing.T) {
	l := sampleStream().Links.Blocklists[0]
	l.URL = "gopher://h/?secret=1"
	if _, err := ForcePullBlocklistData(l); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

func TestAppendPollTimeoutIsReadAsATimeout(t *testing.T) {
	var got struct {
		Error  string
		Events []any
	}
	d := json.NewDecoder(bytes.NewReader(AppendPollTimeout(nil, at)))
	if err := d.Decode(&got); err != nil || got.Error != "no events before timeout" || got.Events != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestParsePoll(t *testing.T) {
	for query, want := range map[string]Poll{
		"since_time=-62135596800000&timeout=45": {Timeout: 45 * time.Second},
		"since_time=1795208807262&timeout=45":   {Since: time.UnixMilli(1795208807262).UTC(), Timeout: 45 * time.Second},
		"since_time=0&timeout=1":                {Timeout: time.Second, NewestFirst: true},
		"":                                      {Timeout: 45 * time.Second},
		"timeout=-5":                            {Timeout: time.Second},
		"timeout=9223372036854775807":           {Timeout: 120 * time.Second},
	} {
		q, _ := url.ParseQuery(query)
		got, err := ParsePoll(q)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", query, err, diff)
		}
	}
	for _, query := range []string{"since_time=x", "since_time=1.5", "timeout=45s", "since_time=99999999999999999999"} {
		q, _ := url.ParseQuery(query)
		if got, err := ParsePoll(q); !errors.Is(err, muster.Invalid) {
			t.Errorf("%s: expected an error of code invalid, got %+v, %v", query, got, err)
		}
	}
}
