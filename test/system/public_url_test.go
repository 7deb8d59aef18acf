package system

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"muster/internal/roles"
)

// TestPublicURLWithAPath puts the server behind a proxy under a path, which the
// proxy takes off or passes on: both are usual.
func TestPublicURLWithAPath(t *testing.T) {
	t.Parallel()
	for name, strip := range map[string]bool{"the proxy takes the path off": true, "the proxy passes the path on": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var backend *url.URL
			transport := &http.Transport{DisableCompression: true}
			t.Cleanup(transport.CloseIdleConnections)
			proxy := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasPrefix(r.URL.Path, "/deep/muster/") && !strings.HasPrefix(r.URL.Path, "/v1/") {
					http.Error(w, "the proxy has no such path", http.StatusBadGateway)
					return
				}
				(&httputil.ReverseProxy{Transport: transport, Rewrite: func(p *httputil.ProxyRequest) {
					p.SetURL(backend)
					if strip {
						p.Out.URL.Path = strings.TrimPrefix(p.Out.URL.Path, "/deep/muster")
					}
				}}).ServeHTTP(w, r)
			}))
			root := "http://" + proxy.Listener.Addr().String()
			base := root + "/deep/muster"
			s := start(t, func(c *roles.Config) { c.PublicURL = base + "/" })
			var err error
			if backend, err = url.Parse(s.url); err != nil {
				t.Fatal(err)
			}
			proxy.Start()
			t.Cleanup(proxy.Close)

			through, papi := *s, *s
			through.url, papi.url = base, root // polls put nothing of papi_url's path before theirs
			for _, k := range kinds {
				t.Run(k.name, func(t *testing.T) {
					t.Parallel()
					c := through.registered(t, k)
					c.enrol(t, s.key(t, s.organisation(t), true)).status(t, 201)
					c.login(t)
					source := address()
					sig := attack(source)
					if k.version == "/v2" {
						sig = sig.v2()
					}
					c.push(t, sig)
					eventually(t, "the fleet list", func() string { return c.pull(t, "?").lacks(source) })
					c.post(t, "/metrics"+k.slash, map[string]any{}).ok(t)
					c.get(t, k.version+"/nothing").status(t, 404)
					c.get(t, k.version+"/signals").status(t, 405)
					s.admin(t, "POST", "/machines/"+c.id+"/orders", map[string]any{"kind": "management/reauth"}, nil)
					for _, from := range []*server{&through, &papi} {
						c.s = from
						if got := c.poll(t, firstContact, 45); len(got) != 1 {
							t.Errorf("orders %v", got)
						}
						c.get(t, "/v1/permissions").status(t, 200)
					}
				})
			}

			// Links for people lead through the proxy.
			q := through.registered(t, engine178)
			link := q.post(t, "/watchers/enroll", map[string]any{"name": "q", "tags": []string{}, "autoenroll": true}).status(t, 201).object(t)["url"].(string)
			if !strings.HasPrefix(link, base+"/enroll/") {
				t.Errorf("the link is %s", link)
			}
			for _, page := range []string{link, base + "/", base + "/readyz"} {
				resp, err := s.http.Get(page)
				if err != nil {
					t.Fatal(err)
				}
				if resp.Body.Close(); resp.StatusCode != 200 {
					t.Errorf("%s: %s", page, resp.Status)
				}
			}
			// The server itself goes on serving without the path.
			s.registered(t, engine178).pull(t, "")
		})
	}
}

func TestRegistrationWithAKey(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *roles.Config) { c.Registration = "key" })
	key := s.key(t, s.organisation(t), true)
	register := func(c *client, key string) answer {
		req := c.request(t, "POST", c.version+"/watchers", toJSON(t, map[string]string{"machine_id": c.id, "password": c.password}), false)
		req.Header.Set("X-Enrolment-Key", key)
		return c.do(t, req)
	}
	c := s.client(engine178)
	if text := c.register(t).status(t, 403).problem(t); !strings.Contains(text, "muster join URL --key KEY") {
		t.Errorf("without a key: %q", text)
	}
	register(c, "nosuchkey").status(t, 403)
	register(c, strings.Repeat("k", 5000)).status(t, 403)
	c.tryLogin(t).status(t, 401)
	register(c, key).ok(t)
	c.login(t)
	c.pull(t, "") // pending, like every registered machine
	if parseToken(t, c.token).enrolled {
		t.Error("the key for registering enrolled the machine")
	}
	c.enrol(t, key).status(t, 201)
	var used struct{ ID, Key string }
	s.admin(t, "POST", "/keys", map[string]any{"auto_accept": true}, &used)
	s.admin(t, "DELETE", "/keys/"+used.ID, nil, nil)
	register(s.client(python), used.Key).status(t, 403)
}

func TestRegistrationClosed(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	c := s.registered(t, engine178)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s.cfg.Registration = "closed"
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		if text := s.client(k).register(t).status(t, 403).problem(t); !strings.Contains(text, "closed") {
			t.Errorf("%q", text)
		}
	}
	c.login(t) // who is registered goes on
	c.enrol(t, s.key(t, s.organisation(t), true)).status(t, 201)
}
