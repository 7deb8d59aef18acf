package misuse

import (
	"strconv"
	"strings"
	"time"
)

// soon is how long after its login an engine's next call comes at the latest:
// it logs in because it has something to do. Long enough for a slow line, short
// against the periods of an engine that works beside a probe (10 s and more).
const soon = 2 * time.Second

// startup is how long after its login the first pull of a process comes at the
// latest: 15 seconds, and time for a slow machine.
const startup = time.Minute

// settled is how long an engine has to last to be no restart loop, whatever it
// does: those that make a finding log in more often.
const settled = 10 * time.Minute

// did is what is known about one login, and about what came from its address
// between it and the next.
type did uint8

const (
	bare    did = 1 << iota // it declared no scenarios
	called                  // metrics or the like followed soon, as at a start
	acted                   // anything followed soon
	started                 // a startup pull followed
	pushed
	polled
	lasted // it pulled after its start, or was still there after settled
)

func (d did) any(of did) bool { return d&of != 0 }

// works reports whether an engine was at work after the login, not merely
// starting: it lasted, or it pushed or polled without having started.
func (d did) works() bool {
	return d.any(lasted) || d.any(pushed) && !d.any(started) || d.any(polled) && !d.any(started|called|bare)
}

// logins is a machine's last logins, oldest first. Times are the low 32 bits of
// Unix milliseconds: no two stand further apart than maxLogins windows, which
// is less than 2^32 ms.
type logins struct {
	at   [maxLogins]uint32
	from [maxLogins]uint32 // addrKey.tag
	did  [maxLogins]did
	n    uint8
	// cached says that the engine keeps its token (1.7.4 and later).
	cached bool

	agent string // of the last login
	last  int64  // Unix ms

	// All logins, each within a window of the one before; and of these the last
	// ones between which no work was done.
	count, idle           uint32
	countFirst, idleFirst int64
}

const maxAgent = 64

func (m *machine) login(at int64, key addrKey, c *Contact, window int64) {
	if m.logins == nil {
		m.logins = &logins{}
	}
	m.lasts = addrKey{}
	l := m.logins
	if at-l.last > window {
		l.n, l.count = 0, 0
	}
	if l.count == 0 {
		l.countFirst = at
	}
	if l.n == 0 || l.did[l.n-1].works() {
		l.idle, l.idleFirst = 0, at
	}
	if l.n == maxLogins {
		copy(l.at[:], l.at[1:])
		copy(l.from[:], l.from[1:])
		copy(l.did[:], l.did[1:])
		l.n--
	}
	var d did
	if c.NoScenarios {
		d = bare
	}
	l.at[l.n], l.from[l.n], l.did[l.n] = uint32(at), key.tag(), d
	l.n++
	l.count++
	l.idle++
	l.last = at
	if agent := c.Agent[:min(len(c.Agent), maxAgent)]; agent != l.agent {
		l.agent = strings.Clone(agent)
		l.cached = cachesToken(agent)
	}
}

// follow notes what follows a login: the last one from that address, and the
// last one from the other family, which is the same dual-stack host's for all
// that can be seen. It reports whether that says anything new about it.
func (m *machine) follow(at int64, key addrKey, what What) (news bool) {
	l, tag, other := m.logins, key.tag(), false
	for i := int(l.n) - 1; i >= 0; i-- {
		if l.from[i] == tag {
			news = l.note(i, at, what) || news
			if i == int(l.n)-1 && l.did[i].any(lasted) {
				m.lasts = key
			}
			return news
		}
		if !other && (l.from[i]^tag)&1 != 0 {
			news, other = l.note(i, at, what), true
		}
	}
	return news
}

// note notes what followed login i. When several processes start at once, with
// one address and one id, their logins come before their calls: what one login
// has had already is the earlier one's.
func (l *logins) note(i int, at int64, what What) (news bool) {
	i = l.without(acted, i, at-soon.Milliseconds())
	var d did
	switch what {
	case Other, Login:
	case StartupPull:
		i = l.without(started, i, at-startup.Milliseconds())
		d = started
	case Pull:
		d = lasted
	case Push:
		d = pushed
	case Poll:
		d = polled
	}
	switch age := at - l.time(i); {
	case age > settled.Milliseconds():
		d |= lasted
	case age > soon.Milliseconds():
	case what == Other:
		d |= acted | called
	default:
		d |= acted
	}
	news = l.did[i]|d != l.did[i]
	l.did[i] |= d
	return news
}

// without returns the last login from the address of login i, up to i, that
// has none of flags and was not before since; or i.
func (l *logins) without(flags did, i int, since int64) int {
	for j := i; j >= 0 && l.time(j) >= since; j-- {
		if l.from[j] == l.from[i] && !l.did[j].any(flags) {
			return j
		}
	}
	return i
}

func (l *logins) time(i int) int64 { return l.last - int64(uint32(l.last)-l.at[i]) }

// cachesToken reports whether an engine of that user agent starts without a
// login while its database holds a token: crowdsec/v1.7.4 and later.
func cachesToken(agent string) bool {
	version, ok := strings.CutPrefix(agent, "crowdsec/v")
	if !ok {
		return false
	}
	least := [3]int{1, 7, 4}
	for i := range least {
		end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
		if end < 0 {
			end = len(version)
		}
		n, err := strconv.Atoi(version[:end])
		if err != nil || n < least[i] {
			return false
		}
		if n > least[i] {
			return true
		}
		version = strings.TrimPrefix(version[end:], ".")
	}
	return true
}
