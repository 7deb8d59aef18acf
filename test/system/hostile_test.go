package system

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster/internal/roles"
)

// victim is a server under attack, with a healthy machine on it.
type victim struct {
	*server
	healthy *client
	count   int // signals stored
}

func newVictim(t *testing.T, change func(*roles.Config)) *victim {
	t.Helper()
	s := start(t, change)
	return &victim{server: s, healthy: s.member(t, engine178, s.organisation(t))}
}

// unharmed checks that the healthy machine works as before, and that nothing
// but its own signal was stored since the last time.
func (v *victim) unharmed(t *testing.T) {
	t.Helper()
	source := address()
	v.healthy.push(t, attack(source))
	v.judged(t, source, 1) // and so is whatever came before
	v.healthy.tryLogin(t).status(t, 200)
	v.healthy.pull(t, "")
	v.count++
	if got := v.stored(t); got != v.count {
		t.Errorf("%d signals are stored, %d were taken", got, v.count)
		v.count = got
	}
}

// hostile is one request and what it must be answered.
type hostile struct {
	name   string
	method string // "" = POST
	path   string // without the version, unless it begins with /v
	body   []byte
	header map[string]string
	naked  bool // without the attacker's token
	status int
	says   string // part of the message
}

func (h hostile) send(t *testing.T, c *client) answer {
	t.Helper()
	method, path := h.method, h.path
	if method == "" {
		method = "POST"
	}
	if !strings.HasPrefix(path, "/v") {
		path = c.version + "/" + path
	}
	req := c.request(t, method, path, h.body, !h.naked)
	for name, value := range h.header {
		req.Header.Set(name, value)
	}
	return c.do(t, req)
}

func run(t *testing.T, v *victim, attacker *client, attacks []hostile) {
	t.Helper()
	for _, h := range attacks {
		t.Run(h.name, func(t *testing.T) {
			a := h.send(t, attacker).status(t, h.status)
			if !bytes.Contains(a.body, []byte(h.says)) {
				t.Errorf("the answer does not say %q: %s", h.says, a.body)
			}
			if len(a.body) > 2000 {
				t.Errorf("the answer has %d bytes", len(a.body))
			}
			v.unharmed(t)
		})
	}
	source := address()
	v.healthy.push(t, attack(source))
	v.count++
	eventually(t, "the healthy machine's list", func() string { return v.healthy.pull(t, "").lacks(source) })
}

func TestHostileBodies(t *testing.T) {
	t.Parallel()
	v := newVictim(t, nil)
	attacker := v.member(t, engine146, v.organisation(t)) // sends bodies as they are
	gz := map[string]string{"Content-Encoding": "gzip"}
	deep := bytes.Repeat([]byte("["), 1_000_000)
	deepObject := append(bytes.Repeat([]byte(`{"a":`), 100_000), bytes.Repeat([]byte(`}`), 100_000)...)
	deepFields := append(append([]byte(`[{"context":`), append(bytes.Repeat([]byte("["), 5000), bytes.Repeat([]byte("]"), 5000)...)...), "}]"...)
	many := bytes.Join([][]byte{[]byte("["), bytes.Repeat([]byte(`{"scenario":"a/b","source":{"scope":"ip","value":"45.99.1.1"}},`), 99_999), []byte(`{"scenario":"a/b","source":{"scope":"ip","value":"45.99.1.1"}}]`)}, nil)
	whole := toJSON(t, []signal{attack("45.99.1.2")})
	corrupt := zip(bytes.Repeat(whole, 3))
	for i := 40; i < 60; i++ {
		corrupt[i] ^= 0x5a
	}
	run(t, v, attacker, []hostile{
		{name: "no body", path: "signals", status: 400, says: "JSON array"},
		{name: "an empty body", path: "signals", body: []byte{}, status: 400, says: "JSON array"},
		{name: "white space", path: "signals", body: []byte(" \n\t "), status: 400, says: "JSON array"},
		{name: "no JSON", path: "signals", body: []byte("signals=1&x=2"), status: 400, says: "JSON array"},
		{name: "half of a JSON document", path: "signals", body: whole[:len(whole)-20], status: 400, says: "malformed JSON"},
		{name: "a JSON document and more", path: "signals", body: append(bytes.Clone(whole), ']'), status: 400, says: "malformed JSON"},
		{name: "two JSON documents", path: "signals", body: append(bytes.Clone(whole), whole...), status: 400, says: "malformed JSON"},
		{name: "a byte order mark", path: "signals", body: append([]byte("\xef\xbb\xbf"), whole...), status: 400, says: "JSON array"},
		{name: "UTF-16", path: "signals", body: []byte("\xff\xfe[\x00]\x00"), status: 400, says: "JSON array"},
		{name: "an object", path: "signals", body: []byte(`{"signals":[]}`), status: 400, says: "an object"},
		{name: "a string", path: "signals", body: []byte(`"[]"`), status: 400, says: "a string"},
		{name: "null", path: "signals", body: []byte(`null`), status: 400, says: "null"},
		{name: "a trailing comma", path: "signals", body: []byte(`[{},]`), status: 400, says: "malformed JSON"},
		{name: "a control character in a string", path: "signals", body: []byte("[{\"scenario\":\"a\x00b\"}]"), status: 400, says: "control character"},
		{name: "nested deep", path: "signals", body: deep, status: 400, says: "nested deeper"},
		{name: "fields nested deep", path: "signals", body: deepFields, status: 400, says: "nested deeper"},
		{name: "100,000 signals", path: "signals", body: many, status: 413, says: "10000 items"},
		{name: "gzip that is none", path: "signals", body: whole, header: gz, status: 400, says: "Content-Encoding"},
		{name: "gzip cut off", path: "signals", body: zip(whole)[:100], header: gz, status: 400, says: "Content-Encoding"},
		{name: "gzip cut off before its checksum", path: "signals", body: zip(whole)[:len(zip(whole))-8], header: gz, status: 400, says: "Content-Encoding"},
		{name: "gzip cut off in its header", path: "signals", body: zip(whole)[:5], header: gz, status: 400, says: "Content-Encoding"},
		{name: "gzip with flipped bits", path: "signals", body: corrupt, header: gz, status: 400, says: "Content-Encoding"},
		{name: "gzip of nothing", path: "signals", body: zip(nil), header: gz, status: 400, says: "JSON array"},
		{name: "gzip and more", path: "signals", body: append(zip(whole), "more"...), header: gz, status: 400, says: "Content-Encoding"},
		{name: "a gzip bomb", path: "signals", body: bomb(), header: gz, status: 413, says: "decompresses to more than 16777216 bytes"},
		{name: "an unknown encoding", path: "signals", body: whole, header: map[string]string{"Content-Encoding": "br"}, status: 400, says: "expected Content-Encoding gzip"},
		{name: "two encodings", path: "signals", body: zip(zip(whole)), header: map[string]string{"Content-Encoding": "gzip, gzip"}, status: 400, says: "expected Content-Encoding gzip"},
		{name: "decisions/delete: an object", path: "decisions/delete", body: []byte(`{"a":1}`), status: 400, says: "JSON array"},
		{name: "decisions/delete: numbers", path: "decisions/delete", body: []byte(`[1,2]`), status: 400, says: "a number"},
		{name: "decisions/delete: too many", path: "decisions/delete", body: []byte("[" + strings.Repeat(`"",`, 1000) + `""]`), status: 413, says: "1000 items"},
		{name: "decisions/sync: an object", path: "decisions/sync", body: []byte(`{}`), status: 400, says: "JSON array"},
		{name: "metrics: an array", path: "metrics", body: []byte(`[]`), status: 400, says: "JSON object"},
		{name: "metrics: wrong types", path: "metrics/", body: []byte(`{"machines":{"name":1}}`), status: 400, says: "machines"},
		{name: "metrics: nested deep", path: "metrics", body: deepObject, status: 400, says: "JSON"},
		{name: "usage-metrics: wrong types are dropped", path: "usage-metrics", body: []byte(`{"lapi":[]}`), status: 422, says: "lapi"},
		{name: "usage-metrics: malformed is dropped", path: "usage-metrics", body: []byte(`{"lapi":`), status: 422, says: "JSON"},
		{name: "usage-metrics: a bomb is dropped", path: "usage-metrics", body: bomb(), header: gz, status: 422, says: "decompresses"},
		{name: "enrol: wrong types", path: "watchers/enroll", body: []byte(`{"attachment_key":1,"tags":"a"}`), status: 400, says: "attachment_key"},
		{name: "enrol: an array", path: "watchers/enroll", body: []byte(`[]`), status: 400, says: "JSON object"},
		{name: "enrol: no key", path: "watchers/enroll", body: []byte(`{"name":"x"}`), status: 400, says: "attachment_key is missing"},
		{name: "enrol: a wrong key", path: "watchers/enroll", body: []byte(`{"attachment_key":"nosuchkey"}`), status: 403, says: "not valid"},
		{name: "enrol: a huge key", path: "watchers/enroll", body: []byte(`{"attachment_key":"` + strings.Repeat("k", 500_000) + `"}`), status: 403, says: "not valid"},
		{name: "enrol: a huge name", path: "watchers/enroll", body: []byte(`{"attachment_key":"k","name":"` + strings.Repeat("n", 500_000) + `"}`), status: 400, says: "name"},
		{name: "enrol: a thousand tags", path: "watchers/enroll", body: toJSON(t, map[string]any{"attachment_key": "k", "tags": manyWords(1000)}), status: 400, says: "tags"},
		{name: "poll: since no number", method: "GET", path: "/v1/decisions/stream/poll?since_time=yesterday", status: 400, says: "since_time"},
		{name: "poll: timeout no number", method: "GET", path: "/v1/decisions/stream/poll?timeout=long", status: 400, says: "timeout"},
	})
}

func TestHostileLogins(t *testing.T) {
	t.Parallel()
	v := newVictim(t, nil)
	attacker := v.client(engine146)
	body := func(id, password any) []byte {
		return toJSON(t, map[string]any{"machine_id": id, "password": password})
	}
	password := attacker.password
	run(t, v, attacker, []hostile{
		{name: "unknown machine", naked: true, path: "watchers/login", body: body("nobodyknowsme", password), status: 401, says: "machine_id or password is incorrect"},
		{name: "wrong password", naked: true, path: "watchers/login", body: body(v.healthy.id, password), status: 401, says: "machine_id or password is incorrect"},
		{name: "weak wrong password", naked: true, path: "watchers/login", body: body(v.healthy.id, "password1"), status: 401, says: "machine_id or password is incorrect"},
		{name: "no password", naked: true, path: "watchers/login", body: []byte(`{"machine_id":"` + v.healthy.id + `"}`), status: 401, says: "machine_id or password is incorrect"},
		{name: "huge password", naked: true, path: "watchers/login", body: body(v.healthy.id, strings.Repeat("p", 500_000)), status: 401, says: "machine_id or password is incorrect"},
		{name: "no machine", naked: true, path: "watchers/login", body: []byte(`{"password":"x"}`), status: 400, says: "machine_id is empty"},
		{name: "empty object", naked: true, path: "watchers/login", body: []byte(`{}`), status: 400, says: "machine_id is empty"},
		{name: "an array", naked: true, path: "watchers/login", body: []byte(`["a","b"]`), status: 400, says: "JSON object"},
		{name: "null", naked: true, path: "watchers/login", body: []byte(`null`), status: 400, says: "JSON object"},
		{name: "nothing", naked: true, path: "watchers/login", body: []byte{}, status: 400, says: "JSON object"},
		{name: "a form", naked: true, path: "watchers/login", body: []byte(`machine_id=a&password=b`), status: 400, says: "JSON object"},
		{name: "machine_id a number", naked: true, path: "watchers/login", body: body(12345, password), status: 400, says: "machine_id: expected a string"},
		{name: "password an object", naked: true, path: "watchers/login", body: body("abc", map[string]int{"a": 1}), status: 400, says: "password: expected a string"},
		{name: "scenarios a string", naked: true, path: "watchers/login", body: []byte(`{"machine_id":"abc","password":"x","scenarios":"a/b"}`), status: 400, says: "scenarios: expected an array"},
		{name: "scenarios numbers", naked: true, path: "watchers/login", body: []byte(`{"machine_id":"abc","password":"x","scenarios":[1]}`), status: 400, says: "scenarios"},
		{name: "a stranger's 2 MB", naked: true, path: "watchers/login", body: bytes.Repeat([]byte(" "), 2<<20), status: 413, says: "without a token"},
		{name: "a stranger's bomb", naked: true, path: "watchers/login", body: bomb(), header: map[string]string{"Content-Encoding": "gzip"}, status: 413, says: "without a token"},
		{name: "nested deep", naked: true, path: "watchers/login", body: append(bytes.Repeat([]byte(`{"a":`), 100_000), bytes.Repeat([]byte(`}`), 100_000)...), status: 400, says: "JSON"},

		{name: "register: empty id", naked: true, path: "watchers", body: body("", password), status: 400, says: "machine_id is empty"},
		{name: "register: 129 characters", naked: true, path: "watchers", body: body(strings.Repeat("a", 129), password), status: 400, says: "129 characters"},
		{name: "register: a megabyte of id", naked: true, path: "watchers", body: body(strings.Repeat("a", 900_000), password), status: 400, says: "900000 characters"},
		{name: "register: dashes", naked: true, path: "watchers", body: body("a-b", password), status: 400, says: "neither letter nor digit"},
		{name: "register: a space", naked: true, path: "watchers", body: body("a b", password), status: 400, says: "neither letter nor digit"},
		{name: "register: a newline at the end", naked: true, path: "watchers", body: body("ab\n", password), status: 400, says: "neither letter nor digit"},
		{name: "register: NUL", naked: true, path: "watchers", body: body("a\x00b", password), status: 400, says: "neither letter nor digit"},
		{name: "register: SQL", naked: true, path: "watchers", body: body("a';drop table machines--", password), status: 400, says: "neither letter nor digit"},
		{name: "register: a path", naked: true, path: "watchers", body: body("../../etc/passwd", password), status: 400, says: "neither letter nor digit"},
		{name: "register: full-width letters", naked: true, path: "watchers", body: body("ａｂｃ", password), status: 400, says: "neither letter nor digit"},
		{name: "register: invalid UTF-8", naked: true, path: "watchers", body: []byte("{\"machine_id\":\"a\xff\",\"password\":\"" + password + "\"}"), status: 400, says: "neither letter nor digit"},
		{name: "register: short password", naked: true, path: "watchers", body: body("abc", "1234567"), status: 400, says: "7 characters"},
		{name: "register: long password", naked: true, path: "watchers", body: body("abc", strings.Repeat("p", 257)), status: 400, says: "257 characters"},
		{name: "register: a number", naked: true, path: "watchers", body: body(1, password), status: 400, says: "machine_id: expected a string"},
		{name: "register: taken", naked: true, path: "watchers", body: body(v.healthy.id, password), status: 500, says: "User already registered."},
		{name: "reset is refused", naked: true, path: "watchers/reset", body: body(v.healthy.id, password), status: 403, says: "cannot be reset"},
	})
	// What looks as odd and is honest.
	for _, id := range []string{"a", strings.Repeat("a", 51), strings.Repeat("Z9", 64)} {
		c := v.client(python)
		c.id = id
		c.register(t).ok(t)
		c.login(t)
		c.pull(t, "")
	}
	c := v.client(phpCurl)
	c.password = "typed by hand 1" // weak ones are taken too, and kept with argon2id
	c.register(t).ok(t)
	c.login(t, "a/b", "", "a/b", " ", strings.Repeat("x", 500), "c/d")
	if got := v.machine(t, c.id).Scenarios; len(got) != 2 {
		t.Errorf("scenarios %q", got)
	}
}

// TestHostileItems sends well-formed batches with unusable items: always 200,
// with a count and the reasons, because SDKs would send them again for ever.
func TestHostileItems(t *testing.T) {
	t.Parallel()
	v := newVictim(t, nil)
	c := v.healthy
	good := func() signal { return attack(address()) }
	hour := func(h int) string { return time.Now().Add(time.Duration(h) * time.Hour).UTC().Format(time.RFC3339) }
	for _, tc := range []struct {
		name string
		item any
		code string
	}{
		{"null", nil, "not_object"},
		{"a number", 7, "not_object"},
		{"a string", "signal", "not_object"},
		{"an array", []int{1}, "not_object"},
		{"an empty object", map[string]any{}, "no_scenario"},
		{"scenario a number", good().with("scenario", 5), "wrong_type"},
		{"scenario null", signal{"source": map[string]string{"scope": "Ip", "value": "45.99.0.1"}}, "no_scenario"},
		{"scenario of control characters", good().with("scenario", "\x00\x01\n"), "no_scenario"},
		{"scenario of 10 kB", good().with("scenario", strings.Repeat("s", 10_000)), "too_long"},
		{"source a string", good().with("source", "1.2.3.4"), "wrong_type"},
		{"source.value a number", good().with("source", map[string]any{"scope": "Ip", "value": 1}), "wrong_type"},
		{"decisions an object", good().with("decisions", map[string]any{}), "wrong_type"},
		{"decisions of numbers", good().with("decisions", []int{1}), "wrong_type"},
		{"simulated a string", good().with("decisions", []any{map[string]any{"simulated": "yes"}}), "wrong_type"},
		{"context a string", good().with("context", "x"), "wrong_type"},
		{"uuid a number", good().with("uuid", 1), "wrong_type"},
		{"stop_at a number", good().with("stop_at", 1795210701), "wrong_type"},
		{"four days old", good().with("start_at", hour(-96)).with("stop_at", hour(-96)), "too_old"},
		{"from tomorrow", good().with("stop_at", hour(24)), "in_the_future"},
		{"from the year 9999", good().with("stop_at", "9999-12-31T23:59:59Z"), "in_the_future"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := c.post(t, "/signals", []any{good(), tc.item, good()}).status(t, 200)
			v.count += 2
			var in struct {
				Message           string
				Accepted, Refused int
				Problems          []struct {
					Index        int
					Code, Reason string
				}
			}
			if err := strict(a.body, &in); err != nil || in.Message != "OK" || in.Accepted != 2 || in.Refused != 1 || len(in.Problems) != 1 ||
				in.Problems[0].Index != 1 || in.Problems[0].Code != tc.code || in.Problems[0].Reason == "" {
				t.Errorf("expected %s, got %s (%v)", tc.code, a.body, err)
			}
		})
	}
	v.unharmed(t)

	// A whole batch of nonsense answers shortly.
	nonsense := make([]any, 5000)
	a := c.post(t, "/signals", nonsense).status(t, 200)
	if a.number(t, "refused") != 5000 || len(a.body) > 8<<10 {
		t.Errorf("%d bytes: %.300s", len(a.body), a.body)
	}
	c.post(t, "/signals", []any{}).ok(t)
	v.unharmed(t)
}

// TestHostileText sends what is legal JSON and means trouble elsewhere: in a
// terminal, a database, another engine's list.
func TestHostileText(t *testing.T) {
	t.Parallel()
	v := newVictim(t, nil)
	c := v.healthy
	texts := []string{
		"nul\x00byte", "line\nbreak", "tab\tand\rreturn", "esc\x1b[31mred", "del\x7f", `quote"},{"x":"y`, `back\slash`,
		"sep\u2028\u2029", "<script>alert(1)</script>", "rtl\u202eevil", "emoji \U0001F600", "bad\ufffd", "'; DROP TABLE alerts; --", "%s%n%x", "${jndi:ldap://x}",
	}
	var batch []signal
	sources := map[string]string{}
	for _, text := range texts {
		source := address()
		sources[source] = text
		batch = append(batch, attack(source).with("scenario", text).with("message", text).with("machine_id", text).
			with("scenario_version", text).with("kind", text).
			with("context", []any{map[string]string{"key": text, "value": text}}))
	}
	c.push(t, batch...)
	v.count += len(batch)
	// Invalid UTF-8 and half of a surrogate pair cannot be made with encoding/json.
	raw := toJSON(t, attack(address()).with("scenario", "RAW").with("message", "RAW"))
	for _, text := range []string{"bad\xff\xfeutf8", `half\ud800pair`, "\xed\xa0\x80", `\u0000`} {
		body := append(append([]byte("["), bytes.ReplaceAll(raw, []byte("RAW"), []byte("x/"+text))...), ']')
		body = bytes.ReplaceAll(body, []byte(`"uuid":"`), []byte(`"uuid":"`+fmt.Sprint(serial.Add(1))))
		c.send(t, "POST", "/v3/signals", body, true).ok(t)
		v.count++
	}
	var got blocklist
	eventually(t, "the fleet list", func() string {
		got = c.pull(t, "")
		for source := range sources {
			if wrong := got.lacks(source); wrong != "" {
				return wrong
			}
		}
		return ""
	})
	for source := range sources {
		if scenario := got.new[source].scenario; strings.ContainsFunc(scenario, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("a control character is published in %q", scenario)
		}
	}
	v.healthy.pull(t, "?startup=true")
	for _, a := range v.alerts(t, "machine="+c.id) {
		for _, text := range []string{a.Scenario, a.Kind, a.Scope} {
			if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("a control character is stored in %q", text)
			}
		}
	}
	// Names and tags.
	odd := v.registered(t, engine178)
	odd.post(t, "/watchers/enroll", map[string]any{
		"attachment_key": v.key(t, v.organisation(t), true), "name": "web\x00\x1b[2J\u202e01\n", "tags": []any{"a\x00b", "", nil, "a\nb", "c\x7f"},
	}).status(t, 201)
	if m := v.machine(t, odd.id); m.Name != "web[2J01" || len(m.Tags) != 2 {
		t.Errorf("name %q, tags %q", m.Name, m.Tags)
	}
	odd.login(t, "a/b\x00", "c/d")
	// A uuid of a megabyte, and a decision with a huge value.
	long := attack(address()).with("uuid", strings.Repeat("u", 1<<20)).with("source", map[string]any{"scope": "Username", "value": strings.Repeat("v", 1<<20)})
	c.push(t, long)
	v.count++
	v.unharmed(t)
	for _, a := range v.alerts(t, "machine="+c.id) {
		if size := len(a.Source) + len(a.Detail.UUID); size > 1000 {
			t.Errorf("%d bytes of a uuid or a value are kept", size)
		}
	}
}

// TestHostileRequests is about what surrounds a body.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	v := newVictim(t, nil)
	attacker := v.member(t, engine146, v.organisation(t))
	run(t, v, attacker, []hostile{
		{name: "GET signals", method: "GET", path: "signals", status: 405, says: "expected POST"},
		{name: "PUT signals", method: "PUT", path: "signals", body: []byte("[]"), status: 405, says: "expected POST"},
		{name: "POST stream", path: "decisions/stream", body: []byte("{}"), status: 405, says: "expected GET"},
		{name: "DELETE login", method: "DELETE", path: "watchers/login", status: 405, says: "expected POST"},
		{name: "PATCH poll", method: "PATCH", path: "/v1/decisions/stream/poll", status: 405, says: "expected GET"},
		{name: "an invented method", method: "SMUGGLE", path: "signals", status: 405, says: "expected POST"},
		{name: "no such call", path: "nothing", status: 404, says: "there is no"},
		{name: "no such call of PAPI", method: "GET", path: "/v1/nothing", status: 404, says: "there is no"},
		{name: "a path upwards", method: "GET", path: "/v3/../v3/secrets", status: 404, says: "there is no"},
		{name: "an encoded slash", method: "GET", path: "/v3/decisions%2fstream2", status: 404, says: "there is no"},
		{name: "a long path", method: "GET", path: "/v3/" + strings.Repeat("a", 8000), status: 404, says: "there is no"},
		{name: "no token", naked: true, method: "GET", path: "decisions/stream", status: 401, says: "token"},
		{name: "no token for signals", naked: true, path: "signals", body: []byte("[]"), status: 401, says: "token"},
	})
	if a := (hostile{method: "OPTIONS", path: "decisions/stream"}).send(t, attacker); a.code != 204 || !strings.Contains(a.header.Get("Allow"), "GET") {
		t.Errorf("OPTIONS: %d, Allow %q", a.code, a.header.Get("Allow"))
	}

	t.Run("huge headers", func(t *testing.T) {
		conn, err := net.Dial("tcp", v.cfg.Listen)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		go func() { // the server need not read it to the end
			_, _ = fmt.Fprintf(conn, "GET /v3/decisions/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", strings.Repeat("a", 1<<20))
		}()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("answered %s", resp.Status)
		}
		v.unharmed(t)
	})

	const big = 100 << 20
	for name, head := range map[string]string{
		"100 MB with its length": fmt.Sprintf("Content-Length: %d\r\n", big),
		"100 MB in chunks":       "Transfer-Encoding: chunked\r\n",
	} {
		for _, path := range []string{"/v3/signals", "/v3/watchers/login", "/v3/metrics/"} {
			t.Run(name+" to "+path, func(t *testing.T) {
				a := sendEndless(t, v.server, "POST "+path+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+attacker.token+"\r\n"+head+"\r\n", strings.HasPrefix(head, "Transfer"), big)
				if a.status(t, 413); !strings.Contains(a.problem(t), "bytes") {
					t.Errorf("%s", a.body)
				}
				v.unharmed(t)
			})
		}
	}
}
