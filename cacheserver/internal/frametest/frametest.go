// Package frametest readies package frame for tests in bubbles of synctest.
package frametest

import (
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

// Warm makes what frame makes at its first use, for each size of chunks that it
// treats in its own way: what is made in a bubble cannot be used outside. It is for
// TestMain.
func Warm() {
	for _, size := range []int{1, frame.MaxChunk} {
		plain := make([]byte, size)
		chunk := digest.Chunk{Hash: digest.Of(plain), Size: uint32(size)}
		if _, err := frame.Check(pack.Frame{Chunk: chunk, Data: frame.Encode(nil, plain)}, nil); err != nil {
			panic(err)
		}
	}
}
