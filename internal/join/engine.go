package join

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// Engine is what an engine's configuration says, with paths as they are here.
type Engine struct {
	Credentials string // online_api_credentials.yaml
	Log         string // its log file; "" when it logs elsewhere, to standard output or syslog
	Database    string // its SQLite file; "" when it uses another database
}

// ReadEngine reads the engine's configuration. Like the engine, it lays
// config.yaml.local over config.yaml and expands environment variables. What the
// engine does not need to start is left empty where it cannot be told; with an
// error that is not about reading, all but Credentials is filled in.
func ReadEngine(config string) (Engine, error) {
	layers, err := readLayers(config)
	if err != nil {
		return Engine{}, err
	}
	var e Engine
	if media, _ := lookup(layers, "common", "log_media").(string); media == "file" {
		e.Log = localPath(config, layers, "crowdsec.log", "common", "log_dir")
	}
	if kind, _ := lookup(layers, "db_config", "type").(string); kind == "" || kind == "sqlite" {
		e.Database = localPath(config, layers, "", "db_config", "db_path")
	}
	e.Credentials, err = credentialsIn(config, layers)
	return e, err
}

// localPath returns the path at keys with name below it, as it is here; "" when
// there is none, or it cannot be told.
func localPath(config string, layers []map[string]any, name string, keys ...string) string {
	path, _ := lookup(layers, keys...).(string)
	if path = expand(path); !filepath.IsAbs(path) {
		return ""
	}
	configDir, _ := lookup(layers, "config_paths", "config_dir").(string)
	path, err := rebase(config, expand(configDir), filepath.Join(path, name))
	if err != nil {
		return ""
	}
	return path
}

func readLayers(config string) ([]map[string]any, error) {
	base, err := readConfig(config)
	if err != nil {
		return nil, err
	}
	local, err := readConfig(config + ".local")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return []map[string]any{local, base}, nil
}

// credentialsPath returns the file that the engine whose configuration is
// config reads its Central API credentials from.
func credentialsPath(config string) (string, error) {
	layers, err := readLayers(config)
	if err != nil {
		return "", err
	}
	return credentialsIn(config, layers)
}

func credentialsIn(config string, layers []map[string]any) (string, error) {
	if lookup(layers, "api", "server") == nil {
		return "", fmt.Errorf("%s has no api.server section: this engine has no local API of its own, so it speaks to no Central API; run this on the machine that has the local API", config)
	}
	if enabled, ok := lookup(layers, "api", "server", "enable").(bool); ok && !enabled {
		return "", fmt.Errorf("%s says api.server.enable: false: this engine uses the local API of another machine; run this there", config)
	}
	path, _ := lookup(layers, "api", "server", "online_client", "credentials_path").(string)
	if path == "" {
		return "", fmt.Errorf("%s names no api.server.online_client.credentials_path, which is how an engine is told to use a Central API; add\n\n  api:\n    server:\n      online_client:\n        credentials_path: %s\n\nand run this again",
			config, filepath.Join(filepath.Dir(config), "online_api_credentials.yaml"))
	}
	path = expand(path)
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%s has the relative credentials_path %q, which depends on where the engine is started: write it as an absolute path, or name the file with --credentials", config, path)
	}
	configDir, _ := lookup(layers, "config_paths", "config_dir").(string)
	return rebase(config, expand(configDir), filepath.Clean(path))
}

// rebase translates a path inside a container: a configuration folder that is
// mounted elsewhere here still calls itself config_dir.
func rebase(config, configDir, path string) (string, error) {
	here := filepath.Dir(config)
	if configDir == "" || sameDir(here, configDir) {
		return path, nil
	}
	rel, err := filepath.Rel(configDir, path)
	if err != nil || !filepath.IsLocal(rel) {
		return path, nil
	}
	if _, err := os.Stat(configDir); err == nil {
		return "", fmt.Errorf("%s calls its folder %s, and that folder exists here too: say which file is meant, with --credentials %s or --credentials %s",
			config, configDir, filepath.Join(here, rel), path)
	}
	return filepath.Join(here, rel), nil
}

func sameDir(a, b string) bool {
	ia, errA := os.Stat(a)
	ib, errB := os.Stat(b)
	if errA != nil || errB != nil {
		return filepath.Clean(a) == filepath.Clean(b)
	}
	return os.SameFile(ia, ib)
}

func readConfig(path string) (map[string]any, error) {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !strings.HasSuffix(path, ".local"):
		return nil, fmt.Errorf("no engine configuration at %s: run this on the engine's machine, or name its file with --crowdsec-config (for a container: the folder that is mounted at /etc/crowdsec)", path)
	case err != nil:
		return nil, fmt.Errorf("reading the engine's configuration: %w", err)
	}
	var m map[string]any
	if err := yaml.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("reading the engine's configuration %s: %w", path, err)
	}
	return m, nil
}

// lookup returns the value at keys in the first layer that has it.
func lookup(layers []map[string]any, keys ...string) any {
	for _, layer := range layers {
		var v any = layer
		for _, key := range keys {
			m, _ := v.(map[string]any)
			v = m[key]
		}
		if v != nil {
			return v
		}
	}
	return nil
}

// expand replaces the variables that are set and leaves the others as written.
func expand(s string) string {
	return os.Expand(s, func(name string) string {
		if v, ok := os.LookupEnv(name); ok {
			return v
		}
		return "${" + name + "}"
	})
}

var versionLine = regexp.MustCompile(`version: v(\d+)\.(\d+)`)

// speaksPAPI reports whether the engine that cscli belongs to knows papi_url.
// Engines before 1.5 refuse to start with it. Where cscli cannot be asked (a
// container, usually) a current engine is assumed.
func speaksPAPI(ctx context.Context, cscli string) bool {
	if cscli == "" {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, cscli, "version")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	m := versionLine.FindSubmatch(out)
	if err != nil || m == nil {
		return true
	}
	major, _ := strconv.Atoi(string(m[1]))
	minor, _ := strconv.Atoi(string(m[2]))
	return major > 1 || minor >= 5
}
