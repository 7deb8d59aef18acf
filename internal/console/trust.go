package console

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"muster"
	"muster/internal/crowd"
	"muster/internal/jury"
)

// trustView is what a machine's word is worth.
type trustView struct {
	Reported    bool       `json:"reported"` // anything that may be evidence; false: nothing else is known
	Summary     string     `json:"summary"`  // in words
	Rank        uint8      `json:"rank"`     // 0 to 5
	Weight      float32    `json:"weight"`   // points that its report of a certain behaviour adds to the support of a listing
	Bound       float32    `json:"bound"`    // lower bound of the probability that its word is right
	TenureDays  int32      `json:"tenure_days"`
	Validations float64    `json:"validations"` // reports that others saw to be right
	Strikes     int32      `json:"strikes"`
	LastStrike  *time.Time `json:"last_strike"`
	HeldUntil   *time.Time `json:"held_until"`   // while the report of a canary is judged
	PausedUntil *time.Time `json:"paused_until"` // after a strike
	Clouded     bool       `json:"clouded"`      // it adds support, but others must be heard too
	CloudUntil  *time.Time `json:"clouded_until"`
	Solo        bool       `json:"solo"` // may have sources listed alone
	Honeypot    bool       `json:"honeypot"`
	Blocked     bool       `json:"blocked"` // it is no active member of an organisation
	LastHeard   *time.Time `json:"last_heard"`
	Epoch       uint64     `json:"epoch"`
}

func viewTrust(t jury.Trust, now time.Time) trustView {
	r := &t.Record
	v := trustView{
		Reported: true, Rank: t.Trust.Rank, Weight: t.Trust.Weight, Bound: t.Trust.Bound,
		TenureDays: r.Tenure, Validations: r.Validations, Strikes: r.Strikes, LastStrike: instant(r.LastStrike),
		HeldUntil: ahead(r.HeldUntil, now), PausedUntil: ahead(r.PausedUntil, now),
		Clouded: t.Trust.Clouded, CloudUntil: ahead(r.CloudUntil, now), Solo: t.Trust.Solo,
		Honeypot: r.Honeypot, Blocked: r.Blocked, LastHeard: instant(r.LastHeard), Epoch: t.Epoch,
	}
	v.Summary = v.words(t.Trust)
	return v
}

// instant returns a time in Unix seconds; nil for 0.
func instant(at int64) *time.Time {
	if at == 0 {
		return nil
	}
	t := time.Unix(at, 0).UTC()
	return &t
}

// ahead is instant for what ends; nil when it has ended.
func ahead(at int64, now time.Time) *time.Time {
	if at <= now.Unix() {
		return nil
	}
	return instant(at)
}

// ranks words the ranks.
var ranks = [6]string{
	"its word does not count: it reported too much that was wrong",
	"a newcomer: others must bear out what it reports before its word counts in a large network",
	"some trust", "much trust", "full trust",
	"the top rank",
}

func (v *trustView) words(t crowd.Trust) string {
	var s string
	switch {
	case v.Blocked:
		return "It is not an active member of an organisation: its word does not count."
	case v.HeldUntil != nil:
		s = "it reported something that is known to be good: its word does not count until it is clear why, by " + moment(*v.HeldUntil) + " at the latest"
	case v.PausedUntil != nil:
		s = "its word does not count until " + moment(*v.PausedUntil) + ", because of what it reported"
	case t.Paused:
		s = "its word does not count for the moment"
	case v.Honeypot:
		s = "a honeypot: nobody has business there, so what it sees counts at once"
	default:
		s = ranks[min(int(v.Rank), len(ranks)-1)]
		if v.Solo {
			s += ": it may have sources listed alone"
		}
	}
	if v.Clouded && !t.Paused {
		s += "; under suspicion: others must be heard too"
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// trustEventView is something that moved the trust in a machine.
type trustEventView struct {
	At         time.Time `json:"at"`
	Kind       string    `json:"kind"`
	What       string    `json:"what"`     // Kind in words
	Amount     float64   `json:"amount"`   // summed up, when several are kept as one
	Scenario   string    `json:"scenario"` // "" = none, or several
	Source     string    `json:"source"`   // "" = none, or several
	RankBefore uint8     `json:"rank_before"`
	RankAfter  uint8     `json:"rank_after"`
}

var eventWords = map[crowd.EventKind]string{
	crowd.Validated:   "others saw what it reported",
	crowd.Confirmed:   "somebody new confirmed a listing that it supported",
	crowd.Unconfirmed: "nobody new confirmed a listing that it supported",
	crowd.Solo:        "it had a source listed alone",
	crowd.Held:        "it reported what is known to be good: its word does not count until it is clear why",
	crowd.Excused:     "excused for reporting what is known to be good: others saw it too",
	crowd.Struck:      "a strike: it alone reported what is known to be good",
	crowd.Company:     "others with whom it had a source listed turned out to be wrong",
	crowd.Colluded:    "it speaks with a ring of machines, and nobody else does",
	crowd.Disproved:   "a source that it had listed was let off, and stayed quiet",
}

// wordsOf words kinds of events as they are stored.
var wordsOf = func() map[string]string {
	words := make(map[string]string, len(eventWords))
	for kind, text := range eventWords {
		words[kind.String()] = text
	}
	return words
}()

func viewTrustEvent(e muster.TrustEvent) trustEventView {
	v := trustEventView{At: e.At, Kind: e.Kind, What: wordsOf[e.Kind], Amount: e.Amount, Scenario: e.Behaviour, RankBefore: e.RankBefore, RankAfter: e.RankAfter}
	if e.Source.IsValid() {
		v.Source = e.Source.String()
	}
	if v.What == "" {
		v.What = e.Kind // a later release's
	}
	return v
}

// shownEvents is how many events are shown with a machine.
const shownEvents = 50

// trustOf returns what a machine's word is worth, and what moved it since a
// time. A machine that never reported has nothing to show.
func (a *API) trustOf(ctx context.Context, machine string, since time.Time, limit int) (v trustView, events []trustEventView, err error) {
	t, err := askJudge(ctx, a, func(ctx context.Context, j Judge) (jury.Trust, error) { return j.Trust(ctx, machine) })
	if muster.CodeOf(err) == muster.NotFound {
		return trustView{Summary: "It has not reported anything yet that may be evidence."}, []trustEventView{}, nil
	}
	if err != nil {
		return v, nil, err
	}
	list, err := a.cfg.Store.TrustEvents(ctx, t.Number, since, limit)
	return viewTrust(t, a.cfg.Now()), views(list, viewTrustEvent), err
}

func (a *API) machineTrust(r *http.Request) (any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	var since time.Time
	if text := r.URL.Query().Get("since"); text != "" {
		if since, err = a.moment(text); err != nil {
			return nil, err
		}
	}
	id, err := a.machineID(r)
	if err != nil {
		return nil, err
	}
	trust, events, err := a.trustOf(r.Context(), id, since, limit)
	if err != nil {
		return nil, err
	}
	return struct {
		Machine string           `json:"machine"`
		Trust   trustView        `json:"trust"`
		Events  []trustEventView `json:"events"` // newest first
	}{id, trust, events}, nil
}

// NetworkView sums up the network for people.
type NetworkView struct {
	Machines      int     `json:"machines"`      // that reported lately
	Organisations int     `json:"organisations"` // of those
	AS            int     `json:"as"`            // of those
	Trusted       int     `json:"trusted"`       // organisations whose word has earned weight
	Newcomer      float32 `json:"newcomer"`      // weight of machines that have earned none, in points
	Local         bool    `json:"local"`
	Summary       string  `json:"summary"`
	Listed        int     `json:"listed"` // on the community list
	Canaries      int     `json:"canaries"`
}

// ViewNetwork puts what the judge says about the network into words.
func ViewNetwork(p crowd.Population, newcomer float32, listed, canaries int) NetworkView {
	v := NetworkView{
		Machines: p.Machines, Organisations: p.Organisations, AS: p.AS, Trusted: p.Trusted, Newcomer: newcomer,
		Local: newcomer > 0, Listed: listed, Canaries: canaries,
	}
	switch {
	case p.Machines == 0:
		v.Summary = "Nobody has reported anything lately."
	case v.Local:
		v.Summary = fmt.Sprintf("Local: the word of %s has earned weight so far, which is too few, so that newcomers count with %.1f points each. Mind who may join.", count(p.Trusted, "organisation"), newcomer)
	default:
		v.Summary = fmt.Sprintf("Mature: the word of %s counts; newcomers have to earn it.", count(p.Trusted, "organisation"))
	}
	return v
}

func (a *API) network(r *http.Request) (any, error) {
	return askJudge(r.Context(), a, func(ctx context.Context, j Judge) (NetworkView, error) {
		p, newcomer, err := j.Network(ctx)
		return ViewNetwork(p, newcomer, a.cfg.Listed(), a.cfg.Truth().Canaries.Len()), err
	})
}

// behaviourView is what a scenario's reports are worth.
type behaviourView struct {
	Scenario    string  `json:"scenario"`
	Confidence  uint8   `json:"confidence"`  // 0 (a guess) to 3 (nothing else looks like it)
	Spoofable   uint8   `json:"spoofable"`   // 0 (a handshake proves the address) to 3 (one forged packet)
	Twitchiness float64 `json:"twitchiness"` // reports of what is known to be good, lately, by so many that each was excused
	Keeps       float64 `json:"keeps"`       // share of its confidence that it keeps for that, 0 to 1
	Twitchy     bool    `json:"twitchy"`     // such reports come from everywhere these days: it is broken, and counts a tenth of that
}

func viewBehaviour(b jury.Behaviour) behaviourView {
	return behaviourView{b.Scenario, b.Prior.Confidence, b.Prior.Spoofable, b.Shots, b.Keeps, b.Twitchy}
}

func (a *API) behaviours(r *http.Request) (any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	all, err := askJudge(r.Context(), a, func(ctx context.Context, j Judge) ([]jury.Behaviour, error) { return j.Behaviours(ctx) })
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	page := struct {
		Behaviours []behaviourView `json:"behaviours"`
		Next       string          `json:"next"`
	}{Behaviours: []behaviourView{}}
	for _, b := range all {
		if b.Scenario <= q.Get("after") || !strings.Contains(b.Scenario, q.Get("search")) {
			continue
		}
		if len(page.Behaviours) == limit {
			page.Next = page.Behaviours[limit-1].Scenario
			break
		}
		page.Behaviours = append(page.Behaviours, viewBehaviour(b))
	}
	return page, nil
}
