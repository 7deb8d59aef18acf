package cti

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"muster/internal/testkit"
)

var update = flag.Bool("update", false, "write golden files and vocabulary.tsv anew")

// hubFiles returns the files of the hub's taxonomy by their names.
func hubFiles(t *testing.T) map[string][]byte {
	t.Helper()
	file, err := os.Open(testkit.Shared(t, "data", "hub.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	zipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for archive := tar.NewReader(zipped); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if dir, name := path.Split(path.Clean(h.Name)); dir == "taxonomy/" && h.Typeflag == tar.TypeReg {
			if files[name], err = io.ReadAll(archive); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func parse[T any](t *testing.T, data []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

var (
	markdownLink = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	citation     = regexp.MustCompile(`\(Citation:[^)]*\)`)
	spaces       = regexp.MustCompile(`\s+`)
)

// plain makes one line of a text, without marks.
func plain(text string) string {
	text = citation.ReplaceAllString(markdownLink.ReplaceAllString(text, "$1"), "")
	return strings.TrimSpace(spaces.ReplaceAllString(text, " "))
}

// What is built in is what the hub says; go test -update writes it anew.
func TestVocabularyIsTheHubs(t *testing.T) {
	files := hubFiles(t)
	var made strings.Builder
	made.WriteString("# The hub's taxonomy, copyright (c) 2025 CrowdSecurity under the MIT licence. go generate writes it.\n")
	for _, kind := range []struct{ kind, file string }{
		{"behaviour", "behaviors.json"}, {"class", "classifications.json"}, {"false-positive", "false_positives.json"},
	} {
		words := parse[map[string]Label](t, files[kind.file])
		for _, name := range slices.Sorted(maps.Keys(words)) {
			fmt.Fprintf(&made, "%s\t%s\t%s\t%s\n", kind.kind, name, plain(words[name].Label), plain(words[name].Description))
		}
	}
	scenarios := parse[map[string]struct {
		Label, Description string
		Behaviours         []string `json:"behaviors"`
		Attacks            []string `json:"mitre_attacks"`
		CVEs               []string
		Confidence         int
		Spoofable          int
	}](t, files["scenarios.json"])
	techniques, used := map[string]Label{}, map[string]bool{}
	for _, tactic := range parse[map[string]struct{ Techniques []Label }](t, files["mitre_attack.json"]) {
		for _, l := range tactic.Techniques {
			techniques[l.Name] = l
		}
	}
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(scenarios)) {
		s := scenarios[name]
		var ids []string
		for _, attack := range s.Attacks {
			_, id, _ := strings.Cut(attack, ":")
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
			used[id] = true
		}
		fmt.Fprintf(&lines, "scenario\t%s\t%s\t%s\t%s\t%s\t%s\t%d%d\n", name, plain(s.Label), plain(s.Description),
			strings.Join(s.Behaviours, ","), strings.Join(ids, ","), strings.Join(s.CVEs, ","), s.Confidence, s.Spoofable)
	}
	for _, id := range slices.Sorted(maps.Keys(used)) {
		l := techniques[id]
		description, _, _ := strings.Cut(plain(l.Description), ". ")
		fmt.Fprintf(&made, "technique\t%s\t%s\t%s\n", id, plain(l.Label), strings.TrimSuffix(description, ".")+".")
	}
	made.WriteString(lines.String())
	if *update {
		if err := os.WriteFile("vocabulary.tsv", []byte(made.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := gocmp.Diff(builtIn, made.String()); diff != "" {
		t.Errorf("vocabulary.tsv is not the hub's; go generate ./internal/cti writes it anew:\n%s", diff)
	}
}

func TestBuiltInVocabulary(t *testing.T) {
	v := BuiltIn()
	got := []int{len(v.behaviours), len(v.classes), len(v.falsePositives), len(v.techniques)}
	if diff := gocmp.Diff([]int{36, 120, 48, 34}, got); diff != "" || len(v.scenarios) < 1000 {
		t.Errorf("%d scenarios; behaviours, classes, false positives, techniques: %s", len(v.scenarios), diff)
	}
	for name, s := range v.scenarios {
		for _, b := range s.Behaviours {
			if v.behaviours[b].Label == "" {
				t.Errorf("%s: the behaviour %q has no label", name, b)
			}
		}
		for _, id := range s.Techniques {
			if v.techniques[id].Label == "" {
				t.Errorf("%s: the technique %q has no label", name, id)
			}
		}
	}
	for _, c := range classes {
		if _, ok := v.falsePositives[c.name]; !ok {
			t.Errorf("the taxonomy has no false positive %q", c.name)
		}
	}
	for b := range Default().Severity {
		if _, ok := v.behaviours[b]; !ok && strings.Contains(b, ":") {
			t.Errorf("the taxonomy has no behaviour %q", b)
		}
	}
	if cmp.Compare(v.scenario("nobody/knows").Label.Label, "nobody/knows") != 0 {
		t.Error("an unknown scenario is not labelled with its name")
	}
}
