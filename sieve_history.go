package muster

import "time"

// How the sieve's history is cut up, for the life of the data: alerts have
// numbers in the order of their storing, sixteen numbers make a block and 65,536 a
// chunk.
const (
	SieveBlockBits = 4
	SieveChunkBits = 16
)

// SieveNameKind says what a SieveName names.
type SieveNameKind uint8

// The kinds.
const (
	SieveScenario SieveNameKind = iota
	SieveCountry
	SieveMachine
	SieveCountryName // a country's code, a space and its name
	sieveNameKinds
)

// SieveNameKinds is how many kinds there are.
const SieveNameKinds = int(sieveNameKinds)

// SieveName is a text that many alerts share, by number.
type SieveName struct {
	ID   uint32
	Kind SieveNameKind
	Name string
}

// SieveCombo is a scenario, country and machine that came together, by number;
// each is the ID of a SieveName.
type SieveCombo struct{ ID, Scenario, Country, Machine uint32 }

// SieveBlock is some alerts behind each other.
type SieveBlock struct {
	Number   int64  // of the alert's number, without the last SieveBlockBits
	Position uint64 // in the sieve's log, which none of its alerts is before; grows with Number
	Data     []byte
}

// SieveLarge is the raw form of an alert that is too large for a block.
type SieveLarge struct {
	ID   int64
	Data []byte
}

// SieveSource says that an alert is about an address, which is a hash here.
type SieveSource struct{ Source, ID int64 }

// SieveChunk is what is searched of the alerts of a full chunk.
type SieveChunk struct {
	Number                        int64
	Columns, Marks, Times, Prints []byte
}

// SieveRollup is what is counted of an hour or a day.
type SieveRollup struct {
	Span  int64 // hours that it is of: 1 or 24
	Start int64 // hours since 1970, UTC
	Data  []byte
}

// SieveMark says which signals of a record the upstream has accepted, and when
// the first of them: a bit for each, the lowest of the first byte being signal 0.
type SieveMark struct {
	Position  uint64
	Partition uint8
	At        time.Time
	Signals   []byte
}

// SieveWrite is what the history changes in one transaction. Blocks, chunks,
// rollups and marks replace what has their key.
type SieveWrite struct {
	Names       []SieveName
	Combos      []SieveCombo
	Blocks      []SieveBlock
	Large       []SieveLarge
	Sources     []SieveSource
	Chunks      []SieveChunk
	ChunkMarks  []SieveChunk // of which only Marks are replaced
	Rollups     []SieveRollup
	DropRollups []SieveRollup // by Span and Start
	Marks       []SieveMark
	From, To    [Partitions]uint64 // positions in the sieve's log, which must be From before
}
