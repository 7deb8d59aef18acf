package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"muster"
)

// KV is a bucket of small values, durable when a write returns. Keys are 1 to
// 256 bytes of any text in tokens separated by dots; no token is empty. Values
// have at most 1 MiB.
//
// Errors: Invalid for a key, TooLarge for a value, Unavailable when the bucket
// is full or away, and those of the method.
type KV interface {
	// Get returns the value and its revision, or NotFound. On a cluster it may
	// be a moment behind.
	Get(ctx context.Context, key string) (value []byte, revision uint64, err error)
	// Put sets a value whatever was there and returns its revision.
	Put(ctx context.Context, key string, value []byte) (revision uint64, err error)
	// Create sets a value where there is none, else returns Exists. Of several
	// at once, one succeeds.
	Create(ctx context.Context, key string, value []byte) (revision uint64, err error)
	// Delete removes a key; a key that is not there is no error.
	Delete(ctx context.Context, key string) error
	// Watch tells the current values under prefix, then one Change whose Key is
	// "", then every change until ctx ends or the bus closes, which closes the
	// channel. Prefix is "" for all, or whole tokens: "ban" hears "ban.x" but
	// neither "ban" nor "banner.x". For a slow watcher several changes of one
	// key may come as the last one only. Expiry is told within seconds.
	Watch(ctx context.Context, prefix string) (<-chan Change, error)
}

// Change is one key's new state.
type Change struct {
	Key      string // "" marks the end of the current values
	Value    []byte
	Deleted  bool   // deleted or expired
	Revision uint64 // grows with every change of the bucket
}

const (
	maxKey      = 256
	maxValue    = 1 << 20
	bucketBytes = 256 << 20

	// markerAge is how long a bucket remembers a deletion, for watchers whose
	// connection was away.
	markerAge = time.Hour
)

// KV opens a bucket, made when absent. Keys vanish ttl after they were last
// put; 0 keeps them, else at least a second. Bucket names are letters, digits,
// - and _. A bucket holds at most 256 MiB.
func (b *Bus) KV(ctx context.Context, bucket string, ttl time.Duration) (KV, error) {
	if ttl != 0 && ttl < time.Second {
		return nil, muster.Errorf(muster.Invalid, "bucket %s: a time to live of %s was asked for: expected 0 or at least a second", bucket, ttl)
	}
	ctx, cancel := within(ctx)
	defer cancel()
	k, err := b.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket:         bucket,
		TTL:            ttl,
		MaxValueSize:   maxValue,
		MaxBytes:       bucketBytes,
		Storage:        jetstream.FileStorage,
		Replicas:       b.replicas(),
		LimitMarkerTTL: markerAge,
	})
	switch {
	case errors.Is(err, jetstream.ErrInvalidBucketName):
		return nil, muster.Errorf(muster.Invalid, "bucket name %q: expected letters, digits, - and _", bucket)
	case err != nil:
		return nil, muster.Errorf(muster.Unavailable, "bucket %s cannot be opened: %w", bucket, err)
	}
	return &kv{bus: b, bucket: k}, nil
}

type kv struct {
	bus    *Bus
	bucket jetstream.KeyValue
}

func (k *kv) Get(ctx context.Context, key string) ([]byte, uint64, error) {
	name, err := encodeKey(key)
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := within(ctx)
	defer cancel()
	entry, err := k.bucket.Get(ctx, name)
	if err != nil {
		return nil, 0, k.error("get", key, err)
	}
	return entry.Value(), entry.Revision(), nil
}

func (k *kv) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	return k.write(ctx, "put", key, value, k.bucket.Put)
}

func (k *kv) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	return k.write(ctx, "create", key, value, func(ctx context.Context, name string, value []byte) (uint64, error) {
		return k.bucket.Create(ctx, name, value)
	})
}

func (k *kv) write(ctx context.Context, what, key string, value []byte, do func(context.Context, string, []byte) (uint64, error)) (uint64, error) {
	name, err := encodeKey(key)
	if err != nil {
		return 0, err
	}
	if len(value) > maxValue-maxKey {
		return 0, muster.Errorf(muster.TooLarge, "%s %s: the value has %d bytes: at most %d", what, key, len(value), maxValue-maxKey)
	}
	if err := k.bus.disk.check(); err != nil {
		return 0, err
	}
	ctx, cancel := within(ctx)
	defer cancel()
	revision, err := do(ctx, name, value)
	return revision, k.error(what, key, err)
}

func (k *kv) Delete(ctx context.Context, key string) error {
	name, err := encodeKey(key)
	if err != nil {
		return err
	}
	ctx, cancel := within(ctx)
	defer cancel()
	return k.error("delete", key, k.bucket.Purge(ctx, name, jetstream.PurgeTTL(markerAge)))
}

func (k *kv) error(what, key string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrKeyDeleted):
		return muster.Errorf(muster.NotFound, "bucket %s has no %s", k.bucket.Bucket(), key)
	case errors.Is(err, jetstream.ErrKeyExists):
		return muster.Errorf(muster.Exists, "bucket %s has %s already", k.bucket.Bucket(), key)
	case k.bus.life.Err() != nil:
		return errClosed
	}
	return muster.Errorf(muster.Unavailable, "bucket %s: %s %s: %w", k.bucket.Bucket(), what, key, err)
}

func (k *kv) Watch(ctx context.Context, prefix string) (<-chan Change, error) {
	filter := jetstream.AllKeys
	if prefix != "" {
		name, err := encodeKey(prefix)
		if err != nil {
			return nil, err
		}
		filter = name + ".>"
	}
	watcher, err := k.bucket.Watch(ctx, filter)
	if err != nil {
		return nil, k.error("watch", prefix, err)
	}
	changes := make(chan Change)
	started := k.bus.start(func() {
		defer close(changes)
		k.relay(ctx, watcher, changes)
		_ = watcher.Stop() // fails only when it has ended already
		for range watcher.Updates() {
			// It blocks until its last updates are taken.
		}
	})
	if !started {
		_ = watcher.Stop()
		return nil, errClosed
	}
	return changes, nil
}

func (k *kv) relay(ctx context.Context, watcher jetstream.KeyWatcher, changes chan<- Change) {
	for {
		var c Change
		select {
		case entry, ok := <-watcher.Updates():
			if !ok {
				return
			}
			if entry != nil {
				key, err := decodeKey(entry.Key())
				if err != nil {
					k.bus.log.Warn("stream: a key that was not written by this program is passed over", "bucket", k.bucket.Bucket(), "error", err)
					continue
				}
				c = Change{Key: key, Value: entry.Value(), Deleted: entry.Operation() != jetstream.KeyValuePut, Revision: entry.Revision()}
			}
		case <-ctx.Done():
			return
		case <-k.bus.life.Done():
			return
		}
		select {
		case changes <- c:
		case <-ctx.Done():
			return
		case <-k.bus.life.Done():
			return
		}
	}
}

// encodeKey turns a key into a NATS subject: every byte that is no letter,
// digit, dot, dash, slash or underscore becomes = and two hex digits.
func encodeKey(key string) (string, error) {
	if key == "" || len(key) > maxKey {
		return "", muster.Errorf(muster.Invalid, "a key of %d bytes: expected 1 to %d", len(key), maxKey)
	}
	if key[0] == '.' || key[len(key)-1] == '.' || strings.Contains(key, "..") {
		return "", muster.Errorf(muster.Invalid, "key %q: expected no empty token between its dots", key)
	}
	var b strings.Builder
	for i := range len(key) {
		if c := key[i]; plain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String(), nil
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '/' || c == '_'
}

func decodeKey(name string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] != '=' {
			b.WriteByte(name[i])
			continue
		}
		if len(name)-i < 3 {
			return "", fmt.Errorf("key %q ends within an escape", name)
		}
		var c byte
		if _, err := fmt.Sscanf(name[i+1:i+3], "%02X", &c); err != nil {
			return "", fmt.Errorf("key %q has a bad escape: %w", name, err)
		}
		b.WriteByte(c)
		i += 2
	}
	return b.String(), nil
}
