package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kong"
)

// Set by the linker, see the Makefile; empty in a plain go build.
var (
	version string // of the release, from git
	commit  string
	date    string // of the commit, RFC 3339
)

// build says which program this is.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Date    string `json:"date"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// thisBuild takes what the linker was told, else what the go command noted.
func thisBuild() build {
	b := build{version, commit, date, runtime.Version(), runtime.GOOS, runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; b.Version == "" && v != "(devel)" {
			b.Version = v
		}
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision" && b.Commit == "":
				b.Commit = s.Value
			case s.Key == "vcs.time" && b.Date == "":
				b.Date = s.Value
			}
		}
	}
	for _, s := range []*string{&b.Version, &b.Commit, &b.Date} {
		if *s == "" {
			*s = "unknown"
		}
	}
	return b
}

type versionCmd struct {
	JSON bool `help:"Print one JSON object."`
}

func (versionCmd) Help() string {
	return `Example:
  muster version --json`
}

// Run prints the build.
func (c *versionCmd) Run(ctx *kong.Context) error {
	b := thisBuild()
	if c.JSON {
		return json.NewEncoder(ctx.Stdout).Encode(b)
	}
	_, err := fmt.Fprintf(ctx.Stdout, "muster %s\ncommit %s of %s\n%s %s/%s\n", b.Version, b.Commit, b.Date, b.Go, b.OS, b.Arch)
	return err
}
