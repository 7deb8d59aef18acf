package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"

	"muster/internal/swarm"
)

// benchCmd measures a server under the load of simulated engines.
type benchCmd struct {
	Kind string `arg:"" enum:"ingest,pull,login,heartbeat,abuse,verdict,sources" help:"What the engines do: ingest, pull, login, heartbeat or abuse; or what is measured: verdict, sources."`

	URL        string `help:"Measure a Muster that runs on this machine, instead of one started for it. Needs --key. Leaves its machines and signals there." placeholder:"URL"`
	Key        string `help:"Enrolment key of that Muster, made with muster admin key create --accept; verdict: several of different organisations, with commas between." env:"MUSTER_ENROLMENT_KEY" placeholder:"KEY"`
	PID        int    `name:"pid" help:"Process of that Muster, to read what it uses." placeholder:"PID"`
	MetricsURL string `help:"Metrics page of that Muster, to read what it uses, as far as --pid does not." placeholder:"URL"`

	Watchers    int           `help:"Simulated engines (default 100; abuse: 1000 good ones)." placeholder:"N"`
	Connections int           `help:"Requests at a time (default 32; abuse: 64 of banned ones; verdict, sources: 16)." placeholder:"N"`
	Batch       int           `help:"Signals per request (ingest, verdict, default 50; sources: 500)." placeholder:"N"`
	List        int           `help:"Addresses in each answer (pull)." default:"15000"`
	Published   int           `help:"Addresses on the community list of the server that is started (pull)." default:"50000"`
	Footprints  int           `help:"Different sets of scenarios that the engines of that server have (pull)." default:"200"`
	Sources     int           `help:"Different addresses that are reported (ingest, verdict, default 50000; sources: 1000000)." placeholder:"N"`
	Skew        float64       `help:"Exponent of their popularity, over 1 (ingest, verdict)." default:"1.1"`
	Pace        int           `help:"Requests per second that the good engines make together (abuse, default 500); signals per second (verdict: 5000; sources: as many as are taken)." placeholder:"N"`
	Orgs        int           `help:"Organisations that report (verdict)." default:"10"`
	Attackers   int           `help:"Fresh addresses that get convicted (verdict)." default:"200"`
	Voices      int           `help:"Machines that report each attacker, of different organisations (verdict, default 2), or each source, of one (sources, default 1)." placeholder:"N"`
	Fleet       string        `help:"Fleet policy of that one (sources)." enum:"off,hub,all" default:"hub"`
	Abusers     int           `help:"Addresses that get banned (abuse)." default:"16"`
	Forged      *int          `help:"Clients that log in through a proxy, each from another forged address (abuse; default 1000000, none with --url). With --url that server must trust 127.0.0.1 as a proxy." placeholder:"N"`
	ForgedTime  time.Duration `help:"Time after which they stop (abuse)." default:"120s"`
	Duration    time.Duration `help:"Time measured (default 10s; verdict: 20s); abuse: each with and without the banned ones." placeholder:"TIME"`
	Warmup      time.Duration `help:"Load before it." default:"2s"`
	Env         []string      `help:"Setting for the server that is started, as NAME=VALUE; may be repeated." placeholder:"MUSTER_…=VALUE" sep:"none"`
	JSON        bool          `name:"json" help:"Print one JSON object."`
}

// Help is shown by muster bench --help.
func (benchCmd) Help() string {
	return `Starts a Muster of its own in an empty directory, lets simulated engines work
against it over HTTP, prints what that took, and removes everything again.
Servers on other machines are refused.

The loop is closed: every connection waits for its answer before it sends again.
The rate of ingest counts signals, all others requests. The engines share the
processors with the server; the last column says how much they took.

pull starts that Muster with --published addresses on its community list; each
engine gets --list of them, chosen by one of --footprints sets of scenarios. With
--url the addresses are reported first, and come by the fleet list.

abuse is another measurement: good engines, each with a loopback address of its
own, work at a fixed pace, alone and beside banned ones that retry as fast as
they are refused; their latencies count from when a request was due. Then log-ins
from forged addresses come through a trusted proxy, and the server's memory is
watched. It needs Linux, where all of 127.0.0.0/8 is on the loopback interface.

verdict measures how long it takes from the report that convicts an attacker to
the first pull that names it, beside a steady load. In a network of up to ten
organisations two of them convict; more need more voices (docs/consensus.md).

sources has many different addresses reported, waits until all are judged, and
says what memory and disk that takes, and how long a start with them. It starts
its server twice, so it takes none by --url.

With --url all engines but those of abuse come from 127.0.0.1, which that server
bans for its many log-ins unless it is told not to, with: muster admin override
add --address 127.0.0.0/8 --exempt --reason bench --for 1h. abuse needs the limits
instead, and leaves bans of addresses in 127.200.0.0/16.

Examples:
  muster bench ingest
  muster bench pull --connections 64 --json
  muster bench login --url http://127.0.0.1:8600 --key KEY --pid 4711
  muster bench abuse --forged 100000
  muster bench verdict --pace 10000
  muster bench sources --voices 2 --fleet off`
}

// measured is what a run comes to.
type measured interface{ WriteTable(io.Writer) error }

func (c *benchCmd) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var progress func(swarm.Progress)
	if isatty.IsTerminal(os.Stderr.Fd()) {
		progress = showProgress
		defer fmt.Fprint(os.Stderr, clearLine)
	}
	res, err := c.measure(ctx, progress)
	if err != nil {
		return err
	}
	if progress != nil {
		fmt.Fprint(os.Stderr, clearLine)
	}
	return c.print(os.Stdout, res)
}

func (c *benchCmd) print(w io.Writer, res measured) error {
	if c.JSON {
		return json.NewEncoder(w).Encode(res)
	}
	return res.WriteTable(w)
}

const clearLine = "\r\x1b[K"

func showProgress(p swarm.Progress) {
	fmt.Fprintf(os.Stderr, clearLine+"%s %.0fs  %.0f %s  %d errors", p.Phase, p.Elapsed.Seconds(), p.Rate, p.Unit, p.Errors)
}

func (c *benchCmd) measure(ctx context.Context, progress func(swarm.Progress)) (measured, error) {
	if c.URL == "" {
		return c.measureOwn(ctx, progress)
	}
	on := benched{url: c.URL, key: c.Key, progress: progress}
	switch {
	case c.Key == "":
		return nil, errors.New("--url needs --key: make one there with muster admin key create --accept")
	case len(c.Env) > 0:
		return nil, errors.New("--env is for the server that is started: it has no effect with --url")
	case c.PID != 0:
		on.usage, on.rss = swarm.ProcessUsage(c.PID), processRSS(c.PID)
	case c.MetricsURL != "":
		on.usage, on.rss = swarm.MetricsUsage(c.MetricsURL), func() (int64, error) { return swarm.MetricsRSS(c.MetricsURL) }
	}
	switch swarm.Kind(c.Kind) {
	case swarm.Abuse:
		return on.abuse(ctx, c, 0)
	case swarm.Verdict:
		return on.verdict(ctx, c, strings.Split(c.Key, ","))
	case swarm.Live:
		return nil, errors.New("sources takes no --url: it stops its server and starts it again")
	default:
		return on.run(ctx, c)
	}
}

func (c *benchCmd) abuse() bool { return c.Kind == string(swarm.Abuse) }

// benched is a server that is measured.
type benched struct {
	url, key string
	usage    func() (swarm.Usage, error)
	rss      func() (int64, error)
	progress func(swarm.Progress)
	// published says that its community list was filled for the measurement.
	published bool
}

func (b *benched) run(ctx context.Context, c *benchCmd) (*swarm.Result, error) {
	cfg := swarm.Config{
		Kind: swarm.Kind(c.Kind), URL: b.url, Key: b.key, Usage: b.usage, Progress: b.progress,
		Watchers: c.Watchers, Connections: c.Connections, Batch: c.Batch, List: c.List,
		Sources: c.Sources, Skew: c.Skew, Duration: c.Duration, Warmup: c.Warmup,
	}
	if cfg.Connections == 0 {
		cfg.Connections = 32
	}
	if b.published {
		cfg.Published, cfg.Footprints = true, footprints(max(c.Footprints, 1))
		if cfg.Watchers == 0 {
			cfg.Watchers = max(100, c.Footprints)
		}
	}
	res, err := swarm.Run(ctx, cfg)
	return &res, err
}

// abuse forges as many clients as asked, or else forged.
func (b *benched) abuse(ctx context.Context, c *benchCmd, forged int) (*swarm.AbuseResult, error) {
	if c.Forged != nil {
		forged = *c.Forged
	}
	res, err := swarm.RunAbuse(ctx, swarm.AbuseConfig{
		URL: b.url, Key: b.key, Usage: b.usage, RSS: b.rss, Progress: b.progress,
		Watchers: c.Watchers, Pace: c.Pace, Abusers: c.Abusers, Connections: c.Connections,
		Duration: c.Duration, Warmup: c.Warmup, Forged: forged, ForgedTime: c.ForgedTime,
	})
	return &res, err
}

func (b *benched) verdict(ctx context.Context, c *benchCmd, keys []string) (*swarm.VerdictResult, error) {
	res, err := swarm.RunVerdict(ctx, swarm.VerdictConfig{
		URL: b.url, Keys: keys, Usage: b.usage, Progress: b.progress,
		Watchers: c.Watchers, Connections: c.Connections, Pace: c.Pace, Batch: c.Batch, Sources: c.Sources, Skew: c.Skew,
		Attackers: c.Attackers, Voices: c.Voices, Duration: c.Duration, Warmup: c.Warmup,
	})
	return &res, err
}

func processRSS(pid int) func() (int64, error) {
	return func() (int64, error) { return swarm.CurrentRSS(pid) }
}

const (
	idleTime  = time.Second      // a server is let alone before its idle memory is read
	drainTime = 60 * time.Second // and this long to count what it accepted
	forged    = 1_000_000        // clients, when nothing else is said
)

// settings are those of a server that is started: all engines but those of
// abuse have one address, which must not be banned for their many log-ins.
func (c *benchCmd) settings() []string {
	first := "MUSTER_RATELIMIT__EXEMPT=127.0.0.0/8"
	if c.abuse() {
		first = "MUSTER_PROXIES__TRUSTED=127.0.0.1"
	}
	set := []string{first}
	if c.Kind == string(swarm.Pull) {
		set = append(set, fmt.Sprintf("MUSTER_LISTS__TIERS__PREMIUM__SIZE=%d", c.List)) // organisations begin with the plan ENTERPRISE
	}
	return append(set, c.Env...)
}

// measureOwn starts a server for the run and removes all of it afterwards.
func (c *benchCmd) measureOwn(ctx context.Context, progress func(swarm.Progress)) (res measured, err error) {
	if c.PID != 0 || c.MetricsURL != "" {
		return nil, errors.New("--pid and --metrics-url are for a server that runs already: expected --url with them")
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "muster-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if c.Kind == string(swarm.Pull) {
		if err := c.publish(ctx, filepath.Join(dir, "data")); err != nil {
			return nil, err
		}
	}
	server, err := swarm.StartServer(ctx, swarm.ServerConfig{Binary: self, DataDir: filepath.Join(dir, "data"), Env: c.settings()})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()

	select {
	case <-time.After(idleTime):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ready := float64(server.Ready.Microseconds()) / 1000
	on := benched{url: server.URL, usage: swarm.ProcessUsage(server.PID()), rss: processRSS(server.PID()), progress: progress}
	idle, idleErr := on.rss()
	if on.key, err = server.EnrolmentKey(ctx); err != nil {
		return nil, err
	}
	switch swarm.Kind(c.Kind) {
	case swarm.Pull:
		on.published = true
	case swarm.Abuse:
		res, err := on.abuse(ctx, c, forged)
		res.Ready = &ready
		return res, err
	case swarm.Verdict:
		keys, err := c.organisations(ctx, server)
		if err != nil {
			return nil, err
		}
		res, err := on.verdict(ctx, c, keys)
		res.Ready = &ready
		return res, err
	case swarm.Live:
		return c.live(ctx, server, progress)
	default: // they need nothing beside
	}
	figures, err := on.run(ctx, c)
	if err != nil {
		return nil, err
	}
	figures.Ready = &ready
	if idleErr == nil {
		figures.IdleRSS = &idle
	}
	c.drain(ctx, server, figures)
	return figures, nil
}

// organisations makes those that report and one that reads, and a key of each.
func (c *benchCmd) organisations(ctx context.Context, server *swarm.Server) ([]string, error) {
	if c.Orgs < 1 || c.Orgs > 1000 {
		return nil, fmt.Errorf("expected --orgs of 1 to 1,000, got %d", c.Orgs)
	}
	keys := make([]string, c.Orgs+1)
	for i := range keys {
		key, err := server.Organisation(ctx, fmt.Sprintf("bench-%d", i), "hub")
		if err != nil {
			return nil, err
		}
		keys[i] = key
	}
	return keys, nil
}

func (c *benchCmd) live(ctx context.Context, server *swarm.Server, progress func(swarm.Progress)) (*swarm.LiveResult, error) {
	key, err := server.Organisation(ctx, "bench", c.Fleet)
	if err != nil {
		return nil, err
	}
	res, err := swarm.RunLive(ctx, swarm.LiveConfig{
		Server: server, Key: key, Progress: progress,
		Sources: c.Sources, Voices: c.Voices, Connections: c.Connections, Batch: c.Batch, Pace: c.Pace,
	})
	return &res, err
}

// drain sees how far judging was behind, and how long it takes to catch up. A
// server that does not tell is no failure.
func (c *benchCmd) drain(ctx context.Context, server *swarm.Server, res *swarm.Result) {
	if c.Kind != string(swarm.Ingest) {
		return
	}
	lag, err := server.Lag(ctx)
	if err != nil {
		return
	}
	res.Backlog = &lag
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	if took, err := server.AwaitCounted(ctx); err == nil {
		seconds := took.Seconds()
		res.Drain = &seconds
	}
}
