package storetest

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"muster"
	"muster/internal/store"
)

func testIntegrations(t *testing.T, db *store.DB) {
	ctx := t.Context()
	all := func() []muster.Integration {
		t.Helper()
		return must(db.Integrations(ctx))(t)
	}
	equal(t, "at first", all(), nil)
	gate := muster.Integration{
		ID: "1", Name: "gate", Kind: muster.FirewallIntegration, Organisation: "o1", Format: "pfsense", Budget: 8000, Collateral: 0.25, NoIPv6: true,
		Interval: time.Hour, User: "u", Secret: []byte{0, 1}, CreatedAt: at(1), CreatedBy: awkward, RotatedAt: at(1),
	}
	web := muster.Integration{ID: "2", Name: "web", Kind: muster.BouncerIntegration, NoIPv4: true, Secret: []byte{2}, CreatedAt: at(2), RotatedAt: at(2)}
	ok(t, db.CreateIntegration(ctx, gate, entry(1, "integration.create", "gate")))
	ok(t, db.CreateIntegration(ctx, web))
	equal(t, "two", all(), []muster.Integration{gate, web})
	equal(t, "the audit", must(db.Audit(ctx, store.AuditQuery{}))(t), []muster.AuditEntry{entry(1, "integration.create", "gate")})
	again := gate
	again.ID = "3"
	wantCode(t, db.CreateIntegration(ctx, again, entry(2, "integration.create", "gate")), muster.Exists)
	again.Organisation = "o2"
	ok(t, db.CreateIntegration(ctx, again))

	_, err := db.UpdateIntegration(ctx, "3", func(i *muster.Integration) error { return muster.Errorf(muster.Invalid, "no") })
	wantCode(t, err, muster.Invalid)
	_, err = db.UpdateIntegration(ctx, "4", func(*muster.Integration) error { return nil })
	wantCode(t, err, muster.NotFound)
	changed := must(db.UpdateIntegration(ctx, "3", func(i *muster.Integration) error {
		i.Name, i.Format, i.Budget, i.Collateral, i.NoIPv4, i.NoIPv6, i.Interval, i.User, i.Secret, i.RotatedAt = "door", "f5", 1, 0, true, false, 0, "v", []byte{3}, at(3)
		i.ID, i.Organisation, i.Kind, i.CreatedBy = "9", "o9", muster.BouncerIntegration, "x" // these stay
		return nil
	}, entry(3, "integration.update", "door")))(t)
	again.Name, again.Format, again.Budget, again.Collateral, again.NoIPv4, again.NoIPv6, again.Interval, again.User, again.Secret, again.RotatedAt = "door", "f5", 1, 0, true, false, 0, "v", []byte{3}, at(3)
	equal(t, "what was changed", changed, again)
	equal(t, "it alone", must(db.Integration(ctx, "3"))(t), again)
	_, err = db.UpdateIntegration(ctx, "3", func(i *muster.Integration) error { i.Organisation, i.Name = "o1", "gate"; return nil })
	wantCode(t, err, muster.Exists)

	seen := muster.IntegrationContact{Pull: at(10), Agent: awkward, Addr: netip.MustParseAddr("2001:db8::1"), Entries: 7}
	ok(t, db.TouchIntegrations(ctx, map[string]muster.IntegrationContact{"1": seen, "4": seen}))
	ok(t, db.TouchIntegrations(ctx, map[string]muster.IntegrationContact{"1": {Pull: at(9), Agent: "late"}, "2": {Pull: at(9)}}))
	gate.Seen, web.Seen.Pull = seen, at(9)
	equal(t, "with contacts", all(), []muster.Integration{gate, web, again})

	ok(t, db.PutSubscription(ctx, muster.Subscription{Blocklist: "community", Subscriber: muster.Subscriber{Kind: muster.SubscriberIntegration, ID: "1", Organisation: "o1"}, CreatedAt: at(1)}))
	ok(t, db.PutIntegrationReport(ctx, muster.IntegrationReport{Integration: "1", At: at(1), Body: []byte("{}")}))
	ok(t, db.DeleteIntegration(ctx, "1", entry(4, "integration.delete", "gate")))
	wantCode(t, db.DeleteIntegration(ctx, "1", entry(5, "integration.delete", "gate")), muster.NotFound)
	equal(t, "what is left", all(), []muster.Integration{web, again})
	equal(t, "its reports", must(db.IntegrationReports(ctx, "1"))(t), nil)
	equal(t, "its subscriptions", must(db.Subscriptions(ctx))(t), nil)
	_, err = db.Integration(ctx, "1")
	wantCode(t, err, muster.NotFound)
}

func testIntegrationReports(t *testing.T, db *store.DB) {
	ctx := t.Context()
	ok(t, db.CreateIntegration(ctx, muster.Integration{ID: "1", Name: "a", Kind: muster.BouncerIntegration}))
	report := func(n, second int) muster.IntegrationReport {
		return muster.IntegrationReport{Integration: "1", Addr: numbered(n).Addr(), At: at(second), Body: fmt.Appendf(nil, "%d", second)}
	}
	ok(t, db.PutIntegrationReport(ctx, report(1, 1)))
	ok(t, db.PutIntegrationReport(ctx, report(2, 2)))
	ok(t, db.PutIntegrationReport(ctx, report(1, 3)))
	equal(t, "the last of each", must(db.IntegrationReports(ctx, "1"))(t), []muster.IntegrationReport{report(1, 3), report(2, 2)})
	for n := range store.MaxIntegrationReports {
		ok(t, db.PutIntegrationReport(ctx, report(n+3, n+10)))
	}
	list := must(db.IntegrationReports(ctx, "1"))(t)
	if len(list) != store.MaxIntegrationReports || list[len(list)-1].Addr != numbered(3).Addr() {
		t.Errorf("expected the newest %d, got %d to %v", store.MaxIntegrationReports, len(list), list[len(list)-1].Addr)
	}
	unknown := report(1, 1)
	unknown.Integration = "9"
	ok(t, db.PutIntegrationReport(ctx, unknown))
	equal(t, "those of nobody", must(db.IntegrationReports(ctx, "9"))(t), nil)
}
