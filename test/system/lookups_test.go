package system

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
)

// lookUp asks for something with a lookup key.
func (s *server) lookUp(t *testing.T, key, path string, out any) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", key)
	resp, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, out); err != nil {
		t.Fatalf("%s: %d %q", path, resp.StatusCode, raw)
	}
	return resp.StatusCode
}

// What machines report is told to who looks the address up, counted once however
// often it is sent and however often the server starts anew.
func TestLookups(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	n := newNetwork(t, s)
	source, quiet := address(), address()
	n.report(t, source)
	n.b1.push(t, attack(quiet))
	var key struct{ Key string }
	s.admin(t, "POST", "/lookup-keys", map[string]any{"name": "test"}, &key)
	type item struct {
		Reputation string
		Behaviors  []struct{ Name string }
		History    struct {
			FirstSeen *string `json:"first_seen"`
		}
		Scores struct {
			LastDay struct{ Aggressiveness, Threat, Trust, Total int } `json:"last_day"`
		}
	}
	var got item
	for again := range 2 {
		eventually(t, "looking "+source+" up", func() string {
			got = item{}
			if status := s.lookUp(t, key.Key, "/v2/smoke/"+source, &got); status != http.StatusOK || got.Reputation != "malicious" || got.Scores.LastDay.Aggressiveness == 0 {
				return fmt.Sprintf("start %d: status %d, %+v", again, status, got)
			}
			return ""
		})
		if got.Scores.LastDay.Threat != 3 || got.Scores.LastDay.Trust < 3 || len(got.Behaviors) != 1 || got.Behaviors[0].Name != "ssh:bruteforce" || got.History.FirstSeen == nil {
			t.Errorf("start %d: %+v", again, got)
		}
		var one item
		if status := s.lookUp(t, key.Key, "/v2/smoke/"+quiet, &one); status != http.StatusOK || one.Reputation != "known" || one.Scores.LastDay.Total > 1 {
			t.Errorf("start %d: one report: status %d, %+v", again, status, one)
		}
		s.restart(t)
	}
	// A fleet, a canary and a stranger are other matters.
	for path, want := range map[string]int{"/v2/smoke/" + address(): 404, "/v2/smoke/8.8.8.8": 200, "/v2/smoke/10.0.0.1": 200} {
		var any item
		if status := s.lookUp(t, key.Key, path, &any); status != want || want == 200 && any.Reputation != "safe" {
			t.Errorf("%s: %d %+v", path, status, any)
		}
	}
}
