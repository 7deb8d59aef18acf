package unban

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"muster"
)

// Requests returns a page of requests, in order of their making.
func (s *Service) Requests(ctx context.Context, q muster.UnbanQuery) ([]muster.UnbanRequest, error) {
	return s.cfg.Store.Unbans(ctx, q)
}

// Case is all that an operator needs to decide a request.
type Case struct {
	Request muster.UnbanRequest
	Listing *muster.Verdict       // that the address is under now; nil = none
	Others  []muster.UnbanRequest // for the same source, newest first, at most 20
}

// Case finds a request by its id, or by its address or range: the one that
// waits, else the last one. Code NotFound.
func (s *Service) Case(ctx context.Context, ref string) (Case, error) {
	r, err := s.find(ctx, ref)
	if err != nil {
		return Case{}, err
	}
	c := Case{Request: r}
	listing, err := s.cfg.List.Listing(ctx, r.Address)
	switch {
	case err == nil:
		c.Listing = &listing
	case !errors.Is(err, muster.NotFound):
		return c, err
	}
	others, err := s.cfg.Store.Unbans(ctx, muster.UnbanQuery{Source: r.Source, LastFirst: true, Limit: 21})
	if err != nil {
		return c, err
	}
	for _, o := range others {
		if o.ID != r.ID && len(c.Others) < 20 {
			c.Others = append(c.Others, o)
		}
	}
	return c, nil
}

func (s *Service) find(ctx context.Context, ref string) (muster.UnbanRequest, error) {
	q := muster.UnbanQuery{ID: ref, LastFirst: true, Limit: 1}
	if uuid.Validate(ref) != nil {
		source, err := muster.ParseSource(ref)
		if err != nil {
			return muster.UnbanRequest{}, muster.Errorf(muster.Invalid, "expected a request's id, or its address: %w", err)
		}
		q.ID = ""
		if q.Source = source; !source.IsRange() {
			q.Source, q.Address = muster.Source{}, source.Addr()
		}
		q.State = muster.UnbanWaiting
	}
	list, err := s.cfg.Store.Unbans(ctx, q)
	if err == nil && len(list) == 0 && q.State != "" {
		q.State = ""
		list, err = s.cfg.Store.Unbans(ctx, q)
	}
	if err != nil {
		return muster.UnbanRequest{}, err
	}
	if len(list) == 0 {
		return muster.UnbanRequest{}, muster.Errorf(muster.NotFound, "nobody asked for %s: muster admin unban list --state all shows who did", ref)
	}
	return list[0], nil
}

// Grant decides for a request that waits, found as Case does; it counts as a
// round. Codes NotFound, and Gone when it does not wait any more.
func (s *Service) Grant(ctx context.Context, ref string, by By) (muster.UnbanRequest, error) {
	r, err := s.decide(ctx, ref, "unban.grant", by, func(r muster.UnbanRequest, now time.Time, rounds int) muster.UnbanRequest {
		if r.Proof == "" {
			r.Proof = muster.ProofOperator
		}
		return s.rules.grant(r, now, rounds)
	})
	if err == nil {
		s.deliverNow(ctx, r)
	}
	return r, err
}

// Refuse decides against a request that waits, found as Case does. With proof it
// counts as a round: who asked must wait before asking again, and then waits for
// operators. Codes as of Grant.
func (s *Service) Refuse(ctx context.Context, ref string, by By) (muster.UnbanRequest, error) {
	return s.decide(ctx, ref, "unban.refuse", by, func(r muster.UnbanRequest, now time.Time, rounds int) muster.UnbanRequest {
		r.State, r.Decided = muster.UnbanRefused, now
		if r.Proof != "" {
			rounds++
		}
		r.Round = rounds
		return r
	})
}

func (s *Service) decide(ctx context.Context, ref, action string, by By, change func(r muster.UnbanRequest, now time.Time, rounds int) muster.UnbanRequest) (muster.UnbanRequest, error) {
	r, err := s.find(ctx, ref)
	if err != nil {
		return r, err
	}
	now := s.instant()
	err = s.cfg.Store.ChangeUnbans(ctx, r, s.rules.since(now), func(past muster.UnbanHistory) ([]muster.UnbanRequest, []muster.AuditEntry, error) {
		if past.Open == nil || past.Open.ID != r.ID {
			return nil, nil, muster.Errorf(muster.Gone, "the request for %s does not wait any more: muster admin unban show %s tells how it ended", r.Source, r.ID)
		}
		r = change(*past.Open, now, past.Rounds)
		r.By, r.Reason = by.User, by.Reason
		entry, err := audit(now, action, by, r)
		return []muster.UnbanRequest{r}, []muster.AuditEntry{entry}, err
	})
	if err == nil {
		s.waiting.Add(-1)
		s.log.Info("an operator decided about an unban", "source", r.Source, "state", r.State, "user", by.User, "reason", by.Reason)
	}
	return r, err
}

// How often chores are done, and how long what people wrote is kept after the
// decision.
const (
	deliverEvery = 10 * time.Second
	sweepEvery   = 10 * time.Minute
	tidyEvery    = time.Hour
	keepWritten  = 30 * day
)

// Run tells the judge what it could not be told at once, withdraws requests whose
// source left the list by itself, and forgets what is old, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	deliver, sweep, tidy := time.NewTicker(deliverEvery), time.NewTicker(sweepEvery), time.NewTicker(tidyEvery)
	defer func() { deliver.Stop(); sweep.Stop(); tidy.Stop() }()
	failing := false // one line when trouble begins and one when it ends
	err := errors.Join(s.deliverAll(ctx), s.sweep(ctx))
	for {
		switch {
		case err != nil && ctx.Err() == nil && !failing:
			failing = true
			s.log.Warn("unban requests could not be looked after; it is tried again", "error", err)
		case err == nil && failing:
			failing = false
			s.log.Info("unban requests are looked after again")
		}
		select {
		case <-deliver.C:
			err = s.deliverAll(ctx)
		case <-sweep.C:
			err = s.sweep(ctx)
		case <-tidy.C:
			now := s.instant()
			err = s.cfg.Store.TidyUnbans(ctx, now.Add(-keepWritten), now.Add(-s.rules.Memory))
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Service) deliverAll(ctx context.Context) error {
	untold, err := s.cfg.Store.Unbans(ctx, muster.UnbanQuery{Untold: true, Limit: 100})
	for _, r := range untold {
		err = errors.Join(err, s.deliver(ctx, r)) // one that the judge does not take must not stop others
	}
	return err
}

// sweep withdraws what waits for nothing.
func (s *Service) sweep(ctx context.Context) error {
	q, waiting := muster.UnbanQuery{State: muster.UnbanWaiting, Limit: 100}, int64(0)
	for {
		page, err := s.cfg.Store.Unbans(ctx, q)
		if err != nil {
			return err
		}
		for _, r := range page {
			listing, err := s.cfg.List.Listing(ctx, r.Address)
			switch {
			case err != nil && !errors.Is(err, muster.NotFound):
				return err
			case err == nil && listing.Source == r.Source:
				waiting++
				continue
			}
			if err := s.withdraw(ctx, r); err != nil {
				return err
			}
		}
		if len(page) < q.Limit {
			s.waiting.Store(waiting)
			return nil
		}
		q.After = page[len(page)-1].ID
	}
}

func (s *Service) withdraw(ctx context.Context, r muster.UnbanRequest) error {
	now := s.instant()
	return s.cfg.Store.ChangeUnbans(ctx, r, s.rules.since(now), func(past muster.UnbanHistory) ([]muster.UnbanRequest, []muster.AuditEntry, error) {
		if past.Open == nil || past.Open.ID != r.ID {
			return nil, nil, nil // an operator was faster
		}
		return []muster.UnbanRequest{withdrawn(*past.Open, now, "the source left the list by itself")}, nil, nil
	})
}
