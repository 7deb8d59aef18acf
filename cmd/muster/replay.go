package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"

	"muster"
	"muster/internal/policy"
	"muster/internal/replay"
)

// replayCmd runs recorded attacks through the code that judges them and through
// that which tailors lists.
type replayCmd struct {
	File string `arg:"" help:"Recording; - for standard input. May be gzipped."`

	Measure string        `help:"What to run: the judge, the lists that are tailored to readers, or all." enum:"all,judge,lists" default:"all"`
	Fit     int           `help:"Days at the start to fit on; the rest is measured (default: half)." placeholder:"DAYS"`
	Delay   time.Duration `help:"Time from a report, or a verdict, to the lists." default:"1m"`
	Bad     int           `help:"Lines that may be bad; one more is an error." default:"100" placeholder:"N"`
	JSON    bool          `name:"json" help:"Print one JSON object."`

	Set        []string        `help:"A parameter of the judge that is not the default, as Listing.Threshold=4; may be repeated." sep:"none" placeholder:"PARAMETER=VALUE" group:"The judge"`
	Parameters string          `help:"Parameters of the judge in a YAML file; --set counts over it." placeholder:"FILE" group:"The judge"`
	Canaries   []string        `help:"What is known to be good beside what every Muster knows: text, MISP lists, or NAME=FILE for one of several lists in a file." sep:"none" placeholder:"FILE" group:"The judge"`
	Hub        string          `help:"The hub's .index.json: which scenarios are unmodified, and what they are worth (default: engines are taken at their word)." placeholder:"FILE" group:"The judge"`
	Honeypots  bool            `help:"Take the sensors of a honeypots' log for honeypots, not for machines that must earn their trust." group:"The judge"`
	Explain    []muster.Source `help:"Tell what was thought of these addresses, and when." placeholder:"ADDRESS,…" group:"The judge"`

	List    []int         `help:"Lengths of lists to measure." default:"100,300,1000,3000" placeholder:"N,…" group:"Tailored lists"`
	Default bool          `help:"Keep the default weights instead of fitting them; the baselines are fitted all the same." group:"Tailored lists"`
	Size    int           `help:"Length of the lists of the online replay (default: the largest of --list)." placeholder:"N" group:"Tailored lists"`
	Keep    time.Duration `help:"Time a source stays listed after its last report." default:"72h" group:"Tailored lists"`
	Readers int           `help:"Sensors that are measured as readers, at most; those with most reports." default:"64" group:"Tailored lists"`
}

// Help is shown by muster replay --help.
func (replayCmd) Help() string {
	return `Replays recorded attacks through the real code, twice.

The judge gets every signal at the time at which it was received, as on a server:
trust grows and falls, sources are listed and let off. Measured is what its one
list would have been worth to those who reported. Parameters can be set, so that
they can be fitted on the first half of the days and reported on the second.

The lists that are tailored to readers are made day by day. Measured is for every
sensor as a reader how many of a day's attackers are on the list that was made at
the day's start, next to simpler rankings: reports counted over all sensors,
reports at the reader itself, and reports that fade, weighted by how alike
reporter and reader are. Their weights are fitted on the first half of the days;
results are those of the second, with intervals from a bootstrap over days. Then
it replays event by event. This takes four days at least.

Recordings are one of:

- Signals as engines send them (POST /v2/signals, /v3/signals), one a line. What
  the request would have told may stand beside: machine (else machine_id stands
  for the account), organisation, received (a time), reporter_as, reporter_network
  (an address in it), honeypot (true or false). Where no line names a network,
  organisations stand for them.
- Signals that a Muster has stored, one a line, with the same additions.
- Honeypots' logs as CSV with the columns datetime, host, src (an integer), proto,
  type, spt, dpt. A sensor is a machine of its own organisation in the network
  of its region, which is what follows the last hyphen of its name.

Examples:
  muster replay honeypots.csv.gz
  muster replay signals.jsonl.gz --measure judge --canaries good.txt --explain 198.51.100.7
  muster replay signals.jsonl --measure judge --set Listing.Threshold=4 --set Listing.Expiry=48h --json

A recording of your own network:
  muster admin alert list --all --json > signals.jsonl

A recording of what an engine sent, from a request's body:
  jq -c '.[] + {machine: "web1", organisation: "a", reporter_network: "198.51.100.7"}' body.json >> signals.jsonl`
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
		return err
	}
	if progress != nil {
		fmt.Fprint(os.Stderr, clearLine)
	}
	for _, line := range res.badLines {
		fmt.Fprintf(os.Stderr, "muster: %s: not read: %s\n", c.File, line)
	}
	return c.print(os.Stdout, res)
}

// replayed is what came of a replay.
type replayed struct {
	*replay.Result                // of the lists; nil: not measured
	Judge          *replay.Judged `json:"judge,omitempty"`

	badLines []string
	took     time.Duration // by the judge
}

func (c *replayCmd) measure(ctx context.Context, in io.Reader, progress func(replay.Progress)) (*replayed, error) {
	if progress == nil {
		progress = func(replay.Progress) {}
	}
	judge, err := c.judge(progress)
	if err != nil {
		return nil, err
	}
	options := replay.Options{MaxBad: c.Bad, Progress: func(n int) { progress(replay.Progress{Phase: "reading", Done: n}) }}
	if c.Bad == 0 {
		options.MaxBad = -1
	}
	if c.Hub != "" {
		if options.Hub, err = fromFile(c.Hub, policy.ReadHub); err != nil {
			return nil, err
		}
	}
	rec, err := replay.Read(in, options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.File, err)
	}
	res := &replayed{badLines: rec.BadLines}
	if c.Measure == "lists" || c.Measure != "judge" && (c.Fit != 0 || rec.Days() >= replay.ListDays) {
		res.Result, err = replay.Run(ctx, rec, replay.Config{
			N: c.List, FitDays: c.Fit, Default: c.Default, Size: c.Size, Delay: c.Delay, Keep: c.Keep,
			Readers: c.Readers, Progress: progress,
		})
		if err != nil {
			return nil, fmt.Errorf("%s: the lists: %w", c.File, err)
		}
	}
	if c.Measure != "lists" {
		start := time.Now()
		if res.Judge, err = replay.Judge(ctx, rec, judge); err != nil {
			return nil, fmt.Errorf("%s: the judge: %w", c.File, err)
		}
		res.took = time.Since(start)
	}
	return res, nil
}

// judge reads what the judge is to know.
func (c *replayCmd) judge(progress func(replay.Progress)) (cfg replay.JudgeConfig, err error) {
	cfg = replay.JudgeConfig{Honeypots: c.Honeypots, FitDays: c.Fit, Delay: c.Delay, Explain: c.Explain, Progress: progress}
	if c.Parameters != "" {
		if cfg.Settings, err = fromFile(c.Parameters, replay.ReadSettings); err != nil {
			return cfg, err
		}
	}
	for _, text := range c.Set {
		s, err := replay.ParseSetting(text)
		if err != nil {
			return cfg, fmt.Errorf("--set: %w", err)
		}
		cfg.Settings = append(cfg.Settings, s)
	}
	if _, err := replay.Parameters(cfg.Settings); err != nil {
		return cfg, err
	}
	if c.Hub != "" {
		if cfg.Taxonomy, err = fromFile(c.Hub, policy.ReadTaxonomy); err != nil {
			return cfg, err
		}
	}
	if len(c.Canaries) > 0 {
		all := policy.BuiltInCanaries()
		for _, name := range c.Canaries {
			list, file, named := strings.Cut(name, "=")
			wanted := policy.CanaryImport{Lists: []string{list}}
			if !named {
				file, wanted.Lists, wanted.File = name, nil, name
			}
			lists, err := fromFile(file, func(r io.Reader) ([]policy.CanaryList, error) { return policy.ReadCanaries(r, wanted) })
			if err != nil {
				return cfg, err
			}
			for _, l := range lists {
				all = append(all, l.Canaries...)
			}
		}
		cfg.Canaries = policy.NewCanaries(all)
	}
	return cfg, nil
}

// fromFile reads a file with read.
func fromFile[T any](name string, read func(io.Reader) (T, error)) (x T, err error) {
	f, err := os.Open(name)
	if err != nil {
		return x, err
	}
	defer func() { _ = f.Close() }()
	if x, err = read(f); err != nil {
		return x, fmt.Errorf("%s: %w", name, err)
	}
	return x, nil
}

func (c *replayCmd) print(w io.Writer, res *replayed) error {
	if c.JSON {
		return json.NewEncoder(w).Encode(res)
	}
	out := bufio.NewWriter(w)
	if res.Result != nil {
		if err := res.WriteTable(out); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	if j := res.Judge; j != nil {
		if err := j.WriteTable(out, res.Result); err != nil {
			return err
		}
		fmt.Fprintf(out, "\nJudged in %s, %.0f signals/s.\n", res.took.Round(10*time.Millisecond), float64(j.Signals)/res.took.Seconds())
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
