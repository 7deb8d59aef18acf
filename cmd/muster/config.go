package main

import (
	"fmt"

	"github.com/alecthomas/kong"

	"muster/internal/roles"
)

type configCmd struct {
	Check    configCheckCmd    `cmd:"" help:"Say whether a configuration is right, and what is wrong with it."`
	Defaults configDefaultsCmd `cmd:"" help:"Print a configuration file with every key, explained."`
	Show     configShowCmd     `cmd:"" help:"Print the configuration in force and where each value comes from."`
}

type configCheckCmd struct {
	File string `arg:"" optional:"" help:"File to check, instead of the one of --config."`
}

func (configCheckCmd) Help() string {
	return `Checks file, environment and flags together, as serve would. Exits with 1 when
something is wrong, and says where.

Example:
  muster config check /etc/muster/muster.yaml`
}

// Run prints OK or returns what is wrong.
func (c *configCheckCmd) Run(g *globals, ctx *kong.Context) error {
	if c.File != "" {
		g.Config = c.File
	}
	if _, err := g.load(); err != nil {
		return err
	}
	what := "no file, defaults"
	if g.Config != "" {
		what = g.Config
	}
	_, err := fmt.Fprintf(ctx.Stdout, "OK: %s\n", what)
	return err
}

type configDefaultsCmd struct{}

func (configDefaultsCmd) Help() string {
	return `Example:
  muster config defaults > muster.yaml`
}

// Run prints the defaults as a commented file.
func (configDefaultsCmd) Run(ctx *kong.Context) error {
	_, err := fmt.Fprint(ctx.Stdout, roles.ConfigDefaults())
	return err
}

type configShowCmd struct{}

func (configShowCmd) Help() string {
	return `Passwords in URLs are hidden.

Example:
  MUSTER_LOG__LEVEL=debug muster config show`
}

// Run prints the effective configuration.
func (configShowCmd) Run(g *globals, ctx *kong.Context) error {
	text, err := roles.ShowConfig(g.source())
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(ctx.Stdout, text)
	return err
}
