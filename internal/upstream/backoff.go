package upstream

import (
	"cmp"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Backoff says how long to wait before a further try: a random time below a
// ceiling that doubles with each failure ("full jitter"), so that clients that
// failed together do not come back together. Its zero value is useful.
type Backoff struct {
	Base time.Duration  // ceiling after the first failure; 0: 1 s
	Cap  time.Duration  // highest ceiling; 0: 1 minute
	Rand func() float64 // in [0, 1); nil: math/rand/v2
}

// Wait returns the time to wait after failures tries have failed (1 is the
// first). retryAfter is what the upstream asked for, 0 for nothing: the wait is
// then never shorter than that, and the jitter comes on top, because everybody
// who failed was told the same second.
func (b Backoff) Wait(failures int, retryAfter time.Duration) time.Duration {
	ceiling := cmp.Or(max(b.Base, 0), time.Second)
	highest := max(cmp.Or(max(b.Cap, 0), time.Minute), ceiling)
	for n := 1; n < failures && ceiling < highest; n++ {
		ceiling = min(2*ceiling, highest)
	}
	random := b.Rand
	if random == nil {
		random = rand.Float64
	}
	return max(retryAfter, 0) + time.Duration(random()*float64(ceiling))
}

// MaxRetryAfter is the longest wait that a Retry-After header is believed.
const MaxRetryAfter = 24 * time.Hour

// RetryAfter reads the header of that name, in seconds or as a date (RFC 9110,
// 10.2.3); false when there is none that can be understood. A date counts from
// the answer's own Date, so that a clock that is wrong here changes nothing.
// What lies in the past is 0, what is too far off MaxRetryAfter.
func RetryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value == "" {
		return 0, false
	}
	if isDigits(value) {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil { // more digits than fit
			return MaxRetryAfter, true
		}
		return clampSeconds(seconds), true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	if sent, err := http.ParseTime(h.Get("Date")); err == nil {
		now = sent
	}
	return min(max(at.Sub(now), 0), MaxRetryAfter), true
}

func isDigits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

func clampSeconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), int64(MaxRetryAfter/time.Second))) * time.Second
}
