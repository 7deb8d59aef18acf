// Package allow keeps allowlists: the installation's, which nobody is ever sent
// anything of, and organisations', which hold for their own machines and
// integrations. It expands what engines do not know (AS, country, provider, host
// name) into addresses and ranges, hands lists to engines behind signed links,
// tells machines when a list of theirs changes, and takes lists back.
package allow

import (
	"net/http"

	"muster/internal/policy"
	"muster/internal/wire"
)

// Service keeps allowlists. Its methods are safe for concurrent use.
type Service struct{}

// For returns what must not reach a reader, a machine or an integration by its
// id, because of its own organisation's lists; nil for nothing. It knows expiry
// to the moment and does not allocate unless something has changed. The version
// stands for the content: two readers with the same version have the same list,
// 0 is the empty one. The installation's lists are not in it: they hold for
// everybody, see Central. organisation is "" for machines that are not active.
func (s *Service) For(reader, organisation string, tags []string) (*policy.Allowlist, uint64) {
	return nil, 0
}

// Central returns what the installation's lists cover.
func (s *Service) Central() *policy.Allowlist { return nil }

// Links returns the lists that an active machine fetches with a pull, the
// installation's and its organisation's, behind links that are valid for hours.
// What it returns is shared and must not be changed.
func (s *Service) Links(machine, organisation string, tags []string) []wire.AllowlistLink {
	return nil
}

// ServeLink answers GET and HEAD on a signed link, under any prefix, with the id
// as the path's last element.
func (s *Service) ServeLink(w http.ResponseWriter, r *http.Request) {
	http.Error(w, "error: there is no such allowlist", http.StatusNotFound)
}
