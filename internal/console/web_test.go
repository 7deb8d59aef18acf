package console

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func TestWeb(t *testing.T) {
	built := fstest.MapFS{
		"index.html":          {Data: []byte("the application")},
		"mark.svg":            {Data: []byte("<svg/>")},
		"assets/index-abc.js": {Data: []byte("the script")},
	}
	const public = "https://example.test/deep/muster/"
	tests := map[string]struct {
		method, path    string
		plain           bool // built without the application
		status          int
		body            string // part of it
		cache, location string
	}{
		"application":                 {path: "/", status: 200, body: "the application", cache: "no-cache"},
		"icon":                        {path: "/mark.svg", status: 200, body: "<svg/>", cache: "no-cache"},
		"asset":                       {path: "/assets/index-abc.js", status: 200, body: "the script", cache: "public, max-age=31536000, immutable"},
		"asset of another version":    {path: "/assets/index-old.js", status: 404, body: "No such page"},
		"folder":                      {path: "/assets/", status: 404, body: "No such page"},
		"unknown path":                {path: "/nothing/here", status: 404, body: "No such page"},
		"path out of the folder":      {path: "/../web.go", status: 404, body: "No such page"},
		"prefix without its slash":    {path: "/deep/muster", status: 302, location: "/deep/muster/"},
		"claim":                       {path: "/enroll/abc", status: 200, body: "muster admin machine claim abc"},
		"claim of HTML":               {path: "/enroll/<b>", status: 404, body: "No such page"},
		"claim of a command":          {path: "/enroll/abc;reboot", status: 404, body: "No such page"},
		"claim of two words":          {path: "/enroll/abc --org x", status: 404, body: "No such page"},
		"claim without a code":        {path: "/enroll/", status: 404, body: "No such page"},
		"claim below a claim":         {path: "/enroll/abc/def", status: 404, body: "No such page"},
		"endless claim":               {path: "/enroll/" + strings.Repeat("a", 65), status: 404, body: "No such page"},
		"only read":                   {method: "POST", path: "/", status: 405, body: "only be read"},
		"plain page":                  {path: "/", plain: true, status: 200, body: "muster join " + public + " --key KEY"},
		"plain page names the remedy": {path: "/", plain: true, status: 200, body: "make build"},
		"unknown path, plain":         {path: "/nothing/here", plain: true, status: 404, body: "No such page"},
		"claim, plain":                {path: "/enroll/abc", plain: true, status: 200, body: "muster admin machine claim abc"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			web := NewWeb(Config{PublicURL: public, Version: "1.2.3"})
			web.files = nil // whatever this checkout has built
			if !test.plain {
				web.files = built
			}
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			if test.method != "" {
				r.Method = test.method
			}
			r.URL.Path = test.path
			w := httptest.NewRecorder()
			web.ServeHTTP(w, r)
			if w.Code != test.status || !strings.Contains(w.Body.String(), test.body) {
				t.Errorf("%d %s, want %d with %q", w.Code, w.Body, test.status, test.body)
			}
			for header, want := range map[string]string{"Cache-Control": test.cache, "Location": test.location} {
				if got := w.Header().Get(header); got != want {
					t.Errorf("%s is %q, want %q", header, got, want)
				}
			}
			for header, want := range map[string]string{
				"Content-Security-Policy": "default-src 'self'", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin",
			} {
				if got := w.Header().Get(header); !strings.Contains(got, want) {
					t.Errorf("%s is %q, want %q in it", header, got, want)
				}
			}
			if test.status == 405 && w.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("Allow is %q", w.Header().Get("Allow"))
			}
		})
	}
}

func TestPlainPageEscapes(t *testing.T) {
	web := NewWeb(Config{PublicURL: `https://example.test/"><script>/`, Version: "<i>1"})
	web.files = nil
	w := httptest.NewRecorder()
	web.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if page := w.Body.String(); strings.Contains(page, "<script>") || strings.Contains(page, "<i>") || !strings.Contains(page, "&lt;script&gt;") {
		t.Errorf("not escaped: %s", page)
	}
}
