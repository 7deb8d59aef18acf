package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"
)

// subscriptionCmds are muster admin subscription.
type subscriptionCmds struct {
	List   subscriptionListCmd   `cmd:"" help:"List who reads which blocklist."`
	Add    subscriptionAddCmd    `cmd:"" help:"Have a machine, a tag, an organisation or an integration read a blocklist."`
	Remove subscriptionRemoveCmd `cmd:"" help:"End a subscription; engines that take orders drop the list."`
}

// subscriberFlags say who reads a list.
type subscriberFlags struct {
	Machine     string `help:"A machine, by id or name." xor:"who"`
	Tag         string `help:"All machines of --org with this tag." xor:"who"`
	Integration string `help:"An integration of --org, by id." xor:"who"`
	Org         string `help:"Alone: all machines of this organisation, by id or name. Else whose tag or integration it is; the first organisation without." placeholder:"ORG"`
}

// who returns kind and id of the subscriber.
func (f *subscriberFlags) who() (kind, id string, err error) {
	switch {
	case f.Machine != "":
		return "machine", f.Machine, nil
	case f.Tag != "":
		return "tag", f.Tag, nil
	case f.Integration != "":
		return "integration", f.Integration, nil
	case f.Org != "":
		return "organisation", f.Org, nil
	}
	return "", "", errors.New("expected who reads the list: --machine, --tag, --integration or --org")
}

// of returns the organisation that the subscriber is of, as the API takes it.
func (f *subscriberFlags) of(kind string) string {
	if kind == "organisation" {
		return ""
	}
	return f.Org
}

type subscriptionListCmd struct {
	Blocklist string `help:"Only those of this list, by name or id." placeholder:"NAME"`
	Org       string `help:"Only those of this organisation, by id or name." placeholder:"ORG"`
	server
}

// Help is shown by --help.
func (subscriptionListCmd) Help() string {
	return example(`muster admin subscription list --org "Customer A"`)
}

func (c *subscriptionListCmd) Run(g *globals) error {
	q := url.Values{"blocklist": {c.Blocklist}, "organisation": {c.Org}}
	raw, list, err := fetch[[]struct {
		Name, Kind, Subscriber, Organisation, Remedy string
		CreatedAt                                    time.Time `json:"created_at"`
		CreatedBy                                    string    `json:"created_by"`
	}](c.server, g, "GET", "/subscriptions?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "Nobody subscribes. Engines get the community list all the same; muster admin subscription add has them read others.")
			return
		}
		fmt.Fprintln(w, "BLOCKLIST\tKIND\tSUBSCRIBER\tORGANISATION\tREMEDY\tSINCE\tBY")
		for _, s := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Name, s.Kind, s.Subscriber, s.Organisation, s.Remedy, s.CreatedAt.UTC().Format(time.RFC3339), s.CreatedBy)
		}
	})
}

type subscriptionAddCmd struct {
	Blocklist string `arg:"" help:"Name or id."`
	Remedy    string `help:"In place of the list's: ban or captcha." placeholder:"REMEDY"`
	Reason    string `help:"Why; for the audit."`
	subscriberFlags
	server
}

// Help is shown by --help.
func (subscriptionAddCmd) Help() string {
	return "Machines whose organisation has the plan SECOPS or ENTERPRISE read it at once, others with their next pull.\n\n" +
		example(`muster admin subscription add muster-ssh --tag bastion --org "Customer A"`) + "\n" +
		`  muster admin subscription add drop --machine web1 --remedy captcha`
}

func (c *subscriptionAddCmd) Run(g *globals) error {
	kind, id, err := c.who()
	if err != nil {
		return err
	}
	q := map[string]string{"blocklist": c.Blocklist, "kind": kind, "subscriber": id, "organisation": c.of(kind), "remedy": c.Remedy, "reason": c.Reason}
	return c.run(g, "POST", "/subscriptions", q, "Subscribed.")
}

type subscriptionRemoveCmd struct {
	Blocklist string `arg:"" help:"Name or id."`
	Reason    string `help:"Why; for the audit."`
	subscriberFlags
	server
}

// Help is shown by --help.
func (subscriptionRemoveCmd) Help() string {
	return example(`muster admin subscription remove muster-ssh --tag bastion --org "Customer A"`)
}

func (c *subscriptionRemoveCmd) Run(g *globals) error {
	kind, id, err := c.who()
	if err != nil {
		return err
	}
	q := url.Values{"blocklist": {c.Blocklist}, "kind": {kind}, "subscriber": {id}, "organisation": {c.of(kind)}, "reason": {c.Reason}}
	return c.run(g, "DELETE", "/subscriptions?"+q.Encode(), nil, "Subscription ended. Engines that take no orders keep the list's entries for its lifetime.")
}
