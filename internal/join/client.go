package join

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"muster/internal/upstream"
)

// NormaliseURL returns raw as engines need it: scheme, host, an optional path
// prefix, and a trailing slash.
func NormaliseURL(raw string) (string, error) {
	u, err := url.Parse(strings.TrimSpace(raw))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("expected an address like https://muster.example.org or http://127.0.0.1:8600, got %q", raw)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("expected scheme, host and at most a path in %q: no user, no query, no fragment", u.Redacted())
	}
	u.Scheme, u.Host = strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	if !strings.HasSuffix(u.Path, "/") {
		u = u.JoinPath("/")
	}
	return u.String(), nil
}

// inTheClear reports whether requests to u can be read on a network.
func inTheClear(u *url.URL) bool {
	if u.Scheme == "https" || u.Hostname() == "localhost" {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return err != nil || !addr.IsLoopback()
}

// client speaks CAPI v3 as an engine does.
type client struct {
	base *url.URL
	http *upstream.Client
	key  string // enrolment key, for servers that register nobody without one
}

func newClient(base string, o Options) (*client, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	// A person waits: what does not answer is told at once, and a server that is
	// busy gets a few tries.
	return &client{base: u, key: o.Key, http: upstream.NewClient(upstream.ClientConfig{
		Tries: 4, MaxWait: time.Minute, Once: true, Now: o.Now,
		Waiting: func(wait time.Duration, r *upstream.Response, _ error) {
			say(o.Out, "The server is busy (status %d): trying again in %s.\n", r.Status, max(wait, time.Second).Round(time.Second))
		},
	})}, nil
}

// answer is what a Central API says, good or bad.
type answer struct {
	status  int
	Message string `json:"message"`
	Errors  string `json:"errors"`
	Token   string `json:"token"`
	isJSON  bool
}

// refusal is an answer that is no success.
type refusal struct {
	doing  string
	answer answer
}

func (r *refusal) Error() string {
	text := r.answer.Message
	if r.answer.Errors != "" {
		text += " (" + r.answer.Errors + ")"
	}
	if text == "" {
		text = "no explanation given"
	}
	return fmt.Sprintf("%s was refused with status %d: %s", r.doing, r.answer.status, text)
}

// reach finds out whether a Central API answers at the address: asked for
// decisions without a token, one answers 401 and a JSON object. A Muster is
// asked first whether this address is banned, because that question, alone,
// does not prolong a ban.
func (c *client) reach(ctx context.Context) error {
	standing, _, _, err := upstream.AskStanding(ctx, c.http, c.base)
	if err != nil {
		return c.explain(err)
	}
	if standing.Banned && !standing.Ban.LoginsOnly {
		return c.explain(&upstream.BannedError{Ban: standing.Ban})
	}
	a, err := c.send(ctx, http.MethodGet, "v3/decisions/stream", "", nil)
	if err != nil {
		return err
	}
	if !a.isJSON || a.status != http.StatusUnauthorized && a.status != http.StatusForbidden {
		return fmt.Errorf("%s answers with status %d, but not as a Central API does: is this Muster's address, with its path prefix if it has one?", c.base, a.status)
	}
	return nil
}

func (c *client) register(ctx context.Context, cred Credentials) error {
	return c.do(ctx, "registering this machine", "v3/watchers", "", map[string]any{
		"machine_id": cred.Login, "password": cred.Password,
	}, nil)
}

// session is a login: the token, and what it says about the machine.
type session struct {
	token    string
	enrolled bool
	plan     string
}

func (c *client) login(ctx context.Context, cred Credentials) (session, error) {
	var a answer
	err := c.do(ctx, "logging in", "v3/watchers/login", "", map[string]any{
		"machine_id": cred.Login, "password": cred.Password, "scenarios": []string{},
	}, &a)
	if err != nil {
		return session{}, err
	}
	s := session{token: a.Token}
	// Engines read these claims without checking the signature, so does this.
	parts := strings.Split(a.Token, ".")
	if len(parts) != 3 {
		return session{}, fmt.Errorf("logging in at %s gave no usable token: expected a JWT", c.base)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Organization json.RawMessage `json:"organization_id"`
		Plan         string          `json:"subscription_type"`
	}
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil {
		return session{}, fmt.Errorf("logging in at %s gave a token that cannot be read: %w", c.base, err)
	}
	// Its presence is what an engine goes by, even when it is null.
	s.enrolled, s.plan = claims.Organization != nil, claims.Plan
	return s, nil
}

// enroll returns false when the machine was enrolled before and overwrite is
// not set.
func (c *client) enroll(ctx context.Context, s session, name string, tags []string, overwrite bool) (bool, error) {
	if tags == nil {
		tags = []string{}
	}
	var a answer
	err := c.do(ctx, "enrolling with the key", "v3/watchers/enroll", s.token, map[string]any{
		"attachment_key": c.key, "name": name, "tags": tags, "overwrite": overwrite,
	}, &a)
	return err == nil && (overwrite || a.status != http.StatusOK), err
}

// do posts body and fails with a *refusal unless the answer is 2xx.
func (c *client) do(ctx context.Context, doing, path, token string, body any, out *answer) error {
	a, err := c.send(ctx, http.MethodPost, path, token, body)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if a.status/100 != 2 {
		return &refusal{doing: doing, answer: a}
	}
	if out != nil {
		*out = a
	}
	return nil
}

func (c *client) send(ctx context.Context, method, path, token string, body any) (answer, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return answer{}, err
		}
	}
	resp, err := c.http.Do(ctx, func(ctx context.Context) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, method, c.base.JoinPath(path).String(), bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		req.Header.Set("User-Agent", "muster-join/1.0")
		if body != nil {
			req.Header.Set("Content-Type", "application/json")
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		if c.key != "" {
			req.Header.Set("X-Enrolment-Key", c.key)
		}
		return req, nil
	})
	if err != nil {
		return answer{}, c.explain(err)
	}
	if to := resp.Header.Get("Location"); resp.Status/100 == 3 && to != "" {
		return answer{}, fmt.Errorf("%s redirects to %s: use the final address, because engines lose data when they are redirected", c.base, to)
	}
	a := answer{status: resp.Status}
	a.isJSON = json.Unmarshal(resp.Body, &a) == nil
	return a, nil
}

// explain says what to do about an address that does not answer, or serves no
// one from here.
func (c *client) explain(err error) error {
	var banned *upstream.BannedError
	if errors.As(err, &banned) {
		return fmt.Errorf("%s refuses this machine: %w. Its operator can lift the ban: muster admin ban lift %s", c.base, err, cmp.Or(banned.Ban.Address, "ADDRESS"))
	}
	return upstream.Explain(c.base.String(), err)
}
