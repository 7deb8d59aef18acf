package hub

import (
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// Prefix is where the mirror is: cscli.__hub_url_template__ is the server's URL
// and hub/%s/%s.
const Prefix = "/hub/"

// dataFolders are those whose files are served as they are.
var dataFolders = []string{"data", "taxonomy"}

// engineVersion is the branch that engines older than the hub ask for.
var engineVersion = regexp.MustCompile(`^v[0-9]{1,4}(\.[0-9]{1,4}){1,2}([.-][A-Za-z0-9.-]{1,40})?$`)

// ServeHTTP answers GET and HEAD of /hub/{branch}/{path}.
func (m *Mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		m.refuse(w, http.StatusMethodNotAllowed, "expected GET or HEAD")
		return
	}
	branch, name, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, Prefix), "/")
	if !ok || !strings.HasPrefix(r.URL.Path, Prefix) {
		m.refuse(w, http.StatusNotFound, "expected /hub/BRANCH/PATH, as in /hub/master/.index.json")
		return
	}
	s := m.current.Load()
	if s.main == nil {
		m.refuse(w, http.StatusNotFound, "this Muster mirrors no hub: its operator has to name a copy of one (setting hub.dir)")
		return
	}
	t := s.branch(branch)
	switch {
	case t == nil:
		m.refuse(w, http.StatusNotFound, "there is no branch "+strconv.Quote(clip(branch))+" in this mirror: there are master, engine versions like v1.7.8, and folders of the hub that have an "+indexName)
	case name == indexName:
		flavour := bare
		if wantsContent(r.URL) {
			flavour = full
		}
		m.serve(w, r, t.index[flavour], "index", "application/json")
	case t.files[name] != nil:
		m.serve(w, r, t.files[name], "item", "application/yaml")
	case isData(name):
		m.serveData(w, r, t, name)
	default:
		m.refuse(w, http.StatusNotFound, "there is no item "+strconv.Quote(clip(name))+" in this mirror. If the index names it: run cscli hub update, since it was left out after the index was fetched")
	}
}

// branch returns what is served to a branch, nil for one that there is not.
func (s *snapshot) branch(name string) *tree {
	if t := s.byBranch[name]; t != nil {
		return t
	}
	if name == masterBranch || engineVersion.MatchString(name) {
		return s.main
	}
	return nil
}

func wantsContent(u *url.URL) bool {
	if u.RawQuery == "" {
		return false
	}
	on, err := strconv.ParseBool(u.Query().Get("with_content"))
	return err == nil && on
}

// serve answers with a prepared file. cscli sends the SHA-256 of the file that it
// has, without quotes, and reads no ETag.
func (m *Mirror) serve(w http.ResponseWriter, r *http.Request, f *file, what, media string) {
	h := w.Header()
	h.Set("ETag", `"`+f.digest+`"`)
	h.Set("Vary", "Accept-Encoding")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	if matches(r.Header.Get("If-None-Match"), f.digest) {
		m.requests.WithLabelValues(what, "304").Inc()
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := f.body
	if f.packed != nil && acceptsGzip(r.Header.Get("Accept-Encoding")) {
		body = f.packed
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Type", media)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	m.requests.WithLabelValues(what, "200").Inc()
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		_, _ = w.Write(body) // the client hung up; nothing to do about it
	}
}

// isData reports whether a path may be that of a data file.
func isData(name string) bool {
	if !fs.ValidPath(name) {
		return false
	}
	folder, rest, ok := strings.Cut(name, "/")
	for part := range strings.SplitSeq(rest, "/") {
		if strings.HasPrefix(part, ".") {
			return false
		}
	}
	return ok && (folder == dataFolders[0] || folder == dataFolders[1])
}

// serveData answers with a file as it is on disk, by its time of change: cscli
// compares that with its own file's.
func (m *Mirror) serveData(w http.ResponseWriter, r *http.Request, t *tree, name string) {
	for _, dir := range t.data {
		f, err := os.OpenInRoot(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			m.log.Warn("a data file of the hub could not be opened", "path", name, "error", err)
			continue
		}
		info, err := f.Stat()
		if err != nil || !info.Mode().IsRegular() {
			_ = f.Close()
			continue
		}
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Type", "application/octet-stream")
		m.requests.WithLabelValues("data", "200").Inc()
		http.ServeContent(w, r, "", info.ModTime(), f)
		_ = f.Close()
		return
	}
	m.refuse(w, http.StatusNotFound, "there is no data file "+strconv.Quote(clip(name))+" in this mirror")
}

func (m *Mirror) refuse(w http.ResponseWriter, status int, why string) {
	m.requests.WithLabelValues("none", strconv.Itoa(status)).Inc()
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, why, status)
}

// matches reads an If-None-Match list, whose tags may be quoted or not.
func matches(header, digest string) bool {
	for part := range strings.SplitSeq(header, ",") {
		part = strings.Trim(strings.TrimPrefix(strings.TrimSpace(part), "W/"), `"`)
		if part == "*" || strings.EqualFold(part, digest) {
			return true
		}
	}
	return false
}

// acceptsGzip reads an Accept-Encoding header.
func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			q, ok := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
			if !ok {
				return true
			}
			v, err := strconv.ParseFloat(q, 64)
			return err == nil && v > 0
		}
	}
	return false
}
