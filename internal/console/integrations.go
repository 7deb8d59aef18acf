package console

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"muster"
	"muster/internal/catalog"
	"muster/internal/firewall"
)

// Integrations keeps firewalls and bouncers that read lists. Writes are durable
// when they return, together with their audit entries.
type Integrations interface {
	Integrations(ctx context.Context) ([]muster.Integration, error) // in order of ids
	// CreateIntegration is of code Exists when the organisation has one of that
	// name.
	CreateIntegration(ctx context.Context, i muster.Integration, audit ...muster.AuditEntry) error
	UpdateIntegration(ctx context.Context, id string, change func(*muster.Integration) error, audit ...muster.AuditEntry) (muster.Integration, error)
	DeleteIntegration(ctx context.Context, id string, audit ...muster.AuditEntry) error
	// IntegrationReports returns the last report from each address, newest first.
	IntegrationReports(ctx context.Context, id string) ([]muster.IntegrationReport, error)
}

// IntegrationLists knows which lists an integration reads.
type IntegrationLists interface {
	Subscribed(by muster.Subscriber) []muster.Blocklist
	// Subscribe finds the list by id or name; code NotFound.
	Subscribe(ctx context.Context, s muster.Subscription, by catalog.By) (muster.Subscription, error)
	Unsubscribe(ctx context.Context, list string, subscriber muster.Subscriber, by catalog.By) error
}

// offlineAfter is when an integration that has been read before is taken for
// broken: firewalls come at least once a day.
const offlineAfter = 24 * time.Hour

// integrationView is an integration as the API shows it.
type integrationView struct {
	ID              string                 `json:"id"`
	Name            string                 `json:"name"`
	Kind            muster.IntegrationKind `json:"kind"`
	Organisation    string                 `json:"organisation"`
	Format          string                 `json:"format"`     // "" for a bouncer
	Budget          int                    `json:"budget"`     // 0 = no limit
	Collateral      float64                `json:"collateral"` // share of a range
	IPv4            bool                   `json:"ipv4"`
	IPv6            bool                   `json:"ipv6"`
	IntervalSeconds int64                  `json:"interval_seconds"` // 0 = any
	Lists           []readListView         `json:"lists"`
	URL             string                 `json:"url"`
	User            string                 `json:"user"`
	CreatedAt       time.Time              `json:"created_at"`
	CreatedBy       string                 `json:"created_by"`
	RotatedAt       time.Time              `json:"rotated_at"`
	State           string                 `json:"state"` // never, ok, or offline for a day
	LastPull        *time.Time             `json:"last_pull"`
	LastClient      string                 `json:"last_client"`
	LastAddress     string                 `json:"last_address"`
	LastEntries     int                    `json:"last_entries"`

	Secret string            `json:"secret,omitempty"` // password or key, only when it is made
	Setup  string            `json:"setup,omitempty"`  // of one integration
	Notes  string            `json:"notes,omitempty"`  // likewise
	Usage  []usageReportView `json:"usage,omitempty"`  // likewise
}

// readListView is a list that an integration reads.
type readListView struct {
	ID     string        `json:"id"`
	Name   string        `json:"name"`
	Remedy muster.Remedy `json:"remedy"`
}

// usageReportView is what a bouncer last told from an address.
type usageReportView struct {
	Address string          `json:"address"`
	At      time.Time       `json:"at"`
	Report  json.RawMessage `json:"report"`
}

func subscriberOf(i *muster.Integration) muster.Subscriber {
	return muster.Subscriber{Kind: muster.SubscriberIntegration, ID: i.ID, Organisation: i.Organisation}
}

func (a *API) viewIntegration(i muster.Integration) integrationView {
	seen := i.Seen
	if a.cfg.IntegrationContact != nil { // what this node knows may not be stored yet
		if last, ok := a.cfg.IntegrationContact(i.ID); ok && last.Pull.After(seen.Pull) {
			seen = last
		}
	}
	v := integrationView{
		ID: i.ID, Name: i.Name, Kind: i.Kind, Organisation: i.Organisation, Format: i.Format, Budget: i.Budget, Collateral: i.Collateral,
		IPv4: !i.NoIPv4, IPv6: !i.NoIPv6, IntervalSeconds: int64(i.Interval / time.Second), Lists: []readListView{},
		URL: a.integrationURL(&i), User: i.User, CreatedAt: i.CreatedAt, CreatedBy: i.CreatedBy, RotatedAt: i.RotatedAt,
		State: "never", LastPull: orNull(seen.Pull), LastClient: seen.Agent, LastEntries: seen.Entries,
	}
	if seen.Addr.IsValid() {
		v.LastAddress = seen.Addr.String()
	}
	if !seen.Pull.IsZero() {
		v.State = "ok"
		if a.cfg.Now().Sub(seen.Pull) > offlineAfter {
			v.State = "offline"
		}
	}
	for _, l := range a.cfg.IntegrationLists.Subscribed(subscriberOf(&i)) {
		v.Lists = append(v.Lists, readListView{l.ID, l.Name, l.Remedy})
	}
	return v
}

// integrationURL is what the product is told: the file, or the address of a
// bouncer's local API, which has no slash at its end because some add one.
func (a *API) integrationURL(i *muster.Integration) string {
	url := strings.TrimSuffix(a.cfg.PublicURL, "/") + muster.IntegrationPath + i.ID
	if i.Kind == muster.FirewallIntegration {
		url += "/content"
	}
	return url
}

// explained adds to a view how the product is set up, with the secret or a word
// in its place.
func (a *API) explained(i muster.Integration, secret string) integrationView {
	v := a.viewIntegration(i)
	access := firewall.Access{Name: i.Name, URL: v.URL, User: i.User, Password: cmp.Or(secret, "PASSWORD")}
	if i.Kind == muster.BouncerIntegration {
		access.Password = cmp.Or(secret, "KEY")
		v.Setup = firewall.BouncerSetup(access)
	} else if f, err := firewall.Of(i.Format); err == nil {
		v.Setup, v.Notes = f.Setup(access), f.Notes
	}
	v.Secret = secret
	return v
}

func (a *API) integrations(r *http.Request) (any, error) {
	list, err := a.cfg.Integrations.Integrations(r.Context())
	if err != nil {
		return nil, err
	}
	if ref := r.URL.Query().Get("organisation"); ref != "" {
		organisation, err := a.organisation(r, ref)
		if err != nil {
			return nil, err
		}
		list = slices.DeleteFunc(list, func(i muster.Integration) bool { return i.Organisation != organisation })
	}
	return views(list, a.viewIntegration), nil
}

// integrationOf finds the integration that a path names, by id, or by name when
// only one has it.
func (a *API) integrationOf(r *http.Request) (muster.Integration, error) {
	ref := r.PathValue("id")
	list, err := a.cfg.Integrations.Integrations(r.Context())
	if err != nil {
		return muster.Integration{}, err
	}
	var found []muster.Integration
	for _, i := range list {
		if i.ID == ref {
			return i, nil
		}
		if i.Name == ref {
			found = append(found, i)
		}
	}
	switch len(found) {
	case 0:
		return muster.Integration{}, muster.Errorf(muster.NotFound, "there is no integration %q: muster admin integration list shows them", clip(ref))
	case 1:
		return found[0], nil
	}
	return muster.Integration{}, muster.Errorf(muster.Invalid, "%d integrations are named %q: name one by its id", len(found), clip(ref))
}

func (a *API) integration(r *http.Request) (any, error) {
	i, err := a.integrationOf(r)
	if err != nil {
		return nil, err
	}
	reports, err := a.cfg.Integrations.IntegrationReports(r.Context(), i.ID)
	if err != nil {
		return nil, err
	}
	v := a.explained(i, "")
	for _, report := range reports {
		if json.Valid(report.Body) {
			v.Usage = append(v.Usage, usageReportView{report.Addr.String(), report.At, report.Body})
		}
	}
	return v, nil
}

// integrationSettings are what people choose of an integration; nil leaves what
// is there.
type integrationSettings struct {
	Name            *string   `json:"name"`
	Format          *string   `json:"format"`
	Budget          *int      `json:"budget"`
	Collateral      *float64  `json:"collateral"`
	IPv4            *bool     `json:"ipv4"`
	IPv6            *bool     `json:"ipv6"`
	IntervalSeconds *int64    `json:"interval_seconds"`
	Lists           *[]string `json:"lists"` // ids or names
	Reason          string    `json:"reason"`
}

// apply changes an integration and checks the whole.
func (q *integrationSettings) apply(i *muster.Integration) error {
	set(&i.Name, q.Name)
	set(&i.Format, q.Format)
	set(&i.Budget, q.Budget)
	set(&i.Collateral, q.Collateral)
	if q.IPv4 != nil {
		i.NoIPv4 = !*q.IPv4
	}
	if q.IPv6 != nil {
		i.NoIPv6 = !*q.IPv6
	}
	if q.IntervalSeconds != nil {
		if *q.IntervalSeconds < 0 || *q.IntervalSeconds > int64(muster.MaxIntegrationInterval/time.Second) {
			return muster.Errorf(muster.Invalid, "interval_seconds: expected 0 to %d, got %d", int64(muster.MaxIntegrationInterval/time.Second), *q.IntervalSeconds)
		}
		i.Interval = time.Duration(*q.IntervalSeconds) * time.Second
	}
	if err := muster.ValidateIntegration(*i); err != nil {
		return err
	}
	if i.Kind == muster.BouncerIntegration {
		switch {
		case i.Format != "":
			return muster.Errorf(muster.Invalid, "format: a bouncer has none; leave it out, or make a firewall's integration")
		case i.Collateral > 0:
			return muster.Errorf(muster.Invalid, "collateral: a bouncer is told every address by itself")
		case i.Interval > 0:
			return muster.Errorf(muster.Invalid, "interval_seconds: a bouncer comes as often as it wants to")
		}
		return nil
	}
	f, err := firewall.Of(i.Format)
	switch {
	case err != nil:
		return err
	case i.NoIPv4 && !f.IPv6:
		return muster.Errorf(muster.Invalid, "%s reads IPv4 only, which is turned off", f.Label)
	case i.Collateral > 0 && !f.Ranges:
		return muster.Errorf(muster.Invalid, "collateral: %s reads no ranges, so that nothing is put together for it", f.Label)
	}
	return nil
}

func set[T any](into, from *T) {
	if from != nil {
		*into = *from
	}
}

func (a *API) createIntegration(r *http.Request) (any, error) {
	var q struct {
		integrationSettings
		Kind         muster.IntegrationKind `json:"kind"`         // left out: firewall when there is a format
		Organisation string                 `json:"organisation"` // id or name; "" = the first one
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	reason, err := reasonIfAny(q.Reason)
	if err != nil {
		return nil, err
	}
	organisation, err := a.organisation(r, q.Organisation)
	if err != nil {
		return nil, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	now := a.cfg.Now().UTC()
	i := muster.Integration{ID: id.String(), Kind: q.Kind, Organisation: organisation, CreatedAt: now, CreatedBy: callerOf(r)}
	if i.Kind == "" {
		i.Kind = muster.BouncerIntegration
		if q.Format != nil && *q.Format != "" {
			i.Kind = muster.FirewallIntegration
		}
	}
	if i.Kind == muster.FirewallIntegration && q.Format != nil {
		if f, err := firewall.Of(*q.Format); err == nil {
			i.Budget, i.NoIPv6 = f.Budget, !f.IPv6
		}
	}
	if err := q.apply(&i); err != nil {
		return nil, err
	}
	secret := renew(&i, now)
	lists := []string{muster.CommunityList}
	if q.Lists != nil {
		lists = *q.Lists
	}
	entry, err := a.audited(r, "integration.create", i.ID, reason, a.viewIntegration(i))
	if err != nil {
		return nil, err
	}
	if err := a.cfg.Integrations.CreateIntegration(r.Context(), i, entry); err != nil {
		return nil, err
	}
	if err := a.readsOnly(r, &i, lists, reason); err != nil {
		// Half of it would be there without its secret ever having been shown.
		if undo := a.cfg.Integrations.DeleteIntegration(r.Context(), i.ID); undo != nil {
			return nil, undo
		}
		return nil, err
	}
	if err := a.integrationsChanged(r.Context()); err != nil {
		return nil, err
	}
	return a.explained(i, secret), nil
}

// renew gives an integration new credentials and returns the secret.
func renew(i *muster.Integration, now time.Time) (secret string) {
	secret = rand.Text()
	sum := sha256.Sum256([]byte(secret))
	i.Secret, i.RotatedAt = sum[:], now
	if i.Kind == muster.FirewallIntegration {
		i.User = strings.ToLower(rand.Text()[:12])
	}
	return secret
}

// readsOnly makes an integration read these lists, named by id or name, and no
// others.
func (a *API) readsOnly(r *http.Request, i *muster.Integration, lists []string, reason string) error {
	by, who := subscriberOf(i), catalog.By{User: callerOf(r), Reason: reason}
	wanted := map[string]bool{}
	reads := a.cfg.IntegrationLists.Subscribed(by)
	for _, ref := range lists {
		if n := slices.IndexFunc(reads, func(l muster.Blocklist) bool { return l.ID == ref || l.Name == ref }); n >= 0 {
			wanted[reads[n].ID] = true
			continue
		}
		sub, err := a.cfg.IntegrationLists.Subscribe(r.Context(), muster.Subscription{Blocklist: ref, Subscriber: by}, who)
		if err != nil {
			return err
		}
		wanted[sub.Blocklist] = true
	}
	for _, l := range reads {
		if !wanted[l.ID] {
			if err := a.cfg.IntegrationLists.Unsubscribe(r.Context(), l.ID, by, who); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *API) updateIntegration(r *http.Request) (any, error) {
	i, err := a.integrationOf(r)
	if err != nil {
		return nil, err
	}
	var q integrationSettings
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	reason, err := reasonIfAny(q.Reason)
	if err != nil {
		return nil, err
	}
	entry, err := a.audited(r, "integration.update", i.ID, reason, q)
	if err != nil {
		return nil, err
	}
	if i, err = a.cfg.Integrations.UpdateIntegration(r.Context(), i.ID, q.apply, entry); err != nil {
		return nil, err
	}
	if q.Lists != nil {
		if err := a.readsOnly(r, &i, *q.Lists, reason); err != nil {
			return nil, err
		}
	}
	if err := a.integrationsChanged(r.Context()); err != nil {
		return nil, err
	}
	return a.explained(i, ""), nil
}

// rotateIntegration replaces the credentials; the old ones are refused at once.
func (a *API) rotateIntegration(r *http.Request) (any, error) {
	i, err := a.integrationOf(r)
	if err != nil {
		return nil, err
	}
	entry, err := a.reasoned(r, "integration.rotate", i.ID)
	if err != nil {
		return nil, err
	}
	var secret string
	i, err = a.cfg.Integrations.UpdateIntegration(r.Context(), i.ID, func(i *muster.Integration) error {
		secret = renew(i, a.cfg.Now().UTC())
		return nil
	}, entry)
	if err != nil {
		return nil, err
	}
	if err := a.integrationsChanged(r.Context()); err != nil {
		return nil, err
	}
	return a.explained(i, secret), nil
}

func (a *API) deleteIntegration(r *http.Request) (any, error) {
	i, err := a.integrationOf(r)
	if err != nil {
		return nil, err
	}
	entry, err := a.reasoned(r, "integration.delete", i.ID)
	if err != nil {
		return nil, err
	}
	if err := a.readsOnly(r, &i, nil, entry.Reason); err != nil {
		return nil, err
	}
	if err := a.cfg.Integrations.DeleteIntegration(r.Context(), i.ID, entry); err != nil {
		return nil, err
	}
	return nil, a.integrationsChanged(r.Context())
}

func (a *API) integrationsChanged(ctx context.Context) error {
	if a.cfg.IntegrationsChanged == nil {
		return nil
	}
	return a.cfg.IntegrationsChanged(ctx)
}

// integrationFormats says what firewalls can be written for.
func (a *API) integrationFormats(*http.Request) (any, error) {
	return views(firewall.Formats(), func(f firewall.Format) any {
		return struct {
			Format string `json:"format"`
			Label  string `json:"label"`
			IPv6   bool   `json:"ipv6"`
			Ranges bool   `json:"ranges"`
			Max    int    `json:"max"` // 0 = not known
			Budget int    `json:"budget"`
			Notes  string `json:"notes"`
		}{f.Name, f.Label, f.IPv6, f.Ranges, f.Max, f.Budget, f.Notes}
	}), nil
}
