package console

import (
	"net/http"

	"muster"
)

// Hub is the hub's mirror.
type Hub interface {
	Status() any // as JSON
	Items() any  // likewise
	// Reload reads the folders now, and verifies every item.
	Reload() error
}

var errNoHub = muster.Errorf(muster.Unavailable, "this server mirrors no hub")

func (a *API) hub(*http.Request) (any, error) {
	if a.cfg.Hub == nil {
		return nil, errNoHub
	}
	return a.cfg.Hub.Status(), nil
}

func (a *API) hubItems(*http.Request) (any, error) {
	if a.cfg.Hub == nil {
		return nil, errNoHub
	}
	return a.cfg.Hub.Items(), nil
}

func (a *API) verifyHub(*http.Request) (any, error) {
	if a.cfg.Hub == nil {
		return nil, errNoHub
	}
	if err := a.cfg.Hub.Reload(); err != nil {
		return nil, muster.Errorf(muster.Invalid, "the hub cannot be read, and what was served before still is: %w", err)
	}
	return a.cfg.Hub.Status(), nil
}
