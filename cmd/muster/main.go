// Command muster is the open Central API for CrowdSec engines.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"

	"muster/internal/ops"
	"muster/internal/roles"
)

// cli is the command line.
type cli struct {
	globals

	Serve    serveCmd    `cmd:"" help:"Run the Central API and its console: the default product, in one process."`
	Join     joinCmd     `cmd:"" help:"Connect the engine on this machine to a Muster."`
	Leave    leaveCmd    `cmd:"" help:"Give the engine on this machine its old Central API back."`
	Doctor   doctorCmd   `cmd:"" help:"Say what is wrong with the engine and the Muster on this machine: bans, restart loops, clocks."`
	Admin    adminCmd    `cmd:"" help:"Steer a running server: organisations, keys, machines, allowlist."`
	Order    orderCmd    `cmd:"" help:"Issue orders to machines: bans, deletions, pulls."`
	Bundle   bundleCmds  `cmd:"" help:"Carry hub, lists and databases to a Muster without a network, in one signed file."`
	Bench    benchCmd    `cmd:"" help:"Measure a server with simulated engines."`
	Replay   replayCmd   `cmd:"" help:"Replay recorded attacks and measure what lists would have stopped."`
	Simulate simulateCmd `cmd:"" help:"Measure how the network judges, in simulated worlds with adversaries."`
	Config   configCmd   `cmd:"" name:"config" help:"Check or print the configuration."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
}

type serveCmd struct{}

// Help is shown by muster serve --help.
func (serveCmd) Help() string {
	return "Starts with no configuration: data goes to ./muster-data, engines connect to 127.0.0.1:8600.\n\n" +
		"Example:\n  muster serve --data-dir /var/lib/muster --listen 0.0.0.0:8600"
}

func (serveCmd) Run(g *globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		// What a flood of addresses leaves in memory counts half as often again
		// instead of twice; it costs a tenth of the highest rates (docs/performance.md).
		debug.SetGCPercent(50)
	}
	level, err := ops.ParseLevel(cfg.Log.Level)
	if err != nil {
		return err
	}
	log := ops.NewLogger(os.Stderr, level, ops.LogFormat(cfg.Log.Format))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once, for whoever does not want to wait.
	context.AfterFunc(ctx, stop)
	return roles.Serve(ctx, cfg, thisBuild().Version, log, os.Stdout)
}

// newParser reads command lines into c.
func newParser(c *cli) *kong.Kong {
	return kong.Must(c,
		kong.Name("muster"),
		kong.Description("The open Central API for CrowdSec engines: run your own threat-sharing network."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)
}

func main() {
	var c cli
	parser := newParser(&c)
	ctx, err := parser.Parse(os.Args[1:])
	parser.FatalIfErrorf(err)
	if err := ctx.Run(&c.globals); err != nil {
		fmt.Fprintln(os.Stderr, "muster: "+err.Error())
		os.Exit(1)
	}
}
