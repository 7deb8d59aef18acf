package crowd

// EventKind says what happened to a machine.
type EventKind uint8

// The kinds, as Judge brings them about.
const (
	Validated   EventKind = iota + 1 // others saw what it reported; Amount up to 1
	Held                             // it reported a canary: no weight until that is judged
	Struck                           // the canary was its own fault
	Pardoned                         // a crowd or a honeypot saw the canary too: the behaviour is twitchy, or the canary attacked
	Confirmed                        // a conviction that it supported was seen by somebody new
	Unconfirmed                      // … was not
	Company                          // … was supported by machines that turned out liars
	Disproved                        // an unban of a source that it alone or mainly supported proved right; Amount = its share
	Solo                             // it published alone
	Twitched                         // Behaviour (not Machine) shot a canary, excused
)

// TrustEvent is something that Judge found out about a machine's word.
type TrustEvent struct {
	Kind      EventKind
	Machine   uint32
	Behaviour uint16
	At        int64
	Amount    float32
	Partners  [4]uint32 // Validated: the AS whose voices agreed most, 0 = none; honeypots are not named
}

// Compare orders events so that shards may deliver them in any order: sort a
// batch with it, then apply.
func Compare(a, b TrustEvent) int { panic("skeleton") }

// Record is what is known about one machine. It is plain data: the caller
// stores it. The zero Record is of a machine never heard of.
type Record struct {
	Organisation uint32
	AS           uint32
	Honeypot     bool
	Blocked      bool // no influence: pending, blocked, deleted
	A, B         float64
}

// Heard notes that a machine's eligible report arrived: its tenure grows by one
// on every day that it is heard. It reports whether that was news.
func (r *Record) Heard(organisation, as uint32, at int64) bool { panic("skeleton") }

// Apply notes an event.
func (r *Record) Apply(e TrustEvent, p *Parameters) { panic("skeleton") }

// Trust is what a record is worth at a time.
type Trust struct {
	Rank    uint8   // 0 (struck, held or distrusted), 1 (newcomer) to 5 (may publish alone)
	Weight  float32 // points, before the help that newcomers get in a small network
	Bound   float32 // lower bound of the probability that its word is right
	Clouded bool    // cannot convict without others
	Solo    bool    // may publish alone
}

// Rate returns what a machine's word is worth at a time.
func Rate(r *Record, now int64, p *Parameters) Trust { panic("skeleton") }

// BehaviourRecord is what is known about one behaviour beside its prior.
type BehaviourRecord struct {
	Behaviour uint16
	Shots     float64 // canaries that it shot, excused, decaying
	At        int64   // to which Shots have decayed
}

// Apply notes a Twitched event.
func (r *BehaviourRecord) Apply(e TrustEvent, p *Parameters) { panic("skeleton") }

// Population counts who is active: thresholds scale with it.
type Population struct {
	Machines, Organisations, AS int
	Trusted                     int // organisations whose word has earned weight
}

// TrustTable is an immutable snapshot of everybody's trust, and the only thing
// that shards share. It may be minutes old.
type TrustTable struct {
	Epoch      uint64
	At         int64
	Parameters Parameters
	Population Population
}

// Snapshot is what a TrustTable is made from.
type Snapshot struct {
	Epoch      uint64
	At         int64    // as of when machines are rated
	Records    []Record // by machine number
	Behaviours []BehaviourRecord
	Taxonomy   Taxonomy
	Parameters Parameters
}

// NewTrustTable rates every machine.
func NewTrustTable(s Snapshot) *TrustTable { panic("skeleton") }

// Of returns a machine's trust.
func (t *TrustTable) Of(machine uint32) Trust { panic("skeleton") }
