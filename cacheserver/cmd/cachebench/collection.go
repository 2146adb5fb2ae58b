package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/collect"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

const (
	// grace must have passed for what is to be collected.
	grace = time.Second
	// touchedAtOnce is how many uses are noted in one change.
	touchedAtOnce = 500

	idleFor     = 3 * time.Second
	pullEvery   = 2 * time.Millisecond
	commitEvery = 20 * time.Millisecond
)

// collected is what a collection did, and what those saw who were not to notice.
type collected struct {
	collect.Report
	idle, beside traffic
}

// traffic is what requests took.
type traffic struct{ pulls, commits []time.Duration }

// collections collects half of each subject.
func collections(ctx context.Context, o scaleOptions, subjects []*subject, mem *memory, out, progress io.Writer) error {
	all := make([]*collected, len(subjects))
	for i, s := range subjects {
		fmt.Fprintf(progress, "collecting half of %s\n", s)
		err := s.serve(ctx, func(url string) (err error) {
			all[i], err = s.collectHalf(ctx, url, o.apart)
			return err
		})
		if err != nil {
			return fmt.Errorf("collecting half of %s: %w", s, err)
		}
		mem.stage("collecting half of " + s.String())
	}
	t := table{columns: []string{"index", "paths", "removed", "chunks removed", "packs deleted", "packs rewritten", "seconds", "a path, ÷ small"}}
	beside := table{columns: []string{"index", "paths", "request", "p50, beside ÷ before", "p99, beside ÷ before", "longest, ms"}}
	for i, s := range subjects {
		c, small := all[i], all[i-i%2]
		perPath := func(c *collected) float64 { return c.Took.Seconds() / float64(max(1, c.Paths)) }
		t.add(s.kind, count(int64(s.rows.paths)), count(c.Paths), count(c.Chunks), count(c.PacksDeleted), count(c.PacksCompacted),
			fmt.Sprintf("%.1f", c.Took.Seconds()), ratioText(perPath(c)/perPath(small)))
		for _, r := range []struct {
			name         string
			idle, beside []time.Duration
		}{{"narinfo", c.idle.pulls, c.beside.pulls}, {"commit", c.idle.commits, c.beside.commits}} {
			if len(r.idle) == 0 || len(r.beside) == 0 {
				continue // it was over too soon
			}
			of := func(percent int) string {
				return ratioText(percentile(r.beside, percent).Seconds() / percentile(r.idle, percent).Seconds())
			}
			beside.add(s.kind, count(int64(s.rows.paths)), r.name, of(50), of(99), milliseconds([]time.Duration{percentile(r.beside, 100)}))
		}
	}
	t.print(out, "Collection", "Of the older half of the paths, past their retention. The last column is the time for each path that was removed.")
	beside.print(out, "Beside the collection", `One client asks for narinfos that are in no memory, another commits paths that are
there, before the collection and while it runs.`)
	return nil
}

// collectHalf collects the older half. The newer one is used that much later,
// which bounds how long it may take from when the retention is set until the
// collector looks at it.
func (s *subject) collectHalf(ctx context.Context, url string, apart time.Duration) (*collected, error) {
	c := &collected{}
	if err := pause(ctx, time.Second); err != nil { // the index knows uses by the second
		return nil, err
	}
	unused := time.Now() // what is not used after this goes
	if err := pause(ctx, apart); err != nil {
		return nil, err
	}
	if err := s.useNewer(ctx); err != nil {
		return nil, err
	}
	idle, cancel := context.WithTimeout(ctx, idleFor)
	defer cancel()
	var err error
	if c.idle, err = s.traffic(ctx, idle, url); err != nil {
		return nil, err
	}
	err = s.server.Index.Update(ctx, func(tx index.Tx) error {
		return tx.SetRetention(s.cache, time.Since(unused).Truncate(time.Second))
	})
	if err != nil {
		return nil, err
	}
	collector := collect.New(s.server.Store, s.server.Packs, s.server.Index, collect.Policy{Grace: grace}, slog.New(slog.DiscardHandler))
	running, over := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() (err error) {
		defer over()
		c.Report, err = collector.Run(ctx)
		return err
	})
	g.Go(func() (err error) {
		c.beside, err = s.traffic(ctx, running, url)
		return err
	})
	return c, g.Wait()
}

// useNewer notes a use of the newer half of the paths, as pulls do.
func (s *subject) useNewer(ctx context.Context) error {
	for from := s.rows.paths / 2; from < s.rows.paths; from += touchedAtOnce {
		var hashes []string
		for p := from; p < min(from+touchedAtOnce, s.rows.paths); p++ {
			hashes = append(hashes, s.rows.hash(p))
		}
		if err := s.server.Index.Update(ctx, func(tx index.Tx) error { return tx.TouchPaths(s.cache, hashes) }); err != nil {
			return err
		}
	}
	return nil
}

// traffic pulls narinfos and commits paths, of the newer half, until the second
// context is done.
func (s *subject) traffic(ctx, until context.Context, url string) (t traffic, err error) {
	p := newPuller(1)
	defer p.close()
	newer := func(i int) int { return s.rows.paths/2 + i%(s.rows.paths-s.rows.paths/2) }
	var g errgroup.Group
	g.Go(func() (err error) {
		t.pulls, err = repeat(until, pullEvery, func(i int) error {
			const stride = 7919 // a prime, as in unique
			return p.look(ctx, s.narinfoURL(url, newer(i*stride)), http.StatusOK)
		})
		return err
	})
	g.Go(func() (err error) {
		t.commits, err = repeat(until, commitEvery, func(i int) error { return s.commit(ctx, newer(i)) })
		return err
	})
	err = g.Wait()
	return t, err
}

// repeat does something again and again, and returns what it took each time.
func repeat(until context.Context, every time.Duration, do func(i int) error) (took []time.Duration, err error) {
	for i := 0; until.Err() == nil; i++ {
		began := time.Now()
		if err := do(i); err != nil {
			return took, err
		}
		took = append(took, time.Since(began))
		if err := pause(until, every); err != nil {
			return took, nil //nolint:nilerr // it is told to end
		}
	}
	return took, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
