package swarm

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"muster"
)

// maxSources bounds the pool: about 200 bytes of memory each.
const maxSources = 2_000_000

// Sources is a pool of public addresses that are reported as attackers. They
// are only ever written into bodies, never contacted. It is immutable and may
// be shared.
type Sources struct {
	all  []source
	skew float64
}

// source is one address with what an engine's enrichment says about it.
type source struct {
	addr   string // "8.8.8.8"
	object string // the signal's source object in JSON
}

// networks are the autonomous systems that the addresses are said to be in:
// numbers reserved for documentation (RFC 5398), so that nobody is accused.
var networks = []struct {
	number    uint32
	name, cn  string
	lat, long string
}{
	{64496, "EXAMPLE-HOSTING-AS", "NL", "52.3824", "4.8995"},
	{64497, "EXAMPLE-BACKBONE No.31, Jin-rong Street", "CN", "34.7732", "113.722"},
	{64498, "EXAMPLE-CLOUD", "US", "37.751", "-97.822"},
	{64499, "Example Telecom", "VN", "16.0021", "105.9984"},
	{64500, "EXAMPLE-ASN", "SG", "1.2868", "103.8503"},
	{64501, "Example Internet Ltd", "RU", "55.7386", "37.6068"},
	{64502, "EXAMPLE-BROADBAND-AS-AP", "IN", "21.9974", "79.0011"},
	{65536, "Example Servidores S.A.", "BR", "-22.8305", "-43.2192"},
	{65537, "EXAMPLE-DEDICATED-SERVERS", "DE", "51.2993", "9.491"},
	{65538, "Example Datacenter GmbH", "US", "39.0437", "-77.4874"},
	{65539, "EXAMPLE-RESIDENTIAL", "FR", "48.8582", "2.3387"},
	{65540, "Example Kommunikation AB", "SE", "59.3247", "18.056"},
}

// NewSources makes a pool of n different addresses, the same for the same seed.
// Every 25th is IPv6. skew (over 1) is the exponent of Zipf's law by which
// Feed picks them: the larger, the more the first ones dominate.
func NewSources(n int, skew float64, seed uint64) *Sources {
	rng := rand.New(rand.NewPCG(seed, 0x736f7572636573))
	p := &Sources{all: make([]source, 0, n), skew: skew}
	seen := make(map[netip.Addr]struct{}, n)
	for len(p.all) < n {
		var addr netip.Addr
		if len(p.all)%25 == 24 {
			addr = randomV6(rng)
		} else {
			addr = netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, rng.Uint32())))
		}
		if _, dup := seen[addr]; dup || muster.SourceFromAddr(addr).IsReserved() {
			continue
		}
		seen[addr] = struct{}{}
		p.all = append(p.all, newSource(addr, rng.IntN(len(networks))))
	}
	return p
}

// randomV6 returns the first address of a random /64 in 2a00::/12, where
// Europe's are.
func randomV6(rng *rand.Rand) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], rng.Uint64()>>12|0x2a0<<52)
	b[15] = 1
	return netip.AddrFrom16(b)
}

func newSource(addr netip.Addr, network int) source {
	bits := 16
	if addr.Is6() {
		bits = 32
	}
	as := networks[network]
	text := addr.String()
	var b strings.Builder
	fmt.Fprintf(&b, `{"as_name":%q,"as_number":"%d","cn":%q,"ip":%q,"latitude":%s,"longitude":%s,"range":%q,"scope":"Ip","value":%q}`,
		as.name, as.number, as.cn, text, as.lat, as.long, netip.PrefixFrom(addr, bits).Masked(), text)
	// The address is a part of the object, so that both share one allocation.
	object := b.String()
	at := strings.Index(object, `"ip":"`) + len(`"ip":"`)
	return source{addr: object[at : at+len(text)], object: object}
}

// split returns the first n addresses and the others.
func (p *Sources) split(n int) (first, others *Sources) {
	return &Sources{all: p.all[:n:n], skew: p.skew}, &Sources{all: p.all[n:], skew: p.skew}
}

// v4 returns the first n that are IPv4, of which there are fewer at the worst.
func (p *Sources) v4(n int) *Sources {
	all := make([]source, 0, n)
	for i := 0; i < len(p.all) && len(all) < n; i++ {
		if !strings.Contains(p.all[i].addr, ":") {
			all = append(all, p.all[i])
		}
	}
	return &Sources{all: all, skew: p.skew}
}

// Len returns the number of addresses.
func (p *Sources) Len() int { return len(p.all) }

// Addr returns the i-th address as text.
func (p *Sources) Addr(i int) string { return p.all[i].addr }

// popularity returns a picker of indexes, drawn from rng. The offset keeps the
// most popular address at about one signal in a hundred.
func (p *Sources) popularity(rng *rand.Rand) *rand.Zipf {
	return rand.NewZipf(rng, p.skew, 20, uint64(len(p.all)-1))
}
