package main

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"
)

// integration is the API's, as far as the command line looks into it.
type integration struct {
	ID, Name, Kind, Organisation, Format, URL, User, Secret, Setup, Notes, State string

	Budget          int
	Collateral      float64
	IPv4, IPv6      bool
	IntervalSeconds int64 `json:"interval_seconds"`
	Lists           []struct{ ID, Name, Remedy string }
	CreatedAt       time.Time  `json:"created_at"`
	RotatedAt       time.Time  `json:"rotated_at"`
	LastPull        *time.Time `json:"last_pull"`
	LastClient      string     `json:"last_client"`
	LastAddress     string     `json:"last_address"`
	LastEntries     int        `json:"last_entries"`
	Usage           []struct {
		Address string
		At      time.Time
	}
}

// product is the format of a firewall, or bouncer.
func (i *integration) product() string { return cmp.Or(i.Format, i.Kind) }

func (i *integration) listNames() string {
	var names []string
	for _, l := range i.Lists {
		names = append(names, l.Name)
	}
	return cmp.Or(strings.Join(names, ", "), "none")
}

func (i *integration) families() string {
	switch {
	case !i.IPv6:
		return "IPv4"
	case !i.IPv4:
		return "IPv6"
	}
	return "IPv4 and IPv6"
}

func (i *integration) budget() string {
	if i.Budget == 0 {
		return "no limit"
	}
	return fmt.Sprintf("%d entries", i.Budget)
}

// credentials prints what is shown once, and what to do with it.
func (i *integration) credentials(w io.Writer) {
	fmt.Fprintf(w, "id\t%s\nurl\t%s\n", i.ID, i.URL)
	if i.User != "" {
		fmt.Fprintf(w, "user\t%s\npassword\t%s\n", i.User, i.Secret)
	} else {
		fmt.Fprintf(w, "key\t%s\n", i.Secret)
	}
	fmt.Fprintf(w, "lists\t%s\nbudget\t%s\n", i.listNames(), i.budget())
	fmt.Fprintf(w, "\nIt is shown only now; muster admin integration rotate makes another.\n")
	i.instructions(w)
}

func (i *integration) instructions(w io.Writer) {
	fmt.Fprintf(w, "\nTo set it up:\n\n%s", i.Setup)
	if i.Notes != "" {
		fmt.Fprintf(w, "\n%s\n", i.Notes)
	}
}

// integrationSettings are the flags that create and set share.
type integrationSettings struct {
	Budget     *int     `help:"Most entries that the product takes; 0 = no limit. The most useful are given. As its format has it when left out." placeholder:"ENTRIES"`
	Collateral *float64 `help:"Largest share of a range that may be covered without being listed, so that more fits in: 0 to 0.5." placeholder:"SHARE"`
	IPv4       *bool    `name:"ipv4" help:"Whether it is given IPv4." negatable:""`
	IPv6       *bool    `name:"ipv6" help:"Whether it is given IPv6." negatable:""`
	Every      string   `help:"Shortest time between two pulls of a firewall (10m, 1h); 0 = any." placeholder:"DURATION"`
	List       []string `help:"List that it reads, by id or name; may be repeated. The network's is community." placeholder:"LIST"`
	Reason     string   `help:"Why; for the audit."`
}

// request adds what was given to a request.
func (s *integrationSettings) request(in map[string]any) error {
	for name, v := range map[string]*bool{"ipv4": s.IPv4, "ipv6": s.IPv6} {
		if v != nil {
			in[name] = *v
		}
	}
	if s.Budget != nil {
		in["budget"] = *s.Budget
	}
	if s.Collateral != nil {
		in["collateral"] = *s.Collateral
	}
	if s.Every != "" {
		every := int64(0)
		if s.Every != "0" {
			var err error
			if every, err = seconds(s.Every); err != nil {
				return fmt.Errorf("--every: %w", err)
			}
		}
		in["interval_seconds"] = every
	}
	if s.List != nil {
		in["lists"] = s.List
	}
	if s.Reason != "" {
		in["reason"] = s.Reason
	}
	return nil
}

type integrationCreateCmd struct {
	Name string `arg:"" help:"Name: lower-case letters, digits, - and _."`
	For  string `help:"What reads it: bouncer, or the firewall: plain_text, pfsense, opnsense, fortigate, paloalto, checkpoint, cisco, juniper, mikrotik, f5, sophos." required:"" placeholder:"PRODUCT"`
	Org  string `help:"Organisation, by id or name; the first one when left out." placeholder:"ORG"`
	integrationSettings
	server
}

// Help is shown by --help.
func (integrationCreateCmd) Help() string {
	return "Prints the credentials, which are shown only now, and what to paste into the product.\n\n" +
		example(`muster admin integration create office --for pfsense --budget 50000 --no-ipv6`) + "\n" +
		`  muster admin integration create web --for bouncer --list community --list our-own`
}

func (c *integrationCreateCmd) Run(g *globals) error {
	in := map[string]any{"name": c.Name, "kind": "bouncer", "organisation": c.Org}
	if c.For != "bouncer" {
		in["kind"], in["format"] = "firewall", c.For
	}
	if err := c.request(in); err != nil {
		return err
	}
	raw, i, err := fetch[integration](c.server, g, "POST", "/integrations", in)
	if err != nil {
		return err
	}
	return c.show(raw, i.credentials)
}

type integrationListCmd struct {
	Org string `help:"Only those of this organisation, by id or name." placeholder:"ORG"`
	server
}

// Help is shown by --help.
func (integrationListCmd) Help() string { return example(`muster admin integration list`) }

func (c *integrationListCmd) Run(g *globals) error {
	path := "/integrations"
	if c.Org != "" {
		path += "?organisation=" + url.QueryEscape(c.Org)
	}
	raw, list, err := fetch[[]integration](c.server, g, "GET", path, nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "No integration yet. For a firewall: muster admin integration create NAME --for pfsense")
			return
		}
		fmt.Fprintln(w, "ID\tNAME\tFOR\tLISTS\tBUDGET\tSTATE\tLAST PULL\tBY")
		for _, i := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", i.ID, i.Name, i.product(), i.listNames(), i.budget(), i.State, ago(i.LastPull), i.LastClient)
		}
	})
}

type integrationRef struct {
	Integration string `arg:"" help:"Id, or name when only one has it."`
}

func (r integrationRef) path() string { return "/integrations/" + escape(r.Integration) }

type integrationShowCmd struct {
	integrationRef
	server
}

// Help is shown by --help.
func (integrationShowCmd) Help() string { return example(`muster admin integration show office`) }

func (c *integrationShowCmd) Run(g *globals) error {
	raw, i, err := fetch[integration](c.server, g, "GET", c.path(), nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintf(w, "id\t%s\nname\t%s\nfor\t%s\nurl\t%s\n", i.ID, i.Name, i.product(), i.URL)
		if i.User != "" {
			fmt.Fprintf(w, "user\t%s\n", i.User)
		}
		fmt.Fprintf(w, "lists\t%s\nbudget\t%s\nfamilies\t%s\n", i.listNames(), i.budget(), i.families())
		if i.Collateral > 0 {
			fmt.Fprintf(w, "collateral\t%g of a range at most\n", i.Collateral)
		}
		if i.IntervalSeconds > 0 {
			fmt.Fprintf(w, "pulls\tevery %s at most\n", time.Duration(i.IntervalSeconds)*time.Second)
		}
		fmt.Fprintf(w, "credentials\tof %s\nstate\t%s\nlast pull\t%s", i.RotatedAt.UTC().Format(time.RFC3339), i.State, ago(i.LastPull))
		if i.LastPull != nil {
			fmt.Fprintf(w, ", %d entries, by %s from %s", i.LastEntries, cmp.Or(i.LastClient, "an unnamed client"), cmp.Or(i.LastAddress, "an unknown address"))
		}
		fmt.Fprintln(w)
		for _, u := range i.Usage {
			fmt.Fprintf(w, "report\t%s from %s (--json shows it)\n", ago(&u.At), u.Address)
		}
		i.instructions(w)
	})
}

type integrationSetCmd struct {
	integrationRef
	Name *string `help:"New name."`
	For  *string `help:"Another firewall's format." placeholder:"PRODUCT"`
	integrationSettings
	server
}

// Help is shown by --help.
func (integrationSetCmd) Help() string {
	return example(`muster admin integration set office --budget 8000 --collateral 0.25 --every 10m`)
}

func (c *integrationSetCmd) Run(g *globals) error {
	in := map[string]any{}
	if c.Name != nil {
		in["name"] = *c.Name
	}
	if c.For != nil {
		in["format"] = *c.For
	}
	if err := c.request(in); err != nil {
		return err
	}
	return c.run(g, "PATCH", c.path(), in, "Integration changed. Its next pull is by that.")
}

type integrationRotateCmd struct {
	integrationRef
	Reason string `help:"Why; for the audit."`
	server
}

// Help is shown by --help.
func (integrationRotateCmd) Help() string {
	return example(`muster admin integration rotate office --reason "the firewall was replaced"`)
}

func (c *integrationRotateCmd) Run(g *globals) error {
	raw, i, err := fetch[integration](c.server, g, "POST", c.path()+"/rotate?reason="+url.QueryEscape(c.Reason), nil)
	if err != nil {
		return err
	}
	return c.show(raw, i.credentials)
}

type integrationDeleteCmd struct {
	integrationRef
	Reason string `help:"Why; for the audit."`
	server
}

// Help is shown by --help.
func (integrationDeleteCmd) Help() string {
	return example(`muster admin integration delete office --reason "sold"`)
}

func (c *integrationDeleteCmd) Run(g *globals) error {
	return c.run(g, "DELETE", c.path()+"?reason="+url.QueryEscape(c.Reason), nil, "Integration deleted. Its credentials are refused from now on; what the product has, it keeps.")
}
