package swarm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// publish has one watcher report Config.List addresses, which puts them on the
// fleet list of its organisation, and waits until another watcher is given
// them all.
func (r *run) publish(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, publishTimeout,
		fmt.Errorf("the list of %d addresses was not published within %s", r.cfg.List, publishTimeout))
	defer cancel()
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
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: a pull has %d of them; they come by the fleet list, is the organisation's policy off?", context.Cause(ctx), listed)
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

// countDecisions decodes a whole v3 stream and counts its new decisions.
func countDecisions(res *Response) (int, error) {
	var body io.Reader = bytes.NewReader(res.Body)
	if res.Gzip {
		z, err := gzip.NewReader(body)
		if err != nil {
			return 0, err
		}
		body = z
	}
	var stream struct {
		New []struct {
			Scenario, Scope string
			Decisions       []struct{ Value, Duration string }
		}
	}
	if err := json.NewDecoder(body).Decode(&stream); err != nil {
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
