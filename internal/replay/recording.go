// Package replay runs recorded attacks through the real ranking day by day and
// measures what lists for the readers in the recording would have been worth.
// It reads the logs of the nine honeypots that the project is measured with,
// and signals as `muster admin alert list --all --json` writes them.
package replay

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"muster"
)

// Format is what a recording is written in.
type Format string

// The formats.
const (
	Honeypots Format = "honeypots" // CSV: datetime,host,src,proto,type,spt,dpt
	Signals   Format = "signals"   // one JSON object a line
)

// Bounds on a recording, so that a wrong file ends in an error and not in swap.
const (
	maxEvents  = 50_000_000
	maxVictims = 4096 // a matrix of all pairs is kept
	maxDays    = 3660
	maxLine    = 4 << 20
)

const secondsPerDay = 24 * 60 * 60

// Event is one report: at a time, in Unix seconds, a source came to a victim.
// The others are indexes into the Recording.
type Event struct {
	At                        int64
	Victim, Source, Behaviour int32
}

// Recording is what was read, in order of time.
type Recording struct {
	Format     Format
	Events     []Event
	Victims    []string
	Sources    []muster.Source
	Behaviours []string
	Skipped    int // signals that are no evidence for a network, or about no address
}

// Read reads a recording in either format, plain or gzipped. Errors name the
// line. progress, if not nil, is told now and then how many lines were read.
func Read(r io.Reader, progress func(lines int)) (*Recording, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		in = bufio.NewReaderSize(z, 1<<16)
	}
	first, err := in.Peek(1)
	if err != nil {
		return nil, fmt.Errorf("expected a recording, CSV of honeypots or signals as JSON lines, got nothing: %w", err)
	}
	if progress == nil {
		progress = func(int) {}
	}
	b := builder{
		victims: map[string]int32{}, behaviours: map[string]int32{}, sources: map[muster.Source]int32{},
		progress: progress,
	}
	if first[0] == '{' {
		b.rec.Format = Signals
		err = b.readSignals(in)
	} else {
		b.rec.Format = Honeypots
		err = b.readHoneypots(in)
	}
	if err != nil {
		return nil, err
	}
	return b.finish()
}

type builder struct {
	rec        Recording
	victims    map[string]int32
	behaviours map[string]int32
	sources    map[muster.Source]int32
	progress   func(int)
}

func (b *builder) add(at time.Time, victim, behaviour string, source muster.Source) error {
	if n := len(b.rec.Events); n >= maxEvents {
		return fmt.Errorf("expected at most %d events: cut the recording", maxEvents)
	} else if n%100_000 == 0 {
		b.progress(n)
	}
	e := Event{
		At:        at.Unix(),
		Victim:    intern(b.victims, &b.rec.Victims, victim),
		Source:    intern(b.sources, &b.rec.Sources, source),
		Behaviour: intern(b.behaviours, &b.rec.Behaviours, behaviour),
	}
	if len(b.rec.Victims) > maxVictims {
		return fmt.Errorf("expected at most %d machines: cut the recording", maxVictims)
	}
	b.rec.Events = append(b.rec.Events, e)
	return nil
}

func intern[K comparable](index map[K]int32, list *[]K, k K) int32 {
	i, ok := index[k]
	if !ok {
		i = int32(len(*list))
		index[k] = i
		*list = append(*list, k)
	}
	return i
}

func (b *builder) finish() (*Recording, error) {
	rec := &b.rec
	if len(rec.Events) == 0 {
		return nil, fmt.Errorf("expected events, got none (%d skipped)", rec.Skipped)
	}
	// Sensors write their logs apart, and alerts are listed last first.
	slices.SortStableFunc(rec.Events, func(a, b Event) int { return cmp.Compare(a.At, b.At) })
	if n := rec.days(); n > maxDays {
		return nil, fmt.Errorf("expected at most %d days, got %d, from %s to %s: is a clock wrong?", maxDays, n, rec.date(0), rec.date(n-1))
	}
	return rec, nil
}

var columns = []string{"datetime", "host", "src", "proto", "type", "spt", "dpt"}

func (b *builder) readHoneypots(in io.Reader) error {
	r := csv.NewReader(in)
	r.ReuseRecord = true
	header, err := r.Read()
	if err == nil && !slices.Equal(header, columns) {
		err = fmt.Errorf("expected the columns %v, or signals as JSON lines, got %.200v", columns, header)
	}
	for err == nil {
		var row []string
		if row, err = r.Read(); err == nil {
			err = b.addHoneypot(row)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	if parse := (*csv.ParseError)(nil); errors.As(err, &parse) {
		return err // names the line
	}
	line, _ := r.FieldPos(0)
	return fmt.Errorf("line %d: %w", line, err)
}

func (b *builder) addHoneypot(row []string) error {
	at, err := time.Parse(time.DateTime, row[0])
	if err != nil || at.Unix() < 0 {
		return fmt.Errorf("datetime: expected a time like 2013-03-03 21:53:59, got %.40q", row[0])
	}
	if row[1] == "" {
		return errors.New("host: expected a name, got nothing")
	}
	src, err := strconv.ParseUint(row[2], 10, 32)
	if err != nil {
		return fmt.Errorf("src: expected an IPv4 address as an integer, got %.40q", row[2])
	}
	aim, column := row[6], "dpt"
	if row[3] == "ICMP" {
		aim, column = row[4], "type"
	}
	if _, err := strconv.ParseUint(aim, 10, 16); err != nil {
		return fmt.Errorf("%s: expected a number up to 65535, got %.40q", column, aim)
	}
	addr := netip.AddrFrom4([4]byte{byte(src >> 24), byte(src >> 16), byte(src >> 8), byte(src)})
	return b.add(at, row[1], row[3]+"/"+aim, muster.SourceFromAddr(addr))
}

// signal is what counts of a line of `muster admin alert list --all --json`.
type signal struct {
	Machine  string    `json:"machine"`
	At       time.Time `json:"at"`
	Source   string    `json:"source"`
	Scope    string    `json:"scope"`
	Scenario string    `json:"scenario"`
	Counts   bool      `json:"counts"`
}

func (b *builder) readSignals(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 1<<16), maxLine)
	n := 0
	for lines.Scan() {
		n++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if err := b.addSignal(lines.Bytes()); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	return nil
}

func (b *builder) addSignal(line []byte) error {
	var s signal
	if err := json.Unmarshal(line, &s); err != nil {
		return fmt.Errorf("expected a signal as muster admin alert list --all --json writes it: %w", err)
	}
	switch {
	case s.Machine == "":
		return errors.New("machine: expected an id, got nothing")
	case s.At.Unix() < 0:
		return fmt.Errorf("at: expected a time since 1970, got %s", s.At.Format(time.RFC3339))
	case !s.Counts || s.Scope != "ip" && s.Scope != "range":
		b.rec.Skipped++
		return nil
	}
	source, err := muster.ParseSource(s.Source)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	return b.add(s.At, s.Machine, s.Scenario, source)
}

// days returns how many days there are from the first event to the last.
func (r *Recording) days() int {
	return int(r.Events[len(r.Events)-1].At/secondsPerDay-r.firstDay()) + 1
}

func (r *Recording) firstDay() int64   { return r.Events[0].At / secondsPerDay }
func (r *Recording) day(e Event) int   { return int(e.At/secondsPerDay - r.firstDay()) }
func (r *Recording) start(d int) int64 { return (r.firstDay() + int64(d)) * secondsPerDay }

func (r *Recording) midnight(d int) time.Time { return time.Unix(r.start(d), 0).UTC() }
func (r *Recording) date(d int) string        { return r.midnight(d).Format(time.DateOnly) }
