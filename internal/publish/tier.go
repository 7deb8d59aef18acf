package publish

import (
	"math"
	"strings"
	"time"

	"muster"
)

// Reader is who pulls. Slices are not changed.
type Reader struct {
	Machine      string
	Organisation string // "" unless it is an active member of one
	Plan         muster.Plan
	Tags         []string
	Scenarios    []string  // declared at login
	Footprint    uint64    // stands for Scenarios: equal ones have equal numbers
	LastPull     time.Time // zero = never
	Startup      bool      // it wants everything, as after a start
	Engine       bool      // it is an engine, whose faults must be reckoned with, and no SDK
}

// Tailoring says what a list of limited length is chosen by.
type Tailoring string

// The ways of tailoring.
const (
	TailorNone      Tailoring = "none"      // the best of all
	TailorReported  Tailoring = "reported"  // what the reader's organisation reported lately comes first
	TailorInstalled Tailoring = "installed" // what the reader has scenarios for comes first
)

// Tier is what a reader is entitled to.
type Tier struct {
	Size      int // most entries; 0 = no limit
	Tailoring Tailoring
}

// How much what is listed for one scenario is worth to a reader, in binary
// logarithms, so that they add to ranks: half as much stands for two days of age
// (rankHalfLife).
var (
	sameScenario  = 0.0
	sameBehaviour = math.Log2(0.6) // another scenario for the same, such as a slower brute force
	sameService   = math.Log2(0.35)
	otherScenario = math.Log2(0.1)
)

// footprint is what a reader is attacked through, as far as is known.
type footprint struct {
	scenarios, behaviours, services map[string]struct{}
}

// newFootprint returns the footprint of scenarios, nil of none: then everything
// is worth the same.
func newFootprint(scenarios []string, behaviour func(string) string) *footprint {
	if len(scenarios) == 0 {
		return nil
	}
	f := &footprint{map[string]struct{}{}, map[string]struct{}{}, map[string]struct{}{}}
	for _, s := range scenarios {
		f.scenarios[s] = struct{}{}
		if b := behaviour(s); b != "" {
			f.behaviours[b] = struct{}{}
			f.services[serviceOf(b)] = struct{}{}
		}
	}
	return f
}

// worth is what the rows of a bucket are worth to f.
func (f *footprint) worth(b *bucket) float64 {
	if f == nil {
		return sameScenario
	}
	if _, ok := f.scenarios[b.scenario]; ok {
		return sameScenario
	}
	if _, ok := f.behaviours[b.behaviour]; ok && b.behaviour != "" {
		return sameBehaviour
	}
	if _, ok := f.services[b.service]; ok && b.service != "" {
		return sameService
	}
	return otherScenario
}

// serviceOf returns what a behaviour of the taxonomy aims at: "ssh" of
// "ssh:bruteforce".
func serviceOf(behaviour string) string {
	service, _, _ := strings.Cut(behaviour, ":")
	return service
}
