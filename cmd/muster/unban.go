package main

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"
)

// unbanRequest is the API's, as far as the command line looks into it.
type unbanRequest struct {
	ID, Source, Address, Requester, Contact, Text, Proof, State, By, Reason string
	Requested                                                               time.Time
	Decided                                                                 *time.Time
	GraceUntil                                                              *time.Time `json:"grace_until"`
	Round                                                                   int
	Delivered                                                               bool
}

// wants says what is asked for: the address, and the range when that is what is
// listed.
func (r unbanRequest) wants() string {
	if r.Source == r.Address {
		return r.Source
	}
	return r.Source + " (for " + r.Address + ")"
}

func (r unbanRequest) proof() string { return cmp.Or(r.Proof, "none") }

// decision says how a request stands, who decided it and when.
func (r unbanRequest) decision() string {
	if r.Decided == nil {
		return r.State
	}
	return fmt.Sprintf("%s %s by %s", r.State, r.Decided.UTC().Format(time.RFC3339), cmp.Or(r.By, "the rules"))
}

type unbanListCmd struct {
	State  string `help:"Only those: waiting, granted, refused, withdrawn, or all." enum:"waiting,granted,refused,withdrawn,all" default:"waiting"`
	Source string `help:"Only for this address or range, as listed."`
	server
}

func (c *unbanListCmd) Run(g *globals) error {
	state := strings.TrimSuffix(c.State, "all")
	all, list, err := pages[unbanRequest](c.server, g, "/unbans", "requests", "after", url.Values{"state": {state}, "source": {c.Source}})
	if err != nil {
		return err
	}
	return c.show(all, func(w io.Writer) {
		switch {
		case len(list) > 0:
			fmt.Fprintln(w, "ID\tASKED\tFOR\tFROM\tPROOF\tSTATE\tREASON")
		case c.Source != "":
			fmt.Fprintf(w, "No request for %s.\n", c.Source)
		case state == "waiting":
			fmt.Fprintln(w, "No request waits. Those that need nobody are decided by rules: muster admin unban list --state all")
		case state == "":
			fmt.Fprintln(w, "Nobody has asked to be taken off the list yet.")
		default:
			fmt.Fprintf(w, "No request is %s.\n", state)
		}
		for _, r := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, ago(&r.Requested), r.wants(), r.Requester, r.proof(), r.State, r.Reason)
		}
	})
}

// unbanRef names a request.
type unbanRef struct {
	Request string `arg:"" help:"Request, by its id, or by its address or range: the one that waits, else the last."`
}

func (r unbanRef) path(action string) string { return "/unbans/" + escape(r.Request) + action }

type unbanShowCmd struct {
	unbanRef
	server
}

func (c *unbanShowCmd) Run(g *globals) error {
	type explained struct {
		unbanRequest
		Listing *struct {
			Source       string
			Since, Until time.Time
			Behaviours   []string
		}
		Others []unbanRequest
	}
	raw, r, err := fetch[explained](c.server, g, "GET", c.path(""), nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintf(w, "id\t%s\nfor\t%s\nasked\t%s from %s\nproof\t%s\n", r.ID, r.wants(), r.Requested.UTC().Format(time.RFC3339), r.Requester, r.proof())
		fmt.Fprintf(w, "state\t%s\nreason\t%s\n", r.decision(), r.Reason)
		if r.GraceUntil != nil {
			fmt.Fprintf(w, "round\t%d, twice as much to list it again until %s\n", r.Round, r.GraceUntil.UTC().Format(time.RFC3339))
		}
		fmt.Fprintf(w, "contact\t%s\n", cmp.Or(r.Contact, "not said"))
		if l := r.Listing; l != nil {
			fmt.Fprintf(w, "listed\t%s since %s, for %s\n", l.Source, l.Since.UTC().Format(time.RFC3339), strings.Join(l.Behaviours, ", "))
			fmt.Fprintf(w, "\t%s by itself\n", "ends "+end(&l.Until, ""))
		} else {
			fmt.Fprintln(w, "listed\tno longer")
		}
		if r.Text != "" {
			fmt.Fprintf(w, "\n  %s\n", strings.ReplaceAll(r.Text, "\n", "\n  "))
		}
		if len(r.Others) > 0 {
			fmt.Fprintln(w, "\nOther requests for it:\nASKED\tFROM\tPROOF\tSTATE\tREASON")
		}
		for _, o := range r.Others {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", o.Requested.UTC().Format(time.RFC3339), o.Requester, o.proof(), o.decision(), o.Reason)
		}
		if r.State == "waiting" {
			fmt.Fprintf(w, "\nTo decide: muster admin unban grant %s --reason \"…\" (or refuse); who asked gets to read why.\n", r.ID)
		}
	})
}

type unbanGrantCmd struct {
	unbanRef
	Reason string `help:"Why; who asked gets to read it, and the audit keeps it." required:""`
	server
}

func (c *unbanGrantCmd) Run(g *globals) error {
	raw, r, err := fetch[unbanRequest](c.server, g, "POST", c.path("/grant"), map[string]string{"reason": c.Reason})
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintf(w, "%s is taken off the list. Engines let it in again with their next pull.\n", r.Source)
		if r.GraceUntil != nil {
			fmt.Fprintf(w, "Until %s it takes twice as much to list it again.\n", r.GraceUntil.UTC().Format(time.RFC3339))
		}
	})
}

type unbanRefuseCmd struct {
	unbanRef
	Reason string `help:"Why; who asked gets to read it, and the audit keeps it." required:""`
	server
}

func (c *unbanRefuseCmd) Run(g *globals) error {
	return c.run(g, "POST", c.path("/refuse"), map[string]string{"reason": c.Reason}, "Refused. The source stays on the list as long as it is reported.")
}
