package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/config"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

func pathCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "path", Short: "Remove single paths"}
	cmd.AddCommand(pathDeleteCommand())
	return cmd
}

func pathDeleteCommand() *cobra.Command {
	s := config.New()
	var cache string
	var referrers bool
	cmd := &cobra.Command{
		Use:   "delete PATH",
		Short: "Remove a path from a cache",
		Long: `Removes a path from a cache. Where other paths refer to it, they are listed and
nothing is removed, unless --referrers removes them with it: a closure is never
left broken. So it is with pinned paths: remove the pin first. Clients may see the
path for another minute. Its space is free after the next collection.

PATH is a store path, its base name or its hash.
` + enginesHelp + `

Exit status: 0 removed, 1 something needs it, it is not there, or failed, 2 bad usage.`,
		Example: `  cacheserver path delete /nix/store/…-app-1.4
  cacheserver path delete /nix/store/…-openssl-3.0.1 --referrers`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onCache(cmd, s, cache, func(e *cacheserver.Engines, id int64) error {
				hash, err := hashOf(args[0])
				if err != nil {
					return err
				}
				return deletePath(cmd.Context(), e.Index, id, hash, referrers, cmd.OutOrStdout())
			})
		},
	}
	s.AddFlags(cmd.Flags(), config.Engines)
	cacheFlag(cmd.Flags(), &cache)
	cmd.Flags().BoolVar(&referrers, "referrers", false, "remove the paths that refer to it as well")
	return cmd
}

func deletePath(ctx context.Context, x index.Index, cache int64, hash string, withReferrers bool, out io.Writer) error {
	p, err := x.Path(ctx, cache, hash)
	if errors.Is(err, index.ErrNotFound) {
		return fmt.Errorf("the cache does not hold %s", hash)
	}
	if err != nil {
		return err
	}
	doomed := []index.PathName{{CacheID: cache, Hash: hash, Name: p.Name}}
	seen := map[string]bool{hash: true}
	for i := 0; i < len(doomed); i++ {
		referrers, err := x.Referrers(ctx, cache, doomed[i].Hash)
		if err != nil {
			return err
		}
		for _, r := range referrers {
			if !seen[r.Hash] {
				seen[r.Hash] = true
				doomed = append(doomed, r)
			}
		}
	}
	if others := doomed[1:]; len(others) > 0 && !withReferrers {
		for _, r := range others {
			fmt.Fprintln(out, r)
		}
		return fmt.Errorf("%d paths, listed above, refer to it: --referrers removes them, too", len(others))
	}
	pins, err := x.Pins(ctx, cache)
	if err != nil {
		return err
	}
	for _, pin := range pins {
		if seen[pin.Hash] && (pin.Expires.IsZero() || pin.Expires.After(time.Now())) {
			return fmt.Errorf("%s-%s is pinned as %q: cacheserver pin remove %s removes the pin", pin.Hash, pin.PathName, pin.Name, pin.Name)
		}
	}
	if err := x.Update(ctx, func(tx index.Tx) error { return removeAll(tx, cache, doomed) }); err != nil {
		return err
	}
	for _, d := range slices.Backward(doomed) {
		fmt.Fprintln(out, "removed", d)
	}
	return nil
}

// removeAll removes paths that only they themselves need, or none: since they
// were looked for, a push may have referred to one, or a pin been set.
func removeAll(tx index.Tx, cache int64, paths []index.PathName) error {
	left := map[string]bool{}
	for _, p := range paths {
		left[p.Hash] = true
	}
	for free := slices.Collect(maps.Keys(left)); len(left) > 0; {
		removed, freed, err := tx.RemoveUnused(cache, free, index.WheneverUsed())
		if err != nil {
			return err
		}
		if len(removed) == 0 {
			return errors.New("something else needs it now, or paths refer to each other in a circle: nothing was removed")
		}
		for _, h := range removed {
			delete(left, h)
		}
		free = slices.DeleteFunc(freed, func(h string) bool { return !left[h] })
	}
	return nil
}

// hashOf returns the hash of a path that is given whole, by base name or by hash.
func hashOf(arg string) (string, error) {
	base := path.Base(arg)
	if storepath.CheckHash(base) == nil {
		return base, nil
	}
	hash, _, err := storepath.Split(base)
	if err != nil {
		return "", usageError{err}
	}
	return hash, nil
}

func cacheFlag(f *pflag.FlagSet, name *string) {
	f.StringVar(name, "cache", cacheserver.DefaultCache, "`name` of the cache")
}

// onCache opens the engines for work on one cache.
func onCache(cmd *cobra.Command, s *config.Settings, name string, work func(e *cacheserver.Engines, cache int64) error) error {
	return onWholeCache(cmd, s, name, func(e *cacheserver.Engines, c index.Cache) error { return work(e, c.ID) })
}
