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
		"claim is escaped":            {path: "/enroll/<b>", status: 200, body: "claim &lt;b&gt;"},
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
			if !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'self'") {
				t.Error("without a content security policy")
			}
		})
	}
}
