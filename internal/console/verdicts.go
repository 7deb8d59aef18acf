package console

import (
	"net/http"
	"time"

	"muster"
)

// OperatorPrefix leads the reasons of allowlist entries that stand for an
// operator's word.
const OperatorPrefix = "operator: "

// operatorVerdict is a person's word on a source as the API shows it.
type operatorVerdict struct {
	Source    string     `json:"source"`
	Listed    bool       `json:"listed"` // false: never to be listed
	Until     *time.Time `json:"until"`  // null: for good
	Reason    string     `json:"reason"`
	By        string     `json:"by"`
	CreatedAt time.Time  `json:"created_at"`
}

func viewOperatorVerdict(v muster.OperatorVerdict) operatorVerdict {
	return operatorVerdict{v.Source.String(), v.Listed, orNull(v.Until), v.Reason, v.By, v.CreatedAt}
}

func (a *API) operatorVerdicts(r *http.Request) (any, error) {
	list, err := a.cfg.Store.OperatorVerdicts(r.Context(), a.cfg.Now())
	return views(list, viewOperatorVerdict), err
}

func (a *API) decide(r *http.Request) (any, error) {
	var q struct {
		Source     string `json:"source"`
		Listed     bool   `json:"listed"`
		TTLSeconds int64  `json:"ttl_seconds"` // 0 = for good
		Reason     string `json:"reason"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	source, err := muster.ParseSource(q.Source)
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "source: %w", err)
	}
	if q.Listed {
		return nil, muster.Errorf(muster.Invalid, "listed: to have a source listed by hand is not in this release: order the ban to your own machines (muster order add), or have them report it")
	}
	reason, err := reasonOf(q.Reason, "whoever asks why it is not listed gets to read it")
	if err != nil {
		return nil, err
	}
	ttl, err := lifetime(q.TTLSeconds)
	if err != nil {
		return nil, err
	}
	now := a.cfg.Now().UTC()
	v := muster.OperatorVerdict{Source: source, Until: endOf(now, ttl), Reason: reason, By: callerOf(r), CreatedAt: now}
	entry, err := a.audited(r, "verdict.set", source.String(), reason, map[string]any{"listed": false, "ttl_seconds": q.TTLSeconds})
	if err != nil {
		return nil, err
	}
	if err := a.cfg.Store.PutOperatorVerdict(r.Context(), v, entry); err != nil {
		return nil, err
	}
	return viewOperatorVerdict(v), a.cfg.AllowlistChanged(r.Context())
}

func (a *API) undecide(r *http.Request) (any, error) {
	source, err := muster.ParseSource(r.PathValue("value"))
	if err != nil {
		return nil, err
	}
	entry, err := a.reasoned(r, "verdict.remove", source.String())
	if err != nil {
		return nil, err
	}
	if err := a.cfg.Store.DeleteOperatorVerdict(r.Context(), source, entry); err != nil {
		return nil, err
	}
	return nil, a.cfg.AllowlistChanged(r.Context())
}
