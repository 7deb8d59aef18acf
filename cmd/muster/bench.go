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
	"syscall"
	"time"

	"github.com/mattn/go-isatty"

	"muster/internal/swarm"
)

// benchCmd measures a server under the load of simulated engines.
type benchCmd struct {
	Kind string `arg:"" enum:"ingest,pull,login,heartbeat" help:"What the engines do: ingest, pull, login or heartbeat."`

	URL        string `help:"Measure a Muster that runs on this machine, instead of one started for it. Needs --key. Leaves its machines and signals there." placeholder:"URL"`
	Key        string `help:"Enrolment key of that Muster, made with muster admin key create --accept." env:"MUSTER_ENROLMENT_KEY" placeholder:"KEY"`
	PID        int    `name:"pid" help:"Process of that Muster, to read what it uses." placeholder:"PID"`
	MetricsURL string `help:"Metrics page of that Muster, to read what it uses, as far as --pid does not." placeholder:"URL"`

	Watchers    int           `help:"Simulated engines." default:"100"`
	Connections int           `help:"Requests at a time." default:"32"`
	Batch       int           `help:"Signals per request (ingest)." default:"50"`
	List        int           `help:"Addresses on the list (pull)." default:"15000"`
	Sources     int           `help:"Different addresses that are reported (ingest)." default:"50000"`
	Skew        float64       `help:"Exponent of their popularity, over 1 (ingest)." default:"1.1"`
	Duration    time.Duration `help:"Time measured." default:"10s"`
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

Examples:
  muster bench ingest
  muster bench pull --connections 64 --json
  muster bench login --url http://127.0.0.1:8600 --key KEY --pid 4711`
}

func (c *benchCmd) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg := swarm.Config{
		Kind: swarm.Kind(c.Kind), URL: c.URL, Key: c.Key,
		Watchers: c.Watchers, Connections: c.Connections, Batch: c.Batch, List: c.List,
		Sources: c.Sources, Skew: c.Skew, Duration: c.Duration, Warmup: c.Warmup,
	}
	if isatty.IsTerminal(os.Stderr.Fd()) {
		cfg.Progress = showProgress
		defer fmt.Fprint(os.Stderr, clearLine)
	}
	res, err := c.measure(ctx, cfg)
	if err != nil {
		return err
	}
	if cfg.Progress != nil {
		fmt.Fprint(os.Stderr, clearLine)
	}
	return c.print(os.Stdout, &res)
}

func (c *benchCmd) print(w io.Writer, res *swarm.Result) error {
	if c.JSON {
		return json.NewEncoder(w).Encode(res)
	}
	return res.WriteTable(w)
}

const clearLine = "\r\x1b[K"

func showProgress(p swarm.Progress) {
	fmt.Fprintf(os.Stderr, clearLine+"%s %.0fs  %.0f %s  %d errors", p.Phase, p.Elapsed.Seconds(), p.Rate, p.Unit, p.Errors)
}

func (c *benchCmd) measure(ctx context.Context, cfg swarm.Config) (swarm.Result, error) {
	if c.URL == "" {
		return c.measureOwn(ctx, cfg)
	}
	switch {
	case c.Key == "":
		return swarm.Result{}, errors.New("--url needs --key: make one there with muster admin key create --accept")
	case len(c.Env) > 0:
		return swarm.Result{}, errors.New("--env is for the server that is started: it has no effect with --url")
	case c.PID != 0:
		cfg.Usage = swarm.ProcessUsage(c.PID)
	case c.MetricsURL != "":
		cfg.Usage = swarm.MetricsUsage(c.MetricsURL)
	}
	return swarm.Run(ctx, cfg)
}

const (
	idleTime  = time.Second      // a server is let alone before its idle memory is read
	drainTime = 60 * time.Second // and this long to count what it accepted
)

// measureOwn starts a server for the run and removes all of it afterwards.
func (c *benchCmd) measureOwn(ctx context.Context, cfg swarm.Config) (res swarm.Result, err error) {
	if c.PID != 0 || c.MetricsURL != "" {
		return res, errors.New("--pid and --metrics-url are for a server that runs already: expected --url with them")
	}
	self, err := os.Executable()
	if err != nil {
		return res, err
	}
	dir, err := os.MkdirTemp("", "muster-bench-")
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := swarm.StartServer(ctx, swarm.ServerConfig{Binary: self, DataDir: filepath.Join(dir, "data"), Env: c.Env})
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()

	ready := float64(server.Ready.Microseconds()) / 1000
	select {
	case <-time.After(idleTime):
	case <-ctx.Done():
		return res, ctx.Err()
	}
	idle, idleErr := swarm.CurrentRSS(server.PID())
	cfg.URL, cfg.Usage = server.URL, swarm.ProcessUsage(server.PID())
	if cfg.Key, err = server.EnrolmentKey(ctx); err != nil {
		return res, err
	}
	if res, err = swarm.Run(ctx, cfg); err != nil {
		return res, err
	}
	res.Ready = &ready
	if idleErr == nil {
		res.IdleRSS = &idle
	}
	c.drain(ctx, server, &res)
	return res, nil
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
