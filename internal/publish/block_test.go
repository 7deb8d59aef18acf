package publish

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

// put lists an address with a rank.
func (s *set) putAddr(i int, scenario string, rank float32) {
	addr := netip.AddrFrom4([4]byte{35, byte(i >> 16), byte(i >> 8), byte(i)})
	s.put(keyOf(muster.SourceFromAddr(addr)), bucketKey{scenario: scenario, remedy: muster.RemedyBan}, 0, math.MaxUint32, rank)
}

func (s *set) arrangeAll() {
	for id := range s.bucketList {
		s.arrange(uint32(id))
	}
}

// failer is a test of either kind.
type failer interface {
	Helper()
	Fatalf(string, ...any)
}

// consistent checks what must always hold of a set.
func consistent(t failer, s *set) {
	t.Helper()
	sent := 0
	for id, b := range s.bucketList {
		if b == nil {
			continue
		}
		for _, blockID := range b.blocks {
			bl := s.blocks[blockID]
			sum := 0.0
			for _, slot := range bl.slots {
				r := &s.rows[slot]
				if r.block != blockID || r.bucket != uint32(id) {
					t.Fatalf("row %v stands in block %d of bucket %d, and thinks in %d of %d", r.key.source(), blockID, id, r.block, r.bucket)
				}
				sum += float64(r.rank)
				sent++
			}
			if math.Abs(sum-bl.sum) > 0.01*float64(1+len(bl.slots)) {
				t.Fatalf("block %d: ranks sum up to %v, not %v", blockID, sum, bl.sum)
			}
		}
	}
	if sent != int(s.bans.Load()) || len(s.index) < sent {
		t.Fatalf("%d rows stand in blocks, %d are counted, %d known", sent, s.bans.Load(), len(s.index))
	}
}

// Whatever comes and goes, every row stands in one block, and after arranging no
// block is too large and their ranks descend but for the margin.
func TestBlocksProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSet(8)
		for range rapid.IntRange(1, 12).Draw(t, "rounds") {
			for range rapid.IntRange(0, 60).Draw(t, "changes") {
				i := rapid.IntRange(0, 150).Draw(t, "i")
				if rapid.IntRange(0, 3).Draw(t, "what") == 0 {
					addr := netip.AddrFrom4([4]byte{35, byte(i >> 16), byte(i >> 8), byte(i)})
					s.remove(keyOf(muster.SourceFromAddr(addr)))
					continue
				}
				s.putAddr(i, fmt.Sprint("s", rapid.IntRange(0, 1).Draw(t, "scenario")), float32(rapid.IntRange(0, 400).Draw(t, "rank"))/40)
			}
			consistent(t, s)
			s.arrangeAll()
			consistent(t, s)
			for _, b := range s.bucketList {
				if b == nil {
					continue
				}
				least := float32(math.Inf(1))
				for _, id := range b.blocks {
					bl := s.blocks[id]
					if n := len(bl.slots); n == 0 || n > s.most || bl.fresh {
						t.Fatalf("a block of %d rows, fresh %t, after arranging", n, bl.fresh)
					}
					for _, slot := range bl.slots {
						if rank := s.rows[slot].rank; rank > least+2*rankMargin {
							t.Fatalf("rank %v stands behind %v", rank, least)
						}
					}
					for _, slot := range bl.slots {
						least = min(least, s.rows[slot].rank)
					}
				}
			}
		}
	})
}

// Small changes of ranks move nobody, and encode nothing anew.
func TestRowsStayInTheirBlocks(t *testing.T) {
	s := newSet(64)
	for i := range 1000 {
		s.putAddr(i, "x", float32(i)/100)
	}
	s.arrangeAll()
	before := s.layout
	for i := range 1000 {
		s.putAddr(i, "x", float32(i)/100+rankMargin*0.9*float32(i%2))
	}
	if s.arrangeAll(); s.layout != before {
		t.Errorf("%d moves", s.layout-before)
	}
	s.putAddr(0, "x", 20)
	s.arrangeAll()
	changed := 0
	for _, b := range s.blocks {
		if b != nil && b.changes > 0 {
			changed++
		}
	}
	slot := s.index[keyOf(muster.SourceFromAddr(netip.AddrFrom4([4]byte{35, 0, 0, 0})))]
	if s.layout == before || s.rows[slot].block != s.bucketList[0].blocks[0] {
		t.Error("a row that outranks all others did not move into the first block")
	}
}

// A list of limited length changes only where it must: an address near its end is
// not sent in one pull and left out in the next because others change by little.
func TestListsDoNotFlap(t *testing.T) {
	r := newRig(func(c *Config) {
		c.Tier = func(*Reader) Tier { return Tier{Size: 1_000, Tailoring: TailorNone} }
	})
	judge := func(i int, hours float64) {
		r.stamp = r.stamp.Add(time.Microsecond)
		addr := netip.AddrFrom4([4]byte{35, 1, byte(i >> 8), byte(i)})
		r.log.put(muster.Verdict{
			Source: muster.SourceFromAddr(addr), Listed: true, Scenario: fmt.Sprint("s", i%7), Changed: r.stamp, Until: start.Add(200 * time.Hour),
			Reasons: muster.Reasons{Support: 4, Last: start.Add(-time.Duration(hours * float64(time.Hour))).Unix()},
		})
	}
	for i := range 3_000 {
		judge(i, float64(i)/20)
	}
	r.read(t)
	r.arrange()
	first, _ := sent(t, r.Edition("", V3, false))
	for round := range 20 {
		for i := range 3_000 { // everybody was seen again, a little later or earlier than before
			judge(i, float64(i)/20-float64((i*7+round*13)%40)/20)
		}
		r.read(t)
		r.arrange()
		r.clock.advance(coalesce)
	}
	last, _ := sent(t, r.Edition("", V3, false))
	in := map[string]bool{}
	for _, l := range last {
		in[l] = true
	}
	gone := slices.DeleteFunc(first, func(l string) bool { return in[l] })
	if len(last) != 1_000 || len(gone) > 30 {
		t.Errorf("%d of 1000 entries changed although nothing of importance did", len(gone))
	}
}

func TestTailoring(t *testing.T) {
	tier := Tier{Size: 4}
	r := newRig(func(c *Config) {
		c.Behaviour = behaviourOf
		c.Tier = func(*Reader) Tier { return tier }
		c.Reported = func(organisation string) ([]string, uint64) { return []string{"crowdsecurity/telnet-bf"}, 7 }
	})
	judge := func(text, scenario string, support float32, age time.Duration) {
		s, err := muster.ParseSource(text)
		if err != nil {
			t.Fatal(err)
		}
		r.stamp = r.stamp.Add(time.Microsecond)
		r.log.put(muster.Verdict{
			Source: s, Listed: true, Scenario: scenario, Changed: r.stamp, Until: start.Add(72*time.Hour + time.Minute),
			Reasons: muster.Reasons{Support: support, Last: start.Add(-age).Unix()},
		})
	}
	for i := range 3 {
		judge(fmt.Sprintf("35.1.1.%d", i), "crowdsecurity/ssh-bf", 4, time.Duration(i)*time.Hour)
		judge(fmt.Sprintf("35.1.2.%d", i), "crowdsecurity/ssh-slow-bf", 4, time.Duration(i)*time.Hour)
		judge(fmt.Sprintf("35.1.3.%d", i), "crowdsecurity/telnet-bf", 4, time.Duration(i)*time.Hour)
		judge(fmt.Sprintf("35.1.4.%d", i), "crowdsecurity/http-probing", 9, time.Duration(i)*time.Hour)
	}
	r.read(t)
	r.arrange()
	values := func(reader *Reader, tailoring Tailoring) (list []string) {
		t.Helper()
		tier.Tailoring = tailoring
		lines, _ := sent(t, r.pull(reader, wanted))
		for _, l := range lines {
			var value string
			_, _ = fmt.Sscan(l, &value) // compared below
			list = append(list, value)
		}
		slices.Sort(list)
		return list
	}
	ssh := &Reader{Organisation: "A", Scenarios: []string{"crowdsecurity/ssh-bf"}, Footprint: 1}
	for _, tc := range []struct {
		name      string
		reader    *Reader
		tailoring Tailoring
		want      []string
	}{
		{"the best of all", ssh, TailorNone, []string{"35.1.1.0", "35.1.4.0", "35.1.4.1", "35.1.4.2"}},
		{"what is installed, then what is like it", ssh, TailorInstalled, []string{"35.1.1.0", "35.1.1.1", "35.1.1.2", "35.1.2.0"}},
		{"what was reported", ssh, TailorReported, []string{"35.1.3.0", "35.1.3.1", "35.1.3.2", "35.1.4.0"}},
		{"nothing installed", &Reader{}, TailorInstalled, []string{"35.1.1.0", "35.1.4.0", "35.1.4.1", "35.1.4.2"}},
	} {
		if diff := gocmp.Diff(tc.want, values(tc.reader, tc.tailoring)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
	// What was found a moment ago stands first in its scenario, however little is
	// known of it.
	judge("35.1.1.9", "crowdsecurity/ssh-bf", 1, 0)
	r.read(t)
	if got := values(ssh, TailorInstalled); !slices.Contains(got, "35.1.1.9") {
		t.Errorf("a new address is not in the next pull: %q", got)
	}
}
