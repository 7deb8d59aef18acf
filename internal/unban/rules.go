package unban

import (
	"fmt"
	"time"

	"muster"
)

const day = 24 * time.Hour

// Rules say what comes of a request. They are pure: time and history are given.
// Zero values choose the defaults named.
type Rules struct {
	// Waits is how long after the last round a line must wait for its second, third,
	// … ; beyond the last it doubles each time, up to Memory. nil = 3, 10 and 30
	// days. The first round has nothing to wait for.
	Waits  []time.Duration
	Memory time.Duration // after which a round is forgotten; 0 = 365 days
	Grace  time.Duration // in which it takes twice as much to list again: the judge's; 0 = 7 days

	PerNetwork int // granted within a day for one /24 or /48; 0 = 5
	PerAsker   int // made within a week from one /24 or /64; 0 = 10
	MaxWaiting int // in the operators' queue; 0 = 1,000

	// More granted within a day than this share of the list is an alarm: from then
	// on operators decide. 0 = 0.01; and never before AlarmFrom, 0 = 20.
	AlarmShare float64
	AlarmFrom  int
}

func (r Rules) withDefaults() Rules {
	if r.Waits == nil {
		r.Waits = []time.Duration{3 * day, 10 * day, 30 * day}
	}
	r.Memory = orDefault(r.Memory, 365*day)
	r.Grace = orDefault(r.Grace, 7*day)
	r.PerNetwork = orDefault(r.PerNetwork, 5)
	r.PerAsker = orDefault(r.PerAsker, 10)
	r.MaxWaiting = orDefault(r.MaxWaiting, 1000)
	r.AlarmShare = orDefault(r.AlarmShare, 0.01)
	r.AlarmFrom = orDefault(r.AlarmFrom, 20)
	return r
}

func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

// wait returns how long after its last round a line that had some must wait.
func (r Rules) wait(rounds int) time.Duration {
	if rounds < 1 || len(r.Waits) == 0 {
		return 0
	}
	wait := r.Waits[min(rounds, len(r.Waits))-1]
	for range rounds - len(r.Waits) {
		if wait *= 2; wait >= r.Memory {
			break
		}
	}
	return min(wait, r.Memory)
}

// since says what history the rules need.
func (r Rules) since(now time.Time) muster.UnbanSince {
	return muster.UnbanSince{Rounds: now.Add(-r.Memory), Network: now.Add(-day), Asker: now.Add(-7 * day), All: now.Add(-day)}
}

// grants returns how many may be granted within a day before it is an alarm.
func (r Rules) grants(listed int) int {
	return max(r.AlarmFrom, int(r.AlarmShare*float64(listed)))
}

// situation is what a request meets.
type situation struct {
	now     time.Time
	request muster.UnbanRequest // Source, Address and Proof
	since   time.Time           // of the listing
	basis   string              // of the listing
	past    muster.UnbanHistory
	listed  int // sources on the community list
}

// outcome is what comes of a request: one of grant, queue, same and refuse.
type outcome struct {
	grant  bool
	queue  string               // why operators must decide
	alarm  bool                 // they must because so many were granted
	same   *muster.UnbanRequest // there is one that will do
	refuse *refusal
}

// refusal is for good until next; nothing of it is kept.
type refusal struct {
	code muster.Code
	why  string
	next time.Time
}

// decide is the state machine. A request with proof that meets one without does
// not wait behind it: else strangers could keep owners waiting.
func (r Rules) decide(s situation) outcome {
	proven := s.request.Proof != ""
	if open := s.past.Open; open != nil && (open.Proof != "" || !proven) {
		return outcome{same: open}
	}
	if last := s.past.Last; last != nil {
		next := last.Decided.Add(r.wait(s.past.Rounds))
		granted := last.State == muster.UnbanGranted
		switch {
		case granted && !s.since.After(last.Decided) && s.now.Before(next):
			return outcome{same: last} // the judge is about to take it off
		case proven && s.now.Before(next) && granted:
			return refused(muster.RateLimited, next, "it was taken off the list on %s and reported again since: find what attacks from there, and ask again from %s on",
				date(last.Decided), stamp(next))
		case proven && s.now.Before(next):
			return refused(muster.RateLimited, next, "it was asked for on %s and refused (%s): ask again from %s on", date(last.Requested), last.Reason, stamp(next))
		}
	}
	if s.past.Asker >= r.PerAsker {
		return refused(muster.RateLimited, s.now.Add(day), "there were %d requests from %s within a week, more are not taken", s.past.Asker, s.request.Asker())
	}
	if proven && s.past.Network >= r.PerNetwork {
		return refused(muster.RateLimited, s.now.Add(day), "%d addresses of %s were taken off the list within a day: if all of it was put in order, write to the operators",
			s.past.Network, s.request.Network())
	}
	var (
		queue string
		alarm bool
	)
	switch {
	case !proven:
		queue = "nothing proves that the address is the requester's"
	case s.basis == muster.BasisOperator:
		queue = "an operator listed it by hand"
	case !s.request.Own():
		queue = fmt.Sprintf("%s is not listed by itself, but with the range %s", s.request.Address, s.request.Source)
	case s.past.Last != nil && s.past.Last.State == muster.UnbanRefused:
		queue = fmt.Sprintf("it was refused before (%s)", s.past.Last.Reason)
	case s.past.All >= r.grants(s.listed):
		alarm = true
		queue = fmt.Sprintf("%d requests were granted within a day, which is unusual", s.past.All)
	default:
		return outcome{grant: true}
	}
	if s.past.Waiting >= r.MaxWaiting {
		return refused(muster.Unavailable, s.now.Add(day), "operators must decide (%s), and too many requests wait for them", queue)
	}
	return outcome{queue: queue, alarm: alarm}
}

func refused(code muster.Code, next time.Time, format string, args ...any) outcome {
	return outcome{refuse: &refusal{code, fmt.Sprintf(format, args...), next}}
}

// grant makes r granted; rounds is how many the line had before.
func (r Rules) grant(q muster.UnbanRequest, now time.Time, rounds int) muster.UnbanRequest {
	q.State, q.Decided, q.Round, q.GraceUntil = muster.UnbanGranted, now, rounds+1, now.Add(r.Grace)
	return q
}

func date(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// stamp is never too early: who comes back then may ask.
func stamp(t time.Time) string {
	return t.UTC().Add(time.Minute - 1).Format("2006-01-02 15:04 MST")
}
