package main

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/config"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

func cacheCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cache", Short: "Make, list, change and remove caches, and their keys"}
	cmd.AddCommand(cacheListCommand(), cacheCreateCommand(), cacheConfigureCommand(), cacheRetentionCommand(),
		cacheDestroyCommand(), cacheRotateKeyCommand(), cacheKeysCommand())
	return cmd
}

func cacheListCommand() *cobra.Command {
	s := config.New()
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the caches and what the store holds",
		Long: `Lists the caches, and counts what the store holds.
` + enginesHelp,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			e, err := open(cmd, s)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, e.Close()) }()
			caches, err := e.Index.Caches(cmd.Context())
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tSTORE\tPRIORITY\tRETENTION\tREADABLE BY\tKEYS")
			for _, cache := range caches {
				readers := "who may"
				if cache.Public {
					readers = "all"
				}
				fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%d\n", cache.Name, cache.StoreDir, cache.Priority,
					config.RetentionText(cache.Retention), readers, len(cache.SecretKeys))
			}
			if err := w.Flush(); err != nil {
				return err
			}
			u, err := e.Index.Usage(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "\n%d paths, %d blobs of %s, %d chunks of %s, %d packs of %s (%s dead)\n",
				u.Paths, u.Blobs, bytesize.Text(u.BlobBytes), u.Chunks, bytesize.Text(u.ChunkBytes), u.Packs, bytesize.Text(u.PackBytes), bytesize.Text(u.DeadBytes))
			return nil
		},
	}
	s.AddFlags(cmd.Flags(), config.Engines)
	return cmd
}

func cacheRetentionCommand() *cobra.Command {
	s := config.New()
	cmd := &cobra.Command{
		Use:   "retention NAME AGE|off|global",
		Short: "Say how long a cache keeps paths after their last use",
		Long: `Sets how long a path lives after its last use: days such as 90d, hours such as
12h, off for ever, or global, which is what a new cache has: as the --retention
of serve and gc says.
` + enginesHelp,
		Example: "  cacheserver cache retention main 30d",
		Args:    exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			retention, err := config.ParseRetention(args[1])
			if err != nil {
				return usageError{fmt.Errorf("%q: %w", args[1], err)}
			}
			return onCache(cmd, s, args[0], func(e *cacheserver.Engines, id int64) error {
				return e.Index.Update(cmd.Context(), func(tx index.Tx) error { return tx.SetRetention(id, retention) })
			})
		},
	}
	s.AddFlags(cmd.Flags(), config.Engines)
	return cmd
}
