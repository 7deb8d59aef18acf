package policy

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"muster"
)

// Prior is what is known about a scenario before any report.
type Prior struct {
	// Behaviour is the family of what the scenario sees, service and action:
	// "ssh:bruteforce". Scenarios of one family corroborate each other; "" is no
	// family: such a scenario corroborates itself alone.
	Behaviour  string
	Confidence uint8 // 0 (a guess) to 3 (nothing else looks like it)
	Spoofable  uint8 // 0 (a handshake proves the address) to 3 (one forged packet)

	// What follows is known from a hub index only, not built in.
	Label       string   // a title, for people
	Service     string   // "ssh", "wordpress"
	Remediation bool     // the hub means it to be acted upon
	CVEs        []string // "CVE-2017-9841"
	Techniques  []string // of MITRE ATT&CK: "T1110", "T1110.004"
}

// UnknownPrior is that of scenarios that the hub does not have: of no family,
// little better than a guess, and perhaps no proof of the address. Its values
// also stand for those that the hub leaves out.
var UnknownPrior = Prior{Confidence: 1, Spoofable: 1}

// Taxonomy knows the hub's scenarios by name. It is immutable and safe for
// concurrent use; the nil Taxonomy knows none.
type Taxonomy struct {
	priors map[string]Prior
}

// Of returns what is known about a scenario, UnknownPrior for one that the hub
// does not have.
func (t *Taxonomy) Of(scenario string) Prior {
	if t != nil {
		if p, ok := t.priors[scenario]; ok {
			return p
		}
	}
	return UnknownPrior
}

// Knows reports whether the hub has a scenario of that name.
func (t *Taxonomy) Knows(scenario string) bool {
	if t == nil {
		return false
	}
	_, ok := t.priors[scenario]
	return ok
}

// Len returns the number of scenarios.
func (t *Taxonomy) Len() int {
	if t == nil {
		return 0
	}
	return len(t.priors)
}

// All yields the scenarios' names in order, with their priors.
func (t *Taxonomy) All(yield func(scenario string, p Prior) bool) {
	if t == nil {
		return
	}
	names := make([]string, 0, len(t.priors))
	for name := range t.priors {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !yield(name, t.priors[name]) {
			return
		}
	}
}

// ReadTaxonomy reads the scenarios and rules of a hub index (.index.json, with
// or without content).
func ReadTaxonomy(r io.Reader) (*Taxonomy, error) {
	type item struct {
		Labels json.RawMessage `json:"labels"`
	}
	var index struct {
		Scenarios   map[string]item `json:"scenarios"`
		AppsecRules map[string]item `json:"appsec-rules"`
	}
	if err := json.NewDecoder(r).Decode(&index); err != nil {
		return nil, fmt.Errorf("expected a hub index in JSON (the hub's .index.json): %w", err)
	}
	t := &Taxonomy{priors: make(map[string]Prior, len(index.Scenarios)+len(index.AppsecRules))}
	// A scenario's word counts over that of a rule of its name.
	for _, items := range []map[string]item{index.AppsecRules, index.Scenarios} {
		for name, item := range items {
			if name != "" {
				t.priors[name] = priorOf(item.Labels)
			}
		}
	}
	if len(t.priors) == 0 {
		return nil, fmt.Errorf("the hub index names no scenarios: is it the hub's .index.json?")
	}
	return t, nil
}

// priorOf reads labels, which anybody who adds to the hub writes by hand: a
// value that is not understood counts as left out.
func priorOf(raw json.RawMessage) Prior {
	var labels map[string]json.RawMessage
	if json.Unmarshal(raw, &labels) != nil {
		return UnknownPrior
	}
	p := Prior{
		Label: oneLine(textOf(labels["label"])), Service: oneLine(textOf(labels["service"])),
		Confidence: levelOf(labels["confidence"], UnknownPrior.Confidence),
		Spoofable:  levelOf(labels["spoofable"], UnknownPrior.Spoofable),
	}
	_ = json.Unmarshal(labels["remediation"], &p.Remediation) // false when it is no bool
	for _, key := range []string{"behavior", "behaviour", "behaviors"} {
		if family := familyOf(textOf(labels[key])); family != "" {
			p.Behaviour = family
			break
		}
	}
	for _, class := range textsOf(labels["classification"]) {
		scheme, id, _ := strings.Cut(class, ".")
		switch id = strings.ToUpper(oneLine(id)); strings.ToLower(scheme) {
		case "cve":
			p.CVEs = append(p.CVEs, id)
		case "attack":
			p.Techniques = append(p.Techniques, id)
		}
	}
	return p
}

// textsOf reads a text or a list of them.
func textsOf(raw json.RawMessage) []string {
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		return list
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return []string{text}
	}
	return nil
}

func textOf(raw json.RawMessage) string {
	if list := textsOf(raw); len(list) > 0 {
		return list[0]
	}
	return ""
}

// levelOf reads a number from 0 to 3.
func levelOf(raw json.RawMessage, otherwise uint8) uint8 {
	var n float64
	if raw == nil || string(raw) == "null" || json.Unmarshal(raw, &n) != nil || n < 0 || n > 3 || n != float64(uint8(n)) {
		return otherwise
	}
	return uint8(n)
}

// familyOf normalises a behaviour: in lower case, and without how fast it was
// done ("pop3/imap:slow-bruteforce" is "pop3/imap:bruteforce"); "" for what is
// no service and action.
func familyOf(text string) string {
	text = strings.ToLower(strings.TrimSpace(text))
	service, action, ok := strings.Cut(text, ":")
	if !ok || len(text) > 64 || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	if strings.HasSuffix(action, "-bruteforce") {
		action = "bruteforce"
	}
	if service == "" || action == "" || strings.Contains(action, ":") {
		return ""
	}
	return service + ":" + action
}

// builtInTaxonomy has a line for each scenario: name, behaviour, confidence and
// spoofable, between tabs.
//
//go:generate go test -run TestBuiltInTaxonomyIsTheHubs -update .
//go:embed taxonomy.tsv
var builtInTaxonomy string

// BuiltInTaxonomy returns what this release knows of the hub, for a server that
// is given no index.
var BuiltInTaxonomy = sync.OnceValue(func() *Taxonomy {
	t, err := parseTaxonomy(builtInTaxonomy)
	if err != nil {
		panic(err) // a test reads it
	}
	return t
})

// parseTaxonomy reads the built-in form.
func parseTaxonomy(text string) (*Taxonomy, error) {
	t := &Taxonomy{priors: make(map[string]Prior, strings.Count(text, "\n"))}
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		f := strings.Split(lines.Text(), "\t")
		if len(f) != 4 || f[0] == "" || familyOf(f[1]) != f[1] {
			return nil, muster.Errorf(muster.Invalid, "taxonomy, line %d: expected name, behaviour, confidence and spoofable between tabs, got %q", n, clip(lines.Text()))
		}
		confidence, err1 := strconv.ParseUint(f[2], 10, 2)
		spoofable, err2 := strconv.ParseUint(f[3], 10, 2)
		if err1 != nil || err2 != nil {
			return nil, muster.Errorf(muster.Invalid, "taxonomy, line %d: expected two numbers from 0 to 3, got %q and %q", n, f[2], f[3])
		}
		t.priors[f[0]] = Prior{Behaviour: f[1], Confidence: uint8(confidence), Spoofable: uint8(spoofable)}
	}
	return t, lines.Err()
}
