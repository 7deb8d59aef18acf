package wire

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files of testdata anew")

// golden compares JSON with testdata/name, indented so that people can read it.
// The exact bytes are compared too, through compaction.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		var b bytes.Buffer
		if err := json.Indent(&b, got, "", "  "); err != nil {
			t.Fatalf("%s: not JSON: %v\n%s", name, err, got)
		}
		b.WriteByte('\n')
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(compact.String(), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// decoded is a Signal with its raw parts readable.
type decoded struct {
	Signal
	Context   json.RawMessage `json:",omitempty"`
	Decisions json.RawMessage `json:",omitempty"`
}

type batch struct {
	Items []decoded
	Bad   map[int]Problem `json:",omitempty"`
}

// decodeBatch collects copies of what DecodeSignals hands out.
func decodeBatch(t testing.TB, body []byte) batch {
	t.Helper()
	b, err := tryBatch(body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tryBatch(body []byte) (batch, error) {
	b := batch{Bad: map[int]Problem{}}
	_, err := DecodeSignals(body, 100_000,
		func(_ int, s *Signal) {
			d := decoded{Signal: *s, Context: bytes.Clone(s.Context), Decisions: bytes.Clone(s.Decisions)}
			d.First = append([]Decision(nil), s.First...)
			b.Items = append(b.Items, d)
		},
		func(i int, p Problem) { b.Bad[i] = p })
	return b, err
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
