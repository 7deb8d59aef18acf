package console

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/internal/cti"
)

// oracle is Lookups and LookupKeys in memory.
type oracle struct {
	keys    []muster.LookupKey
	usage   []muster.LookupUsage
	audit   []muster.AuditEntry
	changed int
	breaks  bool // the dump, after its first bytes
}

func (o *oracle) Item(_ context.Context, addr netip.Addr) (cti.Item, bool, error) {
	return cti.Item{IP: addr.String(), Reputation: cti.Unknown}, false, nil
}

func (o *oracle) Dump(_ context.Context, format string, w io.Writer) error {
	if format != "jsonl" {
		return muster.Errorf(muster.Invalid, "format: expected mmdb or jsonl, got %q", format)
	}
	_, err := io.WriteString(w, "{}\n")
	if o.breaks {
		err = errors.New("the disk is away")
	}
	return err
}

func (o *oracle) LookupKeys(context.Context) ([]muster.LookupKey, error) { return o.keys, nil }

func (o *oracle) LookupUsage(_ context.Context, since int64) (used []muster.LookupUsage, err error) {
	for _, u := range o.usage {
		if u.Day >= since {
			used = append(used, u)
		}
	}
	return used, nil
}

func (o *oracle) CreateLookupKey(_ context.Context, k muster.LookupKey, audit ...muster.AuditEntry) error {
	o.keys, o.audit = append(o.keys, k), append(o.audit, audit...)
	return nil
}

func (o *oracle) RevokeLookupKey(_ context.Context, id string, at time.Time, audit ...muster.AuditEntry) error {
	for i := range o.keys {
		if o.keys[i].ID == id {
			o.keys[i].RevokedAt, o.audit = at, append(o.audit, audit...)
			return nil
		}
	}
	return missing("lookup key")
}

func newOracle(t *testing.T) (*oracle, func(method, path, body string) *httptest.ResponseRecorder) {
	o, r := &oracle{}, newRig(t)
	cfg := r.cfg
	cfg.Lookups, cfg.LookupKeys = o, o
	cfg.LookupKeysChanged = func(context.Context) error { o.changed++; return nil }
	api := NewAPI(cfg)
	return o, func(method, path, body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		api.Trusted().ServeHTTP(w, httptest.NewRequest(method, "/api/v1"+path, strings.NewReader(body)))
		return w
	}
}

func TestLookupKeyIsShownOnce(t *testing.T) {
	o, ask := newOracle(t)
	w := ask("POST", "/lookup-keys", `{"name":" siem ","organisation":"alpha","per_day":50,"per_month":900}`)
	var made lookupKeyView
	if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	if sum := sha256.Sum256([]byte(made.Key)); len(o.keys) != 1 || string(o.keys[0].Hash) != string(sum[:]) || o.keys[0].Name != "siem" || o.keys[0].Organisation != "org-a" {
		t.Fatalf("%+v", o.keys)
	}
	if !strings.HasPrefix(made.Key, "mlk_") || len(made.Key) < 30 || o.changed != 1 || len(o.audit) != 1 || strings.Contains(string(o.audit[0].Detail), made.Key) {
		t.Errorf("%+v, %d changes, audit %+v", made, o.changed, o.audit)
	}
	today := cti.DayOf(now)
	o.usage = []muster.LookupUsage{{Key: made.ID, Day: today, Calls: 3}, {Key: made.ID, Day: today - 2, Calls: 4}, {Key: made.ID, Day: today - 20, Calls: 5}, {Key: "other", Day: today, Calls: 9}}
	var list []lookupKeyView
	if w := ask("GET", "/lookup-keys", ""); json.Unmarshal(w.Body.Bytes(), &list) != nil || len(list) != 1 || list[0].UsedToday != 3 || list[0].UsedMonth != 7 || list[0].Key != "" || list[0].RevokedAt != nil {
		t.Errorf("%+v", list)
	}
	if w := ask("DELETE", "/lookup-keys/"+made.ID+"?reason=lost", ""); w.Code != http.StatusNoContent || o.keys[0].RevokedAt.IsZero() || o.audit[1].Reason != "lost" || o.changed != 2 {
		t.Errorf("%d, %+v", w.Code, o.keys)
	}
	for _, bad := range []struct{ method, path, body string }{
		{"DELETE", "/lookup-keys/none", ""},
		{"POST", "/lookup-keys", `{"name":""}`},
		{"POST", "/lookup-keys", `{"name":"a","per_day":-1}`},
		{"POST", "/lookup-keys", `{"name":"a","organisation":"nobody"}`},
		{"POST", "/lookup-keys", `{"nam":"a"}`},
		{"GET", "/lookup/nonsense", ""},
		{"GET", "/dump/xml", ""},
	} {
		if w := ask(bad.method, bad.path, bad.body); w.Code != http.StatusBadRequest && w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), `"message"`) {
			t.Errorf("%s %s %s: %d %s", bad.method, bad.path, bad.body, w.Code, w.Body)
		}
	}
	if len(o.keys) != 1 {
		t.Errorf("what was refused was made: %+v", o.keys)
	}
}

func TestLookUpAddress(t *testing.T) {
	o, ask := newOracle(t)
	if w := ask("GET", "/lookup/2a00:1::1", ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"ip":"2a00:1::1"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask("GET", "/dump/jsonl", ""); w.Code != http.StatusOK || w.Body.String() != "{}\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	// A dump that breaks off must not look whole.
	o.breaks = true
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("a dump that breaks off looks whole")
		}
	}()
	ask("GET", "/dump/jsonl", "")
}
