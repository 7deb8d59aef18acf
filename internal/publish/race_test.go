//go:build race

package publish

// raced says that the race detector is on, which makes a million addresses take
// minutes and more memory; what runs concurrently is tested without them.
const raced = true
