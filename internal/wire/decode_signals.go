package wire

import "muster"

// DecodeSignals reads the JSON array of a signals request in one pass. It calls
// item for every object whose fields have the right JSON types and bad for
// every other item, both with the item's index; one bad item never costs
// another. s is reused between calls. Unknown fields are ignored, of duplicate
// keys the last wins, invalid UTF-8 is replaced by U+FFFD.
//
// n is the number of items seen. An error means that the whole request must be
// refused and that what was handed to item must be discarded: muster.Invalid
// for malformed JSON, a top level that is no array or nesting over MaxDepth;
// muster.TooLarge for more than maxItems items.
func DecodeSignals(body []byte, maxItems int, item func(i int, s *Signal), bad func(i int, p Problem)) (n int, err error) {
	return 0, muster.Errorf(muster.Invalid, "not yet")
}
