package store

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster"
)

// The queries that run often, or over tables that grow without end, must not
// read whole tables.
func TestPlans(t *testing.T) {
	db, err := Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "muster.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	alerts := func(q AlertQuery) string { query, _ := q.sql(); return query }
	unbans := func(q muster.UnbanQuery) string { query, _ := unbansSQL(q); return query }
	audit := func(q AuditQuery) string { query, _ := q.sql(); return query }
	since, after := time.Unix(1, 0), AlertCursor{At: time.Unix(2, 0)}
	for _, tt := range []struct {
		query, plan string
	}{
		{selectMachines + ` WHERE id = ?`, `
SEARCH contacts USING PRIMARY KEY (machine=?)
SEARCH machines USING INDEX sqlite_autoindex_machines_1 (id=?)`},
		{alerts(AlertQuery{}), `
SCAN alerts USING INDEX sqlite_autoindex_alerts_1`},
		{alerts(AlertQuery{Since: since, After: after}), `
SEARCH alerts USING INDEX sqlite_autoindex_alerts_1 (at>? AND (at,id)<(?,?))`},
		{alerts(AlertQuery{Organisation: "o"}), `
SEARCH alerts USING INDEX alerts_by_organisation (organisation=?)
USE TEMP B-TREE FOR LAST TERM OF ORDER BY`},
		{alerts(AlertQuery{Organisation: "o", Since: since, After: after}), `
SEARCH alerts USING INDEX alerts_by_organisation (organisation=? AND at>? AND at<?)
USE TEMP B-TREE FOR LAST TERM OF ORDER BY`},
		{deleteOldestAlerts, `
SEARCH alerts USING COVERING INDEX sqlite_autoindex_alerts_1 (at=? AND id=?)
LIST SUBQUERY 2
SEARCH alerts USING COVERING INDEX sqlite_autoindex_alerts_1 (at<?)`},
		{deleteLapsedVerdicts, `
SEARCH verdicts USING PRIMARY KEY (part=? AND source=? AND audience=?)
LIST SUBQUERY 2
SEARCH verdicts USING INDEX verdicts_by_change (changed<?)`},
		{selectEvidenceOf, `
SCAN positions
SEARCH evidence USING PRIMARY KEY (part=? AND source=?)`},
		{selectVerdictsOf, `
SCAN positions
SEARCH verdicts USING PRIMARY KEY (part=? AND source=?)`},
		{selectVerdicts + afterChange, `
SEARCH verdicts USING INDEX verdicts_by_change (changed>?)`},
		{selectOrdersAfter, `
SEARCH orders USING INDEX sqlite_autoindex_orders_2 (machine=? AND issued_at>?)`},
		{selectVerdictHistory, `
SEARCH verdict_history USING INDEX verdict_history_by_source (source=? AND audience=?)`},
		{putVerdictHistory, `
SCAN CONSTANT ROW
SCALAR SUBQUERY 1
SEARCH verdicts USING PRIMARY KEY (part=? AND source=? AND audience=?)`},
		{deleteOldestVerdictHistory, `
SEARCH verdict_history USING PRIMARY KEY (at=? AND source=? AND audience=?)
LIST SUBQUERY 2
SEARCH verdict_history USING PRIMARY KEY (at<?)`},
		{selectTrust + ` WHERE machine = ?`, `
SEARCH trust USING INTEGER PRIMARY KEY (rowid=?)`},
		{selectTrustEvents, `
SEARCH trust_events USING PRIMARY KEY (machine=? AND at>?)`},
		{selectMachinesWithEvents, `
CO-ROUTINE machines
SETUP
SEARCH trust_events USING PRIMARY KEY
RECURSIVE STEP
SCAN machines
CORRELATED SCALAR SUBQUERY 2
SEARCH trust_events USING PRIMARY KEY (machine>?)
SCAN machines
SEARCH trust_events EXISTS USING PRIMARY KEY (machine=? AND at<?)`},
		{deleteOldestTrustEvents, `
SEARCH trust_events USING PRIMARY KEY (machine=? AND at=? AND kind=? AND behaviour=? AND source=?)
LIST SUBQUERY 2
SEARCH trust_events USING PRIMARY KEY (machine=? AND at<?)`},
		{extendBan, `
SEARCH bans USING PRIMARY KEY (prefix=?)`},
		{audit(AuditQuery{Action: "ban.", Subject: "s"}), `
SCAN audit USING INDEX sqlite_autoindex_audit_1`},
		{audit(AuditQuery{Before: "i"}), `
SEARCH audit USING INDEX sqlite_autoindex_audit_1 (id<?)`},
		{deleteOldestAudit, `
SEARCH audit USING COVERING INDEX sqlite_autoindex_audit_1 (id=?)
LIST SUBQUERY 1
SEARCH audit USING INDEX audit_by_time (at<?)`},
		{selectOpenUnban, `
SEARCH unbans USING INDEX unbans_open (source=?)`},
		{selectUnbanRounds, `
SEARCH unbans USING INDEX unbans_by_line (line=? AND decided>?)
USE TEMP B-TREE FOR LAST TERM OF ORDER BY`},
		{countUnbansNetwork, `
SEARCH unbans USING COVERING INDEX unbans_granted_by_network (network=? AND decided>?)`},
		{countUnbansAsker, `
SEARCH unbans USING COVERING INDEX unbans_by_asker (asker=? AND requested>?)`},
		{countUnbansGranted, `
SEARCH unbans USING COVERING INDEX unbans_granted (decided>?)`},
		{countUnbansWaiting, `
SCAN unbans USING COVERING INDEX unbans_open`},
		{unbans(muster.UnbanQuery{Untold: true}), `
SCAN unbans USING INDEX unbans_untold`},
		{listedAmong(2), `
SEARCH verdicts USING PRIMARY KEY (part=? AND source=? AND audience=?)
LIST SUBQUERY 4
SCAN 2-ROW VALUES CLAUSE`},
		{selectRollups, `
SEARCH rollups USING PRIMARY KEY (part=? AND source=? AND day>?)`},
		{rollupsAmong(2), `
SEARCH rollups USING PRIMARY KEY (part=? AND source=? AND day=?)
LIST SUBQUERY 4
SCAN 2-ROW VALUES CLAUSE`},
		{deleteOldestRollups, `
SEARCH rollups USING PRIMARY KEY (part=? AND source=? AND day=?)
LIST SUBQUERY 2
SEARCH rollups USING COVERING INDEX rollups_by_day (day<?)`},
	} {
		if plan := explainPlan(t, db.reader, tt.query); plan != tt.plan {
			t.Errorf("%s\nexpected the plan:%s\ngot:%s", tt.query, tt.plan, plan)
		}
	}
}

func explainPlan(t *testing.T, q *sql.DB, query string) string {
	t.Helper()
	args := make([]any, strings.Count(query, "?"))
	scan := func(rows *sql.Rows) (string, error) {
		var id, parent, unused int
		var step string
		err := rows.Scan(&id, &parent, &unused, &step)
		return step, err
	}
	steps, err := list(context.Background(), q, scan, "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	return "\n" + strings.Join(steps, "\n")
}
