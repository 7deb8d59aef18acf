package policy

import (
	"encoding/json"
	"fmt"
	"io"
)

// Hub knows the published versions of the hub's scenarios, so that a report's
// claim to come from an unmodified one can be checked. The nil Hub knows
// nothing and then takes the engine's word.
type Hub struct {
	digests map[string]struct{}
	names   int
}

// ReadHub reads a hub index (.index.json, with or without content).
func ReadHub(r io.Reader) (*Hub, error) {
	var index struct {
		Scenarios map[string]struct {
			Versions map[string]struct {
				Digest string `json:"digest"`
			} `json:"versions"`
		} `json:"scenarios"`
		AppsecRules map[string]struct {
			Versions map[string]struct {
				Digest string `json:"digest"`
			} `json:"versions"`
		} `json:"appsec-rules"`
	}
	if err := json.NewDecoder(r).Decode(&index); err != nil {
		return nil, fmt.Errorf("expected a hub index in JSON (the hub's .index.json): %w", err)
	}
	h := &Hub{digests: make(map[string]struct{})}
	for _, kind := range []map[string]struct {
		Versions map[string]struct {
			Digest string `json:"digest"`
		} `json:"versions"`
	}{index.Scenarios, index.AppsecRules} {
		for _, item := range kind {
			h.names++
			for _, v := range item.Versions {
				if len(v.Digest) == 64 {
					h.digests[v.Digest] = struct{}{}
				}
			}
		}
	}
	if len(h.digests) == 0 {
		return nil, fmt.Errorf("the hub index names no scenario versions: is it the hub's .index.json?")
	}
	return h, nil
}

// Knows reports whether hash (lower-case hex SHA-256) is a published version
// of some hub scenario. Several scenarios of one file share a digest, so the
// scenario's name is no part of the check.
func (h *Hub) Knows(hash string) bool {
	if h == nil {
		return true
	}
	_, ok := h.digests[hash]
	return ok
}

// Len returns the number of scenarios known.
func (h *Hub) Len() int {
	if h == nil {
		return 0
	}
	return h.names
}
