// Package enroll knows the machines: it registers them, checks their secrets,
// issues and verifies their tokens, and leads them through enrolment into an
// organisation. All machines are held in memory, so that the checks on every
// request's way and a storm of logins cost no database work.
package enroll

import (
	"context"
	"log/slog"
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
	TokenLifetime time.Duration // mean lifetime of a token; 0 = 12 h
	TokenSpread   float64       // lifetimes vary by ± this share, so that logins do not come in herds; 0 = 0.25, negative = none
	TokenCache    int           // verified tokens remembered; 0 = 262,144 (about 100 bytes each)
	PublicURL     string        // where people reach the console, ends in "/"; claims link to it

	FlushEvery  time.Duration // how often contacts are written; 0 = 5 s
	ResyncEvery time.Duration // how often all is compared with the store, in case a bell was lost; 0 = 5 min

	// Notify tells the other nodes that a machine changed, or with an empty id
	// that organisations or token keys did; they call Refresh. It must not
	// block. nil = there are no other nodes.
	Notify func(machineID string)

	Now        func() time.Time      // nil = time.Now
	Rand       func() float64        // in [0,1), spreads lifetimes; nil = math/rand/v2
	Logger     *slog.Logger          // nil = discarded
	Registerer prometheus.Registerer // nil = no metrics
}

// Service is the directory of machines. Start it before use; Run keeps it.
type Service struct{}

// New checks the configuration. It does no I/O.
func New(cfg Config) (*Service, error) { return &Service{}, nil }

// Start loads the server's keys and every machine.
func (s *Service) Start(ctx context.Context) error { return nil }

// Run writes contacts in batches and keeps the directory in step with the
// store until ctx ends; then it writes what is left and returns nil.
func (s *Service) Run(ctx context.Context) error { return nil }

// Registration is a request to register. UserAgent is the client's header.
type Registration struct {
	MachineID, Password string
	Key                 string // enrolment key, where registration asks for one
	UserAgent           string
}

// Register adds a machine, pending. The same credentials again are no error.
// Codes: Invalid (bad id or password), Exists (the id is taken), Forbidden
// (registration is closed or needs a key), Unavailable.
func (s *Service) Register(ctx context.Context, r Registration) error { return nil }

// Login is a machine's request for a token.
type Login struct {
	MachineID, Password string
	Scenarios           []string // empty leaves the known footprint
	UserAgent           string
}

// Token is a signed JWT; Expires is whole seconds and equals its exp claim.
type Token struct {
	Text    string
	Expires time.Time
}

// Login checks a machine's password and issues a token. Codes: Unauthorized
// (unknown machine or wrong password, told apart by nothing), Forbidden
// (blocked), Invalid (no machine id), Unavailable.
func (s *Service) Login(ctx context.Context, l Login) (Token, error) { return Token{}, nil }

// Identity is who sends a request. Organisation, Plan and Fleet are set only
// when State is muster.Active.
type Identity struct {
	Machine      string
	Organisation string
	State        muster.MachineState
	Plan         muster.Plan
	Fleet        muster.FleetPolicy
}

// Authenticate checks a token (without "Bearer "). Every fault of the token or
// its machine is of code Unauthorized.
func (s *Service) Authenticate(ctx context.Context, token string) (Identity, error) {
	return Identity{}, nil
}

// Enrolment is a machine's request to join an organisation: with a key, or
// with Auto and without a key, to be claimed by a person.
type Enrolment struct {
	Key, Name string
	Tags      []string
	Overwrite bool // may leave the organisation that it is in
	Auto      bool
}

// Enrolled is the outcome of an enrolment.
type Enrolled struct {
	Already      bool // it is enrolled and nothing was changed; clients expect status 200, else 201
	State        muster.MachineState
	ClaimURL     string // set when the machine waits to be claimed
	ClaimExpires time.Time
}

// Enrol leads a machine towards an organisation. Codes: Forbidden (no valid
// key), Invalid, Unavailable.
func (s *Service) Enrol(ctx context.Context, machineID string, e Enrolment) (Enrolled, error) {
	return Enrolled{}, nil
}

// Reset refuses: the call proves nothing about who makes it.
func (s *Service) Reset(ctx context.Context, machineID string) error { return nil }

// Unregister drops a machine's secret and membership; its tokens end. The id
// may be registered anew.
func (s *Service) Unregister(ctx context.Context, machineID string) error { return nil }

// Accept makes a machine active in an organisation; "" means the one that it
// asked to join. Earlier tokens end.
func (s *Service) Accept(ctx context.Context, machineID, organisation string) error { return nil }

// Release refuses a pending machine's request or takes an active machine out
// of its organisation. Earlier tokens end.
func (s *Service) Release(ctx context.Context, machineID string) error { return nil }

// Block refuses a machine from now on. Earlier tokens end.
func (s *Service) Block(ctx context.Context, machineID string) error { return nil }

// Unblock lets a machine in again, pending: it has influence only after Accept.
func (s *Service) Unblock(ctx context.Context, machineID string) error { return nil }

// Rename gives a machine a name.
func (s *Service) Rename(ctx context.Context, machineID, name string) error { return nil }

// Tag replaces a machine's tags.
func (s *Service) Tag(ctx context.Context, machineID string, tags []string) error { return nil }

// KeyRequest describes an enrolment key to make.
type KeyRequest struct {
	Organisation string
	Tags         []string
	AutoAccept   bool
	MaxUses      int           // 0 = unlimited
	TTL          time.Duration // 0 = never expires
}

// CreateKey makes an enrolment key; its text is in the first result only.
func (s *Service) CreateKey(ctx context.Context, r KeyRequest) (string, muster.EnrolmentKey, error) {
	return "", muster.EnrolmentKey{}, nil
}

// RedeemClaim makes the machine behind a claim's code active in an
// organisation and returns it.
func (s *Service) RedeemClaim(ctx context.Context, code, organisation string) (muster.Machine, error) {
	return muster.Machine{}, nil
}

// Contact is a kind of contact, see muster.Contacts.
type Contact uint8

// The kinds of contact.
const (
	ContactLogin Contact = iota
	ContactPull
	ContactPush
	ContactMetrics
	ContactPoll
	ContactHeartbeat
)

// Touch notes that a machine was heard just now. version may be "". It does no
// I/O; Run writes it.
func (s *Service) Touch(machineID string, kind Contact, version string) {}

// Refresh reloads one machine from the store, or with an empty id the
// organisations and token keys. Call it when another node rings.
func (s *Service) Refresh(ctx context.Context, machineID string) error { return nil }

// OrganisationsChanged reloads the organisations after one was added or given
// another plan or fleet policy, and tells the other nodes. Tokens that name
// another plan end.
func (s *Service) OrganisationsChanged(ctx context.Context) error { return nil }

// Rotate makes a new token key and drops the oldest of the two live ones.
func (s *Service) Rotate(ctx context.Context) error { return nil }

// Machine returns what memory knows about a machine, including contacts not
// yet written.
func (s *Service) Machine(machineID string) (muster.Machine, bool) { return muster.Machine{}, false }

// Counts says how many machines are in each state, and how many organisations
// have an active one.
type Counts struct{ Pending, Active, Blocked, Organisations int }

// Counts counts the machines in memory.
func (s *Service) Counts() Counts { return Counts{} }

// HashPassword hashes a person's password with argon2id into a PHC string.
// Codes: Invalid (under 8 or over 256 bytes), Unavailable (queue full).
func (s *Service) HashPassword(ctx context.Context, password string) (string, error) { return "", nil }

// VerifyPassword compares a password with a hash. An empty hash stands for an
// unknown person and costs the same. Codes: Unauthorized, Unavailable.
func (s *Service) VerifyPassword(ctx context.Context, hash, password string) error { return nil }
