// Package doctor examines what is on this machine, an engine, a Muster or both,
// and says what is wrong, how that is known, and what to do. It changes nothing,
// spends no login and prolongs no ban.
//
// Each check is a function from what was read to what was found.
package doctor

import (
	"cmp"
	"context"
	"slices"
	"time"

	"muster"
	"muster/internal/upstream"
)

// The kinds of Finding that only an examination of this machine gives.
const (
	Banned              muster.FindingKind = "banned"                // the Central API refuses this address
	RetryingWhileBanned muster.FindingKind = "retrying-while-banned" // which prolongs the ban
	ManyLogins          muster.FindingKind = "many-logins"           // close to a ban
	EngineEnded         muster.FindingKind = "engine-ended"          // by itself
	LoginRefused        muster.FindingKind = "login-refused"         // the credentials are not taken
	NoCredentials       muster.FindingKind = "no-credentials"        // missing or unusable
	ForeignPolling      muster.FindingKind = "foreign-polling"       // the engine shows its token to CrowdSec's polling API
	NoEngineLog         muster.FindingKind = "no-engine-log"         // nothing to read what happened from
	ClockSkew           muster.FindingKind = "clock-skew"            // durations and tokens go wrong
	Unreachable         muster.FindingKind = "unreachable"           // no answer
	NotACentralAPI      muster.FindingKind = "not-a-central-api"     // an answer, but another kind of server
	UnhealthyServer     muster.FindingKind = "unhealthy-server"      // a health check of the server fails
	UnreadableFindings  muster.FindingKind = "unreadable-findings"   // the server does not tell what it found
)

// Options says what to examine.
type Options struct {
	Config      string // the engine's config.yaml; "" = join.DefaultConfig, if it is there
	Credentials string // its online_api_credentials.yaml; "" = as its configuration says
	Log         string // its log; "" = as its configuration says, else the journal
	// Journal returns the newest lines of the engine's journal. nil: there is none.
	Journal func(context.Context) ([]byte, error)
	// Server asks the Muster of this machine. nil: there is none.
	Server Server
	HTTP   *upstream.Client // for the engine's Central API; nil: a client that tries once
	Now    func() time.Time // nil = time.Now
}

// Report is the result of an examination.
type Report struct {
	Sections []Section `json:"sections"`
}

// Section is what was found out about one thing.
type Section struct {
	Name     string           `json:"name"`  // "engine", "central API" or "server"
	About    string           `json:"about"` // its configuration file or address
	OK       []string         `json:"ok"`    // what is as it should be
	Findings []muster.Finding `json:"findings"`
}

// The sections.
const (
	engineSection  = "engine"
	centralSection = "central API"
	serverSection  = "server"
)

func newSection(name, about string) Section {
	return Section{Name: name, About: about, OK: []string{}, Findings: []muster.Finding{}} // lists in JSON, never null
}

func (s *Section) ok(line string) { s.OK = append(s.OK, line) }

func (s *Section) found(f ...muster.Finding) { s.Findings = append(s.Findings, f...) }

// check adds what a check found, and line, if that is not empty, when it found
// nothing.
func (s *Section) check(line string, found []muster.Finding) {
	s.found(found...)
	if len(found) == 0 && line != "" {
		s.ok(line)
	}
}

// Examine examines. It fails only when there is nothing to examine, or not what
// was asked for.
func Examine(ctx context.Context, o Options) (Report, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.HTTP = cmp.Or(o.HTTP, upstream.NewClient(upstream.ClientConfig{Tries: 1, Now: o.Now}))
	var r Report
	e, err := findEngine(o)
	if err != nil {
		return Report{}, err
	}
	if e != nil {
		// The Central API comes second in the report, but knows better than the
		// log whether a ban is over.
		cred, credErr := e.credentials()
		var central Section
		var standing *upstream.Standing
		if cred.URL != "" {
			central, standing = examineCentral(ctx, o, cred)
		}
		r.Sections = append(r.Sections, e.examine(ctx, o, cred, credErr, standing))
		if cred.URL != "" {
			r.Sections = append(r.Sections, central)
		}
	}
	if o.Server != nil {
		r.Sections = append(r.Sections, examineServer(ctx, o.Server))
	}
	if len(r.Sections) == 0 {
		return Report{}, muster.Errorf(muster.NotFound, "there is neither an engine nor a Muster on this machine: name the engine's configuration (--engine-config FILE, for a container --config-dir DIR), its log (--engine-log FILE), or Muster's data directory (--data-dir DIR)")
	}
	r.sort()
	return r, nil
}

// sort puts the worst findings of each section first.
func (r Report) sort() {
	rank := []muster.Severity{muster.Critical, muster.Warning, muster.Info}
	for _, s := range r.Sections {
		slices.SortStableFunc(s.Findings, func(a, b muster.Finding) int {
			return cmp.Compare(slices.Index(rank, a.Severity), slices.Index(rank, b.Severity))
		})
	}
}
