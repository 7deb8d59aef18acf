package enrich

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

type answer struct {
	asn  uint32
	name string
}

func of(a *ASN, addr string) answer {
	n, name := a.Of(netip.MustParseAddr(addr))
	return answer{n, name}
}

func TestOf(t *testing.T) {
	geoLite := mmdb(t, mmdbwriter.Options{DatabaseType: "GeoLite2-ASN"}, map[string]fields{
		"192.0.2.0/24":      geoLite(64500, "EXAMPLE-ONE"),
		"192.0.2.128/25":    geoLite(4_200_000_000, "Größe & <Söhne>"),
		"2001:db8::/32":     geoLite(64501, "EXAMPLE-SIX"),
		"198.51.100.0/25":   geoLite(0, "not routed"),
		"198.51.100.128/25": {"autonomous_system_number": mmdbtype.Uint32(64502)},
	})
	ipinfo := mmdb(t, mmdbwriter.Options{DatabaseType: "ipinfo lite.mmdb"}, map[string]fields{
		"192.0.2.0/25":      {"asn": mmdbtype.String("AS64500"), "as_name": mmdbtype.String("EXAMPLE-ONE"), "country": mmdbtype.String("Germany")},
		"192.0.2.128/25":    {"asn": mmdbtype.String("AS64503"), "as_name": mmdbtype.String("Carrier"), "name": mmdbtype.String("Its customer")},
		"2001:db8::/32":     {"asn": mmdbtype.String("AS4200000000"), "name": mmdbtype.String("EXAMPLE-SIX"), "anycast": mmdbtype.Bool(true)},
		"198.51.100.0/26":   {"asn": mmdbtype.String(""), "as_name": mmdbtype.String("")},
		"198.51.100.64/26":  {"asn": mmdbtype.String("AS4294967296")},
		"198.51.100.128/26": {"asn": mmdbtype.String("ASN"), "as_name": mmdbtype.String("odd")},
		"198.51.100.192/26": {"asn": fields{"asn": mmdbtype.String("AS1")}},
		"203.0.113.0/26":    {"asn": mmdbtype.Uint64(1 << 32)},
		"203.0.113.64/26":   {"asn": mmdbtype.Uint32(64504), "name": fields{"en": mmdbtype.String("nested")}},
	})
	fourOnly := mmdb(t, mmdbwriter.Options{DatabaseType: "GeoLite2-ASN", IPVersion: 4}, map[string]fields{
		"192.0.2.0/24": {"autonomous_system_number": mmdbtype.Uint16(64500), "isp": mmdbtype.String("An ISP")},
	})

	for name, file := range map[string]struct {
		content []byte
		want    map[string]answer
	}{
		"GeoLite": {geoLite, map[string]answer{
			"192.0.2.7":          {64500, "EXAMPLE-ONE"},
			"::ffff:192.0.2.7":   {64500, "EXAMPLE-ONE"},
			"192.0.2.200":        {4_200_000_000, "Größe & <Söhne>"},
			"2001:db8:ffff::9":   {64501, "EXAMPLE-SIX"},
			"2001:db8::9%eth0":   {64501, "EXAMPLE-SIX"},
			"198.51.100.7":       {},
			"198.51.100.200":     {64502, ""},
			"10.0.0.1":           {},
			"2001:db9::1":        {},
			"::ffff:10.0.0.1":    {},
			"255.255.255.255":    {},
			"fe80::1%eth0":       {},
			"::ffff:192.0.2.200": {4_200_000_000, "Größe & <Söhne>"},
		}},
		"IPinfo": {ipinfo, map[string]answer{
			"192.0.2.7":      {64500, "EXAMPLE-ONE"},
			"192.0.2.200":    {64503, "Carrier"},
			"2001:db8::1":    {4_200_000_000, "EXAMPLE-SIX"},
			"198.51.100.1":   {},
			"198.51.100.65":  {},
			"198.51.100.129": {},
			"198.51.100.193": {},
			"203.0.113.1":    {},
			"203.0.113.65":   {64504, ""},
		}},
		"IPv4 only": {fourOnly, map[string]answer{
			"192.0.2.7":        {64500, ""},
			"::ffff:192.0.2.7": {64500, ""},
			"2001:db8::1":      {},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			a := opened(t, file.content)
			for addr, want := range file.want {
				if got := of(a, addr); got != want {
					t.Errorf("%s: got %v, want %v", addr, got, want)
				}
			}
			if n, name := a.Of(netip.Addr{}); n != 0 || name != "" {
				t.Errorf("no address: got %d, %q", n, name)
			}
		})
	}
}

func TestNilKnowsNothing(t *testing.T) {
	var a *ASN
	if got := of(a, "192.0.2.7"); got != (answer{}) {
		t.Errorf("got %v", got)
	}
	if changed, err := a.Reload(); changed || err != nil {
		t.Errorf("reload: %t, %v", changed, err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

// one returns a database in which all of 192.0.2.0/24 is one AS.
func one(t testing.TB, number uint32, name string) []byte {
	return mmdb(t, mmdbwriter.Options{DatabaseType: "GeoLite2-ASN"}, map[string]fields{"192.0.2.0/24": geoLite(number, name)})
}

func TestOpenRefuses(t *testing.T) {
	whole := one(t, 64500, "EXAMPLE-ONE")
	city := mmdb(t, mmdbwriter.Options{DatabaseType: "GeoLite2-City"}, map[string]fields{
		"192.0.2.0/24": {"city": fields{"names": fields{"en": mmdbtype.String("Nowhere")}}},
	})
	words := mmdb(t, mmdbwriter.Options{DatabaseType: "Words"}, map[string]fields{"192.0.2.0/24": {"name": mmdbtype.String("only")}})
	empty := mmdb(t, mmdbwriter.Options{DatabaseType: "GeoLite2-ASN"}, nil)
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"another database": {city, `of type "GeoLite2-City", has neither autonomous_system_number nor asn in its first 1 records`},
		"names alone":      {words, `of type "Words", has neither`},
		"no records":       {empty, "in its first 0 records"},
		"cut off":          {whole[:len(whole)/2], "no complete MMDB file"},
		"archive":          {[]byte("\x1f\x8b not unpacked"), "no complete MMDB file"},
		"empty file":       {[]byte{}, "file is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "asn.mmdb")
			put(t, path, c.content)
			a, err := Open(path)
			if err == nil || a != nil {
				t.Fatalf("got %v, %v", a, err)
			}
			for _, want := range []string{c.want, path, "enrich.asn", "GeoLite2-ASN"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "enrich.asn: ") {
		t.Errorf("no file: %v", err)
	}
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
}

func TestReload(t *testing.T) {
	a := opened(t, one(t, 64500, "EXAMPLE-ONE"))
	reload := func(step string, wantChanged bool, wantErr string, want answer) {
		t.Helper()
		changed, err := a.Reload()
		if changed != wantChanged || (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("%s: changed %t, %v", step, changed, err)
		}
		if got := of(a, "192.0.2.7"); got != want {
			t.Errorf("%s: got %v, want %v", step, got, want)
		}
	}
	first, second, third := answer{64500, "EXAMPLE-ONE"}, answer{64501, "EXAMPLE-TWO"}, answer{64502, "EXAMPLE-TRE"}

	reload("same file", false, "", first)
	put(t, a.path, one(t, second.asn, second.name)) // of the same size
	reload("another file", true, "", second)
	reload("same again", false, "", second)

	put(t, a.path, []byte("not a database"))
	reload("broken", false, "the former one stays in use", second)
	reload("still broken", false, "no complete MMDB file", second)
	if err := os.Remove(a.path); err != nil {
		t.Fatal(err)
	}
	reload("away", false, "no such file", second)
	put(t, a.path, one(t, third.asn, third.name))
	reload("mended", true, "", third)

	// In place, the time alone tells.
	if err := os.WriteFile(a.path, one(t, first.asn, first.name), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(a.path, time.Time{}, time.Unix(1_700_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	reload("overwritten", true, "", first)

	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	reload("closed", false, "closed", answer{})
	if err := a.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

// Under concurrent lookups each answer is whole and of one of the files, and
// former files go while lookups are under way.
func TestReloadWhileLookingUp(t *testing.T) {
	files := [][]byte{one(t, 64500, "EXAMPLE-ONE"), one(t, 64501, "a name of another length")}
	wanted := map[answer]bool{{64500, "EXAMPLE-ONE"}: true, {64501, "a name of another length"}: true}
	a := opened(t, files[0])

	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if got := of(a, "192.0.2.7"); !wanted[got] {
					t.Errorf("got %v", got)
					return
				}
			}
		})
	}
	for i := range 30 {
		put(t, a.path, files[(i+1)%2])
		var changes [2]bool // of two that reload at once, one does
		var reloaders sync.WaitGroup
		for r := range changes {
			reloaders.Go(func() {
				changed, err := a.Reload()
				if err != nil {
					t.Error(err)
				}
				changes[r] = changed
			})
		}
		reloaders.Wait()
		if changes[0] == changes[1] {
			t.Fatalf("reload %d: changed %v, want one of two", i, changes)
		}
		if i%10 == 0 {
			runtime.GC() // unmaps the former files
		}
	}
	close(done)
	readers.Wait()

	// Close may come while lookups are under way too.
	var late sync.WaitGroup
	for range 4 {
		late.Go(func() {
			for of(a, "192.0.2.7") != (answer{}) {
			}
		})
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	runtime.GC()
	late.Wait()
}

// A file that is cut short under its mapping must not end the process.
func TestFileCutShort(t *testing.T) {
	content := routes(t, 2_000)
	a := opened(t, content)
	const addr = "223.255.255.1" // far behind in the file
	before := of(a, addr)
	if before.asn == 0 {
		t.Fatal("the fixture lacks " + addr)
	}
	if err := os.Truncate(a.path, 0); err != nil {
		t.Fatal(err)
	}
	if got := of(a, addr); got != (answer{}) {
		t.Errorf("cut short: got %v", got)
	}
	if changed, err := a.Reload(); changed || err == nil {
		t.Errorf("reload of an empty file: %t, %v", changed, err)
	}
	put(t, a.path, content)
	if changed, err := a.Reload(); !changed || err != nil {
		t.Errorf("mended: %t, %v", changed, err)
	}
	if got := of(a, addr); got != before {
		t.Errorf("mended: got %v, want %v", got, before)
	}
}

func TestOfDoesNotAllocate(t *testing.T) {
	a := opened(t, one(t, 64500, "EXAMPLE-ONE"))
	for _, c := range []struct {
		addr string
		want uint32
	}{{"192.0.2.7", 64500}, {"10.0.0.1", 0}} {
		addr := netip.MustParseAddr(c.addr)
		var got uint32
		if n := testing.AllocsPerRun(1000, func() { got, _ = a.Of(addr) }); n != 0 || got != c.want {
			t.Errorf("%s: AS%d with %v allocations, want AS%d with none", addr, got, n, c.want)
		}
	}
}

func BenchmarkOf(b *testing.B) {
	a := opened(b, routes(b, 100_000))
	random := rand.New(rand.NewPCG(1, 2))
	all := make([]netip.Addr, 1<<14)
	for i := range all {
		all[i] = netip.AddrFrom4([4]byte{byte(1 + random.IntN(223)), byte(random.Uint32()), byte(random.Uint32()), 1})
	}
	for name, addrs := range map[string][]netip.Addr{"one address": all[:1], "1,000 addresses": all[:1024], "16,000 addresses": all} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i, found := 0, 0
			for b.Loop() {
				if n, _ := a.Of(addrs[i%len(addrs)]); n != 0 {
					found++
				}
				i++
			}
			b.ReportMetric(float64(found)/float64(i), "found/op")
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "asn.mmdb")
	put(b, path, routes(b, 100_000))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Open(path); err != nil {
			b.Fatal(err)
		}
	}
}
