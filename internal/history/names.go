package history

import (
	"hash/maphash"
	"strings"

	"muster"
)

// names are the texts that alerts share, and the combinations of them.
type names struct {
	texts     []muster.SieveName // by ID
	ids       [muster.SieveNameKinds]map[string]uint32
	combos    []combo           // by ID
	comboIDs  []uint32          // hash table of the places in combos, plus 1; a power of two long
	countries map[string]string // names by code

	newNames  []muster.SieveName // which are not stored yet
	newCombos []muster.SieveCombo
}

// combo is a muster.SieveCombo without its ID: there may be a million.
type combo struct{ scenario, country, machine uint32 }

// maxNames bounds how many texts of a kind are told apart: engines choose
// scenarios freely. Those beyond are searched and counted as otherName, though
// shown as they are.
const (
	maxNames  = 50_000
	maxText   = 255 // bytes of a name
	otherName = "(other)"
)

func newNames() *names {
	n := &names{countries: map[string]string{}}
	for kind := range n.ids {
		n.ids[kind] = map[string]uint32{}
	}
	return n
}

func (n *names) load(texts []muster.SieveName, combos []muster.SieveCombo) {
	for _, t := range texts {
		if int(t.ID) != len(n.texts) || int(t.Kind) >= len(n.ids) {
			continue // of a newer release
		}
		n.keep(t)
	}
	for _, c := range combos {
		if int(c.ID) == len(n.combos) {
			n.keepCombo(combo{c.Scenario, c.Country, c.Machine})
		}
	}
}

func (n *names) keep(t muster.SieveName) {
	n.texts = append(n.texts, t)
	n.ids[t.Kind][t.Name] = t.ID
	if t.Kind == muster.SieveCountryName {
		code, name, _ := strings.Cut(t.Name, " ")
		n.countries[code] = name
	}
}

func (n *names) name(id uint32) string {
	if int(id) < len(n.texts) {
		return n.texts[id].Name
	}
	return ""
}

// id returns the number of a text, which is given one when it is new.
func (n *names) id(kind muster.SieveNameKind, text string) uint32 {
	if id, ok := n.ids[kind][text]; ok {
		return id
	}
	text = clipText(text)
	if len(n.ids[kind]) >= maxNames {
		text = otherName
	}
	if id, ok := n.ids[kind][text]; ok {
		return id
	}
	t := muster.SieveName{ID: uint32(len(n.texts)), Kind: kind, Name: strings.Clone(text)}
	n.keep(t)
	n.newNames = append(n.newNames, t)
	return t.ID
}

// clipText keeps what a name can be stored and shown with.
func clipText(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	for i := range s {
		if i > maxText {
			return s[:i]
		}
	}
	return s
}

// combo returns the number of a combination, which is given one when it is new.
func (n *names) combo(scenario, country, machine string) uint32 {
	c := combo{n.id(muster.SieveScenario, scenario), n.id(muster.SieveCountry, country), n.id(muster.SieveMachine, machine)}
	if len(n.comboIDs) > 0 {
		if id := n.comboIDs[n.place(c)]; id != 0 {
			return id - 1
		}
	}
	id := n.keepCombo(c)
	n.newCombos = append(n.newCombos, muster.SieveCombo{ID: id, Scenario: c.scenario, Country: c.country, Machine: c.machine})
	return id
}

func (n *names) keepCombo(c combo) uint32 {
	n.combos = append(n.combos, c)
	if 3*len(n.combos) > 2*len(n.comboIDs) {
		n.comboIDs = make([]uint32, max(64, 2*len(n.comboIDs)))
		for i, c := range n.combos {
			n.comboIDs[n.place(c)] = uint32(i) + 1
		}
	} else {
		n.comboIDs[n.place(c)] = uint32(len(n.combos))
	}
	return uint32(len(n.combos)) - 1
}

// place returns where in comboIDs a combination stands, or would.
func (n *names) place(c combo) int {
	mask := len(n.comboIDs) - 1
	i := int(maphash.Comparable(placeSeed, c)) & mask
	for n.comboIDs[i] != 0 && n.combos[n.comboIDs[i]-1] != c {
		i = (i + 1) & mask
	}
	return i
}

// matching returns, by number, the combinations that have a scenario with a text
// in it, a country and a machine; those that are "" do not matter. nil = all.
func (n *names) matching(scenario, country, machine string) []bool {
	if scenario == "" && country == "" && machine == "" {
		return nil
	}
	scenarios := make([]bool, len(n.texts))
	lower := strings.ToLower(scenario)
	for text, id := range n.ids[muster.SieveScenario] {
		scenarios[id] = scenario == "" || strings.Contains(strings.ToLower(text), lower)
	}
	countryID, known := n.ids[muster.SieveCountry][country]
	machineID, knownToo := n.ids[muster.SieveMachine][machine]
	wanted := make([]bool, len(n.combos))
	if country != "" && !known || machine != "" && !knownToo {
		return wanted
	}
	for i, c := range n.combos {
		wanted[i] = scenarios[c.scenario] && (country == "" || c.country == countryID) && (machine == "" || c.machine == machineID)
	}
	return wanted
}
