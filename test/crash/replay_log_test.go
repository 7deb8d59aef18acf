package crash

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"muster"
	"muster/internal/ingest"
	"muster/internal/jury"
	"muster/internal/policy"
	"muster/internal/store"
	"muster/internal/stream"
)

// What everybody knows about some sources.
var (
	canaries = sourcesOf("46.20.0.53", "46.20.1.53", "2a01:4f8:53::1")
	allowed  = sourcesOf("46.30.7.7", "46.30.8.8")
	shared   = sourcesOf("46.40.9.9", "46.40.10.10", "46.40.11.11", "46.40.12.12", "46.40.13.13", "46.40.14.14")
)

func sourcesOf(texts ...string) (sources []muster.Source) {
	for _, text := range texts {
		sources = append(sources, muster.SourceFromAddr(netip.MustParseAddr(text)))
	}
	return sources
}

func knownTruth() jury.Truth {
	var good []muster.Canary
	for _, s := range canaries {
		good = append(good, muster.Canary{Kind: muster.CanaryAddress, Value: s.String(), Origin: muster.OriginOperator})
	}
	var entries []muster.AllowEntry
	for _, s := range allowed {
		entries = append(entries, muster.AllowEntry{Source: s, Reason: "ours"})
	}
	return jury.Truth{
		Allowlist: policy.NewAllowlist(entries), Canaries: policy.NewCanaries(good),
		Shared: func(s muster.Source) bool { return slices.Contains(shared, s) },
	}
}

// The careless report canaries now and then; the unlucky do once, all together,
// so that it is the scenario's fault.
var (
	careless = []int{3, 11, 17, 25}
	unlucky  = []int{4, 5, 8, 14, 21, 24}
)

// The population: machine i is of organisation i mod 15, which is in AS 64500 +
// that mod 10; two neighbours share a network.
const (
	machines      = 40
	organisations = 15
	systems       = 10
	scattered     = 2400 // sources on their own
	crowded       = 20   // /24s with twenty sources each
	v6Lines       = 100  // /64s with two sources each
	stranger      = "machine-07"
	honeypot      = 39
	moments       = 680
)

// history draws the log: frames of one to five records of a moment.
type history struct {
	rng     *rand.Rand
	sources [muster.Partitions][]muster.Source // most reported first
	sent    [muster.Partitions][]muster.Signal
	now     time.Time
	frames  [][]muster.Record

	signals, resent, records int
}

func newHistory(seed uint64) *history {
	h := &history{rng: rand.New(rand.NewPCG(seed, 2)), now: time.Date(2024, 3, 4, 5, 6, 7, 0, time.UTC)}
	h.populate()
	for i := range moments {
		// Nine days: bursts of about five minutes, as long as the judge's trust stands,
		// so that it is killed in between; and pauses.
		h.now = h.now.Add(time.Duration(h.rng.Int64N(int64(20 * time.Second))))
		if i%25 == 0 {
			h.now = h.now.Add(5*time.Hour + time.Duration(h.rng.Int64N(int64(6*time.Hour))))
		}
		var frame []muster.Record
		for _, p := range h.rng.Perm(muster.Partitions)[:1+h.rng.IntN(5)] {
			frame = append(frame, h.record(uint8(p)))
		}
		h.frames = append(h.frames, frame)
		switch canary := canaries[h.rng.IntN(len(canaries))]; {
		case i == moments/3:
			for _, machine := range unlucky {
				h.shoot(machine, canary)
			}
		case h.rng.IntN(25) == 0:
			h.shoot(careless[h.rng.IntN(len(careless))], canary)
		}
	}
	h.frames = append(h.frames, []muster.Record{h.record(0)})
	return h
}

// populate makes the sources and spreads them over the partitions.
func (h *history) populate() {
	var all []muster.Source
	for range scattered {
		all = append(all, h.address())
	}
	for range crowded {
		network := [4]byte{byte(80 + h.rng.IntN(8)), byte(h.rng.Uint32()), byte(h.rng.Uint32())}
		for _, host := range h.rng.Perm(256)[:20] {
			network[3] = byte(host)
			all = append(all, muster.SourceFromAddr(netip.AddrFrom4(network)))
		}
	}
	for range v6Lines {
		line := [16]byte{0x2a, 0x02, byte(h.rng.Uint32()), byte(h.rng.Uint32()), 0, 1, 0, byte(h.rng.IntN(3))}
		for range 2 {
			binary.BigEndian.PutUint64(line[8:], h.rng.Uint64())
			all = append(all, muster.SourceFromAddr(netip.AddrFrom16(line)))
		}
	}
	h.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, s := range slices.Concat(allowed, shared, all) {
		p := ingest.SourcePartition(s)
		h.sources[p] = append(h.sources[p], s)
	}
}

// address draws one that nobody knows anything about.
func (h *history) address() muster.Source {
	return muster.SourceFromAddr(netip.AddrFrom4([4]byte{byte(50 + h.rng.IntN(16)), byte(h.rng.Uint32()), byte(h.rng.Uint32()), byte(h.rng.Uint32())}))
}

// passerBy draws a source of a partition that is hardly ever seen again.
func (h *history) passerBy(partition uint8) muster.Source {
	for {
		if s := h.address(); ingest.SourcePartition(s) == partition {
			return s
		}
	}
}

// record draws one to fifty signals about sources of one partition, some of
// which were sent before: as they were, or with another time.
func (h *history) record(partition uint8) muster.Record {
	signals := make([]muster.Signal, 0, 50)
	for range 1 + h.rng.IntN(50) {
		if sent := h.sent[partition]; len(sent) > 0 && h.rng.IntN(30) == 0 {
			again := sent[h.rng.IntN(len(sent))]
			if again.Received = h.now; h.rng.IntN(4) == 0 {
				again.At = again.At.Add(time.Second)
			}
			h.resent++
			signals = append(signals, again)
			continue
		}
		source := h.passerBy(partition)
		if known := h.sources[partition]; h.rng.IntN(20) > 0 {
			source = known[int(float64(len(known))*h.skew(3))]
		}
		s := h.signal(int(machines*h.skew(1.5)), source)
		h.sent[partition] = append(h.sent[partition], s)
		signals = append(signals, s)
	}
	return h.pack(partition, signals)
}

// shoot has a machine report a canary, of what many do by mistake.
func (h *history) shoot(machine int, canary muster.Source) {
	s := h.signal(machine, canary)
	s.Scenario, s.Flags = "crowdsecurity/http-probing", muster.Counts|muster.Decided
	h.frames = append(h.frames, []muster.Record{h.pack(ingest.SourcePartition(canary), []muster.Signal{s})})
}

func (h *history) pack(partition uint8, signals []muster.Signal) muster.Record {
	var data []byte
	for i := range signals {
		data = muster.AppendSignal(data, &signals[i])
	}
	h.signals += len(signals)
	h.records++
	return muster.Record{Partition: partition, Data: data}
}

// signal is a new report, of what a source does mostly.
func (h *history) signal(machine int, source muster.Source) muster.Signal {
	scenarios := []string{"crowdsecurity/ssh-bf", "crowdsecurity/http-probing", "crowdsecurity/ssh-slow-bf", "crowdsecurity/telnet-bf", "our/own"}
	raw := source.Addr().As16()
	scenario := scenarios[raw[15]%4]
	if h.rng.IntN(8) == 0 {
		scenario = scenarios[h.rng.IntN(len(scenarios))]
	}
	organisation := machine % organisations
	s := muster.Signal{
		Machine: fmt.Sprintf("machine-%02d", machine), Organisation: fmt.Sprint("organisation-", organisation),
		ReporterASN: uint32(64500 + organisation%systems), ReporterNet: muster.NetworkOf(netip.AddrFrom4([4]byte{198, 18, byte(machine / 2), 1})),
		Source: source, Scenario: scenario, Kind: "crowdsec", Trust: muster.TrustCertified,
		Received: h.now, At: h.now.Add(-time.Duration(h.rng.Int64N(int64(20 * time.Minute)))).Truncate(time.Millisecond),
		Flags: muster.Counts | muster.Decided,
	}
	switch h.rng.IntN(12) {
	case 0:
		s.Flags |= muster.Fleet
	case 1:
		s.Flags = muster.Fleet | muster.Decided
	case 2:
		s.Flags = muster.Decided
	}
	if machine == honeypot && s.Flags&muster.Counts != 0 {
		s.Flags |= muster.Honeypot
	}
	binary.BigEndian.PutUint64(s.ID[:], h.rng.Uint64())
	binary.BigEndian.PutUint64(s.ID[8:], h.rng.Uint64())
	return s
}

// skew draws from 0 to 1, near 0 more often than elsewhere.
func (h *history) skew(power float64) float64 { return math.Pow(h.rng.Float64(), power) }

// write makes the folder of a log and a new database, and returns the log's last
// position.
func (h *history) write(t *testing.T, dir string) uint64 {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	bus, err := stream.Open(t.Context(), stream.Config{Dir: filepath.Join(dir, "stream")})
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	for _, frame := range h.frames {
		if err := bus.Append(t.Context(), frame); err != nil {
			t.Fatal(err)
		}
	}
	last, err := bus.Last(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), databaseIn(dir), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return last
}
