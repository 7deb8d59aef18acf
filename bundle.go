package muster

import "time"

// ByBundle is who made the lists and entries that bundles brought; no user can
// have the name.
const ByBundle = "bundle import"

// BundlePrefix begins the names of lists that bundles brought.
const BundlePrefix = "bundle-"

// Bundle is a bundle that was imported.
type Bundle struct {
	ID         string
	MadeAt     time.Time
	ValidUntil time.Time // entries of its lists end then at the latest
	From       string    // public URL of the Muster that it was made on
	Version    string    // of that Muster
	Key        string    // public key of the signature that was trusted
	ImportedAt time.Time
	ImportedBy string
}

// BundleContent is what of a bundle is kept with everything else: the lists.
type BundleContent struct {
	Bundle
	Lists      []BundleList
	Allowlists []BundleAllowlist
}

// BundleList is a custom list with all that is on it.
type BundleList struct {
	Blocklist
	Entries []CustomEntry
}

// BundleAllowlist is an allowlist of the installation with all that is on it.
type BundleAllowlist struct {
	Allowlist
	Items []AllowItem
}
