package reach

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"muster"
	"muster/internal/ops"
)

// directory keeps all integrations in memory.
type directory struct {
	mu   sync.RWMutex
	byID map[string]*reader
}

// reader is one integration with what is remembered for it.
type reader struct {
	muster.Integration

	contact *contact   // the same for all readers of one integration, as its settings change
	file    *firewalls // likewise
}

// contact is when and by whom an integration was read.
type contact struct {
	mu    sync.Mutex
	last  muster.IntegrationContact
	dirty bool // not written down yet
}

func (d *directory) size() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.byID)
}

func (d *directory) reader(id string) (*reader, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	r, ok := d.byID[id]
	return r, ok
}

// replace takes all integrations as they are stored. What is remembered of those
// that were there stays.
func (d *directory) replace(list []muster.Integration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	byID := make(map[string]*reader, len(list))
	for _, i := range list {
		r := &reader{Integration: i}
		if old, ok := d.byID[i.ID]; ok {
			r.contact, r.file = old.contact, old.file
		} else {
			r.contact, r.file = &contact{last: i.Seen}, &firewalls{}
		}
		byID[i.ID] = r
	}
	d.byID = byID
}

// seen returns the contacts that are not written down yet.
func (d *directory) seen() map[string]muster.IntegrationContact {
	d.mu.RLock()
	defer d.mu.RUnlock()
	seen := map[string]muster.IntegrationContact{}
	for id, r := range d.byID {
		r.contact.mu.Lock()
		if r.contact.dirty {
			seen[id], r.contact.dirty = r.contact.last, false
		}
		r.contact.mu.Unlock()
	}
	return seen
}

// maxAgent is how much of what a client calls itself is kept.
const maxAgent = 200

// touch notes that an integration was read.
func (r *reader) touch(now time.Time, agent string, addr netip.Addr, entries int) {
	agent = agent[:min(len(agent), maxAgent)]
	c := r.contact
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.Agent != agent {
		c.last.Agent = strings.Clone(strings.ToValidUTF8(agent, "?"))
	}
	c.last.Pull, c.last.Addr, c.last.Entries, c.dirty = now, addr, entries, true
}

// Contact returns when an integration was last read, which may not be stored
// yet; ok is false when there is none of that id.
func (s *Service) Contact(id string) (last muster.IntegrationContact, ok bool) {
	r, ok := s.integrations.reader(id)
	if !ok {
		return last, false
	}
	r.contact.mu.Lock()
	defer r.contact.mu.Unlock()
	return r.contact.last, true
}

// bouncer authenticates a bouncer by its key. An engine answers one who has none
// as one whose key is wrong.
func (s *Service) bouncer(r *http.Request, id string) (*reader, error) {
	found, ok := s.integrations.reader(id)
	key := r.Header.Get("X-Api-Key")
	if !ok || found.Kind != muster.BouncerIntegration || !matches(found, key) {
		if err := s.wrongSecret(r, id, key != ""); err != nil {
			return nil, err
		}
		return nil, muster.Errorf(muster.Forbidden, "access forbidden")
	}
	ops.RecordOf(r.Context()).Organisation = found.Organisation
	return found, nil
}

// firewall authenticates by basic authentication, or the password as X-Api-Key.
func (s *Service) firewall(w http.ResponseWriter, r *http.Request, id string) (*reader, error) {
	user, password, basic := r.BasicAuth()
	if !basic {
		password = r.Header.Get("X-Api-Key")
	}
	if password == "" {
		w.Header().Set("WWW-Authenticate", `Basic realm="muster", charset="UTF-8"`)
		return nil, muster.Errorf(muster.Unauthorized, "expected the integration's user and password (basic authentication), or its password as X-Api-Key")
	}
	found, ok := s.integrations.reader(id)
	if !ok {
		if err := s.wrongSecret(r, id, true); err != nil {
			return nil, err
		}
		return nil, muster.Errorf(muster.NotFound, "there is no such integration")
	}
	sameUser := !basic || subtle.ConstantTimeCompare([]byte(user), []byte(found.User)) == 1
	if !matches(found, password) || !sameUser {
		if err := s.wrongSecret(r, id, true); err != nil {
			return nil, err
		}
		return nil, muster.Errorf(muster.Forbidden, "the user or the password is wrong")
	}
	if found.Kind != muster.FirewallIntegration {
		return nil, muster.Errorf(muster.NotFound, "this integration is for a bouncer: its local API is at …/integrations/%s", found.ID)
	}
	ops.RecordOf(r.Context()).Organisation = found.Organisation
	return found, nil
}

// matches compares digests, so that the time it takes tells nothing. Secrets are
// generated with 130 bits, which makes a slow hash pointless.
func matches(r *reader, secret string) bool {
	sum := sha256.Sum256([]byte(secret))
	return subtle.ConstantTimeCompare(sum[:], r.Secret) == 1
}

func (s *Service) wrongSecret(r *http.Request, id string, tried bool) error {
	if !tried {
		return nil
	}
	s.wrong.Inc()
	return s.cfg.WrongSecret(s.cfg.Addr(r), id)
}

// firewalls remembers what a firewall was given.
type firewalls struct {
	mu     sync.Mutex // held while a file is made
	file   atomic.Pointer[file]
	pulls  sync.Mutex
	pulled map[netip.Addr]time.Time
}
