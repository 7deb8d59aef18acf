package console

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"muster"
	"muster/internal/unban"
)

// Unbans takes, shows and decides requests to be taken off the community list.
type Unbans interface {
	// Ask takes a request from anybody, and limits how many.
	Ask(ctx context.Context, a unban.Ask) (unban.Answer, error)
	// Standing says how the address stands that somebody asks from, and limits how
	// often.
	Standing(ctx context.Context, addr netip.Addr) (unban.Standing, error)

	Requests(ctx context.Context, q muster.UnbanQuery) ([]muster.UnbanRequest, error)
	// Case finds a request by its id, address or range; code muster.NotFound.
	Case(ctx context.Context, ref string) (unban.Case, error)
	// Grant and Refuse decide a request that waits, found as Case does, and are
	// audited; codes muster.NotFound and muster.Gone.
	Grant(ctx context.Context, ref string, by unban.By) (muster.UnbanRequest, error)
	Refuse(ctx context.Context, ref string, by unban.By) (muster.UnbanRequest, error)
}

// The routes that whoever is listed uses; they need no token.
const (
	unbanStandingRoute = "GET /api/v1/unban"
	unbanAskRoute      = "POST /api/v1/unban"
)

// unbans returns the service, or an error on a server without one.
func (a *API) unbans() (Unbans, error) {
	if a.cfg.Unbans == nil {
		return nil, muster.Errorf(muster.Unavailable, "this server does not judge: ask one that does")
	}
	return a.cfg.Unbans, nil
}

// clientAddr returns the address that a request comes from, the zero Addr when it
// is not known.
func (a *API) clientAddr(r *http.Request) netip.Addr {
	if a.cfg.ClientAddr == nil {
		return netip.Addr{}
	}
	return a.cfg.ClientAddr(r)
}

// ownRequestView is a request as those behind its address get to see it: several
// people may be, so that nothing is in it of who asked.
type ownRequestView struct {
	Source     string            `json:"source"` // what is on the list: the address, or a range around it
	State      muster.UnbanState `json:"state"`
	Requested  time.Time         `json:"requested"`
	Decided    *time.Time        `json:"decided"` // null while it waits
	Reason     string            `json:"reason"`
	Round      int               `json:"round"`
	GraceUntil *time.Time        `json:"grace_until"` // until when it takes twice as much to list it again
}

func viewOwnRequest(r *muster.UnbanRequest) *ownRequestView {
	if r == nil {
		return nil
	}
	return &ownRequestView{r.Source.String(), r.State, r.Requested, orNull(r.Decided), r.Reason, r.Round, orNull(r.GraceUntil)}
}

// listingView says that and why something is listed, without who reported it.
type listingView struct {
	Source     string    `json:"source"`
	Range      bool      `json:"range"` // listed is a range around the address
	Since      time.Time `json:"since"`
	Until      time.Time `json:"until"` // when it ends by itself, unless more is reported
	Behaviours []string  `json:"behaviours"`
}

func viewListing(v *muster.Verdict) *listingView {
	if v == nil {
		return nil
	}
	behaviours := v.Reasons.Scenarios
	if len(behaviours) == 0 && v.Scenario != "" {
		behaviours = []string{v.Scenario}
	}
	return &listingView{v.Source.String(), v.Source.IsRange(), v.Since, v.Until, orEmpty(behaviours)}
}

// unbanStanding answers about the address that the request comes from.
func (a *API) unbanStanding(r *http.Request) (any, error) {
	s, err := a.unbans()
	if err != nil {
		return nil, err
	}
	st, err := s.Standing(r.Context(), a.clientAddr(r))
	if err != nil {
		return nil, err
	}
	return struct {
		Address string          `json:"address"`
		Listed  bool            `json:"listed"`
		Listing *listingView    `json:"listing"`
		CanAsk  bool            `json:"can_ask"`
		Next    *time.Time      `json:"next"` // when it can ask again, if not now
		Message string          `json:"message"`
		Request *ownRequestView `json:"request"` // the last one that counts
	}{st.Address.String(), st.Listing != nil, viewListing(st.Listing), st.CanAsk, orNull(st.Next), st.Message, viewOwnRequest(st.Request)}, nil
}

// maxAsk bounds what strangers send, in bytes: text and contact, each byte of
// which may be escaped.
const maxAsk = 16 << 10

// foreign reports whether another site's page has a visitor's browser make the
// request: the visitor's address would be the proof.
func (a *API) foreign(r *http.Request) bool {
	check := http.NewCrossOriginProtection()
	if u, err := url.Parse(a.cfg.PublicURL); err == nil {
		_ = check.AddTrustedOrigin(u.Scheme + "://" + u.Host) // without one, only the request's own host is known to be ours
	}
	return check.Check(r) != nil
}

// askUnban takes a request by anybody.
func (a *API) askUnban(r *http.Request) (any, error) {
	s, err := a.unbans()
	if err != nil {
		return nil, err
	}
	if a.foreign(r) {
		return nil, muster.Errorf(muster.Forbidden, "another site's page made this request: open this server's own page")
	}
	var q struct {
		Address string `json:"address"`
		Contact string `json:"contact"`
		Text    string `json:"text"`
	}
	r.Body = http.MaxBytesReader(nil, r.Body, maxAsk)
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	ask := unban.Ask{Requester: a.clientAddr(r), Contact: q.Contact, Text: q.Text}
	if q.Address != "" {
		source, err := muster.ParseSource(q.Address)
		if err != nil || source.IsRange() {
			return nil, muster.Errorf(muster.Invalid, "address: expected an IPv4 or IPv6 address, got %q", clip(q.Address))
		}
		ask.Address = source.Addr()
	}
	answer, err := s.Ask(r.Context(), ask)
	if err != nil {
		return nil, err
	}
	return struct {
		Address string            `json:"address"`
		State   muster.UnbanState `json:"state"`
		Message string            `json:"message"`
		Request *ownRequestView   `json:"request"` // null for an address that is not the requester's
	}{answer.Address.String(), answer.State, answer.Message, viewOwnRequest(answer.Request)}, nil
}

// unbanView is a request as operators see it.
type unbanView struct {
	ID         string            `json:"id"`
	Source     string            `json:"source"` // what is on the list: the address, or a range around it
	Address    string            `json:"address"`
	Requester  string            `json:"requester"`
	Contact    string            `json:"contact"`
	Text       string            `json:"text"`
	Proof      muster.UnbanProof `json:"proof"`
	State      muster.UnbanState `json:"state"`
	Requested  time.Time         `json:"requested"`
	Decided    *time.Time        `json:"decided"` // null while it waits
	By         string            `json:"by"`      // "" for the rules
	Reason     string            `json:"reason"`
	Round      int               `json:"round"`
	GraceUntil *time.Time        `json:"grace_until"`
	Delivered  bool              `json:"delivered"` // the judge knows that it was granted
}

func viewUnban(r muster.UnbanRequest) unbanView {
	return unbanView{
		r.ID, r.Source.String(), r.Address.String(), r.Requester.String(), r.Contact, r.Text, r.Proof, r.State,
		r.Requested, orNull(r.Decided), r.By, r.Reason, r.Round, orNull(r.GraceUntil), r.Delivered,
	}
}

func (a *API) listUnbans(r *http.Request) (any, error) {
	s, err := a.unbans()
	if err != nil {
		return nil, err
	}
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	query := muster.UnbanQuery{State: muster.UnbanState(q.Get("state")), After: q.Get("after"), Limit: limit}
	if query.State != "" && !query.State.Valid() {
		return nil, muster.Errorf(muster.Invalid, "state: expected waiting, granted, refused or withdrawn, got %q", clip(string(query.State)))
	}
	if text := q.Get("source"); text != "" {
		if query.Source, err = muster.ParseSource(text); err != nil {
			return nil, muster.Errorf(muster.Invalid, "source: %w", err)
		}
	}
	list, err := s.Requests(r.Context(), query)
	if err != nil {
		return nil, err
	}
	page := struct {
		Requests []unbanView `json:"requests"`
		Next     string      `json:"next"`
	}{Requests: views(list, viewUnban)}
	if len(list) == limit {
		page.Next = list[limit-1].ID
	}
	return page, nil
}

func (a *API) showUnban(r *http.Request) (any, error) {
	s, err := a.unbans()
	if err != nil {
		return nil, err
	}
	c, err := s.Case(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return struct {
		unbanView
		Listing *listingView `json:"listing"` // that the address is under now; null = none
		Others  []unbanView  `json:"others"`  // for the same source, newest first
	}{viewUnban(c.Request), viewListing(c.Listing), views(c.Others, viewUnban)}, nil
}

func (a *API) grantUnban(r *http.Request) (any, error)  { return a.decideUnban(r, Unbans.Grant) }
func (a *API) refuseUnban(r *http.Request) (any, error) { return a.decideUnban(r, Unbans.Refuse) }

func (a *API) decideUnban(r *http.Request, decide func(Unbans, context.Context, string, unban.By) (muster.UnbanRequest, error)) (any, error) {
	s, err := a.unbans()
	if err != nil {
		return nil, err
	}
	var q struct {
		Reason string `json:"reason"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	reason, err := reasonOf(q.Reason, "who asked gets to read it")
	if err != nil {
		return nil, err
	}
	decided, err := decide(s, r.Context(), r.PathValue("id"), unban.By{User: callerOf(r), Reason: reason})
	if err != nil {
		return nil, err
	}
	return viewUnban(decided), nil
}
