// Command bouncer is a remediation component made of CrowdSec's Go library, as
// those of the field are. It prints one line of JSON for each decision that it
// is told, and ends when its standard input does.
//
//	bouncer stream URL KEY   {"new":true,"value":…}, and a line {"pull":n} for each pull
//	bouncer live URL KEY IP  {"value":…}, or nothing
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/crowdsecurity/crowdsec/pkg/models"
	csbouncer "github.com/crowdsecurity/go-cs-bouncer"
	"github.com/sirupsen/logrus"
)

// agent is what it calls itself.
const agent = "muster-test-bouncer/v1.0.0"

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: bouncer stream|live URL KEY [IP]")
		os.Exit(2)
	}
	logrus.SetOutput(os.Stderr)
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	switch os.Args[1] {
	case "live":
		err = live(ctx, os.Args[2], os.Args[3], os.Args[4])
	default:
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
		err = stream(ctx, os.Args[2], os.Args[3])
		if ctx.Err() != nil {
			err = nil
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func live(ctx context.Context, url, key, ip string) error {
	b := &csbouncer.LiveBouncer{APIUrl: url, APIKey: key, UserAgent: agent}
	if err := b.Init(); err != nil {
		return err
	}
	list, err := b.Get(ctx, ip)
	if err != nil {
		return err
	}
	for _, d := range *list {
		tell(d, true)
	}
	return nil
}

func stream(ctx context.Context, url, key string) error {
	b := &csbouncer.StreamBouncer{APIUrl: url, APIKey: key, UserAgent: agent, TickerInterval: "1s", Scopes: []string{"ip", "range"}}
	if err := b.Init(); err != nil {
		return err
	}
	metrics, err := csbouncer.NewMetricsProvider(b.APIClient, "muster-test-bouncer", count, logrus.StandardLogger())
	if err != nil {
		return err
	}
	metrics.Interval = 2 * time.Second
	go func() { _ = metrics.Run(ctx) }()
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	for pull := 1; ; pull++ {
		select {
		case decisions, ok := <-b.Stream:
			if !ok {
				return <-ended
			}
			// As real ones do: what is gone first.
			for _, d := range decisions.Deleted {
				tell(d, false)
			}
			for _, d := range decisions.New {
				tell(d, true)
			}
			fmt.Printf("{\"pull\":%d}\n", pull)
		case err := <-ended:
			return err
		}
	}
}

// tell looks at all that bouncers look at, without asking whether it is there.
func tell(d *models.Decision, added bool) {
	line, err := json.Marshal(map[string]any{
		"new": added, "value": *d.Value, "scope": *d.Scope, "type": *d.Type, "origin": *d.Origin, "scenario": *d.Scenario, "duration": *d.Duration,
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

// count reports what it has done.
func count(m *models.RemediationComponentsMetrics, _ time.Duration) {
	name, unit, value := "dropped", "packet", 12.0
	m.Metrics = append(m.Metrics, &models.DetailedMetrics{Items: []*models.MetricsDetailItem{
		{Name: &name, Unit: &unit, Value: &value, Labels: models.MetricsLabels{"origin": "CAPI", "ip_type": "ipv4"}},
	}})
}
