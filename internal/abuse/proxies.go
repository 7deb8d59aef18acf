package abuse

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"muster"
)

// proxies remembers who speaks for others without being trusted to: a reverse
// proxy that proxies.trusted lacks. All its clients count as one then, and one
// ban refuses them all.
type proxies struct {
	mu   sync.Mutex
	seen map[netip.Addr]*spoken
}

type spoken struct {
	count       int
	first, last time.Time
}

const (
	maxProxies = 64             // an installation has a few
	proxyHold  = 24 * time.Hour // how long the finding stays after the last request
)

// SawProxy notes a request from addr that names another client while addr is
// not trusted to. Only private addresses are taken for proxies: from public
// ones it is a client who tries.
func (s *Service) SawProxy(addr netip.Addr) {
	if !addr.IsPrivate() && !addr.IsLoopback() && !addr.IsLinkLocalUnicast() {
		return
	}
	now := s.now()
	p := &s.proxies
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen[addr]
	if seen == nil {
		if len(p.seen) >= maxProxies {
			return
		}
		if p.seen == nil {
			p.seen = map[netip.Addr]*spoken{}
		}
		seen = &spoken{first: now}
		p.seen[addr] = seen
	}
	seen.count++
	seen.last = now
}

// findings returns those about proxies in p, the busiest first.
func (p *proxies) findings(now time.Time, in func(netip.Addr) bool) []muster.Finding {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []muster.Finding
	for addr, seen := range p.seen {
		if now.Sub(seen.last) > proxyHold {
			delete(p.seen, addr)
			continue
		}
		if !in(addr) {
			continue
		}
		all = append(all, muster.Finding{
			Kind: muster.UntrustedProxy, Severity: muster.Critical, Address: muster.SourceFromAddr(addr),
			Summary: fmt.Sprintf("%s named other clients in %d requests, and is not trusted to: all who come through it count as one client, and one ban would refuse them all", addr, seen.count),
			Fix:     fmt.Sprintf("if it is your reverse proxy, add it to the configuration: proxies.trusted: [%s] (and the header that it writes: proxies.header)", addr),
			Count:   seen.count, First: seen.first.UTC(), Last: seen.last.UTC(),
		})
	}
	slices.SortFunc(all, func(a, b muster.Finding) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), a.Address.Addr().Compare(b.Address.Addr()))
	})
	return all
}
