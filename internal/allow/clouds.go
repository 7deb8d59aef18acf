package allow

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"muster"
)

const (
	cloudAnswer    = "cloud:"
	cloudEvery     = 6 * time.Hour
	cloudRetry     = 5 * time.Minute
	maxCloudRanges = 500_000
)

// cloud is what is known about one provider's ranges.
type cloud struct {
	data    []byte // as it was read
	ranges  []cloudRange
	whole   map[string][]netip.Prefix // by part, "" = all; made on demand
	due     time.Time
	problem string
	wanted  bool // is on a list
}

// cloudRange is one range, with the services and regions that it is of, in lower
// case.
type cloudRange struct {
	prefix netip.Prefix
	parts  []string
}

// take reads a provider's file.
func (c *cloud) take(data []byte) error {
	ranges, err := parseCloud(data)
	if err != nil {
		return err
	}
	c.data, c.ranges, c.whole = data, ranges, map[string][]netip.Prefix{}
	return nil
}

// of returns the fewest ranges of a service or region, "" = of all.
func (c *cloud) of(part string) []netip.Prefix {
	if ps, ok := c.whole[part]; ok || c.whole == nil {
		return ps
	}
	var ps []netip.Prefix
	for i := range c.ranges {
		if part == "" || slices.Contains(c.ranges[i].parts, part) {
			ps = append(ps, c.ranges[i].prefix)
		}
	}
	if len(ps) == 0 {
		return nil // who asks for what is not there must not fill the map
	}
	c.whole[part] = fewest(ps)
	return c.whole[part]
}

// parts returns some of the services and regions that there are.
func (c *cloud) parts(most int) []string {
	all := map[string]bool{}
	for i := range c.ranges {
		for _, p := range c.ranges[i].parts {
			all[p] = true
		}
	}
	names := slices.Sorted(maps.Keys(all))
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	if len(names) == 0 {
		return []string{"none"}
	}
	return names
}

// parseCloud reads what providers publish: AWS's ip-ranges.json, Google's
// cloud.json and goog.json, Azure's ServiceTags, or text with a range in each
// line, as Cloudflare has.
func parseCloud(data []byte) ([]cloudRange, error) {
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	var (
		ranges []cloudRange
		err    error
	)
	if len(data) > 0 && data[0] == '{' {
		ranges, err = parseCloudJSON(data)
	} else {
		ranges, err = parseCloudText(data)
	}
	switch {
	case err != nil:
		return nil, err
	case len(ranges) == 0:
		return nil, muster.Errorf(muster.Invalid, "there are no ranges in it: expected AWS's, Google's or Azure's JSON, or a range in each line")
	case len(ranges) > maxCloudRanges:
		return nil, muster.Errorf(muster.TooLarge, "there are %d ranges in it: expected %d at most", len(ranges), maxCloudRanges)
	}
	return ranges, nil
}

func parseCloudText(data []byte) ([]cloudRange, error) {
	var ranges []cloudRange
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		r, err := newCloudRange(line)
		if err != nil {
			return nil, muster.Errorf(muster.Invalid, "line %d: %w", n, err)
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

func parseCloudJSON(data []byte) ([]cloudRange, error) {
	var file struct {
		Prefixes []struct {
			AWS      string `json:"ip_prefix"`
			Google4  string `json:"ipv4Prefix"`
			Google6  string `json:"ipv6Prefix"`
			Service  string `json:"service"`
			Region   string `json:"region"`
			Location string `json:"scope"`
		} `json:"prefixes"`
		AWS6 []struct {
			Prefix  string `json:"ipv6_prefix"`
			Service string `json:"service"`
			Region  string `json:"region"`
		} `json:"ipv6_prefixes"`
		Azure []struct {
			Name       string `json:"name"`
			Properties struct {
				Region   string   `json:"region"`
				Service  string   `json:"systemService"`
				Prefixes []string `json:"addressPrefixes"`
			} `json:"properties"`
		} `json:"values"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, muster.Errorf(muster.Invalid, "expected the JSON of AWS, Google or Azure: %w", err)
	}
	var ranges []cloudRange
	add := func(text string, parts ...string) error {
		if text == "" {
			return nil
		}
		r, err := newCloudRange(text, parts...)
		ranges = append(ranges, r)
		return err
	}
	for _, p := range file.Prefixes {
		for _, text := range []string{p.AWS, p.Google4, p.Google6} {
			if err := add(text, p.Service, p.Region, p.Location); err != nil {
				return nil, err
			}
		}
	}
	for _, p := range file.AWS6 {
		if err := add(p.Prefix, p.Service, p.Region); err != nil {
			return nil, err
		}
	}
	for _, v := range file.Azure {
		for _, text := range v.Properties.Prefixes {
			if err := add(text, v.Name, v.Properties.Service, v.Properties.Region); err != nil {
				return nil, err
			}
		}
	}
	return ranges, nil
}

// newCloudRange refuses what an item could not be: a file that says 0.0.0.0/0
// would let everybody through.
func newCloudRange(text string, parts ...string) (cloudRange, error) {
	item, err := muster.ParseAllowItem(text)
	if err != nil || !item.Source().IsValid() {
		return cloudRange{}, muster.Errorf(muster.Invalid, "expected a range like 198.51.100.0/24, no wider than /%d (IPv6 /%d), got %q",
			muster.MinAllowBits4, muster.MinAllowBits6, text[:min(len(text), 64)])
	}
	r := cloudRange{prefix: item.Source().Prefix()}
	for _, p := range parts {
		if p = strings.ReplaceAll(strings.ToLower(strings.TrimSpace(p)), " ", "-"); p != "" && !slices.Contains(r.parts, p) {
			r.parts = append(r.parts, p)
		}
	}
	return r, nil
}

// fetch reads the files of providers that are due and returns when the next one
// is.
func (s *Service) fetch(ctx context.Context) time.Duration {
	now := s.cfg.Now()
	var due, forgotten []string
	s.mu.Lock()
	for set, c := range s.known.clouds {
		switch {
		case !c.wanted:
			delete(s.known.clouds, set)
			forgotten = append(forgotten, set)
		case !now.Before(c.due):
			due = append(due, set)
		}
	}
	s.mu.Unlock()
	for _, set := range forgotten {
		if err := s.cfg.Store.DeleteAllowAnswer(ctx, cloudAnswer+set); err != nil && ctx.Err() == nil {
			s.log.Warn("the ranges of a provider that is on no allowlist any more could not be forgotten", "error", err)
		}
	}
	slices.Sort(due)
	for _, set := range due {
		if err := s.fetchOne(ctx, set); err != nil && ctx.Err() == nil {
			s.log.Warn("the ranges of a provider could not be read; those read before stay in force", "provider", set, "error", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := cloudEvery
	for _, c := range s.known.clouds {
		next = min(next, max(c.due.Sub(s.cfg.Now()), time.Second))
	}
	return next
}

// fetchOne reads the file of a provider and has the lists with it follow.
func (s *Service) fetchOne(ctx context.Context, set string) error {
	fresh, err := s.readCloud(ctx, set)
	now := s.cfg.Now()
	s.mu.Lock()
	c := s.known.clouds[set]
	if c == nil {
		s.mu.Unlock()
		return nil // forgotten meanwhile
	}
	if err != nil {
		c.due = now.Add(cloudRetry)
		c.problem = "its ranges could not be read: the server's log says more; those read before stay in force"
		s.mu.Unlock()
		return err
	}
	c.due, c.problem = now.Add(cloudEvery), ""
	if bytes.Equal(c.data, fresh.data) {
		s.mu.Unlock()
		return nil
	}
	c.data, c.ranges, c.whole = fresh.data, fresh.ranges, fresh.whole
	var ids []string
	for id, l := range s.lists {
		for i := range l.items {
			if of, _ := l.items[i].Cloud(); of == set {
				ids = append(ids, id)
				break
			}
		}
	}
	s.mu.Unlock()
	if err := s.cfg.Store.PutAllowAnswer(ctx, cloudAnswer+set, now, fresh.data); err != nil {
		s.log.Warn("the ranges of a provider could not be stored; after a restart they are read anew", "provider", set, "error", err)
	}
	s.refresh(ids)
	return nil
}

func (s *Service) readCloud(ctx context.Context, set string) (*cloud, error) {
	source, ok := s.cfg.Clouds[set]
	if !ok {
		return nil, muster.Errorf(muster.Invalid, "there is no provider %q in the setting allowlists.clouds", set)
	}
	data, err := s.cfg.Fetcher.Fetch(ctx, source)
	if err != nil {
		return nil, err
	}
	c := &cloud{}
	return c, c.take(data)
}

// learnClouds reads the files of the providers among items that are not known
// yet.
func (s *Service) learnClouds(ctx context.Context, items []muster.AllowItem) error {
	for i := range items {
		set, _ := items[i].Cloud()
		if set == "" {
			continue
		}
		if _, ok := s.cfg.Clouds[set]; !ok {
			names := strings.Join(slices.Sorted(maps.Keys(s.cfg.Clouds)), ", ")
			if names == "" {
				names = "none yet"
			}
			return muster.Errorf(muster.Invalid, "the server knows no ranges of cloud:%s: add them to its setting allowlists.clouds, which has %s", set, names)
		}
		s.mu.Lock()
		c := s.known.clouds[set]
		if c == nil {
			c = &cloud{}
			s.known.clouds[set] = c
		}
		c.wanted = true
		need := len(c.ranges) == 0
		s.mu.Unlock()
		if !need {
			continue
		}
		if err := s.fetchOne(ctx, set); err != nil {
			s.log.Warn("the ranges of a provider could not be read", "provider", set, "error", err)
			return &muster.Error{Code: muster.Unavailable, Cause: err, Message: "the ranges of cloud:" + set + " could not be read now: the server's log says more"}
		}
	}
	return nil
}
