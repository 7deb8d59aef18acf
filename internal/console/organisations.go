package console

import (
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"muster"
	"muster/internal/enroll"
)

// organisationView is an organisation as the API shows it.
type organisationView struct {
	ID        string             `json:"id"`
	Name      string             `json:"name"`
	Plan      muster.Plan        `json:"plan"`
	Fleet     muster.FleetPolicy `json:"fleet"`
	CreatedAt time.Time          `json:"created_at"`
}

func viewOrganisation(o muster.Organisation) organisationView {
	return organisationView{o.ID, o.Name, o.Plan, o.Fleet, o.CreatedAt}
}

func (a *API) organisations(r *http.Request) (any, error) {
	list, err := a.cfg.Store.Organisations(r.Context())
	return views(list, viewOrganisation), err
}

func (a *API) createOrganisation(r *http.Request) (any, error) {
	q := struct {
		Name  string             `json:"name"`
		Plan  muster.Plan        `json:"plan"`
		Fleet muster.FleetPolicy `json:"fleet"`
	}{Plan: muster.Enterprise, Fleet: muster.FleetHub}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	o, err := NewOrganisation(q.Name, a.cfg.Now())
	if err != nil {
		return nil, err
	}
	o.Plan, o.Fleet = q.Plan, q.Fleet
	if err := checkOrganisation(o); err != nil {
		return nil, err
	}
	if err := a.cfg.Store.CreateOrganisation(r.Context(), o); err != nil {
		return nil, err
	}
	return viewOrganisation(o), a.cfg.OrganisationsChanged(r.Context())
}

// NewOrganisation returns an organisation with the defaults: the plan under
// which engines take orders, and the fleet policy for hub scenarios.
func NewOrganisation(name string, now time.Time) (muster.Organisation, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return muster.Organisation{}, err
	}
	return muster.Organisation{
		ID: id.String(), Name: strings.TrimSpace(name), CreatedAt: now.UTC(),
		Plan: muster.Enterprise, Fleet: muster.FleetHub,
	}, nil
}

func checkOrganisation(o muster.Organisation) error {
	switch {
	case o.Name == "" || len(o.Name) > 100:
		return muster.Errorf(muster.Invalid, "name: expected 1 to 100 bytes, got %d", len(o.Name))
	case !o.Plan.Valid():
		return muster.Errorf(muster.Invalid, "plan: expected COMMUNITY, SECOPS or ENTERPRISE, got %q", clip(string(o.Plan)))
	case !o.Fleet.Valid():
		return muster.Errorf(muster.Invalid, "fleet: expected off, hub or all, got %q", clip(string(o.Fleet)))
	}
	return nil
}

func (a *API) updateOrganisation(r *http.Request) (any, error) {
	var q struct {
		Name  *string             `json:"name"`
		Plan  *muster.Plan        `json:"plan"`
		Fleet *muster.FleetPolicy `json:"fleet"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	o, err := a.cfg.Store.UpdateOrganisation(r.Context(), r.PathValue("id"), func(o *muster.Organisation) error {
		if q.Name != nil {
			o.Name = strings.TrimSpace(*q.Name)
		}
		if q.Plan != nil {
			o.Plan = *q.Plan
		}
		if q.Fleet != nil {
			o.Fleet = *q.Fleet
		}
		return checkOrganisation(*o)
	})
	if err != nil {
		return nil, err
	}
	return viewOrganisation(o), a.cfg.OrganisationsChanged(r.Context())
}

// keyView is an enrolment key as the API shows it; Key is there once, when it
// is made.
type keyView struct {
	ID           string     `json:"id"`
	Key          string     `json:"key,omitempty"`
	Organisation string     `json:"organisation"`
	Tags         []string   `json:"tags"`
	AutoAccept   bool       `json:"auto_accept"`
	MaxUses      int        `json:"max_uses"`
	Uses         int        `json:"uses"`
	Usable       bool       `json:"usable"`
	CreatedAt    time.Time  `json:"created_at"`
	ExpiresAt    *time.Time `json:"expires_at"`
	RevokedAt    *time.Time `json:"revoked_at"`
}

func (a *API) viewKey(k muster.EnrolmentKey) keyView {
	return keyView{
		ID: k.ID, Organisation: k.Organisation, Tags: orEmpty(k.Tags), AutoAccept: k.AutoAccept,
		MaxUses: k.MaxUses, Uses: k.Uses, Usable: k.Usable(a.cfg.Now()) == nil,
		CreatedAt: k.CreatedAt, ExpiresAt: orNull(k.ExpiresAt), RevokedAt: orNull(k.RevokedAt),
	}
}

func (a *API) keys(r *http.Request) (any, error) {
	list, err := a.cfg.Store.EnrolmentKeys(r.Context(), r.URL.Query().Get("organisation"))
	return views(list, a.viewKey), err
}

func (a *API) createKey(r *http.Request) (any, error) {
	var q struct {
		Organisation string   `json:"organisation"`
		Tags         []string `json:"tags"`
		AutoAccept   bool     `json:"auto_accept"`
		MaxUses      int      `json:"max_uses"`
		TTLSeconds   int64    `json:"ttl_seconds"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	ttl, err := lifetime(q.TTLSeconds)
	if err != nil {
		return nil, err
	}
	org, err := a.organisation(r, q.Organisation)
	if err != nil {
		return nil, err
	}
	text, key, err := a.cfg.Machines.CreateKey(r.Context(), enroll.KeyRequest{
		Organisation: org, Tags: q.Tags, AutoAccept: q.AutoAccept,
		MaxUses: q.MaxUses, TTL: ttl,
	})
	if err != nil {
		return nil, err
	}
	v := a.viewKey(key)
	v.Key = text
	return v, nil
}

// organisation finds an organisation by id or name; "" is the first one, so that
// a single-tenant installation need not name it.
func (a *API) organisation(r *http.Request, ref string) (string, error) {
	list, err := a.cfg.Store.Organisations(r.Context())
	if err != nil {
		return "", err
	}
	for _, o := range list {
		if ref != "" && (o.ID == ref || strings.EqualFold(o.Name, ref)) {
			return o.ID, nil
		}
	}
	if ref != "" {
		return "", muster.Errorf(muster.NotFound, "there is no organisation %q: muster admin org list shows them", clip(ref))
	}
	return firstOrganisation(list)
}

// firstOrganisation is the one that the installation began with.
func firstOrganisation(list []muster.Organisation) (string, error) {
	if len(list) == 0 {
		return "", muster.Errorf(muster.NotFound, "there is no organisation yet: make one with muster admin org create NAME")
	}
	first := list[0]
	for _, o := range list[1:] {
		if o.CreatedAt.Before(first.CreatedAt) {
			first = o
		}
	}
	return first.ID, nil
}

func (a *API) revokeKey(r *http.Request) (any, error) {
	return nil, a.cfg.Store.RevokeEnrolmentKey(r.Context(), r.PathValue("id"), a.cfg.Now())
}

// views maps a list; the result is never null in JSON.
func views[T, V any](list []T, view func(T) V) []V {
	out := make([]V, len(list))
	for i, t := range list {
		out[i] = view(t)
	}
	return out
}

func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
