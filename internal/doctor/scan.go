package doctor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// eventKind says what an engine did, as far as its log at level info tells.
type eventKind int

const (
	started   eventKind = iota // the process began
	died                       // and ended, with a word about why
	stopped                    // and was told to end
	attempted                  // a login was sent, or may have been: engines do not log the ones that go well
	banned                     // refused with Muster's answer to banned clients
	forbidden                  // refused with a 403 that explains nothing
	refused                    // refused because of the credentials
	served                     // the Central API did what it was asked
)

// isCall reports whether the Central API was called.
func (k eventKind) isCall() bool { return k >= attempted }

// event is one thing that happened, with the line that tells of it.
type event struct {
	kind eventKind
	at   time.Time // zero when the line had none
	text string
}

// history is what a log tells.
type history struct {
	events      []event
	first, last time.Time // of all lines with a time
	lines       int
	version     string // of the engine that was started last
}

func (h *history) span() string {
	if h.lines == 0 {
		return "empty"
	}
	if h.first.IsZero() {
		return fmt.Sprintf("%d lines without times", h.lines)
	}
	return fmt.Sprintf("%d lines from %s to %s", h.lines, at(h.first), at(h.last))
}

// What engines log, taken from 1.7.8 and 1.4.6.
const (
	msgStart      = "Crowdsec v"
	msgStop       = "Crowdsec service shutting down"
	msgLogin      = "Loading CAPI manager"                          // since 1.5: then it logs in
	msgLoginFatal = "unable to run local API: authenticate watcher" // and that failed
	msgAPIError   = "API error: "                                   // what the Central API (or the local one) answered
	msgBanned     = "banned: "                                      // how a Muster's answer begins
	msgWrong      = "password is incorrect"                         // how CrowdSec's and Muster's answers to wrong credentials end
	msgPlain403   = "http code 403"                                 // an answer without a message
	msgForbidden  = "Forbidden"                                     // CrowdSec's answer to a banned client
)

var (
	// A request that was refused with 401 or 403 is sent again after a login, one
	// that was refused with 429, 503 or 504 without, unless it is one.
	msgRetry     = regexp.MustCompile(`^attempt \d+ out of 2$`)
	msgRetryBusy = regexp.MustCompile(`^attempt \d+ out of 5$`)
	// cscli 1.4.6 writes to the engine's log.
	msgStatus = regexp.MustCompile(`^Trying to authenticate with username \S+ on http`)
	msgServed = regexp.MustCompile(`^(capi/community-blocklist : |Sent \d+ usage metrics)`)
	// Calls to the local API are under v1.
	msgCentral = regexp.MustCompile(`^(capi |.*[cC]entral API)|: (Get|Post) "[^"]*/v[23]/`)
)

// scan reads a log in any of the forms that engines and their keepers write.
func scan(text []byte) *history {
	h := &history{}
	starting := false // between the beginning of a start and its outcome
	for line := range bytes.Lines(text) {
		when, level, msg := parseLine(string(line))
		if msg == "" {
			continue
		}
		h.lines++
		if !when.IsZero() {
			if h.first.IsZero() {
				h.first = when
			}
			h.last = when
		}
		add := func(kind eventKind) { h.events = append(h.events, event{kind, when, msg}) }
		if level == "fatal" {
			add(died)
		}
		switch {
		case strings.HasPrefix(msg, msgStart):
			h.version, _, _ = strings.Cut(strings.TrimPrefix(msg, "Crowdsec "), " ")
			add(started)
			starting = false
		case msg == msgLogin:
			add(attempted)
			starting = true
		case msgStatus.MatchString(msg), msgRetry.MatchString(msg), starting && msgRetryBusy.MatchString(msg):
			add(attempted)
		case strings.HasPrefix(msg, msgStop):
			add(stopped)
		case strings.Contains(msg, msgAPIError):
			if kind, ok := judge(msg); ok {
				if strings.Contains(msg, "/v2/") { // engines before 1.5 log in for every call until one goes well
					add(attempted)
				}
				add(kind)
			}
			starting = false
		case msgServed.MatchString(msg):
			add(served)
			starting = false
		case msg == "CAPI manager configured successfully":
			starting = false
		}
	}
	return h
}

// judge tells what a failed call to the Central API came to; false when it is a
// call to the local API, or failed for another reason.
func judge(msg string) (eventKind, bool) {
	before, answer, _ := strings.Cut(msg, msgAPIError)
	if !strings.Contains(before, msgLoginFatal) && !msgCentral.MatchString(before) {
		return 0, false
	}
	switch {
	case strings.HasPrefix(answer, msgBanned):
		return banned, true
	case strings.Contains(answer, msgWrong):
		return refused, true
	case strings.Contains(answer, msgForbidden), strings.HasPrefix(answer, msgPlain403):
		return forbidden, true
	}
	return 0, false
}

var (
	colours = regexp.MustCompile("\x1b\\[[0-9;]*m")
	journal = regexp.MustCompile(`^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:?\d\d) \S+ \S+?: (.*)$`)
	stamped = regexp.MustCompile(`^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z) (.*)$`)    // docker logs --timestamps
	console = regexp.MustCompile(`^(FATAL|ERROR|WARNING|INFO)(?:\[[^\]]*\])? (.*)$`) // logrus with colours
)

// parseLine returns the time, level and message of a line of an engine's log: as
// the engine writes it (text or JSON), as the journal shows it, as Docker keeps
// it. A line that is none of these is its own message.
func parseLine(line string) (when time.Time, level, msg string) {
	line = strings.TrimSpace(colours.ReplaceAllString(line, ""))
	if strings.HasPrefix(line, "{") {
		var j struct{ Log, Level, Msg, Time string }
		if json.Unmarshal([]byte(line), &j) == nil {
			if level, msg = j.Level, j.Msg; j.Log != "" {
				when, level, msg = parseLine(j.Log)
			}
			if when.IsZero() {
				when = parseTime(j.Time)
			}
			return when, level, msg
		}
	}
	for _, prefix := range []*regexp.Regexp{journal, stamped} {
		if m := prefix.FindStringSubmatch(line); m != nil {
			if when, level, msg = parseLine(m[2]); when.IsZero() {
				when = parseTime(m[1])
			}
			return when, level, msg
		}
	}
	if rest, ok := strings.CutPrefix(line, `time="`); ok {
		stamp, rest, _ := strings.Cut(rest, `"`)
		level, msg = logfmt(strings.TrimSpace(rest))
		return parseTime(stamp), level, msg
	}
	if strings.HasPrefix(line, "level=") {
		level, msg = logfmt(line)
		return time.Time{}, level, msg
	}
	if m := console.FindStringSubmatch(line); m != nil {
		return time.Time{}, strings.ToLower(m[1]), m[2]
	}
	return time.Time{}, "", line
}

// logfmt reads level=… msg=… as logrus writes them.
func logfmt(rest string) (level, msg string) {
	head, value, _ := strings.Cut(rest, "msg=")
	level = strings.TrimSpace(strings.TrimPrefix(head, "level="))
	if quoted, err := strconv.QuotedPrefix(value); err == nil {
		if text, err := strconv.Unquote(quoted); err == nil {
			return level, text
		}
	}
	msg, _, _ = strings.Cut(value, " ")
	return level, msg
}

// parseTime reads the time forms of engines; 1.4.6 writes local time.
func parseTime(s string) time.Time {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05-0700"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC()
		}
	}
	if t, err := time.ParseInLocation("02-01-2006 15:04:05", s, time.Local); err == nil {
		return t.UTC()
	}
	return time.Time{}
}
