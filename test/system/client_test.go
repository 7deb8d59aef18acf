package system

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// kind is how a kind of client speaks (protocol.md 1.1).
type kind struct {
	name, agent    string
	version        string // path of its API
	scheme         string // before the token
	anonymous      string // Authorization at login, where a header is sent at all
	acceptEncoding string
	headers        map[string]string // on every request
	bodyType       bool              // Content-Type only with a body
	slash          string            // after /metrics
	gzipOver       int               // bodies longer than this are sent as gzip; 0 = never
	close          bool              // Connection: close
}

var (
	engine178 = kind{
		name: "engine 1.7.8", agent: "crowdsec/v1.7.8-linux", version: "/v3", scheme: "Bearer ", anonymous: "Bearer ",
		acceptEncoding: "gzip", bodyType: true, slash: "/", gzipOver: 5120,
	}
	engine146 = kind{
		name: "engine 1.4.6", agent: "crowdsec/v1.4.6-6~deb12u1+b1-linux-debian", version: "/v2", scheme: "Bearer ",
		acceptEncoding: "gzip", bodyType: true, slash: "/",
	}
	phpCurl = kind{
		name: "PHP with curl", agent: "csphpcapi_Test/v3.5.2", version: "/v3", scheme: "Bearer ",
		acceptEncoding: "deflate, gzip, br, zstd",
		headers:        map[string]string{"Accept": "application/json", "Content-Type": "application/json"},
	}
	phpStreams = kind{
		name: "PHP with file_get_contents", agent: "csphpcapi_Test/v3.5.2", version: "/v3", scheme: "Bearer ",
		headers: map[string]string{"Accept": "application/json", "Content-Type": "application/json"}, close: true,
	}
	python = kind{
		name: "Python SDK", agent: "example-capi-py-sdk/0.8.0", version: "/v3",
		acceptEncoding: "gzip, deflate", bodyType: true, headers: map[string]string{"Accept": "*/*"},
	}
	kinds = []kind{engine178, engine146, phpCurl, phpStreams, python}
)

// client is one machine as a client of its kind.
type client struct {
	kind
	s            *server
	id, password string
	token        string
	org          string // set by member
}

// client makes credentials as the kind does; nothing is registered yet.
func (s *server) client(k kind) *client {
	id := strings.ToLower(rand.Text() + rand.Text())[:48]
	if k.name == python.name {
		id = "abc" + id // a prefix makes it longer than 48
	}
	return &client{kind: k, s: s, id: id, password: rand.Text() + "-_" + rand.Text()}
}

// registered makes a client that is registered and logged in: a pending machine.
func (s *server) registered(t *testing.T, k kind) *client {
	t.Helper()
	c := s.client(k)
	c.register(t).status(t, 200)
	c.login(t)
	return c
}

// member makes a client whose machine is active in an organisation, with a
// token that says so.
func (s *server) member(t *testing.T, k kind, organisation string) *client {
	t.Helper()
	c := s.registered(t, k)
	c.enrol(t, s.key(t, organisation, true)).status(t, 201)
	c.login(t)
	c.org = organisation
	return c
}

// send makes a request as the kind does and reads the answer. A nil body sends
// none; the token goes along when withToken says so.
func (c *client) send(t *testing.T, method, path string, body []byte, withToken bool) answer {
	t.Helper()
	req := c.request(t, method, path, body, withToken)
	return c.do(t, req)
}

func (c *client) do(t *testing.T, req *http.Request) answer {
	t.Helper()
	resp, err := c.s.http.Do(req)
	if err != nil {
		t.Fatalf("%s as %s: %v", req.URL.Path, c.name, err)
	}
	return readAnswer(t, req, resp)
}

func (c *client) request(t *testing.T, method, path string, body []byte, withToken bool) *http.Request {
	t.Helper()
	gz := c.gzipOver > 0 && len(body) > c.gzipOver
	if gz {
		body = zip(body)
	}
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, c.s.url+path, r)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range c.headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("User-Agent", c.agent)
	if body != nil && c.bodyType {
		req.Header.Set("Content-Type", "application/json")
	}
	if gz {
		req.Header.Set("Content-Encoding", "gzip")
	}
	if c.acceptEncoding != "" {
		req.Header.Set("Accept-Encoding", c.acceptEncoding)
	}
	if withToken {
		req.Header.Set("Authorization", c.scheme+c.token)
	} else if c.anonymous != "" {
		req.Header.Set("Authorization", c.anonymous)
	}
	req.Close = c.close
	return req
}

// post sends v as JSON, with the token.
func (c *client) post(t *testing.T, path string, v any) answer {
	t.Helper()
	return c.send(t, "POST", c.version+path, toJSON(t, v), true)
}

func (c *client) get(t *testing.T, path string) answer {
	t.Helper()
	return c.send(t, "GET", path, nil, true)
}

func (c *client) register(t *testing.T) answer {
	t.Helper()
	return c.send(t, "POST", c.version+"/watchers", toJSON(t, map[string]string{"machine_id": c.id, "password": c.password}), false)
}

// tryLogin sends a login with these scenarios; no scenarios are sent as [].
func (c *client) tryLogin(t *testing.T, scenarios ...string) answer {
	t.Helper()
	if scenarios == nil {
		scenarios = []string{}
	}
	return c.send(t, "POST", c.version+"/watchers/login", toJSON(t, map[string]any{
		"machine_id": c.id, "password": c.password, "scenarios": scenarios,
	}), false)
}

// login logs in and keeps the token.
func (c *client) login(t *testing.T, scenarios ...string) {
	t.Helper()
	a := c.tryLogin(t, scenarios...)
	c.token = checkLogin(t, a).text
}

func (c *client) enrol(t *testing.T, key string) answer {
	t.Helper()
	return c.post(t, "/watchers/enroll", map[string]any{"attachment_key": key, "name": "host-" + c.id[:6], "tags": []string{}, "overwrite": false})
}

// push sends signals, which must all be taken.
func (c *client) push(t *testing.T, signals ...signal) {
	t.Helper()
	a := c.post(t, "/signals", signals)
	a.status(t, 200)
	if m := a.message(t); m != "OK" || a.number(t, "refused") != 0 {
		t.Fatalf("signals were refused: %s", a.body)
	}
}

// pull fetches the blocklist; query is like "?startup=true".
func (c *client) pull(t *testing.T, query string) blocklist {
	t.Helper()
	a := c.get(t, c.version+"/decisions/stream"+query)
	return checkStream(t, c.version, a)
}

// poll asks for orders since a time in milliseconds and waits timeout seconds.
func (c *client) poll(t *testing.T, since int64, timeout int) []event {
	t.Helper()
	return checkPoll(t, c.get(t, fmt.Sprintf("/v1/decisions/stream/poll?since_time=%d&timeout=%d", since, timeout)))
}

// firstContact is the since_time of an engine that has never polled: the year 1.
const firstContact = -62135596800000

// signal is one item of POST /signals.
type signal map[string]any

// attack is a report as engine 1.7.8 sends it for an unmodified hub scenario,
// with its ban.
func attack(source string) signal {
	now := time.Now().UTC()
	scope := "Ip"
	if strings.Contains(source, "/") {
		scope = "Range"
	}
	return signal{
		"uuid": newUUID(), "scenario": "crowdsecurity/ssh-bf", "scenario_version": "0.3", "scenario_trust": "certified",
		"scenario_hash": "242f36684d66bbae3044e576b7cfffef62d5323465f3f74f87923167c6d93356", "kind": "crowdsec",
		"machine_id": "3d1219c7c4c5404aaa1f6d2a48adfda40HFJYEfp4dfsxc6D",
		"message":    "Ip " + source + " performed 'crowdsecurity/ssh-bf' (6 events over 9.4ms)",
		"start_at":   now.Add(-time.Second).Format(time.RFC3339Nano), "stop_at": now.Format(time.RFC3339Nano),
		"source":  map[string]any{"scope": scope, "value": source, "ip": source},
		"context": []any{map[string]string{"key": "target_user", "value": `["root"]`}},
		"decisions": []any{map[string]any{
			"uuid": newUUID(), "id": 0, "origin": "crowdsec", "scenario": "crowdsecurity/ssh-bf",
			"scope": scope, "value": source, "type": "ban", "duration": "4h",
		}},
	}
}

// with returns a copy with one field changed; a nil value removes it.
func (s signal) with(field string, value any) signal {
	out := signal{}
	for k, v := range s {
		out[k] = v
	}
	if out[field] = value; value == nil {
		delete(out, field)
	}
	return out
}

// v2 leaves out what engine 1.4.6 does not know.
func (s signal) v2() signal {
	return s.with("uuid", nil).with("kind", nil).with("context", nil).with("decisions", nil)
}

// decision returns the uuid of the first decision.
func (s signal) decision() string {
	return s["decisions"].([]any)[0].(map[string]any)["uuid"].(string)
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func toJSON(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// zip compresses as one gzip member.
func zip(body []byte) []byte {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if _, err := z.Write(body); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return buf.Bytes()
}
