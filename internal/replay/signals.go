package replay

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"muster"
	"muster/internal/ingest"
	"muster/internal/wire"
)

// line is what a line may say beside the signal that it is.
type line struct {
	Machine      string          `json:"machine"`          // the account; without it the log processor stands for it
	MachineID    string          `json:"machine_id"`       // the log processor
	Organisation string          `json:"organisation"`     // without it the machine is one of its own
	Received     time.Time       `json:"received"`         // without it when it happened
	ReporterAS   json.RawMessage `json:"reporter_as"`      // 64496 or "AS64496"
	ReporterNet  string          `json:"reporter_network"` // an address in it, or a range
	Honeypot     bool            `json:"honeypot"`

	Source json.RawMessage `json:"source"` // an object as it was sent, a text as it was exported
}

// exported is what muster admin alert list --all --json says of a signal.
type exported struct {
	ID       string    `json:"id"`
	At       time.Time `json:"at"`
	Source   string    `json:"source"`
	Scope    string    `json:"scope"`
	Scenario string    `json:"scenario"`
	Counts   bool      `json:"counts"`
}

// signals reads signals, and has the server's admission say which of them are
// evidence.
type signals struct {
	*builder
	committer *ingest.Committer
	now       time.Time       // the admission's
	admitted  []muster.Signal // by it, of the line that is read
	seen      map[muster.SignalID]struct{}
	array     []byte // the line, as the body of a request
}

// Append takes what was admitted, in place of a log.
func (s *signals) Append(_ context.Context, records []muster.Record) error {
	for _, r := range records {
		if err := muster.DecodeSignals(r.Data, func(one *muster.Signal) { s.admitted = append(s.admitted, *one) }); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) readSignals(in io.Reader) error {
	s := &signals{builder: b, seen: map[muster.SignalID]struct{}{}}
	cfg := ingest.Config{
		// Whoever took it found it new enough.
		Log: s, Rules: ingest.Rules{MaxAge: math.MaxInt64, MaxFuture: math.MaxInt64},
		Now: func() time.Time { return s.now }, Logger: slog.New(slog.DiscardHandler),
	}
	if b.options.Hub != nil {
		cfg.Rules.Hub = b.options.Hub
	}
	s.committer = ingest.NewCommitter(cfg)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.committer.Run(ctx) }()
	err := s.readLines(ctx, in)
	stop()
	return errors.Join(err, <-ended)
}

func (s *signals) readLines(ctx context.Context, in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 1<<16), maxLine)
	n := 0
	for lines.Scan() {
		n++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if err := s.read(ctx, lines.Bytes()); err != nil {
			if err := s.bad(n, err); err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	return nil
}

func (s *signals) read(ctx context.Context, text []byte) error {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return fmt.Errorf("expected a signal, as engines send it or muster admin alert list --all --json writes it: %w", err)
	}
	by, err := l.reporter()
	if err != nil {
		return err
	}
	if source := bytes.TrimSpace(l.Source); len(source) > 0 && source[0] == '"' {
		return s.stored(text, &l, by)
	}
	return s.sent(ctx, text, &l, by)
}

// reporter returns who reported a line.
func (l *line) reporter() (Reporter, error) {
	r := Reporter{Machine: cmp.Or(l.Machine, l.MachineID), Honeypot: l.Honeypot}
	r.Organisation = cmp.Or(l.Organisation, r.Machine)
	if r.Machine == "" {
		return r, errors.New("machine: expected an id, got nothing")
	}
	if text := string(l.ReporterAS); text != "" && text != "null" {
		digits := strings.TrimPrefix(strings.ToUpper(strings.Trim(text, `"`)), "AS")
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil {
			return r, fmt.Errorf("reporter_as: expected a number like 64496, got %.40s", text)
		}
		r.AS = uint32(n)
	}
	if l.ReporterNet != "" {
		source, err := muster.ParseSource(l.ReporterNet)
		if err != nil {
			return r, fmt.Errorf("reporter_network: %w", err)
		}
		r.Network = muster.NetworkOf(source.Addr())
	}
	return r, nil
}

// stored takes a signal that a server has admitted and stored.
func (s *signals) stored(text []byte, l *line, by Reporter) error {
	var x exported
	if err := json.Unmarshal(text, &x); err != nil {
		return fmt.Errorf("expected a signal as muster admin alert list --all --json writes it: %w", err)
	}
	switch {
	case x.At.Unix() < 0:
		return fmt.Errorf("at: expected a time since 1970, got %s", x.At.Format(time.RFC3339))
	case !x.Counts || x.Scope != "ip" && x.Scope != "range":
		s.rec.Skipped++
		return nil
	}
	source, err := muster.ParseSource(x.Source)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	if l.Received.Before(x.At) {
		l.Received = x.At
	}
	if id, err := hex.DecodeString(x.ID); err == nil && len(id) == len(muster.SignalID{}) && s.again(muster.SignalID(id)) {
		return nil
	}
	return s.add(x.At, l.Received, by, x.Scenario, source)
}

// again reports whether a signal was read before.
func (s *signals) again(id muster.SignalID) bool {
	if _, again := s.seen[id]; again {
		s.rec.Repeated++
		return true
	}
	s.seen[id] = struct{}{}
	return false
}

// sent takes a signal as its engine sent it.
func (s *signals) sent(ctx context.Context, text []byte, l *line, by Reporter) error {
	s.array = append(append(append(s.array[:0], '['), text...), ']')
	var item ingest.Item
	var problem string
	_, err := wire.DecodeSignals(s.array, 1,
		func(_ int, one *wire.Signal) { item = itemOf(one) },
		func(_ int, p wire.Problem) { problem = p.Reason })
	if err != nil {
		return err
	}
	if problem != "" {
		return errors.New(problem)
	}
	s.now = l.Received
	if s.now.IsZero() {
		s.now = cmp.Or(item.Stop, item.Start, item.Created)
	}
	if s.now.Unix() < 0 {
		return errors.New("stop_at: expected a time since 1970, or one in received, got none")
	}
	s.admitted = s.admitted[:0]
	batch := s.committer.Batch(ingest.Sender{
		Machine: by.Machine, Organisation: by.Organisation, Active: true, Honeypot: by.Honeypot, ASN: by.AS, Net: by.Network,
	})
	defer batch.Drop()
	batch.Add(0, &item)
	if batch.Refused > 0 {
		return fmt.Errorf("%s: %s", batch.Refusals[0].Code, batch.Refusals[0].Reason)
	}
	if err := batch.Commit(ctx); err != nil {
		return err
	}
	one := &s.admitted[0]
	switch {
	case s.again(one.ID):
		return nil
	case one.Flags&muster.Counts == 0:
		s.rec.Skipped++
		return nil
	}
	return s.add(one.At, one.Received, by, one.Scenario, one.Source)
}

// itemOf hands a signal to admission as the server does, save for what its owner
// alone may see.
func itemOf(s *wire.Signal) ingest.Item {
	it := ingest.Item{
		UUID: s.UUID, Scenario: s.Scenario, Hash: s.ScenarioHash, Version: s.ScenarioVersion,
		Trust: s.ScenarioTrust, Kind: s.Kind, Created: s.CreatedAt, Start: s.StartAt, Stop: s.StopAt,
		Scope: s.Source.Scope, Value: s.Source.Value, IP: s.Source.IP,
		Country: s.Source.Country, ASN: s.Source.ASNumber, ASName: s.Source.ASName,
		Decisions: s.DecisionCount, Ban: s.Ban, Simulated: len(s.First) > 0,
	}
	for i := range s.First {
		it.Simulated = it.Simulated && s.First[i].Simulated
	}
	if len(s.First) > 0 {
		it.Origin = s.First[0].Origin
	}
	return it
}
