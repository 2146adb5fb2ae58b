package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/collect"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/config"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

func gcCommand() *cobra.Command {
	s := config.New()
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove what is past its retention, now",
		Long: `Removes paths that were last used longer ago than their cache's retention, unless
they are pinned or something that stays refers to them; then blobs, chunks and
packs that nothing needs any more. Half-empty packs are rewritten. With
--max-size, what was used longest ago goes until the packs fit.

Servers may go on serving and taking pushes; one collector runs at a time. It may
be interrupted, or killed, at any moment.
` + enginesHelp + `

Exit status: 0 collected, 1 failed or another collector is at work, 2 bad usage.`,
		Example: `  cacheserver gc --dry-run
  cacheserver gc --max-size 200GB --data /var/lib/attic-cache`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			e, err := open(cmd, s)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, e.Close()) }()
			collector := e.Collector()
			if dryRun {
				return planCollection(cmd.Context(), collector, cmd.OutOrStdout())
			}
			r, err := collector.Run(cmd.Context())
			if errors.Is(err, index.ErrLocked) {
				return errors.New("another process is collecting, or checking, this store: try again when it is through")
			}
			printCollection(cmd.OutOrStdout(), r)
			return err
		},
	}
	f := cmd.Flags()
	s.AddFlags(f, config.Engines|config.Collection)
	f.BoolVar(&dryRun, "dry-run", false, "only say which paths would go")
	return cmd
}

func planCollection(ctx context.Context, c *collect.Collector, out io.Writer) error {
	plan, err := c.Plan(ctx, func(p index.UsedPath, why collect.Reason) {
		fmt.Fprintf(out, "%s  last used %s, %s, %s\n", p.PathName, day(p.Used), bytesize.Text(p.FileSize), why)
	})
	if err != nil {
		return err
	}
	if plan.Held > 0 {
		fmt.Fprintf(out, "would remove %d blobs without a path (%s stored), %s\n", plan.Held, bytesize.Text(plan.HeldBytes), collect.ReasonSize)
	}
	fmt.Fprintf(out, "would remove %d paths (NARs of %s, at most %s stored); the packs take %s, of which %s are dead already\n",
		plan.Paths, bytesize.Text(plan.NARBytes), bytesize.Text(plan.FileBytes), bytesize.Text(plan.Stored), bytesize.Text(plan.Dead))
	return nil
}

func printCollection(out io.Writer, r collect.Report) {
	fmt.Fprintf(out, "paths    %d removed, %d evicted\n", r.Paths, r.Evicted)
	fmt.Fprintf(out, "names    %d objects and %d action results removed, %d blobs without a name evicted\n", r.Objects, r.Actions, r.Released)
	fmt.Fprintf(out, "blobs    %d removed (%s uncompressed)\n", r.Blobs, bytesize.Text(r.BlobBytes))
	fmt.Fprintf(out, "chunks   %d removed (%s stored)\n", r.Chunks, bytesize.Text(r.ChunkBytes))
	fmt.Fprintf(out, "packs    %d deleted, %d compacted, %d orphans deleted\n", r.PacksDeleted, r.PacksCompacted, r.Orphans)
	fmt.Fprintf(out, "storage  %s freed, %s in use, in %s\n", bytesize.Text(r.Freed), bytesize.Text(r.Stored), r.Took.Round(time.Millisecond))
	if r.OverLimit > 0 {
		fmt.Fprintf(out, "still %s over --max-size: what is left is pinned, or was in use within the grace\n", bytesize.Text(r.OverLimit))
	}
	if r.Foreign > 0 {
		fmt.Fprintf(out, "%d packs are older than the index, and unknown to it, and were left alone: cacheserver fsck --repair makes it know them\n", r.Foreign)
	}
	for _, p := range r.Damaged {
		fmt.Fprintf(out, "pack %s is damaged and was left as it is: cacheserver fsck tells more\n", p)
	}
}
