package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// orderCmd issues orders to machines over PAPI.
type orderCmd struct {
	Add                  orderAddCmd     `cmd:"" help:"Ban (or captcha) an address on a machine."`
	Delete               orderDeleteCmd  `cmd:"" help:"Delete decisions on a machine, by their uuid."`
	Pull                 orderPullCmd    `cmd:"" help:"Make a machine pull its blocklist now."`
	Reauth               orderReauthCmd  `cmd:"" help:"Make a machine log in again."`
	UnsubscribeBlocklist orderUnblockCmd `cmd:"" help:"Make a machine drop a blocklist."`
	UnsubscribeAllowlist orderUnallowCmd `cmd:"" help:"Make a machine drop an allowlist."`
	List                 orderListCmd    `cmd:"" help:"List a machine's orders that have not expired."`
}

// orderTarget names the machine that an order goes to.
type orderTarget struct {
	Machine string `help:"Machine, by id or name." required:"" short:"m"`
	server
}

func (o orderTarget) issue(g *globals, in map[string]any) error {
	type order struct {
		ID   string
		Data struct {
			Decisions []struct{ UUID string }
		}
	}
	// Orders that delete carry decisions as plain uuids; only those that add are
	// of interest here.
	c, err := o.client(g)
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := c.call("POST", "/machines/"+escape(o.Machine)+"/orders", in, &raw); err != nil {
		return err
	}
	return o.show(raw, func(w io.Writer) {
		var v order
		_ = json.Unmarshal(raw, &v) // a field of another kind stays empty
		fmt.Fprintf(w, "Order %s issued.\n", v.ID)
		for _, d := range v.Data.Decisions {
			if d.UUID != "" {
				fmt.Fprintf(w, "It adds decision %s (muster order delete takes this uuid).\n", d.UUID)
			}
		}
	})
}

type orderAddCmd struct {
	orderTarget
	IP       string `name:"ip" help:"Address or range." required:""`
	Duration string `help:"For how long: 4h, 7d." default:"4h"`
	Type     string `help:"Remediation: ban, captcha, or one of your bouncers' own." default:"ban"`
	Reason   string `help:"Shown as the decision's scenario on the engine."`
}

func (c *orderAddCmd) Run(g *globals) error {
	return c.issue(g, map[string]any{"kind": "alert/add", "source": c.IP, "duration": c.Duration, "type": c.Type, "message": c.Reason})
}

type orderDeleteCmd struct {
	orderTarget
	Decision []string `help:"Decision uuid, from muster order add or from an alert's detail; may be repeated." required:""`
}

func (c *orderDeleteCmd) Run(g *globals) error {
	return c.issue(g, map[string]any{"kind": "decision/delete", "decisions": c.Decision})
}

type orderPullCmd struct{ orderTarget }

func (c *orderPullCmd) Run(g *globals) error {
	return c.issue(g, map[string]any{"kind": "management/force_pull"})
}

type orderReauthCmd struct{ orderTarget }

func (c *orderReauthCmd) Run(g *globals) error {
	return c.issue(g, map[string]any{"kind": "management/reauth"})
}

type orderUnblockCmd struct {
	orderTarget
	Name string `help:"The blocklist's name on the engine." required:""`
}

func (c *orderUnblockCmd) Run(g *globals) error {
	return c.issue(g, map[string]any{"kind": "management/blocklist_unsubscribe", "name": c.Name})
}

type orderUnallowCmd struct {
	orderTarget
	ID   string `help:"The allowlist's id on the engine." required:""`
	Name string `help:"The allowlist's name on the engine." required:""`
}

func (c *orderUnallowCmd) Run(g *globals) error {
	return c.issue(g, map[string]any{"kind": "management/allowlist_unsubscribe", "id": c.ID, "name": c.Name})
}

type orderListCmd struct{ orderTarget }

func (c *orderListCmd) Run(g *globals) error {
	type order struct {
		ID, Kind, Message string
		IssuedAt          time.Time  `json:"issued_at"`
		ExpiresAt         *time.Time `json:"expires_at"`
	}
	raw, list, err := fetch[[]order](c.server, g, "GET", "/machines/"+escape(c.Machine)+"/orders", nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintln(w, "ID\tKIND\tISSUED\tEXPIRES\tMESSAGE")
		for _, o := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", o.ID, o.Kind, o.IssuedAt.UTC().Format(time.RFC3339), until(o.ExpiresAt), o.Message)
		}
	})
}
