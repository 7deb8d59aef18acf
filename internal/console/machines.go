package console

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"muster"
	"muster/internal/wire"
)

// machineView is a machine as the API shows it; its credential never leaves.
type machineView struct {
	ID           string              `json:"id"`
	State        muster.MachineState `json:"state"`
	Organisation string              `json:"organisation"`
	Name         string              `json:"name"`
	Tags         []string            `json:"tags"`
	Honeypot     bool                `json:"honeypot"`
	Rank         *uint8              `json:"rank,omitempty"` // what its word is worth, 0 to 5; absent while nobody knows
	Version      string              `json:"version"`
	Scenarios    []string            `json:"scenarios"`
	RegisteredAt time.Time           `json:"registered_at"`
	EnrolledAt   *time.Time          `json:"enrolled_at"`
	LastSeen     *time.Time          `json:"last_seen"`
	Seen         struct {
		Login     *time.Time `json:"login"`
		Pull      *time.Time `json:"pull"`
		Push      *time.Time `json:"push"`
		Metrics   *time.Time `json:"metrics"`
		Poll      *time.Time `json:"poll"`
		Heartbeat *time.Time `json:"heartbeat"`
	} `json:"seen"`
	Metrics json.RawMessage `json:"metrics,omitempty"`
	Usage   json.RawMessage `json:"usage,omitempty"`
}

func viewMachine(m muster.Machine) machineView {
	v := machineView{
		ID: m.ID, State: m.State, Organisation: m.Organisation, Name: m.Name, Tags: orEmpty(m.Tags), Honeypot: m.Honeypot,
		Version: m.Version, Scenarios: orEmpty(m.Scenarios), RegisteredAt: m.RegisteredAt,
		EnrolledAt: orNull(m.EnrolledAt), LastSeen: orNull(m.Seen.Last()),
	}
	v.Seen.Login, v.Seen.Pull, v.Seen.Push = orNull(m.Seen.Login), orNull(m.Seen.Pull), orNull(m.Seen.Push)
	v.Seen.Metrics, v.Seen.Poll, v.Seen.Heartbeat = orNull(m.Seen.Metrics), orNull(m.Seen.Poll), orNull(m.Seen.Heartbeat)
	return v
}

// current prefers the directory in memory, which knows contacts of the last
// seconds, over the store.
func (a *API) current(m muster.Machine) machineView {
	if live, ok := a.cfg.Machines.Machine(m.ID); ok {
		m = live
	}
	return viewMachine(m)
}

const (
	defaultPage = 100
	maxPage     = 1000
)

func limitOf(r *http.Request) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return defaultPage, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxPage {
		return 0, muster.Errorf(muster.Invalid, "limit: expected a number from 1 to %d, got %q", maxPage, clip(text))
	}
	return n, nil
}

func (a *API) machines(r *http.Request) (any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	state := muster.MachineState(q.Get("state"))
	if state != "" && !state.Valid() {
		return nil, muster.Errorf(muster.Invalid, "state: expected pending, active or blocked, got %q", clip(string(state)))
	}
	list, err := a.cfg.Store.Machines(r.Context(), MachineQuery{
		Organisation: q.Get("organisation"), State: state, Search: q.Get("search"), After: q.Get("after"), Limit: limit,
	})
	if err != nil {
		return nil, err
	}
	page := struct {
		Machines []machineView `json:"machines"`
		Next     string        `json:"next"`
	}{Machines: views(list, a.current)}
	if len(list) == limit {
		page.Next = list[limit-1].ID
	}
	return page, a.rank(r.Context(), page.Machines)
}

// rank notes the ranks of machines, as far as the judge tells them.
func (a *API) rank(ctx context.Context, machines []machineView) error {
	ids := views(machines, func(m machineView) string { return m.ID })
	known, err := askJudge(ctx, a, func(ctx context.Context, j Judge) (map[string]uint8, error) { return j.Ranks(ctx, ids) })
	if muster.CodeOf(err) == muster.Unavailable {
		return nil
	}
	for i := range machines {
		if rank, ok := known[machines[i].ID]; ok {
			machines[i].Rank = &rank
		}
	}
	return err
}

// machineID finds the machine that a request's path names.
func (a *API) machineID(r *http.Request) (string, error) {
	return a.machineNamed(r.Context(), r.PathValue("id"))
}

// machineNamed finds a machine by id, or by name when only one has it.
func (a *API) machineNamed(ctx context.Context, ref string) (string, error) {
	if _, ok := a.cfg.Machines.Machine(ref); ok {
		return ref, nil
	}
	list, err := a.cfg.Store.Machines(ctx, MachineQuery{Search: ref, Limit: maxPage})
	if err != nil {
		return "", err
	}
	var found []string
	for _, m := range list {
		if m.Name == ref || m.ID == ref {
			found = append(found, m.ID)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", muster.Errorf(muster.NotFound, "there is no machine %q: muster admin machine list shows them", clip(ref))
	}
	return "", muster.Errorf(muster.Invalid, "%d machines are named %q: use the id", len(found), clip(ref))
}

func (a *API) machine(r *http.Request) (any, error) {
	id, err := a.machineID(r)
	if err != nil {
		return nil, err
	}
	v := struct {
		machineView
		Trust  *trustView       `json:"trust"`  // null while the judge does not answer
		Events []trustEventView `json:"events"` // what moved it, newest first
	}{machineView: a.current(muster.Machine{ID: id}), Events: []trustEventView{}}
	for kind, into := range map[string]*json.RawMessage{"metrics": &v.Metrics, "usage": &v.Usage} {
		body, _, err := a.cfg.Store.MachineReport(r.Context(), id, kind)
		if err == nil && json.Valid(body) {
			*into = body
		} else if err != nil && muster.CodeOf(err) != muster.NotFound {
			return nil, err
		}
	}
	trust, events, err := a.trustOf(r.Context(), id, time.Time{}, shownEvents)
	switch {
	case muster.CodeOf(err) == muster.Unavailable:
		return v, nil
	case err != nil:
		return nil, err
	case trust.Reported:
		v.Rank = &trust.Rank
	}
	v.Trust, v.Events = &trust, events
	return v, nil
}

func (a *API) updateMachine(r *http.Request) (any, error) {
	var q struct {
		Name *string   `json:"name"`
		Tags *[]string `json:"tags"`

		Honeypot *bool  `json:"honeypot"`
		Reason   string `json:"reason"` // of what is audited: Honeypot
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	id, err := a.machineID(r)
	if err != nil {
		return nil, err
	}
	if q.Name != nil {
		if err := a.cfg.Machines.Rename(r.Context(), id, *q.Name); err != nil {
			return nil, err
		}
	}
	if q.Tags != nil {
		if err := a.cfg.Machines.Tag(r.Context(), id, *q.Tags); err != nil {
			return nil, err
		}
	}
	if q.Honeypot != nil {
		if err := a.setHoneypot(r, id, *q.Honeypot, q.Reason); err != nil {
			return nil, err
		}
	}
	return a.current(muster.Machine{ID: id}), nil
}

// setHoneypot is audited, because the word of a honeypot counts at once.
func (a *API) setHoneypot(r *http.Request, id string, honeypot bool, reason string) error {
	reason, err := reasonIfAny(reason)
	if err != nil {
		return err
	}
	entry, err := a.audited(r, "machine.honeypot", id, reason, map[string]bool{"honeypot": honeypot})
	if err != nil {
		return err
	}
	if err := a.cfg.Machines.SetHoneypot(r.Context(), id, honeypot); err != nil {
		return err
	}
	return a.cfg.Store.PutAudit(r.Context(), entry)
}

func (a *API) acceptMachine(r *http.Request) (any, error) {
	var q struct {
		Organisation string `json:"organisation"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	id, err := a.machineID(r)
	if err != nil {
		return nil, err
	}
	m, _ := a.cfg.Machines.Machine(id)
	org := m.Organisation
	if q.Organisation != "" || org == "" {
		if org, err = a.organisation(r, q.Organisation); err != nil {
			return nil, err
		}
	}
	if err := a.cfg.Machines.Accept(r.Context(), id, org); err != nil {
		return nil, err
	}
	return a.current(muster.Machine{ID: id}), nil
}

func (a *API) blockMachine(r *http.Request) (any, error) {
	return a.withMachine(r, a.cfg.Machines.Block)
}

func (a *API) unblockMachine(r *http.Request) (any, error) {
	return a.withMachine(r, a.cfg.Machines.Unblock)
}

func (a *API) releaseMachine(r *http.Request) (any, error) {
	return a.withMachine(r, a.cfg.Machines.Release)
}

func (a *API) removeMachine(r *http.Request) (any, error) {
	_, err := a.withMachine(r, a.cfg.Machines.Unregister)
	return nil, err
}

func (a *API) withMachine(r *http.Request, do contextual) (any, error) {
	id, err := a.machineID(r)
	if err != nil {
		return nil, err
	}
	if err := do(r.Context(), id); err != nil {
		return nil, err
	}
	return a.current(muster.Machine{ID: id}), nil
}

func (a *API) redeemClaim(r *http.Request) (any, error) {
	var q struct {
		Organisation string `json:"organisation"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	org, err := a.organisation(r, q.Organisation)
	if err != nil {
		return nil, err
	}
	m, err := a.cfg.Machines.RedeemClaim(r.Context(), r.PathValue("code"), org)
	if err != nil {
		return nil, err
	}
	return viewMachine(m), nil
}

// rotateTokenKey makes a new key for machines' tokens; those signed with the one
// before stay valid until the next rotation.
func (a *API) rotateTokenKey(r *http.Request) (any, error) {
	return nil, a.cfg.Machines.Rotate(r.Context())
}

// orderView is an order as the API shows it.
type orderView struct {
	ID        string           `json:"id"`
	Machine   string           `json:"machine"`
	Kind      muster.OrderKind `json:"kind"`
	Data      json.RawMessage  `json:"data"`
	Message   string           `json:"message"`
	IssuedBy  string           `json:"issued_by"`
	IssuedAt  time.Time        `json:"issued_at"`
	ExpiresAt time.Time        `json:"expires_at"`
}

func viewOrder(o muster.Order) orderView {
	return orderView{o.ID, o.Machine, o.Kind, o.Data, o.Message, o.IssuedBy, o.IssuedAt, o.ExpiresAt}
}

func (a *API) ordersOf(r *http.Request) (any, error) {
	id, err := a.machineID(r)
	if err != nil {
		return nil, err
	}
	list, err := a.cfg.Store.Orders(r.Context(), id, time.Time{}, a.cfg.Now(), maxPage)
	return views(list, viewOrder), err
}

// orderRequest describes an order; which fields are needed depends on Kind.
type orderRequest struct {
	Kind      muster.OrderKind `json:"kind"`
	Message   string           `json:"message"`
	Source    string           `json:"source"`    // alert/add: an address or a range
	Type      string           `json:"type"`      // alert/add: ban (default), captcha …
	Duration  string           `json:"duration"`  // alert/add: 4h (default), 7d …
	Decisions []string         `json:"decisions"` // decision/delete: uuids
	Name      string           `json:"name"`      // unsubscribe: the list's name
	ID        string           `json:"id"`        // allowlist_unsubscribe: the list's id
}

func (a *API) issueOrder(r *http.Request) (any, error) {
	var q orderRequest
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	id, err := a.machineID(r)
	if err != nil {
		return nil, err
	}
	m, _ := a.cfg.Machines.Machine(id)
	if m.State != muster.Active {
		return nil, muster.Errorf(muster.Invalid, "machine %s is %s: only an active one takes orders", clip(id), m.State)
	}
	o := muster.Order{Machine: id, Kind: q.Kind, Message: q.Message, IssuedBy: callerOf(r)}
	if o.Data, err = a.orderData(&o, q); err != nil {
		return nil, err
	}
	if o, err = a.cfg.Orders.Issue(r.Context(), o); err != nil {
		return nil, err
	}
	return viewOrder(o), nil
}

// orderData makes the wire data of an order. It is checked before the order is
// stored: what an engine cannot read, it would ask for again for ever.
func (a *API) orderData(o *muster.Order, q orderRequest) (json.RawMessage, error) {
	switch q.Kind {
	case muster.OrderAlertAdd:
		return a.alertData(o, q)
	case muster.OrderDecisionDelete:
		return wire.DecisionDeleteData(q.Decisions)
	case muster.OrderForcePull:
		return wire.ForcePullData(), nil
	case muster.OrderReauth:
		return wire.ReauthData(), nil
	case muster.OrderBlocklistUnsubscribe:
		return wire.BlocklistUnsubscribeData(q.Name)
	case muster.OrderAllowlistUnsubscribe:
		return wire.AllowlistUnsubscribeData(q.ID, q.Name)
	}
	return nil, muster.Errorf(muster.Invalid, "kind: expected alert/add, decision/delete, management/force_pull, management/reauth, "+
		"management/blocklist_unsubscribe or management/allowlist_unsubscribe, got %q", clip(string(q.Kind)))
}

func (a *API) alertData(o *muster.Order, q orderRequest) (json.RawMessage, error) {
	source, err := muster.ParseSource(q.Source)
	if err != nil {
		return nil, err
	}
	duration := 4 * time.Hour
	if q.Duration != "" {
		if duration, err = wire.ParseDuration(q.Duration); err != nil {
			return nil, err
		}
	}
	if q.Type == "" {
		q.Type = "ban"
	}
	if o.Message == "" {
		o.Message = "manual '" + q.Type + "' from Muster"
	}
	alert, err := uuid.NewRandom()
	if err != nil {
		return nil, err
	}
	decision, err := uuid.NewRandom()
	if err != nil {
		return nil, err
	}
	return wire.AlertAddData(wire.AlertAdd{
		UUID: alert.String(), CreatedAt: a.cfg.Now().UTC(),
		Decisions: []wire.AlertDecision{{
			UUID: decision.String(), Scenario: o.Message, Type: q.Type,
			Scope: source.Scope(), Value: wire.Value{Source: source}, Duration: duration,
		}},
	})
}
