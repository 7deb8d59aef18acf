package catalog

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"

	"muster"
	"muster/internal/catalog/feed"
)

// By is who changes something, and why: for the audit.
type By struct{ User, Reason string }

// Bounds of lifetimes: engines pull every two hours, and drop what they are not
// told again.
const (
	MinLifetime = 3 * time.Hour
	MaxLifetime = 30 * 24 * time.Hour
)

// Bounds of feeds.
const (
	minInterval     = 15 * time.Minute
	defaultInterval = 6 * time.Hour
	maxInterval     = 30 * 24 * time.Hour
	defaultFeedMax  = 200_000
	maxFeedMax      = 1_000_000
	maxLists        = 10_000
)

var nameForm = regexp.MustCompile(`^[a-z0-9_-]{1,64}$`)

// Create makes a list; ID, CreatedAt and CreatedBy are set here, and defaults for
// Remedy (ban), Lifetime and the feed's settings. Errors are of code Invalid or
// Exists.
func (s *Service) Create(ctx context.Context, l muster.Blocklist, by By) (muster.Blocklist, error) {
	if !nameForm.MatchString(l.Name) {
		return l, muster.Errorf(muster.Invalid, "name: expected 1 to 64 lower-case letters, digits, - and _, got %q", clip(l.Name))
	}
	if l.Name == muster.CommunityList || strings.HasPrefix(l.Name, Prefix) {
		return l, muster.Errorf(muster.Invalid, "name: %q is kept for lists that Muster brings along: choose another", l.Name)
	}
	if strings.HasSuffix(l.Name, RangesSuffix) {
		return l, muster.Errorf(muster.Invalid, "name: engines know the ranges of a list by a name that ends in %s: choose another", RangesSuffix)
	}
	if !l.Kind.Valid() {
		return l, muster.Errorf(muster.Invalid, "kind: expected rule, custom or feed, got %q", clip(string(l.Kind)))
	}
	if n := len(s.state.Load().lists); n >= maxLists {
		return l, muster.Errorf(muster.TooLarge, "there are %d blocklists: expected at most %d", n, maxLists)
	}
	if err := complete(&l); err != nil {
		return l, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return l, err
	}
	l.ID, l.CreatedAt, l.CreatedBy = id.String(), s.instant(), by.User
	entry, err := s.audit("blocklist.create", l.Name, by, l)
	if err != nil {
		return l, err
	}
	if err := s.cfg.Store.CreateBlocklist(ctx, l, entry); err != nil {
		return l, err
	}
	return l, s.changed(ctx, l.ID)
}

// complete checks what can be changed about a list and sets defaults.
func complete(l *muster.Blocklist) error {
	if l.Label = strings.TrimSpace(l.Label); l.Label == "" {
		l.Label = l.Name
	}
	l.Description = strings.TrimSpace(l.Description)
	if len(l.Label) > 100 || len(l.Description) > 1000 || strings.ContainsAny(l.Label, "\r\n") {
		return muster.Errorf(muster.Invalid, "expected a label of one line and up to 100 bytes and a description of up to 1,000, got %d and %d", len(l.Label), len(l.Description))
	}
	if len(l.SharedWith) > 1000 {
		return muster.Errorf(muster.Invalid, "shared_with: expected at most 1,000 organisations, got %d: share with * instead", len(l.SharedWith))
	}
	if l.Remedy == "" {
		l.Remedy = muster.RemedyBan
	}
	if err := checkRemedy(l.Remedy); err != nil {
		return err
	}
	if l.Lifetime == 0 {
		l.Lifetime = Lifetime
	}
	if l.Lifetime = l.Lifetime.Truncate(time.Second); l.Lifetime < MinLifetime || l.Lifetime > MaxLifetime {
		return muster.Errorf(muster.Invalid, "lifetime: expected %s to %s, got %s: engines drop what they were not told again for as long, and pull every two hours", MinLifetime, MaxLifetime, l.Lifetime)
	}
	if l.Kind == muster.RuleList {
		return CheckRule(l.Rule)
	}
	if l.Kind == muster.FeedList {
		return completeFeed(&l.Feed)
	}
	return nil
}

func checkRemedy(r muster.Remedy) error {
	if r != muster.RemedyBan && r != muster.RemedyCaptcha {
		return muster.Errorf(muster.Invalid, "remedy: expected ban or captcha, got %q", clip(string(r)))
	}
	return nil
}

func completeFeed(f *muster.Feed) error {
	if err := feed.CheckURL(f.URL); err != nil {
		return err
	}
	if err := feed.CheckFormat(f.Format); err != nil {
		return err
	}
	if f.Interval == 0 {
		f.Interval = defaultInterval
	}
	if f.Max == 0 {
		f.Max = defaultFeedMax
	}
	if f.Swing == 0 {
		f.Swing = 2
	}
	if f.Forbidden == 0 {
		f.Forbidden = 100
	}
	if f.Keep == 0 {
		f.Keep = 7 * 24 * time.Hour
	}
	switch {
	case f.Interval < minInterval || f.Interval > maxInterval:
		return muster.Errorf(muster.Invalid, "interval: expected %s to %s, got %s", minInterval, maxInterval, f.Interval)
	case f.Max < 1 || f.Max > maxFeedMax:
		return muster.Errorf(muster.Invalid, "max: expected 1 to %d entries, got %d", maxFeedMax, f.Max)
	case !(f.Swing > 1 && f.Swing <= 1000): // also what is no number
		return muster.Errorf(muster.Invalid, "swing: expected a factor over 1 and up to 1,000, got %v", f.Swing)
	case f.Forbidden < 1 || f.Forbidden > maxFeedMax:
		return muster.Errorf(muster.Invalid, "forbidden: expected 1 to %d entries, got %d", maxFeedMax, f.Forbidden)
	case f.Keep < f.Interval || f.Keep > 365*24*time.Hour:
		return muster.Errorf(muster.Invalid, "keep: expected the interval (%s) to 365 days, got %s", f.Interval, f.Keep)
	}
	return nil
}

// Update changes a list, found by id or name: change may set all but ID, name,
// kind and creation. What Muster brings along cannot be changed: code Forbidden.
func (s *Service) Update(ctx context.Context, ref string, by By, change func(*muster.Blocklist) error) (muster.Blocklist, error) {
	l, err := s.own(ref)
	if err != nil {
		return l, err
	}
	before := l
	if err := change(&l); err != nil {
		return l, err
	}
	l.ID, l.Name, l.Kind, l.CreatedAt, l.CreatedBy = before.ID, before.Name, before.Kind, before.CreatedAt, before.CreatedBy
	if err := complete(&l); err != nil {
		return l, err
	}
	entry, err := s.audit("blocklist.update", l.Name, by, l)
	if err != nil {
		return l, err
	}
	if err := s.cfg.Store.UpdateBlocklist(ctx, l, entry); err != nil {
		return l, err
	}
	if l.Kind == muster.FeedList && (l.Feed.URL != before.Feed.URL || l.Feed.Format != before.Feed.Format) {
		if err := s.forgetFetched(ctx, l.ID); err != nil {
			return l, err
		}
	}
	return l, s.changed(ctx, l.ID)
}

// own finds a list that is not one of those that Muster brings along.
func (s *Service) own(ref string) (muster.Blocklist, error) {
	l, err := s.List(ref)
	if err == nil && BuiltIn(l.ID) {
		err = muster.Errorf(muster.Forbidden, "%s comes with Muster and cannot be changed: make a list of your own with muster admin blocklist create", l.Name)
	}
	return l, err
}

// Delete forgets a list with its subscriptions, and tells engines to drop it.
func (s *Service) Delete(ctx context.Context, ref string, by By) (muster.Blocklist, error) {
	l, err := s.own(ref)
	if err != nil {
		return l, err
	}
	subscriptions := s.state.Load().subscribers[l.ID]
	entry, err := s.audit("blocklist.delete", l.Name, by, l)
	if err != nil {
		return l, err
	}
	if err := s.cfg.Store.DeleteBlocklist(ctx, l.ID, entry); err != nil {
		return l, err
	}
	err = s.changed(ctx, l.ID)
	for _, sub := range subscriptions {
		s.enqueue(task{list: l, subscriber: sub.Subscriber})
	}
	return l, err
}

// audit makes the entry for a change.
func (s *Service) audit(action, subject string, by By, detail any) (muster.AuditEntry, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return muster.AuditEntry{}, err
	}
	raw, err := json.Marshal(detail)
	return muster.AuditEntry{ID: id.String(), At: s.instant(), By: by.User, Action: action, Subject: subject, Reason: by.Reason, Detail: raw}, err
}
