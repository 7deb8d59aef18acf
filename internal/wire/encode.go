package wire

import (
	"time"

	"muster"
)

// OK is the success body of every CAPI call that answers nothing else.
const OK = `{"message":"OK"}`

// AppendLogin appends the answer to a login; expire is written in UTC to the
// second, because engines cannot start on anything but RFC 3339.
func AppendLogin(b []byte, token string, expire time.Time) []byte { return b }

// AppendMessage appends {"message":…}.
func AppendMessage(b []byte, message string) []byte { return b }

// AppendError appends a CAPI error: always an object with message, which
// engine 1.4.6 dereferences unchecked; errors is left out when details is "".
func AppendError(b []byte, message, details string) []byte { return b }

// AppendEnrolLink appends the answer to cscli console enroll --quick: where a
// person accepts the machine, and until when.
func AppendEnrolLink(b []byte, url string, expire time.Time) []byte { return b }

// AppendPermissions appends the answer to GET /v1/permissions of PAPI.
func AppendPermissions(b []byte, plan muster.Plan) []byte { return b }

// AppendPAPIError appends a PAPI error, whose field is error and not message.
func AppendPAPIError(b []byte, text string) []byte { return b }
