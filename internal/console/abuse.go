package console

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"muster"
	"muster/internal/abuse"
	"muster/internal/ratelimit"
)

// Abuse is what the management API shows and changes of rate limits and bans.
// Changes are durable, audited under By, and in force on this node when they
// return. A change that cannot be is of code muster.Invalid.
type Abuse interface {
	// Bans returns those in force, by address as netip.Prefix.Compare orders them.
	Bans() []ratelimit.Ban
	// BanOf returns the ban that would refuse a login from addr; asking does not
	// count as a retry. It reads memory alone: strangers may ask.
	BanOf(addr netip.Addr) (ratelimit.Ban, bool)
	// Explain returns what is known about the clients of addr, the worst first. It
	// reads memory alone: strangers may ask.
	Explain(addr netip.Addr) []muster.Finding
	// AddBan returns the ban as it is in force, joined to an older one maybe.
	AddBan(ctx context.Context, b ratelimit.Ban, by abuse.By) (ratelimit.Ban, error)
	// LiftBan ends the ban of exactly p and returns it as it was; code
	// muster.NotFound when p has none of its own.
	LiftBan(ctx context.Context, p netip.Prefix, by abuse.By) (ratelimit.Ban, error)

	// Limits returns all limits, those that are off too.
	Limits() []ratelimit.Limit
	SetLimit(ctx context.Context, l ratelimit.Limit, by abuse.By) error
	// ResetLimit takes a change back: the limit is as configured again, or gone
	// when the configuration has none of that name. Code muster.NotFound when it
	// was not changed.
	ResetLimit(ctx context.Context, name string, by abuse.By) error

	// Overrides returns those in force; those of the configuration have no ID.
	Overrides() []ratelimit.Override
	// AddOverride returns the override with its ID.
	AddOverride(ctx context.Context, o ratelimit.Override, by abuse.By) (ratelimit.Override, error)
	RemoveOverride(ctx context.Context, id string, by abuse.By) error // code muster.NotFound

	Findings() []muster.Finding
	Kinds() []string // what limits can count
}

// banView is a ban as the API shows it.
type banView struct {
	Address        string          `json:"address"` // or a range
	Scope          ratelimit.Scope `json:"scope"`
	Reason         string          `json:"reason"`
	Limit          string          `json:"limit"` // "" for a ban by a person
	Since          time.Time       `json:"since"`
	Until          *time.Time      `json:"until"`           // null: until it is lifted
	ExtendsSeconds int64           `json:"extends_seconds"` // a retry moves the end to that long after it; 0: it does not
	By             string          `json:"by"`              // "" for a limit
}

func viewBan(b ratelimit.Ban) banView {
	return banView{
		Address: addressText(b.Prefix), Scope: b.Scope, Reason: b.Reason, Limit: b.Limit,
		Since: b.Since, Until: orNull(b.Until), ExtendsSeconds: int64(b.Extend / time.Second), By: b.By,
	}
}

// addressText writes a single address without a prefix length, as people do.
func addressText(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return ""
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

func (a *API) bans(r *http.Request) (any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	var after netip.Prefix
	if text := q.Get("after"); text != "" {
		if after, err = ratelimit.ParsePrefix(text); err != nil {
			return nil, muster.Errorf(muster.Invalid, "after: expected the next of an earlier page, got %q", clip(text))
		}
	}
	wanted := banFilter(q.Get("search"))
	page := struct {
		Bans []banView `json:"bans"`
		Next string    `json:"next"`
	}{Bans: []banView{}}
	for _, b := range a.cfg.Abuse.Bans() {
		if b.Prefix.Compare(after) <= 0 || !wanted(b) {
			continue
		}
		if len(page.Bans) == limit {
			page.Next = page.Bans[limit-1].Address
			break
		}
		page.Bans = append(page.Bans, viewBan(b))
	}
	return page, nil
}

// banFilter selects by an address or a range, and else by a part of any text.
func banFilter(search string) func(ratelimit.Ban) bool {
	if p, err := ratelimit.ParsePrefix(search); err == nil {
		return func(b ratelimit.Ban) bool { return b.Prefix.Overlaps(p) }
	}
	search = strings.ToLower(strings.TrimSpace(search))
	return func(b ratelimit.Ban) bool {
		return slices.ContainsFunc([]string{addressText(b.Prefix), b.Reason, b.Limit, b.By}, func(text string) bool {
			return strings.Contains(strings.ToLower(text), search)
		})
	}
}

// ban explains the ban that refuses an address, or the one of exactly a range.
func (a *API) ban(r *http.Request) (any, error) {
	p, err := ratelimit.ParsePrefix(r.PathValue("value"))
	if err != nil {
		return nil, err
	}
	ban, findings, banned := a.lookup(r.PathValue("value"), p)
	if !banned {
		return nil, muster.Errorf(muster.NotFound, "%s is not banned: muster admin ban list shows who is", addressText(p))
	}
	return struct {
		banView
		Findings []findingView `json:"findings"`
	}{viewBan(ban), views(findings, viewFinding)}, nil
}

func (a *API) lookup(text string, p netip.Prefix) (ratelimit.Ban, []muster.Finding, bool) {
	if addr, err := netip.ParseAddr(strings.TrimSpace(text)); err == nil {
		ban, banned := a.cfg.Abuse.BanOf(addr)
		return ban, a.cfg.Abuse.Explain(addr), banned
	}
	bans := a.cfg.Abuse.Bans()
	i := slices.IndexFunc(bans, func(b ratelimit.Ban) bool { return b.Prefix == p })
	if i < 0 {
		return ratelimit.Ban{}, nil, false
	}
	return bans[i], within(a.cfg.Abuse.Findings(), p), true
}

// within selects findings about addresses in p.
func within(findings []muster.Finding, p netip.Prefix) []muster.Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f muster.Finding) bool { return !f.Address.IsValid() || !f.Address.Prefix().Overlaps(p) })
}

func (a *API) addBan(r *http.Request) (any, error) {
	q := struct {
		Address       string          `json:"address"`
		Scope         ratelimit.Scope `json:"scope"`
		Reason        string          `json:"reason"`
		TTLSeconds    int64           `json:"ttl_seconds"`
		ExtendOnRetry bool            `json:"extend_on_retry"`
	}{Scope: ratelimit.ScopeAll}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	p, err := ratelimit.ParsePrefix(q.Address)
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "address: %w", err)
	}
	ttl, err := lifetime(q.TTLSeconds)
	if err != nil {
		return nil, err
	}
	reason, err := reasonOf(q.Reason, "it is what the banned one gets to read")
	if err != nil {
		return nil, err
	}
	if q.ExtendOnRetry && ttl == 0 {
		return nil, muster.Errorf(muster.Invalid, "extend_on_retry: a ban until it is lifted has no end to move: give ttl_seconds, or leave it out")
	}
	now := a.cfg.Now().UTC()
	ban := ratelimit.Ban{Prefix: p, Scope: q.Scope, Reason: reason, Since: now, Until: endOf(now, ttl), By: callerOf(r)}
	if q.ExtendOnRetry {
		ban.Extend = ttl
	}
	if err := ban.Validate(); err != nil {
		return nil, inOneLine(err)
	}
	if ban, err = a.cfg.Abuse.AddBan(r.Context(), ban, abuse.By{User: callerOf(r), Reason: reason}); err != nil {
		return nil, err
	}
	return viewBan(ban), nil
}

// liftBan answers the ban as it was, and what goes on refusing the address, if
// anything does.
func (a *API) liftBan(r *http.Request) (any, error) {
	p, err := ratelimit.ParsePrefix(r.PathValue("value"))
	if err != nil {
		return nil, err
	}
	reason, err := reasonOf(r.URL.Query().Get("reason"), "the audit keeps why a ban was lifted")
	if err != nil {
		return nil, err
	}
	lifted, err := a.cfg.Abuse.LiftBan(r.Context(), p, abuse.By{User: callerOf(r), Reason: reason})
	around, banned := a.cfg.Abuse.BanOf(p.Addr())
	banned = banned && around.Prefix.Bits() < p.Bits()
	switch {
	case errors.Is(err, muster.NotFound) && banned:
		return nil, muster.Errorf(muster.NotFound, "%s has no ban of its own, it is banned with %s: lift that one", addressText(p), addressText(around.Prefix))
	case errors.Is(err, muster.NotFound):
		return nil, muster.Errorf(muster.NotFound, "%s is not banned: muster admin ban list shows who is", addressText(p))
	case err != nil:
		return nil, err
	}
	v := struct {
		banView
		StillBannedBy string `json:"still_banned_by,omitempty"` // a range
	}{banView: viewBan(lifted)}
	if banned {
		v.StillBannedBy = addressText(around.Prefix)
	}
	return v, nil
}

// maxReason bounds what people write: bans are told to all nodes, and to the
// banned one with every refusal.
const maxReason = 500

// reasonOf checks why somebody makes a change; what says what it is needed for.
func reasonOf(text, what string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" || len(text) > maxReason || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return "", muster.Errorf(muster.Invalid, "reason: expected one line of 1 to %d bytes, got %d bytes: %s", maxReason, len(text), what)
	}
	return text, nil
}

// reasonIfAny is reasonOf where none is needed.
func reasonIfAny(text string) (string, error) {
	if strings.TrimSpace(text) == "" {
		return "", nil
	}
	return reasonOf(text, "the audit keeps it")
}

// inOneLine keeps all faults that a check found in the message for the caller.
func inOneLine(err error) error {
	return muster.Errorf(muster.Invalid, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
}

// findingView is a finding as the API shows it to administrators.
type findingView struct {
	Kind         muster.FindingKind `json:"kind"`
	Severity     muster.Severity    `json:"severity"`
	Machine      string             `json:"machine"`
	Organisation string             `json:"organisation"`
	Address      string             `json:"address"`
	Summary      string             `json:"summary"`
	Evidence     []string           `json:"evidence"`
	Fix          string             `json:"fix"`
	Count        int                `json:"count"`
	First        time.Time          `json:"first"`
	Last         time.Time          `json:"last"`
}

func viewFinding(f muster.Finding) findingView {
	return findingView{
		f.Kind, f.Severity, f.Machine, f.Organisation, addressText(f.Address.Prefix()),
		f.Summary, orEmpty(f.Evidence), f.Fix, f.Count, f.First, f.Last,
	}
}

func (a *API) findings(r *http.Request) (any, error) {
	q := r.URL.Query()
	list := slices.Clone(a.cfg.Abuse.Findings())
	if kind := muster.FindingKind(q.Get("kind")); kind != "" {
		list = slices.DeleteFunc(list, func(f muster.Finding) bool { return f.Kind != kind })
	}
	if text := q.Get("address"); text != "" {
		p, err := ratelimit.ParsePrefix(text)
		if err != nil {
			return nil, muster.Errorf(muster.Invalid, "address: %w", err)
		}
		list = within(list, p)
	}
	if ref := q.Get("machine"); ref != "" {
		var err error
		about := func(id string) bool {
			return slices.ContainsFunc(list, func(f muster.Finding) bool { return f.Machine == id })
		}
		if !about(ref) { // then it may be a name; asked first, as the machine of a finding may be gone
			if ref, err = a.machineNamed(r.Context(), ref); err != nil {
				return nil, err
			}
		}
		list = slices.DeleteFunc(list, func(f muster.Finding) bool { return f.Machine != ref })
	}
	return map[string]any{"findings": views(list, viewFinding)}, nil
}

// overrideView is an override as the API shows it.
type overrideView struct {
	ID           string     `json:"id"` // "" for one of the configuration
	Addresses    string     `json:"addresses"`
	Organisation string     `json:"organisation"`
	Machine      string     `json:"machine"`
	Limits       []string   `json:"limits"` // empty: all
	Exempt       bool       `json:"exempt"`
	Threshold    int        `json:"threshold"`
	Since        *time.Time `json:"since"`
	Until        *time.Time `json:"until"` // null: for good
	Reason       string     `json:"reason"`
	By           string     `json:"by"`
}

func viewOverride(o ratelimit.Override) overrideView {
	return overrideView{
		o.ID, addressText(o.Addresses), o.Organisation, o.Machine, orEmpty(o.Limits),
		o.Exempt, o.Threshold, orNull(o.Since), orNull(o.Until), o.Reason, o.By,
	}
}

// overrides lists by id, which is by age. Those of the configuration have none;
// they are all on the first page.
func (a *API) overrides(r *http.Request) (any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	after := r.URL.Query().Get("after")
	list := slices.DeleteFunc(slices.Clone(a.cfg.Abuse.Overrides()), func(o ratelimit.Override) bool { return after != "" && o.ID <= after })
	slices.SortStableFunc(list, func(x, y ratelimit.Override) int { return cmp.Compare(x.ID, y.ID) })
	page := struct {
		Overrides []overrideView `json:"overrides"`
		Next      string         `json:"next"`
	}{}
	configured := slices.IndexFunc(list, func(o ratelimit.Override) bool { return o.ID != "" })
	if end := configured + limit; configured >= 0 && end < len(list) {
		list = list[:end]
		page.Next = list[end-1].ID
	}
	page.Overrides = views(list, viewOverride)
	return page, nil
}

func (a *API) addOverride(r *http.Request) (any, error) {
	var q struct {
		Addresses    string   `json:"addresses"`
		Organisation string   `json:"organisation"` // by id or name
		Machine      string   `json:"machine"`      // by id or name
		Limits       []string `json:"limits"`
		Exempt       bool     `json:"exempt"`
		Threshold    int      `json:"threshold"`
		TTLSeconds   int64    `json:"ttl_seconds"`
		Reason       string   `json:"reason"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	ttl, err := lifetime(q.TTLSeconds)
	if err != nil {
		return nil, err
	}
	reason, err := reasonOf(q.Reason, "say why, whoever reads it later was not there")
	if err != nil {
		return nil, err
	}
	limits := a.cfg.Abuse.Limits()
	for _, name := range q.Limits {
		if !slices.ContainsFunc(limits, func(l ratelimit.Limit) bool { return l.Name == name }) {
			return nil, muster.Errorf(muster.Invalid, "limits: there is no limit %q: muster admin limit list shows them", clip(name))
		}
	}
	now := a.cfg.Now().UTC()
	o := ratelimit.Override{
		Limits: q.Limits, Exempt: q.Exempt, Threshold: q.Threshold,
		Since: now, Until: endOf(now, ttl), Reason: reason, By: callerOf(r),
	}
	if q.Addresses != "" {
		if o.Addresses, err = ratelimit.ParsePrefix(q.Addresses); err != nil {
			return nil, muster.Errorf(muster.Invalid, "addresses: %w", err)
		}
	}
	if q.Organisation != "" {
		if o.Organisation, err = a.organisation(r, q.Organisation); err != nil {
			return nil, err
		}
	}
	if q.Machine != "" {
		if o.Machine, err = a.machineNamed(r.Context(), q.Machine); err != nil {
			return nil, err
		}
	}
	if err := o.Validate(); err != nil {
		return nil, inOneLine(err)
	}
	if o, err = a.cfg.Abuse.AddOverride(r.Context(), o, abuse.By{User: callerOf(r), Reason: reason}); err != nil {
		return nil, err
	}
	return viewOverride(o), nil
}

func (a *API) removeOverride(r *http.Request) (any, error) {
	reason, err := reasonIfAny(r.URL.Query().Get("reason"))
	if err != nil {
		return nil, err
	}
	return nil, a.cfg.Abuse.RemoveOverride(r.Context(), r.PathValue("id"), abuse.By{User: callerOf(r), Reason: reason})
}
