// Package replay runs recorded attacks through the real ranking day by day and
// measures what lists for the readers in the recording would have been worth.
// It reads the logs of the nine honeypots that the project is measured with,
// and signals, as engines send them and as `muster admin alert list --all --json`
// writes them. It also runs them through the server's judge, and measures what
// the one list for all would have been worth.
package replay

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster"
	"muster/internal/policy"
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
	maxVictims = 4096 // the lists' baselines keep a matrix of all pairs
	maxDays    = 3660
	maxLine    = 4 << 20
)

const secondsPerDay = 24 * 60 * 60

// Event is one report: at a time, in Unix seconds, a source came to a victim.
// The others are indexes into the Recording.
type Event struct {
	At, Received                        int64 // when it happened, and when the server got it
	Victim, Source, Behaviour, Reporter int32
}

// Reporter is a machine as it was when it reported: where it sat, and whose it
// was.
type Reporter struct {
	Machine, Organisation string
	AS                    uint32 // 0 = unknown
	Network               uint64 // see muster.NetworkOf, 0 = unknown
	Honeypot              bool
}

// Recording is what was read, in order of time.
type Recording struct {
	Format     Format
	Events     []Event
	Victims    []string
	Sources    []muster.Source
	Behaviours []string
	Reporters  []Reporter
	Skipped    int      // signals that are no evidence for a network, or about no address
	Repeated   int      // signals that were there before
	Bad        int      // lines that could not be read
	BadLines   []string // what was wrong with the first of them
}

// Options say how to read. Zero values have defaults.
type Options struct {
	// MaxBad is how many lines may be bad; one more is an error. 0: 100, under 0:
	// none.
	MaxBad int
	// Hub decides which scenarios are unmodified; nil takes the engines' word.
	Hub *policy.Hub
	// Progress is told now and then how many events were read; may be nil.
	Progress func(events int)
}

// namedBad is how many bad lines are told of in words.
const namedBad = 5

// Read reads a recording in either format, plain or gzipped; what its first byte
// is tells which.
func Read(r io.Reader, o Options) (*Recording, error) {
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
	o.MaxBad = max(0, cmp.Or(o.MaxBad, 100))
	if o.Progress == nil {
		o.Progress = func(int) {}
	}
	b := builder{
		victims: map[string]int32{}, behaviours: map[string]int32{}, sources: map[muster.Source]int32{},
		reporters: map[Reporter]int32{}, regions: map[string]uint32{}, options: o,
	}
	switch first[0] {
	case '{':
		b.rec.Format = Signals
		err = b.readSignals(in)
	case '[':
		err = errors.New("expected one signal a line, got a list of them: take it apart, as with jq -c '.[]'")
	default:
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
	reporters  map[Reporter]int32
	regions    map[string]uint32 // AS by region of sensors
	options    Options
}

// errFull says that a recording is too large to go on.
type errFull string

func (e errFull) Error() string { return string(e) }

func (b *builder) add(at, received time.Time, by Reporter, behaviour string, source muster.Source) error {
	if n := len(b.rec.Events); n >= maxEvents {
		return errFull(fmt.Sprintf("expected at most %d events: cut the recording", maxEvents))
	} else if n%100_000 == 0 {
		b.options.Progress(n)
	}
	e := Event{
		At: at.Unix(), Received: received.Unix(),
		Victim:    intern(b.victims, &b.rec.Victims, by.Machine),
		Source:    intern(b.sources, &b.rec.Sources, source),
		Behaviour: intern(b.behaviours, &b.rec.Behaviours, behaviour),
		Reporter:  intern(b.reporters, &b.rec.Reporters, by),
	}
	b.rec.Events = append(b.rec.Events, e)
	return nil
}

// bad counts a line that cannot be read; an error means that it was one too many.
func (b *builder) bad(line int, err error) error {
	err = fmt.Errorf("line %d: %w", line, err)
	if full := errFull(""); errors.As(err, &full) {
		return err
	}
	if b.rec.Bad++; len(b.rec.BadLines) < namedBad {
		b.rec.BadLines = append(b.rec.BadLines, err.Error())
	}
	if b.rec.Bad > b.options.MaxBad {
		return fmt.Errorf("expected at most %d bad lines, got one more: %s", b.options.MaxBad, strings.Join(b.rec.BadLines, "; "))
	}
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
		why := ""
		if rec.Bad > 0 {
			why = "; " + strings.Join(rec.BadLines, "; ")
		}
		return nil, fmt.Errorf("expected events, got none (%d signals skipped, %d bad lines%s)", rec.Skipped, rec.Bad, why)
	}
	// Sensors write their logs apart, and alerts are listed last first.
	slices.SortStableFunc(rec.Events, func(a, b Event) int { return cmp.Compare(a.At, b.At) })
	last := rec.Events[len(rec.Events)-1].At
	for _, e := range rec.Events {
		last = max(last, e.Received)
	}
	if n := int(last/secondsPerDay-rec.firstDay()) + 1; n > maxDays {
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
		return fmt.Errorf("line 1: expected the columns %v, or signals as JSON lines, got %.200v", columns, header)
	}
	for err == nil {
		row, fault := r.Read()
		if parse := (*csv.ParseError)(nil); errors.As(fault, &parse) {
			err = b.bad(parse.Line, parse.Err)
			continue
		}
		if err = fault; err != nil {
			break
		}
		if fault := b.addHoneypot(row); fault != nil {
			line, _ := r.FieldPos(0)
			err = b.bad(line, fault)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
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
	return b.add(at, at, b.sensor(row[1]), row[3]+"/"+aim, muster.SourceFromAddr(addr))
}

// firstAS is the first of the AS numbers for documentation (RFC 5398), of which
// sensors get one by region: where they really sat, the log does not say.
const firstAS = 64496

// sensor returns who a honeypot's log is from: a machine that is an organisation
// of its own, in the AS of its region, which is what follows the last hyphen of
// its name.
func (b *builder) sensor(host string) Reporter {
	region := host[strings.LastIndexByte(host, '-')+1:]
	as, ok := b.regions[region]
	if !ok {
		as = firstAS + uint32(len(b.regions))
		b.regions[region] = as
	}
	return Reporter{Machine: host, Organisation: host, AS: as}
}

// Days returns how many days there are from the first event to the last.
func (r *Recording) Days() int {
	return int(r.Events[len(r.Events)-1].At/secondsPerDay-r.firstDay()) + 1
}

func (r *Recording) firstDay() int64   { return r.Events[0].At / secondsPerDay }
func (r *Recording) day(e Event) int   { return int(e.At/secondsPerDay - r.firstDay()) }
func (r *Recording) start(d int) int64 { return (r.firstDay() + int64(d)) * secondsPerDay }

func (r *Recording) midnight(d int) time.Time { return time.Unix(r.start(d), 0).UTC() }
func (r *Recording) date(d int) string        { return r.midnight(d).Format(time.DateOnly) }
