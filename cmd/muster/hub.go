package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"
)

type hubStatusCmd struct{ server }

// Help is shown by --help.
func (hubStatusCmd) Help() string {
	return "Engines use the mirror with this in their config.yaml:\n\n" +
		"  cscli:\n    __hub_url_template__: https://muster.example.org/hub/%s/%s\n\n" + example("muster admin hub status")
}

// hubStatus is the answer of /hub.
type hubStatus struct {
	Public, Private string
	PrivateCounts   bool `json:"private_counts"`
	Serving         bool
	ReadAt          time.Time `json:"read_at"`
	Digest          string
	Bytes           int64
	Compressed      int64
	Items           map[string]int
	PrivateItems    int `json:"private_items"`
	Known           int
	Branches        []string
	Problems        []struct{ Item, Branch, Reason string }
	Failure         *struct {
		At    time.Time
		Error string
	}
}

func (s *hubStatus) print(w io.Writer, all bool) {
	if !s.Serving {
		fmt.Fprintln(w, "This server mirrors no hub: name a copy of one (setting hub.dir), or import a bundle that has one (muster bundle import).")
		return
	}
	total := 0
	var kinds []string
	for kind, count := range s.Items {
		total += count
		kinds = append(kinds, fmt.Sprintf("%d %s", count, kind))
	}
	sort.Strings(kinds)
	fmt.Fprintf(w, "Items\t%d, %d of them private (%s)\n", total, s.PrivateItems, strings.Join(kinds, ", "))
	fmt.Fprintf(w, "Scenarios known\t%d\n", s.Known)
	fmt.Fprintf(w, "Private ones count\t%v\n", s.PrivateCounts)
	if len(s.Branches) > 0 {
		fmt.Fprintf(w, "Branches\t%s\n", strings.Join(s.Branches, ", "))
	}
	fmt.Fprintf(w, "Index\t%s with content, %s compressed, SHA-256 %s\n", size(s.Bytes), size(s.Compressed), s.Digest)
	fmt.Fprintf(w, "Read\t%s from %s\n", until(&s.ReadAt), s.Public)
	if s.Private != "" {
		fmt.Fprintf(w, "Private items\t%s\n", s.Private)
	}
	if s.Failure != nil {
		fmt.Fprintf(w, "Not up to date\t%s: %s\n", until(&s.Failure.At), s.Failure.Error)
	}
	if len(s.Problems) == 0 {
		fmt.Fprintln(w, "Left out\tnothing: every item is what its digest says")
		return
	}
	fmt.Fprintf(w, "Left out\t%d items, damaged or malformed\n", len(s.Problems))
	for n, p := range s.Problems {
		if n == 5 && !all {
			fmt.Fprintf(w, "\t… (muster admin hub verify shows them all)\n")
			break
		}
		branch := ""
		if p.Branch != "" {
			branch = " (branch " + p.Branch + ")"
		}
		fmt.Fprintf(w, "\t%s%s: %s\n", p.Item, branch, p.Reason)
	}
}

func size(bytes int64) string {
	switch {
	case bytes >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
	case bytes >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(bytes)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", bytes)
}

func (c *hubStatusCmd) Run(g *globals) error {
	raw, s, err := fetch[hubStatus](c.server, g, "GET", "/hub", nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) { s.print(w, false) })
}

type hubListCmd struct {
	Type    string `help:"Only items of this type: scenarios, parsers, …"`
	Private bool   `help:"Only private items."`
	Search  string `help:"Only items with this in their names."`
	server
}

// Help is shown by --help.
func (hubListCmd) Help() string { return example("muster admin hub list --private") }

func (c *hubListCmd) Run(g *globals) error {
	type item struct {
		Type        string `json:"type"`
		Name        string `json:"name"`
		Path        string `json:"path"`
		Version     string `json:"version"`
		Versions    int    `json:"versions"`
		Digest      string `json:"digest"`
		Description string `json:"description"`
		Private     bool   `json:"private"`
	}
	_, items, err := fetch[[]item](c.server, g, "GET", "/hub/items", nil)
	if err != nil {
		return err
	}
	chosen := []item{}
	for _, i := range items {
		if (c.Type == "" || i.Type == c.Type) && (!c.Private || i.Private) && strings.Contains(i.Name, c.Search) {
			chosen = append(chosen, i)
		}
	}
	return c.show(chosen, func(w io.Writer) {
		if len(chosen) == 0 {
			fmt.Fprintln(w, "There are no such items.")
			return
		}
		fmt.Fprintln(w, "TYPE\tNAME\tVERSION\tFROM\tDESCRIPTION")
		for _, i := range chosen {
			from := "hub"
			if i.Private {
				from = "private"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", i.Type, i.Name, i.Version, from, strings.Join(strings.Fields(i.Description), " "))
		}
	})
}

type hubVerifyCmd struct{ server }

// Help is shown by --help.
func (hubVerifyCmd) Help() string {
	return "Reads the folders again at once and checks each item against its digest. Damaged items are not served. " +
		"Ends with an error when there are any.\n\n" + example("muster admin hub verify")
}

func (c *hubVerifyCmd) Run(g *globals) error {
	var raw json.RawMessage
	client, err := c.client(g)
	if err != nil {
		return err
	}
	client.http.Timeout = 10 * time.Minute
	if err := client.call("POST", "/hub/verify", nil, &raw); err != nil {
		return err
	}
	var s hubStatus
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("the server's answer could not be read: %w", err)
	}
	if err := c.show(raw, func(w io.Writer) { s.print(w, true) }); err != nil {
		return err
	}
	if len(s.Problems) > 0 {
		return fmt.Errorf("%d items are left out", len(s.Problems))
	}
	return nil
}
