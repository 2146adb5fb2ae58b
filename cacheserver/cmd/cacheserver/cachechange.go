package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/config"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

// changeFlags are the flags that set something of a cache.
type changeFlags struct {
	public       bool
	priority     int64
	retention    string
	upstreamKeys []string
}

func (c *changeFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&c.public, "public", true, "whoever reaches the server may read it; --public=false: who has the right")
	f.Int64Var(&c.priority, "priority", 41, "Nix asks caches with a lower one first; cache.nixos.org has 40")
	f.StringVar(&c.retention, "retention", "global", "how long paths live after their last use: an `age` such as 30d, off for ever, or global")
	f.StringSliceVar(&c.upstreamKeys, "upstream-keys", []string{"cache.nixos.org-1"}, "`names` of keys: what these have signed need not be pushed")
}

// change is what the given flags set.
func (c *changeFlags) change(f *pflag.FlagSet) (cacheserver.CacheChange, error) {
	var change cacheserver.CacheChange
	if f.Changed("public") {
		change.Public = &c.public
	}
	if f.Changed("priority") {
		if err := cacheserver.CheckPriority(c.priority); err != nil {
			return change, usageError{fmt.Errorf("--priority %d: %w", c.priority, err)}
		}
		priority := int(c.priority)
		change.Priority = &priority
	}
	if f.Changed("retention") {
		kept, err := config.ParseRetention(c.retention)
		if err != nil {
			return change, usageError{fmt.Errorf("--retention %q: %w", c.retention, err)}
		}
		change.Retention = &kept
	}
	if f.Changed("upstream-keys") {
		if err := nixcache.CheckUpstreamKeys(c.upstreamKeys); err != nil {
			return change, usageError{fmt.Errorf("--upstream-keys: %w", err)}
		}
		change.UpstreamKeys = c.upstreamKeys
	}
	return change, nil
}

func cacheCreateCommand() *cobra.Command {
	s := config.New()
	var flags changeFlags
	storeDir := storepath.DefaultDir
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a cache, and print its public key",
		Long: `Makes a cache with a key of its own, in the store that the others share. It answers
under /NAME of the running servers' addresses at once, and its public key is printed
as nix.conf wants it.
` + enginesHelp + `

Exit status: 0 made, 1 there is one of that name, or failed, 2 bad usage.`,
		Example: `  cacheserver cache create team
  cacheserver cache create release --retention off --priority 30
  cacheserver cache create secret --public=false --data /var/lib/attic-cache`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := nixcache.CheckCacheName(args[0]); err != nil {
				return usageError{err}
			}
			if err := config.CheckStoreDir(storeDir); err != nil {
				return usageError{fmt.Errorf("--store-dir %q: %w", storeDir, err)}
			}
			change, err := flags.change(cmd.Flags())
			if err != nil {
				return err
			}
			e, err := open(cmd, s)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, e.Close()) }()
			c, err := cacheserver.CreateCache(cmd.Context(), e.Index, args[0], path.Clean(storeDir), change)
			if errors.Is(err, index.ErrExists) {
				return fmt.Errorf("there is a cache %q already: cacheserver cache configure changes it", args[0])
			}
			if err != nil {
				return err
			}
			return printKeys(cmd.OutOrStdout(), c)
		},
	}
	s.AddFlags(cmd.Flags(), config.Engines)
	flags.add(cmd.Flags())
	cmd.Flags().StringVar(&storeDir, "store-dir", storeDir, "the clients' store `directory`, which it has for ever")
	return cmd
}

func cacheConfigureCommand() *cobra.Command {
	s := config.New()
	var flags changeFlags
	cmd := &cobra.Command{
		Use:   "configure NAME",
		Short: "Change what is set of a cache",
		Long: `Sets what the flags say, and leaves the rest as it is. Running servers follow within
a minute. What the configuration file declares of a cache is set again when a server
starts.
` + enginesHelp + `

Exit status: 0 changed, 1 there is no such cache, or failed, 2 bad usage.`,
		Example: `  cacheserver cache configure main --public=false
  cacheserver cache configure main --upstream-keys cache.nixos.org-1,partner-1`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := flags.change(cmd.Flags())
			if err != nil {
				return err
			}
			if change.Public == nil && change.Priority == nil && change.Retention == nil && change.UpstreamKeys == nil {
				return usageError{errors.New("nothing is to be changed: --public, --priority, --retention or --upstream-keys says what")}
			}
			return onWholeCache(cmd, s, args[0], func(e *cacheserver.Engines, c index.Cache) error {
				return e.Index.Update(cmd.Context(), func(tx index.Tx) error {
					return tx.UpdateCache(c.ID, func(c *index.Cache) error {
						change.Apply(c)
						return nil
					})
				})
			})
		},
	}
	s.AddFlags(cmd.Flags(), config.Engines)
	flags.add(cmd.Flags())
	return cmd
}

func cacheDestroyCommand() *cobra.Command {
	s := config.New()
	var yes bool
	cmd := &cobra.Command{
		Use:   "destroy NAME",
		Short: "Remove a cache with its paths, pins and keys",
		Long: `Removes a cache for good: its paths, its pins and its keys, so that one that is made
of the same name later has other keys. It asks for the name once more, unless --yes
is given. Running servers follow within a minute, and space is free after the next
collection. "main" is made anew, with a new key, when a server starts.
` + enginesHelp + `

Exit status: 0 removed, 1 there is no such cache, it was not to be after all, or
failed, 2 bad usage.`,
		Example: `  cacheserver cache destroy team
  cacheserver cache destroy review-42 --yes`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onWholeCache(cmd, s, args[0], func(e *cacheserver.Engines, c index.Cache) error {
				if !yes {
					fmt.Fprintf(cmd.ErrOrStderr(), "This removes the cache %q with all its paths, pins and keys, for good.\nIts name again, to go on: ", c.Name)
					if err := confirm(cmd.InOrStdin(), c.Name); err != nil {
						return err
					}
				}
				return e.Index.Update(cmd.Context(), func(tx index.Tx) error { return tx.RemoveCache(c.ID) })
			})
		},
	}
	s.AddFlags(cmd.Flags(), config.Engines)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// confirm wants a line with a name.
func confirm(in io.Reader, name string) error {
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the name: %w", err)
	}
	if strings.TrimSpace(line) != name {
		return fmt.Errorf("that is not %q: nothing was removed (--yes does not ask)", name)
	}
	return nil
}

// onWholeCache opens the engines for work on one cache itself.
func onWholeCache(cmd *cobra.Command, s *config.Settings, name string, work func(*cacheserver.Engines, index.Cache) error) (err error) {
	e, err := open(cmd, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	c, err := e.Index.Cache(cmd.Context(), name)
	if errors.Is(err, index.ErrNotFound) {
		return fmt.Errorf("there is no cache %q; cacheserver cache list shows those that are there", name)
	}
	if err != nil {
		return err
	}
	return work(e, c)
}
