package ingest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"

	"muster"
)

// hub knows one digest.
type hub string

func (h hub) Knows(hash string) bool { return hash == string(h) }

// admit runs one item through admission; the signal is nil when it was refused.
func admit(t testing.TB, from Sender, rules Rules, it Item) (*muster.Signal, *Batch) {
	t.Helper()
	b := newCommitter(nil, func(c *Config) { c.Rules = rules }).Batch(from)
	b.Add(7, &it)
	if b.Accepted == 0 {
		return nil, b
	}
	list := decode(t, b.buf)
	return &list[0], b
}

var rules = Rules{MaxAge: 24 * time.Hour, MaxFuture: 5 * time.Minute, Hub: hub(sshHash)}

// In which AS a source is, the record says for good: the database may say
// otherwise at the next replay. The sender's own word for it is not that.
func TestAdmissionNotesTheSourcesAS(t *testing.T) {
	known := rules
	known.ASN = func(a netip.Addr) uint32 {
		switch {
		case netip.MustParsePrefix("35.188.0.0/18").Contains(a):
			return 64500
		case netip.MustParsePrefix("2a00:1450::/32").Contains(a):
			return 64501
		}
		return 0
	}
	for value, want := range map[string]uint32{
		"35.188.49.176": 64500, "35.188.0.0/18": 64500, "35.188.0.0/17": 0, "35.188.63.0/24": 64500, "35.188.63.128/25": 64500,
		"35.189.1.1": 0, "2a00:1450:4001:81b::1": 64501, "2a00:1450::/32": 64501, "10.1.1.1": 0,
	} {
		it := ban()
		it.Value, it.ASN = value, 64999
		if strings.Contains(value, "/") {
			it.Scope = "range"
		}
		if s, _ := admit(t, sender, known, it); s.SourceASN != want || s.ASN != 64999 {
			t.Errorf("%s: AS %d, and by the sender's word %d; want %d", value, s.SourceASN, s.ASN, want)
		}
		if s, _ := admit(t, sender, rules, it); s.SourceASN != 0 {
			t.Errorf("%s: AS %d without a database", value, s.SourceASN)
		}
	}
}

func TestAdmissionRefuses(t *testing.T) {
	waiting := sender
	waiting.Active = false
	for _, c := range []struct {
		name   string
		from   Sender
		change func(*Item)
		code   string
		reason string
	}{
		{"pending machine", waiting, func(*Item) {}, CodeNotEnrolled, "not enrolled"},
		{"no scenario", sender, func(i *Item) { i.Scenario = "" }, CodeNoScenario, "missing"},
		{"a blank scenario, which no engine would take back", sender, func(i *Item) { i.Scenario = " \t" }, CodeNoScenario, "missing"},
		{"a scenario of control characters", sender, func(i *Item) { i.Scenario = "\x00\x7f" }, CodeNoScenario, "missing"},
		{"a long scenario", sender, func(i *Item) { i.Scenario = strings.Repeat("x", 257) }, CodeTooLong, "256 bytes"},
		{"too old", sender, func(i *Item) { i.Stop = now.Add(-24*time.Hour - time.Microsecond) }, CodeTooOld, "2026-11-19T11:59:59Z"},
		{"of the year 1", sender, func(i *Item) { i.Stop = time.Time{}.Add(1) }, CodeTooOld, "longer ago than 24h0m0s"},
		{"in the future", sender, func(i *Item) { i.Stop = now.Add(5*time.Minute + time.Microsecond) }, CodeFuture, "clock and time zone"},
		{"of the year 9999", sender, func(i *Item) { i.Stop = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) }, CodeFuture, "9999"},
	} {
		it := ban()
		c.change(&it)
		s, b := admit(t, c.from, rules, it)
		if s != nil || b.Refused != 1 || len(b.Refusals) != 1 {
			t.Errorf("%s: taken as %+v, %d refused", c.name, s, b.Refused)
			continue
		}
		r := b.Refusals[0]
		if r.Index != 7 || r.Code != c.code || !strings.Contains(r.Reason, c.reason) {
			t.Errorf("%s: got %+v, want code %s and %q", c.name, r, c.code, c.reason)
		}
		if n := testutil.ToFloat64(b.committer.refused.WithLabelValues(c.code)); n != 1 {
			t.Errorf("%s: the counter says %v", c.name, n)
		}
		if len(b.buf)+len(b.spans) > 0 {
			t.Errorf("%s: %d bytes of it were kept", c.name, len(b.buf))
		}
	}
}

func TestAdmissionFlags(t *testing.T) {
	const counts, fleet, decided = muster.Counts, muster.Fleet, muster.Decided
	const all = counts | fleet | decided
	of := func(p muster.FleetPolicy) Sender {
		s := sender
		s.Fleet = p
		return s
	}
	v2 := sender
	v2.V2 = true
	v2all := of(muster.FleetAll)
	v2all.V2 = true
	for _, c := range []struct {
		name   string
		from   Sender
		change func(*Item)
		want   muster.SignalFlags
	}{
		{"a ban of a hub scenario", sender, func(*Item) {}, all},
		{"fleet policy all", of(muster.FleetAll), func(*Item) {}, all},
		{"fleet policy off", of(muster.FleetOff), func(*Item) {}, counts | decided},
		{"an alert without a decision", sender, func(i *Item) { i.Decisions, i.Ban = 0, false }, counts},
		{"a captcha", sender, func(i *Item) { i.Ban = false }, counts | decided},
		{"simulated", sender, func(i *Item) { i.Simulated, i.Ban = true, false }, 0},
		{"simulated under policy all", of(muster.FleetAll), func(i *Item) { i.Simulated, i.Ban = true, false }, 0},

		{"custom", sender, func(i *Item) { i.Trust = "custom" }, decided},
		{"tainted", sender, func(i *Item) { i.Trust = "tainted" }, decided},
		{"of unknown trust", sender, func(i *Item) { i.Trust = "" }, decided},
		{"manual", sender, func(i *Item) { i.Trust = "manual" }, decided},
		{"custom under policy all", of(muster.FleetAll), func(i *Item) { i.Trust = "custom" }, fleet | decided},
		{"tainted under policy all", of(muster.FleetAll), func(i *Item) { i.Trust = "tainted" }, fleet | decided},
		{"manual under policy all", of(muster.FleetAll), func(i *Item) { i.Trust = "manual" }, fleet | decided},

		{"a hash that the hub does not know", sender, func(i *Item) { i.Hash = strings.Repeat("a", 64) }, decided},
		{"no hash", sender, func(i *Item) { i.Hash = "" }, decided},
		{"a hash that is none", sender, func(i *Item) { i.Hash = sshHash[:63] + "g" }, decided},
		{"a hash in capitals", sender, func(i *Item) { i.Hash = strings.ToUpper(sshHash) }, all},
		{"an unknown hash under policy all", of(muster.FleetAll), func(i *Item) { i.Hash = "" }, fleet | decided},

		{"cscli", sender, func(i *Item) { i.Kind, i.Origin, i.Trust = "cscli", "cscli", "manual" }, decided},
		{"cscli by kind only", sender, func(i *Item) { i.Kind = "cscli" }, decided},
		{"cscli by origin only", sender, func(i *Item) { i.Origin = "cscli-import" }, decided},
		{"cscli under policy all", of(muster.FleetAll), func(i *Item) { i.Kind, i.Origin, i.Trust = "cscli", "cscli", "manual" }, fleet | decided},
		{"an order's acknowledgement", sender, func(i *Item) { i.Kind, i.Trust = "papi", "custom" }, decided},
		{"an order under policy all", of(muster.FleetAll), func(i *Item) { i.Kind = "papi" }, decided},
		{"a console decision under policy all", of(muster.FleetAll), func(i *Item) { i.Origin = "console" }, decided},

		{"over v2, which has no decisions", v2, func(i *Item) { i.Decisions, i.Ban, i.Origin = 0, false, "" }, all},
		{"over v2, manual", v2, func(i *Item) { i.Decisions, i.Ban, i.Trust, i.Hash = 0, false, "manual", "" }, decided},
		{"over v2, manual, under policy all", v2all, func(i *Item) { i.Decisions, i.Ban, i.Trust, i.Hash = 0, false, "manual", "" }, fleet | decided},

		{"a private address", sender, func(i *Item) { i.Value = "192.168.1.4" }, decided},
		{"a documentation address", sender, func(i *Item) { i.Value = "192.0.2.1" }, decided},
		{"a mapped private address", sender, func(i *Item) { i.Value = "::ffff:10.0.0.1" }, decided},
		{"a country", sender, func(i *Item) { i.Scope, i.Value = "Country", "FR" }, decided},
		{"an address that is none", sender, func(i *Item) { i.Value, i.IP = "XX", "XX" }, decided},
		{"a /16", sender, func(i *Item) { i.Scope, i.Value = "Range", "35.188.0.0/16" }, all},
		{"a /15", sender, func(i *Item) { i.Scope, i.Value = "Range", "35.188.0.0/15" }, decided},
		{"a v6 /32", sender, func(i *Item) { i.Scope, i.Value = "Range", "2a01:4f8::/32" }, all},
		{"a v6 /31", sender, func(i *Item) { i.Scope, i.Value = "Range", "2a01:4f8::/31" }, decided},
		{"a v4-mapped /111", sender, func(i *Item) { i.Scope, i.Value = "Range", "::ffff:35.188.0.0/111" }, decided},
		{"all of IPv4, mapped, and more", sender, func(i *Item) { i.Scope, i.Value = "Range", "::ffff:35.188.0.0/95" }, decided},
	} {
		it := ban()
		c.change(&it)
		s, b := admit(t, c.from, rules, it)
		if s == nil {
			t.Errorf("%s: refused: %+v", c.name, b.Refusals)
			continue
		}
		if s.Flags != c.want {
			t.Errorf("%s: got flags %03b, want %03b (decided, fleet, counts)", c.name, s.Flags, c.want)
		}
	}
	free := rules
	free.Hub = nil
	it := ban()
	it.Hash = ""
	if s, _ := admit(t, sender, free, it); s == nil || s.Flags != all {
		t.Errorf("without a hub the claim is taken at its word; got %+v", s)
	}
}

func TestAdmissionTimes(t *testing.T) {
	var (
		stop, start, created = now.Add(-time.Minute), now.Add(-2 * time.Minute), now.Add(-3 * time.Minute)
		never                time.Time
	)
	for _, c := range []struct {
		name                       string
		stop, start, created, want time.Time
	}{
		{"stop first", stop, start, created, stop},
		{"then start", never, start, created, start},
		{"then created", never, never, created, created},
		{"else now", never, never, never, now},
		{"at the edge of age", now.Add(-24 * time.Hour), start, created, now.Add(-24 * time.Hour)},
		{"a clock a little ahead counts as now", now.Add(5 * time.Minute), start, created, now},
		{"a clock with a zone", stop.In(time.FixedZone("x", 3600)), start, created, stop},
	} {
		it := ban()
		it.Stop, it.Start, it.Created = c.stop, c.start, c.created
		s, b := admit(t, sender, rules, it)
		if s == nil || !s.At.Equal(c.want) || !s.Received.Equal(now) {
			t.Errorf("%s: got %+v, refusals %+v; want %s", c.name, s, b.Refusals, c.want)
		}
	}
}

func TestAdmissionNormalises(t *testing.T) {
	it := ban()
	it.Hash = strings.ToUpper(sshHash)
	it.Scenario = "crowdsecurity/\x00ssh-bf\n"
	it.Version = strings.Repeat("é", 70) // 140 bytes; the cut must not split a letter
	it.ASName = "Evil\x1b[31m Corp\x7f"
	it.Value, it.Scope = " ::ffff:35.188.49.176 ", "IP"
	s, _ := admit(t, sender, rules, it)
	want := &muster.Signal{
		Machine: "m1", Organisation: "o1", Received: now, At: now.Add(-time.Minute), Source: source(t, "35.188.49.176"),
		Scenario: "crowdsecurity/ssh-bf", ScenarioHash: sshHash, Version: strings.Repeat("é", 64), Trust: muster.TrustCertified,
		Kind: "crowdsec", Country: "US", ASN: 396982, ASName: "Evil[31m Corp", Flags: muster.Counts | muster.Fleet | muster.Decided,
		Detail: []byte(`{"message":"x"}`),
	}
	if diff := cmp.Diff(want, s, cmpopts.EquateComparable(muster.Source{}), cmpopts.IgnoreFields(muster.Signal{}, "ID")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	for scope, want := range map[string]string{"": "35.188.49.176", "ip": "35.188.49.176", "range": "35.188.49.176", "Country": ""} {
		it := ban()
		it.Scope, it.Value = scope, ""
		s, _ := admit(t, sender, rules, it)
		if got := s.Source; want == "" && got.IsValid() || want != "" && got.String() != want {
			t.Errorf("scope %q without a value: got %s, want %q", scope, got, want)
		}
	}

	it = ban()
	it.Scope, it.Value = "User\x00name", strings.Repeat("v", 500)
	s, _ = admit(t, sender, rules, it)
	if s.Source.IsValid() || s.Scope != "Username" || s.Value != strings.Repeat("v", 128) {
		t.Errorf("a user name: got %s, %q, %q", s.Source, s.Scope, s.Value)
	}

	for country, want := range map[string]string{"FR": "FR", "fr": "FR", "": "", "FRA": "", "F": "", "\x00\x01": "", "é": "", "1A": ""} {
		it := ban()
		it.Country = country
		if s, _ := admit(t, sender, rules, it); s.Country != want {
			t.Errorf("country %q: got %q, want %q", country, s.Country, want)
		}
	}

	it = ban()
	it.Detail = make([]byte, maxDetail+1)
	if s, _ := admit(t, sender, rules, it); s == nil || len(s.Detail) != 0 {
		t.Error("a detail over its limit must be left out, and its signal kept")
	}
}

func source(t testing.TB, text string) muster.Source {
	t.Helper()
	s, err := muster.ParseSource(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestIdentity(t *testing.T) {
	id := func(from Sender, change func(*Item)) muster.SignalID {
		t.Helper()
		it := ban()
		change(&it)
		s, b := admit(t, from, rules, it)
		if s == nil {
			t.Fatalf("refused: %+v", b.Refusals)
		}
		return s.ID
	}
	other := sender
	other.Machine = "m2"
	moved := sender
	moved.Organisation = "o2"
	base := id(sender, func(*Item) {})
	bare := id(sender, func(i *Item) { i.UUID = "" })
	for name, c := range map[string]struct {
		same bool
		a, b muster.SignalID
	}{
		"the uuid in capitals":                      {true, base, id(sender, func(i *Item) { i.UUID = strings.ToUpper(i.UUID) })},
		"the same uuid with other content":          {true, base, id(sender, func(i *Item) { i.Scenario, i.Value, i.Stop, i.Detail = "x", "1.2.3.4", now, nil })},
		"the same uuid after a change of owner":     {true, base, id(moved, func(*Item) {})},
		"another uuid":                              {false, base, id(sender, func(i *Item) { i.UUID += "0" })},
		"the same uuid of another machine":          {false, base, id(other, func(*Item) {})},
		"the same without its uuid":                 {false, base, bare},
		"without uuid: the same content":            {true, bare, id(sender, func(i *Item) { i.UUID = "" })},
		"without uuid: another machine":             {false, bare, id(other, func(i *Item) { i.UUID = "" })},
		"without uuid: another scenario":            {false, bare, id(sender, func(i *Item) { i.UUID, i.Scenario = "", "x" })},
		"without uuid: another address":             {false, bare, id(sender, func(i *Item) { i.UUID, i.Value = "", "35.188.49.177" })},
		"without uuid: another time":                {false, bare, id(sender, func(i *Item) { i.UUID, i.Stop = "", i.Stop.Add(time.Microsecond) })},
		"without uuid: another detail":              {false, bare, id(sender, func(i *Item) { i.UUID, i.Detail = "", nil })},
		"without uuid: the address in another form": {true, bare, id(sender, func(i *Item) { i.UUID, i.Value = "", "::ffff:35.188.49.176" })},
		"a uuid that spells what has none":          {false, bare, id(sender, func(i *Item) { i.UUID = "content\x00m1" })},
	} {
		if (c.a == c.b) != c.same {
			t.Errorf("%s: same identity %t, want %t", name, c.a == c.b, c.same)
		}
	}
	two := func(m1, u1, m2, u2 string) bool {
		a := identity(&muster.Signal{Machine: m1}, u1)
		return a == identity(&muster.Signal{Machine: m2}, u2)
	}
	if two("m", "1x", "m1", "x") {
		t.Error("machine and uuid run into each other")
	}
}

func TestDuplicatesInOneBatch(t *testing.T) {
	b := newCommitter(nil).Batch(sender)
	it := ban()
	b.Add(0, &it)
	it.UUID = strings.ToUpper(it.UUID)
	b.Add(1, &it)
	it.UUID = ""
	b.Add(2, &it)
	b.Add(3, &it)
	if b.Accepted != 2 || b.Refused != 2 || b.Refusals[0].Code != CodeDuplicate || b.Refusals[1].Index != 3 {
		t.Errorf("accepted %d, refused %d: %+v", b.Accepted, b.Refused, b.Refusals)
	}
	c := b.committer
	b.Drop()
	for range 10 { // a pool may give any batch
		b := c.Batch(sender)
		it := ban()
		b.Add(0, &it)
		if b.Accepted != 1 || b.Refused != 0 || len(b.Refusals) != 0 || len(b.spans) != 1 {
			t.Fatalf("a batch remembers the one before it: accepted %d, refused %d", b.Accepted, b.Refused)
		}
		b.Drop()
	}
}

func TestRefusalsAreBoundedButCounted(t *testing.T) {
	b := newCommitter(nil).Batch(sender)
	for i := range 1000 {
		b.Add(i, &Item{})
	}
	if b.Refused != 1000 || len(b.Refusals) != maxRefusals {
		t.Errorf("%d refused, %d spelled out", b.Refused, len(b.Refusals))
	}
}

// Evidence, positions and subjects are keyed by these numbers: this table must
// never change, or all data is lost.
func TestPartitionsAreLaw(t *testing.T) {
	want := `
1.1.1.1                 2
8.8.8.8                41
35.188.49.176          25
35.188.49.177          57
185.220.101.1          59
192.0.2.7               3
::ffff:192.0.2.7        3
223.255.255.255        28
35.188.0.0/16          16
185.220.101.0/24        7
0.0.0.0/0              45
2001:db8::1             6
2001:db8::2             6
2001:db8:0:0:ffff::     6
2001:db8:0:1::1         4
2a01:4f8:c17:b0f::2    45
2a01:4f8:c17:b0f::/64  45
2a01:4f8:c17:b0f::/80  45
2a01:4f8::/32          56
2606:4700:4700::1111   36
machine ""                                                  2
machine "m1"                                               29
machine "0123456789abcdef0123456789abcdefAbCdEfGhIjKlMnOp"  0
`
	var got strings.Builder
	for _, text := range []string{
		"1.1.1.1", "8.8.8.8", "35.188.49.176", "35.188.49.177", "185.220.101.1", "192.0.2.7", "::ffff:192.0.2.7", "223.255.255.255",
		"35.188.0.0/16", "185.220.101.0/24", "0.0.0.0/0", "2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::", "2001:db8:0:1::1",
		"2a01:4f8:c17:b0f::2", "2a01:4f8:c17:b0f::/64", "2a01:4f8:c17:b0f::/80", "2a01:4f8::/32", "2606:4700:4700::1111",
	} {
		fmt.Fprintf(&got, "%-22s %2d\n", text, SourcePartition(source(t, text)))
	}
	for _, machine := range []string{"", "m1", "0123456789abcdef0123456789abcdefAbCdEfGhIjKlMnOp"} {
		fmt.Fprintf(&got, "machine %-50q %2d\n", machine, Partition(&muster.Signal{Machine: machine, Scope: "Country", Value: "FR"}))
	}
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPartitionFollowsTheSource(t *testing.T) {
	seen := map[uint8]int{}
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")
		one := muster.SourceFromPrefix(prefix(raw, 128))
		s := &muster.Signal{Source: one, Machine: rapid.String().Draw(t, "machine")}
		p := Partition(s)
		seen[p]++
		if p >= muster.Partitions || p != SourcePartition(one) {
			t.Fatalf("%s: partition %d of a signal, %d of its source", one, p, SourcePartition(one))
		}
		if one.Addr().Is4() {
			return
		}
		copy(raw[8:], rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "host"))
		bits := rapid.IntRange(64, 128).Draw(t, "bits")
		if neighbour := muster.SourceFromPrefix(prefix(raw, bits)); neighbour.Addr().Is6() && SourcePartition(neighbour) != p {
			t.Fatalf("%s and %s share a /64 but not a partition", one, neighbour)
		}
	})
}

func TestPartitionsAreEven(t *testing.T) {
	var counts [muster.Partitions]int
	const each = 500
	for i := range each * muster.Partitions {
		counts[SourcePartition(source(t, fmt.Sprintf("%d.%d.%d.9", 1+i>>16, i>>8&255, i&255)))]++
	}
	if low, high := slices.Min(counts[:]), slices.Max(counts[:]); low < each*8/10 || high > each*12/10 {
		t.Errorf("partitions hold %d to %d of %d sources each", low, high, each)
	}
}

func BenchmarkBatchAdd(b *testing.B) {
	c := newCommitter(nil, func(c *Config) { c.Rules = rules })
	items := make([]Item, 50)
	size := 0
	for i := range items {
		items[i] = ban()
		items[i].UUID = fmt.Sprintf("0d5b2b6c-6a3c-4f0e-9a6f-%012d", i)
		items[i].Detail = []byte(`{"uuid":"` + items[i].UUID + `","message":"` + strings.Repeat("x", 500) + `"}`)
		size += len(items[i].Detail)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		batch := c.Batch(sender)
		for i := range items {
			batch.Add(i, &items[i])
		}
		if batch.Accepted != len(items) {
			b.Fatal(batch.Refusals)
		}
		batch.Drop()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(items)), "ns/signal")
}
