package console

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"muster"
	"muster/internal/wire"
)

// contextual is an action on a machine.
type contextual = func(ctx context.Context, id string) error

func (a *API) status(r *http.Request) (any, error) {
	return a.cfg.Status(r.Context()), nil
}

// allowView is an allowlist entry as the API shows it.
type allowView struct {
	Value     string     `json:"value"`
	Reason    string     `json:"reason"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at"`
}

func viewAllow(e muster.AllowEntry) allowView {
	return allowView{e.Source.String(), e.Reason, e.CreatedAt, orNull(e.ExpiresAt)}
}

func (a *API) allowlist(r *http.Request) (any, error) {
	list, err := a.cfg.Store.AllowEntries(r.Context(), a.cfg.Now())
	return views(list, viewAllow), err
}

func (a *API) allow(r *http.Request) (any, error) {
	var q struct {
		Values     []string `json:"values"`
		Reason     string   `json:"reason"`
		TTLSeconds int64    `json:"ttl_seconds"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	if len(q.Values) == 0 {
		return nil, muster.Errorf(muster.Invalid, "values: expected at least one address or range")
	}
	ttl, err := lifetime(q.TTLSeconds)
	if err != nil {
		return nil, err
	}
	now := a.cfg.Now().UTC()
	var entries []muster.AllowEntry
	for _, v := range q.Values {
		source, err := muster.ParseSource(v)
		if err != nil {
			return nil, err
		}
		if err := checkWidth(source, exemptBits4, exemptBits6); err != nil {
			return nil, err
		}
		entries = append(entries, muster.AllowEntry{Source: source, Reason: q.Reason, CreatedAt: now, ExpiresAt: endOf(now, ttl)})
	}
	if err := a.cfg.Store.PutAllowEntries(r.Context(), entries); err != nil {
		return nil, err
	}
	return views(entries, viewAllow), a.cfg.AllowlistChanged(r.Context())
}

func (a *API) disallow(r *http.Request) (any, error) {
	source, err := muster.ParseSource(r.PathValue("value"))
	if err != nil {
		return nil, err
	}
	if err := a.cfg.Store.DeleteAllowEntry(r.Context(), source); err != nil {
		return nil, err
	}
	return nil, a.cfg.AllowlistChanged(r.Context())
}

// alertView is a stored signal as the API shows it to its owner.
type alertView struct {
	ID           string          `json:"id"`
	Machine      string          `json:"machine"`
	Organisation string          `json:"organisation"`
	Received     time.Time       `json:"received"`
	At           time.Time       `json:"at"`
	Source       string          `json:"source"`
	Scope        string          `json:"scope"`
	Scenario     string          `json:"scenario"`
	Hash         string          `json:"scenario_hash"`
	Version      string          `json:"scenario_version"`
	Trust        string          `json:"trust"`
	Kind         string          `json:"kind"`
	Country      string          `json:"country"`
	ASN          uint32          `json:"as_number"`
	ASName       string          `json:"as_name"`
	Counts       bool            `json:"counts"` // may be evidence for the network
	Fleet        bool            `json:"fleet"`  // went to its organisation's other machines
	Detail       json.RawMessage `json:"detail"`
}

func viewAlert(s muster.Signal) alertView {
	v := alertView{
		ID: hex.EncodeToString(s.ID[:]), Machine: s.Machine, Organisation: s.Organisation,
		Received: s.Received, At: s.At, Source: s.Value, Scope: s.Scope,
		Scenario: s.Scenario, Hash: s.ScenarioHash, Version: s.Version, Trust: s.Trust.String(), Kind: s.Kind,
		Country: s.Country, ASN: s.ASN, ASName: s.ASName,
		Counts: s.Flags&muster.Counts != 0, Fleet: s.Flags&muster.Fleet != 0,
	}
	if s.Source.IsValid() {
		v.Source, v.Scope = s.Source.String(), s.Source.Scope()
	}
	if json.Valid(s.Detail) {
		v.Detail = s.Detail
	}
	return v
}

func (a *API) alerts(r *http.Request) (any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	query := AlertQuery{
		Organisation: q.Get("organisation"), Machine: q.Get("machine"), Scenario: q.Get("scenario"),
		After: q.Get("after"), Limit: limit,
	}
	if text := q.Get("source"); text != "" {
		if query.Source, err = muster.ParseSource(text); err != nil {
			return nil, err
		}
	}
	for name, into := range map[string]*time.Time{"since": &query.Since, "until": &query.Until} {
		if text := q.Get(name); text != "" {
			if *into, err = a.moment(text); err != nil {
				return nil, err
			}
		}
	}
	list, next, err := a.cfg.Store.Alerts(r.Context(), query)
	if err != nil {
		return nil, err
	}
	return struct {
		Alerts []alertView `json:"alerts"`
		Next   string      `json:"next"`
	}{views(list, viewAlert), next}, nil
}

// moment reads a time, or a duration back from now ("24h", "7d").
func (a *API) moment(text string) (time.Time, error) {
	if d, err := wire.ParseDuration(text); err == nil {
		return a.cfg.Now().Add(-d), nil
	}
	t, err := wire.ParseTime(text)
	if err != nil {
		return t, muster.Errorf(muster.Invalid, "expected a time (2026-11-20T12:00:00Z) or an age (24h, 7d), got %q", clip(text))
	}
	return t, nil
}

// verdictView explains a judgement.
type verdictView struct {
	Source   string          `json:"source"`
	Audience muster.Audience `json:"audience"` // "" = the whole network, else an organisation's id
	Listed   bool            `json:"listed"`
	Scenario string          `json:"scenario"`
	Since    time.Time       `json:"since"`
	Until    time.Time       `json:"until"`
	Changed  time.Time       `json:"changed"`
	Reasons  muster.Reasons  `json:"reasons"`
}

func viewVerdict(v muster.Verdict) verdictView {
	return verdictView{v.Source.String(), v.Audience, v.Listed, v.Scenario, v.Since, v.Until, v.Changed, v.Reasons}
}

// verdictsOn answers with the verdicts on a source, for everybody and for
// organisations.
func (a *API) verdictsOn(r *http.Request) (any, error) {
	source, err := muster.ParseSource(r.PathValue("value"))
	if err != nil {
		return nil, err
	}
	list, err := a.cfg.Store.Verdicts(r.Context(), source)
	if err != nil {
		return nil, err
	}
	return struct {
		Source   string        `json:"source"`
		Reserved bool          `json:"reserved"`
		Verdicts []verdictView `json:"verdicts"`
	}{source.String(), source.IsReserved(), views(list, viewVerdict)}, nil
}

// userView is a user as the API shows it.
type userView struct {
	ID        string      `json:"id"`
	Name      string      `json:"name"`
	Role      muster.Role `json:"role"`
	CreatedAt time.Time   `json:"created_at"`
}

func (a *API) users(r *http.Request) (any, error) {
	list, err := a.cfg.Store.Users(r.Context())
	return views(list, func(u muster.User) userView { return userView{u.ID, u.Name, u.Role, u.CreatedAt} }), err
}

func (a *API) createUser(r *http.Request) (any, error) {
	var q struct{ Name, Password string }
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	if q.Name = strings.TrimSpace(q.Name); q.Name == "" || len(q.Name) > 100 || strings.Contains(q.Name, ":") {
		return nil, muster.Errorf(muster.Invalid, "name: expected 1 to 100 bytes without a colon")
	}
	hash, err := a.cfg.Machines.HashPassword(r.Context(), q.Password)
	if err != nil {
		return nil, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	u := muster.User{ID: id.String(), Name: q.Name, PasswordHash: hash, Role: muster.Admin, CreatedAt: a.cfg.Now().UTC()}
	if err := a.cfg.Store.CreateUser(r.Context(), u); err != nil {
		return nil, err
	}
	return userView{u.ID, u.Name, u.Role, u.CreatedAt}, nil
}

func (a *API) setPassword(r *http.Request) (any, error) {
	var q struct{ Password string }
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	u, err := a.cfg.Store.UserByName(r.Context(), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	hash, err := a.cfg.Machines.HashPassword(r.Context(), q.Password)
	if err != nil {
		return nil, err
	}
	return nil, a.cfg.Store.UpdateUserPassword(r.Context(), u.ID, hash)
}

// tokenView is an API token as the API shows it; Token is there once.
type tokenView struct {
	ID        string     `json:"id"`
	Token     string     `json:"token,omitempty"`
	Name      string     `json:"name"`
	User      string     `json:"user"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at"`
}

func viewToken(t muster.APIToken) tokenView {
	return tokenView{ID: t.ID, Name: t.Name, User: t.User, CreatedAt: t.CreatedAt, ExpiresAt: orNull(t.ExpiresAt)}
}

func (a *API) tokens(r *http.Request) (any, error) {
	list, err := a.cfg.Store.APITokens(r.Context())
	return views(list, viewToken), err
}

// tokenPrefix makes leaked tokens easy to search for.
const tokenPrefix = "muster_"

func hashToken(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}

func (a *API) createToken(r *http.Request) (any, error) {
	var q struct {
		Name       string `json:"name"`
		User       string `json:"user"` // name; "" = the first administrator
		TTLSeconds int64  `json:"ttl_seconds"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	ttl, err := lifetime(q.TTLSeconds)
	if err != nil {
		return nil, err
	}
	if q.User == "" {
		q.User = FirstUser
	}
	u, err := a.cfg.Store.UserByName(r.Context(), q.User)
	if err != nil {
		return nil, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	text := tokenPrefix + strings.ToLower(rand.Text()) // 130 bits
	now := a.cfg.Now().UTC()
	t := muster.APIToken{ID: id.String(), Hash: hashToken(text), User: u.ID, Name: clip(q.Name), CreatedAt: now, ExpiresAt: endOf(now, ttl)}
	if err := a.cfg.Store.CreateAPIToken(r.Context(), t); err != nil {
		return nil, err
	}
	v := viewToken(t)
	v.Token = text
	return v, nil
}

// FirstUser is the name of the administrator that an installation begins with.
const FirstUser = "admin"

func (a *API) deleteToken(r *http.Request) (any, error) {
	return nil, a.cfg.Store.DeleteAPIToken(r.Context(), r.PathValue("id"))
}
