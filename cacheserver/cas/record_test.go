package cas

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

func chunkOf(text string) digest.Chunk {
	return digest.Chunk{Hash: digest.Of([]byte(text)), Size: uint32(len(text))}
}

func blobOf(text string, chunks ...digest.Chunk) index.NewBlob {
	return index.NewBlob{Blob: index.Blob{Digest: digest.Digest{Hash: digest.Of([]byte(text)), Size: int64(len(text))}}, Chunks: chunks}
}

// Uploads share a change of the index, and one that names a chunk that was collected
// meanwhile fails alone.
func TestAnUploadThatLacksAChunkFailsAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	disk, err := packstore.OpenDisk(filepath.Join(dir, "packs"))
	if err != nil {
		t.Fatal(err)
	}
	idx, err := index.OpenSQLite(t.Context(), filepath.Join(dir, "index"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(idx.Close(), disk.Close()); err != nil {
			t.Error(err)
		}
	})
	s := &Store{packs: disk, index: idx, grace: time.Hour}
	hour := time.Now().Add(time.Hour).Truncate(time.Second)
	var then []string
	of := func(name string, b index.NewBlob) *upload {
		return &upload{
			frames: []pack.Frame{{Chunk: chunkOf(name), Data: []byte(name)}},
			record: &Record{Blobs: []index.NewBlob{b}, Expires: hour, Then: func(_ index.Tx, blobs []index.Blob, at map[digest.Hash]index.Location) error {
				if len(blobs) != 1 || blobs[0].Digest != b.Digest || at[chunkOf(name).Hash].Length != uint32(len(name)) {
					t.Errorf("%s: %+v", name, blobs)
				}
				then = append(then, name)
				return nil
			}},
		}
	}
	group := []*upload{
		of("first", blobOf("first", chunkOf("first"))),
		of("second", blobOf("second and gone", chunkOf("second"), chunkOf("gone"))),
		{frames: []pack.Frame{{Chunk: chunkOf("unnamed"), Data: []byte("unnamed")}}},
		of("third", blobOf("third", chunkOf("third"))),
	}
	ends := make([]error, len(group))
	if err := s.writePack(t.Context(), group, ends); err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, index.ErrMissingChunks, nil, nil} {
		if !errors.Is(ends[i], want) {
			t.Errorf("upload %d: %v, want %v", i, ends[i], want)
		}
	}
	if len(then) != 2 || then[0] != "first" || then[1] != "third" {
		t.Errorf("went on with %q", then)
	}
	for _, b := range []index.NewBlob{group[0].record.Blobs[0], group[3].record.Blobs[0]} {
		got, err := idx.Blob(t.Context(), b.Digest)
		if err != nil || got.FileSize != b.Size || !got.Expires.Equal(hour) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if _, err := idx.Blob(t.Context(), group[1].record.Blobs[0].Digest); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("half a blob: %v", err)
	}
	if located, err := idx.Locate(t.Context(), []digest.Hash{chunkOf("unnamed").Hash, chunkOf("second").Hash}); len(located) != 2 || err != nil {
		t.Errorf("the chunks of the others: %v, %v", located, err)
	}
	// As a change leaves them that the index then runs again.
	ends = []error{index.ErrMissingChunks, index.ErrMissingChunks}
	if err := s.writePack(t.Context(), []*upload{group[0], group[3]}, ends); err != nil || errors.Join(ends...) != nil {
		t.Errorf("run again: %v, %v", err, ends)
	}
}
