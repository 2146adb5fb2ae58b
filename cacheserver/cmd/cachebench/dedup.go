package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
)

type dedupOptions struct {
	common
	corpus
	sample size
}

func dedupCommand() *cobra.Command {
	o := dedupOptions{sample: 256 << 20}
	cmd := &cobra.Command{
		Use:   "dedup [DIR|FILE.nar…]",
		Short: "Average chunk sizes and compression levels, on NARs of your own",
		Long: `Cuts the NARs by each average chunk size, and tells how many chunks and bytes are
left of them, against one zstd stream for each NAR at the same level; and how
fast what is stored unpacks. Then compares the compression levels at the average
that is in use, and what chunks cost that do not compress.

Name what is pushed to a cache in the order in which it is: a release, then the
next one.
` + corpusHelp,
		Example: `  cachebench dedup ./app-1.4 ./app-1.5
  cachebench dedup --npm typescript@6.0.2,typescript@6.0.3
  cachebench dedup --deb libssl3=3.0.20-1~deb12u2,libssl3`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.inTemp(func(dir string) error {
				archives, err := o.load(cmd.Context(), cmd.ErrOrStderr(), dir, args)
				if err != nil {
					return err
				}
				return dedup(cmd.Context(), o, dir, archives, cmd.OutOrStdout(), cmd.ErrOrStderr())
			})
		},
	}
	o.common.flags(cmd.Flags())
	o.corpus.flags(cmd.Flags())
	cmd.Flags().Var(&o.sample, "sample", "how much of the NARs throughput is measured with; twice as much is held in memory")
	return cmd
}

func dedup(ctx context.Context, o dedupOptions, dir string, archives []archive, out, progress io.Writer) error {
	if err := averages(ctx, o, dir, archives, out, progress); err != nil {
		return err
	}
	chunks, err := differentChunks(archives, int64(o.sample))
	if err != nil {
		return err
	}
	if err := levels(ctx, o, chunks, out, progress); err != nil {
		return err
	}
	return incompressible(ctx, o, chunks, out, progress)
}

// averages prints the table of chunk sizes.
func averages(ctx context.Context, o dedupOptions, dir string, archives []archive, out, progress io.Writer) error {
	cuts := make([]cutting, 0, 8)
	for average := 16 << 10; average <= 1<<20; average *= 2 {
		cuts = append(cuts, cutting{average: average})
	}
	fmt.Fprintf(progress, "cutting %s by %d averages\n", bytesize.Tenths(totalSize(archives)), len(cuts))
	var whole cutting
	var g errgroup.Group
	g.SetLimit(2)
	g.Go(func() (err error) {
		whole, err = compressWhole(ctx, archives, filepath.Join(dir, "whole"), int64(o.sample))
		return err
	})
	for i := range cuts {
		g.Go(func() (err error) {
			average := cuts[i].average
			cuts[i], err = cut(ctx, archives, average, filepath.Join(dir, fmt.Sprint(average)), int64(o.sample))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	measured := append(cuts, whole)
	largest := len(cuts) - 1
	inGo, err := decoding(ctx, o.rounds, progress, measured, decodeInGo)
	if err != nil {
		return err
	}
	var byZstd *comparison
	if _, err := exec.LookPath("zstd"); err == nil {
		if byZstd, err = decoding(ctx, o.rounds, progress, measured, decodeByZstd); err != nil {
			return err
		}
	}
	t := table{columns: []string{
		"average", "chunks in the index", "chunks in lists", "stored", "÷ NARs", "÷ whole-NAR zstd", "unpacks in Go, × 1 MiB", "by zstd, × 1 MiB",
	}}
	for i, c := range measured {
		fast := unknown
		if byZstd != nil {
			fast = byZstd.ratio(largest, i, cpuTime).String()
		}
		name := bytesize.Text(int64(c.average))
		if c.average == 0 {
			name = "whole NARs"
		}
		t.add(name, count(c.chunks), count(c.listed), bytesize.Tenths(c.stored), part(c.stored, totalSize(archives)), part(c.stored, whole.stored),
			inGo.ratio(largest, i, cpuTime).String(), fast)
	}
	t.print(out, "Average chunk size", fmt.Sprintf(`%d NARs of %s. The columns of unpacking are bytes for each second of
CPU, relative to chunks of 1 MiB, of what a client is sent for the first %s.`, len(archives), bytesize.Tenths(totalSize(archives)), bytesize.Tenths(whole.sampled)))
	return nil
}
