package roles

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// ConfigSource says where LoadConfig takes settings from. Later ones win: the
// defaults, File, Env, Flags.
type ConfigSource struct {
	File string   // a YAML file; "" = none
	Env  []string // as os.Environ returns it: MUSTER_LISTEN, MUSTER_LOG__LEVEL, and what ${…} in File names
	// Flags are values of flags by the key that each overrides ("listen").
	Flags map[string]string
}

// loader fills a Config and gathers everything that is wrong on the way.
type loader struct {
	config   *Config
	settings map[string]setting
	sections map[string]bool
	origins  map[string]origin
	env      map[string]string
	file     string
	lines    []string
	problems []problem
}

// origin is where a value came from; the zero origin is the default.
type origin struct {
	name string       // "MUSTER_LISTEN", "--listen", or the file
	at   *token.Token // in the file
}

func (o origin) String() string {
	switch {
	case o.at != nil:
		return fmt.Sprintf("%s:%d", o.name, o.at.Position.Line)
	case o.name != "":
		return o.name
	}
	return "default"
}

// problem is one thing that is wrong with a configuration.
type problem struct {
	origin origin
	path   string // key, or ""
	err    error
}

// LoadConfig reads and checks the configuration. The error names every problem
// with its place: file, line, column and excerpt, or variable or flag. Passwords
// in URLs are hidden in it.
func LoadConfig(src ConfigSource) (*Config, error) {
	config, _, err := loadConfig(src)
	return config, err
}

func loadConfig(src ConfigSource) (*Config, map[string]origin, error) {
	l := &loader{
		config:   DefaultConfig(),
		settings: map[string]setting{},
		sections: map[string]bool{},
		origins:  map[string]origin{},
		env:      map[string]string{},
		file:     src.File,
	}
	settings, sections := settingsOf(l.config)
	for _, s := range settings {
		l.settings[s.path] = s
	}
	for _, s := range sections {
		l.sections[s.path] = true
	}
	for _, pair := range src.Env {
		name, value, _ := strings.Cut(pair, "=")
		l.env[name] = value
	}
	if src.File != "" {
		if err := l.readFile(); err != nil {
			return nil, nil, err
		}
	}
	l.readEnv(settings)
	l.readFlags(src.Flags)
	if len(l.problems) == 0 {
		validate(l.config, func(path string, err error) {
			l.problems = append(l.problems, problem{l.origins[path], path, err})
		})
	}
	if len(l.problems) > 0 {
		return nil, nil, l.report()
	}
	return l.config, l.origins, nil
}

func (l *loader) readFile() error {
	data, err := os.ReadFile(l.file)
	if err != nil {
		return fmt.Errorf("configuration file: %w", err)
	}
	l.lines = strings.Split(string(data), "\n")
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		var located yaml.Error
		if errors.As(err, &located) {
			l.fail(located.GetToken(), "", "%s", located.GetMessage())
			return nil
		}
		return fmt.Errorf("%s: %w", l.file, err)
	}
	var root ast.Node
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil:
		case root != nil:
			l.fail(doc.Body.GetToken(), "", "expected one YAML document, found another")
		default:
			root = doc.Body
		}
	}
	if root != nil {
		l.readMapping("", root)
	}
	return nil
}

// readMapping reads the keys below prefix ("" or "limits.").
func (l *loader) readMapping(prefix string, node ast.Node) {
	mapping, ok := node.(*ast.MappingNode)
	if !ok {
		l.fail(node.GetToken(), strings.TrimSuffix(prefix, "."), "expected keys with values, like listen: 127.0.0.1:8600")
		return
	}
	for _, entry := range mapping.Values {
		key := entry.Key.GetToken()
		path := prefix + key.Value
		s, known := l.settings[path]
		_, empty := entry.Value.(*ast.NullNode)
		switch {
		case l.sections[path] && empty: // all of it is commented out
		case l.sections[path]:
			l.readMapping(path+".", entry.Value)
		case !known:
			l.fail(key, path, "unknown key%s", l.suggest(path))
		case empty:
			l.fail(key, path, "has no value: write one, or remove the line to have the default")
		default:
			l.readValue(s, entry.Value)
		}
	}
}

func (l *loader) readValue(s setting, node ast.Node) {
	l.origins[s.path] = origin{l.file, node.GetToken()}
	list, ok := node.(*ast.SequenceNode)
	if ok && s.isList() {
		l.readList(s, list)
		return
	}
	text, err := l.scalar(node) // of a list, too: ${NAME} may hold several values
	if err == nil {
		err = s.set(text)
	} else if s.isList() {
		err = errors.New("expected a list, like [192.0.2.1, 198.51.100.0/24]")
	}
	if err != nil {
		l.fail(node.GetToken(), s.path, "%w", err)
	}
}

func (l *loader) readList(s setting, list *ast.SequenceNode) {
	items := make([]string, 0, len(list.Values))
	for _, item := range list.Values {
		text, err := l.scalar(item)
		if err == nil {
			_, err = parseValue(s.field.Type.Elem(), text)
		}
		if err != nil {
			l.fail(item.GetToken(), s.path, "%w", err)
			return
		}
		items = append(items, text)
	}
	if err := s.setList(items); err != nil {
		l.fail(list.GetToken(), s.path, "%w", err)
	}
}

// scalar returns the text of one value with its variables expanded.
func (l *loader) scalar(node ast.Node) (string, error) {
	switch n := node.(type) {
	case *ast.LiteralNode:
		return l.expand(n.Value.Value)
	case *ast.StringNode:
		return l.expand(n.Value)
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return node.GetToken().Value, nil
	}
	return "", errors.New("expected one plain value: no list, no mapping, no anchor")
}

// expand replaces ${NAME} and ${NAME:-default}; $$ is a dollar sign.
func (l *loader) expand(s string) (string, error) {
	var out strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 {
			out.WriteString(s)
			return out.String(), nil
		}
		out.WriteString(s[:i])
		s = s[i+1:]
		if rest, ok := strings.CutPrefix(s, "$"); ok {
			out.WriteByte('$')
			s = rest
			continue
		}
		body, rest, ok := strings.Cut(s, "}")
		if !ok || !strings.HasPrefix(body, "{") {
			return "", errors.New("expected ${NAME} after $; write $$ for a dollar sign")
		}
		name, fallback, hasFallback := strings.Cut(body[1:], ":-")
		value, set := l.env[name]
		switch {
		case !validName(name):
			return "", fmt.Errorf("expected the name of an environment variable in ${…}, got %q", name)
		case hasFallback && value == "":
			value = fallback
		case !set && !hasFallback:
			return "", fmt.Errorf("environment variable %s is not set: set it, or give a default as in ${%s:-value}", name, name)
		}
		out.WriteString(value)
		s = rest
	}
}

func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

func (l *loader) readEnv(settings []setting) {
	known := map[string]bool{}
	for _, s := range settings {
		known[s.env()] = true
		if value, ok := l.env[s.env()]; ok {
			l.override(s, origin{name: s.env()}, value)
		}
	}
	// Two underscores are ours; other MUSTER_ variables may be anybody's.
	for name := range l.env {
		if strings.HasPrefix(name, "MUSTER_") && strings.Contains(name, "__") && !known[name] {
			l.problems = append(l.problems, problem{origin{name: name}, "", errors.New("is no setting of Muster: see muster config defaults")})
		}
	}
}

func (l *loader) readFlags(flags map[string]string) {
	for path, value := range flags {
		l.override(l.settings[path], origin{name: "--" + strings.ReplaceAll(path, "_", "-")}, value)
	}
}

func (l *loader) override(s setting, from origin, value string) {
	l.origins[s.path] = from
	if err := s.set(value); err != nil {
		l.problems = append(l.problems, problem{from, s.path, err})
	}
}

func (l *loader) fail(at *token.Token, path, format string, args ...any) {
	l.problems = append(l.problems, problem{origin{l.file, at}, path, fmt.Errorf(format, args...)})
}

// suggest returns ": did you mean …?" when a known key resembles path.
func (l *loader) suggest(path string) string {
	best, least := "", 3
	for known := range l.settings {
		// A key in the wrong section, or without its section, is meant by its last part.
		if lastPart(known) == lastPart(path) && strings.Count(known, ".") != strings.Count(path, ".") {
			best, least = known, 0
		}
		if d := editDistance(path, known); d < least || d == least && best != "" && known < best {
			best, least = known, d
		}
	}
	for known := range l.sections {
		if d := editDistance(path, known); d < least {
			best, least = known, d
		}
	}
	if best == "" {
		return ": muster config defaults lists all keys"
	}
	return ": did you mean " + best + "?"
}

func lastPart(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// editDistance counts the letters to insert, delete or change (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// report makes one error of all problems, in the order of the file.
func (l *loader) report() error {
	slices.SortStableFunc(l.problems, func(a, b problem) int {
		return problemLine(a) - problemLine(b)
	})
	var out strings.Builder
	for i, p := range l.problems {
		if i > 0 {
			out.WriteByte('\n')
		}
		l.write(&out, p)
	}
	return errors.New(out.String())
}

func problemLine(p problem) int {
	if p.origin.at == nil {
		return 1 << 30 // after those of the file
	}
	return p.origin.at.Position.Line
}

func (l *loader) write(out *strings.Builder, p problem) {
	text := hidePasswords(p.err.Error())
	if p.path != "" {
		text = p.path + ": " + text
	}
	if p.origin.at == nil {
		if p.origin.name != "" {
			text = p.origin.name + ": " + text
		}
		out.WriteString(text)
		return
	}
	pos := p.origin.at.Position
	fmt.Fprintf(out, "%s:%d:%d: %s", l.file, pos.Line, pos.Column, text)
	for n := max(1, pos.Line-1); n <= min(pos.Line, len(l.lines)); n++ {
		mark := " "
		if n == pos.Line {
			mark = ">"
		}
		line := strings.TrimRight(l.lines[n-1], "\r")
		fmt.Fprintf(out, "\n%s %4d | %s", mark, n, hidePasswords(strings.ReplaceAll(line, "\t", " ")))
	}
	fmt.Fprintf(out, "\n       | %s^", strings.Repeat(" ", max(0, pos.Column-1)))
}
