package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// canary is the API's, as far as the command line looks into it.
type canary struct {
	ID, Value, Origin, Reason, By string
	CreatedAt                     *time.Time `json:"created_at"`
}

type canaryListCmd struct {
	Search string `help:"Part of the value, the origin or the reason."`
	Origin string `help:"Only those of this origin: built-in, operator, hub, misp:NAME or list:NAME."`
	server
}

func (c *canaryListCmd) Run(g *globals) error {
	all, list, err := pages[canary](c.server, g, "/canaries", "canaries", "after", url.Values{"search": {c.Search}, "origin": {c.Origin}})
	if err != nil {
		return err
	}
	return c.show(all, func(w io.Writer) {
		fmt.Fprintln(w, "CANARY\tORIGIN\tSINCE\tBY\tREASON")
		for _, n := range list {
			since := ""
			if n.CreatedAt != nil {
				since = n.CreatedAt.UTC().Format(time.RFC3339)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", n.Value, n.Origin, since, n.By, n.Reason)
		}
	})
}

type canaryAddCmd struct {
	Value  []string `arg:"" help:"Addresses, ranges, AS numbers (AS64496) or patterns of reverse names (*.crawler.example.org)."`
	Reason string   `help:"Why it is known to be good; for whoever reads it later." required:""`
	server
}

func (c *canaryAddCmd) Run(g *globals) error {
	done := "Canary added. It is never published, and machines that report it lose trust."
	if len(c.Value) > 1 {
		done = fmt.Sprintf("%d canaries added. They are never published, and machines that report them lose trust.", len(c.Value))
	}
	return c.run(g, "POST", "/canaries", map[string]any{"values": c.Value, "reason": c.Reason}, done)
}

type canaryRemoveCmd struct {
	Canary string `arg:"" help:"Value of one that was added here, or origin/value."`
	Reason string `help:"Why; for the audit."`
	server
}

func (c *canaryRemoveCmd) Run(g *globals) error {
	return c.run(g, "DELETE", "/canaries/"+escape(c.Canary)+"?reason="+url.QueryEscape(c.Reason), nil, "Canary removed.")
}

type canaryImportCmd struct {
	File   string   `arg:"" help:"MISP warning list, lists by name in JSON, the hub's .index.json, or text with one entry per line; also compressed (.gz)."`
	List   []string `help:"Which list of a file that has several; may be repeated. Of a file that has one: what to call it." placeholder:"NAME"`
	DryRun bool     `help:"Only say what would be taken."`
	Reason string   `help:"Why; for the audit."`
	server
}

// Help is shown by --help.
func (canaryImportCmd) Help() string {
	return "A list takes the place of the one imported under its name before. Import what is good, not what is merely " +
		"known: in the ranges of clouds, VPNs and proxies there are attackers, and machines that report them would lose trust.\n\n" +
		example("muster admin canary import googlebot.json --list googlebot --dry-run")
}

func (c *canaryImportCmd) Run(g *globals) error {
	client, err := c.client(g)
	if err != nil {
		return err
	}
	file, err := os.Open(c.File)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	q := url.Values{"list": c.List, "file": {filepath.Base(c.File)}, "reason": {c.Reason}, "dry_run": {fmt.Sprint(c.DryRun)}}
	var raw json.RawMessage
	if err := client.send("POST", "/canaries/import?"+q.Encode(), file, &raw); err != nil {
		return err
	}
	var answer struct {
		Lists []struct {
			Origin         string
			Canaries, Idle int
			Skipped        []struct {
				Reason, Example string
				Count           int
			}
		}
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("the server's answer could not be read: %w", err)
	}
	verb := "imported"
	if c.DryRun {
		verb = "would be imported"
	}
	return c.show(raw, func(w io.Writer) {
		for _, l := range answer.Lists {
			fmt.Fprintf(w, "%s: %d canaries %s.\n", l.Origin, l.Canaries, verb)
			if l.Idle > 0 {
				fmt.Fprintf(w, "  %d match nothing on this server: AS numbers need enrich.asn, names canaries.names\n", l.Idle)
			}
			for _, s := range l.Skipped {
				fmt.Fprintf(w, "  %d left out: %s%s\n", s.Count, s.Reason, forExample(s.Example))
			}
		}
	})
}

func forExample(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

type canaryDropCmd struct {
	Origin string `help:"The origin whose canaries are to go: misp:NAME, list:NAME, hub or operator." required:""`
	Reason string `help:"Why; for the audit."`
	server
}

func (c *canaryDropCmd) Run(g *globals) error {
	if strings.TrimSpace(c.Origin) == "" {
		return errors.New("--origin: expected one that muster admin canary list shows")
	}
	q := url.Values{"origin": {c.Origin}, "reason": {c.Reason}}
	raw, answer, err := fetch[struct{ Removed int }](c.server, g, "DELETE", "/canaries?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) { fmt.Fprintf(w, "%d canaries removed.\n", answer.Removed) })
}
