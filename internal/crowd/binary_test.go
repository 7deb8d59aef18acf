package crowd

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var evidenceOptions = cmp.Options{cmp.AllowUnexported(Evidence{}, voice{}, standing{}), cmpopts.EquateEmpty()}

func TestDamagedEvidenceIsRefused(t *testing.T) {
	w := matureWorld()
	s := &story{table: tableOf(start, w)}
	s.hear(say(w, 1, brute, 0), say(w, 2, probing, 1), say(w, 3, brute, 2))
	data := s.ev.AppendBinary(nil)
	var back Evidence
	if err := back.UnmarshalBinary(data); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.ev, back, evidenceOptions); diff != "" {
		t.Fatalf("after a round trip (-want +got):\n%s", diff)
	}
	for n := range data {
		if back.UnmarshalBinary(data[:n]) == nil {
			t.Errorf("%d of %d bytes were taken for evidence", n, len(data))
		}
	}
	if back.UnmarshalBinary(append(data, 0)) == nil {
		t.Error("evidence with a byte too many was taken")
	}
	data[0]++
	if back.UnmarshalBinary(data) == nil {
		t.Error("evidence of another version was taken")
	}
}

func FuzzEvidence(f *testing.F) {
	w := matureWorld()
	table := tableOf(start, w)
	s := &story{table: table}
	f.Add(s.ev.AppendBinary(nil))
	s.hear(say(w, 1, brute, 0), say(w, 101, probing, 1), say(w, 3, brute, 2))
	f.Add(s.ev.AppendBinary(nil))
	s.ev.Unban(start)
	f.Add(s.ev.AppendBinary(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		var ev, back Evidence
		if ev.UnmarshalBinary(data) != nil {
			return
		}
		if err := back.UnmarshalBinary(ev.AppendBinary(nil)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(ev, back, evidenceOptions); diff != "" {
			t.Fatalf("after a round trip (-want +got):\n%s", diff)
		}
		var out Outcome // whatever it is, it can be judged
		for m := range uint32(30) {
			table.Fold(&ev, say(w, m+1, brute, float64(m)))
			table.Judge(&ev, start+int64(m)*hour, Facts{Canary: m == 7}, &out)
		}
		_ = table.Due(&ev)
		if len(ev.voices) > MaxVoices {
			t.Errorf("%d voices", len(ev.voices))
		}
	})
}
