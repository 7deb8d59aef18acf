package abuse

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/internal/misuse"
	"muster/internal/ratelimit"
)

// Config sets up a Service. Zero values choose the defaults named.
type Config struct {
	Store Store // required

	Limits      []ratelimit.Limit // as configured; nil = ratelimit.DefaultLimits()
	Exempt      []netip.Prefix    // as configured: never limited
	MaxBans     int               // 0 = 250,000
	MaxCounters int               // 0 = 1,000,000, about 140 bytes each

	// Share tells the other nodes, which give what they hear to Hear. This node may
	// hear itself. It must not block for long. nil = there are no other nodes.
	Share func(message []byte)

	Now        func() time.Time      // nil = time.Now
	Logger     *slog.Logger          // nil = discarded
	Registerer prometheus.Registerer // nil = no metrics
}

// Service limits and bans. Start it before use; Run keeps it. All methods are
// safe for concurrent use.
type Service struct {
	cfg     Config
	node    string // tells this process's messages from others'
	now     func() time.Time
	log     *slog.Logger
	rules   atomic.Pointer[ratelimit.Rules]
	limiter *ratelimit.Limiter
	bans    *ratelimit.Bans
	watch   *misuse.Watch
	proxies proxies
	metrics metrics

	news    news
	writing sync.Mutex // held over store and memory while bans change by a person, or are written

	changing sync.Mutex // held over store and memory while the policy changes
	policy   atomic.Pointer[policy]
}

// policy is what an operator decided, as in force.
type policy struct {
	limits    []ratelimit.Limit    // configured ones in their order, then further ones
	overrides []ratelimit.Override // configured ones, then the newest first
}

// New returns a Service that limits by its configuration. It does no I/O.
// Errors are of code Invalid, about the limits.
func New(cfg Config) (*Service, error) {
	if cfg.Limits == nil {
		cfg.Limits = ratelimit.DefaultLimits()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, node: uuid.NewString(), now: cfg.Now, log: cfg.Logger}
	s.limiter = ratelimit.NewLimiter(ratelimit.LimiterConfig{MaxKeys: cfg.MaxCounters, Seed: seed()})
	s.bans = ratelimit.NewBans(ratelimit.BansConfig{Max: cfg.MaxBans, Sink: &s.news, Seed: seed()})
	s.watch = misuse.New(misuse.Config{Seed: seed()})
	s.news.init(cfg.Share != nil)
	s.metrics.init(s, cfg.Registerer)
	return s, s.use(s.assemble(nil, nil))
}

// seed draws a secret of this process.
func seed() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// assemble puts together the configured policy and what was changed since.
func (s *Service) assemble(changed []ratelimit.Limit, overrides []ratelimit.Override) *policy {
	p := &policy{limits: slices.Clone(s.cfg.Limits)}
	for _, c := range changed {
		if i := slices.IndexFunc(p.limits, func(l ratelimit.Limit) bool { return l.Name == c.Name }); i >= 0 {
			p.limits[i] = c
			continue
		}
		p.limits = append(p.limits, c)
	}
	for _, e := range s.cfg.Exempt {
		p.overrides = append(p.overrides, ratelimit.Override{Addresses: e, Exempt: true, Reason: "ratelimit.exempt of the configuration"})
	}
	for _, o := range slices.Backward(overrides) { // of several of one subject, the first decides: the newest
		p.overrides = append(p.overrides, o)
	}
	return p
}

// use puts a policy in force, or returns its faults and leaves the one before.
func (s *Service) use(p *policy) error {
	rules, err := ratelimit.Compile(ratelimit.Policy{Limits: p.limits, Overrides: p.overrides})
	if err != nil {
		return err
	}
	s.policy.Store(p)
	s.rules.Store(rules)
	s.limiter.Use(rules)
	return nil
}

// Start loads bans and the policy from the store.
func (s *Service) Start(ctx context.Context) error {
	if err := s.loadPolicy(ctx); err != nil {
		return err
	}
	bans, err := s.cfg.Store.Bans(ctx, s.now())
	if err != nil {
		return fmt.Errorf("loading the bans: %w", err)
	}
	s.learn(bans)
	return nil
}

// loadPolicy takes the policy from the store. Overrides of limits that are no
// longer there (the configuration changed) are left out rather than that the
// server does not start.
func (s *Service) loadPolicy(ctx context.Context) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	changed, err := s.cfg.Store.ChangedLimits(ctx)
	if err != nil {
		return fmt.Errorf("loading the limits: %w", err)
	}
	overrides, err := s.cfg.Store.Overrides(ctx, s.now())
	if err != nil {
		return fmt.Errorf("loading the overrides of limits: %w", err)
	}
	p := s.assemble(changed, overrides)
	p.overrides = slices.DeleteFunc(p.overrides, func(o ratelimit.Override) bool {
		for _, name := range o.Limits {
			if !slices.ContainsFunc(p.limits, func(l ratelimit.Limit) bool { return l.Name == name }) {
				s.log.Warn("an override names a limit that is not there, and is left out: remove it with muster admin override remove", "override", o.ID, "limit", name)
				return true
			}
		}
		return false
	})
	if err := s.use(p); err != nil {
		return fmt.Errorf("the stored limits cannot be used: %w", err)
	}
	return nil
}

func (s *Service) learn(bans []ratelimit.Ban) {
	if refused, err := s.bans.Learn(s.now(), bans...); refused > 0 {
		s.log.Warn("some bans are not in force on this node", "refused", refused, "error", err)
	}
}

// Refuse reports whether a request from addr is to be answered with a ban and
// nothing else. login says that it is one that needs no token. It costs a few
// loads from memory; a refused request counts as a retry.
func (s *Service) Refuse(addr netip.Addr, login bool) (ratelimit.Ban, bool) {
	ban, refused := s.bans.Check(s.now(), addr, login)
	if refused {
		s.metrics.refused.Add(1)
	}
	return ban, refused
}

// instant is now as the store keeps times: a ban that is heard of twice, from
// another node and from the store, must be one and the same.
func (s *Service) instant() time.Time { return s.now().UTC().Truncate(time.Microsecond) }

// Client is who makes a request, as far as it is proven.
type Client struct {
	Addr         netip.Addr // invalid: not known
	Machine      string
	Organisation string // "" unless the machine counts in one
	Plan         muster.Plan
	Sharing      bool // it has pushed signals
	NoScenarios  bool // of a login: it declared none
	Agent        string
}

func (c *Client) event(kind string) ratelimit.Event {
	return ratelimit.Event{
		Kind: kind, Addr: c.Addr, Machine: c.Machine, Organisation: c.Organisation, Plan: c.Plan,
		Class: ratelimit.Class{Sharing: c.Sharing, Enrolled: c.Organisation != ""},
	}
}

// Banned is the error of a request that got its client banned.
type Banned struct{ ratelimit.Ban }

func (b *Banned) Error() string { return "banned: " + b.Reason }

// Login counts a login whose password was right. The error is the answer: a
// *Banned, or of code RateLimited.
func (s *Service) Login(c Client) error {
	s.Seen(c, misuse.Login)
	return s.spend(c.event(ratelimit.KindLogin), c.Machine)
}

// WrongPassword counts a login as machine, which need not exist, that was
// refused for its password. Errors as of Login; nil leaves the refusal as it is.
func (s *Service) WrongPassword(addr netip.Addr, machine string) error {
	// What the client says it is counts for nothing: else it could use up, from
	// anywhere, what the real machine may spend.
	if err := s.spend(ratelimit.Event{Kind: ratelimit.KindLogin, Addr: addr}, ""); err != nil {
		return err
	}
	return s.spend(ratelimit.Event{Kind: ratelimit.KindWrongPassword, Addr: addr, Machine: machine}, "")
}

// Counts reports whether any limit counts requests of a kind.
func (s *Service) Counts(kind string) bool { return s.rules.Load().Counts(kind) }

// Spend counts a request of any other kind. Errors as of Login.
func (s *Service) Spend(kind string, c Client) error { return s.spend(c.event(kind), c.Machine) }

// Seen notes a contact by a machine that has proven who it is.
func (s *Service) Seen(c Client, what misuse.What) {
	contact := misuse.Contact{Machine: c.Machine, Organisation: c.Organisation, Addr: c.Addr, What: what, Agent: c.Agent, NoScenarios: c.NoScenarios}
	if s.watch.See(s.now(), contact) {
		s.news.contact(contact)
	}
}

func (s *Service) spend(e ratelimit.Event, machine string) error {
	now := s.instant()
	v := s.limiter.Spend(now, e)
	if s.news.shared && (e.Kind == ratelimit.KindLogin || e.Kind == ratelimit.KindWrongPassword) {
		s.news.event(now, e)
	}
	if v.Allowed {
		return nil
	}
	s.metrics.over.WithLabelValues(v.Limit).Inc()
	if v.Ban == nil {
		return &muster.Error{
			Code: muster.RateLimited, RetryAfter: v.RetryAfter,
			Message: fmt.Sprintf("over the limit %s: %d are allowed; try again in %s", v.Limit, v.Threshold, v.RetryAfter.Round(time.Second)),
		}
	}
	return s.ban(now, *v.Ban, machine)
}

// ban puts a ban by the limiter in force, with what is known about its cause.
func (s *Service) ban(now time.Time, ban ratelimit.Ban, machine string) error {
	findings := s.about(now, ban.Prefix.Addr(), machine)
	ban.Reason = withFindings(ban.Reason, findings)
	put, err := s.bans.Put(now, ban)
	if err != nil {
		// The request is refused all the same, and so will be the next one.
		s.log.Warn("a ban could not be kept", "address", ban.Prefix, "limit", ban.Limit, "error", err)
		return &Banned{ban}
	}
	s.log.Info("an address is banned", "address", put.Prefix, "limit", put.Limit, "until", put.Until, "reason", put.Reason)
	return &Banned{put}
}

// maxReason keeps the answer to a banned client in one packet.
const maxReason = 700

// withFindings adds to a ban's reason what is behind it, in words that name
// nobody: all who are behind the address get to read them.
func withFindings(reason string, findings []muster.Finding) string {
	var b strings.Builder
	b.WriteString(reason)
	for _, f := range findings {
		if h, ok := HintOf(f); ok && b.Len()+len(h.Summary)+len(h.Fix) < maxReason {
			b.WriteString(". " + h.Summary + " " + strings.TrimSuffix(h.Fix, "."))
		}
	}
	return b.String()
}

// Bans returns the bans in force, in order of their ranges.
func (s *Service) Bans() []ratelimit.Ban {
	return slices.SortedFunc(s.bans.All(s.now()), func(a, b ratelimit.Ban) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
}

// BanOf returns the ban that would refuse a login from addr. It does not count
// as a retry.
func (s *Service) BanOf(addr netip.Addr) (ratelimit.Ban, bool) { return s.bans.Lookup(s.now(), addr) }

// Findings returns what is going wrong, worst first.
func (s *Service) Findings() []muster.Finding {
	now := s.now()
	all := s.proxies.findings(now, func(netip.Addr) bool { return true })
	return append(all, s.watch.Findings(now)...)
}

// Explain returns what is known about the clients of an address.
func (s *Service) Explain(addr netip.Addr) []muster.Finding { return s.about(s.now(), addr, "") }

// about returns what explains a client; machine may be "".
func (s *Service) about(now time.Time, addr netip.Addr, machine string) []muster.Finding {
	group := ratelimit.PrefixOf(addr)
	return append(s.proxies.findings(now, group.Contains), s.watch.About(now, addr, machine)...)
}

// AddBan bans by a person's decision, at once on this node and within a second
// on others. Since and By are filled in. Errors of code Invalid.
func (s *Service) AddBan(ctx context.Context, ban ratelimit.Ban, by By) (ratelimit.Ban, error) {
	prefix, err := ratelimit.ParsePrefix(ban.Prefix.String())
	if err != nil {
		return ban, err
	}
	now := s.instant()
	ban.Prefix, ban.Since, ban.Until, ban.By = prefix, now, ban.Until.UTC().Truncate(time.Microsecond), by.User
	if err := ban.Validate(); err != nil {
		return ban, err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.cfg.Store.ChangeBans(ctx, []ratelimit.Ban{ban}, nil, nil, s.audit("ban.add", prefix.String(), by, ban)); err != nil {
		return ban, err
	}
	return s.bans.Put(now, ban)
}

// LiftBan ends a ban, and lets the counts of its addresses begin anew, at once
// on this node and within a second on others. Code NotFound: that range has no
// ban of its own.
func (s *Service) LiftBan(ctx context.Context, p netip.Prefix, by By) (ratelimit.Ban, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	var ban ratelimit.Ban
	for b := range s.bans.All(s.now()) {
		if b.Prefix == p {
			ban = b
		}
	}
	if !ban.Prefix.IsValid() {
		return ban, muster.Errorf(muster.NotFound, "%s is not banned: muster admin ban list shows the ranges that are", p)
	}
	if err := s.cfg.Store.ChangeBans(ctx, nil, nil, []netip.Prefix{p}, s.audit("ban.lift", p.String(), by, ban)); err != nil {
		return ban, err
	}
	s.bans.Lift(s.now(), p)
	s.forget(p)
	return ban, nil
}

// forget drops what was counted and seen of a range.
func (s *Service) forget(p netip.Prefix) {
	if err := s.limiter.Forget(p); err != nil {
		s.log.Error("counters could not be dropped", "address", p, "error", err)
	}
	s.watch.Forget(p)
}

// Limits returns the limits, those that are off too.
func (s *Service) Limits() []ratelimit.Limit { return slices.Clone(s.policy.Load().limits) }

// Overrides returns the exceptions in force.
func (s *Service) Overrides() []ratelimit.Override {
	now := s.now()
	return slices.DeleteFunc(slices.Clone(s.policy.Load().overrides), func(o ratelimit.Override) bool {
		return !o.Until.IsZero() && !now.Before(o.Until)
	})
}

// SetLimit adds a limit, or changes the one of its name, from the next request
// on. Errors of code Invalid.
func (s *Service) SetLimit(ctx context.Context, l ratelimit.Limit, by By) error {
	l.SetAt, l.SetBy = s.now().UTC(), by.User
	return s.change(func(p *policy) error {
		if i := slices.IndexFunc(p.limits, func(have ratelimit.Limit) bool { return have.Name == l.Name }); i >= 0 {
			p.limits[i] = l
		} else {
			p.limits = append(p.limits, l)
		}
		return nil
	}, func() error {
		return s.cfg.Store.PutLimit(ctx, l, s.audit("limit.set", l.Name, by, l))
	})
}

// ResetLimit takes back what SetLimit changed. Code NotFound: nothing was.
func (s *Service) ResetLimit(ctx context.Context, name string, by By) error {
	return s.change(func(p *policy) error {
		i := slices.IndexFunc(p.limits, func(l ratelimit.Limit) bool { return l.Name == name && !l.SetAt.IsZero() })
		if i < 0 {
			return muster.Errorf(muster.NotFound, "the limit %q was not changed: muster admin limit list shows which were", name)
		}
		if j := slices.IndexFunc(s.cfg.Limits, func(l ratelimit.Limit) bool { return l.Name == name }); j >= 0 {
			p.limits[i] = s.cfg.Limits[j]
		} else {
			p.limits = slices.Delete(p.limits, i, i+1)
		}
		return nil
	}, func() error {
		return s.cfg.Store.DeleteLimit(ctx, name, s.audit("limit.reset", name, by, nil))
	})
}

// AddOverride adds an exception, from the next request on. ID, Since and By are
// filled in. Errors of code Invalid.
func (s *Service) AddOverride(ctx context.Context, o ratelimit.Override, by By) (ratelimit.Override, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return o, err
	}
	o.ID, o.Since, o.By = id.String(), s.now().UTC(), by.User
	o.Reason = cmp.Or(o.Reason, by.Reason)
	return o, s.change(func(p *policy) error {
		p.overrides = slices.Insert(p.overrides, len(s.cfg.Exempt), o)
		return nil
	}, func() error {
		return s.cfg.Store.PutOverride(ctx, o, s.audit("override.add", o.Subject(), by, o))
	})
}

// RemoveOverride takes an exception back. Code NotFound.
func (s *Service) RemoveOverride(ctx context.Context, id string, by By) error {
	var removed ratelimit.Override
	return s.change(func(p *policy) error {
		i := slices.IndexFunc(p.overrides, func(o ratelimit.Override) bool { return o.ID == id && id != "" })
		if i < 0 {
			return muster.Errorf(muster.NotFound, "there is no override %q: those of the configuration (ratelimit.exempt) can only be changed there", id)
		}
		removed = p.overrides[i]
		p.overrides = slices.Delete(p.overrides, i, i+1)
		return nil
	}, func() error {
		return s.cfg.Store.DeleteOverride(ctx, id, s.audit("override.remove", removed.Subject(), by, removed))
	})
}

// change makes a change to the policy: first it is checked, then kept, then in
// force, then told.
func (s *Service) change(edit func(*policy) error, keep func() error) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	have := s.policy.Load()
	p := &policy{limits: slices.Clone(have.limits), overrides: slices.Clone(have.overrides)}
	if err := edit(p); err != nil {
		return err
	}
	if _, err := ratelimit.Compile(ratelimit.Policy{Limits: p.limits, Overrides: p.overrides}); err != nil {
		return err
	}
	if err := keep(); err != nil {
		return err
	}
	if err := s.use(p); err != nil {
		return err
	}
	s.news.policyChanged()
	return nil
}

// resync brings memory in line with the store: what other nodes told may have
// got lost.
func (s *Service) resync(ctx context.Context) error {
	if err := s.loadPolicy(ctx); err != nil {
		return err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	now := s.now()
	var old []netip.Prefix // long enough in force to be in the store
	for b := range s.bans.All(now) {
		if now.Sub(b.Since) > time.Minute {
			old = append(old, b.Prefix)
		}
	}
	if err := s.write(ctx); err != nil {
		return err
	}
	stored, err := s.cfg.Store.Bans(ctx, now)
	if err != nil {
		return fmt.Errorf("reading the bans: %w", err)
	}
	kept := make(map[netip.Prefix]struct{}, len(stored))
	for _, b := range stored {
		kept[b.Prefix] = struct{}{}
	}
	for _, p := range old {
		if _, ok := kept[p]; !ok {
			s.bans.Forget(now, p)
		}
	}
	s.learn(stored)
	return nil
}

// How often chores are done.
const (
	flushEvery  = 100 * time.Millisecond
	sweepEvery  = time.Second
	expireEvery = 5 * time.Second
	resyncEvery = time.Minute
	endTimeout  = 10 * time.Second
)

// Run tells other nodes and the store of changes, and frees what has ended,
// until ctx ends; then it writes what is left.
func (s *Service) Run(ctx context.Context) error {
	flush, sweep := time.NewTicker(flushEvery), time.NewTicker(sweepEvery)
	expire, resync := time.NewTicker(expireEvery), time.NewTicker(resyncEvery)
	defer func() { flush.Stop(); sweep.Stop(); expire.Stop(); resync.Stop() }()
	failing := false // one line when trouble begins and one when it ends
	for {
		var err error
		select {
		case <-flush.C:
			err = s.flush(ctx)
		case <-sweep.C:
			s.limiter.Sweep(s.now(), 8)
		case <-expire.C:
			s.bans.Expire(s.now())
		case <-resync.C:
			err = s.resync(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
			defer cancel()
			return s.flush(last)
		}
		switch {
		case err != nil && ctx.Err() == nil && !failing:
			failing = true
			s.log.Warn("bans cannot be written to the store; they hold in memory and are written later", "error", err)
		case err == nil && failing && s.news.written():
			failing = false
			s.log.Info("bans are written to the store again")
		}
	}
}

// flush shares and then writes what changed.
func (s *Service) flush(ctx context.Context) error {
	s.share()
	if s.news.written() {
		return nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.write(ctx)
}

// maxWrite bounds one transaction, so that others get to write in between.
const maxWrite = 5_000

// write is called with writing held.
func (s *Service) write(ctx context.Context) error {
	for {
		c := s.news.take(maxWrite)
		if c.empty() {
			return nil
		}
		if err := s.cfg.Store.ChangeBans(ctx, c.put, c.extended, c.gone); err != nil {
			s.news.putBack(c)
			return err
		}
	}
}

// audit makes the entry for a change.
func (s *Service) audit(action, subject string, by By, detail any) muster.AuditEntry {
	return newAudit(s.now().UTC(), action, subject, by, detail)
}

// Hear takes in what another node shared; missed says that messages before it
// were lost.
func (s *Service) Hear(ctx context.Context, message []byte, missed bool) error {
	var errs []error
	if missed {
		errs = append(errs, s.resync(ctx))
	}
	if len(message) > 0 {
		errs = append(errs, s.hear(ctx, message))
	}
	return errors.Join(errs...)
}
