package enrich

import (
	"net/netip"
	"testing"

	"github.com/maxmind/mmdbwriter"
)

func TestNetwork(t *testing.T) {
	a := opened(t, mmdb(t, mmdbwriter.Options{DatabaseType: "GeoLite2-ASN"}, map[string]fields{
		"192.0.2.0/24": geoLite(64500, "EXAMPLE-ONE"), "2001:db8::/32": geoLite(64501, "EXAMPLE-SIX"),
	}))
	for addr, want := range map[string]string{
		"192.0.2.7": "192.0.2.0/24", "::ffff:192.0.2.7": "192.0.2.0/24", "2001:db8:1::9": "2001:db8::/32", "198.51.100.7": "", "2001:db9::1": "",
	} {
		got := a.Network(netip.MustParseAddr(addr))
		if want == "" && got.IsValid() || want != "" && got.String() != want {
			t.Errorf("%s: expected %q, got %s", addr, want, got)
		}
	}
	var none *ASN
	if none.Network(netip.MustParseAddr("192.0.2.7")).IsValid() {
		t.Error("no database knows a network")
	}
}
