package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// limit is the API's, as far as the command line looks into it.
type limit struct {
	Name, Kind, Per, Window, Ban, Scope string
	Sharing, Enrolled                   *bool
	Threshold                           int
	ExtendOnRetry                       bool     `json:"extend_on_retry"`
	ExemptPlans                         []string `json:"exempt_plans"`
	Off                                 bool
	SetAt                               *time.Time `json:"set_at"`
	SetBy                               string     `json:"set_by"`
}

// counts says what is counted, of whom.
func (l limit) counts() string {
	text := l.Kind
	for _, class := range []struct {
		is   *bool
		name string
	}{{l.Sharing, "sharing"}, {l.Enrolled, "enrolled"}} {
		switch {
		case class.is == nil:
		case *class.is:
			text += ", " + class.name
		default:
			text += ", not " + class.name
		}
	}
	return text
}

// penalty says what the first one too many costs.
func (l limit) penalty() string {
	if l.Ban == "0s" {
		return "refused, no ban"
	}
	text := "banned for " + l.Ban
	if l.Scope == "login" {
		text += " from logins"
	}
	if l.ExtendOnRetry {
		text += ", again with each retry"
	}
	return text
}

func (l limit) state() string {
	text := "on"
	if l.Off {
		text = "off"
	}
	if l.SetAt == nil {
		return text + ", as configured"
	}
	return text + ", set by " + l.SetBy + " " + l.SetAt.UTC().Format(time.RFC3339)
}

func limitTable(w io.Writer, list ...limit) {
	fmt.Fprintln(w, "NAME\tCOUNTS\tPER\tOVER\tIN\tTHEN\tEXEMPT\tSTATE")
	for _, l := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", l.Name, l.counts(), l.Per, l.Threshold, l.Window, l.penalty(), strings.Join(l.ExemptPlans, ","), l.state())
	}
}

type limitListCmd struct{ server }

func (c *limitListCmd) Run(g *globals) error {
	raw, v, err := fetch[struct {
		Limits []limit
		Kinds  []string
	}](c.server, g, "GET", "/limits", nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		if len(v.Limits) == 0 {
			fmt.Fprintln(w, "Nothing is limited.")
		} else {
			limitTable(w, v.Limits...)
		}
		fmt.Fprintf(w, "\nLimits can count: %s\n", strings.Join(v.Kinds, ", "))
	})
}

type limitSetCmd struct {
	Name       string   `arg:"" help:"Name. An unknown one makes a new limit, which needs --count, --over and --window; else only what is given changes."`
	Count      *string  `help:"What to count, from muster admin limit list." placeholder:"KIND"`
	Sharing    string   `help:"Count only machines that share signals (yes), that do not (no), or either." enum:",yes,no,either" default:""`
	Enrolled   string   `help:"Count only machines that are enrolled (yes), that are not (no), or either." enum:",yes,no,either" default:""`
	Per        *string  `help:"What has a count of its own: address, machine, organisation, machine+address." placeholder:"SUBJECT"`
	Over       *int     `help:"How many are allowed in the window; the next one is refused." placeholder:"N"`
	Window     *string  `help:"In how long a time: 50m, 1h." placeholder:"DURATION"`
	Ban        *string  `help:"How long the address is banned then: 1h; 0 = not at all." placeholder:"DURATION"`
	Scope      *string  `help:"What the ban refuses: all, or login, which leaves the tokens in use working." placeholder:"SCOPE"`
	Extend     *bool    `help:"Each retry during the ban starts it again." negatable:""`
	ExemptPlan []string `help:"Plan that is not limited (COMMUNITY, SECOPS, ENTERPRISE); may be repeated; none = every plan is." placeholder:"PLAN"`
	Reason     string   `help:"Why; for the audit."`
	server
}

func (c *limitSetCmd) Run(g *globals) error {
	in := map[string]any{}
	given(in, "kind", c.Count)
	given(in, "per", c.Per)
	given(in, "threshold", c.Over)
	given(in, "window", c.Window)
	given(in, "ban", c.Ban)
	given(in, "scope", c.Scope)
	given(in, "extend_on_retry", c.Extend)
	for name, v := range map[string]string{"sharing": c.Sharing, "enrolled": c.Enrolled} {
		switch v {
		case "either":
			in[name] = nil
		case "yes", "no":
			in[name] = v == "yes"
		}
	}
	switch {
	case len(c.ExemptPlan) == 1 && c.ExemptPlan[0] == "none":
		in["exempt_plans"] = []string{}
	case len(c.ExemptPlan) > 0:
		in["exempt_plans"] = c.ExemptPlan
	}
	if len(in) == 0 {
		return errors.New("nothing to change: give at least one of the flags that muster admin limit set --help shows")
	}
	return changeLimit(c.server, g, c.Name, c.Reason, in, "Limit set. It holds from now on:")
}

// given puts a flag that was set into a request.
func given[T any](in map[string]any, name string, v *T) {
	if v != nil {
		in[name] = *v
	}
}

func changeLimit(s server, g *globals, name, reason string, in map[string]any, done string) error {
	in["reason"] = reason
	raw, l, err := fetch[limit](s, g, "PUT", "/limits/"+escape(name), in)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) {
		fmt.Fprintln(w, done)
		limitTable(w, l)
	})
}

// limitRef names a limit in the commands below.
type limitRef struct {
	Name   string `arg:"" help:"Limit, by name."`
	Reason string `help:"Why; for the audit."`
	server
}

type limitOffCmd struct{ limitRef }

func (c *limitOffCmd) Run(g *globals) error {
	return changeLimit(c.server, g, c.Name, c.Reason, map[string]any{"off": true}, "Limit off. Bans that it made stay until they end or are lifted.")
}

type limitOnCmd struct{ limitRef }

func (c *limitOnCmd) Run(g *globals) error {
	return changeLimit(c.server, g, c.Name, c.Reason, map[string]any{"off": false}, "Limit on. It holds from now on:")
}

type limitResetCmd struct{ limitRef }

func (c *limitResetCmd) Run(g *globals) error {
	raw, l, err := fetch[*limit](c.server, g, "DELETE", "/limits/"+escape(c.Name)+"?reason="+url.QueryEscape(c.Reason), nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		if l == nil {
			fmt.Fprintf(w, "Limit %s is gone: the configuration has none of that name.\n", c.Name)
			return
		}
		fmt.Fprintln(w, "Limit as configured again:")
		limitTable(w, *l)
	})
}

// override is the API's, as far as the command line looks into it.
type override struct {
	ID, Addresses, Organisation, Machine, Reason, By string
	Limits                                           []string
	Exempt                                           bool
	Threshold                                        int
	Until                                            *time.Time
}

func (o override) subject() string {
	switch {
	case o.Organisation != "":
		return "organisation " + o.Organisation
	case o.Machine != "":
		return "machine " + o.Machine
	}
	return o.Addresses
}

func (o override) allows() string {
	if o.Exempt {
		return "anything"
	}
	return strconv.Itoa(o.Threshold) + " in the window"
}

func (o override) limits() string {
	if len(o.Limits) == 0 {
		return "all"
	}
	return strings.Join(o.Limits, ",")
}

type overrideListCmd struct{ server }

func (c *overrideListCmd) Run(g *globals) error {
	all, list, err := pages[override](c.server, g, "/overrides", "overrides", "after", url.Values{})
	if err != nil {
		return err
	}
	return c.show(all, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "No overrides: the limits hold for everybody alike.")
			return
		}
		fmt.Fprintln(w, "ID\tFOR\tMAY\tLIMITS\tUNTIL\tBY\tREASON")
		for _, o := range list {
			id, by := o.ID, o.By
			if id == "" {
				id, by = "-", "the configuration"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", id, o.subject(), o.allows(), o.limits(), end(o.Until, "removed"), by, o.Reason)
		}
	})
}

type overrideAddCmd struct {
	Address   string   `help:"For the clients of this address or range." xor:"subject" required:""`
	Org       string   `help:"For an organisation's machines, by its id or name." xor:"subject" required:""`
	Machine   string   `help:"For one machine, by id or name." xor:"subject" required:""`
	Exempt    bool     `help:"Do not limit them at all." xor:"what" required:""`
	Threshold int      `help:"Allow so many instead of the limit's own number." xor:"what" required:"" placeholder:"N"`
	Limit     []string `help:"Only for this limit, by name; may be repeated; for all when left out."`
	For       string   `help:"For how long (24h, 30d); until it is removed when left out." placeholder:"DURATION"`
	Reason    string   `help:"Why; for whoever reads it later." required:""`
	server
}

func (c *overrideAddCmd) Run(g *globals) error {
	ttl, err := seconds(c.For)
	if err != nil {
		return fmt.Errorf("--for: %w", err)
	}
	raw, o, err := fetch[override](c.server, g, "POST", "/overrides", map[string]any{
		"addresses": c.Address, "organisation": c.Org, "machine": c.Machine, "exempt": c.Exempt, "threshold": c.Threshold,
		"limits": c.Limit, "ttl_seconds": ttl, "reason": c.Reason,
	})
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintf(w, "From now on %s may do %s (limits: %s), until %s.\n", o.subject(), o.allows(), o.limits(), end(o.Until, "this is removed"))
		fmt.Fprintln(w, "A ban that is in force stays: muster admin ban lift ends it. The override's id:")
		fmt.Fprintln(w, o.ID)
	})
}

type overrideRemoveCmd struct {
	ID     string `arg:"" help:"Id, from muster admin override list."`
	Reason string `help:"Why; for the audit."`
	server
}

func (c *overrideRemoveCmd) Run(g *globals) error {
	return c.run(g, "DELETE", "/overrides/"+escape(c.ID)+"?reason="+url.QueryEscape(c.Reason), nil, "Override removed. The limits hold again.")
}
