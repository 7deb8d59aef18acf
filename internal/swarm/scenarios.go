package swarm

import (
	"strconv"
	"strings"
)

// scenario is a hub scenario as engines name it, with the real digest of that
// version's file, so that a server that checks hashes against the hub counts
// its signals.
type scenario struct {
	name, version, hash string
	web                 bool // context is that of HTTP scenarios, else of brute force
}

var scenarios = []scenario{
	{"crowdsecurity/ssh-bf", "0.3", "242f36684d66bbae3044e576b7cfffef62d5323465f3f74f87923167c6d93356", false},
	{"crowdsecurity/ssh-slow-bf", "0.4", "892f9a153c4dafb5392ba40d70616e88896571be8f4cc00996e7f5e8277c869e", false},
	{"crowdsecurity/ssh-time-based-bf", "0.3", "fb88c62f3b5f169bcadbfb524e839dc79e97f48cce912d190997013535e990da", false},
	{"crowdsecurity/http-probing", "0.4", "4b16f896af400e006c28b1476bf5989c748186f2b3756ed9ad7d1559480d278c", true},
	{"crowdsecurity/http-crawl-non_statics", "0.7", "9f235ae2116031a2b7a64da1e3ff5356b5f4fb91078de1c78bc30e0edb734dfb", true},
	{"crowdsecurity/http-sensitive-files", "0.4", "cb798582ed9a3bd090d47234bef4ca2169982c44e356e88f101ec6b6a8424676", true},
	{"crowdsecurity/http-bad-user-agent", "1.2", "7ca405d1147762b1f488bc0f13575c5af8081499c8a5c2971d706e8b03493671", true},
	{"crowdsecurity/http-path-traversal-probing", "0.4", "9d1b1e29018434aff77cec852ce7d0444e37b893995bd9bf46e7595f53ac5e6a", true},
	{"crowdsecurity/http-cve-2021-41773", "0.3", "f3fa755209fab221d6bbe04abd835c6539034cd72521725f960cdb36157e4313", true},
	{"crowdsecurity/http-admin-interface-probing", "0.5", "a8b0428674913507f3a356bba0e17541df731682dd2376a5495c4c76a60b8813", true},
	{"crowdsecurity/http-wordpress-scan", "0.4", "45095acfe0362caf57e98bc72a60d2ac43f9325d5e6fbdbfa7cfd8b65515e767", true},
	{"crowdsecurity/CVE-2017-9841", "0.2", "a9421e42d85c3f1aab40ef09aaa0261db42f34c5d95986d6a67c9db8b577889e", true},
}

// optional scenarios are declared by some watchers and never fire, so that
// footprints differ: eight of them in all.
var optional = []string{
	"crowdsecurity/grafana-cve-2021-43798",
	"crowdsecurity/postfix-spam",
	"crowdsecurity/thinkphp-cve-2018-20062",
}

// footprint returns the scenarios that watcher i declares, as a JSON array.
func footprint(i int) string {
	var b strings.Builder
	b.WriteByte('[')
	for n, s := range scenarios {
		if n > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"` + s.name + `"`)
	}
	for n, name := range optional {
		if i>>n&1 == 1 {
			b.WriteString(`,"` + name + `"`)
		}
	}
	b.WriteByte(']')
	return b.String()
}

// Contexts as engines send them: each value is a JSON array in a string.
var (
	bruteContexts = []string{
		`{"key":"target_user","value":"[\"root\"]"}`,
		`{"key":"target_user","value":"[\"admin\",\"oracle\",\"postgres\",\"test\",\"ubuntu\",\"git\"]"}`,
		`{"key":"target_user","value":"[\"user1\",\"user2\",\"user3\",\"user4\",\"ftpuser\",\"deploy\"]"}`,
		`{"key":"target_user","value":"[\"pi\",\"hadoop\",\"jenkins\",\"minecraft\",\"steam\",\"www\"]"}`,
	}
	webContexts = []string{
		`{"key":"method","value":"[\"GET\"]"},{"key":"status","value":"[\"404\"]"},{"key":"target_uri","value":"[\"/.env\",\"/.git/config\"]"}`,
		`{"key":"method","value":"[\"POST\"]"},{"key":"status","value":"[\"403\"]"},{"key":"target_uri","value":"[\"/wp-login.php\",\"/xmlrpc.php\"]"}`,
		`{"key":"target_uri","value":"[\"/cgi-bin/.%2e/.%2e/.%2e/bin/sh\"]"},{"key":"user_agent","value":"[\"Go-http-client/1.1\"]"}`,
		`{"key":"target_uri","value":"[\"/vendor/phpunit/src/Util/PHP/eval-stdin.php\"]"},{"key":"user_agent","value":"[\"curl/7.88.1\"]"}`,
	}
)

// sureForm is the place in forms of one of ssh-bf, of which the hub says that it
// is certain and cannot be forged.
const sureForm = 0

// form is one kind of signal, cut where the parts that change come in.
type form struct {
	toDecision string // up to the decision's uuid
	toMessage  string // after machine_id, up to the address in the message
	toSpan     string // up to the milliseconds that the events took
	toSource   string // after the message's time, up to the source
}

var forms = func() []form {
	var all []form
	for i, s := range scenarios {
		contexts := bruteContexts
		if s.web {
			contexts = webContexts
		}
		for _, c := range contexts {
			all = append(all, form{
				toDecision: `{"context":[` + c + `],"decisions":[{"duration":"4h","id":0,"origin":"crowdsec","scenario":"` + s.name + `","scope":"Ip","type":"ban","uuid":"`,
				toMessage:  `","message":"Ip `,
				toSpan:     ` performed '` + s.name + `' (` + strconv.Itoa(5+i) + ` events over `,
				toSource:   ` +0000 UTC","scenario":"` + s.name + `","scenario_hash":"` + s.hash + `","scenario_trust":"certified","scenario_version":"` + s.version + `","source":`,
			})
		}
	}
	return all
}()
