// Package muster is the vocabulary of Muster: the nouns of a threat-sharing
// network, their validation and their canonical forms. It has no I/O, reads no
// clock and imports the standard library only; every other package speaks in
// these terms.
package muster

// Partitions is the number of partitions that signals are spread over by
// source. It is law: it never changes for the life of the data, because
// evidence, positions and the stream's subjects are all keyed by it.
const Partitions = 64
