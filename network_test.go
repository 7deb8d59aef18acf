package muster

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// The numbers are in stores: they never change.
func TestNetworkOf(t *testing.T) {
	for _, c := range []struct {
		addr string
		want uint64
	}{
		{"192.0.2.0", 0x1_c00002},
		{"192.0.2.255", 0x1_c00002},
		{"::ffff:192.0.2.7", 0x1_c00002},
		{"192.0.3.0", 0x1_c00003},
		{"0.0.0.0", 0x1_000000},
		{"255.255.255.255", 0x1_ffffff},
		{"2001:db8:1::", 0x1_20010db80001},
		{"2001:db8:1:ffff:ffff:ffff:ffff:ffff", 0x1_20010db80001},
		{"2001:db8:2::1", 0x1_20010db80002},
		{"fe80::1%eth0", 0x1_fe8000000000},
		{"::", 0x1_000000000000},
		{"::c000:0207", 0x1_000000000000}, // compatible, not mapped: no IPv4 address
	} {
		if got := NetworkOf(netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("%s: got %#x, want %#x", c.addr, got, c.want)
		}
	}
	if got := NetworkOf(netip.Addr{}); got != 0 {
		t.Errorf("no address: got %#x, want 0", got)
	}
}

// Two addresses have one number exactly when they are in one network.
func TestNetworkOfTellsNetworksApart(t *testing.T) {
	network := func(addr netip.Addr) netip.Prefix {
		bits := 48
		if addr = addr.Unmap(); addr.Is4() {
			bits = 24
		}
		return netip.PrefixFrom(addr, bits).Masked()
	}
	address := rapid.Custom(func(t *rapid.T) netip.Addr {
		raw := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes"))
		// Few values in front make equal networks likely, within a family and
		// bit by bit across the two.
		for i := range 13 {
			raw[i] &= 1
		}
		switch rapid.IntRange(0, 2).Draw(t, "form") {
		case 0:
			return netip.AddrFrom4([4]byte(raw[:4]))
		case 1:
			return netip.AddrFrom16(netip.AddrFrom4([4]byte(raw[:4])).As16())
		default:
			return netip.AddrFrom16(raw)
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := address.Draw(t, "a"), address.Draw(t, "b")
		if same := NetworkOf(a) == NetworkOf(b); same != (network(a) == network(b)) {
			t.Fatalf("%s in %s, %s in %s: one number is %t", a, network(a), b, network(b), same)
		}
	})
}

func BenchmarkNetworkOf(b *testing.B) {
	for _, text := range []string{"35.188.49.176", "2a01:4f8:c17:b0f::2"} {
		addr := netip.MustParseAddr(text)
		b.Run(text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if NetworkOf(addr) == 0 {
					b.Fatal(addr)
				}
			}
		})
	}
}
