package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

type alertListCmd struct {
	Org      string `help:"Only this organisation's, by id."`
	Machine  string `help:"Only from this machine, by id."`
	Scenario string `help:"Only of this scenario."`
	Source   string `help:"Only about this address or range."`
	Since    string `help:"Only since then: a time, or an age like 24h or 7d."`
	Until    string `help:"Only until then."`
	Limit    int    `help:"At most so many." default:"100"`
	All      bool   `help:"All of them; with --json one object a line."`
	server
}

func (c *alertListCmd) Run(g *globals) error {
	type alert struct {
		ID, Machine, Source, Scenario, Country, Trust string
		Counts                                        bool
		At                                            time.Time
	}
	cl, err := c.client(g)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	all := []json.RawMessage{}
	for after, left := "", c.Limit; c.All || left > 0; {
		var page struct {
			Alerts []json.RawMessage
			Next   string
		}
		limit := min(left, 1000)
		if c.All {
			limit = 1000
		}
		q := url.Values{
			"organisation": {c.Org}, "machine": {c.Machine}, "scenario": {c.Scenario}, "source": {c.Source},
			"since": {c.Since}, "until": {c.Until}, "after": {after}, "limit": {strconv.Itoa(limit)},
		}
		if err := cl.call("GET", "/alerts?"+q.Encode(), nil, &page); err != nil {
			return err
		}
		left -= len(page.Alerts)
		for _, raw := range page.Alerts {
			if c.JSON && c.All {
				if _, err := fmt.Fprintf(out, "%s\n", raw); err != nil {
					return err
				}
				continue
			}
			all = append(all, raw)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if c.JSON && c.All {
		return out.Flush()
	}
	return c.show(all, func(w io.Writer) {
		fmt.Fprintln(w, "WHEN\tSOURCE\tSCENARIO\tTRUST\tCOUNTS\tCOUNTRY\tMACHINE")
		for _, raw := range all {
			var a alert
			if json.Unmarshal(raw, &a) == nil {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", a.At.UTC().Format(time.RFC3339), a.Source, a.Scenario, a.Trust, yes(a.Counts), a.Country, a.Machine)
			}
		}
	})
}

type allowAddCmd struct {
	Values []string `arg:"" help:"Addresses or ranges."`
	Reason string   `help:"Why; shown where a verdict is explained."`
	TTL    string   `name:"ttl" help:"For how long (24h, 30d); for ever when left out." placeholder:"DURATION"`
	server
}

func (c *allowAddCmd) Run(g *globals) error {
	ttl, err := seconds(c.TTL)
	if err != nil {
		return fmt.Errorf("--ttl: %w", err)
	}
	return c.run(g, "POST", "/allowlist", map[string]any{"values": c.Values, "reason": c.Reason, "ttl_seconds": ttl},
		"On the allowlist. Engines that hold a listed one drop it with their next pull.")
}

type allowListCmd struct{ server }

func (c *allowListCmd) Run(g *globals) error {
	type entry struct {
		Value, Reason string
		ExpiresAt     *time.Time `json:"expires_at"`
	}
	raw, list, err := fetch[[]entry](c.server, g, "GET", "/allowlist", nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintln(w, "VALUE\tEXPIRES\tREASON")
		for _, e := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\n", e.Value, until(e.ExpiresAt), e.Reason)
		}
	})
}

type allowRemoveCmd struct {
	Value string `arg:"" help:"Address or range, as listed."`
	server
}

func (c *allowRemoveCmd) Run(g *globals) error {
	return c.run(g, "DELETE", "/allowlist/"+c.Value, nil, "Off the allowlist.")
}

// password reads one line from standard input, so that it stands in no process
// list and no shell history.
func password() (string, error) {
	fmt.Fprint(os.Stderr, "Password: ")
	line, err := bufio.NewReader(io.LimitReader(os.Stdin, 1024)).ReadString('\n')
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", errors.Join(errors.New("expected a password on standard input"), err)
	}
	return line, nil
}

type userCreateCmd struct {
	Name string `arg:"" help:"Login name."`
	server
}

func (c *userCreateCmd) Run(g *globals) error {
	p, err := password()
	if err != nil {
		return err
	}
	return c.run(g, "POST", "/users", map[string]string{"name": c.Name, "password": p}, "User made.")
}

type userListCmd struct{ server }

func (c *userListCmd) Run(g *globals) error {
	type user struct {
		Name, Role string
		CreatedAt  *time.Time `json:"created_at"`
	}
	raw, list, err := fetch[[]user](c.server, g, "GET", "/users", nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintln(w, "NAME\tROLE\tMADE")
		for _, u := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\n", u.Name, u.Role, until(u.CreatedAt))
		}
	})
}

type userPasswordCmd struct {
	Name string `arg:"" help:"Login name."`
	server
}

func (c *userPasswordCmd) Run(g *globals) error {
	p, err := password()
	if err != nil {
		return err
	}
	return c.run(g, "PUT", "/users/"+escape(c.Name)+"/password", map[string]string{"password": p}, "Password set.")
}

type tokenCreateCmd struct {
	Name string `arg:"" help:"What it is for."`
	User string `help:"Whom it acts for." default:"admin"`
	TTL  string `name:"ttl" help:"How long it is valid (24h, 90d); never expires when left out." placeholder:"DURATION"`
	server
}

func (c *tokenCreateCmd) Run(g *globals) error {
	ttl, err := seconds(c.TTL)
	if err != nil {
		return fmt.Errorf("--ttl: %w", err)
	}
	raw, t, err := fetch[struct{ Token string }](c.server, g, "POST", "/tokens", map[string]any{"name": c.Name, "user": c.User, "ttl_seconds": ttl})
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) { fmt.Fprintf(w, "The token is shown only now:\n%s\n", t.Token) })
}

type tokenListCmd struct{ server }

func (c *tokenListCmd) Run(g *globals) error {
	type token struct {
		ID, Name  string
		ExpiresAt *time.Time `json:"expires_at"`
	}
	raw, list, err := fetch[[]token](c.server, g, "GET", "/tokens", nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintln(w, "ID\tNAME\tEXPIRES")
		for _, t := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\n", t.ID, t.Name, until(t.ExpiresAt))
		}
	})
}

type tokenRevokeCmd struct {
	ID string `arg:"" help:"Id, from muster admin token list."`
	server
}

func (c *tokenRevokeCmd) Run(g *globals) error {
	return c.run(g, "DELETE", "/tokens/"+escape(c.ID), nil, "Token revoked.")
}
