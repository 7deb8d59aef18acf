//go:build race

package replay

// raced says that the race detector is on, which makes the real data take
// minutes; what runs concurrently is tested without them.
const raced = true
