package frame_test

import (
	"testing"

	"github.com/klauspost/compress/zstd"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
)

// rawBlock is the type of a block that holds its bytes as they are (RFC 8878,
// 3.1.1.2.2).
const rawBlock = 0

// Chunks of archives, images and encrypted files must cost neither space nor a
// decoder's time: an encoder of another level, or another version of it, might
// work on them for a gain of nothing.
func TestChunksThatDoNotCompressAreStoredRaw(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1 << 10, 32 << 10, 128 << 10, 512<<10 + 7, frame.MaxChunk} {
		data := frame.Encode(nil, noise(n))
		var h zstd.Header
		if err := h.Decode(data); err != nil {
			t.Fatal(err)
		}
		blocks := 0
		for at, last := h.HeaderSize, false; !last; blocks++ {
			head := int(data[at]) | int(data[at+1])<<8 | int(data[at+2])<<16
			last = head&1 == 1
			if kind := head >> 1 & 3; kind != rawBlock {
				t.Fatalf("%d bytes of noise: block %d is of type %d", n, blocks, kind)
			}
			at += 3 + head>>3
		}
		if over := len(data) - n; over > h.HeaderSize+3*blocks {
			t.Errorf("%d bytes of noise: a frame of %d more", n, over)
		}
	}
}
