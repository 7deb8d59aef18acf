package enrich

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

func texts[K comparable](found map[K][]netip.Prefix) map[K][]string {
	out := map[K][]string{}
	for n, ps := range found {
		for _, p := range ps {
			out[n] = append(out[n], p.String())
		}
	}
	return out
}

func TestPrefixes(t *testing.T) {
	for _, options := range []mmdbwriter.Options{{DatabaseType: "GeoLite2-ASN", BuildEpoch: 1}, {DatabaseType: "x", BuildEpoch: 1, DisableIPv4Aliasing: true}} {
		a := opened(t, mmdb(t, options, map[string]fields{
			"192.0.2.0/24":      geoLite(64496, "ONE"),
			"198.51.100.0/24":   geoLite(64497, "TWO"),
			"198.51.100.128/25": geoLite(64496, "ONE"),
			"203.0.113.0/24":    geoLite(64499, "THREE"),
			"2001:db8::/32":     geoLite(64496, "ONE"),
		}))
		got, err := a.Prefixes([]uint32{64496, 64497, 64498, 0})
		want := map[uint32][]string{
			64496: {"192.0.2.0/24", "198.51.100.128/25", "2001:db8::/32"},
			64497: {"198.51.100.0/25"},
		}
		if diff := cmp.Diff(want, texts(got)); err != nil || diff != "" {
			t.Errorf("%s: %v %s", options.DatabaseType, err, diff)
		}
	}
	var none *ASN
	if got, err := none.Prefixes([]uint32{1}); err != nil || got != nil {
		t.Errorf("without a database: %v, %v", got, err)
	}
	closed := opened(t, routes(t, 100))
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := closed.Prefixes([]uint32{1}); err != nil || got != nil {
		t.Errorf("of a closed database: %v, %v", got, err)
	}
}

func TestCountryPrefixes(t *testing.T) {
	in := func(code string) fields { return fields{"country": mmdbtype.Map{"iso_code": mmdbtype.String(code)}} }
	path := filepath.Join(t.TempDir(), "country.mmdb")
	put(t, path, mmdb(t, mmdbwriter.Options{DatabaseType: "GeoLite2-Country", BuildEpoch: 1}, map[string]fields{
		"192.0.2.0/24": in("DE"), "198.51.100.0/24": in("FR"), "198.51.100.0/25": in("DE"), "2001:db8::/32": in("DE"),
	}))
	c, err := OpenCountry(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	got, err := c.Prefixes([]string{"DE", "IT", ""})
	if diff := cmp.Diff(map[string][]string{"DE": {"192.0.2.0/24", "198.51.100.0/25", "2001:db8::/32"}}, texts(got)); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	var none *Country
	if got, err := none.Prefixes([]string{"DE"}); err != nil || got != nil {
		t.Errorf("without a database: %v, %v", got, err)
	}
}

// What Of says of an address and what Prefixes says of its AS agree.
func TestPrefixesAgreeWithOf(t *testing.T) {
	a := opened(t, routes(t, 3000))
	numbers := []uint32{1, 2, 3, 64500}
	found, err := a.Prefixes(numbers)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for asn, ps := range found {
		for _, p := range ps {
			n++
			if got, _ := a.Of(p.Addr()); got != asn {
				t.Errorf("%s: AS%d has it, and Of says AS%d", p, asn, got)
			}
		}
	}
	if n < 10 {
		t.Errorf("expected some ranges, got %d", n)
	}
}

func BenchmarkPrefixes(b *testing.B) {
	a := opened(b, routes(b, 200_000))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Prefixes([]uint32{1, 64500}); err != nil {
			b.Fatal(err)
		}
	}
}
