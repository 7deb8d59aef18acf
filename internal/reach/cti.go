package reach

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/internal/cti"
	"muster/internal/ops"
)

// LookupStore keeps the keys of programs that look addresses up, and what they
// used. Writes are durable when they return.
type LookupStore interface {
	LookupKeys(ctx context.Context) ([]muster.LookupKey, error) // revoked ones too
	LookupUsage(ctx context.Context, since int64) ([]muster.LookupUsage, error)
	AddLookupUsage(ctx context.Context, used []muster.LookupUsage) error
}

// LookupConfig sets up Lookups. Zero values choose the defaults named.
type LookupConfig struct {
	Store     LookupStore // required
	Community Community   // required
	// Days returns what was reported of an address, day by day. Required.
	Days func(ctx context.Context, addr netip.Addr, now time.Time) ([]cti.DatedDay, error)
	// Verdict returns the network's verdict on what is judged in a source's place;
	// code muster.NotFound for none. Required.
	Verdict func(ctx context.Context, source muster.Source) (muster.Verdict, error)
	// Changes returns verdicts of all audiences that changed after a time, earliest
	// first: about limit of them, and always all of one moment. Required.
	Changes func(ctx context.Context, since time.Time, limit int) ([]muster.Verdict, error)
	// Good reports whether a source is known to be good, and from where and why a
	// canary is. It takes no longer than a few loads from memory. Required.
	Good func(muster.Source) (good cti.Good, why string)
	// Place says where an address is; nil = not known.
	Place func(netip.Addr) cti.Place
	// Active returns how many organisations take part in the network. nil = none.
	Active func() int
	// PublicURL is where this server is reached; it ends in "/". What feeds name by
	// number is named after it, so another address makes other numbers.
	PublicURL string
	// WrongKey counts a wrong key. An error is what the client is answered instead.
	// nil = not counted.
	WrongKey func(addr netip.Addr) error
	Addr     func(*http.Request) netip.Addr // as in Config
	// Rate is how many calls a key may make in a second over longer times, Burst at
	// once; 0 = 50 and 200.
	Rate  float64
	Burst float64

	Parameters cti.Parameters        // the zero value means cti.Default()
	Now        func() time.Time      // nil = time.Now
	Logger     *slog.Logger          // nil = discarded
	Registerer prometheus.Registerer // nil = no metrics
}

// Lookups tells programs what is known about addresses: one by one (CrowdSec's
// CTI API), and the whole community list as a dump, by TAXII and by MISP. Start
// it before use; Run keeps it. Its methods are safe for concurrent use.
type Lookups struct {
	cfg        LookupConfig
	vocabulary *cti.Vocabulary
	keys       lookupKeys
	cache      lookupCache
	heavy      chan struct{} // held by answers that read much

	listingMu sync.Mutex
	listing   *listing
	dumpMu    sync.Mutex
	dumps     map[string]*dump // by format

	served *prometheus.CounterVec
}

// atOnce is how many answers that read much are made at once: the others must
// not starve.
const atOnce = 1

// NewLookups returns Lookups that know no keys until Start.
func NewLookups(cfg LookupConfig) *Lookups {
	if cfg.Place == nil {
		cfg.Place = func(netip.Addr) cti.Place { return cti.Place{} }
	}
	if cfg.Active == nil {
		cfg.Active = func() int { return 0 }
	}
	if cfg.WrongKey == nil {
		cfg.WrongKey = func(netip.Addr) error { return nil }
	}
	if cfg.Addr == nil {
		cfg.Addr = connectionAddr
	}
	if cfg.Rate == 0 {
		cfg.Rate = 50
	}
	if cfg.Burst == 0 {
		cfg.Burst = 200
	}
	if cfg.Parameters.Threshold == 0 {
		cfg.Parameters = cti.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Lookups{
		cfg: cfg, vocabulary: cti.BuiltIn(), heavy: make(chan struct{}, atOnce), dumps: map[string]*dump{},
		served: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_lookups_total", Help: "Addresses that were looked up, by where the answer came from (cache, computed).",
		}, []string{"from"}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(l.served)
	}
	return l
}

// Start reads the keys.
func (l *Lookups) Start(ctx context.Context) error { return l.Refresh(ctx) }

// Refresh writes down what keys were used for, and reads them and their use
// again.
func (l *Lookups) Refresh(ctx context.Context) error {
	if used := l.keys.unwritten(); len(used) > 0 {
		if err := l.cfg.Store.AddLookupUsage(ctx, used); err != nil {
			return err
		}
		l.keys.settled(used)
	}
	list, err := l.cfg.Store.LookupKeys(ctx)
	if err != nil {
		return err
	}
	today := cti.DayOf(l.cfg.Now())
	used, err := l.cfg.Store.LookupUsage(ctx, monthOf(today))
	if err != nil {
		return err
	}
	l.keys.replace(list, used)
	return nil
}

// Run keeps the keys and their use, and forgets what nobody reads, until ctx
// ends.
func (l *Lookups) Run(ctx context.Context) error {
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := l.Refresh(ctx); err != nil && ctx.Err() == nil {
				l.cfg.Logger.Warn("the use of lookup keys was not written down; it is tried again", ops.KeyError, err)
			}
			l.forget()
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
			defer cancel()
			if used := l.keys.unwritten(); len(used) > 0 {
				if err := l.cfg.Store.AddLookupUsage(last, used); err != nil {
					l.cfg.Logger.Warn("the last use of lookup keys was not written down", ops.KeyError, err)
				}
			}
			return nil
		}
	}
}

// ServesLookups reports whether a path is Lookups'.
func ServesLookups(path string) bool {
	path = tidy(path)
	for _, own := range []string{"/v2/smoke", "/v2/fire", "/v2/dump", "/taxii2", "/misp"} {
		if rest, ok := strings.CutPrefix(path, own); ok && (rest == "" || rest[0] == '/' || rest[0] == '.') {
			return true
		}
	}
	return false
}

// ServeHTTP answers the paths that ServesLookups names. It redirects nothing.
func (l *Lookups) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := tidy(r.URL.Path)
	rec := ops.RecordOf(r.Context())
	var serve func(http.ResponseWriter, *http.Request, *lookupKey) error
	fail := l.fail
	switch addr, one := strings.CutPrefix(path, "/v2/smoke/"); {
	case one:
		rec.Route = "GET /v2/smoke/{ip}"
		serve = func(w http.ResponseWriter, r *http.Request, k *lookupKey) error { return l.smoke(w, r, k, addr) }
	case path == "/v2/smoke":
		rec.Route, serve = "GET /v2/smoke", l.smokeMany
	case path == "/v2/fire":
		rec.Route, serve = "GET /v2/fire", l.fire
	case path == "/v2/dump.mmdb", path == "/v2/dump.jsonl.gz":
		format := strings.TrimPrefix(path, "/v2/dump.")
		rec.Route = "GET /v2/dump." + format
		serve = func(w http.ResponseWriter, r *http.Request, k *lookupKey) error { return l.dumped(w, r, k, format) }
	case strings.HasPrefix(path+"/", "/taxii2/"):
		fail = l.taxiiFail
		rec.Route, serve = l.taxii(strings.TrimPrefix(strings.TrimPrefix(path, "/taxii2"), "/"))
	case strings.HasPrefix(path, "/misp/"):
		rec.Route, serve = "GET /misp/{file}", func(w http.ResponseWriter, r *http.Request, k *lookupKey) error {
			return l.misp(w, r, k, strings.TrimPrefix(path, "/misp/"))
		}
	}
	if serve == nil {
		rec.Route = "unknown"
		fail(w, r, muster.Errorf(muster.NotFound, "expected /v2/smoke/ADDRESS, /v2/smoke?ips=, /v2/fire, /v2/dump.mmdb, /v2/dump.jsonl.gz, /taxii2/ or /misp/manifest.json"))
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		rec.Route = "other method"
		w.Header().Set("Allow", "GET, HEAD")
		l.write(w, r, http.StatusMethodNotAllowed, "application/json", appendMessage("expected GET or HEAD"))
		return
	}
	key, err := l.authenticate(r)
	if err == nil {
		err = serve(w, r, key)
	}
	if err != nil {
		fail(w, r, err)
	}
}

// authenticate returns the key of a request: in X-Api-Key, as a bearer token, or
// as the password of basic authentication.
func (l *Lookups) authenticate(r *http.Request) (*lookupKey, error) {
	text := r.Header.Get("X-Api-Key")
	for _, scheme := range [...]string{"Bearer ", "Token "} { // the latter is what a client of TAXII sends
		if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), scheme); ok && text == "" {
			text = token
		}
	}
	if _, password, ok := r.BasicAuth(); ok && text == "" {
		text = password
	}
	if text == "" {
		return nil, muster.Errorf(muster.Unauthorized, "expected a lookup key in X-Api-Key, or as the password of basic authentication: whoever runs this server makes one with muster admin lookup-key create")
	}
	if key := l.keys.find(text); key != nil {
		return key, nil
	}
	if err := l.cfg.WrongKey(l.cfg.Addr(r)); err != nil {
		return nil, err
	}
	return nil, muster.Errorf(muster.Unauthorized, "the lookup key is not known, or was revoked")
}

// fail answers an error. Engines go on without lookups after 403, which is what
// they get without a key that is known, and pause them after 429.
func (l *Lookups) fail(w http.ResponseWriter, r *http.Request, err error) {
	ops.RecordOf(r.Context()).Err = err
	status, code, message := statusOf(w, err)
	if status == http.StatusUnauthorized {
		status = http.StatusForbidden
	}
	body, _ := json.Marshal(map[string]string{"code": code, "message": message}) // texts can be written
	l.write(w, r, status, "application/json", body)
}

// statusOf returns what an error is in HTTP, and says in a header how long to
// wait.
func statusOf(w http.ResponseWriter, err error) (status int, code, message string) {
	status, code, message = http.StatusInternalServerError, "internal", "internal error: the server's log says more"
	var known *muster.Error
	if !errors.As(err, &known) {
		return status, code, message
	}
	code, message = string(known.Code), known.Message
	if known.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(known.RetryAfter.Seconds()))))
	}
	switch known.Code {
	case muster.Invalid:
		status = http.StatusBadRequest
	case muster.Unauthorized:
		status = http.StatusUnauthorized
	case muster.Forbidden:
		status = http.StatusForbidden
	case muster.NotFound:
		status = http.StatusNotFound
	case muster.TooLarge:
		status = http.StatusRequestEntityTooLarge
	case muster.RateLimited:
		status = http.StatusTooManyRequests
		if errors.As(err, new(spentError)) {
			code = "quota_spent"
		}
	case muster.Unavailable:
		status = http.StatusServiceUnavailable
	}
	return status, code, message
}

// longAnswer is from how many bytes on an answer is compressed.
const longAnswer = 4 << 10

// write answers, without the body to HEAD.
func (l *Lookups) write(w http.ResponseWriter, r *http.Request, status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept-Encoding")
	if len(body) >= longAnswer && takesGzip(r) && r.Method != http.MethodHead {
		h.Set("Content-Encoding", "gzip")
		w.WriteHeader(status)
		zip, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // of a level that there is
		_, _ = zip.Write(body)                           // a client that hangs up is no error here
		_ = zip.Close()
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

func (l *Lookups) writeJSON(w http.ResponseWriter, r *http.Request, contentType string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	l.write(w, r, http.StatusOK, contentType, body)
	return nil
}

// begin waits for the turn of an answer that reads much; the caller calls done.
func (l *Lookups) begin(ctx context.Context) (done func(), err error) {
	select {
	case l.heavy <- struct{}{}:
		return func() { <-l.heavy }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// forbidden is the guard before everything that is given as a whole.
func (l *Lookups) forbidden(source muster.Source) bool {
	good, _ := l.cfg.Good(source)
	return good != cti.NotGood || source.IsReserved()
}
