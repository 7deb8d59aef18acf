package console

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	"muster"
	"muster/internal/catalog"
)

// Blocklists is the catalogue. Lists are found by id or name; what does not
// exist is of code muster.NotFound. Changes are durable when they return, and
// audited.
type Blocklists interface {
	Overviews() []catalog.Overview
	Overview(ctx context.Context, ref string) (catalog.Overview, error)
	Create(ctx context.Context, l muster.Blocklist, by catalog.By) (muster.Blocklist, error)
	Update(ctx context.Context, ref string, by catalog.By, change func(*muster.Blocklist) error) (muster.Blocklist, error)
	Delete(ctx context.Context, ref string, by catalog.By) (muster.Blocklist, error)

	// Entries returns what an organisation reads of a list, by its id.
	Entries(ctx context.Context, list, organisation string) ([]muster.ListEntry, uint64, error)
	CustomEntries(ctx context.Context, ref string, after muster.Source, limit int) ([]muster.CustomEntry, error)
	PutEntries(ctx context.Context, ref string, entries []muster.CustomEntry, replace bool, by catalog.By) (catalog.Stored, error)
	RemoveEntries(ctx context.Context, ref string, sources []muster.Source, atOnce bool, by catalog.By) (int, error)
	ReadUpload(text []byte) (catalog.Upload, error)

	FetchNow(ctx context.Context, ref string) (muster.FeedState, error)
	Approve(ctx context.Context, ref string, by catalog.By) (muster.FeedState, error)
	Discard(ctx context.Context, ref string, by catalog.By) (muster.FeedState, error)
	Statistics(ctx context.Context, ref string) (catalog.ListStatistics, error)

	Subscriptions(list string) []muster.Subscription
	Subscribe(ctx context.Context, sub muster.Subscription, by catalog.By) (muster.Subscription, error)
	Unsubscribe(ctx context.Context, ref string, subscriber muster.Subscriber, by catalog.By) error
}

// ruleView is a rule as the API takes and shows it.
type ruleView struct {
	Behaviours   []string      `json:"behaviours"`
	Scenarios    []string      `json:"scenarios"`
	Countries    []string      `json:"countries"`
	ASNs         []uint32      `json:"asns"`
	SinceSeconds int64         `json:"since_seconds"`
	Own          bool          `json:"own"`
	Remedy       muster.Remedy `json:"remedy"`
	Top          int           `json:"top"`
}

func viewRule(r muster.ListRule) *ruleView {
	return &ruleView{
		orEmpty(r.Behaviours), orEmpty(r.Scenarios), orEmpty(r.Countries), append([]uint32{}, r.ASNs...), int64(r.Since / time.Second), r.Own, r.Remedy, r.Top,
	}
}

func (v *ruleView) rule() (muster.ListRule, error) {
	since, err := lifetime(v.SinceSeconds)
	return muster.ListRule{
		Behaviours: v.Behaviours, Scenarios: v.Scenarios, Countries: v.Countries, ASNs: v.ASNs, Since: since, Own: v.Own, Remedy: v.Remedy, Top: v.Top,
	}, err
}

// feedView is a feed as the API takes and shows it; what is 0 when it is taken
// is left to the server.
type feedView struct {
	URL             string  `json:"url"`
	Format          string  `json:"format"`
	IntervalSeconds int64   `json:"interval_seconds"`
	Max             int     `json:"max"`
	Swing           float64 `json:"swing"`
	Forbidden       int     `json:"forbidden"`
	KeepSeconds     int64   `json:"keep_seconds"`
	Hold            bool    `json:"hold"`

	State *feedStateView `json:"state,omitempty"` // not taken
}

// feedStateView is how the fetching of a feed stands.
type feedStateView struct {
	Format     string     `json:"format"` // that it was read in
	TriedAt    *time.Time `json:"tried_at"`
	GoodAt     *time.Time `json:"good_at"`
	ChangedAt  *time.Time `json:"changed_at"`
	NextAt     *time.Time `json:"next_at"`
	Failures   int        `json:"failures"`
	Problem    string     `json:"problem"`
	Size       int        `json:"size"`      // entries in force
	Skipped    int        `json:"skipped"`   // values that are no address, too wide or reserved
	Forbidden  int        `json:"forbidden"` // allowlisted or canaries
	HeldAt     *time.Time `json:"held_at"`   // null = no version waits for a word
	HeldSize   int        `json:"held_size"`
	HeldReason string     `json:"held_reason"`
}

func viewFeedState(s muster.FeedState) *feedStateView {
	return &feedStateView{
		s.Format, orNull(s.TriedAt), orNull(s.GoodAt), orNull(s.ChangedAt), orNull(s.NextAt), s.Failures, s.Problem, s.Size, s.Skipped, s.Forbidden,
		orNull(s.HeldAt), s.HeldSize, s.HeldReason,
	}
}

func (v *feedView) feed() (muster.Feed, error) {
	interval, err := lifetime(v.IntervalSeconds)
	if err != nil {
		return muster.Feed{}, err
	}
	keep, err := lifetime(v.KeepSeconds)
	return muster.Feed{
		URL: v.URL, Format: v.Format, Interval: interval, Max: v.Max, Swing: v.Swing, Forbidden: v.Forbidden, Keep: keep, Hold: v.Hold,
	}, err
}

// blocklistView is a list as the API shows it.
type blocklistView struct {
	ID              string               `json:"id"`
	Name            string               `json:"name"`
	Label           string               `json:"label"`
	Description     string               `json:"description"`
	Kind            muster.BlocklistKind `json:"kind"`
	BuiltIn         bool                 `json:"built_in"`
	Organisation    string               `json:"organisation"` // "" = the installation's
	SharedWith      []string             `json:"shared_with"`
	Remedy          muster.Remedy        `json:"remedy"`
	LifetimeSeconds int64                `json:"lifetime_seconds"`
	Size            *int                 `json:"size"` // null = not known yet, or another for each organisation
	Subscriptions   int                  `json:"subscriptions"`
	Note            string               `json:"note"`
	Rule            *ruleView            `json:"rule"` // null for other kinds
	Feed            *feedView            `json:"feed"` // null for other kinds
	CreatedAt       *time.Time           `json:"created_at"`
	CreatedBy       string               `json:"created_by"`
}

func viewBlocklist(o catalog.Overview) blocklistView {
	v := blocklistView{
		ID: o.ID, Name: o.Name, Label: o.Label, Description: o.Description, Kind: o.Kind, BuiltIn: o.BuiltIn, Organisation: o.Organisation,
		SharedWith: orEmpty(o.SharedWith), Remedy: o.Remedy, LifetimeSeconds: int64(o.Lifetime / time.Second), Subscriptions: o.Subscriptions,
		Note: o.Note, CreatedAt: orNull(o.CreatedAt), CreatedBy: o.CreatedBy,
	}
	if o.Size >= 0 {
		v.Size = &o.Size
	}
	switch f := o.Feed; o.Kind {
	case muster.RuleList:
		v.Rule = viewRule(o.Rule)
	case muster.FeedList:
		v.Feed = &feedView{f.URL, f.Format, int64(f.Interval / time.Second), f.Max, f.Swing, f.Forbidden, int64(f.Keep / time.Second), f.Hold, viewFeedState(o.Fetched)}
	case muster.CustomList:
	}
	return v
}

func (a *API) blocklists(*http.Request) (any, error) {
	return views(a.cfg.Blocklists.Overviews(), viewBlocklist), nil
}

func (a *API) blocklist(r *http.Request) (any, error) {
	return a.blocklistNow(r, r.PathValue("id"))
}

func (a *API) blocklistNow(r *http.Request, ref string) (any, error) {
	o, err := a.cfg.Blocklists.Overview(r.Context(), ref)
	if err != nil {
		return nil, err
	}
	return viewBlocklist(o), nil
}

// listRequest is what a list is made or changed with; null leaves what is.
type listRequest struct {
	Name            string               `json:"name"`
	Kind            muster.BlocklistKind `json:"kind"`
	Label           *string              `json:"label"`
	Description     *string              `json:"description"`
	Organisation    *string              `json:"organisation"` // id or name; "" = the installation's
	SharedWith      *[]string            `json:"shared_with"`  // ids or names; * = all
	Remedy          *muster.Remedy       `json:"remedy"`
	LifetimeSeconds *int64               `json:"lifetime_seconds"`
	Rule            *ruleView            `json:"rule"`
	Feed            *feedView            `json:"feed"`
	Reason          string               `json:"reason"`
}

// apply changes a list as was asked for.
func (a *API) apply(r *http.Request, q *listRequest, l *muster.Blocklist) (err error) {
	set(&l.Label, q.Label)
	set(&l.Description, q.Description)
	set(&l.Remedy, q.Remedy)
	if q.LifetimeSeconds != nil {
		if l.Lifetime, err = lifetime(*q.LifetimeSeconds); err != nil {
			return err
		}
	}
	if q.Organisation != nil {
		if l.Organisation = *q.Organisation; l.Organisation != "" {
			if l.Organisation, err = a.organisation(r, l.Organisation); err != nil {
				return err
			}
		}
	}
	if q.SharedWith != nil {
		l.SharedWith = nil
		for _, ref := range *q.SharedWith {
			if ref != "*" {
				if ref, err = a.organisation(r, ref); err != nil {
					return err
				}
			}
			l.SharedWith = append(l.SharedWith, ref)
		}
	}
	if q.Rule != nil {
		if l.Kind != muster.RuleList {
			return muster.Errorf(muster.Invalid, "rule: a %s list has none", clip(string(l.Kind)))
		}
		if l.Rule, err = q.Rule.rule(); err != nil {
			return err
		}
	}
	if q.Feed != nil {
		if l.Kind != muster.FeedList {
			return muster.Errorf(muster.Invalid, "feed: a %s list has none", clip(string(l.Kind)))
		}
		if l.Feed, err = q.Feed.feed(); err != nil {
			return err
		}
	}
	return nil
}

// byCaller is who makes a request, with the reason that it gives, if any.
func byCaller(r *http.Request, reason string) (catalog.By, error) {
	reason, err := reasonIfAny(reason)
	return catalog.By{User: callerOf(r), Reason: reason}, err
}

func (a *API) createBlocklist(r *http.Request) (any, error) {
	var q listRequest
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	by, err := byCaller(r, q.Reason)
	if err != nil {
		return nil, err
	}
	l := muster.Blocklist{Name: q.Name, Kind: q.Kind}
	if err := a.apply(r, &q, &l); err != nil {
		return nil, err
	}
	made, err := a.cfg.Blocklists.Create(r.Context(), l, by)
	if err != nil {
		return nil, err
	}
	return a.blocklistNow(r, made.ID)
}

func (a *API) updateBlocklist(r *http.Request) (any, error) {
	var q listRequest
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	if q.Name != "" || q.Kind != "" {
		return nil, muster.Errorf(muster.Invalid, "name and kind cannot be changed: engines know a list by its name: make another")
	}
	by, err := byCaller(r, q.Reason)
	if err != nil {
		return nil, err
	}
	l, err := a.cfg.Blocklists.Update(r.Context(), r.PathValue("id"), by, func(l *muster.Blocklist) error { return a.apply(r, &q, l) })
	if err != nil {
		return nil, err
	}
	return a.blocklistNow(r, l.ID)
}

func (a *API) deleteBlocklist(r *http.Request) (any, error) {
	by, err := byCaller(r, r.URL.Query().Get("reason"))
	if err != nil {
		return nil, err
	}
	_, err = a.cfg.Blocklists.Delete(r.Context(), r.PathValue("id"), by)
	return nil, err
}

// entryView is a line of a list; comment and what follows are of custom lists
// only, scenario and score of rule lists.
type entryView struct {
	Value    string        `json:"value"`
	Until    *time.Time    `json:"until"` // null = until it is taken off
	Remedy   muster.Remedy `json:"remedy,omitempty"`
	Scenario string        `json:"scenario,omitempty"`
	Score    float32       `json:"score,omitempty"`
	Comment  string        `json:"comment,omitempty"`
	AddedAt  *time.Time    `json:"added_at,omitempty"`
	AddedBy  string        `json:"added_by,omitempty"`
}

// blocklistEntries returns what is kept of a custom list, or what readers of an
// organisation get of any.
func (a *API) blocklistEntries(r *http.Request) (any, error) {
	o, err := a.cfg.Blocklists.Overview(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	var after muster.Source
	if text := q.Get("after"); text != "" {
		if after, err = muster.ParseSource(text); err != nil {
			return nil, muster.Errorf(muster.Invalid, "after: %w", err)
		}
	}
	page := struct {
		Entries []entryView `json:"entries"`
		Next    string      `json:"next"`
	}{Entries: []entryView{}}
	if q.Has("organisation") || o.Kind != muster.CustomList {
		if page.Entries, err = a.readEntries(r, o.ID, after, limit); err != nil {
			return nil, err
		}
	} else {
		list, err := a.cfg.Blocklists.CustomEntries(r.Context(), o.ID, after, limit)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			page.Entries = append(page.Entries, entryView{Value: e.Source.String(), Until: orNull(e.Until), Comment: e.Comment, AddedAt: orNull(e.AddedAt), AddedBy: e.AddedBy})
		}
	}
	if len(page.Entries) == limit {
		page.Next = page.Entries[limit-1].Value
	}
	return page, nil
}

// readEntries returns a page of what an organisation gets of a list; none is the
// operators.
func (a *API) readEntries(r *http.Request, id string, after muster.Source, limit int) ([]entryView, error) {
	organisation := r.URL.Query().Get("organisation")
	if organisation != "" {
		var err error
		if organisation, err = a.organisation(r, organisation); err != nil {
			return nil, err
		}
	}
	all, _, err := a.cfg.Blocklists.Entries(r.Context(), id, organisation)
	if err != nil {
		return nil, err
	}
	page := []entryView{}
	for _, e := range all {
		if after.IsValid() && e.Source.Compare(after) <= 0 {
			continue
		}
		if len(page) == limit {
			break
		}
		page = append(page, entryView{Value: e.Source.String(), Until: orNull(e.Until), Remedy: e.Remedy, Scenario: e.Scenario, Score: e.Score})
	}
	return page, nil
}

// storedView is what came of adding entries.
type storedView struct {
	Entries  int      `json:"entries"`
	Skipped  int      `json:"skipped"`  // lines of an upload that are no entry
	Example  string   `json:"example"`  // the first of them
	Withheld int      `json:"withheld"` // reserved, allowlisted or canaries: nobody is sent these
	Examples []string `json:"examples"` // of withheld
}

func viewStored(s catalog.Stored, up catalog.Upload) storedView {
	return storedView{s.Entries, up.Skipped, up.Example, s.Withheld, views(s.Examples, muster.Source.String)}
}

func (a *API) addBlocklistEntries(r *http.Request) (any, error) {
	return a.putBlocklistEntries(r, false)
}

func (a *API) replaceBlocklistEntries(r *http.Request) (any, error) {
	return a.putBlocklistEntries(r, true)
}

func (a *API) putBlocklistEntries(r *http.Request, replace bool) (any, error) {
	var q struct {
		Entries []struct {
			Value      string     `json:"value"`
			Comment    string     `json:"comment"`
			Until      *time.Time `json:"until"`
			TTLSeconds int64      `json:"ttl_seconds"`
		} `json:"entries"`
		Reason string `json:"reason"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	by, err := byCaller(r, q.Reason)
	if err != nil {
		return nil, err
	}
	entries := make([]muster.CustomEntry, len(q.Entries))
	for i, e := range q.Entries {
		source, err := muster.ParseSource(e.Value)
		if err != nil {
			return nil, muster.Errorf(muster.Invalid, "entry %d: %w", i+1, err)
		}
		ttl, err := lifetime(e.TTLSeconds)
		if err != nil {
			return nil, muster.Errorf(muster.Invalid, "entry %d: %w", i+1, err)
		}
		if ttl > 0 && e.Until != nil {
			return nil, muster.Errorf(muster.Invalid, "entry %d: expected until or ttl_seconds, got both", i+1)
		}
		entries[i] = muster.CustomEntry{Source: source, Comment: e.Comment, Until: endOf(a.cfg.Now().UTC(), ttl)}
		if e.Until != nil {
			entries[i].Until = e.Until.UTC()
		}
	}
	stored, err := a.cfg.Blocklists.PutEntries(r.Context(), r.PathValue("id"), entries, replace, by)
	if err != nil {
		return nil, err
	}
	return viewStored(stored, catalog.Upload{}), nil
}

// maxUpload bounds a file with entries, in bytes.
const maxUpload = 32 << 20

// uploadBlocklist reads a text or CSV file of entries.
func (a *API) uploadBlocklist(r *http.Request) (any, error) {
	q := r.URL.Query()
	replace, err := flagOf(r, "replace")
	if err != nil {
		return nil, err
	}
	by, err := byCaller(r, q.Get("reason"))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, maxUpload+1))
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "the body could not be read: %w", err)
	}
	if len(text) > maxUpload {
		return nil, muster.Errorf(muster.TooLarge, "the body is larger than %d bytes", maxUpload)
	}
	up, err := a.cfg.Blocklists.ReadUpload(text)
	if err != nil {
		return nil, err
	}
	stored, err := a.cfg.Blocklists.PutEntries(r.Context(), r.PathValue("id"), up.Entries, replace, by)
	if err != nil {
		return nil, err
	}
	return viewStored(stored, up), nil
}

// flagOf reads a query's true or false; false when it is not there.
func flagOf(r *http.Request, name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	flag, err := strconv.ParseBool(text)
	if err != nil {
		return false, muster.Errorf(muster.Invalid, "%s: expected true or false, got %q", name, clip(text))
	}
	return flag, nil
}

func (a *API) removeBlocklistEntries(r *http.Request) (any, error) {
	q := r.URL.Query()
	atOnce, err := flagOf(r, "at_once")
	if err != nil {
		return nil, err
	}
	by, err := byCaller(r, q.Get("reason"))
	if err != nil {
		return nil, err
	}
	var sources []muster.Source
	for _, text := range q["value"] {
		source, err := muster.ParseSource(text)
		if err != nil {
			return nil, muster.Errorf(muster.Invalid, "value: %w", err)
		}
		sources = append(sources, source)
	}
	n, err := a.cfg.Blocklists.RemoveEntries(r.Context(), r.PathValue("id"), sources, atOnce, by)
	if err != nil {
		return nil, err
	}
	return map[string]int{"removed": n}, nil
}

func (a *API) fetchFeed(r *http.Request) (any, error) {
	state, err := a.cfg.Blocklists.FetchNow(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return viewFeedState(state), nil
}

func (a *API) approveFeed(r *http.Request) (any, error) { return a.settleFeed(r, Blocklists.Approve) }

func (a *API) discardFeed(r *http.Request) (any, error) { return a.settleFeed(r, Blocklists.Discard) }

func (a *API) settleFeed(r *http.Request, settle func(Blocklists, context.Context, string, catalog.By) (muster.FeedState, error)) (any, error) {
	var q struct {
		Reason string `json:"reason"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	by, err := byCaller(r, q.Reason)
	if err != nil {
		return nil, err
	}
	state, err := settle(a.cfg.Blocklists, r.Context(), r.PathValue("id"), by)
	if err != nil {
		return nil, err
	}
	return viewFeedState(state), nil
}

func (a *API) blocklistStatistics(r *http.Request) (any, error) {
	s, err := a.cfg.Blocklists.Statistics(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	type churn struct {
		Added   int `json:"added"`
		Removed int `json:"removed"`
	}
	type day struct {
		Day  string `json:"day"`
		Size int    `json:"size"`
		churn
	}
	type overlap struct {
		Blocklist string  `json:"blocklist"`
		Entries   int     `json:"entries"`
		Share     float64 `json:"share"` // of this list
	}
	hits := map[string]int64{}
	for _, h := range s.Hits {
		hits[h.Unit] = h.Count
	}
	names := map[string]string{}
	for _, o := range a.cfg.Blocklists.Overviews() {
		names[o.ID] = o.Name
	}
	return struct {
		Size          int              `json:"size"`
		Subscriptions int              `json:"subscriptions"`
		TwoDays       churn            `json:"two_days"`
		ThirtyDays    churn            `json:"thirty_days"`
		Hits          map[string]int64 `json:"hits"` // within 30 days, by unit
		Overlaps      []overlap        `json:"overlaps"`
		Days          []day            `json:"days"`
	}{
		s.Size, s.Subscriptions,
		churn{s.Added2, s.Removed2},
		churn{s.Added30, s.Removed30},
		hits,
		views(s.Overlaps, func(o catalog.Overlap) overlap {
			return overlap{names[o.List], o.Entries, float64(o.Entries) / float64(max(s.Size, 1))}
		}),
		views(s.Days, func(d muster.ListDay) day { return day{d.Day.Format(time.DateOnly), d.Size, churn{d.Added, d.Removed}} }),
	}, nil
}

// subscriptionView is a subscription as the API takes and shows it.
type subscriptionView struct {
	Blocklist    string                `json:"blocklist"` // taken: id or name
	Name         string                `json:"name"`
	Kind         muster.SubscriberKind `json:"kind"`
	Subscriber   string                `json:"subscriber"` // a machine's id or name, a tag, an organisation's id or name, an integration's id
	Organisation string                `json:"organisation"`
	Remedy       muster.Remedy         `json:"remedy"` // "" = the list's
	CreatedAt    time.Time             `json:"created_at"`
	CreatedBy    string                `json:"created_by"`
}

func (a *API) subscriptions(r *http.Request) (any, error) {
	q := r.URL.Query()
	list, organisation := q.Get("blocklist"), q.Get("organisation")
	names := map[string]string{}
	for _, o := range a.cfg.Blocklists.Overviews() {
		names[o.ID] = o.Name
	}
	if list != "" {
		o, err := a.cfg.Blocklists.Overview(r.Context(), list)
		if err != nil {
			return nil, err
		}
		list = o.ID
	}
	if organisation != "" {
		var err error
		if organisation, err = a.organisation(r, organisation); err != nil {
			return nil, err
		}
	}
	out := []subscriptionView{}
	for _, s := range a.cfg.Blocklists.Subscriptions(list) {
		if organisation != "" && s.Subscriber.Organisation != organisation {
			continue
		}
		out = append(out, viewSubscription(s, names))
	}
	return out, nil
}

func viewSubscription(s muster.Subscription, names map[string]string) subscriptionView {
	return subscriptionView{s.Blocklist, names[s.Blocklist], s.Subscriber.Kind, s.Subscriber.ID, s.Subscriber.Organisation, s.Remedy, s.CreatedAt, s.CreatedBy}
}

// subscriberNamed reads who subscribes.
func (a *API) subscriberNamed(r *http.Request, kind muster.SubscriberKind, id, organisation string) (by muster.Subscriber, err error) {
	by = muster.Subscriber{Kind: kind, ID: id}
	switch {
	case kind == muster.SubscriberOrganisation:
		if id == "" {
			id = organisation
		}
		by.ID, err = a.organisation(r, id)
		by.Organisation = by.ID
		return by, err
	case kind == muster.SubscriberMachine && organisation == "":
		// Its own; that of a machine that is gone is found by the subscription.
	case kind.Valid():
		if by.Organisation, err = a.organisation(r, organisation); err != nil {
			return by, err
		}
	}
	if kind == muster.SubscriberMachine {
		if named, err := a.machineNamed(r.Context(), id); err == nil {
			by.ID = named
		} else if muster.CodeOf(err) != muster.NotFound {
			return by, err
		}
	}
	return by, nil
}

func (a *API) subscribe(r *http.Request) (any, error) {
	var q struct {
		Blocklist    string                `json:"blocklist"`
		Kind         muster.SubscriberKind `json:"kind"`
		Subscriber   string                `json:"subscriber"`
		Organisation string                `json:"organisation"`
		Remedy       muster.Remedy         `json:"remedy"`
		Reason       string                `json:"reason"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	by, err := byCaller(r, q.Reason)
	if err != nil {
		return nil, err
	}
	who, err := a.subscriberNamed(r, q.Kind, q.Subscriber, q.Organisation)
	if err != nil {
		return nil, err
	}
	made, err := a.cfg.Blocklists.Subscribe(r.Context(), muster.Subscription{Blocklist: q.Blocklist, Subscriber: who, Remedy: q.Remedy}, by)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	if o, err := a.cfg.Blocklists.Overview(r.Context(), made.Blocklist); err == nil {
		names[o.ID] = o.Name
	}
	return viewSubscription(made, names), nil
}

func (a *API) unsubscribe(r *http.Request) (any, error) {
	q := r.URL.Query()
	by, err := byCaller(r, q.Get("reason"))
	if err != nil {
		return nil, err
	}
	who, err := a.subscriberNamed(r, muster.SubscriberKind(q.Get("kind")), q.Get("subscriber"), q.Get("organisation"))
	if err != nil {
		return nil, err
	}
	return nil, a.cfg.Blocklists.Unsubscribe(r.Context(), q.Get("blocklist"), who, by)
}
