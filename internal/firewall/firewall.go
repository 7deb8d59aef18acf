// Package firewall writes blocklists for products that fetch a file: each in the
// form that it reads, within what it can hold, the most useful entries first,
// and neighbours put together into ranges.
package firewall

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"muster"
)

// Format is what one product reads. The names are those of CrowdSec's
// integrations API.
type Format struct {
	Name        string
	Label       string // the product's, for people
	ContentType string
	IPv6        bool
	Ranges      bool // takes ranges; otherwise they are written as addresses
	Max         int  // most entries that the product is known to take; 0 = its memory is the limit
	Budget      int  // what an integration is given to start with
	Notes       string
	line        func(b []byte, p netip.Prefix, list string) []byte
}

const (
	text = "text/plain; charset=utf-8"
	csv  = "text/csv; charset=utf-8"
)

// start is the budget that CrowdSec gives every integration.
const start = 10_000

// formats in the order in which people are shown them.
var formats = []Format{
	{
		Name: "plain_text", Label: "Plain text", ContentType: text, IPv6: true, Ranges: true, Budget: start, line: plain,
		Notes: "One address or range in CIDR form per line.",
	},
	{
		Name: "pfsense", Label: "pfSense", ContentType: text, IPv6: true, Ranges: true, Max: 400_000, Budget: 50_000, line: plain,
		Notes: "For an alias of type URL Table (IPs). All tables together hold Firewall Maximum Table Entries (System, Advanced, Firewall & NAT), 400000 unless changed; while a table is replaced, it counts twice.",
	},
	{
		Name: "opnsense", Label: "OPNsense", ContentType: text, IPv6: true, Ranges: true, Max: 1_000_000, Budget: 50_000, line: plain,
		Notes: "For an alias of type URL Table (IPs). All tables together hold Firewall Maximum Table Entries (Firewall, Settings, Advanced), 1000000 unless changed; while a table is replaced, it counts twice.",
	},
	{
		Name: "fortigate", Label: "Fortinet FortiGate", ContentType: text, IPv6: true, Ranges: true, Max: 131_072, Budget: 100_000, line: plain,
		Notes: "For an external connector of type address. One file holds 131072 entries and 10 MB; small models take fewer files.",
	},
	{
		Name: "paloalto", Label: "Palo Alto Networks", ContentType: text, IPv6: true, Ranges: true, Max: 150_000, Budget: 50_000, line: plain,
		Notes: "For an external dynamic list of type IP List. All lists together hold 50000 addresses on small models and 150000 on large ones. Credentials need HTTPS and a certificate profile.",
	},
	{
		Name: "checkpoint", Label: "Check Point", ContentType: csv, Ranges: true, Budget: start, line: checkpoint,
		Notes: "For a custom intelligence feed, which knows IPv4 only. Ranges are written as IP Range, from-to.",
	},
	{
		Name: "cisco", Label: "Cisco Secure Firewall", ContentType: text, IPv6: true, Ranges: true, Budget: start, line: plain,
		Notes: "For a security intelligence feed, whose file may have 500 MB.",
	},
	{
		Name: "juniper", Label: "Juniper SRX", ContentType: text, IPv6: true, Ranges: true, Budget: start, line: juniper,
		Notes: "For a feed server of dynamic addresses. Every entry has a prefix length. How many a feed holds depends on the model.",
	},
	{
		Name: "mikrotik", Label: "MikroTik RouterOS", ContentType: text, IPv6: true, Ranges: true, Budget: start, line: mikrotik,
		Notes: "For /import. Adding an entry that is there already stops an import, so the script that fetches the file removes the old entries first; entries that are not fetched anew end by themselves after 48 hours.",
	},
	{
		Name: "f5", Label: "F5 BIG-IP AFM", ContentType: csv, IPv6: true, Ranges: true, Budget: start, line: f5,
		Notes: "For a feed list of type IP intelligence. Entries are of the category crowdsec-NAME, which has to be there.",
	},
	{
		Name: "sophos", Label: "Sophos Firewall", ContentType: text, Budget: start, line: plain,
		Notes: "For a third-party threat feed of type IPv4 address, which knows neither IPv6 nor ranges: ranges of up to 256 addresses are written as addresses, wider ones are left out.",
	},
}

// Formats returns all formats in the order in which people are shown them.
func Formats() []Format { return slices.Clone(formats) }

// Of returns the format of a name, or an error of code muster.Invalid.
func Of(name string) (*Format, error) {
	var names []string
	for i := range formats {
		if formats[i].Name == name {
			return &formats[i], nil
		}
		names = append(names, formats[i].Name)
	}
	if len(name) > 64 {
		name = name[:64] + "…"
	}
	return nil, muster.Errorf(muster.Invalid, "format: expected %s, got %q", strings.Join(names, ", "), name)
}

// Append appends the lines of entries for the integration called list. Entries
// have to be what the format takes, as Choose returns them.
func (f *Format) Append(b []byte, entries []netip.Prefix, list string) []byte {
	for _, p := range entries {
		b = append(f.line(b, p, list), '\n')
	}
	return b
}

// plain writes 192.0.2.1 or 192.0.2.0/24.
func plain(b []byte, p netip.Prefix, _ string) []byte {
	if p.IsSingleIP() {
		return p.Addr().AppendTo(b)
	}
	return p.AppendTo(b)
}

// juniper writes the prefix length always.
func juniper(b []byte, p netip.Prefix, _ string) []byte { return p.AppendTo(b) }

// f5 writes address, prefix length, BL for blocklist and the category.
func f5(b []byte, p netip.Prefix, list string) []byte {
	b = p.Addr().AppendTo(b)
	b = append(b, ',')
	b = strconv.AppendInt(b, int64(p.Bits()), 10)
	b = append(b, ",BL,crowdsec-"...)
	return append(b, list...)
}

// checkpoint writes name, value, type, confidence, severity, product and
// comment; the name has to be unique, and stays with the value.
func checkpoint(b []byte, p netip.Prefix, _ string) []byte {
	b = append(b, "crowdsec-"...)
	b = p.Addr().AppendTo(b)
	if p.IsSingleIP() {
		b = append(b, ',')
		b = p.Addr().AppendTo(b)
		return append(b, ",IP,high,high,AB,C&C server IP"...)
	}
	b = append(b, '_')
	b = strconv.AppendInt(b, int64(p.Bits()), 10)
	b = append(b, ',')
	b = p.Addr().AppendTo(b)
	b = append(b, '-')
	b = last(p).AppendTo(b)
	return append(b, ",IP Range,high,high,AB,C&C server IP"...)
}

// mikrotik writes a command. CrowdSec's own page has /ip6 for IPv6, which
// RouterOS does not know.
func mikrotik(b []byte, p netip.Prefix, _ string) []byte {
	if p.Addr().Is4() {
		b = append(b, "/ip"...)
	} else {
		b = append(b, "/ipv6"...)
	}
	b = append(b, " firewall address-list add list=crowdsec-integration address="...)
	b = plain(b, p, "")
	return append(b, ` comment="crowdsec/mikrotik" timeout=48h;`...)
}

// last returns the last address of a range.
func last(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for i := p.Bits(); i < len(raw)*8; i++ {
		raw[i/8] |= 1 << (7 - i%8)
	}
	addr, _ := netip.AddrFromSlice(raw)
	return addr
}
