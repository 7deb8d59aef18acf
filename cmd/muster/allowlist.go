package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"
)

// allowlistCmds are muster admin allowlist.
type allowlistCmds struct {
	List   allowlistListCmd   `cmd:"" help:"List allowlists, the installation's first."`
	Create allowlistCreateCmd `cmd:"" help:"Make a list; its id is on the last line."`
	Show   allowlistShowCmd   `cmd:"" help:"Show a list with what is on it and what that stands for now."`
	Set    allowlistSetCmd    `cmd:"" help:"Change a list's name, description, or whom it is for."`
	Add    allowlistAddCmd    `cmd:"" help:"Put addresses, ranges, AS, countries, providers or host names on a list."`
	Remove allowlistRemoveCmd `cmd:"" help:"Take something off a list."`
	Delete allowlistDeleteCmd `cmd:"" help:"Delete a list; machines that have it let go of it."`
	Check  allowlistCheckCmd  `cmd:"" help:"Say which lists let an address or a range through."`
}

// allowlist is a list as far as the command line looks into it.
type allowlist struct {
	ID, Name, Description, Organisation         string
	Central                                     bool
	Targets                                     []allowTarget
	Items, Ranges, Bytes, Machines, Withdrawing int
}

type allowTarget struct {
	Kind string `json:"kind"`
	ID   string `json:"id,omitempty"`
}

// whom writes whom a list is for.
func (l *allowlist) whom() string {
	switch {
	case l.ID == "central":
		return "no engine" // it keeps off what is published
	case l.Central:
		return "everybody"
	}
	var out []string
	for _, t := range l.Targets {
		if t.ID == "" {
			out = append(out, "the whole "+t.Kind)
		} else {
			out = append(out, t.Kind+" "+t.ID)
		}
	}
	if len(out) == 0 {
		return "nobody"
	}
	return strings.Join(out, ", ")
}

// allowlistRef names a list in the commands below.
type allowlistRef struct {
	Allowlist string `arg:"" help:"List, by name or id."`
	Org       string `help:"Whose list, by id or name; needed when several organisations have a list of the name." placeholder:"ORG"`
}

func (a allowlistRef) path(rest string, q url.Values) string {
	if q == nil {
		q = url.Values{}
	}
	if a.Org != "" {
		q.Set("organisation", a.Org)
	}
	path := "/allowlists/" + escape(a.Allowlist) + rest
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return path
}

// allowTargets are the flags that say whom a list is for.
type allowTargets struct {
	All         bool     `help:"For all machines and integrations of the organisation (the default of a new list)."`
	Tag         []string `help:"For its machines with this tag; may be repeated."`
	Machine     []string `help:"For this machine, by id or name; may be repeated."`
	Integration []string `help:"For this integration, by id; may be repeated."`
}

// list returns the targets, nil when no flag was given.
func (t allowTargets) list() []allowTarget {
	var out []allowTarget
	if t.All {
		out = append(out, allowTarget{Kind: "organisation"})
	}
	for _, of := range []struct {
		kind string
		ids  []string
	}{{"tag", t.Tag}, {"machine", t.Machine}, {"integration", t.Integration}} {
		for _, id := range of.ids {
			out = append(out, allowTarget{of.kind, id})
		}
	}
	return out
}

type allowlistListCmd struct {
	Org string `help:"Only those that this organisation's machines can get, by id or name." placeholder:"ORG"`
	server
}

// Help is shown by --help.
func (allowlistListCmd) Help() string { return example(`muster admin allowlist list`) }

func (c *allowlistListCmd) Run(g *globals) error {
	raw, list, err := fetch[[]allowlist](c.server, g, "GET", "/allowlists?organisation="+url.QueryEscape(c.Org), nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "There is no allowlist yet. Make one: muster admin allowlist create office")
			return
		}
		fmt.Fprintln(w, "ID\tNAME\tORGANISATION\tFOR\tITEMS\tRANGES\tMACHINES\tDESCRIPTION")
		for i := range list {
			l := &list[i]
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\n", l.ID, l.Name, orDash(l.Organisation), l.whom(), l.Items, l.Ranges, l.Machines, l.Description)
		}
	})
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

type allowlistCreateCmd struct {
	Name        string `arg:"" help:"Name: lower-case letters, digits, - and _. An engine must not have a list of its own by it."`
	Description string `help:"What it is for; engines show it." placeholder:"TEXT"`
	Org         string `help:"Whose list, by id or name; the first organisation's when left out." placeholder:"ORG"`
	Central     bool   `help:"The installation's: nobody is sent what is on it, and every engine gets it, so that none bans it."`
	Reason      string `help:"Why; for the audit."`
	allowTargets
	server
}

// Help is shown by --help.
func (allowlistCreateCmd) Help() string {
	return "A list takes effect at once: what is on it is in no list that its machines pull, and engines lift decisions that they have. " +
		"What shall not be published, and yet banned by whoever sees it attack, belongs on the list central (muster admin allow), which engines do not get.\n\n" +
		example(`muster admin allowlist create office --org "Customer A" --description "Branch offices"`) + "\n" +
		`  muster admin allowlist create monitoring --tag web --tag dmz` + "\n" +
		`  muster admin allowlist create partners --central`
}

func (c *allowlistCreateCmd) Run(g *globals) error {
	in := map[string]any{"name": c.Name, "description": c.Description, "organisation": c.Org, "central": c.Central, "reason": c.Reason}
	if targets := c.list(); targets != nil {
		in["targets"] = targets
	}
	raw, l, err := fetch[allowlist](c.server, g, "POST", "/allowlists", in)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintf(w, "Allowlist %s made, for %s. Put something on it: muster admin allowlist add %s 198.51.100.0/24\nIts id:\n%s\n", l.Name, l.whom(), l.Name, l.ID)
	})
}

type allowlistShowCmd struct {
	allowlistRef
	server
}

// Help is shown by --help.
func (allowlistShowCmd) Help() string { return example(`muster admin allowlist show office`) }

func (c *allowlistShowCmd) Run(g *globals) error {
	type item struct {
		Kind, Value, Reason, By, Problem string
		Ranges                           int
		Addresses                        []string
		ExpiresAt                        *time.Time `json:"expires_at"`
	}
	rawList, l, err := fetch[allowlist](c.server, g, "GET", c.path("", nil), nil)
	if err != nil {
		return err
	}
	rawItems, items, err := fetch[[]item](c.server, g, "GET", c.path("/items", nil), nil)
	if err != nil {
		return err
	}
	return c.show(map[string]any{"allowlist": rawList, "items": rawItems}, func(w io.Writer) {
		fmt.Fprintf(w, "%s (%s), for %s: %d items that stand for %d addresses and ranges; %d machines have it.\n", l.Name, l.ID, l.whom(), l.Items, l.Ranges, l.Machines)
		if l.Withdrawing > 0 {
			fmt.Fprintf(w, "%d machines are still to let go of it: they do with their next pull or order.\n", l.Withdrawing)
		}
		if len(items) == 0 {
			fmt.Fprintf(w, "Nothing is on it yet: muster admin allowlist add %s 198.51.100.0/24\n", l.Name)
			return
		}
		fmt.Fprintln(w, "ITEM\tSTANDS FOR\tEXPIRES\tBY\tREASON")
		for _, i := range items {
			stands := "itself"
			switch {
			case len(i.Addresses) > 0:
				stands = strings.Join(i.Addresses, ", ")
			case i.Kind != "address" && i.Kind != "range":
				stands = fmt.Sprintf("%d ranges", i.Ranges)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", i.Value, stands, until(i.ExpiresAt), orDash(i.By), i.Reason)
		}
		for _, i := range items {
			if i.Problem != "" {
				fmt.Fprintf(w, "%s: %s\n", i.Value, i.Problem)
			}
		}
	})
}

type allowlistSetCmd struct {
	allowlistRef
	Name        *string `help:"New name."`
	Description *string `help:"New description."`
	Nobody      bool    `help:"For nobody; in place of the flags below."`
	Reason      string  `help:"Why; for the audit."`
	allowTargets
	server
}

// Help is shown by --help.
func (allowlistSetCmd) Help() string {
	return "Targets take the place of those before: name all of them. Machines that the list is not for any more are ordered to let go of it; " +
		"those that take no orders do with their next pull.\n\n" +
		example(`muster admin allowlist set office --tag web --machine backup1`)
}

func (c *allowlistSetCmd) Run(g *globals) error {
	in := map[string]any{}
	if c.Name != nil {
		in["name"] = *c.Name
	}
	if c.Description != nil {
		in["description"] = *c.Description
	}
	targets := c.list()
	switch {
	case c.Nobody && targets != nil:
		return errors.New("--nobody: expected no --all, --tag, --machine or --integration beside it")
	case c.Nobody:
		in["targets"] = []allowTarget{}
	case targets != nil:
		in["targets"] = targets
	}
	if len(in) == 0 {
		return errors.New("nothing to change: expected --name, --description, --all, --tag, --machine, --integration or --nobody")
	}
	in["reason"] = c.Reason
	return c.run(g, "PATCH", c.path("", nil), in, "Allowlist changed.")
}

type allowlistAddCmd struct {
	allowlistRef
	Value  []string `arg:"" optional:"" help:"198.51.100.7, 198.51.100.0/24, AS64496, country:DE, cloud:aws, cloud:aws/cloudfront or office.example.org."`
	File   string   `help:"File with one of them in each line; # begins a comment." placeholder:"FILE"`
	Reason string   `help:"Why; engines show it."`
	TTL    string   `name:"ttl" help:"How long (30m, 7d); for ever when left out." placeholder:"DURATION"`
	server
}

// Help is shown by --help.
func (allowlistAddCmd) Help() string {
	return "Engines know addresses and ranges: the server gives them what the others stand for, and keeps that up to date. AS and countries need a " +
		"database on the server (settings enrich.asn, enrich.country), providers their published ranges (allowlists.clouds).\n\n" +
		example(`muster admin allowlist add office 198.51.100.0/24 vpn.example.org --reason "Berlin" --ttl 30d`) + "\n" +
		`  muster admin allowlist add partners --file partners.txt`
}

func (c *allowlistAddCmd) Run(g *globals) error {
	ttl, err := seconds(c.TTL)
	if err != nil {
		return fmt.Errorf("--ttl: %w", err)
	}
	values := c.Value
	if c.File != "" {
		more, err := readValues(c.File)
		if err != nil {
			return err
		}
		values = append(values, more...)
	}
	if len(values) == 0 {
		return errors.New("expected something to put on the list, or --file")
	}
	raw, items, err := fetch[[]struct{ Ranges int }](c.server, g, "POST", c.path("/items", nil),
		map[string]any{"values": values, "reason": c.Reason, "ttl_seconds": ttl})
	if err != nil {
		return err
	}
	ranges := 0
	for _, i := range items {
		ranges += i.Ranges
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintf(w, "%d items on allowlist %s, standing for %d addresses and ranges. Machines that wait for orders fetch it now, the others with their next pull.\n",
			len(items), c.Allowlist, ranges)
	})
}

func readValues(path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var values []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if line = strings.TrimSpace(line); line != "" {
			values = append(values, line)
		}
	}
	return values, lines.Err()
}

type allowlistRemoveCmd struct {
	allowlistRef
	Value  string `arg:"" help:"What to take off, as the list shows it."`
	Reason string `help:"Why; for the audit."`
	server
}

// Help is shown by --help.
func (allowlistRemoveCmd) Help() string {
	return example(`muster admin allowlist remove office vpn.example.org`)
}

func (c *allowlistRemoveCmd) Run(g *globals) error {
	return c.run(g, "DELETE", c.path("/items/"+escape(c.Value), url.Values{"reason": {c.Reason}}), nil, "Off the allowlist.")
}

type allowlistDeleteCmd struct {
	allowlistRef
	Reason string `help:"Why; for the audit."`
	server
}

// Help is shown by --help.
func (allowlistDeleteCmd) Help() string { return example(`muster admin allowlist delete office`) }

func (c *allowlistDeleteCmd) Run(g *globals) error {
	return c.run(g, "DELETE", c.path("", url.Values{"reason": {c.Reason}}), nil,
		"Allowlist deleted. Machines that wait for orders let go of it now, the others with their next pull.")
}

type allowlistCheckCmd struct {
	Value string `arg:"" help:"Address or range."`
	Org   string `help:"Only the lists that this organisation's machines can get, by id or name." placeholder:"ORG"`
	server
}

// Help is shown by --help.
func (allowlistCheckCmd) Help() string {
	return example(`muster admin allowlist check 198.51.100.7`)
}

func (c *allowlistCheckCmd) Run(g *globals) error {
	type hit struct {
		Name, Organisation, Value, Range, Reason string
		Central                                  bool
		Until                                    *time.Time
	}
	raw, hits, err := fetch[[]hit](c.server, g, "GET", "/allowed/"+escape(c.Value)+"?organisation="+url.QueryEscape(c.Org), nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		if len(hits) == 0 {
			fmt.Fprintf(w, "No allowlist lets %s through.\n", c.Value)
			return
		}
		fmt.Fprintln(w, "ALLOWLIST\tORGANISATION\tITEM\tBY RANGE\tUNTIL\tREASON")
		for _, h := range hits {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", h.Name, orDash(h.Organisation), h.Value, h.Range, until(h.Until), h.Reason)
		}
	})
}
