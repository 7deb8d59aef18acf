package muster

import "time"

// SpoolCursor says how far one engine's signals have been settled (taken by the
// upstream, or set aside) beyond its partition's position.
type SpoolCursor struct {
	Engine   SieveEngine
	Position uint64 // of the entry in the sieve's log
	Index    uint32 // in that entry, of the last signal that is settled; signals of all its batches are counted from 0
}

// SpoolState is what the forwarder goes on from after a restart.
type SpoolState struct {
	Positions [Partitions]uint64 // all that is to be forwarded up to it is settled
	Cursors   []SpoolCursor
}

// SpoolRefusal is a signal that the upstream will not have, set aside so that
// those behind it can go on.
type SpoolRefusal struct {
	Engine   SieveEngine
	Machine  string
	UUID     string
	Received time.Time
	At       time.Time
	Status   int    // of the upstream's answer
	Reason   string // the upstream's words, one line
	Raw      []byte // the signal
}

// SpoolProgress is what one commit of the forwarder keeps.
type SpoolProgress struct {
	Positions map[uint8]uint64 // by partition, those that moved; cursors at or below them are of no use any more
	Cursors   []SpoolCursor
	Refused   []SpoolRefusal
}

// SpoolToken is an Authorization header of an engine, encrypted.
type SpoolToken struct {
	Engine SieveEngine
	Token  SieveToken
	Seen   time.Time // first
	Sealed []byte
}
