package spool

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"muster"
	"muster/internal/upstream"
)

// settled is what the next commit keeps.
type settled struct {
	engines []*engine // that wait for it
	sent    []muster.SieveRef
	refused []muster.SpoolRefusal
}

const (
	// maxAside is how many signals of an engine are set aside in a row at once.
	// Beyond that it may be the upstream that is broken: each further one costs a
	// wait.
	maxAside = 10
	// faults500 is after how many answers 500 in a row the cause is looked for in
	// the signals: most are over sooner.
	faults500 = 8
	// forbiddenWait is the least wait after a 403: unlike a 401 it may be over one
	// day, and a ban is prolonged by every call.
	forbiddenWait = time.Minute
	// afterBan is waited beyond a ban's end.
	afterBan = 5 * time.Second
	// recheckBan is the wait in a ban without a known end.
	recheckBan = time.Hour
	// longestWhy bounds what is kept of an upstream's words.
	longestWhy = 300
)

// settle judges what came of a call.
func (f *Forwarder) settle(r result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls--
	now := f.cfg.Now()
	e := r.e
	e.place = idle
	var ban *upstream.BannedError
	switch {
	case errors.As(r.err, &ban):
		f.silence(now, ban.Ban)
		f.rouse(e)
	case r.login:
		f.noAccount(e, r.err, now)
	case r.err != nil:
		f.doubt(e, now)
		f.trouble(e, now, 0, "the upstream cannot be reached: "+clip(r.err.Error()))
	case taken(r.answer):
		f.took(e, r)
	default:
		f.refuses(e, r, now)
	}
}

// took notes that the upstream has what was sent.
func (f *Forwarder) took(e *engine, r result) {
	f.outage, f.cause, f.banned = 0, "", false
	e.failures, e.aside, e.doubt = 0, 0, false
	if e.limit *= 2; e.limit >= f.cfg.Batch {
		e.limit = 0
	}
	for i := range r.attempt.items {
		it := &r.attempt.items[i]
		f.settled.sent = append(f.settled.sent, muster.SieveRef{Partition: e.id.Partition(), Position: it.position, Index: int(it.index)})
	}
	f.metrics.sent.Add(float64(len(r.attempt.items)))
	f.metrics.refused.WithLabelValues("upstream_kept_back").Add(float64(readAnswer(r.answer).Refused))
	f.pop(e, len(r.attempt.items))
	f.awaitCommit(e)
}

// awaitCommit keeps an engine from going on before its progress is on disk.
func (f *Forwarder) awaitCommit(e *engine) {
	e.place = busy
	f.settled.engines = append(f.settled.engines, e)
}

// refuses judges an answer that is not success.
func (f *Forwarder) refuses(e *engine, r result, now time.Time) {
	asked, _ := upstream.RetryAfter(r.answer.Header, now)
	said := saidIn(r.answer)
	f.metrics.failed.WithLabelValues(statusClass(r.answer.Status)).Inc()
	switch status := r.answer.Status; {
	case status == http.StatusUnauthorized:
		f.badToken(e, r, now)
	case status == http.StatusForbidden:
		e.failures++
		e.why = said
		f.sleep(e, now.Add(max(f.cfg.Backoff.Wait(e.failures, asked), forbiddenWait)))
	case status == http.StatusBadRequest, status == http.StatusRequestEntityTooLarge, status == http.StatusUnprocessableEntity,
		status == http.StatusInternalServerError && e.failures >= faults500:
		f.poison(e, r, now, said)
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
		f.pause(e, now, asked, said)
	case status == http.StatusInternalServerError:
		f.doubt(e, now)
		f.pause(e, now, asked, said)
	default: // its gateway, a captive portal, a wrong address
		f.doubt(e, now)
		f.trouble(e, now, asked, said)
	}
}

// badToken gives a token up and tries the next at once.
func (f *Forwarder) badToken(e *engine, r result, now time.Time) {
	if !r.attempt.own {
		f.cfg.Vault.refused(e.id, r.attempt.token)
		f.rouse(e)
		return
	}
	f.cfg.Account.Refused(r.attempt.Authorization)
	f.pause(e, now, 0, "the upstream refuses the token of the sieve's own account")
}

// noAccount lets an engine wait for the own account, which others may need too.
func (f *Forwarder) noAccount(e *engine, err error, now time.Time) {
	var asked time.Duration
	var limit *muster.Error
	if errors.As(err, &limit) {
		asked = limit.RetryAfter
	}
	f.pause(e, now, asked, "the sieve's own account has no token: "+clip(err.Error()))
}

// pause lets one engine wait.
func (f *Forwarder) pause(e *engine, now time.Time, asked time.Duration, why string) {
	e.failures++
	e.why = why
	f.sleep(e, now.Add(f.cfg.Backoff.Wait(e.failures, asked)))
}

// trouble lets everybody wait: the upstream itself is not well. One call is then
// made at a time, and this engine's not first, in case that it is its signals.
func (f *Forwarder) trouble(e *engine, now time.Time, asked time.Duration, why string) {
	if f.outage++; f.outage == 1 {
		f.cfg.Logger.Warn("the upstream takes no signals; they wait on disk", "cause", why)
	}
	f.cause = why
	f.until = later(f.until, now.Add(f.cfg.Backoff.Wait(f.outage, asked)))
	f.pause(e, now, asked, why)
}

// silence stops every call until a ban is over: each one would prolong it.
func (f *Forwarder) silence(now time.Time, ban upstream.Ban) {
	until := now.Add(recheckBan)
	if !ban.Until.IsZero() {
		until = ban.Until.Add(afterBan)
	}
	if !f.banned {
		f.cfg.Logger.Error("the upstream has banned this address; signals wait on disk", "until", until, "reason", ban.Reason)
	}
	f.banned, f.cause = true, "banned: "+ban.Reason
	f.outage = max(f.outage, 1) // one call tells whether it is over
	f.until = later(f.until, until)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (f *Forwarder) doubt(e *engine, now time.Time) {
	if !e.doubt {
		e.doubt, e.doubtSince = true, now
	}
}

// poison looks for the signal that the upstream will not have: in half of those
// that were sent, until it is one, which is set aside.
func (f *Forwarder) poison(e *engine, r result, now time.Time, said string) {
	n := len(r.attempt.items)
	if n > 1 {
		e.limit = n / 2
		f.rouse(e)
		return
	}
	it := &r.attempt.items[0]
	f.settled.refused = append(f.settled.refused, muster.SpoolRefusal{
		Engine: e.id, Machine: it.machine, UUID: it.uuid, Received: it.received, At: now,
		Status: r.answer.Status, Reason: said, Raw: it.raw,
	})
	f.metrics.refused.WithLabelValues("set_aside").Inc()
	f.cfg.Logger.Warn("the upstream refuses a signal, which is set aside", "engine", e.id.String(), "machine", it.machine, "uuid", it.uuid, "cause", said)
	e.limit, e.failures, e.doubt = 1, 0, false
	e.aside++
	f.pop(e, 1)
	f.awaitCommit(e)
}

// startCommit keeps what is settled, and positions that moved, in one
// transaction; engines go on when it is done.
func (f *Forwarder) startCommit(ctx context.Context, now time.Time) {
	due := !now.Before(f.nextKeep)
	if f.committing || len(f.settled.engines) == 0 && !due {
		return
	}
	if due {
		f.nextKeep = now.Add(keepEvery)
	}
	p, sent, done := f.progress(due)
	if len(p.Positions)+len(p.Cursors) == 0 {
		f.release(done)
		return
	}
	f.committing = true
	f.work.Go(func() {
		for failures := 1; ; failures++ {
			err := f.keep(ctx, p, sent)
			if err == nil {
				break
			}
			f.cfg.Logger.Error("what was forwarded could not be noted, trying again", "signals", len(sent), "error", err)
			timer := time.NewTimer(f.cfg.Backoff.Wait(failures, 0))
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
		}
		f.mu.Lock()
		for part, position := range p.Positions {
			f.kept[part] = position
		}
		f.release(done)
		f.committing = false
		f.mu.Unlock()
		select {
		case f.committed <- struct{}{}:
		case <-ctx.Done():
		}
	})
}

// keep notes what was sent, then how far that is: in between, a crash sends it
// once more.
func (f *Forwarder) keep(ctx context.Context, p muster.SpoolProgress, sent []muster.SieveRef) error {
	if f.cfg.History != nil && len(sent) > 0 {
		if err := f.cfg.History.MarkForwarded(ctx, sent, f.cfg.Now()); err != nil {
			return err
		}
	}
	return f.cfg.Store.CommitSpool(ctx, p)
}

// progress takes what is settled and works out how far the partitions of its
// engines are, or with all every partition.
func (f *Forwarder) progress(all bool) (p muster.SpoolProgress, sent []muster.SieveRef, done []*engine) {
	positions := [muster.Partitions]uint64{}
	for i := range positions {
		positions[i] = max(f.read, f.kept[i])
	}
	for id, e := range f.engines {
		if first, _, ok := e.first(); ok {
			part := id.Partition()
			positions[part] = max(min(positions[part], first-1), f.kept[part])
		}
	}
	p = muster.SpoolProgress{Positions: map[uint8]uint64{}, Refused: f.settled.refused}
	var touched [muster.Partitions]bool
	for _, e := range f.settled.engines {
		part := e.id.Partition()
		touched[part] = true
		if e.done.Position > positions[part] {
			p.Cursors = append(p.Cursors, e.done)
		}
	}
	for i, position := range positions {
		if position > f.kept[i] && (all || touched[i]) {
			p.Positions[uint8(i)] = position
		}
	}
	sent, done = f.settled.sent, f.settled.engines
	f.settled = settled{}
	return p, sent, done
}

// release lets engines go on whose progress is on disk.
func (f *Forwarder) release(engines []*engine) {
	now := f.cfg.Now()
	for _, e := range engines {
		if e.place = idle; e.aside > maxAside {
			e.why = "the upstream refuses one of its signals after another"
			f.sleep(e, now.Add(f.cfg.Backoff.Wait(e.aside-maxAside, 0)))
			continue
		}
		f.rouse(e)
	}
}

// lastCommit bounds the commit at the end.
const lastCommit = 5 * time.Second

// last keeps what was settled when Run ends. A commit on its way is waited for.
func (f *Forwarder) last() {
	f.work.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.committing { // cut off: it may or may not be there, and is done again after the restart
		return
	}
	if p, sent, _ := f.progress(true); len(p.Positions)+len(p.Cursors) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), lastCommit)
		defer cancel()
		if err := f.keep(ctx, p, sent); err != nil {
			f.cfg.Logger.Error("what was forwarded could not be noted; it is sent once more, with the same uuids", "signals", len(sent), "error", err)
		}
	}
}

// saidIn words an upstream's refusal.
func saidIn(r *upstream.Response) string {
	a := readAnswer(r)
	said := clip(strings.TrimSpace(a.Message + " " + a.Errors))
	if said == "" {
		said = "no reason given"
	}
	return fmt.Sprintf("status %d: %s", r.Status, said)
}

// clip makes a stranger's text fit to be logged and shown.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if len(s) > longestWhy {
		s = strings.ToValidUTF8(s[:longestWhy], "") + "…"
	}
	return s
}

func statusClass(status int) string {
	switch status {
	case 400, 401, 403, 413, 422, 429, 500, 502, 503, 504:
		return fmt.Sprint(status)
	}
	return "other"
}
