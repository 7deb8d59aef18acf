package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// Every command has an example in its help, and the example is a command line
// that the parser takes for that very command.
func TestEveryCommandHasAnExample(t *testing.T) {
	for _, leaf := range newParser(&cli{}).Model.Leaves(true) {
		path := leaf.FullPath()
		lines := strings.Split(leaf.Detail, "\n")
		i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "  ") && strings.Contains(l, "muster ") })
		if i < 0 {
			t.Errorf("%s: no example in its help:\n%s", path, leaf.Detail)
			continue
		}
		ctx, err := kong.Trace(newParser(&cli{}), arguments(lines[i]))
		if err == nil {
			err = ctx.Error
		}
		if err != nil {
			t.Errorf("%s: its example is not understood: %s: %v", path, lines[i], err)
			continue
		}
		if ran := ctx.Selected(); ran == nil || ran.FullPath() != path {
			t.Errorf("%s: its example is for another command: %s", path, lines[i])
		}
	}
}

// arguments splits a command line as a shell does, as far as the examples need
// it, and drops what stands before the program's arguments.
func arguments(line string) []string {
	_, line, _ = strings.Cut(line, "muster ")
	line, _, _ = strings.Cut(line, " < ")
	line, _, _ = strings.Cut(line, " > ")
	var out []string
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			out = append(out, part)
			continue
		}
		out = append(out, strings.Fields(part)...)
	}
	return out
}
