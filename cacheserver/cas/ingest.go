package cas

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/observe"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// upload is a set of checked frames that waits to be stored.
type upload struct {
	frames []pack.Frame
	named  []digest.Hash // chunks that are stored, for record
	record *Record       // nil for none
	from   trace.Span    // of the request
	bytes  int64
	done   chan error
}

// Record is what an upload has recorded in the change of the index that records its
// chunks.
type Record struct {
	// Blobs are made of the chunks. Their FileSize is filled in.
	Blobs []index.NewBlob
	// Expires is until when they live without a name.
	Expires time.Time
	// Then goes on with the change, unless it is nil. at says where the chunks lie. It
	// may be run again, as index.Index.Update says, and its error undoes the change,
	// which is others', too.
	Then func(tx index.Tx, blobs []index.Blob, at map[digest.Hash]index.Location) error
}

// Reserve waits until n bytes of frames may be held in memory, and returns
// what gives them back. It is to be called before they are read from a client.
func (s *Store) Reserve(ctx context.Context, n int64) (release func(), err error) {
	n = min(n, ingestBudget)
	if err := s.budget.Acquire(ctx, n); err != nil {
		return nil, err
	}
	s.held.Add(n)
	return func() {
		s.held.Add(-n)
		s.budget.Release(n)
	}, nil
}

// Held is how many bytes of memory are reserved now.
func (s *Store) Held() int64 { return s.held.Load() }

// PutFrames checks every frame against its chunk and stores those chunks that
// are not stored yet. When it returns nil, all of them survive a crash; when it
// returns an error (frame.ErrMalformed, frame.ErrMismatch,
// packstore.ErrNoSpace, …), nothing is promised of any.
//
// Uploads that wait for the same disk are written as one pack.
func (s *Store) PutFrames(ctx context.Context, frames []pack.Frame) error {
	if err := check(ctx, frames); err != nil {
		return err
	}
	return s.putChecked(ctx, frames)
}

// PutChunks stores those of the chunks that are not stored yet, and makes one
// change of the index of that and of the record: an upload of small blobs waits for
// the disk once less than with PutFrames and a change of its own, and those that wait
// together are recorded together. chunks have their bytes where frames have the
// packed ones.
//
// index.ErrMissingChunks: one that was there was collected meanwhile, and to try
// again helps.
func (s *Store) PutChunks(ctx context.Context, chunks []pack.Frame, record Record) error {
	u := &upload{record: &record}
	stored, err := s.worthPacking(ctx, chunks)
	if err != nil {
		return err
	}
	for _, c := range chunks {
		if _, ok := stored[c.Hash]; ok {
			u.named = append(u.named, c.Hash)
		} else {
			u.frames = append(u.frames, pack.Frame{Chunk: c.Chunk, Data: frame.Encode(nil, c.Data)})
		}
	}
	return s.wait(ctx, u)
}

// worthAsking is how long a chunk is, in bytes, of which it takes longer to pack
// it than to ask whether it is stored: a blob that was changed shares most of such
// chunks with what it was before.
const worthAsking = 16 << 10

// worthPacking returns those of the chunks that need not be packed, as far as it is
// worth to know.
func (s *Store) worthPacking(ctx context.Context, chunks []pack.Frame) (map[digest.Hash]index.Location, error) {
	var ask []digest.Hash
	for _, c := range chunks {
		if c.Size > worthAsking {
			ask = append(ask, c.Hash)
		}
	}
	if len(ask) == 0 {
		return nil, nil
	}
	return s.located(ctx, ask)
}

// putChecked stores frames that are known to hold their chunks.
func (s *Store) putChecked(ctx context.Context, frames []pack.Frame) error {
	return s.wait(ctx, &upload{frames: frames})
}

// wait hands an upload to the writer and waits for its end.
func (s *Store) wait(ctx context.Context, u *upload) error {
	u.from, u.done = trace.SpanFromContext(ctx), make(chan error, 1)
	for _, f := range u.frames {
		u.bytes += int64(len(f.Data))
	}
	select {
	case s.uploads <- u:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return ErrClosed
	}
	return <-u.done
}

func check(ctx context.Context, frames []pack.Frame) error {
	g, ctx := errgroup.WithContext(ctx)
	workers := runtime.GOMAXPROCS(0)
	for w := range min(workers, len(frames)) {
		g.Go(func() error {
			var scratch []byte
			for i := w; i < len(frames); i += workers {
				if err := ctx.Err(); err != nil {
					return err
				}
				var err error
				if scratch, err = frame.Check(frames[i], scratch); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (s *Store) writer() {
	defer close(s.closed)
	for {
		select {
		case first := <-s.uploads:
			s.write(s.gather(first))
		case <-s.closing:
			return
		}
	}
}

func (s *Store) gather(first *upload) []*upload {
	group := []*upload{first}
	for size, entries := first.bytes, len(first.frames); size < maxPack && entries < maxEntries; {
		select {
		case u := <-s.uploads:
			group = append(group, u)
			size += u.bytes
			entries += len(u.frames)
		default:
			return group
		}
	}
	return group
}

func spans(group []*upload) []trace.Span {
	all := make([]trace.Span, len(group))
	for i, u := range group {
		all[i] = u.from
	}
	return all
}

// write stores the frames of a group as one pack, and tells its uploads how that
// ended. No client's context ends it: the others in the group still wait for it.
func (s *Store) write(group []*upload) {
	ctx, end := observe.Shared(context.Background(), "write pack", spans(group))
	ends := make([]error, len(group))
	err := s.writePack(ctx, group, ends)
	end(err)
	for i, u := range group {
		if err != nil {
			ends[i] = err
		}
		u.done <- ends[i]
	}
}

// writePack fills in how an upload's record ended where that concerns no other.
func (s *Store) writePack(ctx context.Context, group []*upload, ends []error) error {
	var hashes []digest.Hash
	records := false
	for _, u := range group {
		for _, f := range u.frames {
			hashes = append(hashes, f.Hash)
		}
		hashes = append(hashes, u.named...)
		records = records || u.record != nil
	}
	at, err := s.located(ctx, hashes)
	if err != nil {
		return err
	}
	frames := missingFrames(group, at)
	if len(frames) == 0 && !records {
		return nil
	}
	name := packName()
	encoded := pack.Encode(frames)
	if len(frames) > 0 {
		if err := s.packs.Put(ctx, name, encoded.Size, encoded.Reader()); err != nil {
			return err
		}
	}
	now := time.Now()
	for _, e := range encoded.Entries {
		at[e.Hash] = index.Location{Chunk: e.Chunk, Pack: name, Offset: e.Offset, Length: e.Length, Touched: now}
	}
	// If this fails, the pack stays behind as an orphan. To delete it here could
	// delete one that the index holds after all.
	return s.index.Update(ctx, func(tx index.Tx) error {
		if len(frames) > 0 {
			if err := s.addPack(tx, name, encoded); err != nil {
				return err
			}
		}
		return recordAll(tx, group, at, ends)
	})
}

// recordAll records the blobs of a group at once or, where one lacks a chunk, each
// upload's by themselves.
func recordAll(tx index.Tx, group []*upload, at map[digest.Hash]index.Location, ends []error) error {
	clear(ends) // of a change that is run again
	var all []index.NewBlob
	var expires time.Time
	for _, u := range group {
		if u.record == nil {
			continue
		}
		for i, b := range u.record.Blobs {
			u.record.Blobs[i].FileSize = frameBytes(b.Chunks, at)
		}
		all = append(all, u.record.Blobs...)
		if u.record.Expires.After(expires) {
			expires = u.record.Expires
		}
	}
	added, err := tx.AddBlobs(all, expires)
	together := err == nil
	if err != nil && !errors.Is(err, index.ErrMissingChunks) {
		return err
	}
	for i, u := range group {
		if u.record == nil {
			continue
		}
		var blobs []index.Blob
		if together {
			blobs, added = added[:len(u.record.Blobs)], added[len(u.record.Blobs):]
		} else if blobs, ends[i] = tx.AddBlobs(u.record.Blobs, u.record.Expires); errors.Is(ends[i], index.ErrMissingChunks) {
			continue
		} else if ends[i] != nil {
			return ends[i]
		}
		if u.record.Then != nil {
			if err := u.record.Then(tx, blobs, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// frameBytes is how long the frames of chunks are.
func frameBytes(chunks []digest.Chunk, at map[digest.Hash]index.Location) (size int64) {
	for _, c := range chunks {
		size += int64(at[c.Hash].Length)
	}
	return size
}

// missingFrames returns the frames of the uploads whose chunks lie nowhere yet,
// each chunk's once.
func missingFrames(group []*upload, at map[digest.Hash]index.Location) (frames []pack.Frame) {
	taken := map[digest.Hash]bool{}
	for _, u := range group {
		for _, f := range u.frames {
			if _, ok := at[f.Hash]; !ok && !taken[f.Hash] {
				taken[f.Hash] = true
				frames = append(frames, f)
			}
		}
	}
	return frames
}

// addPack records a pack that was put, unless half of the grace has passed since
// it was begun: collection takes a pack that is older than the grace and not in
// the index for an orphan, and may be about to delete this one.
func (s *Store) addPack(tx index.Tx, name string, encoded *pack.Encoded) error {
	begun, _ := PackTime(name)
	if took := time.Since(begun); took > s.grace/2 {
		return fmt.Errorf("%w: writing pack %s took %v, and may take half of the grace, %v",
			packstore.ErrUnavailable, name, took.Round(time.Millisecond), s.grace/2)
	}
	return tx.AddPack(name, encoded.Size, encoded.Entries)
}

// packName sorts by time, for people who look at the directory and for PackTime,
// and is unique without asking anyone.
func packName() string {
	random := make([]byte, 12)
	_, _ = rand.Read(random) // never fails
	return fmt.Sprintf("%012x%s", time.Now().UnixMilli(), hex.EncodeToString(random))
}

// PackTime returns when a pack of that name was begun. ok is false for a name
// that this store did not give.
func PackTime(name string) (_ time.Time, ok bool) {
	const timeDigits, digits = 12, 12 + 2*12
	if len(name) != digits {
		return time.Time{}, false
	}
	ms, err := strconv.ParseInt(name[:timeDigits], 16, 64)
	return time.UnixMilli(ms), err == nil
}
