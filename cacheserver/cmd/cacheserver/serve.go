package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/auth"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

type serveOptions struct {
	cacheserver.Config
	listen, grpcListen string
	auth               string
	packCache, maxSize size
	retention          age
	verbose            bool
}

func serveCommand() *cobra.Command {
	var o serveOptions
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

On SIGINT and SIGTERM, requests under way have 30 s to end.

Exit status: 0 stopped, 1 failed, 2 bad usage.`,
		Example: `  cacheserver serve --listen 127.0.0.1:8080 --data /var/lib/attic-cache
  cacheserver serve --storage s3://packs --s3-endpoint https://minio.example.org --index postgres://cache@db/cache
  nix build --option extra-substituters http://127.0.0.1:8080 …`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd); err != nil {
				return err
			}
			return serve(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:8080", "`address` to listen on; port 0 takes a free one")
	f.StringVar(&o.grpcListen, "grpc-listen", "", "`address` to answer gRPC alone on; --listen answers it, too")
	engineFlags(f, &o.Config)
	o.packCache = 10 << 30
	f.Var(&o.packCache, "pack-cache", "how much of the packs on S3 is kept in --data as well; 0 for none")
	f.BoolVar(&o.Redirect, "s3-redirect", false, "send clients to S3 itself for NARs that are all that their pack holds")
	f.Var(&o.maxSize, "max-size", "how much the packs may take, such as 200GB (default no limit)")
	retentionFlag(f, &o.retention)
	f.DurationVar(&o.CollectEvery, "gc-interval", time.Hour, "how often to collect; 0 for never")
	f.StringVar(&o.auth, "auth", "", "TOML `file` whose table [auth] says who may do what (default everyone everything)")
	f.StringVar(&o.PublicURL, "public-url", "", "`URL` where clients reach the server (default as their requests say)")
	f.StringVar(&o.StoreDir, "store-dir", storepath.DefaultDir, "the clients' store `directory`")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log every request")
	return cmd
}

func serve(ctx context.Context, o serveOptions, out io.Writer) (err error) {
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	o.S3.AccessKeyID, o.S3.SecretAccessKey = os.Getenv("S3_ACCESS_KEY_ID"), os.Getenv("S3_SECRET_ACCESS_KEY")
	o.PackCache, o.Policy.MaxSize, o.Policy.Retention = int64(o.packCache), int64(o.maxSize), o.retention.policy()
	if o.Auth, err = readAuth(o.auth); err != nil {
		return err
	}
	s, err := cacheserver.Open(ctx, o.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("%w (is another server running? --listen takes another address)", err)
	}
	var onlyGRPC []net.Listener
	if o.grpcListen != "" {
		g, err := lc.Listen(ctx, "tcp", o.grpcListen)
		if err != nil {
			return errors.Join(fmt.Errorf("for --grpc-listen: %w", err), l.Close())
		}
		onlyGRPC = append(onlyGRPC, g)
	}
	url := "http://" + l.Addr().String()
	fmt.Fprintf(out, "serving cache %q at %s, data in %s\n\nfor nix.conf:\n  extra-substituters = %s\n  extra-trusted-public-keys = %s\n\n",
		cacheserver.DefaultCache, url, o.Where(), url, s.PublicKey())
	if !s.NeedsTokens() {
		fmt.Fprintln(out, "anyone who can reach this address can push; --auth says who may do what")
	}
	return s.Serve(ctx, l, onlyGRPC...)
}

// readAuth reads who may do what. Keys may be in the environment instead.
func readAuth(file string) (auth.Config, error) {
	if file == "" {
		return auth.Config{}, nil
	}
	var c struct {
		Auth auth.Config `toml:"auth"`
	}
	known, err := toml.DecodeFile(file, &c)
	if err != nil {
		var at toml.ParseError
		if errors.As(err, &at) {
			return auth.Config{}, fmt.Errorf("%s:%d: %s", file, at.Position.Line, at.Message)
		}
		return auth.Config{}, fmt.Errorf("reading who may do what: %w", err)
	}
	if extra := known.Undecoded(); len(extra) > 0 {
		return auth.Config{}, fmt.Errorf("%s: there is no setting %s", file, extra[0])
	}
	c.Auth.Keys, err = auth.KeysFrom(os.Getenv)
	return c.Auth, err
}
