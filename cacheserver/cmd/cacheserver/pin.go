package main

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/config"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
)

func pinCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pin",
		Short: "Keep paths, whatever the retention and the size limit",
		Long: `A pin keeps a path, and all that it refers to, from being collected. It has a
name, such as that of a branch or a release, and a name has revisions: the paths
pinned under it, one after the other.`,
	}
	cmd.AddCommand(pinAddCommand(), pinRemoveCommand(), pinListCommand())
	return cmd
}

func pinAddCommand() *cobra.Command {
	s := config.New()
	var cache string
	var expires time.Duration
	keep := 1
	cmd := &cobra.Command{
		Use:   "add NAME PATH",
		Short: "Pin a path under a name",
		Long: `Pins a path that the cache holds, as the newest revision of the name; all but the
newest --keep revisions are removed. PATH is a store path, its base name or its
hash.
` + enginesHelp + `

Exit status: 0 pinned, 1 failed, 2 bad usage.`,
		Example: `  cacheserver pin add release-1.4 /nix/store/…-app-1.4
  cacheserver pin add main /nix/store/…-app --keep 5 --expires 180d`,
		Args: exactly(2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if keep < 1 {
				return usageError{errors.New("--keep must be at least 1; pin remove removes pins")}
			}
			if err := nixcache.CheckPinName(args[0]); err != nil {
				return usageError{err}
			}
			return onCache(cmd, s, cache, func(e *cacheserver.Engines, id int64) error {
				hash, err := hashOf(args[1])
				if err != nil {
					return err
				}
				pin := index.Pin{CacheID: id, Name: args[0], Hash: hash}
				if expires != 0 {
					pin.Expires = time.Now().Add(expires)
				}
				err = e.Index.Update(cmd.Context(), func(tx index.Tx) error { return tx.AddPin(pin, keep) })
				if errors.Is(err, index.ErrNotFound) {
					return fmt.Errorf("cache %q does not hold %s: push it first", cache, args[1])
				}
				return err
			})
		},
	}
	f := cmd.Flags()
	s.AddFlags(f, config.Engines)
	cacheFlag(f, &cache)
	f.Var(config.Age(&expires), "expires", "when the pin ends, such as 30d")
	f.Lookup("expires").DefValue = "never" // an age has "off" for it
	f.IntVar(&keep, "keep", keep, "how many revisions of the name to keep")
	return cmd
}

func pinRemoveCommand() *cobra.Command {
	s := config.New()
	var cache string
	cmd := &cobra.Command{
		Use:   "remove NAME [PATH]",
		Short: "Remove the pins of a name, or its pin on one path",
		Long: `Removes pins. The paths are collected once they are past their retention.
` + enginesHelp + `

Exit status: 0 removed, 1 there is no such pin, or failed, 2 bad usage.`,
		Example: "  cacheserver pin remove release-1.3",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.RangeArgs(1, 2)(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return onCache(cmd, s, cache, func(e *cacheserver.Engines, id int64) (err error) {
				hash := ""
				if len(args) == 2 {
					if hash, err = hashOf(args[1]); err != nil {
						return err
					}
				}
				var n int
				err = e.Index.Update(cmd.Context(), func(tx index.Tx) (err error) {
					n, err = tx.RemovePins(id, args[0], hash)
					return err
				})
				if err == nil && n == 0 {
					err = fmt.Errorf("cache %q has no such pin; pin list shows those it has", cache)
				}
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "%d removed\n", n)
				}
				return err
			})
		},
	}
	s.AddFlags(cmd.Flags(), config.Engines)
	cacheFlag(cmd.Flags(), &cache)
	return cmd
}

func pinListCommand() *cobra.Command {
	s := config.New()
	var cache string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the pins of a cache",
		Long: `Lists pins by name, the newest revision of each first.
` + enginesHelp,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return onCache(cmd, s, cache, func(e *cacheserver.Engines, id int64) error {
				pins, err := e.Index.Pins(cmd.Context(), id)
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "NAME\tPATH\tPINNED\tEXPIRES")
				for _, p := range pins {
					fmt.Fprintf(w, "%s\t%s-%s\t%s\t%s\n", p.Name, p.Hash, p.PathName, day(p.Created), day(p.Expires))
				}
				return w.Flush()
			})
		},
	}
	s.AddFlags(cmd.Flags(), config.Engines)
	cacheFlag(cmd.Flags(), &cache)
	return cmd
}
