package ops

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLoggerFormats(t *testing.T) {
	for _, tc := range []struct {
		format LogFormat
		json   bool
	}{{LogAuto, true}, {LogJSON, true}, {LogText, false}} { // a buffer is no terminal
		var out bytes.Buffer
		log := NewLogger(&out, slog.LevelInfo, tc.format)
		log.Debug("hidden")
		log.Info("shown", KeyMachine, "m1", KeyDuration, 1500*time.Millisecond)
		if got := json.Valid(out.Bytes()); got != tc.json {
			t.Errorf("%s: JSON = %v, want %v: %s", tc.format, got, tc.json, out.String())
		}
		if s := out.String(); strings.Contains(s, "hidden") || !strings.Contains(s, "shown") || !strings.Contains(s, "m1") {
			t.Errorf("%s: wrote %q", tc.format, s)
		}
		if want := map[bool]string{true: `"duration":1.5`, false: "duration=1.5s"}[tc.json]; !strings.Contains(out.String(), want) {
			t.Errorf("%s: lacks %s: %s", tc.format, want, out.String())
		}
		if strings.Contains(out.String(), "\x1b[") {
			t.Errorf("%s: colours though it is no terminal: %q", tc.format, out.String())
		}
	}
}

func TestParseLevel(t *testing.T) {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if got, err := ParseLevel(strings.ToLower(l.String())); err != nil || got != l {
			t.Errorf("ParseLevel(%s) = %v, %v", l, got, err)
		}
	}
	if _, err := ParseLevel("loud"); err == nil || !strings.Contains(err.Error(), "loud") {
		t.Errorf("ParseLevel(loud): %v", err)
	}
}
