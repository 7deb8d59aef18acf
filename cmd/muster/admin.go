package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"muster/internal/wire"
)

// adminCmd groups what an operator does to a running server.
type adminCmd struct {
	Org struct {
		Create orgCreateCmd `cmd:"" help:"Make an organisation; its id is on the last line."`
		List   orgListCmd   `cmd:"" help:"List organisations."`
		Set    orgSetCmd    `cmd:"" help:"Change an organisation's name, plan or fleet policy."`
	} `cmd:"" help:"Organisations, which own machines."`
	Key struct {
		Create keyCreateCmd `cmd:"" help:"Make an enrolment key; it is on the last line and shown only now."`
		List   keyListCmd   `cmd:"" help:"List enrolment keys."`
		Revoke keyRevokeCmd `cmd:"" help:"Revoke an enrolment key; machines that used it stay."`
	} `cmd:"" help:"Enrolment keys, with which engines join."`
	Machine struct {
		List    machineListCmd    `cmd:"" help:"List machines."`
		Show    machineShowCmd    `cmd:"" help:"Show one machine, what its word is worth and what moved that; with --json also its last metrics."`
		Accept  machineAcceptCmd  `cmd:"" help:"Accept a machine that waits; from then on it counts."`
		Claim   machineClaimCmd   `cmd:"" help:"Accept the machine behind a code from cscli console enroll --quick."`
		Block   machineBlockCmd   `cmd:"" help:"Refuse a machine; what it reported no longer counts."`
		Unblock machineUnblockCmd `cmd:"" help:"Let a blocked machine in again; it waits for acceptance."`
		Release machineReleaseCmd `cmd:"" help:"Take a machine out of its organisation."`
		Set     machineSetCmd     `cmd:"" help:"Change a machine's name or tags, or mark it as a honeypot."`
		Remove  machineRemoveCmd  `cmd:"" help:"Forget a machine; it may register anew."`
	} `cmd:"" help:"Machines: engines and SDK clients."`
	Alert struct {
		List alertListCmd `cmd:"" help:"List stored signals, newest first."`
	} `cmd:"" help:"Alerts: the signals that machines sent."`
	Allow struct {
		Add    allowAddCmd    `cmd:"" help:"Never publish these addresses or ranges."`
		List   allowListCmd   `cmd:"" help:"List the allowlist."`
		Remove allowRemoveCmd `cmd:"" help:"Take an entry off the allowlist."`
	} `cmd:"" help:"The installation's allowlist central: sources that are never published to anybody."`
	Allowlist allowlistCmds `cmd:"" help:"Allowlists of the installation and of organisations: who is let through, on which machines."`
	Canary    struct {
		List   canaryListCmd   `cmd:"" help:"List what is known to be good."`
		Add    canaryAddCmd    `cmd:"" help:"Never publish these, and judge who reports them."`
		Remove canaryRemoveCmd `cmd:"" help:"Take a canary back."`
		Import canaryImportCmd `cmd:"" help:"Take canaries from a MISP warning list or another file."`
		Drop   canaryDropCmd   `cmd:"" help:"Take back all canaries of an origin."`
	} `cmd:"" help:"Canaries: what is known to be good; whoever reports it loses trust."`
	Blocklist    blocklistCmds    `cmd:"" help:"Blocklists: of your own, chosen by rules, fetched from others."`
	Subscription subscriptionCmds `cmd:"" help:"Subscriptions: who reads which blocklist."`
	Ban          struct {
		List banListCmd `cmd:"" help:"List the bans in force."`
		Show banShowCmd `cmd:"" help:"Say why an address is banned, and for how long."`
		Lift banLiftCmd `cmd:"" help:"End a ban."`
		Add  banAddCmd  `cmd:"" help:"Refuse to serve an address or a range."`
	} `cmd:"" help:"Bans: addresses that this server refuses to serve."`
	Limit struct {
		List  limitListCmd  `cmd:"" help:"List the rate limits."`
		Set   limitSetCmd   `cmd:"" help:"Make a limit, or change one; it holds at once."`
		Off   limitOffCmd   `cmd:"" help:"Turn a limit off."`
		On    limitOnCmd    `cmd:"" help:"Turn a limit on again."`
		Reset limitResetCmd `cmd:"" help:"Take changes to a limit back: as the configuration has it."`
	} `cmd:"" help:"Rate limits, which ban who asks too often."`
	Override struct {
		List   overrideListCmd   `cmd:"" help:"List the overrides in force."`
		Add    overrideAddCmd    `cmd:"" help:"Except an address, an organisation or a machine from limits."`
		Remove overrideRemoveCmd `cmd:"" help:"Take an override back."`
	} `cmd:"" help:"Overrides: who may ask more often than the limits allow."`
	Finding struct {
		List findingListCmd `cmd:"" help:"List what goes wrong: restart loops, shared credentials, health checks."`
	} `cmd:"" help:"Findings: misuse that the server sees, and how to mend it."`
	Unban struct {
		List   unbanListCmd   `cmd:"" help:"List requests, oldest first: those that wait for you."`
		Show   unbanShowCmd   `cmd:"" help:"Show a request, with the listing that it is about."`
		Grant  unbanGrantCmd  `cmd:"" help:"Take the source off the list: what was reported before no longer counts."`
		Refuse unbanRefuseCmd `cmd:"" help:"Leave the source on the list."`
	} `cmd:"" help:"Unban requests: who wants to be off the community list."`
	Verdict struct {
		Set    verdictSetCmd    `cmd:"" help:"Decide that an address or range is never listed."`
		List   verdictListCmd   `cmd:"" help:"List what operators decided."`
		Remove verdictRemoveCmd `cmd:"" help:"Leave the decision to the crowd again."`
	} `cmd:"" help:"Operators' verdicts, which stand against whatever the crowd says."`
	Behaviour struct {
		List behaviourListCmd `cmd:"" help:"List scenarios with what their reports are worth."`
	} `cmd:"" help:"Behaviours: how sure scenarios are, how easily forged, how often they shoot canaries."`
	Integration struct {
		Create integrationCreateCmd `cmd:"" help:"Make an integration; its credentials are shown only now, with what to paste into the product."`
		List   integrationListCmd   `cmd:"" help:"List integrations, and when they were read last."`
		Show   integrationShowCmd   `cmd:"" help:"Show one integration, and how it is set up."`
		Set    integrationSetCmd    `cmd:"" help:"Change what an integration is given."`
		Rotate integrationRotateCmd `cmd:"" help:"Replace an integration's credentials; the old ones are refused at once."`
		Delete integrationDeleteCmd `cmd:"" help:"Delete an integration."`
	} `cmd:"" help:"Integrations: firewalls that fetch lists, and bouncers without an engine."`
	Lookup    lookupCmd `cmd:"" help:"Say what is known about an address, as programs are told."`
	LookupKey struct {
		Create lookupKeyCreateCmd `cmd:"" help:"Make a lookup key; it is on the last line and shown only now."`
		List   lookupKeyListCmd   `cmd:"" help:"List lookup keys, and how often they were used."`
		Revoke lookupKeyRevokeCmd `cmd:"" help:"Revoke a lookup key."`
	} `cmd:"" help:"Lookup keys: for programs that ask about addresses, and read feeds."`
	Dump dumpCmd `cmd:"" help:"Write the community list to a file, for use without this server."`
	Hub  struct {
		Status hubStatusCmd `cmd:"" help:"Show what the hub's mirror serves, and what is left out."`
		List   hubListCmd   `cmd:"" help:"List the items."`
		Verify hubVerifyCmd `cmd:"" help:"Read the folders now, and check every item against its digest."`
	} `cmd:"" help:"The hub's mirror, from which engines fetch parsers and scenarios."`
	Audit struct {
		List auditListCmd `cmd:"" help:"List what people changed, newest first."`
	} `cmd:"" help:"The audit: who changed what, and why."`
	User struct {
		Create   userCreateCmd   `cmd:"" help:"Make an administrator."`
		List     userListCmd     `cmd:"" help:"List users."`
		Password userPasswordCmd `cmd:"" help:"Set a user's password, read from standard input."`
	} `cmd:"" help:"People who steer this server."`
	Token struct {
		Create tokenCreateCmd `cmd:"" help:"Make an API token; it is on the last line and shown only now."`
		List   tokenListCmd   `cmd:"" help:"List API tokens."`
		Revoke tokenRevokeCmd `cmd:"" help:"Revoke an API token."`
	} `cmd:"" help:"API tokens, for admin commands from elsewhere."`
	TokenKey struct {
		Rotate rotateCmd `cmd:"" help:"Sign machines' tokens with a new key; the old one still verifies until the next rotation."`
	} `cmd:"" help:"The key that machines' tokens are signed with."`
	Explain explainCmd `cmd:"" help:"Say why an address is listed, or not."`
	Status  statusCmd  `cmd:"" help:"Show what the server is doing, and how the network stands."`
}

// The API's answers, as far as the command line looks into them.
type (
	organisation struct {
		ID, Name, Plan, Fleet string
		CreatedAt             time.Time `json:"created_at"`
	}
	enrolmentKey struct {
		ID, Key, Organisation string
		Tags                  []string
		AutoAccept            bool `json:"auto_accept"`
		MaxUses               int  `json:"max_uses"`
		Uses                  int
		Usable                bool
		ExpiresAt             *time.Time `json:"expires_at"`
	}
	machine struct {
		ID, State, Organisation, Name, Version string
		Tags                                   []string
		Rank                                   *uint8
		LastSeen                               *time.Time `json:"last_seen"`
	}
)

// show prints v as JSON with --json, else as text makes it.
func (s server) show(v any, text func(w io.Writer)) error {
	if s.JSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	text(w)
	return w.Flush()
}

// fetch reads path twice over: once as it is, for --json, and as T, for text.
func fetch[T any](s server, g *globals, method, path string, in any) (raw any, v T, err error) {
	c, err := s.client(g)
	if err != nil {
		return nil, v, err
	}
	var body json.RawMessage
	if err := c.call(method, path, in, &body); err != nil {
		return nil, v, err
	}
	if len(body) == 0 {
		return nil, v, nil
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, v, fmt.Errorf("the server's answer could not be read: %w", err)
	}
	return body, v, nil
}

// run calls path for its effect and prints done.
func (s server) run(g *globals, method, path string, in any, done string) error {
	raw, _, err := fetch[json.RawMessage](s, g, method, path, in)
	if err != nil {
		return err
	}
	if s.JSON {
		return s.show(raw, nil)
	}
	_, err = fmt.Println(done)
	return err
}

func ago(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return time.Since(*t).Truncate(time.Second).String() + " ago"
}

func until(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

func seconds(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	d, err := wire.ParseDuration(text)
	if err != nil {
		return 0, err
	}
	return int64(d / time.Second), nil
}

type orgCreateCmd struct {
	Name  string `arg:"" help:"Name."`
	Plan  string `help:"Plan told to engines; orders need SECOPS or ENTERPRISE." enum:"COMMUNITY,SECOPS,ENTERPRISE" default:"ENTERPRISE"`
	Fleet string `help:"What one machine's report does to the others: off, hub scenarios, all." enum:"off,hub,all" default:"hub"`
	server
}

func (c *orgCreateCmd) Run(g *globals) error {
	raw, o, err := fetch[organisation](c.server, g, "POST", "/organisations", map[string]any{"name": c.Name, "plan": c.Plan, "fleet": c.Fleet})
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) { fmt.Fprintf(w, "Organisation %s made. Its id:\n%s\n", o.Name, o.ID) })
}

type orgListCmd struct{ server }

func (c *orgListCmd) Run(g *globals) error {
	raw, list, err := fetch[[]organisation](c.server, g, "GET", "/organisations", nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintln(w, "ID\tNAME\tPLAN\tFLEET")
		for _, o := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", o.ID, o.Name, o.Plan, o.Fleet)
		}
	})
}

type orgSetCmd struct {
	ID    string  `arg:"" help:"Id."`
	Name  *string `help:"New name."`
	Plan  *string `help:"COMMUNITY, SECOPS or ENTERPRISE. Engines learn of it within seconds: their tokens end."`
	Fleet *string `help:"off, hub or all."`
	server
}

func (c *orgSetCmd) Run(g *globals) error {
	in := map[string]any{}
	for name, v := range map[string]*string{"name": c.Name, "plan": c.Plan, "fleet": c.Fleet} {
		if v != nil {
			in[name] = *v
		}
	}
	return c.run(g, "PATCH", "/organisations/"+escape(c.ID), in, "Organisation changed.")
}

type keyCreateCmd struct {
	Org    string   `help:"Organisation, by id or name; the first one when there is only one." placeholder:"ORG"`
	Accept bool     `help:"Machines that enrol with it are active at once; without it a person accepts each."`
	Uses   int      `help:"How many machines may use it; 0 = any number." default:"0"`
	TTL    string   `name:"ttl" help:"How long it may be used (24h, 30d); never expires when left out." placeholder:"DURATION"`
	Tag    []string `help:"Tag given to machines that enrol with it; may be repeated."`
	server
}

func (c *keyCreateCmd) Run(g *globals) error {
	ttl, err := seconds(c.TTL)
	if err != nil {
		return fmt.Errorf("--ttl: %w", err)
	}
	raw, k, err := fetch[enrolmentKey](c.server, g, "POST", "/keys", map[string]any{
		"organisation": c.Org, "auto_accept": c.Accept, "max_uses": c.Uses, "ttl_seconds": ttl, "tags": c.Tag,
	})
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintln(w, "On the engine's machine: muster join URL --key KEY   (or: cscli console enroll KEY)")
		fmt.Fprintln(w, "The key is shown only now:")
		fmt.Fprintln(w, k.Key)
	})
}

type keyListCmd struct {
	Org string `help:"Only this organisation's, by id."`
	server
}

func (c *keyListCmd) Run(g *globals) error {
	raw, list, err := fetch[[]enrolmentKey](c.server, g, "GET", "/keys?organisation="+url.QueryEscape(c.Org), nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintln(w, "ID\tORGANISATION\tUSABLE\tACCEPTS\tUSES\tEXPIRES\tTAGS")
		for _, k := range list {
			uses := strconv.Itoa(k.Uses)
			if k.MaxUses > 0 {
				uses += " of " + strconv.Itoa(k.MaxUses)
			}
			fmt.Fprintf(w, "%s\t%s\t%t\t%t\t%s\t%s\t%s\n", k.ID, k.Organisation, k.Usable, k.AutoAccept, uses, until(k.ExpiresAt), strings.Join(k.Tags, ","))
		}
	})
}

type keyRevokeCmd struct {
	ID string `arg:"" help:"Id, from muster admin key list."`
	server
}

func (c *keyRevokeCmd) Run(g *globals) error {
	return c.run(g, "DELETE", "/keys/"+escape(c.ID), nil, "Key revoked.")
}

type machineListCmd struct {
	Org    string `help:"Only this organisation's, by id."`
	State  string `help:"Only these: pending, active or blocked." enum:",pending,active,blocked" default:""`
	Search string `help:"Part of id or name."`
	server
}

func (c *machineListCmd) Run(g *globals) error {
	type page struct {
		Machines []json.RawMessage
		Next     string
	}
	all, list := []json.RawMessage{}, []machine{}
	for after := ""; ; {
		q := url.Values{"organisation": {c.Org}, "state": {c.State}, "search": {c.Search}, "after": {after}, "limit": {"1000"}}
		_, p, err := fetch[page](c.server, g, "GET", "/machines?"+q.Encode(), nil)
		if err != nil {
			return err
		}
		for _, raw := range p.Machines {
			var m machine
			if err := json.Unmarshal(raw, &m); err != nil {
				return err
			}
			all, list = append(all, raw), append(list, m)
		}
		if after = p.Next; after == "" {
			break
		}
	}
	return c.show(all, func(w io.Writer) {
		fmt.Fprintln(w, "ID\tNAME\tSTATE\tRANK\tORGANISATION\tVERSION\tLAST SEEN\tTAGS")
		for _, m := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.ID, m.Name, m.State, m.rank(), m.Organisation, m.Version, ago(m.LastSeen), strings.Join(m.Tags, ","))
		}
	})
}

// rank returns what the machine's word is worth, "-" when it has never reported.
func (m machine) rank() string {
	if m.Rank == nil {
		return "-"
	}
	return strconv.Itoa(int(*m.Rank))
}

// machineRef names a machine in the commands below.
type machineRef struct {
	Machine string `arg:"" help:"Machine, by id or name."`
}

func (m machineRef) path(rest string) string { return "/machines/" + escape(m.Machine) + rest }

type machineAcceptCmd struct {
	machineRef
	Org string `help:"Organisation, by id or name; the one that it asked for when left out."`
	server
}

func (c *machineAcceptCmd) Run(g *globals) error {
	return c.run(g, "POST", c.path("/accept"), map[string]string{"organisation": c.Org}, "Machine accepted. It learns of it with its next request.")
}

type machineClaimCmd struct {
	Code string `arg:"" help:"Code: the end of the link that cscli printed."`
	Org  string `help:"Organisation, by id or name; the first one when left out."`
	server
}

func (c *machineClaimCmd) Run(g *globals) error {
	code := c.Code[strings.LastIndexByte(c.Code, '/')+1:]
	return c.run(g, "POST", "/claims/"+escape(code), map[string]string{"organisation": c.Org}, "Machine accepted. It learns of it with its next request.")
}

type machineBlockCmd struct {
	machineRef
	server
}

func (c *machineBlockCmd) Run(g *globals) error {
	return c.run(g, "POST", c.path("/block"), nil, "Machine blocked. What it reported no longer counts.")
}

type machineUnblockCmd struct {
	machineRef
	server
}

func (c *machineUnblockCmd) Run(g *globals) error {
	return c.run(g, "POST", c.path("/unblock"), nil, "Machine unblocked. It counts again after muster admin machine accept.")
}

type machineReleaseCmd struct {
	machineRef
	server
}

func (c *machineReleaseCmd) Run(g *globals) error {
	return c.run(g, "POST", c.path("/release"), nil, "Machine released from its organisation.")
}

type machineSetCmd struct {
	machineRef
	Name *string  `help:"New name."`
	Tag  []string `help:"Tags in place of the old ones; may be repeated."`

	Honeypot *bool  `help:"Whether nobody has business with it, so that what it sees counts at once. Only for machines that you run yourself." negatable:""`
	Reason   string `help:"Why it is a honeypot, or none; for the audit."`
	server
}

func (c *machineSetCmd) Run(g *globals) error {
	in := map[string]any{}
	if c.Name != nil {
		in["name"] = *c.Name
	}
	if c.Tag != nil {
		in["tags"] = c.Tag
	}
	if c.Honeypot != nil {
		in["honeypot"], in["reason"] = *c.Honeypot, c.Reason
	}
	return c.run(g, "PATCH", c.path(""), in, "Machine changed.")
}

type machineRemoveCmd struct {
	machineRef
	server
}

func (c *machineRemoveCmd) Run(g *globals) error {
	return c.run(g, "DELETE", c.path(""), nil, "Machine removed.")
}

type rotateCmd struct{ server }

func (c *rotateCmd) Run(g *globals) error {
	return c.run(g, "POST", "/token-key/rotate", nil, "New token key in use. Rotating again ends all tokens signed with the one before.")
}
