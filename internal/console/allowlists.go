package console

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"muster"
	"muster/internal/allow"
)

// Allowlists keeps lists and what is on them. Writes are durable when they
// return, together with their audit entries. Organisations are ids; "*" stands
// for all of them, and each sees the installation's lists beside its own.
type Allowlists interface {
	Lists(organisation string) []allow.Overview
	// List finds a list by id or name; codes muster.NotFound, and muster.Invalid for
	// a name that several have.
	List(ref, organisation string) (allow.Overview, error)
	Items(id string) ([]allow.ItemState, error)
	// Covering returns what lets any address of a source through.
	Covering(source muster.Source, organisation string) []allow.Hit

	Create(ctx context.Context, l muster.Allowlist, audit ...muster.AuditEntry) (allow.Overview, error)
	Update(ctx context.Context, id string, change func(*muster.Allowlist) error, audit ...muster.AuditEntry) (allow.Overview, error)
	Delete(ctx context.Context, id string, audit ...muster.AuditEntry) error
	Put(ctx context.Context, id string, items []muster.AllowItem, audit ...muster.AuditEntry) ([]allow.ItemState, error)
	Remove(ctx context.Context, id string, items []muster.AllowItem, audit ...muster.AuditEntry) error
}

// targetView is whom a list is for, as the API takes and shows it.
type targetView struct {
	Kind muster.SubscriberKind `json:"kind"` // organisation, tag, machine or integration
	ID   string                `json:"id,omitempty"`
}

// allowlistView is a list as the API shows it.
type allowlistView struct {
	ID           string       `json:"id"`
	Name         string       `json:"name"`
	Description  string       `json:"description"`
	Central      bool         `json:"central"` // the installation's, for everybody
	Organisation string       `json:"organisation"`
	Targets      []targetView `json:"targets"`
	Items        int          `json:"items"`
	Ranges       int          `json:"ranges"`      // addresses and ranges that the items stand for now
	Bytes        int          `json:"bytes"`       // that an engine downloads, uncompressed
	Machines     int          `json:"machines"`    // for which it is
	Withdrawing  int          `json:"withdrawing"` // machines that are still to let go of it
	CreatedAt    time.Time    `json:"created_at"`
	UpdatedAt    time.Time    `json:"updated_at"`
	CreatedBy    string       `json:"created_by"`
}

func viewAllowlist(o allow.Overview) allowlistView {
	return allowlistView{
		o.ID, o.Name, o.Description, o.Central(), o.Organisation,
		views(o.Targets, func(t muster.Subscriber) targetView { return targetView{t.Kind, t.ID} }),
		o.Items, o.Ranges, o.Bytes, o.Machines, o.Withdrawing, o.CreatedAt, o.UpdatedAt, o.CreatedBy,
	}
}

// allowItemView is an item as the API shows it.
type allowItemView struct {
	Kind      muster.AllowKind `json:"kind"`
	Value     string           `json:"value"`
	Reason    string           `json:"reason"`
	CreatedAt time.Time        `json:"created_at"`
	ExpiresAt *time.Time       `json:"expires_at"`
	By        string           `json:"by"`
	Ranges    int              `json:"ranges"`    // addresses and ranges that it stands for now
	Addresses []netip.Addr     `json:"addresses"` // of a host name, now
	Problem   string           `json:"problem"`   // "" = nothing is wrong with it
}

func viewAllowItem(i allow.ItemState) allowItemView {
	return allowItemView{
		i.Kind, i.Value, i.Reason, i.CreatedAt, orNull(i.ExpiresAt), i.By, i.Ranges, append([]netip.Addr{}, i.Addresses...), i.Problem,
	}
}

func (a *API) allowlists(r *http.Request) (any, error) {
	organisation, err := a.organisationOrAll(r)
	if err != nil {
		return nil, err
	}
	return views(a.cfg.Allowlists.Lists(organisation), viewAllowlist), nil
}

// organisationOrAll reads the organisation of a query, by id or name; none is
// "*", all of them.
func (a *API) organisationOrAll(r *http.Request) (string, error) {
	ref := r.URL.Query().Get("organisation")
	if ref == "" {
		return "*", nil
	}
	return a.organisation(r, ref)
}

// allowlistOf finds the list that a path names, by id or name.
func (a *API) allowlistOf(r *http.Request) (allow.Overview, error) {
	organisation, err := a.organisationOrAll(r)
	if err != nil {
		return allow.Overview{}, err
	}
	return a.cfg.Allowlists.List(r.PathValue("id"), organisation)
}

func (a *API) allowlistNamed(r *http.Request) (any, error) {
	l, err := a.allowlistOf(r)
	if err != nil {
		return nil, err
	}
	return viewAllowlist(l), nil
}

func (a *API) createAllowlist(r *http.Request) (any, error) {
	var q struct {
		Name         string       `json:"name"`
		Description  string       `json:"description"`
		Central      bool         `json:"central"`
		Organisation string       `json:"organisation"` // id or name; "" = the first one
		Targets      []targetView `json:"targets"`      // left out = all of the organisation
		Reason       string       `json:"reason"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	l := muster.Allowlist{Name: q.Name, Description: strings.TrimSpace(q.Description), CreatedBy: callerOf(r)}
	switch {
	case q.Central && q.Organisation != "":
		return nil, muster.Errorf(muster.Invalid, "expected central or an organisation, got both")
	case !q.Central:
		var err error
		if l.Organisation, err = a.organisation(r, q.Organisation); err != nil {
			return nil, err
		}
		if q.Targets == nil {
			q.Targets = []targetView{{Kind: muster.SubscriberOrganisation}}
		}
	}
	var err error
	if l.Targets, err = a.targets(r, l.Organisation, q.Targets); err != nil {
		return nil, err
	}
	entry, err := a.allowAudit(r, "allowlist.create", q.Name, q.Reason, q)
	if err != nil {
		return nil, err
	}
	made, err := a.cfg.Allowlists.Create(r.Context(), l, entry)
	if err != nil {
		return nil, err
	}
	return viewAllowlist(made), nil
}

// targets reads whom a list of an organisation is for; machines by id or name.
func (a *API) targets(r *http.Request, organisation string, list []targetView) ([]muster.Subscriber, error) {
	var out []muster.Subscriber
	for _, t := range list {
		if t.Kind == muster.SubscriberMachine {
			id, err := a.machineNamed(r.Context(), t.ID)
			if err != nil {
				return nil, err
			}
			if m, ok := a.cfg.Machines.Machine(id); ok && m.Organisation != organisation {
				return nil, muster.Errorf(muster.Invalid, "targets: machine %q is not of this organisation", clip(t.ID))
			}
			t.ID = id
		}
		out = append(out, muster.Subscriber{Kind: t.Kind, ID: t.ID, Organisation: organisation})
	}
	return out, nil
}

// allowAudit makes an audit entry with the reason that a body has, if any.
func (a *API) allowAudit(r *http.Request, action, subject, reason string, detail any) (muster.AuditEntry, error) {
	reason, err := reasonIfAny(reason)
	if err != nil {
		return muster.AuditEntry{}, err
	}
	return a.audited(r, action, subject, reason, detail)
}

func (a *API) updateAllowlist(r *http.Request) (any, error) {
	var q struct {
		Name        *string       `json:"name"`
		Description *string       `json:"description"`
		Targets     *[]targetView `json:"targets"`
		Reason      string        `json:"reason"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	l, err := a.allowlistOf(r)
	if err != nil {
		return nil, err
	}
	var targets []muster.Subscriber
	if q.Targets != nil {
		if targets, err = a.targets(r, l.Organisation, *q.Targets); err != nil {
			return nil, err
		}
	}
	entry, err := a.allowAudit(r, "allowlist.set", l.Name, q.Reason, q)
	if err != nil {
		return nil, err
	}
	updated, err := a.cfg.Allowlists.Update(r.Context(), l.ID, func(l *muster.Allowlist) error {
		if q.Name != nil {
			l.Name = *q.Name
		}
		if q.Description != nil {
			l.Description = strings.TrimSpace(*q.Description)
		}
		if q.Targets != nil {
			l.Targets = targets
		}
		return nil
	}, entry)
	if err != nil {
		return nil, err
	}
	return viewAllowlist(updated), nil
}

func (a *API) deleteAllowlist(r *http.Request) (any, error) {
	l, err := a.allowlistOf(r)
	if err != nil {
		return nil, err
	}
	entry, err := a.reasoned(r, "allowlist.delete", l.Name)
	if err != nil {
		return nil, err
	}
	return nil, a.cfg.Allowlists.Delete(r.Context(), l.ID, entry)
}

func (a *API) allowItems(r *http.Request) (any, error) {
	l, err := a.allowlistOf(r)
	if err != nil {
		return nil, err
	}
	items, err := a.cfg.Allowlists.Items(l.ID)
	return views(items, viewAllowItem), err
}

func (a *API) putAllowItems(r *http.Request) (any, error) {
	var q struct {
		Values     []string `json:"values"`
		Reason     string   `json:"reason"`
		TTLSeconds int64    `json:"ttl_seconds"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	// The list that every installation has need not be there before.
	l, err := a.allowlistOf(r)
	if err != nil && r.PathValue("id") != muster.CentralAllowlist {
		return nil, err
	}
	if l.ID == "" {
		l.ID, l.Name = muster.CentralAllowlist, muster.CentralAllowlist
	}
	ttl, err := lifetime(q.TTLSeconds)
	if err != nil {
		return nil, err
	}
	if len(q.Values) == 0 || len(q.Values) > muster.MaxAllowItems {
		return nil, muster.Errorf(muster.Invalid, "values: expected 1 to %d, got %d", muster.MaxAllowItems, len(q.Values))
	}
	var items []muster.AllowItem
	for _, value := range q.Values {
		i, err := muster.ParseAllowItem(value)
		if err != nil {
			return nil, err
		}
		i.By, i.ExpiresAt = callerOf(r), endOf(a.cfg.Now().UTC(), ttl)
		if i.Reason, err = reasonIfAny(q.Reason); err != nil {
			return nil, err
		}
		items = append(items, i)
	}
	entry, err := a.allowAudit(r, "allowlist.add", l.Name, q.Reason, q)
	if err != nil {
		return nil, err
	}
	states, err := a.cfg.Allowlists.Put(r.Context(), l.ID, items, entry)
	if err != nil {
		return nil, err
	}
	return views(states, viewAllowItem), nil
}

func (a *API) removeAllowItem(r *http.Request) (any, error) {
	l, err := a.allowlistOf(r)
	if err != nil {
		return nil, err
	}
	i, err := muster.ParseAllowItem(r.PathValue("value"))
	if err != nil {
		return nil, err
	}
	entry, err := a.reasoned(r, "allowlist.remove", l.Name)
	if err != nil {
		return nil, err
	}
	return nil, a.cfg.Allowlists.Remove(r.Context(), l.ID, []muster.AllowItem{i}, entry)
}

// hitView says by what a source is let through.
type hitView struct {
	List         string     `json:"list"` // its id
	Name         string     `json:"name"`
	Central      bool       `json:"central"`
	Organisation string     `json:"organisation"`
	Value        string     `json:"value"` // the item
	Range        string     `json:"range"` // by which of its ranges
	Reason       string     `json:"reason"`
	Until        *time.Time `json:"until"` // null = for as long as the item is there
}

// allowed answers by which items of which lists an address or a range is let
// through, whole or in part.
func (a *API) allowed(r *http.Request) (any, error) {
	source, err := muster.ParseSource(r.PathValue("value"))
	if err != nil {
		return nil, err
	}
	organisation, err := a.organisationOrAll(r)
	if err != nil {
		return nil, err
	}
	hits := a.cfg.Allowlists.Covering(source, organisation)
	return views(hits, func(h allow.Hit) hitView {
		return hitView{
			h.List.ID, h.List.Name, h.List.Central(), h.List.Organisation,
			h.Item.Value, muster.SourceFromPrefix(h.Prefix).String(), h.Item.Reason, orNull(h.Until),
		}
	}), nil
}
