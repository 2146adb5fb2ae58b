package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/config"
)

const enginesHelp = `
Every flag can be given as an environment variable as well, --max-size is
CACHESERVER_MAX_SIZE, and most as a key of the file of --config, which has all
that serve has: max_size. Packs lie in the data directory, in another directory
(--storage DIR), or on S3 (--storage s3://BUCKET/PREFIX), whose keys come from
S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY, from the file, or from the machine's
own role; the bucket of --storage s3:// is S3_BUCKET_NAME. The index lies in the
data directory, in another file, or in PostgreSQL (--index postgres://…), which
several servers may share.`

// load sets what flags leave open: settings from the environment and the file, a
// command's own flags from the environment.
func load(cmd *cobra.Command, s *config.Settings) (err error) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := "CACHESERVER_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value := os.Getenv(name)
		if s.Has(f.Name) || f.Changed || value == "" || err != nil {
			return
		}
		if setErr := cmd.Flags().Set(f.Name, value); setErr != nil {
			err = usageError{fmt.Errorf("%s=%q: %w", name, value, setErr)}
		}
	})
	if err != nil {
		return err
	}
	return s.Load(os.Getenv)
}

// open opens the engines for a command that works on them beside servers.
func open(cmd *cobra.Command, s *config.Settings) (*cacheserver.Engines, error) {
	if err := load(cmd, s); err != nil {
		return nil, err
	}
	c := &s.Server
	c.PackCache = 0 // commands read what they read once
	noCache := fmt.Errorf("there is no cache in %s: --data, --storage and --index say where it is, as for serve", c.Where())
	if err := look(cmp.Or(c.Index, filepath.Join(c.Data, "index.sqlite")), noCache); err != nil {
		return nil, err
	}
	// To a repair, an empty directory that was meant to be another is a loss of all.
	packs := cmp.Or(c.Storage, filepath.Join(c.Data, "packs"))
	if err := look(packs, fmt.Errorf("there is no directory %s with packs: --data and --storage say where they are, as for serve; if they are lost, make it", packs)); err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	e, err := cacheserver.OpenEngines(cmd.Context(), c)
	if err != nil {
		return nil, err
	}
	// To the index of no server, all packs are orphans.
	caches, err := e.Index.Caches(cmd.Context())
	if err == nil && len(caches) == 0 {
		err = noCache
	}
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// look finds out that a file or directory is there before opening makes it. What has
// a scheme is neither.
func look(file string, missing error) error {
	if strings.Contains(file, "://") {
		return nil
	}
	_, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("looking for the cache: %w: run it as the user that the server runs as", err)
	case err != nil:
		return missing
	}
	return nil
}

// exactly wants n arguments.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		check := cobra.ExactArgs(n)
		if n == 0 {
			check = cobra.NoArgs
		}
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// atMostOne wants an argument, or none.
func atMostOne(cmd *cobra.Command, args []string) error {
	if err := cobra.MaximumNArgs(1)(cmd, args); err != nil {
		return usageError{err}
	}
	return nil
}

// day prints a time as people read it.
func day(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Local().Format(time.DateTime)
}
