package enroll

import "time"

// Profile is what a machine's lists are made by.
type Profile struct {
	Tags      []string  // must not be changed
	Scenarios []string  // that it declared, sorted; must not be changed
	Footprint uint64    // stands for Scenarios: equal ones have equal numbers; 0 for none
	LastPull  time.Time // zero = never
}

// Profile returns what memory knows about a machine.
func (s *Service) Profile(machineID string) (p Profile) {
	e := s.directory.entry(machineID)
	if e == nil {
		return p
	}
	r := e.record.Load()
	if r == nil {
		return p
	}
	p = Profile{Tags: r.Tags, Scenarios: r.Scenarios, Footprint: r.footprint.number()}
	if at := e.seen[ContactPull].Load(); at != 0 {
		p.LastPull = time.UnixMicro(at).UTC()
	}
	return p
}
