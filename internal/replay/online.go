package replay

import (
	"context"
	"sort"
	"time"

	"muster"
	"muster/internal/tailor"
)

// refresh is how often lists are ranked anew in the online replay; what comes
// up in between is entered at once, at the expense of the last.
const refresh = 6 * 60 * 60

// again is within what time a listed source must be seen again, by anybody, for
// its listing to be right, in seconds.
const again = 7 * secondsPerDay

// online replays event by event: readers have lists that follow the reports
// after Config.Delay, and events of sources on the reader's list are blocked.
type online struct {
	cfg     Config
	rec     *Recording
	readers []int32
	from    int // first day that is measured
	weights tailor.Weights

	model *tailor.Model
	lists []list    // by place in readers
	place []int     // of a victim in readers, -1 for others
	last  []int64   // by source: last report that the lists know of; -1: none
	times [][]int64 // by source: of all events

	events, blocked   int
	contacts, stopped int // first events of a source at a reader, and those blocked
	listings, right   int
	sizes             float64 // sum over refreshes and readers
	sizeMax, samples  int
}

// list is one reader's: ranked at the last refresh, less what made room for
// what was entered since.
type list struct {
	ranked []tailor.Ranked
	fresh  []muster.Source
	on     map[muster.Source]bool
}

func (o *online) run(ctx context.Context) error {
	p := o.cfg.Parameters
	p.Weights = o.weights
	o.model = tailor.New(p)
	o.prepare()
	first := make(map[[2]int32]bool)
	known, next := 0, o.rec.start(0)
	for i, e := range o.rec.Events {
		if i%4096 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			o.cfg.progress("online", i, len(o.rec.Events))
		}
		for ; e.At >= next; next += refresh {
			known = o.learn(known, next)
			if next%secondsPerDay == 0 {
				o.model.Age(time.Unix(next, 0))
			}
			if next >= o.rec.start(o.from)-secondsPerDay { // the lists of before blocked nothing that counts
				o.rerank(next)
			}
		}
		known = o.learn(known, e.At)
		pair := [2]int32{e.Victim, e.Source}
		contact := !first[pair]
		first[pair] = true
		if r := o.place[e.Victim]; r >= 0 && o.rec.day(e) >= o.from {
			hit := o.lists[r].on[o.rec.Sources[e.Source]]
			o.events++
			o.blocked += one(hit)
			o.contacts += one(contact)
			o.stopped += one(contact && hit)
		}
	}
	return nil
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (o *online) prepare() {
	o.place = make([]int, len(o.rec.Victims))
	for i := range o.place {
		o.place[i] = -1
	}
	o.lists = make([]list, len(o.readers))
	for i, r := range o.readers {
		o.place[r] = i
		o.lists[i].on = map[muster.Source]bool{}
	}
	o.times = make([][]int64, len(o.rec.Sources))
	for _, e := range o.rec.Events {
		o.times[e.Source] = append(o.times[e.Source], e.At)
	}
	o.last = make([]int64, len(o.rec.Sources))
	for i := range o.last {
		o.last[i] = -1
	}
}

// learn lets the lists know of the events from the i-th on that are old enough
// at the time now; it returns the place of the first that is not.
func (o *online) learn(i int, now int64) int {
	delay := int64(o.cfg.Delay / time.Second)
	for ; i < len(o.rec.Events) && o.rec.Events[i].At+delay <= now; i++ {
		e := o.rec.Events[i]
		o.rec.observe(o.model, e)
		o.last[e.Source] = e.At
		if o.rec.day(e) >= o.from-1 {
			o.enter(e.Source, e.At+delay)
		}
	}
	return i
}

// enter puts a source on the lists that it belongs on now.
func (o *online) enter(source int32, now int64) {
	s := o.rec.Sources[source]
	board := o.model.Board([]tailor.Candidate{{Source: s}}, time.Unix(now, 0))
	for r := range o.lists {
		l := &o.lists[r]
		if l.on[s] {
			continue
		}
		if len(l.on) >= o.cfg.Size {
			score := board.For(o.rec.Victims[o.readers[r]]).First(1, nil)[0].Score
			if len(l.ranked) == 0 || l.ranked[len(l.ranked)-1].Score >= score {
				continue
			}
			delete(l.on, l.ranked[len(l.ranked)-1].Source)
			l.ranked = l.ranked[:len(l.ranked)-1]
		}
		l.on[s] = true
		l.fresh = append(l.fresh, s)
		o.judge(source, now)
	}
}

// judge says whether a listing was right, if it is of the days that are measured
// and the recording does not end too soon.
func (o *online) judge(source int32, now int64) {
	if now < o.rec.start(o.from) || now+again > o.rec.Events[len(o.rec.Events)-1].At {
		return
	}
	o.listings++
	times := o.times[source]
	i := sort.Search(len(times), func(i int) bool { return times[i] > now })
	if i < len(times) && times[i] <= now+again {
		o.right++
	}
}

// rerank makes all lists anew from the sources that were reported of late.
func (o *online) rerank(now int64) {
	var candidates []tailor.Candidate
	ids := map[muster.Source]int32{}
	for i, last := range o.last {
		if last >= 0 && now-last <= int64(o.cfg.Keep/time.Second) {
			candidates = append(candidates, tailor.Candidate{Source: o.rec.Sources[i]})
			ids[o.rec.Sources[i]] = int32(i)
		}
	}
	board := o.model.Board(candidates, time.Unix(now, 0))
	for r := range o.lists {
		l := &o.lists[r]
		listed := make([]muster.Source, 0, len(l.on))
		for _, s := range l.ranked {
			listed = append(listed, s.Source)
		}
		listed = append(listed, l.fresh...)
		was := l.on
		l.ranked = board.For(o.rec.Victims[o.readers[r]]).First(o.cfg.Size, listed)
		l.fresh, l.on = nil, make(map[muster.Source]bool, len(l.ranked))
		for _, s := range l.ranked {
			l.on[s.Source] = true
			if !was[s.Source] {
				o.judge(ids[s.Source], now)
			}
		}
		if now >= o.rec.start(o.from) {
			o.sizes += float64(len(l.on))
			o.sizeMax = max(o.sizeMax, len(l.on))
			o.samples++
		}
	}
}
