package enroll

import (
	"context"
	"errors"
	"fmt"
	"time"

	"muster"
)

// Registration is a request to register. UserAgent is the client's header.
type Registration struct {
	MachineID, Password string
	Key                 string // enrolment key, where registration asks for one
	UserAgent           string
}

var errTaken = muster.Errorf(muster.Exists, "User already registered.")

// Register adds a machine, pending. The same credentials again are no error.
// Codes: Invalid (bad id or password), Exists (the id is taken), Forbidden
// (registration is closed or needs a key), Unavailable.
func (s *Service) Register(ctx context.Context, r Registration) error {
	err := s.register(ctx, r)
	count(s.metrics.registrations, err)
	return err
}

func (s *Service) register(ctx context.Context, r Registration) error {
	if err := muster.ValidateMachineID(r.MachineID); err != nil {
		return err
	}
	if err := checkPassword(r.Password); err != nil {
		return err
	}
	if err := s.mayRegister(ctx, r.Key); err != nil {
		return err
	}
	known, err := s.find(ctx, r.MachineID)
	if err != nil {
		return err
	}
	if known != nil && known.Credential != nil {
		return s.registeredAlready(ctx, known, r.Password)
	}
	credential, err := s.hasher.machineVerifier(ctx, r.MachineID, r.Password)
	if err != nil {
		return err
	}
	now := s.now().UTC().Truncate(time.Microsecond)
	if known != nil {
		_, err = s.update(ctx, r.MachineID, func(m *muster.Machine) error {
			if m.Credential != nil {
				return errTaken
			}
			m.Credential, m.RegisteredAt, m.Version = credential, now, versionOf(r.UserAgent)
			return nil
		})
		return err
	}
	err = s.create(ctx, muster.Machine{
		ID:           r.MachineID,
		State:        muster.Pending,
		Version:      versionOf(r.UserAgent),
		Credential:   credential,
		RegisteredAt: now,
		TokensFrom:   now,
	})
	if !errors.Is(err, muster.Exists) {
		return err
	}
	// Another node was faster.
	if known, err = s.reload(ctx, r.MachineID); err != nil {
		return err
	}
	if known == nil {
		return errTaken
	}
	return s.registeredAlready(ctx, known, r.Password)
}

// mayRegister applies Config.Registration.
func (s *Service) mayRegister(ctx context.Context, key string) error {
	switch s.cfg.Registration {
	case RegistrationClosed:
		return muster.Errorf(muster.Forbidden, "registration is closed on this server: ask its operator to open it")
	case RegistrationKey:
		if key == "" {
			return muster.Errorf(muster.Forbidden, "registration on this server needs an enrolment key: ask its operator for one and run muster join URL --key KEY")
		}
		k, err := s.key(ctx, key)
		if err != nil {
			return err
		}
		return refused(k.Usable(s.now()))
	}
	return nil
}

// registeredAlready tells the owner of an id, who may have lost its memory of
// having registered, from somebody else.
func (s *Service) registeredAlready(ctx context.Context, known *record, password string) error {
	ok, err := s.hasher.verifyMachine(ctx, known.Credential, known.ID, password)
	if err == nil && !ok {
		err = errTaken
	}
	return err
}

func (s *Service) create(ctx context.Context, m muster.Machine) error {
	if c := s.Counts(); c.Pending+c.Active+c.Blocked >= s.cfg.MaxMachines {
		return muster.Errorf(muster.Unavailable, "this server takes no more than %d machines: ask its operator to raise the limit", s.cfg.MaxMachines)
	}
	changing := &s.directory.shard(m.ID).changing
	changing.Lock()
	defer changing.Unlock()
	if err := s.store.CreateMachine(ctx, m); err != nil {
		if errors.Is(err, muster.Exists) {
			return err
		}
		return unavailable("the machine cannot be registered now", err)
	}
	s.asked.forget(m.ID)
	s.directory.put(m, unsaved{})
	// No bell: other nodes look a machine up when they first hear of it, and
	// registrations may come in floods.
	return nil
}

// Login is a machine's request for a token.
type Login struct {
	MachineID, Password string
	Scenarios           []string // empty leaves the known footprint
	UserAgent           string
	// Admit is asked when the password has been checked, before anything is noted
	// or issued: who is the machine, nil when the password is wrong or there is no
	// such machine. Its error is the answer. nil admits all.
	Admit func(who *Identity) error
}

// Token is a signed JWT; Expires is whole seconds and equals its exp claim.
type Token struct {
	Text    string
	Expires time.Time
}

var (
	errBadLogin = muster.Errorf(muster.Unauthorized, "The machine_id or password is incorrect")
	errBlocked  = muster.Errorf(muster.Forbidden, "the machine is blocked on this server: ask its operator to unblock it")
)

// Login checks a machine's password and issues a token. It writes nothing to
// the store. Codes: Unauthorized (unknown machine or wrong password, told apart
// by nothing), Forbidden (blocked), Invalid (no machine id), Unavailable.
func (s *Service) Login(ctx context.Context, l Login) (Token, error) {
	token, err := s.login(ctx, l)
	count(s.metrics.logins, err)
	return token, err
}

func (s *Service) login(ctx context.Context, l Login) (Token, error) {
	if err := muster.ValidateMachineID(l.MachineID); err != nil {
		return Token{}, err
	}
	known, err := s.find(ctx, l.MachineID)
	if err != nil {
		return Token{}, err
	}
	var credential []byte
	if known != nil {
		credential = known.Credential
	}
	ok, err := s.hasher.verifyMachine(ctx, credential, l.MachineID, l.Password)
	if err != nil {
		return Token{}, err
	}
	var who *Identity
	if ok {
		id := s.identity(known)
		who = &id
	}
	if l.Admit != nil {
		if err := l.Admit(who); err != nil {
			return Token{}, err
		}
	}
	switch {
	case !ok:
		return Token{}, errBadLogin
	case known.State == muster.Blocked:
		return Token{}, errBlocked
	}
	if e := s.directory.entry(l.MachineID); e != nil {
		s.touch(e, ContactLogin)
		if s.directory.declare(e, versionOf(l.UserAgent), muster.CanonicalScenarios(l.Scenarios)) {
			s.directory.markDirty(e)
		}
	}
	return s.issue(known)
}

// issue makes a token that says what is so now.
func (s *Service) issue(r *record) (Token, error) {
	now := s.now()
	spread := 1 + s.cfg.TokenSpread*(2*s.cfg.Rand()-1)
	g := s.grant(r)
	g.expires = now.Add(time.Duration(float64(s.cfg.TokenLifetime) * spread)).Unix()
	text, err := s.tokens.sign(g)
	if err != nil {
		return Token{}, fmt.Errorf("signing a token: %w", err)
	}
	return Token{Text: text, Expires: time.Unix(g.expires, 0).UTC()}, nil
}

// grant is what a token for a machine says now, but for its end.
func (s *Service) grant(r *record) grant {
	g := grant{machine: r.ID, epoch: r.epoch}
	if r.State == muster.Active {
		g.organisation = r.Organisation
		g.plan = s.organisation(r.Organisation).Plan
	}
	return g
}

// organisation returns an organisation from memory; one that is not there has
// the lowest plan and no fleet.
func (s *Service) organisation(id string) muster.Organisation {
	if o, ok := (*s.organisations.Load())[id]; ok {
		return o
	}
	return muster.Organisation{ID: id, Plan: muster.Community, Fleet: muster.FleetOff}
}

// Identity is who sends a request. Organisation, Plan and Fleet are set only
// when State is muster.Active.
type Identity struct {
	Machine      string
	Organisation string
	State        muster.MachineState
	Plan         muster.Plan
	Fleet        muster.FleetPolicy
	Sharing      bool // it has pushed signals
	Honeypot     bool
}

// identity says who a machine is now.
func (s *Service) identity(r *record) Identity {
	id := Identity{Machine: r.ID, State: r.State, Sharing: r.entry.seen[ContactPush].Load() != 0, Honeypot: r.Honeypot}
	if r.State == muster.Active {
		o := s.organisation(r.Organisation)
		id.Organisation, id.Plan, id.Fleet = o.ID, o.Plan, o.Fleet
	}
	return id
}

// Authenticate checks a token (without "Bearer "). Every fault of the token or
// its machine is of code Unauthorized; Unavailable means that the machine is
// not in memory and the store cannot be asked.
func (s *Service) Authenticate(ctx context.Context, token string) (Identity, error) {
	id, err := s.authenticate(ctx, token)
	if err != nil {
		s.metrics.refusals.Inc()
	}
	return id, err
}

func (s *Service) authenticate(ctx context.Context, token string) (Identity, error) {
	g, cached, err := s.tokens.verify(ctx, token)
	if err != nil {
		return Identity{}, err
	}
	if !cached {
		s.metrics.verifications.Inc()
	}
	r := s.directory.record(g.machine)
	if (r == nil || g.epoch > r.epoch) && !s.asked.has(g.machine, s.now()) {
		// Another node knows more: this one has missed or not yet heard a bell.
		fresh, err := s.reload(ctx, g.machine)
		if err != nil && r == nil {
			return Identity{}, err
		}
		if err == nil {
			r = fresh
		}
	}
	if r == nil {
		return Identity{}, errBadToken
	}
	// A token must say exactly what one issued now would say: so acceptance,
	// blocking, another organisation and another plan end all earlier tokens.
	want := s.grant(r)
	want.expires = g.expires
	if g != want || r.State == muster.Blocked {
		return Identity{}, errRevokedToken
	}
	return s.identity(r), nil
}

// Reset refuses: the call proves nothing about who makes it, no client makes
// it, and it would hand a machine to whoever knows its id.
func (s *Service) Reset(_ context.Context, machineID string) error {
	if err := muster.ValidateMachineID(machineID); err != nil {
		return err
	}
	return muster.Errorf(muster.Forbidden, "a machine's secret cannot be reset from outside: register a new machine (cscli capi register), or ask this server's operator to remove this one and register it again")
}

// Unregister drops a machine's secret and membership; its tokens end and its id
// may be registered anew. A blocked machine stays blocked. Codes: NotFound.
func (s *Service) Unregister(ctx context.Context, machineID string) error {
	_, err := s.update(ctx, machineID, func(m *muster.Machine) error {
		if m.Credential == nil {
			return errUnchanged
		}
		m.Credential = nil
		leave(m)
		revoke(m, s.now())
		return nil
	})
	return err
}
