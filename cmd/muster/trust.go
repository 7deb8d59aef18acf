package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"
)

// machineTrust is what a machine's word is worth, as the API says it.
type machineTrust struct {
	Reported, Clouded, Solo bool
	Summary                 string
	Rank                    uint8
	Weight, Bound           float64
	TenureDays              int `json:"tenure_days"`
	Validations             float64
	Strikes                 int
	LastStrike              *time.Time `json:"last_strike"`
	HeldUntil               *time.Time `json:"held_until"`
	PausedUntil             *time.Time `json:"paused_until"`
}

// trustEvent is something that moved it.
type trustEvent struct {
	At                     time.Time
	What, Scenario, Source string
	Amount                 float64
	RankBefore             uint8 `json:"rank_before"`
	RankAfter              uint8 `json:"rank_after"`
}

type machineShowCmd struct {
	machineRef
	Since string `help:"Events since then: a time, or an age like 24h or 7d; the last 50 when left out." placeholder:"WHEN"`
	server
}

func (c *machineShowCmd) Run(g *globals) error {
	type shown struct {
		machine
		Honeypot     bool
		Scenarios    []string
		RegisteredAt time.Time `json:"registered_at"`
		Trust        *machineTrust
		Events       []trustEvent
	}
	raw, m, err := fetch[shown](c.server, g, "GET", c.path(""), nil)
	if err != nil {
		return err
	}
	events := m.Events
	if c.Since != "" {
		q := url.Values{"since": {c.Since}, "limit": {"1000"}}
		more, t, err := fetch[struct{ Events []trustEvent }](c.server, g, "GET", c.path("/trust?"+q.Encode()), nil)
		if err != nil {
			return err
		}
		if c.JSON {
			return c.show(more, nil)
		}
		events = t.Events
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintf(w, "machine\t%s\n", m.ID)
		fmt.Fprintf(w, "name\t%s\n", cmp.Or(m.Name, "none"))
		fmt.Fprintf(w, "state\t%s\n", m.State)
		fmt.Fprintf(w, "organisation\t%s\n", cmp.Or(m.Organisation, "none"))
		fmt.Fprintf(w, "tags\t%s\n", cmp.Or(strings.Join(m.Tags, ", "), "none"))
		fmt.Fprintf(w, "honeypot\t%s\n", yes(m.Honeypot))
		fmt.Fprintf(w, "version\t%s\n", cmp.Or(m.Version, "unknown"))
		fmt.Fprintf(w, "scenarios\t%d\n", len(m.Scenarios))
		fmt.Fprintf(w, "registered\t%s\n", until(&m.RegisteredAt))
		fmt.Fprintf(w, "last seen\t%s\n", ago(m.LastSeen))
		m.Trust.print(w)
		printEvents(w, events)
	})
}

func (t *machineTrust) print(w io.Writer) {
	if t == nil {
		fmt.Fprintln(w, "trust\tthe judge does not answer now")
		return
	}
	fmt.Fprintf(w, "trust\t%s\n", t.Summary)
	if !t.Reported {
		return
	}
	fmt.Fprintf(w, "rank\t%d of 5\n", t.Rank)
	fmt.Fprintf(w, "weight\t%.2f points\n", t.Weight)
	fmt.Fprintf(w, "right\tin %.0f %% of cases at least\n", 100*t.Bound)
	fmt.Fprintf(w, "days with reports\t%d\n", t.TenureDays)
	fmt.Fprintf(w, "validations\t%.1f\n", t.Validations)
	strikes := fmt.Sprint(t.Strikes)
	if t.LastStrike != nil {
		strikes += ", the last " + until(t.LastStrike)
	}
	fmt.Fprintf(w, "strikes\t%s\n", strikes)
	if t.HeldUntil != nil {
		fmt.Fprintf(w, "held until\t%s\n", until(t.HeldUntil))
	}
	if t.PausedUntil != nil {
		fmt.Fprintf(w, "paused until\t%s\n", until(t.PausedUntil))
	}
	fmt.Fprintf(w, "suspected\t%s\n", yes(t.Clouded))
	fmt.Fprintf(w, "lists alone\t%s\n", yes(t.Solo))
}

func printEvents(w io.Writer, events []trustEvent) {
	if len(events) == 0 {
		return
	}
	fmt.Fprintln(w, "\nWHEN\tRANK\tWHAT\tAMOUNT\tSOURCE\tSCENARIO")
	for _, e := range events {
		rank := fmt.Sprint(e.RankAfter)
		if e.RankBefore != e.RankAfter {
			rank = fmt.Sprintf("%d to %d", e.RankBefore, e.RankAfter)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.1f\t%s\t%s\n", e.At.UTC().Format(time.RFC3339), rank, e.What, e.Amount, e.Source, e.Scenario)
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

type behaviourListCmd struct {
	Search string `help:"Part of the scenario's name."`
	server
}

func (c *behaviourListCmd) Run(g *globals) error {
	type behaviour struct {
		Scenario              string
		Confidence, Spoofable uint8
		Twitchiness, Keeps    float64
		Twitchy               bool
	}
	all, list, err := pages[behaviour](c.server, g, "/behaviours", "behaviours", "after", url.Values{"search": {c.Search}})
	if err != nil {
		return err
	}
	return c.show(all, func(w io.Writer) {
		fmt.Fprintln(w, "SCENARIO\tCONFIDENCE\tSPOOFABLE\tTWITCHINESS\tKEEPS\tBROKEN")
		for _, b := range list {
			fmt.Fprintf(w, "%s\t%d of 3\t%d of 3\t%.1f\t%.0f %%\t%s\n", b.Scenario, b.Confidence, b.Spoofable, b.Twitchiness, 100*b.Keeps, yes(b.Twitchy))
		}
	})
}

type statusCmd struct{ server }

func (c *statusCmd) Run(g *globals) error {
	raw, _, err := fetch[json.RawMessage](c.server, g, "GET", "/status", nil)
	if err != nil {
		return err
	}
	c.JSON = true // it is a tree: JSON is how it reads best
	return c.show(raw, nil)
}
