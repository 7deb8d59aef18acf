package console

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"muster"
	"muster/internal/ratelimit"
)

// AuditQuery selects audit entries, newest first; zero fields select all.
type AuditQuery struct {
	Action  string // what actions begin with: "ban.", "limit.set"
	Subject string // exactly this one
	Before  string // id to go on before, towards older ones
	Limit   int
}

// auditView is an audit entry as the API shows it.
type auditView struct {
	ID      string          `json:"id"`
	At      time.Time       `json:"at"`
	By      string          `json:"by"`
	Action  string          `json:"action"`
	Subject string          `json:"subject"`
	Reason  string          `json:"reason"`
	Detail  json.RawMessage `json:"detail"`
}

func viewAudit(e muster.AuditEntry) auditView {
	v := auditView{ID: e.ID, At: e.At, By: e.By, Action: e.Action, Subject: e.Subject, Reason: e.Reason}
	if json.Valid(e.Detail) {
		v.Detail = e.Detail
	}
	return v
}

func (a *API) audit(r *http.Request) (any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	before := q.Get("before")
	if before != "" && uuid.Validate(before) != nil {
		return nil, muster.Errorf(muster.Invalid, "before: expected the next of an earlier page, got %q", clip(before))
	}
	subject := q.Get("subject")
	if addr, err := netip.ParseAddr(subject); err == nil {
		subject = ratelimit.PrefixOf(addr).String() // as it is written where a range may stand
	}
	list, err := a.cfg.Store.Audit(r.Context(), AuditQuery{Action: q.Get("action"), Subject: subject, Before: before, Limit: limit})
	if err != nil {
		return nil, err
	}
	page := struct {
		Entries []auditView `json:"entries"`
		Next    string      `json:"next"`
	}{Entries: views(list, viewAudit)}
	if len(list) == limit {
		page.Next = list[limit-1].ID
	}
	return page, nil
}
