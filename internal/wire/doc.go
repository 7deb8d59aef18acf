// Package wire is the JSON of CrowdSec's Central API (v2 and v3) and of its
// order channel (PAPI), as a server sees it: decoding is tolerant of everything
// that real clients send, encoding emits nothing that makes a real client
// crash, reject a list or loop. It is pure: no I/O, no clock.
//
// Decoders return errors of code muster.Invalid or muster.TooLarge whose text
// is meant for the client and never quotes a value that was sent.
package wire
