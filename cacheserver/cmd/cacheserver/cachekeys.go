package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/config"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nixcache"
)

func cacheRotateKeyCommand() *cobra.Command {
	s := config.New()
	var file string
	cmd := &cobra.Command{
		Use:   "rotate-key NAME",
		Short: "Give a cache a new signing key, and print all its public keys",
		Long: `Makes a key, or takes that of --key-file, and puts it before those that sign for the
cache. All of them sign, four at most, so that clients that trust only an old one
go on; the oldest beyond that signs no more, and is named. Running servers follow
within a minute. Tell clients the new key, which is printed first.

--key-file has a secret key as nix-store --generate-binary-cache-key writes it.
` + enginesHelp + `

Exit status: 0 done, 1 there is no such cache, or failed, 2 bad usage.`,
		Example: `  cacheserver cache rotate-key main
  cacheserver cache rotate-key main --key-file cache.example.org-1.secret`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := newKey(args[0], file)
			if err != nil {
				return err
			}
			return onWholeCache(cmd, s, args[0], func(e *cacheserver.Engines, c index.Cache) error {
				var before, after index.Cache
				if err := e.Index.Update(cmd.Context(), func(tx index.Tx) error {
					return tx.UpdateCache(c.ID, func(c *index.Cache) error {
						before = *c
						nixcache.AddKey(c, key)
						after = *c
						return nil
					})
				}); err != nil {
					return err
				}
				if err := printRetired(cmd.ErrOrStderr(), before, after); err != nil {
					return err
				}
				return printKeys(cmd.OutOrStdout(), after)
			})
		},
	}
	s.AddFlags(cmd.Flags(), config.Engines)
	cmd.Flags().StringVar(&file, "key-file", "", "`file` with a secret key that exists")
	return cmd
}

func newKey(cache, file string) (narinfo.SecretKey, error) {
	if file == "" {
		return nixcache.NewKey(cache)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return narinfo.SecretKey{}, fmt.Errorf("reading the key: %w", err)
	}
	key, err := narinfo.ParseSecretKey(string(text))
	if err != nil {
		return key, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

func cacheKeysCommand() *cobra.Command {
	s := config.New()
	cmd := &cobra.Command{
		Use:   "keys NAME",
		Short: "Print the public keys of a cache",
		Long: `Prints the public keys that sign for a cache, the newest first, as they stand in
trusted-public-keys of nix.conf.
` + enginesHelp + `

Exit status: 0 printed, 1 there is no such cache, or failed, 2 bad usage.`,
		Example: `  cacheserver cache keys main`,
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onWholeCache(cmd, s, args[0], func(_ *cacheserver.Engines, c index.Cache) error {
				return printKeys(cmd.OutOrStdout(), c)
			})
		},
	}
	s.AddFlags(cmd.Flags(), config.Engines)
	return cmd
}

func printKeys(out io.Writer, c index.Cache) error {
	keys, err := nixcache.PublicKeys(c)
	for _, k := range keys {
		fmt.Fprintln(out, k)
	}
	return err
}

// printRetired names the keys that sign no more.
func printRetired(out io.Writer, before, after index.Cache) error {
	old, err := nixcache.PublicKeys(before)
	now, err2 := nixcache.PublicKeys(after)
	sign := map[string]bool{}
	for _, k := range now {
		sign[k] = true
	}
	for _, k := range old {
		if !sign[k] {
			fmt.Fprintf(out, "signs no more: %s\n", k)
		}
	}
	return errors.Join(err, err2)
}
