package system

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/internal/join"
)

// An engine without papi_url shows its token to the public polling API: joining
// this very server writes the address, and what it writes works.
func TestGotcha13JoinNamesThePollingAPI(t *testing.T) {
	t.Parallel()
	s := shared(t)
	dir := t.TempDir()
	credentials := filepath.Join(dir, "online_api_credentials.yaml")
	config := filepath.Join(dir, "config.yaml")
	text := "api:\n  server:\n    online_client:\n      credentials_path: " + credentials + "\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	err := join.Join(t.Context(), join.Options{URL: s.url, Key: s.key(t, s.organisation(t), true), Config: config, Name: "gotcha13"})
	if err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(credentials)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(written)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		values[key] = value
	}
	// The slash at the end is needed: the client puts the path behind it as it is.
	if values["papi_url"] != s.url+"/" || values["url"] != s.url+"/" {
		t.Errorf("expected both addresses to be %s/, got %q and %q", s.url, values["papi_url"], values["url"])
	}
	if m := s.machine(t, values["login"]); m.State != "active" || m.Name != "gotcha13" {
		t.Errorf("the machine is %+v, expected it active under its name", m)
	}
}
