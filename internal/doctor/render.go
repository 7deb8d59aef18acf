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
			if s.Name != serverSection { // elsewhere it is the same machine all along
				f.Machine = ""
			}
			style.finding(&b, f)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// ToDo says how much there is to do, "" for nothing.
func (r Report) ToDo() string {
	switch critical, warnings := r.count(); {
	case critical+warnings == 0:
		return ""
	case critical == 0:
		return fmt.Sprintf("warnings: %d", warnings)
	default:
		return fmt.Sprintf("critical: %d, warnings: %d", critical, warnings)
	}
}

// count counts the findings that call for something to be done.
func (r Report) count() (critical, warnings int) {
	for _, s := range r.Sections {
		for _, f := range s.Findings {
			switch f.Severity {
			case muster.Critical:
				critical++
			case muster.Warning:
				warnings++
			case muster.Info:
			}
		}
	}
	return critical, warnings
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
