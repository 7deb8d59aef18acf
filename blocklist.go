package muster

import "time"

// BlocklistKind says where the entries of a blocklist come from.
type BlocklistKind string

// The kinds of blocklists.
const (
	RuleList   BlocklistKind = "rule"   // chosen from what the network has convicted
	CustomList BlocklistKind = "custom" // kept by people and programs
	FeedList   BlocklistKind = "feed"   // fetched from somebody else
)

// Valid reports whether k is a known kind.
func (k BlocklistKind) Valid() bool { return k == RuleList || k == CustomList || k == FeedList }

// Blocklist is a named list that machines, tags, organisations and integrations
// can subscribe to. Engines know a list by its name alone: another name is
// another list to them.
type Blocklist struct {
	ID           string // UUIDv7, or a word for a list that Muster brings along
	Name         string // unique; 1 to 64 lower-case letters, digits, "-" and "_"
	Label        string // for people
	Description  string
	Kind         BlocklistKind
	Organisation string   // owner's id; "" = the installation
	SharedWith   []string // ids of other organisations that may subscribe; "*" = all
	Remedy       Remedy
	Lifetime     time.Duration // how long engines keep an entry after they read it
	Rule         ListRule      // of a RuleList
	Feed         Feed          // of a FeedList
	CreatedAt    time.Time
	CreatedBy    string
}

// ListRule chooses from what the network has convicted; what is zero does not
// restrict.
type ListRule struct {
	Behaviours []string      `json:"behaviours,omitempty"` // of the hub's taxonomy: "ssh:bruteforce", or a family: "ssh"
	Scenarios  []string      `json:"scenarios,omitempty"`  // names, with * and ? as in file names
	Countries  []string      `json:"countries,omitempty"`  // ISO 3166 alpha-2, upper case
	ASNs       []uint32      `json:"asns,omitempty"`
	Since      time.Duration `json:"since,omitempty"` // listed within it
	Own        bool          `json:"own,omitempty"`   // reported by the subscriber's own organisation
	Remedy     Remedy        `json:"remedy,omitempty"`
	Top        int           `json:"top,omitempty"` // the best so many
}

// Feed is where a FeedList is fetched from.
type Feed struct {
	URL      string        `json:"url,omitempty"`
	Format   string        `json:"format,omitempty"` // as internal/catalog/feed reads it; "" = found out from the content
	Interval time.Duration `json:"interval,omitempty"`
	Max      int           `json:"max,omitempty"` // most entries; more refuses the whole fetch

	// A fetch with Swing times as many entries as are in force, or as many times
	// fewer, is held for a person's word; 0 = 2.
	Swing float64 `json:"swing,omitempty"`
	// Forbidden is how many entries that are allowlisted or canaries are dropped
	// and no more than counted; more of them refuse the whole fetch. 0 = 100.
	Forbidden int           `json:"forbidden,omitempty"`
	Keep      time.Duration `json:"keep,omitempty"` // how long entries stay in force while nothing good is fetched; 0 = 7 days
	Hold      bool          `json:"hold,omitempty"` // every new version waits for a person's word
}

// ListEntry is one line of a blocklist.
type ListEntry struct {
	Source   Source
	Scenario string // what it is listed for; "" when only the list's name says so
	Remedy   Remedy
	Since    time.Time // when it was listed; zero = not known
	Until    time.Time // zero = until it is taken off
	Score    float32   // points; more is more certain. 0 for lists that do not weigh
}

// SubscriberKind says what reads a list.
type SubscriberKind string

// The kinds of subscribers.
const (
	SubscriberMachine      SubscriberKind = "machine"
	SubscriberTag          SubscriberKind = "tag" // every machine of the organisation with it
	SubscriberOrganisation SubscriberKind = "organisation"
	SubscriberIntegration  SubscriberKind = "integration"
)

// Valid reports whether k is a known kind.
func (k SubscriberKind) Valid() bool {
	return k == SubscriberMachine || k == SubscriberTag || k == SubscriberOrganisation || k == SubscriberIntegration
}

// Subscriber is who reads a list or an allowlist.
type Subscriber struct {
	Kind         SubscriberKind
	ID           string // a machine's, tag's, organisation's or integration's
	Organisation string // to which it belongs
}

// Subscription is one subscriber of one list.
type Subscription struct {
	Blocklist  string // Blocklist.ID
	Subscriber Subscriber
	Remedy     Remedy // in place of the list's; "" = the list's
	CreatedAt  time.Time
	CreatedBy  string
}
