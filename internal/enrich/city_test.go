package enrich

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"muster"
)

func named(name string) fields {
	return fields{"names": fields{"en": mmdbtype.String(name), "de": mmdbtype.String("anders")}}
}

func openedCity(t testing.TB, content []byte) (*City, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "city.mmdb")
	put(t, path, content)
	c, err := OpenCity(path)
	t.Cleanup(func() { _ = c.Close() })
	return c, err
}

func TestCityOf(t *testing.T) {
	c, err := openedCity(t, mmdb(t, mmdbwriter.Options{DatabaseType: "GeoLite2-City"}, map[string]fields{
		"192.0.2.0/25": {
			"city": named("Bonn"), "country": iso("DE"), "registered_country": iso("FR"), "subdivisions": mmdbtype.Slice{named("North Rhine"), named("Bonn district")},
			"location": fields{"latitude": mmdbtype.Float64(50.7), "longitude": mmdbtype.Float64(7.1), "time_zone": mmdbtype.String("Europe/Berlin")},
			"traits":   fields{"isp": mmdbtype.String("I"), "organization": mmdbtype.String("O")},
		},
		"192.0.2.128/25": {"registered_country": iso("FR"), "location": fields{"latitude": mmdbtype.Float64(1)}},
		"2001:db8::/32":  {"country": iso("NL")},
	}))
	if err != nil {
		t.Fatal(err)
	}
	latitude, longitude := 50.7, 7.1
	for addr, want := range map[string]muster.SieveGeo{
		"192.0.2.1":          {CountryCode: "DE", CountryName: "Somewhere", City: "Bonn", Region: "North Rhine", Timezone: "Europe/Berlin", ISP: "I", Organisation: "O", Latitude: &latitude, Longitude: &longitude},
		"::ffff:192.0.2.129": {CountryCode: "FR", CountryName: "Somewhere"},
		"2001:db8::1":        {CountryCode: "NL", CountryName: "Somewhere"},
		"10.0.0.1":           {},
	} {
		if diff := cmp.Diff(want, c.Of(netip.MustParseAddr(addr))); diff != "" {
			t.Errorf("%s: want -, got +:\n%s", addr, diff)
		}
	}
	if _, err := openedCity(t, one(t, 64500, "EXAMPLE-ONE")); err == nil {
		t.Error("expected that a file of AS numbers is refused")
	}
	var none *City
	if changed, err := none.Reload(); none.Of(netip.MustParseAddr("192.0.2.1")) != (muster.SieveGeo{}) || changed || err != nil || none.Close() != nil {
		t.Errorf("none: %t, %v", changed, err)
	}
}

func TestPlaces(t *testing.T) {
	city, err := openedCity(t, mmdb(t, mmdbwriter.Options{DatabaseType: "GeoLite2-City"}, map[string]fields{"192.0.2.0/25": {"city": named("Bonn")}, "192.0.2.128/25": {"city": named("Lyon"), "country": iso("FR")}}))
	if err != nil {
		t.Fatal(err)
	}
	country, err := openedCountry(t, mmdb(t, mmdbwriter.Options{DatabaseType: "GeoLite2-Country"}, map[string]fields{"192.0.2.0/24": {"country": iso("DE")}}))
	if err != nil {
		t.Fatal(err)
	}
	p := Places{City: city, Country: country, ASN: opened(t, one(t, 64500, "EXAMPLE-ONE"))}
	for addr, want := range map[string]muster.SieveGeo{
		"192.0.2.1":   {CountryCode: "DE", City: "Bonn"},
		"192.0.2.129": {CountryCode: "FR", CountryName: "Somewhere", City: "Lyon"},
	} {
		want.ASN, want.ASName = p.ASN.Of(netip.MustParseAddr(addr))
		if diff := cmp.Diff(want, p.Of(netip.MustParseAddr(addr))); diff != "" || want.ASN == 0 {
			t.Errorf("%s: want -, got +:\n%s", addr, diff)
		}
	}
	if got := (Places{}).Of(netip.MustParseAddr("192.0.2.1")); got != (muster.SieveGeo{}) {
		t.Errorf("without files: %+v", got)
	}
}

func BenchmarkCity(b *testing.B) {
	c, err := openedCity(b, mmdb(b, mmdbwriter.Options{DatabaseType: "GeoLite2-City"}, map[string]fields{"192.0.2.0/24": {"city": named("Bonn"), "country": iso("DE")}}))
	if err != nil {
		b.Fatal(err)
	}
	addr := netip.MustParseAddr("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		c.Of(addr)
	}
}
