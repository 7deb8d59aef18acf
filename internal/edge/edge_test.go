package edge

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// bare is an edge without services: for what is answered before any is asked.
func bare(prefix string, fallback http.Handler) *Edge {
	return New(Config{Prefix: prefix, Fallback: fallback, Now: time.Now})
}

func TestPath(t *testing.T) {
	for _, tc := range []struct{ prefix, path, want string }{
		{"", "/v3/signals", "/v3/signals"},
		{"/", "/v3/metrics/", "/v3/metrics"},
		{"/", "//v3///signals//", "/v3/signals"},
		{"/muster/", "/muster/v3/signals", "/v3/signals"},
		{"/muster/", "/v3/signals", "/v3/signals"}, // the proxy took it off, or polls, which never have it
		{"/muster", "/muster/v3/signals/", "/v3/signals"},
		{"/muster/", "/mustering/v3", "/mustering/v3"},
		{"/muster/", "/muster", "/muster"},
		{"/muster/", "/muster//v3//signals", "/v3/signals"},
		{"/a/b/", "/a/b/v1/permissions", "/v1/permissions"},
		{"", "/", "/"},
		{"", "", ""},
		{"", "*", "*"},
	} {
		if got := bare(tc.prefix, nil).path(tc.path); got != tc.want {
			t.Errorf("under %q, %q is %q, expected %q", tc.prefix, tc.path, got, tc.want)
		}
	}
}

// TestRoutes says what is there, by method.
func TestRoutes(t *testing.T) {
	e := bare("", nil)
	for _, path := range []string{
		"POST /watchers", "DELETE /watchers", "POST /watchers/login", "POST /watchers/enroll", "POST /watchers/reset", "DELETE /watchers/self",
		"POST /signals", "GET /decisions/stream", "HEAD /decisions/stream", "POST /decisions/delete", "POST /decisions/sync",
		"POST /metrics", "POST /usage-metrics", "GET /heartbeat",
	} {
		method, path, _ := strings.Cut(path, " ")
		for _, version := range []string{"/v2", "/v3"} {
			if _, ok := e.routes[version+path][method]; !ok {
				t.Errorf("no %s %s%s", method, version, path)
			}
		}
	}
	for _, path := range []string{"/v1/decisions/stream/poll", "/v1/permissions"} {
		if _, ok := e.routes[path]["GET"]; !ok {
			t.Errorf("no GET %s", path)
		}
	}
}

func TestWhatIsNotThere(t *testing.T) {
	fallback := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write([]byte(r.URL.Path))
	})
	for _, tc := range []struct {
		method, path string
		status       int
		says         string
	}{
		{"GET", "/v3/nothing", 404, `{"message":"there is no /v3/nothing here`},
		{"POST", "/muster/v2/nothing/", 404, `{"message":"there is no /v2/nothing here`},
		{"GET", "/v1/nothing", 404, `{"error":"there is no /v1/nothing here`},
		{"GET", "/v3/signals", 405, `{"message":"expected POST for /v3/signals, got GET"}`},
		{"PUT", "/v3/watchers", 405, `{"message":"expected POST or DELETE for /v3/watchers, got PUT"}`},
		{"POST", "/muster/v1/permissions", 405, `{"error":"expected GET for /v1/permissions, got POST"}`},
		{"GET", "/", 418, "/"},
		{"GET", "/enroll/abc", 418, "/enroll/abc"},
		{"GET", "/v1/integrations/i/content", 418, "/v1/integrations/i/content"},
		{"GET", "/muster/v1/integrations/i/v1/decisions/stream", 418, "/v1/integrations/i/v1/decisions/stream"},
		{"GET", "/v2/smoke/192.0.2.1", 418, "/v2/smoke/192.0.2.1"},
		{"GET", "/v2/fire", 418, "/v2/fire"},
		{"GET", "/muster/enroll/abc", 418, "/enroll/abc"},
		{"GET", "/muster/", 418, "/"},
		{"POST", "/api/v1/keys", 418, "/api/v1/keys"},
	} {
		w := httptest.NewRecorder()
		bare("/muster/", fallback).ServeHTTP(w, httptest.NewRequest(tc.method, tc.path, nil))
		if w.Code != tc.status || !strings.HasPrefix(w.Body.String(), tc.says) {
			t.Errorf("%s %s: %d %s", tc.method, tc.path, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	bare("", nil).ServeHTTP(w, httptest.NewRequest("OPTIONS", "/v3/decisions/stream", nil))
	if w.Code != 204 || w.Header().Get("Allow") != "GET, HEAD, OPTIONS" {
		t.Errorf("OPTIONS: %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
}

func TestAcceptsGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip": true, "GZIP": true, "x-gzip": true, "gzip, deflate": true, "deflate, gzip, br, zstd": true, " br , gzip;q=0.1": true,
		"gzip; q=1.0": true, "gzip;q=0": false, "gzip; q=0.000": false, "gzip;q=x": false, "identity": false, "br": false, "gzipped": false, "*": false,
	} {
		if got := acceptsGzip(header); got != want {
			t.Errorf("%q: %t", header, got)
		}
	}
}

func TestMatches(t *testing.T) {
	for header, want := range map[string]bool{
		`"a"`: true, `W/"a"`: true, `"b", "a"`: true, `*`: true, `"b"`: false, `a`: false, `"aa"`: false,
	} {
		if got := matches(header, `"a"`); got != want {
			t.Errorf("%s: %t", header, got)
		}
	}
}

func TestEngineVersion(t *testing.T) {
	for agent, want := range map[string]string{
		"crowdsec/v1.7.8-linux": "v1.7.8", "crowdsec/v1.4.6-6~deb12u1+b1-linux-debian": "v1.4.6", "crowdsec/v1.7.8": "v1.7.8",
		"csphpcapi_Test/v3.5.2": "", "example-capi-py-sdk/0.8.0": "", "": "", "crowdsec/": "",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("User-Agent", agent)
		if got := engineVersion(r); got != want {
			t.Errorf("%q: %q", agent, got)
		}
	}
}
