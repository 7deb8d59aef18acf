package history

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"muster"
)

// Imported returns how many alerts were imported: an import that was cut short
// goes on behind them.
func (s *Service) Imported() int {
	s.writing.Lock()
	defer s.writing.Unlock()
	n := 0
	for _, c := range s.cols.chunks {
		if c.id(0) < s.imported.end {
			n += len(c.rows)
		}
	}
	return n
}

// Import stores alerts of another history, oldest first, before all that came
// through the sieve; they get numbers of their own. Of an alert without RawJSON
// one is made of its fields. It returns when they are durable; the caller gives
// some thousand at a time, and calls FinishImport in the end.
func (s *Service) Import(ctx context.Context, alerts []muster.SieveAlert) error {
	arrivals := make([]arrival, len(alerts))
	for i := range alerts {
		raw, err := rawOf(&alerts[i])
		if err != nil {
			return fmt.Errorf("importing alert %d: %w", alerts[i].ID, err)
		}
		arrivals[i] = importedArrival(&alerts[i], raw)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	w := muster.SieveWrite{From: s.applied, To: s.applied}
	if err := s.put(ctx, &s.imported, arrivals, &w); err != nil {
		return fmt.Errorf("importing alerts: %w", err)
	}
	return nil
}

// FinishImport closes what was imported, so that it is read fast from then on. A
// further import goes on in another chunk.
func (s *Service) FinishImport(ctx context.Context) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.seal(ctx, &s.imported, true); err != nil {
		return err
	}
	s.imported.close()
	return nil
}

// close lets the lane go on in a new chunk.
func (l *lane) close() {
	l.next = (l.next + chunkAlerts - 1) &^ (chunkAlerts - 1)
	l.open, l.tail, l.before = nil, nil, nil
}

func importedArrival(a *muster.SieveAlert, raw []byte) arrival {
	geo := muster.SieveGeo{
		CountryCode: text(a.GeoCountryCode), CountryName: text(a.GeoCountryName), City: text(a.GeoCity), Region: text(a.GeoRegion),
		Timezone: text(a.GeoTimezone), ISP: text(a.GeoISP), Organisation: text(a.GeoOrg), Latitude: a.GeoLatitude, Longitude: a.GeoLongitude,
	}
	in := arrivalsOf([][]byte{raw}, []*muster.SieveGeo{&geo})[0]
	in.ref, in.received = ref{index: noIndex}, millis(a.ReceivedAt)
	in.reasons, in.actor = text(a.FilterReasons), clipActor(text(a.Actor))
	if a.UUID != nil {
		in.print = printOf(*a.UUID)
	}
	if a.Filtered {
		in.flags |= flagFiltered
	}
	if a.LocalAudit {
		in.flags |= flagLocal
	}
	if a.Replicated {
		in.flags |= flagReplicated
	}
	if a.ForwardedToCAPI {
		in.forwarded = in.received
		if a.ForwardedAt != nil {
			in.forwarded = millis(*a.ForwardedAt)
		}
	}
	return in
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// rawOf returns the signal of an alert.
func rawOf(a *muster.SieveAlert) ([]byte, error) {
	if a.RawJSON != nil && json.Valid([]byte(*a.RawJSON)) && bytes.HasPrefix(bytes.TrimSpace([]byte(*a.RawJSON)), []byte("{")) {
		return []byte(*a.RawJSON), nil
	}
	source := map[string]any{}
	signal := map[string]any{"scenario": a.Scenario, "source": source}
	for into, fields := range map[*map[string]any]map[string]*string{
		&signal: {
			"uuid": a.UUID, "machine_id": a.MachineID, "scenario_hash": a.ScenarioHash, "scenario_version": a.ScenarioVersion, "message": a.Message,
			"leakspeed": a.Leakspeed, "start_at": a.StartAt, "stop_at": a.StopAt, "created_at": a.CreatedAt,
		},
		&source: {
			"scope": a.SourceScope, "value": a.SourceValue, "ip": a.SourceIP, "range": a.SourceRange,
			"as_number": a.SourceASNumber, "as_name": a.SourceASName, "cn": a.SourceCN,
		},
	} {
		for name, value := range fields {
			if value != nil {
				(*into)[name] = *value
			}
		}
	}
	return json.Marshal(signal)
}
