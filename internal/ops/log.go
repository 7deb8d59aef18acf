package ops

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/lmittmann/tint"
	"github.com/mattn/go-isatty"
)

// Keys of log attributes. Every attribute in Muster's logs has one of these, so
// that a search written once finds every line. Secrets (passwords, tokens,
// enrolment keys) have no key: they are never logged.
const (
	KeyError        = "error"
	KeyMachine      = "machine"
	KeyOrganisation = "organisation"
	KeyUser         = "user"
	KeySource       = "source" // an address or range
	KeyPartition    = "partition"
	KeyOrder        = "order"
	KeyName         = "name" // of a service, job or check
	KeyAddress      = "address"
	KeyPath         = "path"
	KeyURL          = "url" // without credentials
	KeyState        = "state"
	KeyReason       = "reason"
	KeyCount        = "count"
	KeyBytes        = "bytes"
	KeyDuration     = "duration"
	KeyInterval     = "interval"
	KeyVersion      = "version"
	KeyStack        = "stack"
	KeyTrace        = "trace" // OpenTelemetry trace id

	KeyRoute    = "route"
	KeyStatus   = "status"
	KeyPeer     = "peer" // network address of a client
	KeyAgent    = "agent"
	KeyBytesIn  = "bytes_in"
	KeyBytesOut = "bytes_out"
	KeyAccepted = "accepted"
	KeyRefused  = "refused"
	KeyOmitted  = "omitted" // lines left out before this one
)

// LogFormat says how log lines look.
type LogFormat string

// The formats.
const (
	LogAuto LogFormat = "auto" // text on a terminal, JSON otherwise
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// NewLogger writes lines of at least level to w. An unknown format is treated
// as LogAuto. Text has colours only on a terminal. In JSON a duration is a number
// of seconds.
func NewLogger(w io.Writer, level slog.Leveler, format LogFormat) *slog.Logger {
	terminal := isTerminal(w)
	if format == LogText || format != LogJSON && terminal {
		return slog.New(tint.NewTextHandler(w, &tint.Options{
			Level:      level,
			TimeFormat: "15:04:05.000",
			NoColor:    !terminal || os.Getenv("NO_COLOR") != "",
		}))
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: durationsInSeconds}))
}

// durationsInSeconds writes durations as the metrics have them; slog would write
// nanoseconds.
func durationsInSeconds(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.Float64Value(a.Value.Duration().Seconds())
	}
	return a
}

// ParseLevel reads debug, info, warn or error.
func ParseLevel(s string) (slog.Level, error) {
	switch s {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("expected debug, info, warn or error, got %q", s)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
