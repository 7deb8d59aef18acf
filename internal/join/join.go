package join

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// DefaultConfig is where packages put an engine's configuration.
const DefaultConfig = "/etc/crowdsec/config.yaml"

// Options says what to join, and with what.
type Options struct {
	URL         string   // Muster's address as this machine reaches it
	Key         string   // enrolment key; "" registers only
	Config      string   // the engine's config.yaml; "" = DefaultConfig
	Credentials string   // the engine's online_api_credentials.yaml; "" = as its configuration says
	Name        string   // shown to people; "" = host name
	Tags        []string // labels for the machine
	Overwrite   bool     // enrol a machine again that is enrolled already
	DryRun      bool     // look and ask, but register and write nothing
	Cscli       string   // asked for the engine's version; "" = assume a current one
	NoPAPI      bool     // leave papi_url out whatever cscli says

	Out    io.Writer        // told what happened; nil = nowhere
	Now    func() time.Time // nil = time.Now
	Random io.Reader        // nil = crypto/rand
	HostID string           // 32 hex digits that begin a new machine's id; "" = from /etc/machine-id
}

func (o *Options) setDefaults() {
	if o.Config == "" {
		o.Config = DefaultConfig
	}
	if o.Name == "" {
		o.Name, _ = os.Hostname()
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Random = randomSource(o.Random)
}

// Join registers the engine, enrols it when there is a key, and writes its
// credentials. Credentials that name this address already are used again. When
// a step fails nothing is written, and the error says what to do.
func Join(ctx context.Context, o Options) error {
	o.setDefaults()
	base, err := NormaliseURL(o.URL)
	if err != nil {
		return err
	}
	path := o.Credentials
	if path == "" {
		if path, err = credentialsPath(o.Config); err != nil {
			return err
		}
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	old, err := ReadCredentials(path)
	if err != nil {
		return err
	}
	cred, known, err := account(ctx, o, base, old)
	if err != nil {
		return err
	}
	say(o.Out, "Muster:  %s\n", base)
	say(o.Out, "Engine:  %s\n", path)
	say(o.Out, "Machine: %s (%s)\n", cred.Login, map[bool]string{true: "in use already", false: "new"}[known])
	warn(o.Out, base, cred)

	c, err := newClient(base, o)
	if err != nil {
		return err
	}
	if err := c.reach(ctx); err != nil {
		return err
	}
	if o.DryRun {
		say(o.Out, "\nA Central API answers. Nothing was registered or written (dry run).\n")
		return nil
	}
	file, err := replace(path)
	if err != nil {
		return err
	}
	defer file.discard()

	s, err := signIn(ctx, o.Out, c, cred, known)
	if err != nil {
		return err
	}
	if err := enrol(ctx, o, c, cred, s); err != nil {
		return err
	}
	if cred == old {
		say(o.Out, "%s needs no change.\n", path)
	} else if err := write(o, file, cred, !known); err != nil {
		return err
	}
	nextSteps(o.Out)
	return nil
}

// account returns the machine's credentials for base, and whether they were in
// use before.
func account(ctx context.Context, o Options, base string, old Credentials) (cred Credentials, known bool, err error) {
	if at, err := NormaliseURL(old.URL); err == nil && at == base {
		cred, known = old, true
	} else if cred, err = newCredentials(o.Random, o.HostID); err != nil {
		return Credentials{}, false, err
	}
	cred.URL, cred.PapiURL = base, base
	if o.NoPAPI || !speaksPAPI(ctx, o.Cscli) {
		cred.PapiURL = ""
	}
	return cred, known, nil
}

func warn(out io.Writer, base string, cred Credentials) {
	u, err := url.Parse(base)
	if err != nil {
		return
	}
	if inTheClear(u) {
		say(out, "Note:    http:// to another machine can be read on the way, the password too; use https:// outside a network that you trust.\n")
	}
	switch {
	case cred.PapiURL == "":
		say(out, "Note:    papi_url is left out: engines before 1.5 do not start with it, and take no orders.\n")
	case u.Path != "/":
		say(out, "Note:    engines poll for orders without the prefix: let %s://%s/v1/ reach Muster too.\n", u.Scheme, u.Host)
	}
}

// signIn logs in, registering first when the server does not know the machine.
func signIn(ctx context.Context, out io.Writer, c *client, cred Credentials, known bool) (session, error) {
	if known {
		s, err := c.login(ctx, cred)
		var no *refusal
		if err == nil || !errors.As(err, &no) || no.answer.status != http.StatusUnauthorized && no.answer.status != http.StatusForbidden {
			return s, err
		}
		// The server may have been set up anew: it gets the same machine again.
		if c.register(ctx, cred) != nil {
			return session{}, fmt.Errorf("%w; the engine's present credentials are for this address, but it does not take them: move the file away to make new ones", err)
		}
		say(out, "Registered again: the server did not know the machine.\n")
		return c.login(ctx, cred)
	}
	if err := c.register(ctx, cred); err != nil {
		return session{}, err
	}
	say(out, "Registered.\n")
	return c.login(ctx, cred)
}

// enrol uses the key, and says how the machine stands afterwards.
func enrol(ctx context.Context, o Options, c *client, cred Credentials, s session) error {
	if o.Key == "" {
		if s.enrolled {
			say(o.Out, "It is enrolled (plan %s).\n", s.plan)
		} else {
			say(o.Out, "It is not enrolled, so nothing that it reports counts. Run this again with --key, or: cscli console enroll KEY\n")
		}
		return nil
	}
	did, err := c.enroll(ctx, s, o.Name, o.Tags, o.Overwrite)
	if err != nil {
		return err
	}
	// Only a token from after the enrolment tells whether it was accepted.
	if s, err = c.login(ctx, cred); err != nil {
		return err
	}
	labels := ""
	if len(o.Tags) > 0 {
		labels = ", tags " + strings.Join(o.Tags, ", ")
	}
	switch {
	case !did && s.enrolled:
		say(o.Out, "It was enrolled before (plan %s). To move it, use --overwrite.\n", s.plan)
	case s.enrolled:
		say(o.Out, "Enrolled as %s%s (plan %s).\n", o.Name, labels, s.plan)
	default:
		say(o.Out, "Enrolled as %s%s. A person must accept it before its reports count: on the server, muster admin machine accept %s\n", o.Name, labels, cred.Login)
	}
	return nil
}

// write puts the credentials in place. Those of another Central API are kept
// for Leave; an older form of these is not.
func write(o Options, file *replacement, cred Credentials, keep bool) error {
	text, err := yaml.Marshal(cred)
	if err != nil {
		return err
	}
	backup := ""
	if keep {
		if backup, err = file.keep(o.Now()); err != nil {
			return err
		}
	}
	if err := file.commit(text); err != nil {
		if backup != "" {
			os.Remove(backup)
		}
		return err
	}
	say(o.Out, "Wrote %s", file.path)
	if backup != "" {
		say(o.Out, "; the file before it is %s", backup)
	}
	say(o.Out, ".\n")
	return nil
}

// nextSteps: an engine keeps its last token in its database and uses it after
// a restart; cscli capi status fetches and stores a new one.
func nextSteps(out io.Writer) {
	say(out, `
Now let the engine take it over:
  cscli capi status && systemctl restart crowdsec
or, for a container:
  docker exec NAME cscli capi status && docker restart NAME
`)
}

// say writes for people; a terminal that went away is no reason to stop.
func say(out io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(out, format, args...)
}
