package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
)

type storeOptions struct {
	common
	paths       int
	largest     size
	compression string
	server      string
	flywheel    string
	nginx       string
}

// mostPaths is how many store paths fit into the arguments of nix copy.
const mostPaths = 10_000

func storeCommand() *cobra.Command {
	o := storeOptions{largest: 1 << 20}
	cmd := &cobra.Command{
		Use:   "store",
		Short: "A whole Nix store pushed by flywheel, against nix copy to the same server and to a plain one",
		Long: `Makes a Nix store of its own with paths of assorted sizes, half of them words and
half noise, and pushes it three times: cold, again, and after one path in a hundred
was replaced by one with a line more. It does so with flywheel push to cacheserver,
with nix copy to cacheserver, and with nix copy to nginx as a store of plain files.
Each begins with an empty server and an empty home, and what it sends is counted on
its way.

nix copy makes nothing durable at nginx; cacheserver syncs what it acknowledges.`,
		Example: `  cachebench store
  cachebench store --paths 200 --rounds 1 --compression zstd`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.paths < changedPart || o.paths > mostPaths {
				return usageError{fmt.Errorf("--paths must be %d to %d", changedPart, mostPaths)}
			}
			return o.inTemp(func(dir string) error {
				return benchmarkStore(cmd.Context(), o, dir, cmd.OutOrStdout(), cmd.ErrOrStderr())
			})
		},
	}
	f := cmd.Flags()
	o.flags(f)
	f.IntVar(&o.paths, "paths", 2000, "how many store paths there are")
	f.Var(&o.largest, "largest", "how large the largest is; as many are of 1 to 2 KiB as of 512 KiB to 1 MiB")
	f.StringVar(&o.compression, "compression", "xz", "what nix copy compresses with; xz is its default")
	f.StringVar(&o.server, "server", "", "`file` of a built cacheserver (default: go build makes it)")
	f.StringVar(&o.flywheel, "flywheel", "", "`file` of a built flywheel (default: go build makes it)")
	f.StringVar(&o.nginx, "nginx", "nginx", "`file` of nginx, with its module for PUT")
	return cmd
}

// storeSide is a client and a server.
type storeSide struct {
	name  string
	start func(ctx context.Context, dir string) (*process, error)
	push  func(ctx context.Context, home, url string, paths []string) (spent, error)
	// samples are of each stage and round.
	samples [][]storeSample
}

// storeSample is what one push took.
type storeSample struct {
	spent
	server time.Duration // CPU
	sent   int64         // bytes that the client wrote to its connections
	peak   string        // of the server's memory since it began
}

// Stages of each side's round.
var storeStages = []string{"cold", "again", "after 1 % changed"}

func benchmarkStore(ctx context.Context, o storeOptions, dir string, out, progress io.Writer) (err error) {
	if o.server == "" {
		if o.server, err = buildServer(ctx, dir); err != nil {
			return err
		}
	}
	if o.flywheel == "" {
		o.flywheel = filepath.Join(dir, "flywheel")
		const pkg = "gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/cmd/flywheel"
		if err := command(ctx, "", "go", "build", "-o", o.flywheel, pkg); err != nil {
			return fmt.Errorf("%w (run it in the repository, or name a built flywheel with --flywheel)", err)
		}
	}
	fmt.Fprintf(progress, "making a store of %d paths\n", o.paths)
	store, err := makeStore(ctx, filepath.Join(dir, "nix"), o)
	if err != nil {
		return err
	}
	ours := func(ctx context.Context, dir string) (*process, error) {
		return startServer(ctx, o.server, filepath.Join(dir, "data"), "--store-dir", store.dir)
	}
	copying := func(ctx context.Context, home, url string, paths []string) (spent, error) {
		return store.copy(ctx, home, url+"?compression="+o.compression, paths)
	}
	sides := []*storeSide{
		{name: "flywheel push to cacheserver", start: ours, push: func(ctx context.Context, home, url string, paths []string) (spent, error) {
			return store.push(ctx, o.flywheel, home, url, paths)
		}},
		{name: "nix copy to cacheserver", start: ours, push: copying},
		{name: "nix copy to nginx", start: func(ctx context.Context, dir string) (*process, error) {
			return startFileStore(ctx, o.nginx, dir)
		}, push: copying},
	}
	for round := range o.rounds {
		for _, s := range sides {
			fmt.Fprintf(progress, "round %d of %d: %s\n", round+1, o.rounds, s.name)
			if err := s.round(ctx, filepath.Join(dir, fmt.Sprintf("round-%d", round)), store); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	printStore(o, store, sides, out)
	return nil
}

// round runs all stages against a server that is new.
func (s *storeSide) round(ctx context.Context, dir string, store *madeStore) error {
	return inDirectory(dir, func() (err error) {
		server, err := s.start(ctx, dir)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, server.stop()) }()
		wire, err := newWire(ctx, server.url)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, wire.close()) }()
		samples := make([]storeSample, len(storeStages))
		for i, paths := range [][]string{store.paths, store.paths, store.changed} {
			before, sent := server.cpu(), wire.sent.Load()
			took, err := s.push(ctx, filepath.Join(dir, "home"), wire.url, paths)
			if err != nil {
				return fmt.Errorf("%s: %w", storeStages[i], err)
			}
			samples[i] = storeSample{took, server.cpu() - before, wire.sent.Load() - sent, memoryOf(server.cmd.Process.Pid, "VmHWM")}
		}
		s.samples = append(s.samples, samples)
		return nil
	})
}

func printStore(o storeOptions, store *madeStore, sides []*storeSide, out io.Writer) {
	t := table{columns: []string{"push", "how", "wall ÷ flywheel", "CPU, client and server, ÷ flywheel", "sent", "client's peak RSS", "server's peak RSS"}}
	for stage, name := range storeStages {
		for _, s := range sides {
			var walls, cpus []float64
			var sent, peaks []int64
			for round, samples := range s.samples {
				a, b := samples[stage], sides[0].samples[round][stage]
				walls = append(walls, a.wall.Seconds()/b.wall.Seconds())
				cpus = append(cpus, (a.cpu+a.server).Seconds()/(b.cpu+b.server).Seconds())
				sent, peaks = append(sent, a.sent), append(peaks, a.peakRSS)
			}
			serverPeak := s.samples[len(s.samples)-1][stage].peak
			if s == sides[len(sides)-1] {
				serverPeak = unknown // nginx's workers have it
			}
			t.add(name, s.name, spreadOf(walls).String(), spreadOf(cpus).String(), bytesize.Tenths(medianOf(sent)), bytesize.Tenths(medianOf(peaks)), serverPeak)
		}
	}
	t.print(out, "A store", fmt.Sprintf("%s paths of 1 KiB to %s, %s together; nix copy compresses with %s.",
		count(int64(o.paths)), o.largest.String(), bytesize.Tenths(store.bytes), o.compression))
}
