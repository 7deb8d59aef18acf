package doctor

import (
	"context"
	"fmt"
	"time"

	"muster"
)

// Server asks the management API of a Muster: it reads the JSON answer to
// GET path, below /api/v1, into out. It returns within a minute.
type Server interface {
	Get(ctx context.Context, path string, out any) error
	Name() string // its address or data directory, for people
}

// status is what is used of GET /status.
type status struct {
	Version string `json:"version"`
	Health  struct {
		Status string        `json:"status"`
		Checks []healthCheck `json:"checks"`
	} `json:"health"`
}

type healthCheck struct {
	Name   string    `json:"name"`
	Status string    `json:"status"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// ban is what is used of GET /bans.
type ban struct {
	Address string     `json:"address"`
	Reason  string     `json:"reason"`
	Until   *time.Time `json:"until"`
}

// examineServer reads what a Muster knows about itself and its clients.
func examineServer(ctx context.Context, server Server) Section {
	s := newSection(serverSection, server.Name())
	var st status
	if err := server.Get(ctx, "/status", &st); err != nil {
		s.found(muster.Finding{
			Kind: Unreachable, Severity: muster.Critical, Count: 1,
			Summary:  "The Muster of this machine does not answer.",
			Evidence: lines(err.Error()),
			Fix:      "See its log, and start it: muster serve (or systemctl start muster).",
		})
		return s
	}
	s.check(fmt.Sprintf("Muster %s is up, its %d health checks pass.", st.Version, len(st.Health.Checks)), checkHealth(st.Health.Checks))

	var bans struct {
		Bans []ban  `json:"bans"`
		Next string `json:"next"`
	}
	if err := server.Get(ctx, "/bans", &bans); err != nil {
		s.found(unreadable("the bans in force", err))
	} else {
		s.ok(countBans(bans.Bans, bans.Next != ""))
	}
	var told struct {
		Findings []muster.Finding `json:"findings"`
	}
	if err := server.Get(ctx, "/findings", &told); err != nil {
		s.found(unreadable("what it found about its clients", err))
	} else {
		s.check("It found no misuse by its clients.", told.Findings)
	}
	return s
}

func unreadable(what string, err error) muster.Finding {
	return muster.Finding{
		Kind: UnreadableFindings, Severity: muster.Warning, Count: 1,
		Summary:  "The server does not tell " + what + ".",
		Evidence: lines(err.Error()),
		Fix:      "Use the muster of the same version as the server, or see the server's log.",
	}
}

// checkHealth makes a finding of each check that does not pass.
func checkHealth(checks []healthCheck) []muster.Finding {
	var found []muster.Finding
	for _, c := range checks {
		if c.Status == "ok" {
			continue
		}
		f := muster.Finding{
			Kind: UnhealthyServer, Severity: muster.Critical, Count: 1, First: c.Since,
			Summary:  fmt.Sprintf("The server's health check %s says: %s.", c.Name, c.Status),
			Evidence: append(lines(c.Reason), "since "+at(c.Since)),
			Fix:      "See the server's log about " + c.Name + ".",
		}
		if c.Status == "degraded" {
			f.Severity = muster.Warning
		}
		found = append(found, f)
	}
	return found
}

// countBans says how many addresses are refused, and names the first few.
func countBans(bans []ban, more bool) string {
	switch {
	case len(bans) == 0:
		return "It refuses no address."
	case more:
		return fmt.Sprintf("It refuses more than %d addresses (muster admin ban list).", len(bans))
	}
	text := fmt.Sprintf("It refuses %d addresses (muster admin ban list)", len(bans))
	if len(bans) == 1 {
		text = "It refuses 1 address (muster admin ban list)"
	}
	for i, b := range bans {
		if i == 3 {
			text += ", …"
			break
		}
		text += map[bool]string{true: ": ", false: ", "}[i == 0] + b.Address
	}
	return text + "."
}
