package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"muster"
	"muster/internal/catalog/feed"
)

// fetched returns what is in force of a feed: nothing when nothing good was
// fetched for too long.
func (s *Service) fetched(ctx context.Context, l *muster.Blocklist, now time.Time) ([]muster.ListEntry, error) {
	state := s.FeedState(l.ID)
	if state.GoodAt.IsZero() || !now.Before(state.GoodAt.Add(l.Feed.Keep)) {
		return nil, nil
	}
	sources, err := s.cfg.Store.FeedEntries(ctx, l.ID, false)
	if err != nil {
		return nil, err
	}
	entries := make([]muster.ListEntry, len(sources))
	for i, source := range sources {
		entries[i] = muster.ListEntry{Source: source, Remedy: l.Remedy}
	}
	return entries, nil
}

// feedEnds is when a feed that is not fetched again is out of force.
func (s *Service) feedEnds(l *muster.Blocklist) time.Time {
	return s.FeedState(l.ID).GoodAt.Add(l.Feed.Keep)
}

// FetchDue fetches the feeds whose time has come, one after the other. What went
// wrong with one of them stands in its state.
func (s *Service) FetchDue(ctx context.Context) error {
	if s.cfg.Fetch == nil {
		return nil
	}
	var errs []error
	for _, l := range s.Lists() {
		if l.Kind != muster.FeedList || ctx.Err() != nil {
			continue
		}
		if state := s.FeedState(l.ID); !s.instant().Before(state.NextAt) {
			if _, err := s.fetch(ctx, l); err != nil && !errors.Is(err, muster.NotFound) {
				errs = append(errs, fmt.Errorf("%s: %w", l.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// FetchNow fetches a feed, found by id or name, whether it is time or not; what
// went wrong with the fetch stands in the state. Errors are of code NotFound,
// Invalid, or of the store.
func (s *Service) FetchNow(ctx context.Context, ref string) (muster.FeedState, error) {
	l, err := s.feed(ref)
	if err != nil {
		return muster.FeedState{}, err
	}
	if s.cfg.Fetch == nil {
		return muster.FeedState{}, muster.Errorf(muster.Unavailable, "this server fetches no feeds: ask the one that does")
	}
	return s.fetch(ctx, l)
}

func (s *Service) feed(ref string) (muster.Blocklist, error) {
	l, err := s.List(ref)
	if err == nil && l.Kind != muster.FeedList {
		err = muster.Errorf(muster.Invalid, "%s is a %s list: only feeds are fetched", l.Name, l.Kind)
	}
	return l, err
}

// fetch fetches a feed and takes over what came, or holds it, or notes what is
// wrong.
func (s *Service) fetch(ctx context.Context, l muster.Blocklist) (muster.FeedState, error) {
	s.feeding.Lock()
	defer s.feeding.Unlock()
	state := s.FeedState(l.ID)
	state.List, state.TriedAt = l.ID, s.instant()
	answer, fetchErr := s.cfg.Fetch.Fetch(ctx, feed.Request{
		URL: l.Feed.URL, ETag: state.ETag, LastModified: state.LastModified, Format: l.Feed.Format, Max: l.Feed.Max,
	})
	if ctx.Err() != nil {
		return state, ctx.Err() // the server stops: no failure of the feed's
	}
	var inForce, held []muster.Source
	outcome := "unchanged"
	switch {
	case fetchErr != nil:
		outcome = "failed"
		fail(&state, l.Feed.Interval, fetchErr)
	case answer.Unchanged:
		succeed(&state, l.Feed.Interval)
	default:
		var err error
		if outcome, inForce, held, err = s.take(ctx, &l, &state, answer); err != nil {
			return state, err
		}
	}
	s.fetches.WithLabelValues(l.Name, outcome).Inc()
	if state.Problem != "" {
		s.log.Warn("a feed is not as it should be", "list", l.Name, "problem", state.Problem, "failures", state.Failures, "next", state.NextAt)
	}
	if err := s.cfg.Store.PutFeed(ctx, state, inForce, held); err != nil {
		return state, err
	}
	return state, s.changed(ctx, l.ID)
}

// take decides about what was fetched: it is in force, held or refused. Lists
// that are not nil are to be stored.
func (s *Service) take(ctx context.Context, l *muster.Blocklist, state *muster.FeedState, answer feed.Answer) (outcome string, inForce, held []muster.Source, err error) {
	sources := make([]muster.Source, 0, len(answer.Sources))
	state.Forbidden, state.Skipped, state.Format = 0, answer.Skipped, answer.Format
	example := ""
	for _, source := range answer.Sources {
		if s.cfg.Forbidden(source) {
			if state.Forbidden++; example == "" {
				example = source.String()
			}
			continue
		}
		sources = append(sources, source)
	}
	switch {
	case state.Forbidden > l.Feed.Forbidden:
		fail(state, l.Feed.Interval, muster.Errorf(muster.Invalid, "%d of its entries are allowlisted or canaries, such as %s: expected at most %d (forbidden of the feed)", state.Forbidden, example, l.Feed.Forbidden))
		return "refused", nil, nil, nil
	case len(sources) == 0:
		fail(state, l.Feed.Interval, muster.Errorf(muster.Invalid, "all of its %d entries are allowlisted or canaries", state.Forbidden))
		return "refused", nil, nil, nil
	}
	before, err := s.cfg.Store.FeedEntries(ctx, l.ID, false)
	if err != nil {
		return "", nil, nil, err
	}
	// Unchanged next time is what was seen, in force or held.
	state.ETag, state.LastModified = answer.ETag, answer.LastModified
	none := []muster.Source{}
	if reason := s.doubt(l, before, sources); reason != "" {
		state.HeldAt, state.HeldSize, state.HeldReason = state.TriedAt, len(sources), reason
		succeed(state, l.Feed.Interval)
		return "held", nil, sources, nil
	}
	state.HeldAt, state.HeldSize, state.HeldReason = time.Time{}, 0, ""
	succeed(state, l.Feed.Interval)
	if slices.Equal(before, sources) {
		return "unchanged", nil, none, nil
	}
	state.ChangedAt, state.Size = state.TriedAt, len(sources)
	return "new", sources, none, nil
}

// doubt says why a version waits for a person's word, "" when it does not.
func (s *Service) doubt(l *muster.Blocklist, before, now []muster.Source) string {
	was, is := float64(len(before)), float64(len(now))
	switch {
	case slices.Equal(before, now) || len(before) == 0 && !l.Feed.Hold:
		return ""
	case l.Feed.Hold:
		return "the feed is on hold"
	case is > was*l.Feed.Swing:
		return fmt.Sprintf("it grew from %d to %d entries", len(before), len(now))
	case is*l.Feed.Swing < was:
		return fmt.Sprintf("it shrank from %d to %d entries", len(before), len(now))
	}
	return ""
}

// succeed notes that what the source has is known. A version that is held is not
// in force, and what is goes on ageing.
func succeed(state *muster.FeedState, interval time.Duration) {
	state.Failures, state.Problem, state.NextAt = 0, "", state.TriedAt.Add(interval)
	if state.HeldAt.IsZero() {
		state.GoodAt = state.TriedAt
	} else {
		state.Problem = "a version waits for a person's word: " + state.HeldReason
	}
}

// retry is when a failed fetch is tried again at first; it doubles with each
// failure, up to the interval.
const retry = 5 * time.Minute

func fail(state *muster.FeedState, interval time.Duration, err error) {
	state.Failures++
	state.Problem = err.Error()
	wait := min(retry<<min(state.Failures-1, 16), interval)
	if known := (*muster.Error)(nil); errors.As(err, &known) {
		wait = max(wait, known.RetryAfter)
	}
	state.NextAt = state.TriedAt.Add(wait)
}

// forgetFetched has a feed be fetched anew: its source is another.
func (s *Service) forgetFetched(ctx context.Context, list string) error {
	s.feeding.Lock()
	defer s.feeding.Unlock()
	state := s.FeedState(list)
	state.List, state.ETag, state.LastModified, state.NextAt = list, "", "", time.Time{}
	return s.cfg.Store.PutFeed(ctx, state, nil, nil)
}

// Approve takes over the version of a feed that is held; code NotFound when none
// is.
func (s *Service) Approve(ctx context.Context, ref string, by By) (muster.FeedState, error) {
	return s.settle(ctx, ref, "feed.approve", by, func(state *muster.FeedState, held []muster.Source) []muster.Source {
		state.ChangedAt, state.GoodAt, state.Size = s.instant(), s.instant(), len(held)
		return held
	})
}

// Discard forgets the version of a feed that is held; it is not held again until
// the source has another. Code NotFound when none is.
func (s *Service) Discard(ctx context.Context, ref string, by By) (muster.FeedState, error) {
	return s.settle(ctx, ref, "feed.discard", by, func(*muster.FeedState, []muster.Source) []muster.Source { return nil })
}

func (s *Service) settle(ctx context.Context, ref, action string, by By, decide func(*muster.FeedState, []muster.Source) []muster.Source) (muster.FeedState, error) {
	l, err := s.feed(ref)
	if err != nil {
		return muster.FeedState{}, err
	}
	s.feeding.Lock()
	defer s.feeding.Unlock()
	state := s.FeedState(l.ID)
	if state.HeldAt.IsZero() {
		return state, muster.Errorf(muster.NotFound, "no version of %s waits for a word", l.Name)
	}
	held, err := s.cfg.Store.FeedEntries(ctx, l.ID, true)
	if err != nil {
		return state, err
	}
	entry, err := s.audit(action, l.Name, by, map[string]any{"entries": state.HeldSize, "before": state.Size, "reason": state.HeldReason})
	if err != nil {
		return state, err
	}
	inForce := decide(&state, held)
	state.HeldAt, state.HeldSize, state.HeldReason, state.Problem = time.Time{}, 0, "", ""
	if err := s.cfg.Store.PutFeed(ctx, state, inForce, []muster.Source{}, entry); err != nil {
		return state, err
	}
	return state, s.changed(ctx, l.ID)
}
