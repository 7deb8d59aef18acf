package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// Degraded is an error that says that something works less well than it should
// while requests can still be served: "stream away: signals go to the local
// spool". Its text is shown to whoever asks /readyz.
type Degraded string

func (d Degraded) Error() string { return string(d) }

// CheckFunc looks at one thing that serving depends on. nil means well; an error
// that is or wraps Degraded means that requests can still be served; any other
// error means that they cannot. It must return soon after ctx ends.
type CheckFunc func(ctx context.Context) error

// Health answers whether the process is alive and whether it can serve.
type Health struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	checks  []*check
	checked time.Time // when the checks last ran
}

type check struct {
	name    string
	run     CheckFunc
	busy    bool // a run that did not return in time still goes on
	state   checkState
	reason  string
	changed time.Time
}

type checkState string

const (
	checkOK       checkState = "ok"
	checkDegraded checkState = "degraded"
	checkFailed   checkState = "failed"
)

const (
	checkTimeout = 2 * time.Second // for all checks together
	checkFresh   = time.Second     // answers are this old at most
)

// NewHealth returns a Health without checks, which is ready. Changes of state
// are logged to log (nil discards). now may be nil.
func NewHealth(log *slog.Logger, now func() time.Time) *Health {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if now == nil {
		now = time.Now
	}
	return &Health{log: log, now: now}
}

// Check adds a check; /readyz shows them in the order of their addition.
func (h *Health) Check(name string, run CheckFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks = append(h.checks, &check{name: name, run: run, state: checkOK, changed: h.now()})
	h.checked = time.Time{}
}

// Report is what /readyz answers.
type Report struct {
	Status string        `json:"status"` // "ready", "degraded" (serves, with something amiss) or "unready"
	Checks []CheckReport `json:"checks"`
}

// CheckReport is one check of a Report.
type CheckReport struct {
	Name   string    `json:"name"`
	Status string    `json:"status"` // "ok", "degraded" or "failed"
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
}

// Report runs the checks side by side, unless they ran within the last second,
// and tells what they found. It takes two seconds at most: a check that does not
// answer in that time has failed.
func (h *Health) Report(ctx context.Context) Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.now(); h.checked.IsZero() || now.Sub(h.checked) >= checkFresh {
		h.runChecks(ctx)
		h.checked = now
	}
	report := Report{Status: "ready", Checks: make([]CheckReport, 0, len(h.checks))}
	for _, c := range h.checks {
		switch {
		case c.state == checkFailed:
			report.Status = "unready"
		case c.state == checkDegraded && report.Status == "ready":
			report.Status = "degraded"
		}
		report.Checks = append(report.Checks, CheckReport{c.name, string(c.state), c.reason, c.changed.UTC()})
	}
	return report
}

// runChecks is called with mu held.
func (h *Health) runChecks(ctx context.Context) {
	// A caller that goes away must not make checks fail for those who share the answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
	defer cancel()
	results := make([]chan error, len(h.checks))
	for i, c := range h.checks {
		if c.busy {
			continue
		}
		c.busy = true
		results[i] = make(chan error, 1)
		go func() {
			results[i] <- c.run(ctx)
		}()
	}
	for i, c := range h.checks {
		if results[i] == nil {
			continue // still busy with an earlier run
		}
		select {
		case err := <-results[i]:
			c.busy = false
			h.set(c, err)
			continue
		case <-ctx.Done():
		}
		go func() { // it is late: let the next report try again once it has returned
			_ = <-results[i]
			h.mu.Lock()
			c.busy = false
			h.mu.Unlock()
		}()
		h.set(c, fmt.Errorf("no answer within %s", checkTimeout))
	}
}

// set notes a check's result and logs when it differs from the last.
func (h *Health) set(c *check, err error) {
	state, reason := checkOK, ""
	var degraded Degraded
	switch {
	case errors.As(err, &degraded):
		state, reason = checkDegraded, string(degraded)
	case err != nil:
		// The text may name hosts and files: it goes to the log, not to the caller.
		state, reason = checkFailed, "see the log of the server"
	}
	if state == c.state && reason == c.reason {
		return
	}
	if state == checkOK {
		h.log.Info("health check is well again", slog.String(KeyName, c.name))
	} else {
		h.log.Warn("health check is not well",
			slog.String(KeyName, c.name), slog.String(KeyState, string(state)), slog.Any(KeyError, err))
	}
	c.state, c.reason, c.changed = state, reason, h.now()
}

// Live answers /healthz: 200 as long as the process can answer at all.
func (h *Health) Live(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "alive"})
}

// Ready answers /readyz with a Report: 503 when a check has failed or the server
// is stopping, otherwise 200, degraded or not.
func (h *Health) Ready(w http.ResponseWriter, r *http.Request) {
	report := h.Report(r.Context())
	select {
	case <-Draining(r.Context()):
		report.Status = "unready"
		report.Checks = append(report.Checks, CheckReport{"shutdown", string(checkFailed), "the server is stopping", h.now().UTC()})
	default:
	}
	status := http.StatusOK
	if report.Status == "unready" {
		status = http.StatusServiceUnavailable
	}
	RecordOf(r.Context()).Quiet = true // load balancers ask every second
	writeJSON(w, status, report)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the client went away
}
