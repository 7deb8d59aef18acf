package policy

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"

	"muster"
)

// The bounds of what ReadCanaries reads.
const (
	MaxCanaryFile = 16 << 20 // bytes, after decompression
	MaxCanaryList = 200_000  // entries of one list
)

// CanaryImport says what to take of a file.
type CanaryImport struct {
	// Lists picks lists of a file that has several; of a file that has one it
	// names it.
	Lists []string
	// File names a list that has no name of its own, and for which Lists has none.
	File string
}

// CanaryList is one list of canaries as it was read.
type CanaryList struct {
	Origin   string
	Canaries []muster.Canary // without CreatedAt and By; by ID, each once, at least one
	Skipped  []Skipped       // most frequent first
}

// Skipped counts entries that are no canaries.
type Skipped struct {
	Reason  string `json:"reason"`
	Count   int    `json:"count"`
	Example string `json:"example"`
}

// ReadCanaries reads lists of what is known to be good, compressed with gzip or
// not, in one of these forms:
//
//   - a MISP warning list: {"name":…,"type":"cidr","list":[…]}
//     (https://github.com/MISP/misp-warninglists, schema.json). Addresses and
//     ranges are taken. Host names are not: that a name is popular says nothing
//     about who is behind an address that resolves to it. The types regex and
//     substring are refused.
//   - several lists by name: {"googlebot":["66.249.64.0/19"],…}
//   - the hub's index with contents: the addresses, ranges and reverse names that
//     the hub's own whitelists name
//   - text: on each line an address, a range, an AS number or a pattern of
//     reverse names (*.googlebot.com, or .googlebot.com. as engines keep it), after
//     # or ; a comment
//
// Errors are of code Invalid or TooLarge, unless r fails.
func ReadCanaries(r io.Reader, wanted CanaryImport) ([]CanaryList, error) {
	data, err := readBounded(r)
	if err != nil {
		return nil, err
	}
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	if !bytes.HasPrefix(data, []byte("{")) {
		return one(readText(string(data), wanted))
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, muster.Errorf(muster.Invalid, "expected a list in JSON: %w", err)
	}
	switch {
	case fields["list"] != nil:
		return one(readWarningList(data, wanted))
	case fields["parsers"] != nil || fields["postoverflows"] != nil:
		return one(readHubWhitelists(data, wanted))
	}
	return readCollection(fields, wanted)
}

func one(list CanaryList, err error) ([]CanaryList, error) {
	if err != nil {
		return nil, err
	}
	return []CanaryList{list}, nil
}

// readBounded reads all of r, decompressed.
func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxCanaryFile+1))
	if err == nil && bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		z, zerr := gzip.NewReader(bytes.NewReader(data))
		if zerr == nil {
			data, zerr = io.ReadAll(io.LimitReader(z, MaxCanaryFile+1))
		}
		if zerr != nil {
			return nil, muster.Errorf(muster.Invalid, "expected a whole gzip file: %w", zerr)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading a list of canaries: %w", err)
	}
	if len(data) > MaxCanaryFile {
		return nil, muster.Errorf(muster.TooLarge, "expected a file of at most %d MiB, decompressed", MaxCanaryFile>>20)
	}
	return data, nil
}

// readWarningList reads the form of MISP.
func readWarningList(data []byte, wanted CanaryImport) (CanaryList, error) {
	var file struct {
		Name string   `json:"name"`
		Type string   `json:"type"`
		List []string `json:"list"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return CanaryList{}, muster.Errorf(muster.Invalid, "expected a MISP warning list: %w", err)
	}
	switch file.Type {
	case "", "cidr", "string", "hostname":
	default:
		return CanaryList{}, muster.Errorf(muster.Invalid, "the warning list is of type %q: expected cidr or string", clip(file.Type))
	}
	name, err := nameOf(wanted, shortTitle(file.Name))
	if err != nil {
		return CanaryList{}, err
	}
	b, err := newListBuilder("misp:"+name, oneLine(cmp.Or(file.Name, name)), len(file.List))
	if err != nil {
		return CanaryList{}, err
	}
	for _, entry := range file.List {
		b.addSource(entry)
	}
	return b.list()
}

// readCollection reads several lists by name.
func readCollection(fields map[string]json.RawMessage, wanted CanaryImport) ([]CanaryList, error) {
	names := slices.Sorted(maps.Keys(fields))
	lists := make(map[string][]string, len(fields))
	for _, name := range names {
		var entries []string
		if err := json.Unmarshal(fields[name], &entries); err != nil {
			return nil, muster.Errorf(muster.Invalid, "expected a MISP warning list, a hub index or lists of addresses by name; %q is no list of texts", clip(name))
		}
		lists[name] = entries
	}
	if len(wanted.Lists) == 0 {
		return nil, muster.Errorf(muster.Invalid, "the file has several lists, of which some may be far from canaries: name those to take; there are %s", clipTo(strings.Join(names, ", "), 1000))
	}
	var all []CanaryList
	taken := map[string]string{}
	for _, name := range wanted.Lists {
		entries, ok := lists[name]
		if !ok {
			return nil, muster.Errorf(muster.Invalid, "the file has no list %q; there are %s", clip(name), clipTo(strings.Join(names, ", "), 1000))
		}
		short, err := checkName(slug(name))
		if err != nil {
			return nil, err
		}
		if taken[short] != "" {
			return nil, muster.Errorf(muster.Invalid, "the lists %q and %q would have one name here: take one at a time", clip(taken[short]), clip(name))
		}
		taken[short] = name
		b, err := newListBuilder("list:"+short, oneLine(name), len(entries))
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			b.addSource(entry)
		}
		list, err := b.list()
		if err != nil {
			return nil, err
		}
		all = append(all, list)
	}
	return all, nil
}

// readText reads one entry per line.
func readText(text string, wanted CanaryImport) (CanaryList, error) {
	name, err := nameOf(wanted, "")
	if err != nil {
		return CanaryList{}, err
	}
	b, err := newListBuilder("list:"+name, name, strings.Count(text, "\n")+1)
	if err != nil {
		return CanaryList{}, err
	}
	for line := range strings.Lines(text) {
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		if fields := strings.Fields(line); len(fields) > 0 {
			b.add(fields[0])
		}
	}
	return b.list()
}

// readHubWhitelists reads what the hub's whitelists name outright. Most of the
// hub's whitelists name files to download; those are imported as text.
func readHubWhitelists(data []byte, wanted CanaryImport) (CanaryList, error) {
	if len(wanted.Lists) > 0 {
		return CanaryList{}, muster.Errorf(muster.Invalid, "the hub's index is one list, of the name hub: expected no name, got %q", clip(wanted.Lists[0]))
	}
	type item struct {
		Content []byte `json:"content"` // base64
	}
	var index struct {
		Parsers       map[string]item `json:"parsers"`
		Postoverflows map[string]item `json:"postoverflows"`
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return CanaryList{}, muster.Errorf(muster.Invalid, "expected a hub index in JSON (the hub's .index.json): %w", err)
	}
	b, err := newListBuilder(muster.OriginHub, "", 0)
	if err != nil {
		return CanaryList{}, err
	}
	contents := 0
	for _, items := range []map[string]item{index.Parsers, index.Postoverflows} {
		for _, name := range slices.Sorted(maps.Keys(items)) {
			content := string(items[name].Content)
			if content != "" {
				contents++
			}
			if b.seen > MaxCanaryList {
				return CanaryList{}, tooLong(b.seen)
			}
			b.reason = oneLine("whitelist " + name + " of the hub")
			for _, value := range whitelisted(content) {
				b.add(value)
			}
		}
	}
	if contents == 0 {
		return CanaryList{}, muster.Errorf(muster.Invalid, "the hub index has no contents: expected the one with them, as engines download it")
	}
	return b.list()
}

// whitelisted returns the entries under ip: and cidr: of the whitelist in a
// parser or postoverflow (YAML), and the endings that expressions compare
// reverse names with. It reads the form in which the hub writes them, line by
// line; what it does not understand it leaves out.
func whitelisted(content string) (values []string) {
	inWhitelist, inList := false, false
	for line := range strings.Lines(content) {
		line, _, _ = strings.Cut(strings.TrimRight(line, " \t\r\n"), " #")
		text := strings.TrimLeft(line, " ")
		indented := len(text) < len(line)
		entry, isEntry := strings.CutPrefix(text, "- ")
		switch {
		case text == "" || text[0] == '#':
		case !indented && !isEntry:
			inWhitelist, inList = text == "whitelist:", false
		case !inWhitelist:
		case !isEntry:
			key := strings.TrimSpace(text)
			inList = key == "ip:" || key == "cidr:"
		case inList:
			values = append(values, strings.Trim(strings.TrimSpace(entry), `"'`))
		default:
			if _, after, ok := strings.Cut(entry, "evt.Enriched.reverse_dns endsWith '"); ok {
				if ending, _, ok := strings.Cut(after, "'"); ok {
					values = append(values, ending)
				}
			}
		}
	}
	return values
}

// listBuilder gathers a list.
type listBuilder struct {
	origin, reason string
	canaries       []muster.Canary
	seen           int
	skipped        map[string]*Skipped
}

func newListBuilder(origin, reason string, entries int) (*listBuilder, error) {
	if entries > MaxCanaryList {
		return nil, tooLong(entries)
	}
	return &listBuilder{origin: origin, reason: reason, canaries: make([]muster.Canary, 0, entries), skipped: map[string]*Skipped{}}, nil
}

func tooLong(entries int) error {
	return muster.Errorf(muster.TooLarge, "the list has %d entries: expected at most %d", entries, MaxCanaryList)
}

// addSource takes an address or a range.
func (b *listBuilder) addSource(value string) {
	if _, err := muster.ParseSource(value); err != nil {
		b.skip(value, "no address or range")
		return
	}
	b.add(value)
}

// add takes what muster.NewCanary does, and .example.org for *.example.org.
func (b *listBuilder) add(value string) {
	b.seen++
	pattern := value
	if strings.HasPrefix(value, ".") {
		pattern = "*" + value
	}
	c, err := muster.NewCanary(b.origin, pattern)
	if err == nil {
		c.Reason = b.reason
		b.canaries = append(b.canaries, c)
		return
	}
	source, parseErr := muster.ParseSource(value)
	fewest := muster.MinCanaryBits6
	if source.Addr().Is4() {
		fewest = muster.MinCanaryBits4
	}
	switch {
	case parseErr != nil:
		b.skip(value, "no address, range, AS number or pattern of names")
	case source.Prefix().Bits() < fewest:
		b.skip(value, "too wide a range")
	default:
		b.skip(value, "reserved space, which is never published anyway")
	}
}

func (b *listBuilder) skip(value, reason string) {
	s := b.skipped[reason]
	if s == nil {
		s = &Skipped{Reason: reason, Example: clip(oneLine(value))}
		b.skipped[reason] = s
	}
	s.Count++
}

// list returns the list. An empty one is refused, because it would take the
// place of the one before.
func (b *listBuilder) list() (CanaryList, error) {
	slices.SortStableFunc(b.canaries, func(x, y muster.Canary) int { return cmp.Compare(x.ID, y.ID) })
	once := slices.CompactFunc(b.canaries, func(x, y muster.Canary) bool { return x.ID == y.ID })
	if n := len(b.canaries) - len(once); n > 0 {
		b.skipped["twice"] = &Skipped{Reason: "there more than once", Count: n}
	}
	l := CanaryList{Origin: b.origin, Canaries: once}
	for _, s := range b.skipped {
		l.Skipped = append(l.Skipped, *s)
	}
	slices.SortFunc(l.Skipped, func(x, y Skipped) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), cmp.Compare(x.Reason, y.Reason))
	})
	if len(once) == 0 {
		why := "it is empty"
		if len(l.Skipped) > 0 {
			why = fmt.Sprintf("%d entries like %q: %s", l.Skipped[0].Count, l.Skipped[0].Example, l.Skipped[0].Reason)
		}
		return CanaryList{}, muster.Errorf(muster.Invalid, "nothing in the list %s can be a canary: %s", b.origin, why)
	}
	return l, nil
}

// nameOf names the one list of a file.
func nameOf(wanted CanaryImport, own string) (string, error) {
	switch len(wanted.Lists) {
	case 0:
		return checkName(cmp.Or(slug(own), slug(fileName(wanted.File))))
	case 1:
		return checkName(wanted.Lists[0])
	}
	return "", muster.Errorf(muster.Invalid, "the file has one list: expected one name for it, got %d", len(wanted.Lists))
}

// maxListName is in bytes.
const maxListName = 64

func checkName(name string) (string, error) {
	if name == "" || name != slug(name) {
		return "", muster.Errorf(muster.Invalid, "expected a name for the list, 1 to %d of a-z, 0-9, - . and _, got %q", maxListName, clip(name))
	}
	return name, nil
}

// slug writes a title as the name of a list.
func slug(title string) string {
	words := strings.FieldsFunc(strings.ToLower(title), func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '_')
	})
	name := strings.Join(words, "-")
	return strings.Trim(name[:min(len(name), maxListName)], "-._")
}

// shortTitle leaves out what most titles of MISP's lists have in common.
func shortTitle(title string) string {
	title, _, _ = strings.Cut(strings.ToLower(title), "(")
	for _, start := range []string{"list of ", "known "} {
		title = strings.TrimPrefix(title, start)
	}
	return title
}

// fileName leaves the folders and the ending out.
func fileName(path string) string {
	name := path[strings.LastIndexAny(path, `/\`)+1:]
	for _, ending := range []string{".gz", ".json", ".txt", ".list"} {
		name = strings.TrimSuffix(name, ending)
	}
	return name
}

// oneLine makes foreign text fit for terminals and tables.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, clipTo(text, 200))
	return strings.Join(strings.Fields(text), " ")
}

func clip(s string) string { return clipTo(s, 64) }

func clipTo(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}
