package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
)

type bazelOptions struct {
	common
	blobs, asked  int
	streams       int
	streamSize    size
	fill          int
	server, rival string
}

// smallBlob is how long the small blobs are, in bytes, half of which compresses.
const smallBlob = 4 << 10

// perBatch is how many small blobs one call has that has several.
const perBatch = 50

func bazelCommand() *cobra.Command {
	o := bazelOptions{streamSize: 64 << 20}
	cmd := &cobra.Command{
		Use:   "bazel",
		Short: "Bazel's remote cache, against bazel-remote",
		Long: `Starts cacheserver and bazel-remote ` + rivalVersion + `, built from its Go module, as processes
of their own over empty directories. The same gRPC client does the same with both,
over loopback. Both make what they acknowledge durable (fsync).

cacheserver is asked on the port that it answers HTTP and gRPC on, which is what
flywheel bazelrc names, and on that of --grpc-listen, which answers gRPC alone.

--fill stores so many small blobs in both instead, and prints what memory and
disk they take afterwards.`,
		Example: `  cachebench bazel --rounds 3
  cachebench bazel --rounds 1 --streams 2 --stream-size 4MiB
  cachebench bazel --fill 1000000`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			const mostAsked = 40_000 // what one message holds
			if o.blobs < perBatch || o.asked < 2 || o.asked > mostAsked || o.streams < 1 || o.fill < 0 {
				return usageError{fmt.Errorf("--blobs must be at least %d, --asked 2 to %d, --streams 1, --fill 0", perBatch, mostAsked)}
			}
			return o.inTemp(func(dir string) error {
				return benchmarkBazel(cmd.Context(), o, dir, cmd.OutOrStdout(), cmd.ErrOrStderr())
			})
		},
	}
	f := cmd.Flags()
	o.flags(f)
	f.IntVar(&o.blobs, "blobs", 1000, "how many blobs of 4 KiB a round writes and reads")
	f.IntVar(&o.asked, "asked", 10_000, "how many digests one FindMissingBlobs names, every other one of a blob that is there")
	f.IntVar(&o.streams, "streams", 16, "how many large blobs a round streams")
	f.Var(&o.streamSize, "stream-size", "how large they are")
	f.IntVar(&o.fill, "fill", 0, "store so many blobs of 4 KiB, and measure memory and disk only")
	f.StringVar(&o.server, "server", "", "`file` of a built cacheserver (default: go build makes it)")
	f.StringVar(&o.rival, "bazel-remote", "", "`file` of a built bazel-remote (default: go build makes it)")
	return cmd
}

// bazelSide is a server, and how its clients reach it.
type bazelSide struct {
	*process
	name string
	grpc string
	data string
}

func benchmarkBazel(ctx context.Context, o bazelOptions, dir string, out, progress io.Writer) (err error) {
	if o.server == "" {
		if o.server, err = buildServer(ctx, dir); err != nil {
			return err
		}
	}
	if o.rival == "" {
		fmt.Fprintln(progress, "building bazel-remote "+rivalVersion)
		if o.rival, err = buildBazelRemote(ctx, dir); err != nil {
			return err
		}
	}
	grpcAddress, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	data, rivalData := filepath.Join(dir, "ours"), filepath.Join(dir, "bazel-remote-data")
	ours, err := startServer(ctx, o.server, data, "--grpc-listen", grpcAddress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ours.stop()) }()
	theirs, theirAddress, err := startBazelRemote(ctx, o.rival, rivalData)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, theirs.stop()) }()
	shared, alone, rival := bazelSide{ours, "cacheserver", ours.url[len("http://"):], data},
		bazelSide{ours, "cacheserver --grpc-listen", grpcAddress, data},
		bazelSide{theirs, "bazel-remote", theirAddress, rivalData}
	if o.fill > 0 {
		return fillBoth(ctx, o.fill, []bazelSide{alone, rival}, out, progress)
	}
	return compareBazel(ctx, o, []bazelSide{shared, alone, rival}, out, progress)
}

// compareBazel runs every kind of work on all sides, the last of which is the one
// to compare with.
func compareBazel(ctx context.Context, o bazelOptions, sides []bazelSide, out, progress io.Writer) (err error) {
	loads := make([]*load, len(sides))
	for i, s := range sides {
		// Of blobs that no other side stores: two sides may be one server.
		if loads[i], err = newLoad(s.grpc, uint64(i), o); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		defer func() { err = errors.Join(err, loads[i].close()) }()
	}
	nothing := func(*load, context.Context) error { return nil }
	kib, streamed := "4 KiB blobs", bytesize.Text(int64(o.streamSize))
	t := table{columns: []string{"what", "calls", "speed, ours ÷ bazel-remote", "with --grpc-listen", "server's CPU, ours ÷ bazel-remote"}}
	for _, w := range []struct {
		what    string
		calls   int
		prepare func(*load, context.Context) error
		run     func(*load, context.Context) error
	}{
		{fmt.Sprintf("FindMissingBlobs of %s", count(int64(o.asked))), findCalls, (*load).makeMissing, (*load).find},
		{"the same once more", findCalls, nothing, (*load).find},
		{kib + ", one a BatchUpdateBlobs", o.blobs, (*load).makeSmall, func(l *load, ctx context.Context) error { return l.writeBatches(ctx, 1) }},
		{kib + ", one a BatchReadBlobs", o.blobs, nothing, func(l *load, ctx context.Context) error { return l.readBatches(ctx, 1) }},
		{fmt.Sprintf("%s, %d a BatchUpdateBlobs", kib, perBatch), o.blobs / perBatch, (*load).makeSmall, func(l *load, ctx context.Context) error { return l.writeBatches(ctx, perBatch) }},
		{fmt.Sprintf("%s, %d a BatchReadBlobs", kib, perBatch), o.blobs / perBatch, nothing, func(l *load, ctx context.Context) error { return l.readBatches(ctx, perBatch) }},
		{kib + ", ByteStream.Write", o.blobs, (*load).makeSmall, (*load).writeSmall},
		{kib + ", ByteStream.Read", o.blobs, nothing, (*load).readSmall},
		{streamed + ", ByteStream.Write", o.streams, (*load).makeLarge, (*load).writeLarge},
		{streamed + ", ByteStream.Read", o.streams, nothing, (*load).readLarge},
	} {
		runs := make([]side, len(sides))
		for i, s := range sides {
			runs[i] = side{w.what + ", " + s.name, func(ctx context.Context) (sample, error) {
				if err := w.prepare(loads[i], ctx); err != nil {
					return sample{}, err
				}
				return s.measure(func() error { return w.run(loads[i], ctx) })
			}}
		}
		compared, err := alternate(ctx, progress, o.rounds, runs...)
		if err != nil {
			return err
		}
		t.add(w.what, count(int64(w.calls)), compared.ratio(2, 0, wallTime).String(), compared.ratio(2, 1, wallTime).String(), compared.ratio(0, 2, cpuTime).String())
	}
	t.print(out, "Bazel", fmt.Sprintf(`%d connections, bazel-remote %s. Of speed, above 1 cacheserver is the faster one; of
CPU, below 1 it takes less. Half of every blob compresses.`, manyConnections, rivalVersion))
	return nil
}

// fillBoth stores n small blobs in each, one after the other.
func fillBoth(ctx context.Context, n int, sides []bazelSide, out, progress io.Writer) error {
	t := table{columns: []string{"server", "blobs", "seconds", "RSS", "peak RSS", "on disk", "÷ blobs"}}
	for _, s := range sides {
		l, err := newLoad(s.grpc, 0, bazelOptions{blobs: perBatch, asked: 2, streams: 1, streamSize: 1})
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		began := time.Now()
		err = l.fill(ctx, n, func(done int) { fmt.Fprintf(progress, "%s: %s blobs\n", s.name, count(int64(done))) })
		if err = errors.Join(err, l.close()); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		took := time.Since(began)
		used, err := diskUsage(s.data)
		if err != nil {
			return err
		}
		pid := s.cmd.Process.Pid
		t.add(s.name, count(int64(n)), fmt.Sprintf("%.0f", took.Seconds()), memoryOf(pid, "VmRSS"), memoryOf(pid, "VmHWM"), bytesize.Tenths(used), part(used, int64(n)*smallBlob))
	}
	t.print(out, "A full cache", "Blobs of 4 KiB, half of which compresses, 50 a BatchUpdateBlobs. Disk is what the file system gives.")
	return nil
}

// diskUsage is what files take of the disk, which of small ones is more than their
// bytes.
func diskUsage(dir string) (used int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil // of a temporary file
		}
		if err == nil {
			used += blocks(info)
		}
		return err
	})
	return used, err
}
