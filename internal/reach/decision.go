package reach

import (
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/zeebo/xxh3"

	"muster"
)

// What bouncers know as the origins of decisions.
const (
	originNetwork = "CAPI"
	originList    = "lists"
)

func (it *item) origin() string {
	if it.network {
		return originNetwork
	}
	return originList
}

func (it *item) remedy() muster.Remedy {
	if it.captcha {
		return muster.RemedyCaptcha
	}
	return muster.RemedyBan
}

// scope is spelled as an engine's local API spells it.
func (it *item) scope() string {
	if it.source.IsRange() {
		return "Range"
	}
	return "Ip"
}

// appendDecision appends an item as a decision. Bouncers need all six strings.
// The duration is what is left at now, negative for what has ended.
func appendDecision(b []byte, it *item, now time.Time) []byte {
	b = append(b, `{"duration":"`...)
	b = appendSeconds(b, it.until-now.Unix())
	b = append(b, `","id":`...)
	var key [muster.SourceSize]byte
	b = strconv.AppendUint(b, xxh3.Hash(it.source.AppendBinary(key[:0]))>>11|1, 10) // within what a double holds
	b = append(b, `,"origin":"`...)
	b = append(b, it.origin()...)
	b = append(b, `","scenario":`...)
	scenario := it.scenario
	if scenario == "" {
		scenario = muster.CommunityList
	}
	b = appendString(b, scenario)
	b = append(b, `,"scope":"`...)
	b = append(b, it.scope()...)
	b = append(b, `","type":"`...)
	b = append(b, it.remedy()...)
	b = append(b, `","value":"`...)
	if it.source.IsRange() {
		b = it.source.Prefix().AppendTo(b)
	} else {
		b = it.source.Addr().AppendTo(b)
	}
	return append(b, `"}`...)
}

// appendSeconds appends a duration as Go writes it: 47h59m2s.
func appendSeconds(b []byte, seconds int64) []byte {
	if seconds < 0 {
		b, seconds = append(b, '-'), -seconds
	}
	h, m := seconds/3600, seconds/60%60
	if h > 0 {
		b = append(strconv.AppendInt(b, h, 10), 'h')
	}
	if h > 0 || m > 0 {
		b = append(strconv.AppendInt(b, m, 10), 'm')
	}
	return append(strconv.AppendInt(b, seconds%60, 10), 's')
}

// appendString appends a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			text, err := json.Marshal(s)
			if err != nil {
				panic(err) // strings always have a JSON form
			}
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// filter is what a bouncer wants to know of, as an engine's local API takes it.
type filter struct {
	noIPs, noRanges bool
	origins         []string
	with, without   []string // parts of scenarios, in lower case
	remedy          string
}

// parseFilter reads a query. scopes are addresses and ranges unless they are
// given.
func parseFilter(q url.Values) filter {
	f := filter{
		origins: words(q.Get("origins")), remedy: strings.TrimSpace(q.Get("type")),
		with: words(strings.ToLower(q.Get("scenarios_containing"))), without: words(strings.ToLower(q.Get("scenarios_not_containing"))),
	}
	if scopes := words(q.Get("scopes")); len(scopes) > 0 {
		f.noIPs, f.noRanges = true, true
		for _, scope := range scopes {
			f.noIPs = f.noIPs && !strings.EqualFold(scope, "ip")
			f.noRanges = f.noRanges && !strings.EqualFold(scope, "range")
		}
	}
	return f
}

func words(text string) []string {
	if text == "" {
		return nil
	}
	var list []string
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.TrimSpace(word); word != "" {
			list = append(list, word)
		}
	}
	return list
}

// passes reports whether a bouncer wants to know of an item.
func (f *filter) passes(it *item) bool {
	if it.source.IsRange() && f.noRanges || !it.source.IsRange() && f.noIPs {
		return false
	}
	if f.remedy != "" && !strings.EqualFold(f.remedy, string(it.remedy())) {
		return false
	}
	if len(f.origins) > 0 && !f.fromOrigin(it) {
		return false
	}
	if len(f.with) == 0 && len(f.without) == 0 {
		return true
	}
	scenario := strings.ToLower(it.scenario)
	for _, part := range f.without {
		if strings.Contains(scenario, part) {
			return false
		}
	}
	for _, part := range f.with {
		if strings.Contains(scenario, part) {
			return true
		}
	}
	return len(f.with) == 0
}

// fromOrigin takes "lists" for all lists, and "lists:NAME" for one.
func (f *filter) fromOrigin(it *item) bool {
	for _, origin := range f.origins {
		name, ok := strings.CutPrefix(origin, originList+":")
		if strings.EqualFold(origin, it.origin()) || ok && !it.network && name == it.scenario {
			return true
		}
	}
	return false
}
