package system

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// answer is a response that has passed the rules that hold for every client.
type answer struct {
	code   int
	header http.Header
	body   []byte // decompressed
	what   string // for messages
}

// readAnswer reads a response and checks what every client relies on
// (protocol.md 1.2, 1.3): no redirect, a length, JSON, and gzip only for who
// asked for it, in one member.
func readAnswer(t *testing.T, req *http.Request, resp *http.Response) answer {
	t.Helper()
	a := answer{code: resp.StatusCode, header: resp.Header, what: req.Method + " " + req.URL.RequestURI()}
	raw, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatalf("%s: reading the answer: %v", a.what, err)
	}
	if a.code/100 == 3 && a.code != http.StatusNotModified || a.header.Get("Location") != "" {
		t.Fatalf("%s: answered %d, Location %q: engines turn a redirected POST into a GET and lose its body", a.what, a.code, a.header.Get("Location"))
	}
	if len(resp.TransferEncoding) > 0 {
		t.Errorf("%s: the answer is sent as %v: expected a Content-Length", a.what, resp.TransferEncoding)
	}
	if len(raw) > 0 && a.header.Get("Content-Length") != strconv.Itoa(len(raw)) {
		t.Errorf("%s: Content-Length %q for %d bytes", a.what, a.header.Get("Content-Length"), len(raw))
	}
	switch enc := a.header.Get("Content-Encoding"); {
	case enc == "" || req.Method == http.MethodHead:
		a.body = raw
	case enc == "gzip":
		if !strings.Contains(req.Header.Get("Accept-Encoding"), "gzip") {
			t.Fatalf("%s: gzip for a client that accepts %q", a.what, req.Header.Get("Accept-Encoding"))
		}
		a.body = oneMember(t, a.what, raw)
	default:
		t.Fatalf("%s: Content-Encoding %q", a.what, enc)
	}
	if len(a.body) > 0 {
		if ct := a.header.Get("Content-Type"); ct != "application/json" {
			t.Errorf("%s: Content-Type %q", a.what, ct)
		}
		if !json.Valid(a.body) {
			t.Fatalf("%s: the answer is no JSON: %.200q", a.what, a.body)
		}
	}
	if a.code >= 400 && req.Method != http.MethodHead {
		a.problem(t)
	}
	return a
}

// oneMember decompresses gzip that must consist of one member and nothing else:
// curl and httpx fail on more.
func oneMember(t *testing.T, what string, raw []byte) []byte {
	t.Helper()
	in := bytes.NewReader(raw)
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	z.Multistream(false)
	body, err := io.ReadAll(z)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if in.Len() > 0 {
		t.Errorf("%s: %d bytes follow the first gzip member", what, in.Len())
	}
	return body
}

// status checks the status and hands the answer on.
func (a answer) status(t *testing.T, want int) answer {
	t.Helper()
	if a.code != want {
		t.Fatalf("%s: expected %d, got %d %s", a.what, want, a.code, a.body)
	}
	return a
}

// object returns the answer as a JSON object: PHP takes nothing else but arrays.
func (a answer) object(t *testing.T) map[string]any {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal(a.body, &o); err != nil || o == nil {
		t.Fatalf("%s: expected a JSON object, got %s", a.what, a.body)
	}
	return o
}

// problem checks that an error is an object that says something: engine 1.4.6
// dereferences message unchecked, and PAPI's field is error.
func (a answer) problem(t *testing.T) string {
	t.Helper()
	o := a.object(t)
	field := "message"
	if strings.Contains(a.what, " /v1/") {
		field = "error"
	}
	text, ok := o[field].(string)
	if !ok || text == "" {
		t.Fatalf("%s: error %d without %s: %s", a.what, a.code, field, a.body)
	}
	return text
}

func (a answer) message(t *testing.T) string {
	t.Helper()
	text, ok := a.object(t)["message"].(string)
	if !ok {
		t.Fatalf("%s: no message in %s", a.what, a.body)
	}
	return text
}

// number returns a member that is a number, 0 when absent.
func (a answer) number(t *testing.T, member string) int {
	t.Helper()
	n, _ := a.object(t)[member].(float64)
	return int(n)
}

// ok checks the success body of calls that have nothing to tell. Engines log a
// warning for /signals and /decisions/delete on any status but 200.
func (a answer) ok(t *testing.T) {
	t.Helper()
	if a.status(t, 200).message(t) != "OK" || len(a.object(t)) != 1 {
		t.Fatalf(`%s: expected {"message":"OK"}, got %s`, a.what, a.body)
	}
}

// token is what readers of a token find in it.
type token struct {
	text         string
	claims       map[string]any
	organisation any  // organization_id
	enrolled     bool // organization_id is there, whatever it is
	plan         string
}

// checkLogin checks the answer to a login as the strictest reader of each field
// does: engines for expire and the token's form, the Python SDK for exp.
func checkLogin(t *testing.T, a answer) token {
	t.Helper()
	a.status(t, 200)
	var in struct {
		Code   int     `json:"code"`
		Expire *string `json:"expire"`
		Token  *string `json:"token"`
	}
	if err := json.Unmarshal(a.body, &in); err != nil || in.Expire == nil || in.Token == nil {
		t.Fatalf("%s: login answered %s: %v", a.what, a.body, err)
	}
	expire, err := time.Parse(time.RFC3339, *in.Expire)
	if err != nil {
		t.Fatalf("expire: engines cannot start: %v", err)
	}
	tok := parseToken(t, *in.Token)
	exp, ok := tok.claims["exp"].(json.Number)
	if !ok {
		t.Fatalf("exp is %v: expected a number", tok.claims["exp"])
	}
	seconds, err := exp.Int64()
	if err != nil || seconds != expire.Unix() {
		t.Errorf("exp %s and expire %s differ", exp, *in.Expire)
	}
	if left := time.Until(expire); left < 2*time.Minute {
		t.Errorf("the token ends in %s: engines renew a minute before", left)
	}
	return tok
}

// parseToken reads a token as golang-jwt v4 does without verifying: three parts
// of unpadded base64url, a header with a known alg, claims that are an object.
func parseToken(t *testing.T, text string) token {
	t.Helper()
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		t.Fatalf("the token has %d parts", len(parts))
	}
	decode := func(part string, v any) {
		raw, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			t.Fatalf("the token is no base64url: %v", err)
		}
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(v); err != nil {
			t.Fatalf("the token holds %q: %v", raw, err)
		}
	}
	var header struct{ Alg, Typ string }
	decode(parts[0], &header)
	if header.Alg != "EdDSA" || header.Typ != "JWT" {
		t.Errorf("the token's header is %+v", header)
	}
	tok := token{text: text}
	decode(parts[1], &tok.claims)
	if sig, err := base64.RawURLEncoding.DecodeString(parts[2]); err != nil || len(sig) != 64 {
		t.Errorf("the signature has %d bytes: %v", len(sig), err)
	}
	tok.organisation, tok.enrolled = tok.claims["organization_id"]
	if plan, ok := tok.claims["subscription_type"]; ok {
		if tok.plan, ok = plan.(string); !ok {
			t.Errorf("subscription_type is %v: expected a string", plan)
		}
	}
	return tok
}

// entry is one decision of a blocklist.
type entry struct {
	scenario, scope string
	duration        time.Duration
}

// blocklist is what a client made of a pull.
type blocklist struct {
	new        map[string]entry
	deleted    map[string]string // value to scope
	blocklists int               // links
	allowlists int
}

// lacks says which of values are missing, "" when none is.
func (b blocklist) lacks(values ...string) string {
	for _, v := range values {
		if _, ok := b.new[v]; !ok {
			return v + " is not on the list"
		}
	}
	return ""
}

// has says which of values are there, "" when none is.
func (b blocklist) has(values ...string) string {
	for _, v := range values {
		if _, ok := b.new[v]; ok {
			return v + " is on the list"
		}
	}
	return ""
}

// checkStream decodes a pull and stops at whatever crashes an engine or makes
// it reject the list (protocol.md 3.3).
func checkStream(t *testing.T, version string, a answer) blocklist {
	t.Helper()
	a.status(t, 200)
	b := blocklist{new: map[string]entry{}, deleted: map[string]string{}}
	var err error
	if version == "/v2" {
		err = b.decodeV2(a.body)
	} else {
		err = b.decodeV3(a.body)
	}
	if err != nil {
		t.Fatalf("%s: an engine chokes on this list: %v\n%.2000s", a.what, err, a.body)
	}
	return b
}

func (b *blocklist) decodeV3(body []byte) error {
	var in struct {
		New *[]*struct {
			Scenario, Scope *string
			Decisions       []*struct{ Value, Duration *string }
		}
		Deleted *[]*struct {
			Scope     *string
			Decisions []*string
		}
		Links *struct {
			Blocklists, Allowlists *[]json.RawMessage
		}
	}
	if err := strict(body, &in); err != nil {
		return err
	}
	if in.New == nil || in.Deleted == nil || in.Links == nil || in.Links.Blocklists == nil || in.Links.Allowlists == nil {
		return errors.New("new, deleted, links.blocklists or links.allowlists is missing or null")
	}
	for _, g := range *in.New {
		if g == nil || blank(g.Scenario) || blank(g.Scope) || len(g.Decisions) == 0 {
			return errors.New("a group of new without scenario, scope or decisions")
		}
		for _, d := range g.Decisions {
			if d == nil || d.Value == nil || d.Duration == nil {
				return errors.New("a decision without value or duration")
			}
			if err := b.add(*d.Value, entry{*g.Scenario, *g.Scope, 0}, *d.Duration); err != nil {
				return err
			}
		}
	}
	for _, g := range *in.Deleted {
		if g == nil || blank(g.Scope) || len(g.Decisions) == 0 {
			return errors.New("a group of deleted without scope or decisions")
		}
		for _, v := range g.Decisions {
			if v == nil {
				return errors.New("a null in deleted")
			}
			b.deleted[*v] = *g.Scope
		}
	}
	b.blocklists, b.allowlists = len(*in.Links.Blocklists), len(*in.Links.Allowlists)
	return nil
}

func (b *blocklist) decodeV2(body []byte) error {
	type flat struct{ Origin, Scenario, Scope, Type, Value, Duration *string }
	var in struct{ New, Deleted *[]*flat }
	if err := strict(body, &in); err != nil {
		return err
	}
	if in.New == nil || in.Deleted == nil {
		return errors.New("new or deleted is missing or null")
	}
	check := func(d *flat) error {
		if d == nil || blank(d.Origin) || blank(d.Scenario) || blank(d.Scope) || blank(d.Type) || blank(d.Value) || blank(d.Duration) {
			return errors.New("a decision without one of its six fields")
		}
		if *d.Origin != "CAPI" || *d.Type != "ban" {
			return fmt.Errorf("origin %q, type %q", *d.Origin, *d.Type)
		}
		return nil
	}
	for _, d := range *in.New {
		if err := check(d); err != nil {
			return err
		}
		if err := b.add(*d.Value, entry{*d.Scenario, *d.Scope, 0}, *d.Duration); err != nil {
			return err
		}
	}
	for _, d := range *in.Deleted {
		if err := check(d); err != nil {
			return err
		}
		b.deleted[*d.Value] = *d.Scope
	}
	return nil
}

// add takes one decision of new.
func (b *blocklist) add(value string, e entry, duration string) (err error) {
	if e.duration, err = time.ParseDuration(duration); err != nil || e.duration <= 0 {
		return fmt.Errorf("duration %q of %s: %w", duration, value, err)
	}
	switch e.scope {
	case "ip":
		var addr netip.Addr
		if addr, err = netip.ParseAddr(value); err == nil && addr.String() != value {
			err = errors.New("not in canonical form")
		}
	case "range":
		var p netip.Prefix
		if p, err = netip.ParsePrefix(value); err == nil && p.Masked().String() != value {
			err = errors.New("not in canonical form")
		}
	case "Muster":
		// What keeps a short list from being emptied by an engine's allowlists, which
		// would kill it; it concerns nobody.
		if value == "companion" {
			return nil
		}
		fallthrough
	default:
		err = fmt.Errorf("scope %q", e.scope)
	}
	if err != nil {
		return fmt.Errorf("value %q: %w", value, err)
	}
	if _, twice := b.new[value]; twice {
		return fmt.Errorf("%s stands twice", value)
	}
	b.new[value] = e
	return nil
}

// strict decodes a document with these members and no others.
func strict(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

func blank(s *string) bool { return s == nil || strings.TrimSpace(*s) == "" }

// event is an order as an engine reads it.
type event struct {
	id        string
	timestamp int64
	kind      string // type/cmd
	message   string
	data      map[string]any
}

// checkPoll reads the answer to a poll as an engine does (protocol.md 7.1, 7.2):
// no events means the normal timeout.
func checkPoll(t *testing.T, a answer) []event {
	t.Helper()
	a.status(t, 200)
	var in struct {
		Events []struct {
			ID, Category, Data *string
			Timestamp          *int64
		}
		Error     string
		Timestamp int64
	}
	if err := strict(a.body, &in); err != nil {
		t.Fatalf("%s: an engine polls for this for ever: %v\n%s", a.what, err, a.body)
	}
	if len(in.Events) == 0 {
		if in.Error != "no events before timeout" {
			t.Fatalf("%s: neither events nor the timeout's words: %s", a.what, a.body)
		}
		return nil
	}
	if in.Error != "" || in.Timestamp != 0 {
		t.Errorf("%s: error %q and timestamp %d beside events: they override those", a.what, in.Error, in.Timestamp)
	}
	var out []event
	for _, e := range in.Events {
		if e.ID == nil || uuid.Validate(*e.ID) != nil || len(*e.ID) != 36 || e.Timestamp == nil || *e.Timestamp <= 0 || e.Category == nil || e.Data == nil {
			t.Fatalf("%s: a poison event: %s", a.what, a.body)
		}
		var envelope struct {
			Header *struct {
				OperationType string  `json:"operation_type"`
				OperationCmd  string  `json:"operation_cmd"`
				Timestamp     *string `json:"timestamp"`
				Message       string  `json:"message"`
				UUID          string  `json:"uuid"`
				Source        *struct{ User string }
			}
			Data json.RawMessage
		}
		if err := strict([]byte(*e.Data), &envelope); err != nil || envelope.Header == nil || envelope.Header.Source == nil || envelope.Header.Timestamp == nil {
			t.Fatalf("%s: the data of an event is %s: %v", a.what, *e.Data, err)
		}
		h := envelope.Header
		if _, err := time.Parse(time.RFC3339, *h.Timestamp); err != nil {
			t.Errorf("%s: header.timestamp: %v", a.what, err)
		}
		if *e.Category != h.OperationType {
			t.Errorf("%s: category %q of a %q", a.what, *e.Category, h.OperationType)
		}
		ev := event{id: *e.ID, timestamp: *e.Timestamp, kind: h.OperationType + "/" + h.OperationCmd, message: h.Message}
		if err := json.Unmarshal(envelope.Data, &ev.data); err != nil {
			t.Errorf("%s: data %s: %v", a.what, envelope.Data, err)
		}
		if ev.kind == "alert/add" {
			checkAlert(t, ev)
		}
		out = append(out, ev)
	}
	return out
}

// checkAlert checks what crashes an engine when it is missing.
func checkAlert(t *testing.T, ev event) {
	t.Helper()
	if id, _ := ev.data["uuid"].(string); id == "" || ev.data["created_at"] == nil || ev.message == "" {
		t.Errorf("alert without uuid, created_at or message: %v", ev.data)
	}
	decisions, _ := ev.data["decisions"].([]any)
	if len(decisions) == 0 {
		t.Errorf("alert without decisions: %v", ev.data)
	}
	for _, d := range decisions {
		d, _ := d.(map[string]any)
		for _, field := range []string{"uuid", "origin", "scenario", "scope", "type", "value", "duration"} {
			if text, _ := d[field].(string); text == "" {
				t.Errorf("decision without %s: %v", field, d)
			}
		}
		if scope := d["scope"]; !slices.Contains([]any{"Ip", "Range"}, scope) {
			t.Errorf("scope %v: bouncers look for Ip and Range, spelled so", scope)
		}
		if _, err := time.ParseDuration(fmt.Sprint(d["duration"])); err != nil {
			t.Errorf("decision: %v", err)
		}
	}
}
