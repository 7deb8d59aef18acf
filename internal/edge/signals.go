package edge

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strconv"

	"muster"
	"muster/internal/enroll"
	"muster/internal/ingest"
	"muster/internal/misuse"
	"muster/internal/ops"
	"muster/internal/publish"
	"muster/internal/wire"
)

// signals answers POST /signals: 200 only when what was taken is durable. A
// well-formed batch is never refused for the items in it, because SDKs would
// send it again for ever; the answer says what was not taken and why.
func (e *Edge) signals(w http.ResponseWriter, r *http.Request, version publish.Version) error {
	id, body, release, err := e.authenticated(w, r, misuse.Push)
	if err != nil {
		return err
	}
	defer release()

	addr := e.cfg.Addr(r)
	batch := e.cfg.Ingest.Batch(ingest.Sender{
		Machine: id.Machine, Organisation: id.Organisation,
		Active: id.State == muster.Active, Fleet: id.Fleet, V2: version == publish.V2,
		Honeypot: id.Honeypot, ASN: e.cfg.ASN(addr), Net: networkOf(addr),
	})
	defer batch.Drop()
	var (
		item   ingest.Item
		detail []byte
	)
	_, err = wire.DecodeSignals(body, e.cfg.Limits.Signals,
		func(i int, s *wire.Signal) {
			detail = appendDetail(detail[:0], s)
			item = itemOf(s, detail)
			batch.Add(i, &item)
		},
		func(i int, p wire.Problem) { batch.Refuse(i, string(p.Code), p.Reason) })
	if err != nil {
		return err
	}
	if err := batch.Commit(r.Context()); err != nil {
		return err
	}
	e.cfg.Machines.Touch(id.Machine, enroll.ContactPush, engineVersion(r))
	rec := ops.RecordOf(r.Context())
	rec.Accepted, rec.Refused = batch.Accepted, batch.Refused
	if batch.Refused == 0 {
		return e.ok(w)
	}
	answer, err := json.Marshal(struct {
		Message  string           `json:"message"`
		Accepted int              `json:"accepted"`
		Refused  int              `json:"refused"`
		Problems []ingest.Refusal `json:"problems"`
	}{"OK", batch.Accepted, batch.Refused, batch.Refusals})
	if err != nil {
		return err
	}
	e.write(w, http.StatusOK, answer)
	return nil
}

// itemOf hands a decoded signal to admission, which speaks no JSON.
func itemOf(s *wire.Signal, detail []byte) ingest.Item {
	it := ingest.Item{
		UUID: s.UUID, Scenario: s.Scenario, Hash: s.ScenarioHash, Version: s.ScenarioVersion,
		Trust: s.ScenarioTrust, Kind: s.Kind, Created: s.CreatedAt, Start: s.StartAt, Stop: s.StopAt,
		Scope: s.Source.Scope, Value: s.Source.Value, IP: s.Source.IP,
		Country: s.Source.Country, ASN: s.Source.ASNumber, ASName: s.Source.ASName,
		Decisions: s.DecisionCount, Ban: s.Ban, Detail: detail,
	}
	it.Simulated = len(s.First) > 0
	for i := range s.First {
		it.Simulated = it.Simulated && s.First[i].Simulated
	}
	if len(s.First) > 0 {
		it.Origin = s.First[0].Origin
	}
	return it
}

// Limits on the parts of what an owner may see of a signal.
const (
	maxUUID      = 128
	maxMessage   = 4 << 10
	maxContext   = 32 << 10
	maxDecisions = 64 << 10
)

// appendDetail makes the JSON of what only the owner sees. Raw parts are valid
// JSON, because the decoder has passed them.
func appendDetail(b []byte, s *wire.Signal) []byte {
	b = append(b, `{"uuid":`...)
	b = wire.AppendString(b, s.UUID[:min(len(s.UUID), maxUUID)])
	if s.Message != "" {
		b = append(b, `,"message":`...)
		b = wire.AppendString(b, s.Message[:min(len(s.Message), maxMessage)])
	}
	if s.MachineID != "" {
		b = append(b, `,"machine_id":`...)
		b = wire.AppendString(b, s.MachineID[:min(len(s.MachineID), 256)])
	}
	if len(s.Context) > 0 && len(s.Context) <= maxContext {
		b = append(b, `,"context":`...)
		b = append(b, s.Context...)
	}
	switch {
	case len(s.Decisions) > maxDecisions:
		b = append(b, `,"decisions_omitted":`...)
		b = strconv.AppendInt(b, int64(s.DecisionCount), 10)
	case len(s.Decisions) > 0:
		b = append(b, `,"decisions":`...)
		b = append(b, s.Decisions...)
	}
	return append(b, '}')
}

// maxRemovals bounds one call, each of whose uuids is looked for in all that the
// machine reported; engines send 50.
const maxRemovals = 1000

// decisionsDelete answers POST /decisions/delete: an operator removed these
// decisions on the engine, so they must not go on protecting its fleet.
func (e *Edge) decisionsDelete(w http.ResponseWriter, r *http.Request) error {
	id, body, release, err := e.authenticated(w, r, misuse.Push)
	if err != nil {
		return err
	}
	defer release()
	uuids, err := wire.DecodeDecisionsDelete(body, maxRemovals)
	if err != nil {
		return err
	}
	if len(uuids) > 0 && id.State == muster.Active {
		if err := e.cfg.Reports.AppendRemovals(r.Context(), muster.Removal{
			Machine: id.Machine, Decisions: uuids, At: e.cfg.Now().UTC(),
		}); err != nil {
			return err
		}
	}
	e.cfg.Machines.Touch(id.Machine, enroll.ContactPush, engineVersion(r))
	return e.ok(w)
}

// decisionsSync answers POST /decisions/sync, which the schema has and no
// engine since 1.4.6 sends: it is checked and has no effect.
func (e *Edge) decisionsSync(w http.ResponseWriter, r *http.Request) error {
	id, body, release, err := e.authenticated(w, r, misuse.Push)
	if err != nil {
		return err
	}
	defer release()
	if _, err := wire.DecodeDecisionsSync(body, e.cfg.Limits.Signals); err != nil {
		return err
	}
	e.cfg.Machines.Touch(id.Machine, enroll.ContactPush, engineVersion(r))
	return e.ok(w)
}

// maxReport is the largest metrics body that is kept; larger ones are checked
// and dropped.
const maxReport = 256 << 10

// metrics answers POST /metrics and /metrics/.
func (e *Edge) metrics(w http.ResponseWriter, r *http.Request) error {
	return e.report(w, r, "metrics", func(body []byte) (version string, err error) {
		m, err := wire.DecodeMetrics(body)
		return m.Version, err
	})
}

// usageMetrics answers POST /usage-metrics. What is unreadable or too large is
// 422: engines drop such a report, and after any other status send it again for
// ever, with the next ones added.
func (e *Edge) usageMetrics(w http.ResponseWriter, r *http.Request) error {
	err := e.report(w, r, "usage", func(body []byte) (version string, err error) {
		u, err := wire.DecodeUsageMetrics(body)
		if u.LAPI != nil {
			version = u.LAPI.Version
		}
		return version, err
	})
	if code := muster.CodeOf(err); code == muster.Invalid || code == muster.TooLarge {
		ops.RecordOf(r.Context()).Err = err
		e.write(w, http.StatusUnprocessableEntity, wire.AppendError(nil, err.Error(), ""))
		return nil
	}
	return err
}

// report keeps a machine's report of a kind.
func (e *Edge) report(w http.ResponseWriter, r *http.Request, kind string, decode func([]byte) (version string, err error)) error {
	id, body, release, err := e.authenticated(w, r, misuse.Other)
	if err != nil {
		return err
	}
	defer release()
	version, err := decode(body)
	if err != nil {
		return err
	}
	if len(body) <= maxReport {
		if err := e.cfg.Reports.PutMachineReport(r.Context(), id.Machine, kind, e.cfg.Now().UTC(), body); err != nil {
			return err
		}
	}
	if version == "" {
		version = engineVersion(r)
	}
	e.cfg.Machines.Touch(id.Machine, enroll.ContactMetrics, clip(version))
	return e.ok(w)
}

// networkOf returns the network that a machine reports from; none for private
// addresses, which are behind the same router as this server, whoever has them.
func networkOf(addr netip.Addr) uint64 {
	if addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsUnspecified() {
		return 0
	}
	return muster.NetworkOf(addr)
}
