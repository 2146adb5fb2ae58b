package cas_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/nar"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// rig is a store over a directory, with the engines under it in reach.
type rig struct {
	*cas.Store
	dir   string
	packs *packs
	index *idx
}

// packs is a pack store whose Put can be made to fail or to wait.
type packs struct {
	packstore.Store
	beforePut atomic.Pointer[func() error]
}

func (p *packs) Put(ctx context.Context, name string, size int64, body io.Reader) error {
	if before := p.beforePut.Load(); before != nil {
		if err := (*before)(); err != nil {
			return err
		}
	}
	return p.Store.Put(ctx, name, size, body)
}

// idx is an index whose Update can be made to fail.
type idx struct {
	index.Index
	beforeUpdate atomic.Pointer[func() error]
}

func (x *idx) Update(ctx context.Context, change func(index.Tx) error) error {
	if before := x.beforeUpdate.Load(); before != nil {
		if err := (*before)(); err != nil {
			return err
		}
	}
	return x.Index.Update(ctx, change)
}

func open(t testing.TB) *rig { return openAt(t, t.TempDir()) }

func openAt(t testing.TB, dir string) *rig {
	t.Helper()
	disk, err := packstore.OpenDisk(filepath.Join(dir, "packs"))
	must(t, err)
	sqlite, err := index.OpenSQLite(t.Context(), filepath.Join(dir, "index.sqlite"))
	must(t, err)
	r := &rig{dir: dir, packs: &packs{Store: disk}, index: &idx{Index: sqlite}}
	r.Store = cas.New(r.packs, r.index, cas.DefaultGrace)
	t.Cleanup(func() {
		r.Close()
		must(t, sqlite.Close())
	})
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func frameOf(plain []byte) pack.Frame {
	return pack.Frame{
		Chunk: digest.Chunk{Hash: digest.Of(plain), Size: uint32(len(plain))},
		Data:  frame.Encode(nil, plain),
	}
}

// numbered makes n frames that no other name makes.
func numbered(name string, n int) []pack.Frame {
	out := make([]pack.Frame, n)
	for i := range out {
		out[i] = frameOf(fmt.Appendf(nil, "%s %d %s", name, i, strings.Repeat("and so on ", i%7)))
	}
	return out
}

func chunksOf(frames []pack.Frame) []digest.Chunk {
	out := make([]digest.Chunk, len(frames))
	for i, f := range frames {
		out[i] = f.Chunk
	}
	return out
}

func hashesOf(frames []pack.Frame) []digest.Hash {
	out := make([]digest.Hash, len(frames))
	for i, f := range frames {
		out[i] = f.Hash
	}
	return out
}

// blobOf is the blob that the frames make.
func blobOf(t testing.TB, frames ...pack.Frame) digest.Digest {
	t.Helper()
	var plain []byte
	for _, f := range frames {
		b, err := frame.Decode(nil, f.Data)
		must(t, err)
		plain = append(plain, b...)
	}
	return digest.Digest{Hash: digest.Of(plain), Size: int64(len(plain))}
}

func missing(t testing.TB, s *cas.Store, frames ...pack.Frame) int {
	t.Helper()
	m, err := s.Missing(t.Context(), hashesOf(frames))
	must(t, err)
	return len(m)
}

func packFiles(t testing.TB, r *rig) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.dir, "packs", "*", "*.pack"))
	must(t, err)
	return files
}

// entriesOnDisk counts the chunks in all packs, by the packs' own tables.
func entriesOnDisk(t testing.TB, r *rig) int {
	t.Helper()
	n := 0
	for _, f := range packFiles(t, r) {
		b, err := os.ReadFile(f)
		must(t, err)
		entries, err := pack.ReadTable(bytes.NewReader(b), int64(len(b)))
		must(t, err)
		n += len(entries)
	}
	return n
}

func readAll(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

func TestStoredFramesAreThereAfterARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	frames := numbered("kept", 30)
	t.Run("put", func(t *testing.T) {
		r := openAt(t, dir)
		if n := missing(t, r.Store, frames...); n != len(frames) {
			t.Fatalf("%d are missing before they were put, want all", n)
		}
		must(t, r.PutFrames(t.Context(), frames))
	})
	r := openAt(t, dir)
	if n := missing(t, r.Store, frames...); n != 0 {
		t.Errorf("%d are missing", n)
	}
	found, err := r.index.Locate(t.Context(), hashesOf(frames))
	must(t, err)
	data := map[digest.Hash][]byte{}
	for _, f := range frames {
		data[f.Hash] = f.Data
	}
	for _, l := range found {
		body, err := r.OpenExtent(t.Context(), index.Extent{Pack: l.Pack, Offset: l.Offset, Length: int64(l.Length)})
		must(t, err)
		got := make([]byte, l.Length)
		_, err = io.ReadFull(body, got)
		must(t, errors.Join(err, body.Close()))
		if !bytes.Equal(got, data[l.Hash]) {
			t.Errorf("other bytes lie where chunk %s is said to be", l.Hash)
		}
	}
}

func TestMissingIsInOrderAndEachOnce(t *testing.T) {
	t.Parallel()
	r := open(t)
	f := numbered("a", 4)
	must(t, r.PutFrames(t.Context(), f[1:2]))
	got, err := r.Missing(t.Context(), hashesOf([]pack.Frame{f[3], f[1], f[0], f[3], f[1], f[2], f[0]}))
	must(t, err)
	if want := hashesOf([]pack.Frame{f[3], f[0], f[2]}); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, err := r.Missing(t.Context(), nil); len(got) != 0 || err != nil {
		t.Errorf("of none: %v, %v", got, err)
	}
}

func TestAChunkIsStoredOnce(t *testing.T) {
	t.Parallel()
	r := open(t)
	f := numbered("a", 3)
	must(t, r.PutFrames(t.Context(), []pack.Frame{f[0], f[1], f[0], f[0]}))
	must(t, r.PutFrames(t.Context(), []pack.Frame{f[1], f[2]}))
	must(t, r.PutFrames(t.Context(), f))
	must(t, r.PutFrames(t.Context(), nil))
	if n := entriesOnDisk(t, r); n != len(f) {
		t.Errorf("%d chunks lie in the packs, want %d", n, len(f))
	}
	if n := len(packFiles(t, r)); n != 2 {
		t.Errorf("%d packs, want 2: a batch that brings nothing new makes none", n)
	}
	if n := missing(t, r.Store, f...); n != 0 {
		t.Errorf("%d are missing", n)
	}
}

func TestOneBadFrameRefusesItsBatch(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(f *pack.Frame)
		want  error
	}{
		"another hash": {func(f *pack.Frame) { f.Hash[5]++ }, frame.ErrMismatch},
		"another size": {func(f *pack.Frame) { f.Size++ }, frame.ErrMismatch},
		"cut off":      {func(f *pack.Frame) { f.Data = f.Data[:len(f.Data)-1] }, frame.ErrMalformed},
		"no bytes":     {func(f *pack.Frame) { f.Data = nil }, frame.ErrMalformed},
		"no zstd":      {func(f *pack.Frame) { f.Data = []byte("plain") }, frame.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t)
			f := numbered("a", 20)
			bad := slices.Clone(f)
			c.spoil(&bad[13])
			wantErr(t, r.PutFrames(t.Context(), bad), c.want)
			if n := missing(t, r.Store, f...); n != len(f) {
				t.Errorf("%d of %d are missing, want all", n, len(f))
			}
			if files := packFiles(t, r); len(files) != 0 {
				t.Errorf("it left %v", files)
			}
			must(t, r.PutFrames(t.Context(), f))
		})
	}
}

// Uploads that come while a pack is being written share the next one. In the
// bubble it is certain that all of them wait when the disk goes on.
func TestUploadsThatWaitShareAPack(t *testing.T) {
	t.Parallel()
	const uploads = 16
	batches := make([][]pack.Frame, uploads)
	shared := numbered("shared", 3)
	for i := range batches {
		batches[i] = append(numbered(fmt.Sprint("own", i), 5), shared...)
	}
	// What frame makes at its first use must not belong to the bubble.
	_, err := frame.Check(shared[0], nil)
	must(t, err)

	synctest.Test(t, func(t *testing.T) {
		r := open(t)
		disk := make(chan struct{})
		wait := func() error { <-disk; return nil }
		r.packs.beforePut.Store(&wait)
		var g errgroup.Group
		g.Go(func() error { return r.PutFrames(t.Context(), batches[0]) })
		synctest.Wait()
		for _, b := range batches[1:] {
			g.Go(func() error { return r.PutFrames(t.Context(), b) })
		}
		synctest.Wait()
		close(disk)
		must(t, g.Wait())
		if n := len(packFiles(t, r)); n != 2 {
			t.Errorf("%d packs, want 2: that of the first upload and that of the %d that waited", n, uploads-1)
		}
		if n := entriesOnDisk(t, r); n != uploads*5+len(shared) {
			t.Errorf("%d chunks lie in the packs, want %d", n, uploads*5+len(shared))
		}
		for i, b := range batches {
			if n := missing(t, r.Store, b...); n != 0 {
				t.Errorf("upload %d was acknowledged, %d of its chunks are missing", i, n)
			}
		}
	})
}

func TestManyUploadsAtOnce(t *testing.T) {
	t.Parallel()
	r := open(t)
	const clients, each = 8, 10
	shared := numbered("shared", 4)
	var g errgroup.Group
	for c := range clients {
		g.Go(func() error {
			for i := range each {
				f := append(numbered(fmt.Sprint(c, "/", i), 6), shared...)
				if err := r.PutFrames(t.Context(), f); err != nil {
					return err
				}
				if m, err := r.Missing(t.Context(), hashesOf(f)); err != nil || len(m) != 0 {
					return fmt.Errorf("%d chunks are missing right after they were acknowledged, %w", len(m), err)
				}
			}
			return nil
		})
	}
	must(t, g.Wait())
	if n := len(packFiles(t, r)); n > clients*each {
		t.Errorf("%d packs of %d uploads", n, clients*each)
	}
	if n := entriesOnDisk(t, r); n != clients*each*6+len(shared) {
		t.Errorf("%d chunks lie in the packs, want %d", n, clients*each*6+len(shared))
	}
}

// Two processes over the same files may store the same chunk twice, but then
// each of them finds it.
func TestTwoStoresOverOneDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stores := []*rig{openAt(t, dir), openAt(t, dir)}
	var g errgroup.Group
	for i := range 20 {
		for _, r := range stores {
			g.Go(func() error {
				f := numbered(fmt.Sprint(i), 4)
				if err := r.PutFrames(t.Context(), f); err != nil {
					return err
				}
				_, err := r.Verify(t.Context(), blobOf(t, f...), chunksOf(f), readAll)
				return err
			})
		}
	}
	must(t, g.Wait())
	for i := range 20 {
		for _, r := range stores {
			if n := missing(t, r.Store, numbered(fmt.Sprint(i), 4)...); n != 0 {
				t.Errorf("%d chunks of round %d are missing", n, i)
			}
		}
	}
}

func TestAFullDisk(t *testing.T) {
	t.Parallel()
	r := open(t)
	f := numbered("a", 5)
	full := func() error { return fmt.Errorf("writing pack x: %w", packstore.ErrNoSpace) }
	r.packs.beforePut.Store(&full)
	for range 2 {
		wantErr(t, r.PutFrames(t.Context(), f), packstore.ErrNoSpace)
	}
	if n := missing(t, r.Store, f...); n != len(f) {
		t.Errorf("%d of %d are missing, want all", n, len(f))
	}
	if files := packFiles(t, r); len(files) != 0 {
		t.Errorf("it left %v", files)
	}
	r.packs.beforePut.Store(nil)
	must(t, r.PutFrames(t.Context(), f))
	_, err := r.Verify(t.Context(), blobOf(t, f...), chunksOf(f), readAll)
	must(t, err)
}

func TestAnIndexThatFailsLeavesAnOrphanOnly(t *testing.T) {
	t.Parallel()
	r := open(t)
	f := numbered("a", 5)
	fault := errors.New("the index is on fire")
	fails := func() error { return fault }
	r.index.beforeUpdate.Store(&fails)
	wantErr(t, r.PutFrames(t.Context(), f), fault)
	if n := missing(t, r.Store, f...); n != len(f) {
		t.Errorf("%d of %d are missing, want all", n, len(f))
	}
	if n := len(packFiles(t, r)); n != 1 {
		t.Errorf("%d packs, want 1 orphan", n)
	}
	r.index.beforeUpdate.Store(nil)
	must(t, r.PutFrames(t.Context(), f))
	_, err := r.Verify(t.Context(), blobOf(t, f...), chunksOf(f), readAll)
	must(t, err)
}

func TestAnUploadThatWaitsCanBeGivenUp(t *testing.T) {
	t.Parallel()
	r := open(t)
	f := numbered("a", 2)
	writing, disk := make(chan struct{}), make(chan struct{})
	wait := func() error { close(writing); <-disk; return nil }
	r.packs.beforePut.Store(&wait)
	var g errgroup.Group
	g.Go(func() error { return r.PutFrames(t.Context(), f[:1]) })
	<-writing
	ctx, cancel := context.WithCancel(t.Context())
	var waits errgroup.Group
	waits.Go(func() error { return r.PutFrames(ctx, f[1:]) })
	cancel()
	wantErr(t, waits.Wait(), context.Canceled)
	r.packs.beforePut.Store(nil)
	close(disk)
	must(t, g.Wait())
	if n := missing(t, r.Store, f...); n != 1 {
		t.Errorf("%d are missing, want the one that was given up", n)
	}
}

func TestReserveWaitsForRoom(t *testing.T) {
	t.Parallel()
	r := open(t)
	// More than there is gives all there is: such an upload goes alone.
	release, err := r.Reserve(t.Context(), 1<<40)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = r.Reserve(ctx, 1)
	wantErr(t, err, context.Canceled)
	got := make(chan error)
	go func() {
		release, err := r.Reserve(t.Context(), 1)
		if err == nil {
			release()
		}
		got <- err
	}()
	release()
	must(t, <-got)
}

func TestCloseWaitsForThePackBeingWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := numbered("a", 3)
	t.Run("close", func(t *testing.T) {
		disk, err := packstore.OpenDisk(filepath.Join(dir, "packs"))
		must(t, err)
		x, err := index.OpenSQLite(t.Context(), filepath.Join(dir, "index.sqlite"))
		must(t, err)
		p := &packs{Store: disk}
		s := cas.New(p, x, cas.DefaultGrace)
		writing, goOn := make(chan struct{}), make(chan struct{})
		wait := func() error { close(writing); <-goOn; return nil }
		p.beforePut.Store(&wait)
		var g errgroup.Group
		g.Go(func() error { return s.PutFrames(t.Context(), f) })
		<-writing
		g.Go(func() error { s.Close(); return nil })
		close(goOn)
		must(t, g.Wait())
		wantErr(t, s.PutFrames(t.Context(), numbered("b", 1)), cas.ErrClosed)
		must(t, x.Close())
	})
	if n := missing(t, openAt(t, dir).Store, f...); n != 0 {
		t.Errorf("%d of the acknowledged chunks are missing", n)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	r := open(t)
	f := numbered("a", 6)
	must(t, r.PutFrames(t.Context(), f))
	absent := numbered("absent", 2)
	good := blobOf(t, f...)
	objection := errors.New("no NAR")

	with := func(change func(c []digest.Chunk) []digest.Chunk) []digest.Chunk { return change(chunksOf(f)) }
	same := chunksOf(f)
	for name, c := range map[string]struct {
		want    digest.Digest
		chunks  []digest.Chunk
		inspect func(io.Reader) error
		wrong   error
	}{
		"good":                       {good, same, readAll, nil},
		"a chunk twice":              {blobOf(t, f[0], f[1], f[0]), chunksOf([]pack.Frame{f[0], f[1], f[0]}), readAll, nil},
		"not in the packs' order":    {blobOf(t, f[4], f[1], f[2], f[0]), chunksOf([]pack.Frame{f[4], f[1], f[2], f[0]}), readAll, nil},
		"the empty blob":             {blobOf(t), nil, readAll, nil},
		"inspect reads nothing":      {good, same, func(io.Reader) error { return nil }, nil},
		"another hash":               {digest.Digest{Hash: digest.Of([]byte("x")), Size: good.Size}, same, readAll, cas.ErrMismatch},
		"a longer blob":              {digest.Digest{Hash: good.Hash, Size: good.Size + 1}, same, readAll, cas.ErrMismatch},
		"a shorter blob":             {digest.Digest{Hash: good.Hash, Size: good.Size - 1}, same, readAll, cas.ErrMismatch},
		"a blob of a negative size":  {digest.Digest{Hash: good.Hash, Size: -1}, same, readAll, cas.ErrMismatch},
		"no chunks":                  {good, nil, readAll, cas.ErrMismatch},
		"another order":              {good, with(func(c []digest.Chunk) []digest.Chunk { slices.Reverse(c); return c }), readAll, cas.ErrMismatch},
		"sizes swapped":              {good, with(func(c []digest.Chunk) []digest.Chunk { c[0].Size, c[1].Size = c[1].Size, c[0].Size; return c }), readAll, cas.ErrMismatch},
		"inspect objects":            {good, same, func(io.Reader) error { return objection }, objection},
		"inspect objects at the end": {good, same, func(r io.Reader) error { return errors.Join(readAll(r), objection) }, objection},
		"inspect objects to another": {digest.Digest{Hash: digest.Of([]byte("x")), Size: good.Size}, same, func(io.Reader) error { return objection }, objection},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			blob, err := r.Verify(t.Context(), c.want, c.chunks, c.inspect)
			if !errors.Is(err, c.wrong) {
				t.Fatalf("got %v, want %v", err, c.wrong)
			}
			if c.wrong == nil && (blob.Digest != c.want || blob.ID != 0) {
				t.Errorf("got %+v, want the digest %v", blob, c.want)
			}
			if c.wrong != nil && blob != (index.Blob{}) {
				t.Errorf("an error, and with it %+v", blob)
			}
		})
	}

	t.Run("missing chunks", func(t *testing.T) {
		t.Parallel()
		list := []pack.Frame{absent[1], f[0], absent[0], absent[1], f[1]}
		_, err := r.Verify(t.Context(), blobOf(t, list...), chunksOf(list), readAll)
		var m *cas.MissingChunksError
		if !errors.As(err, &m) {
			t.Fatalf("got %v, want a MissingChunksError", err)
		}
		if want := hashesOf([]pack.Frame{absent[1], absent[0]}); !slices.Equal(m.Chunks, want) {
			t.Errorf("it names %v, want %v", m.Chunks, want)
		}
		if !strings.Contains(err.Error(), "2 chunks") || !strings.Contains(err.Error(), absent[1].Hash.String()) {
			t.Errorf("its text is %q", err)
		}
	})
	t.Run("given up", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := r.Verify(ctx, good, same, readAll)
		wantErr(t, err, context.Canceled)
	})
}

// narOf is the archive of a file.
func narOf(t testing.TB, contents string) []byte {
	t.Helper()
	var archive bytes.Buffer
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, []byte(contents), 0o600))
	must(t, nar.Dump(&archive, file))
	return archive.Bytes()
}

// handmade is a frame that does not say how much it unpacks to, as streaming
// encoders write it: n times the byte c in one block.
func handmade(c byte, n int) pack.Frame {
	head := uint32(1 | 1<<1 | n<<3) // the last block, of one byte that is repeated
	return pack.Frame{
		Chunk: digest.Chunk{Hash: digest.Of(bytes.Repeat([]byte{c}, n)), Size: uint32(n)},
		Data:  []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, byte(head), byte(head >> 8), byte(head >> 16), c},
	}
}

// Whichever bit of a stored frame flips, either it still unpacks to its chunk,
// or it is damage. Never does it look like a client's fault, which a client
// would take as final.
func TestAFlippedBitIsDamage(t *testing.T) {
	t.Parallel()
	r := open(t)
	text := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 2)
	archive := narOf(t, text+strings.Repeat("a", 5000)+"short")
	run := bytes.Index(archive, []byte("aaaa"))
	frames := []pack.Frame{frameOf(archive[:run]), handmade('a', 5000), frameOf(archive[run+5000:])}
	must(t, r.PutFrames(t.Context(), frames))
	files := packFiles(t, r)
	if len(files) != 1 {
		t.Fatalf("%d packs, want 1", len(files))
	}
	good, err := os.ReadFile(files[0])
	must(t, err)
	want, chunks := blobOf(t, frames...), chunksOf(frames)
	length := 0
	for _, f := range frames {
		length += len(f.Data)
	}
	damaged := 0
	inspect := func(body io.Reader) error { return nar.Read(body, nil) }
	f, err := os.OpenFile(files[0], os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	for bit := 8 * 8; bit < 8*(8+length); bit += 3 { // two or three of each byte
		at := int64(bit / 8)
		_, err := f.WriteAt([]byte{good[at] ^ 1<<(bit%8)}, at)
		must(t, err)
		_, err = r.Verify(t.Context(), want, chunks, inspect)
		switch {
		case errors.Is(err, cas.ErrDamaged) && !errors.Is(err, cas.ErrMismatch) && !errors.Is(err, nar.ErrMalformed):
			damaged++
		case err != nil:
			t.Errorf("bit %d flipped: got %v, want ErrDamaged", bit, err)
		}
		_, err = f.WriteAt(good[at:at+1], at)
		must(t, err)
	}
	if damaged < length {
		t.Errorf("only %d flipped bits in %d bytes were damage", damaged, length)
	}
	_, err = r.Verify(t.Context(), want, chunks, inspect)
	must(t, err)
}

func TestAPackThatIsCutOffOrGoneIsDamage(t *testing.T) {
	t.Parallel()
	b := narOf(t, strings.Repeat("word ", 20))
	// The first two end in the middle of a word of the archive.
	frames := []pack.Frame{frameOf(b[:30]), frameOf(b[30:101]), frameOf(b[101:])}
	want, chunks := blobOf(t, frames...), chunksOf(frames)
	ends := []int64{8}
	for i, f := range frames {
		ends = append(ends, ends[i]+int64(len(f.Data)))
	}
	for name, spoil := range map[string]func(file string) error{
		"gone":                           os.Remove,
		"empty":                          func(f string) error { return os.Truncate(f, 0) },
		"cut off before the frames":      func(f string) error { return os.Truncate(f, ends[0]) },
		"cut off in the first frame":     func(f string) error { return os.Truncate(f, ends[0]+1) },
		"cut off between two frames":     func(f string) error { return os.Truncate(f, ends[1]) },
		"cut off in the second frame":    func(f string) error { return os.Truncate(f, ends[1]+1) },
		"cut off in the last frame":      func(f string) error { return os.Truncate(f, ends[3]-1) },
		"a directory where the pack was": func(f string) error { return errors.Join(os.Remove(f), os.Mkdir(f, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t)
			must(t, r.PutFrames(t.Context(), frames))
			must(t, spoil(packFiles(t, r)[0]))
			inspect := func(body io.Reader) error {
				_, err := io.Copy(io.Discard, body)
				if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("inspect is told that the blob ends: %v", err)
				}
				return err
			}
			for _, inspect := range []func(io.Reader) error{inspect, func(body io.Reader) error { return nar.Read(body, nil) }} {
				_, err := r.Verify(t.Context(), want, chunks, inspect)
				switch {
				case errors.Is(err, nar.ErrMalformed), errors.Is(err, cas.ErrMismatch), err == nil:
					t.Fatalf("got %v, which blames the client", err)
				case name == "a directory where the pack was":
					// Not a state that a failing disk leaves: any error will do.
				case !errors.Is(err, cas.ErrDamaged):
					t.Fatalf("got %v, want ErrDamaged", err)
				}
			}
			// A chunk whose frame lies behind the cut, asked for by itself.
			_, err := r.Verify(t.Context(), blobOf(t, frames[2]), chunks[2:], readAll)
			if name != "a directory where the pack was" && !errors.Is(err, cas.ErrDamaged) {
				t.Errorf("the last chunk alone: got %v, want ErrDamaged", err)
			}
		})
	}
}

// Whatever is cut, stored and verified is served as a file that a stock decoder
// unpacks to the same bytes.
func TestAnyBlobComesBack(t *testing.T) {
	t.Parallel()
	r := open(t)
	rapid.Check(t, func(rt *rapid.T) {
		pieces := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) []byte {
			n := rapid.IntRange(0, 20_000).Draw(rt, "length")
			if rapid.Bool().Draw(rt, "compressible") {
				return bytes.Repeat([]byte{rapid.Byte().Draw(rt, "byte")}, n)
			}
			b := make([]byte, n)
			_, _ = rand.NewChaCha8([32]byte{rapid.Byte().Draw(rt, "seed")}).Read(b)
			return b
		}), 0, 6).Draw(rt, "pieces")
		blob := bytes.Join(pieces, nil)

		ch, err := chunker.New(bytes.NewReader(blob), chunker.Params{Average: 1 << 10})
		must(t, err)
		var frames []pack.Frame
		for {
			c, err := ch.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			must(t, err)
			frames = append(frames, frameOf(bytes.Clone(c)))
		}
		cut := rapid.IntRange(0, len(frames)).Draw(rt, "first batch")
		must(t, r.PutFrames(t.Context(), frames[cut:]))
		must(t, r.PutFrames(t.Context(), frames[:cut]))

		want := digest.Digest{Hash: digest.Of(blob), Size: int64(len(blob))}
		var seen bytes.Buffer
		verified, err := r.Verify(t.Context(), want, chunksOf(frames), func(body io.Reader) error {
			_, err := seen.ReadFrom(body)
			return err
		})
		if err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(seen.Bytes(), blob) {
			rt.Fatal("inspect saw other bytes")
		}
		must(t, r.index.Update(t.Context(), func(tx index.Tx) (err error) {
			verified, err = tx.AddBlob(verified, chunksOf(frames), r.Expiry())
			return err
		}))
		extents, err := r.Extents(t.Context(), verified)
		if err != nil {
			rt.Fatal(err)
		}
		served := serve(t, r, extents)
		if int64(len(served)) != verified.FileSize || digest.Of(served) != verified.FileHash {
			rt.Fatalf("%d bytes are served, not the file that Verify described: %+v", len(served), verified)
		}
		stock, err := zstd.NewReader(bytes.NewReader(served))
		must(t, err)
		defer stock.Close()
		got, err := io.ReadAll(stock)
		if err != nil || !bytes.Equal(got, blob) {
			rt.Fatalf("a stock decoder gives %d bytes of %d, %v", len(got), len(blob), err)
		}
	})
}

func serve(t testing.TB, r *rig, extents []index.Extent) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, e := range extents {
		body, err := r.OpenExtent(t.Context(), e)
		must(t, err)
		_, err = io.CopyN(&out, body, e.Length)
		must(t, errors.Join(err, body.Close()))
	}
	return out.Bytes()
}
