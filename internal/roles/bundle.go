package roles

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"muster"
	"muster/internal/bundle"
	"muster/internal/catalog"
	"muster/internal/console"
	"muster/internal/enrich"
	"muster/internal/hub"
)

// Bundles are kept in the data directory: bundles/ID.RANDOM, of which
// bundles/current is a link to the one in force.
const (
	bundlesDir     = "bundles"
	currentBundle  = "current"
	stagingPattern = "incoming-*"
)

// bundled is where a file or folder of the bundle in force is, if it has one.
func (n *node) bundled(name string) string {
	return filepath.Join(n.cfg.DataDir, bundlesDir, currentBundle, filepath.FromSlash(name))
}

// useBundle brings the bundle in force in line with the database, which knows
// best after a crash, and uses its databases where none are set.
func (n *node) useBundle(ctx context.Context) error {
	last, err := n.db.Bundles(ctx, 1)
	if err != nil {
		return err
	}
	dir := filepath.Join(n.cfg.DataDir, bundlesDir)
	if len(last) > 0 {
		if target, err := os.Readlink(filepath.Join(dir, currentBundle)); err != nil || !strings.HasPrefix(target, last[0].ID+".") {
			found, err := filepath.Glob(filepath.Join(dir, last[0].ID+".*"))
			if err != nil || len(found) == 0 {
				n.log.Warn("the files of the bundle that was imported last are not there: import it again", "bundle", last[0].ID)
			} else if err := point(dir, filepath.Base(found[0])); err != nil {
				return fmt.Errorf("using the files of the bundle %s: %w", last[0].ID, err)
			}
		}
		n.forgetBundles(dir)
	}
	for name, setting := range map[string]*string{bundle.ASNFile: &n.cfg.Enrich.ASN, bundle.CountryFile: &n.cfg.Enrich.Country} {
		if _, err := os.Stat(n.bundled(name)); err == nil && *setting == "" {
			*setting = n.bundled(name)
		}
	}
	return nil
}

// point makes a bundle the one in force, in one step.
func point(dir, name string) error {
	fresh := filepath.Join(dir, currentBundle+".new")
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(name, fresh); err != nil {
		return err
	}
	return os.Rename(fresh, filepath.Join(dir, currentBundle))
}

// forgetBundles removes bundles that are not in force, and what failed imports
// left.
func (n *node) forgetBundles(dir string) {
	target, err := os.Readlink(filepath.Join(dir, currentBundle))
	if err != nil {
		return
	}
	list, err := os.ReadDir(dir)
	for _, e := range list {
		if e.IsDir() && e.Name() != target {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		n.log.Warn("old bundles could not be removed", "error", err)
	}
}

// bundles exports and imports; it implements console.Bundles.
type bundles struct {
	*node
	one sync.Mutex // at a time
}

var errBundleBusy = muster.Errorf(muster.Unavailable, "another bundle is being made or imported: try again when it is done")

// stage makes an empty folder.
func (b *bundles) stage() (string, error) {
	dir := filepath.Join(b.cfg.DataDir, bundlesDir)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	return os.MkdirTemp(dir, stagingPattern)
}

// Imported implements console.Bundles.
func (b *bundles) Imported(ctx context.Context) ([]muster.Bundle, error) {
	return b.db.Bundles(ctx, 100)
}

// Export implements console.Bundles.
func (b *bundles) Export(ctx context.Context, w io.Writer, q console.BundleQuery) error {
	if !b.one.TryLock() {
		return errBundleBusy
	}
	defer b.one.Unlock()
	dir, err := b.stage()
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	now := b.now().UTC().Truncate(time.Microsecond)
	m := &bundle.Manifest{ID: id.String(), MadeAt: now, ValidUntil: now.Add(q.Valid), From: b.public, Version: b.version}
	if q.Hub {
		if err := b.mirror.Export(filepath.Join(dir, bundle.HubDir), filepath.Join(dir, bundle.PrivateDir)); err != nil {
			return fmt.Errorf("exporting the hub: %w", err)
		}
	}
	if q.Lists {
		if err := b.exportLists(ctx, dir, m, q.Names); err != nil {
			return err
		}
	}
	if q.Allowlists {
		if err := b.exportAllowlists(ctx, dir, m); err != nil {
			return err
		}
	}
	if q.Databases {
		for name, path := range map[string]string{bundle.ASNFile: b.cfg.Enrich.ASN, bundle.CountryFile: b.cfg.Enrich.Country} {
			if path == "" {
				continue
			}
			if err := copyTo(filepath.Join(dir, filepath.FromSlash(name)), path); err != nil {
				return fmt.Errorf("exporting %s: %w", name, err)
			}
		}
	}
	return bundle.Pack(w, dir, m, nil, nil)
}

// exportLists writes the lists of the installation, or those that are named.
// Everything comes through the catalogue, which keeps back what nobody may be
// sent.
func (b *bundles) exportLists(ctx context.Context, dir string, m *bundle.Manifest, names []string) error {
	m.Lists = []bundle.List{}
	var chosen []muster.Blocklist
	for _, name := range names {
		l, err := b.catalog.List(name)
		if err != nil {
			return err
		}
		chosen = append(chosen, l)
	}
	if len(names) == 0 {
		for _, l := range b.catalog.Lists() {
			if l.ID == muster.CommunityList || l.Organisation == "" && !catalog.BuiltIn(l.ID) && l.CreatedBy != muster.ByBundle {
				chosen = append(chosen, l)
			}
		}
	}
	for _, l := range chosen {
		entries, _, err := b.catalog.Entries(ctx, l.ID, "")
		if err != nil {
			return err
		}
		byRemedy := map[muster.Remedy][]bundle.Entry{l.Remedy: {}}
		for _, e := range entries {
			byRemedy[e.Remedy] = append(byRemedy[e.Remedy], bundle.Entry{Value: e.Source.String(), Comment: e.Scenario, Until: e.Until})
		}
		for remedy, list := range byRemedy {
			out := bundle.List{Name: l.Name, Label: l.Label, Description: l.Description, Remedy: remedy, Lifetime: l.Lifetime, Entries: len(list)}
			if remedy != l.Remedy { // custom lists have one remedy
				out.Name, out.Label = out.Name+"-"+string(remedy), out.Label+" ("+string(remedy)+")"
			}
			if err := writeLines(filepath.Join(dir, filepath.FromSlash(out.Path())), list); err != nil {
				return fmt.Errorf("exporting the list %s: %w", l.Name, err)
			}
			m.Lists = append(m.Lists, out)
		}
	}
	slices.SortFunc(m.Lists, func(a, b bundle.List) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// exportAllowlists writes the installation's allowlists.
func (b *bundles) exportAllowlists(ctx context.Context, dir string, m *bundle.Manifest) error {
	m.Allowlists = []bundle.Allowlist{}
	lists, err := b.db.Allowlists(ctx)
	if err != nil {
		return err
	}
	for i := range lists {
		l := &lists[i]
		if !l.Central() || l.CreatedBy == muster.ByBundle {
			continue
		}
		out := bundle.Allowlist{Name: l.Name, Description: l.Description}
		var items []bundle.AllowItem
		err := b.db.EachAllowItem(ctx, l.ID, func(i muster.AllowItem) error {
			if i.ExpiresAt.IsZero() || i.ExpiresAt.After(m.MadeAt) {
				items = append(items, bundle.AllowItem{Value: i.Value, Reason: i.Reason, Until: i.ExpiresAt})
			}
			return nil
		})
		if err != nil {
			return err
		}
		out.Items = len(items)
		if err := writeLines(filepath.Join(dir, filepath.FromSlash(out.Path())), items); err != nil {
			return fmt.Errorf("exporting the allowlist %s: %w", l.Name, err)
		}
		m.Allowlists = append(m.Allowlists, out)
	}
	return nil
}

func writeLines[T any](path string, values []T) error {
	f, err := create(path)
	if err != nil {
		return err
	}
	return errors.Join(bundle.WriteLines(f, values), f.Close())
}

func create(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func copyTo(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Import implements console.Bundles. Everything is verified and read in a folder
// of its own first; the database's transaction is what makes the bundle count;
// then its files are put in force, which a start after a crash makes up for.
func (b *bundles) Import(ctx context.Context, r io.Reader, q console.BundleImport) (console.BundleReport, error) {
	if !b.one.TryLock() {
		return console.BundleReport{}, errBundleBusy
	}
	defer b.one.Unlock()
	dir, err := b.stage()
	if err != nil {
		return console.BundleReport{}, err
	}
	staged := dir
	defer func() { _ = os.RemoveAll(staged) }()
	m, err := bundle.Read(r, bundle.Options{Keys: []ed25519.PublicKey{q.Key}, Dir: dir})
	if err != nil {
		return console.BundleReport{}, err
	}
	content, report, err := b.readContent(dir, m, q)
	if err != nil || q.DryRun {
		return b.rehearsed(ctx, m, q, report, err)
	}
	q.Audit.Subject = m.ID
	parent, random := filepath.Dir(dir), strings.TrimPrefix(filepath.Base(dir), strings.TrimSuffix(stagingPattern, "*"))
	name := m.ID + "." + random
	if err := carryOver(filepath.Join(parent, currentBundle), dir, m); err != nil {
		return report, fmt.Errorf("keeping what the bundle does not have: %w", err)
	}
	if err := os.Rename(dir, filepath.Join(parent, name)); err != nil {
		return report, err
	}
	staged = filepath.Join(parent, name)
	if err := b.db.ImportBundle(ctx, content, q.Force, q.Audit); err != nil {
		return report, err
	}
	staged = "" // it counts
	if err := point(parent, name); err != nil {
		return report, fmt.Errorf("the bundle's lists are in force; its files will be after a restart: %w", err)
	}
	b.forgetBundles(parent)
	return report, b.bundleChanged(ctx)
}

// rehearsed adds to a report what would only be found by importing.
func (b *bundles) rehearsed(ctx context.Context, m *bundle.Manifest, q console.BundleImport, report console.BundleReport, err error) (console.BundleReport, error) {
	if err != nil || q.Force {
		return report, err
	}
	last, err := b.db.Bundles(ctx, 1)
	if err == nil && len(last) > 0 && last[0].MadeAt.After(m.MadeAt) {
		report.Notes = append(report.Notes, "it is older than the bundle imported last, which was made at "+last[0].MadeAt.UTC().Format(time.RFC3339)+": importing it needs --force")
	}
	return report, err
}

// readContent reads all of a staged bundle, so that nothing in it can fail later.
func (b *bundles) readContent(dir string, m *bundle.Manifest, q console.BundleImport) (muster.BundleContent, console.BundleReport, error) {
	now := b.now().UTC().Truncate(time.Microsecond)
	report := console.BundleReport{Manifest: m}
	content := muster.BundleContent{Bundle: muster.Bundle{
		ID: m.ID, MadeAt: m.MadeAt, ValidUntil: m.ValidUntil, From: m.From, Version: m.Version,
		Key: bundle.FormatPublic(q.Key), ImportedAt: now, ImportedBy: q.By,
	}}
	if !m.ValidUntil.After(now) && !q.Force {
		return content, report, muster.Errorf(muster.Invalid, "the bundle was valid until %s: expected a newer one (--force takes it all the same)", m.ValidUntil.UTC().Format(time.RFC3339))
	}
	if m.MadeAt.After(now.Add(24*time.Hour)) && !q.Force {
		return content, report, muster.Errorf(muster.Invalid, "the bundle was made at %s, which is in the future: set this host's clock (--force takes it all the same)", m.MadeAt.UTC().Format(time.RFC3339))
	}
	if m.Lists != nil {
		content.Lists = make([]muster.BundleList, len(m.Lists))
	}
	if m.Allowlists != nil {
		content.Allowlists = make([]muster.BundleAllowlist, len(m.Allowlists))
	}
	fsys := os.DirFS(dir)
	for i := range m.Lists {
		l := &m.Lists[i]
		entries, reserved, err := bundle.ReadList(fsys, m, l)
		if err != nil {
			return content, report, err
		}
		id, err := uuid.NewV7()
		if err != nil {
			return content, report, err
		}
		report.Reserved += reserved
		report.Entries += len(entries)
		lifetime := l.Lifetime
		if lifetime < catalog.MinLifetime || lifetime > catalog.MaxLifetime {
			lifetime = catalog.Lifetime
		}
		content.Lists[i] = muster.BundleList{Blocklist: muster.Blocklist{
			ID: id.String(), Name: muster.BundlePrefix + l.Name, Label: shorten(l.Label, 90) + " (bundle)", Description: shorten(l.Description, 1000), Kind: muster.CustomList,
			Remedy: l.Remedy, Lifetime: lifetime, CreatedAt: now, CreatedBy: muster.ByBundle,
		}, Entries: entries}
	}
	for i := range m.Allowlists {
		l := &m.Allowlists[i]
		items, err := bundle.ReadAllowlist(fsys, m, l)
		if err != nil {
			return content, report, err
		}
		id, err := uuid.NewV7()
		if err != nil {
			return content, report, err
		}
		report.Allowed += len(items)
		content.Allowlists[i] = muster.BundleAllowlist{Allowlist: muster.Allowlist{
			ID: id.String(), Name: muster.BundlePrefix + l.Name, Description: shorten(l.Description, muster.MaxAllowDescription), CreatedAt: now, CreatedBy: muster.ByBundle,
		}, Items: items}
	}
	return content, report, b.checkFiles(dir, m, &report)
}

// checkFiles opens hub and databases, and says what will not be used.
func (b *bundles) checkFiles(dir string, m *bundle.Manifest, report *console.BundleReport) error {
	at := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	if m.Has(bundle.HubDir) || m.Has(bundle.PrivateDir) {
		mirror, err := hub.Open(hub.Config{Public: at(bundle.HubDir), Private: at(bundle.PrivateDir), PublicOptional: true, PrivateOptional: true})
		if err != nil {
			return muster.Errorf(muster.Invalid, "the hub in the bundle: %w", err)
		}
		st := mirror.Status()
		if len(st.Problems) > 0 {
			return muster.Errorf(muster.Invalid, "the hub in the bundle has %d damaged items, the first: %s", len(st.Problems), st.Problems[0])
		}
		for _, count := range st.Items {
			report.Items += count
		}
		if b.cfg.Hub.Dir != "" {
			report.Notes = append(report.Notes, "the hub of the bundle is not served: hub.dir names another (leave it empty to serve the bundle's)")
		}
	}
	notice := func(name, setting, value string) {
		switch value {
		case b.bundled(name):
		case "":
			report.Notes = append(report.Notes, "the database "+name+" is used from the next start on")
		default:
			report.Notes = append(report.Notes, "the database "+name+" is not used: "+setting+" names another (leave it empty to use the bundle's)")
		}
	}
	if m.Has(bundle.ASNFile) {
		db, err := enrich.Open(at(bundle.ASNFile))
		if err != nil {
			return muster.Errorf(muster.Invalid, "the bundle: %w", err)
		}
		if err := db.Close(); err != nil {
			return err
		}
		notice(bundle.ASNFile, "enrich.asn", b.cfg.Enrich.ASN)
	}
	if m.Has(bundle.CountryFile) {
		db, err := enrich.OpenCountry(at(bundle.CountryFile))
		if err != nil {
			return muster.Errorf(muster.Invalid, "the bundle: %w", err)
		}
		if err := db.Close(); err != nil {
			return err
		}
		notice(bundle.CountryFile, "enrich.country", b.cfg.Enrich.Country)
	}
	return nil
}

// carryOver keeps parts of the bundle in force that the next one does not have.
func carryOver(from, to string, m *bundle.Manifest) error {
	parts := []string{bundle.ASNFile, bundle.CountryFile}
	if !m.Has(bundle.HubDir) && !m.Has(bundle.PrivateDir) {
		parts = append(parts, bundle.HubDir, bundle.PrivateDir)
	}
	for _, part := range parts {
		if m.Has(part) {
			continue
		}
		err := filepath.WalkDir(filepath.Join(from, part), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() {
				return err
			}
			name, err := filepath.Rel(from, path)
			if err != nil {
				return err
			}
			return copyTo(filepath.Join(to, name), path)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// bundleChanged has everything look at what a bundle brought.
func (b *bundles) bundleChanged(ctx context.Context) error {
	err := errors.Join(b.catalog.Refresh(ctx, ""), b.centralChanged(ctx), b.mirror.Reload())
	b.bells.ring(bellLists, "")
	if err != nil {
		return fmt.Errorf("the bundle was imported, but not all of it is in force before a restart: %w", err)
	}
	return nil
}

func shorten(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}
