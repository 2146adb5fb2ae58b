package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
)

type scaleOptions struct {
	common
	paths, chunksPerPath int
	indexes              []string
	requests, asked      int
	apart                time.Duration
}

// mostAsked is how many paths a client asks about in one request.
const mostAsked = 100_000

// smallPart is how much smaller the index is that a large one is compared with.
const smallPart = 20

func scaleCommand() *cobra.Command {
	o := scaleOptions{apart: 10 * time.Second}
	cmd := &cobra.Command{
		Use:   "scale",
		Short: "A large index, against one of a twentieth of its paths",
		Long: `Fills two indexes with made-up paths, by the calls that pushes make: chunks of
128 bytes, a fifth of them such as older paths have, and five references a path.
Then asks both in turn, through their HTTP doors in this process, which begin
anew, with nothing in memory, in each round. At the end the older half of each is
collected, while narinfos are asked for and paths are committed.

Below 40,000 paths, memory answers what is asked of the small one.

An --index FILE must not be there yet; of a PostgreSQL database, schemas of its own
are used. Both are removed at the end. A million paths take about 1.5 GB for their
packs in --temp, and 3 GB for the index.`,
		Example: `  cachebench scale --paths 20000 --rounds 3
  cachebench scale --index postgres://postgres@localhost/bench`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			const least = smallPart * 100
			if o.paths < least || o.chunksPerPath < 1 || o.requests < 100 || o.asked < 1 || o.asked > mostAsked {
				return usageError{fmt.Errorf("--paths must be at least %d, --chunks-per-path 1, --requests 100, --asked 1 to %d", least, mostAsked)}
			}
			return o.inTemp(func(dir string) error {
				return scale(cmd.Context(), o, dir, cmd.OutOrStdout(), cmd.ErrOrStderr())
			})
		},
	}
	f := cmd.Flags()
	o.flags(f)
	f.IntVar(&o.paths, "paths", 1_000_000, "how many paths the large index has")
	f.IntVar(&o.chunksPerPath, "chunks-per-path", 10, "how many chunks a path has")
	f.StringArrayVar(&o.indexes, "index", []string{""}, "where the index is: a `file` or postgres://…, the latter a database (default a file in --temp); may be repeated")
	f.IntVar(&o.requests, "requests", 2000, "how many requests of a kind a round makes on each index")
	f.IntVar(&o.asked, "asked", mostAsked, "how many paths one request asks for, whether they are missing")
	return cmd
}

func scale(ctx context.Context, o scaleOptions, dir string, out, progress io.Writer) (err error) {
	mem := newMemory()
	var subjects []*subject
	defer func() {
		for _, s := range subjects {
			err = errors.Join(err, s.drop())
		}
	}()
	fills := table{columns: []string{"index", "paths", "chunks", "index bytes a path", "paths/s, last tenth ÷ first"}}
	for _, where := range o.indexes {
		for _, paths := range []int{o.paths / smallPart, o.paths} {
			s, err := newSubject(ctx, dir, where, rows{paths: paths, chunks: o.chunksPerPath})
			if err != nil {
				return err
			}
			subjects = append(subjects, s)
			slowdown, err := s.fill(ctx, progress)
			if err != nil {
				return fmt.Errorf("filling %s: %w", s, err)
			}
			mem.stage("filling " + s.String())
			size, err := s.indexSize(ctx)
			if err != nil {
				return err
			}
			fills.add(s.kind, count(int64(paths)), count(s.rows.different()), count(size/int64(paths)), ratioText(slowdown))
		}
	}
	fills.print(out, "Filling", "By the calls that pushes make, 64 of them at a time.")
	if err := latencies(ctx, o, subjects, mem, out, progress); err != nil {
		return err
	}
	if err := collections(ctx, o, subjects, mem, out, progress); err != nil {
		return err
	}
	note := "VmHWM of the benchmark's process, in which clients and server are, reset before each stage."
	if !mem.resettable {
		note = "VmHWM of the benchmark's process, in which clients and server are; it could not be reset, and is the peak since the beginning."
	}
	if limit := os.Getenv("GOMEMLIMIT"); limit != "" {
		note += " GOMEMLIMIT was " + limit + "."
	}
	mem.t.print(out, "Memory", note)
	return nil
}
