package muster

import "time"

// CommunityList is the id and the name of the network's own list in the
// catalogue. Engines read it with their pulls; integrations subscribe to it.
const CommunityList = "community"

// CustomEntry is one line of a CustomList as it is kept.
type CustomEntry struct {
	Source  Source
	Comment string    // one line of up to 200 bytes, for people
	Until   time.Time // zero = until it is taken off
	AddedAt time.Time
	AddedBy string
}

// FeedState is how the fetching of a FeedList stands.
type FeedState struct {
	List         string    // Blocklist.ID
	ETag         string    // of what was fetched last and taken over
	LastModified string    // likewise, as it was sent
	Format       string    // that it was read in
	TriedAt      time.Time // last fetch, good or not
	GoodAt       time.Time // last fetch whose content is in force, or was found unchanged
	ChangedAt    time.Time // when the entries in force became so
	NextAt       time.Time // when it is fetched next
	Failures     int       // fetches in a row that failed
	Problem      string    // what is wrong, "" = nothing
	Size         int       // entries in force
	Skipped      int       // values of the last content that are no address, too wide or reserved
	Forbidden    int       // entries of the last content that are allowlisted or canaries
	HeldAt       time.Time // when a version was held for a person's word; zero = none is
	HeldSize     int       // its entries
	HeldReason   string    // why
}

// ListDay is what happened to a blocklist on one day (UTC).
type ListDay struct {
	List           string    // Blocklist.ID
	Day            time.Time // its midnight
	Size           int       // entries when it was last looked at
	Added, Removed int       // since the day before, looked at a few times an hour
}

// ListHits is what remediation components kept out because of a blocklist on one
// day (UTC).
type ListHits struct {
	List  string // Blocklist.ID
	Day   time.Time
	Unit  string // "packet", "byte", "request"
	Count int64
}
