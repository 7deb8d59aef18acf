package console

import (
	"context"
	"crypto/ed25519"
	"io"
	"net/http"
	"strconv"
	"time"

	"muster"
	"muster/internal/bundle"
	"muster/internal/ops"
)

// Bundles exports and imports bundles. One is made or imported at a time;
// another is of code Unavailable then.
type Bundles interface {
	Imported(ctx context.Context) ([]muster.Bundle, error) // the last one first
	// Export writes a bundle that is not signed: the key stays with whoever asks.
	// Nothing is written before everything is at hand.
	Export(ctx context.Context, w io.Writer, q BundleQuery) error
	// Import changes nothing unless everything in the bundle is right.
	Import(ctx context.Context, r io.Reader, q BundleImport) (BundleReport, error)
}

// BundleQuery says what goes into a bundle.
type BundleQuery struct {
	Hub, Lists, Allowlists, Databases bool
	Names                             []string      // lists by id or name; none = the community list and the installation's
	Valid                             time.Duration // for how long entries of lists hold
}

// BundleImport says how a bundle is imported.
type BundleImport struct {
	Key    ed25519.PublicKey // must have signed it
	Force  bool              // take one that is older than the last, or not valid any more
	DryRun bool              // verify only
	By     string            // user
	Audit  muster.AuditEntry
}

// BundleReport is what is in a bundle, and what became of it.
type BundleReport struct {
	Manifest *bundle.Manifest
	Entries  int      // of lists
	Reserved int      // entries that are private or reserved, and left out
	Allowed  int      // items of allowlists
	Items    int      // of the hub
	Notes    []string // what is not used, or not yet
}

// bundleView is a bundle as the API shows it.
type bundleView struct {
	ID         string    `json:"id"`
	MadeAt     time.Time `json:"made_at"`
	ValidUntil time.Time `json:"valid_until"`
	From       string    `json:"from"`
	Version    string    `json:"version"`
	Key        string    `json:"key"`
	ImportedAt time.Time `json:"imported_at"`
	ImportedBy string    `json:"imported_by"`
}

// reportView is a BundleReport as the API shows it.
type reportView struct {
	ID         string    `json:"id"`
	MadeAt     time.Time `json:"made_at"`
	ValidUntil time.Time `json:"valid_until"`
	From       string    `json:"from"`
	DryRun     bool      `json:"dry_run"`
	Files      int       `json:"files"`
	Bytes      int64     `json:"bytes"`
	Items      int       `json:"items"`
	Lists      int       `json:"lists"`
	Entries    int       `json:"entries"`
	Reserved   int       `json:"reserved"`
	Allowlists int       `json:"allowlists"`
	Allowed    int       `json:"allowed"`
	Notes      []string  `json:"notes"`
}

var errNoBundles = muster.Errorf(muster.Unavailable, "this server takes no bundles")

func (a *API) bundles(r *http.Request) (any, error) {
	if a.cfg.Bundles == nil {
		return nil, errNoBundles
	}
	list, err := a.cfg.Bundles.Imported(r.Context())
	if err != nil {
		return nil, err
	}
	views := make([]bundleView, len(list))
	for i, b := range list {
		views[i] = bundleView(b)
	}
	return views, nil
}

// bundleTime bounds how long a bundle may take over a slow line.
const bundleTime = time.Hour

// exportBundle answers with the bundle itself. A failure after its beginning
// cuts it off, which its reader notices.
func (a *API) exportBundle(w http.ResponseWriter, r *http.Request) {
	ops.RecordOf(r.Context()).Route = "GET " + exportPath
	q, err := bundleQuery(r)
	if err == nil && a.cfg.Bundles == nil {
		err = errNoBundles
	}
	if err != nil {
		a.answer(w, r, nil, err)
		return
	}
	ops.Extend(w, a.cfg.Now(), bundleTime)
	w.Header().Set("Content-Type", "application/zstd")
	w.Header().Set("Cache-Control", "no-store")
	begun := &beginning{ResponseWriter: w}
	if err := a.cfg.Bundles.Export(r.Context(), begun, q); err != nil {
		if begun.begun {
			panic(http.ErrAbortHandler)
		}
		a.answer(w, r, nil, err)
	}
}

const (
	exportPath = "/api/v1/bundles/export"
	importPath = "/api/v1/bundles/import"
)

// beginning notices when something has been written.
type beginning struct {
	http.ResponseWriter
	begun bool
}

func (b *beginning) Write(p []byte) (int, error) {
	b.begun = true
	return b.ResponseWriter.Write(p)
}

// defaultValid is how long entries of lists hold without another word.
const defaultValid = 30 * 24 * time.Hour

func bundleQuery(r *http.Request) (BundleQuery, error) {
	v := r.URL.Query()
	q := BundleQuery{Hub: true, Lists: true, Allowlists: true, Databases: true, Names: v["list"], Valid: defaultValid}
	for _, part := range v["without"] {
		switch part {
		case "hub":
			q.Hub = false
		case "lists":
			q.Lists = false
		case "allowlists":
			q.Allowlists = false
		case "databases":
			q.Databases = false
		default:
			return q, muster.Errorf(muster.Invalid, "without: expected hub, lists, allowlists or databases, got %q", clip(part))
		}
	}
	if text := v.Get("valid"); text != "" {
		days, err := strconv.Atoi(text)
		if err != nil || days < 1 || days > 3650 {
			return q, muster.Errorf(muster.Invalid, "valid: expected 1 to 3650 days, got %q", clip(text))
		}
		q.Valid = time.Duration(days) * 24 * time.Hour
	}
	return q, nil
}

// importBundle reads the bundle from the body as it comes.
func (a *API) importBundle(w http.ResponseWriter, r *http.Request) {
	ops.RecordOf(r.Context()).Route = "POST " + importPath
	ops.Extend(w, a.cfg.Now(), bundleTime)
	answer, err := a.takeBundle(w, r)
	a.answer(w, r, answer, err)
}

func (a *API) takeBundle(w http.ResponseWriter, r *http.Request) (any, error) {
	if a.cfg.Bundles == nil {
		return nil, errNoBundles
	}
	v := r.URL.Query()
	key, err := bundle.ParsePublic(v.Get("key"))
	if err != nil {
		return nil, err
	}
	q := BundleImport{Key: key, Force: v.Get("force") == "true", DryRun: v.Get("dry_run") == "true", By: callerOf(r)}
	if q.Audit, err = a.reasoned(r, "bundle.import", bundle.FormatPublic(key)); err != nil {
		return nil, err
	}
	report, err := a.cfg.Bundles.Import(r.Context(), http.MaxBytesReader(w, r.Body, bundle.MaxBytes), q)
	if err != nil {
		return nil, err
	}
	m, notes := report.Manifest, report.Notes
	if notes == nil {
		notes = []string{}
	}
	return reportView{
		ID: m.ID, MadeAt: m.MadeAt, ValidUntil: m.ValidUntil, From: m.From, DryRun: q.DryRun, Files: len(m.Files), Bytes: m.Bytes(),
		Items: report.Items, Lists: len(m.Lists), Entries: report.Entries, Reserved: report.Reserved,
		Allowlists: len(m.Allowlists), Allowed: report.Allowed, Notes: notes,
	}, nil
}
