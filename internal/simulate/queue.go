package simulate

// kind is what an event is about.
type kind uint8

const (
	attack kind = iota // an attacker at a machine: a report, unless it is blocked or missed
	report             // a machine reports a source, rightly or not
	settle             // a source is judged because something is due
	unban              // an unban of a source is granted
)

// event happens at a second of the hour.
type event struct {
	second    uint32
	source    uint32
	machine   uint32
	behaviour uint16
	kind      kind
	noticed   bool // attack: the machine's sensor sees it; report: it saw something, and does not lie
}

// horizon is how many hours ahead something can be planned; what is due later is
// looked at again then.
const horizon = 24 * 64

// queue holds the events of the hour and of hours to come.
type queue struct {
	now     []event
	ordered []event
	starts  [hourSeconds + 1]uint32
	hour    int32
	later   [horizon][]event
}

func newQueue() *queue { return &queue{hour: -1} }

func (q *queue) add(e event) { q.now = append(q.now, e) }

// plan puts an event at a time. What should happen within this hour and was
// thought of too late happens at the beginning of the next.
func (q *queue) plan(at int64, e event) {
	since := at - begins
	hour := int32(since / hourSeconds)
	e.second = uint32(since % hourSeconds)
	if hour <= q.hour {
		hour, e.second = q.hour+1, 0
	}
	if hour >= q.hour+horizon {
		hour = q.hour + horizon - 1
	}
	slot := &q.later[hour%horizon]
	*slot = append(*slot, e)
}

// begin opens an hour with what was planned for it.
func (q *queue) begin(hour int32) {
	q.hour = hour
	slot := &q.later[hour%horizon]
	q.now = append(q.now[:0], *slot...)
	*slot = (*slot)[:0]
	if cap(*slot) > 1<<12 {
		*slot = nil // a busy hour need not keep its memory
	}
}

// inOrder returns the events of the hour by second; those of one second in the
// order in which they were added.
func (q *queue) inOrder() []event {
	clear(q.starts[:])
	for i := range q.now {
		q.starts[q.now[i].second+1]++
	}
	for s := range hourSeconds {
		q.starts[s+1] += q.starts[s]
	}
	if cap(q.ordered) < len(q.now) {
		q.ordered = make([]event, len(q.now)+len(q.now)/2)
	}
	q.ordered = q.ordered[:len(q.now)]
	for i := range q.now {
		at := &q.starts[q.now[i].second]
		q.ordered[*at] = q.now[i]
		*at++
	}
	return q.ordered
}
