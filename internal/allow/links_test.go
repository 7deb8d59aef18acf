package allow

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/internal/wire"
)

var update = flag.Bool("update", false, "write golden files anew")

// get follows a link.
func get(s *Service, link string, header ...string) *httptest.ResponseRecorder {
	u, err := url.Parse(link)
	if err != nil {
		panic(err)
	}
	r := httptest.NewRequest(http.MethodGet, u.RequestURI(), nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeLink(w, r)
	return w
}

// golden compares with a file in testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if diff := cmp.Diff(string(want), string(got)); err != nil || diff != "" {
		t.Errorf("%s: %v %s", name, err, diff)
	}
}

func TestWhatEnginesRead(t *testing.T) {
	w := newWorld()
	w.as[64496] = prefixes("198.51.100.0/25", "198.51.100.128/25", "203.0.113.0/24")
	w.leads("office.example.org", "192.0.2.9", "2001:db8::9")
	s := w.service(t)
	id := create(t, s, "o1", "office", []string{"all"}, "192.0.2.7", "AS64496", "office.example.org", "2001:db8:1::/48")
	quoted := item(t, "192.0.2.8")
	quoted.Reason, quoted.ExpiresAt = "O'Brien \"größer\"\n日本", start.Add(90*time.Minute+time.Millisecond)
	inside := item(t, "198.51.100.0/24") // which the AS has already
	inside.ExpiresAt = start.Add(time.Hour)
	if _, err := s.Put(t.Context(), id, []muster.AllowItem{quoted, inside}); err != nil {
		t.Fatal(err)
	}
	links := s.Links("m1", "o1", nil)
	if len(links) != 1 {
		t.Fatalf("expected one link, got %+v", links)
	}
	l := links[0]
	if l.ID != id || l.Name != "office" || l.Description != "for tests" || !l.CreatedAt.Equal(start) || !strings.HasPrefix(l.URL, "https://muster.example.org/m/allowlists/"+id+"?") {
		t.Errorf("the link: %+v", l)
	}
	if b, dropped := wire.AppendStreamV3(nil, wire.Stream{Links: wire.Links{Allowlists: links}}); dropped != 0 {
		t.Errorf("engines could not read it: %s", b)
	}
	answer := get(s, l.URL)
	if answer.Code != 200 || answer.Header().Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("expected 200 and JSON Lines, got %d %v", answer.Code, answer.Header())
	}
	golden(t, "office.ndjson", answer.Body.Bytes())
	for line := range strings.Lines(answer.Body.String()) {
		var i struct {
			Value, Description    string
			CreatedAt, Expiration *time.Time
		}
		if err := json.Unmarshal([]byte(line), &i); err != nil || i.Value == "" {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// An engine lets go of its list when the answer is empty or a line of JSON,
// whatever the status: no error may be so.
func TestErrorsKeepTheList(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	id := create(t, s, "o1", "office", []string{"all"}, "192.0.2.7")
	other := create(t, s, "o1", "other", []string{"all"}, "192.0.2.8")
	link := s.Links("m1", "o1", nil)[0].URL
	if link2 := s.Links("m1", "o1", nil)[1].URL; strings.Contains(link, other) {
		link = link2
	}
	u, _ := url.Parse(link)
	with := func(key, value string) string {
		v := *u
		q := v.Query()
		q.Set(key, value)
		v.RawQuery = q.Encode()
		return v.String()
	}
	check := func(name string, status int, answer *httptest.ResponseRecorder) {
		t.Helper()
		body := answer.Body.Bytes()
		first, _, _ := bytes.Cut(body, []byte("\n"))
		if answer.Code != status || len(bytes.TrimSpace(first)) == 0 || json.Valid(first) || json.Valid(body) {
			t.Errorf("%s: expected %d and a sentence, got %d %q", name, status, answer.Code, body)
		}
		if bytes.Contains(body, []byte("192.0.2")) {
			t.Errorf("%s: the list got out: %s", name, body)
		}
	}
	until, _ := strconv.ParseInt(u.Query().Get("until"), 10, 64)
	for name, tampered := range map[string]string{
		"other list":   strings.Replace(link, id, other, 1),
		"no such list": strings.Replace(link, id, "x", 1),
		"longer":       with("until", strconv.FormatInt(until+1, 10)),
		"for ever":     with("until", "99999999999999999999"),
		"no end":       with("until", ""),
		"emptied":      with("what", "none"),
		"no signature": with("sig", ""),
		"signature":    with("sig", strings.Repeat("A", 43)),
		"bare":         u.Scheme + "://" + u.Host + u.Path,
		"no id":        "https://x/allowlists/",
	} {
		check(name, http.StatusForbidden, get(s, tampered))
	}
	if answer := get(s, link); answer.Code != 200 || !strings.Contains(answer.Body.String(), "192.0.2.7") {
		t.Fatalf("the link itself: %d %s", answer.Code, answer.Body)
	}
	r := httptest.NewRequest(http.MethodPost, u.RequestURI(), strings.NewReader("{}"))
	posted := httptest.NewRecorder()
	s.ServeLink(posted, r)
	check("POST", http.StatusMethodNotAllowed, posted)

	// Not loaded yet.
	check("starting", http.StatusServiceUnavailable, get(New(Config{Store: w, Now: w.time}), link))
	// Another installation's.
	stranger := newWorld()
	check("another server's", http.StatusForbidden, get(stranger.service(t), link))

	if err := s.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	check("deleted", http.StatusNotFound, get(s, link))
	w.pass(4 * time.Hour)
	check("expired", http.StatusGone, get(s, link))
}

func TestLinksLiveForHours(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	create(t, s, "o1", "office", []string{"all"}, "192.0.2.7")
	create(t, s, "", "partners", nil, "192.0.2.8")
	w.pass(17 * time.Minute)
	first := s.Links("m1", "o1", nil)
	if len(first) != 2 || first[0].Name != "partners" || first[1].Name != "office" {
		t.Fatalf("expected the installation's list and the organisation's, got %+v", first)
	}
	if got := s.Links("m9", "o9", nil); len(got) != 1 || got[0].Name != "partners" {
		t.Errorf("expected the installation's list alone, got %+v", got)
	}
	if got := s.Links("m1", "", nil); got != nil {
		t.Errorf("expected no link for a machine that is not active, got %+v", got)
	}
	w.pass(42*time.Minute + 59*time.Second)
	if again := s.Links("m2", "o1", []string{"x"}); !cmp.Equal(first, again) {
		t.Error("expected the same links within the hour")
	}
	w.pass(2 * time.Hour)
	if answer := get(s, first[1].URL); answer.Code != 200 {
		t.Errorf("expected the link to hold for two hours at least, got %d %s", answer.Code, answer.Body)
	}
	if next := s.Links("m1", "o1", nil); next[1].URL == first[1].URL {
		t.Error("expected a new link in another hour")
	}
	w.pass(time.Hour)
	if answer := get(s, first[1].URL); answer.Code != http.StatusGone {
		t.Errorf("expected the link to have expired, got %d", answer.Code)
	}
}

func TestConditionsAndCompression(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	var many []string
	for n := range 40 {
		many = append(many, "192.0.2."+strconv.Itoa(n))
	}
	id := create(t, s, "o1", "office", []string{"all"}, many...)
	link := s.Links("m1", "o1", nil)[0].URL
	plain := get(s, link)
	etag, modified := plain.Header().Get("ETag"), plain.Header().Get("Last-Modified")
	zipped := get(s, link, "Accept-Encoding", "br, gzip")
	if zipped.Header().Get("Content-Encoding") != "gzip" || zipped.Body.Len() >= plain.Body.Len() {
		t.Errorf("expected it compressed, got %v and %d bytes of %d", zipped.Header(), zipped.Body.Len(), plain.Body.Len())
	}
	z, err := gzip.NewReader(zipped.Body)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(z); err != nil || !bytes.Equal(text, plain.Body.Bytes()) {
		t.Errorf("decompressed it differs: %v", err)
	}
	if refused := get(s, link, "Accept-Encoding", "gzip;q=0"); refused.Header().Get("Content-Encoding") != "" {
		t.Error("expected it uncompressed for who refuses gzip")
	}
	for _, c := range []struct {
		header, value string
		status        int
	}{
		{"If-None-Match", etag, 304},
		{"If-None-Match", `"x", W/` + etag, 304},
		{"If-None-Match", `"x"`, 200},
		{"If-Modified-Since", modified, 304},
		{"If-Modified-Since", start.Add(-time.Second).Format(http.TimeFormat), 200},
		{"If-Modified-Since", "x", 200},
	} {
		if got := get(s, link, c.header, c.value); got.Code != c.status || c.status == 304 && got.Body.Len() > 0 {
			t.Errorf("%s: %s: expected %d, got %d", c.header, c.value, c.status, got.Code)
		}
	}
	w.pass(time.Minute)
	remove(t, s, id, many...)
	after := get(s, link, "If-Modified-Since", modified)
	if after.Code != 200 || after.Body.Len() != 0 || after.Header().Get("ETag") == etag || after.Header().Get("Last-Modified") == modified {
		t.Errorf("expected an empty list, got %d %v %q", after.Code, after.Header(), after.Body)
	}
	head := httptest.NewRecorder()
	u, _ := url.Parse(link)
	s.ServeLink(head, httptest.NewRequest(http.MethodHead, u.RequestURI(), nil))
	if head.Code != 200 || head.Header().Get("ETag") == "" || head.Body.Len() != 0 {
		t.Errorf("HEAD: %d %v", head.Code, head.Header())
	}
}

// What has ended is not in a body either, and what is emptied has none.
func TestLinkAfterExpiry(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	id := create(t, s, "o1", "office", []string{"all"}, "192.0.2.7")
	soon := item(t, "192.0.2.8")
	soon.ExpiresAt = start.Add(time.Minute)
	if _, err := s.Put(t.Context(), id, []muster.AllowItem{soon}); err != nil {
		t.Fatal(err)
	}
	link := s.Links("m1", "o1", nil)[0].URL
	if body := get(s, link).Body.String(); !strings.Contains(body, `"expiration":"2026-11-20T12:01:00Z"`) {
		t.Errorf("expected the end in %s", body)
	}
	w.pass(time.Minute)
	if body := get(s, link).Body.String(); strings.Contains(body, "192.0.2.8") || !strings.Contains(body, "192.0.2.7") {
		t.Errorf("expected the item to be gone from %s", body)
	}
}
