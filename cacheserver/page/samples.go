package page

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

// The names of the samples. Of lookups, each server over an index adds what it
// counted since it last did; the others say what the store holds, whichever
// server counted.
const (
	samplePackBytes  = "pack-bytes"
	sampleBlobBytes  = "blob-bytes"
	sampleChunkBytes = "chunk-bytes"
	samplePaths      = "paths"
	sampleHits       = "hits"
	sampleMisses     = "misses"
)

const (
	sampleEvery = 5 * time.Minute
	keepSamples = 90 * 24 * time.Hour
	// firstSample is how soon after a start one is taken, so that the page of a new
	// server has something to show.
	firstSample = 10 * time.Second
)

// Sampler writes down how the store fares, for the pages to show over time.
type Sampler struct {
	Index index.Index
	// Usage counts what the store holds, which may take seconds.
	Usage func(context.Context) (index.Usage, error)
	// Lookups are how often clients asked for something since the start, and it was
	// there, or not.
	Lookups func() (hits, misses uint64)
	Log     *slog.Logger

	hits, misses uint64 // that were written down
}

// Run takes samples every 5 minutes until ctx is done, and then a last one of
// what was looked up.
func (s *Sampler) Run(ctx context.Context) error {
	wait := time.NewTimer(firstSample)
	defer wait.Stop()
	for {
		select {
		case <-wait.C:
			if err := errors.Join(s.sampleLookups(ctx, time.Now()), s.sampleUsage(ctx, time.Now())); err != nil && ctx.Err() == nil {
				s.Log.Warn("the page will show a gap: no sample was taken", "error", err)
			}
			// Two servers that write in the same second write over each other. They
			// must not go on doing so.
			wait.Reset(sampleEvery + rand.N(sampleEvery/10) - sampleEvery/20)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if err := s.sampleLookups(last, time.Now()); err != nil {
				s.Log.Debug("the last lookups were not written down", "error", err)
			}
			return nil
		}
	}
}

func (s *Sampler) sampleLookups(ctx context.Context, now time.Time) error {
	hits, misses := s.Lookups()
	if hits == s.hits && misses == s.misses {
		return nil
	}
	err := s.add(ctx, now, map[string]float64{
		sampleHits: float64(hits - s.hits), sampleMisses: float64(misses - s.misses),
	})
	if err != nil {
		return fmt.Errorf("recording lookups: %w", err)
	}
	s.hits, s.misses = hits, misses
	return nil
}

func (s *Sampler) sampleUsage(ctx context.Context, now time.Time) error {
	recent, err := s.Index.Samples(ctx, samplePackBytes, now.Add(-sampleEvery*3/4))
	if err != nil {
		return err
	}
	if len(recent) > 0 {
		return nil // another server over the same index has just counted
	}
	u, err := s.Usage(ctx)
	if err != nil {
		return fmt.Errorf("counting what the store holds: %w", err)
	}
	err = s.add(ctx, now, map[string]float64{
		samplePackBytes: float64(u.PackBytes), sampleBlobBytes: float64(u.BlobBytes),
		sampleChunkBytes: float64(u.ChunkBytes), samplePaths: float64(u.Paths),
	})
	if err != nil {
		return fmt.Errorf("recording what the store holds: %w", err)
	}
	return nil
}

func (s *Sampler) add(ctx context.Context, now time.Time, values map[string]float64) error {
	now = now.Truncate(time.Second)
	return s.Index.Update(ctx, func(tx index.Tx) error {
		for name, value := range values {
			if err := tx.AddSample(name, index.Sample{At: now, Value: value}, now.Add(-keepSamples)); err != nil {
				return err
			}
		}
		return nil
	})
}
