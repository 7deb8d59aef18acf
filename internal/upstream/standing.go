package upstream

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"muster"
)

// Standing is what a Muster says of the address that asks.
type Standing struct {
	Address  string // as the server sees this machine
	Banned   bool
	Ban      Ban              // when Banned
	Findings []muster.Finding // at most 8
}

// AskStanding asks the server at base how this machine's address stands there.
// That spends no login and does not prolong a ban. muster is false when the
// server is no Muster, or one that does not tell; r is its answer either way.
func AskStanding(ctx context.Context, c *Client, base *url.URL) (s Standing, isMuster bool, r *Response, err error) {
	r, err = c.Do(ctx, func(ctx context.Context) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("api/v1/ban").String(), http.NoBody)
	})
	if err != nil {
		return Standing{}, false, nil, err
	}
	s, isMuster = parseStanding(r, c.cfg.Now())
	return s, isMuster, r, nil
}

func parseStanding(r *Response, now time.Time) (Standing, bool) {
	var a struct {
		banAnswer
		Findings []muster.Finding `json:"findings"`
	}
	if r.Status != http.StatusOK || json.Unmarshal(r.Body, &a) != nil || a.Server != "muster" {
		return Standing{}, false
	}
	s := Standing{Address: oneLine(a.Address, 64), Banned: a.Banned}
	if a.Banned {
		s.Ban = a.ban(r.Header, now)
	}
	for _, f := range a.Findings[:min(len(a.Findings), 8)] {
		f.Summary, f.Fix = oneLine(f.Summary, 500), oneLine(f.Fix, 500)
		f.Evidence = f.Evidence[:min(len(f.Evidence), 8)]
		for i, e := range f.Evidence {
			f.Evidence[i] = oneLine(e, 500)
		}
		s.Findings = append(s.Findings, f)
	}
	return s, true
}
