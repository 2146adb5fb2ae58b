package pusher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/internal/nixtest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

// All of these tests run in bubbles of package synctest: what waits seconds for
// a cache to come back waits no time, and what would wait for ever is a failure.

// files makes a store of n paths, p0, p1, …, without references.
func files(t testing.TB, n int) (nix.Store, []nix.PathInfo) {
	t.Helper()
	store := nix.Store{Dir: "/nix/store", Root: t.TempDir()}
	if err := os.MkdirAll(store.RealPath(store.Dir), 0o755); err != nil {
		t.Fatal(err)
	}
	infos := make([]nix.PathInfo, n)
	for i := range infos {
		p := nixtest.Path(fmt.Sprintf("p%d", i))
		if err := os.WriteFile(store.RealPath(p), []byte(p), 0o444); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := nar.Dump(&b, store.RealPath(p)); err != nil {
			t.Fatal(err)
		}
		infos[i] = nix.PathInfo{ID: int64(i + 1), Path: p, NarHash: digest.Of(b.Bytes()), NarSize: int64(b.Len())}
	}
	return store, infos
}

// chain lets every path refer to the one before it and to itself.
func chain(infos []nix.PathInfo) []nix.PathInfo {
	for i := range infos {
		infos[i].References = []string{infos[i].Path}
		if i > 0 {
			infos[i].References = append(infos[i].References, infos[i-1].Path)
		}
	}
	return infos
}

// cache is a Target that checks what it is sent.
type cache struct {
	pusher *Pusher
	// answer is asked before each request is answered: an error is the answer.
	// what is "missing", "upload", "commit" or "probe"; name is of the path, and
	// empty where a request is about several, or none. It may wait.
	answer func(ctx context.Context, what, name string) error

	mu      sync.Mutex
	has     map[string]bool // by hash
	took    map[string]bool // those of them that were committed
	log     []string        // "upload p0", in the order in which requests came
	batches []int
	wrong   []string

	cutShort bool // the run ended by its context: what waited is left as it was
}

func newCache(store nix.Store) *cache {
	c := &cache{has: map[string]bool{}, took: map[string]bool{}, answer: func(context.Context, string, string) error { return nil }}
	c.pusher = New(c, store, Config{})
	return c
}

func nameOf(p string) string { return path.Base(p)[33:] }

func (c *cache) wrongf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

func (c *cache) note(what, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, strings.TrimSpace(what+" "+name))
}

// requests returns those of a kind.
func (c *cache) requests(what string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for _, line := range c.log {
		if name, ok := strings.CutPrefix(line, what); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}

func (c *cache) MissingPaths(ctx context.Context, hashes []string) ([]string, error) {
	c.note("missing", "")
	if err := c.answer(ctx, "missing", ""); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batches = append(c.batches, len(hashes))
	return slices.DeleteFunc(slices.Clone(hashes), func(h string) bool { return c.has[h] }), nil
}

func (c *cache) Send(ctx context.Context, p Path) error {
	chunks, err := c.upload(ctx, p.NarSize, p.Dump)
	if err == nil {
		err = p.Ready(ctx)
	}
	if err == nil {
		err = c.commit(ctx, p.NarInfo, chunks)
	}
	return err
}

func (c *cache) upload(ctx context.Context, size int64, dump func(io.Writer) error) ([]digest.Chunk, error) {
	var b bytes.Buffer
	if err := dump(&b); err != nil {
		return nil, err
	}
	if int64(b.Len()) != size {
		c.wrongf("a NAR of %d bytes was announced with %d", b.Len(), size)
	}
	var name string
	if err := nar.Read(bytes.NewReader(b.Bytes()), func(_ nar.Node, body io.Reader) error {
		text, err := io.ReadAll(body)
		name = nameOf(string(text))
		return err
	}); err != nil {
		c.wrongf("upload: %v", err)
	}
	c.note("upload", name)
	if err := c.answer(ctx, "upload", name); err != nil {
		return nil, err
	}
	return []digest.Chunk{{Hash: digest.Of(b.Bytes()), Size: uint32(b.Len())}}, nil
}

func (c *cache) commit(ctx context.Context, n *narinfo.NarInfo, chunks []digest.Chunk) error {
	name := nameOf(n.StorePath)
	c.note("commit", name)
	if err := n.Check("/nix/store"); err != nil {
		c.wrongf("%s: %v", name, err)
	}
	if len(chunks) != 1 || chunks[0].Hash != n.NarHash || int64(chunks[0].Size) != n.NarSize {
		c.wrongf("%s is committed with another's chunks", name)
	}
	c.checkReferences(n)
	if err := c.answer(ctx, "commit", name); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.has[hashOf(n.StorePath)] {
		c.wrong = append(c.wrong, name+" is sent a second time")
	}
	c.has[hashOf(n.StorePath)], c.took[hashOf(n.StorePath)] = true, true
	return nil
}

// checkReferences sees that none of a path's references is on its way.
func (c *cache) checkReferences(n *narinfo.NarInfo) {
	c.pusher.mu.Lock()
	defer c.pusher.mu.Unlock()
	for _, r := range n.References {
		it, ok := c.pusher.items["/nix/store/"+r]
		if ok && it.Path != n.StorePath && (it.state == waiting || it.state == running) {
			defer c.wrongf("%s is committed while %s is on its way", nameOf(n.StorePath), nameOf(r))
		}
	}
}

func (c *cache) Probe(ctx context.Context) error {
	c.note("probe", "")
	return c.answer(ctx, "probe", "")
}

// run begins to push; the function that it returns ends that, by Close.
func (c *cache) run(ctx context.Context) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.pusher.Run(ctx)
	}()
	return func() {
		c.pusher.Close()
		<-done
	}
}

// check is for the end of a test, when nothing is on its way: a path is held or
// missing, never both. One that the cache had before is missing only if that
// could not be asked.
func (c *cache) check(infos []nix.PathInfo) error {
	missing := c.pusher.Missing()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.wrong) > 0 {
		return errors.New(strings.Join(c.wrong, "\n"))
	}
	if !slices.IsSorted(missing) {
		return fmt.Errorf("missing is not sorted: %q", missing)
	}
	for _, p := range infos {
		_, isMissing := slices.BinarySearch(missing, p.Path)
		h := hashOf(p.Path)
		if (isMissing && c.took[h]) || (!isMissing && !c.has[h]) {
			return fmt.Errorf("%s: missing %t, held %t, committed %t", nameOf(p.Path), isMissing, c.has[h], c.took[h])
		}
	}
	progress := c.pusher.Progress()
	if progress.Queued != 0 && !c.cutShort {
		return fmt.Errorf("%d are still queued", progress.Queued)
	}
	if progress.Pushed+progress.Held+len(missing) != len(infos) {
		return fmt.Errorf("%+v, %d missing, of %d paths", progress, len(missing), len(infos))
	}
	return nil
}

func (c *cache) mustCheck(t *testing.T, infos []nix.PathInfo) {
	t.Helper()
	if err := c.check(infos); err != nil {
		t.Error(err)
	}
}

func add(p *Pusher, infos []nix.PathInfo) {
	for _, i := range infos {
		p.Add(i)
	}
}

func TestSendsWhatTheCacheLacks(t *testing.T) {
	t.Parallel()
	store, infos := files(t, 20)
	chain(infos)
	infos[3].Deriver, infos[3].Signatures, infos[3].CA = nixtest.Path("p3.drv"), []string{"k-1:AA=="}, "fixed:r:sha256:x"
	synctest.Test(t, func(t *testing.T) {
		c := newCache(store)
		for i := range 5 {
			c.has[hashOf(infos[4*i].Path)] = true
		}
		stop := c.run(t.Context())
		add(c.pusher, infos)
		c.pusher.Drain(t.Context())
		c.mustCheck(t, infos)
		if p := c.pusher.Progress(); p.Held != 5 || p.Pushed != 15 || p.PushedBytes == 0 {
			t.Errorf("progress %+v", p)
		}
		for _, name := range c.requests("upload") {
			if slices.Contains([]string{"p0", "p4", "p8", "p12", "p16"}, name) {
				t.Errorf("%s, which the cache has, was sent", name)
			}
		}
		if f := c.pusher.Faults(); len(f) != 0 {
			t.Errorf("faults %q", f)
		}
		stop()
	})
}

func TestNarinfoOf(t *testing.T) {
	t.Parallel()
	hash := digest.Of([]byte("x"))
	n := narinfoOf(nix.PathInfo{
		Path: nixtest.Path("a"), NarHash: hash, NarSize: 7, References: []string{nixtest.Path("b"), nixtest.Path("a")},
		Deriver: nixtest.Path("a.drv"), Signatures: []string{"k:A"}, CA: "fixed:x", Ultimate: true,
	})
	references := []string{path.Base(nixtest.Path("a")), path.Base(nixtest.Path("b"))}
	slices.Sort(references)
	want := fmt.Sprintf("StorePath: %s\nNarHash: %s\nNarSize: 7\nReferences: %s\nDeriver: %s\nSig: k:A\nCA: fixed:x\n",
		nixtest.Path("a"), hash.Nix(), strings.Join(references, " "), path.Base(nixtest.Path("a.drv")))
	if got := string(n.Text()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if n := narinfoOf(nix.PathInfo{Path: nixtest.Path("a")}); n.Deriver != "" || n.References != nil {
		t.Errorf("got %+v", n)
	}
}

func TestAsksAboutManyAtOnce(t *testing.T) {
	t.Parallel()
	store, infos := files(t, 2*askAtOnce+1)
	synctest.Test(t, func(t *testing.T) {
		c := newCache(store)
		for _, p := range infos {
			c.has[hashOf(p.Path)] = true
		}
		add(c.pusher, infos)
		stop := c.run(t.Context())
		c.pusher.Drain(t.Context())
		stop()
		c.mustCheck(t, infos)
		if !slices.Equal(c.batches, []int{askAtOnce, askAtOnce, 1}) {
			t.Errorf("questions about %v paths", c.batches)
		}
	})
}

// The smaller file is there first, but may not be seen before what it refers to.
func TestCommitsReferencesFirst(t *testing.T) {
	t.Parallel()
	store, infos := files(t, 30)
	chain(infos)
	synctest.Test(t, func(t *testing.T) {
		c := newCache(store)
		c.answer = func(_ context.Context, what, name string) error {
			if what == "upload" && strings.HasSuffix(name, "0") {
				time.Sleep(time.Minute)
			}
			return nil
		}
		stop := c.run(t.Context())
		add(c.pusher, infos)
		c.pusher.Drain(t.Context())
		stop()
		c.mustCheck(t, infos)
		var want []string
		for i := range infos {
			want = append(want, fmt.Sprintf("p%d", i))
		}
		if got := c.requests("commit"); !slices.Equal(got, want) {
			t.Errorf("commits came as %q", got)
		}
	})
}

// A path may be valid before its reference is: Nix registers cycles never, but
// the watcher may see a reference late. Nobody may wait for the other.
func TestReferencesAddedLateHoldNothingUp(t *testing.T) {
	t.Parallel()
	store, infos := files(t, 12)
	for i := range infos {
		infos[i].References = []string{infos[(i+1)%len(infos)].Path} // in a circle, even
	}
	synctest.Test(t, func(t *testing.T) {
		c := newCache(store)
		stop := c.run(t.Context())
		add(c.pusher, infos)
		c.pusher.Drain(t.Context())
		stop()
		if m := c.pusher.Missing(); len(m) != 0 {
			t.Errorf("missing %q", m)
		}
	})
}

func TestAddedAgain(t *testing.T) {
	t.Parallel()
	store, infos := files(t, 1)
	synctest.Test(t, func(t *testing.T) {
		c := newCache(store)
		refuse := true
		c.answer = func(_ context.Context, what, _ string) error {
			if what == "commit" && refuse {
				return errors.New("HTTP 409")
			}
			return nil
		}
		stop := c.run(t.Context())
		push := func() {
			c.pusher.Add(infos[0])
			c.pusher.Add(infos[0])
			c.pusher.Drain(t.Context())
		}
		push()
		if m := c.pusher.Missing(); !slices.Equal(m, []string{infos[0].Path}) {
			t.Errorf("missing %q", m)
		}
		c.mustCheck(t, infos)
		refuse = false
		push() // sent again, since it failed
		push() // not again
		c.mustCheck(t, infos)
		stop()
		if got := c.requests("upload"); len(got) != 2 {
			t.Errorf("%d uploads, want 2", len(got))
		}
		if m := c.pusher.Missing(); len(m) != 0 {
			t.Errorf("missing %q", m)
		}
	})
}

func TestAPathThatIsGoneIsAFault(t *testing.T) {
	t.Parallel()
	store, infos := files(t, 2)
	if err := os.Remove(store.RealPath(infos[0].Path)); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		c := newCache(store)
		stop := c.run(t.Context())
		add(c.pusher, infos)
		c.pusher.Drain(t.Context())
		stop()
		c.mustCheck(t, infos)
		if m := c.pusher.Missing(); !slices.Equal(m, []string{infos[0].Path}) {
			t.Errorf("missing %q", m)
		}
		if f := c.pusher.Faults(); len(f) != 1 || !strings.Contains(f[0], "no such file") ||
			!strings.HasSuffix(f[0], "(for "+filepath.Base(infos[0].Path)+")") {
			t.Errorf("faults %q", f)
		}
	})
}

// A cache that fails is left alone until it says that it is back.
func TestACacheThatIsAway(t *testing.T) {
	t.Parallel()
	reset := errors.New("connection reset by peer")
	for name, tt := range map[string]struct {
		fails    string // this kind of request
		err      error
		requests int // of those before it is left alone, at most
	}{
		"questions fail":     {"missing", reset, 1},
		"uploads fail":       {"upload", reset, tooMany + DefaultJobs - 1},
		"commits fail":       {"commit", reset, tooMany + DefaultJobs - 1},
		"one is much slower": {"upload", fmt.Errorf("%w: no answer within 15s", push.ErrTooSlow), DefaultJobs},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, infos := files(t, 50)
			chain(infos)
			synctest.Test(t, func(t *testing.T) {
				c := newCache(store)
				var mu sync.Mutex
				down := true
				c.answer = func(_ context.Context, what, _ string) error {
					mu.Lock()
					defer mu.Unlock()
					if down && (what == tt.fails || what == "probe") {
						return tt.err
					}
					return nil
				}
				stop := c.run(t.Context())
				add(c.pusher, infos)
				synctest.Wait()
				if tt.fails == "missing" {
					// A question that fails is one failure, whatever it asks about.
					for range tooMany - 1 {
						if err := c.pusher.leftAlone(); err != nil {
							t.Fatalf("left alone: %v", err)
						}
						c.pusher.Add(infos[0])
						synctest.Wait()
					}
				}
				if err := c.pusher.leftAlone(); !errors.Is(err, tt.err) {
					t.Fatalf("left alone because of %v", err)
				}
				before := len(c.requests(tt.fails))
				if limit := max(tt.requests, tooMany); before > limit {
					t.Errorf("%d requests failed before it was left alone, want at most %d", before, limit)
				}
				add(c.pusher, infos)
				time.Sleep(10*askAgain + time.Second)
				if got := len(c.requests(tt.fails)); got != before {
					t.Errorf("%d requests to a cache that is away", got-before)
				}
				if got := len(c.requests("probe")); got != 10 {
					t.Errorf("it was asked %d times whether it is back, want 10", got)
				}

				mu.Lock()
				down = false
				mu.Unlock()
				time.Sleep(askAgain)
				synctest.Wait()
				c.mustCheck(t, infos)
				if m := c.pusher.Missing(); len(m) != 0 {
					t.Errorf("missing %d after it came back", len(m))
				}
				stop()
				if f := c.pusher.Faults(); len(f) != 1 || !strings.HasPrefix(f[0], tt.err.Error()) {
					t.Errorf("faults %q", f)
				}
			})
		})
	}
}

func TestFailuresBetweenSuccessesAreNoReasonToLeave(t *testing.T) {
	t.Parallel()
	store, infos := files(t, 40)
	synctest.Test(t, func(t *testing.T) {
		c := newCache(store)
		c.answer = func(_ context.Context, what, name string) error {
			time.Sleep(time.Second)
			if what == "upload" && strings.HasSuffix(name, "0") {
				return errors.New("HTTP 500 Internal Server Error")
			}
			return nil
		}
		stop := c.run(t.Context())
		add(c.pusher, infos)
		c.pusher.Drain(t.Context())
		stop()
		c.mustCheck(t, infos)
		if m := c.pusher.Missing(); len(m) != 4 {
			t.Errorf("missing %d, want 4", len(m))
		}
		if got := len(c.requests("probe")); got != 0 {
			t.Errorf("it was probed %d times", got)
		}
		if f := c.pusher.Faults(); len(f) != 1 || !strings.HasPrefix(f[0], "HTTP 500 Internal Server Error (4 times, first for ") {
			t.Errorf("faults %q", f)
		}
	})
}

// What failed is sent before what was added since, which may refer to it.
func TestComesBackInOrder(t *testing.T) {
	t.Parallel()
	store, infos := files(t, 8)
	chain(infos)
	synctest.Test(t, func(t *testing.T) {
		c := newCache(store)
		down := true
		c.answer = func(_ context.Context, what, _ string) error {
			if down {
				return push.ErrTooSlow
			}
			return nil
		}
		stop := c.run(t.Context())
		add(c.pusher, infos[:4])
		synctest.Wait()
		add(c.pusher, infos[4:])
		synctest.Wait()
		down = false
		c.pusher.Drain(t.Context())
		if m := c.pusher.Missing(); len(m) != 0 {
			t.Errorf("missing %q", m)
		}
		stop()
		c.mustCheck(t, infos)
		if got, want := c.requests("commit"), []string{"p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7"}; !slices.Equal(got, want) {
			t.Errorf("commits came as %q", got)
		}
	})
}

func TestDrainGivesUpOnACacheThatIsAway(t *testing.T) {
	t.Parallel()
	store, infos := files(t, 10)
	synctest.Test(t, func(t *testing.T) {
		c := newCache(store)
		c.answer = func(context.Context, string, string) error { return push.ErrTooSlow }
		stop := c.run(t.Context())
		c.pusher.Add(infos[0])
		synctest.Wait()
		add(c.pusher, infos)
		began := time.Now()
		c.pusher.Drain(t.Context())
		if d := time.Since(began); d != 0 {
			t.Errorf("it waited %v", d)
		}
		if got := len(c.requests("probe")); got != 1 {
			t.Errorf("it asked %d times, want once", got)
		}
		c.mustCheck(t, infos)
		if m := c.pusher.Missing(); len(m) != len(infos) {
			t.Errorf("missing %d", len(m))
		}
		c.pusher.Revive(t.Context())
		if got := len(c.requests("probe")); got != 2 {
			t.Errorf("it asked %d times after Revive, want twice", got)
		}
		stop()
		if d := time.Since(began); d != 0 {
			t.Errorf("the end took %v", d)
		}
		c.mustCheck(t, infos)
	})
}

func TestReviveSendsWhatFailed(t *testing.T) {
	t.Parallel()
	store, infos := files(t, 10)
	synctest.Test(t, func(t *testing.T) {
		c := newCache(store)
		var mu sync.Mutex
		down := true
		c.answer = func(context.Context, string, string) error {
			mu.Lock()
			defer mu.Unlock()
			if down {
				return push.ErrTooSlow
			}
			return nil
		}
		stop := c.run(t.Context())
		add(c.pusher, infos)
		c.pusher.Drain(t.Context())
		mu.Lock()
		down = false
		mu.Unlock()
		c.pusher.Revive(t.Context())
		c.pusher.Drain(t.Context())
		stop()
		c.mustCheck(t, infos)
		if m := c.pusher.Missing(); len(m) != 0 {
			t.Errorf("missing %q", m)
		}
		c.pusher.Revive(t.Context()) // of no effect on one that is there
	})
}

// A cache that comes back when the run is over comes too late, and may not keep
// it from ending.
func TestCloseEndsRunWhateverTheCacheDoes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		back  time.Duration // after Close
		slow  time.Duration // a probe takes
		drain bool
	}{
		"it stays away":              {back: time.Hour, drain: true},
		"it comes back":              {back: askAgain / 2, drain: true},
		"it is back at once":         {drain: true},
		"it was not waited for":      {back: time.Hour},
		"it is being asked":          {slow: 3 * askAgain, drain: true},
		"it is being asked, in vain": {slow: 3 * askAgain, back: time.Hour, drain: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, infos := files(t, 10)
			synctest.Test(t, func(t *testing.T) {
				c := newCache(store)
				var mu sync.Mutex
				var back time.Time
				c.answer = func(ctx context.Context, what, _ string) error {
					mu.Lock()
					defer mu.Unlock()
					if what == "probe" && !back.IsZero() {
						mu.Unlock()
						time.Sleep(tt.slow)
						mu.Lock()
					}
					if back.IsZero() || time.Now().Before(back) {
						return push.ErrTooSlow
					}
					return nil
				}
				stop := c.run(t.Context())
				add(c.pusher, infos)
				if tt.drain {
					c.pusher.Drain(t.Context())
				}
				if tt.slow > 0 {
					mu.Lock()
					back = time.Now().Add(time.Hour)
					mu.Unlock()
					time.Sleep(askAgain + time.Second) // it is asked just now
				}
				mu.Lock()
				back = time.Now().Add(tt.back)
				mu.Unlock()
				stop()
				c.mustCheck(t, infos)
				if m := c.pusher.Missing(); len(m) != len(infos) {
					t.Errorf("missing %d of %d", len(m), len(infos))
				}
			})
		})
	}
}

// A cache that goes away while the rest is sent ends the run.
func TestCloseWithAQueue(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]bool{"that is sent": false, "that fails": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, infos := files(t, askAtOnce+50)
			synctest.Test(t, func(t *testing.T) {
				c := newCache(store)
				c.answer = func(_ context.Context, what, _ string) error {
					time.Sleep(time.Second)
					if fails {
						return errors.New("HTTP 502")
					}
					return nil
				}
				stop := c.run(t.Context())
				add(c.pusher, infos)
				stop()
				c.mustCheck(t, infos)
				if m := c.pusher.Missing(); (len(m) == len(infos)) != fails || (len(m) == 0) == fails {
					t.Errorf("missing %d of %d", len(m), len(infos))
				}
			})
		})
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for name, hangs := range map[string]string{
		"while it waits for work": "", "in a question": "missing", "in an upload": "upload", "in a commit": "commit",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, infos := files(t, 10)
			chain(infos)
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				c := newCache(store)
				c.answer = func(ctx context.Context, what, _ string) error {
					if what == hangs {
						<-ctx.Done()
						return ctx.Err()
					}
					return nil
				}
				if hangs != "" {
					add(c.pusher, infos)
				}
				stop := c.run(ctx)
				synctest.Wait()
				cancel()
				c.pusher.Drain(ctx)
				stop()
				if hangs != "" {
					c.mustCheck(t, infos)
				}
				if f := c.pusher.Faults(); len(f) != 0 {
					t.Errorf("that the run is over is no fault of the cache: %q", f)
				}
			})
		})
	}
}

func TestAContextThatIsDoneEndsAPushBeforeItBegins(t *testing.T) {
	t.Parallel()
	store, infos := files(t, 3)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c := newCache(store)
		add(c.pusher, infos)
		c.pusher.Run(ctx)
		c.pusher.Drain(ctx)
		if len(c.log) != 0 {
			t.Errorf("requests %q", c.log)
		}
		if m := c.pusher.Missing(); len(m) != 3 {
			t.Errorf("missing %q", m)
		}
	})
}

func TestFaults(t *testing.T) {
	t.Parallel()
	var f faults
	if f.lines() != nil {
		t.Error("there are faults before any")
	}
	refused := errors.New("connection refused")
	f.add(&pathError{nixtest.Path("a"), errors.New("HTTP 413: too large")})
	f.add(&pathError{nixtest.Path("b"), refused})
	f.add(errors.New("asking which paths are missing: HTTP 500"))
	f.add(&pathError{nixtest.Path("c"), refused})
	f.add(errors.New("asking which paths are missing: HTTP 500"))
	f.add(errors.New("once"))
	want := []string{
		"HTTP 413: too large (for " + path.Base(nixtest.Path("a")) + ")",
		"connection refused (2 times, first for " + path.Base(nixtest.Path("b")) + ")",
		"asking which paths are missing: HTTP 500 (2 times)",
		"once",
	}
	if got := f.lines(); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	err := &pathError{"/nix/store/x", refused}
	if err.Error() != "/nix/store/x: connection refused" || !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
}

// many is how many paths the property is tried with.
const many = 500

// Whatever fails, and whenever: a path is held or missing, and is not committed
// before a reference that is on its way; and the run ends.
func TestRandomFailures(t *testing.T) {
	t.Parallel()
	store, all := files(t, many)
	rapid.Check(t, func(rt *rapid.T) {
		infos := slices.Clone(all[:rapid.IntRange(1, many).Draw(rt, "paths")])
		seed := rapid.Uint64().Draw(rt, "seed")
		rate := rapid.SampledFrom([]int{0, 1, 5, 30, 100}).Draw(rt, "failures, in a hundred")
		slow := rapid.SampledFrom([]int{0, 0, 1}).Draw(rt, "too slow, in a hundred")
		held := rapid.IntRange(0, 100).Draw(rt, "held, in a hundred")
		again := rapid.Bool().Draw(rt, "the closure is pushed again")
		cutShort := rapid.SampledFrom([]time.Duration{0, 0, time.Second, 10 * time.Second}).Draw(rt, "interrupted after")
		random := splitMix(seed)
		for i := range infos {
			for range min(i, int(random()%4)) {
				infos[i].References = append(infos[i].References, infos[random()%uint64(i+1)].Path)
			}
		}
		var err error
		synctest.Test(t, func(t *testing.T) {
			err = randomFailures(t.Context(), newCache(store), infos, random, rate, slow, held, again, cutShort)
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// splitMix makes numbers that look random of a seed.
func splitMix(state uint64) func() uint64 {
	var mu sync.Mutex
	return func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		state += 0x9e3779b97f4a7c15
		z := (state ^ state>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		return z ^ z>>31
	}
}

func randomFailures(ctx context.Context, c *cache, infos []nix.PathInfo, random func() uint64, rate, slow, held int, again bool, cutShort time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if c.cutShort = cutShort > 0; c.cutShort {
		ctx, cancel = context.WithTimeout(ctx, cutShort)
		defer cancel()
	}
	chance := func(percent int) bool { return int(random()%100) < percent }
	for _, p := range infos {
		if chance(held) {
			c.has[hashOf(p.Path)] = true
		}
	}
	c.answer = func(ctx context.Context, what, _ string) error {
		select {
		case <-time.After(time.Duration(random() % uint64(100*time.Millisecond))):
		case <-ctx.Done():
			return ctx.Err()
		}
		switch {
		case chance(slow):
			return push.ErrTooSlow
		case chance(rate):
			return errors.New("HTTP 500")
		}
		return nil
	}
	stop := c.run(ctx)
	for _, p := range infos {
		c.pusher.Add(p)
		time.Sleep(time.Duration(random() % uint64(20*time.Millisecond)))
	}
	c.pusher.Drain(ctx)
	c.pusher.Revive(ctx)
	if again {
		add(c.pusher, infos)
		c.pusher.Drain(ctx)
	}
	stop()
	if err := c.check(infos); err != nil {
		return err
	}
	if m := c.pusher.Missing(); rate == 0 && slow == 0 && cutShort == 0 && len(m) > 0 {
		return fmt.Errorf("%d are missing though nothing failed", len(m))
	}
	return nil
}
