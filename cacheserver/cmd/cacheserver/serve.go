package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

type serveOptions struct {
	listen, data, storeDir string
	verbose                bool
}

func serveCommand() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the cache until interrupted",
		Long: `Serves the Nix binary cache "main" under /main and at the root of the address,
and takes pushes to it. The cache and its signing key are made at the first
start. Anyone who can reach the address can push: listen on a network that you
trust.

On SIGINT and SIGTERM, requests under way have 30 s to end.

Exit status: 0 stopped, 1 failed, 2 bad usage.`,
		Example: `  cacheserver serve --listen 127.0.0.1:8080 --data /var/lib/attic-cache
  nix build --option extra-substituters http://127.0.0.1:8080 …`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.NoArgs(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:8080", "`address` to listen on; port 0 takes a free one")
	f.StringVar(&o.data, "data", defaultData(), "`directory` for packs and index")
	f.StringVar(&o.storeDir, "store-dir", storepath.DefaultDir, "the clients' store `directory`")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log every request")
	return cmd
}

func defaultData() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "attic-cache"
	}
	return filepath.Join(dir, "attic-cache")
}

func serve(ctx context.Context, o serveOptions, out io.Writer) (err error) {
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	s, err := cacheserver.Open(ctx, cacheserver.Config{Data: o.data, StoreDir: o.storeDir, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("%w (is another server running? --listen takes another address)", err)
	}
	url := "http://" + l.Addr().String()
	fmt.Fprintf(out, "serving cache %q at %s, data in %s\n\nfor nix.conf:\n  extra-substituters = %s\n  extra-trusted-public-keys = %s\n\n",
		cacheserver.DefaultCache, url, o.data, url, s.PublicKey())
	return s.Serve(ctx, l)
}
