package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/internal/doctor"
	"muster/internal/roles"
)

// runDoctor runs muster doctor with what stands on its command line, and returns
// what it printed and its error, which makes the status 1.
func runDoctor(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var c cli
	ctx, err := newParser(&c).Parse(append([]string{"doctor"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = out
	failed := ctx.Run(&c.globals)
	os.Stdout = stdout
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text), failed
}

// engineFor lays out an engine that uses the Central API at url.
func engineFor(t *testing.T, url string) (config string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"config.yaml":  "common: {log_media: file, log_dir: " + dir + "}\napi: {server: {online_client: {credentials_path: " + dir + "/online.yaml}}}\n",
		"online.yaml":  fmt.Sprintf("url: %[1]s\nlogin: m1\npassword: secretsecret\npapi_url: %[1]s\n", url),
		"crowdsec.log": "time=\"2026-11-21T02:41:44Z\" level=info msg=\"Crowdsec v1.7.8\"\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "config.yaml")
}

func TestDoctorsStatus(t *testing.T) {
	standing := `{"address":"203.0.113.9","banned":false,"findings":[],"server":"muster"}`
	central := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, standing) }))
	defer central.Close()
	config, nowhere := engineFor(t, central.URL+"/"), t.TempDir()
	t.Chdir(nowhere) // no data directory here

	out, err := runDoctor(t, "--engine-config", config)
	if err != nil || !strings.Contains(out, "Nothing is wrong.") || !strings.Contains(out, "does not refuse this address (203.0.113.9)") {
		t.Errorf("well: got %v\n%s", err, out)
	}
	standing = `{"address":"203.0.113.9","banned":true,"until":null,"reason":"by hand","scope":"all","extends_on_retry":false,"findings":[],"server":"muster"}`
	out, err = runDoctor(t, "--crowdsec-config", config) // as muster join calls it
	if err == nil || !strings.Contains(out, "critical: The Central API refuses every call") {
		t.Errorf("banned: expected a failure and why, got %v\n%s", err, out)
	}
	out, err = runDoctor(t, "--config-dir", filepath.Dir(config), "--json")
	var report doctor.Report
	if jsonErr := json.Unmarshal([]byte(out), &report); err == nil || jsonErr != nil || len(report.Sections) != 2 || len(report.Sections[1].Findings) != 1 || report.Sections[1].Findings[0].Kind != doctor.Banned {
		t.Errorf("as JSON: got %v, %v\n%s", err, jsonErr, out)
	}
	if strings.Contains(out, "secretsecret") {
		t.Error("the password is printed")
	}
}

func TestDoctorAsksTheServerOfTheDataDirectory(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, roles.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	answers := map[string]string{
		"/api/v1/status":   `{"version":"1","health":{"status":"ready","checks":[]}}`,
		"/api/v1/bans":     `{"bans":[{"address":"203.0.113.9"}],"next":""}`,
		"/api/v1/findings": `{"findings":[{"kind":"restart-loop","severity":"warning","machine":"m2","summary":"Machine m2 logged in 25 times.","fix":"Look why it stops."}]}`,
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, answers[r.URL.Path]) })}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })

	config := engineFor(t, "https://api.crowdsec.net/")
	out, err := runDoctor(t, "--data-dir", dir, "--engine-config", config)
	for _, want := range []string{"Server: " + dir, "It refuses 1 address (muster admin ban list): 203.0.113.9.", "warning: Machine m2 logged in 25 times.", "it is not asked"} {
		if !strings.Contains(out, want) {
			t.Errorf("expected %q in\n%s", want, out)
		}
	}
	if err == nil || err.Error() != "warnings: 1" {
		t.Errorf("expected to fail for a warning, got %v", err)
	}
	if _, err := runDoctor(t, "--data-dir", t.TempDir(), "--engine-config", config); err == nil || !strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("a data directory without a server: expected to be told, got %v", err)
	}
}
