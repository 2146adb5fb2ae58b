package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
)

// envPrefix begins the environment variables that stand for flags.
const envPrefix = "CACHESERVER_"

// s3Variables stand for flags, too, by the names that deployments use.
var s3Variables = map[string]string{
	"s3-endpoint": "S3_ENDPOINT",
	"s3-region":   "S3_REGION",
	"s3-bucket":   "S3_BUCKET_NAME",
}

const enginesHelp = `
Every flag can be given as an environment variable as well: --max-size is
CACHESERVER_MAX_SIZE. Packs lie in the data directory, in another directory
(--storage DIR), or on S3 (--storage s3://BUCKET/PREFIX), whose keys come from
S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY, or from the machine's own role; the
bucket of --storage s3:// is S3_BUCKET_NAME. The index lies in the data
directory, in another file, or in PostgreSQL (--index postgres://…), which
several servers may share.`

// engineFlags are the flags that say where the data is.
func engineFlags(f *pflag.FlagSet, c *cacheserver.Config) {
	f.StringVar(&c.Data, "data", defaultData(), "`directory` for packs, index and caches")
	f.StringVar(&c.Storage, "storage", "", "where packs are: a directory or s3://bucket/prefix (default in --data)")
	f.StringVar(&c.Index, "index", "", "where the index is: a file or postgres://… (default in --data)")
	f.StringVar(&c.S3.Endpoint, "s3-endpoint", "", "`URL` of the S3 service, such as https://minio.example.org:9000 (default AWS)")
	f.StringVar(&c.S3.Bucket, "s3-bucket", "", "bucket of --storage s3://")
	f.StringVar(&c.S3.Region, "s3-region", "", "region of the bucket (default as the service says)")
	f.BoolVar(&c.S3.PathStyle, "s3-path-style", false, "name the bucket in the path rather than in the host")
	f.StringVar(&c.S3.CAFile, "s3-ca-file", "", "PEM `file` with the certificate authority of the S3 service")
	f.DurationVar(&c.Policy.Grace, "grace", cas.DefaultGrace, "how long uploads in flight are left alone by collection; the same for all servers of an index")
}

// fromEnvironment sets the flags that were not given from the environment.
func fromEnvironment(cmd *cobra.Command) (err error) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		names := []string{envPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))}
		if name, ok := s3Variables[f.Name]; ok {
			names = append(names, name)
		}
		for _, name := range names {
			value := os.Getenv(name)
			if f.Changed || value == "" || err != nil {
				continue
			}
			if setErr := f.Value.Set(value); setErr != nil {
				err = usageError{fmt.Errorf("%s=%q: %w", name, value, setErr)}
			}
			f.Changed = true
		}
	})
	return err
}

// open opens the engines for a command that works on them beside servers.
func open(cmd *cobra.Command, c *cacheserver.Config) (*cacheserver.Engines, error) {
	if err := fromEnvironment(cmd); err != nil {
		return nil, err
	}
	c.S3.AccessKeyID, c.S3.SecretAccessKey = os.Getenv("S3_ACCESS_KEY_ID"), os.Getenv("S3_SECRET_ACCESS_KEY")
	noCache := fmt.Errorf("there is no cache in %s: --data, --storage and --index say where it is, as for serve", c.Where())
	if file := c.Index; !strings.Contains(file, "://") {
		if file == "" {
			file = filepath.Join(c.Data, "index.sqlite")
		}
		if _, err := os.Stat(file); err != nil {
			return nil, noCache
		}
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

func defaultData() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "attic-cache"
	}
	return filepath.Join(dir, "attic-cache")
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

// day prints a time as people read it.
func day(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Local().Format(time.DateTime)
}
