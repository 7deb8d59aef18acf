package allow

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
)

// tells lets a minute pass and returns what machines were told by then.
func (w *world) tells(t *testing.T, s *Service) []string {
	t.Helper()
	w.pass(time.Minute)
	s.tell(t.Context())
	return w.took()
}

func wantTold(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: %s", what, diff)
	}
}

func TestMachinesAreTold(t *testing.T) {
	w := newWorld()
	w.machine("m1", "o1", "web")
	w.machine("m2", "o1")
	w.machine("m3", "o2")
	w.machine("deaf", "o1", "web")
	w.seen("deaf", time.Time{}, start) // takes no orders
	w.machine("poor", "o4", "web")
	w.plans["o4"] = muster.Community
	s := w.service(t)
	w.took()

	id := create(t, s, "o1", "web", []string{"tag:web"}, "192.0.2.7")
	if got := w.took(); got != nil {
		t.Errorf("expected nobody to be told at once, got %v", got)
	}
	w.pass(settle)
	if wait := s.tell(t.Context()); wait <= 0 {
		t.Errorf("expected to wait, got %s", wait)
	}
	orders := w.orders
	wantTold(t, "after a change", w.took(), "m1 force_pull")
	if data := string(orders[0].Data); !strings.Contains(data, id) || !strings.Contains(data, `"name":"web"`) || !strings.Contains(data, "/allowlists/"+id+"?what=list") {
		t.Errorf("the order: %s", data)
	}
	// Not again within ten seconds, however many changes there are.
	for range 3 {
		put(t, s, id, "192.0.2.8")
		remove(t, s, id, "192.0.2.8")
		w.pass(2 * time.Second)
		s.tell(t.Context())
	}
	if got := w.took(); got != nil {
		t.Errorf("expected to be told once in ten seconds, got %v", got)
	}
	wantTold(t, "later", w.tells(t, s), "m1 force_pull")
	wantTold(t, "after nothing", w.tells(t, s))

	create(t, s, "", "partners", nil, "192.0.2.9")
	wantTold(t, "after a change for everybody", w.tells(t, s), "m1 force_pull", "m2 force_pull", "m3 force_pull")
}

func TestTheOrdersLinkOutlivesTheOrder(t *testing.T) {
	w := newWorld()
	w.machine("m1", "o1")
	s := w.service(t, func(c *Config) { c.OrderKeep = 5 * 24 * time.Hour })
	create(t, s, "o1", "office", []string{"all"}, "192.0.2.7")
	w.pass(time.Minute)
	s.tell(t.Context())
	if len(w.orders) != 1 {
		t.Fatalf("expected an order, got %v", w.orders)
	}
	_, rest, _ := strings.Cut(string(w.orders[0].Data), `"url":"`)
	link, _, _ := strings.Cut(rest, `"`)
	link = strings.ReplaceAll(link, `\u0026`, "&")
	w.pass(5 * 24 * time.Hour)
	if answer := get(s, link); answer.Code != 200 || !strings.Contains(answer.Body.String(), "192.0.2.7") {
		t.Errorf("expected the list, got %d %s", answer.Code, answer.Body)
	}
}

// A machine that waits for orders is ordered to let go of a list, until it is
// known to have heard.
func TestWithdrawnByOrder(t *testing.T) {
	w := newWorld()
	w.machine("m1", "o1", "web")
	w.machine("m2", "o1")
	s := w.service(t)
	id := create(t, s, "o1", "web", []string{"tag:web"}, "192.0.2.7")
	w.tells(t, s)
	if _, err := s.Update(t.Context(), id, func(l *muster.Allowlist) error {
		l.Targets = []muster.Subscriber{{Kind: muster.SubscriberMachine, ID: "m2"}}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	wantTold(t, "after other targets", w.tells(t, s), "m1 allowlist_unsubscribe", "m2 force_pull")
	if got := s.Links("m1", "o1", []string{"web"}); len(got) != 0 {
		t.Errorf("expected no link besides the order, got %+v", got)
	}
	if o, _ := s.List(id, "o1"); o.Withdrawing != 1 || o.Machines != 1 {
		t.Errorf("expected one machine to be told and one to have it, got %+v", o)
	}
	wantTold(t, "while the order waits", w.tells(t, s))
	w.seen("m1", w.time().Add(time.Second), start)
	wantTold(t, "after it has heard", w.tells(t, s))
	if len(w.withdrawals) != 0 || s.leavings.Load() != 0 {
		t.Errorf("expected it to be settled, got %v", w.withdrawals)
	}

	// Deleted; after a crash that the orders did not survive.
	if err := s.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	s = w.service(t)
	w.seen("m2", w.time(), start)
	wantTold(t, "after a restart", w.tells(t, s), "m2 allowlist_unsubscribe")
	// It went away and comes back when the order is forgotten.
	w.pass(25 * time.Hour)
	s.tell(t.Context())
	if got := w.took(); got != nil {
		t.Errorf("expected no order for who does not listen, got %v", got)
	}
	if got := s.Links("m2", "o1", nil); len(got) != 1 {
		t.Errorf("expected a link to nothing in place of the order, got %v", got)
	}
	w.seen("m2", w.time(), start)
	wantTold(t, "when it is back", w.tells(t, s), "m2 allowlist_unsubscribe")
}

// Machines may be told at any moment, also in the middle of a change.
func TestToldDuringAChange(t *testing.T) {
	w := newWorld()
	w.machine("m1", "o1", "web")
	s := w.service(t)
	id := create(t, s, "o1", "web", []string{"tag:web"}, "192.0.2.7")
	w.tells(t, s)
	told := make(chan struct{})
	w.during = func() {
		go func() { defer close(told); s.tell(t.Context()) }()
		select {
		case <-told:
		case <-time.After(50 * time.Millisecond): // it waits for the change
		}
	}
	if _, err := s.Update(t.Context(), id, func(l *muster.Allowlist) error { l.Targets = nil; return nil }); err != nil {
		t.Fatal(err)
	}
	<-told
	s.tell(t.Context())
	wantTold(t, "after a change", w.took(), "m1 allowlist_unsubscribe")
}

// A machine that takes no orders gets a link to nothing, under another name.
func TestWithdrawnByLink(t *testing.T) {
	w := newWorld()
	w.machine("m1", "o1", "web")
	w.seen("m1", time.Time{}, start)
	s := w.service(t)
	id := create(t, s, "o1", "web", []string{"all"}, "192.0.2.7")
	if err := s.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	next := create(t, s, "o1", "web", []string{"all"}, "192.0.2.8") // the name is free again
	got := s.Links("m1", "o1", nil)
	if len(got) != 2 || got[0].ID != id || got[0].Name == "web" || got[1].ID != next || got[1].Name != "web" {
		t.Fatalf("expected a link to nothing before the new list's, got %+v", got)
	}
	if answer := get(s, got[0].URL); answer.Code != 200 || answer.Body.Len() != 0 {
		t.Errorf("expected nothing, got %d %q", answer.Code, answer.Body)
	}
	if got := s.Links("m2", "o1", nil); len(got) != 1 {
		t.Errorf("expected the new list alone for another machine, got %+v", got)
	}
	w.pass(23 * time.Hour)
	w.seen("m1", time.Time{}, w.time())
	s.tell(t.Context())
	if got := s.Links("m1", "o1", nil); len(got) != 2 {
		t.Errorf("expected it for a day of pulls, got %+v", got)
	}
	w.pass(2 * time.Hour)
	w.seen("m1", time.Time{}, w.time())
	s.tell(t.Context())
	if got := s.Links("m1", "o1", nil); len(got) != 1 || len(w.withdrawals) != 0 {
		t.Errorf("expected it to be settled after a day of pulls, got %+v", got)
	}
}

// Machines change tags and organisations, and come and go.
func TestMachineChanges(t *testing.T) {
	w := newWorld()
	w.machine("m1", "o1", "web")
	s := w.service(t)
	create(t, s, "o1", "web", []string{"tag:web"}, "192.0.2.7")
	create(t, s, "o1", "all", []string{"all"}, "192.0.2.8")
	create(t, s, "", "partners", nil, "192.0.2.9")
	w.tells(t, s)
	change := func(m muster.Machine) {
		t.Helper()
		w.mu.Lock()
		w.machines["m1"] = m
		w.mu.Unlock()
		if err := s.MachineChanged(t.Context(), "m1"); err != nil {
			t.Fatal(err)
		}
	}
	m, _ := w.Machine("m1")
	m.Seen.Poll = w.time()
	m.Tags = []string{"dmz"}
	change(m)
	wantTold(t, "without the tag", w.tells(t, s), "m1 allowlist_unsubscribe")
	m.Tags = []string{"web"} // it is back before it has heard
	change(m)
	w.tells(t, s)
	if len(w.withdrawals) != 0 {
		t.Errorf("expected nothing to be withdrawn any more, got %v", w.withdrawals)
	}
	m.Organisation, w.plans["o2"] = "o2", muster.Enterprise
	change(m)
	wantTold(t, "in another organisation", w.tells(t, s), "m1 allowlist_unsubscribe", "m1 allowlist_unsubscribe")
	m.State, m.Organisation = muster.Pending, ""
	change(m)
	if got := s.Links("m1", "", nil); len(got) != 1 || !strings.HasPrefix(got[0].Name, "partners (withdrawn ") {
		t.Errorf("expected a link to nothing in place of the installation's list, got %+v", got)
	}
	w.mu.Lock()
	delete(w.machines, "m1")
	w.mu.Unlock()
	if err := s.MachineChanged(t.Context(), "m1"); err != nil {
		t.Fatal(err)
	}
	w.tells(t, s)
	if len(w.withdrawals) != 0 {
		t.Errorf("expected nothing left of a machine that is gone, got %v", w.withdrawals)
	}
}

// A change that could not be stored has changed nothing.
func TestFailedWrites(t *testing.T) {
	w := newWorld()
	w.machine("m1", "o1")
	s := w.service(t)
	id := create(t, s, "o1", "office", []string{"all"}, "192.0.2.7")
	_, version := s.For("m1", "o1", nil)
	w.fail = errors.New("the disk is full")
	if _, err := s.Put(t.Context(), id, []muster.AllowItem{item(t, "192.0.2.8")}); !errors.Is(err, w.fail) {
		t.Errorf("put: %v", err)
	}
	if err := s.Remove(t.Context(), id, []muster.AllowItem{item(t, "192.0.2.7")}); !errors.Is(err, w.fail) {
		t.Errorf("remove: %v", err)
	}
	if err := s.Delete(t.Context(), id); !errors.Is(err, w.fail) {
		t.Errorf("delete: %v", err)
	}
	if _, err := s.Create(t.Context(), muster.Allowlist{Name: "x", Organisation: "o1"}); !errors.Is(err, w.fail) {
		t.Errorf("create: %v", err)
	}
	w.fail = nil
	if _, v := s.For("m1", "o1", nil); v != version || !covers(s, "192.0.2.7", "m1", "o1") {
		t.Error("expected the list as it was")
	}
	w.tells(t, s)
	if len(w.withdrawals) != 0 || len(s.Links("m1", "o1", nil)) != 1 {
		t.Errorf("expected the machine to keep its list, got %v", w.withdrawals)
	}
}
