package spool

import (
	"context"
	"log/slog"
	"time"
)

// Trimmer drops the beginning of the log.
type Trimmer interface {
	// Trim drops every entry at or below position; less is no error.
	Trim(ctx context.Context, position uint64) error
}

// trimEvery is how often the log gives its disk back.
const trimEvery = time.Minute

// Trim drops what all of the log's readers have applied, until ctx ends. Each of
// applied returns the position up to which one of them needs nothing.
func Trim(ctx context.Context, log Trimmer, logger *slog.Logger, applied ...func() uint64) {
	ticker := time.NewTicker(trimEvery)
	defer ticker.Stop()
	last := uint64(0)
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		position := ^uint64(0)
		for _, f := range applied {
			position = min(position, f())
		}
		if position == last || len(applied) == 0 {
			continue
		}
		if err := log.Trim(ctx, position); err != nil {
			logger.Warn("the sieve's log keeps what is not needed any more, for now", "error", err)
			continue
		}
		last = position
	}
}
