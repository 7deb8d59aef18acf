package catalog

import (
	"slices"
	"time"

	"muster"
)

// Lifetime is how long engines keep entries of lists that say nothing else.
// What is taken off a list stays on engines for as long, so that it is short;
// they fetch again two hours before it ends.
const Lifetime = 6 * time.Hour

// Prefix begins the names of the lists that Muster brings along, and of no
// other.
const Prefix = "muster-"

// BuiltIn reports whether a list of that id comes with Muster.
func BuiltIn(id string) bool {
	return slices.ContainsFunc(builtIn, func(l muster.Blocklist) bool { return l.ID == id })
}

// builtIn is what the catalogue has from the start.
var builtIn = func() []muster.Blocklist {
	lists := []muster.Blocklist{{
		ID: muster.CommunityList, Name: muster.CommunityList, Label: "Community list",
		Description: "Everything that the network has convicted. Engines read it with their pulls; integrations subscribe to it.",
	}}
	add := func(name, label, description string, rule muster.ListRule) {
		lists = append(lists, muster.Blocklist{ID: Prefix + name, Name: Prefix + name, Label: label, Description: description, Rule: rule})
	}
	for _, f := range []struct{ name, label, behaviour string }{
		{"ssh", "SSH", "ssh"},
		{"http", "HTTP", "http"},
		{"mail", "Mail: POP3 and IMAP", "pop3"},
		{"smtp", "SMTP", "smtp"},
		{"database", "Databases", "database"},
		{"ftp", "FTP", "ftp"},
		{"windows", "Windows", "windows"},
		{"sip", "SIP", "sip"},
		{"vcs", "Git servers", "vcs"},
		{"kubernetes", "Kubernetes", "k8s"},
		{"cloud", "Cloud services", "cloud"},
		{"iot", "Things", "iot"},
	} {
		add(f.name, f.label, "Convicted of attacks on this service.", muster.ListRule{Behaviours: []string{f.behaviour}})
	}
	for _, b := range []struct {
		name, label string
		behaviours  []string
	}{
		{"ssh-bruteforce", "SSH: guessed passwords", []string{"ssh:bruteforce"}},
		{"http-bruteforce", "HTTP: guessed passwords", []string{"http:bruteforce"}},
		{"http-exploit", "HTTP: tried to exploit holes", []string{"http:exploit"}},
		{"http-scan", "HTTP: looked for holes", []string{"http:scan"}},
		{"http-crawl", "HTTP: crawled without leave", []string{"http:crawl"}},
		{"http-dos", "HTTP: floods", []string{"http:dos"}},
		{"http-spam", "HTTP and mail: spam", []string{"http:spam", "smtp:spam"}},
		{"port-scan", "Looked for open ports", []string{"tcp:scan", "generic:scan"}},
	} {
		add(b.name, b.label, "Convicted of this behaviour.", muster.ListRule{Behaviours: b.behaviours})
	}
	for _, t := range []struct {
		name, label string
		top         int
	}{{"top-1000", "The worst 1,000", 1000}, {"top-5000", "The worst 5,000", 5000}, {"top-10000", "The worst 10,000", 10_000}} {
		add(t.name, t.label, "Of which the network is surest; for firewalls that hold no more.", muster.ListRule{Top: t.top})
	}
	add("fresh", "Listed within a day", "What the network convicted within the last 24 hours.", muster.ListRule{Since: 24 * time.Hour})
	add("own", "Seen by my organisation", "What the network convicted and the subscriber's own machines reported within 30 days, and what its fleet convicted.", muster.ListRule{Own: true})
	add("shared-sources", "Sources that many people share",
		"Convicted, and many people sit behind them: captchas, no bans. Engines cannot get these with the community list.", muster.ListRule{Remedy: muster.RemedyCaptcha})
	for i := range lists {
		l := &lists[i]
		l.Kind, l.Lifetime, l.Remedy = muster.RuleList, Lifetime, muster.RemedyBan
		if l.Rule.Remedy != "" {
			l.Remedy = l.Rule.Remedy
		}
	}
	return lists
}()
