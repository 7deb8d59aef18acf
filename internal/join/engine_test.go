package join

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCredentialsPath(t *testing.T) {
	const online = "api: {server: {online_client: {credentials_path: %s}}}\n"
	here := t.TempDir()   // where the configuration is
	exists := t.TempDir() // another folder of this machine
	t.Setenv("MUSTER_TEST_DIR", here)
	for _, test := range []struct {
		name, config, local string
		want, err           string
	}{
		{
			name:   "as packaged",
			config: "config_paths: {config_dir: " + here + "/}\n" + strings.ReplaceAll(online, "%s", here+"//online.yaml"),
			want:   here + "/online.yaml",
		},
		{
			name:   "no config_dir",
			config: strings.ReplaceAll(online, "%s", "/srv/online.yaml"),
			want:   "/srv/online.yaml",
		},
		{
			name:   "variable",
			config: strings.ReplaceAll(online, "%s", `"${MUSTER_TEST_DIR}/online.yaml"`),
			want:   here + "/online.yaml",
		},
		{
			name:   "local file wins",
			config: strings.ReplaceAll(online, "%s", "/srv/online.yaml"),
			local:  strings.ReplaceAll(online, "%s", "/srv/other.yaml"),
			want:   "/srv/other.yaml",
		},
		{
			name:   "local file adds",
			config: "api: {server: {listen_uri: 127.0.0.1:8080}}\n",
			local:  strings.ReplaceAll(online, "%s", "/srv/other.yaml"),
			want:   "/srv/other.yaml",
		},
		{
			name:   "a container's folder",
			config: "config_paths: {config_dir: /nowhere/crowdsec}\n" + strings.ReplaceAll(online, "%s", "/nowhere/crowdsec/online.yaml"),
			want:   here + "/online.yaml",
		},
		{
			name:   "a container's folder that exists here too",
			config: "config_paths: {config_dir: " + exists + "}\n" + strings.ReplaceAll(online, "%s", exists+"/online.yaml"),
			err:    "--credentials",
		},
		{
			name:   "outside the container's folder",
			config: "config_paths: {config_dir: /nowhere/crowdsec}\n" + strings.ReplaceAll(online, "%s", "/run/secrets/online.yaml"),
			want:   "/run/secrets/online.yaml",
		},
		{name: "no api", config: "common: {}\n", err: "no api.server section"},
		{name: "disabled", config: "api: {server: {enable: false}}\n", err: "enable: false"},
		{name: "no online client", config: "api: {server: {enable: true}}\n", err: "online_client"},
		{name: "relative", config: strings.ReplaceAll(online, "%s", "online.yaml"), err: "relative"},
		{name: "no yaml", config: "api: [", err: "config.yaml"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(here, "config.yaml")
			if err := os.WriteFile(path, []byte(test.config), 0o600); err != nil {
				t.Fatal(err)
			}
			os.Remove(path + ".local")
			if test.local != "" {
				if err := os.WriteFile(path+".local", []byte(test.local), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := credentialsPath(path)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("expected an error with %q, got %v", test.err, err)
				}
				return
			}
			if err != nil || got != test.want {
				t.Fatalf("expected %s, got %s, %v", test.want, got, err)
			}
		})
	}
	if _, err := credentialsPath(filepath.Join(here, "missing.yaml")); err == nil || !strings.Contains(err.Error(), "--crowdsec-config") {
		t.Errorf("a missing file: expected advice, got %v", err)
	}
}

func TestReadEngine(t *testing.T) {
	here := t.TempDir()
	const server = "api: {server: {online_client: {credentials_path: /srv/online.yaml}}}\n"
	for _, test := range []struct {
		name, config string
		want         Engine
		err          string
	}{
		{
			"as packaged", "common: {log_media: file, log_dir: /var/log/}\ndb_config: {type: sqlite, db_path: /var/lib/crowdsec/data/crowdsec.db}\n" + server,
			Engine{Credentials: "/srv/online.yaml", Log: "/var/log/crowdsec.log", Database: "/var/lib/crowdsec/data/crowdsec.db"},
			"",
		},
		{"a container", "common: {log_media: stdout, log_dir: /var/log/}\ndb_config: {type: mysql}\n" + server, Engine{Credentials: "/srv/online.yaml"}, ""},
		{"relative", "common: {log_media: file, log_dir: ./}\n" + server, Engine{Credentials: "/srv/online.yaml"}, ""},
		{"without a local API", "common: {log_media: file, log_dir: /var/log}\n", Engine{Log: "/var/log/crowdsec.log"}, "no api.server section"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(here, "config.yaml")
			if err := os.WriteFile(path, []byte(test.config), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := ReadEngine(path)
			if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("expected %+v, %q, got %+v, %v", test.want, test.err, got, err)
			}
		})
	}
}

func TestNormaliseURL(t *testing.T) {
	for in, want := range map[string]string{
		"http://127.0.0.1:8600":            "http://127.0.0.1:8600/",
		"http://127.0.0.1:8600/":           "http://127.0.0.1:8600/",
		" https://Muster.Example.org ":     "https://muster.example.org/",
		"HTTPS://muster.example.org/a/b":   "https://muster.example.org/a/b/",
		"https://[2001:db8::1]:8600":       "https://[2001:db8::1]:8600/",
		"https://muster.example.org/a/b/":  "https://muster.example.org/a/b/",
		"":                                 "",
		"muster.example.org":               "",
		"127.0.0.1:8600":                   "",
		"ftp://muster.example.org":         "",
		"https://u:p@muster.example.org":   "",
		"https://muster.example.org/?a=b":  "",
		"https://muster.example.org/#here": "",
	} {
		got, err := NormaliseURL(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: expected %q, got %q, %v", in, want, got, err)
		}
		if err != nil && strings.Contains(err.Error(), ":p@") {
			t.Errorf("%q: the error repeats a password: %v", in, err)
		}
	}
}

func TestSpeaksPAPI(t *testing.T) {
	for line, want := range map[string]bool{
		`echo "2026/11/20 23:55:24 version: v1.4.6-6~deb12u1" >&2`: false,
		`echo "version: v1.5.0"`:                                   true,
		`echo "version: v1.10.2"`:                                  true,
		`echo "version: v2.0.0"`:                                   true,
		`echo "no idea"`:                                           true,
		`echo "version: v"; exit 1`:                                true,
	} {
		if got := speaksPAPI(t.Context(), script(t, line)); got != want {
			t.Errorf("%s: expected %v, got %v", line, want, got)
		}
	}
	if !speaksPAPI(t.Context(), "") {
		t.Error("without cscli: expected a current engine to be assumed")
	}
}
