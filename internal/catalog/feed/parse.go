// Package feed fetches blocklists from others and reads the forms that they
// come in.
package feed

import (
	"bytes"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"muster"
)

// The formats. A colon and an argument may follow where the comment names one.
const (
	// Plain has an address, a range (198.51.100.0/24) or two addresses with a
	// hyphen on a line; what follows a blank, a comma or one of # ; // is no part of
	// it. FireHOL, Emerging Threats, Spamhaus DROP and most others are so.
	Plain = "plain"
	// Count has an address and in how many other lists it is, as ipsum. The argument
	// is the least number that is taken: "count:3".
	Count = "count"
	// DShield has first and last address and prefix length of ranges in columns.
	DShield = "dshield"
	// CSV has columns, separated by comma, semicolon, tab or bar. The argument is the
	// column's title or number, from 1: "csv:dst_ip", "csv:2".
	CSV = "csv"
	// JSON is one document or one per line. The argument is the path of the value,
	// arrays left out: "json:data.ip".
	JSON = "json"
)

// CheckFormat returns an error of code Invalid for what is no format. "" is
// one: found out from the content.
func CheckFormat(format string) error {
	kind, arg, _ := strings.Cut(format, ":")
	switch kind {
	case "", Plain, DShield:
		if arg == "" {
			return nil
		}
	case Count:
		if n, err := strconv.Atoi(arg); arg == "" || err == nil && n > 0 {
			return nil
		}
	case CSV, JSON:
		if len(arg) <= 200 {
			return nil
		}
	}
	return muster.Errorf(muster.Invalid, "expected a format like plain, count:3, dshield, csv:COLUMN or json:PATH, or none to find it out, got %q", clip(format))
}

// Parsed is what a feed has.
type Parsed struct {
	Format  string          // that it was read in
	Sources []muster.Source // in order, each once
	Skipped int             // values that are no address, too wide or reserved
	Example string          // one of them, up to 64 bytes
}

// The widest ranges that are taken: a wider one is a mistake, or somebody's
// attempt to cut readers off.
const (
	minBits4 = 8
	minBits6 = 16
)

// Parse reads a feed in a format, "" to find it out. Errors are of code Invalid
// when it has no addresses or more lines that are none than addresses, as an
// error page has, and TooLarge when it has more than most.
func Parse(body []byte, format string, most int) (Parsed, error) {
	if err := CheckFormat(format); err != nil {
		return Parsed{}, err
	}
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if format == "" {
		var err error
		if format, err = detect(body); err != nil {
			return Parsed{}, err
		}
	}
	p := parser{Parsed: Parsed{Format: format}, most: most}
	kind, arg, _ := strings.Cut(format, ":")
	var err error
	switch kind {
	case JSON:
		err = p.json(body, arg)
	case CSV:
		err = p.csv(body, arg)
	case DShield:
		err = p.lines(body, p.dshield)
	case Count:
		least, _ := strconv.Atoi(arg) // checked; 0 without one
		err = p.lines(body, func(line string) { p.count(line, least) })
	default:
		err = p.lines(body, p.plain)
	}
	if err != nil {
		return Parsed{}, err
	}
	slices.SortFunc(p.Sources, muster.Source.Compare)
	p.Sources = slices.Compact(p.Sources)
	switch {
	case len(p.Sources) == 0:
		return Parsed{}, muster.Errorf(muster.Invalid, "no address in it as %s%s", format, p.example())
	case p.unreadable > len(p.Sources):
		return Parsed{}, muster.Errorf(muster.Invalid, "%d values of it are no address as %s, and only %d are%s: is that the format?", p.unreadable, format, len(p.Sources), p.example())
	}
	return p.Parsed, nil
}

// parser collects what a feed has.
type parser struct {
	Parsed
	most       int
	unreadable int // of Skipped
}

func (p *parser) example() string {
	if p.Example == "" {
		return ""
	}
	return ", for example " + strconv.Quote(p.Example)
}

func (p *parser) skip(text string) {
	p.Skipped++
	if p.Example == "" {
		p.Example = clip(text)
	}
}

// take adds what a text says: an address, a range, two addresses with a hyphen,
// or an address with a port.
func (p *parser) take(text string) {
	text = strings.TrimSpace(text)
	if source, err := muster.ParseSource(text); err == nil {
		p.add(source)
		return
	}
	if from, to, ok := strings.Cut(text, "-"); ok {
		first, err1 := netip.ParseAddr(strings.TrimSpace(from))
		last, err2 := netip.ParseAddr(strings.TrimSpace(to))
		if err1 == nil && err2 == nil && p.between(first, last) {
			return
		}
	} else if ap, err := netip.ParseAddrPort(text); err == nil {
		p.add(muster.SourceFromAddr(ap.Addr()))
		return
	}
	p.unreadable++
	p.skip(text)
}

func (p *parser) add(source muster.Source) {
	prefix := source.Prefix()
	least := minBits4
	if prefix.Addr().Is6() {
		least = minBits6
	}
	if prefix.Bits() < least || source.IsReserved() {
		p.skip(source.String())
		return
	}
	p.Sources = append(p.Sources, source)
}

// between adds the ranges that make up the addresses from first to last, and
// reports whether they are in that order.
func (p *parser) between(first, last netip.Addr) bool {
	first, last = first.Unmap().WithZone(""), last.Unmap().WithZone("")
	if first.BitLen() != last.BitLen() || last.Less(first) {
		return false
	}
	for {
		prefix := widest(first, last)
		p.add(muster.SourceFromPrefix(prefix))
		end := lastOf(prefix)
		if end == last {
			return true
		}
		first = end.Next()
	}
}

// widest returns the widest range that begins with first and does not go beyond
// last.
func widest(first, last netip.Addr) netip.Prefix {
	for bits := 0; ; bits++ {
		prefix := netip.PrefixFrom(first, bits)
		if prefix.Masked().Addr() == first && !last.Less(lastOf(prefix)) {
			return prefix
		}
	}
}

func lastOf(prefix netip.Prefix) netip.Addr {
	b := prefix.Addr().AsSlice()
	for i := prefix.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b) // of the length that it came with
	return last
}

// errTooMany says how many may be.
func (p *parser) tooMany() error {
	return muster.Errorf(muster.TooLarge, "it has more than %d entries: expected at most as many (max of the feed)", p.most)
}

// lines calls read with each line that is not empty.
func (p *parser) lines(body []byte, read func(line string)) error {
	for len(body) > 0 {
		line, rest, _ := bytes.Cut(body, []byte("\n"))
		body = rest
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if read(string(line[:min(len(line), maxLine)])); len(p.Sources) > p.most {
			return p.tooMany()
		}
	}
	return nil
}

// maxLine is looked at of a line, in bytes.
const maxLine = 4096

// uncommented cuts a line where a comment begins.
func uncommented(line string) string {
	if i := strings.IndexAny(line, "#;"); i >= 0 {
		line = line[:i]
	}
	if i := strings.Index(line, "//"); i >= 0 {
		line = line[:i]
	}
	return strings.TrimSpace(line)
}

func (p *parser) plain(line string) {
	if line = uncommented(line); line == "" {
		return
	}
	// Two addresses with a hyphen may have blanks around it.
	if i := strings.IndexByte(line, '-'); i >= 0 {
		to, _, _ := strings.Cut(strings.TrimSpace(line[i+1:]), " ")
		if from := strings.TrimSpace(line[:i]); !strings.ContainsAny(from, " \t,") {
			p.take(from + "-" + strings.TrimRight(to, ","))
			return
		}
	}
	if i := strings.IndexAny(line, " \t,"); i >= 0 {
		line = line[:i]
	}
	p.take(line)
}

func (p *parser) count(line string, least int) {
	fields := strings.FieldsFunc(uncommented(line), func(r rune) bool { return r == ' ' || r == '\t' || r == ',' })
	switch {
	case len(fields) == 0:
	case len(fields) == 1:
		if least <= 1 {
			p.take(fields[0])
		}
	default:
		if n, err := strconv.Atoi(fields[1]); err != nil {
			p.unreadable++
			p.skip(line)
		} else if n >= least {
			p.take(fields[0])
		}
	}
}

func (p *parser) dshield(line string) {
	fields := strings.Fields(uncommented(line))
	if len(fields) == 0 || fields[0] == "Start" { // the titles of the columns
		return
	}
	if source, ok := dshieldRange(fields); ok {
		p.add(source)
		return
	}
	p.unreadable++
	p.skip(line)
}

func dshieldRange(fields []string) (muster.Source, bool) {
	if len(fields) < 3 {
		return muster.Source{}, false
	}
	first, err1 := netip.ParseAddr(fields[0])
	last, err2 := netip.ParseAddr(fields[1])
	bits, err3 := strconv.Atoi(fields[2])
	if err1 != nil || err2 != nil || err3 != nil || first.Zone() != "" {
		return muster.Source{}, false
	}
	prefix := netip.PrefixFrom(first, bits)
	if !prefix.IsValid() || lastOf(prefix.Masked()) != last {
		return muster.Source{}, false
	}
	return muster.SourceFromPrefix(prefix), true
}

func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}
