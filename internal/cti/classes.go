package cti

import "strings"

// Good says that an address is known to be good, which stands over whatever is
// reported of it.
type Good uint8

// The ways of being good.
const (
	NotGood     Good = iota
	Reserved         // private or reserved space
	Allowlisted      // on the installation's allowlist
	Canary           // known to be good wherever it is seen
)

// The classes of this program's own, beside the hub's.
const (
	classGood     = "muster:known-good"
	classAllowed  = "muster:allowlisted"
	classLocal    = "muster:local-evidence"
	classPrivate  = "ip:private_range"
	classListed   = "community-blocklist"
	scannerPrefix = "scanner:"
)

var own = map[string]Label{
	classGood:    {classGood, "Known good", "The address is known to be good here, and is not to be treated as a threat."},
	classAllowed: {classAllowed, "Allowlisted", "Whoever runs this server lets the address through."},
	classLocal:   {classLocal, "Local evidence only", "Fewer than ten independent organisations report to this server: the scores say what these have seen."},
}

// classes tell from where a canary came, or why it is one, what kind of good it
// is: the first line of which a word is found decides.
var classes = []struct {
	words []string
	name  string
}{
	{[]string{"public resolver", "public-dns", "public dns", "root name server"}, "dns:public"},
	{[]string{"icloud-private-relay", "private relay"}, "proxy:icloud-private-relay"},
	{[]string{"gmail"}, "mail:gmail"},
	{[]string{"googlebot", "google crawler"}, "seo:googlebot"},
	{[]string{"bingbot"}, "seo:bingbot"},
	{[]string{"duckduck"}, "seo:duckduckbot"},
	{[]string{"semrush"}, "seo:semrush"},
	{[]string{"ahrefs"}, "seo:ahrefs"},
	{[]string{"babbar"}, "seo:babbar"},
	{[]string{"pinterest"}, "seo:pinterest"},
	{[]string{"facebook", "seo:meta"}, "seo:meta"},
	{[]string{"dataforseo"}, "seo:dataforseo"},
	{[]string{"applebot"}, "crawler:apple"},
	{[]string{"yandex"}, "crawler:yandex"},
	{[]string{"linkedin"}, "crawler:linkedin"},
	{[]string{"telegram"}, "crawler:telegram"},
	{[]string{"archive.org", "internet archive"}, "crawler:archive.org"},
	{[]string{"commoncrawl", "common crawl"}, "crawler:commoncrawl"},
	{[]string{"coccoc"}, "crawler:coccoc"},
	{[]string{"anthropic"}, "ai:anthropic"},
	{[]string{"stripe"}, "webhook:stripe"},
	{[]string{"uptimerobot"}, "monitoring:uptimerobot"},
	{[]string{"letsencrypt", "let's encrypt"}, "ssl:renewal"},
	{[]string{"cloudfront"}, "cdn:cloudfront_exit_node"},
	{[]string{"cloudflare"}, "cdn:cloudflare_exit_node"},
	{[]string{"akamai"}, "cdn:akamai_exit_node"},
	{[]string{"fastly"}, "cdn:fastly_exit_node"},
	{[]string{"bunny"}, "cdn:bunny_exit_node"},
	{[]string{"gcore"}, "cdn:gcore_exit_node"},
	{[]string{"cdn77"}, "cdn:cdn77_exit_node"},
	{[]string{"quic.cloud"}, "cdn:quic_exit_node"},
	{[]string{"shopify"}, "cdn:shopify_exit_node"},
	{[]string{"webflow"}, "cdn:webflow_exit_node"},
	{[]string{"github"}, "cdn:github_exit_node"},
	{[]string{"cdn"}, "cdn:exit_node"},
	{[]string{"crawler", "rdns_seo_bots", "seo_bots"}, "seo:crawler"},
}

// goodClass returns the false positive that an address is.
func (v *Vocabulary) goodClass(good Good, why string) Label {
	switch good {
	case Reserved:
		return wordOf(v.falsePositives, classPrivate)
	case Allowlisted:
		return own[classAllowed]
	default: // the reason tells
	}
	why = strings.ToLower(why)
	for _, c := range classes {
		for _, word := range c.words {
			if strings.Contains(why, word) {
				return wordOf(v.falsePositives, c.name)
			}
		}
	}
	return own[classGood]
}

// scannerClass returns the scanner that a canary is one of the addresses of, as
// its origin or reason names it.
func (v *Vocabulary) scannerClass(why string) (Label, bool) {
	why = strings.ToLower(why)
	for _, word := range strings.FieldsFunc(why, func(r rune) bool { return r == ' ' || r == ':' || r == '/' || r == ',' }) {
		if l, ok := v.classes[scannerPrefix+word]; ok {
			return l, true
		}
	}
	return Label{}, false
}
