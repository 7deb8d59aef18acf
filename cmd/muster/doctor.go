package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/mattn/go-isatty"

	"muster/internal/doctor"
	"muster/internal/roles"
)

type doctorCmd struct {
	EngineConfig string `help:"The engine's configuration (default: /etc/crowdsec/config.yaml)." placeholder:"FILE" aliases:"crowdsec-config" xor:"config"`
	ConfigDir    string `help:"The folder of the engine's config.yaml, where it is mounted into a container." placeholder:"DIR" xor:"config"`
	Credentials  string `help:"The engine's online_api_credentials.yaml, instead of the one that its configuration names." placeholder:"FILE"`
	EngineLog    string `help:"The engine's log (default: as its configuration says, else the journal); for a container: docker logs NAME > FILE 2>&1." placeholder:"FILE"`
	server
}

func (doctorCmd) Help() string {
	return `Looks at the engine on this machine, at the Central API that it uses, and at the
Muster of this machine; says what is wrong, how that is known, and what to do.
It spends no login and prolongs no ban. Ends with status 1 when there is
something to do.

Examples:
  muster doctor
  muster doctor --config-dir /srv/crowdsec/config --engine-log crowdsec.log --json`
}

func (c *doctorCmd) Run(g *globals) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o := doctor.Options{Config: c.EngineConfig, Credentials: c.Credentials, Log: c.EngineLog}
	if c.ConfigDir != "" { // then the journal is not that engine's
		o.Config = filepath.Join(c.ConfigDir, "config.yaml")
	} else if doctor.HasJournal() {
		o.Journal = doctor.Journal
	}
	server, err := c.examined(g)
	if err != nil {
		return err
	}
	if server != nil {
		o.Server = server
	}
	report, err := doctor.Examine(ctx, o)
	if err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(report)
	} else {
		err = report.Write(os.Stdout, doctor.Style{Marks: isatty.IsTerminal(os.Stdout.Fd()) && os.Getenv("NO_COLOR") == ""})
	}
	if err != nil {
		return err
	}
	if todo := report.ToDo(); todo != "" {
		return errors.New(todo)
	}
	if !c.JSON {
		fmt.Println("\nNothing is wrong.")
	}
	return nil
}

// examined returns the Muster to examine, nil when none runs here and none was
// named.
func (c *doctorCmd) examined(g *globals) (*examinedServer, error) {
	name := c.URL
	if name == "" {
		cfg, err := g.load()
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(filepath.Join(cfg.DataDir, roles.SocketName)); err != nil && g.DataDir == "" {
			return nil, nil
		}
		name = cfg.DataDir
	}
	cl, err := c.client(g)
	if err != nil {
		return nil, err
	}
	return &examinedServer{cl, name}, nil
}

// examinedServer is a Muster as doctor asks it.
type examinedServer struct {
	client *client
	name   string
}

func (s *examinedServer) Name() string { return s.name }

func (s *examinedServer) Get(_ context.Context, path string, out any) error {
	return s.client.call("GET", path, nil, out)
}
