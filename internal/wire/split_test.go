package wire

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
)

func TestSplitSignals(t *testing.T) {
	body := ` [ {"uuid":"a","source":{"ip":"192.0.2.1","value":"x","scope":"Ip"},"decisions":[{"uuid":"no","origin":"cscli"},{"origin":"lists"},7]} ,{"source":{"value":"192.0.2.0/24"},"uuid":7}, {"uuid":"b","uuid":"c\u0041","source":null},{}] `
	var got []RawSignal
	n, err := SplitSignals([]byte(body), 4, func(s RawSignal) { got = append(got, s) })
	want := []RawSignal{
		{JSON: []byte(`{"uuid":"a","source":{"ip":"192.0.2.1","value":"x","scope":"Ip"},"decisions":[{"uuid":"no","origin":"cscli"},{"origin":"lists"},7]}`), UUID: "a", IP: "192.0.2.1", Scope: "Ip", Origin: "cscli"},
		{JSON: []byte(`{"source":{"value":"192.0.2.0/24"},"uuid":7}`), IP: "192.0.2.0/24"},
		{JSON: []byte(`{"uuid":"b","uuid":"c\u0041","source":null}`), UUID: "cA"},
		{JSON: []byte(`{}`)},
	}
	if diff := cmp.Diff(want, got); err != nil || n != 4 || diff != "" {
		t.Errorf("%d, %v (-want +got):\n%s", n, err, diff)
	}
	for _, c := range []struct {
		body string
		most int
		code muster.Code
		says string
	}{
		{`{}`, 9, muster.Invalid, "must be a JSON array, got an object"},
		{``, 9, muster.Invalid, "got nothing"},
		{`[{},7]`, 9, muster.Invalid, "item 1 must be an object, got a number"},
		{`[{}`, 9, muster.Invalid, "malformed"},
		{`[x]`, 9, muster.Invalid, "malformed"},
		{`[{}]x`, 9, muster.Invalid, "malformed"},
		{`[{},{},{}]`, 2, muster.TooLarge, "more than 2 items"},
	} {
		_, err := SplitSignals([]byte(c.body), c.most, func(RawSignal) {})
		if muster.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.body, err)
		}
	}
}

// What is split is what encoding/json finds in the array.
func FuzzSplitSignals(f *testing.F) {
	f.Add([]byte(`[{"uuid":"a","source":{"ip":"192.0.2.1"}}, {}]`))
	f.Add([]byte(`[{"source":[]},{"source":{"ip":{}}}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var got [][]byte
		_, err := SplitSignals(body, 100, func(s RawSignal) { got = append(got, s.JSON) })
		if err != nil {
			return
		}
		var want []json.RawMessage
		if err := json.Unmarshal(body, &want); err != nil || len(want) != len(got) {
			t.Fatalf("%q: %d items, expected %d, %v", body, len(got), len(want), err)
		}
		for i := range want {
			if !bytes.Equal(bytes.TrimSpace(want[i]), got[i]) {
				t.Errorf("item %d is %q, expected %q", i, got[i], want[i])
			}
		}
	})
}

func BenchmarkSplitSignals(b *testing.B) {
	one := `{"uuid":"0d5b2b6c-6a3c-4f0e-9a6f-1d2c3b4a5968","scenario":"crowdsecurity/ssh-bf","source":{"scope":"Ip","value":"192.0.2.1","ip":"192.0.2.1"},"message":"` + strings.Repeat("x", 500) + `"}`
	body := []byte("[" + strings.Repeat(one+",", 49) + one + "]")
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := SplitSignals(body, 50, func(RawSignal) {}); err != nil {
			b.Fatal(err)
		}
	}
}
