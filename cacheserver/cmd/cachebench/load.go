package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

type loadOptions struct {
	common
	clients, paths int
	duration       time.Duration
	server         string
}

func loadCommand() *cobra.Command {
	o := loadOptions{clients: 200, paths: 1000, duration: time.Minute}
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Many clients at once, of all kinds",
		Long: `Pushes paths to cacheserver, a process of its own, and then lets many clients at
once ask it, each for one thing after the other: half for narinfos that are there,
a quarter for ones that are not, a fifth for NARs, of which each is compared with
its hash, and one in twenty pushes a path, half of which is there already.

What must not happen, an answer that is wrong or none at all, ends it with 1.`,
		Example: "  cachebench load --clients 200 --duration 60s",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.clients < 1 || o.paths < 1 || o.duration <= 0 {
				return usageError{errors.New("--clients, --paths and --duration must be above 0")}
			}
			o.rounds = 1
			return o.inTemp(func(dir string) error {
				return benchmarkLoad(cmd.Context(), o, dir, cmd.OutOrStdout(), cmd.ErrOrStderr())
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.temp, "temp", "", "`directory` for what the benchmark writes, removed at its end (default the system's)")
	f.IntVar(&o.clients, "clients", o.clients, "how many ask at the same time")
	f.IntVar(&o.paths, "paths", o.paths, "how many paths are there at the beginning")
	f.DurationVar(&o.duration, "duration", o.duration, "for how long they ask")
	f.StringVar(&o.server, "server", "", "`file` of a built cacheserver (default: go build makes it)")
	return cmd
}

// small is a made-up path of at most 256 KiB: what it holds follows from its
// number.
type small struct {
	archive  []byte // the NAR
	path     string
	hash     digest.Hash
	fileHash digest.Hash // of what the server sends; not known of one that was not asked for
	url      string
}

func makeSmall(n uint64) (small, error) {
	rng := rand.New(source(5, n)) // #nosec G404 -- no secret depends on it
	var text bytes.Buffer
	size := 4<<10 + rng.Int64N(128<<10)
	// Its first half is that of every hundredth path.
	if err := writeWords(&text, rand.New(source(6, n%100)), size); err != nil { // #nosec G404 -- as above
		return small{}, err
	}
	_, _ = io.CopyN(&text, source(7, n), size)
	b := fileNAR(text.Bytes())
	s := small{archive: b, hash: digest.Of(b)}
	s.path = fmt.Sprintf("%s/%s-load-%d", storepath.DefaultDir, pathHash(fmt.Sprint("load ", n)), n)
	return s, nil
}

// fileNAR is the NAR of a file that is no program (Nix's thesis, figure 5.2).
func fileNAR(contents []byte) []byte {
	var b []byte
	for _, s := range [][]byte{
		[]byte("nix-archive-1"), []byte("("), []byte("type"), []byte("regular"), []byte("contents"), contents, []byte(")"),
	} {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
		b = append(b, make([]byte, -len(s)&7)...)
	}
	return b
}

func (s *small) push(ctx context.Context, c *push.Client) error {
	size := int64(len(s.archive))
	chunks, err := c.Upload(ctx, size, chunker.DefaultAverage, func(w io.Writer) error {
		_, err := w.Write(s.archive)
		return err
	})
	if err == nil {
		_, err = c.Commit(ctx, &narinfo.NarInfo{StorePath: s.path, NarHash: s.hash, NarSize: size}, chunks)
	}
	return err
}

// loadRun is one run: what is there, and what the clients have seen.
type loadRun struct {
	url    string
	there  []small
	pushed atomic.Uint64 // numbers of paths that were made up
	http   *http.Client
	client *push.Client

	mu     sync.Mutex
	took   map[string][]time.Duration
	faults []string
}

func benchmarkLoad(ctx context.Context, o loadOptions, dir string, out, progress io.Writer) (err error) {
	if o.server == "" {
		if o.server, err = buildServer(ctx, dir); err != nil {
			return err
		}
	}
	server, err := startServer(ctx, o.server, filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	client, err := push.NewClient(server.url)
	if err != nil {
		return err
	}
	defer client.Close()
	p := newPuller(o.clients)
	defer p.close()
	l := &loadRun{url: server.url, http: p.http, client: client, took: map[string][]time.Duration{}}
	fmt.Fprintf(progress, "pushing %s paths\n", count(int64(o.paths)))
	if err := l.fill(ctx, o.paths); err != nil {
		return err
	}
	fmt.Fprintf(progress, "%d clients, for %v\n", o.clients, o.duration)
	began := time.Now()
	err = l.run(ctx, o)
	elapsed := time.Since(began)
	if err != nil {
		return err
	}
	l.print(out, o, server, elapsed)
	if len(l.faults) > 0 {
		return fmt.Errorf("%d answers were wrong or did not come, the first: %s", len(l.faults), l.faults[0])
	}
	return nil
}

func (l *loadRun) fill(ctx context.Context, paths int) error {
	l.there = make([]small, paths)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for i := range l.there {
		n := l.pushed.Add(1)
		g.Go(func() error {
			s, err := makeSmall(n)
			if err != nil {
				return err
			}
			if err := s.push(ctx, l.client); err != nil {
				return err
			}
			text, err := l.get(ctx, l.narinfoURL(s.path), http.StatusOK)
			if err != nil {
				return err
			}
			info, err := narinfo.Parse(text)
			if err != nil {
				return err
			}
			s.archive, s.fileHash, s.url = nil, info.FileHash, info.URL
			l.there[i] = s
			return nil
		})
	}
	return g.Wait()
}

func (l *loadRun) run(ctx context.Context, o loadOptions) error {
	until := time.Now().Add(o.duration)
	g, ctx := errgroup.WithContext(ctx)
	for n := range o.clients {
		pick := rand.New(source(8, uint64(n))) // #nosec G404 -- no secret depends on it
		g.Go(func() error {
			for time.Now().Before(until) && ctx.Err() == nil {
				what, ask := l.next(pick)
				began := time.Now()
				err := ask(ctx)
				took := time.Since(began)
				l.mu.Lock()
				l.took[what] = append(l.took[what], took)
				if err != nil {
					l.faults = append(l.faults, fmt.Sprintf("%s: %v", what, err))
				}
				l.mu.Unlock()
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

const (
	loadHit  = "narinfo that is there"
	loadMiss = "narinfo that is not"
	loadNAR  = "NAR"
	loadPush = "push of a path"
)

// next is what a client does next.
func (l *loadRun) next(pick *rand.Rand) (what string, ask func(context.Context) error) {
	s := &l.there[pick.IntN(len(l.there))]
	switch n := pick.IntN(20); {
	case n < 10:
		return loadHit, func(ctx context.Context) error {
			text, err := l.get(ctx, l.narinfoURL(s.path), http.StatusOK)
			if err == nil && !strings.Contains(string(text), "StorePath: "+s.path+"\n") {
				err = fmt.Errorf("asked for %s, it says\n%s", s.path, text)
			}
			return err
		}
	case n < 15:
		absent := storepath.DefaultDir + "/" + pathHash(fmt.Sprint("absent ", pick.Uint64())) + "-absent"
		return loadMiss, func(ctx context.Context) error {
			_, err := l.get(ctx, l.narinfoURL(absent), http.StatusNotFound)
			return err
		}
	case n < 19:
		return loadNAR, func(ctx context.Context) error {
			file, err := l.get(ctx, l.url+"/"+s.url, http.StatusOK)
			if err == nil && sha256.Sum256(file) != s.fileHash {
				err = fmt.Errorf("%s: %d bytes are not the file that its narinfo tells of", s.path, len(file))
			}
			return err
		}
	}
	n := l.pushed.Add(1)
	return loadPush, func(ctx context.Context) error {
		s, err := makeSmall(n)
		if err != nil {
			return err
		}
		return s.push(ctx, l.client)
	}
}

func (l *loadRun) narinfoURL(path string) string {
	return l.url + "/" + storepath.Hash(path) + ".narinfo"
}

// get reads an answer, which must have that status and come whole.
func (l *loadRun) get(ctx context.Context, url string, status int) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != status {
		err = fmt.Errorf("%s: HTTP %d, want %d: %.200s", url, resp.StatusCode, status, body)
	}
	return body, err
}

func (l *loadRun) print(out io.Writer, o loadOptions, server *process, elapsed time.Duration) {
	t := table{columns: []string{"what", "done", "a second", "p50, ms", "p99, ms", "longest, ms"}}
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1000) }
	total := 0
	for _, what := range []string{loadHit, loadMiss, loadNAR, loadPush} {
		took := l.took[what]
		total += len(took)
		if len(took) == 0 {
			t.add(what, "0", unknown, unknown, unknown, unknown)
			continue
		}
		t.add(what, count(int64(len(took))), count(int64(float64(len(took))/elapsed.Seconds())),
			ms(percentile(took, 50)), ms(percentile(took, 99)), ms(slices.Max(took)))
	}
	t.print(out, "Load", fmt.Sprintf(`%d clients for %v, on the server's machine: %s requests and pushes, %d errors. The
server's memory was at most %s.`, o.clients, elapsed.Round(time.Second), count(int64(total)), len(l.faults),
		memoryOf(server.cmd.Process.Pid, "VmHWM")))
}
