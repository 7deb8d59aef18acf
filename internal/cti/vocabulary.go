package cti

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"
)

// Scenario is what is known about a scenario.
type Scenario struct {
	Label
	Behaviours []string // of the hub's taxonomy: "ssh:bruteforce"
	Techniques []string // of MITRE ATT&CK: "T1110"
	CVEs       []string
	Confidence uint8 // 0 (a guess) to 3 (nothing else looks like it)
	Spoofable  uint8 // 0 (a handshake proves the address) to 3 (one forged packet)
}

// Vocabulary is the words of the hub's taxonomy. It is immutable.
type Vocabulary struct {
	behaviours, classes, falsePositives, techniques map[string]Label

	scenarios map[string]Scenario
}

// builtIn is the hub's taxonomy (MIT licence, copyright 2025 CrowdSecurity).
// Each line has a kind, a name, a label and a description between tabs; a
// scenario also its behaviours, techniques and CVEs, between commas, and two
// digits: how sure it is, and how easily forged.
//
//go:generate go test -run TestVocabularyIsTheHubs -update .
//go:embed vocabulary.tsv
var builtIn string

// BuiltIn returns what this release knows of the hub's taxonomy.
var BuiltIn = sync.OnceValue(func() *Vocabulary {
	v, err := parseVocabulary(builtIn)
	if err != nil {
		panic(err) // a test reads it
	}
	return v
})

func parseVocabulary(text string) (*Vocabulary, error) {
	v := &Vocabulary{
		behaviours: map[string]Label{}, classes: map[string]Label{}, falsePositives: map[string]Label{}, techniques: map[string]Label{},
		scenarios: map[string]Scenario{},
	}
	n := 0
	for line := range strings.Lines(text) {
		n++
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) < 4 || f[1] == "" || (f[0] == "scenario") != (len(f) == 8) {
			return nil, fmt.Errorf("vocabulary, line %d: expected kind, name, label and description between tabs, and three lists and two digits for a scenario", n)
		}
		l := Label{f[1], f[2], f[3]}
		switch f[0] {
		case "behaviour":
			v.behaviours[l.Name] = l
		case "class":
			v.classes[l.Name] = l
		case "false-positive":
			v.falsePositives[l.Name] = l
		case "technique":
			v.techniques[l.Name] = l
		case "scenario":
			if len(f[7]) != 2 || strings.Trim(f[7], "0123") != "" {
				return nil, fmt.Errorf("vocabulary, line %d: expected two digits from 0 to 3, got %q", n, f[7])
			}
			v.scenarios[l.Name] = Scenario{l, listOf(f[4]), listOf(f[5]), listOf(f[6]), f[7][0] - '0', f[7][1] - '0'}
		default:
			return nil, fmt.Errorf("vocabulary, line %d: %q is no kind", n, f[0])
		}
	}
	return v, nil
}

func listOf(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// wordOf returns what a vocabulary says of a name, and the name itself where it
// says nothing.
func wordOf(words map[string]Label, name string) Label {
	if l, ok := words[name]; ok {
		return l
	}
	return Label{Name: name, Label: name}
}

// scenario returns what is known about a scenario, its name alone for one that
// the hub does not have.
func (v *Vocabulary) scenario(name string) Scenario {
	if s, ok := v.scenarios[name]; ok {
		return s
	}
	return Scenario{Label: Label{Name: name, Label: name}, Confidence: 1, Spoofable: 1}
}
