package packstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/internal/s3test"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore/packstoretest"
)

// block is the size of the cache's blocks.
const block = 4 << 20

// far is a store that counts what is asked of it, and that can be away.
type far struct {
	packstore.Store
	away  atomic.Bool
	opens atomic.Int64
	sizes atomic.Int64

	mu   sync.Mutex
	gate chan struct{} // Open waits for it, unless nil
}

func (f *far) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	f.opens.Add(1)
	f.mu.Lock()
	gate := f.gate
	f.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if f.away.Load() {
		return nil, packstore.ErrUnavailable
	}
	return f.Store.Open(ctx, name, offset, length)
}

func (f *far) Size(ctx context.Context, name string) (int64, error) {
	f.sizes.Add(1)
	if f.away.Load() {
		return 0, packstore.ErrUnavailable
	}
	return f.Store.Size(ctx, name)
}

// shut makes Open wait until what it returns is called.
func (f *far) shut() (open func()) {
	gate := make(chan struct{})
	f.mu.Lock()
	f.gate = gate
	f.mu.Unlock()
	return sync.OnceFunc(func() {
		f.mu.Lock()
		f.gate = nil
		f.mu.Unlock()
		close(gate)
	})
}

func newFar(t *testing.T) *far {
	t.Helper()
	return &far{Store: openDisk(t, t.TempDir())}
}

// await waits for what must come; if it does not, the time for all tests ends.
func await(condition func() bool) {
	for !condition() {
		time.Sleep(time.Millisecond)
	}
}

// once hides that a reader can seek: such a pack is not kept when it is put.
func once(b []byte) io.Reader { return io.MultiReader(bytes.NewReader(b)) }

func putFar(t *testing.T, s packstore.Store, name string, size int) []byte {
	t.Helper()
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%32s", name))))
	_, _ = r.Read(b)
	if err := s.Put(t.Context(), name, int64(size), once(b)); err != nil {
		t.Fatal(err)
	}
	return b
}

func openCached(t *testing.T, dir string, limit int64, next packstore.Store) *packstore.Cached {
	t.Helper()
	c, err := packstore.OpenCached(dir, limit, next)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// want reads a range and compares it.
func want(t *testing.T, s packstore.Store, name string, body []byte, offset, length int) {
	t.Helper()
	r, err := s.Open(t.Context(), name, int64(offset), int64(length))
	if err != nil {
		t.Fatalf("%d bytes at %d: %v", length, offset, err)
	}
	defer r.Close()
	got := make([]byte, length)
	if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, body[offset:offset+length]) {
		t.Fatalf("%d bytes at %d: other bytes, or error %v", length, offset, err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("behind the range: %d bytes, %v", n, err)
	}
}

// blockFiles returns the files of blocks, by name.
func blockFiles(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	files := map[string]int64{}
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "lock" {
			return err
		}
		info, err := e.Info()
		if err == nil {
			files[path] = info.Size()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return files
}

func TestCachedConformanceOverDisk(t *testing.T) {
	t.Parallel()
	packstoretest.Run(t, func(t *testing.T) (packstore.Store, func() packstore.Store) {
		dir := t.TempDir()
		reopen := func() packstore.Store {
			return openCached(t, t.TempDir(), packstore.MinCached, openDisk(t, dir))
		}
		return reopen(), reopen
	})
}

func cachedConformance(t *testing.T, server *s3test.Server) {
	t.Helper()
	packstoretest.Run(t, func(t *testing.T) (packstore.Store, func() packstore.Store) {
		c := config(t, server)
		reopen := func() packstore.Store {
			return openCached(t, t.TempDir(), packstore.MinCached, openS3(t, c))
		}
		return reopen(), reopen
	})
}

func TestCachedConformanceOverVersitygw(t *testing.T) {
	t.Parallel()
	cachedConformance(t, s3test.Versitygw(t))
}

func TestCachedConformanceOverMinIO(t *testing.T) {
	t.Parallel()
	cachedConformance(t, s3test.MinIO(t))
}

func TestACachedRangeIsNotFetchedAgain(t *testing.T) {
	t.Parallel()
	next := newFar(t)
	c := openCached(t, t.TempDir(), 16*block, next)
	body := putFar(t, c, "a", 2*block+1000)
	for range 2 {
		want(t, c, "a", body, 0, len(body))
		want(t, c, "a", body, block-1, 2)
		want(t, c, "a", body, len(body)-1, 1)
		want(t, c, "a", body, 2*block, 1000)
	}
	if opens, sizes := next.opens.Load(), next.sizes.Load(); opens != 3 || sizes != 1 {
		t.Errorf("3 blocks took %d requests, and their size %d", opens, sizes)
	}
	if s := c.Stats(); s.Misses != 3 || s.Hits == 0 || s.Around != 0 || s.Used < int64(len(body)) {
		t.Errorf("stats: %+v", s)
	}
}

func TestParallelMissesMakeOneRequest(t *testing.T) {
	t.Parallel()
	next := newFar(t)
	c := openCached(t, t.TempDir(), 16*block, next)
	body := putFar(t, c, "a", block/2)
	open := next.shut()
	defer open()
	var g errgroup.Group
	for range 20 {
		g.Go(func() error {
			r, err := c.Open(t.Context(), "a", 1000, 5)
			if err != nil {
				return err
			}
			defer r.Close()
			got := make([]byte, 5)
			_, err = io.ReadFull(r, got)
			if err == nil && !bytes.Equal(got, body[1000:1005]) {
				err = errors.New("other bytes")
			}
			return err
		})
	}
	// A reader whose context ends does not take the others' fetch with it.
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	if _, err := c.Open(ctx, "a", 0, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a reader that left: %v", err)
	}
	open()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := next.opens.Load(); n != 1 {
		t.Errorf("readers of one block made %d requests for it", n)
	}
}

func TestAColdReadFetchesSeveralBlocksAtOnce(t *testing.T) {
	t.Parallel()
	next := newFar(t)
	c := openCached(t, t.TempDir(), 16*block, next)
	body := putFar(t, c, "a", 8*block)
	open := next.shut()
	defer open()
	var g errgroup.Group
	g.Go(func() error {
		r, err := c.Open(t.Context(), "a", 0, int64(len(body)))
		if err != nil {
			return err
		}
		defer r.Close()
		got, err := io.ReadAll(r)
		if err == nil && !bytes.Equal(got, body) {
			err = errors.New("other bytes")
		}
		return err
	})
	await(func() bool { return next.opens.Load() >= 4 })
	open()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if opens := next.opens.Load(); opens != 8 {
		t.Errorf("8 blocks took %d requests", opens)
	}
}

func TestWhatIsCachedIsServedWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	next := newFar(t)
	dir := t.TempDir()
	c := openCached(t, dir, 16*block, next)
	body := putFar(t, c, "a", 3*block)
	want(t, c, "a", body, block, block)
	next.away.Store(true)
	want(t, c, "a", body, block+5, block-5)
	if n, err := c.Size(t.Context(), "a"); n != int64(len(body)) || err != nil {
		t.Errorf("Size = %d, %v", n, err)
	}
	for _, offset := range []int64{0, 2 * block} {
		if _, err := c.Open(t.Context(), "a", offset, 1); !errors.Is(err, packstore.ErrUnavailable) {
			t.Errorf("a block that is not cached: %v, want ErrUnavailable", err)
		}
	}
	if _, err := c.Open(t.Context(), "other", 0, 1); !errors.Is(err, packstore.ErrUnavailable) {
		t.Errorf("a pack that is not cached: %v, want ErrUnavailable", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openCached(t, dir, 16*block, next)
	want(t, c, "a", body, block, block)
	next.away.Store(false)
	want(t, c, "a", body, 0, len(body))
}

func TestWhatWasPushedIsServedFromDisk(t *testing.T) {
	t.Parallel()
	next := newFar(t)
	c := openCached(t, t.TempDir(), 16*block, next)
	body := bytes.Repeat([]byte("0123456789"), block/4)
	r := bytes.NewReader(append([]byte("before"), body...))
	if _, err := r.Seek(6, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if err := c.Put(t.Context(), "a", int64(len(body)), r); err != nil {
		t.Fatal(err)
	}
	next.away.Store(true)
	want(t, c, "a", body, 0, len(body))
	if n := next.opens.Load(); n != 0 {
		t.Errorf("%d requests for what was just pushed", n)
	}
}

func TestEvictionKeepsTheLimitAndWhatWasUsedLast(t *testing.T) {
	t.Parallel()
	next := newFar(t)
	dir := t.TempDir()
	c := openCached(t, dir, packstore.MinCached, next) // 7 blocks, and their checksums
	old, often := putFar(t, c, "old", block), putFar(t, c, "often", block)
	want(t, c, "old", old, 0, 1)
	want(t, c, "often", often, 0, 1)
	for i := range 12 {
		name := fmt.Sprintf("new%d", i)
		body := putFar(t, c, name, block)
		want(t, c, name, body, 0, block)
		want(t, c, "often", often, 0, 1)
		var sum int64
		for _, size := range blockFiles(t, dir) {
			sum += size
		}
		if sum > packstore.MinCached {
			t.Fatalf("%d bytes in a cache of %d", sum, packstore.MinCached)
		}
		if used := c.Stats().Used; used != sum {
			t.Fatalf("it counts %d bytes, and has %d", used, sum)
		}
	}
	before := next.opens.Load()
	want(t, c, "often", often, 0, block)
	if next.opens.Load() != before {
		t.Error("what was used all the time was evicted")
	}
	want(t, c, "old", old, 0, block)
	if next.opens.Load() != before+1 {
		t.Error("what was used least is still there")
	}

	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for path := range blockFiles(t, dir) {
		copied := filepath.Join(filepath.Dir(path), "x"+filepath.Base(path))
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(copied, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c = openCached(t, dir, packstore.MinCached, next)
	if used := c.Stats().Used; used > packstore.MinCached {
		t.Errorf("a start with too much keeps %d bytes of %d", used, packstore.MinCached)
	}
}

// comparer is a writer of bytes that are known beforehand.
type comparer struct{ left []byte }

func (c *comparer) Write(b []byte) (int, error) {
	if !bytes.HasPrefix(c.left, b) {
		return 0, errors.New("other bytes")
	}
	c.left = c.left[len(b):]
	return len(b), nil
}

func TestReadersKeepTheirBlocksInASmallCache(t *testing.T) {
	t.Parallel()
	next := newFar(t)
	dir := t.TempDir()
	c := openCached(t, dir, packstore.MinCached, next)
	var bodies [6][]byte
	for i := range bodies {
		bodies[i] = putFar(t, c, fmt.Sprintf("p%d", i), 3*block+i)
	}
	var g errgroup.Group
	for range 2 {
		for i, body := range bodies {
			g.Go(func() error {
				r, err := c.Open(t.Context(), fmt.Sprintf("p%d", i), 0, int64(len(body)))
				if err != nil {
					return err
				}
				defer r.Close()
				_, err = packstore.CopyN(&comparer{body}, r, int64(len(body)))
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, size := range blockFiles(t, dir) {
		sum += size
	}
	if s := c.Stats(); sum > packstore.MinCached || s.Used != sum {
		t.Errorf("%d bytes on disk, counted as %d, of %d", sum, s.Used, packstore.MinCached)
	}
}

func TestPrefetchBringsARangeNear(t *testing.T) {
	t.Parallel()
	next := newFar(t)
	c := openCached(t, t.TempDir(), 32*block, next)
	body := putFar(t, c, "a", 6*block)
	ctx, cancel := context.WithCancel(t.Context())
	c.Prefetch(ctx, "a", block+1, 4*block) // blocks 1 to 5
	cancel()
	await(func() bool { return c.Stats().Used >= 5*block })
	want(t, c, "a", body, block, 5*block)
	if n := next.opens.Load(); n != 5 {
		t.Errorf("%d requests, want 5", n)
	}
	for _, r := range []struct {
		name           string
		offset, length int64
	}{{"../a", 0, 1}, {"gone", 0, 1}, {"a", -1, 1}, {"a", 1 << 62, 1 << 62}, {"a", 1 << 40, 1}, {"a", 0, 0}} {
		c.Prefetch(t.Context(), r.name, r.offset, r.length)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c.Prefetch(t.Context(), "a", 0, 1)
	if n := next.opens.Load(); n != 5 {
		t.Errorf("%d requests, want 5", n)
	}
}

// filesOnly fails on what the kernel could not send.
type filesOnly struct {
	http.ResponseWriter
	files, others atomic.Int64
}

func (f *filesOnly) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		if _, ok := l.R.(*os.File); ok {
			f.files.Add(1)
			return f.ResponseWriter.(io.ReaderFrom).ReadFrom(r)
		}
	}
	f.others.Add(1)
	return io.Copy(f.ResponseWriter, r)
}

func TestCopyNGivesNetHTTPTheFilesThemselves(t *testing.T) {
	t.Parallel()
	next := newFar(t)
	c := openCached(t, t.TempDir(), 16*block, next)
	body := putFar(t, c, "a", 3*block)
	var seen filesOnly
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pack, err := c.Open(r.Context(), "a", 10, 3*block-10)
		if err == nil {
			defer pack.Close()
			seen.ResponseWriter = w
			_, err = packstore.CopyN(&seen, pack, 3*block-10)
		}
		if err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	resp, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(got, body[10:]) {
		t.Errorf("%d bytes, error %v", len(got), err)
	}
	if files, others := seen.files.Load(), seen.others.Load(); files != 3 || others != 0 {
		t.Errorf("%d files and %d other sources; want 3 files", files, others)
	}
}
