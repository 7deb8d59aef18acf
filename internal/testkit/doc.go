// Package testkit is what tests need of the outside: the real engines, a hub
// for them, attack logs, Muster as a process, and a guard that sees whatever
// tries to leave the machine. It listens on loopback only.
//
// A test that needs ../shared or test/peers skips with a plain message where
// they are absent; with CI=true or MUSTER_E2E set it fails instead when the
// peers are not built.
package testkit
