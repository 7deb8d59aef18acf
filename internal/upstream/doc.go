// Package upstream calls a Central API that is somebody else's, CrowdSec's own
// or another Muster, and does so as a guest should: it waits longer after each
// failure and for as long as it is told, it never spends more logins than the
// upstream allows, and while it is banned it is silent, because a ban is
// prolonged by every retry ("Central API 403", crowdsec-docs).
package upstream
