package upstream

import (
	"net/http"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBackoffDoublesUpToItsCap(t *testing.T) {
	top := Backoff{Base: time.Second, Cap: 10 * time.Second, Rand: func() float64 { return 0.5 }}
	for failures, want := range map[int]time.Duration{
		0: 500 * time.Millisecond, 1: 500 * time.Millisecond, 2: time.Second, 3: 2 * time.Second,
		4: 4 * time.Second, 5: 5 * time.Second, 6: 5 * time.Second, 1 << 40: 5 * time.Second,
	} {
		if got := top.Wait(failures, 0); got != want {
			t.Errorf("after %d failures: expected %s, got %s", failures, want, got)
		}
	}
	if got := top.Wait(1, time.Minute); got != time.Minute+500*time.Millisecond {
		t.Errorf("asked for a minute: expected that and the jitter, got %s", got)
	}
	if got := (Backoff{Rand: func() float64 { return 0.999 }}).Wait(1, 0); got <= 0 || got >= time.Second {
		t.Errorf("zero value: expected less than a second, got %s", got)
	}
}

func TestBackoffIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Backoff{
			Base: time.Duration(rapid.Int64Range(-1, int64(time.Hour)).Draw(t, "base")),
			Cap:  time.Duration(rapid.Int64Range(-1, int64(24*time.Hour)).Draw(t, "cap")),
		}
		asked := time.Duration(rapid.Int64Range(0, int64(MaxRetryAfter)).Draw(t, "asked"))
		wait := b.Wait(rapid.Int().Draw(t, "failures"), asked)
		if highest := max(b.Base, b.Cap, time.Minute); wait < asked || wait > asked+highest {
			t.Fatalf("asked for %s: expected that and at most %s more, got %s", asked, highest, wait)
		}
	})
}

var t0 = time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)

func TestRetryAfter(t *testing.T) {
	for _, test := range []struct {
		name, value, date string
		want              time.Duration
		ok                bool
	}{
		{"none", "", "", 0, false},
		{"seconds", "120", "", 2 * time.Minute, true},
		{"spaces", " 120 ", "", 2 * time.Minute, true},
		{"zero", "0", "", 0, true},
		{"too far", "999999", "", MaxRetryAfter, true},
		{"more than fits", "99999999999999999999999", "", MaxRetryAfter, true},
		{"negative", "-5", "", 0, false},
		{"fraction", "1.5", "", 0, false},
		{"words", "soon", "", 0, false},
		{"date", "Sat, 21 Nov 2026 03:10:00 GMT", "", 10 * time.Minute, true},
		{"date by the sender's clock", "Sat, 21 Nov 2026 08:10:00 GMT", "Sat, 21 Nov 2026 08:00:00 GMT", 10 * time.Minute, true},
		{"date in the past", "Sat, 21 Nov 2026 02:10:00 GMT", "", 0, true},
		{"date too far", "Sat, 21 Nov 2099 02:10:00 GMT", "", MaxRetryAfter, true},
		{"old form", "Saturday, 21-Nov-26 03:10:00 GMT", "", 10 * time.Minute, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := http.Header{"Retry-After": {test.value}, "Date": {test.date}}
			if got, ok := RetryAfter(h, t0); got != test.want || ok != test.ok {
				t.Errorf("expected %s, %v, got %s, %v", test.want, test.ok, got, ok)
			}
		})
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range [][2]string{{"120", ""}, {"Sat, 21 Nov 2026 03:10:00 GMT", "Sat, 21 Nov 2026 03:00:00 GMT"}, {"-1", "x"}, {"99999999999999999999", ""}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, value, date string) {
		got, ok := RetryAfter(http.Header{"Retry-After": {value}, "Date": {date}}, t0)
		if got < 0 || got > MaxRetryAfter || !ok && got != 0 {
			t.Errorf("expected 0 to %s, got %s, %v", MaxRetryAfter, got, ok)
		}
	})
}
