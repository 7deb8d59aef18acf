package muster_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The layers above the root, lowest first. A package may import those of lower
// layers, save for what forbidden says, and none of its own layer.
var (
	pure       = []string{"internal/wire", "internal/policy", "internal/crowd", "internal/ratelimit", "internal/misuse", "internal/tailor", "internal/firewall", "internal/cti", "internal/filter"}
	adapters   = []string{"internal/store", "internal/stream", "internal/enrich"}
	services   = []string{"internal/enroll", "internal/ingest", "internal/publish", "internal/orders", "internal/abuse", "internal/jury", "internal/namecheck", "internal/allow", "internal/catalog", "internal/reputation", "internal/history", "internal/spool"}
	transports = []string{"internal/edge", "internal/console", "internal/reach", "internal/hub", "internal/sieve", "internal/guard"}
	top        = []string{"internal/roles", "cmd"}
)

// forbidden lists imports that may not be, from a package or one below it to
// another. Folders of this module stand without its name, "." being the root
// package; "=x" is x without what is below it; "*" is everything, "modules"
// every module but this one and the standard library.
var forbidden = []struct {
	from, to           []string
	exceptFrom, unless []string
	reason             string
}{
	{
		from: []string{"."}, to: []string{"internal", "cmd", "modules"},
		reason: "the root is the vocabulary: it stands on the standard library alone",
	},
	{
		from: pure, to: slices.Concat(adapters, services, transports, top, []string{"internal/ops"}),
		reason: "the pure layer computes: whatever does I/O stays above it",
	},
	{
		from: pure, to: []string{"modules"}, unless: []string{"github.com/gaissmai/bart", "github.com/expr-lang/expr"},
		reason: "the pure layer stands on the standard library, save for policy's tables and expressions",
	},
	{
		from: slices.Concat(pure, []string{"."}), to: []string{"=os", "os/exec", "=net", "net/http", "database/sql"},
		reason: "the pure layer does no I/O: it is given what it needs",
	},
	{
		from: adapters, to: slices.Concat(pure, services, transports, top, []string{"internal/ops"}), unless: []string{"internal/ratelimit"},
		reason: "an adapter serves whoever declares what it needs, and knows none of them; bans and limits are vocabulary that is stored",
	},
	{
		from: services, to: adapters,
		reason: "a service declares the few methods that it needs: it is tested without a database and scales without change",
	},
	{
		from: services, to: slices.Concat(transports, top, []string{"internal/ops"}),
		reason: "a service does not know how it is reached",
	},
	{
		from: transports, to: slices.Concat(adapters, top),
		reason: "a transport speaks to services; what is below them may change",
	},
	{
		from: []string{"internal/ops"}, to: slices.Concat(pure, adapters, services, transports, top),
		reason: "ops serves every role and knows nothing of what Muster is for",
	},
	{
		from: []string{"internal/peer"}, to: slices.Concat(pure, adapters, services, transports, top, []string{"internal/ops", "modules"}),
		reason: "peer reads who a client is off the connection: it stands on the standard library and the vocabulary",
	},
	{
		from: slices.Concat(pure, adapters, services), to: []string{"internal/peer"},
		reason: "who a client is concerns transports alone",
	},
	{
		from: []string{"internal"}, to: top, exceptFrom: []string{"internal/testkit"},
		reason: "only commands compose roles, and nothing imports commands",
	},
	{
		from: []string{"*"}, to: []string{"internal/testkit", "testing"},
		exceptFrom: []string{"internal/testkit", "internal/store/storetest", "internal/stream/streamtest"},
		reason:     "test code stays out of the binary",
	},
	{
		from: []string{"*"}, exceptFrom: []string{"internal/store"},
		to:     []string{"database/sql", "modernc.org/sqlite", "github.com/jackc/pgx", "github.com/pressly/goose"},
		reason: "all SQL is in store",
	},
	{
		from: []string{"*"}, exceptFrom: []string{"internal/stream"},
		to:     []string{"github.com/nats-io"},
		reason: "NATS leaves stream only as Log, KV and Bell",
	},
	{
		from: []string{"*"}, to: []string{"=log", "=math/rand", "github.com/stretchr/testify"},
		reason: "log/slog, math/rand/v2 and the testing package with go-cmp stand for it",
	},
}

// badNames say nothing about what is in a package.
var badNames = []string{"util", "utils", "common", "types", "core", "helpers", "helper", "misc", "shared", "lib"}

const maxLines = 800

// source is one parsed Go file.
type source struct {
	path  string // slashes, from the root of the module
	dir   string
	test  bool
	lines int
	file  *ast.File
}

// sources parses the imports and bodies of every Go file of this module.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, nested := os.Stat(filepath.Join(name, "go.mod"))
			if name != "." && (nested == nil || strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(fset, name, data, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			return err
		}
		slashed := filepath.ToSlash(name)
		all = append(all, source{
			path: slashed, dir: path.Dir(slashed), test: strings.HasSuffix(slashed, "_test.go"),
			lines: bytes.Count(data, []byte("\n")), file: file,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("found %d Go files: is this the root of the module?", len(all))
	}
	return all
}

// matches reports whether a package is among patterns, written as in forbidden.
func matches(pkg string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		first, _, _ := strings.Cut(pkg, "/")
		exact, isExact := strings.CutPrefix(p, "=")
		switch {
		case p == "*":
			return true
		case p == "modules":
			return len(first) > 1 && strings.Contains(first, ".")
		case isExact:
			return pkg == exact
		default:
			return pkg == p || strings.HasPrefix(pkg, p+"/")
		}
	})
}

// imported writes an import as forbidden does.
func imported(spec *ast.ImportSpec) string {
	p, _ := strconv.Unquote(spec.Path.Value) // it was parsed
	if p == "muster" {
		return "."
	}
	return strings.TrimPrefix(p, "muster/")
}

// layerOf returns the layer that a package is in, and its name in there.
func layerOf(pkg string) (layer []string, name string) {
	for _, layer := range [][]string{pure, adapters, services, transports} {
		for _, name := range layer {
			if matches(pkg, []string{name}) {
				return layer, name
			}
		}
	}
	return nil, ""
}

func TestImports(t *testing.T) {
	used := make([]bool, len(forbidden))
	for _, src := range sources(t) {
		if src.test || matches(src.dir, []string{"test"}) {
			continue // tests put together what they like
		}
		for _, spec := range src.file.Imports {
			to := imported(spec)
			for i, rule := range forbidden {
				if !matches(src.dir, rule.from) {
					continue
				}
				used[i] = true
				if matches(to, rule.to) && !matches(src.dir, rule.exceptFrom) && !matches(to, rule.unless) {
					t.Errorf("%s imports %s: %s", src.path, to, rule.reason)
				}
			}
			layer, own := layerOf(src.dir)
			if _, other := layerOf(to); layer != nil && other != own && slices.Contains(layer, other) {
				t.Errorf("%s imports %s: packages of one layer do not know each other", src.path, to)
			}
		}
	}
	for i, rule := range forbidden {
		if !used[i] {
			t.Errorf("the rule for %v holds for no package: is a folder renamed?", rule.from)
		}
	}
}

// TestPureLayerHasNoClock: what computes verdicts gives the same answer for the
// same input, always.
func TestPureLayerHasNoClock(t *testing.T) {
	impure := map[string]func(name string) bool{
		"time": func(name string) bool {
			return slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}, name)
		},
		// The constructors of generators with a seed are pure; the rest is global.
		"math/rand/v2": func(name string) bool {
			return ast.IsExported(name) && !strings.HasPrefix(name, "New") && !isRandType(name)
		},
		"crypto/rand": ast.IsExported,
	}
	for _, src := range sources(t) {
		if src.test || src.dir != "." && !matches(src.dir, pure) {
			continue
		}
		eachUse(src.file, func(pkg, name string, _ bool) {
			if check := impure[pkg]; check != nil && check(name) {
				t.Errorf("%s uses %s.%s: take the time, or a generator with a seed, from the caller", src.path, pkg, name)
			}
		})
	}
}

// eachUse calls f for every name that a file takes from a package; inLoop says
// that it stands in a for loop that is no range.
func eachUse(file *ast.File, f func(pkg, name string, inLoop bool)) {
	local := map[string]string{} // package by its name in this file
	for _, spec := range file.Imports {
		pkg := imported(spec)
		name := path.Base(strings.TrimSuffix(pkg, "/v2"))
		if spec.Name != nil {
			name = spec.Name.Name
		}
		local[name] = pkg
	}
	var loopEnd token.Pos
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ForStmt:
			loopEnd = max(loopEnd, n.End())
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && local[x.Name] != "" {
				f(local[x.Name], n.Sel.Name, n.Pos() < loopEnd)
			}
		}
		return true
	})
}

// TestTestsDoNotSleep: a test waits for what it expects; a sleep is too short on
// one machine and too long on all others. In a testing/synctest bubble it costs
// nothing and is exact, and in the loop of a poll it is no synchronisation.
func TestTestsDoNotSleep(t *testing.T) {
	for _, src := range sources(t) {
		bubbles := slices.ContainsFunc(src.file.Imports, func(spec *ast.ImportSpec) bool { return imported(spec) == "testing/synctest" })
		if !src.test || bubbles {
			continue
		}
		eachUse(src.file, func(pkg, name string, inLoop bool) {
			if pkg == "time" && name == "Sleep" && !inLoop {
				t.Errorf("%s sleeps: wait for a channel, poll for a condition, or use testing/synctest", src.path)
			}
		})
	}
}

func isRandType(name string) bool {
	return slices.Contains([]string{"Rand", "Source", "PCG", "ChaCha8", "Zipf"}, name)
}

func TestFilesAreShort(t *testing.T) {
	for _, src := range sources(t) {
		if src.lines > maxLines && !ast.IsGenerated(src.file) {
			t.Errorf("%s has %d lines: expected at most %d, so that it reads in one go", src.path, src.lines, maxLines)
		}
	}
}

func TestPackageNames(t *testing.T) {
	for _, src := range sources(t) {
		if name := strings.TrimSuffix(src.file.Name.Name, "_test"); slices.Contains(badNames, name) {
			t.Errorf("%s: package %s: expected a name that says what is in it", src.path, name)
		}
	}
}
