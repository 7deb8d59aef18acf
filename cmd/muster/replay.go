package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"

	"muster/internal/replay"
)

// replayCmd measures lists on recorded attacks.
type replayCmd struct {
	File string `arg:"" help:"Recording; - for standard input. May be gzipped."`

	List    []int         `help:"Lengths of lists to measure." default:"100,300,1000,3000" placeholder:"N,…"`
	Fit     int           `help:"Days at the start to fit on; the rest is measured (default: half)." placeholder:"DAYS"`
	Default bool          `help:"Keep the default weights instead of fitting them; the baselines are fitted all the same."`
	Size    int           `help:"Length of the lists of the online replay (default: the largest of --list)." placeholder:"N"`
	Delay   time.Duration `help:"Time from a report to the lists." default:"1m"`
	Keep    time.Duration `help:"Time a source stays listed after its last report." default:"72h"`
	Readers int           `help:"Sensors that are measured as readers, at most; those with most reports." default:"64"`
	JSON    bool          `name:"json" help:"Print one JSON object."`
}

// Help is shown by muster replay --help.
func (replayCmd) Help() string {
	return `Replays recorded attacks day by day through the ranking that tailors lists, and
measures for every sensor as a reader how many of a day's attackers are on the
list that was made at the day's start, next to simpler rankings: reports counted
over all sensors, reports at the reader itself, and reports that fade, weighted by
how alike reporter and reader are. What can be fitted is fitted on the first
half of the days; results are those of the second, with intervals from a
bootstrap over days. Then it replays event by event and counts what lists that
follow the reports would have blocked.

Recordings are the signals of a Muster as JSON lines, or honeypot logs as CSV
with the columns datetime, host, src (an integer), proto, type, spt, dpt.

Examples:
  muster replay honeypots.csv.gz
  muster replay signals.jsonl --list 3000,15000 --json

A recording of your own network:
  muster admin alert list --all --json > signals.jsonl`
}

func (c *replayCmd) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	in := os.Stdin
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	var progress func(replay.Progress)
	if isatty.IsTerminal(os.Stderr.Fd()) {
		progress = showReplay
		defer fmt.Fprint(os.Stderr, clearLine)
	}
	res, err := c.measure(ctx, in, progress)
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	if progress != nil {
		fmt.Fprint(os.Stderr, clearLine)
	}
	return c.print(os.Stdout, res)
}

func (c *replayCmd) measure(ctx context.Context, in io.Reader, progress func(replay.Progress)) (*replay.Result, error) {
	var lines func(int)
	if progress != nil {
		lines = func(n int) { progress(replay.Progress{Phase: "reading", Done: n}) }
	}
	rec, err := replay.Read(in, lines)
	if err != nil {
		return nil, err
	}
	return replay.Run(ctx, rec, replay.Config{
		N: c.List, FitDays: c.Fit, Default: c.Default, Size: c.Size, Delay: c.Delay, Keep: c.Keep,
		Readers: c.Readers, Progress: progress,
	})
}

func (c *replayCmd) print(w io.Writer, res *replay.Result) error {
	if c.JSON {
		return json.NewEncoder(w).Encode(res)
	}
	out := bufio.NewWriter(w)
	if err := res.WriteTable(out); err != nil {
		return err
	}
	return out.Flush()
}

func showReplay(p replay.Progress) {
	if p.Total == 0 {
		fmt.Fprintf(os.Stderr, clearLine+"%s: %d events", p.Phase, p.Done)
		return
	}
	fmt.Fprintf(os.Stderr, clearLine+"%s: %d of %d", p.Phase, p.Done, p.Total)
}
