package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// ban and finding are the API's, as far as the command line looks into them.
type (
	ban struct {
		Address, Scope, Reason, Limit, By string
		Since                             time.Time
		Until                             *time.Time
		ExtendsSeconds                    int64 `json:"extends_seconds"`
	}
	finding struct {
		Kind, Severity, Machine, Address, Summary, Fix string
		Evidence                                       []string
		Last                                           time.Time
	}
)

// pages gathers the list called name from all pages of path, as the API gave it
// and as T. cursor is the parameter that takes an answer's "next".
func pages[T any](s server, g *globals, path, name, cursor string, q url.Values) (all []json.RawMessage, list []T, err error) {
	all = []json.RawMessage{}
	q.Set("limit", "1000")
	for {
		_, page, err := fetch[map[string]json.RawMessage](s, g, "GET", path+"?"+q.Encode(), nil)
		if err != nil {
			return nil, nil, err
		}
		var (
			raws  []json.RawMessage
			items []T
			next  string
		)
		if err := errors.Join(json.Unmarshal(page[name], &raws), json.Unmarshal(page[name], &items), json.Unmarshal(page["next"], &next)); err != nil {
			return nil, nil, fmt.Errorf("the server's answer could not be read: %w", err)
		}
		all, list = append(all, raws...), append(list, items...)
		if next == "" {
			return all, list, nil
		}
		q.Set(cursor, next)
	}
}

// end says when something with an end ends, and how far off that is.
func end(t *time.Time, never string) string {
	if t == nil {
		return never
	}
	return fmt.Sprintf("%s (in %s)", t.UTC().Format(time.RFC3339), time.Until(*t).Truncate(time.Second))
}

func (b ban) refuses() string {
	if b.Scope == "login" {
		return "logins"
	}
	return "everything"
}

func (b ban) retry() string {
	if b.ExtendsSeconds == 0 {
		return "changes nothing"
	}
	return "starts " + span(time.Duration(b.ExtendsSeconds)*time.Second) + " anew"
}

// span writes a duration without needless zeros.
func span(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

type banListCmd struct {
	Search string `help:"Only bans of or around this address or range, or with this text."`
	server
}

func (c *banListCmd) Run(g *globals) error {
	all, list, err := pages[ban](c.server, g, "/bans", "bans", "after", url.Values{"search": {c.Search}})
	if err != nil {
		return err
	}
	return c.show(all, func(w io.Writer) {
		switch {
		case len(list) == 0 && c.Search != "":
			fmt.Fprintf(w, "No ban matches %q.\n", c.Search)
		case len(list) == 0:
			fmt.Fprintln(w, "Nobody is banned.")
		default:
			fmt.Fprintln(w, "ADDRESS\tREFUSED\tUNTIL\tA RETRY\tBY\tREASON")
		}
		for _, b := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", b.Address, b.refuses(), end(b.Until, "lifted"), b.retry(), cmp.Or(b.By, b.Limit), b.Reason)
		}
	})
}

type banShowCmd struct {
	Address string `arg:"" help:"Address, or a range as listed."`
	server
}

func (c *banShowCmd) Run(g *globals) error {
	type explained struct {
		ban
		Findings []finding
	}
	raw, b, err := fetch[explained](c.server, g, "GET", "/bans/"+c.Address, nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintf(w, "address\t%s\nrefused\t%s\nreason\t%s\n", b.Address, b.refuses(), b.Reason)
		fmt.Fprintf(w, "since\t%s\nuntil\t%s\na retry\t%s\n", b.Since.UTC().Format(time.RFC3339), end(b.Until, "it is lifted"), b.retry())
		if b.By != "" {
			fmt.Fprintf(w, "by\t%s\n", b.By)
		} else {
			fmt.Fprintf(w, "by\tthe limit %s\n", b.Limit)
		}
		if len(b.Findings) == 0 {
			fmt.Fprintln(w, "\nNothing is known about its cause.")
		}
		for _, f := range b.Findings {
			fmt.Fprintf(w, "\n%s: %s\n", f.Kind, f.Summary)
			for _, line := range f.Evidence {
				fmt.Fprintf(w, "  %s\n", line)
			}
			fmt.Fprintf(w, "  To do: %s\n", f.Fix)
		}
		fmt.Fprintf(w, "\nTo let it in again: muster admin ban lift %s --reason \"…\"\n", b.Address)
	})
}

type banLiftCmd struct {
	Address string `arg:"" help:"Address or range, as listed."`
	Reason  string `help:"Why; for the audit." required:""`
	server
}

func (c *banLiftCmd) Run(g *globals) error {
	type lifted struct {
		ban
		StillBannedBy string `json:"still_banned_by"`
	}
	raw, b, err := fetch[lifted](c.server, g, "DELETE", "/bans/"+c.Address+"?reason="+url.QueryEscape(c.Reason), nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		switch {
		case b.StillBannedBy != "":
			fmt.Fprintf(w, "Ban of %s lifted. It stays banned with %s: lift that one too.\n", b.Address, b.StillBannedBy)
		case strings.Contains(b.Address, "/"):
			fmt.Fprintf(w, "Ban of %s lifted. Its addresses may log in again; their counts begin anew.\n", b.Address)
		default:
			fmt.Fprintf(w, "Ban of %s lifted. The address may log in again; its counts begin anew.\n", b.Address)
		}
		if b.Limit != "" {
			fmt.Fprintln(w, "Unless its cause is mended it will be banned again: muster admin finding list --address "+b.Address)
		}
	})
}

type banAddCmd struct {
	Address string `arg:"" help:"Address or range; a v6 address stands for its /64."`
	Reason  string `help:"Why; the banned one gets to read it." required:""`
	For     string `help:"For how long (1h, 7d); until it is lifted when left out." placeholder:"DURATION"`
	Scope   string `help:"What is refused: all, or login, which leaves the tokens in use working." enum:"all,login" default:"all"`
	Extend  bool   `help:"Each retry starts the ban again."`
	server
}

func (c *banAddCmd) Run(g *globals) error {
	ttl, err := seconds(c.For)
	if err != nil {
		return fmt.Errorf("--for: %w", err)
	}
	raw, b, err := fetch[ban](c.server, g, "POST", "/bans", map[string]any{
		"address": c.Address, "reason": c.Reason, "scope": c.Scope, "ttl_seconds": ttl, "extend_on_retry": c.Extend,
	})
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintf(w, "%s is banned from %s, until %s.\n", b.Address, map[bool]string{true: "logging in", false: "everything"}[b.Scope == "login"], end(b.Until, "it is lifted"))
	})
}

type findingListCmd struct {
	Kind    string `help:"Only of this kind: shared-credentials, restart-loop, status-probe, shared-address, untrusted-proxy."`
	Address string `help:"Only about this address or range."`
	Machine string `help:"Only about this machine, by id or name."`
	server
}

func (c *findingListCmd) Run(g *globals) error {
	q := url.Values{"kind": {c.Kind}, "address": {c.Address}, "machine": {c.Machine}}
	_, found, err := fetch[struct{ Findings json.RawMessage }](c.server, g, "GET", "/findings?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	var list []finding
	if err := json.Unmarshal(found.Findings, &list); err != nil {
		return fmt.Errorf("the server's answer could not be read: %w", err)
	}
	return c.show(found.Findings, func(w io.Writer) {
		switch {
		case len(list) == 0 && c.Kind+c.Address+c.Machine != "":
			fmt.Fprintln(w, "Nothing found that matches.")
		case len(list) == 0:
			fmt.Fprintln(w, "Nothing found: no engine stands out.")
		default:
			fmt.Fprintln(w, "SEVERITY\tKIND\tABOUT\tLAST\tWHAT\tTO DO")
		}
		for _, f := range list {
			about := strings.TrimSpace(f.Machine + " " + f.Address)
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", f.Severity, f.Kind, about, ago(&f.Last), f.Summary, f.Fix)
		}
	})
}

type auditListCmd struct {
	Action  string `help:"Only these: what the action begins with, as ban or limit.set."`
	Subject string `help:"Only about this: an address, a limit's name, as listed."`
	Limit   int    `help:"At most so many, up to 1000." default:"100"`
	Before  string `help:"Only older ones than this entry, by id."`
	server
}

func (c *auditListCmd) Run(g *globals) error {
	type page struct {
		Entries []struct {
			By, Action, Subject, Reason string
			At                          time.Time
		}
		Next string
	}
	q := url.Values{"action": {c.Action}, "subject": {c.Subject}, "before": {c.Before}, "limit": {strconv.Itoa(c.Limit)}}
	raw, p, err := fetch[page](c.server, g, "GET", "/audit?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		switch {
		case len(p.Entries) == 0 && c.Action+c.Subject+c.Before != "":
			fmt.Fprintln(w, "No change matches.")
		case len(p.Entries) == 0:
			fmt.Fprintln(w, "Nobody has changed anything yet.")
		default:
			fmt.Fprintln(w, "WHEN\tBY\tACTION\tSUBJECT\tREASON")
		}
		for _, e := range p.Entries {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.At.UTC().Format(time.RFC3339), e.By, e.Action, e.Subject, e.Reason)
		}
		if p.Next != "" {
			fmt.Fprintf(w, "\nOlder ones: muster admin audit list --before %s\n", p.Next)
		}
	})
}
