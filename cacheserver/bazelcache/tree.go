package bazelcache

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/encoding/protowire"
	googleproto "google.golang.org/protobuf/proto"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
)

const (
	// maxDirectory is the longest Directory that is looked into: it is to fit into
	// a message.
	maxDirectory = maxBatch
	// maxDirectories is how many directories of one tree are: what is known of
	// those that were seen stays in memory, 48 bytes each.
	maxDirectories = 1 << 20
	// directoriesAtOnce is how many are read at once, of maxBatch bytes in all.
	directoriesAtOnce = 256
	// pageBytes is how many bytes of directories an answer of GetTree has, give or
	// take one directory.
	pageBytes = 1 << 20
)

// GetTree implements repb.ContentAddressableStorageServer. A page's token is how
// many directories come before it.
func (s storage) GetTree(r *repb.GetTreeRequest, stream repb.ContentAddressableStorage_GetTreeServer) error {
	ctx := stream.Context()
	fn, err := s.begin(ctx, r.InstanceName, r.DigestFunction, false)
	if err != nil {
		return err
	}
	root, err := parseDigest(r.RootDigest)
	if err != nil {
		return err
	}
	skip := 0
	if r.PageToken != "" {
		if skip, err = strconv.Atoi(r.PageToken); err != nil || skip < 0 {
			return fmt.Errorf("%w: page token %.40q", errInvalid, r.PageToken)
		}
	}
	limit := int(r.PageSize)
	if limit <= 0 {
		limit = maxDirectories
	}
	page := &repb.GetTreeResponse{}
	bytes, seen := 0, 0
	if err := s.walkDirectories(ctx, fn, root, func(dir *repb.Directory) error {
		seen++
		if seen <= skip {
			return nil
		}
		size := googleproto.Size(dir)
		if n := len(page.Directories); n == limit || n > 0 && bytes+size > pageBytes {
			page.NextPageToken = strconv.Itoa(seen - 1)
			if err := stream.Send(page); err != nil {
				return err
			}
			page, bytes = &repb.GetTreeResponse{}, 0
		}
		page.Directories = append(page.Directories, dir)
		bytes += size
		return nil
	}, nil); err != nil {
		return err
	}
	return stream.Send(page)
}

// walkDirectories calls visit with a directory and all below it, each once, in an
// order that depends on nothing but their contents. Where the root is not there,
// the error is errNotFound; other directories that are not there are left out, and
// absent, unless it is nil, is called.
func (d *Door) walkDirectories(ctx context.Context, fn function, root digest.Digest, visit func(*repb.Directory) error, absent func() error) error {
	known := map[digest.Digest]bool{root: true}
	queue := []digest.Digest{root}
	for len(queue) > 0 {
		var batch []digest.Digest
		for size := int64(0); len(queue) > 0 && len(batch) < directoriesAtOnce; queue = queue[1:] {
			if size += queue[0].Size; size > maxDirectory && len(batch) > 0 {
				break
			}
			if queue[0].Size > maxDirectory {
				return fmt.Errorf("%w: directory %s is longer than %d bytes", errInvalid, queue[0], maxDirectory)
			}
			batch = append(batch, queue[0])
		}
		dirs, err := d.directories(ctx, fn, batch)
		if err != nil {
			return err
		}
		for i, dir := range dirs {
			if dir == nil && batch[i] == root {
				return fmt.Errorf("%w: directory %s", errNotFound, root)
			}
			if dir == nil {
				if absent != nil {
					if err := absent(); err != nil {
						return err
					}
				}
				continue
			}
			if err := visit(dir); err != nil {
				return err
			}
			for _, sub := range dir.Directories {
				name, err := parseDigest(sub.Digest)
				if err != nil {
					return err
				}
				if known[name] {
					continue
				}
				if len(known) == maxDirectories {
					return fmt.Errorf("%w: the tree has more than %d directories", errTooMany, maxDirectories)
				}
				known[name] = true
				queue = append(queue, name)
			}
		}
	}
	return nil
}

// directories reads directories; those that are not there are nil.
func (d *Door) directories(ctx context.Context, fn function, names []digest.Digest) ([]*repb.Directory, error) {
	found, err := d.findHeld(ctx, fn, names)
	if err != nil {
		return nil, err
	}
	var size int64
	for _, b := range found {
		size += b.Size
	}
	release, err := d.store.Reserve(ctx, 2*size)
	if err != nil {
		return nil, err
	}
	defer release()
	read, err := d.readAll(ctx, found)
	if err != nil {
		return nil, err
	}
	out := make([]*repb.Directory, len(names))
	for i, name := range names {
		c, ok := read[name]
		if !ok && !fn.isEmpty(name) || errors.Is(c.err, index.ErrNotFound) {
			continue
		}
		if c.err != nil {
			return nil, c.err
		}
		out[i] = &repb.Directory{}
		if err := googleproto.Unmarshal(c.data, out[i]); err != nil {
			return nil, fmt.Errorf("%w: blob %s is no Directory", errInvalid, name)
		}
	}
	return out, nil
}

// walkTree calls visit with the directories of a stored Tree, one by one: the
// whole of it may be large.
func (d *Door) walkTree(ctx context.Context, tree index.Blob, visit func(*repb.Directory) error) error {
	out, in := io.Pipe()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := d.eachChunk(ctx, tree, 0, func(_, plain []byte, _ int64) error {
			_, err := in.Write(plain)
			return err
		})
		d.reportDamage(err)
		_ = in.CloseWithError(err)
		if errors.Is(err, errStop) {
			return nil // the reader's own error tells more
		}
		return err
	})
	g.Go(func() error {
		err := readTree(bufio.NewReader(out), visit)
		_ = out.CloseWithError(errStop)
		return err
	})
	return g.Wait()
}

// readTree reads the encoding of a Tree. What is no Tree is errInvalid.
func readTree(r *bufio.Reader, visit func(*repb.Directory) error) error {
	malformed := func(why error) error { return fmt.Errorf("%w: no Tree: %w", errInvalid, why) }
	for {
		if _, err := r.Peek(1); errors.Is(err, io.EOF) {
			return nil
		}
		tag, err := binary.ReadUvarint(r)
		if err != nil {
			return malformed(err)
		}
		field, kind := protowire.DecodeTag(tag)
		if kind != protowire.BytesType || field != 1 && field != 2 {
			return malformed(fmt.Errorf("field %d of type %d", field, kind))
		}
		size, err := binary.ReadUvarint(r)
		if err != nil {
			return malformed(err)
		}
		if size > maxDirectory {
			return malformed(fmt.Errorf("a directory of %d bytes", size))
		}
		b := make([]byte, size)
		if _, err := io.ReadFull(r, b); err != nil {
			return malformed(err)
		}
		dir := &repb.Directory{}
		if err := googleproto.Unmarshal(b, dir); err != nil {
			return malformed(err)
		}
		if err := visit(dir); err != nil {
			return err
		}
	}
}
