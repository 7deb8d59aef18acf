package console

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/internal/catalog"
)

// shed keeps integrations and what they read, in memory.
type shed struct {
	list    []muster.Integration
	reports []muster.IntegrationReport
	reads   map[string][]muster.Blocklist
	audit   []muster.AuditEntry
	contact muster.IntegrationContact
	fail    error
}

func (s *shed) Integrations(context.Context) ([]muster.Integration, error) {
	return slices.Clone(s.list), s.fail
}

func (s *shed) CreateIntegration(_ context.Context, i muster.Integration, audit ...muster.AuditEntry) error {
	if slices.ContainsFunc(s.list, func(have muster.Integration) bool {
		return have.Name == i.Name && have.Organisation == i.Organisation
	}) {
		return muster.Errorf(muster.Exists, "there is an integration %q already", i.Name)
	}
	s.list, s.audit = append(s.list, i), append(s.audit, audit...)
	return nil
}

func (s *shed) UpdateIntegration(_ context.Context, id string, change func(*muster.Integration) error, audit ...muster.AuditEntry) (muster.Integration, error) {
	for n := range s.list {
		if s.list[n].ID == id {
			changed := s.list[n]
			if err := change(&changed); err != nil {
				return changed, err
			}
			s.list[n], s.audit = changed, append(s.audit, audit...)
			return changed, nil
		}
	}
	return muster.Integration{}, missing("integration")
}

func (s *shed) DeleteIntegration(_ context.Context, id string, audit ...muster.AuditEntry) error {
	s.list, s.audit = slices.DeleteFunc(s.list, func(i muster.Integration) bool { return i.ID == id }), append(s.audit, audit...)
	return nil
}

func (s *shed) IntegrationReports(context.Context, string) ([]muster.IntegrationReport, error) {
	return s.reports, nil
}

func (s *shed) Subscribed(by muster.Subscriber) []muster.Blocklist { return s.reads[by.ID] }

func (s *shed) Subscribe(_ context.Context, sub muster.Subscription, _ catalog.By) (muster.Subscription, error) {
	if !slices.Contains([]string{"community", "ours"}, sub.Blocklist) {
		return sub, missing("blocklist")
	}
	s.reads[sub.Subscriber.ID] = append(s.reads[sub.Subscriber.ID], muster.Blocklist{ID: sub.Blocklist, Name: sub.Blocklist, Remedy: muster.RemedyBan})
	return sub, nil
}

func (s *shed) Unsubscribe(_ context.Context, list string, by muster.Subscriber, _ catalog.By) error {
	s.reads[by.ID] = slices.DeleteFunc(s.reads[by.ID], func(l muster.Blocklist) bool { return l.ID == list })
	return nil
}

func newShedRig(t testing.TB) (*rig, *shed) {
	t.Helper()
	r, s := newRig(t), &shed{reads: map[string][]muster.Blocklist{}}
	r.cfg.Integrations, r.cfg.IntegrationLists = s, s
	r.cfg.IntegrationContact = func(string) (muster.IntegrationContact, bool) { return s.contact, true }
	r.cfg.IntegrationsChanged = func(context.Context) error { r.changed = append(r.changed, "integrations"); return nil }
	return r, s
}

// make makes an integration and returns what the API said about it.
func (s *shed) make(t *testing.T, r *rig, body string) integrationView {
	t.Helper()
	a := r.do("POST", "/api/v1/integrations", body)
	var v integrationView
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || a.status != http.StatusOK {
		t.Fatalf("%d %s %v", a.status, a.body, err)
	}
	return v
}

func TestCreateIntegration(t *testing.T) {
	r, s := newShedRig(t)
	v := s.make(t, r, `{"name":"office","format":"sophos","organisation":"beta","reason":"new"}`)
	i := s.list[0]
	sum := sha256.Sum256([]byte(v.Secret))
	if string(i.Secret) != string(sum[:]) || len(v.Secret) != 26 || v.User != i.User || len(v.User) != 12 {
		t.Errorf("credentials: %+v of %+v", v, i)
	}
	if i.Kind != muster.FirewallIntegration || i.Organisation != "org-b" || i.Budget != 10_000 || !i.NoIPv6 || v.URL != "https://muster.test/v1/integrations/"+i.ID+"/content" {
		t.Errorf("made: %+v", i)
	}
	for _, part := range []string{v.URL, v.User, v.Secret} {
		if !strings.Contains(v.Setup, part) {
			t.Errorf("no %q in what to paste: %s", part, v.Setup)
		}
	}
	if len(v.Lists) != 1 || v.Lists[0].ID != muster.CommunityList || v.State != "never" || v.Notes == "" {
		t.Errorf("shown: %+v", v)
	}
	if e := s.audit[0]; e.Action != "integration.create" || e.Reason != "new" || strings.Contains(string(e.Detail), v.Secret) {
		t.Errorf("audit: %+v", e)
	}
	if strings.Join(r.changed, " ") != "integrations" {
		t.Errorf("told: %v", r.changed)
	}

	web := s.make(t, r, `{"name":"web","lists":["ours"]}`)
	if web.Kind != muster.BouncerIntegration || web.Organisation != "org-a" || web.User != "" || web.URL != "https://muster.test/v1/integrations/"+web.ID ||
		!strings.Contains(web.Setup, "api_key: "+web.Secret) || web.Budget != 0 || web.Lists[0].ID != "ours" {
		t.Errorf("a bouncer: %+v", web)
	}

	for body, status := range map[string]int{
		`{"name":"office","format":"f5","organisation":"beta"}`:            409,
		`{"name":"Office","format":"f5"}`:                                  400,
		`{"name":"a","format":"sonicwall"}`:                                400,
		`{"name":"a","kind":"firewall"}`:                                   400,
		`{"name":"a","kind":"bouncer","format":"f5"}`:                      400,
		`{"name":"a","kind":"x"}`:                                          400,
		`{"name":"a","collateral":0.1}`:                                    400,
		`{"name":"a","interval_seconds":10}`:                               400,
		`{"name":"a","format":"f5","collateral":0.6}`:                      400,
		`{"name":"a","format":"sophos","collateral":0.1}`:                  400,
		`{"name":"a","format":"sophos","ipv4":false,"ipv6":true}`:          400,
		`{"name":"a","format":"f5","ipv4":false,"ipv6":false}`:             400,
		`{"name":"a","format":"f5","budget":-1}`:                           400,
		`{"name":"a","format":"f5","interval_seconds":9223372036854775}`:   400,
		`{"name":"a","format":"f5","organisation":"gamma"}`:                404,
		`{"name":"a","format":"f5","lists":["community","nobody's-list"]}`: 404,
		`{"name":"a","format":"f5","surprise":1}`:                          400,
	} {
		if a := r.do("POST", "/api/v1/integrations", body); a.status != status {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if len(s.list) != 2 {
		t.Errorf("expected that nothing is left of what failed, got %+v", s.list)
	}
}

func TestIntegrationsAreShownAndChanged(t *testing.T) {
	r, s := newShedRig(t)
	office := s.make(t, r, `{"name":"office","format":"pfsense"}`)
	web := s.make(t, r, `{"name":"web","organisation":"Beta"}`)
	s.make(t, r, `{"name":"web","organisation":"Alpha"}`)
	s.list[0].Seen = muster.IntegrationContact{Pull: now.Add(-25 * time.Hour), Agent: "pfSense", Addr: netip.MustParseAddr("192.0.2.1"), Entries: 7}
	s.reports = []muster.IntegrationReport{{Addr: netip.MustParseAddr("192.0.2.2"), At: now, Body: []byte(`{"a":1}`)}, {Body: []byte("{")}}
	a := r.do("GET", "/api/v1/integrations/office", "")
	var v integrationView
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatal(err)
	}
	if v.State != "offline" || v.LastClient != "pfSense" || v.LastAddress != "192.0.2.1" || v.LastEntries != 7 || len(v.Usage) != 1 || v.Secret != "" ||
		strings.Contains(a.body, office.Secret) || !strings.Contains(v.Setup, "PASSWORD") {
		t.Errorf("shown: %s", a.body)
	}
	s.contact = muster.IntegrationContact{Pull: now} // here, and not stored yet
	if a := r.do("GET", "/api/v1/integrations/"+office.ID, ""); !strings.Contains(a.body, `"state":"ok"`) {
		t.Errorf("shown: %s", a.body)
	}
	for path, status := range map[string]int{"/nobody": 404, "/web": 400, "/" + web.ID: 200} {
		if a := r.do("GET", "/api/v1/integrations"+path, ""); a.status != status {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	var list []integrationView
	if err := json.Unmarshal([]byte(r.do("GET", "/api/v1/integrations?organisation=beta", "").body), &list); err != nil || len(list) != 1 || list[0].ID != web.ID {
		t.Errorf("of one organisation: %v %+v", err, list)
	}

	a = r.do("PATCH", "/api/v1/integrations/office", `{"name":"door","format":"f5","budget":0,"ipv6":false,"collateral":0.25,"interval_seconds":60,"lists":["ours"]}`)
	i := s.list[0]
	if a.status != 200 || i.Name != "door" || i.Format != "f5" || i.Budget != 0 || !i.NoIPv6 || i.Collateral != 0.25 || i.Interval != time.Minute || s.reads[i.ID][0].ID != "ours" || len(s.reads[i.ID]) != 1 {
		t.Errorf("changed: %d %s %+v %v", a.status, a.body, i, s.reads[i.ID])
	}
	if a := r.do("PATCH", "/api/v1/integrations/door", `{"ipv4":false}`); a.status != 400 {
		t.Errorf("neither family: %d %s", a.status, a.body)
	}
	before := string(s.list[0].Secret)
	a = r.do("POST", "/api/v1/integrations/door/rotate?reason=lost", "")
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || v.Secret == office.Secret || string(s.list[0].Secret) == before || v.User == office.User || !strings.Contains(v.Setup, v.Secret) {
		t.Errorf("rotated: %v %s", err, a.body)
	}
	if a := r.do("DELETE", "/api/v1/integrations/door?reason=sold", ""); a.status != 204 || len(s.list) != 2 || len(s.reads[i.ID]) != 0 {
		t.Errorf("deleted: %d %s", a.status, a.body)
	}
	if e := s.audit[len(s.audit)-1]; e.Action != "integration.delete" || e.Subject != i.ID || e.Reason != "sold" {
		t.Errorf("audit: %+v", e)
	}
	if a := r.do("GET", "/api/v1/integration-formats", ""); strings.Count(a.body, `"format"`) != 11 {
		t.Errorf("formats: %s", a.body)
	}
}
