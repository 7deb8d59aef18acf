package system

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"muster/internal/roles"
)

// TestSecretsStayOutOfTheLog logs everything and looks for what nobody may read
// there.
func TestSecretsStayOutOfTheLog(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *roles.Config) { c.Log.Level, c.Registration = "debug", "key" })
	key := s.key(t, s.organisation(t), true)
	var secrets []string
	for _, k := range kinds {
		c := s.client(k)
		credentials := toJSON(t, map[string]string{"machine_id": c.id, "password": c.password})
		req := c.request(t, "POST", k.version+"/watchers", credentials, false)
		req.Header.Set("X-Enrolment-Key", key)
		c.do(t, req).ok(t)
		c.login(t)
		first := c.token
		c.enrol(t, key).status(t, 201)
		c.get(t, k.version+"/decisions/stream").status(t, 401)
		c.login(t)
		c.pull(t, "?startup=true")
		secrets = append(secrets, c.password, first, c.token)

		// What goes wrong is logged with its reason: also without the secret.
		wrong := *c
		wrong.password = "wrongwrongwrong" + c.password
		wrong.tryLogin(t).status(t, 401)
		c.send(t, "POST", k.version+"/watchers/login", []byte(`{"machine_id":["`+c.id+`"],"password":"`+c.password+`"}`), false).status(t, 400)
		c.send(t, "POST", k.version+"/watchers/login", []byte(`{"password":"`+c.password+`","machine_id":"`+c.id+`"`), false).status(t, 400)
		c.enrol(t, "attachment"+c.password[:8]).status(t, 403)
		wrong.token = c.token + "x"
		wrong.get(t, k.version+"/decisions/stream").status(t, 401)
		secrets = append(secrets, "wrongwrongwrong", "attachment"+c.password[:8])
	}
	var token struct{ Token string }
	s.admin(t, "POST", "/tokens", map[string]string{"name": "test"}, &token)
	for _, text := range []string{token.Token, token.Token + "x"} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/api/v1/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+text)
		resp, err := s.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var in any
		if err := json.NewDecoder(resp.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}
	s.admin(t, "POST", "/users", map[string]string{"name": "somebody", "password": "averysecretpassword"}, nil)
	log := s.log.all()
	if !strings.Contains(log, "/watchers/login") || !strings.Contains(log, "status=401") {
		t.Fatalf("the log has no requests in it:\n%s", log)
	}
	for _, secret := range append(secrets, key, token.Token, "averysecretpassword") {
		if i := strings.Index(log, secret); i >= 0 {
			t.Errorf("the log holds %q: …%.200s", secret, log[max(0, i-100):])
		}
	}
	// Nor does the management API show what was shown once.
	for _, path := range []string{"/keys", "/machines", "/tokens", "/users", "/status"} {
		_, text := s.tryAdmin(t, "GET", path, nil, nil)
		for _, secret := range append(secrets, key, token.Token) {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows %q", path, secret)
			}
		}
		if strings.Contains(text, "credential") || strings.Contains(text, "argon2id") {
			t.Errorf("%s shows how secrets are kept: %s", path, text)
		}
	}
}
