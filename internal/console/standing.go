package console

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"muster"
	"muster/internal/abuse"
	"muster/internal/ratelimit"
)

// standingRoute is the one route that needs no token: a banned client has no
// other way to learn why.
const standingRoute = "GET /api/v1/ban"

// Standing is what any client gets to know about its own address.
type Standing struct {
	Address  string `json:"address"`
	Banned   bool   `json:"banned"`
	*Refusal        // nil when it is not banned
	Findings []Hint `json:"findings"` // at most 8, the worst first
	Server   string `json:"server"`   // "muster": programs tell it from other servers' 403
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

// Hint is a finding without whatever could name a machine, an organisation or an
// address that is not the reader's: others may be behind the same address. It is
// worded here by kind and count alone; nothing of a finding's own text is in it.
type Hint struct {
	Kind     muster.FindingKind `json:"kind"`
	Severity muster.Severity    `json:"severity"`
	Summary  string             `json:"summary"`
	Fix      string             `json:"fix"`
}

// hints words findings for strangers. Kinds that it does not know are not shown.
var hints = map[muster.FindingKind]struct{ summary, fix string }{
	muster.SharedCredentials: {
		"The credentials of an engine at this address are in use at %d addresses at once.",
		"Register every engine by itself (cscli capi register, or muster join, on each machine) and do not copy online_api_credentials.yaml.",
	},
	muster.RestartLoop: {
		"An engine at this address logged in %d times with next to no work in between: it restarts again and again.",
		"See why it stops (journalctl -u crowdsec -n 100, or docker logs), stop it until that is mended, and keep /var/lib/crowdsec/data, where its token is, on a volume.",
	},
	muster.StatusProbe: {
		"An engine at this address logged in %d times at a short, steady interval: a health check does that.",
		"Let the health check run cscli lapi status instead of cscli capi status.",
	},
	muster.SharedAddress: {
		"%d engines are behind this address.",
		"Let them share one local API, or ask the server's administrator for an allowance for this address.",
	},
	muster.UntrustedProxy: {
		"%d requests came from this address on behalf of others: it is a proxy that the server does not trust to name its clients.",
		"Ask the server's administrator to add the proxy to the trusted ones, or connect without it.",
	},
}

const maxHints = 8

// StandingOf explains to whoever is at addr how it stands; ban is nil when it is
// not banned. findings may name anybody. look and appeal are as in Refusal.
func StandingOf(addr netip.Addr, ban *ratelimit.Ban, findings []muster.Finding, look, appeal string) Standing {
	s := Standing{Address: addr.Unmap().WithZone("").String(), Findings: []Hint{}, Server: "muster"}
	var check []string
	for _, f := range findings {
		words, known := hints[f.Kind]
		if !known || len(s.Findings) == maxHints {
			continue
		}
		s.Findings = append(s.Findings, Hint{f.Kind, f.Severity, fmt.Sprintf(words.summary, f.Count), words.fix})
		if !slices.Contains(check, words.fix) {
			check = append(check, words.fix)
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
