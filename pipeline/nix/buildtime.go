package nix

import (
	"os"
	"path"
	"path/filepath"
	"time"
)

// BuildTime returns how long building a path took here, or 0 where that cannot
// be told: it was not built here since then, or its log is not kept. Nix makes the
// log of a build as it begins, unless there is one of an earlier build, which it
// empties, and writes it last as it ends. began is when that build began, if that
// is known.
func (s Store) BuildTime(p PathInfo, since, began time.Time) time.Duration {
	if !p.Ultimate || p.Deriver == "" {
		return 0
	}
	base := path.Base(p.Deriver)
	if len(base) < 3 {
		return 0
	}
	log := filepath.Join(s.logDir(), "drvs", base[:2], base[2:])
	for _, file := range []string{log + ".bz2", log} {
		born, changed, ok := lifetime(file)
		switch {
		case !ok:
			continue
		case born.Before(since) && began.IsZero():
			return 0
		case born.Before(since):
			born = began
		}
		return max(0, changed.Sub(born))
	}
	return 0
}

func (s Store) logDir() string {
	if dir := os.Getenv("NIX_LOG_DIR"); dir != "" && s.Root == "" {
		return dir
	}
	return filepath.Join(filepath.Dir(s.State), "log", "nix")
}
