package doctor

import (
	"fmt"
	"io"
	"strings"

	"muster"
)

// Style says how a report looks.
type Style struct {
	Marks bool // ticks and colours, for terminals
}

// Write writes the report for people.
func (r Report) Write(out io.Writer, style Style) error {
	var b strings.Builder
	for i, s := range r.Sections {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(strings.ToUpper(s.Name[:1]) + s.Name[1:])
		if s.About != "" {
			b.WriteString(": " + printable(s.About))
		}
		b.WriteByte('\n')
		for _, line := range s.OK {
			b.WriteString("  " + style.tick() + printable(line) + "\n")
		}
		for _, f := range s.Findings {
			style.finding(&b, f)
		}
	}
	b.WriteString("\n" + r.Summary() + "\n")
	_, err := io.WriteString(out, b.String())
	return err
}

// Summary is the last line: how many things there are to do.
func (r Report) Summary() string {
	critical, warnings := r.Worst()
	switch {
	case critical+warnings == 0:
		return "Nothing is wrong."
	case critical == 0:
		return fmt.Sprintf("To do: %d (warnings).", warnings)
	}
	return fmt.Sprintf("To do: %d, %d of it now.", critical+warnings, critical)
}

func (s Style) tick() string {
	if s.Marks {
		return "\x1b[32m✓\x1b[0m "
	}
	return "ok: "
}

func (s Style) finding(b *strings.Builder, f muster.Finding) {
	label := string(f.Severity) + ": "
	if s.Marks {
		colour := map[muster.Severity]string{muster.Critical: "31", muster.Warning: "33"}[f.Severity]
		label = "\x1b[" + colour + "m" + string(f.Severity) + "\x1b[0m: "
	}
	fmt.Fprintf(b, "  %s%s\n", label, printable(f.Summary))
	if f.Machine != "" {
		fmt.Fprintf(b, "      machine %s\n", printable(f.Machine))
	}
	if f.Address.IsValid() {
		fmt.Fprintf(b, "      address %s\n", f.Address)
	}
	for _, line := range f.Evidence {
		fmt.Fprintf(b, "      %s\n", printable(line))
	}
	fmt.Fprintf(b, "      Fix: %s\n", printable(f.Fix))
}

// printable keeps what a log or a server says from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' || r == '\r' {
			return ' '
		}
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return -1
		}
		return r
	}, s)
}
