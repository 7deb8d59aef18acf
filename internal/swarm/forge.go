package swarm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"sync/atomic"
)

// forger makes log-ins as a trusted proxy passes them on: of ever other
// clients, named in X-Forwarded-For, half of them of machines that nobody knows
// and half of one that is known, with a wrong password.
type forger struct {
	addresses int
	next      atomic.Int64
	clients   atomic.Int64 // whose first log-in was answered as expected

	head    []byte // up to the address
	tails   [2][]byte
	machine int // where the unknown machine's id is in tails[unknown]
}

const (
	unknown = iota
	wrongPassword
)

// twiceEvery is how many addresses there are to one that tries twice: odd, so that
// those are of all families and kinds.
const twiceEvery = 17

// newForger prepares log-ins from n addresses; victim is the machine that is
// known.
func newForger(t Target, n int, seed uint64, victim *Watcher) *forger {
	f := &forger{addresses: n}
	stranger := NewWatcher(seed, -1)
	forged := bytes.Replace(victim.login, []byte(victim.Password), []byte(stranger.Password), 1)
	for i, body := range [...][]byte{unknown: stranger.login, wrongPassword: forged} {
		req := t.appendRequest(nil, &Request{Method: "POST", Path: "/v3/watchers/login", Body: body})
		at := bytes.Index(req, []byte("\r\nUser-Agent:"))
		f.head = append(req[:at:at], "\r\nX-Forwarded-For: "...)
		f.tails[i] = req[at:]
	}
	f.machine = bytes.Index(f.tails[unknown], []byte(stranger.Machine))
	return f
}

// request is flood.next.
func (f *forger) request(l *lane) []byte {
	if !l.again && l.index%twiceEvery == 0 {
		l.again = true
	} else {
		l.index, l.again = int(f.next.Add(1))-1, false
	}
	if l.index >= f.addresses {
		return nil
	}
	kind := l.index >> 1 & 1 // the lowest bit is that of the address's family
	l.out = append(l.out[:0], f.head...)
	l.out = forgedAddr(l.index).AppendTo(l.out)
	tail := len(l.out)
	l.out = append(l.out, f.tails[kind]...)
	if kind == unknown {
		var id [8]byte
		binary.BigEndian.PutUint64(id[:], uint64(l.index))
		hex.Encode(l.out[tail+f.machine:], id[:])
	}
	return l.out
}

// check is flood.check. No address tries often enough to be banned: one that is
// told so has been taken for another.
func (f *forger) check(l *lane, status int, body []byte) error {
	switch {
	case isBan(status, body):
		return fmt.Errorf("a log-in of %s was refused for a ban, after at most one before: does the server trust 127.0.0.1 as a proxy (proxies.trusted)? %s",
			forgedAddr(l.index), clip(body))
	case status != 401 && status != 403:
		return fmt.Errorf("a log-in of a forged client: expected status 401 or 403, got %d: %s", status, clip(body))
	case !l.again:
		f.clients.Add(1)
	}
	return nil
}

// maxForged bounds forgedAddr, which would begin to repeat itself.
const maxForged = 1 << 28

// forgedAddr returns the i-th of addresses of which no two are in the same /64:
// in turn one of 32.0.0.0/4 and one of 2a00::/16. They are written into headers
// and never contacted.
func forgedAddr(i int) netip.Addr {
	const odd = 0x9e3779b97f4a7c15 // so that neighbours are far apart; odd, so that none repeats
	mixed := uint64(i) * odd
	if i%2 == 0 {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 2<<28|uint32(mixed)&(1<<28-1))))
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], 0x2a00<<48|mixed&(1<<48-1))
	b[15] = 1
	return netip.AddrFrom16(b)
}
