package policy

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write taxonomy.tsv anew from the hub's index")

// shared opens a file beside the project, or skips the test.
func shared(t testing.TB, name string) *os.File {
	t.Helper()
	path := filepath.Join(cmp.Or(os.Getenv("MUSTER_SHARED"), filepath.Join("..", "..", "..", "shared")), name)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("%s is not here: ../shared beside the project, or MUSTER_SHARED", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// hubIndex returns the index of the real hub.
func hubIndex(t testing.TB) []byte {
	t.Helper()
	z, err := gzip.NewReader(shared(t, "data/hub.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	for files := tar.NewReader(z); ; {
		h, err := files.Next()
		if err != nil {
			t.Fatalf("data/hub.tar.gz has no .index.json: %v", err)
		}
		if filepath.Base(h.Name) == ".index.json" {
			data, err := io.ReadAll(files)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
	}
}

const labelled = `{"scenarios":{
 "crowdsecurity/ssh-bf":{"labels":{"behavior":"ssh:bruteforce","classification":["attack.T1110"],"confidence":3,"label":"SSH Bruteforce","remediation":true,"service":"ssh","spoofable":0}},
 "a/exploit":{"labels":{"behavior":"HTTP:Exploit ","classification":["attack.t1595.001","cve.CVE-2017-9841","cwe.CWE-94"],"confidence":2,"spoofable":3,"remediation":"yes"}},
 "a/list":{"labels":{"behaviors":["http:scan","http:crawl"],"confidence":3,"spoofable":0}},
 "a/british":{"labels":{"behaviour":"generic:bruteforce","confidence":0,"spoofable":2}},
 "a/slow":{"labels":{"behavior":"pop3/imap:slow-bruteforce","confidence":3,"spoofable":0}},
 "a/timed":{"labels":{"behavior":"pop3/imap:time-based-bruteforce","confidence":3,"spoofable":0}},
 "a/five":{"labels":{"behavior":"smtp:spam","confidence":5,"spoofable":-1}},
 "a/texts":{"labels":{"behavior":7,"confidence":"3","spoofable":1.5,"classification":"cve.cve-2020-1"}},
 "a/nulls":{"labels":{"behavior":null,"confidence":null,"spoofable":null,"classification":null,"label":null}},
 "a/none":{"labels":null},
 "a/bare":{},
 "a/odd":{"labels":["x"]},
 "a/words":{"labels":{"behavior":"brute force","confidence":1,"spoofable":1}},
 "a/terminal":{"labels":{"behavior":"x\u001b:y","label":"a\u001b[2Jb","confidence":1,"spoofable":1}},
 "both":{"labels":{"behavior":"ssh:exploit","confidence":2,"spoofable":0}}
},"appsec-rules":{
 "both":{"labels":{"behavior":"http:exploit","confidence":3,"spoofable":0}},
 "crowdsecurity/vpatch-x":{"labels":{"behavior":"http:exploit","confidence":3,"spoofable":0}}
},"parsers":{"crowdsecurity/sshd-logs":{"labels":null}}}`

func TestReadTaxonomy(t *testing.T) {
	taxonomy, err := ReadTaxonomy(strings.NewReader(labelled))
	if err != nil {
		t.Fatal(err)
	}
	unknown := UnknownPrior
	for name, want := range map[string]Prior{
		"crowdsecurity/ssh-bf":    {Behaviour: "ssh:bruteforce", Confidence: 3, Label: "SSH Bruteforce", Service: "ssh", Remediation: true, Techniques: []string{"T1110"}},
		"a/exploit":               {Behaviour: "http:exploit", Confidence: 2, Spoofable: 3, CVEs: []string{"CVE-2017-9841"}, Techniques: []string{"T1595.001"}},
		"a/list":                  {Behaviour: "http:scan", Confidence: 3},
		"a/british":               {Behaviour: "generic:bruteforce", Spoofable: 2},
		"a/slow":                  {Behaviour: "pop3/imap:bruteforce", Confidence: 3},
		"a/timed":                 {Behaviour: "pop3/imap:bruteforce", Confidence: 3},
		"a/five":                  {Behaviour: "smtp:spam", Confidence: 1, Spoofable: 1},
		"a/texts":                 {Confidence: 1, Spoofable: 1, CVEs: []string{"CVE-2020-1"}},
		"a/nulls":                 unknown,
		"a/none":                  unknown,
		"a/bare":                  unknown,
		"a/odd":                   unknown,
		"a/words":                 unknown,
		"a/terminal":              {Confidence: 1, Spoofable: 1, Label: "a [2Jb"},
		"both":                    {Behaviour: "ssh:exploit", Confidence: 2},
		"crowdsecurity/vpatch-x":  {Behaviour: "http:exploit", Confidence: 3},
		"crowdsecurity/sshd-logs": unknown, // a parser
		"me/mine":                 unknown,
		"":                        unknown,
	} {
		if diff := gocmp.Diff(want, taxonomy.Of(name)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if taxonomy.Len() != 16 || !taxonomy.Knows("a/none") || taxonomy.Knows("crowdsecurity/sshd-logs") {
		t.Errorf("%d scenarios, expected 16, without parsers", taxonomy.Len())
	}
	var names []string
	for name := range taxonomy.All {
		if names = append(names, name); len(names) == 2 {
			break
		}
	}
	if diff := gocmp.Diff([]string{"a/bare", "a/british"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestNoTaxonomy(t *testing.T) {
	var none *Taxonomy
	if diff := gocmp.Diff(UnknownPrior, none.Of("crowdsecurity/ssh-bf")); diff != "" || none.Len() != 0 || none.Knows("") {
		t.Errorf("a nil taxonomy knows something: %s", diff)
	}
	for range none.All {
		t.Error("a nil taxonomy has a scenario")
	}
	for _, text := range []string{"", "[]", "<html>", "{}", `{"scenarios":{}}`, `{"parsers":{"a":{}}}`, labelled[:300]} {
		if taxonomy, err := ReadTaxonomy(strings.NewReader(text)); err == nil || taxonomy != nil || !strings.Contains(err.Error(), "hub index") {
			t.Errorf("%q: got %v, %v", text, taxonomy, err)
		}
	}
}

func TestBuiltInTaxonomy(t *testing.T) {
	taxonomy := BuiltInTaxonomy()
	if len(builtInTaxonomy) > 150_000 {
		t.Errorf("taxonomy.tsv has %d bytes, expected at most 150,000", len(builtInTaxonomy))
	}
	if taxonomy.Len() < 900 {
		t.Errorf("%d scenarios, expected about a thousand", taxonomy.Len())
	}
	for name, want := range map[string]Prior{
		"crowdsecurity/ssh-bf":                    {Behaviour: "ssh:bruteforce", Confidence: 3},
		"crowdsecurity/iptables-scan-multi_ports": {Behaviour: "tcp:scan", Confidence: 1, Spoofable: 3},
		"crowdsecurity/vpatch-CVE-2017-9841":      {Behaviour: "http:exploit", Confidence: 3},
		"melite/dovecot-slow-bf":                  {Behaviour: "pop3/imap:bruteforce", Confidence: 3},
	} {
		if diff := gocmp.Diff(want, taxonomy.Of(name)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// What is built in is what the hub says; go test -update writes it anew.
func TestBuiltInTaxonomyIsTheHubs(t *testing.T) {
	hub, err := ReadTaxonomy(bytes.NewReader(hubIndex(t)))
	if err != nil {
		t.Fatal(err)
	}
	var made strings.Builder
	made.WriteString("# The hub's scenarios: name, behaviour, confidence and spoofable. go generate writes it from the hub's index.\n")
	for name, p := range hub.All {
		fmt.Fprintf(&made, "%s\t%s\t%d\t%d\n", name, p.Behaviour, p.Confidence, p.Spoofable)
	}
	if *update {
		if err := os.WriteFile("taxonomy.tsv", []byte(made.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := gocmp.Diff(builtInTaxonomy, made.String()); diff != "" {
		t.Errorf("taxonomy.tsv is not the hub's; go generate ./internal/policy writes it anew:\n%s", diff)
	}
}

func TestParseTaxonomyRefuses(t *testing.T) {
	for _, line := range []string{"a", "a\tb:c\t1", "a\tb:c\t1\t4", "a\tb:c\t-1\t0", "a\tb\t1\t1", "\tb:c\t1\t1", "a\tB:c\t1\t1", "a\tb:c\t1\t1\tx"} {
		if taxonomy, err := parseTaxonomy("# x\nfine\ta:b\t0\t3\n" + line + "\n"); err == nil || taxonomy != nil || !strings.Contains(err.Error(), "line 3") {
			t.Errorf("%q: got %v, %v", line, taxonomy, err)
		}
	}
}

func FuzzReadTaxonomy(f *testing.F) {
	f.Add(labelled)
	f.Add(`{"scenarios":null,"appsec-rules":{"a":null}}`)
	f.Fuzz(func(t *testing.T, text string) {
		taxonomy, err := ReadTaxonomy(strings.NewReader(text))
		if (taxonomy == nil) != (err != nil) {
			t.Fatalf("got %v, %v", taxonomy, err)
		}
		for name, p := range taxonomy.All {
			if name == "" || p.Confidence > 3 || p.Spoofable > 3 || familyOf(p.Behaviour) != p.Behaviour {
				t.Errorf("%q: %+v", name, p)
			}
		}
	})
}

func BenchmarkTaxonomyOf(b *testing.B) {
	taxonomy := BuiltInTaxonomy()
	b.ReportAllocs()
	for b.Loop() {
		taxonomy.Of("crowdsecurity/ssh-bf")
	}
}
