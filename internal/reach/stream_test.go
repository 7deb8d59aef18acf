package reach

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

const (
	startup = "decisions/stream?startup=true&community_pull=false&additional_pull=false"
	delta   = "decisions/stream?community_pull=false&additional_pull=false"
)

func wantChanges(t *testing.T, what string, got changes, added, deleted []string) {
	t.Helper()
	slices.Sort(added)
	slices.Sort(deleted)
	if diff := cmp.Diff(changes{append([]string{}, added...), append([]string{}, deleted...)}, got); diff != "" {
		t.Errorf("%s: %s", what, diff)
	}
}

func TestStream(t *testing.T) {
	w := newWorld()
	w.bans(muster.Network, "45.9.20.7", "45.9.21.0/24")
	s := w.service(t)
	first := []string{"45.9.20.7 Ip ban CAPI crowdsecurity/ssh-bf 48h0m0s", "45.9.21.0/24 Range ban CAPI crowdsecurity/ssh-bf 48h0m0s"}
	got := bouncer(t, s, "GET", startup)
	wantChanges(t, "at the start", told(t, got), first, nil)
	if ct := got.Header().Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type %q", ct)
	}
	w.now = w.now.Add(10 * time.Second)
	wantChanges(t, "nothing new", told(t, bouncer(t, s, "GET", delta)), nil, nil)

	w.now = w.now.Add(10 * time.Second)
	w.bans("o1", "45.9.20.8")
	w.lifts(muster.Network, "45.9.20.7")
	if head := bouncer(t, s, "HEAD", delta); head.Code != 200 || head.Body.Len() != 0 {
		t.Errorf("HEAD: %d %s", head.Code, head.Body)
	}
	added, deleted := []string{"45.9.20.8 Ip ban CAPI crowdsecurity/ssh-bf 48h0m0s"}, []string{"45.9.20.7 Ip ban CAPI crowdsecurity/ssh-bf -1s"}
	wantChanges(t, "one more, one less", told(t, bouncer(t, s, "GET", delta)), added, deleted)
	w.now = w.now.Add(time.Second)
	added[0] = strings.Replace(added[0], "48h0m0s", "47h59m59s", 1)
	wantChanges(t, "once more, because it changed within two seconds before the last pull", told(t, bouncer(t, s, "GET", delta)), added, deleted)
	w.now = w.now.Add(3 * time.Second)
	told(t, bouncer(t, s, "GET", delta))
	w.now = w.now.Add(3 * time.Second)
	wantChanges(t, "then no more", told(t, bouncer(t, s, "GET", delta, "Accept-Encoding", "gzip")), nil, nil)

	for _, key := range []string{"", "wrong"} {
		w.wrong = nil
		got := ask(t, s, "GET", muster.IntegrationPath+webID+"/v1/"+delta, nil, "X-Api-Key", key)
		if got.Code != 403 || got.Body.String() != `{"message":"access forbidden"}` || len(w.wrong) != min(len(key), 1) {
			t.Errorf("key %q: %d %s, wrong %v", key, got.Code, got.Body, w.wrong)
		}
	}
	for path, want := range map[string]int{
		muster.IntegrationPath + gateID + "/v1/decisions/stream": 403, muster.IntegrationPath + "x/v1/decisions/stream": 403, muster.IntegrationPath + webID + "//v1/decisions/stream/": 200, muster.IntegrationPath + webID + "/v1/other": 404,
	} {
		if got := ask(t, s, "GET", path, nil, "X-Api-Key", secret); got.Code != want {
			t.Errorf("%s: %d", path, got.Code)
		}
	}
}

// brokenPipe fails when the answer is longer than some bytes.
type brokenPipe struct {
	*httptest.ResponseRecorder
	room int
}

func (b *brokenPipe) Write(p []byte) (int, error) {
	if b.room -= len(p); b.room < 0 {
		return 0, errors.New("broken pipe")
	}
	return b.ResponseRecorder.Write(p)
}

// A bouncer that did not get its answer to the end gets the changes again.
func TestStreamCursorStaysWhenTheAnswerBreaks(t *testing.T) {
	w := newWorld()
	w.bans(muster.Network, "45.9.20.7")
	s := w.service(t)
	told(t, bouncer(t, s, "GET", startup))
	w.now = w.now.Add(time.Minute)
	w.bans(muster.Network, "45.9.20.8")
	r := httptest.NewRequest("GET", muster.IntegrationPath+webID+"/v1/"+delta, nil)
	r.Header.Set("X-Api-Key", secret)
	r.Header.Set("User-Agent", "test/v1")
	r.RemoteAddr = "45.9.99.1:1"
	s.ServeHTTP(&brokenPipe{httptest.NewRecorder(), 10}, r)
	w.now = w.now.Add(time.Minute)
	wantChanges(t, "again", told(t, bouncer(t, s, "GET", delta)), []string{"45.9.20.8 Ip ban CAPI crowdsecurity/ssh-bf 47h59m0s"}, nil)
}

// Two bouncers with one key get their own changes: by address, and on one
// machine by what they are.
func TestStreamCursorsAreApart(t *testing.T) {
	w := newWorld()
	w.bans(muster.Network, "45.9.20.7")
	s := w.service(t)
	second := []string{"From", "45.9.99.2"}
	third := []string{"User-Agent", "other/v1"}
	told(t, bouncer(t, s, "GET", startup))
	w.now = w.now.Add(time.Minute)
	for _, who := range [][]string{second, third} {
		if got := told(t, bouncer(t, s, "GET", delta, who...)); len(got.New) != 1 {
			t.Errorf("%v: expected everything for one who was never here, got %+v", who, got)
		}
	}
	w.now = w.now.Add(time.Minute)
	w.lifts(muster.Network, "45.9.20.7")
	for _, who := range [][]string{nil, second, third} {
		if got := told(t, bouncer(t, s, "GET", delta, who...)); len(got.Deleted) != 1 {
			t.Errorf("%v: expected one deleted, got %+v", who, got)
		}
	}
}

func TestStreamFilters(t *testing.T) {
	w := newWorld()
	w.bans(muster.Network, "45.9.20.7", "45.9.21.0/24")
	e := w.network[muster.Network][source("45.9.20.7")]
	e.Scenario = "crowdsecurity/HTTP-probing"
	w.network[muster.Network][e.Source] = e
	w.puts("ours", "91.92.1.1")
	soft := w.lists["ours"].Blocklist
	soft.Remedy = muster.RemedyCaptcha
	w.reads[webID] = append(w.reads[webID], soft)
	s := w.service(t)
	for query, want := range map[string]string{
		"":                                    "45.9.20.7 45.9.21.0/24 91.92.1.1",
		"scopes=ip,range":                     "45.9.20.7 45.9.21.0/24 91.92.1.1",
		"scopes=Ip":                           "45.9.20.7 91.92.1.1",
		"scopes=range":                        "45.9.21.0/24",
		"scopes=country,as":                   "",
		"origins=CAPI":                        "45.9.20.7 45.9.21.0/24",
		"origins=lists":                       "91.92.1.1",
		"origins=crowdsec,lists:ours":         "91.92.1.1",
		"origins=lists:other":                 "",
		"scenarios_containing=http,nothing":   "45.9.20.7",
		"scenarios_not_containing=HTTP,ours":  "45.9.21.0/24",
		"scenarios_containing=ssh&scopes=ip":  "",
		"type=captcha":                        "91.92.1.1",
		"scenarios_containing=&origins=&x=y&": "45.9.20.7 45.9.21.0/24 91.92.1.1",
	} {
		var values []string
		for _, d := range told(t, bouncer(t, s, "GET", startup+"&"+query)).New {
			values = append(values, strings.Fields(d)[0])
		}
		if got := strings.Join(values, " "); got != want {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
}

// An entry without an end is told with its list's lifetime, and told again
// before that is over.
func TestStreamKeepsEndlessEntriesAlive(t *testing.T) {
	w := newWorld()
	w.puts("ours", "91.92.1.1")
	w.reads[webID] = []muster.Blocklist{w.lists["ours"].Blocklist}
	s := w.service(t)
	wantChanges(t, "first", told(t, bouncer(t, s, "GET", startup)), []string{"91.92.1.1 Ip ban lists ours 24h0m0s"}, nil)
	w.now = w.now.Add(11 * time.Hour)
	wantChanges(t, "in time", told(t, bouncer(t, s, "GET", delta)), nil, nil)
	w.now = w.now.Add(2 * time.Hour)
	wantChanges(t, "after half of it", told(t, bouncer(t, s, "GET", delta)), []string{"91.92.1.1 Ip ban lists ours 24h0m0s"}, nil)
}

func TestStreamAfterListsChange(t *testing.T) {
	w := newWorld()
	w.bans(muster.Network, "45.9.20.7", "45.9.20.8")
	w.puts("ours", "91.92.1.1", "45.9.20.8")
	ours := w.lists["ours"].Blocklist
	community := w.reads[webID][0]
	w.reads[webID] = []muster.Blocklist{community, ours}
	s := w.service(t)
	told(t, bouncer(t, s, "GET", startup))
	w.now = w.now.Add(time.Minute)
	w.reads[webID] = []muster.Blocklist{community}
	got := told(t, bouncer(t, s, "GET", delta))
	wantChanges(t, "without a list", got, []string{"45.9.20.7 Ip ban CAPI crowdsecurity/ssh-bf 47h59m0s", "45.9.20.8 Ip ban CAPI crowdsecurity/ssh-bf 47h59m0s"}, []string{"91.92.1.1 Ip ban lists ours -1s"})
	w.now = w.now.Add(time.Minute)
	w.allowed["o1"], w.allowing = sources{source("45.9.20.7"): true}, 1
	got = told(t, bouncer(t, s, "GET", delta))
	wantChanges(t, "with something allowed", got, []string{"45.9.20.8 Ip ban CAPI crowdsecurity/ssh-bf 47h58m0s"}, []string{"45.9.20.7 Ip ban CAPI crowdsecurity/ssh-bf -1s"})
	w.now = w.now.Add(time.Minute)
	w.failing = errors.New("away")
	ours.Remedy = muster.RemedyCaptcha
	w.reads[webID] = []muster.Blocklist{community, ours}
	if got := bouncer(t, s, "GET", delta); got.Code != http.StatusInternalServerError {
		t.Errorf("a list that cannot be read: %d %s", got.Code, got.Body)
	}
	w.failing = nil
	got = told(t, bouncer(t, s, "GET", delta))
	if !slices.Contains(got.New, "91.92.1.1 Ip captcha lists ours 24h0m0s") {
		t.Errorf("when it can: %+v", got)
	}
}

// Lists that cannot be read any more stay in force as they were.
func TestStreamOutlivesFailures(t *testing.T) {
	w := newWorld()
	w.puts("ours", "91.92.1.1")
	w.reads[webID] = []muster.Blocklist{w.lists["ours"].Blocklist}
	s := w.service(t)
	told(t, bouncer(t, s, "GET", startup))
	w.now, w.failing = w.now.Add(time.Minute), errors.New("away")
	wantChanges(t, "meanwhile", told(t, bouncer(t, s, "GET", delta)), nil, nil)
	s.Invalidate() // what is forbidden may be in it
	if got := bouncer(t, s, "GET", delta); got.Code != http.StatusInternalServerError {
		t.Errorf("got %d", got.Code)
	}
}

// A bouncer with a budget gets so many, and is told of what comes and goes.
func TestStreamBudget(t *testing.T) {
	w := newWorld()
	w.integrations[1].Budget = 10
	for i := range byte(30) {
		w.bans(muster.Network, netip.AddrFrom4([4]byte{45, 9, 20, i}).String())
	}
	s := w.service(t)
	held := map[string]bool{}
	apply := func(c changes) {
		for _, d := range c.Deleted {
			delete(held, strings.Fields(d)[0])
		}
		for _, d := range c.New {
			held[strings.Fields(d)[0]] = true
		}
	}
	apply(told(t, bouncer(t, s, "GET", startup)))
	if len(held) != 9 {
		t.Fatalf("expected nine, got %v", held)
	}
	for i := range byte(5) {
		w.now = w.now.Add(time.Minute)
		w.bans("o1", netip.AddrFrom4([4]byte{91, 92, 1, i}).String())
		apply(told(t, bouncer(t, s, "GET", delta)))
		if !held["91.92.1."+string('0'+rune(i))] || len(held) > 10 {
			t.Fatalf("expected the own among ten at most, got %v", held)
		}
	}
}

// A bouncer that applies what it is told holds what stands, whatever happens in
// between: the same as one that starts anew.
func TestStreamModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		w.puts("ours")
		w.puts("theirs")
		if rapid.Bool().Draw(t, "budget") {
			w.integrations[1].Budget = rapid.IntRange(1, 8).Draw(t, "max")
		}
		s := New(Config{
			Store: w, Community: w, Catalogue: w, Now: func() time.Time { return w.now },
			Forbidden: func(s muster.Source) bool { _, ok := w.never.Covers(s); return ok },
			Allowlist: func(_, organisation string) (Allowed, uint64) { return w.allowed[organisation], w.allowing },
		})
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		texts := rapid.SampledFrom([]string{"45.9.20.0", "45.9.20.1", "45.9.20.2", "45.9.20.3", "45.9.20.0/30", "45.9.20.0/24", "2a06::1", "2a06::/64", "91.92.1.1", "10.0.0.1"})
		held := map[string]string{}
		query := startup
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			text := texts.Draw(t, "text")
			audience := rapid.SampledFrom([]muster.Audience{muster.Network, "o1", "o2"}).Draw(t, "audience")
			name := rapid.SampledFrom([]string{"ours", "theirs"}).Draw(t, "list")
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0, 1:
				w.bans(audience, text)
			case 2:
				w.lifts(audience, text)
			case 3:
				w.puts(name, text)
			case 4:
				delete(w.lists[name].entries, source(text))
				w.lists[name].version++
			case 5:
				l := w.lists[name].Blocklist
				l.Remedy = rapid.SampledFrom([]muster.Remedy{muster.RemedyBan, muster.RemedyCaptcha}).Draw(t, "remedy")
				w.reads[webID] = append(slices.DeleteFunc(slices.Clone(w.reads[webID]), func(b muster.Blocklist) bool { return b.ID == name }), l)
			case 6:
				w.reads[webID] = slices.DeleteFunc(slices.Clone(w.reads[webID]), func(b muster.Blocklist) bool { return b.ID == name })
			case 7:
				w.allowing++
				w.allowed["o1"] = sources{source(text): rapid.Bool().Draw(t, "allow")}
				if !w.allowed["o1"][source(text)] {
					clear(w.allowed["o1"])
				}
			case 8:
				clear(w.never)
				if rapid.Bool().Draw(t, "forbid") {
					w.never[source(text)] = true
				}
				s.Invalidate()
			case 9:
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 30).Draw(t, "hours")) * time.Hour)
			}
			w.now = w.now.Add(time.Duration(rapid.IntRange(600, 5000).Draw(t, "ms")) * time.Millisecond)
			if rapid.Bool().Draw(t, "no pull") {
				continue
			}
			got := told(t, bouncer(t, s, "GET", query))
			query = delta
			for _, d := range got.Deleted {
				f := strings.Fields(d)
				if held[f[0]] == f[2] {
					delete(held, f[0])
				}
			}
			for _, d := range got.New {
				f := strings.Fields(d)
				held[f[0]] = f[2]
			}
			all := map[string]string{}
			for _, d := range told(t, bouncer(t, s, "GET", startup, "From", "45.9.99.9")).New {
				f := strings.Fields(d)
				all[f[0]] = f[2]
			}
			if diff := cmp.Diff(all, held); diff != "" {
				t.Fatalf("all -, held +: %s", diff)
			}
			for value := range all {
				src := source(value)
				_, bad := w.never.Covers(src)
				_, ours := w.allowed["o1"].Covers(src)
				if bad || ours || src.IsReserved() {
					t.Fatalf("%s must not be told", value)
				}
			}
			if budget := w.integrations[1].Budget; budget > 0 && len(all) > budget {
				t.Fatalf("%d are over the budget of %d", len(all), budget)
			}
		}
	})
}

// A source about which something else is to be done now is told as gone and as
// new: some bouncers keep bans and captchas apart.
func TestStreamOtherRemedy(t *testing.T) {
	w := newWorld()
	w.bans(muster.Network, "45.9.20.7")
	s := w.service(t)
	told(t, bouncer(t, s, "GET", startup))
	w.now = w.now.Add(time.Minute)
	e := w.network[muster.Network][source("45.9.20.7")]
	e.Remedy = muster.RemedyCaptcha
	w.network[muster.Network][e.Source] = e
	w.versions[muster.Network]++
	wantChanges(t, "a captcha for a ban", told(t, bouncer(t, s, "GET", delta)),
		[]string{"45.9.20.7 Ip captcha CAPI crowdsecurity/ssh-bf 47h59m0s"}, []string{"45.9.20.7 Ip ban CAPI crowdsecurity/ssh-bf -1s"})
}

// What becomes forbidden is gone with the next answer, however soon that is.
func TestStreamForbidsAtOnce(t *testing.T) {
	w := newWorld()
	w.bans(muster.Network, "45.9.20.7")
	s := w.service(t)
	told(t, bouncer(t, s, "GET", startup))
	w.never[source("45.9.20.7")] = true
	s.Invalidate()
	wantChanges(t, "at once", told(t, bouncer(t, s, "GET", delta)), nil, []string{"45.9.20.7 Ip ban CAPI crowdsecurity/ssh-bf -1s"})
}
