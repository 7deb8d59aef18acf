package unban

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"muster"
)

// Config sets up a Service. Zero values choose the defaults named.
type Config struct {
	Store Store // required
	List  List  // required
	Judge Judge // required

	Rules    Rules
	Provers  []Prover // the first proof counts; nil = SameAddress
	MaxAsks  int      // requests a day from one /24 or /64, up to 1,000; 0 = 10
	MaxLooks int      // looks at the own standing a day from one /24 or /64, up to 4,000; 0 = 1,000

	Now        func() time.Time      // nil = time.Now
	Logger     *slog.Logger          // nil = discarded
	Registerer prometheus.Registerer // nil = no metrics
}

// Service takes requests, decides what rules can decide, and keeps the rest for
// operators. All methods are safe for concurrent use; Run keeps it.
type Service struct {
	cfg         Config
	rules       Rules
	log         *slog.Logger
	asks, looks *asks
	outcomes    *prometheus.CounterVec
	waiting     atomic.Int64 // as last heard
}

// New returns a Service. It does no I/O.
func New(cfg Config) *Service {
	if cfg.Provers == nil {
		cfg.Provers = []Prover{SameAddress{}}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		cfg: cfg, rules: cfg.Rules.withDefaults(), log: cfg.Logger,
		asks: newAsks(min(orDefault(cfg.MaxAsks, 10), 1000)), looks: newAsks(min(orDefault(cfg.MaxLooks, 1000), 4000)),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_unban_requests_total",
			Help: "Requests to be taken off the community list, by what came of them; alarm: left to operators because unusually many were granted.",
		}, []string{"outcome"}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(s.outcomes, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "muster_unban_waiting", Help: "Requests that wait for an operator's decision.",
		}, func() float64 { return float64(s.waiting.Load()) }))
	}
	return s
}

// instant is now as the store keeps times.
func (s *Service) instant() time.Time { return s.cfg.Now().UTC().Truncate(time.Microsecond) }

// Ask is what somebody asks for.
type Ask struct {
	Requester netip.Addr // that it comes from; required
	Address   netip.Addr // that is to be taken off the list; the zero Addr = Requester
	Contact   string     // one line of up to 200 bytes
	Text      string     // up to 2,000 bytes
}

// Limits of what strangers write.
const (
	maxContact = 200
	maxText    = 2000
)

// clean makes a in the form in which it is kept. Errors are of code Invalid.
func (a Ask) clean() (Ask, error) {
	if !a.Requester.IsValid() {
		return a, muster.Errorf(muster.Invalid, "this request has no address: ask over the network, from the address that is listed")
	}
	a.Requester = a.Requester.Unmap().WithZone("")
	if !a.Address.IsValid() {
		a.Address = a.Requester
	}
	a.Address = a.Address.Unmap().WithZone("")
	a.Contact, a.Text = strings.TrimSpace(a.Contact), strings.TrimSpace(strings.ReplaceAll(a.Text, "\r\n", "\n"))
	if len(a.Contact) > maxContact || !utf8.ValidString(a.Contact) || strings.ContainsFunc(a.Contact, unfit) {
		return a, muster.Errorf(muster.Invalid, "contact: expected one line of at most %d bytes, got %d bytes", maxContact, len(a.Contact))
	}
	if len(a.Text) > maxText || !utf8.ValidString(a.Text) || strings.ContainsFunc(strings.ReplaceAll(a.Text, "\n", ""), unfit) {
		return a, muster.Errorf(muster.Invalid, "text: expected at most %d bytes of plain text, got %d bytes", maxText, len(a.Text))
	}
	return a, nil
}

// unfit are the runes with which a text plays tricks on whoever reads it.
func unfit(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }

// Answer says what came of an Ask.
type Answer struct {
	Address netip.Addr
	State   muster.UnbanState
	Message string               // one sentence
	Request *muster.UnbanRequest // nil for who did not prove that the address is theirs
}

// Ask takes a request. Whoever does not prove that the address is theirs gets the
// same answer whether it is listed or not. Errors are of code Invalid, NotFound
// (nothing to ask for), RateLimited or Unavailable with RetryAfter.
func (s *Service) Ask(ctx context.Context, a Ask) (Answer, error) {
	a, err := a.clean()
	if err != nil {
		return Answer{}, err
	}
	now := s.instant()
	if wait := s.asks.spend(now, a.Requester); wait > 0 {
		return Answer{}, s.limited(wait)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Answer{}, err
	}
	r := muster.UnbanRequest{
		ID: id.String(), Address: a.Address, Requester: a.Requester, Contact: a.Contact, Text: a.Text,
		Proof: s.prove(ctx, a.Requester, a.Address), State: muster.UnbanWaiting, Requested: now,
	}
	kept, err := s.file(ctx, r, now)
	switch {
	case r.Proof == "" && (err == nil || muster.CodeOf(err) != ""):
		return Answer{
			Address: a.Address, State: muster.UnbanWaiting,
			Message: "If this address is on the community list, the operators will look at it. It goes faster from the address itself: " +
				"a request that comes from there needs nobody.",
		}, nil
	case err != nil:
		return Answer{}, err
	}
	return Answer{Address: a.Address, State: kept.State, Message: words(kept), Request: &kept}, nil
}

func (s *Service) limited(wait time.Duration) error {
	s.outcomes.WithLabelValues("limited").Inc()
	return &muster.Error{Code: muster.RateLimited, RetryAfter: wait, Message: "your network asked too often today: ask again tomorrow (UTC)"}
}

// prove asks the provers until one has a proof.
func (s *Service) prove(ctx context.Context, requester, address netip.Addr) muster.UnbanProof {
	for _, p := range s.cfg.Provers {
		proof, err := p.Prove(ctx, requester, address)
		if err != nil {
			s.log.Info("an address could not be proven to be the requester's", "address", address, "requester", requester, "error", err)
			continue
		}
		if proof != "" {
			return proof
		}
	}
	return ""
}

// file decides r and keeps it, unless there is one that will do, which it
// returns then.
func (s *Service) file(ctx context.Context, r muster.UnbanRequest, now time.Time) (muster.UnbanRequest, error) {
	listing, err := s.cfg.List.Listing(ctx, r.Address)
	if errors.Is(err, muster.NotFound) {
		s.outcomes.WithLabelValues("not-listed").Inc()
		return r, muster.Errorf(muster.NotFound, "%s is not on the community list: there is nothing to ask for", r.Address)
	}
	if err != nil {
		return r, err
	}
	r.Source = listing.Source
	at := situation{now: now, request: r, since: listing.Since, basis: listing.Reasons.Basis, listed: s.cfg.List.Size()}
	var o outcome
	err = s.cfg.Store.ChangeUnbans(ctx, r, s.rules.since(now), func(past muster.UnbanHistory) ([]muster.UnbanRequest, []muster.AuditEntry, error) {
		at.past = past
		o = s.rules.decide(at)
		switch {
		case o.refuse != nil:
			return nil, nil, o.refuse.error(now)
		case o.same != nil:
			r = *o.same
			return nil, nil, nil
		case o.grant:
			r = s.rules.grant(r, now, past.Rounds)
		default:
			r.Reason = o.queue
		}
		var put []muster.UnbanRequest
		if past.Open != nil { // without proof, and this one has it
			put = append(put, withdrawn(*past.Open, now, "a request with proof took its place"))
		}
		return append(put, r), nil, nil
	})
	if err != nil {
		if o.refuse != nil {
			s.outcomes.WithLabelValues("refused").Inc()
		}
		return r, err
	}
	s.tell(ctx, r, o)
	return r, nil
}

// tell lets judge, log and metrics know of a request that was filed.
func (s *Service) tell(ctx context.Context, r muster.UnbanRequest, o outcome) {
	attrs := []any{"source", r.Source, "requester", r.Requester, "proof", r.Proof, "reason", r.Reason}
	switch {
	case o.grant:
		s.outcomes.WithLabelValues("granted").Inc()
		s.log.Info("an unban is granted", append(attrs, "round", r.Round)...)
		s.deliverNow(ctx, r)
	case o.alarm:
		s.waiting.Add(1)
		s.outcomes.WithLabelValues("alarm").Inc()
		s.log.Warn("unusually many unbans: requests wait for operators", attrs...)
	case o.queue != "":
		s.waiting.Add(1)
		s.outcomes.WithLabelValues("queued").Inc()
		s.log.Info("an unban waits for operators", attrs...)
	}
}

func (r *refusal) error(now time.Time) error {
	return &muster.Error{Code: r.code, Message: r.why, RetryAfter: r.next.Sub(now)}
}

func withdrawn(r muster.UnbanRequest, at time.Time, reason string) muster.UnbanRequest {
	r.State, r.Decided, r.Reason = muster.UnbanWithdrawn, at, reason
	return r
}

// words says how a request stands to who asked.
func words(r muster.UnbanRequest) string {
	switch r.State {
	case muster.UnbanGranted:
		return fmt.Sprintf("%s is taken off the list: engines let it in again with their next pull, within about two hours. Until %s it takes twice as much to list it again.",
			r.Source, date(r.GraceUntil))
	case muster.UnbanWaiting:
		return fmt.Sprintf("The request for %s waits for the operators: %s.", r.Source, r.Reason)
	case muster.UnbanRefused:
		return fmt.Sprintf("The request for %s was refused on %s: %s.", r.Source, date(r.Decided), r.Reason)
	case muster.UnbanWithdrawn:
	}
	return fmt.Sprintf("The request for %s was withdrawn on %s: %s.", r.Source, date(r.Decided), r.Reason)
}

// Standing says how an address stands, to whoever has it.
type Standing struct {
	Address netip.Addr
	Listing *muster.Verdict // nil: it is not on the community list
	CanAsk  bool
	Next    time.Time            // when it can ask again; zero: now, or not as long as a request waits
	Message string               // one sentence or two
	Request *muster.UnbanRequest // the last that counts, nil = none
}

// Standing says how the address stands that somebody asks from. Errors are of
// code Invalid or RateLimited.
func (s *Service) Standing(ctx context.Context, addr netip.Addr) (Standing, error) {
	if !addr.IsValid() {
		return Standing{}, muster.Errorf(muster.Invalid, "this request has no address to tell about: ask over the network")
	}
	addr = addr.Unmap().WithZone("")
	st, now := Standing{Address: addr}, s.instant()
	if wait := s.looks.spend(now, addr); wait > 0 {
		return st, s.limited(wait)
	}
	r := muster.UnbanRequest{Source: muster.SourceFromAddr(addr), Address: addr, Requester: addr, Proof: s.prove(ctx, addr, addr)}
	listing, err := s.cfg.List.Listing(ctx, addr)
	switch {
	case err == nil:
		st.Listing, r.Source = &listing, listing.Source
	case !errors.Is(err, muster.NotFound):
		return st, err
	}
	past, err := s.cfg.Store.UnbanHistory(ctx, r, s.rules.since(now))
	if err != nil {
		return st, err
	}
	st.Request = past.Last
	if st.Listing == nil {
		st.Message = fmt.Sprintf("%s is not on the community list.", addr)
		if past.Last != nil && now.Before(past.Last.GraceUntil) {
			st.Message += fmt.Sprintf(" Until %s it takes twice as much to list it again.", date(past.Last.GraceUntil))
		}
		return st, nil
	}
	o := s.rules.decide(situation{now: now, request: r, since: listing.Since, basis: listing.Reasons.Basis, past: past, listed: s.cfg.List.Size()})
	switch {
	case o.same != nil:
		st.Request, st.Message = o.same, words(*o.same)
	case o.refuse != nil:
		st.Next, st.Message = o.refuse.next, fmt.Sprintf("%s is on the community list: %s.", addr, o.refuse.why)
	case o.grant:
		st.CanAsk, st.Message = true, fmt.Sprintf("%s is on the community list. Mend what attacks from there, then ask: it is taken off at once.", addr)
	default:
		st.CanAsk, st.Message = true, fmt.Sprintf("%s is on the community list. You can ask, and operators decide: %s.", addr, o.queue)
	}
	return st, nil
}

// deliver tells the judge of a granted request.
func (s *Service) deliver(ctx context.Context, r muster.UnbanRequest) error {
	if err := s.cfg.Judge.Granted(ctx, r.Source, r.Decided); err != nil {
		return fmt.Errorf("telling the judge of the unban of %s: %w", r.Source, err)
	}
	if !r.Own() {
		// Else it would be listed by itself, once its range is not.
		if err := s.cfg.Judge.Granted(ctx, muster.SourceFromAddr(r.Address), r.Decided); err != nil {
			return fmt.Errorf("telling the judge of the unban of %s: %w", r.Address, err)
		}
	}
	return s.cfg.Store.UnbanDelivered(ctx, r.ID)
}

// deliverNow is deliver for who does not wait: what fails is done again by Run.
func (s *Service) deliverNow(ctx context.Context, r muster.UnbanRequest) {
	if err := s.deliver(ctx, r); err != nil && ctx.Err() == nil {
		s.log.Warn("an unban is told to the judge later", "error", err)
	}
}

// audit makes the entry for an operator's decision.
func audit(at time.Time, action string, by By, r muster.UnbanRequest) (muster.AuditEntry, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return muster.AuditEntry{}, err
	}
	detail, err := json.Marshal(map[string]any{"request": r.ID, "address": r.Address, "requester": r.Requester, "proof": r.Proof, "round": r.Round})
	return muster.AuditEntry{ID: id.String(), At: at, By: by.User, Action: action, Subject: r.Source.String(), Reason: by.Reason, Detail: detail}, err
}
