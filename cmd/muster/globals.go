package main

import (
	"os"

	"muster/internal/roles"
)

// globals are the flags of every command that reads the configuration.
type globals struct {
	Config  string `short:"c" env:"MUSTER_CONFIG" help:"Configuration file (YAML); none is needed." placeholder:"FILE"`
	DataDir string `help:"Override data_dir: where Muster keeps everything." placeholder:"DIR"`
	Listen  string `help:"Override listen: address and port to serve on." placeholder:"ADDRESS"`
}

// load reads the configuration: flags over environment over file over defaults.
func (g *globals) load() (*roles.Config, error) { return roles.LoadConfig(g.source()) }

func (g *globals) source() roles.ConfigSource {
	flags := map[string]string{}
	if g.DataDir != "" {
		flags["data_dir"] = g.DataDir
	}
	if g.Listen != "" {
		flags["listen"] = g.Listen
	}
	return roles.ConfigSource{File: g.Config, Env: os.Environ(), Flags: flags}
}
