package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"

	"muster"
	"muster/internal/join"
	"muster/internal/upstream"
)

// engine is where an engine's things are.
type engine struct {
	join.Engine
	config string
	err    error // why its configuration names no credentials
}

// findEngine returns nil when none is on this machine and none was asked for.
func findEngine(o Options) (*engine, error) {
	e := &engine{config: o.Config}
	if o.Config == "" {
		e.config = join.DefaultConfig
	}
	_, missing := os.Stat(e.config)
	switch {
	case errors.Is(missing, fs.ErrNotExist) && o.Config == "" && o.Credentials == "" && o.Log == "":
		return nil, nil
	case errors.Is(missing, fs.ErrNotExist) && o.Config == "":
		e.config = "" // what was named is examined
	default:
		e.Engine, e.err = join.ReadEngine(e.config)
		if missing != nil && o.Config != "" {
			return nil, e.err
		}
	}
	if o.Credentials != "" {
		e.Engine.Credentials, e.err = o.Credentials, nil
	}
	if o.Log != "" {
		e.Log = o.Log
	}
	return e, nil
}

// credentials reads the engine's credentials; they are zero when there are none.
func (e *engine) credentials() (join.Credentials, error) {
	if e.Engine.Credentials == "" {
		return join.Credentials{}, nil
	}
	return join.ReadCredentials(e.Engine.Credentials)
}

// examine returns the engine's section. standing is what its Central API says of
// this address, nil when it does not tell.
func (e *engine) examine(ctx context.Context, o Options, cred join.Credentials, credErr error, standing *upstream.Standing) Section {
	s := newSection(engineSection, e.config)
	switch {
	case e.err != nil:
		s.found(muster.Finding{
			Kind: NoCredentials, Severity: muster.Critical, Count: 1,
			Summary:  "The engine's configuration names no credentials for a Central API.",
			Evidence: lines(e.err.Error()),
			Fix:      "Mend its configuration, or say where the credentials are (--credentials FILE).",
		})
	case e.Engine.Credentials != "":
		s.check("Credentials: machine "+cred.Login+" at "+cred.URL, checkCredentials(e.Engine.Credentials, cred, credErr))
		s.check("", checkPolling(e.Engine.Credentials, cred))
	}
	if text, from, err := e.readLog(ctx, o); err != nil {
		s.found(muster.Finding{
			Kind: NoEngineLog, Severity: muster.Info, Machine: cred.Login, Count: 1,
			Summary:  "The engine's log was not found, so bans and restarts of the past are not seen.",
			Evidence: lines(err.Error()),
			Fix:      "Name it with --engine-log FILE; for a container: docker logs NAME > FILE 2>&1.",
		})
	} else {
		h := scan(text)
		now := o.Now()
		s.ok(fmt.Sprintf("Log: %s, %s", from, h.span()))
		s.check("No ban and no refused login in it.", checkRefusals(h, cred.Login, standing, now))
		s.check("", checkEnd(h, cred.Login))
		s.check("No restart loop.", checkRestarts(h, cred.Login, e.Database, now))
		s.check(fmt.Sprintf("Logins in any 50 minutes of the last day: at most %d (allowed: 20).", h.mostLogins(now)), checkLogins(h, cred.Login, now))
	}
	return s
}

// checkCredentials judges what ReadCredentials returned.
func checkCredentials(path string, c join.Credentials, err error) []muster.Finding {
	f := muster.Finding{
		Kind: NoCredentials, Severity: muster.Critical, Count: 1,
		Summary: "The engine's credentials for its Central API cannot be read.",
		Fix:     "Run this as root.",
	}
	_, bad := url.Parse(c.URL)
	switch {
	case err != nil:
		f.Evidence = lines(err.Error())
	case c == join.Credentials{}:
		f.Summary = "The engine has no usable credentials for a Central API: it reports nothing and gets no blocklist."
		f.Evidence = []string{path + " is missing, or lacks url, login or password"}
		f.Fix = "muster join URL --key KEY"
	case bad != nil || !strings.HasSuffix(c.URL, "/"):
		f.Machine = c.Login
		f.Summary = "The address of the Central API in the engine's credentials is not one that it can use: the engine does not start."
		f.Evidence = []string{path + ": url: " + c.URL}
		f.Fix = "Write it with scheme, host and a slash at the end, or run muster join URL again."
	default:
		return nil
	}
	return []muster.Finding{f}
}

// checkPolling: an engine without papi_url polls CrowdSec's host with whatever
// token it has.
func checkPolling(path string, c join.Credentials) []muster.Finding {
	if c.URL == "" || isCrowdSec(c.URL) || c.PapiURL != "" && !isCrowdSec(c.PapiURL) {
		return nil
	}
	return []muster.Finding{{
		Kind: ForeignPolling, Severity: muster.Info, Machine: c.Login, Count: 1,
		Summary:  "The engine polls CrowdSec's host for orders and shows it this Central API's token (engines from 1.5 on).",
		Evidence: []string{path + ": papi_url is " + map[bool]string{true: "missing", false: c.PapiURL}[c.PapiURL == ""]},
		Fix:      "muster join " + c.URL + " adds papi_url (engines before 1.5 do without it: nothing to do).",
	}}
}

// isCrowdSec reports whether raw is at CrowdSec's own service.
func isCrowdSec(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return false
	}
	host := strings.ToLower(u.Hostname())
	return host == "crowdsec.net" || strings.HasSuffix(host, ".crowdsec.net")
}

// readLog returns the newest part of the engine's log and where it is from.
func (e *engine) readLog(ctx context.Context, o Options) (text []byte, from string, err error) {
	if e.Log != "" {
		text, err = tail(e.Log, maxLog)
		if err == nil || o.Log != "" {
			return text, e.Log, err
		}
	}
	if o.Journal != nil {
		text, journalErr := o.Journal(ctx)
		if journalErr == nil {
			return text, "the journal of crowdsec", nil
		}
		err = errors.Join(err, journalErr)
	}
	if err == nil {
		err = errors.New("the engine logs to its standard output or to syslog, and this machine keeps no journal of it")
	}
	return nil, "", err
}

// lines makes evidence of an error's text.
func lines(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && len(out) < 8 {
			out = append(out, line)
		}
	}
	return out
}

// at writes a time for people.
func at(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }
