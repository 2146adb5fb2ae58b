package nix

import (
	"os"
	"path"
	"path/filepath"
	"time"
)

// BuildTime returns how long building a path took here, or 0 where that cannot
// be told: it was not built here, or its log is not kept. Nix makes the log of a
// build as it begins and writes it last as it ends.
func (s Store) BuildTime(p PathInfo) time.Duration {
	if !p.Ultimate || p.Deriver == "" {
		return 0
	}
	base := path.Base(p.Deriver)
	if len(base) < 3 {
		return 0
	}
	log := filepath.Join(s.logDir(), "drvs", base[:2], base[2:])
	for _, file := range []string{log + ".bz2", log} {
		if took := lifetime(file); took > 0 {
			return took
		}
	}
	return 0
}

func (s Store) logDir() string {
	if dir := os.Getenv("NIX_LOG_DIR"); dir != "" && s.Root == "" {
		return dir
	}
	return filepath.Join(filepath.Dir(s.State), "log", "nix")
}
