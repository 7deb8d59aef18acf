package stream_test

import (
	"context"
	"testing"

	"muster/internal/stream"
	"muster/internal/stream/streamtest"
)

func TestEmbedded(t *testing.T) {
	streamtest.Run(t, func(ctx context.Context, cfg stream.Config) (streamtest.Bus, error) {
		bus, err := stream.Open(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return bus, nil
	})
}
