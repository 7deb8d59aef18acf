package filter

import (
	"fmt"
	"strings"
	"testing"
)

const certified = `{"context":[{"key":"target_user","value":"[\"admin1\",\"root\"]"}],` +
	`"decisions":[{"duration":"4h","id":0,"origin":"crowdsec","scenario":"crowdsecurity/ssh-bf","scope":"Ip","type":"ban","uuid":"542085a5-41e0-4506-9216-289574094c8d","value":"192.0.2.77"},` +
	`{"duration":"7d","id":3,"origin":"cscli","scenario":"manual","scope":"Range","simulated":true,"type":"captcha","value":"192.0.2.0/24"}],` +
	`"kind":"crowdsec","machine_id":"3d1219c7c4c5404aaa1f6d2a48adfda40HFJYEfp4dfsxc6D",` +
	`"message":"Ip 192.0.2.77 performed 'crowdsecurity/ssh-bf' (6 events over 9.458968ms) at 2026-11-20 21:05:20.419598133 +0000 UTC",` +
	`"scenario":"crowdsecurity/ssh-bf","scenario_hash":"242f36684d66bbae3044e576b7cfffef62d5323465f3f74f87923167c6d93356","scenario_trust":"certified","scenario_version":"0.3",` +
	`"source":{"as_name":"Example","as_number":"64496","cn":"DE","ip":"192.0.2.77","latitude":52.5,"longitude":-13.25,"scope":"Ip","value":"192.0.2.77"},` +
	`"start_at":"2026-11-20T21:05:20.410139633Z","stop_at":"2026-11-20T21:05:20.419598601Z","uuid":"bdc440d4-fb8e-4a90-9543-f144aed6b1da"}`

func TestExpressions(t *testing.T) {
	lists := NamedLists{"offices": NewEntries("192.0.2.0/24")}
	tests := []struct {
		expr string
		want bool
	}{
		{`true`, true},
		{`scenario == "crowdsecurity/ssh-bf" && kind == "crowdsec"`, true},
		{`scenario in ["a", "crowdsecurity/ssh-bf"]`, true},
		{`scenario startsWith "crowdsecurity/" and scenario matches "ssh-(bf|slow)"`, true},
		{`scenario_hash != "" and scenario_trust == "certified" and scenario_version == "0.3"`, true},
		{`uuid == "" or machine_id == ""`, false},
		{`source.ip == source.value && source.cn == "DE" && source.as_number == "64496" && source.as_name == "Example"`, true},
		{`int(source.as_number) > 64000`, true},
		{`source.latitude > 52 && source.longitude < -13`, true},
		{`source.range == ""`, true},
		{`len(decisions) == 2`, true},
		{`any(decisions, .origin == "cscli" && .type == "captcha" && .simulated)`, true},
		{`all(decisions, .type == "ban")`, false},
		{`none(decisions, {.scope == "Country"}) and one(decisions, {#.id == 3})`, true},
		{`count(decisions, .duration endsWith "h") == 1`, true},
		{`decisions[0].value == "192.0.2.77"`, true},
		{`sum(decisions, .id) == 3`, true},
		{`"cscli" in map(decisions, .origin)`, true},
		{`first(filter(decisions, .type == "ban")).value == source.ip`, true},
		{`any(context, .key == "target_user" && .value contains "\"root\"")`, true},
		{`any(decisions, let d = #; any(context, .value contains d.type))`, false},
		{`date(stop_at) - date(start_at) < duration("1s")`, true},
		{`date(start_at).Hour() >= 21`, true},
		{`IpInRange(source.ip, "192.0.2.0/24")`, true},
		{`IpInRange("::ffff:192.0.2.1", "192.0.2.0/24")`, true},
		{`IpInRange(source.ip, "::/0") or IpInRange("x", "0.0.0.0/0") or IpInRange(source.ip, "x")`, false},
		{`IpToRange(source.ip, "24") == "192.0.2.0/24" and IpToRange(source.ip, "/16") == "192.0.0.0/16"`, true},
		{`IpToRange("x", "24") + IpToRange(source.ip, "99") + IpToRange(source.ip, "x") == ""`, true},
		{`IsIP(source.ip) and IsIPV4(source.ip) and not IsIPV6(source.ip) and IsIPV6("::1") and not IsIP("XX")`, true},
		{`Lower("ÄB") == "äb" and Upper("äb") == "ÄB" and lower("A") + upper("b") == "aB"`, true},
		{`TrimSpace(" a ") + Trim("xax", "x") + TrimLeft("xa", "x") + TrimRight("ax", "x") == "aaaa"`, true},
		{`TrimPrefix("ab", "a") + TrimSuffix("ab", "b") == "ba"`, true},
		{`Split(scenario, "/")[1] == "ssh-bf" and Join(Split("a,b", ","), "-") == "a-b" and Fields("a  b")[1] == "b"`, true},
		{`Index(scenario, "/") == 13 and IndexAny(scenario, "x/") == 13`, true},
		{`ReplaceAll("aXbX", "X", "-") == "a-b-"`, true},
		{`Atof("1.5") == 1.5 and Atof("x") == 0.0`, true},
		{`ToString(len(decisions)) == "2" and ToString("a") == "a" and ToString(true) == "true" and ToString(decisions) == ""`, true},
		{`Match("crowd*/ssh-??", scenario) and Match("*", scenario) and Match("a*c*", "abcbd")`, true},
		{`Match("crowd", scenario) or Match("*bf?", scenario) or Match("a*b", "ac")`, false},
		{`InList(source.ip, "offices") and not InList("198.51.100.1", "offices")`, true},
		{`created_at == ""`, true},
	}
	for _, tt := range tests {
		set, problems := Compile([]Rule{{Name: "r", Expr: tt.expr}}, Options{Lists: lists})
		if len(problems) > 0 {
			t.Errorf("%s: %v", tt.expr, problems)
			continue
		}
		for range 2 { // the frame is used again
			got := set.Eval([]byte(certified))
			if got.Withheld != tt.want || len(got.Failures) > 0 {
				t.Errorf("%s: got %v %v, want %v", tt.expr, got.Withheld, got.Failures, tt.want)
			}
		}
	}
}

// What a signal lacks, or has in another type, is the zero value.
func TestExpressionOfOddSignals(t *testing.T) {
	set := one(t, Rule{Name: "r", Expr: `scenario == "" and source.ip == "" and source.latitude == 0 and len(decisions) == 0 and len(context) == 0 and source.as_number in ["", "5"]`}, Options{})
	for _, signal := range []string{
		`{}`, `null`, `[]`, `{"source":null,"decisions":null,"context":null}`, `{"source":"x","decisions":{},"context":5}`,
		`{"scenario":5,"source":{"ip":["x"],"latitude":"1","as_number":5},"decisions":[5,null,"x"],"context":[[]]}`,
	} {
		if set.Eval([]byte(certified)).Withheld {
			t.Fatal("holds for a real signal")
		}
		if got := set.Eval([]byte(signal)); !got.Withheld {
			t.Errorf("%s: %v", signal, got)
		}
	}
}

func TestExpressionProblems(t *testing.T) {
	tests := []struct {
		expr, message string
		line          int
	}{
		{`scenari == "x"`, "expression: unknown name scenari (column 1)", 7},
		{"scenario == 'x' and\n  source.ipp == 'y'", "expression: type filter.source has no field ipp (column 10)", 8},
		{`scenario ==`, "expression: unexpected token EOF", 7},
		{`scenario`, "expression: expected bool, but got string", 7},
		{`scenario == 5`, "expression: invalid operation: == (mismatched types string and int) (column 10)", 7},
		{`len(1..1000000) > 5`, "expression: ranges, as 1..9, are not available", 7},
		{`scenario matches scenario`, "expression: expected a text in quotes behind matches", 7},
		{`scenario matches "("`, "expression: error parsing regexp", 7},
		{`now() > date(start_at)`, "expression: unknown name now", 7},
		{`repeat("x", 1000) == ""`, "expression: unknown name repeat", 7},
		{`$env["scenario"] == ""`, "expression: $env is not available", 7},
		{`InList(source.ip, "unknown")`, `expression: there is no list named "unknown"`, 7},
		{`InList(source.ip, scenario)`, "expression: expected the list's name in quotes", 7},
		{`[1,"a"][0] + 5 == 6`, "expression: + needs to know what it adds", 7},
		{`set != nil`, "expression: unknown name set", 7},
		{`left > 0`, "expression: unknown name left", 7},
		{strings.Repeat("not ", 600) + "true", "expression: ", 7},
		{strings.Repeat(" ", 20000) + "true", "expected an expression of at most 16384 bytes", 7},
	}
	for _, tt := range tests {
		set, problems := Compile([]Rule{{Name: "r", Expr: tt.expr, File: "f.yaml", Line: 5, ExprLine: 7}}, Options{Lists: NamedLists{}})
		if len(problems) != 1 || !problems[0].Refused || !strings.Contains(problems[0].Message, tt.message) || problems[0].Line != tt.line {
			t.Errorf("%.80s: got %v, want line %d: %s", tt.expr, problems, tt.line, tt.message)
		}
		if len(set.Rules()) > 0 {
			t.Errorf("%.80s: the rule is in the set", tt.expr)
		}
	}
}

// A rule that fails is skipped, counted and reported, whatever it fails of, and
// the rules beside it work.
func TestExpressionFailures(t *testing.T) {
	many := `{"message":"` + strings.Repeat("m", 60000) + `","decisions":[` + strings.TrimSuffix(strings.Repeat(`{"value":"v"},`, 5000), ",") + `]}`
	tests := []struct{ name, expr, signal, message string }{
		{"index", `decisions[5].value == ""`, certified, "index out of range"},
		{"number", `int(scenario) > 5`, certified, "invalid operation"},
		{"date", `date(scenario) == date(start_at)`, certified, "invalid date"},
		{"long text", `message != ""`, `{"message":"` + strings.Repeat("m", 70000) + `"}`, "expected texts of at most 65536 bytes, but message is longer"},
		{"nested loops", `any(decisions, any(decisions, .value == "x"))`, many, errWork.Error()},
		{"nested maps", `count(map(decisions, map(decisions, .value)), len(#) == 0) == 1`, many, errWork.Error()},
		{"texts", `any(decisions, Lower(message) == "x")`, many, errWork.Error()},
		{"doubling", `let a = message + message; let b = a + a; let c = b + b; let d = c + c; let e = d + d; let f = e + e; f + f == "x"`, many, errWork.Error()},
		{"replace", `ReplaceAll(message, "m", message) == ""`, many, errWork.Error()},
		{"empty replace", `ReplaceAll(message, "", message) == ""`, many, errWork.Error()},
		{"split", `any(decisions, len(Split(message, "")) == 5)`, many, errWork.Error()},
		{"match", `any(decisions, Match("*m*m*m*m*x", message))`, many, errWork.Error()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set, problems := Compile([]Rule{
				{Name: "first", Expr: "message != 'x' or true"}, {Name: "bad", Expr: tt.expr}, rule(t, `{"op":"not_empty","field":"scenari"}`),
			}, Options{Mode: Allow})
			if refused := problems.Refused(); len(refused) > 0 {
				t.Fatal(refused)
			}
			for range 2 {
				got := set.Eval([]byte(tt.signal))
				last := len(got.Failures) - 1
				if last < 0 || got.Failures[last].Rule != "bad" || !strings.Contains(got.Failures[last].Message, tt.message) {
					t.Fatalf("got %v, want %s", got.Failures, tt.message)
				}
				if got.Withheld != (tt.name == "long text") {
					t.Errorf("the rule beside it does not work: %v", got)
				}
			}
			if status := set.Rules()[1]; status.Failed != 2 || status.Matched != 0 {
				t.Errorf("counted %+v", status)
			}
		})
	}
}

// An import of thousands of decisions is not too much for a simple rule.
func TestExpressionOfImport(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"decisions":[`)
	for i := range 20000 {
		fmt.Fprintf(&b, `{"value":"10.0.%d.%d","origin":"cscli-import"},`, i>>8, i&255)
	}
	b.WriteString(`{"value":"last"}]}`)
	set := one(t, Rule{Name: "r", Expr: `any(decisions, .value == "last") and count(decisions, .origin == "cscli-import") == 20000`}, Options{})
	if got := set.Eval([]byte(b.String())); !got.Withheld {
		t.Error(got)
	}
}
