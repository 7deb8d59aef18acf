package crowd

import (
	"fmt"
	"strings"
	"time"
)

// Remedy is what readers should do with a listed source.
type Remedy uint8

// The remedies.
const (
	Ban     Remedy = iota
	Captcha        // for shared sources
)

func (r Remedy) String() string {
	if r == Captcha {
		return "captcha"
	}
	return "ban"
}

// Network is the audience of the community list; any other audience is the
// number of the organisation whose fleet it protects.
const Network uint32 = 0

// Verdict is a judgement that differs from the last one for its audience.
type Verdict struct {
	Audience uint32
	Listed   bool
	Remedy   Remedy
	Since    int64 // when it was listed
	Until    int64 // when it lapses without new evidence
	Reasons  Reasons
}

// Rule says what decided a verdict.
type Rule uint8

// The rules.
const (
	Undecided   Rule = iota // not listed: not enough support
	ByCrowd                 // listed: enough independent voices
	ByHoneypot              // listed: a honeypot and enough voices
	ByTopRank               // listed: a machine of the top rank
	ByFleet                 // listed: a machine of the same organisation
	Standing                // listed before; still supported
	Suspicious              // not listed: too little support from machines above suspicion
	Waiting                 // not listed yet: the crowd is lopsided and must wait
	Lapsed                  // ended: nobody reported it for long enough
	Unsupported             // ended: those who supported it lost their trust, or left
	Cleared                 // ended: an unban was granted
	Never                   // never listed: an allowlist, reserved space
	IsCanary                // never listed: known to be good
)

// maxNamed bounds the behaviours that are remembered and named per source.
const maxNamed = 6

// Behaviour is one behaviour of a source, with how often it was reported.
type Behaviour struct {
	Index   uint16
	Reports uint16 // stops at 65535; 0 = there is none
}

// Reasons explains a verdict without naming reporters. Support is in points: a
// machine of full trust that reports a certain behaviour now is worth 4.
type Reasons struct {
	Rule        Rule
	Never       string  // for the rule Never: Facts.Never
	Local       bool    // the network is too young or small for earned trust: local evidence
	Shared      bool    // more was asked for, because many sit behind the source
	Probation   bool    // more was asked for, because an unban was granted lately
	Support     float32 // now
	Threshold   float32 // that a new listing needs
	Diversity   float32 // effective number of groups (inverse Simpson)
	Independent int     // groups above suspicion: AS, organisations while the network is small
	Needed      int     // of those, for a new listing
	Machines    int     // that ever reported it, about; exact up to MaxVoices
	Bands       [6]int  // machines whose word is held as evidence, by rank
	Honeypots   int     // of those, honeypots
	Confirmed   bool    // somebody new saw it after it was listed
	Convictions int     // how often it was listed
	Behaviours  [maxNamed]Behaviour
	First, Last int64 // reports held as evidence
}

// Words tells what decided, in one sentence of English.
func (r *Reasons) Words() string {
	var s string
	switch r.Rule {
	case ByCrowd, ByHoneypot:
		s = fmt.Sprintf("%d independent voices support it with %.1f points (needed: %d with %.1f)", r.Independent, r.Support, r.Needed, r.Threshold)
		if r.Rule == ByHoneypot {
			s += ", a honeypot among them"
		}
	case ByTopRank:
		s = "a machine of the top rank reported it, and another saw it before"
	case ByFleet:
		s = "reported by a machine of the same organisation"
	case Standing:
		s = fmt.Sprintf("was listed and is still supported, with %.1f points", r.Support)
	case Suspicious:
		s = "those who support it shared in doubtful reports lately: voices above suspicion are needed"
	case Waiting:
		s = "many support it from few networks: it waits for contradiction"
	case Lapsed:
		s = "nobody has reported it for long enough"
	case Unsupported:
		s = "the reports that supported it no longer count"
	case Cleared:
		s = "an unban was granted"
	case Never:
		s = r.Never
	case IsCanary:
		s = "known to be good"
	default:
		s = fmt.Sprintf("%d independent voices support it with %.1f points (needed: %d with %.1f)", r.Independent, r.Support, r.Needed, r.Threshold)
	}
	var notes []string
	if r.Local && r.Rule != Never && r.Rule != IsCanary && r.Rule != ByFleet {
		notes = append(notes, "local evidence")
	}
	if r.Shared {
		notes = append(notes, "shared address")
	}
	if r.Probation {
		notes = append(notes, "on probation after an unban")
	}
	if len(notes) > 0 {
		s += " (" + strings.Join(notes, ", ") + ")"
	}
	return s
}

// Span returns the time from the first to the last report.
func (r *Reasons) Span() time.Duration { return time.Duration(r.Last-r.First) * time.Second }
