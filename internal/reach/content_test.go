package reach

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
)

func TestContent(t *testing.T) {
	w := newWorld()
	w.bans(muster.Network, "45.9.20.7", "45.9.21.0/24", "2a06:98c0:3600::103")
	w.bans("o1", "45.9.20.8", "45.9.20.7")
	w.bans("o2", "45.9.20.9")
	s := w.service(t)
	got := pull(t, s, "GET", "")
	const all = "45.9.20.7\n45.9.20.8\n45.9.21.0/24\n2a06:98c0:3600::103\n"
	if got.Code != 200 || got.Body.String() != all || got.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Fatalf("got %d %v %q", got.Code, got.Header(), got.Body)
	}
	if head := pull(t, s, "HEAD", ""); head.Code != 200 || head.Body.Len() != 0 || head.Header().Get("Content-Length") != strconv.Itoa(len(all)) {
		t.Errorf("HEAD: %d %v %q", head.Code, head.Header(), head.Body)
	}
	zipped := pull(t, s, "GET", "", "Accept-Encoding", "br, gzip")
	if text(t, zipped) != all || zipped.Header().Get("Content-Encoding") != "gzip" || zipped.Header().Get("ETag") == got.Header().Get("ETag") {
		t.Errorf("gzip: %v %q", zipped.Header(), text(t, zipped))
	}
	for _, tt := range []struct {
		query string
		code  int
		body  string
	}{
		{"?page=1&page_size=3", 200, "45.9.20.7\n45.9.20.8\n45.9.21.0/24\n"},
		{"?page=2&page_size=3", 200, "2a06:98c0:3600::103\n"},
		{"?page=3&page_size=3", 204, ""},
		{"?page=2", 204, ""},
		{"?page_size=null", 200, all},
		{"?page=0", 422, ""},
		{"?page=x", 422, ""},
		{"?page_size=0", 422, ""},
		{"?page=1000000&page_size=10000000", 204, ""},
	} {
		got := pull(t, s, "GET", tt.query)
		if got.Code != tt.code || got.Code < 400 && got.Body.String() != tt.body {
			t.Errorf("%s: got %d %q", tt.query, got.Code, got.Body)
		}
	}
	for _, header := range [][]string{
		{"If-None-Match", got.Header().Get("ETag")},
		{"If-None-Match", `"x", W/` + got.Header().Get("ETag")},
		{"If-None-Match", "*"},
		{"If-None-Match", got.Header().Get("ETag"), "Accept-Encoding", "gzip"},
		{"If-Modified-Since", got.Header().Get("Last-Modified")},
	} {
		if got := pull(t, s, "GET", "", header...); got.Code != 304 || got.Body.Len() != 0 {
			t.Errorf("%v: got %d %q", header, got.Code, got.Body)
		}
	}

	// Something changes, in the network, a list, an allowlist and what is forbidden.
	w.now = w.now.Add(time.Second)
	w.lifts("o1", "45.9.20.8", "45.9.20.7")
	got = pull(t, s, "GET", "", "If-None-Match", got.Header().Get("ETag"))
	if got.Body.String() != strings.Replace(all, "45.9.20.8\n", "", 1) {
		t.Errorf("after a lift: %d %q", got.Code, got.Body)
	}
	w.puts("ours", "91.92.1.1", "45.9.20.6")
	w.reads[gateID] = append(w.reads[gateID], w.lists["ours"].Blocklist)
	if got := pull(t, s, "GET", "").Body.String(); !strings.HasPrefix(got, "45.9.20.6/31\n") || !strings.Contains(got, "91.92.1.1\n") {
		t.Errorf("with a list: %q", got)
	}
	w.allowed["o1"], w.allowing = sources{source("45.9.21.7"): true}, 2
	if got := pull(t, s, "GET", "").Body.String(); strings.Contains(got, "45.9.21") {
		t.Errorf("expected nothing of what the organisation allows, got %q", got)
	}
	w.never[source("91.92.1.1")] = true
	s.Invalidate()
	if got := pull(t, s, "GET", "").Body.String(); strings.Contains(got, "91.92.1.1") || !strings.Contains(got, "45.9.20.6/31\n") {
		t.Errorf("expected nothing that is forbidden, got %q", got)
	}
	w.reads[gateID] = nil
	if got := pull(t, s, "GET", ""); got.Code != 204 || got.Body.Len() != 0 {
		t.Errorf("without a subscription: %d %q", got.Code, got.Body)
	}
}

// A firewall cannot ask for a captcha, and is not given what is to be asked for
// one.
func TestContentHasNoCaptchas(t *testing.T) {
	w := newWorld()
	w.bans(muster.Network, "45.9.20.7")
	w.puts("soft", "45.9.20.7", "91.92.1.1")
	soft := w.lists["soft"].Blocklist
	soft.Remedy = muster.RemedyCaptcha
	w.reads[gateID] = append(w.reads[gateID], soft)
	if got := pull(t, w.service(t), "GET", "").Body.String(); got != "45.9.20.7\n" {
		t.Errorf("got %q", got)
	}
}

func TestContentSettings(t *testing.T) {
	w := newWorld()
	w.bans(muster.Network, "45.9.20.7", "45.9.21.0/30", "2a06:98c0:3600::103")
	gate := &w.integrations[0]
	gate.Format, gate.NoIPv4 = "f5", true
	s := w.service(t)
	if got := pull(t, s, "GET", "").Body.String(); got != "2a06:98c0:3600::103,128,BL,crowdsec-gate\n" {
		t.Errorf("IPv6 for F5: %q", got)
	}
	for _, tt := range []struct {
		change func()
		want   string
	}{
		{func() { gate.Format, gate.NoIPv4 = "sophos", false }, "45.9.20.7\n45.9.21.0\n45.9.21.1\n45.9.21.2\n45.9.21.3\n"},
		{func() { gate.Format, gate.NoIPv6, gate.Budget = "juniper", true, 1 }, "45.9.20.7/32\n"},
		{func() { gate.Budget = 0 }, "45.9.20.7/32\n45.9.21.0/30\n"},
	} {
		tt.change()
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := pull(t, s, "GET", "").Body.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestContentBudget(t *testing.T) {
	w := newWorld()
	w.integrations[0].Budget = 2
	w.bans(muster.Network, "45.9.20.1", "45.9.20.4", "45.9.20.9")
	w.bans("o1", "91.92.1.1")
	s := w.service(t)
	if got := pull(t, s, "GET", "").Body.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "91.92.1.1\n") {
		t.Errorf("expected two with the own first, got %q", got)
	}
}

func TestContentCredentials(t *testing.T) {
	w := newWorld()
	w.bans(muster.Network, "45.9.20.7")
	s := w.service(t)
	path := muster.IntegrationPath + gateID + "/content"
	for _, tt := range []struct {
		path    string
		headers []string
		code    int
		wrong   int // how many wrong secrets that makes
	}{
		{path, nil, 401, 0},
		{path, []string{"Authorization", basic("u", "")}, 401, 0},
		{path, []string{"Authorization", basic("u", "wrong")}, 403, 1},
		{path, []string{"Authorization", basic("v", secret)}, 403, 1},
		{path, []string{"X-Api-Key", "wrong"}, 403, 1},
		{path, []string{"X-Api-Key", secret}, 200, 0},
		{path + "/", []string{"X-Api-Key", secret}, 200, 0},
		{muster.IntegrationPath + "/" + gateID + "//content", []string{"X-Api-Key", secret}, 200, 0},
		{muster.IntegrationPath + webID + "/content", []string{"X-Api-Key", secret}, 404, 0},
		{muster.IntegrationPath + webID + "/content", []string{"X-Api-Key", "wrong"}, 403, 1},
		{muster.IntegrationPath + "x/content", []string{"X-Api-Key", secret}, 404, 1},
		{muster.IntegrationPath + "x/content", nil, 401, 0},
		{muster.IntegrationPath + gateID, nil, 404, 0},
		{muster.IntegrationPath, nil, 404, 0},
	} {
		w.wrong = nil
		got := ask(t, s, "GET", tt.path, nil, tt.headers...)
		if got.Code != tt.code || len(w.wrong) != tt.wrong {
			t.Errorf("%s %v: got %d %s, %d wrong", tt.path, tt.headers, got.Code, got.Body, len(w.wrong))
		}
		if (got.Code == 401) != (got.Header().Get("WWW-Authenticate") != "") {
			t.Errorf("%s %v: WWW-Authenticate %q", tt.path, tt.headers, got.Header().Get("WWW-Authenticate"))
		}
	}
	w.refuse = muster.Errorf(muster.Forbidden, "you are banned")
	if got := ask(t, s, "GET", path, nil, "X-Api-Key", "wrong"); got.Code != 403 || !strings.Contains(got.Body.String(), "you are banned") {
		t.Errorf("a ban: %d %s", got.Code, got.Body)
	}
	if got := pull(t, s, "POST", ""); got.Code != 405 || got.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d %v", got.Code, got.Header())
	}
}

func TestContentInterval(t *testing.T) {
	w := newWorld()
	w.bans(muster.Network, "45.9.20.7")
	w.integrations[0].Interval = time.Hour
	s := w.service(t)
	steps := []struct {
		after  time.Duration
		method string
		query  string
		from   string
		code   int
	}{
		{0, "HEAD", "", "45.9.99.1", 200},
		{0, "GET", "?page=1&page_size=1", "45.9.99.1", 200},
		{time.Second, "GET", "?page=2&page_size=1", "45.9.99.1", 204},
		{time.Second, "GET", "", "45.9.99.1", 429},
		{time.Second, "GET", "", "45.9.99.2", 200}, // the other of a pair
		{time.Second, "HEAD", "", "45.9.99.1", 200},
		{59 * time.Minute, "GET", "", "45.9.99.1", 429},
		{time.Minute, "GET", "", "45.9.99.1", 200},
	}
	for i, step := range steps {
		w.now = w.now.Add(step.after)
		got := pull(t, s, step.method, step.query, "From", step.from)
		if got.Code != step.code || (got.Code == http.StatusTooManyRequests) != (got.Header().Get("Retry-After") != "") {
			t.Errorf("step %d: got %d %v", i, got.Code, got.Header())
		}
	}
}

// What is given stays in memory until something changes.
func TestContentIsKept(t *testing.T) {
	w := newWorld()
	w.bans(muster.Network, "45.9.20.7")
	s := w.service(t)
	pull(t, s, "GET", "")
	who, _ := s.integrations.reader(gateID)
	before := who.file.file.Load()
	w.now = w.now.Add(time.Hour)
	pull(t, s, "GET", "")
	if who.file.file.Load() != before {
		t.Error("it was made again")
	}
	w.bans(muster.Network, "45.9.20.8")
	pull(t, s, "GET", "")
	if after := who.file.file.Load(); after != before { // within the half second for which lists are not looked at again
		t.Error("it was made again at once")
	}
	w.now = w.now.Add(time.Second)
	if got := pull(t, s, "GET", "").Body.String(); got != "45.9.20.7\n45.9.20.8\n" {
		t.Errorf("after a second: %q", got)
	}
	w.now = w.now.Add(47*time.Hour + time.Minute) // the first ends by itself
	if got := pull(t, s, "GET", "").Body.String(); got != "45.9.20.8\n" {
		t.Errorf("after the end: %q", got)
	}
}

func TestContactsAreWritten(t *testing.T) {
	w := newWorld()
	w.bans(muster.Network, "45.9.20.7", "45.9.20.9")
	s := w.service(t)
	pull(t, s, "GET", "", "User-Agent", "FortiGate\xff"+strings.Repeat("x", 300))
	s.write(t.Context())
	got := w.seen[gateID]
	if !got.Pull.Equal(w.now) || got.Addr.String() != "45.9.99.1" || got.Entries != 2 || !strings.HasPrefix(got.Agent, "FortiGate?xx") || len(got.Agent) != maxAgent {
		t.Errorf("got %+v", got)
	}
	if last, ok := s.Contact(gateID); !ok || last != got {
		t.Errorf("in memory: %+v", last)
	}
	clear(w.seen)
	s.write(t.Context())
	if len(w.seen) != 0 {
		t.Errorf("expected that it is written once, got %v", w.seen)
	}
	w.integrations = slices.Delete(w.integrations, 0, 1)
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := pull(t, s, "GET", ""); got.Code != 404 {
		t.Errorf("after it was deleted: %d", got.Code)
	}
}

// Whatever changes, a firewall without a budget is given everything that stands,
// and none is ever given what is forbidden, allowed, or beyond its budget.
func TestContentModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		w.puts("ours")
		gate := &w.integrations[0]
		gate.Budget = rapid.SampledFrom([]int{0, 0, 1, 3, 10}).Draw(t, "budget")
		gate.Collateral = rapid.SampledFrom([]float64{0, 0, 0.25, 0.5}).Draw(t, "collateral")
		gate.NoIPv6 = rapid.IntRange(0, 3).Draw(t, "no v6") == 0
		w.reads[gateID] = append(w.reads[gateID], w.lists["ours"].Blocklist)
		s := New(Config{
			Store: w, Community: w, Catalogue: w, Now: func() time.Time { return w.now },
			Forbidden: func(s muster.Source) bool { _, ok := w.never.Covers(s); return ok },
			Allowlist: func(_, organisation string) (Allowed, uint64) { return w.allowed[organisation], w.allowing },
		})
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		texts := rapid.Custom(func(t *rapid.T) string {
			return rapid.SampledFrom([]string{"45.9.20.%d", "2a06::%d", "45.9.20.%d/31", "10.0.0.%d", "91.92.1.%d"}).Draw(t, "form")
		})
		draw := func(label string) string {
			return strings.ReplaceAll(texts.Draw(t, label), "%d", strconv.Itoa(rapid.IntRange(0, 9).Draw(t, label+" number")))
		}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			for range rapid.IntRange(0, 6).Draw(t, "changes") {
				switch text := draw("text"); rapid.IntRange(0, 5).Draw(t, "what") {
				case 0, 1:
					w.bans(rapid.SampledFrom([]muster.Audience{muster.Network, "o1", "o2"}).Draw(t, "audience"), text)
				case 2:
					w.lifts(muster.Network, text)
				case 3:
					w.puts("ours", text)
				case 4:
					w.allowing++
					w.allowed["o1"] = sources{source(text): true}
				case 5:
					clear(w.never)
					w.never[source(text)] = true
					s.Invalidate()
				}
			}
			w.now = w.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "hours")) * time.Hour)
			got := pull(t, s, "GET", "")
			var given []muster.Source
			for line := range strings.Lines(got.Body.String()) {
				given = append(given, source(strings.TrimSpace(line)))
			}
			for _, g := range given {
				_, never := w.never.Covers(g)
				_, ours := w.allowed["o1"].Covers(g)
				if never || ours || g.IsReserved() || g.Addr().Is6() && gate.NoIPv6 {
					t.Fatalf("%s must not be given", g)
				}
			}
			if gate.Budget > 0 && len(given) > gate.Budget {
				t.Fatalf("%d are over the budget of %d", len(given), gate.Budget)
			}
			if gate.Budget > 0 { // which of them is firewall's business
				continue
			}
			standing := map[muster.Source]bool{}
			for _, a := range []muster.Audience{muster.Network, "o1"} {
				for s, e := range w.network[a] {
					standing[s] = standing[s] || e.Until.After(w.now)
				}
			}
			for s := range w.lists["ours"].entries {
				standing[s] = true
			}
			for s, stands := range standing {
				_, never := w.never.Covers(s)
				_, ours := w.allowed["o1"].Covers(s)
				if !stands || never || ours || s.IsReserved() || s.Addr().Is6() && gate.NoIPv6 {
					continue
				}
				if !slices.ContainsFunc(given, func(g muster.Source) bool {
					return g.Prefix().Overlaps(s.Prefix()) && g.Prefix().Bits() <= s.Prefix().Bits()
				}) {
					t.Fatalf("%s stands and is not given: %v", s, given)
				}
			}
		}
	})
}
