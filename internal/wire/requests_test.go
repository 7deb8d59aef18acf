package wire

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster"
)

func TestDecodeRequests(t *testing.T) {
	register := func(b string) (any, error) { return DecodeRegister([]byte(b)) }
	reset := func(b string) (any, error) { return DecodeReset([]byte(b)) }
	login := func(b string) (any, error) { return DecodeLogin([]byte(b)) }
	enrol := func(b string) (any, error) { return DecodeEnrol([]byte(b)) }
	deletes := func(b string) (any, error) { return DecodeDecisionsDelete([]byte(b), 3) }
	sync := func(b string) (any, error) { return DecodeDecisionsSync([]byte(b), 3) }
	for _, tt := range []struct {
		name   string
		decode func(string) (any, error)
		body   string
		want   any
	}{
		{"register", register, `{"machine_id":"m","password":"p"}`, Credentials{"m", "p"}},
		{"register with more", register, ` {"password":"p","machine_id":"m","extra":[1]} `, Credentials{"m", "p"}},
		{"reset", reset, `{"machine_id":"m","password":null}`, Credentials{"m", ""}},
		{"login", login, `{"machine_id":"m","password":"p","scenarios":["a\/b","",null,"c"]}`, Login{"m", "p", []string{"a/b", "c"}}},
		{"login without scenarios", login, `{"machine_id":"m","password":"p"}`, Login{"m", "p", nil}},
		{"login with an empty list", login, `{"machine_id":"m","password":"p","scenarios":[]}`, Login{"m", "p", nil}},
		{"login with null scenarios", login, `{"machine_id":"m","password":"p","scenarios":null}`, Login{"m", "p", nil}},
		{
			"enrol", enrol, `{"attachment_key":"k","name":"n","tags":["a","b c",""],"overwrite":true,"autoenroll":false}`,
			Enrol{AttachmentKey: "k", Name: "n", Tags: []string{"a", "b c"}, Overwrite: true},
		},
		{"enrol quickly", enrol, `{"name":"","tags":null,"overwrite":null,"autoenroll":true}`, Enrol{AutoEnroll: true}},
		{"delete", deletes, `["u1","",null]`, []string{"u1"}},
		{"delete nothing", deletes, `[]`, []string(nil)},
		{"sync", sync, `[{"scenario":"x"},"u",null]`, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.decode(tt.body)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for _, tt := range []struct {
		name   string
		decode func(string) (any, error)
		body   string
		want   string
		code   muster.Code
	}{
		{"nothing", register, ``, "the body must be a JSON object, got nothing", muster.Invalid},
		{"null", register, ` null`, "the body must be a JSON object, got null", muster.Invalid},
		{"an array", login, `[]`, "the body must be a JSON object, got an array", muster.Invalid},
		{"a wrong type", register, `{"machine_id":12}`, "field machine_id: expected a string, got a number", muster.Invalid},
		{"a wrong type inside", login, `{"scenarios":[1.5]}`, "field scenarios: expected a string, got a number", muster.Invalid},
		{"no list", login, `{"scenarios":"a"}`, "field scenarios: expected an array, got a string", muster.Invalid},
		{"no boolean", enrol, `{"overwrite":"yes"}`, "field overwrite: expected a boolean, got a string", muster.Invalid},
		{"a boolean for a string", enrol, `{"name":true}`, "field name: expected a string, got a boolean", muster.Invalid},
		{"an object for a string", enrol, `{"name":{}}`, "field name: expected a string, got an object", muster.Invalid},
		{"more after it", register, `{} {}`, "malformed JSON at byte", muster.Invalid},
		{"cut off", register, `{"machine_id":"m`, "malformed JSON at byte", muster.Invalid},
		{"delete an object", deletes, `{}`, "the body must be a JSON array, got an object", muster.Invalid},
		{"delete numbers", deletes, `["u",7]`, "expected an array of decision uuids, got a number", muster.Invalid},
		{"delete too many", deletes, `["1","2","3","4"]`, "more than 3 items", muster.TooLarge},
		{"delete and more", deletes, `["1"]]`, "expected the end of the document", muster.Invalid},
		{"sync too many", sync, `[1,2,3,4]`, "more than 3 items", muster.TooLarge},
		{"sync malformed", sync, `[1,`, "malformed JSON", muster.Invalid},
	} {
		t.Run("refuses "+tt.name, func(t *testing.T) {
			_, err := tt.decode(tt.body)
			if !errors.Is(err, tt.code) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("expected %s with %q, got %v", tt.code, tt.want, err)
			}
		})
	}
}

// What a client sends may be a secret: errors name fields and types only.
func TestErrorsDoNotQuoteWhatWasSent(t *testing.T) {
	for _, body := range []string{
		`{"password":987654321.5}`, `{"password":["s3cret"]}`, `{"password":"s3cret`, `{"password":"s3cret"} s3cret`, `"s3cret"`,
	} {
		_, err := DecodeRegister([]byte(body))
		if err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "98765") {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestDecodeMetrics(t *testing.T) {
	got, err := DecodeMetrics([]byte(`{"apil_version":null,"machines":[{"name":"m","last_push":"0001-01-01 00:00:00 +0000 UTC",
		"last_update":"2026-11-20 21:49:54.942228577 +0000 UTC"}],"bouncers":[{"custom_name":"c","name":"php","version":"1","last_pull":""},
		{"last_pull":{"odd":1}},{"last_pull":1795110701},null]}`))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "metrics.golden.json", mustJSON(t, got))
	if !got.Machines[0].LastPush.IsZero() || !got.Bouncers[0].LastPull.IsZero() || !got.Bouncers[1].LastPull.IsZero() {
		t.Errorf("times that never were: %+v", got)
	}
}

func TestDecodeUsageMetrics(t *testing.T) {
	got, err := DecodeUsageMetrics(fixture(t, "usage-metrics.json"))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "usage-metrics.golden.json", mustJSON(t, got))

	for _, body := range []string{`{}`, `{"lapi":null,"log_processors":null,"remediation_components":null}`} {
		if got, err := DecodeUsageMetrics([]byte(body)); err != nil || got.LAPI != nil || got.LogProcessors != nil {
			t.Errorf("%s: %+v, %v", body, got, err)
		}
	}
	for body, want := range map[string]string{
		`{"log_processors":[{"version":1}]}`:            "field log_processors.version: expected a string, got a number",
		`{"lapi":{"console_options":"x"}}`:              "field lapi.console_options: expected an array, got a string",
		`{"log_processors":[{"datasources":{"f":{}}}]}`: "expected a whole number, got an object",
		`{"remediation_components":{}}`:                 "field remediation_components: expected an array, got an object",
	} {
		if _, err := DecodeUsageMetrics([]byte(body)); !errors.Is(err, muster.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: expected %q, got %v", body, want, err)
		}
	}
}
