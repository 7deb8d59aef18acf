package ops

import (
	"context"
	"time"
)

// Record says what happened to one HTTP request. The middleware of NewHTTP
// makes it; authentication, handlers and services fill in what they learn, all
// on the goroutine that serves the request; at the end it becomes one log line
// and the request metrics.
type Record struct {
	// Route labels the request in metrics: it must come from a fixed set, never
	// from what a client sent. When empty, the pattern that ServeMux matched is
	// used. Handlers behind http.StripPrefix, which hides the pattern, set it.
	Route        string
	Machine      string
	Organisation string
	User         string
	Accepted     int // items taken, in requests that carry many
	Refused      int // items refused
	// Err is why the request failed, for the log only.
	Err error
	// Quiet keeps a refusal out of the log above debug level. The answer to a
	// banned client is quiet: metrics count it, and a flood of it costs nothing.
	Quiet bool

	// Set by the middleware.
	Status   int
	BytesIn  int64 // of body read, before decompression
	BytesOut int64 // of body written
	Duration time.Duration
}

type recordKey struct{}

// RecordOf returns the record of the request that ctx belongs to. Outside of a
// request it returns a record that nobody reads, never nil.
func RecordOf(ctx context.Context) *Record {
	if r, ok := ctx.Value(recordKey{}).(*Record); ok {
		return r
	}
	return &Record{}
}

// requestContext carries a Record in the same allocation as the rest of the
// request's bookkeeping, which context.WithValue would not.
type requestContext struct {
	context.Context
	record *Record
}

func (c *requestContext) Value(key any) any {
	if key == (recordKey{}) {
		return c.record
	}
	return c.Context.Value(key)
}
