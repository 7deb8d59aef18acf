package muster

import (
	"errors"
	"fmt"
	"time"
)

// Code classifies an Error so that transports can map it to a status and
// callers can branch with errors.Is(err, muster.NotFound).
type Code string

// The codes. A transport that meets an error without a Code answers 500 and
// keeps the text to its log.
const (
	Invalid      Code = "invalid"       // the caller sent something unusable
	Unauthorized Code = "unauthorized"  // no, wrong, expired or revoked credentials
	Forbidden    Code = "forbidden"     // known caller, not allowed
	NotFound     Code = "not_found"     // no such thing
	Exists       Code = "exists"        // it is there already and differs
	Gone         Code = "gone"          // it was there and has ended (an expired key)
	TooLarge     Code = "too_large"     // over a size or count limit
	RateLimited  Code = "rate_limited"  // over a rate limit; see RetryAfter
	Unavailable  Code = "unavailable"   // a dependency is away or a queue is full; see RetryAfter
	Payment      Code = "plan_required" // the organisation's plan does not include it
)

// Error implements error, so that a Code can be the target of errors.Is.
func (c Code) Error() string { return string(c) }

// Error is an error whose Message is written for the person or program that
// caused it: what was expected, what came, what to do. Wrapped causes are for
// the log only.
type Error struct {
	Code       Code
	Message    string
	RetryAfter time.Duration // zero when retrying at once is fine or pointless
	Cause      error
}

// Errorf makes an Error; a %w verb in format becomes its Cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Cause: errors.Unwrap(err)}
}

func (e *Error) Error() string { return e.Message }

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Cause }

// Is reports whether target is this error's Code.
func (e *Error) Is(target error) bool {
	code, ok := target.(Code)
	return ok && code == e.Code
}

// CodeOf returns the Code of the first Error in err's chain, or "" when there
// is none, which means: an internal fault whose text must not reach the caller.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	var c Code
	if errors.As(err, &c) {
		return c
	}
	return ""
}
