package swarm

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Watcher is one simulated machine.
type Watcher struct {
	Machine  string // 48 characters, as cscli makes them
	Password string // 64 characters, as cscli makes them
	Token    string // of the last login

	name   string
	login  []byte // body
	engine string // the log processor's id inside signals: never the account's
}

// NewWatcher makes the index-th watcher; the same seed gives the same one.
func NewWatcher(seed uint64, index int) *Watcher {
	rng := rand.New(rand.NewPCG(seed, uint64(index)))
	w := &Watcher{
		Machine:  letters(rng, "0123456789abcdef", 32) + letters(rng, alphanumeric, 16),
		Password: letters(rng, alphanumeric, 64),
		name:     fmt.Sprintf("swarm-%d", index),
		engine:   letters(rng, "0123456789abcdef", 32) + letters(rng, alphanumeric, 16),
	}
	w.declare(footprint(index))
	return w
}

// declare sets the scenarios that the next log-ins declare, a JSON array.
func (w *Watcher) declare(scenarios string) {
	w.login = fmt.Appendf(nil, `{"machine_id":%q,"password":%q,"scenarios":%s}`, w.Machine, w.Password, scenarios)
}

const alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func letters(rng *rand.Rand, alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[rng.IntN(len(alphabet))]
	}
	return string(b)
}

// keepAnswer is how much of an answer is kept where it matters.
const keepAnswer = 8 << 10

// Join registers the watcher, logs it in, enrols it and logs it in again, as
// an engine does: acceptance ends its first token. It fails when the watcher
// is not active afterwards, because its signals would count nowhere.
func (w *Watcher) Join(ctx context.Context, c *Conn, key string) error {
	if _, err := w.expect(ctx, c, w.registration(), 200, 201); err != nil {
		return err
	}
	if err := w.LogIn(ctx, c); err != nil {
		return err
	}
	body := fmt.Appendf(nil, `{"attachment_key":%q,"name":%q,"tags":[],"autoenroll":false}`, key, w.name)
	if _, err := w.expect(ctx, c, Request{Method: "POST", Path: "/v3/watchers/enroll", Token: w.Token, Body: body}, 201, 200); err != nil {
		return err
	}
	if err := w.LogIn(ctx, c); err != nil {
		return err
	}
	if !enrolled(w.Token) {
		return errors.New("the watcher is not active after enrolment: expected a key made with `muster admin key create --accept`")
	}
	return nil
}

// LogIn gets a new token.
func (w *Watcher) LogIn(ctx context.Context, c *Conn) error {
	res, err := w.expect(ctx, c, w.loginRequest(), 200)
	if err != nil {
		return err
	}
	token, ok := jsonString(res.Body, "token")
	if !ok {
		return fmt.Errorf("log-in: expected a token, got %q", clip(res.Body))
	}
	w.Token = string(token)
	return nil
}

func (w *Watcher) registration() Request {
	return Request{Method: "POST", Path: "/v3/watchers", Body: fmt.Appendf(nil, `{"machine_id":%q,"password":%q}`, w.Machine, w.Password)}
}

func (w *Watcher) loginRequest() Request {
	return Request{Method: "POST", Path: "/v3/watchers/login", Body: w.login, Keep: keepAnswer}
}

// SignalsRequest is the push of a batch that Feed.Pack made ready.
func (w *Watcher) SignalsRequest(wire []byte, gzipped bool) Request {
	return Request{Method: "POST", Path: "/v3/signals", Token: w.Token, Body: wire, Gzip: gzipped, Keep: keepAnswer}
}

func (w *Watcher) expect(ctx context.Context, c *Conn, req Request, statuses ...int) (Response, error) {
	req.Keep = keepAnswer
	res, err := c.Do(ctx, req)
	if err != nil {
		return res, err
	}
	for _, s := range statuses {
		if res.Status == s {
			return res, nil
		}
	}
	return res, unexpected(&req, &res, statuses[0])
}

func unexpected(req *Request, res *Response, want int) error {
	if isBan(res.Status, res.Body) {
		return fmt.Errorf("%s %s: expected status %d, got %d: %s (%s)", req.Method, req.Path, want, res.Status, bytes.TrimSpace(clip(res.Body)), banAdvice)
	}
	return fmt.Errorf("%s %s: expected status %d, got %d: %s", req.Method, req.Path, want, res.Status, bytes.TrimSpace(clip(res.Body)))
}

// Many watchers behind one address look like one that logs in all the time.
const banAdvice = "the generator's address is banned: run `muster admin ban lift 127.0.0.1 --reason bench` and " +
	"`muster admin override add --address 127.0.0.0/8 --exempt --reason bench --for 1h` on that server first"

var banCode = []byte(`"code":"banned"`)

// isBan reports whether an answer says that the client's address is banned.
func isBan(status int, body []byte) bool { return status == 403 && bytes.Contains(body, banCode) }

// jsonString finds a string member by its name. It serves the two places where
// a value is known to have no escapes: tokens and their claims.
func jsonString(body []byte, name string) ([]byte, bool) {
	_, rest, ok := bytes.Cut(body, []byte(`"`+name+`":`))
	if !ok {
		return nil, false
	}
	rest, ok = bytes.CutPrefix(bytes.TrimLeft(rest, " "), []byte(`"`))
	if !ok {
		return nil, false
	}
	value, _, ok := bytes.Cut(rest, []byte(`"`))
	return value, ok && len(value) > 0
}

// enrolled reports whether a token has the claim by which engines know that
// they are enrolled.
func enrolled(token string) bool {
	_, rest, _ := bytes.Cut([]byte(token), []byte("."))
	claims, _, _ := bytes.Cut(rest, []byte("."))
	plain, err := base64.RawURLEncoding.AppendDecode(nil, claims)
	return err == nil && bytes.Contains(plain, []byte(`"organization_id"`))
}

// join makes watchers, one for each key, and joins them over several connections
// at once; joined counts them as they come.
func join(ctx context.Context, t Target, seed uint64, connections int, keys []string, joined *atomic.Int64) ([]*Watcher, error) {
	all := make([]*Watcher, len(keys))
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range min(connections, 8, len(keys)) {
		group.Go(func() error {
			c := NewConn(t)
			defer c.Close()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(all) {
					return nil
				}
				all[i] = NewWatcher(seed, i)
				if err := all[i].Join(ctx, c, keys[i]); err != nil {
					return fmt.Errorf("watcher %d of %d: %w", i+1, len(all), err)
				}
				joined.Add(1)
			}
		})
	}
	return all, group.Wait()
}
