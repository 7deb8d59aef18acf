package edge

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster"
	"muster/internal/enroll"
	"muster/internal/misuse"
	"muster/internal/ops"
	"muster/internal/publish"
	"muster/internal/wire"
)

// stream answers GET /decisions/stream from prepared pieces. The list is whole
// every time: engines replace what they hold of the same value (protocol.md
// 3.1). At a start they get in addition everything that was ever taken back.
func (e *Edge) stream(w http.ResponseWriter, r *http.Request, version publish.Version) error {
	want, what := publish.Want{Version: version, Community: true, Lists: true}, misuse.Pull
	if r.URL.RawQuery != "" {
		q := r.URL.Query()
		want.Community = !strings.EqualFold(q.Get("community_pull"), "false")
		want.Lists = !strings.EqualFold(q.Get("additional_pull"), "false")
		if strings.EqualFold(q.Get("startup"), "true") {
			what = misuse.StartupPull
		}
	}
	id, err := e.authenticate(r, what)
	if err != nil {
		return err
	}
	known := e.cfg.Machines.Profile(id.Machine)
	answer := e.cfg.Publisher.Pull(&publish.Reader{
		Machine: id.Machine, Organisation: id.Organisation, Plan: id.Plan, Tags: known.Tags,
		Scenarios: known.Scenarios, Footprint: known.Footprint, LastPull: known.LastPull, Startup: what == misuse.StartupPull,
		Engine: engineVersion(r) != "",
	}, want)

	h := w.Header()
	h.Set("ETag", answer.ETag)
	h.Set("Vary", "Accept-Encoding")
	h.Set("Cache-Control", "private, no-cache")
	if match := r.Header.Get("If-None-Match"); match != "" && matches(match, answer.ETag) {
		e.cfg.Machines.Touch(id.Machine, enroll.ContactPull, engineVersion(r))
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	gzip := acceptsGzip(r.Header.Get("Accept-Encoding"))
	if gzip {
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(answer.Length(gzip)))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil // who only looks has not been told of what was taken back
	}
	if answer.Write(w, gzip) == nil { // a client that hangs up is no error of ours
		e.cfg.Machines.Touch(id.Machine, enroll.ContactPull, engineVersion(r))
	}
	return nil
}

// matches reads an If-None-Match list.
func matches(header, etag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		if part = strings.TrimPrefix(strings.TrimSpace(part), "W/"); part == etag || part == "*" {
			return true
		}
	}
	return false
}

// acceptsGzip reads an Accept-Encoding header; one that is absent wants
// identity (PHP's file_get_contents cannot decompress).
func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(part, ";")
		if name = strings.TrimSpace(name); strings.EqualFold(name, "gzip") || strings.EqualFold(name, "x-gzip") {
			q, ok := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
			if !ok {
				return true
			}
			v, err := strconv.ParseFloat(q, 64)
			return err == nil && v > 0
		}
	}
	return false
}

// poll answers GET /v1/decisions/stream/poll: it holds the request until there
// is an order or the client's timeout, because engines ask again at once.
func (e *Edge) poll(w http.ResponseWriter, r *http.Request) error {
	id, err := e.ordered(r)
	if err != nil {
		return err
	}
	q, err := wire.ParsePoll(r.URL.Query())
	if err != nil {
		return err
	}
	timeout := min(q.Timeout, e.cfg.Limits.Poll)
	ops.Extend(w, e.cfg.Now(), timeout+15*time.Second)
	e.cfg.Machines.Touch(id.Machine, enroll.ContactPoll, engineVersion(r))

	found, err := e.cfg.Orders.Wait(r.Context(), id.Machine, q.Since, timeout, ops.Draining(r.Context()))
	if err != nil {
		return err
	}
	events := make([]wire.Event, 0, len(found))
	for _, o := range found {
		ev, err := wire.EncodeEvent(o)
		if err != nil {
			// Sending it would make the engine ask for it for ever.
			ops.RecordOf(r.Context()).Err = err
			continue
		}
		events = append(events, ev)
	}
	if len(events) == 0 && len(found) > 0 {
		// An empty answer would be polled again at once, a thousand times a second;
		// after an error the engine backs off.
		return ops.RecordOf(r.Context()).Err
	}
	if len(events) == 0 {
		e.write(w, http.StatusOK, wire.AppendPollTimeout(nil, e.cfg.Now()))
		return nil
	}
	if q.NewestFirst {
		slices.Reverse(events)
	}
	e.write(w, http.StatusOK, wire.AppendEvents(nil, events))
	return nil
}

// permissions answers GET /v1/permissions (cscli papi status).
func (e *Edge) permissions(w http.ResponseWriter, r *http.Request) error {
	id, err := e.ordered(r)
	if err != nil {
		return err
	}
	e.write(w, http.StatusOK, wire.AppendPermissions(nil, id.Plan))
	return nil
}

// ordered authenticates a machine that may be sent orders; 402 makes an engine
// stop polling until its plan changes.
func (e *Edge) ordered(r *http.Request) (enroll.Identity, error) {
	id, err := e.authenticate(r, misuse.Poll)
	if err != nil {
		return id, err
	}
	if id.State != muster.Active || !id.Plan.Orders() {
		return id, muster.Errorf(muster.Payment, "Forbidden for plan '%s'", id.Plan)
	}
	return id, nil
}
