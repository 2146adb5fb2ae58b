package bazelcache

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

const (
	// chunkWindow is how many chunks of a blob are located at once.
	chunkWindow = 1024
	// maxRun bounds how much of a pack is opened at once.
	maxRun = 8 << 20
)

// visitor is given a chunk, with its frame as it is stored and with its bytes,
// which were compared with its hash. Both are valid until it returns.
type visitor func(l index.Location, data, plain []byte) error

// eachChunk calls visit with the chunks of a blob in order, from the one on that
// holds the byte at offset; skip is how many bytes of that stand before it.
func (d *Door) eachChunk(ctx context.Context, b index.Blob, offset int64, visit func(data, plain []byte, skip int64) error) error {
	var at int64
	return d.eachWindow(ctx, b, func(window []index.Location) error {
		for len(window) > 0 && at+int64(window[0].Size) <= offset {
			at += int64(window[0].Size)
			window = window[1:]
		}
		skip := max(0, offset-at)
		return d.eachLocated(ctx, window, func(l index.Location, data, plain []byte) error {
			at += int64(l.Size)
			s := skip
			skip = 0
			return visit(data, plain, s)
		})
	})
}

// eachWindow calls visit with the chunks of a blob, some at a time.
func (d *Door) eachWindow(ctx context.Context, b index.Blob, visit func([]index.Location) error) error {
	if l, ok := d.known.located(b); ok {
		return visit([]index.Location{l})
	}
	for seq := 0; ; {
		window, err := d.index.Chunks(ctx, b.ID, seq, chunkWindow)
		if err != nil {
			return err
		}
		if seq == 0 && len(window) == 1 && window[0].Hash == b.Hash {
			d.known.locate(b, window[0])
		}
		if err := visit(window); err != nil {
			return err
		}
		if seq += len(window); len(window) < chunkWindow {
			return nil
		}
	}
}

// eachListed calls visit with chunks in the order in which they are listed, as
// one that has no blob yet does. A *cas.MissingChunksError names one that is not
// stored.
func (d *Door) eachListed(ctx context.Context, chunks []digest.Chunk, visit visitor) error {
	for part := range slices.Chunk(chunks, chunkWindow) {
		located, err := d.index.Locate(ctx, hashes(part))
		if err != nil {
			return err
		}
		at := make(map[digest.Hash]index.Location, len(located))
		for _, l := range located {
			at[l.Hash] = l
		}
		window := make([]index.Location, len(part))
		for i, c := range part {
			l, ok := at[c.Hash]
			if !ok || l.Size != c.Size {
				return &cas.MissingChunksError{Chunks: []digest.Hash{c.Hash}}
			}
			window[i] = l
		}
		if err := d.eachLocated(ctx, window, visit); err != nil {
			return err
		}
	}
	return nil
}

func hashes(chunks []digest.Chunk) []digest.Hash {
	out := make([]digest.Hash, len(chunks))
	for i, c := range chunks {
		out[i] = c.Hash
	}
	return out
}

// eachLocated calls visit with chunks in the order given. Those that follow each
// other in a pack are read at once.
func (d *Door) eachLocated(ctx context.Context, chunks []index.Location, visit visitor) error {
	var open io.ReadCloser
	defer func() {
		if open != nil {
			_ = open.Close()
		}
	}()
	var data, plain []byte
	for ahead := 0; len(chunks) > 0; chunks = chunks[1:] {
		l := chunks[0]
		if ahead == 0 {
			if open != nil {
				_ = open.Close()
			}
			var err error
			if open, l, ahead, err = d.openRun(ctx, chunks); err != nil {
				return damaged(l, err)
			}
		}
		ahead--
		data = slices.Grow(data[:0], int(l.Length))[:l.Length]
		if _, err := io.ReadFull(open, data); err != nil {
			return damaged(l, err)
		}
		var err error
		if plain, err = frame.Check(pack.Frame{Chunk: l.Chunk, Data: data}, plain); err != nil {
			return &cas.DamagedError{Chunk: l.Hash, Pack: l.Pack, Err: err}
		}
		if err := visit(l, data, plain); err != nil {
			return err
		}
	}
	return nil
}

// openRun opens the frame of the first of the chunks and as many of the next
// ones as follow it in its pack. Where compaction has moved the first since it
// was located, it is opened alone, where it lies now.
func (d *Door) openRun(ctx context.Context, chunks []index.Location) (r io.ReadCloser, first index.Location, n int, err error) {
	first = chunks[0]
	e := index.Extent{Pack: first.Pack, Offset: first.Offset, Length: int64(first.Length)}
	n = 1
	for _, l := range chunks[1:] {
		if l.Pack != e.Pack || l.Offset != e.Offset+e.Length || e.Length+int64(l.Length) > maxRun {
			break
		}
		e.Length += int64(l.Length)
		n++
	}
	for {
		r, err = d.store.OpenExtent(ctx, e)
		if !errors.Is(err, packstore.ErrNotFound) {
			return r, first, n, err
		}
		now, lookup := d.index.Locate(ctx, []digest.Hash{first.Hash})
		switch {
		case lookup != nil:
			return nil, first, 0, lookup
		case len(now) == 0:
			return nil, first, 0, &cas.MissingChunksError{Chunks: []digest.Hash{first.Hash}}
		case now[0].Pack == e.Pack:
			return nil, first, 0, err
		}
		first, n = now[0], 1
		e = index.Extent{Pack: first.Pack, Offset: first.Offset, Length: int64(first.Length)}
	}
}

// damaged makes a pack that cannot be read what it is to a reader: damage.
func damaged(l index.Location, err error) error {
	if packstore.Unreadable(err) {
		return &cas.DamagedError{Chunk: l.Hash, Pack: l.Pack, Err: err}
	}
	return err
}

// contents is what was read of a blob.
type contents struct {
	data  []byte
	frame []byte // as it is stored, of a blob of one chunk; else nil
	err   error
}

// readAll reads blobs into memory: the caller bounds how much that is.
func (d *Door) readAll(ctx context.Context, blobs map[digest.Digest]index.Blob) (map[digest.Digest]contents, error) {
	// A blob of one chunk is found by its own hash, all of them at once, and read in
	// the order in which they lie.
	byHash := make(map[digest.Hash]index.Blob, len(blobs))
	for _, b := range blobs {
		byHash[b.Hash] = b
	}
	located := make([]index.Location, 0, len(byHash))
	var want []digest.Hash
	for h, b := range byHash {
		if l, ok := d.known.located(b); ok {
			located = append(located, l)
		} else {
			want = append(want, h)
		}
	}
	if len(want) > 0 {
		looked, err := d.index.Locate(ctx, want)
		if err != nil {
			return nil, err
		}
		for _, l := range looked {
			if b := byHash[l.Hash]; b.Size == int64(l.Size) {
				located = append(located, l)
				d.known.locate(b, l)
			}
		}
	}
	slices.SortFunc(located, func(a, b index.Location) int {
		return cmp.Or(cmp.Compare(a.Pack, b.Pack), cmp.Compare(a.Offset, b.Offset))
	})
	read := make(map[digest.Hash]contents, len(byHash))
	if err := d.eachLocated(ctx, located, func(l index.Location, data, plain []byte) error {
		read[l.Hash] = contents{data: slices.Clone(plain), frame: slices.Clone(data)}
		return nil
	}); err != nil && ctx.Err() != nil {
		return nil, err
	}
	// The others, and those behind one that could not be read, each by itself.
	out := make(map[digest.Digest]contents, len(blobs))
	for asked, b := range blobs {
		c, ok := read[b.Hash]
		if !ok {
			c.err = d.eachChunk(ctx, b, 0, func(_, plain []byte, _ int64) error {
				c.data = append(c.data, plain...)
				return nil
			})
			d.reportDamage(c.err)
			read[b.Hash] = c
		}
		d.use(b)
		out[asked] = c
	}
	return out, nil
}

// reportDamage writes damage to the log.
func (d *Door) reportDamage(err error) {
	if errors.Is(err, cas.ErrDamaged) {
		d.log.Error("stored bytes are damaged; cacheserver fsck --repair mends what can be mended and drops the rest, to be pushed again", "error", err)
	}
}
