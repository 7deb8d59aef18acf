package roles

import (
	"net/http"
	"net/netip"

	"muster/internal/abuse"
	"muster/internal/edge"
	"muster/internal/ratelimit"
)

// limits are ratelimit's defaults with what the configuration says instead.
func (c RateLimitConfig) limits() []ratelimit.Limit {
	all := ratelimit.DefaultLimits()
	for i := range all {
		l := &all[i]
		l.Window = c.Window
		l.Penalty.Ban = c.Ban.Duration
		l.Penalty.ExtendOnRetry = c.Ban.ExtendOnRetry && c.Ban.Duration > 0
		threshold := c.Logins
		if l.Counted.Kind == ratelimit.KindWrongPassword {
			threshold = c.WrongPasswords // whoever guesses is kept from logging in, whatever the scope
		} else {
			l.Penalty.Scope = ratelimit.Scope(c.Ban.Scope)
		}
		l.Threshold, l.Off = max(1, threshold), threshold == 0
	}
	return all
}

// newAbuse makes the service that limits and bans.
func (n *node) newAbuse() (*abuse.Service, error) {
	c := n.cfg.RateLimit
	exempt := make([]netip.Prefix, len(c.Exempt))
	for i, s := range c.Exempt {
		exempt[i] = s.Prefix()
	}
	cfg := abuse.Config{
		Store: n.db, Limits: c.limits(), Exempt: exempt, MaxBans: c.MaxBans, MaxCounters: c.MaxCounters,
		Now: n.now, Logger: n.log, Registerer: n.registry,
	}
	if n.cfg.Bus != "" { // else this is the only node
		cfg.Share = func(message []byte) { n.bells.ring(bellAbuse, string(message)) }
	}
	return abuse.New(cfg)
}

// answer is what banned clients read besides their ban.
func (n *node) answer() abuse.Answer {
	return abuse.Answer{Look: n.public + "api/v1/ban", Appeal: n.cfg.RateLimit.Appeal}
}

// clientAddr returns the address that a request is counted for. Clients without
// one, as behind a balancer that does not say whom it serves, share one.
func (n *node) clientAddr(r *http.Request) netip.Addr {
	addr := n.trust.Addr(r)
	if !addr.IsValid() {
		return netip.IPv4Unspecified()
	}
	if n.trust.Unheard(r) {
		n.abuse.SawProxy(addr)
	}
	return addr
}

// limits gives the management API its view of rate limits and bans.
type limits struct{ *abuse.Service }

// Kinds returns what limits can count.
func (limits) Kinds() []string {
	return append([]string{ratelimit.KindLogin, ratelimit.KindWrongPassword, kindWrongSecret}, edge.Kinds()...)
}
