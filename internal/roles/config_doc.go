package roles

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

//go:generate go test -run TestReference -update

// configSource is parsed for the comments of Config's fields, so that they are
// written once.
//
//go:embed config.go
var configSource string

// fieldDocs returns the comments by "Struct.Field".
var fieldDocs = sync.OnceValue(func() map[string]string {
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", configSource, parser.ParseComments)
	if err != nil {
		panic(err) // it was compiled
	}
	docs := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if st, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range st.Fields.List {
				for _, name := range f.Names {
					docs[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
				}
			}
		}
		return false
	})
	return docs
})

func (s setting) doc() string { return fieldDocs()[s.parent.Name()+"."+s.field.Name] }
func (s section) doc() string { return fieldDocs()[s.parent.Name()+"."+s.field.Name] }

// values says in words what the setting takes, or "".
func (s setting) values() string {
	if words := strings.Fields(s.field.Tag.Get("oneof")); len(words) > 0 {
		last := len(words) - 1
		return strings.Join(words[:last], ", ") + " or " + words[last]
	}
	if low, high, ok := s.bounds(); ok {
		return low + " to " + high
	}
	return ""
}

// ConfigDefaults returns the default configuration as a YAML file in which every
// key is explained.
func ConfigDefaults() string {
	var out strings.Builder
	out.WriteString(`# Configuration of Muster: every key with its default. Remove what you do not change.
#
# Values may contain ${NAME} and ${NAME:-default}, replaced from the environment;
# $$ is a dollar sign. A variable MUSTER_<KEY> overrides a key of this file, with two
# underscores for each dot: MUSTER_LISTEN, MUSTER_LOG__LEVEL. Flags override both.
# Durations: 500ms, 30s, 12h, 7d. Sizes: 512KiB, 16MiB, 8GiB.
`)
	writeYAML(&out, DefaultConfig(), func(doc, values string, indent string) {
		out.WriteByte('\n')
		for _, line := range wrap(doc, 86-len(indent)) {
			fmt.Fprintf(&out, "%s# %s\n", indent, line)
		}
		if values != "" {
			fmt.Fprintf(&out, "%s# Takes %s.\n", indent, values)
		}
	}, nil)
	return out.String()
}

// ShowConfig returns the configuration that src makes as YAML; each line says
// where its value came from. Passwords in URLs are hidden.
func ShowConfig(src ConfigSource) (string, error) {
	config, origins, err := loadConfig(src)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	writeYAML(&out, config, nil, func(s setting) string { return origins[s.path].String() })
	return out.String(), nil
}

// writeYAML writes every setting of c; explain, when given, is called before
// each key, and remark gives the comment behind a value.
func writeYAML(out *strings.Builder, c *Config, explain func(doc, values, indent string), remark func(setting) string) {
	settings, sections := settingsOf(c)
	within := ""
	for _, s := range settings {
		name, key, nested := strings.Cut(s.path, ".")
		indent := ""
		if nested {
			indent = "  "
			if name != within {
				within = name
				for _, sec := range sections {
					if sec.path == name && explain != nil {
						explain(sec.doc(), "", "")
					}
				}
				fmt.Fprintf(out, "%s:\n", name)
			}
		} else {
			key = name
		}
		if explain != nil {
			explain(s.doc(), s.values(), indent)
		}
		line := fmt.Sprintf("%s%s: %s", indent, key, s.yaml())
		if remark != nil {
			line = fmt.Sprintf("%-50s # %s", line, remark(s))
		}
		fmt.Fprintln(out, line)
	}
}

var plainYAML = regexp.MustCompile(`^[A-Za-z0-9./][A-Za-z0-9./:_-]*$`)

// yaml writes the value so that the loader reads the same.
func (s setting) yaml() string {
	if s.isList() {
		items := make([]string, s.value.Len())
		for i := range items {
			items[i] = strconv.Quote(strings.ReplaceAll(valueText(s.value.Index(i)), "$", "$$"))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	text := strings.ReplaceAll(s.text(), "$", "$$")
	if plainYAML.MatchString(text) && !strings.HasSuffix(text, ":") && text != "null" {
		return text
	}
	return strconv.Quote(text)
}

// markdown escapes what a doc comment may hold and Markdown would take for markup.
var markdown = strings.NewReplacer("<", `\<`, "_", `\_`, "*", `\*`)

// ConfigReference returns docs/configuration.md.
func ConfigReference() string {
	var out strings.Builder
	out.WriteString(`<!-- Made from internal/roles/config.go by "go generate ./internal/roles". Do not edit. -->

# Configuration

Muster starts without any configuration. What you want otherwise goes into one YAML file,
named with ` + "`--config FILE`" + ` or ` + "`MUSTER_CONFIG`" + `:

` + "```yaml" + `
listen: 0.0.0.0:8600
public_url: https://muster.example.org/
log:
  level: debug
` + "```" + `

- ` + "`muster config defaults`" + ` prints a file with every key, ` + "`muster config check FILE`" + ` says what is wrong
  with yours, ` + "`muster config show`" + ` prints what is in force and where each value came from.
- Each key can be overridden by the environment variable named with it, and a few by flags. Flags win
  over the environment, the environment over the file, the file over the defaults.
- Values may contain ` + "`${NAME}`" + ` (an error when the variable is not set) and ` + "`${NAME:-default}`" + `; ` + "`$$`" + ` is a dollar sign.
- An unknown key is an error. Durations are written ` + "`500ms`, `30s`, `12h`, `7d`" + `; sizes ` + "`512KiB`, `16MiB`, `8GiB`" + `.
`)
	settings, sections := settingsOf(DefaultConfig())
	within := ""
	out.WriteString("\n## General\n")
	for _, s := range settings {
		if name, _, nested := strings.Cut(s.path, "."); nested && name != within {
			within = name
			for _, sec := range sections {
				if sec.path == name {
					fmt.Fprintf(&out, "\n## %s\n\n%s\n", name, markdown.Replace(sec.doc()))
				}
			}
		}
		fmt.Fprintf(&out, "\n### `%s`\n\n%s\n\n", s.path, markdown.Replace(s.doc()))
		fmt.Fprintf(&out, "Default `%s`", s.yaml())
		if v := s.values(); v != "" {
			fmt.Fprintf(&out, "; takes %s", v)
		}
		fmt.Fprintf(&out, "; `%s`\n", s.env())
	}
	return out.String()
}

// wrap breaks text into lines of at most width bytes, at spaces.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
