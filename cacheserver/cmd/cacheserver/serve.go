package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/config"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/observe"
)

func serveCommand() *cobra.Command {
	s := config.New()
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the cache until interrupted",
		Long: `Serves the Nix binary cache "main" under /main and at the root of the address,
and takes pushes to it. The cache and its signing key are made at the first
start. Without --auth, anyone who can reach the address can push: listen on a
network that you trust.

Every --gc-interval, what is past its cache's retention is removed; of several
servers over one index, one does it. With --max-size, what was used longest ago
goes until the packs fit.
` + enginesHelp + `

--config names a TOML file with any of these settings, with the caches that are to
be there, and with who may do what: cacheserver config example prints one.

/healthz answers ok while the server runs, /readyz while what it depends on is
there as well (/readyz?degraded=ok also while that is away). On SIGINT and SIGTERM,
/readyz says no; after --drain-delay, no more connections are taken, and requests
under way have --drain-time to end. A second signal ends it at once.

Exit status: 0 stopped, 1 failed, 2 bad usage.`,
		Example: `  cacheserver serve --listen 127.0.0.1:8080 --data /var/lib/attic-cache
  cacheserver serve --config /etc/cacheserver.toml --log-level debug
  cacheserver serve --storage s3://packs --s3-endpoint https://minio.example.org --index postgres://cache@db/cache
  nix build --option extra-substituters http://127.0.0.1:8080 …`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := load(cmd, s); err != nil {
				return err
			}
			return serve(cmd.Context(), s, cmd.OutOrStdout())
		},
	}
	s.AddFlags(cmd.Flags(), config.All)
	return cmd
}

func serve(ctx context.Context, o *config.Settings, out io.Writer) (err error) {
	if err := o.CheckAuth(); err != nil {
		return err
	}
	o.Server.Log = slog.New(logHandler(o))
	traces, flush, err := observe.Traces(ctx, o.Server.Log)
	if err != nil {
		return err
	}
	defer flush()
	o.Server.Traces = traces
	s, err := cacheserver.Open(ctx, o.Server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", o.Listen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w (is another server running? --listen takes another address)", err)
	case err != nil:
		return fmt.Errorf("%w (--listen takes another address, such as 127.0.0.1:8080)", err)
	}
	var onlyGRPC []net.Listener
	if o.GRPCListen != "" {
		g, err := lc.Listen(ctx, "tcp", o.GRPCListen)
		if err != nil {
			return errors.Join(fmt.Errorf("for --grpc-listen: %w", err), l.Close())
		}
		onlyGRPC = append(onlyGRPC, g)
	}
	url := "http://" + l.Addr().String()
	fmt.Fprintf(out, "serving cache %q at %s, data in %s\n\nfor nix.conf:\n  extra-substituters = %s\n  extra-trusted-public-keys = %s\n\n",
		cacheserver.DefaultCache, url, o.Server.Where(), url, s.PublicKey())
	if !s.NeedsTokens() {
		fmt.Fprintln(out, "anyone who can reach this address can push; --auth says who may do what")
	}
	return s.Serve(ctx, l, onlyGRPC...)
}

func logHandler(o *config.Settings) slog.Handler {
	options := &slog.HandlerOptions{Level: o.LogLevel}
	if o.Verbose {
		options.Level = slog.LevelDebug
	}
	if o.LogFormat == config.JSON {
		return slog.NewJSONHandler(os.Stderr, options)
	}
	return slog.NewTextHandler(os.Stderr, options)
}
