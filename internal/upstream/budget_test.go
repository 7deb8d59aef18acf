package upstream

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
)

func open(t testing.TB, c BudgetConfig) *Budget {
	t.Helper()
	b, err := OpenBudget(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// spend spends a login at now, which must be given.
func spend(t testing.TB, b *Budget, now time.Time) {
	t.Helper()
	if wait, err := b.Spend(now); wait != 0 || err != nil {
		t.Fatalf("at %s: expected a login, got a wait of %s, %v", now.Sub(t0), wait, err)
	}
}

func wait(t testing.TB, b *Budget, now time.Time) time.Duration {
	t.Helper()
	wait, err := b.Spend(now)
	if err != nil {
		t.Fatal(err)
	}
	return wait
}

func TestBudgetLeavesSomeForPeople(t *testing.T) {
	b := open(t, BudgetConfig{})
	for i := range 15 {
		spend(t, b, t0.Add(time.Duration(i)*time.Minute))
	}
	if got := wait(t, b, t0.Add(15*time.Minute)); got != 35*time.Minute+1 {
		t.Errorf("the 16th: expected to wait until the first is 50 minutes old, got %s", got)
	}
	if got := b.Left(t0.Add(15 * time.Minute)); got != 0 {
		t.Errorf("expected none left, got %d", got)
	}
	if got := wait(t, b, t0.Add(50*time.Minute)); got != 1 {
		t.Errorf("exactly a window after the first: expected a wait of 1 ns, got %s", got)
	}
	spend(t, b, t0.Add(50*time.Minute+1))
	if wait(t, b, t0.Add(50*time.Minute+2)) == 0 {
		t.Error("expected one login for the one that left the window, got two")
	}
	if got := b.Left(t0.Add(24 * time.Hour)); got != 15 {
		t.Errorf("a day later: expected 15 left, got %d", got)
	}
}

func TestBudgetNumbers(t *testing.T) {
	for _, test := range []struct {
		c     BudgetConfig
		spend int // 0: refused
	}{
		{BudgetConfig{}, 15},
		{BudgetConfig{Threshold: 3}, 3}, // a quarter of it is none
		{BudgetConfig{Threshold: 10, Reserve: 4}, 6},
		{BudgetConfig{Reserve: -1}, 20},
		{BudgetConfig{Threshold: -1}, 0},
		{BudgetConfig{Threshold: 5, Reserve: 5}, 0},
		{BudgetConfig{Window: -time.Second}, 0},
		{BudgetConfig{Threshold: maxThreshold + 1}, 0},
	} {
		b, err := OpenBudget(test.c)
		if (err == nil) != (test.spend > 0) || err != nil && !errors.Is(err, muster.Invalid) {
			t.Errorf("%+v: got error %v", test.c, err)
		}
		if err == nil && b.Left(t0) != test.spend {
			t.Errorf("%+v: expected %d, got %d", test.c, test.spend, b.Left(t0))
		}
	}
}

func TestBudgetSurvivesARestart(t *testing.T) {
	c := BudgetConfig{File: filepath.Join(t.TempDir(), "budget.json"), Threshold: 4, Reserve: 1}
	for i := range 3 { // a process that starts again for every login
		b := open(t, c)
		spend(t, b, t0.Add(time.Duration(i)*time.Second))
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	b := open(t, c)
	if got := wait(t, b, t0.Add(3*time.Second)); got != 50*time.Minute-3*time.Second+1 {
		t.Errorf("expected the wait to go on after the restart, got %s", got)
	}
	_, err := OpenBudget(c)
	if !errors.Is(err, muster.Unavailable) {
		t.Errorf("a second process: expected to be kept away, got %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestBudgetIsSpentBeforeTheLogin(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b := open(t, BudgetConfig{File: filepath.Join(dir, "budget.json")})
	defer func() { _ = b.Close() }()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Spend(t0); err == nil {
		t.Error("a login was given that could not be remembered")
	}
	if got := b.Left(t0); got != 15 {
		t.Errorf("expected nothing taken, got %d left", got)
	}
}

func TestBudgetRefusesWhatIsNone(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":2}`, "[]", "null"} {
		c := BudgetConfig{File: filepath.Join(t.TempDir(), "budget.json")}
		if err := os.WriteFile(c.File, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenBudget(c); !errors.Is(err, muster.Invalid) || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%q: expected a refusal with advice, got %v", text, err)
		}
	}
}

func TestBudgetIsSilentWhileBanned(t *testing.T) {
	for _, test := range []struct {
		name string
		r    *Response
		ends time.Duration // of the silence
	}{
		{"told", answer(403, musterBan), time.Hour + afterBan},
		{"assumed", answer(403, "Forbidden"), time.Hour + afterBan},
		{"without end", answer(403, `{"code":"banned","until":null,"extends_on_retry":false}`), recheck},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := BudgetConfig{File: filepath.Join(t.TempDir(), "budget.json")}
			b := open(t, c)
			spend(t, b, t0)
			if err := b.Saw(t0, test.r, true); err != nil {
				t.Fatal(err)
			}
			for range 2 { // before and after a restart
				if _, reason, banned := b.Banned(t0.Add(test.ends - 1)); !banned || reason == "" {
					t.Errorf("just before the end: expected a ban with its reason, got %v %q", banned, reason)
				}
				if got := wait(t, b, t0.Add(time.Minute)); got != test.ends-time.Minute {
					t.Errorf("after a minute: expected a wait of %s, got %s", test.ends-time.Minute, got)
				}
				if _, _, banned := b.Banned(t0.Add(test.ends)); banned {
					t.Error("at the end: expected no ban")
				}
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
				b = open(t, c)
			}
			defer func() { _ = b.Close() }()
			spend(t, b, t0.Add(test.ends))
			if b.Left(t0.Add(test.ends)) != 14 {
				t.Error("asking during the ban cost logins")
			}
		})
	}
}

func TestBanEndsWithAGoodLogin(t *testing.T) {
	c := BudgetConfig{File: filepath.Join(t.TempDir(), "budget.json")}
	b := open(t, c)
	if err := b.SawBan(t0, Ban{Until: t0.Add(time.Hour), Reason: "x"}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*Response{answer(401, ""), answer(503, "")} {
		if err := b.Saw(t0, r, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Saw(t0, answer(200, "{}"), false); err != nil {
		t.Fatal(err)
	}
	if _, banned := b.Ban(t0); !banned {
		t.Fatal("the ban was ended by an answer that says nothing about it")
	}
	if err := b.Saw(t0, answer(200, "{}"), true); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, c)
	defer func() { _ = b.Close() }()
	if _, banned := b.Ban(t0); banned {
		t.Error("the ban came back with a restart")
	}
}

func TestBanKeepsItsLengthWhenTheClockIsSetBack(t *testing.T) {
	b := open(t, BudgetConfig{})
	if err := b.SawBan(t0, Ban{Until: t0.Add(time.Hour), Reason: "x"}); err != nil {
		t.Fatal(err)
	}
	before := t0.AddDate(-1, 0, 0)
	if got := wait(t, b, before); got != time.Hour+afterBan {
		t.Errorf("a year back: expected the ban's length, got %s", got)
	}
	if got := wait(t, b, before.Add(time.Hour)); got != afterBan {
		t.Errorf("an hour later: expected the rest, got %s", got)
	}
}

// However a process uses its budget, restarts, and has its clock set back, no
// window of true time has more logins than the threshold less the reserve, and
// none is held back for longer than a window once the clock is left alone.
func TestBudgetIsNeverExceeded(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		c := BudgetConfig{
			File:      filepath.Join(dir, fmt.Sprintf("budget-%d.json", n)),
			Threshold: rapid.IntRange(1, 6).Draw(t, "threshold"), Reserve: -1, Window: 50 * time.Minute,
		}
		if rapid.IntRange(0, 3).Draw(t, "in memory") == 0 {
			c.File = ""
		}
		b, err := OpenBudget(c)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = b.Close() }()
		truth, offset := t0, time.Duration(0)
		var sent []time.Time // true times
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			truth = truth.Add(time.Duration(rapid.Int64Range(0, int64(20*time.Minute)).Draw(t, "later")))
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				offset -= time.Duration(rapid.Int64Range(0, int64(100*time.Hour)).Draw(t, "set back"))
			case 1:
				if c.File == "" {
					continue
				}
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
				if b, err = OpenBudget(c); err != nil {
					t.Fatal(err)
				}
			default:
				wait, err := b.Spend(truth.Add(offset))
				if err != nil || wait < 0 || wait > c.Window+1 {
					t.Fatalf("wait %s, %v", wait, err)
				}
				if wait == 0 {
					sent = append(sent, truth)
				}
			}
			within := 0
			for _, at := range sent {
				if truth.Sub(at) <= c.Window {
					within++
				}
			}
			if within > c.Threshold {
				t.Fatalf("%d logins in one window, allowed are %d", within, c.Threshold)
			}
		}
		wait, err := b.Spend(truth.Add(offset))
		if err != nil {
			t.Fatal(err)
		}
		if wait > 0 {
			if again, err := b.Spend(truth.Add(offset + wait)); again != 0 || err != nil {
				t.Fatalf("told to wait %s, then %s again (%v)", wait, again, err)
			}
		}
	})
}

// Of two callers only one gets the last login.
func TestBudgetIsSharedByGoroutines(t *testing.T) {
	b := open(t, BudgetConfig{})
	given := make(chan bool)
	for range 60 {
		go func() {
			wait, err := b.Spend(t0)
			given <- err == nil && wait == 0
		}()
	}
	n := 0
	for range 60 {
		if <-given {
			n++
		}
	}
	if n != 15 {
		t.Errorf("expected 15 logins in all, got %d", n)
	}
}
