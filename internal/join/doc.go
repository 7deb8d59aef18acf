// Package join connects the engine on this machine to a Central API: it
// registers a machine, enrols it, and writes the engine's
// online_api_credentials.yaml; and it puts the file before that back.
//
// The engine's own `cscli capi register` cannot do it: it is hard-coded to
// CrowdSec's host in every version.
package join
