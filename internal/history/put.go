package history

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/zeebo/xxh3"

	"muster"
	"muster/internal/wire"
)

func leUint64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// arrival is an alert on its way into the history.
type arrival struct {
	stored
	print                            uint64   // of its uuid
	uuid, scenario, country, machine string   // of the signal
	sources                          [2]int64 // hashes of addresses, 0 for none
	decisions                        []decision
}

type decision struct {
	category int // -1 = not known
	scenario string
	name     uint32 // of scenario
}

// arrivalsOf reads what is indexed and counted of signals. What is read fast is
// what engines send; the rest is read as tolerantly as it is shown.
func arrivalsOf(raws [][]byte, geos []*muster.SieveGeo) []arrival {
	all := make([]arrival, len(raws))
	read := make([]bool, len(raws))
	body := []byte{'['}
	for i, raw := range raws {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, raw...)
	}
	n, err := wire.DecodeSignals(append(body, ']'), len(raws), func(i int, s *wire.Signal) {
		if s.DecisionCount > len(s.First) {
			return
		}
		read[i] = true
		a := &all[i]
		a.uuid, a.scenario, a.machine, a.country = s.UUID, s.Scenario, s.MachineID, countryOf(geos[i], s.Source.Country)
		a.setSources(s.Source.IP, s.Source.Value)
		for _, d := range s.First {
			a.decisions = append(a.decisions, decision{category: categoryOf(d.Duration), scenario: d.Scenario})
		}
	}, func(int, wire.Problem) {})
	for i, raw := range raws {
		if !read[i] || err != nil || n != len(raws) {
			all[i] = tolerantArrival(raw, geos[i])
		}
		all[i].raw, all[i].geo = raw, *geos[i]
	}
	return all
}

// tolerantArrival is arrivalsOf for what has fields of other types, or many
// decisions.
func tolerantArrival(raw []byte, geo *muster.SieveGeo) (a arrival) {
	var f facts
	_ = decode(raw, &f) // what cannot be read is empty
	a.uuid, a.scenario, a.machine, a.country = f.UUID, f.Scenario, f.MachineID, countryOf(geo, f.Source.CN)
	a.setSources(f.Source.IP, f.Source.Value)
	for _, d := range f.Decisions {
		a.decisions = append(a.decisions, decision{category: categoryOf(d.Duration), scenario: d.Scenario})
	}
	return a
}

func (a *arrival) setSources(ip, value string) {
	a.sources[0] = sourceOf(ip)
	if value != ip {
		a.sources[1] = sourceOf(value)
	}
}

// sourceOf returns the hash by which alerts about an address are found, 0 for a
// text that is no address. It is stored, so it must not change.
func sourceOf(text string) int64 {
	addr := addressOf(text)
	if !addr.IsValid() {
		return 0
	}
	b := addr.As16()
	return int64(max(1, xxh3.Hash(b[:])))
}

// reasonsJSON is how reasons are shown: "" for none.
func reasonsJSON(reasons []string) string {
	if len(reasons) == 0 {
		return ""
	}
	b, err := json.Marshal(reasons)
	if err != nil {
		panic(err) // strings always have a JSON form
	}
	return string(b)
}

// put stores alerts behind those of a lane, with what w has besides. The caller
// holds s.writing.
func (s *Service) put(ctx context.Context, l *lane, alerts []arrival, w *muster.SieveWrite) error {
	began := s.cfg.Now()
	if l.next+int64(len(alerts)) > l.end {
		return muster.Errorf(muster.TooLarge, "the history has room for %d alerts that are imported: import fewer", l.end-l.first)
	}
	s.intern(alerts)
	w.Names, w.Combos = s.names.newNames, s.names.newCombos
	s.blocks(l, alerts, w)
	hours := s.count(alerts)
	for start, t := range hours {
		w.Rollups = append(w.Rollups, muster.SieveRollup{Span: 1, Start: start, Data: t.encode(s.packer)})
	}
	if err := s.cfg.Ledger.PutSieve(ctx, w); err != nil {
		return err
	}
	s.names.newNames, s.names.newCombos = nil, nil

	s.cols.mu.Lock()
	for i := range alerts {
		a := &alerts[i]
		s.recent.add(a.print)
		s.append(l, &a.stored, a.print)
		if l.open = append(l.open, a.stored); len(l.open) == blockAlerts {
			l.open = nil
		}
	}
	for i := range l.open { // their bytes are those of records, which are large
		l.open[i].raw = bytes.Clone(l.open[i].raw)
	}
	s.replace(hours)
	if len(alerts) > 0 {
		s.last = max(s.last, l.next-1)
		if s.oldest == 0 || alerts[0].received < s.oldest {
			s.oldest = alerts[0].received
		}
		if first := l.next - int64(len(alerts)); s.cols.first == 0 || first < s.cols.first {
			s.cols.first = first &^ (blockAlerts - 1)
		}
		close(s.newer)
		s.newer = make(chan struct{})
	}
	s.cols.mu.Unlock()
	s.commits.Observe(s.cfg.Now().Sub(began).Seconds())
	return s.seal(ctx, l, false)
}

// intern gives the texts of alerts their numbers.
func (s *Service) intern(alerts []arrival) {
	s.cols.mu.Lock()
	defer s.cols.mu.Unlock()
	for i := range alerts {
		a := &alerts[i]
		a.combo = s.names.combo(a.scenario, a.country, a.machine)
		if a.geo.CountryName != "" && s.names.countries[a.geo.CountryCode] != a.geo.CountryName {
			s.names.id(muster.SieveCountryName, a.geo.CountryCode+" "+a.geo.CountryName)
		}
		for j := range a.decisions {
			a.decisions[j].name = s.names.id(muster.SieveScenario, a.decisions[j].scenario)
		}
	}
}

// blocks adds the blocks, the large signals and the sources of alerts to w.
func (s *Service) blocks(l *lane, alerts []arrival, w *muster.SieveWrite) {
	next, open := l.next, append(make([]stored, 0, blockAlerts), l.open...)
	for i := range alerts {
		a := &alerts[i]
		if len(a.raw) >= largeRaw {
			w.Large = append(w.Large, muster.SieveLarge{ID: next, Data: s.packer.pack(a.raw)})
			a.raw, a.flags = nil, a.flags|flagLarge
		}
		for _, source := range a.sources {
			if source != 0 {
				w.Sources = append(w.Sources, muster.SieveSource{Source: source, ID: next})
			}
		}
		open = append(open, a.stored)
		next++
		if len(open) == blockAlerts || i == len(alerts)-1 {
			w.Blocks = append(w.Blocks, muster.SieveBlock{
				Number: (next - 1) >> muster.SieveBlockBits, Position: open[0].ref.position, Data: s.packer.packBlock(open, &s.buf),
			})
			open = open[:0]
		}
	}
}

// count returns the counts of the hours in which alerts came, with them.
func (s *Service) count(alerts []arrival) map[int64]*tally {
	hours := map[int64]*tally{}
	for i := range alerts {
		a := &alerts[i]
		if a.flags&flagLocal != 0 {
			continue
		}
		t := s.hour(hours, a.received)
		t.see(a.received)
		hour := int(((hourOf(a.received) % 24) + 24) % 24)
		c := s.names.combos[a.combo]
		t.hours[0][hour]++
		t.counts[alertsOfScenario|countKey(c.scenario)]++
		t.counts[alertsOfCountry|countKey(c.country)]++
		if a.flags&flagFiltered != 0 {
			t.filtered++
		}
		if a.forwarded != 0 {
			t.forwarded++
		}
		t.decisions += uint64(len(a.decisions))
		t.hours[1][hour] += uint64(len(a.decisions))
		if len(a.decisions) > 0 {
			t.counts[decisionsOfCountry|countKey(c.country)] += uint64(len(a.decisions))
		}
		for _, d := range a.decisions {
			if d.category >= 0 {
				t.categories[d.category]++
			}
			t.counts[decisionsOfScenario|countKey(d.name)]++
		}
	}
	return hours
}

// hour returns the counts of the hour of a time, to be changed.
func (s *Service) hour(changed map[int64]*tally, ms int64) *tally {
	start := hourOf(ms)
	t := changed[start]
	if t == nil {
		if was := s.rollups.hours[start]; was != nil {
			t = was.clone()
		} else {
			t = newTally()
		}
		changed[start] = t
	}
	return t
}

// replace puts changed counts in the place of those before. The caller holds the
// lock.
func (s *Service) replace(hours map[int64]*tally) {
	for start, t := range hours {
		if was := s.rollups.hours[start]; was != nil {
			s.rollups.all.subtract(was, start)
		}
		s.rollups.all.add(t, start)
		s.rollups.hours[start] = t
	}
}

// seal stores chunks of a lane that are full, or with all set also the last one.
func (s *Service) seal(ctx context.Context, l *lane, all bool) error {
	for _, c := range []*chunk{l.before, l.tail} {
		if c == nil || c.sealed || !all && len(c.rows) < chunkAlerts {
			continue
		}
		s.cols.mu.RLock()
		encoded := c.encode(s.packer)
		s.cols.mu.RUnlock()
		if err := s.cfg.Ledger.PutSieve(ctx, &muster.SieveWrite{Chunks: []muster.SieveChunk{encoded}}); err != nil {
			return err
		}
		c.sealed = true
	}
	return nil
}

// millis is how times are stored: what the API shows of them.
func millis(t time.Time) int64 { return t.UnixMilli() }
