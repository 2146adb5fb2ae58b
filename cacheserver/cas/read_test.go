package cas_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// opens is a pack store that asks before each Open.
type opens struct {
	packstore.Store
	before func(name string) error
}

func (o *opens) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if err := o.before(name); err != nil {
		return nil, err
	}
	return o.Store.Open(ctx, name, offset, length)
}

// beforeOpen lets a function look at each Open of the rig's packs.
func (r *rig) beforeOpen(before func(name string) error) {
	r.packs.Store = &opens{r.packs.Store, before}
}

// record records the blob that stored frames make.
func (r *rig) record(t testing.TB, frames ...pack.Frame) index.Blob {
	t.Helper()
	blob, err := r.Verify(t.Context(), blobOf(t, frames...), chunksOf(frames), readAll)
	must(t, err)
	must(t, r.index.Update(t.Context(), func(tx index.Tx) (err error) {
		blob, err = tx.AddBlob(blob, chunksOf(frames), r.Expiry())
		return err
	}))
	return blob
}

// scattered is a blob of n different frames and one that it has twice, which lie
// in two packs by turns.
func (r *rig) scattered(t testing.TB, n int) ([]pack.Frame, index.Blob) {
	t.Helper()
	frames := numbered("scattered", n)
	frames = append(frames, frames[0])
	var halves [2][]pack.Frame
	for i, f := range frames[:n] {
		halves[i/2%2] = append(halves[i/2%2], f)
	}
	for _, h := range halves {
		must(t, r.PutFrames(t.Context(), h))
	}
	return frames, r.record(t, frames...)
}

func fileOf(frames []pack.Frame) []byte {
	var file []byte
	for _, f := range frames {
		file = append(file, f.Data...)
	}
	return file
}

func TestAnyPartOfABlobIsWritten(t *testing.T) {
	t.Parallel()
	r := open(t)
	frames, blob := r.scattered(t, 40)
	file := fileOf(frames)
	rapid.Check(t, func(t *rapid.T) {
		offset := rapid.Int64Range(0, blob.FileSize).Draw(t, "offset")
		length := rapid.Int64Range(0, blob.FileSize-offset).Draw(t, "length")
		var got bytes.Buffer
		n, err := r.WriteChecked(t.Context(), &got, blob, offset, length)
		if err != nil || n != length || !bytes.Equal(got.Bytes(), file[offset:offset+length]) {
			t.Fatalf("%d bytes, %v; they are %d, want %d", n, err, got.Len(), length)
		}
	})
}

// A blob is read window by window.
func TestPartsOfABlobOfMoreThanAWindow(t *testing.T) {
	t.Parallel()
	r := open(t)
	frames := numbered("many", 4200)
	must(t, r.PutFrames(t.Context(), frames))
	blob := r.record(t, frames...)
	file := fileOf(frames)
	window := int64(len(fileOf(frames[:4096])))
	for _, c := range [][2]int64{{0, blob.FileSize}, {window - 1, 2}, {window, 1}, {window, blob.FileSize - window}, {blob.FileSize - 1, 1}, {window - 10, 30}} {
		var got bytes.Buffer
		n, err := r.WriteChecked(t.Context(), &got, blob, c[0], c[1])
		if err != nil || n != c[1] || !bytes.Equal(got.Bytes(), file[c[0]:c[0]+c[1]]) {
			t.Errorf("%v: %d bytes, %v", c, n, err)
		}
	}
	var got bytes.Buffer
	blob.FileSize++
	n, err := r.WriteChecked(t.Context(), &got, blob, 0, blob.FileSize)
	if wantErr(t, err, cas.ErrDamaged); n != blob.FileSize-1 || !bytes.Equal(got.Bytes(), file) {
		t.Errorf("of a blob that is said to be longer: %d bytes", n)
	}
}

// spoil damages the frame of a chunk on disk.
func (r *rig) spoil(t testing.TB, chunk digest.Hash) index.Location {
	t.Helper()
	at, err := r.index.Locate(t.Context(), []digest.Hash{chunk})
	must(t, err)
	l := at[0]
	i := slices.IndexFunc(packFiles(t, r), func(f string) bool { return strings.Contains(f, l.Pack) })
	f, err := os.OpenFile(packFiles(t, r)[i], os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	data := make([]byte, l.Length)
	_, err = f.ReadAt(data, l.Offset)
	must(t, err)
	for at := range data {
		data[at] ^= 1
		if _, err := frame.Check(pack.Frame{Chunk: l.Chunk, Data: data}, nil); err != nil && at > 4 {
			_, err := f.WriteAt(data[at:at+1], l.Offset+int64(at))
			must(t, err)
			return l
		}
		data[at] ^= 1
	}
	t.Fatalf("no bit of chunk %s matters", chunk)
	return l
}

func TestNothingIsWrittenOfADamagedFrame(t *testing.T) {
	t.Parallel()
	const n = 20
	for damaged := 1; damaged < n; damaged += 3 {
		t.Run(fmt.Sprint("frame ", damaged), func(t *testing.T) {
			t.Parallel()
			r := open(t)
			frames, blob := r.scattered(t, n)
			file := fileOf(frames)
			l := r.spoil(t, frames[damaged].Hash)
			begin := int64(len(fileOf(frames[:damaged])))
			end := begin + int64(l.Length)
			for _, c := range []struct {
				offset, length int64
				want           int64 // bytes that are written
			}{
				{0, blob.FileSize, begin},
				{0, begin, begin},
				{0, begin + 1, begin},
				{begin / 2, blob.FileSize - begin/2, begin - begin/2},
				{begin, 1, 0},
				{end - 1, 1, 0},
				{end - 1, blob.FileSize - end + 1, 0},
				{end, blob.FileSize - end, blob.FileSize - end},
			} {
				var got bytes.Buffer
				n, err := r.WriteChecked(t.Context(), &got, blob, c.offset, c.length)
				if n != c.want || !bytes.Equal(got.Bytes(), file[c.offset:c.offset+c.want]) {
					t.Errorf("%d bytes from %d: %d were written, want %d", c.length, c.offset, got.Len(), c.want)
				}
				var d *cas.DamagedError
				if c.want == c.length {
					must(t, err)
				} else if !errors.As(err, &d) || d.Chunk != l.Hash || d.Pack != l.Pack {
					t.Errorf("got %v, want damage of chunk %s in pack %s", err, l.Hash, l.Pack)
				}
			}
		})
	}
}

// What a pack that was cut off still has is not lost.
func TestWhatIsLeftOfAPackIsRead(t *testing.T) {
	t.Parallel()
	r := open(t)
	frames := numbered("a", 6)
	must(t, r.PutFrames(t.Context(), frames))
	blob := r.record(t, frames...)
	at, err := r.index.Locate(t.Context(), hashesOf(frames))
	must(t, err)
	slices.SortFunc(at, func(a, b index.Location) int { return int(a.Offset - b.Offset) })
	must(t, os.Truncate(packFiles(t, r)[0], at[4].Offset+1))
	damaged, err := r.CheckChunks(t.Context(), at)
	must(t, err)
	if len(damaged) != 2 || damaged[0].Chunk != at[4].Hash || damaged[1].Chunk != at[5].Hash {
		t.Errorf("damaged are %v, want the last two of six", damaged)
	}
	n, err := r.WriteChecked(t.Context(), io.Discard, blob, 0, blob.FileSize)
	if wantErr(t, err, cas.ErrDamaged); n != int64(len(fileOf(frames[:4]))) {
		t.Errorf("%d bytes were written", n)
	}
}

func TestCheckChunksTellsDamageFromWhatItCannotSee(t *testing.T) {
	t.Parallel()
	r := open(t)
	frames := numbered("a", 6)
	must(t, r.PutFrames(t.Context(), frames))
	at, err := r.index.Locate(t.Context(), hashesOf(frames))
	must(t, err)
	l := r.spoil(t, frames[2].Hash)
	gone := l
	gone.Pack = "gone"
	damaged, err := r.CheckChunks(t.Context(), append(at, index.Location{Chunk: frames[5].Chunk, Pack: "gone", Offset: 16, Length: 10}))
	must(t, err)
	var hashes []digest.Hash
	for _, d := range damaged {
		wantErr(t, d, cas.ErrDamaged)
		hashes = append(hashes, d.Chunk)
	}
	if want := []digest.Hash{l.Hash}; !slices.Equal(hashes, want) {
		// The one that was said to lie elsewhere was found where it does.
		t.Errorf("damaged are %v, want %v", hashes, want)
	}
	r.beforeOpen(func(string) error { return fmt.Errorf("asking: %w", packstore.ErrUnavailable) })
	damaged, err = r.CheckChunks(t.Context(), at)
	if wantErr(t, err, packstore.ErrUnavailable); len(damaged) != 0 {
		t.Errorf("damaged: %v", damaged)
	}
}

// failing is a writer that fails, or panics, or calls something, at a byte.
type failing struct {
	left int
	at   func() error
}

func (f *failing) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left >= 0 {
		return len(b), nil
	}
	if err := f.at(); err != nil {
		return 0, err
	}
	return len(b), nil
}

// However a download ends, what works for it ends, too; a bubble waits for that.
func TestADownloadThatEndsEarlyLeavesNothingRunning(t *testing.T) {
	t.Parallel()
	fault := errors.New("the client has left")
	for name, at := range map[string]func(cancel func()) func() error{
		"an error": func(func()) func() error { return func() error { return fault } },
		"a panic":  func(func()) func() error { return func() error { panic(fault) } },
		"its context": func(cancel func()) func() error {
			return func() error { cancel(); return nil }
		},
	} {
		for _, left := range []int{0, 500} {
			t.Run(fmt.Sprintf("%s after %d", name, left), func(t *testing.T) {
				t.Parallel()
				// What frame makes at its first use must not belong to the bubble.
				_, err := frame.Check(numbered("x", 1)[0], nil)
				must(t, err)
				synctest.Test(t, func(t *testing.T) {
					r := open(t)
					_, blob := r.scattered(t, 50)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					w := &failing{left, at(cancel)}
					func() {
						defer func() {
							if p := recover(); p != nil && p != fault {
								panic(p)
							}
						}()
						n, err := r.WriteChecked(ctx, w, blob, 0, blob.FileSize)
						want := fault
						if name == "its context" {
							want = context.Canceled
							if err == nil && n == blob.FileSize {
								return // all was on its way
							}
						}
						wantErr(t, err, want)
					}()
				})
			})
		}
	}
}

// A chunk that compaction moves between the look into the index and that into
// the pack is found again, and again.
func TestAChunkThatMovesOnIsFollowed(t *testing.T) {
	t.Parallel()
	r := open(t)
	frames, blob := r.scattered(t, 10)
	moves := 0
	inside := false
	r.beforeOpen(func(name string) error {
		if inside || moves == 5 {
			return nil
		}
		inside = true
		defer func() { inside = false }()
		moves++
		done, err := r.Compact(t.Context(), []string{name})
		if err != nil {
			return err
		}
		for _, dropped := range done.Dropped {
			if err := r.packs.Delete(t.Context(), dropped); err != nil {
				return err
			}
		}
		return nil
	})
	var got bytes.Buffer
	if _, err := r.WriteChecked(t.Context(), &got, blob, 0, blob.FileSize); err != nil || !bytes.Equal(got.Bytes(), fileOf(frames)) {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
	if moves != 5 {
		t.Errorf("%d moves", moves)
	}
}

// What was collected while it was read is not damaged: it is missing.
func TestWhatWasCollectedWhileItWasReadIsNotDamaged(t *testing.T) {
	t.Parallel()
	r := open(t)
	frames, blob := r.scattered(t, 10)
	collected := false
	r.beforeOpen(func(name string) error {
		if collected {
			return nil
		}
		collected = true
		if err := r.index.Update(t.Context(), func(tx index.Tx) error {
			_, err := tx.DropChunks(hashesOf(frames))
			return err
		}); err != nil {
			return err
		}
		return r.packs.Delete(t.Context(), name)
	})
	_, err := r.WriteChecked(t.Context(), io.Discard, blob, 0, blob.FileSize)
	var missing *cas.MissingChunksError
	if !errors.As(err, &missing) || errors.Is(err, cas.ErrDamaged) {
		t.Errorf("got %v, want a MissingChunksError", err)
	}
	_, err = r.WriteChecked(t.Context(), io.Discard, blob, 0, blob.FileSize)
	wantErr(t, err, index.ErrNotFound)
}
