package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/bytesize"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

type pullOptions struct {
	common
	size          size
	paths         int
	requests      int
	passes        int
	server, nginx string
}

// manyConnections is how many a client of Nix has by default, and some.
const manyConnections = 16

func pullCommand() *cobra.Command {
	o := pullOptions{size: 1 << 30}
	cmd := &cobra.Command{
		Use:   "pull",
		Short: "Pulls of a closure, against nginx over the same files",
		Long: `Makes up a closure, pushes it to cacheserver, a process of its own, and gives the
files that it serves to nginx (two workers, sendfile) as well. The same client
pulls them from both, over loopback, and throws them away. Each server's CPU is
what it used itself, so that the client's share, which is the same for both,
does not hide the difference.

At the first read after its start, cacheserver checks every byte; after that, the
kernel sends them. Both are measured.`,
		Example: "  cachebench pull --size 64MiB --rounds 3",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.paths < 1 || o.requests < 1 || o.passes < 1 {
				return usageError{errors.New("--paths, --requests and --passes must be at least 1")}
			}
			return o.inTemp(func(dir string) error {
				return benchmarkPull(cmd.Context(), o, dir, cmd.OutOrStdout(), cmd.ErrOrStderr())
			})
		},
	}
	f := cmd.Flags()
	o.flags(f)
	f.Var(&o.size, "size", "how large the closure's NARs are together")
	f.IntVar(&o.paths, "paths", 48, "how many paths the closure has")
	f.IntVar(&o.requests, "requests", 50_000, "how many narinfos a round gets")
	f.IntVar(&o.passes, "passes", 4, "how often a round pulls the closure when it is warm")
	f.StringVar(&o.nginx, "nginx", "nginx", "nginx's `command`")
	f.StringVar(&o.server, "server", "", "`file` of a built cacheserver (default: go build makes it)")
	return cmd
}

// closure is what both servers serve.
type closure struct {
	narinfos, nars []string // below the cache's URL
	size           int64    // of the NARs
}

func benchmarkPull(ctx context.Context, o pullOptions, dir string, out, progress io.Writer) (err error) {
	if o.server == "" {
		if o.server, err = buildServer(ctx, dir); err != nil {
			return err
		}
	}
	data, root := filepath.Join(dir, "data"), filepath.Join(dir, "files")
	ours, err := startServer(ctx, o.server, data)
	if err != nil {
		return err
	}
	c, err := fill(ctx, o, dir, ours.url, root, progress)
	if err != nil {
		return errors.Join(err, ours.stop())
	}
	if err := ours.stop(); err != nil {
		return err
	}
	nginx, err := startNginx(ctx, o.nginx, dir, root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, nginx.stop()) }()

	t := table{columns: []string{"what", "connections", "time, ours ÷ nginx", "server's CPU, ours ÷ nginx"}}
	if err := firstReads(ctx, o, data, nginx, c, &t, progress); err != nil {
		return err
	}
	if ours, err = startServer(ctx, o.server, data); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ours.stop()) }()
	for _, w := range []struct {
		what        string
		connections int
		names       []string
		n           int
	}{
		{"NARs, warm", 1, c.nars, o.passes * len(c.nars)},
		{"NARs, warm", manyConnections, c.nars, o.passes * len(c.nars)},
		{"narinfos", manyConnections, c.narinfos, o.requests},
	} {
		p := newPuller(w.connections)
		sides := make([]side, 0, 2)
		for _, s := range []*process{ours, nginx} {
			if err := p.pull(ctx, s.url, w.names, len(w.names)); err != nil { // warms it
				return err
			}
			sides = append(sides, side{fmt.Sprintf("%s, %d connections, %s", w.what, w.connections, s.name), func(ctx context.Context) (sample, error) {
				return s.measure(func() error { return p.pull(ctx, s.url, w.names, w.n) })
			}})
		}
		compared, err := alternate(ctx, progress, o.rounds, sides...)
		p.close()
		if err != nil {
			return err
		}
		t.add(w.what, count(int64(w.connections)), compared.ratio(0, 1, wallTime).String(), compared.ratio(0, 1, cpuTime).String())
	}
	t.print(out, "Pull", fmt.Sprintf(`%d NARs of %s, half of which compresses, and %s narinfos a round. Below 1,
cacheserver is the faster one.`, len(c.nars), bytesize.Tenths(c.size), count(int64(o.requests))))
	return nil
}

// firstReads compares what the first pull after the server's start takes.
func firstReads(ctx context.Context, o pullOptions, data string, nginx *process, c *closure, t *table, progress io.Writer) error {
	for _, connections := range []int{1, manyConnections} {
		pull := func(ctx context.Context, s *process) (sample, error) {
			p := newPuller(connections)
			defer p.close()
			return s.measure(func() error { return p.pull(ctx, s.url, c.nars, len(c.nars)) })
		}
		compared, err := alternate(ctx, progress, o.rounds,
			side{fmt.Sprintf("first read, %d connections, cacheserver", connections), func(ctx context.Context) (sample, error) {
				s, err := startServer(ctx, o.server, data)
				if err != nil {
					return sample{}, err
				}
				took, err := pull(ctx, s)
				return took, errors.Join(err, s.stop())
			}},
			side{fmt.Sprintf("first read, %d connections, nginx", connections), func(ctx context.Context) (sample, error) {
				return pull(ctx, nginx)
			}})
		if err != nil {
			return err
		}
		t.add("NARs, first read after the start", count(int64(connections)), compared.ratio(0, 1, wallTime).String(), compared.ratio(0, 1, cpuTime).String())
	}
	return nil
}

// fill pushes a closure to a server, and saves what it then serves.
func fill(ctx context.Context, o pullOptions, dir, url, root string, progress io.Writer) (*closure, error) {
	fmt.Fprintf(progress, "making up and pushing %s\n", bytesize.Text(int64(o.size)))
	client, err := push.NewClient(url)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	p := newPuller(1)
	defer p.close()
	c := &closure{}
	for i, n := range sizes(int64(o.size), o.paths) {
		var a archive
		err := inSubdirectory(dir, func(sub string) error {
			made := filepath.Join(sub, "tree")
			if err := os.Mkdir(made, 0o700); err != nil {
				return err
			}
			if err := writeTree(made, tree{seed: uint64(i + 1), size: n}); err != nil {
				return err
			}
			if a, err = dump(fmt.Sprintf("path-%d", i), made, filepath.Join(sub, "nar")); err != nil {
				return err
			}
			return pushAll(ctx, client, []archive{a})
		})
		if err != nil {
			return nil, err
		}
		c.size += a.size
		info := storepath.Hash(a.storePath()) + ".narinfo"
		if err := p.save(ctx, url, []string{info}, root); err != nil {
			return nil, err
		}
		text, err := os.ReadFile(filepath.Join(root, info))
		if err != nil {
			return nil, err
		}
		parsed, err := narinfo.Parse(text)
		if err != nil {
			return nil, err
		}
		c.narinfos, c.nars = append(c.narinfos, info), append(c.nars, parsed.URL)
	}
	return c, p.save(ctx, url, append([]string{"nix-cache-info"}, c.nars...), root)
}

// sizes splits a closure into paths as they are: a few large ones, which come
// first so that no connection is left alone with one, and many small ones.
func sizes(total int64, paths int) []int64 {
	weights, sum := make([]float64, paths), 0.0
	for i := range weights {
		weights[i] = 1 / float64(i+1)
		sum += weights[i]
	}
	all := make([]int64, paths)
	for i, w := range weights {
		all[i] = max(1, int64(w/sum*float64(total)))
	}
	return all
}
