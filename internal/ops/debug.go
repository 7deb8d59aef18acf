package ops

import (
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus"
)

// NewDebug returns the handler of the operators' listener: /metrics, /healthz,
// /readyz and Go's profiles under /debug/pprof/. It has no access control.
func NewDebug(reg *prometheus.Registry, health *Health) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", MetricsHandler(reg))
	mux.HandleFunc("GET /healthz", health.Live)
	mux.HandleFunc("GET /readyz", health.Ready)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", func(w http.ResponseWriter, r *http.Request) {
		untimed(w) // runs for as long as ?seconds= says
		pprof.Profile(w, r)
	})
	mux.HandleFunc("GET /debug/pprof/trace", func(w http.ResponseWriter, r *http.Request) {
		untimed(w)
		pprof.Trace(w, r)
	})
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	return mux
}
