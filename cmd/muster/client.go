package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"muster/internal/roles"
)

// server says which Muster an admin command speaks to: the one of the data
// directory through its socket, or one elsewhere with a token.
type server struct {
	URL   string `help:"A Muster elsewhere, instead of the one on this machine." placeholder:"URL" env:"MUSTER_URL"`
	Token string `help:"API token for --url (make one there: muster admin token create)." placeholder:"TOKEN" env:"MUSTER_TOKEN"`
	JSON  bool   `name:"json" help:"Print JSON."`
}

// client speaks the management API.
type client struct {
	http  *http.Client
	base  string
	token string
}

func (s server) client(g *globals) (*client, error) {
	if s.URL != "" {
		u, err := url.Parse(s.URL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("--url: expected http://… or https://…, got %q", s.URL)
		}
		if s.Token == "" {
			return nil, errors.New("--url needs --token (or MUSTER_TOKEN): make one on that server with muster admin token create")
		}
		return &client{http: &http.Client{Timeout: time.Minute}, base: strings.TrimSuffix(s.URL, "/"), token: s.Token}, nil
	}
	cfg, err := g.load()
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(cfg.DataDir, roles.SocketName)
	if _, err := os.Stat(socket); err != nil {
		return nil, fmt.Errorf("no Muster runs with data directory %s: start it (muster serve), name its directory (--data-dir), or name a server elsewhere (--url)", cfg.DataDir)
	}
	return &client{
		base: "http://muster",
		http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				conn, err := d.DialContext(ctx, "unix", socket)
				if err != nil {
					return nil, fmt.Errorf("no Muster answers on %s: is it running? (%w)", socket, err)
				}
				return conn, nil
			},
		}},
	}, nil
}

// call sends in as JSON (nil for none) and reads the answer into out.
func (c *client) call(method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	return c.send(method, path, body, out)
}

// send sends body as it is (nil for none) and reads the answer into out.
func (c *client) send(method, path string, body io.Reader, out any) error {
	req, err := http.NewRequestWithContext(context.Background(), method, c.base+"/api/v1"+path, body)
	if err != nil {
		return err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode >= 300 {
		var problem struct{ Message string }
		if json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&problem) != nil || problem.Message == "" {
			return fmt.Errorf("the server answered %s", res.Status)
		}
		return errors.New(problem.Message)
	}
	if out == nil || res.StatusCode == http.StatusNoContent {
		return nil
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("the server's answer could not be read: %w", err)
	}
	return nil
}

// escape makes one path segment.
func escape(s string) string { return url.PathEscape(s) }
