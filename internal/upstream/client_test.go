package upstream

import (
	stdcmp "cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster"
)

// script is an upstream that gives its answers one after the other, the last
// one for ever.
type script struct {
	answers []any // *Response or error
	calls   []time.Duration
	began   time.Time
}

func (s *script) RoundTrip(req *http.Request) (*http.Response, error) {
	if s.began.IsZero() {
		s.began = time.Now()
	}
	s.calls = append(s.calls, time.Since(s.began))
	next := s.answers[0]
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	if err, ok := next.(error); ok {
		return nil, err
	}
	r := next.(*Response)
	return &http.Response{StatusCode: r.Status, Header: r.Header, Body: io.NopCloser(strings.NewReader(string(r.Body))), Request: req}, nil
}

// client waits half of each ceiling: 0.5 s, 1 s, 2 s …
func (s *script) client(c ClientConfig) *Client {
	c.HTTP = &http.Client{Transport: s}
	c.Backoff.Rand = func() float64 { return 0.5 }
	return NewClient(c)
}

func get(ctx context.Context) (*http.Request, error) {
	return http.NewRequestWithContext(ctx, http.MethodPost, "http://upstream.example/", strings.NewReader("x"))
}

func TestClientRetries(t *testing.T) {
	var (
		refused = &net.OpError{Op: "dial", Err: errors.New("connection refused")}
		nobody  = &net.DNSError{Err: "no such host", IsNotFound: true}
		ms      = time.Millisecond
	)
	for _, test := range []struct {
		name    string
		config  ClientConfig
		within  time.Duration // of the context; 0: an hour
		answers []any
		calls   []time.Duration
		status  int // 0: an error
	}{
		{"well", ClientConfig{}, 0, []any{answer(200, "")}, []time.Duration{0}, 200},
		{"busy twice", ClientConfig{}, 0, []any{answer(503, ""), answer(429, ""), answer(201, "")}, []time.Duration{0, 500 * ms, 1500 * ms}, 201},
		{"busy for ever", ClientConfig{Tries: 3}, 0, []any{answer(504, "")}, []time.Duration{0, 500 * ms, 1500 * ms}, 504},
		{"told to wait", ClientConfig{}, 0, []any{answer(503, "", "Retry-After", "60"), answer(200, "")}, []time.Duration{0, time.Minute + 500*ms}, 200},
		{"told to wait too long", ClientConfig{}, 0, []any{answer(503, "", "Retry-After", "3600")}, []time.Duration{0}, 503},
		{"no time left", ClientConfig{}, 30 * time.Second, []any{answer(503, "", "Retry-After", "60")}, []time.Duration{0}, 503},
		{"unauthorised", ClientConfig{}, 0, []any{answer(401, "")}, []time.Duration{0}, 401},
		{"forbidden", ClientConfig{}, 0, []any{answer(403, "")}, []time.Duration{0}, 403},
		{"a fault", ClientConfig{}, 0, []any{answer(500, "")}, []time.Duration{0}, 500},
		{"a bad gateway", ClientConfig{}, 0, []any{answer(502, "")}, []time.Duration{0}, 502},
		{"away for a moment", ClientConfig{}, 0, []any{refused, io.ErrUnexpectedEOF, answer(200, "")}, []time.Duration{0, 500 * ms, 1500 * ms}, 200},
		{"away", ClientConfig{Tries: 2}, 0, []any{refused}, []time.Duration{0, 500 * ms}, 0},
		{"away, and a person waits", ClientConfig{Once: true}, 0, []any{refused}, []time.Duration{0}, 0},
		{"no such name", ClientConfig{}, 0, []any{nobody}, []time.Duration{0}, 0},
		{"too long", ClientConfig{MaxBody: 3}, 0, []any{answer(200, "1234")}, []time.Duration{0}, 0},
		{"just not too long", ClientConfig{MaxBody: 3}, 0, []any{answer(200, "123")}, []time.Duration{0}, 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{answers: test.answers}
				ctx, cancel := context.WithTimeout(t.Context(), stdcmp.Or(test.within, time.Hour))
				defer cancel()
				r, err := s.client(test.config).Do(ctx, get)
				if (err == nil) != (test.status > 0) || err == nil && r.Status != test.status {
					t.Errorf("expected status %d, got %+v, %v", test.status, r, err)
				}
				if diff := cmp.Diff(test.calls, s.calls); diff != "" {
					t.Errorf("calls (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestClientStopsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []any{answer(503, "", "Retry-After", "120")}}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		r, err := s.client(ClientConfig{}).Do(ctx, get)
		if err != nil || r.Status != 503 || time.Since(began) != time.Second || len(s.calls) != 1 {
			t.Errorf("expected the last answer after a second, got %+v, %v after %s", r, err, time.Since(began))
		}
	})
}

func TestClientTellsOfWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []any{answer(503, ""), errors.Join(io.ErrUnexpectedEOF), answer(200, "")}}
		var told []string
		c := s.client(ClientConfig{Waiting: func(wait time.Duration, r *Response, err error) {
			if r != nil {
				told = append(told, wait.String()+" status")
			} else if err != nil {
				told = append(told, wait.String()+" error")
			}
		}})
		if _, err := c.Do(t.Context(), get); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"500ms status", "1s error"}, told); diff != "" {
			t.Errorf("waits (-want +got):\n%s", diff)
		}
	})
}

func TestClientMakesNoCallWhileBanned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []any{answer(403, musterBan), answer(200, "{}")}}
		c := s.client(ClientConfig{Budget: open(t, BudgetConfig{})})
		var banned *BannedError
		if _, err := c.Login(t.Context(), get); !errors.As(err, &banned) || !banned.Sent {
			t.Fatalf("expected the ban, got %v", err)
		}
		for range 3 {
			time.Sleep(19 * time.Minute)
			for _, call := range []func(context.Context, func(context.Context) (*http.Request, error)) (*Response, error){c.Do, c.Login} {
				if _, err := call(t.Context(), get); !errors.As(err, &banned) || banned.Sent {
					t.Fatalf("expected no call, got %v", err)
				}
			}
		}
		if len(s.calls) != 1 {
			t.Fatalf("%d calls during the ban", len(s.calls)-1)
		}
		time.Sleep(3*time.Minute + afterBan)
		if _, err := c.Login(t.Context(), get); err != nil {
			t.Errorf("after the ban: %v", err)
		}
	})
}

func TestClientGoesOnDuringABanFromLogins(t *testing.T) {
	s := &script{answers: []any{answer(403, `{"code":"banned","scope":"login","retry_after":3600,"reason":"x"}`), answer(200, "{}")}}
	c := s.client(ClientConfig{Budget: open(t, BudgetConfig{})})
	var banned *BannedError
	if _, err := c.Login(t.Context(), get); !errors.As(err, &banned) {
		t.Fatal(err)
	}
	if r, err := c.Do(t.Context(), get); err != nil || r.Status != 200 {
		t.Errorf("a call with a token: expected it to be made, got %v", err)
	}
	if _, err := c.Login(t.Context(), get); !errors.As(err, &banned) || banned.Sent {
		t.Errorf("a login: expected it not to be made, got %v", err)
	}
}

func TestClientSpendsEveryTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []any{answer(503, "")}}
		c := s.client(ClientConfig{Tries: 10, Budget: open(t, BudgetConfig{Threshold: 4, Reserve: 1})})
		_, err := c.Login(t.Context(), get)
		var spent *muster.Error
		if !errors.As(err, &spent) || spent.Code != muster.RateLimited || spent.RetryAfter <= 0 || len(s.calls) != 3 {
			t.Errorf("expected 3 calls and then to be held back, got %d and %v", len(s.calls), err)
		}
	})
}

func TestStanding(t *testing.T) {
	base, err := url.Parse("http://upstream.example/prefix/")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name     string
		r        *Response
		isMuster bool
		want     Standing
	}{
		{"free", answer(200, `{"address":"203.0.113.9","banned":false,"findings":[],"server":"muster"}`), true, Standing{Address: "203.0.113.9"}},
		{
			"banned", answer(200, `{"address":"203.0.113.9","banned":true,"until":"2026-11-21T04:00:00Z","reason":"x","scope":"all","extends_on_retry":true,"limit":"l","check":["c"],"look":"","appeal":"","findings":[{"kind":"restart-loop","severity":"warning","summary":"s","fix":"f"}],"server":"muster"}`), true,
			Standing{
				Address: "203.0.113.9", Banned: true, Findings: []muster.Finding{{Kind: muster.RestartLoop, Severity: muster.Warning, Summary: "s", Fix: "f"}},
				Ban: Ban{Until: t0.Add(time.Hour), Reason: "x", Address: "203.0.113.9", Extends: true, Limit: "l", Check: []string{"c"}},
			},
		},
		{"another server", answer(200, `{"banned":true}`), false, Standing{}},
		{"no such route", answer(404, `{"server":"muster"}`), false, Standing{}},
		{"a page", answer(200, "<html>"), false, Standing{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &script{answers: []any{test.r}}
			c := s.client(ClientConfig{Now: func() time.Time { return t0 }})
			got, isMuster, r, err := AskStanding(t.Context(), c, base)
			if err != nil || isMuster != test.isMuster || r.Status != test.r.Status {
				t.Fatalf("expected a Muster: %v, got %v, %+v, %v", test.isMuster, isMuster, r, err)
			}
			if diff := cmp.Diff(test.want, got, cmpopts.EquateComparable(muster.Source{})); diff != "" {
				t.Errorf("standing (-want +got):\n%s", diff)
			}
		})
	}
}
