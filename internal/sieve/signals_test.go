package sieve

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/internal/spool"
	"muster/internal/upstream"
)

var signalsNow = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

// fakeSignalLog keeps what is put, as a log does: not the memory of it.
type fakeSignalLog struct {
	err     error
	batches []muster.SievedBatch
}

func (l *fakeSignalLog) Put(_ context.Context, b *muster.SievedBatch) error {
	if l.err != nil {
		return l.err
	}
	return muster.DecodeSievedBatches(muster.AppendSievedBatch(nil, b), func(b *muster.SievedBatch) { l.batches = append(l.batches, *b) })
}

type fakeSignalTokens struct {
	kept    []string
	refused bool
	err     error
}

func (t *fakeSignalTokens) Keep(_ context.Context, authorization string, _ spool.Identity, _ time.Time) error {
	t.kept = append(t.kept, authorization)
	return t.err
}

func (t *fakeSignalTokens) Refused(spool.Identity, time.Time) bool { return t.refused }

// rulesFunc are rules that are one function.
type rulesFunc func(signal []byte) (bool, []string)

func (f rulesFunc) Judge(signal []byte) (bool, []string) { return f(signal) }

// clientsFunc is a check that is one function.
type clientsFunc func(authorization string) error

func (f clientsFunc) CheckClient(_ context.Context, authorization string, _ bool) error {
	return f(authorization)
}

// upstreamFunc is an upstream that is one function.
type upstreamFunc func(spool.Call) (*upstream.Response, error)

func (f upstreamFunc) Send(_ context.Context, c spool.Call) (*upstream.Response, error) { return f(c) }

type signalsRig struct {
	log     fakeSignalLog
	tokens  fakeSignalTokens
	handler *Signals
}

func newSignalsRig(change func(*SignalsConfig)) *signalsRig {
	g := &signalsRig{}
	cfg := SignalsConfig{Log: &g.log, Tokens: &g.tokens, Now: func() time.Time { return signalsNow }, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	g.handler = NewSignals(cfg)
	return g
}

func (g *signalsRig) post(path string, body []byte, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	r.Header.Set("Authorization", "Bearer t")
	r.Header.Set("User-Agent", "crowdsec/v1.7.8-linux")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	g.handler.ServeHTTP(w, r)
	return w
}

func TestSignalsStatuses(t *testing.T) {
	many := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("{},", n), ",") + "]" }
	full := &muster.Error{Code: muster.Unavailable, Message: "the signal log is full: raise spool.max_bytes", RetryAfter: 61 * time.Second}
	for name, c := range map[string]struct {
		change  func(*SignalsConfig)
		rig     func(*signalsRig)
		body    string
		headers []string
		status  int
		answer  string
		retry   string
	}{
		"ok":             {body: many(1000), status: 200, answer: `{"message":"OK"}`},
		"nothing in it":  {body: `[]`, status: 200, answer: `{"message":"OK"}`},
		"too many":       {body: many(1001), status: 413, answer: `more than 1000 items`},
		"no array":       {body: `{}`, status: 400, answer: `must be a JSON array`},
		"no JSON":        {body: `[{]`, status: 400, answer: `malformed`},
		"not gzip":       {body: `[]`, headers: []string{"Content-Encoding", "gzip"}, status: 400, answer: `not what its headers say`},
		"unknown coding": {body: `[]`, headers: []string{"Content-Encoding", "br"}, status: 400, answer: `expected Content-Encoding`},
		"too large":      {change: func(c *SignalsConfig) { c.Limits.Body = 10 }, body: many(4), status: 413, answer: `larger than 10 bytes`},
		"no token":       {body: `[]`, headers: []string{"Authorization", ""}, status: 401, answer: `log in first`},
		"empty bearer":   {body: `[]`, headers: []string{"Authorization", "Bearer "}, status: 401, answer: `log in first`},
		"local":          {change: func(c *SignalsConfig) { c.Local = true }, body: `[{}]`, headers: []string{"Authorization", ""}, status: 200, answer: `{"message":"OK (forwarding disabled)"}`},
		"no client": {change: func(c *SignalsConfig) {
			c.Clients = clientsFunc(func(string) error { return muster.Errorf(muster.Unauthorized, "unknown client") })
		}, body: `[{}]`, status: 401, answer: `unknown client`},
		"refused token":  {rig: func(g *signalsRig) { g.tokens.refused = true }, body: `[{}]`, status: 401, answer: `log in again`},
		"an old engine":  {rig: func(g *signalsRig) { g.tokens.refused = true }, body: `[{}]`, headers: []string{"User-Agent", "crowdsec/v1.4.6-6~deb12u1-linux"}, status: 200, answer: `OK`},
		"full":           {rig: func(g *signalsRig) { g.log.err = full }, body: `[{}]`, status: 503, answer: `raise spool.max_bytes`, retry: "61"},
		"token not kept": {rig: func(g *signalsRig) { g.tokens.err = errors.New("secret detail") }, body: `[{}]`, status: 500, answer: `internal error`},
		"strict refusal": {change: strictAnswer(422, `{"message":"bad"}`), body: `[{}]`, status: 422, answer: `{"message":"bad"}`},
		"strict ok":      {change: strictAnswer(200, `{"message":"theirs"}`), body: `[{}]`, status: 200, answer: `{"message":"theirs"}`},
		"strict and away": {change: func(c *SignalsConfig) {
			c.Strict = upstreamFunc(func(spool.Call) (*upstream.Response, error) { return nil, errors.New("dial tcp 192.0.2.1") })
		}, body: `[{}]`, status: 502, answer: `the upstream did not answer`},
		"strict and banned": {change: func(c *SignalsConfig) {
			c.Strict = upstreamFunc(func(spool.Call) (*upstream.Response, error) {
				return nil, &upstream.BannedError{Ban: upstream.Ban{Until: signalsNow.Add(time.Hour), Reason: "a storm"}}
			})
		}, body: `[{}]`, status: 403, answer: `a storm`, retry: "3600"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newSignalsRig(c.change)
			if c.rig != nil {
				c.rig(g)
			}
			w := g.post("/v3/signals", []byte(c.body), c.headers...)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.answer) || w.Header().Get("Retry-After") != c.retry {
				t.Errorf("got %d %s, Retry-After %q", w.Code, w.Body, w.Header().Get("Retry-After"))
			}
			var shape map[string]string
			if err := json.Unmarshal(w.Body.Bytes(), &shape); err != nil || shape["message"] == "" {
				t.Errorf("no object with a message: %s", w.Body)
			}
			if w.Code != 200 && w.Code != 422 && shape["error"] != shape["message"] {
				t.Errorf("CrowdSieve's scripts read error: %s", w.Body)
			}
		})
	}
}

func strictAnswer(status int, body string) func(*SignalsConfig) {
	return func(c *SignalsConfig) {
		c.Strict = upstreamFunc(func(spool.Call) (*upstream.Response, error) {
			return &upstream.Response{Status: status, Header: http.Header{}, Body: []byte(body)}, nil
		})
	}
}

const threeSignals = `[{"uuid":"a","source":{"ip":"192.0.2.1"}} ,{"source":{"scope":"Range","value":"198.51.100.0/24"}},{"uuid":"c","decisions":[{"origin":"crowdsieve-replication"}]}]`

func TestSignalsAreSiftedAndKept(t *testing.T) {
	g := newSignalsRig(func(c *SignalsConfig) {
		c.Rules = func() SignalRules {
			return rulesFunc(func(s []byte) (bool, []string) {
				return bytes.Contains(s, []byte("192.0.2.1")), []string{"internal"}[:bytes.Count(s, []byte("192.0.2.1"))]
			})
		}
		c.Locate = func(addr netip.Addr) muster.SieveGeo { return muster.SieveGeo{City: addr.String()} }
	})
	for _, encoding := range []string{"", "gzip", "deflate"} {
		body := []byte(threeSignals)
		var packed bytes.Buffer
		var z io.WriteCloser
		switch encoding {
		case "gzip":
			z = gzip.NewWriter(&packed)
		case "deflate":
			z = zlib.NewWriter(&packed)
		}
		if z != nil {
			_, _ = z.Write(body)
			_ = z.Close()
			body = packed.Bytes()
		}
		if w := g.post("/v2/signals", body, "Content-Encoding", encoding); w.Code != 200 {
			t.Fatalf("%s: %d %s", encoding, w.Code, w.Body)
		}
	}
	id, _ := spool.Identify("Bearer t")
	want := muster.SievedBatch{
		Engine: id.Engine, Token: id.Token, V2: true, Received: signalsNow, UserAgent: "crowdsec/v1.7.8-linux",
		Signals: []muster.SievedSignal{
			{Raw: []byte(`{"uuid":"a","source":{"ip":"192.0.2.1"}}`), UUID: "a", Withheld: true, Reasons: []string{"internal"}, Geo: muster.SieveGeo{City: "192.0.2.1"}},
			{Raw: []byte(`{"source":{"scope":"Range","value":"198.51.100.0/24"}}`), Geo: muster.SieveGeo{City: "198.51.100.0"}},
			{Raw: []byte(`{"uuid":"c","decisions":[{"origin":"crowdsieve-replication"}]}`), UUID: "c", Withheld: true, Reasons: []string{"loop: the sieve's replication put it on this engine"}},
		},
	}
	if diff := cmp.Diff([]muster.SievedBatch{want, want, want}, g.log.batches); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(g.tokens.kept) != 3 || g.tokens.kept[0] != "Bearer t" {
		t.Errorf("tokens kept: %q", g.tokens.kept)
	}
}

func TestStrictSignals(t *testing.T) {
	var sent []spool.Call
	status := 200
	g := newSignalsRig(func(c *SignalsConfig) {
		c.Strict = upstreamFunc(func(call spool.Call) (*upstream.Response, error) {
			sent = append(sent, call)
			return &upstream.Response{Status: status, Header: http.Header{"Retry-After": {"9"}}, Body: []byte(`{"message":"x"}`)}, nil
		})
	})
	g.post("/v3/signals", []byte(threeSignals))
	status = 429
	if w := g.post("/v3/signals", []byte(threeSignals)); w.Code != 429 || w.Header().Get("Retry-After") != "9" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	g.post("/v3/signals", []byte(`[{"uuid":"c","decisions":[{"origin":"crowdsieve-replication"}]}]`))
	if len(sent) != 2 || sent[0].Authorization != "Bearer t" || sent[0].V2 ||
		string(sent[0].Body) != `[{"uuid":"a","source":{"ip":"192.0.2.1"}},{"source":{"scope":"Range","value":"198.51.100.0/24"}}]` {
		t.Errorf("sent: %+v", sent)
	}
	var fates []muster.SieveFate
	for _, b := range g.log.batches {
		fates = append(fates, b.Fate)
	}
	if diff := cmp.Diff([]muster.SieveFate{muster.SieveSent, muster.SieveLocal, muster.SieveSent}, fates); diff != "" {
		t.Error(diff)
	}
}

func TestBombsAreRefused(t *testing.T) {
	g := newSignalsRig(func(c *SignalsConfig) { c.Limits.Decoded = 1 << 20 })
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(append([]byte("[ "), bytes.Repeat([]byte(" "), 2<<20)...))
	_ = z.Close()
	if w := g.post("/v3/signals", packed.Bytes(), "Content-Encoding", "gzip"); w.Code != 413 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	g = newSignalsRig(func(c *SignalsConfig) { c.Limits.InFlight = 1 << 10 })
	if w := g.post("/v3/signals", []byte(`[{}]`)); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if n := g.handler.bodies.inFlight.Load(); n != 0 {
		t.Errorf("%d bytes stay counted", n)
	}
}

func TestWhoSendsAgain(t *testing.T) {
	for agent, want := range map[string]bool{
		"crowdsec/v1.7.8-linux": true, "crowdsec/v1.6.2-docker": true, "crowdsec/v2.0-linux": true, "x-capi-py-sdk/0.7": true, "": true,
		"crowdsec/v1.6.1-linux": false, "crowdsec/v1.4.6-6~deb12u1+b1-linux-debian": false, "crowdsec/v1.6-linux": false, "crowdsec/vx": false,
	} {
		if got := sendsAgain(agent); got != want {
			t.Errorf("%s: %t", agent, got)
		}
	}
}

// BenchmarkSignals is the handler without the disk: 50 signals, as engines send
// them.
func BenchmarkSignals(b *testing.B) {
	g := newSignalsRig(nil)
	g.handler.cfg.Log = discardSignals{}
	var body bytes.Buffer
	for i := range 50 {
		fmt.Fprintf(&body, `,{"uuid":"0d5b2b6c-6a3c-4f0e-9a6f-%012d","scenario":"crowdsecurity/ssh-bf","source":{"scope":"Ip","value":"192.0.2.1","ip":"192.0.2.1"},"message":"%s"}`, i, strings.Repeat("x", 500))
	}
	raw := append([]byte{'['}, body.Bytes()[1:]...)
	raw = append(raw, ']')
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if w := g.post("/v3/signals", raw); w.Code != 200 {
			b.Fatal(w.Body)
		}
		g.tokens.kept = g.tokens.kept[:0]
	}
}

type discardSignals struct{}

func (discardSignals) Put(context.Context, *muster.SievedBatch) error { return nil }
