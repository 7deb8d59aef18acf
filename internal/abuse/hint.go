package abuse

import (
	"fmt"

	"muster"
)

// Hint is a finding without whatever could name a machine, an organisation or an
// address that is not the reader's: others may be behind the same address. It is
// worded here by kind and count alone; nothing of a finding's own text is in it.
type Hint struct {
	Kind     muster.FindingKind `json:"kind"`
	Severity muster.Severity    `json:"severity"`
	Summary  string             `json:"summary"`
	Fix      string             `json:"fix"`
}

// hints words findings for strangers. Kinds that it does not know are not shown.
var hints = map[muster.FindingKind]struct{ summary, fix string }{
	muster.SharedCredentials: {
		"The credentials of an engine at this address are in use at %d addresses at once.",
		"Register every engine by itself (cscli capi register, or muster join, on each machine) and do not copy online_api_credentials.yaml.",
	},
	muster.RestartLoop: {
		"An engine at this address logged in %d times with next to no work in between: it restarts again and again.",
		"See why it stops (journalctl -u crowdsec -n 100, or docker logs), stop it until that is mended, and keep /var/lib/crowdsec/data, where its token is, on a volume.",
	},
	muster.StatusProbe: {
		"An engine at this address logged in %d times at a short, steady interval: a health check does that.",
		"Let the health check run cscli lapi status instead of cscli capi status.",
	},
	muster.SharedAddress: {
		"%d engines are behind this address.",
		"Let them share one local API, or ask the server's administrator for an allowance for this address.",
	},
	muster.UntrustedProxy: {
		"%d requests came from this address on behalf of others: it is a proxy that the server does not trust to name its clients.",
		"Ask the server's administrator to add the proxy to the trusted ones, or connect without it.",
	},
}

// HintOf words a finding for strangers; false for a kind that it does not know.
func HintOf(f muster.Finding) (Hint, bool) {
	words, known := hints[f.Kind]
	return Hint{f.Kind, f.Severity, fmt.Sprintf(words.summary, f.Count), words.fix}, known
}
