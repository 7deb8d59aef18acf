package simulate

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBuiltInScenariosAreRight(t *testing.T) {
	all := BuiltIn() // panics when they cannot be read
	aims, disguises := map[Aim]bool{}, map[Disguise]bool{}
	for _, s := range all {
		aims[s.Adversary.Aim], disguises[s.Adversary.Disguise] = true, true
		if s.About == "" || len(s.Targets) == 0 {
			t.Errorf("%s says nothing about itself or expects nothing", s.Name)
		}
		if limit, ok := s.Targets["canaries_published"]; !ok || limit != 0 {
			t.Errorf("%s does not ask that no canary be published", s.Name)
		}
		if err := new(s.Scaled(0.05).Shortened(10)).check(); err != nil {
			t.Errorf("%s, small and short: %v", s.Name, err)
		}
	}
	if len(aims) != 8 || len(disguises) != 4 {
		t.Errorf("built-in scenarios have %d aims and %d disguises; expected all 8 and 4", len(aims), len(disguises))
	}
}

func TestReadRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"nothing":                {"", "no scenario"},
		"an unknown field":       {"name: a\ndays: 5\nwatchers: 3", "unknown field"},
		"an unknown world field": {"name: a\ndays: 5\nworld: {watcher: 3}", "unknown field"},
		"a text for a number":    {"name: a\ndays: many", "days"},
		"a key twice":            {"name: a\nname: b\ndays: 5", "already defined"},
		"no name":                {"days: 5", "name is"},
		"a name with a slash":    {"name: a/b\ndays: 5", "name is"},
		"no days":                {"name: a", "days is 0; expected 1 to 2000"},
		"measured too late":      {"name: a\ndays: 5\nmeasure_from: 5", "measure_from is 5; expected 0 to 4"},
		"too many organisations": {"name: a\ndays: 5\nworld: {watchers: 3, organisations: 4}", "world.organisations is 4; expected 1 to 3"},
		"blocking over all":      {"name: a\ndays: 5\nworld: {blocking: 1.5}", "world.blocking is 1.5; expected 0 to 1"},
		"no number":              {"name: a\ndays: 5\nworld: {mistakes: .nan}", "world.mistakes is NaN"},
		"an aim that is none":    {"name: a\ndays: 5\nadversary: {aim: peace, machines: 3, networks: 1}", "adversary.aim is"},
		"a bad disguise":         {"name: a\ndays: 5\nadversary: {aim: slander, machines: 3, networks: 1, disguise: hat}", "adversary.disguise is"},
		"share and machines":     {"name: a\ndays: 5\nadversary: {aim: slander, machines: 3, share: 0.5, networks: 1}", "expected one of adversary.share"},
		"nobody to attack with":  {"name: a\ndays: 5\nadversary: {aim: slander, networks: 1}", "expected one of adversary.share"},
		"no networks":            {"name: a\ndays: 5\nadversary: {aim: slander, machines: 3}", "adversary.networks is 0"},
		"an attack before":       {"name: a\ndays: 9\nadversary: {aim: slander, machines: 3, networks: 1, joins: 5, attacks: 4}", "adversary.joins is 5"},
		"an attack after":        {"name: a\ndays: 9\nadversary: {aim: slander, machines: 3, networks: 1, attacks: 9}", "adversary.attacks is 9"},
		"an unknown measure":     {"name: a\ndays: 5\ntargets: {joy: 1}", `"joy" is no measure`},
		"the same name twice":    {"name: a\ndays: 5\n---\nname: a\ndays: 6", "two scenarios"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Read(strings.NewReader(c.text), "x.yaml")
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "x.yaml") {
				t.Errorf("got %v; expected x.yaml and %q", err, c.want)
			}
		})
	}
}

func TestReadFillsDefaults(t *testing.T) {
	all, err := Read(strings.NewReader("name: a\ndays: 5\nworld: {watchers: 10, honeypots: -1, blocking: -1}\n---\nname: b\ndays: 6"), "x.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultWorld()
	if diff := cmp.Diff(want, all[1].World); diff != "" {
		t.Error("a world that says nothing:", diff)
	}
	want.Watchers, want.Organisations, want.Networks, want.Honeypots, want.Blocking = 10, 10, 10, 0, 0
	if diff := cmp.Diff(want, all[0].World); diff != "" {
		t.Error("a small world:", diff)
	}
}

func TestStoriesScaleAndShorten(t *testing.T) {
	s := builtInNamed(t, "sleepers-20")
	if got := s.machines(); got != 858 {
		t.Errorf("30 %% of watchers beside 2,000 honest ones are %d; expected 858", got)
	}
	s = s.Scaled(0.1).Shortened(50)
	got := []int{s.World.Watchers, s.World.Networks, s.World.Honeypots, s.Days, s.Adversary.Attacks, s.MeasureFrom, s.Adversary.Networks, s.machines()}
	if diff := cmp.Diff([]int{200, 30, 6, 50, 45, 45, 20, 86}, got); diff != "" {
		t.Error(diff)
	}
	if long := s.Shortened(400); long.Days != 50 {
		t.Errorf("a story of 50 days told in 400 takes %d", long.Days)
	}
}

func TestSweeps(t *testing.T) {
	a, err := ParseSweep("Listing.Threshold=4,6")
	if err != nil {
		t.Fatal(err)
	}
	b, err := ParseSweep("Trust.Caps.0.Weight=1")
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseSweep("Listing.Expiry=24h")
	if err != nil {
		t.Fatal(err)
	}
	all, err := combinations([]Sweep{a, b, c})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[0].parameters.Listing.Threshold != 4 || all[1].parameters.Listing.Threshold != 6 ||
		all[1].parameters.Trust.Caps[0].Weight != 1 || all[1].parameters.Listing.Expiry.Hours() != 24 {
		t.Errorf("got %+v", all)
	}
	if def, _ := combinations(nil); def[0].parameters.Trust.Caps[0].Weight == 1 {
		t.Error("a sweep changed the default")
	}
	for text, want := range map[string]string{
		"Listing.Threshold":             "expected PARAMETER=VALUE",
		"Listing.Threshold=":            "expected PARAMETER=VALUE",
		"Listing.Treshold=1":            `no field "Treshold"`,
		"Listing=1":                     "is a group",
		"Trust.Caps=1":                  "is a list",
		"Trust.Caps.9.Days=1":           "expected 0 to 3",
		"Listing.Threshold.Deep=1":      "nothing is below",
		"Listing.Threshold=much":        "expected a number",
		"Listing.Groups=1.5":            "expected a whole number",
		"Listing.Expiry=3":              "expected a duration",
		"Voices.SoloWitness=sometimes":  "expected true or false",
		"Suspicion.Cloud=24h,long,long": "expected a duration",
	} {
		if _, err := ParseSweep(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v; expected %q", text, err, want)
		}
	}
}
