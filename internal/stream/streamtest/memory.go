package streamtest

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"muster"
	"muster/internal/stream"
)

// Memory is a bus for tests: it keeps everything in memory and works inside a
// synctest bubble. It never forgets by age. Of its configuration it heeds
// MaxBytes (0 = no limit) and Floor.
type Memory struct {
	cfg stream.Config

	mu        sync.Mutex
	changed   chan struct{} // closed and replaced at every change
	closed    bool
	entries   []muster.Entry // one position per Append and partition, ascending
	last      uint64
	size      int64
	buckets   map[string]*memoryKV
	listeners map[string]map[*stream.Listener]struct{}
}

// NewMemory makes an empty bus.
func NewMemory(cfg stream.Config) *Memory {
	return &Memory{
		cfg:       cfg,
		changed:   make(chan struct{}),
		last:      cfg.Floor,
		buckets:   map[string]*memoryKV{},
		listeners: map[string]map[*stream.Listener]struct{}{},
	}
}

// Reopen returns a bus over what m held when it was closed, as after a restart.
func (m *Memory) Reopen(cfg stream.Config) (*Memory, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last < cfg.Floor && len(m.entries) > 0 {
		return nil, muster.Errorf(muster.Invalid, "the log ends at position %d, but the database has applied up to %d", m.last, cfg.Floor)
	}
	next := NewMemory(cfg)
	next.entries, next.last, next.size = slices.Clone(m.entries), max(m.last, cfg.Floor), m.size
	for name, k := range m.buckets {
		next.buckets[name] = &memoryKV{bus: next, ttl: k.ttl, revision: k.revision, values: maps.Clone(k.values)}
	}
	return next, nil
}

// change wakes whoever waits. The lock is held.
func (m *Memory) change() {
	close(m.changed)
	m.changed = make(chan struct{})
}

var errClosed = muster.Errorf(muster.Unavailable, "the stream is closed")

// Close implements Bus.
func (m *Memory) Close() {
	m.mu.Lock()
	m.closed = true
	m.change()
	var all []*stream.Listener
	for _, ls := range m.listeners {
		all = append(all, slices.Collect(maps.Keys(ls))...)
	}
	m.mu.Unlock()
	for _, l := range all {
		l.Close()
	}
}

// Append implements Bus.
func (m *Memory) Append(ctx context.Context, records []muster.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	size := m.size
	for _, r := range records {
		if r.Partition >= muster.Partitions {
			return muster.Errorf(muster.Invalid, "append: partition %d does not exist", r.Partition)
		}
		if len(r.Data) > stream.MaxRecord {
			return muster.Errorf(muster.TooLarge, "append: a record of %d bytes: at most %d", len(r.Data), stream.MaxRecord)
		}
		size += int64(len(r.Data))
	}
	switch {
	case m.closed:
		return errClosed
	case ctx.Err() != nil:
		return muster.Errorf(muster.Unavailable, "append: %w", ctx.Err())
	case m.cfg.MaxBytes > 0 && size > m.cfg.MaxBytes:
		return muster.Errorf(muster.Unavailable, "the signal log is full: raise stream.max_bytes from %d", m.cfg.MaxBytes)
	}
	var seen [muster.Partitions]bool
	for i, r := range records {
		if i == 0 || seen[r.Partition] {
			m.last++
			clear(seen[:])
		}
		seen[r.Partition] = true
		m.entries = append(m.entries, muster.Entry{Partition: r.Partition, Position: m.last, Data: bytes.Clone(r.Data)})
	}
	m.size = size
	m.change()
	return nil
}

// Last implements Bus.
func (m *Memory) Last(context.Context) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, errClosed
	}
	return m.last, nil
}

// Read implements Bus.
func (m *Memory) Read(_ context.Context, partitions []uint8, from [muster.Partitions]uint64) (stream.Reader, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	if len(partitions) == 0 {
		return nil, muster.Errorf(muster.Invalid, "read: no partitions given")
	}
	r := &memoryReader{bus: m, from: from}
	lowest := ^uint64(0)
	for _, p := range partitions {
		if p >= muster.Partitions {
			return nil, muster.Errorf(muster.Invalid, "read: partition %d does not exist", p)
		}
		if from[p] > m.last {
			return nil, muster.Errorf(muster.Invalid, "read: position %d is beyond the log's end at %d", from[p], m.last)
		}
		r.wanted[p] = true
		lowest = min(lowest, from[p])
	}
	r.position.Store(lowest)
	return r, nil
}

type memoryReader struct {
	bus      *Memory
	wanted   [muster.Partitions]bool
	from     [muster.Partitions]uint64
	next     int // index into bus.entries
	position atomic.Uint64
}

func (r *memoryReader) Next(ctx context.Context, max int) ([]muster.Entry, error) {
	if max < 1 {
		return nil, muster.Errorf(muster.Invalid, "next: at most %d entries wanted", max)
	}
	for {
		r.bus.mu.Lock()
		if r.bus.closed {
			r.bus.mu.Unlock()
			return nil, errClosed
		}
		var out []muster.Entry
		for ; r.next < len(r.bus.entries); r.next++ {
			e := r.bus.entries[r.next]
			if !r.wanted[e.Partition] || e.Position <= r.from[e.Partition] {
				continue
			}
			if len(out) == max {
				break
			}
			out = append(out, e)
		}
		if r.next == len(r.bus.entries) {
			r.position.Store(r.bus.last)
		} else {
			r.position.Store(r.bus.entries[r.next].Position - 1)
		}
		changed := r.bus.changed
		r.bus.mu.Unlock()
		if len(out) > 0 {
			return out, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *memoryReader) Position() uint64 { return r.position.Load() }

func (r *memoryReader) Close() {}

// Ring implements Bus.
func (m *Memory) Ring(ctx context.Context, bell string, payload []byte) error {
	if err := checkKey(bell); err != nil {
		return err
	}
	if len(payload) > 64<<10 {
		return muster.Errorf(muster.TooLarge, "ring: the payload has %d bytes", len(payload))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errClosed
	}
	for l := range m.listeners[bell] {
		l.Hear(stream.Ring{Payload: bytes.Clone(payload)})
	}
	return ctx.Err()
}

// Listen implements Bus.
func (m *Memory) Listen(bell string) (*stream.Listener, error) {
	if err := checkKey(bell); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	l := stream.NewListener(func(l *stream.Listener) {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.listeners[bell], l)
	})
	if m.listeners[bell] == nil {
		m.listeners[bell] = map[*stream.Listener]struct{}{}
	}
	m.listeners[bell][l] = struct{}{}
	return l, nil
}

// KV implements Bus.
func (m *Memory) KV(_ context.Context, bucket string, ttl time.Duration) (stream.KV, error) {
	valid := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
	}
	if bucket == "" || strings.IndexFunc(bucket, func(c rune) bool { return !valid(c) }) >= 0 {
		return nil, muster.Errorf(muster.Invalid, "bucket name %q", bucket)
	}
	if ttl != 0 && ttl < time.Second {
		return nil, muster.Errorf(muster.Invalid, "bucket %s: a time to live of %s", bucket, ttl)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	if m.buckets[bucket] == nil {
		m.buckets[bucket] = &memoryKV{bus: m, values: map[string]memoryValue{}}
	}
	m.buckets[bucket].ttl = ttl
	return m.buckets[bucket], nil
}

// memoryKV is a bucket. Its bus's lock guards it.
type memoryKV struct {
	bus      *Memory
	ttl      time.Duration
	revision uint64
	values   map[string]memoryValue
}

type memoryValue struct {
	stream.Change
	expires time.Time // zero = never
}

// sweep deletes what has expired and returns when the next key does, or zero.
func (k *memoryKV) sweep() (next time.Time) {
	now := time.Now()
	for key, v := range k.values {
		switch {
		case v.Deleted || v.expires.IsZero():
		case !now.Before(v.expires):
			k.set(key, nil, true)
		case next.IsZero() || v.expires.Before(next):
			next = v.expires
		}
	}
	return next
}

func (k *memoryKV) set(key string, value []byte, deleted bool) uint64 {
	k.revision++
	v := memoryValue{Change: stream.Change{Key: key, Value: bytes.Clone(value), Deleted: deleted, Revision: k.revision}}
	if k.ttl > 0 && !deleted {
		v.expires = time.Now().Add(k.ttl)
	}
	k.values[key] = v
	k.bus.change()
	return k.revision
}

// begin checks a key, locks, sweeps and says whether the key has a value.
func (k *memoryKV) begin(key string, value []byte) (found bool, err error) {
	if err := checkKey(key); err != nil {
		return false, err
	}
	if len(value) > 1<<20-256 {
		return false, muster.Errorf(muster.TooLarge, "%s: the value has %d bytes", key, len(value))
	}
	k.bus.mu.Lock()
	if k.bus.closed {
		k.bus.mu.Unlock()
		return false, errClosed
	}
	k.sweep()
	v, ok := k.values[key]
	return ok && !v.Deleted, nil
}

func (k *memoryKV) Get(_ context.Context, key string) ([]byte, uint64, error) {
	found, err := k.begin(key, nil)
	if err != nil {
		return nil, 0, err
	}
	defer k.bus.mu.Unlock()
	if !found {
		return nil, 0, muster.Errorf(muster.NotFound, "the bucket has no %s", key)
	}
	v := k.values[key]
	return v.Value, v.Revision, nil
}

func (k *memoryKV) Put(_ context.Context, key string, value []byte) (uint64, error) {
	if _, err := k.begin(key, value); err != nil {
		return 0, err
	}
	defer k.bus.mu.Unlock()
	return k.set(key, value, false), nil
}

func (k *memoryKV) Create(_ context.Context, key string, value []byte) (uint64, error) {
	found, err := k.begin(key, value)
	if err != nil {
		return 0, err
	}
	defer k.bus.mu.Unlock()
	if found {
		return 0, muster.Errorf(muster.Exists, "the bucket has %s already", key)
	}
	return k.set(key, value, false), nil
}

func (k *memoryKV) Delete(_ context.Context, key string) error {
	if _, err := k.begin(key, nil); err != nil {
		return err
	}
	defer k.bus.mu.Unlock()
	k.set(key, nil, true)
	return nil
}

func (k *memoryKV) Watch(ctx context.Context, prefix string) (<-chan stream.Change, error) {
	if prefix != "" {
		if err := checkKey(prefix); err != nil {
			return nil, err
		}
		prefix += "."
	}
	k.bus.mu.Lock()
	defer k.bus.mu.Unlock()
	if k.bus.closed {
		return nil, errClosed
	}
	k.sweep()
	current := slices.DeleteFunc(k.since(0, prefix), func(c stream.Change) bool { return c.Deleted })
	changes := make(chan stream.Change)
	go k.watch(ctx, prefix, k.revision, append(current, stream.Change{}), changes)
	return changes, nil
}

// since returns the changes under prefix after a revision. The lock is held.
func (k *memoryKV) since(revision uint64, prefix string) []stream.Change {
	var out []stream.Change
	for key, v := range k.values {
		if strings.HasPrefix(key, prefix) && v.Revision > revision {
			out = append(out, v.Change)
		}
	}
	slices.SortFunc(out, func(a, b stream.Change) int { return cmp.Compare(a.Revision, b.Revision) })
	return out
}

func (k *memoryKV) watch(ctx context.Context, prefix string, told uint64, news []stream.Change, changes chan<- stream.Change) {
	defer close(changes)
	for {
		for _, c := range news {
			select {
			case changes <- c:
			case <-ctx.Done():
				return
			}
		}
		k.bus.mu.Lock()
		expiry := k.sweep()
		news, told = k.since(told, prefix), k.revision
		closed, changed := k.bus.closed, k.bus.changed
		k.bus.mu.Unlock()
		if closed {
			return
		}
		if len(news) > 0 {
			continue
		}
		var timer <-chan time.Time
		if !expiry.IsZero() {
			timer = time.After(time.Until(expiry))
		}
		select {
		case <-changed:
		case <-timer:
		case <-ctx.Done():
			return
		}
	}
}

func checkKey(key string) error {
	if key == "" || len(key) > 256 || key[0] == '.' || key[len(key)-1] == '.' || strings.Contains(key, "..") {
		return muster.Errorf(muster.Invalid, "key %q: expected 1 to 256 bytes and no empty token", key)
	}
	return nil
}
