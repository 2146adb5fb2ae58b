package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/credential"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nixconf"
)

type useOptions struct {
	cache               string
	system, user, print bool
	remove              bool
	keys                []string
	tokenFile           string
}

func useCommand() *cobra.Command {
	var o useOptions
	cmd := &cobra.Command{
		Use:   "use URL[/NAME]",
		Short: "Let this machine's Nix pull from a cache",
		Long: `Writes a cache into nix.conf: its address, its public keys, for which it is asked,
and that Nix builds by itself while the cache is away. The lines stand between two
marks, so that a second call changes nothing, a new key takes the old one's place,
and --remove takes them back. All other lines stay as they are.

--system writes /etc/nix/nix.conf (NIX_CONF_DIR), which is the default for root;
--user writes ~/.config/nix/nix.conf (XDG_CONFIG_HOME, NIX_USER_CONF_FILES), which a
Nix daemon heeds for trusted users only; --print writes to standard output.

The token of --token-file is put into the netrc file that nix.conf names, or one
beside it.

Exit status:
  0    nix.conf is as it should be
  1    it is not; the message says why and what to do instead
  2    bad usage
  130  interrupted by SIGINT (143 by SIGTERM)`,
		Example: `  sudo flywheel use https://cache.example.org/main
  flywheel use https://cache.example.org/main --user --token-file ~/.attic-token
  flywheel use https://cache.example.org/main --print >>cache.conf
  flywheel use --remove https://cache.example.org/main    # without a URL, all of them`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.cache = strings.TrimSuffix(args[0], "/")
			}
			return usageOf(o.check(args))
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return use(cmd, o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.system, "system", false, "write the machine's nix.conf")
	f.BoolVar(&o.user, "user", false, "write the user's nix.conf")
	f.BoolVar(&o.print, "print", false, "print the lines and write nothing")
	f.BoolVar(&o.remove, "remove", false, "take back what was written")
	f.StringArrayVar(&o.keys, "trusted-public-key", nil, "`key` of a cache that does not tell its own (repeatable)")
	f.StringVar(&o.tokenFile, "token-file", "", "`file` with a token for the cache, which is put into netrc")
	return cmd
}

func (o *useOptions) check(args []string) error {
	targets := 0
	for _, on := range []bool{o.system, o.user, o.print} {
		if on {
			targets++
		}
	}
	switch {
	case len(args) > 1:
		return fmt.Errorf("want one cache, not %d", len(args))
	case targets > 1:
		return errors.New("--system, --user and --print exclude one another")
	case o.remove && (o.print || o.tokenFile != "" || len(o.keys) > 0):
		return errors.New("--remove takes a URL, --system and --user only")
	case o.cache == "" && !o.remove:
		return errors.New("which cache? As in: flywheel use https://cache.example.org/main")
	case o.cache == "":
		return nil
	}
	if _, err := push.NewClient(o.cache); err != nil {
		return err
	}
	if strings.ContainsAny(o.cache, " \t#") {
		return fmt.Errorf("cache URL %q: white space and # cannot stand in nix.conf", o.cache)
	}
	for _, key := range o.keys {
		if err := nixconf.CheckKey(key); err != nil {
			return fmt.Errorf("--trusted-public-key: %w", err)
		}
	}
	return nil
}

func (o *useOptions) file() (string, error) {
	if o.system || (!o.user && os.Geteuid() == 0) {
		return nixconf.SystemFile(), nil
	}
	return nixconf.UserFile()
}

func use(cmd *cobra.Command, o useOptions) error {
	file, err := o.file()
	if err != nil {
		return err
	}
	if o.remove {
		return useNoMore(cmd, o, file)
	}
	token, err := credential.New(o.tokenFile, "").For(cmd.Context(), o.cache)
	if err != nil {
		return err
	}
	cache, err := o.ask(cmd, token)
	if err != nil {
		return err
	}
	if o.print {
		lines, err := nixconf.Lines(cache, nil)
		if err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), strings.Join(lines, "\n"))
		return nil
	}
	if o.tokenFile == "" {
		token = "" // of this run, and no affair of nix.conf's
	}
	changed, err := nixconf.Use(file, cache, token)
	if err != nil {
		return o.instead(err, cache)
	}
	tell := cmd.ErrOrStderr()
	if changed {
		fmt.Fprintf(tell, "%s uses %s now, with the key %s\n", file, cache.URL, strings.Join(cache.PublicKeys, " "))
	} else {
		fmt.Fprintf(tell, "%s uses %s already\n", file, cache.URL)
	}
	return useHolds(cmd.Context(), tell, cache, changed)
}

// ask asks the cache for its keys; those that were given take their place.
func (o *useOptions) ask(cmd *cobra.Command, token string) (nixconf.Cache, error) {
	cache, err := nixconf.Ask(cmd.Context(), o.cache, token)
	switch {
	case len(o.keys) > 0:
		cache.PublicKeys = o.keys
		if err != nil && !errors.Is(err, nixconf.ErrNoKey) {
			fmt.Fprintf(cmd.ErrOrStderr(), "%v; going on with the key that was given\n", err)
		}
		return cache, nil
	case errors.Is(err, nixconf.ErrNoKey):
		return cache, fmt.Errorf("%w: give it with --trusted-public-key NAME:BASE64, and have it from whoever runs the cache", err)
	}
	if err != nil {
		return cache, fmt.Errorf("%w: `flywheel doctor %s` finds what is wrong there; --trusted-public-key NAME:BASE64 needs no answer", err, cache.URL)
	}
	return cache, nil
}

// instead says what to do where the file cannot be written.
func (o *useOptions) instead(err error, cache nixconf.Cache) error {
	switch {
	case errors.Is(err, nixconf.ErrReadOnly):
		return fmt.Errorf("%w\nWhere NixOS or Home Manager makes it, add to its configuration, and switch to it:\n  %s",
			err, strings.Join(nixconf.Module(cache), "\n  "))
	case errors.Is(err, nixconf.ErrNotAllowed) && o.system:
		return fmt.Errorf("%w: run it as root, or with --user", err)
	case errors.Is(err, nixconf.ErrNotAllowed):
		return fmt.Errorf("%w: look whose it is, or add by hand what --print prints", err)
	}
	return err
}

func useNoMore(cmd *cobra.Command, o useOptions, file string) error {
	removed, err := nixconf.Remove(file, o.cache)
	if err != nil {
		return o.instead(err, nixconf.Cache{URL: o.cache})
	}
	if len(removed) == 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s holds nothing that flywheel use wrote for %s\n", file, orAny(o.cache))
	}
	for _, c := range removed {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s uses %s no more\n", file, c)
	}
	return nil
}

func orAny(cache string) string {
	if cache == "" {
		return "any cache"
	}
	return cache
}

// useHolds asks nix itself whether it uses the cache now, and tells what keeps it
// from that.
func useHolds(ctx context.Context, tell io.Writer, cache nixconf.Cache, changed bool) error {
	n, err := nix.Find(ctx)
	if err != nil {
		fmt.Fprintf(tell, "whether Nix heeds it is not known: %v\n", err)
		return nil
	}
	mine, machine, u, err := nixSettings(ctx, n)
	if err != nil {
		return err
	}
	for _, r := range nixconf.Ignored(mine, machine, u, cache) {
		fmt.Fprintf(tell, "nix does not use it yet: %s\n", r.What)
		for _, line := range r.Do {
			fmt.Fprintf(tell, "  %s\n", line)
		}
	}
	if machine != nil && changed {
		fmt.Fprintln(tell, "the Nix daemon reads it at its next start: systemctl restart nix-daemon, as root")
	}
	return nil
}

// nixSettings returns this user's settings of nix and, where there is a daemon,
// those of the machine.
func nixSettings(ctx context.Context, n *nix.Nix) (mine, machine nixconf.Effective, u *user.User, err error) {
	if mine, err = nixconf.Read(ctx, n, false); err != nil {
		return nil, nil, nil, err
	}
	settings, err := n.Settings(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	if store, err := settings.Locate(); err == nil && store.Daemon {
		if machine, err = nixconf.Read(ctx, n, true); err != nil {
			return nil, nil, nil, err
		}
	}
	if u, err = user.Current(); err != nil {
		return nil, nil, nil, fmt.Errorf("finding out who you are: %w", err)
	}
	return mine, machine, u, nil
}
