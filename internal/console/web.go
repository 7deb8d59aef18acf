package console

import (
	"embed"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	"muster/internal/ops"
)

// dist is the built web application; a build without Node leaves it empty.
//
//go:embed all:dist
var dist embed.FS

//go:embed page.html
var pageHTML string

var page = template.Must(template.New("page").Parse(pageHTML))

// notice is what the plain page says.
type notice struct {
	Title      string
	Paragraphs []string
	Commands   []string
	Version    string
}

// Web serves what a browser asks for: the web application, or without one a
// plain page that says how to get it, and the page where a claim leads.
type Web struct {
	cfg   Config
	files fs.FS // nil when the application was not built
}

// NewWeb returns the handler.
func NewWeb(cfg Config) *Web {
	w := &Web{cfg: cfg}
	if sub, err := fs.Sub(dist, "dist"); err == nil {
		if _, err := fs.Stat(sub, "index.html"); err == nil {
			w.files = sub
		}
	}
	return w
}

func (s *Web) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ops.RecordOf(r.Context()).Route = "web"
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Content-Security-Policy", "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		s.notice(w, http.StatusMethodNotAllowed, notice{Title: "Not here", Paragraphs: []string{"This page can only be read."}})
		return
	}
	if code, ok := strings.CutPrefix(r.URL.Path, "/enroll/"); ok && isCode(code) {
		s.claim(w, code)
		return
	}
	if root := s.root(); r.URL.Path == strings.TrimSuffix(root, "/") {
		http.Redirect(w, r, root, http.StatusFound) // what the page loads lies below its own folder
		return
	}
	if s.files != nil && s.application(w, r) {
		return
	}
	if r.URL.Path != "/" {
		s.notice(w, http.StatusNotFound, notice{Title: "No such page", Paragraphs: []string{"There is nothing at this address. Engines use /v2/, /v3/ and /v1/; programs use /api/v1/."}})
		return
	}
	s.notice(w, http.StatusOK, notice{
		Title: "Muster is running",
		Paragraphs: []string{
			"This server is a CrowdSec Central API: engines register, report and pull their blocklist here.",
			"To connect an engine, make a key on this server and use it on the engine's machine:",
		},
		Commands: []string{
			"muster admin key create --accept",
			"muster join " + s.cfg.PublicURL + " --key KEY",
		},
	})
}

// root is the path of the public URL, with a slash at its end.
func (s *Web) root() string {
	if u, err := url.Parse(s.cfg.PublicURL); err == nil && u.Path != "" {
		return u.Path
	}
	return "/"
}

// application serves a built file and reports whether there is one.
func (s *Web) application(w http.ResponseWriter, r *http.Request) bool {
	name := strings.TrimPrefix(r.URL.Path, "/")
	if name == "" {
		name = "index.html"
	}
	if info, err := fs.Stat(s.files, name); err != nil || info.IsDir() {
		return false
	}
	if strings.HasPrefix(name, "assets/") {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable") // their names carry a hash
	} else {
		w.Header().Set("Cache-Control", "no-cache")
	}
	http.ServeFileFS(w, r, s.files, name)
	return true
}

// isCode reports whether text has the form of a claim's code. Any other must not
// be shown as a part of a command: a link could have people run what it says.
func isCode(text string) bool {
	for i := range len(text) {
		if c := text[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9') {
			return false
		}
	}
	return text != "" && len(text) <= 64
}

// claim tells the person who followed cscli's link what to do. It does not say
// whether the code exists: only an administrator can redeem it.
func (s *Web) claim(w http.ResponseWriter, code string) {
	s.notice(w, http.StatusOK, notice{
		Title:      "An engine asks to join",
		Paragraphs: []string{"An administrator of this server accepts it with the command below, within an hour of when the engine asked."},
		Commands:   []string{"muster admin machine claim " + code},
	})
}

func (s *Web) notice(w http.ResponseWriter, status int, n notice) {
	n.Version = s.cfg.Version
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = page.Execute(w, struct {
		notice
		Built bool
	}{n, s.files != nil}) // the client hung up; nothing to do about it
}
