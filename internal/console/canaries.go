package console

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"muster"
	"muster/internal/policy"
)

// Canaries keeps those that are not built in. Writes are durable when they
// return, together with their audit entry.
type Canaries interface {
	// Canaries returns a page in order of ids.
	Canaries(ctx context.Context, q muster.CanaryQuery) ([]muster.Canary, error)
	// PutCanaries stores canaries in place of those of their ids; code
	// muster.TooLarge when there would be too many.
	PutCanaries(ctx context.Context, canaries []muster.Canary, audit ...muster.AuditEntry) error
	// ReplaceCanaries is PutCanaries for all of an origin.
	ReplaceCanaries(ctx context.Context, origin string, canaries []muster.Canary, audit ...muster.AuditEntry) error
	DeleteCanary(ctx context.Context, id string, audit ...muster.AuditEntry) error // code muster.NotFound
	// DeleteCanariesOf returns how many there were; code muster.NotFound for none.
	DeleteCanariesOf(ctx context.Context, origin string, audit ...muster.AuditEntry) (int, error)
}

// maxCanaryValues bounds what one request adds; lists are imported.
const maxCanaryValues = 1000

// canaryView is a canary as the API shows it.
type canaryView struct {
	ID        string            `json:"id"` // origin and value
	Kind      muster.CanaryKind `json:"kind"`
	Value     string            `json:"value"`
	Origin    string            `json:"origin"`
	Reason    string            `json:"reason"`
	CreatedAt *time.Time        `json:"created_at"` // null: built in
	By        string            `json:"by"`
}

func viewCanary(c muster.Canary) canaryView {
	return canaryView{c.ID, c.Kind, c.Value, c.Origin, c.Reason, orNull(c.CreatedAt), c.By}
}

// canaries lists by id, which is by origin, those that are built in too.
func (a *API) canaries(r *http.Request) (any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	values := r.URL.Query()
	q := muster.CanaryQuery{Origin: values.Get("origin"), Search: values.Get("search"), After: values.Get("after"), Limit: limit}
	list, err := a.cfg.Canaries.Canaries(r.Context(), q)
	if err != nil {
		return nil, err
	}
	search := strings.ToLower(q.Search)
	for _, c := range policy.BuiltInCanaries() {
		found := strings.Contains(strings.ToLower(c.ID), search) || strings.Contains(strings.ToLower(c.Reason), search)
		if found && c.ID > q.After && (q.Origin == "" || q.Origin == c.Origin) {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(x, y muster.Canary) int { return cmp.Compare(x.ID, y.ID) })
	page := struct {
		Canaries []canaryView `json:"canaries"`
		Next     string       `json:"next"`
	}{}
	if len(list) >= limit {
		list = list[:limit]
		page.Next = list[limit-1].ID
	}
	page.Canaries = views(list, viewCanary)
	return page, nil
}

func (a *API) addCanaries(r *http.Request) (any, error) {
	var q struct {
		Values []string `json:"values"`
		Reason string   `json:"reason"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	reason, err := reasonOf(q.Reason, "machines that report it are judged for it")
	if err != nil {
		return nil, err
	}
	if len(q.Values) == 0 || len(q.Values) > maxCanaryValues {
		return nil, muster.Errorf(muster.Invalid, "values: expected 1 to %d, got %d: import longer lists", maxCanaryValues, len(q.Values))
	}
	var list []muster.Canary
	for _, value := range q.Values {
		c, err := muster.NewCanary(muster.OriginOperator, value)
		if err != nil {
			return nil, err
		}
		if err := a.canTell(c); err != nil {
			return nil, err
		}
		c.Reason = reason
		list = append(list, a.made(r, c))
	}
	subject := list[0].Value
	if len(list) > 1 {
		subject = fmt.Sprintf("%d canaries", len(list))
	}
	entry, err := a.audited(r, "canary.add", subject, reason, map[string]any{"values": views(list, func(c muster.Canary) string { return c.Value })})
	if err != nil {
		return nil, err
	}
	if err := a.cfg.Canaries.PutCanaries(r.Context(), list, entry); err != nil {
		return nil, err
	}
	return views(list, viewCanary), a.canariesChanged(r.Context())
}

// canTell refuses a canary that would match nothing as this server is set up:
// whoever adds it would take it for protection.
func (a *API) canTell(c muster.Canary) error {
	switch {
	case c.Kind == muster.CanaryAS && a.cfg.ASN == nil:
		return muster.Errorf(muster.Invalid, "%s: AS canaries need a database of AS numbers on this server (setting enrich.asn): what reporters say about it is not believed", c.Value)
	case c.Kind == muster.CanaryName && !a.cfg.Names:
		return muster.Errorf(muster.Invalid, "%s: patterns of names need lookups, which leave this server (setting canaries.names)", c.Value)
	}
	return nil
}

// made notes who made a canary, and when.
func (a *API) made(r *http.Request, c muster.Canary) muster.Canary {
	c.CreatedAt, c.By = a.cfg.Now().UTC(), callerOf(r)
	return c
}

// removeCanary takes an id, or the value of an operator's canary.
func (a *API) removeCanary(r *http.Request) (any, error) {
	id := r.PathValue("id")
	if c, err := muster.NewCanary(muster.OriginOperator, id); err == nil {
		id = c.ID
	}
	if strings.HasPrefix(id, muster.OriginBuiltIn+"/") {
		return nil, errBuiltIn()
	}
	entry, err := a.reasoned(r, "canary.remove", id)
	if err != nil {
		return nil, err
	}
	if err := a.cfg.Canaries.DeleteCanary(r.Context(), id, entry); err != nil {
		return nil, err
	}
	return nil, a.canariesChanged(r.Context())
}

func (a *API) dropCanaries(r *http.Request) (any, error) {
	origin := r.URL.Query().Get("origin")
	switch origin {
	case "":
		return nil, muster.Errorf(muster.Invalid, "origin: expected the origin whose canaries are to go, as the list shows it")
	case muster.OriginBuiltIn:
		return nil, errBuiltIn()
	}
	entry, err := a.reasoned(r, "canary.drop", origin)
	if err != nil {
		return nil, err
	}
	n, err := a.cfg.Canaries.DeleteCanariesOf(r.Context(), origin, entry)
	if err != nil {
		return nil, err
	}
	return map[string]int{"removed": n}, a.canariesChanged(r.Context())
}

func errBuiltIn() error {
	return muster.Errorf(muster.Invalid, "canaries that are built in cannot be removed")
}

// importedList says what became of a list.
type importedList struct {
	Origin   string           `json:"origin"`
	Canaries int              `json:"canaries"`
	Idle     int              `json:"idle"` // of those, that match nothing as this server is set up
	Skipped  []policy.Skipped `json:"skipped"`
}

// importCanaries reads a file of one of the forms that policy.ReadCanaries
// knows. Each list takes the place of the one that was imported under its name
// before.
func (a *API) importCanaries(r *http.Request) (any, error) {
	q := r.URL.Query()
	dry := false
	if text := q.Get("dry_run"); text != "" {
		var err error
		if dry, err = strconv.ParseBool(text); err != nil {
			return nil, muster.Errorf(muster.Invalid, "dry_run: expected true or false, got %q", clip(text))
		}
	}
	lists, err := policy.ReadCanaries(r.Body, policy.CanaryImport{Lists: q["list"], File: q.Get("file")})
	if err != nil {
		if muster.CodeOf(err) == "" {
			err = muster.Errorf(muster.Invalid, "the body could not be read: %w", err)
		}
		return nil, err
	}
	var done []importedList
	for _, l := range lists {
		idle := 0
		for _, c := range l.Canaries {
			if a.canTell(c) != nil {
				idle++
			}
		}
		done = append(done, importedList{l.Origin, len(l.Canaries), idle, append([]policy.Skipped{}, l.Skipped...)})
		if dry {
			continue
		}
		for i, c := range l.Canaries {
			l.Canaries[i] = a.made(r, c)
		}
		entry, err := a.reasoned(r, "canary.import", l.Origin)
		if err != nil {
			return nil, err
		}
		if entry.Detail, err = json.Marshal(done[len(done)-1]); err != nil {
			return nil, err
		}
		if err := a.cfg.Canaries.ReplaceCanaries(r.Context(), l.Origin, l.Canaries, entry); err != nil {
			return nil, err
		}
	}
	answer := map[string]any{"lists": done}
	if dry {
		return answer, nil
	}
	return answer, a.canariesChanged(r.Context())
}

// reasoned makes an audit entry with the reason in the query, if there is one.
func (a *API) reasoned(r *http.Request, action, subject string) (muster.AuditEntry, error) {
	reason, err := reasonIfAny(r.URL.Query().Get("reason"))
	if err != nil {
		return muster.AuditEntry{}, err
	}
	return a.audited(r, action, subject, reason, nil)
}

// audited makes an audit entry about what the caller changes.
func (a *API) audited(r *http.Request, action, subject, reason string, detail any) (muster.AuditEntry, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return muster.AuditEntry{}, err
	}
	e := muster.AuditEntry{ID: id.String(), At: a.cfg.Now().UTC(), By: callerOf(r), Action: action, Subject: subject, Reason: reason}
	if detail != nil {
		e.Detail, err = json.Marshal(detail)
	}
	return e, err
}

func (a *API) canariesChanged(ctx context.Context) error {
	if a.cfg.CanariesChanged == nil {
		return nil
	}
	return a.cfg.CanariesChanged(ctx)
}
