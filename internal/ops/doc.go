// Package ops is what every role needs to be operated: the logger, metrics,
// the record of each HTTP request, health, traces, and the ordered start and
// stop of a process's services. Nothing in it knows what Muster is for.
package ops
