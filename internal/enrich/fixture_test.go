package enrich

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

// fields is one record of a fixture.
type fields = mmdbtype.Map

// geoLite is a record as MaxMind and DB-IP write it.
func geoLite(number uint32, name string) fields {
	return fields{"autonomous_system_number": mmdbtype.Uint32(number), "autonomous_system_organization": mmdbtype.String(name)}
}

// mmdb returns a database of the type, with a record per network.
func mmdb(t testing.TB, options mmdbwriter.Options, networks map[string]fields) []byte {
	t.Helper()
	options.IncludeReservedNetworks = true // documentation addresses are what tests have
	tree, err := mmdbwriter.New(options)
	if err != nil {
		t.Fatal(err)
	}
	// The wider first: what is inserted later wins.
	for _, p := range slices.SortedFunc(maps.Keys(networks), func(a, b string) int {
		return netip.MustParsePrefix(a).Compare(netip.MustParsePrefix(b))
	}) {
		_, network, err := net.ParseCIDR(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Insert(network, networks[p]); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := tree.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// routes returns a database like a routing table: n networks of IPv4, and of
// IPv6 a tenth as many, of n/6 systems. 223.255.255.0/24 is one of them.
func routes(t testing.TB, n int) []byte {
	t.Helper()
	random := rand.New(rand.NewPCG(1, uint64(n)))
	networks := map[string]fields{"223.255.255.0/24": geoLite(64500, "EXAMPLE-LAST")}
	add := func(addr netip.Addr, bits int) {
		system := 1 + random.IntN(n/6)
		networks[netip.PrefixFrom(addr, bits).Masked().String()] = geoLite(uint32(system), fmt.Sprintf("EXAMPLE-%d Networks and Hosting Ltd", system))
	}
	for range n {
		add(netip.AddrFrom4([4]byte{byte(1 + random.IntN(223)), byte(random.Uint32()), byte(random.Uint32())}), 12+random.IntN(13))
	}
	for range n / 10 {
		add(netip.AddrFrom16([16]byte{0x2a, byte(random.IntN(16)), byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())}), 29+random.IntN(12))
	}
	return mmdb(t, mmdbwriter.Options{DatabaseType: "GeoLite2-ASN", BuildEpoch: 1}, networks)
}

// put replaces the file at path by renaming, as geoipupdate does.
func put(t testing.TB, path string, content []byte) {
	t.Helper()
	next := filepath.Join(filepath.Dir(path), "next")
	if err := os.WriteFile(next, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

// opened opens a file of the content.
func opened(t testing.TB, content []byte) *ASN {
	t.Helper()
	path := filepath.Join(t.TempDir(), "asn.mmdb")
	put(t, path, content)
	a, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}
