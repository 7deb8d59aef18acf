package swarm

import (
	"bytes"
	stdgzip "compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sync/errgroup"
)

const (
	publishTimeout = time.Minute
	publishPoll    = 200 * time.Millisecond
	publishBatch   = 50
)

// publish has one watcher report Config.List addresses, unless they are published
// already, which puts them on the fleet list of its organisation, and waits until
// another watcher is given them all.
func (r *run) publish(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, publishTimeout,
		fmt.Errorf("the list of %d addresses was not published within %s", r.cfg.List, publishTimeout))
	defer cancel()
	if err := r.declare(ctx); err != nil {
		return causeOr(ctx, err)
	}
	if r.cfg.Published {
		return r.awaitList(ctx, r.watchers[0])
	}
	sources := NewSources(r.cfg.List, r.cfg.Skew, r.cfg.Seed)
	reporter, reader := r.watchers[0], r.watchers[1%len(r.watchers)]

	var next atomic.Int64
	group, reporting := errgroup.WithContext(ctx)
	for range min(r.cfg.Connections, 8) {
		group.Go(func() error {
			c, feed := NewConn(r.target), NewFeed(sources, [2]uint64{rand.Uint64(), rand.Uint64()})
			defer c.Close()
			for {
				last := int(next.Add(publishBatch))
				first := last - publishBatch
				if first >= sources.Len() {
					return nil
				}
				last = min(last, sources.Len())
				wire, gzipped := feed.Pack(feed.Range(first, last, reporter.engine, time.Now()))
				if _, err := push(reporting, c, reporter, wire, gzipped); err != nil {
					return err
				}
				r.units.Add(int64(last - first))
			}
		})
	}
	if err := group.Wait(); err != nil {
		return causeOr(ctx, err)
	}
	return r.awaitList(ctx, reader)
}

// declare has the watchers log in with their footprints.
func (r *run) declare(ctx context.Context) error {
	if len(r.cfg.Footprints) == 0 {
		return nil
	}
	c := NewConn(r.target)
	defer c.Close()
	for i, w := range r.watchers {
		scenarios, err := json.Marshal(r.cfg.Footprints[i%len(r.cfg.Footprints)])
		if err != nil {
			return err
		}
		w.declare(string(scenarios))
		if err := w.LogIn(ctx, c); err != nil {
			return err
		}
		r.units.Add(1)
	}
	return nil
}

// awaitList pulls until the list is complete, and keeps what a pull looks like.
func (r *run) awaitList(ctx context.Context, reader *Watcher) error {
	c := NewConn(r.target)
	defer c.Close()
	poll := time.NewTicker(publishPoll)
	defer poll.Stop()
	listed := 0
	for {
		req := pullRequest(reader)
		req.Keep = maxAnswer
		res, err := c.Do(ctx, req)
		if err != nil {
			return causeOr(ctx, err)
		}
		if res.Status != 200 {
			return unexpected(&req, &res, 200)
		}
		if listed, err = countDecisions(&res); err != nil {
			return fmt.Errorf("decoding a pull: %w", err)
		}
		if listed >= r.cfg.List {
			r.list = Response{Length: res.Length, Gzip: res.Gzip}
			r.naive, err = naiveCPU(&res)
			return err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: a pull has %d of them; they come by the fleet list, is the organisation's policy off, or lists.tiers too small?", context.Cause(ctx), listed)
		}
	}
}

// causeOr prefers the reason why ctx ended to the error that this made.
func causeOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func pullRequest(w *Watcher) Request {
	return Request{Method: "GET", Path: "/v3/decisions/stream?startup=true", Token: w.Token}
}

// pull gets the list and checks that it is one like that seen before: the
// durations in it change, its size does not by much.
func (r *run) pull(ctx context.Context, c *Conn, w *Watcher) (Response, error) {
	req := pullRequest(w)
	res, err := c.Do(ctx, req)
	switch {
	case err != nil:
	case res.Status != 200:
		err = unexpected(&req, &res, 200)
	case res.Gzip != r.list.Gzip || res.Length < r.list.Length/2 || res.Length > r.list.Length*2:
		err = fmt.Errorf("%s %s: expected about %d bytes (gzip: %t), got %d (gzip: %t)",
			req.Method, req.Path, r.list.Length, r.list.Gzip, res.Length, res.Gzip)
	}
	return res, err
}

// decisions is what a v3 stream holds.
type decisions struct {
	New     []decisionGroup `json:"new"`
	Deleted []struct {
		Scope     string   `json:"scope"`
		Decisions []string `json:"decisions"`
	} `json:"deleted"`
	Links json.RawMessage `json:"links"`
}

type decisionGroup struct {
	Scenario  string `json:"scenario"`
	Scope     string `json:"scope"`
	Decisions []struct {
		Value    string `json:"value"`
		Duration string `json:"duration"`
	} `json:"decisions"`
}

// decodeStream reads a whole v3 stream.
func decodeStream(res *Response) (d decisions, err error) {
	var body io.Reader = bytes.NewReader(res.Body)
	if res.Gzip {
		z, err := gzip.NewReader(body)
		if err != nil {
			return d, err
		}
		body = z
	}
	return d, json.NewDecoder(body).Decode(&d)
}

// countDecisions decodes a stream and counts its new decisions.
func countDecisions(res *Response) (int, error) {
	stream, err := decodeStream(res)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, group := range stream.New {
		if group.Scenario == "" || group.Scope == "" {
			return 0, errors.New("a group has no scenario or no scope, which crashes engines")
		}
		for _, d := range group.Decisions {
			if d.Value == "" || d.Duration == "" {
				return 0, errors.New("a decision has no value or no duration")
			}
			n++
		}
	}
	return n, nil
}

// naiveCPU measures what a pull costs that marshals and compresses its answer: the
// best of some tries, with the standard library and its usual level.
func naiveCPU(res *Response) (time.Duration, error) {
	const tries = 5
	stream, err := decodeStream(res)
	if err != nil {
		return 0, err
	}
	best := time.Duration(math.MaxInt64)
	for range tries {
		start := time.Now()
		body, err := json.Marshal(stream)
		if err != nil {
			return 0, err
		}
		z := stdgzip.NewWriter(io.Discard)
		if _, err := z.Write(body); err != nil {
			return 0, err
		}
		if err := z.Close(); err != nil {
			return 0, err
		}
		best = min(best, time.Since(start))
	}
	return best, nil
}
