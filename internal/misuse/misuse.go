// Package misuse watches who contacts the server, from where and for what, and
// finds what wears a shared Central API down: engines that restart in a loop,
// health checks that log in, credentials copied to several machines, many
// engines behind one address. It finds by evidence, which it shows, and refuses
// nobody.
//
// What tells a program that logs in from another, on the wire:
//
//   - An engine logs in to do something: a call follows at once, at a start its
//     metrics within milliseconds and within 15 seconds the pull of the full
//     list (startup=true). After the login of `cscli capi status` nothing comes.
//     Both have the same user agent.
//   - An engine whose database is empty, as in a fresh container, declares no
//     scenarios when it logs in; cscli declares those that are installed.
//   - Engines since 1.7.4 keep their token in the database: if that is not
//     empty they start without a login.
package misuse

import (
	"net/netip"
	"strings"
	"time"

	"muster"
)

// What says what a contact was for.
type What uint8

// The purposes.
const (
	Other       What = iota // anything that is not below: metrics, usage metrics, enrolment
	Login                   // that succeeded
	Pull                    // of decisions
	StartupPull             // of decisions, with startup=true: the first of a process
	Push                    // of signals or deleted decisions
	Poll                    // for orders (PAPI)
)

// Contact is a request whose machine is proven: by its password, or its token.
// A Watch is to see all of them: what does not follow a login is evidence too,
// as are the addresses of an engine that has nothing but metrics to send.
type Contact struct {
	Machine      string
	Organisation string // "" when not known
	Addr         netip.Addr
	What         What
	Agent        string // User-Agent
	NoScenarios  bool   // of a Login: it declared none, as an engine with an empty database does
}

// Config configures a Watch. All zero values have defaults.
type Config struct {
	// MaxMachines and MaxAddresses bound what is kept, each rounded up to a
	// multiple of 64; the one not heard for longest goes. A machine and its
	// address take some 900 bytes together, at most 3 KB when each machine is at
	// many addresses and each address has many machines. 0: 65,536.
	MaxMachines, MaxAddresses int

	// Window is how long contacts count together, at most 24 hours, and how
	// long a finding holds after its last evidence. 0: 50 minutes, that of the
	// default limits on logins.
	Window time.Duration

	// Logins is how many within the window make a restart loop or a status
	// probe, 3 to 24. 0: 10, half of what the default limits allow: a few
	// restarts and checks by hand stay below it, and who is found has not been
	// banned yet.
	Logins int

	// Returns is how often a machine must come back to an address that it had
	// left within the window, for its credentials to be shared. 0: 2, as in A,
	// B, A, B: a line that fails over and back returns once.
	Returns int

	// Homes is how many addresses of one family (v4, v6) within the window make
	// credentials shared even if no address is returned to, 2 to 24. 0: 5: a
	// change of a dynamic address makes 2.
	Homes int

	// Neighbours is how many machines that logged in from one address make it
	// shared, 2 to 32. 0: 5.
	Neighbours int

	// Critical is the count within the window from which on a finding is
	// critical, at most 24. 0: 20, what the default limits allow.
	Critical int

	// MaxFindings bounds an answer of Findings. 0: 1,000.
	MaxFindings int

	// Seed is a secret of this process, so that nobody can choose names that
	// crowd each other out.
	Seed uint64
}

const (
	maxWindow     = 24 * time.Hour
	maxLogins     = 24 // kept of a machine
	maxHomes      = 24 // addresses kept of a machine
	maxNeighbours = 32 // machines kept of an address
)

func (c Config) withDefaults() Config {
	or := func(n, fallback, low, high int) int {
		if n == 0 {
			n = fallback
		}
		return min(max(n, low), high)
	}
	c.MaxMachines = or(c.MaxMachines, 65_536, 1, 1<<30)
	c.MaxAddresses = or(c.MaxAddresses, 65_536, 1, 1<<30)
	c.Logins = or(c.Logins, 10, 3, maxLogins)
	c.Returns = or(c.Returns, 2, 1, 1<<30)
	c.Homes = or(c.Homes, 5, 2, maxHomes)
	c.Neighbours = or(c.Neighbours, 5, 2, maxNeighbours)
	c.Critical = or(c.Critical, 20, 1, min(maxLogins, maxHomes, maxNeighbours))
	c.MaxFindings = or(c.MaxFindings, 1000, 1, 1<<30)
	if c.Window <= 0 {
		c.Window = 50 * time.Minute
	}
	c.Window = min(c.Window, maxWindow)
	return c
}

// Watch keeps what findings are made of. It is safe for concurrent use.
type Watch struct {
	cfg       Config
	windowMs  int64
	machines  *table[string, machine]
	addresses *table[addrKey, address]
}

// New returns a Watch that has seen nothing. Values out of range are brought
// into it.
func New(c Config) *Watch {
	c = c.withDefaults()
	return &Watch{
		cfg: c, windowMs: max(1, c.Window.Milliseconds()),
		machines:  newTable[string, machine](c.MaxMachines),
		addresses: newTable[addrKey, address](c.MaxAddresses),
	}
}

// See takes note of c. It reports whether that is news: another node that has
// not seen c would have to hear of it to find the same. What an engine does
// over and over is no news; news are logins, the first of what follows one, and
// changes of address. A contact without machine or address is ignored.
//
// It allocates only for what is new. A clock that goes back by less than the
// window stands still for those that it concerns; one that goes back further
// makes them strangers.
func (w *Watch) See(now time.Time, c Contact) (news bool) {
	if c.Machine == "" || len(c.Machine) > muster.MaxMachineID || !c.Addr.IsValid() {
		return false
	}
	at, key := now.UnixMilli(), keyOf(c.Addr)
	id, news := w.seeMachine(at, key, &c)
	if c.What == Login {
		w.seeNeighbour(at, key, id)
	}
	return news
}

func (w *Watch) seeMachine(at int64, key addrKey, c *Contact) (id string, news bool) {
	s := w.machines.shard(hashString(w.cfg.Seed, c.Machine))
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.get(c.Machine)
	if r == nil {
		r = s.add(strings.Clone(c.Machine), at-w.windowMs) // a copy does not keep the request in memory
	}
	at = r.touch(s, at, w.windowMs)
	m := &r.v
	if m.organisation == "" || c.What == Login { // a machine that changes hands logs in again
		m.join(c.Organisation)
	}
	news = m.visit(at, key, w.windowMs)
	if c.What == Login {
		m.login(at, key, c, w.windowMs)
		news = true
	} else if m.logins != nil && m.lasts != key && m.follow(at, key, c.What) {
		news = true
	}
	return r.key, news
}

func (w *Watch) seeNeighbour(at int64, key addrKey, id string) {
	s := w.addresses.shard(key.hash(w.cfg.Seed))
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.get(key)
	if r == nil {
		r = s.add(key, at-w.windowMs)
	}
	r.v.login(r.touch(s, at, w.windowMs), id)
}

// Forget drops what was seen from the addresses in p, and of the machines that
// were there: after a ban was lifted, only what they do next counts.
func (w *Watch) Forget(p netip.Prefix) {
	if !p.IsValid() {
		return
	}
	p = unmapped(p)
	w.machines.each(func(s *shard[string, machine], r *record[string, machine]) {
		if r.v.wasIn(p) {
			s.remove(r)
		}
	})
	w.addresses.each(func(s *shard[addrKey, address], r *record[addrKey, address]) {
		if r.key.in(p) {
			s.remove(r)
		}
	})
}

// Stats says how full a Watch is.
type Stats struct {
	Machines, Addresses int // kept
	// EvictedMachines and EvictedAddresses made room while they could still
	// have led to a finding: a bound is too low when they rise steadily.
	EvictedMachines, EvictedAddresses uint64
}

// Stats returns the numbers of now.
func (w *Watch) Stats() Stats {
	var s Stats
	s.Machines, s.EvictedMachines = w.machines.stats()
	s.Addresses, s.EvictedAddresses = w.addresses.stats()
	return s
}
