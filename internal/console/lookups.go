package console

import (
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	"muster"
	"muster/internal/cti"
	"muster/internal/ops"
)

// Lookups tells what is known about addresses.
type Lookups interface {
	// Item is of reputation unknown when nothing is known.
	Item(ctx context.Context, addr netip.Addr) (item cti.Item, known bool, err error)
	// Dump writes the community list as "mmdb" or "jsonl"; code muster.Invalid for
	// another format.
	Dump(ctx context.Context, format string, w io.Writer) error
}

// LookupKeys keeps the keys of programs that look addresses up. Writes are
// durable when they return, together with their audit entries.
type LookupKeys interface {
	LookupKeys(ctx context.Context) ([]muster.LookupKey, error)
	LookupUsage(ctx context.Context, since int64) ([]muster.LookupUsage, error)
	CreateLookupKey(ctx context.Context, k muster.LookupKey, audit ...muster.AuditEntry) error
	RevokeLookupKey(ctx context.Context, id string, at time.Time, audit ...muster.AuditEntry) error // code muster.NotFound
}

// lookupKeyPrefix tells a lookup key from other secrets.
const lookupKeyPrefix = "mlk_"

// lookupKeyView is a key as the API shows it.
type lookupKeyView struct {
	ID           string     `json:"id"`
	Name         string     `json:"name"`
	Organisation string     `json:"organisation"` // "" = the installation
	PerDay       int        `json:"per_day"`      // 0 = no limit
	PerMonth     int        `json:"per_month"`
	UsedToday    int64      `json:"used_today"` // half a minute behind
	UsedMonth    int64      `json:"used_month"`
	CreatedAt    time.Time  `json:"created_at"`
	CreatedBy    string     `json:"created_by"`
	RevokedAt    *time.Time `json:"revoked_at"`
	Key          string     `json:"key,omitempty"` // only when it is made
}

func viewLookupKey(k muster.LookupKey) lookupKeyView {
	return lookupKeyView{
		ID: k.ID, Name: k.Name, Organisation: k.Organisation, PerDay: k.PerDay, PerMonth: k.PerMonth,
		CreatedAt: k.CreatedAt, CreatedBy: k.CreatedBy, RevokedAt: orNull(k.RevokedAt),
	}
}

func (a *API) lookUpAddress(r *http.Request) (any, error) {
	addr, err := netip.ParseAddr(r.PathValue("addr"))
	if err != nil || addr.Zone() != "" {
		return nil, muster.Errorf(muster.Invalid, "expected an IPv4 or IPv6 address, got %q", clip(r.PathValue("addr")))
	}
	item, _, err := a.cfg.Lookups.Item(r.Context(), addr)
	return item, err
}

func (a *API) lookupKeys(r *http.Request) (any, error) {
	keys, err := a.cfg.LookupKeys.LookupKeys(r.Context())
	if err != nil {
		return nil, err
	}
	now := a.cfg.Now().UTC()
	today := cti.DayOf(now)
	used, err := a.cfg.LookupKeys.LookupUsage(r.Context(), today-int64(now.Day())+1)
	if err != nil {
		return nil, err
	}
	list := views(keys, viewLookupKey)
	for i := range list {
		for _, u := range used {
			if u.Key != list[i].ID {
				continue
			}
			list[i].UsedMonth += u.Calls
			if u.Day == today {
				list[i].UsedToday += u.Calls
			}
		}
	}
	return list, nil
}

func (a *API) createLookupKey(r *http.Request) (any, error) {
	var q struct {
		Name         string `json:"name"`
		Organisation string `json:"organisation"` // id or name; "" = the installation
		PerDay       int    `json:"per_day"`
		PerMonth     int    `json:"per_month"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	if q.Organisation != "" {
		var err error
		if q.Organisation, err = a.organisation(r, q.Organisation); err != nil {
			return nil, err
		}
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	text := lookupKeyPrefix + strings.ToLower(rand.Text()) // 130 bits
	k := muster.LookupKey{
		ID: id.String(), Name: strings.TrimSpace(q.Name), Organisation: q.Organisation, Hash: hashToken(text),
		PerDay: q.PerDay, PerMonth: q.PerMonth, CreatedAt: a.cfg.Now().UTC(), CreatedBy: callerOf(r),
	}
	if err := muster.ValidateLookupKey(k); err != nil {
		return nil, err
	}
	entry, err := a.audited(r, "lookup-key.create", k.ID, "", map[string]any{"name": k.Name, "organisation": k.Organisation, "per_day": k.PerDay, "per_month": k.PerMonth})
	if err != nil {
		return nil, err
	}
	if err := a.cfg.LookupKeys.CreateLookupKey(r.Context(), k, entry); err != nil {
		return nil, err
	}
	v := viewLookupKey(k)
	v.Key = text
	return v, a.lookupKeysChanged(r.Context())
}

func (a *API) revokeLookupKey(r *http.Request) (any, error) {
	id := r.PathValue("id")
	entry, err := a.reasoned(r, "lookup-key.revoke", id)
	if err != nil {
		return nil, err
	}
	if err := a.cfg.LookupKeys.RevokeLookupKey(r.Context(), id, a.cfg.Now().UTC(), entry); err != nil {
		return nil, err
	}
	return nil, a.lookupKeysChanged(r.Context())
}

func (a *API) lookupKeysChanged(ctx context.Context) error {
	if a.cfg.LookupKeysChanged == nil {
		return nil
	}
	return a.cfg.LookupKeysChanged(ctx)
}

const dumpRoute = "GET /api/v1/dump/{format}"

// dump answers with a file. After its first byte an error can only end the
// connection, so that the client sees that the file is not whole.
func (a *API) dump(w http.ResponseWriter, r *http.Request) {
	ops.RecordOf(r.Context()).Route = dumpRoute
	out := &begun{ResponseWriter: w}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	if err := a.cfg.Lookups.Dump(r.Context(), r.PathValue("format"), out); err != nil {
		if out.begun {
			panic(http.ErrAbortHandler)
		}
		a.answer(w, r, nil, err)
	}
}

// begun notes whether anything was written.
type begun struct {
	http.ResponseWriter
	begun bool
}

func (b *begun) Write(p []byte) (int, error) {
	b.begun = true
	return b.ResponseWriter.Write(p)
}
