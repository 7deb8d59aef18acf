//go:build race

package replay

// raced says that the race detector is on, which makes the real data take
// minutes; nothing here runs concurrently.
const raced = true
