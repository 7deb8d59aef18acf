package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"muster"
)

// ClientConfig configures a Client; its zero value is useful.
type ClientConfig struct {
	HTTP    *http.Client // its Timeout is for one try; nil: one with 20 s that follows no redirect
	Backoff Backoff
	Tries   int           // of one call, the first included; 0: 5
	MaxWait time.Duration // a call that would have to wait longer for its next try ends instead; 0: 5 minutes
	MaxBody int64         // bytes of an answer, decompressed; 0: 1 MiB
	// Once: what fails on the network is not tried again. For people, who wait.
	Once   bool
	Budget *Budget // what logins are spent from, and what knows of bans; nil: none is kept
	// Waiting is told before each wait why it waits: r is the answer, nil when err
	// is set. nil: nobody is told.
	Waiting func(wait time.Duration, r *Response, err error)
	Now     func() time.Time // nil: time.Now
}

// Client makes calls to an upstream. It is safe for concurrent use.
type Client struct{ cfg ClientConfig }

// Response is an answer, read to its end.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// NewClient returns a client.
func NewClient(c ClientConfig) *Client {
	if c.HTTP == nil {
		c.HTTP = &http.Client{
			Timeout: 20 * time.Second,
			// A redirected POST arrives as a GET, without its body.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	c.Tries = cmp.Or(c.Tries, 5)
	c.MaxWait = cmp.Or(c.MaxWait, 5*time.Minute)
	c.MaxBody = cmp.Or(c.MaxBody, 1<<20)
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Client{cfg: c}
}

// Do makes a call. build makes the request for each try; it must be one that
// may arrive twice. Answers 429, 503 and 504, and failures of the network that
// may pass, are tried again as the Backoff says, as long as that ends before
// ctx does; all other answers are returned as they came, 401 and 403 too. An
// answer that is a ban is a *BannedError; while a ban is known no call is made.
// Where tries run out the last answer or error is returned.
func (c *Client) Do(ctx context.Context, build func(context.Context) (*http.Request, error)) (*Response, error) {
	return c.do(ctx, build, false)
}

// Login is Do for a login: each try is spent from the Budget first. When the
// Budget has none left the error is of code muster.RateLimited, with the wait
// in RetryAfter.
func (c *Client) Login(ctx context.Context, build func(context.Context) (*http.Request, error)) (*Response, error) {
	return c.do(ctx, build, true)
}

func (c *Client) do(ctx context.Context, build func(context.Context) (*http.Request, error), login bool) (*Response, error) {
	for failures := 1; ; failures++ {
		if err := c.allowed(login); err != nil {
			return nil, err
		}
		r, err := c.try(ctx, build)
		now := c.cfg.Now()
		if err == nil {
			if err := c.saw(now, r, login); err != nil {
				return nil, err
			}
			if !mayPass(r.Status) {
				return r, nil
			}
		} else if c.cfg.Once || ctx.Err() != nil || !mayPassError(err) {
			return nil, err
		}
		if failures >= c.cfg.Tries || !c.wait(ctx, now, failures, r, err) {
			return r, err
		}
	}
}

// mayPass: these mean that the server is busy, not that the call is wrong.
func mayPass(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// mayPassError: a wrong certificate, an unknown name and an answer that is too
// long stay so.
func mayPassError(err error) bool {
	var (
		dns         *net.DNSError
		certificate *tls.CertificateVerificationError
		network     net.Error
		closed      = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	)
	switch {
	case errors.As(err, &certificate), errors.As(err, &dns) && dns.IsNotFound:
		return false
	}
	return closed || errors.As(err, &network)
}

// allowed asks the Budget, if there is one.
func (c *Client) allowed(login bool) error {
	if c.cfg.Budget == nil {
		return nil
	}
	now := c.cfg.Now()
	if ban, banned := c.cfg.Budget.Ban(now); banned && (login || !ban.LoginsOnly) {
		return &BannedError{Ban: ban}
	}
	if !login {
		return nil
	}
	wait, err := c.cfg.Budget.Spend(now)
	if err != nil || wait == 0 {
		return err
	}
	spent := muster.Errorf(muster.RateLimited, "no login is left for this upstream before %s: more would end in a ban; who else logs in from here so often?", now.Add(wait).UTC().Format(time.RFC3339))
	spent.RetryAfter = wait
	return spent
}

// saw tells the Budget of an answer, and returns a *BannedError for a ban.
func (c *Client) saw(now time.Time, r *Response, login bool) error {
	var kept error
	if c.cfg.Budget != nil {
		kept = c.cfg.Budget.Saw(now, r, login)
	}
	if ban, banned := BanIn(r, login, now); banned {
		return errors.Join(&BannedError{Ban: ban, Sent: true}, kept)
	}
	// That a ban has ended could not be kept: the answer is worth more, and the
	// worst is silence after a restart until the ban would have ended.
	return nil
}

// try makes the call once and reads the answer.
func (c *Client) try(ctx context.Context, build func(context.Context) (*http.Request, error)) (*Response, error) {
	req, err := build(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := c.cfg.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, c.cfg.MaxBody+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if int64(len(body)) > c.cfg.MaxBody {
		return nil, muster.Errorf(muster.TooLarge, "the answer of %s is longer than %d bytes", req.URL.Host, c.cfg.MaxBody)
	}
	return &Response{Status: resp.StatusCode, Header: resp.Header, Body: body}, nil
}

// wait returns when the next try is due; false when that would be too late.
func (c *Client) wait(ctx context.Context, now time.Time, failures int, r *Response, err error) bool {
	var asked time.Duration
	if r != nil {
		asked, _ = RetryAfter(r.Header, now)
	}
	wait := c.cfg.Backoff.Wait(failures, asked)
	if deadline, ok := ctx.Deadline(); wait > c.cfg.MaxWait || ok && time.Until(deadline) <= wait {
		return false
	}
	if c.cfg.Waiting != nil {
		c.cfg.Waiting(wait, r, err)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Explain says what to do about an upstream at host that does not answer. What
// it returns wraps err.
func Explain(host string, err error) error {
	var (
		dns       *net.DNSError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		timeout   net.Error
	)
	switch {
	case errors.Is(err, muster.TooLarge):
		return err
	case errors.As(err, &dns):
		return fmt.Errorf("the name of %s is not known here: check the address and this machine's resolver: %w", host, err)
	case errors.As(err, &authority):
		return fmt.Errorf("the certificate of %s is signed by an authority that this machine does not trust: add it to the system's certificates, for the engine needs it there too: %w", host, err)
	case errors.As(err, &name):
		return fmt.Errorf("the certificate of %s is for another name: %w", host, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%s did not answer in time: is a firewall between this machine and it? %w", host, err)
	}
	return fmt.Errorf("%s cannot be reached: is it running, and does it listen on an address that this machine can reach (listen in its configuration)? %w", host, err)
}
