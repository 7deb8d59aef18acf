package enrich

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

func iso(code string) fields {
	return fields{"iso_code": mmdbtype.String(code), "names": fields{"en": mmdbtype.String("Somewhere")}}
}

func openedCountry(t testing.TB, content []byte) (*Country, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "country.mmdb")
	put(t, path, content)
	c, err := OpenCountry(path)
	t.Cleanup(func() { _ = c.Close() })
	return c, err
}

func TestCountryOf(t *testing.T) {
	geoLite := mmdb(t, mmdbwriter.Options{DatabaseType: "GeoLite2-Country"}, map[string]fields{
		"192.0.2.0/26":    {"continent": fields{"code": mmdbtype.String("EU")}, "country": iso("DE"), "registered_country": iso("FR")},
		"192.0.2.64/26":   {"registered_country": iso("FR"), "represented_country": iso("US")},
		"192.0.2.128/26":  {"continent": fields{"code": mmdbtype.String("EU")}},
		"192.0.2.192/26":  {"country": iso("de"), "is_anycast": mmdbtype.Bool(true)},
		"2001:db8::/32":   {"country": iso("NL")},
		"198.51.100.0/24": {"country": mmdbtype.Uint32(7), "registered_country": iso("")},
	})
	ipinfo := mmdb(t, mmdbwriter.Options{DatabaseType: "ipinfo lite.mmdb"}, map[string]fields{
		"192.0.2.0/26":   {"asn": mmdbtype.String("AS64500"), "country": mmdbtype.String("Germany"), "country_code": mmdbtype.String("DE")},
		"192.0.2.64/26":  {"country_code": mmdbtype.String("FR"), "country": mmdbtype.String("France")},
		"192.0.2.128/26": {"country": mmdbtype.String("NL")},
	})
	for name, file := range map[string]struct {
		content []byte
		want    map[string]string
	}{
		"GeoLite": {geoLite, map[string]string{
			"192.0.2.1": "DE", "::ffff:192.0.2.1": "DE", "192.0.2.65": "FR", "192.0.2.129": "", "192.0.2.193": "", "2001:db8::1": "NL", "198.51.100.1": "", "10.0.0.1": "",
		}},
		"IPinfo": {ipinfo, map[string]string{"192.0.2.1": "DE", "192.0.2.65": "FR", "192.0.2.129": "NL", "2001:db8::1": ""}},
	} {
		c, err := openedCountry(t, file.content)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for addr, want := range file.want {
			if got := c.Of(netip.MustParseAddr(addr)); got != want {
				t.Errorf("%s: %s: got %q, want %q", name, addr, got, want)
			}
		}
	}
	if _, err := openedCountry(t, one(t, 64500, "EXAMPLE-ONE")); err == nil || !strings.Contains(err.Error(), `enrich.country: expected a database of countries`) || !strings.Contains(err.Error(), "neither country.iso_code nor country_code") {
		t.Errorf("of AS numbers: %v", err)
	}
	var none *Country
	if changed, err := none.Reload(); none.Of(netip.MustParseAddr("192.0.2.1")) != "" || changed || err != nil || none.Close() != nil {
		t.Errorf("none: %t, %v", changed, err)
	}
}

func TestCountryReload(t *testing.T) {
	of := func(code string) []byte {
		return mmdb(t, mmdbwriter.Options{DatabaseType: "GeoLite2-Country"}, map[string]fields{"192.0.2.0/24": {"country": iso(code)}})
	}
	c, err := openedCountry(t, of("DE"))
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr("192.0.2.1")
	put(t, c.path, of("FR"))
	if changed, err := c.Reload(); !changed || err != nil || c.Of(addr) != "FR" {
		t.Errorf("%t, %v, %q", changed, err, c.Of(addr))
	}
	if err := os.Truncate(c.path, 0); err != nil {
		t.Fatal(err)
	}
	if got := c.Of(addr); got != "" {
		t.Errorf("cut short: %q", got)
	}
	if _, err := c.Reload(); err == nil {
		t.Error("expected that an empty file is refused")
	}
}

func BenchmarkCountry(b *testing.B) {
	c, err := openedCountry(b, mmdb(b, mmdbwriter.Options{DatabaseType: "GeoLite2-Country"}, map[string]fields{"192.0.2.0/24": {"country": iso("DE")}}))
	if err != nil {
		b.Fatal(err)
	}
	addr := netip.MustParseAddr("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		c.Of(addr)
	}
}
