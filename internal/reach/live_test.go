package reach

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/internal/ops"
)

func TestLive(t *testing.T) {
	w := newWorld()
	w.bans(muster.Network, "45.9.20.7", "45.9.21.0/24", "2a06:98c0::/32")
	w.bans("o1", "45.9.20.7")
	w.puts("ours", "45.9.20.0/24", "45.9.20.0/22", "91.92.1.1")
	w.reads[webID] = append(w.reads[webID], w.lists["ours"].Blocklist)
	w.allowed["o1"], w.allowing = sources{source("45.9.21.9"): true, source("91.92.1.1"): true}, 1
	s := w.service(t)
	for _, tt := range []struct {
		query string
		want  string // values; "" = null
	}{
		{"ip=45.9.20.7", "45.9.20.7 45.9.20.7 45.9.20.0/24"},
		{"ip=::ffff:45.9.20.7", "45.9.20.7 45.9.20.7 45.9.20.0/24"},
		{"ip=45.9.20.8", "45.9.20.0/24"},
		{"ip=45.9.21.1", ""}, // the ranges hold an address that the organisation allows
		{"ip=91.92.1.1", ""},
		{"ip=8.8.8.8", ""},
		{"ip=10.1.2.3", ""},
		{"ip=2a06:98c0:1::5", "2a06:98c0::/32"},
		{"ip=45.9.20.7&origins=CAPI", "45.9.20.7 45.9.20.7"},
		{"ip=45.9.20.7&scenarios_not_containing=ssh", "45.9.20.0/24"},
		{"ip=45.9.20.7&type=captcha", ""},
		{"range=45.9.20.0/25", "45.9.20.0/24"},
		{"range=45.9.20.0/24&contains=true", "45.9.20.0/24"},
		{"range=45.9.16.0/20&contains=false", "45.9.20.7 45.9.20.7 45.9.20.0/24"},
		{"ip=45.9.20.7&contains=false", "45.9.20.7 45.9.20.7"},
		{"scope=ip&value=45.9.20.7", "45.9.20.7 45.9.20.7"},
		{"scope=Range&value=45.9.20.0/24", "45.9.20.0/24"},
		{"value=45.9.20.8", ""},
		{"scope=Country&value=CN", ""},
		{"scope=AS&value=AS123", ""},
		{"", "45.9.20.0/24 45.9.20.7 2a06:98c0::/32"},
		{"limit=2", "45.9.20.0/24 45.9.20.7"},
		{"limit=2&offset=2", "2a06:98c0::/32"},
	} {
		got := bouncer(t, s, "GET", "decisions?"+tt.query)
		if got.Code != 200 || got.Header().Get("Content-Type") != "application/json; charset=utf-8" {
			t.Fatalf("%s: %d %v %s", tt.query, got.Code, got.Header(), got.Body)
		}
		if tt.want == "" {
			if got.Body.String() != "null" {
				t.Errorf("%s: expected null, got %s", tt.query, got.Body)
			}
			continue
		}
		var list []decision
		if err := json.Unmarshal(got.Body.Bytes(), &list); err != nil {
			t.Fatalf("%s: %v in %s", tt.query, err, got.Body)
		}
		worded(t, list)
		var values []string
		for _, d := range list {
			values = append(values, *d.Value)
		}
		if got := strings.Join(values, " "); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.query, got, tt.want)
		}
	}
	for query, code := range map[string]int{
		"ip=x": 422, "range=1.2.3": 422, "ip=1.2.3.4&contains=perhaps": 422, "limit=-1": 422, "offset=x": 422,
	} {
		if got := bouncer(t, s, "GET", "decisions?"+query); got.Code != code {
			t.Errorf("%s: got %d %s", query, got.Code, got.Body)
		}
	}
	if got := ask(t, s, "GET", muster.IntegrationPath+webID+"/v1/decisions?ip=45.9.20.7", nil, "X-Api-Key", "bad"); got.Code != 403 || got.Body.String() != `{"message":"access forbidden"}` {
		t.Errorf("a bad key: %d %s", got.Code, got.Body)
	}
	w.never[source("45.9.20.7")] = true
	if got := bouncer(t, s, "GET", "decisions?ip=45.9.20.7").Body.String(); got != "null" {
		t.Errorf("expected nothing about what is forbidden, got %s", got)
	}
}

func TestUsageMetrics(t *testing.T) {
	w := newWorld()
	s := w.service(t)
	report := func(body string) *httptest.ResponseRecorder {
		return ask(t, s, "POST", muster.IntegrationPath+webID+"/v1/usage-metrics", strings.NewReader(body), "X-Api-Key", secret)
	}
	const good = `{"log_processors":null,"remediation_components":[{"feature_flags":[],"metrics":[],"os":{"family":"debian","name":"debian","version":"12.11"},"utc_startup_timestamp":1795210724,"version":"","type":"x"}]}`
	if got := report(good); got.Code != 201 || got.Body.Len() != 0 {
		t.Fatalf("got %d %s", got.Code, got.Body)
	}
	if len(w.reports) != 1 || string(w.reports[0].Body) != good || w.reports[0].Integration != webID || w.reports[0].Addr.String() != "45.9.99.1" || !w.reports[0].At.Equal(w.now) {
		t.Errorf("kept: %+v", w.reports)
	}
	for body, code := range map[string]int{
		`{"remediation_components":[]}`: 400, `{"remediation_components":[{},{}]}`: 400, `{"remediation_components":[{}],"log_processors":[{}]}`: 400,
		`[]`: 422, ``: 422, `{"remediation_components":7}`: 422, `{"x":"` + strings.Repeat("x", maxReport) + `"}`: 413,
	} {
		if got := report(body); got.Code != code {
			t.Errorf("%.40s: got %d %s", body, got.Code, got.Body)
		}
	}
	if len(w.reports) != 1 {
		t.Errorf("%d are kept", len(w.reports))
	}
	zipped := func(body string) io.Reader {
		var b bytes.Buffer
		zip := gzip.NewWriter(&b)
		if _, err := zip.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
		if err := zip.Close(); err != nil {
			t.Fatal(err)
		}
		return &b
	}
	for body, code := range map[io.Reader]int{
		zipped(good): 201, strings.NewReader(good): 422, zipped(good[:20]): 422, zipped(`{"x":"` + strings.Repeat("x", maxReport) + `"}`): 413,
	} {
		if got := ask(t, s, "POST", muster.IntegrationPath+webID+"/v1/usage-metrics", body, "X-Api-Key", secret, "Content-Encoding", "gzip"); got.Code != code {
			t.Errorf("compressed: got %d %s, want %d", got.Code, got.Body, code)
		}
	}
	if len(w.reports) != 2 || string(w.reports[1].Body) != good {
		t.Errorf("kept: %+v", w.reports)
	}
	if got := bouncer(t, s, "GET", "usage-metrics"); got.Code != 405 {
		t.Errorf("GET: %d", got.Code)
	}
}

// What real bouncers send is answered as they expect.
func TestCaptures(t *testing.T) {
	dir := os.Getenv("MUSTER_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared")
	}
	files, err := filepath.Glob(filepath.Join(dir, "reference", "captures", "bouncer-*.http"))
	if err != nil || len(files) == 0 {
		t.Skipf("the captures of real bouncers are not here (%s), %v", dir, err)
	}
	w := newWorld()
	w.bans(muster.Network, "45.9.20.7")
	s := w.service(t)
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, request, _ := strings.Cut(string(raw), "\n") // the first line is a comment
		head, body, _ := strings.Cut(request, "\n\n")
		lines := strings.Split(strings.ReplaceAll(head, "\r", ""), "\n")
		method, rest, _ := strings.Cut(lines[0], " ")
		path, _, _ := strings.Cut(rest, " ")
		headers := []string{"X-Api-Key", secret}
		for _, line := range lines[1:] {
			if key, value, _ := strings.Cut(line, ": "); key != "X-Api-Key" && key != "Content-Length" {
				headers = append(headers, key, value)
			}
		}
		got := ask(t, s, method, muster.IntegrationPath+webID+path, strings.NewReader(strings.TrimSpace(body)), headers...)
		want := http.StatusOK
		if method == "POST" {
			want = http.StatusCreated
		}
		if got.Code != want {
			t.Errorf("%s: got %d %s", filepath.Base(name), got.Code, got.Body)
		}
	}
}

// manyBans puts n addresses on the network's list.
func (w *world) manyBans(n int) {
	w.bans(muster.Network)
	for i := range n {
		h := uint32(i) * 2654435761
		addr := netip.AddrFrom4([4]byte{byte(20 + h>>24%40), byte(h >> 16), byte(h >> 8), byte(h)})
		e := muster.ListEntry{Source: muster.SourceFromAddr(addr), Scenario: "crowdsecurity/ssh-bf", Remedy: muster.RemedyBan, Until: w.now.Add(48 * time.Hour)}
		w.network[muster.Network][e.Source] = e
	}
}

// quiet is an answer that nobody reads.
type quiet struct{ header http.Header }

func (q *quiet) Header() http.Header         { return q.header }
func (q *quiet) Write(p []byte) (int, error) { return len(p), nil }
func (q *quiet) WriteHeader(int)             {}
func (q *quiet) Flush()                      {}

// A live lookup goes through all of the HTTP handling but the connection.
func BenchmarkLive(b *testing.B) {
	w := newWorld()
	w.manyBans(50_000)
	w.puts("ours", "45.9.20.0/24", "91.92.1.1")
	w.reads[webID] = append(w.reads[webID], w.lists["ours"].Blocklist)
	s := w.service(b)
	handler := ops.NewHTTP(s, ops.HTTPConfig{Log: slog.New(slog.DiscardHandler), Name: "bench"})
	var listed netip.Addr
	for source := range w.network[muster.Network] {
		listed = source.Addr()
		break
	}
	for name, addr := range map[string]string{"hit": listed.String(), "miss": "8.8.8.8"} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest("GET", muster.IntegrationPath+webID+"/v1/decisions?ip="+addr, nil).WithContext(context.Background())
			r.Header.Set("X-Api-Key", secret)
			r.Header.Set("User-Agent", "live/v1")
			b.ReportAllocs()
			for b.Loop() {
				handler.ServeHTTP(&quiet{http.Header{}}, r)
			}
		})
	}
}

func BenchmarkStream(b *testing.B) {
	w := newWorld()
	w.manyBans(50_000)
	s := w.service(b)
	for _, name := range []string{"startup", "delta"} {
		for _, encoding := range []string{"identity", "gzip"} {
			b.Run(fmt.Sprintf("%s/%s", name, encoding), func(b *testing.B) {
				r := httptest.NewRequest("GET", muster.IntegrationPath+webID+"/v1/decisions/stream?startup=true", nil)
				r.Header.Set("X-Api-Key", secret)
				r.Header.Set("Accept-Encoding", encoding)
				if name == "delta" {
					s.ServeHTTP(&quiet{http.Header{}}, r)
					r.URL.RawQuery = ""
				}
				b.ReportAllocs()
				for b.Loop() {
					s.ServeHTTP(&quiet{http.Header{}}, r)
				}
			})
		}
	}
}

func BenchmarkContent(b *testing.B) {
	w := newWorld()
	w.manyBans(50_000)
	w.integrations[0].Budget = 50_000
	s := w.service(b)
	r := httptest.NewRequest("GET", muster.IntegrationPath+gateID+"/content", nil)
	r.Header.Set("Authorization", basic("u", secret))
	b.Run("kept", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.ServeHTTP(&quiet{http.Header{}}, r)
		}
	})
	b.Run("changed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			w.versions[muster.Network]++
			w.now = w.now.Add(time.Second)
			s.ServeHTTP(&quiet{http.Header{}}, r)
		}
	})
}
