package simulate

import "io"

// WriteHTML writes a self-contained report with plots.
func (r *Result) WriteHTML(w io.Writer, command string) error { return nil }
