package spool

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"muster"
)

func TestIdentify(t *testing.T) {
	jwt := strings.TrimPrefix(bearerOf("m1", 1, time.Unix(1_800_000_000, 0)), "Bearer ")
	other := bearerOf("m1", 2, time.Unix(1_800_000_000, 0))
	a, ok := Identify("Bearer " + jwt)
	if !ok || a.Machine != "m1" || !a.Expires.Equal(time.Unix(1_800_000_000, 0)) {
		t.Fatalf("%+v, %t", a, ok)
	}
	if b, ok := Identify(jwt); !ok || b != a { // Python's SDK
		t.Errorf("without Bearer: %+v", b)
	}
	if b, ok := Identify(other); !ok || b.Engine != a.Engine || b.Token == a.Token {
		t.Errorf("the next token of the same machine: %+v", b)
	}
	for _, none := range []string{"", "Bearer", "Bearer ", "  "} {
		if id, ok := Identify(none); ok {
			t.Errorf("%q: %+v", none, id)
		}
	}
	for _, opaque := range []string{"Bearer opaque", "a.b.c", "a.!!.c", "Bearer a.e30.c"} {
		id, ok := Identify(opaque)
		if !ok || id.Machine != "" || id.Engine != muster.SieveEngine(id.Token) {
			t.Errorf("%q: %+v, %t", opaque, id, ok)
		}
	}
}

func FuzzIdentify(f *testing.F) {
	f.Add(bearerOf("m1", 1, time.Unix(1_800_000_000, 0)))
	f.Add("Bearer a.eyJleHAiOjFlMzA4fQ.c")
	f.Fuzz(func(t *testing.T, header string) {
		id, ok := Identify(header)
		if ok == (bearer(header) == "") || len(id.Machine) > maxMachine {
			t.Errorf("%q: %+v, %t", header, id, ok)
		}
	})
}

func TestTokensAreEncryptedAndSurvive(t *testing.T) {
	store, key, ctx := newStore(), filepath.Join(t.TempDir(), "key"), t.Context()
	v, err := OpenVault(ctx, store, key)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	auth := bearerOf("m1", 1, now.Add(time.Hour))
	id, _ := Identify(auth)
	for range 2 {
		if err := v.Keep(ctx, auth, id, now); err != nil {
			t.Fatal(err)
		}
	}
	if len(store.tokens) != 1 {
		t.Fatalf("%d rows for one token", len(store.tokens))
	}
	if bytes.Contains(store.tokens[0].Sealed, []byte(auth[20:30])) {
		t.Error("the token is on disk as it came")
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info, err)
	}
	again, err := OpenVault(ctx, store, key)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, ok := again.latest(id.Engine, now); !ok || got != auth {
		t.Error("the token is gone after a restart")
	}
	if _, _, ok := again.latest(id.Engine, now.Add(2*time.Hour)); ok {
		t.Error("an expired token is worth a try")
	}
	// A row that was moved to another engine does not open.
	store.tokens[0].Engine[0]++
	if again, err = OpenVault(ctx, store, key); err != nil || len(again.engines) != 0 {
		t.Errorf("%v, %d engines", err, len(again.engines))
	}
	if err := os.WriteFile(key, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenVault(ctx, store, key); muster.CodeOf(err) != muster.Invalid {
		t.Errorf("a broken key: %v", err)
	}
}

func TestAForgedTokenDoesNotReplaceTheEngines(t *testing.T) {
	store, ctx, now := newStore(), t.Context(), time.Now()
	v, err := OpenVault(ctx, store, filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	good, forged := bearerOf("m1", 1, now.Add(time.Hour)), bearerOf("m1", 2, now.Add(time.Hour))
	for _, auth := range []string{good, forged} {
		id, _ := Identify(auth)
		if err := v.Keep(ctx, auth, id, now); err != nil {
			t.Fatal(err)
		}
	}
	id, _ := Identify(forged)
	if got, _, _ := v.latest(id.Engine, now); got != forged {
		t.Error("the latest is not tried first")
	}
	v.refused(id.Engine, id.Token)
	if got, _, ok := v.latest(id.Engine, now); !ok || got != good {
		t.Error("the one before is not tried after it")
	}
}

func TestSignalsWithoutUUIDGetOne(t *testing.T) {
	for _, c := range []struct{ raw, want string }{
		{`{}`, `{"uuid":"U"}`},
		{` {"scenario":"s"} `, `{"scenario":"s","uuid":"U"}`},
		{`{"uuid":"","scenario":"s" }`, `{"uuid":"","scenario":"s","uuid":"U"}`},
		{`{"uuid":null}`, `{"uuid":null,"uuid":"U"}`},
	} {
		got := string(appendSignal(nil, &item{raw: []byte(c.raw), uuid: "U", given: true}))
		if got != c.want {
			t.Errorf("%s: got %s", c.raw, got)
		}
		var read struct{ UUID string }
		if err := json.Unmarshal([]byte(got), &read); err != nil || read.UUID != "U" {
			t.Errorf("%s is read as %+v: %v", got, read, err)
		}
	}
	u := contentUUID(muster.SieveEngine{1}, []byte("x"))
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(u) {
		t.Errorf("no uuid: %s", u)
	}
	if u != contentUUID(muster.SieveEngine{1}, []byte("x")) || u == contentUUID(muster.SieveEngine{2}, []byte("x")) {
		t.Error("the uuid is not of engine and content")
	}
}

func TestPutSplitsAndRefuses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newRig(t)
		b := muster.SievedBatch{Received: time.Now(), Machine: "m"}
		for range 5 {
			b.Signals = append(b.Signals, muster.SievedSignal{Raw: bytes.Repeat([]byte("x"), 600<<10)})
		}
		if err := g.intake.Put(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		parts, signals := 0, 0
		for _, e := range g.log.entries {
			if len(e.Data) > 1<<21 {
				t.Errorf("a record of %d bytes", len(e.Data))
			}
			err := muster.DecodeSievedBatches(e.Data, func(p *muster.SievedBatch) {
				parts++
				signals += len(p.Signals)
				if p.Machine != "m" || !p.Signals[0].Given {
					t.Errorf("part %d: %q", parts, p.Machine)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if parts != 5 || signals != 5 || len(b.Signals) != 5 {
			t.Errorf("%d parts with %d signals", parts, signals)
		}
		b.Signals = []muster.SievedSignal{{Raw: make([]byte, MaxSignal+1)}}
		if err := g.intake.Put(t.Context(), &b); muster.CodeOf(err) != muster.TooLarge {
			t.Errorf("a giant: %v", err)
		}
	})
}

func TestHTTPSendsAsAnEngineDoes(t *testing.T) {
	var got *http.Request
	var body []byte
	var mu sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = r
		src := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Error(err)
				return
			}
			src = z
		}
		body, _ = io.ReadAll(src)
		_, _ = io.WriteString(w, `{"message":"OK"}`)
	}))
	defer server.Close()
	base, _ := url.Parse(server.URL + "/prefix/")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	up := NewHTTP(HTTPConfig{Base: base, HTTP: client})
	for _, c := range []struct {
		call     Call
		path     string
		encoding string
	}{
		{Call{Authorization: "Bearer t", UserAgent: "crowdsec/v1.7.8-linux", Body: []byte(`[{}]`)}, "/prefix/v3/signals", ""},
		{Call{Authorization: "t", V2: true, Body: []byte(`["` + strings.Repeat("x", 6000) + `"]`)}, "/prefix/v2/signals", "gzip"},
	} {
		r, err := up.Send(t.Context(), c.call)
		if err != nil || !taken(r) {
			t.Fatalf("%v, %v", r, err)
		}
		if got.URL.Path != c.path || got.Method != http.MethodPost || got.Header.Get("Authorization") != c.call.Authorization ||
			got.Header.Get("User-Agent") != c.call.UserAgent || got.Header.Get("Content-Encoding") != c.encoding || !bytes.Equal(body, c.call.Body) {
			t.Errorf("%s %s %v, %d bytes", got.Method, got.URL, got.Header, len(body))
		}
	}
}

type failing struct{ err error }

func (l failing) Append(context.Context, []muster.Record) error { return l.err }

func TestAFullLogIsToldWithItsSetting(t *testing.T) {
	full := muster.Errorf(muster.Unavailable, "the log is full: raise spool.max_bytes")
	full.RetryAfter = time.Minute
	in := NewIntake(IntakeConfig{Log: failing{full}, Now: time.Now, Logger: quiet})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- in.Run(ctx) }()
	err := in.Put(t.Context(), &muster.SievedBatch{Signals: []muster.SievedSignal{{Raw: []byte(`{}`)}}})
	var told *muster.Error
	if !errors.As(err, &told) || told.Code != muster.Unavailable || told.RetryAfter != time.Minute || !strings.Contains(told.Message, "spool.max_bytes") {
		t.Errorf("got %v", err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type trimmer struct{ positions []uint64 }

func (l *trimmer) Trim(_ context.Context, position uint64) error {
	l.positions = append(l.positions, position)
	if len(l.positions) == 1 {
		return errDown
	}
	return nil
}

func TestTheLogIsTrimmedBehindItsSlowestReader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, log := uint64(7), uint64(5), &trimmer{}
		ctx, stop := context.WithTimeout(t.Context(), 4*time.Minute+time.Second)
		defer stop()
		Trim(ctx, log, quiet, func() uint64 { return a }, func() uint64 { return b })
		if got := fmt.Sprint(log.positions); got != "[5 5]" {
			t.Errorf("trimmed at %s: expected a second try, and nothing after it", got)
		}
	})
}

func TestAppendedSignalsAreOneArray(t *testing.T) {
	b := []byte{'['}
	b = appendSignal(b, &item{raw: []byte(`{"uuid":"a"}`), uuid: "a"})
	b = append(b, ',')
	b = appendSignal(b, &item{raw: []byte(`{}`), uuid: "b", given: true})
	b = append(b, ']')
	var list []struct{ UUID string }
	if err := json.Unmarshal(b, &list); err != nil || len(list) != 2 || list[1].UUID != "b" {
		t.Errorf("%s: %v", b, err)
	}
}
