package wire

import (
	"errors"
	"testing"
	"time"

	"muster"
)

func TestParseTime(t *testing.T) {
	utc := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return v.UTC()
	}
	for in, want := range map[string]string{
		"2026-11-20T21:04:24Z":                    "2026-11-20T21:04:24Z",
		"2026-11-20t21:04:24z":                    "2026-11-20T21:04:24Z",
		"2026-11-20T21:51:31.769765354Z":          "2026-11-20T21:51:31.769765354Z",
		"2026-11-20T21:51:31.7697653549Z":         "2026-11-20T21:51:31.769765354Z",
		"2026-11-20T23:04:24+02:00":               "2026-11-20T21:04:24Z",
		"2024-02-19T12:12:21+0000":                "2024-02-19T12:12:21Z",
		"2024-02-19T12:12:21.5-0130":              "2024-02-19T13:42:21.5Z",
		"2024-02-19T12:12:21+02":                  "2024-02-19T10:12:21Z",
		"2026-11-20 21:49:54.942228577 +0000 UTC": "2026-11-20T21:49:54.942228577Z",
		"2026-11-20 22:49:54 +0100 CET":           "2026-11-20T21:49:54Z",
		"2026-11-20 22:49:54 +0100 CET m=+12.5":   "2026-11-20T21:49:54Z",
		"0001-01-01 00:00:00 +0000 UTC":           "0001-01-01T00:00:00Z",
		"2026-11-20T21:46:58.306257":              "2026-11-20T21:46:58.306257Z",
		"2026-11-20 21:46:58":                     "2026-11-20T21:46:58Z",
		" 2026-11-20 ":                            "2026-11-20T00:00:00Z",
		"2024-02-29":                              "2024-02-29T00:00:00Z",
	} {
		if got, err := ParseTime(in); err != nil || !got.Equal(utc(want)) || got.Location() != time.UTC {
			t.Errorf("%q: expected %s, got %s, %v", in, want, got, err)
		}
	}
	for _, in := range []string{
		"", "now", "2026", "2026-13-01", "2026-00-01", "2026-02-30", "2025-02-29", "2026-11-20T", "2026-11-20T24:00:00Z",
		"2026-11-20T21:60:00Z", "2026-11-20T21:00:60Z", "2026-11-20T21:00Z", "2026-11-20T21:00:00.Z", "2026-11-20T21:00:00+1", "2026-11-20T21:00:00+99:00",
		"2026-11-20T21:00:00 CET", "20/11/2026 21:00:00", "2026-11-20X21:00:00Z", "１２34-11-20", "1795208807",
	} {
		if got, err := ParseTime(in); !errors.Is(err, muster.Invalid) || !got.IsZero() {
			t.Errorf("%q: expected an error of code invalid, got %s, %v", in, got, err)
		}
	}
}

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for in, want := range map[string]time.Duration{
		"7d": 7 * day, "1d12h": 36 * time.Hour, "4h": 4 * time.Hour, "10m": 10 * time.Minute, "24h0m0s": day, "90s": 90 * time.Second,
		"1h30m0.5s": 90*time.Minute + 500*time.Millisecond, "-1d1h": -25 * time.Hour, "+2d": 2 * day, " 4h ": 4 * time.Hour, "0d": 0, "0": 0,
		"106751d23h47m16s": 106751*day + 23*time.Hour + 47*time.Minute + 16*time.Second,
	} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("%q: expected %s, got %s, %v", in, want, got, err)
		}
	}
	for _, in := range []string{"", "d", "7", "7days", "1.5d", "4h1d", "1d-1h", "1d+1h", "--1d", "1d2d", "106752d", "106751d24h", "99999999999999999999d", "4 h", "forever"} {
		if got, err := ParseDuration(in); !errors.Is(err, muster.Invalid) || got != 0 {
			t.Errorf("%q: expected an error of code invalid, got %s, %v", in, got, err)
		}
	}
}
