package reach

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tester is *testing.T, *testing.B or *rapid.T.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// world is all that a Service stands on, in memory.
type world struct {
	now          time.Time
	integrations []muster.Integration
	seen         map[string]muster.IntegrationContact
	reports      []muster.IntegrationReport

	network  map[muster.Audience]map[muster.Source]muster.ListEntry
	versions map[muster.Audience]uint64
	lists    map[string]*list
	reads    map[string][]muster.Blocklist // by integration
	allowed  map[string]sources            // by organisation
	allowing uint64
	never    sources
	wrong    []string // integrations that were tried with wrong secrets
	refuse   error    // what WrongSecret returns
	failing  error    // what Entries returns
}

type list struct {
	muster.Blocklist
	entries map[muster.Source]muster.ListEntry
	version uint64
}

type sources map[muster.Source]bool

// Covers reports whether any address of s is one of a's.
func (a sources) Covers(s muster.Source) (string, bool) {
	for source := range a {
		if source.Prefix().Overlaps(s.Prefix()) {
			return "", true
		}
	}
	return "", false
}

func source(text string) muster.Source {
	s, err := muster.ParseSource(text)
	if err != nil {
		panic(err)
	}
	return s
}

var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

const (
	gateID = "01a1fb7c-0e50-7ac2-9f0f-000000000001" // a firewall of o1, user u
	webID  = "01a1fb7c-0e50-7ac2-9f0f-000000000002" // a bouncer of o1
	secret = "hunter2hunter2hunter2hunter2hunter2"
)

func newWorld() *world {
	sum := sha256.Sum256([]byte(secret))
	return &world{
		now: start, seen: map[string]muster.IntegrationContact{},
		network:  map[muster.Audience]map[muster.Source]muster.ListEntry{},
		versions: map[muster.Audience]uint64{}, lists: map[string]*list{}, allowed: map[string]sources{}, never: sources{},
		integrations: []muster.Integration{
			{ID: gateID, Name: "gate", Kind: muster.FirewallIntegration, Organisation: "o1", Format: "plain_text", Budget: 10_000, User: "u", Secret: sum[:]},
			{ID: webID, Name: "web", Kind: muster.BouncerIntegration, Organisation: "o1", Secret: sum[:]},
		},
		reads: map[string][]muster.Blocklist{
			gateID: {{ID: muster.CommunityList, Name: muster.CommunityList}},
			webID:  {{ID: muster.CommunityList, Name: muster.CommunityList}},
		},
	}
}

func (w *world) service(t testing.TB) *Service {
	s := New(Config{
		Store: w, Community: w, Catalogue: w, Now: func() time.Time { return w.now },
		Forbidden: func(s muster.Source) bool { _, ok := w.never.Covers(s); return ok },
		Allowlist: func(_, organisation string) (Allowed, uint64) {
			if len(w.allowed[organisation]) == 0 {
				return nil, w.allowing
			}
			return w.allowed[organisation], w.allowing
		},
		WrongSecret: func(_ netip.Addr, id string) error { w.wrong = append(w.wrong, id); return w.refuse },
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// bans puts sources on the network's list, or a fleet's.
func (w *world) bans(a muster.Audience, texts ...string) {
	if w.network[a] == nil {
		w.network[a] = map[muster.Source]muster.ListEntry{}
	}
	for _, text := range texts {
		w.network[a][source(text)] = muster.ListEntry{Source: source(text), Scenario: "crowdsecurity/ssh-bf", Remedy: muster.RemedyBan, Until: w.now.Add(48 * time.Hour)}
	}
	w.versions[a]++
}

func (w *world) lifts(a muster.Audience, texts ...string) {
	for _, text := range texts {
		delete(w.network[a], source(text))
	}
	w.versions[a]++
}

// puts makes a custom list, or adds to it, for ever.
func (w *world) puts(name string, texts ...string) {
	l := w.lists[name]
	if l == nil {
		l = &list{Blocklist: muster.Blocklist{ID: name, Name: name, Kind: muster.CustomList, Lifetime: 24 * time.Hour}, entries: map[muster.Source]muster.ListEntry{}}
		w.lists[name] = l
	}
	for _, text := range texts {
		l.entries[source(text)] = muster.ListEntry{Source: source(text)}
	}
	l.version++
}

func (w *world) Each(a muster.Audience, fn func(muster.ListEntry) bool) {
	for s, e := range w.network[a] {
		if _, bad := w.never.Covers(s); !bad && e.Until.After(w.now) && !fn(e) {
			return
		}
	}
}

func (w *world) Lookup(a muster.Audience, addr netip.Addr) (muster.ListEntry, bool) {
	for bits := addr.BitLen(); bits >= 8; bits-- {
		s := muster.SourceFromPrefix(netip.PrefixFrom(addr, bits))
		if e, ok := w.network[a][s]; ok && e.Until.After(w.now) {
			return e, true
		}
	}
	return muster.ListEntry{}, false
}

func (w *world) Version(a muster.Audience) uint64 { return w.versions[a] }

func (w *world) Subscribed(s muster.Subscriber) []muster.Blocklist { return w.reads[s.ID] }

func (w *world) Entries(_ context.Context, name, _ string) ([]muster.ListEntry, uint64, error) {
	l := w.lists[name]
	if l == nil {
		return nil, 0, muster.Errorf(muster.NotFound, "there is no list %q", name)
	}
	return slices.Collect(maps.Values(l.entries)), l.version, w.failing
}

func (w *world) Integrations(context.Context) ([]muster.Integration, error) {
	return w.integrations, nil
}

func (w *world) TouchIntegrations(_ context.Context, seen map[string]muster.IntegrationContact) error {
	maps.Copy(w.seen, seen)
	return nil
}

func (w *world) PutIntegrationReport(_ context.Context, r muster.IntegrationReport) error {
	w.reports = append(w.reports, r)
	return nil
}

// firewall asks for a file. Headers are pairs of name and value.
func pull(t tester, s *Service, method, query string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	return ask(t, s, method, muster.IntegrationPath+gateID+"/content"+query, nil, append([]string{"Authorization", basic("u", secret)}, headers...)...)
}

func basic(user, password string) string {
	r := httptest.NewRequest("GET", "/", nil)
	r.SetBasicAuth(user, password)
	return r.Header.Get("Authorization")
}

// bouncer asks as one does.
func bouncer(t tester, s *Service, method, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	return ask(t, s, method, muster.IntegrationPath+webID+"/v1/"+path, nil, append([]string{"X-Api-Key", secret, "User-Agent", "test/v1"}, headers...)...)
}

func ask(t tester, s *Service, method, path string, body io.Reader, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, body)
	r.RemoteAddr = "45.9.99.1:1234"
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "From" {
			r.RemoteAddr = headers[i+1] + ":1234"
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// text is an answer's body, unpacked.
func text(t tester, w *httptest.ResponseRecorder) string {
	t.Helper()
	if w.Header().Get("Content-Encoding") != "gzip" {
		return w.Body.String()
	}
	zip, err := gzip.NewReader(bytes.NewReader(w.Body.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// decision is one as bouncers read it; what is missing is nil.
type decision struct {
	ID                                             int64
	Origin, Type, Scope, Value, Duration, Scenario *string
}

// changes is an answer to a stream pull: values with type and what they are for.
type changes struct{ New, Deleted []string }

func told(t tester, w *httptest.ResponseRecorder) changes {
	t.Helper()
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	var got struct{ New, Deleted []decision }
	if err := json.Unmarshal([]byte(text(t, w)), &got); err != nil {
		t.Fatalf("%v in %s", err, text(t, w))
	}
	if got.New == nil || got.Deleted == nil {
		t.Fatalf("null instead of []: %s", text(t, w))
	}
	return changes{worded(t, got.New), worded(t, got.Deleted)}
}

// worded checks that a decision is whole, and says it shortly.
func worded(t tester, list []decision) []string {
	t.Helper()
	words := []string{}
	for _, d := range list {
		if d.Origin == nil || d.Type == nil || d.Scope == nil || d.Value == nil || d.Duration == nil || d.Scenario == nil || d.ID == 0 {
			t.Fatalf("an incomplete decision: %+v", d)
		}
		if _, err := time.ParseDuration(*d.Duration); err != nil {
			t.Fatal(err)
		}
		words = append(words, strings.Join([]string{*d.Value, *d.Scope, *d.Type, *d.Origin, *d.Scenario, *d.Duration}, " "))
	}
	slices.Sort(words)
	return words
}
