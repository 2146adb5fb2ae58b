package embedded

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

const (
	// collectEvery is how long the data of runs may go uncollected.
	collectEvery = 24 * time.Hour
	// collected is the file among the data whose time says when they were.
	collected = "collected"
)

// collect removes what no run has used for its retention, beside the run, where none
// has done so for a day. What is not through when the run ends is left to the next.
// It never fails a run.
func (s *Server) collect(ctx context.Context, data string, log *slog.Logger) {
	mark := filepath.Join(data, collected)
	info, err := os.Stat(mark)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// The first run has nothing to collect.
	case err != nil:
		log.Warn("nothing is collected", "error", err)
		return
	case time.Since(info.ModTime()) < collectEvery:
		return
	default:
		r, err := s.server.Collector().Run(ctx)
		if ctx.Err() != nil || errors.Is(err, index.ErrLocked) {
			return
		}
		if err != nil {
			log.Warn("collection ended early", "error", err)
			return
		}
		log.Info("collected", "paths", r.Paths, "actions", r.Actions, "freed", r.Freed, "took", r.Took)
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		log.Warn("nothing is collected", "error", err)
	}
}
