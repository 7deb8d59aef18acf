package main

import (
	"fmt"
	"io"
	"net/url"
	"time"
)

type explainCmd struct {
	Source string `arg:"" help:"Address or range."`
	server
}

func (c *explainCmd) Run(g *globals) error {
	raw, a, err := fetch[struct{ Lines []string }](c.server, g, "GET", "/explain/"+c.Source, nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		for _, line := range a.Lines {
			fmt.Fprintln(w, line)
		}
	})
}

type verdictSetCmd struct {
	Source string `arg:"" help:"Address or range."`
	Never  bool   `help:"It is never listed, whoever reports it." xor:"verdict" required:""`
	Listed bool   `help:"It is listed for everybody, whoever reports it or not, for --ttl; unless it is allowlisted or a canary." xor:"verdict" required:""`
	Remedy string `help:"What is done about it when it is listed: ban or captcha." enum:",ban,captcha" default:""`
	Reason string `help:"Why; shown to whoever asks why it is listed or not." required:""`
	TTL    string `name:"ttl" help:"For how long (24h, 30d); what is never listed is so for good when left out." placeholder:"DURATION"`
	server
}

func (c *verdictSetCmd) Run(g *globals) error {
	ttl, err := seconds(c.TTL)
	if err != nil {
		return fmt.Errorf("--ttl: %w", err)
	}
	in := map[string]any{"source": c.Source, "listed": c.Listed, "reason": c.Reason, "ttl_seconds": ttl}
	if c.Remedy != "" {
		in["remedy"] = c.Remedy
	}
	done := "It is never listed. Engines that hold it drop it with their next pull."
	if c.Listed {
		done = "It is listed. Engines get it with their next pull."
	}
	return c.run(g, "POST", "/verdicts", in, done)
}

type verdictListCmd struct{ server }

func (c *verdictListCmd) Run(g *globals) error {
	type verdict struct {
		Source, Remedy, Reason, By string
		Listed                     bool
		Until                      *time.Time
	}
	raw, list, err := fetch[[]verdict](c.server, g, "GET", "/verdicts", nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "Nobody has decided about any source: the crowd decides.")
			return
		}
		fmt.Fprintln(w, "SOURCE\tLISTED\tENDS\tBY\tREASON")
		for _, v := range list {
			how := "never"
			if v.Listed {
				how = v.Remedy
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", v.Source, how, until(v.Until), v.By, v.Reason)
		}
	})
}

type verdictRemoveCmd struct {
	Source string `arg:"" help:"Address or range, as listed."`
	Reason string `help:"Why; for the audit."`
	server
}

func (c *verdictRemoveCmd) Run(g *globals) error {
	return c.run(g, "DELETE", "/verdicts/"+c.Source+"?reason="+url.QueryEscape(c.Reason), nil, "Verdict removed. The crowd decides again.")
}
