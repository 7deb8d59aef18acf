package roles

import (
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"muster/internal/bundle"
	"muster/internal/hub"
	"muster/internal/ops"
	"muster/internal/policy"
)

// knowsHashes says which scenarios are unmodified.
type knowsHashes interface{ Knows(hash string) bool }

// buildHub makes the hub's mirror, of the folders that are set or of those that
// the last bundle brought. It returns by which hashes reports count, nil when
// the engine's word is taken, and what scenarios are worth: the index in
// hub.index says both when it is set.
func (n *node) buildHub() (known knowsHashes, taxonomy *policy.Taxonomy, err error) {
	cfg := hub.Config{
		Public: n.cfg.Hub.Dir, Private: n.cfg.Hub.Private, PrivateCounts: n.cfg.Hub.PrivateCounts,
		History: filepath.Join(n.cfg.DataDir, "hub-versions.json"), Now: n.now, Logger: n.log, Registerer: n.registry,
	}
	if cfg.Public == "" {
		cfg.Public, cfg.PublicOptional = n.bundled(bundle.HubDir), true
	}
	if cfg.Private == "" {
		cfg.Private, cfg.PrivateOptional = n.bundled(bundle.PrivateDir), true
	}
	n.bundles = &bundles{node: n}
	if n.mirror, err = hub.Open(cfg); err != nil {
		return nil, nil, fmt.Errorf("reading the hub (settings hub.dir and hub.private): %w", err)
	}
	index, taxonomy, err := readHub(n.cfg.Hub.Index)
	if err != nil || index != nil {
		return index, taxonomy, err
	}
	if t := n.mirror.Taxonomy(); t.Len() > 0 {
		taxonomy = t
	}
	return n.mirror, taxonomy, nil
}

// hubView gives the management API its view of the mirror.
type hubView struct{ *hub.Mirror }

func (v hubView) Status() any { return v.Mirror.Status() }
func (v hubView) Items() any  { return v.Mirror.Items() }

// mountHub serves engines' cscli.
func (n *node) mountHub(mux *http.ServeMux) {
	mux.HandleFunc(hub.Prefix, func(w http.ResponseWriter, r *http.Request) {
		ops.RecordOf(r.Context()).Route = r.Method + " " + hub.Prefix + "{branch}/{path}"
		ops.Extend(w, n.now(), 10*time.Minute) // databases for slow lines
		n.mirror.ServeHTTP(w, r)
	})
}

// hubJobs keep the mirror as its folders are.
func (n *node) hubJobs() []ops.Job {
	return []ops.Job{{Name: "hub", Interval: 5 * time.Second, Log: n.log, Do: n.mirror.Poll}}
}
