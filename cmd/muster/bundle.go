package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/mattn/go-isatty"

	"muster/internal/bundle"
)

// bundleCmds carry hub, lists and databases to where there is no network.
type bundleCmds struct {
	Keygen bundleKeygenCmd `cmd:"" help:"Make the key that bundles are signed with."`
	Export bundleExportCmd `cmd:"" help:"Write a bundle of what a running server has."`
	Verify bundleVerifyCmd `cmd:"" help:"Check a bundle's signature and every file in it; needs no server."`
	Import bundleImportCmd `cmd:"" help:"Check a bundle and put all of it in force, or nothing."`
	List   bundleListCmd   `cmd:"" help:"List the bundles that were imported."`
}

type bundleKeygenCmd struct {
	File string `arg:"" help:"Where the private key goes; the public one goes beside it, with .pub at its end."`
}

// Help is shown by --help.
func (bundleKeygenCmd) Help() string {
	return "Keep the private key where bundles are made, and carry the public one to wherever they are imported. " +
		"Nothing in a bundle is believed that is not signed with the key named there.\n\n" + example("muster bundle keygen bundle.key")
}

func (c *bundleKeygenCmd) Run() error {
	key, err := bundle.NewKey()
	if err != nil {
		return err
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return errors.New("expected an Ed25519 key")
	}
	for _, f := range []struct {
		name, text string
		mode       os.FileMode
	}{{c.File, bundle.FormatPrivate(key), 0o600}, {c.File + ".pub", bundle.FormatPublic(public), 0o644}} {
		out, err := os.OpenFile(f.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode)
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("%s is there already: it is not overwritten, name another file", f.name)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(out, f.text)
		if err = errors.Join(err, out.Close()); err != nil {
			return err
		}
	}
	_, err = fmt.Printf("Private key: %s (keep it secret)\nPublic key:  %s.pub\n%s\n", c.File, c.File, bundle.FormatPublic(public))
	return err
}

// publicKey reads a key that is named, or the file of one.
func publicKey(nameOrText string) (ed25519.PublicKey, error) {
	if key, err := bundle.ParsePublic(nameOrText); err == nil {
		return key, nil
	}
	text, err := os.ReadFile(nameOrText)
	if err != nil {
		return nil, fmt.Errorf("--key: expected a public key, or the file of one, as muster bundle keygen writes it: %w", err)
	}
	key, err := bundle.ParsePublic(string(text))
	if err != nil {
		return nil, fmt.Errorf("--key %s: %w", nameOrText, err)
	}
	return key, nil
}

// meter shows how far long work is, on a terminal.
func meter(what string) bundle.Progress {
	if !isatty.IsTerminal(os.Stderr.Fd()) {
		return nil
	}
	shown := time.Now()
	return func(done, total int64) {
		if now := time.Now(); now.Sub(shown) >= 200*time.Millisecond || done == total {
			shown = now
			fmt.Fprintf(os.Stderr, "\r%s: %s of %s ", what, size(done), size(total))
			if done == total {
				fmt.Fprint(os.Stderr, "\r\x1b[K")
			}
		}
	}
}

type bundleExportCmd struct {
	File    string   `arg:"" help:"Where the bundle goes."`
	Key     string   `help:"File of the private key to sign with (make one: muster bundle keygen)." required:"" placeholder:"FILE"`
	List    []string `help:"Lists to take, by name or id (default: the community list and all lists of the installation); may be repeated." placeholder:"NAME"`
	Without []string `help:"Parts to leave out: hub, lists, allowlists, databases; may be repeated." enum:"hub,lists,allowlists,databases" placeholder:"PART"`
	Valid   int      `help:"For how many days entries of lists hold where the bundle is imported." default:"30"`
	server
}

// Help is shown by --help.
func (bundleExportCmd) Help() string {
	return "A bundle has the hub with private items, the community list and other lists, the installation's allowlists, and the databases " +
		"of AS numbers and countries. The private key stays here: the server does not get it.\n\n" +
		example("muster bundle export /media/usb/muster.bundle --key bundle.key")
}

func (c *bundleExportCmd) Run(g *globals) error {
	text, err := os.ReadFile(c.Key)
	if err != nil {
		return err
	}
	key, err := bundle.ParsePrivate(string(text))
	if err != nil {
		return fmt.Errorf("--key %s: %w", c.Key, err)
	}
	client, err := c.client(g)
	if err != nil {
		return err
	}
	staging, err := os.MkdirTemp("", "muster-bundle-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(staging) }()
	q := url.Values{"list": c.List, "without": c.Without, "valid": {strconv.Itoa(c.Valid)}}
	body, err := client.stream("GET", "/bundles/export?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	m, err := bundle.Read(body, bundle.Options{Unsigned: true, Dir: staging, Progress: meter("reading")})
	if err = errors.Join(err, body.Close()); err != nil {
		return fmt.Errorf("reading what the server has: %w", err)
	}
	out, err := os.CreateTemp(filepath.Dir(c.File), filepath.Base(c.File)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(out.Name()) }()
	err = bundle.Pack(out, staging, m, key, meter("writing"))
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return err
	}
	if err := os.Rename(out.Name(), c.File); err != nil {
		return err
	}
	info, err := os.Stat(c.File)
	if err != nil {
		return err
	}
	return c.show(summaryOf(m, info.Size()), func(w io.Writer) {
		fmt.Fprintf(w, "Bundle written to %s\t%s\n", c.File, size(info.Size()))
		printBundle(w, m)
	})
}

// stream sends body as it is and returns the answer's, which the caller closes.
// It takes as long as it takes.
func (c *client) stream(method, path string, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, c.base+"/api/v1"+path, body)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	patient := *c.http
	patient.Timeout = 0
	res, err := patient.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode >= 300 {
		defer func() { _ = res.Body.Close() }()
		var problem struct{ Message string }
		if json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&problem) != nil || problem.Message == "" {
			return nil, fmt.Errorf("the server answered %s", res.Status)
		}
		return nil, errors.New(problem.Message)
	}
	return res.Body, nil
}

// bundleSummary is a bundle as --json shows it.
type bundleSummary struct {
	ID         string             `json:"id"`
	MadeAt     time.Time          `json:"made_at"`
	ValidUntil time.Time          `json:"valid_until"`
	From       string             `json:"from"`
	Version    string             `json:"version"`
	Files      int                `json:"files"`
	Bytes      int64              `json:"bytes"`
	Size       int64              `json:"size"` // of the bundle's file
	Lists      []bundle.List      `json:"lists"`
	Allowlists []bundle.Allowlist `json:"allowlists"`
	Hub        bool               `json:"hub"`
	Private    bool               `json:"private"`
	ASN        bool               `json:"asn"`
	Country    bool               `json:"country"`
}

func summaryOf(m *bundle.Manifest, size int64) bundleSummary {
	return bundleSummary{
		ID: m.ID, MadeAt: m.MadeAt, ValidUntil: m.ValidUntil, From: m.From, Version: m.Version, Files: len(m.Files), Bytes: m.Bytes(), Size: size,
		Lists: m.Lists, Allowlists: m.Allowlists, Hub: m.Has(bundle.HubDir), Private: m.Has(bundle.PrivateDir), ASN: m.Has(bundle.ASNFile), Country: m.Has(bundle.CountryFile),
	}
}

func printBundle(w io.Writer, m *bundle.Manifest) {
	fmt.Fprintf(w, "Id\t%s\n", m.ID)
	fmt.Fprintf(w, "Made\t%s by %s, Muster %s\n", until(&m.MadeAt), m.From, m.Version)
	fmt.Fprintf(w, "Valid until\t%s\n", until(&m.ValidUntil))
	fmt.Fprintf(w, "Files\t%d, %s\n", len(m.Files), size(m.Bytes()))
	has := func(what, name string) {
		if m.Has(name) {
			fmt.Fprintf(w, "%s\tyes\n", what)
		} else {
			fmt.Fprintf(w, "%s\tnot in it\n", what)
		}
	}
	has("Hub", bundle.HubDir)
	has("Private items", bundle.PrivateDir)
	has("AS numbers", bundle.ASNFile)
	has("Countries", bundle.CountryFile)
	for _, l := range m.Lists {
		fmt.Fprintf(w, "List %s\t%d entries\n", l.Name, l.Entries)
	}
	for _, l := range m.Allowlists {
		fmt.Fprintf(w, "Allowlist %s\t%d items\n", l.Name, l.Items)
	}
}

type bundleVerifyCmd struct {
	File string `arg:"" help:"The bundle."`
	Key  string `help:"Public key that must have signed it, or its file." required:"" placeholder:"KEY"`
	JSON bool   `name:"json" help:"Print JSON."`
}

// Help is shown by --help.
func (bundleVerifyCmd) Help() string {
	return example("muster bundle verify /media/usb/muster.bundle --key bundle.key.pub")
}

func (c *bundleVerifyCmd) Run() error {
	m, size, err := verifyBundle(c.File, c.Key)
	if err != nil {
		return err
	}
	return server{JSON: c.JSON}.show(summaryOf(m, size), func(w io.Writer) {
		fmt.Fprintln(w, "The bundle is whole, and signed with that key.")
		printBundle(w, m)
	})
}

func verifyBundle(name, keyName string) (m *bundle.Manifest, size int64, err error) {
	key, err := publicKey(keyName)
	if err != nil {
		return nil, 0, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	m, err = bundle.Read(f, bundle.Options{Keys: []ed25519.PublicKey{key}, Progress: meter("verifying")})
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", name, err)
	}
	return m, info.Size(), nil
}

type bundleImportCmd struct {
	File   string `arg:"" help:"The bundle."`
	Key    string `help:"Public key that must have signed it, or its file." required:"" placeholder:"KEY"`
	Force  bool   `help:"Take a bundle that is older than the last one, or not valid any more."`
	DryRun bool   `help:"Only say what would be taken."`
	Reason string `help:"Why; for the audit."`
	server
}

// Help is shown by --help.
func (bundleImportCmd) Help() string {
	return "Lists become custom lists named bundle-…, to which machines and integrations are subscribed as to any other; they are never taken for " +
		"somebody's reports. Allowlists become lists of the installation named bundle-…. Hub and databases are used unless the configuration names " +
		"others. The same bundle may be imported again; a part that a bundle does not have stays as it was.\n\n" +
		example("muster bundle import /media/usb/muster.bundle --key bundle.key.pub")
}

func (c *bundleImportCmd) Run(g *globals) error {
	if _, _, err := verifyBundle(c.File, c.Key); err != nil {
		return err
	}
	key, err := publicKey(c.Key)
	if err != nil {
		return err
	}
	client, err := c.client(g)
	if err != nil {
		return err
	}
	f, err := os.Open(c.File)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	q := url.Values{"key": {bundle.FormatPublic(key)}, "reason": {c.Reason}, "force": {strconv.FormatBool(c.Force)}, "dry_run": {strconv.FormatBool(c.DryRun)}}
	body, err := client.stream("POST", "/bundles/import?"+q.Encode(), &metered{f, 0, info.Size(), meter("importing")})
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	var raw json.RawMessage
	if err := json.NewDecoder(body).Decode(&raw); err != nil {
		return fmt.Errorf("the server's answer could not be read: %w", err)
	}
	var report struct {
		ID                                                   string
		Items, Lists, Entries, Reserved, Allowlists, Allowed int
		Notes                                                []string
	}
	if err := json.Unmarshal(raw, &report); err != nil {
		return fmt.Errorf("the server's answer could not be read: %w", err)
	}
	return c.show(raw, func(w io.Writer) {
		if c.DryRun {
			fmt.Fprintf(w, "The bundle %s is whole; nothing was changed.\n", report.ID)
		} else {
			fmt.Fprintf(w, "The bundle %s was imported.\n", report.ID)
		}
		fmt.Fprintf(w, "Hub\t%d items\n", report.Items)
		fmt.Fprintf(w, "Lists\t%d with %d entries\n", report.Lists, report.Entries)
		if report.Reserved > 0 {
			fmt.Fprintf(w, "Left out\t%d entries that are private or reserved\n", report.Reserved)
		}
		fmt.Fprintf(w, "Allowlists\t%d with %d items\n", report.Allowlists, report.Allowed)
		for _, note := range report.Notes {
			fmt.Fprintf(w, "Note\t%s\n", note)
		}
	})
}

// metered tells how much of a file was read.
type metered struct {
	io.Reader
	done, total int64
	progress    bundle.Progress
}

func (m *metered) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.done += int64(n)
	if m.progress != nil && n > 0 {
		m.progress(m.done, m.total)
	}
	return n, err
}

type bundleListCmd struct{ server }

// Help is shown by --help.
func (bundleListCmd) Help() string { return example("muster bundle list") }

func (c *bundleListCmd) Run(g *globals) error {
	type imported struct {
		ID, From   string
		MadeAt     time.Time `json:"made_at"`
		ValidUntil time.Time `json:"valid_until"`
		ImportedAt time.Time `json:"imported_at"`
		ImportedBy string    `json:"imported_by"`
	}
	raw, list, err := fetch[[]imported](c.server, g, "GET", "/bundles", nil)
	if err != nil {
		return err
	}
	return c.show(raw, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "No bundle was imported: muster bundle import takes one.")
			return
		}
		fmt.Fprintln(w, "IMPORTED\tBY\tMADE\tVALID UNTIL\tFROM\tID")
		for _, b := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", until(&b.ImportedAt), b.ImportedBy, until(&b.MadeAt), until(&b.ValidUntil), b.From, b.ID)
		}
	})
}
