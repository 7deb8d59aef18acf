package cti

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

var now = time.Date(2026, 11, 20, 12, 30, 0, 0, time.UTC)

// daysOf makes days of sightings.
func daysOf(sightings ...Sighting) []DatedDay {
	byDay := map[int64]*Day{}
	for i := range sightings {
		n := DayOf(sightings[i].At)
		if byDay[n] == nil {
			byDay[n] = &Day{}
		}
		byDay[n].Add(&sightings[i])
	}
	var days []DatedDay
	for n, d := range byDay {
		days = append(days, DatedDay{n, d})
	}
	slices.SortFunc(days, func(a, b DatedDay) int { return int(a.Number - b.Number) })
	return days
}

// ago is a sighting by an organisation of an AS of its own, so many hours ago.
func ago(hours int, organisation int, scenario string, rank uint8) Sighting {
	return Sighting{
		At: now.Add(-time.Duration(hours) * time.Hour), Machine: fmt.Sprintf("m%d", organisation), Organisation: fmt.Sprintf("o%d", organisation),
		Scenario: scenario, ASN: uint32(64500 + organisation), Rank: rank,
		Country: []string{"DE", "FR", "DE", "NL", "DE"}[organisation%5],
	}
}

func compute(e Evidence) (Item, bool) {
	p := Default()
	if !e.Addr.IsValid() {
		e.Addr = netip.MustParseAddr("45.83.64.1")
	}
	if e.Now.IsZero() {
		e.Now = now
	}
	return p.Compute(BuiltIn(), &e)
}

func listing(scenario string, remedy muster.Remedy) muster.ListEntry {
	return muster.ListEntry{Source: muster.SourceFromAddr(netip.MustParseAddr("45.83.64.1")), Scenario: scenario, Remedy: remedy, Until: now.Add(72 * time.Hour), Score: 6}
}

// A golden for each reputation: what people and programs are told.
func TestReputations(t *testing.T) {
	var crowd, guess []Sighting
	for o := range 12 {
		for _, h := range []int{1, 3, 5, 7, 9, 11, 30, 54, 200, 500} {
			crowd = append(crowd, ago(h, o, "crowdsecurity/ssh-bf", uint8(2+o%3)))
		}
		crowd = append(crowd, ago(2, o, "crowdsecurity/vpatch-CVE-2017-9841", 3))
		guess = append(guess, ago(40+o, o, "crowdsecurity/http-crawl-non_statics", 1))
	}
	place := Place{Country: "NL", ASN: 64499, ASName: "Example Hosting", Network: netip.MustParsePrefix("45.83.64.0/22")}
	for name, e := range map[string]Evidence{
		"malicious": {
			Days: daysOf(crowd...), Listed: listing("crowdsecurity/ssh-bf", muster.RemedyBan), Place: place, Near: 5, Around: 9, Active: 40,
			Verdict: &muster.Verdict{Listed: true, Reasons: muster.Reasons{Support: 7.5, Threshold: 5, Independent: 6, Organisations: 12, First: now.Add(-500 * time.Hour).Unix(), Last: now.Add(-time.Hour).Unix()}},
		},
		"suspicious": {Days: daysOf(guess...), Place: place, Near: 1, Active: 40},
		"captcha":    {Listed: listing("crowdsecurity/ssh-bf", muster.RemedyCaptcha), Days: daysOf(ago(1, 1, "crowdsecurity/ssh-bf", 1)), Active: 40},
		"known":      {Days: daysOf(ago(1000, 1, "crowdsecurity/ssh-bf", 1)), Active: 3},
		"safe":       {Days: daysOf(crowd...), Good: Canary, Why: "misp:googlebot", Active: 40},
		"allowed":    {Days: daysOf(crowd...), Listed: listing("crowdsecurity/ssh-bf", muster.RemedyBan), Good: Allowlisted, Why: "our customer", Active: 40},
		"benign":     {Days: daysOf(crowd...), Good: Canary, Why: "list:shodan scanners", Active: 40},
		"unknown":    {Addr: netip.MustParseAddr("2a00:1::1"), Days: daysOf(ago(24*100, 1, "crowdsecurity/ssh-bf", 5)), Active: 40},
	} {
		item, known := compute(e)
		if known == (name == "unknown") {
			t.Errorf("%s: known = %v", name, known)
		}
		want := map[string]Reputation{"captcha": Suspicious, "allowed": Safe}[name]
		if want == "" {
			want = Reputation(name)
		}
		if item.Reputation != want {
			t.Errorf("%s: expected %s, got %s", name, want, item.Reputation)
		}
		got, err := json.MarshalIndent(item, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name+".json")
		if *update {
			if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		golden, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(string(golden), string(got)+"\n"); diff != "" {
			t.Errorf("%s; go test -update writes it anew:\n%s", name, diff)
		}
	}
}

var someScenarios = []string{
	"crowdsecurity/ssh-bf", "crowdsecurity/http-crawl-non_statics", "crowdsecurity/vpatch-CVE-2017-9841", "crowdsecurity/iptables-scan-multi_ports", "own/unheard-of",
}

func drawSightings(t *rapid.T) []Sighting {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Sighting {
		o := rapid.IntRange(0, 15).Draw(t, "organisation")
		s := ago(rapid.IntRange(0, 24*95).Draw(t, "hours"), o, rapid.SampledFrom(someScenarios).Draw(t, "scenario"), uint8(rapid.IntRange(0, 5).Draw(t, "rank")))
		s.ASN = uint32(rapid.IntRange(0, 5).Draw(t, "asn"))
		s.Honeypot = rapid.IntRange(0, 20).Draw(t, "honeypot") == 0
		return s
	}), 0, 60).Draw(t, "sightings")
}

func drawEvidence(t *rapid.T) Evidence {
	e := Evidence{Days: daysOf(drawSightings(t)...), Near: rapid.IntRange(0, 256).Draw(t, "near"), Active: rapid.IntRange(0, 200).Draw(t, "active")}
	e.Good = Good(rapid.SampledFrom([]int{0, 0, 0, 0, 1, 2, 3}).Draw(t, "good"))
	if rapid.Bool().Draw(t, "six") {
		e.Addr = netip.MustParseAddr("2a00:1:2:3::4")
	}
	switch rapid.IntRange(0, 3).Draw(t, "listed") {
	case 0:
		e.Listed = listing(rapid.SampledFrom(someScenarios).Draw(t, "for"), muster.RemedyBan)
	case 1:
		e.Listed = listing(rapid.SampledFrom(someScenarios).Draw(t, "for"), muster.RemedyCaptcha)
	}
	if rapid.Bool().Draw(t, "judged") {
		first := now.Add(-time.Duration(rapid.IntRange(0, 24*40).Draw(t, "first")) * time.Hour)
		e.Verdict = &muster.Verdict{Reasons: muster.Reasons{
			Support: float32(rapid.Float64Range(0, 40).Draw(t, "support")), Threshold: 5, Independent: rapid.IntRange(0, 9).Draw(t, "independent"),
			Organisations: rapid.IntRange(0, 50).Draw(t, "organisations"), First: first.Unix(), Last: now.Unix(),
		}}
	}
	if rapid.Bool().Draw(t, "placed") {
		e.Place = Place{Country: "NL", ASN: 1, ASName: "x", Network: netip.MustParsePrefix("45.83.0.0/16")}
	}
	return e
}

func allScores(s Scores) []Score { return []Score{s.LastDay, s.LastWeek, s.LastMonth, s.Overall} }

func TestRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawEvidence(t)
		item, known := compute(e)
		for i, s := range allScores(item.Scores) {
			for _, n := range []int{s.Aggressiveness, s.Threat, s.Trust, s.Anomaly, s.Total} {
				if n < 0 || n > 5 {
					t.Fatalf("window %d: %+v", i, s)
				}
			}
			if s.Total > s.Trust+1 {
				t.Fatalf("window %d: the total is more than trust and one: %+v", i, s)
			}
		}
		if n := item.BackgroundNoiseScore; n != nil && (*n < 0 || *n > 10) {
			t.Fatalf("background noise %d", *n)
		}
		if item.IPRangeScore < 0 || item.IPRangeScore > 5 || item.IPRange24Score < 0 || item.IPRange24Score > 5 {
			t.Fatalf("range scores %d, %d", item.IPRangeScore, item.IPRange24Score)
		}
		good := e.Good != NotGood
		if good && (item.Reputation != Safe || item.Scores != Scores{} || len(item.Behaviors)+len(item.AttackDetails)+len(item.References) > 0 || len(item.Classifications.FalsePositives) != 1) {
			t.Fatalf("good, and yet %+v", item)
		}
		listed := e.Listed.Source.IsValid() && e.Listed.Remedy == muster.RemedyBan
		class := slices.ContainsFunc(item.Classifications.Classifications, func(l Label) bool { return l.Name == "community-blocklist" })
		if class != (listed && !good) || listed && !good && (item.Reputation != Malicious || item.Confidence == None || item.Confidence == Low) {
			t.Fatalf("listed %v, and %s, %s, %v", listed, item.Reputation, item.Confidence, class)
		}
		if !known && (item.Reputation != Unknown || item.Scores != Scores{}) {
			t.Fatalf("unknown, and %+v", item)
		}
		sum := 0
		for _, percent := range item.TargetCountries {
			sum += percent
		}
		if sum > 102 || len(item.TargetCountries) > 10 {
			t.Fatalf("countries %v", item.TargetCountries)
		}
		// Lists are never null, and times are as clients read them.
		raw, err := json.Marshal(item)
		if err != nil {
			t.Fatal(err)
		}
		strict(t, raw)
	})
}

// strict checks what may be null and what is a whole number.
func strict(t *rapid.T, raw []byte) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	nullable := []string{"background_noise_score", "ip_range", "ip_range_24", "as_name", "as_num", "reverse_dns"}
	for k, v := range m {
		if string(v) == "null" && !slices.Contains(nullable, k) {
			t.Fatalf("%s is null", k)
		}
	}
	for _, k := range []string{"background_noise_score", "ip_range_score", "ip_range_24_score", "as_num"} {
		var n *int
		if err := json.Unmarshal(m[k], &n); err != nil {
			t.Fatalf("%s: %v", k, err)
		}
	}
	var location, history map[string]json.RawMessage
	_ = json.Unmarshal(m["location"], &location)
	_ = json.Unmarshal(m["history"], &history)
	if len(location) != 4 || len(history) != 4 {
		t.Fatalf("location %s, history %s", m["location"], m["history"])
	}
}

// One report more never makes an address look better: more organisations, more
// hours, a machine of higher rank.
func TestMonotonic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sightings := drawSightings(t)
		for i := range sightings {
			sightings[i].ASN = uint32(100 + i%16) // of its own, so that it adds in full
		}
		more := ago(rapid.IntRange(1, 24*80).Draw(t, "hours"), 16, rapid.SampledFrom(someScenarios).Draw(t, "scenario"), uint8(rapid.IntRange(0, 5).Draw(t, "rank")))
		more.ASN = 7
		before, _ := compute(Evidence{Days: daysOf(sightings...), Active: 40})
		after, _ := compute(Evidence{Days: daysOf(append(slices.Clone(sightings), more)...), Active: 40})
		a, b := allScores(before.Scores), allScores(after.Scores)
		for i := range a {
			if b[i].Aggressiveness < a[i].Aggressiveness || b[i].Threat < a[i].Threat || b[i].Trust < a[i].Trust {
				t.Fatalf("window %d: %+v became %+v", i, a[i], b[i])
			}
		}
		grade := map[Level]int{None: 0, Low: 1, Medium: 2, High: 3}
		if grade[after.Confidence] < grade[before.Confidence] {
			t.Fatalf("confidence %s became %s", before.Confidence, after.Confidence)
		}
	})
}

// A swarm of machines of one organisation gains nothing by its number.
func TestOneOrganisationIsOneVoice(t *testing.T) {
	var swarm []Sighting
	for m := range 5000 {
		s := ago(1+m%20, 1, "crowdsecurity/vpatch-CVE-2017-9841", 1)
		s.Machine = fmt.Sprint(m)
		swarm = append(swarm, s)
	}
	item, _ := compute(Evidence{Days: daysOf(swarm...), Active: 40})
	if s := item.Scores.Overall; s.Total > 1 || s.Threat > 2 || s.Trust > 0 || item.Reputation != Known {
		t.Errorf("a swarm makes %s with %+v", item.Reputation, s)
	}
}

func TestUnbanClears(t *testing.T) {
	days := daysOf(ago(30, 1, "crowdsecurity/ssh-bf", 5), ago(30, 2, "crowdsecurity/ssh-bf", 5))
	v := &muster.Verdict{Changed: now.Add(-time.Hour), Reasons: muster.Reasons{Basis: "cleared", Support: 9, Threshold: 5, First: 1, Last: now.Unix()}}
	if item, known := compute(Evidence{Days: days, Verdict: v}); known {
		t.Errorf("cleared, and %+v", item.Scores)
	}
}

func TestDayCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d, back Day
		midnight := now.Truncate(24 * time.Hour)
		for _, s := range drawSightings(t) {
			s.At = midnight.Add(time.Duration(rapid.IntRange(0, 86399).Draw(t, "second")) * time.Second)
			d.Add(&s)
		}
		data := d.AppendBinary(nil)
		if err := back.UnmarshalBinary(data); err != nil {
			t.Fatal(err)
		}
		if again := back.AppendBinary(nil); !slices.Equal(data, again) {
			t.Fatalf("%x became %x", data, again)
		}
		for n := range data {
			if err := back.UnmarshalBinary(data[:n]); err == nil {
				t.Fatalf("%d of %d bytes are read as if whole", n, len(data))
			}
		}
	})
}

// However much is reported, a day stays small.
func TestDayIsBounded(t *testing.T) {
	var d Day
	for n := range 20_000 {
		d.Add(&Sighting{
			At: now, Machine: fmt.Sprint("m", n), Organisation: fmt.Sprint("o", n), Scenario: fmt.Sprint("s", n%100),
			ASN: uint32(n), Rank: uint8(n % 3), Country: "DE",
		})
	}
	if size := len(d.AppendBinary(nil)); size > 1600 {
		t.Errorf("a day of %d bytes", size)
	}
	for what, n := range map[string]int{"machines": d.Machines(), "organisations": d.Organisations()} {
		if n < 15_000 || n > 25_000 {
			t.Errorf("%d %s of 20,000", n, what)
		}
	}
	for _, v := range d.voices {
		if v.rank != 2 {
			t.Errorf("a voice of rank %d stayed, and better ones did not", v.rank)
		}
	}
}

func TestSketch(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, 17, 40, 200, 3000} {
		var a, b, both sketch
		for i := range n {
			a.add(uint64(i))
			b.add(uint64(i + n/2))
			both.add(uint64(i))
			both.add(uint64(i + n/2))
		}
		if got := a.count(); got < n-n/4 || got > n+n/4 || n <= exactMembers && got != n {
			t.Errorf("%d members count as %d", n, got)
		}
		a.join(&b)
		if a.count() != both.count() {
			t.Errorf("%d: joined %d, at once %d", n, a.count(), both.count())
		}
	}
}

func FuzzDay(f *testing.F) {
	var d Day
	s := ago(1, 1, "crowdsecurity/ssh-bf", 3)
	d.Add(&s)
	f.Add(d.AppendBinary(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		var d Day
		if d.UnmarshalBinary(data) != nil {
			return
		}
		item, _ := compute(Evidence{Days: []DatedDay{{DayOf(now), &d}}, Active: 9})
		for _, s := range allScores(item.Scores) {
			if s.Total < 0 || s.Total > 5 {
				t.Errorf("%+v", s)
			}
		}
	})
}

func TestItemTypesAreThoseOfClients(t *testing.T) {
	for field := range reflect.TypeFor[Item]().Fields() {
		if field.Type.Kind() == reflect.Float64 || field.Type.Kind() == reflect.Pointer && field.Type.Elem().Kind() == reflect.Float64 {
			t.Errorf("%s has a fraction, at which clients give up", field.Name)
		}
	}
}

func BenchmarkCompute(b *testing.B) {
	for _, days := range []int{1, 7, 90} {
		b.Run(fmt.Sprintf("%d days of 8 organisations", days), func(b *testing.B) {
			var s []Sighting
			for d := range days {
				for o := range 8 {
					s = append(s, ago(24*d+1, o, someScenarios[o%3], 2))
				}
			}
			e := Evidence{Addr: netip.MustParseAddr("45.83.64.1"), Now: now, Days: daysOf(s...), Active: 40, Listed: listing(someScenarios[0], muster.RemedyBan)}
			p := Default()
			b.ReportAllocs()
			for b.Loop() {
				p.Compute(BuiltIn(), &e)
			}
		})
	}
}
