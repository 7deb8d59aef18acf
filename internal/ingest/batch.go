// Package ingest admits signals: it checks and normalises each one, marks what
// it may influence, and makes whole batches durable by group commit before
// anybody is told that they arrived.
package ingest

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"strings"
	"time"

	"github.com/zeebo/xxh3"

	"muster"
)

// Sender is the authenticated machine behind a batch.
type Sender struct {
	Machine      string
	Organisation string
	Active       bool
	Fleet        muster.FleetPolicy
	V2           bool // spoken over /v2: signals carry no decisions, but only acted-on alerts are sent
	Honeypot     bool
	ASN          uint32 // of the address that it sends from, 0 = unknown
	Net          uint64 // see muster.NetworkOf, 0 = unknown
}

// Item is one signal as its sender put it, decoded but not yet believed.
// Strings and bytes are copied by Add; the caller may reuse them.
type Item struct {
	UUID                 string
	Scenario, Hash       string
	Version, Trust, Kind string
	Created, Start, Stop time.Time // zero when absent or unreadable
	Scope, Value, IP     string
	Country, ASName      string
	ASN                  uint32 // autonomous system number, 0 when absent
	Decisions            int    // how many decisions it carries
	Ban                  bool   // one of them is a ban that is not simulated
	Simulated            bool   // all of them are simulated
	Origin               string // origin of the first decision, "" when none
	Detail               []byte // JSON for the owner only
}

// Refusal says why one item of a batch was not taken.
type Refusal struct {
	Index  int    `json:"index"`
	Code   string `json:"code"`
	Reason string `json:"reason"`
}

// Refusal codes that admission itself gives; decoding adds its own.
const (
	CodeNoScenario  = "no_scenario"
	CodeNoSource    = "no_source"
	CodeTooOld      = "too_old"
	CodeFuture      = "in_the_future"
	CodeDuplicate   = "duplicate"
	CodeNotEnrolled = "not_enrolled"
	CodeTooLong     = "too_long"
)

// maxRefusals bounds how many refusals a batch spells out; all are counted.
const maxRefusals = 20

// Limits on one signal's parts; what is longer is cut or refused as said.
const (
	maxScenario = 256     // refused
	maxDetail   = 1 << 20 // left out
	maxShort    = 128     // cut
)

// Rules are what admission checks against. A nil Hub takes certified claims at
// their word.
type Rules struct {
	MaxAge    time.Duration // a signal older than this is refused
	MaxFuture time.Duration // a signal from further ahead is refused: the engine's clock is wrong
	Hub       interface{ Knows(hash string) bool }
	// ASN says in which AS an address is, 0 when it is not known; nil knows none.
	ASN func(netip.Addr) uint32
}

// Batch collects the signals of one request. Make it with Committer.Batch,
// Add every item, then Commit or Drop; it must not be used after either.
type Batch struct {
	committer *Committer
	rules     Rules
	sender    Sender
	received  time.Time
	buf       []byte
	spans     []span
	records   []muster.Record
	seen      map[muster.SignalID]struct{}

	Accepted int       // items that will be durable after Commit
	Refused  int       // all that were not taken
	Refusals []Refusal // the first of them, spelled out
}

// span is one encoded signal inside Batch.buf.
type span struct {
	partition  uint8
	start, end int
}

// Add checks one item and encodes it for its partition, or refuses it. index
// is its place in the request.
func (b *Batch) Add(index int, it *Item) {
	if !b.sender.Active {
		b.Refuse(index, CodeNotEnrolled, "this machine is not enrolled, or waits for acceptance: its signals are not kept")
		return
	}
	scenario := strings.TrimSpace(clean(it.Scenario)) // blank ones kill engines
	if scenario == "" {
		b.Refuse(index, CodeNoScenario, "scenario is missing")
		return
	}
	if len(scenario) > maxScenario {
		b.Refuse(index, CodeTooLong, "scenario is longer than 256 bytes")
		return
	}
	at, ok := b.happened(index, it)
	if !ok {
		return
	}
	s := muster.Signal{
		Machine:      b.sender.Machine,
		Organisation: b.sender.Organisation,
		Received:     b.received,
		At:           at,
		Scenario:     scenario,
		ScenarioHash: hexHash(it.Hash),
		Version:      cut(it.Version),
		Trust:        muster.ParseScenarioTrust(it.Trust),
		Kind:         cut(it.Kind),
		Country:      country(it.Country),
		ASName:       cut(it.ASName),
		ASN:          it.ASN,
		ReporterASN:  b.sender.ASN,
		ReporterNet:  b.sender.Net,
	}
	if len(it.Detail) <= maxDetail {
		s.Detail = it.Detail
	}
	b.source(&s, it)
	s.Flags = b.flags(&s, it)
	if b.rules.ASN != nil && s.Flags&(muster.Counts|muster.Fleet) != 0 {
		s.SourceASN = asnOf(s.Source, b.rules.ASN)
	}
	s.ID = identity(&s, it.UUID)
	if _, again := b.seen[s.ID]; again {
		b.Refuse(index, CodeDuplicate, "the same uuid stands twice in this batch: it counts once")
		return
	}
	b.seen[s.ID] = struct{}{}

	start := len(b.buf)
	b.buf = muster.AppendSignal(b.buf, &s)
	b.spans = append(b.spans, span{Partition(&s), start, len(b.buf)})
	b.Accepted++
}

// asnOf returns the AS of a source; of a range only when both its ends are in it.
func asnOf(s muster.Source, of func(netip.Addr) uint32) uint32 {
	asn := of(s.Addr())
	if asn != 0 && s.IsRange() && of(lastAddr(s.Prefix())) != asn {
		return 0
	}
	return asn
}

func lastAddr(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for i := range raw {
		raw[i] |= byte(0xff >> min(max(p.Bits()-8*i, 0), 8))
	}
	last, _ := netip.AddrFromSlice(raw) // of the length that it had
	return last
}

// Refuse counts an item that is not taken.
func (b *Batch) Refuse(index int, code, reason string) {
	b.Refused++
	if len(b.Refusals) < maxRefusals {
		b.Refusals = append(b.Refusals, Refusal{Index: index, Code: code, Reason: reason})
	}
	b.committer.refused.WithLabelValues(code).Inc()
}

// happened settles when the signal happened: stop, else start, else created,
// else now; an engine's clock may run a little ahead, which counts as now.
func (b *Batch) happened(index int, it *Item) (time.Time, bool) {
	at := it.Stop
	for _, t := range [...]time.Time{it.Start, it.Created, b.received} {
		if at.IsZero() {
			at = t
		}
	}
	switch age := b.received.Sub(at); {
	case age > b.rules.MaxAge:
		b.Refuse(index, CodeTooOld, "it happened at "+at.UTC().Format(time.RFC3339)+", longer ago than "+b.rules.MaxAge.String())
		return at, false
	case age < -b.rules.MaxFuture:
		b.Refuse(index, CodeFuture, "it happened at "+at.UTC().Format(time.RFC3339)+", which is in the future: check the engine's clock and time zone")
		return at, false
	case age < 0:
		return b.received, true
	}
	return at, true
}

// source reads the attacked-from address. Scopes that are no address (country,
// user name) and the empty source of imports are kept as text for the owner.
func (b *Batch) source(s *muster.Signal, it *Item) {
	if it.Scope == "" || strings.EqualFold(it.Scope, "ip") || strings.EqualFold(it.Scope, "range") {
		value := it.Value
		if value == "" {
			value = it.IP
		}
		if src, err := muster.ParseSource(value); err == nil {
			s.Source = src
			return
		}
	}
	s.Scope, s.Value = cut(it.Scope), cut(it.Value)
}

// Ranges wider than these are no evidence: one report must not speak for more
// addresses than a large network has.
const (
	widestV4 = 16
	widestV6 = 32
)

// flags says what the signal may influence (consensus.md, section 2).
func (b *Batch) flags(s *muster.Signal, it *Item) muster.SignalFlags {
	var f muster.SignalFlags
	if b.sender.Honeypot {
		f |= muster.Honeypot
	}
	decided := it.Decisions > 0 && !it.Simulated || b.sender.V2
	if decided {
		f |= muster.Decided
	}
	if !s.Source.IsValid() || s.Source.IsReserved() || tooWide(s.Source) || it.Decisions > 0 && it.Simulated {
		return f
	}
	ordered := s.Kind == "papi" || it.Origin == "console"
	manual := s.Kind == "cscli" || strings.HasPrefix(it.Origin, "cscli") || s.Trust == muster.TrustManual
	hub := s.Trust == muster.TrustCertified && (b.rules.Hub == nil || b.rules.Hub.Knows(s.ScenarioHash))
	if hub && !ordered && !manual {
		f |= muster.Counts
	}
	bans := it.Ban || b.sender.V2
	if bans && !ordered && (b.sender.Fleet == muster.FleetAll || b.sender.Fleet == muster.FleetHub && hub && !manual) {
		f |= muster.Fleet
	}
	return f
}

func tooWide(s muster.Source) bool {
	if s.Addr().Is4() {
		return s.Prefix().Bits() < widestV4
	}
	return s.Prefix().Bits() < widestV6
}

// identity derives the id of a signal: from the machine and the uuid, or from
// its content when it has none (engines before 1.5).
func identity(s *muster.Signal, uuid string) muster.SignalID {
	var scratch [512]byte
	b := scratch[:0]
	if uuid != "" {
		b = append(b, "uuid\x00"...)
		b = append(b, s.Machine...)
		b = append(b, 0)
		b = appendLower(b, uuid)
	} else {
		b = append(b, "content\x00"...)
		b = append(b, s.Machine...)
		b = append(b, 0)
		b = append(b, s.Scenario...)
		b = append(b, 0)
		b = s.Source.AppendBinary(b)
		b = append(b, s.Value...)
		b = append(b, 0)
		b = binary.BigEndian.AppendUint64(b, uint64(s.At.UnixMicro()))
		b = append(b, s.Detail...)
	}
	sum := sha256.Sum256(b)
	return muster.SignalID(sum[:16])
}

// Partition returns the partition that s belongs to: by its source's group, so
// that all evidence on an address (and on a v6 /64) meets in one place; without
// an address by its machine. The hash and its use are law, see
// muster.Partitions.
func Partition(s *muster.Signal) uint8 {
	if !s.Source.IsValid() {
		return uint8(xxh3.HashString(s.Machine) % muster.Partitions)
	}
	return SourcePartition(s.Source)
}

// SourcePartition returns the partition of a valid source.
func SourcePartition(src muster.Source) uint8 {
	var key [muster.SourceSize]byte
	return uint8(xxh3.Hash(muster.SourceFromPrefix(src.Group()).AppendBinary(key[:0])) % muster.Partitions)
}

func appendLower(b []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

// hexHash returns h in lower case when it is the hex of a SHA-256, else "".
func hexHash(h string) string {
	if len(h) != 64 {
		return ""
	}
	for i := range len(h) {
		if c := h[i]; !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
			return ""
		}
	}
	return strings.ToLower(h)
}

// country returns c in capitals when it has the form of a country code, else "".
func country(c string) string {
	for i := range len(c) {
		if l := c[i] | 0x20; l < 'a' || l > 'z' {
			return ""
		}
	}
	if len(c) != 2 {
		return ""
	}
	return strings.ToUpper(c)
}

// cut bounds a short text and takes control characters out of it: they are
// legal JSON, but no database and no terminal wants them.
func cut(s string) string {
	if len(s) > maxShort {
		s = strings.ToValidUTF8(s[:maxShort], "")
	}
	return clean(s)
}

func clean(s string) string {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return strings.Map(func(r rune) rune {
				if r < ' ' || r == 0x7f {
					return -1
				}
				return r
			}, s)
		}
	}
	return s
}
