package cas

import (
	"context"
	"crypto/rand"
	"encoding/hex"
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
	from   trace.Span // of the request
	bytes  int64
	done   chan error
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

// putChecked stores frames that are known to hold their chunks.
func (s *Store) putChecked(ctx context.Context, frames []pack.Frame) error {
	u := &upload{frames: frames, from: trace.SpanFromContext(ctx), done: make(chan error, 1)}
	for _, f := range frames {
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
			group := s.gather(first)
			err := s.write(group)
			for _, u := range group {
				u.done <- err
			}
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

// write stores the frames of a group as one pack. No client's context ends it:
// the others in the group still wait for it.
func (s *Store) write(group []*upload) (err error) {
	ctx, end := observe.Shared(context.Background(), "write pack", spans(group))
	defer func() { end(err) }()
	var hashes []digest.Hash
	for _, u := range group {
		for _, f := range u.frames {
			hashes = append(hashes, f.Hash)
		}
	}
	missing, err := s.Missing(ctx, hashes)
	if err != nil {
		return err
	}
	wanted := make(map[digest.Hash]bool, len(missing))
	for _, h := range missing {
		wanted[h] = true
	}
	var frames []pack.Frame
	for _, u := range group {
		for _, f := range u.frames {
			if wanted[f.Hash] {
				frames = append(frames, f)
				delete(wanted, f.Hash)
			}
		}
	}
	if len(frames) == 0 {
		return nil
	}
	name := packName()
	encoded := pack.Encode(frames)
	if err := s.packs.Put(ctx, name, encoded.Size, encoded.Reader()); err != nil {
		return err
	}
	// If this fails, the pack stays behind as an orphan. To delete it here could
	// delete one that the index holds after all.
	return s.index.Update(ctx, func(tx index.Tx) error { return s.addPack(tx, name, encoded) })
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
