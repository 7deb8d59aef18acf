package feed

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"muster"
)

// titles are what columns and fields with addresses are called, the best first:
// what else is said about an address may be addresses too.
var titles = []string{
	"ip", "ip_address", "ipaddress", "ip address", "address", "addr", "ipv4", "ipv6", "cidr", "prefix", "ip_prefix", "ipv6_prefix", "ipv4prefix", "ipv6prefix",
	"src_ip", "source_ip", "dst_ip", "ip_dst", "remote_ip", "indicator", "ioc", "ioc_value", "host", "network", "range", "subnet", "value", "source",
}

// detect finds out the format of a feed.
func detect(body []byte) (string, error) {
	trimmed := bytes.TrimSpace(body)
	if len(trimmed) == 0 {
		return "", muster.Errorf(muster.Invalid, "it is empty")
	}
	switch trimmed[0] {
	case '{', '[':
		return JSON, nil
	case '<':
		return "", muster.Errorf(muster.Invalid, "it is a page in HTML or XML, not a list: is the URL that of the list itself?")
	}
	const looks = 50
	lines := 0
	for len(trimmed) > 0 && lines < looks {
		line, rest, _ := bytes.Cut(trimmed, []byte("\n"))
		trimmed = rest
		text := uncommented(string(line[:min(len(line), maxLine)]))
		if text == "" {
			continue
		}
		lines++
		if fields := strings.Fields(text); fields[0] == "Start" && len(fields) > 1 && fields[1] == "End" {
			return DShield, nil
		} else if _, ok := dshieldRange(fields); ok {
			return DShield, nil
		}
		if format := detectCSV(string(line)); format != "" {
			return format, nil
		}
		if startsWithAddress(text) {
			return Plain, nil
		}
	}
	return Plain, nil
}

// startsWithAddress reports whether plain would find an address in a line.
func startsWithAddress(text string) bool {
	p := parser{most: 1}
	p.plain(text)
	return p.unreadable == 0
}

// detectCSV returns the format of columns when line is their titles, or has an
// address in another than the first; "" when it is neither.
func detectCSV(line string) string {
	cells := splitCells(line, delimiter(line))
	if len(cells) < 2 {
		return ""
	}
	if i := titled(cells); i >= 0 {
		return CSV + ":" + cells[i]
	}
	for i, cell := range cells {
		if _, err := muster.ParseSource(cell); err == nil {
			if i == 0 {
				return ""
			}
			return CSV + ":" + strconv.Itoa(i+1)
		}
	}
	return ""
}

// titled returns which cell is the best title of addresses, -1 for none.
func titled(cells []string) int {
	for _, title := range titles {
		if i := slices.IndexFunc(cells, func(c string) bool { return strings.EqualFold(c, title) }); i >= 0 {
			return i
		}
	}
	return -1
}

// delimiter returns what separates the cells of a line.
func delimiter(line string) byte {
	best, most := byte(','), 0
	for _, d := range []byte(",;\t|") {
		if n := strings.Count(line, string(d)); n > most {
			best, most = d, n
		}
	}
	return best
}

// splitCells separates the cells of a line, which may stand in quotes.
func splitCells(line string, delimiter byte) []string {
	var cells []string
	for {
		line = strings.TrimLeft(line, " ")
		if rest, ok := strings.CutPrefix(line, `"`); ok {
			if cell, after, ok := strings.Cut(rest, `"`); ok {
				cells = append(cells, strings.TrimSpace(cell))
				i := strings.IndexByte(after, delimiter)
				if i < 0 {
					return cells
				}
				line = after[i+1:]
				continue
			}
		}
		i := strings.IndexByte(line, delimiter)
		if i < 0 {
			return append(cells, strings.TrimSpace(line))
		}
		cells = append(cells, strings.TrimSpace(line[:i]))
		line = line[i+1:]
	}
}

// csv reads the cells of a column: that of a title or number, or what detectCSV
// finds.
func (p *parser) csv(body []byte, column string) error {
	index, err := strconv.Atoi(column)
	if err != nil {
		index = 0
	}
	separator := byte(0)
	err = p.lines(body, func(line string) {
		if line[0] == '#' {
			// Some write the titles as a comment, so that others skip them.
			if line = strings.TrimSpace(line[1:]); index > 0 || !isTitles(line, column) {
				return
			}
		}
		if separator == 0 {
			separator = delimiter(line)
		}
		cells := splitCells(line, separator)
		if index == 0 {
			i := titled(cells)
			if column != "" {
				i = slices.IndexFunc(cells, func(c string) bool { return strings.EqualFold(c, column) })
			}
			if i >= 0 {
				index = i + 1
				return
			}
			p.unreadable++
			p.skip(line)
			return
		}
		switch {
		case index > len(cells):
			p.unreadable++
			p.skip(line)
		case len(p.Sources) == 0 && p.Skipped == 0 && isTitle(cells[index-1]):
		default:
			p.take(cells[index-1])
		}
	})
	if err == nil && index == 0 {
		return muster.Errorf(muster.Invalid, "there is no column %q in it: expected its title or number, as in csv:2", clip(column))
	}
	return err
}

func isTitles(line, column string) bool {
	cells := splitCells(line, delimiter(line))
	if column == "" {
		return len(cells) > 1 && titled(cells) >= 0
	}
	return slices.ContainsFunc(cells, func(c string) bool { return strings.EqualFold(c, column) })
}

func isTitle(cell string) bool {
	return cell != "" && strings.Trim(cell, "0123456789.:/") == cell && !strings.ContainsAny(cell, ".:/")
}
