package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/credential"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/environment"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/verify"
)

func verifyCommand() *cobra.Command {
	var o verify.Options
	var files checkFiles
	var where place
	var tokenFile, audience string
	cmd := &cobra.Command{
		Use:   "verify [URL]",
		Short: "Find out whether a deployed cache does its work",
		Long: `Asks a cache for its nix-cache-info until the answer is right or the time is
over, and then sends a small new path around: it is pushed, its narinfo has to be
signed by the expected key, its NAR has to come back whole, and Nix, where it is
installed, has to substitute it into an empty store. Then it is deleted or, where
the token has not the right, left to the cache's retention (1.1 KB). Also looked at:
the certificate, Bazel's protocol, and how long a lookup takes.

Each attempt that fails is a line with its reason; the pauses grow from half a
second to 15. What time does not mend, such as a wrong key, is not tried again.

The cache is that of the URL or of --environment. Its key is expected to be one
that it tells itself, unless --trusted-public-key says which. The token comes from
--token-file, ATTIC_TOKEN, netrc or the job's own identity.

Exit status:
  0    the cache works
  2    bad usage
  40   it does not; the last lines say why and what to look at
  130  interrupted by SIGINT (143 by SIGTERM)`,
		Example: `  flywheel verify https://attic-cache.beehive.bates.edu
  flywheel verify --environment staging
  flywheel verify "$ENVIRONMENT_URL" --timeout 5m --report verify.json
  flywheel verify https://cache.nixos.org --read-only`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 == (where.name != "") {
				return usage(fmt.Errorf("want the URL of one cache or --environment, not %d arguments", len(args)))
			}
			if len(args) == 1 {
				o.URL = args[0]
			} else {
				e, err := where.environment()
				if err != nil {
					return err
				}
				o.URL = e.URL
				if o.GRPC == "" {
					o.GRPC = grpcOf(e)
				}
			}
			_, err := verify.Checks(o)
			return usageOf(errors.Join(err, files.check()))
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Token, err = credential.New(tokenFile, audience).For(cmd.Context(), o.URL); err != nil {
				return usage(err)
			}
			o.Nix, _ = exec.LookPath("nix") // without it, the checks do its part
			checks, err := verify.Checks(o)
			if err != nil {
				return usage(err)
			}
			err = runChecks(cmd, files, checks)
			var exit *exitError
			if errors.As(err, &exit) && exit.status == exitChecks {
				return &exitError{exitUnhealthy, exit.err}
			}
			return err
		},
	}
	f := cmd.Flags()
	where.flags(cmd)
	f.DurationVar(&o.Timeout, "timeout", verify.DefaultTimeout, "`time` until which a check may go on failing; 0 for one attempt")
	f.StringVar(&o.StoreDir, "store-dir", storepath.DefaultDir, "store `directory` that the cache has to be for")
	f.StringArrayVar(&o.PublicKeys, "trusted-public-key", nil, "`key` that has to sign (repeatable: one of them)")
	f.StringVar(&o.GRPC, "grpc", "", "`address` at which Bazel's protocol has to be spoken, as grpcs://HOST")
	f.DurationVar(&o.MaxLatency, "max-latency", 0, "`time` that half of the lookups may take; 0 for any")
	f.BoolVar(&o.ReadOnly, "read-only", false, "push nothing: for a cache that this machine may only read")
	f.StringVar(&tokenFile, "token-file", "", "`file` with the token for the cache (default "+tokenVariable+", netrc, the job's own identity)")
	f.StringVar(&audience, "audience", "", "whom an ID token of GitHub is made for (default the cache's scheme and host)")
	files.flags(cmd)
	return cmd
}

// grpcOf is where the module cache-server puts gRPC: at a name beside the host's,
// because a gateway's HTTPRoute and GRPCRoute may not share one. A label of a name has
// 63 characters at most (RFC 1035, 2.3.4).
func grpcOf(e environment.Environment) string {
	const suffix, most = "-grpc", 63
	first, rest, _ := strings.Cut(e.Host, ".")
	if len(first)+len(suffix) > most {
		sum := sha256.Sum256([]byte(first))
		first = fmt.Sprintf("%s-%x", first[:most-len(suffix)-9], sum[:4])
	}
	return "grpcs://" + first + suffix + "." + rest
}

// place is the environment that a command works on.
type place struct{ name, config string }

func (p *place) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.name, "environment", "", "`name`: staging, production, or review/BRANCH")
	cmd.Flags().StringVar(&p.config, "config", "", "TOML `file` of environments instead of the built-in one (default "+configVariable+")")
}

// environment is the one of that name; without a name, the CI job's own.
func (p *place) environment() (environment.Environment, error) {
	config, err := (&environmentOptions{config: p.config}).configuration()
	if err != nil {
		return environment.Environment{}, usage(err)
	}
	facts, err := environment.FromCI(os.Getenv)
	if p.name == "" {
		if err != nil {
			return environment.Environment{}, usage(fmt.Errorf("%w: say the environment with --environment", err))
		}
		e, err := environment.Map(config, facts)
		var none *environment.NoEnvironmentError
		if errors.As(err, &none) {
			return e, &exitError{exitNoEnvironment, err}
		}
		return e, usageOf(err)
	}
	e, err := environment.ByName(config, p.name, facts)
	return e, usageOf(err)
}
