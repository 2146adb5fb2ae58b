package nix

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// Nix empties the log of an earlier build rather than make another file: the
// file's age is then that of the earlier build.
func TestALogOfAnEarlierBuildTellsNoTime(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells when a file was made")
	}
	root := t.TempDir()
	s := Store{Root: root, State: filepath.Join(root, "nix")}
	log := filepath.Join(s.logDir(), "drvs", "ab", "cdef-x.drv.bz2")
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, []byte("log"), 0o600); err != nil {
		t.Fatal(err)
	}
	born, _, ok := lifetime(log)
	if !ok {
		t.Skip("this file system remembers no birth")
	}
	changed := born.Add(time.Hour)
	if err := os.Chtimes(log, changed, changed); err != nil {
		t.Fatal(err)
	}
	p := PathInfo{Ultimate: true, Deriver: "/nix/store/abcdef-x.drv"}
	never := time.Time{}
	for what, c := range map[string]struct {
		p            PathInfo
		since, began time.Time
		want         time.Duration
	}{
		"made by this build":           {p, born, never, time.Hour},
		"made by an earlier one":       {p, born.Add(time.Second), never, 0},
		"and this one's beginning":     {p, born.Add(time.Second), changed.Add(-time.Minute), time.Minute},
		"of a clock that went back":    {p, born.Add(time.Second), changed.Add(time.Minute), 0},
		"fetched":                      {PathInfo{Deriver: p.Deriver}, born, never, 0},
		"of which no deriver is known": {PathInfo{Ultimate: true}, born, never, 0},
		"without a log":                {PathInfo{Ultimate: true, Deriver: "/nix/store/abcdeg-x.drv"}, born, never, 0},
	} {
		if got := s.BuildTime(c.p, c.since, c.began); got != c.want {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}
