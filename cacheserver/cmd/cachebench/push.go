package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
)

type pushOptions struct {
	common
	corpus
	next []string
}

func pushCommand() *cobra.Command {
	var o pushOptions
	cmd := &cobra.Command{
		Use:   "push [DIR|FILE.nar…]",
		Short: "A push, against zstd -T2 and sha256 of the same bytes",
		Long: `Pushes the NARs to an empty server in the same process, over loopback, until all
are durable, committed and verified. Beside it stands what a cache of whole files
cannot do without: zstd -T2 at the same level (3), and SHA-256 of the NAR. Both
work on as many NARs at a time.

Then pushes the NARs again after a small change to each, 1000 bytes more in the
middle of its largest file, or what --next names instead, and tells what was sent.
` + corpusHelp,
		Example: `  cachebench push ./app-1.4 --next ./app-1.5
  cachebench push --npm webpack@5.112.0 --next npm:webpack@5.112.1`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.inTemp(func(dir string) error {
				return benchmarkPush(cmd.Context(), o, dir, args, cmd.OutOrStdout(), cmd.ErrOrStderr())
			})
		},
	}
	o.common.flags(cmd.Flags())
	o.corpus.flags(cmd.Flags())
	cmd.Flags().StringSliceVar(&o.next, "next", nil, "what is pushed second: `DIR, FILE.nar`, npm:PACKAGE@VERSION or deb:PACKAGE[=VERSION]")
	return cmd
}

func benchmarkPush(ctx context.Context, o pushOptions, dir string, args []string, out, progress io.Writer) error {
	archives, err := inOwnDirectory(dir, "first", func(sub string) ([]archive, error) {
		return o.load(ctx, progress, sub, args)
	})
	if err != nil {
		return err
	}
	second, err := inOwnDirectory(dir, "second", func(sub string) ([]archive, error) {
		if len(o.next) > 0 {
			return loadNext(ctx, progress, sub, o.next)
		}
		return changeAll(archives, sub)
	})
	if err != nil {
		return err
	}
	if err := firstPush(ctx, o, dir, archives, out, progress); err != nil {
		return err
	}
	return secondPush(ctx, dir, archives, second, len(o.next) > 0, out)
}

func inOwnDirectory(dir, name string, make func(sub string) ([]archive, error)) ([]archive, error) {
	sub := filepath.Join(dir, name)
	if err := os.Mkdir(sub, 0o700); err != nil {
		return nil, err
	}
	return make(sub)
}

func firstPush(ctx context.Context, o pushOptions, dir string, archives []archive, out, progress io.Writer) error {
	var sent, files int64
	ours := side{"pushing", func(ctx context.Context) (took sample, err error) {
		err = inSubdirectory(dir, func(data string) error {
			return withServer(ctx, cacheserver.Config{Data: data}, func(_ *cacheserver.Server, url string) error {
				c, err := push.NewClient(url)
				if err != nil {
					return err
				}
				defer c.Close()
				took, err = timed(func() error { return pushAll(ctx, c, archives) })
				sent = c.SentBytes()
				return err
			})
		})
		return took, err
	}}
	whole, compressor := wholeSide(dir, archives, &files)
	c, err := alternate(ctx, progress, o.rounds, ours, whole)
	if err != nil {
		return err
	}
	size := totalSize(archives)
	t := table{columns: []string{"first push", "bytes", "÷ NARs", "time ÷ whole NARs", "CPU ÷ whole NARs"}}
	t.add("pushed, stored, verified", bytesize.Tenths(sent), part(sent, size), c.ratio(0, 1, wallTime).String(), c.ratio(0, 1, cpuTime).String())
	t.add(compressor+" and SHA-256", bytesize.Tenths(files), part(files, size), "1", "1")
	t.print(out, "First push", fmt.Sprintf(`%d NARs of %s, %d at a time, client and server on the same cores. The bytes of
the push are those of all its requests. CPU is client's and server's together.`, len(archives), bytesize.Tenths(size), jobs))
	return nil
}

// wholeSide compresses and hashes NARs as files. files becomes the bytes of the
// compressed ones.
func wholeSide(dir string, archives []archive, files *int64) (_ side, compressor string) {
	compress, compressor := compressByZstd, "zstd -T2"
	if _, err := exec.LookPath("zstd"); err != nil {
		compress, compressor = compressInGo, "zstd in Go (there is no zstd command)"
	}
	return side{compressor + " and SHA-256", func(ctx context.Context) (took sample, err error) {
		err = inSubdirectory(dir, func(sub string) error {
			took, err = timed(func() error {
				g, ctx := errgroup.WithContext(ctx)
				g.SetLimit(2 * jobs)
				for i, a := range archives {
					g.Go(func() error { return compress(ctx, a, filepath.Join(sub, fmt.Sprintf("%03d.zst", i))) })
					g.Go(func() error { return a.copyTo(sha256.New()) })
				}
				return g.Wait()
			})
			if err != nil {
				return err
			}
			*files, err = sizeOfFiles(sub)
			return err
		})
		return took, err
	}}, compressor
}

func compressByZstd(ctx context.Context, a archive, file string) error {
	return command(ctx, filepath.Dir(file), "zstd", "-q", "-T2", "-3", "-o", file, a.file)
}

func compressInGo(_ context.Context, a archive, file string) error {
	return storeIn(file, func(w io.Writer) error {
		e, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(2))
		if err != nil {
			return err
		}
		return errors.Join(a.copyTo(e), e.Close())
	})
}

func sizeOfFiles(dir string) (sum int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return 0, err
		}
		sum += info.Size()
	}
	return sum, nil
}

// secondPush tells what is sent when almost everything is there.
func secondPush(ctx context.Context, dir string, first, second []archive, real bool, out io.Writer) error {
	var sent, files int64
	err := inSubdirectory(dir, func(data string) error {
		return withServer(ctx, cacheserver.Config{Data: data}, func(_ *cacheserver.Server, url string) error {
			c, err := push.NewClient(url)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := pushAll(ctx, c, first); err != nil {
				return err
			}
			before := c.SentBytes()
			err = pushAll(ctx, c, second)
			sent = c.SentBytes() - before
			return err
		})
	})
	if err != nil {
		return err
	}
	whole, compressor := wholeSide(dir, second, &files)
	if _, err := whole.run(ctx); err != nil {
		return err
	}
	size := totalSize(second)
	change := "1000 bytes were put into the largest file of each NAR."
	if real {
		change = "What was pushed second is another release."
	}
	t := table{columns: []string{"second push", "bytes", "÷ NARs", "÷ whole-NAR zstd"}}
	t.add("sent", bytesize.Tenths(sent), part(sent, size), part(sent, files))
	t.add(compressor, bytesize.Tenths(files), part(files, size), "1")
	t.print(out, "Second push", fmt.Sprintf("%d NARs of %s. %s", len(second), bytesize.Tenths(size), change))
	return nil
}
