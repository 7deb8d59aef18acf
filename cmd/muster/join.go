package main

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"muster/internal/join"
)

// engineFlags say where the engine on this machine keeps its configuration.
type engineFlags struct {
	CrowdsecConfig string `help:"The engine's configuration (default: /etc/crowdsec/config.yaml)." placeholder:"FILE" xor:"config"`
	ConfigDir      string `help:"The folder of the engine's config.yaml, where it is mounted into a container." placeholder:"DIR" xor:"config"`
	Credentials    string `help:"The engine's online_api_credentials.yaml, instead of the one that its configuration names." placeholder:"FILE"`
	DryRun         bool   `help:"Say what would be done; register and write nothing."`
}

func (f engineFlags) config() string {
	if f.ConfigDir != "" {
		return filepath.Join(f.ConfigDir, "config.yaml")
	}
	return f.CrowdsecConfig // "" is the default
}

type joinCmd struct {
	URL       string   `arg:"" help:"Muster's address as this machine reaches it, with its path prefix if it has one."`
	Key       string   `help:"Enrolment key; without one the engine is registered, but its reports do not count." env:"MUSTER_ENROLMENT_KEY" placeholder:"KEY"`
	Name      string   `help:"Name shown to people (default: the host's name)." placeholder:"NAME"`
	Tag       []string `help:"Label for the machine; may be repeated." placeholder:"TAG"`
	Overwrite bool     `help:"Enrol again a machine that is enrolled already."`
	NoPAPI    bool     `name:"no-papi" help:"Leave papi_url out, for engines before 1.5 (found out by itself where cscli is installed)."`
	engineFlags
}

func (joinCmd) Help() string {
	return `Registers the engine on this machine, enrols it, and writes its
online_api_credentials.yaml. The file before it is kept beside it; muster leave
puts it back. When a step fails nothing is written.

Examples:
  muster join https://muster.example.org --key KEY --tag web
  muster join http://127.0.0.1:8600 --key KEY --config-dir /srv/crowdsec/config`
}

func (c *joinCmd) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cscli := ""
	if c.ConfigDir == "" { // else the engine is not the one that is installed here
		cscli, _ = exec.LookPath("cscli")
	}
	return join.Join(ctx, join.Options{
		URL: c.URL, Key: c.Key, Name: c.Name, Tags: c.Tag, Overwrite: c.Overwrite,
		Config: c.config(), Credentials: c.Credentials, DryRun: c.DryRun,
		NoPAPI: c.NoPAPI, Cscli: cscli, Out: os.Stdout,
	})
}

type leaveCmd struct {
	engineFlags
}

func (leaveCmd) Help() string {
	return `Puts the Central API credentials back that the engine had before muster join.

Example:
  muster leave`
}

func (c *leaveCmd) Run() error {
	return join.Leave(join.LeaveOptions{
		Config: c.config(), Credentials: c.Credentials, DryRun: c.DryRun, Out: os.Stdout,
	})
}
