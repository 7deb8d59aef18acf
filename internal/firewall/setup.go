package firewall

import "strings"

// Access is how a reader gets at its integration.
type Access struct {
	Name     string
	URL      string // of the file; of a bouncer, of its local API
	User     string
	Password string // or key
}

// Setup returns what to do in the product, ready to be pasted where it takes
// commands, with every value filled in.
func (f *Format) Setup(a Access) string { return fill(setups[f.Name], a) }

// BouncerSetup is Setup for a bouncer, whose configuration file it is a part of.
func BouncerSetup(a Access) string {
	return fill(`In the bouncer's configuration (the file's name and keys are its own; most have these):

  api_url: {url}
  api_key: {password}

With a command: curl -H "X-Api-Key: {password}" "{url}/v1/decisions?ip=ADDRESS"
`, a)
}

func fill(text string, a Access) string {
	scheme, rest, _ := strings.Cut(a.URL, "://")
	host, path, _ := strings.Cut(rest, "/")
	return strings.NewReplacer(
		"{name}", a.Name, "{url}", a.URL, "{user}", a.User, "{password}", a.Password, "{scheme}", scheme,
		"{base}", scheme+"://"+host, "{path}", "/"+path, "{login}", scheme+"://"+a.User+":"+a.Password+"@"+rest,
	).Replace(text)
}

// setups are by format. An integration is called crowdsec-NAME everywhere.
var setups = map[string]string{
	"plain_text": `curl --fail --compressed --user "{user}:{password}" --output blocklist.txt {url}
`,
	"pfsense": `Firewall, Aliases, URLs, Add:
  Name         crowdsec_{name} (with _ for -)
  Type         URL Table (IPs)
  URL          {login}
  Update Freq. 1
Then Firewall, Rules, WAN: a rule that blocks this alias as source, above all others.
`,
	"opnsense": `Firewall, Aliases, +:
  Name              crowdsec_{name} (with _ for -)
  Type              URL Table (IPs)
  Refresh Frequency 0 days, 1 hour
  Content           {url}
  Authorization     Basic, {user}, {password}
(releases without the field Authorization take it in the address: {login})
Then Firewall, Rules, WAN: a rule that blocks this alias as source, above all others.
`,
	"fortigate": `config system external-resource
    edit "crowdsec-{name}"
        set type address
        set username "{user}"
        set password "{password}"
        set resource "{url}"
        set refresh-rate 60
    next
end
config firewall policy
    edit 0
        set name "block crowdsec-{name}"
        set srcintf "any"
        set dstintf "any"
        set srcaddr "crowdsec-{name}"
        set dstaddr "all"
        set schedule "always"
        set service "ALL"
        set action deny
        set logtraffic all
    next
end
Move the policy above all others.
`,
	"paloalto": `set external-list crowdsec-{name} type ip url {url}
set external-list crowdsec-{name} type ip auth username {user}
set external-list crowdsec-{name} type ip auth password {password}
set external-list crowdsec-{name} type ip certificate-profile PROFILE
set external-list crowdsec-{name} type ip recurring hourly
Then a security policy that denies this list as source address, above all others.
`,
	"checkpoint": `On each gateway, in expert mode; it asks for the password, {password}:
ioc_feeds add --feed_name crowdsec-{name} --transport {scheme} --resource "{url}" --user_name {user} --feed_action Prevent
ioc_feeds show
Anti-Bot has to be on.
`,
	"cisco": `Objects, Object Management, Security Intelligence, Network Lists and Feeds, Add:
  Name             crowdsec-{name}
  Type             Feed
  Feed URL         {login}
  Update Frequency 2 hours
Then Policies, Access Control, Security Intelligence: this feed in the block list.
`,
	"juniper": `set security dynamic-address feed-server crowdsec-{name} url {base}
set security dynamic-address feed-server crowdsec-{name} user-name {user}
set security dynamic-address feed-server crowdsec-{name} passwd {password}
set security dynamic-address feed-server crowdsec-{name} update-interval 3600
set security dynamic-address feed-server crowdsec-{name} hold-interval 86400
set security dynamic-address feed-server crowdsec-{name} feed-name crowdsec-{name} path {path}.txt
set security dynamic-address address-name crowdsec-{name} profile feed-name crowdsec-{name}
Then a policy that denies the source address crowdsec-{name}, before all others. show security dynamic-address summary tells whether it is read.
`,
	"mikrotik": `/system script add name=crowdsec policy=read,write,test,ftp source={
  /tool fetch url="{url}" mode={scheme} http-auth-scheme=basic user="{user}" password="{password}" dst-path=crowdsec.rsc idle-timeout=30s
  :if ([:len [/file find name=crowdsec.rsc]] > 0) do={
    /ip firewall address-list remove [find where list="crowdsec-integration"]
    /ipv6 firewall address-list remove [find where list="crowdsec-integration"]
    /import file-name=crowdsec.rsc
    /file remove crowdsec.rsc
  }
}
/system scheduler add name=crowdsec interval=1h on-event=crowdsec policy=read,write,test,ftp
/ip firewall raw add chain=prerouting src-address-list=crowdsec-integration action=drop comment="crowdsec"
/ipv6 firewall raw add chain=prerouting src-address-list=crowdsec-integration action=drop comment="crowdsec"
`,
	"f5": `tmsh create security ip-intelligence blacklist-category crowdsec-{name}
tmsh create security ip-intelligence feed-list crowdsec-{name} feeds add { crowdsec-{name} { default-blacklist-category crowdsec-{name} default-list-type blacklist poll { interval 3600 url {url} user {user} password {password} } } }
tmsh create security ip-intelligence policy crowdsec-{name} default-action drop feed-lists add { crowdsec-{name} }
Then the policy on the virtual servers, or for the whole device.
`,
	"sophos": `Active threat response, Third-party threat feeds, Add:
  Name             crowdsec-{name}
  Action           Log and drop
  Indicator type   IPv4 address
  External URL     {url}
  Authentication   Basic: {user}, {password}
  Polling interval Hourly
`,
}
