package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"
)

// blocklistCmds are muster admin blocklist.
type blocklistCmds struct {
	List    blocklistListCmd   `cmd:"" help:"List blocklists; those that Muster brings along come last."`
	Show    blocklistShowCmd   `cmd:"" help:"Show one blocklist."`
	Create  blocklistCreateCmd `cmd:"" help:"Make a list that you keep (custom), or one that a rule chooses from what the network has convicted (rule)."`
	Set     blocklistSetCmd    `cmd:"" help:"Change a list; what is not named stays."`
	Delete  blocklistDeleteCmd `cmd:"" help:"Delete a list with its subscriptions; engines that take orders drop it."`
	Stats   blocklistStatsCmd  `cmd:"" help:"Show how large a list is, what comes and goes, what it shares with others and what it kept out."`
	Entries struct {
		List   entriesListCmd   `cmd:"" help:"List what is on a list."`
		Add    entriesAddCmd    `cmd:"" help:"Put addresses and ranges on a custom list."`
		Remove entriesRemoveCmd `cmd:"" help:"Take addresses and ranges off a custom list."`
		Upload entriesUploadCmd `cmd:"" help:"Put the entries of a file on a custom list."`
	} `cmd:"" help:"What is on a list."`
	Feed struct {
		Add      feedAddCmd     `cmd:"" help:"Make a list that is fetched from a URL."`
		FetchNow feedFetchCmd   `cmd:"" help:"Fetch a feed now."`
		Hold     feedHoldCmd    `cmd:"" help:"Have every new version of a feed wait for your word, or no longer."`
		Approve  feedApproveCmd `cmd:"" help:"Take over the version of a feed that waits."`
		Discard  feedDiscardCmd `cmd:"" help:"Forget the version of a feed that waits."`
	} `cmd:"" help:"Lists that are fetched from others."`
}

// blocklist is the API's, as far as the command line looks into it.
type blocklist struct {
	ID, Name, Label, Description, Kind, Organisation, Remedy, Note string
	BuiltIn                                                        bool     `json:"built_in"`
	SharedWith                                                     []string `json:"shared_with"`
	LifetimeSeconds                                                int64    `json:"lifetime_seconds"`
	Size                                                           *int
	Subscriptions                                                  int
	Rule                                                           *listRule
	Feed                                                           *listFeed
}

type listRule struct {
	Behaviours   []string `json:"behaviours,omitempty"`
	Scenarios    []string `json:"scenarios,omitempty"`
	Countries    []string `json:"countries,omitempty"`
	ASNs         []uint32 `json:"asns,omitempty"`
	SinceSeconds int64    `json:"since_seconds,omitempty"`
	Own          bool     `json:"own,omitempty"`
	Remedy       string   `json:"remedy,omitempty"`
	Top          int      `json:"top,omitempty"`
}

type listFeed struct {
	URL             string     `json:"url"`
	Format          string     `json:"format,omitempty"`
	IntervalSeconds int64      `json:"interval_seconds,omitempty"`
	Max             int        `json:"max,omitempty"`
	Swing           float64    `json:"swing,omitempty"`
	Forbidden       int        `json:"forbidden,omitempty"`
	KeepSeconds     int64      `json:"keep_seconds,omitempty"`
	Hold            bool       `json:"hold"`
	State           *feedState `json:"state,omitempty"`
}

type feedState struct {
	Format, Problem string
	TriedAt         *time.Time `json:"tried_at"`
	GoodAt          *time.Time `json:"good_at"`
	NextAt          *time.Time `json:"next_at"`
	Size, Skipped   int
	Forbidden       int
	HeldAt          *time.Time `json:"held_at"`
	HeldSize        int        `json:"held_size"`
	HeldReason      string     `json:"held_reason"`
	Failures        int
	ChangedAt       *time.Time `json:"changed_at"`
}

// size writes how many entries there are.
func (l *blocklist) size() string {
	if l.Size == nil {
		return "?"
	}
	return fmt.Sprint(*l.Size)
}

// words writes what a rule chooses.
func (r *listRule) words() string {
	var all []string
	for _, part := range []struct {
		name string
		of   []string
	}{{"behaviours", r.Behaviours}, {"scenarios", r.Scenarios}, {"countries", r.Countries}} {
		if len(part.of) > 0 {
			all = append(all, part.name+" "+strings.Join(part.of, ", "))
		}
	}
	for _, n := range r.ASNs {
		all = append(all, fmt.Sprintf("AS%d", n))
	}
	if r.SinceSeconds > 0 {
		all = append(all, "listed within "+(time.Duration(r.SinceSeconds)*time.Second).String())
	}
	if r.Own {
		all = append(all, "seen by the subscriber's own organisation")
	}
	if r.Remedy != "" {
		all = append(all, "for which "+r.Remedy+" is right")
	}
	if r.Top > 0 {
		all = append(all, fmt.Sprintf("the best %d", r.Top))
	}
	if len(all) == 0 {
		return "everything"
	}
	return strings.Join(all, "; ")
}

type blocklistListCmd struct{ server }

// Help is shown by --help.
func (blocklistListCmd) Help() string { return example(`muster admin blocklist list`) }

func (c *blocklistListCmd) Run(g *globals) error {
	raw, list, err := fetch[[]blocklist](c.server, g, "GET", "/blocklists", nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintln(w, "NAME\tKIND\tREMEDY\tENTRIES\tSUBSCRIPTIONS\tLABEL\tNOTE")
		for i := range list {
			l := &list[i]
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", l.Name, l.Kind, l.Remedy, l.size(), l.Subscriptions, l.Label, l.Note)
		}
	})
}

type blocklistShowCmd struct {
	Blocklist string `arg:"" help:"Name or id."`
	server
}

// Help is shown by --help.
func (blocklistShowCmd) Help() string { return example(`muster admin blocklist show muster-ssh`) }

func (c *blocklistShowCmd) Run(g *globals) error {
	raw, l, err := fetch[blocklist](c.server, g, "GET", "/blocklists/"+escape(c.Blocklist), nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) { printBlocklist(w, &l) })
}

func printBlocklist(w io.Writer, l *blocklist) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s:\t%s\n", name, value)
		}
	}
	line("name", l.Name)
	line("id", l.ID)
	line("label", l.Label)
	line("description", l.Description)
	line("kind", l.Kind)
	line("organisation", l.Organisation)
	line("shared with", strings.Join(l.SharedWith, ", "))
	line("remedy", l.Remedy)
	line("kept by engines for", (time.Duration(l.LifetimeSeconds) * time.Second).String())
	line("entries", l.size())
	line("subscriptions", fmt.Sprint(l.Subscriptions))
	if l.Rule != nil {
		line("chooses", l.Rule.words())
	}
	if f := l.Feed; f != nil {
		line("url", f.URL)
		line("fetched every", (time.Duration(f.IntervalSeconds) * time.Second).String())
		if f.Hold {
			line("on hold", "every new version waits for a word")
		}
		if f.State != nil {
			printFeedState(line, f.State)
		}
	}
	line("note", l.Note)
}

func printFeedState(line func(name, value string), s *feedState) {
	line("format", s.Format)
	line("tried", ago(s.TriedAt))
	line("good", ago(s.GoodAt))
	if s.NextAt != nil {
		line("next", until(s.NextAt))
	}
	line("in force", fmt.Sprintf("%d entries", s.Size))
	if s.Skipped > 0 {
		line("passed over", fmt.Sprintf("%d values that are no address, too wide or reserved", s.Skipped))
	}
	if s.Forbidden > 0 {
		line("dropped", fmt.Sprintf("%d entries that are allowlisted or canaries", s.Forbidden))
	}
	if s.HeldAt != nil {
		line("waits for a word", fmt.Sprintf("%d entries: %s", s.HeldSize, s.HeldReason))
	}
	line("problem", s.Problem)
}

// ruleFlags are what a rule chooses by.
type ruleFlags struct {
	Behaviour []string `help:"Behaviour (ssh:bruteforce) or family of them (ssh); may be repeated."`
	Scenario  []string `help:"Scenario, with * and ? as in file names; may be repeated."`
	Country   []string `help:"Country of the source, as DE; may be repeated."`
	AS        []uint32 `help:"Number of the AS of the source; may be repeated." name:"as"`
	Since     string   `help:"Listed within this time (24h, 7d)." placeholder:"DURATION"`
	Own       bool     `help:"Reported by the subscriber's own organisation."`
	For       string   `help:"Those for which this remedy is right: ban or captcha." placeholder:"REMEDY"`
	Top       int      `help:"The best so many."`
}

// rule returns nil when no flag is given.
func (f *ruleFlags) rule() (*listRule, error) {
	since, err := seconds(f.Since)
	if err != nil {
		return nil, fmt.Errorf("--since: %w", err)
	}
	for i, country := range f.Country {
		f.Country[i] = strings.ToUpper(country)
	}
	r := listRule{f.Behaviour, f.Scenario, f.Country, f.AS, since, f.Own, f.For, f.Top}
	if len(f.Behaviour)+len(f.Scenario)+len(f.Country)+len(f.AS) == 0 && since == 0 && !f.Own && f.For == "" && f.Top == 0 {
		return nil, nil
	}
	return &r, nil
}

// listFlags are what all lists have.
type listFlags struct {
	Label       *string  `help:"Title, for people."`
	Description *string  `help:"What it is and where it comes from, for people."`
	Org         *string  `help:"Owner, by id or name; the installation without." placeholder:"ORG"`
	Share       []string `help:"Other organisations that may subscribe, by id or name, or * for all; may be repeated." placeholder:"ORG"`
	Remedy      *string  `help:"What engines do with it: ban or captcha." placeholder:"REMEDY"`
	Lifetime    string   `help:"How long engines keep an entry after they have read it, 3h to 30d. What is taken off a list stays on engines for as long." placeholder:"DURATION"`
	Reason      string   `help:"Why; for the audit."`
}

// request makes what the API takes.
func (f *listFlags) request() (map[string]any, error) {
	q := map[string]any{}
	for name, value := range map[string]*string{"label": f.Label, "description": f.Description, "organisation": f.Org, "remedy": f.Remedy} {
		if value != nil {
			q[name] = *value
		}
	}
	if f.Share != nil {
		q["shared_with"] = f.Share
	}
	if f.Lifetime != "" {
		n, err := seconds(f.Lifetime)
		if err != nil {
			return nil, fmt.Errorf("--lifetime: %w", err)
		}
		q["lifetime_seconds"] = n
	}
	if f.Reason != "" {
		q["reason"] = f.Reason
	}
	return q, nil
}

type blocklistCreateCmd struct {
	Name string `arg:"" help:"1 to 64 lower-case letters, digits, - and _. Engines know the list by it, so that it cannot be changed."`
	Rule bool   `help:"Have a rule choose from what the network has convicted; so does any of the flags of rules."`
	ruleFlags
	listFlags
	server
}

// Help is shown by --help.
func (blocklistCreateCmd) Help() string {
	return example(`muster admin blocklist create office --label "Kept by the office"`) + "\n" +
		`  muster admin blocklist create ssh-de --behaviour ssh --country DE --top 5000`
}

func (c *blocklistCreateCmd) Run(g *globals) error {
	q, err := c.request()
	if err != nil {
		return err
	}
	rule, err := c.rule()
	if err != nil {
		return err
	}
	q["name"], q["kind"] = c.Name, "custom"
	if rule != nil || c.Rule {
		q["kind"], q["rule"] = "rule", rule
	}
	return c.run(g, "POST", "/blocklists", q, "Blocklist made. Let somebody read it: muster admin subscription add "+c.Name+" --org ORG")
}

type blocklistSetCmd struct {
	Blocklist string `arg:"" help:"Name or id."`
	ruleFlags
	listFlags
	server
}

// Help is shown by --help.
func (blocklistSetCmd) Help() string {
	return "Flags of rules replace all of the rule.\n\n" + example(`muster admin blocklist set office --lifetime 12h --share "Customer A"`)
}

func (c *blocklistSetCmd) Run(g *globals) error {
	q, err := c.request()
	if err != nil {
		return err
	}
	rule, err := c.rule()
	if err != nil {
		return err
	}
	if rule != nil {
		q["rule"] = rule
	}
	if len(q) == 0 {
		return errors.New("nothing to change: name at least one flag")
	}
	return c.run(g, "PATCH", "/blocklists/"+escape(c.Blocklist), q, "Blocklist changed.")
}

type blocklistDeleteCmd struct {
	Blocklist string `arg:"" help:"Name or id."`
	Reason    string `help:"Why; for the audit."`
	server
}

// Help is shown by --help.
func (blocklistDeleteCmd) Help() string {
	return example(`muster admin blocklist delete office --reason "nobody keeps it"`)
}

func (c *blocklistDeleteCmd) Run(g *globals) error {
	return c.run(g, "DELETE", "/blocklists/"+escape(c.Blocklist)+"?reason="+url.QueryEscape(c.Reason), nil, "Blocklist deleted.")
}

type entriesListCmd struct {
	Blocklist string  `arg:"" help:"Name or id."`
	Org       *string `help:"As this organisation's machines get it, by id or name; as nobody's with an empty one." placeholder:"ORG"`
	server
}

// Help is shown by --help.
func (entriesListCmd) Help() string {
	return "Of a custom list, what is kept; of others, and with --org, what readers get.\n\n" +
		example(`muster admin blocklist entries list muster-ssh --org "Customer A"`)
}

func (c *entriesListCmd) Run(g *globals) error {
	q := url.Values{}
	if c.Org != nil {
		q.Set("organisation", *c.Org)
	}
	type entry struct {
		Value, Scenario, Comment string
		Until                    *time.Time
		AddedBy                  string `json:"added_by"`
	}
	all, list, err := pages[entry](c.server, g, "/blocklists/"+escape(c.Blocklist)+"/entries", "entries", "after", q)
	if err != nil {
		return err
	}
	return c.show(all, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "Nothing is on this list.")
			return
		}
		fmt.Fprintln(w, "ENTRY\tUNTIL\tBY\tABOUT")
		for _, e := range list {
			about := e.Comment
			if about == "" {
				about = e.Scenario
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.Value, until(e.Until), e.AddedBy, about)
		}
	})
}

// stored is what came of adding entries.
type stored struct {
	Entries, Skipped, Withheld int
	Example                    string
	Examples                   []string
}

func (s *stored) print(w io.Writer) {
	fmt.Fprintf(w, "%d entries put on the list.\n", s.Entries)
	if s.Skipped > 0 {
		fmt.Fprintf(w, "  %d lines passed over: no address or range, too wide, or ended%s\n", s.Skipped, forExample(s.Example))
	}
	if s.Withheld > 0 {
		fmt.Fprintf(w, "  %d of them nobody is sent, as long as they are reserved, allowlisted or canaries%s\n", s.Withheld, forExample(strings.Join(s.Examples, ", ")))
	}
}

type entriesAddCmd struct {
	Blocklist string   `arg:"" help:"Name or id."`
	Entry     []string `arg:"" help:"Addresses and ranges."`
	Comment   string   `help:"What for, for people."`
	TTL       string   `help:"For how long (24h, 7d); for good without." placeholder:"DURATION"`
	Reason    string   `help:"Why; for the audit."`
	server
}

// Help is shown by --help.
func (entriesAddCmd) Help() string {
	return example(`muster admin blocklist entries add office 198.51.100.7 198.51.100.0/24 --ttl 30d --comment scanner`)
}

func (c *entriesAddCmd) Run(g *globals) error {
	ttl, err := seconds(c.TTL)
	if err != nil {
		return fmt.Errorf("--ttl: %w", err)
	}
	entries := make([]map[string]any, len(c.Entry))
	for i, value := range c.Entry {
		entries[i] = map[string]any{"value": value, "comment": c.Comment, "ttl_seconds": ttl}
	}
	raw, s, err := fetch[stored](c.server, g, "POST", "/blocklists/"+escape(c.Blocklist)+"/entries", map[string]any{"entries": entries, "reason": c.Reason})
	if err != nil {
		return err
	}
	return c.show(raw, s.print)
}

type entriesRemoveCmd struct {
	Blocklist string   `arg:"" help:"Name or id."`
	Entry     []string `arg:"" help:"Addresses and ranges, as they are on the list."`
	AtOnce    bool     `help:"Have engines that take orders drop the list and read it again; else they keep these entries for the list's lifetime."`
	Reason    string   `help:"Why; for the audit."`
	server
}

// Help is shown by --help.
func (entriesRemoveCmd) Help() string {
	return example(`muster admin blocklist entries remove office 198.51.100.7 --at-once --reason "a customer"`)
}

func (c *entriesRemoveCmd) Run(g *globals) error {
	q := url.Values{"value": c.Entry, "reason": {c.Reason}, "at_once": {fmt.Sprint(c.AtOnce)}}
	raw, answer, err := fetch[struct{ Removed int }](c.server, g, "DELETE", "/blocklists/"+escape(c.Blocklist)+"/entries?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) { fmt.Fprintf(w, "%d entries taken off the list.\n", answer.Removed) })
}

type entriesUploadCmd struct {
	Blocklist string `arg:"" help:"Name or id."`
	File      string `arg:"" help:"File, or - for standard input."`
	Replace   bool   `help:"Take everything else off the list."`
	Reason    string `help:"Why; for the audit."`
	server
}

// Help is shown by --help.
func (entriesUploadCmd) Help() string {
	return "Each line has an address or a range, and may have a comment and an end after commas, semicolons or tabs: " +
		"198.51.100.7,scanner,7d or 198.51.100.0/24,2027-01-31. # begins a comment of its own line.\n\n" +
		example(`muster admin blocklist entries upload office list.csv --replace`)
}

func (c *entriesUploadCmd) Run(g *globals) error {
	client, err := c.client(g)
	if err != nil {
		return err
	}
	file := os.Stdin
	if c.File != "-" {
		if file, err = os.Open(c.File); err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
	}
	q := url.Values{"replace": {fmt.Sprint(c.Replace)}, "reason": {c.Reason}}
	var raw json.RawMessage
	if err := client.send("POST", "/blocklists/"+escape(c.Blocklist)+"/upload?"+q.Encode(), file, &raw); err != nil {
		return err
	}
	var s stored
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("the server's answer could not be read: %w", err)
	}
	return c.show(raw, s.print)
}

type feedAddCmd struct {
	Name      string  `arg:"" help:"1 to 64 lower-case letters, digits, - and _. Engines know the list by it, so that it cannot be changed."`
	Source    string  `arg:"" name:"url" help:"Where it is fetched from; http or https."`
	Format    string  `help:"plain, count:N (at least N), dshield, csv:COLUMN or json:PATH; found out from the content without." placeholder:"FORMAT"`
	Interval  string  `help:"How often it is fetched, 15m to 30d; 6h without." placeholder:"DURATION"`
	Max       int     `help:"Most entries; a fetch with more is refused. 200,000 without." placeholder:"N"`
	Swing     float64 `help:"A fetch with so many times more or fewer entries waits for your word; 2 without." placeholder:"FACTOR"`
	Forbidden int     `help:"How many allowlisted and canary entries are dropped; more refuse the fetch. 100 without." placeholder:"N"`
	Keep      string  `help:"How long entries stay in force while nothing good is fetched; 7d without." placeholder:"DURATION"`
	Hold      bool    `help:"Have every new version wait for your word."`
	listFlags
	server
}

// Help is shown by --help.
func (feedAddCmd) Help() string {
	return example(`muster admin blocklist feed add drop https://www.spamhaus.org/drop/drop.txt --interval 12h`) + "\n" +
		`  muster admin blocklist feed add c2 https://lists.example.org/c2.csv --format csv:dst_ip`
}

func (c *feedAddCmd) Run(g *globals) error {
	q, err := c.request()
	if err != nil {
		return err
	}
	interval, err := seconds(c.Interval)
	if err != nil {
		return fmt.Errorf("--interval: %w", err)
	}
	keep, err := seconds(c.Keep)
	if err != nil {
		return fmt.Errorf("--keep: %w", err)
	}
	q["name"], q["kind"] = c.Name, "feed"
	q["feed"] = listFeed{URL: c.Source, Format: c.Format, IntervalSeconds: interval, Max: c.Max, Swing: c.Swing, Forbidden: c.Forbidden, KeepSeconds: keep, Hold: c.Hold}
	return c.run(g, "POST", "/blocklists", q, "Feed added; it is fetched within a minute. See what came: muster admin blocklist show "+c.Name)
}

// feedAnswer prints how a feed stands.
func feedAnswer(s server, g *globals, path string, body any) error {
	raw, state, err := fetch[feedState](s, g, "POST", path, body)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) {
		printFeedState(func(name, value string) {
			if value != "" {
				fmt.Fprintf(w, "%s:\t%s\n", name, value)
			}
		}, &state)
	})
}

type feedFetchCmd struct {
	Blocklist string `arg:"" help:"Name or id."`
	server
}

// Help is shown by --help.
func (feedFetchCmd) Help() string { return example(`muster admin blocklist feed fetch-now drop`) }

func (c *feedFetchCmd) Run(g *globals) error {
	return feedAnswer(c.server, g, "/blocklists/"+escape(c.Blocklist)+"/fetch", nil)
}

type feedHoldCmd struct {
	Blocklist string `arg:"" help:"Name or id."`
	Off       bool   `help:"No longer: what is fetched is in force at once again, unless it is unusual."`
	Reason    string `help:"Why; for the audit."`
	server
}

// Help is shown by --help.
func (feedHoldCmd) Help() string { return example(`muster admin blocklist feed hold drop`) }

func (c *feedHoldCmd) Run(g *globals) error {
	_, l, err := fetch[blocklist](c.server, g, "GET", "/blocklists/"+escape(c.Blocklist), nil)
	if err != nil {
		return err
	}
	if l.Feed == nil {
		return fmt.Errorf("%s is a %s list: only feeds are fetched", l.Name, l.Kind)
	}
	l.Feed.State, l.Feed.Hold = nil, !c.Off
	done := "New versions wait for your word: muster admin blocklist feed approve " + l.Name
	if c.Off {
		done = "New versions are in force at once again, unless they are unusual."
	}
	return c.run(g, "PATCH", "/blocklists/"+escape(c.Blocklist), map[string]any{"feed": l.Feed, "reason": c.Reason}, done)
}

type feedApproveCmd struct {
	Blocklist string `arg:"" help:"Name or id."`
	Reason    string `help:"Why; for the audit."`
	server
}

// Help is shown by --help.
func (feedApproveCmd) Help() string {
	return example(`muster admin blocklist feed approve drop --reason "they added a registry"`)
}

func (c *feedApproveCmd) Run(g *globals) error {
	return feedAnswer(c.server, g, "/blocklists/"+escape(c.Blocklist)+"/approve", map[string]string{"reason": c.Reason})
}

type feedDiscardCmd struct {
	Blocklist string `arg:"" help:"Name or id."`
	Reason    string `help:"Why; for the audit."`
	server
}

// Help is shown by --help.
func (feedDiscardCmd) Help() string {
	return example(`muster admin blocklist feed discard drop --reason "cut off half-way"`)
}

func (c *feedDiscardCmd) Run(g *globals) error {
	return feedAnswer(c.server, g, "/blocklists/"+escape(c.Blocklist)+"/discard", map[string]string{"reason": c.Reason})
}

type blocklistStatsCmd struct {
	Blocklist string `arg:"" help:"Name or id."`
	server
}

// Help is shown by --help.
func (blocklistStatsCmd) Help() string { return example(`muster admin blocklist stats muster-ssh`) }

func (c *blocklistStatsCmd) Run(g *globals) error {
	type churn struct{ Added, Removed int }
	raw, s, err := fetch[struct {
		Size, Subscriptions int
		TwoDays             churn `json:"two_days"`
		ThirtyDays          churn `json:"thirty_days"`
		Hits                map[string]int64
		Overlaps            []struct {
			Blocklist string
			Entries   int
			Share     float64
		}
	}](c.server, g, "GET", "/blocklists/"+escape(c.Blocklist)+"/statistics", nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintf(w, "entries:\t%d\nsubscriptions:\t%d\n", s.Size, s.Subscriptions)
		fmt.Fprintf(w, "within 2 days:\t%d came, %d went\nwithin 30 days:\t%d came, %d went\n", s.TwoDays.Added, s.TwoDays.Removed, s.ThirtyDays.Added, s.ThirtyDays.Removed)
		for _, unit := range []string{"packet", "byte", "request"} {
			if n := s.Hits[unit]; n > 0 {
				fmt.Fprintf(w, "kept out:\t%d %ss within 30 days\n", n, unit)
			}
		}
		for _, o := range s.Overlaps {
			fmt.Fprintf(w, "shares:\t%d entries (%.0f %%) with %s\n", o.Entries, 100*o.Share, o.Blocklist)
		}
	})
}
