// Package enroll knows the machines: it registers them, checks their secrets,
// issues and verifies their tokens, and leads them through enrolment into an
// organisation. All machines are held in memory, so that the checks on every
// request's way and a storm of logins cost no database work.
package enroll

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
)

// Who may register, see Config.Registration.
const (
	RegistrationOpen   = "open"   // every machine
	RegistrationKey    = "key"    // machines that show a usable enrolment key
	RegistrationClosed = "closed" // nobody
)

// Config is what a Service needs. Zero values choose the defaults named.
type Config struct {
	Store Store // required

	Registration  string        // RegistrationOpen (default), RegistrationKey or RegistrationClosed
	MaxMachines   int           // registrations end here, to bound memory (about 1 KB each); 0 = 1,000,000
	TokenLifetime time.Duration // mean lifetime of a token; 0 = 12 h, at least 2 min
	TokenSpread   float64       // lifetimes vary by ± this share, so that logins do not come in herds; 0 = 0.25, negative = none
	TokenCache    int           // verified tokens remembered; 0 = 262,144 (about 250 bytes each)
	PublicURL     string        // where people reach the console, ends in "/"; claims link to it

	FlushEvery  time.Duration // how often contacts are written; 0 = 5 s
	ResyncEvery time.Duration // how often all is compared with the store, in case a bell was lost; 0 = 5 min

	// Notify tells the other nodes that a machine changed, or with an empty id
	// that organisations or token keys did; they call Refresh. The call that
	// made the change waits for it. nil = there are no other nodes.
	Notify func(machineID string)

	Now        func() time.Time      // nil = time.Now
	Rand       func() float64        // in [0,1), spreads lifetimes; nil = math/rand/v2
	Logger     *slog.Logger          // nil = discarded
	Registerer prometheus.Registerer // nil = no metrics
}

// Service is the directory of machines. Start it before use; Run keeps it.
// All methods are safe for concurrent use.
type Service struct {
	cfg           Config
	store         Store
	now           func() time.Time
	log           *slog.Logger
	directory     *directory
	hasher        *hasher
	tokens        *tokens
	asked         recent
	organisations atomic.Pointer[map[string]muster.Organisation]
	metrics       *metrics
}

// New checks the configuration. It does no I/O.
func New(cfg Config) (*Service, error) {
	if cfg.Store == nil {
		return nil, errors.New("enroll: Config.Store is missing")
	}
	setDefault(&cfg.Registration, RegistrationOpen)
	setDefault(&cfg.MaxMachines, 1_000_000)
	setDefault(&cfg.TokenLifetime, 12*time.Hour)
	setDefault(&cfg.TokenSpread, 0.25)
	setDefault(&cfg.TokenCache, 262_144)
	setDefault(&cfg.FlushEvery, 5*time.Second)
	setDefault(&cfg.ResyncEvery, 5*time.Minute)
	cfg.TokenSpread = max(cfg.TokenSpread, 0)
	if !slices.Contains([]string{RegistrationOpen, RegistrationKey, RegistrationClosed}, cfg.Registration) {
		return nil, fmt.Errorf("registration: expected open, key or closed, got %q", cfg.Registration)
	}
	// Engines renew a token a minute before it ends.
	if shortest := time.Duration(float64(cfg.TokenLifetime) * (1 - cfg.TokenSpread)); cfg.TokenSpread >= 1 || shortest < 90*time.Second {
		return nil, fmt.Errorf("token lifetime %v with a spread of %v: expected at least 90 s at the short end, because engines renew a minute early", cfg.TokenLifetime, cfg.TokenSpread)
	}
	if cfg.PublicURL != "" && !strings.HasSuffix(cfg.PublicURL, "/") {
		return nil, fmt.Errorf("public URL %q: expected a / at its end", cfg.PublicURL)
	}
	if cfg.Notify == nil {
		cfg.Notify = func(string) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = mathrand.Float64
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		cfg:       cfg,
		store:     cfg.Store,
		now:       cfg.Now,
		log:       cfg.Logger,
		directory: newDirectory(),
		hasher:    newHasher(runtime.GOMAXPROCS(0)),
		tokens:    newTokens(cfg.Store, cfg.Now, cfg.TokenCache),
	}
	s.organisations.Store(&map[string]muster.Organisation{})
	s.metrics = newMetrics(cfg.Registerer, s)
	return s, nil
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// pepperSecret names the key of the verifiers of machines' passwords. Without
// it no machine can log in: it belongs into every backup.
const pepperSecret = "machine-pepper"

// Start loads the server's keys and every machine.
func (s *Service) Start(ctx context.Context) error {
	fresh := make([]byte, 32)
	rand.Read(fresh)
	pepper, err := s.store.EnsureSecret(ctx, pepperSecret, fresh)
	if err != nil {
		return fmt.Errorf("secret %s: %w", pepperSecret, err)
	}
	if len(pepper) < 32 {
		return fmt.Errorf("secret %s: expected at least 32 bytes, got %d", pepperSecret, len(pepper))
	}
	s.hasher.pepper = pepper
	if err := s.tokens.load(ctx); err != nil {
		return err
	}
	if err := s.loadOrganisations(ctx); err != nil {
		return err
	}
	err = s.store.EachMachine(ctx, func(m muster.Machine) error {
		s.directory.put(m, unsaved{})
		return nil
	})
	if err != nil {
		return fmt.Errorf("loading the machines: %w", err)
	}
	return nil
}

// endTimeout bounds the last write of contacts at the end.
const endTimeout = 10 * time.Second

// Run writes contacts in batches and keeps the directory in step with the
// store until ctx ends; then it writes what is left. It returns an error only
// if that last write fails.
func (s *Service) Run(ctx context.Context) error {
	flush := time.NewTicker(s.cfg.FlushEvery)
	defer flush.Stop()
	resync := time.NewTicker(s.cfg.ResyncEvery)
	defer resync.Stop()
	failing := false // one line when trouble begins and one when it ends
	for {
		var err error
		select {
		case <-flush.C:
			err = s.flush(ctx)
		case <-resync.C:
			err = s.resync(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
			defer cancel()
			s.directory.markUnsaved()
			return s.flush(last)
		}
		switch {
		case err != nil && ctx.Err() == nil && !failing:
			failing = true
			s.log.Warn("the machine directory cannot reach the store; it works from memory and tries again", "error", err)
		case err == nil && failing:
			failing = false
			s.log.Info("the machine directory reaches the store again")
		}
	}
}

// resync compares memory with the store and reloads what differs: bells from
// other nodes can get lost.
func (s *Service) resync(ctx context.Context) error {
	if err := s.tokens.load(ctx); err != nil {
		return err
	}
	if err := s.loadOrganisations(ctx); err != nil {
		return err
	}
	var differ []string
	stored := make(map[string]struct{})
	err := s.store.EachMachine(ctx, func(m muster.Machine) error {
		stored[m.ID] = struct{}{}
		e := s.directory.entry(m.ID)
		if e == nil || e.record.Load() == nil || !e.record.Load().same(&m) {
			differ = append(differ, m.ID)
			return nil
		}
		e.heard(m.Seen)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the machines: %w", err)
	}
	differ = append(differ, s.directory.missing(stored)...)
	for _, id := range differ {
		if _, err := s.reload(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// same reports whether the store holds nothing new about a machine.
func (r *record) same(m *muster.Machine) bool {
	return r.State == m.State && r.Organisation == m.Organisation && r.epoch == epochOf(m.TokensFrom) &&
		r.Name == m.Name && r.Version == m.Version && slices.Equal(r.Tags, m.Tags) &&
		slices.Equal(r.Scenarios, m.Scenarios) && bytes.Equal(r.Credential, m.Credential)
}

// Refresh reloads one machine from the store, or with an empty id the
// organisations and token keys. Call it when another node rings.
func (s *Service) Refresh(ctx context.Context, machineID string) error {
	if machineID == "" {
		return errors.Join(s.tokens.load(ctx), s.loadOrganisations(ctx))
	}
	_, err := s.reload(ctx, machineID)
	return err
}

// find returns a machine from memory, or from the store when another node may
// just have registered it; nil when there is none.
func (s *Service) find(ctx context.Context, id string) (*record, error) {
	if r := s.directory.record(id); r != nil || s.asked.has(id, s.now()) {
		return r, nil
	}
	return s.reload(ctx, id)
}

// reload takes a machine from the store; nil when it is not there.
func (s *Service) reload(ctx context.Context, id string) (*record, error) {
	changing := &s.directory.shard(id).changing
	changing.Lock()
	defer changing.Unlock()
	s.asked.add(id, s.now())
	before := s.directory.unsavedOf(id)
	m, err := s.store.Machine(ctx, id)
	if errors.Is(err, muster.NotFound) {
		s.directory.remove(id)
		return nil, nil
	}
	if err != nil {
		return nil, unavailable("the machine cannot be looked up now", err)
	}
	if err := s.knowOrganisation(ctx, m.Organisation); err != nil && !errors.Is(err, muster.NotFound) {
		return nil, err
	}
	return s.directory.put(m, before), nil
}

// loadOrganisations replaces the organisations in memory.
func (s *Service) loadOrganisations(ctx context.Context) error {
	list, err := s.store.Organisations(ctx)
	if err != nil {
		return fmt.Errorf("loading the organisations: %w", err)
	}
	all := make(map[string]muster.Organisation, len(list))
	for _, o := range list {
		all[o.ID] = o
	}
	s.organisations.Store(&all)
	return nil
}

// knowOrganisation makes sure that an organisation is in memory; code NotFound
// when there is none. "" is fine.
func (s *Service) knowOrganisation(ctx context.Context, id string) error {
	if _, ok := (*s.organisations.Load())[id]; ok || id == "" {
		return nil
	}
	if err := s.loadOrganisations(ctx); err != nil {
		return unavailable("the organisation cannot be looked up now", err)
	}
	if _, ok := (*s.organisations.Load())[id]; !ok {
		return muster.Errorf(muster.NotFound, "there is no organisation %q", clip(id))
	}
	return nil
}

// OrganisationsChanged reloads the organisations after one was added or given
// another plan or fleet policy, and tells the other nodes. Tokens that name
// another plan than their organisation has are refused from then on.
func (s *Service) OrganisationsChanged(ctx context.Context) error {
	if err := s.loadOrganisations(ctx); err != nil {
		return err
	}
	s.cfg.Notify("")
	return nil
}

// Rotate makes a new token key and keeps one earlier key alive to verify with.
// Rotating twice ends all tokens that were issued before.
func (s *Service) Rotate(ctx context.Context) error {
	if err := s.tokens.rotate(ctx); err != nil {
		return err
	}
	s.cfg.Notify("")
	return nil
}

// Machine returns what memory knows about a machine, including contacts not
// yet written. Its slices must not be changed.
func (s *Service) Machine(machineID string) (muster.Machine, bool) {
	e := s.directory.entry(machineID)
	if e == nil || e.record.Load() == nil {
		return muster.Machine{}, false
	}
	m := e.record.Load().Machine
	m.Seen = e.contacts()
	return m, true
}

// Plan returns the plan of an organisation in memory, "" when it is not known.
func (s *Service) Plan(organisation string) muster.Plan {
	return (*s.organisations.Load())[organisation].Plan
}

// Counts says how many machines are in each state, and how many organisations
// have an active one.
type Counts struct{ Pending, Active, Blocked, Organisations int }

// Counts counts the machines in memory.
func (s *Service) Counts() Counts { return s.directory.count() }

// unavailable hides a fault of the store from clients, who are to try again.
func unavailable(message string, cause error) error {
	return &muster.Error{Code: muster.Unavailable, Message: message, RetryAfter: 5 * time.Second, Cause: cause}
}

// clip shortens what a caller sent before it is quoted back.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
