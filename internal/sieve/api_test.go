package sieve

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/internal/history"
)

var apiNow = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// fakeHistory answers what it is given and keeps what it was asked.
type fakeHistory struct {
	alerts []muster.SieveAlert
	newest time.Time
	stats  history.Stats
	spread history.Distribution
	made   history.DecisionStats
	err    error

	query history.Query
	since time.Time
}

func (f *fakeHistory) Alerts(_ context.Context, q history.Query) ([]muster.SieveAlert, error) {
	f.query = q
	return f.alerts, f.err
}

func (f *fakeHistory) Alert(_ context.Context, id int64) (muster.SieveAlert, error) {
	for _, a := range f.alerts {
		if a.ID == id {
			return a, f.err
		}
	}
	if f.err != nil {
		return muster.SieveAlert{}, f.err
	}
	return muster.SieveAlert{}, muster.Errorf(muster.NotFound, "there is no alert %d", id)
}

func (f *fakeHistory) HasNewer(than time.Time) bool { return f.newest.After(than) }
func (f *fakeHistory) Stats() history.Stats         { return f.stats }

func (f *fakeHistory) Distribution(since time.Time) history.Distribution {
	f.since = since
	return f.spread
}

func (f *fakeHistory) DecisionStats(since time.Time) history.DecisionStats {
	f.since = since
	return f.made
}

const apiKey = "correct horse"

func newTestAPI(h History, more ...APIRoutes) *API {
	return NewAPI(APIConfig{History: h, Key: apiKey, Now: func() time.Time { return apiNow }}, more...)
}

// ask sends a request with the key and returns the status and the answer.
func ask(t *testing.T, a *API, method, target string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	r.Header.Set("X-Api-Key", apiKey)
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	if got := w.Header().Get("Content-Type"); got != "application/json; charset=utf-8" {
		t.Errorf("%s: Content-Type %q", target, got)
	}
	return w.Code, strings.TrimSpace(w.Body.String())
}

func ptr[T any](v T) *T { return &v }

func TestAPIParameters(t *testing.T) {
	for _, tt := range []struct {
		query string
		want  history.Query
		err   string
	}{
		{query: "", want: history.Query{Limit: 100}},
		{query: "limit=1", want: history.Query{Limit: 1}},
		{query: "limit=1000&offset=5", want: history.Query{Limit: 1000, Offset: 5}},
		{query: "limit=1e2", want: history.Query{Limit: 100}},
		{query: "limit=0", err: "querystring/limit must be >= 1"},
		{query: "limit=1001", err: "querystring/limit must be <= 1000"},
		{query: "limit=", err: "querystring/limit must be integer"},
		{query: "limit=1.5", err: "querystring/limit must be integer"},
		{query: "limit=0x10", err: "querystring/limit must be integer"},
		{query: "limit=NaN", err: "querystring/limit must be integer"},
		{query: "limit=5&limit=6", err: "querystring/limit must be given once"},
		{query: "offset=-1", err: "querystring/offset must be >= 0"},
		{query: "filtered=true&forwardedToCapi=false", want: history.Query{Limit: 100, Filtered: ptr(true), Forwarded: ptr(false)}},
		{query: "filtered=1", err: "querystring/filtered must be boolean"},
		{query: "scenario=" + url.QueryEscape(strings.Repeat("é", 200)), want: history.Query{Limit: 100, Scenario: strings.Repeat("é", 200)}},
		{query: "scenario=" + strings.Repeat("a", 201), err: "querystring/scenario must NOT have more than 200 characters"},
		{query: "scenario=%25_", want: history.Query{Limit: 100, Scenario: "%_"}},
		{query: "country=DE", want: history.Query{Limit: 100, Country: "DE"}},
		{query: "country=de", err: `querystring/country must match pattern "^[A-Z]{2}$"`},
		{query: "country=", err: `querystring/country must match pattern "^[A-Z]{2}$"`},
		{query: "machineId=a.b:c-d_E9", want: history.Query{Limit: 100, Machine: "a.b:c-d_E9"}},
		{query: "machineId=a%20b", err: `querystring/machineId must match pattern`},
		{query: "machineId=" + strings.Repeat("a", 256), err: "querystring/machineId must NOT have more than 255 characters"},
		{query: "ip=192.0.2.1", want: history.Query{Limit: 100, Addr: netip.MustParseAddr("192.0.2.1")}},
		{query: "ip=2001:db8::1", want: history.Query{Limit: 100, Addr: netip.MustParseAddr("2001:db8::1")}},
		{query: "ip=192.0.2.0/24", err: "Invalid IP address format"},
		{query: "since=2026-11-20T11:00:00Z&until=2026-11-20T11:00:00.5%2B01:00", want: history.Query{Limit: 100, Since: apiNow.Add(-time.Hour), Until: time.Date(2026, 11, 20, 10, 0, 0, 5e8, time.UTC)}},
		{query: "since=2026-11-20", err: `querystring/since must match format "date-time"`},
		{query: "since=2019-12-31T23:59:59Z", err: "Since date out of acceptable range"},
		{query: "until=2026-11-21T12:00:01Z", err: "Until date out of acceptable range"},
		{query: "newerThan=1999-01-01T00:00:00Z", err: "newerThan date out of acceptable range"},
		{query: "a=%zz", err: "querystring must be URL-encoded"},
		{query: "unknown=1", want: history.Query{Limit: 100}},
	} {
		h := &fakeHistory{}
		status, answer := ask(t, newTestAPI(h), "GET", "/api/alerts?"+tt.query)
		if tt.err != "" {
			var e map[string]string
			if err := json.Unmarshal([]byte(answer), &e); err != nil || status != 400 || len(e) != 1 || !strings.HasPrefix(e["error"], tt.err) {
				t.Errorf("%s: %d %s, want 400 and %s", tt.query, status, answer, tt.err)
			}
			continue
		}
		sameAddr := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
		if diff := cmp.Diff(tt.want, h.query, sameAddr); status != 200 || answer != "[]" || diff != "" {
			t.Errorf("%s: %d %s: want -, got +:\n%s", tt.query, status, answer, diff)
		}
	}
}

// newerThan decides whether there is an answer, not what is in it.
func TestAPINewerThan(t *testing.T) {
	h := &fakeHistory{newest: apiNow, alerts: []muster.SieveAlert{{ID: 1, ReceivedAt: apiNow.Add(-time.Hour)}}}
	if _, answer := ask(t, newTestAPI(h), "GET", "/api/alerts?newerThan=2026-11-20T12:00:00Z"); answer != "[]" {
		t.Errorf("nothing is newer: %s", answer)
	}
	if _, answer := ask(t, newTestAPI(h), "GET", "/api/alerts?newerThan=2026-11-20T11:59:59.999Z"); !strings.HasPrefix(answer, `[{"id":1,`) {
		t.Errorf("something is newer: %s", answer)
	}
	if !h.query.Since.IsZero() {
		t.Errorf("it is asked for since %s", h.query.Since)
	}
}

func TestAPIAlert(t *testing.T) {
	forwarded := apiNow.Add(time.Second)
	h := &fakeHistory{alerts: []muster.SieveAlert{{ID: 7, Scenario: "a/<b>&", ReceivedAt: apiNow, ForwardedToCAPI: true, ForwardedAt: &forwarded, RawJSON: ptr(`{"a":1}`)}}}
	status, answer := ask(t, newTestAPI(h), "GET", "/api/alerts/7")
	const want = `{"id":7,"uuid":null,"machineId":null,"scenario":"a/<b>&","scenarioHash":null,"scenarioVersion":null,"message":null,"eventsCount":null,"capacity":null,"leakspeed":null,"startAt":null,"stopAt":null,"createdAt":null,"simulated":null,"remediation":null,"hasDecisions":false,"replicated":false,"sourceScope":null,"sourceValue":null,"sourceIp":null,"sourceRange":null,"sourceAsNumber":null,"sourceAsName":null,"sourceCn":null,"geoCountryCode":null,"geoCountryName":null,"geoCity":null,"geoRegion":null,"geoLatitude":null,"geoLongitude":null,"geoTimezone":null,"geoIsp":null,"geoOrg":null,"filtered":false,"filterReasons":null,"forwardedToCapi":true,"localAudit":false,"actor":null,"rawJson":"{\"a\":1}","receivedAt":"2026-11-20T12:00:00.000Z","forwardedAt":"2026-11-20T12:00:01.000Z"}`
	if diff := cmp.Diff(want, answer); status != 200 || diff != "" {
		t.Errorf("%d, want -, got +: %s", status, diff)
	}
	for id, want := range map[string]string{
		"8": `404 {"error":"Alert not found"}`, "99999999999999999999": `404 {"error":"Alert not found"}`, "0": `400 {"error":"params/id must be >= 1"}`,
		"-1": `400 {"error":"params/id must be >= 1"}`, "x": `400 {"error":"params/id must be integer"}`, "1.5": `400 {"error":"params/id must be integer"}`,
	} {
		if status, answer := ask(t, newTestAPI(h), "GET", "/api/alerts/"+id); fmt.Sprintf("%d %s", status, answer) != want {
			t.Errorf("%s: %d %s, want %s", id, status, answer, want)
		}
	}
	h.err = errors.New("/var/lib/secret.db is gone")
	for path, want := range map[string]string{"/api/alerts": `{"error":"Failed to query alerts"}`, "/api/alerts/7": `{"error":"Failed to get alert"}`} {
		if status, answer := ask(t, newTestAPI(h), "GET", path); status != 500 || answer != want {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
}

func TestAPIStatistics(t *testing.T) {
	h := &fakeHistory{}
	for path, want := range map[string]string{
		"/api/stats":              `{"allScenarios":[],"filtered":0,"forwarded":0,"timeBounds":{"max":null,"min":null},"topCountries":[],"topScenarios":[],"total":0}`,
		"/api/stats/distribution": `{"byCountry":[],"byDayOfWeek":[],"byHourOfDay":[],"byScenario":[],"dailyTrend":[],"dateRange":{"from":null,"to":null},"totalAlerts":0}`,
		"/api/stats/decisions":    `{"byCountry":[],"byDayOfWeek":[],"byDurationCategory":[],"byHourOfDay":[],"topScenarios":[],"totalDecisions":0}`,
	} {
		if status, answer := ask(t, newTestAPI(h), "GET", path); status != 200 || answer != want {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	h.stats = history.Stats{Total: 3, Filtered: 1, Forwarded: 2, TopScenarios: []history.ScenarioCount{{Scenario: "a", Count: 3}}, TopCountries: []history.CountryCount{{Country: "DE", Count: 2}}, Min: apiNow, Max: apiNow}
	h.spread = history.Distribution{ByDayOfWeek: []history.DayCount{{Day: 0, DayName: "Sun", Count: 1}}, ByHourOfDay: []history.HourCount{{Hour: 5, Count: 1}}, ByCountry: []history.NamedCountryCount{{CountryCode: "DE", CountryName: "Germany", Count: 1}}, DailyTrend: []history.DateCount{{Date: "2026-11-20", Count: 1}}, Total: 1, From: apiNow}
	h.made = history.DecisionStats{Total: 1, ByDurationCategory: []history.CategoryCount{{Category: "<1h", Count: 1}}}
	for path, want := range map[string]string{
		"/api/stats":              `{"allScenarios":[],"filtered":1,"forwarded":2,"timeBounds":{"max":"2026-11-20T12:00:00.000Z","min":"2026-11-20T12:00:00.000Z"},"topCountries":[{"country":"DE","count":2}],"topScenarios":[{"scenario":"a","count":3}],"total":3}`,
		"/api/stats/distribution": `{"byCountry":[{"countryCode":"DE","countryName":"Germany","count":1}],"byDayOfWeek":[{"day":0,"dayName":"Sun","count":1}],"byHourOfDay":[{"hour":5,"count":1}],"byScenario":[],"dailyTrend":[{"date":"2026-11-20","count":1}],"dateRange":{"from":"2026-11-20T12:00:00.000Z","to":null},"totalAlerts":1}`,
		"/api/stats/decisions":    `{"byCountry":[],"byDayOfWeek":[],"byDurationCategory":[{"category":"<1h","count":1}],"byHourOfDay":[],"topScenarios":[],"totalDecisions":1}`,
	} {
		if status, answer := ask(t, newTestAPI(h), "GET", path); status != 200 || answer != want {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	for _, path := range []string{"/api/stats/distribution", "/api/stats/decisions"} {
		for period, want := range map[string]time.Time{"": apiNow.AddDate(0, 0, -30), "?period=7d": apiNow.AddDate(0, 0, -7), "?period=30d": apiNow.AddDate(0, 0, -30), "?period=all": {}} {
			if status, _ := ask(t, newTestAPI(h), "GET", path+period); status != 200 || !h.since.Equal(want) {
				t.Errorf("%s%s: %d since %s", path, period, status, h.since)
			}
		}
		if status, answer := ask(t, newTestAPI(h), "GET", path+"?period=1y"); status != 400 || answer != `{"error":"Invalid period parameter. Accepted values: 7d, 30d, all"}` {
			t.Errorf("%d %s", status, answer)
		}
	}
}

func TestAPIAccess(t *testing.T) {
	now := apiNow
	a := NewAPI(APIConfig{History: &fakeHistory{}, Key: apiKey, Now: func() time.Time { return now }}, APIRoutes{
		"POST /api/more": func(*http.Request) (any, error) { return nil, muster.Errorf(muster.Forbidden, "no") },
		"GET /api/away":  func(*http.Request) (any, error) { return nil, muster.Errorf(muster.Unavailable, "away") },
		"GET /api/fault": func(*http.Request) (any, error) { return nil, errors.New("secret") },
	})
	call := func(method, path, key, from string) string {
		r := httptest.NewRequest(method, path, nil)
		r.RemoteAddr = from + ":1234"
		if key != "" {
			r.Header.Set("X-Api-Key", key)
		}
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		return strings.TrimSpace(fmt.Sprint(w.Code, " ", w.Header().Get("Retry-After"), " ", w.Body.String()))
	}
	for _, tt := range []struct{ method, path, key, want string }{
		{"GET", "/health", "", `200  {"status":"ok","timestamp":"2026-11-20T12:00:00.000Z"}`},
		{"GET", "/api/alerts", apiKey, `200  []`},
		{"GET", "/api/alerts", "", `401  {"error":"Unauthorized"}`},
		{"GET", "/api/alerts", apiKey + "x", `401  {"error":"Unauthorized"}`},
		{"GET", "/api/nothing", "", `401  {"error":"Unauthorized"}`},
		{"GET", "/api/nothing", apiKey, `404  {"error":"Not found"}`},
		{"POST", "/api/alerts", apiKey, `404  {"error":"Not found"}`},
		{"POST", "/api/more", apiKey, `403  {"error":"no"}`},
		{"GET", "/api/away", apiKey, `502  {"error":"away"}`},
		{"GET", "/api/fault", apiKey, `500  {"error":"Internal server error"}`},
	} {
		if got := call(tt.method, tt.path, tt.key, "192.0.2.1"); got != tt.want {
			t.Errorf("%s %s: got %s, want %s", tt.method, tt.path, got, tt.want)
		}
	}

	// 100 in a minute without a key, by address; with one as many as one likes.
	for i := range strangerRequests {
		if got := call("GET", "/api/stats", "wrong", "198.51.100.7"); !strings.HasPrefix(got, "401") {
			t.Fatalf("request %d: %s", i, got)
		}
	}
	now = now.Add(1500 * time.Millisecond)
	if got := call("GET", "/api/stats", "wrong", "198.51.100.7"); got != `429 59 {"error":"Too many requests"}` {
		t.Error(got)
	}
	if got := call("GET", "/api/alerts", apiKey, "198.51.100.7"); !strings.HasPrefix(got, "200") {
		t.Error(got)
	}
	if got := call("GET", "/health", "", "198.51.100.7"); !strings.HasPrefix(got, "200") {
		t.Error(got)
	}
	if got := call("GET", "/api/stats", "wrong", "198.51.100.8"); !strings.HasPrefix(got, "401") {
		t.Error(got)
	}
	now = now.Add(time.Minute)
	if got := call("GET", "/api/stats", "wrong", "198.51.100.7"); !strings.HasPrefix(got, "401") {
		t.Error(got)
	}

	// Without a key that is set, none fits.
	a = NewAPI(APIConfig{History: &fakeHistory{}})
	for _, key := range []string{"", "0"} {
		if got := call("GET", "/api/stats", key, "192.0.2.1"); !strings.HasPrefix(got, "401") {
			t.Error(got)
		}
	}
}

func TestStrangersAreBounded(t *testing.T) {
	var s strangers
	for i := range 3 * maxStrangers {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		s.spend(addr, apiNow)
	}
	if len(s.seen) > maxStrangers+1 {
		t.Errorf("%d addresses are kept", len(s.seen))
	}
	if s.spend(netip.MustParseAddr("192.0.2.1"), apiNow) == 0 {
		t.Error("those beyond do not share one count")
	}
	if s.spend(netip.MustParseAddr("192.0.2.1"), apiNow.Add(time.Minute)) != 0 || len(s.seen) > 2 {
		t.Errorf("%d are kept a minute later", len(s.seen))
	}
}

// document is what is read of the OpenAPI document.
type document struct {
	OpenAPI    string                          `json:"openapi"`
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Schemas map[string]schema `json:"schemas"`
	} `json:"components"`
}

type operation struct {
	Parameters []struct {
		Name     string `json:"name"`
		In       string `json:"in"`
		Required bool   `json:"required"`
		Schema   schema `json:"schema"`
	} `json:"parameters"`
	RequestBody struct {
		Required bool `json:"required"`
		Content  map[string]struct {
			Schema schema `json:"schema"`
		} `json:"content"`
	} `json:"requestBody"`
	Responses map[string]struct {
		Content map[string]struct {
			Schema schema `json:"schema"`
		} `json:"content"`
	} `json:"responses"`
}

type schema struct {
	Ref        string            `json:"$ref"`
	Type       any               `json:"type"`
	Format     string            `json:"format"`
	Pattern    string            `json:"pattern"`
	Minimum    *int              `json:"minimum"`
	Maximum    *int              `json:"maximum"`
	MinLength  *int              `json:"minLength"`
	MaxLength  *int              `json:"maxLength"`
	MaxItems   *int              `json:"maxItems"`
	Default    any               `json:"default"`
	Enum       []string          `json:"enum"`
	Items      *schema           `json:"items"`
	Properties map[string]schema `json:"properties"`
	Required   []string          `json:"required"`
}

// bounds writes a schema as the table does.
func (s schema) bounds() string {
	all := []string{fmt.Sprint(s.Type)}
	span := func(prefix string, low, high *int) {
		if low == nil && high == nil {
			return
		}
		text := prefix
		if low != nil {
			text += strconv.Itoa(*low)
		}
		text += ".."
		if high != nil {
			text += strconv.Itoa(*high)
		}
		all = append(all, text)
	}
	span("", s.Minimum, s.Maximum)
	span("chars", s.MinLength, s.MaxLength)
	if s.Pattern != "" {
		all = append(all, s.Pattern)
	}
	if s.Format != "" {
		all = append(all, s.Format)
	}
	if s.MaxItems != nil {
		all = append(all, "items<="+strconv.Itoa(*s.MaxItems))
	}
	if s.Default != nil && s.Enum == nil { // the reference does not name those of periods
		all = append(all, fmt.Sprint("default=", s.Default))
	}
	return strings.Join(all, " ")
}

// describe writes an operation as the table does.
func (d *document) describe(o operation) (lines []string) {
	for _, p := range o.Parameters {
		if p.In == "header" { // which the reference leaves out
			continue
		}
		required := ""
		if p.Required {
			required = "required "
		}
		lines = append(lines, "in "+p.In+" "+p.Name+" "+required+p.Schema.bounds())
	}
	if body := o.RequestBody.Content["application/json"].Schema; body.Type == "array" {
		lines = append(lines, "body [] "+body.bounds())
	} else {
		for name, field := range body.Properties {
			if slices.Contains(body.Required, name) {
				lines = append(lines, "body "+name+" "+field.bounds())
			}
		}
	}
	out := o.Responses["200"].Content["application/json"].Schema
	if out.Type == "array" {
		return append(lines, "out []")
	}
	fields := []string{}
	for name := range d.resolve(out).Properties {
		fields = append(fields, name)
	}
	slices.Sort(fields)
	return append(lines, "out "+strings.Join(fields, " "))
}

func (d *document) resolve(s schema) schema {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		return d.Components.Schemas[name]
	}
	return s
}

func readDocument(t *testing.T) *document {
	t.Helper()
	w := httptest.NewRecorder()
	newTestAPI(&fakeHistory{}).ServeHTTP(w, httptest.NewRequest("GET", "/openapi.json", nil))
	d := &document{}
	if err := json.Unmarshal(w.Body.Bytes(), d); err != nil || w.Code != 200 || d.OpenAPI != "3.1.0" {
		t.Fatalf("%d, %v, OpenAPI %q", w.Code, err, d.OpenAPI)
	}
	return d
}

// The document has the paths, parameters and fields of CrowdSieve's reference.
func TestOpenAPIIsTheSeeds(t *testing.T) {
	f, err := os.Open("testdata/seed.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, at := map[string][]string{}, ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		switch {
		case line == "" || line[0] == '#':
		case line[0] != ' ':
			at = line
			want[at] = nil
		default:
			line = strings.TrimSpace(line)
			if fields, ok := strings.CutPrefix(line, "out "); ok && fields != "[]" {
				all := strings.Fields(fields)
				slices.Sort(all)
				line = "out " + strings.Join(all, " ")
			}
			want[at] = append(want[at], line)
		}
	}
	d, got := readDocument(t), map[string][]string{}
	for path, operations := range d.Paths {
		for method, o := range operations {
			got[strings.ToUpper(method)+" "+path] = d.describe(o)
		}
	}
	for _, lines := range []map[string][]string{want, got} {
		for _, all := range lines {
			slices.Sort(all)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the reference -, the document +:\n%s", diff)
	}
}

// What is answered has the fields of the document, no more and no less.
func TestAnswersAreTheDocuments(t *testing.T) {
	d := readDocument(t)
	h := &fakeHistory{
		alerts: []muster.SieveAlert{{ID: 1}},
		stats:  history.Stats{TopScenarios: make([]history.ScenarioCount, 1), AllScenarios: make([]history.ScenarioCount, 1), TopCountries: make([]history.CountryCount, 1)},
		spread: history.Distribution{ByDayOfWeek: make([]history.DayCount, 1), ByHourOfDay: make([]history.HourCount, 1), ByCountry: make([]history.NamedCountryCount, 1), ByScenario: make([]history.ScenarioCount, 1), DailyTrend: make([]history.DateCount, 1)},
		made:   history.DecisionStats{ByDayOfWeek: make([]history.DayCount, 1), ByHourOfDay: make([]history.HourCount, 1), ByDurationCategory: make([]history.CategoryCount, 1), TopScenarios: make([]history.ScenarioCount, 1), ByCountry: make([]history.NamedCountryCount, 1)},
	}
	for _, path := range []string{"/health", "/api/alerts", "/api/alerts/{id}", "/api/stats", "/api/stats/distribution", "/api/stats/decisions"} {
		_, answer := ask(t, newTestAPI(h), "GET", strings.ReplaceAll(path, "{id}", "1"))
		var got any
		if err := json.Unmarshal([]byte(answer), &got); err != nil {
			t.Fatal(err)
		}
		d.check(t, path, d.Paths[path]["get"].Responses["200"].Content["application/json"].Schema, got)
	}
}

func (d *document) check(t *testing.T, at string, s schema, got any) {
	t.Helper()
	s = d.resolve(s)
	switch got := got.(type) {
	case map[string]any:
		for name, value := range got {
			field, ok := s.Properties[name]
			if !ok {
				t.Errorf("%s: the document does not have %s", at, name)
				continue
			}
			d.check(t, at+"."+name, field, value)
		}
		for _, name := range s.Required {
			if _, ok := got[name]; !ok {
				t.Errorf("%s: %s is missing", at, name)
			}
		}
	case []any:
		if s.Items == nil || len(got) == 0 {
			t.Fatalf("%s: a list of %d, the document has %v", at, len(got), s.Type)
		}
		d.check(t, at+"[]", *s.Items, got[0])
	default:
		kind := map[bool]string{true: "null"}[got == nil]
		switch got.(type) {
		case string:
			kind = "string"
		case float64:
			kind = "integer"
		case bool:
			kind = "boolean"
		}
		if !strings.Contains(fmt.Sprint(s.Type), kind) {
			t.Errorf("%s: %v is no %v", at, got, s.Type)
		}
	}
}
