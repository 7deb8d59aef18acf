package unban

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func source(text string) muster.Source {
	s, err := muster.ParseSource(text)
	if err != nil {
		panic(err)
	}
	return s
}

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

// memory is a Store that keeps everything in a slice. Its conduct is that of the
// real one, which storetest holds to the same contract.
type memory struct {
	mu       sync.Mutex
	requests []muster.UnbanRequest // by id
	audit    []muster.AuditEntry
	fail     error // answered by everything
}

func (m *memory) Unbans(_ context.Context, q muster.UnbanQuery) (found []muster.UnbanRequest, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.requests {
		switch {
		case q.ID != "" && r.ID != q.ID, q.State != "" && r.State != q.State, q.Source.IsValid() && r.Source != q.Source,
			q.Address.IsValid() && r.Address != q.Address, q.Untold && (r.State != muster.UnbanGranted || r.Delivered),
			q.After != "" && !q.LastFirst && r.ID <= q.After, q.After != "" && q.LastFirst && r.ID >= q.After:
			continue
		}
		found = append(found, r)
	}
	if q.LastFirst {
		slices.Reverse(found)
	}
	if q.Limit > 0 {
		found = found[:min(len(found), q.Limit)]
	}
	return found, m.fail
}

func (m *memory) UnbanHistory(_ context.Context, r muster.UnbanRequest, since muster.UnbanSince) (muster.UnbanHistory, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.history(r, since), m.fail
}

func (m *memory) history(r muster.UnbanRequest, since muster.UnbanSince) (h muster.UnbanHistory) {
	for _, o := range m.requests {
		granted := o.State == muster.UnbanGranted
		if granted && o.Network() == r.Network() && !o.Decided.Before(since.Network) {
			h.Network++
		}
		if granted && !o.Decided.Before(since.All) {
			h.All++
		}
		if o.Asker() == r.Asker() && !o.Requested.Before(since.Asker) {
			h.Asker++
		}
		if o.State == muster.UnbanWaiting {
			h.Waiting++
			if o.Source == r.Source {
				h.Open = &o
			}
		}
		if o.Line() == r.Line() && !o.Decided.Before(since.Rounds) && (granted || o.State == muster.UnbanRefused && o.Proof != "") {
			h.Rounds++
			if h.Last == nil || !o.Decided.Before(h.Last.Decided) {
				h.Last = &o
			}
		}
	}
	return h
}

func (m *memory) ChangeUnbans(_ context.Context, r muster.UnbanRequest, since muster.UnbanSince,
	decide func(muster.UnbanHistory) ([]muster.UnbanRequest, []muster.AuditEntry, error),
) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	put, audit, err := decide(m.history(r, since))
	if err != nil {
		return err
	}
	after := slices.Clone(m.requests)
	for _, p := range put {
		i, found := slices.BinarySearchFunc(after, p, func(a, b muster.UnbanRequest) int { return cmp.Compare(a.ID, b.ID) })
		if found {
			after[i] = p
		} else {
			after = slices.Insert(after, i, p)
		}
		open := func(o muster.UnbanRequest) bool {
			return o.State == muster.UnbanWaiting && o.Source == p.Source && o.ID != p.ID
		}
		if p.State == muster.UnbanWaiting && slices.ContainsFunc(after, open) {
			return muster.Errorf(muster.Exists, "a request for %s is waiting already", p.Source)
		}
	}
	m.requests, m.audit = after, append(m.audit, audit...)
	return nil
}

func (m *memory) UnbanDelivered(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.requests {
		if m.requests[i].ID == id {
			m.requests[i].Delivered = true
		}
	}
	return m.fail
}

func (m *memory) TidyUnbans(_ context.Context, blank, forget time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests = slices.DeleteFunc(m.requests, func(r muster.UnbanRequest) bool {
		return r.State != muster.UnbanWaiting && r.Decided.Before(forget)
	})
	for i := range m.requests {
		if r := &m.requests[i]; r.State != muster.UnbanWaiting && r.Decided.Before(blank) {
			r.Contact, r.Text = "", ""
		}
	}
	return m.fail
}

// judge is a List and a Judge: what is granted leaves the list at once, unless it
// fails.
type judge struct {
	mu     sync.Mutex
	listed map[muster.Source]time.Time // since when
	size   int                         // as told, on top of listed
	told   []string                    // source and time, in order
	fail   error                       // of Granted
	lost   error                       // of Listing
}

func (j *judge) Listing(_ context.Context, a netip.Addr) (muster.Verdict, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lost != nil {
		return muster.Verdict{}, j.lost
	}
	for _, s := range Around(a) {
		if since, ok := j.listed[s]; ok {
			return muster.Verdict{Source: s, Listed: true, Scenario: "crowdsecurity/ssh-bf", Since: since, Until: since.Add(72 * time.Hour)}, nil
		}
	}
	return muster.Verdict{}, muster.Errorf(muster.NotFound, "%s is not listed", a)
}

func (j *judge) Size() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.size + len(j.listed)
}

func (j *judge) Granted(_ context.Context, s muster.Source, at time.Time) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fail != nil {
		return j.fail
	}
	j.told = append(j.told, s.String()+" "+at.Format(time.RFC3339Nano))
	if since, ok := j.listed[s]; ok && !since.After(at) {
		delete(j.listed, s)
	}
	return nil
}

// rig is a service with everything around it.
type rig struct {
	*Service
	t     testing.TB
	store *memory
	judge *judge
	clock time.Time
}

func newRig(t testing.TB, change func(*Config)) *rig {
	r := &rig{t: t, store: &memory{}, judge: &judge{listed: map[muster.Source]time.Time{}}, clock: start}
	cfg := Config{Store: r.store, List: r.judge, Judge: r.judge, Now: func() time.Time { return r.clock }}
	if change != nil {
		change(&cfg)
	}
	r.Service = New(cfg)
	return r
}

// list puts sources on the community list.
func (r *rig) list(values ...string) {
	r.judge.mu.Lock()
	defer r.judge.mu.Unlock()
	for _, v := range values {
		r.judge.listed[source(v)] = r.clock
	}
}

// ask asks from one address for another, "" for the same, and returns the state
// of the request, or the error's code.
func (r *rig) ask(from, address string) string {
	r.t.Helper()
	_, result := r.asked(from, address)
	return result
}

func (r *rig) asked(from, address string) (Answer, string) {
	r.t.Helper()
	a := Ask{Requester: addr(from)}
	if address != "" {
		a.Address = addr(address)
	}
	answer, err := r.Ask(r.t.Context(), a)
	if err != nil {
		if muster.CodeOf(err) == "" {
			r.t.Fatalf("%s asks for %q: %v", from, address, err)
		}
		return answer, string(muster.CodeOf(err)) + ": " + err.Error()
	}
	return answer, string(answer.State)
}

// want asks and checks what comes of it, up to the end of want.
func (r *rig) want(want, from, address string) {
	r.t.Helper()
	if got := r.ask(from, address); !strings.HasPrefix(got, want) {
		r.t.Errorf("%s: %s asks for %q: got %q, want %q", r.clock.Format(time.DateTime), from, address, got, want)
	}
}

// states returns state and proof of all requests for an address, oldest first.
func (r *rig) states(address string) string {
	var all []string
	found, err := r.store.Unbans(r.t.Context(), muster.UnbanQuery{Address: addr(address)})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range found {
		all = append(all, strings.TrimSpace(string(f.State)+" "+string(f.Proof)))
	}
	return strings.Join(all, ", ")
}
