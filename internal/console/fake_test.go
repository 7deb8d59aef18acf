package console

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/internal/abuse"
	"muster/internal/crowd"
	"muster/internal/enroll"
	"muster/internal/jury"
	"muster/internal/orders"
	"muster/internal/ratelimit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// store is the Store of this package, of enroll and of orders, in memory. Tests
// use it from one goroutine at a time.
type store struct {
	orgs     []muster.Organisation
	keys     []muster.EnrolmentKey
	machines map[string]muster.Machine
	claims   map[string]muster.Claim
	secrets  map[string][]byte
	reports  map[string]string // by machine and kind
	allowed  []muster.AllowEntry
	alerts   []muster.Signal
	verdicts []muster.Verdict
	orders   []muster.Order
	users    []muster.User
	tokens   []muster.APIToken

	audit   []muster.AuditEntry
	history []muster.Verdict         // newest first
	words   []muster.OperatorVerdict // of people
	events  []muster.TrustEvent      // newest first

	machineQuery MachineQuery // the last ones asked
	alertQuery   AlertQuery
	auditQuery   AuditQuery
	fail         error // of everything that this package asks
}

func newStore() *store {
	return &store{
		orgs: []muster.Organisation{
			{ID: "org-b", Name: "Beta", Plan: muster.Community, Fleet: muster.FleetOff, CreatedAt: now.Add(-time.Hour)},
			{ID: "org-a", Name: "Alpha", Plan: muster.Enterprise, Fleet: muster.FleetHub, CreatedAt: now.Add(-2 * time.Hour)},
		},
		machines: map[string]muster.Machine{}, claims: map[string]muster.Claim{}, secrets: map[string][]byte{}, reports: map[string]string{},
	}
}

func missing(what string) error { return muster.Errorf(muster.NotFound, "there is no such %s", what) }

func (s *store) Organisations(context.Context) ([]muster.Organisation, error) { return s.orgs, s.fail }

func (s *store) CreateOrganisation(_ context.Context, o muster.Organisation) error {
	if slices.ContainsFunc(s.orgs, func(have muster.Organisation) bool { return have.Name == o.Name }) {
		return muster.Errorf(muster.Exists, "there is an organisation %q already", o.Name)
	}
	s.orgs = append(s.orgs, o)
	return s.fail
}

func (s *store) UpdateOrganisation(_ context.Context, id string, change func(*muster.Organisation) error) (muster.Organisation, error) {
	for i := range s.orgs {
		if s.orgs[i].ID == id {
			o := s.orgs[i]
			if err := change(&o); err != nil {
				return o, err
			}
			s.orgs[i] = o
			return o, s.fail
		}
	}
	return muster.Organisation{}, missing("organisation")
}

func (s *store) EnrolmentKeys(_ context.Context, organisation string) (out []muster.EnrolmentKey, err error) {
	for _, k := range s.keys {
		if organisation == "" || k.Organisation == organisation {
			out = append(out, k)
		}
	}
	return out, s.fail
}

func (s *store) RevokeEnrolmentKey(_ context.Context, id string, at time.Time) error {
	for i := range s.keys {
		if s.keys[i].ID == id {
			s.keys[i].RevokedAt = at
			return s.fail
		}
	}
	return missing("key")
}

func (s *store) CreateEnrolmentKey(_ context.Context, k muster.EnrolmentKey) error {
	s.keys = append(s.keys, k)
	return nil
}

func (s *store) EnrolmentKeyByHash(_ context.Context, hash []byte) (muster.EnrolmentKey, error) {
	for _, k := range s.keys {
		if bytes.Equal(k.Hash, hash) {
			return k, nil
		}
	}
	return muster.EnrolmentKey{}, missing("key")
}

func (s *store) UseEnrolmentKey(ctx context.Context, hash []byte, at time.Time) (muster.EnrolmentKey, error) {
	k, err := s.EnrolmentKeyByHash(ctx, hash)
	return k, cmp.Or(err, k.Usable(at))
}

func (s *store) CreateMachine(_ context.Context, m muster.Machine) error {
	s.machines[m.ID] = m
	return nil
}

func (s *store) Machine(_ context.Context, id string) (muster.Machine, error) {
	if m, ok := s.machines[id]; ok {
		return m, nil
	}
	return muster.Machine{}, missing("machine")
}

func (s *store) EachMachine(_ context.Context, yield func(muster.Machine) error) error {
	for _, m := range s.machines {
		if err := yield(m); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) UpdateMachine(ctx context.Context, id string, change func(*muster.Machine) error) (muster.Machine, error) {
	m, err := s.Machine(ctx, id)
	if err == nil {
		err = change(&m)
	}
	if err == nil {
		s.machines[id] = m
	}
	return m, err
}

func (s *store) TouchMachines(context.Context, []muster.MachineTouch) error { return nil }

func (s *store) Machines(_ context.Context, q MachineQuery) (out []muster.Machine, err error) {
	s.machineQuery = q
	for _, m := range s.machines {
		if (q.Organisation == "" || m.Organisation == q.Organisation) && (q.State == "" || m.State == q.State) && m.ID > q.After &&
			(strings.Contains(m.ID, q.Search) || strings.Contains(m.Name, q.Search)) {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b muster.Machine) int { return cmp.Compare(a.ID, b.ID) })
	return out[:min(len(out), q.Limit)], s.fail
}

func (s *store) MachineReport(_ context.Context, machine, kind string) ([]byte, time.Time, error) {
	if body, ok := s.reports[machine+" "+kind]; ok {
		return []byte(body), now, s.fail
	}
	return nil, time.Time{}, cmp.Or(s.fail, missing("report"))
}

func (s *store) CreateClaim(_ context.Context, c muster.Claim) error {
	s.claims[string(c.Hash)] = c
	return nil
}

func (s *store) Claim(_ context.Context, hash []byte) (muster.Claim, error) {
	if c, ok := s.claims[string(hash)]; ok {
		return c, nil
	}
	return muster.Claim{}, missing("claim")
}

func (s *store) DeleteClaim(_ context.Context, hash []byte) error {
	delete(s.claims, string(hash))
	return nil
}

func (s *store) EnsureSecret(_ context.Context, name string, value []byte) ([]byte, error) {
	if _, ok := s.secrets[name]; !ok {
		s.secrets[name] = value
	}
	return s.secrets[name], nil
}

func (s *store) ReplaceSecret(_ context.Context, name string, _, value []byte) error {
	s.secrets[name] = value
	return nil
}

func (s *store) AllowEntries(_ context.Context, at time.Time) (out []muster.AllowEntry, err error) {
	for _, e := range s.allowed {
		if e.ExpiresAt.IsZero() || at.Before(e.ExpiresAt) {
			out = append(out, e)
		}
	}
	return out, s.fail
}

func (s *store) PutAllowEntries(_ context.Context, entries []muster.AllowEntry) error {
	s.allowed = append(s.allowed, entries...)
	return s.fail
}

func (s *store) DeleteAllowEntry(_ context.Context, source muster.Source) error {
	n := len(s.allowed)
	s.allowed = slices.DeleteFunc(s.allowed, func(e muster.AllowEntry) bool { return e.Source == source })
	if len(s.allowed) == n {
		return missing("entry")
	}
	return s.fail
}

func (s *store) Alerts(_ context.Context, q AlertQuery) ([]muster.Signal, string, error) {
	s.alertQuery = q
	return s.alerts, "next-page", s.fail
}

func (s *store) Verdicts(_ context.Context, source muster.Source) (out []muster.Verdict, err error) {
	for _, v := range s.verdicts {
		if v.Source == source {
			out = append(out, v)
		}
	}
	return out, s.fail
}

func (s *store) AppendOrder(_ context.Context, o muster.Order) (muster.Order, error) {
	s.orders = append(s.orders, o)
	return o, nil
}

func (s *store) Orders(_ context.Context, machine string, since, at time.Time, limit int) (out []muster.Order, err error) {
	for _, o := range s.orders {
		if o.Machine == machine && o.IssuedAt.After(since) && o.ExpiresAt.After(at) && len(out) < limit {
			out = append(out, o)
		}
	}
	return out, s.fail
}

func (s *store) UserByName(_ context.Context, name string) (muster.User, error) {
	for _, u := range s.users {
		if u.Name == name {
			return u, s.fail
		}
	}
	return muster.User{}, cmp.Or(s.fail, missing("user"))
}

func (s *store) Users(context.Context) ([]muster.User, error) { return s.users, s.fail }

func (s *store) CreateUser(_ context.Context, u muster.User) error {
	if slices.ContainsFunc(s.users, func(have muster.User) bool { return have.Name == u.Name }) {
		return muster.Errorf(muster.Exists, "there is a user %q already", u.Name)
	}
	s.users = append(s.users, u)
	return s.fail
}

func (s *store) UpdateUserPassword(_ context.Context, id, hash string) error {
	for i := range s.users {
		if s.users[i].ID == id {
			s.users[i].PasswordHash = hash
			return s.fail
		}
	}
	return missing("user")
}

func (s *store) APITokenByHash(_ context.Context, hash []byte) (muster.APIToken, muster.User, error) {
	for _, t := range s.tokens {
		if bytes.Equal(t.Hash, hash) {
			for _, u := range s.users {
				if u.ID == t.User {
					return t, u, s.fail
				}
			}
		}
	}
	return muster.APIToken{}, muster.User{}, cmp.Or(s.fail, missing("token"))
}

func (s *store) CreateAPIToken(_ context.Context, t muster.APIToken) error {
	s.tokens = append(s.tokens, t)
	return s.fail
}

func (s *store) APITokens(context.Context) ([]muster.APIToken, error) { return s.tokens, s.fail }

func (s *store) DeleteAPIToken(_ context.Context, id string) error {
	n := len(s.tokens)
	s.tokens = slices.DeleteFunc(s.tokens, func(t muster.APIToken) bool { return t.ID == id })
	if len(s.tokens) == n {
		return missing("token")
	}
	return s.fail
}

func (s *store) Audit(_ context.Context, q AuditQuery) ([]muster.AuditEntry, error) {
	s.auditQuery = q
	return s.audit[:min(len(s.audit), q.Limit)], s.fail
}

func (s *store) PutAudit(_ context.Context, entries ...muster.AuditEntry) error {
	if s.fail == nil {
		s.audit = append(s.audit, entries...)
	}
	return s.fail
}

func (s *store) VerdictHistory(_ context.Context, source muster.Source, audience muster.Audience, limit int) (out []muster.Verdict, err error) {
	for _, v := range s.history {
		if v.Source == source && v.Audience == audience && len(out) < limit {
			out = append(out, v)
		}
	}
	return out, s.fail
}

func (s *store) OperatorVerdicts(_ context.Context, at time.Time) (out []muster.OperatorVerdict, err error) {
	for _, v := range s.words {
		if v.Until.IsZero() || at.Before(v.Until) {
			out = append(out, v)
		}
	}
	return out, s.fail
}

func (s *store) PutOperatorVerdict(ctx context.Context, v muster.OperatorVerdict, audit muster.AuditEntry) error {
	if s.fail == nil {
		s.words = append(s.words, v)
	}
	return s.PutAudit(ctx, audit)
}

func (s *store) DeleteOperatorVerdict(ctx context.Context, source muster.Source, audit muster.AuditEntry) error {
	n := len(s.words)
	s.words = slices.DeleteFunc(s.words, func(v muster.OperatorVerdict) bool { return v.Source == source })
	if len(s.words) == n {
		return missing("verdict")
	}
	return s.PutAudit(ctx, audit)
}

func (s *store) TrustEvents(_ context.Context, machine uint32, since time.Time, limit int) (out []muster.TrustEvent, err error) {
	for _, e := range s.events {
		if e.Machine == machine && !e.At.Before(since) && len(out) < limit {
			out = append(out, e)
		}
	}
	return out, s.fail
}

func (s *store) listing(_ context.Context, addr netip.Addr) (found muster.Verdict, err error) {
	for _, v := range s.verdicts {
		p := v.Source.Prefix()
		if v.Listed && v.Audience == muster.Network && p.Contains(addr) && (!found.Listed || p.Bits() > found.Source.Prefix().Bits()) {
			found = v
		}
	}
	if !found.Listed && s.fail == nil {
		return found, missing("listing")
	}
	return found, s.fail
}

// bench is the Judge of this package: it says what it is given.
type bench struct {
	standings  map[muster.Source]jury.Standing
	trust      map[string]jury.Trust
	population crowd.Population
	newcomer   float32
	behaviours []jury.Behaviour

	fail error
}

func (b *bench) Explain(_ context.Context, source muster.Source) (jury.Standing, error) {
	return b.standings[source], b.fail
}

func (b *bench) Trust(_ context.Context, machine string) (jury.Trust, error) {
	t, ok := b.trust[machine]
	if !ok && b.fail == nil {
		return t, missing("machine")
	}
	return t, b.fail
}

func (b *bench) Ranks(_ context.Context, machines []string) (map[string]uint8, error) {
	known := map[string]uint8{}
	for _, m := range machines {
		if t, ok := b.trust[m]; ok {
			known[m] = t.Trust.Rank
		}
	}
	return known, b.fail
}

func (b *bench) Network(context.Context) (crowd.Population, float32, error) {
	return b.population, b.newcomer, b.fail
}

func (b *bench) Behaviours(context.Context) ([]jury.Behaviour, error) { return b.behaviours, b.fail }

// guard is the Abuse of this package: it keeps what it is told, without a clock.
type guard struct {
	bans       []ratelimit.Ban
	configured []ratelimit.Limit
	limits     []ratelimit.Limit
	overrides  []ratelimit.Override
	findings   []muster.Finding

	by   []abuse.By // who changed something, and why
	fail error      // of every change
}

func newGuard() *guard {
	return &guard{configured: ratelimit.DefaultLimits(), limits: ratelimit.DefaultLimits()}
}

func (g *guard) changed(by abuse.By) error {
	if g.fail == nil {
		g.by = append(g.by, by)
	}
	return g.fail
}

func (g *guard) Bans() []ratelimit.Ban {
	slices.SortFunc(g.bans, func(a, b ratelimit.Ban) int { return a.Prefix.Compare(b.Prefix) })
	return g.bans
}

func (g *guard) BanOf(addr netip.Addr) (found ratelimit.Ban, ok bool) {
	for _, b := range g.bans {
		if b.Prefix.Contains(addr.Unmap()) && (!ok || b.Prefix.Bits() > found.Prefix.Bits()) {
			found, ok = b, true
		}
	}
	return found, ok
}

func (g *guard) Explain(addr netip.Addr) (about []muster.Finding) {
	for _, f := range g.findings {
		if !f.Address.IsValid() || f.Address.Prefix().Contains(addr.Unmap()) { // one about a machine is of everywhere here
			about = append(about, f)
		}
	}
	return about
}

func (g *guard) AddBan(_ context.Context, b ratelimit.Ban, by abuse.By) (ratelimit.Ban, error) {
	if err := g.changed(by); err != nil {
		return b, err
	}
	g.bans = append(g.bans, b)
	return b, nil
}

func (g *guard) LiftBan(_ context.Context, p netip.Prefix, by abuse.By) (lifted ratelimit.Ban, err error) {
	i := slices.IndexFunc(g.bans, func(b ratelimit.Ban) bool { return b.Prefix == p })
	if i < 0 {
		return lifted, missing("ban")
	}
	lifted = g.bans[i]
	if err := g.changed(by); err != nil {
		return lifted, err
	}
	g.bans = slices.Delete(g.bans, i, i+1)
	return lifted, nil
}

func (g *guard) Limits() []ratelimit.Limit { return g.limits }

func named(name string) func(ratelimit.Limit) bool {
	return func(l ratelimit.Limit) bool { return l.Name == name }
}

func (g *guard) SetLimit(_ context.Context, l ratelimit.Limit, by abuse.By) error {
	l.SetAt, l.SetBy = now, by.User
	if i := slices.IndexFunc(g.limits, named(l.Name)); i >= 0 {
		g.limits[i] = l
	} else {
		g.limits = append(g.limits, l)
	}
	return g.changed(by)
}

func (g *guard) ResetLimit(_ context.Context, name string, by abuse.By) error {
	i := slices.IndexFunc(g.limits, named(name))
	if i < 0 || g.limits[i].SetAt.IsZero() {
		return muster.Errorf(muster.NotFound, "the limit %q was not changed", name)
	}
	if j := slices.IndexFunc(g.configured, named(name)); j >= 0 {
		g.limits[i] = g.configured[j]
	} else {
		g.limits = slices.Delete(g.limits, i, i+1)
	}
	return g.changed(by)
}

func (g *guard) Overrides() []ratelimit.Override { return g.overrides }

func (g *guard) AddOverride(_ context.Context, o ratelimit.Override, by abuse.By) (ratelimit.Override, error) {
	o.ID = fmt.Sprintf("override-%03d", len(g.overrides))
	g.overrides = append(g.overrides, o)
	return o, g.changed(by)
}

func (g *guard) RemoveOverride(_ context.Context, id string, by abuse.By) error {
	n := len(g.overrides)
	g.overrides = slices.DeleteFunc(g.overrides, func(o ratelimit.Override) bool { return o.ID == id })
	if len(g.overrides) == n {
		return missing("override")
	}
	return g.changed(by)
}

func (g *guard) Findings() []muster.Finding { return g.findings }

func (g *guard) Kinds() []string { return []string{"login", "wrong-password", "POST /signals"} }

// rig is an API with the store behind it.
type rig struct {
	*API
	t       testing.TB
	store   *store
	guard   *guard
	bench   *bench
	truth   jury.Truth
	clock   time.Time
	changed []string // what all nodes were told
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, store: newStore(), guard: newGuard(), clock: now}
	r.bench = &bench{standings: map[muster.Source]jury.Standing{}, trust: map[string]jury.Trust{}}
	clock := func() time.Time { return r.clock }
	machines, err := enroll.New(enroll.Config{Store: r.store, PublicURL: "https://muster.test/", Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	if err := machines.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.API = NewAPI(Config{
		Store: r.store, Machines: machines, PublicURL: "https://muster.test/", Version: "1.2.3", Now: clock,
		Orders: orders.New(orders.Config{
			Outbox: r.store, Ring: func(context.Context, string) error { return nil }, Now: clock, Logger: slog.New(slog.DiscardHandler),
		}),
		Abuse: r.guard, ClientAddr: addrOf, Appeal: "noc@muster.test",
		ASN: func(a netip.Addr) uint32 {
			if netip.MustParsePrefix("45.85.0.0/16").Contains(a) {
				return 64600
			}
			return 0
		},
		Names: true,
		Judge: r.bench, Truth: func() jury.Truth { return r.truth }, Listing: r.store.listing, Listed: func() int { return 123 },
		AllowlistChanged:     func(context.Context) error { r.changed = append(r.changed, "allowlist"); return nil },
		OrganisationsChanged: func(context.Context) error { r.changed = append(r.changed, "organisations"); return nil },
		Status:               func(context.Context) any { return map[string]string{"state": "ok"} },
	})
	return r
}

// addrOf takes RemoteAddr for the client's, as without a proxy.
func addrOf(q *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(q.RemoteAddr)
	return peer.Addr()
}

// machine adds a machine, which is active when organisation is given.
func (r *rig) machine(id, name, organisation string) {
	r.t.Helper()
	r.store.machines[id] = muster.Machine{ID: id, Name: name, State: muster.Pending, RegisteredAt: now.Add(-time.Hour), Credential: []byte("its secret")}
	if err := r.cfg.Machines.Refresh(r.t.Context(), id); err != nil {
		r.t.Fatal(err)
	}
	if organisation != "" {
		if err := r.cfg.Machines.Accept(r.t.Context(), id, organisation); err != nil {
			r.t.Fatal(err)
		}
	}
}

// answer is what the API said.
type answer struct {
	status int
	header http.Header
	body   string
}

// into reads the answer's JSON.
func (a answer) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
}

// do sends a request as the administrator on the server's own machine.
func (r *rig) do(method, path, body string) answer {
	r.t.Helper()
	return send(r.t, r.Trusted(), method, path, body, nil)
}

func send(t testing.TB, h http.Handler, method, path, body string, change func(*http.Request)) answer {
	t.Helper()
	q := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if change != nil {
		change(q)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, q)
	got, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) > 0 && w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%s %s: headers %v", method, path, w.Header())
	}
	return answer{w.Code, w.Header(), strings.TrimSpace(string(got))}
}

// want sends a request and checks the status and a part of the answer.
func (r *rig) want(status int, part, method, path, body string) answer {
	r.t.Helper()
	a := r.do(method, path, body)
	if a.status != status || !strings.Contains(a.body, part) {
		r.t.Errorf("%s %s %.200s: got %d %s\nwant %d with %s", method, path, body, a.status, a.body, status, part)
	}
	return a
}
