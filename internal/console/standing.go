package console

import (
	"net/http"
	"net/netip"
	"slices"
	"time"

	"muster"
	"muster/internal/abuse"
	"muster/internal/ratelimit"
)

// standingRoute needs no token: a banned client has no other way to learn why.
const standingRoute = "GET /api/v1/ban"

// Standing is what any client gets to know about its own address.
type Standing struct {
	Address  string       `json:"address"`
	Banned   bool         `json:"banned"`
	*Refusal              // nil when it is not banned
	Findings []abuse.Hint `json:"findings"` // at most 8, the worst first
	Server   string       `json:"server"`   // "muster": programs tell it from other servers' 403
}

// Refusal explains a ban to the one who is banned.
type Refusal struct {
	Until          *time.Time      `json:"until"` // null: until it is lifted
	Reason         string          `json:"reason"`
	Scope          ratelimit.Scope `json:"scope"`
	ExtendsOnRetry bool            `json:"extends_on_retry"`
	Limit          string          `json:"limit"`  // "" for a ban by a person
	Check          []string        `json:"check"`  // what to do, one line each
	Look           string          `json:"look"`   // where this can be read again
	Appeal         string          `json:"appeal"` // whom to write to, "" for nobody
}

const maxHints = 8

// StandingOf explains to whoever is at addr how it stands; ban is nil when it is
// not banned. findings may name anybody. look and appeal are as in Refusal.
func StandingOf(addr netip.Addr, ban *ratelimit.Ban, findings []muster.Finding, look, appeal string) Standing {
	s := Standing{Address: addr.Unmap().WithZone("").String(), Findings: []abuse.Hint{}, Server: "muster"}
	var check []string
	for _, f := range findings {
		hint, known := abuse.HintOf(f)
		if !known || len(s.Findings) == maxHints {
			continue
		}
		s.Findings = append(s.Findings, hint)
		if !slices.Contains(check, hint.Fix) {
			check = append(check, hint.Fix)
		}
	}
	if ban == nil {
		return s
	}
	if check == nil {
		check = abuse.Checks
	}
	s.Banned = true
	s.Refusal = &Refusal{
		Until: orNull(ban.Until), Reason: ban.Reason, Scope: ban.Scope, ExtendsOnRetry: ban.Extend > 0, Limit: ban.Limit,
		Check: check, Look: look, Appeal: appeal,
	}
	return s
}

// standing answers about the address that the request comes from. It reads
// memory alone, and does not count as a retry.
func (a *API) standing(r *http.Request) (any, error) {
	var addr netip.Addr
	if a.cfg.ClientAddr != nil {
		addr = a.cfg.ClientAddr(r)
	}
	if !addr.IsValid() {
		return nil, muster.Errorf(muster.Invalid, "this request has no address to tell about: ask over the network, or for an address with GET /api/v1/bans/ADDRESS")
	}
	ban, banned := a.cfg.Abuse.BanOf(addr)
	in := &ban
	if !banned {
		in = nil
	}
	return StandingOf(addr, in, a.cfg.Abuse.Explain(addr), a.cfg.PublicURL+"api/v1/ban", a.cfg.Appeal), nil
}
