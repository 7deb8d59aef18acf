package roles

import (
	"net"
	"net/http"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"muster/internal/peer"
)

// trust compiles whose word about a client is believed.
func (c ProxiesConfig) trust() (peer.Trust, error) {
	ranges := make([]netip.Prefix, len(c.Trusted))
	for i, s := range c.Trusted {
		ranges[i] = s.Prefix()
	}
	header := peer.XForwardedFor
	if c.Header == "forwarded" {
		header = peer.Forwarded
	}
	return peer.NewTrust(ranges, header)
}

// behindProxies puts the PROXY protocol in front of a listener, as configured.
func (c ProxiesConfig) behindProxies(inner net.Listener, trust peer.Trust, reg prometheus.Registerer) (net.Listener, error) {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "muster_proxy_refused_connections_total", Help: "Connections closed for their PROXY protocol header (proxies.protocol), by reason.",
	}, []string{"reason"})
	reg.MustRegister(refused)
	return peer.Listener(inner, peer.Config{
		Mode: peer.Mode(c.Protocol), Trust: trust,
		Refused: func(_ netip.Addr, reason peer.Reason) { refused.WithLabelValues(string(reason)).Inc() },
	})
}

// peerOf names a request's client in the log.
func peerOf(trust peer.Trust) func(*http.Request) string {
	return func(r *http.Request) string {
		if addr := trust.Addr(r); addr.IsValid() {
			return addr.String()
		}
		return "unknown"
	}
}
