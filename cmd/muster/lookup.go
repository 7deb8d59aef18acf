package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// lookupWord is a word of a vocabulary, with what it means.
type lookupWord struct{ Name, Label string }

// lookupScore is a window's.
type lookupScore struct{ Aggressiveness, Threat, Trust, Anomaly, Total int }

// lookupItem is the API's, as far as the command line looks into it.
type lookupItem struct {
	IP, Reputation, Confidence string

	BackgroundNoise string  `json:"background_noise"`
	NoiseScore      *int    `json:"background_noise_score"`
	Range           *string `json:"ip_range"`
	RangeScore      int     `json:"ip_range_score"`
	Range24         *string `json:"ip_range_24"`
	Range24Score    int     `json:"ip_range_24_score"`
	ASName          *string `json:"as_name"`
	ASNum           *int    `json:"as_num"`
	Location        struct{ Country *string }
	Behaviors       []lookupWord
	Attacks         []lookupWord `json:"attack_details"`
	Techniques      []lookupWord `json:"mitre_techniques"`
	CVEs            []string
	Classifications struct {
		FalsePositives  []lookupWord `json:"false_positives"`
		Classifications []lookupWord
	}
	History struct {
		FirstSeen *string `json:"first_seen"`
		LastSeen  *string `json:"last_seen"`
	}
	TargetCountries map[string]int `json:"target_countries"`
	Scores          struct {
		Overall   lookupScore
		LastDay   lookupScore `json:"last_day"`
		LastWeek  lookupScore `json:"last_week"`
		LastMonth lookupScore `json:"last_month"`
	}
}

type lookupCmd struct {
	Address string `arg:"" help:"An IPv4 or IPv6 address."`
	server
}

// Help is shown by --help.
func (lookupCmd) Help() string {
	return "What programs are told that ask with a lookup key (docs/lookups.md says how it is computed). " +
		"Why an address is listed or not is told by muster admin explain.\n\n" + example("muster admin lookup 203.0.113.7")
}

func (c *lookupCmd) Run(g *globals) error {
	raw, i, err := fetch[lookupItem](c.server, g, "GET", "/lookup/"+escape(c.Address), nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) { i.print(w) })
}

// print writes what is known, a line for each thing that is.
func (i *lookupItem) print(w io.Writer) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, value)
		}
	}
	line("Address", i.IP)
	line("Reputation", fmt.Sprintf("%s (confidence: %s)", i.Reputation, i.Confidence))
	line("Known to be", words(i.Classifications.FalsePositives, true))
	line("Classes", words(i.Classifications.Classifications, true))
	if i.NoiseScore != nil {
		line("Background noise", fmt.Sprintf("%s (%d of 10)", i.BackgroundNoise, *i.NoiseScore))
	}
	line("Seen", seenBetween(i.History.FirstSeen, i.History.LastSeen))
	line("Behaviours", words(i.Behaviors, true))
	line("Scenarios", words(i.Attacks, false))
	line("Techniques", words(i.Techniques, true))
	line("CVEs", strings.Join(i.CVEs, ", "))
	line("Targets", countries(i.TargetCountries))
	line("Network", network(i))
	if i.Range24 != nil {
		line("Neighbours", fmt.Sprintf("%s: %d of 5", *i.Range24, i.Range24Score))
	}
	if i.Reputation == "unknown" || len(i.Classifications.FalsePositives) > 0 {
		return
	}
	fmt.Fprintln(w, "\nSCORES\tTOTAL\tAGGRESSIVENESS\tTHREAT\tTRUST")
	for _, s := range []struct {
		name string
		lookupScore
	}{{"last day", i.Scores.LastDay}, {"last week", i.Scores.LastWeek}, {"last month", i.Scores.LastMonth}, {"three months", i.Scores.Overall}} {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\n", s.name, s.Total, s.Aggressiveness, s.Threat, s.Trust)
	}
}

func words(list []lookupWord, labels bool) string {
	var all []string
	for _, l := range list {
		text := l.Name
		if labels {
			text = cmp.Or(l.Label, l.Name)
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func seenBetween(first, last *string) string {
	if first == nil || last == nil {
		return ""
	}
	return strings.TrimSuffix(*first, "+00:00") + "Z to " + strings.TrimSuffix(*last, "+00:00") + "Z"
}

func countries(percent map[string]int) string {
	var all []string
	for len(percent) > len(all) {
		best := ""
		for code, n := range percent {
			taken := false
			for _, a := range all {
				taken = taken || strings.HasPrefix(a, code)
			}
			if !taken && (best == "" || n > percent[best] || n == percent[best] && code < best) {
				best = code
			}
		}
		all = append(all, best+" "+strconv.Itoa(percent[best])+" %")
	}
	return strings.Join(all, ", ")
}

func network(i *lookupItem) string {
	var all []string
	if i.ASNum != nil {
		all = append(all, fmt.Sprintf("AS%d", *i.ASNum))
	}
	for _, text := range []*string{i.ASName, i.Location.Country} {
		if text != nil {
			all = append(all, *text)
		}
	}
	if i.Range != nil {
		all = append(all, fmt.Sprintf("%s: %d of 5", *i.Range, i.RangeScore))
	}
	return strings.Join(all, ", ")
}

// lookupKey is the API's, as far as the command line looks into it.
type lookupKey struct {
	ID, Name, Organisation, Key string

	PerDay    int        `json:"per_day"`
	PerMonth  int        `json:"per_month"`
	UsedToday int64      `json:"used_today"`
	UsedMonth int64      `json:"used_month"`
	CreatedAt time.Time  `json:"created_at"`
	RevokedAt *time.Time `json:"revoked_at"`
}

type lookupKeyCreateCmd struct {
	Name     string `arg:"" help:"What reads with it; for people."`
	Org      string `help:"Organisation that it belongs to, by id or name." placeholder:"ORG"`
	PerDay   int    `help:"Most calls of a day (UTC); 0 = no limit." default:"0"`
	PerMonth int    `help:"Most calls of a month; 0 = no limit." default:"0"`
	server
}

// Help is shown by --help.
func (lookupKeyCreateCmd) Help() string {
	return "With a key, programs ask about addresses as they would ask CrowdSec's CTI API, and read the community list as a dump, by TAXII 2.1 or as a MISP feed.\n\n" +
		example("muster admin lookup-key create siem --per-day 5000") + "\n  curl -H 'X-Api-Key: mlk_…' http://127.0.0.1:8080/v2/smoke/203.0.113.7"
}

func (c *lookupKeyCreateCmd) Run(g *globals) error {
	raw, k, err := fetch[lookupKey](c.server, g, "POST", "/lookup-keys", map[string]any{
		"name": c.Name, "organisation": c.Org, "per_day": c.PerDay, "per_month": c.PerMonth,
	})
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		fmt.Fprintln(w, "Send it as X-Api-Key to /v2/smoke/ADDRESS, /v2/fire or /v2/dump.mmdb,")
		fmt.Fprintln(w, "or as the password of basic authentication to /taxii2/ and /misp/manifest.json.")
		fmt.Fprintf(w, "The key, shown only now:\n%s\n", k.Key)
	})
}

type lookupKeyListCmd struct{ server }

// Help is shown by --help.
func (lookupKeyListCmd) Help() string { return example("muster admin lookup-key list") }

func (c *lookupKeyListCmd) Run(g *globals) error {
	raw, list, err := fetch[[]lookupKey](c.server, g, "GET", "/lookup-keys", nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "There are no lookup keys. Make one: muster admin lookup-key create NAME")
			return
		}
		fmt.Fprintln(w, "ID\tNAME\tORGANISATION\tTODAY\tTHIS MONTH\tSTATE")
		quota := func(used int64, of int) string {
			if of == 0 {
				return strconv.FormatInt(used, 10)
			}
			return fmt.Sprintf("%d of %d", used, of)
		}
		for _, k := range list {
			state := "in force"
			if k.RevokedAt != nil {
				state = "revoked " + k.RevokedAt.UTC().Format(time.RFC3339)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Name, k.Organisation, quota(k.UsedToday, k.PerDay), quota(k.UsedMonth, k.PerMonth), state)
		}
	})
}

type lookupKeyRevokeCmd struct {
	ID string `arg:"" help:"Id of the key."`
	server
}

// Help is shown by --help.
func (lookupKeyRevokeCmd) Help() string {
	return example("muster admin lookup-key revoke 01a1fb7c-0e50-7ac2-9f0f-9bb8d21e73b4")
}

func (c *lookupKeyRevokeCmd) Run(g *globals) error {
	return c.run(g, "DELETE", "/lookup-keys/"+escape(c.ID), nil, "Lookup key revoked. It is refused from now on.")
}

type dumpCmd struct {
	Format string `help:"mmdb (MaxMind's form, for programs that look up) or jsonl (a JSON object in each line)." enum:"mmdb,jsonl" default:"jsonl"`
	Output string `short:"o" help:"File to write; - for standard output." default:"-"`
	server
}

// Help is shown by --help.
func (dumpCmd) Help() string {
	return "Writes the community list for use without this server.\n\n" +
		example("muster admin dump --format mmdb -o muster.mmdb") + "\n  muster admin dump | jq -r .ip"
}

func (c *dumpCmd) Run(g *globals) (err error) {
	client, err := c.client(g)
	if err != nil {
		return err
	}
	if c.Output == "-" {
		return client.download("/dump/"+c.Format, os.Stdout)
	}
	// Beside, and renamed when it is whole: programs keep the file open.
	file, err := os.CreateTemp(filepath.Dir(c.Output), filepath.Base(c.Output)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	if err := errors.Join(client.download("/dump/"+c.Format, file), file.Chmod(0o644), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), c.Output)
}

// download copies an answer that is no JSON.
func (c *client) download(path string, to io.Writer) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, c.base+"/api/v1"+path, nil)
	if err != nil {
		return err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answered %s", res.Status)
	}
	if _, err := io.Copy(to, res.Body); err != nil {
		return fmt.Errorf("the file is not whole: %w", err)
	}
	return nil
}
