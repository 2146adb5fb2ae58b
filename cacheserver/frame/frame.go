// Package frame turns chunks into zstd frames (RFC 8878) and back. A frame is
// what is stored and what is served, so what a client sends is checked here
// for all that a stock zstd decoder may be strict about.
package frame

import (
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

// MaxChunk is the longest chunk that can be stored, in uncompressed bytes.
const MaxChunk = 4 << 20

// MaxFrame is the longest frame of such a chunk: zstd's own bound for bytes
// that do not compress, rounded up.
const MaxFrame = MaxChunk + MaxChunk>>8 + 64

// maxWindow is far below the 128 MiB that stock decoders stop at.
const maxWindow = 8 << 20

// ErrMalformed is wrapped when the bytes are not one zstd frame as pack's
// FORMAT.md wants it.
var ErrMalformed = errors.New("malformed frame")

// ErrMismatch is wrapped when a frame unpacks to other bytes than its chunk.
var ErrMismatch = errors.New("the frame does not hold this chunk")

// smallChunk is up to how many bytes a chunk is compressed at the fastest level:
// to begin at the default one takes longer than such a chunk does. The chunker cuts
// none as small but the last of a blob.
const smallChunk = 16 << 10

// The encoders and the decoder are safe for concurrent use and hold one state for
// each processor.
var (
	encoder = encoderOf(zstd.SpeedDefault)
	small   = encoderOf(zstd.SpeedFastest)
	decoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true),
			// Less memory than the window would lower the window's limit, too.
			zstd.WithDecoderMaxMemory(maxWindow), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// Encode makes the frame of a chunk, appended to dst. Chunks hold 1 to
// MaxChunk bytes.
func Encode(dst, chunk []byte) []byte {
	if len(chunk) <= smallChunk {
		return small().EncodeAll(chunk, dst)
	}
	return encoder().EncodeAll(chunk, dst)
}

func encoderOf(level zstd.EncoderLevel) func() *zstd.Encoder {
	return sync.OnceValue(func() *zstd.Encoder {
		// No checksum: a chunk's digest is the stronger one.
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
}

// Decode unpacks a frame of at most MaxChunk bytes, appended to dst. It checks
// neither length nor hash.
func Decode(dst, data []byte) ([]byte, error) {
	out, err := decoder().DecodeAll(data, dst)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(out)-len(dst) > MaxChunk {
		return nil, fmt.Errorf("%w: it holds more than %d bytes", ErrMalformed, MaxChunk)
	}
	return out, nil
}

// Check unpacks a frame into scratch, which it may grow and returns, and
// compares it with its chunk: its length, its hash, and that it is a single
// frame without a dictionary.
func Check(f pack.Frame, scratch []byte) ([]byte, error) {
	if f.Size == 0 || f.Size > MaxChunk || len(f.Data) > MaxFrame {
		return scratch, fmt.Errorf("%w: chunk %s of %d bytes in a frame of %d; a chunk has 1 to %d bytes", ErrMalformed, f.Hash, f.Size, len(f.Data), MaxChunk)
	}
	if err := single(f.Data); err != nil {
		return scratch, fmt.Errorf("%w of chunk %s: %w", ErrMalformed, f.Hash, err)
	}
	out, err := Decode(scratch[:0], f.Data)
	if err != nil {
		return scratch, fmt.Errorf("chunk %s: %w", f.Hash, err)
	}
	if len(out) != int(f.Size) || digest.Of(out) != f.Hash {
		return out, fmt.Errorf("%w: %s of %d bytes; it holds %s of %d", ErrMismatch, f.Hash, f.Size, digest.Of(out), len(out))
	}
	return out, nil
}

// single walks the block headers (RFC 8878, 3.1.1.2) to see that data ends
// where its first frame does.
func single(data []byte) error {
	var h zstd.Header
	if err := h.Decode(data); err != nil {
		return err
	}
	if h.Skippable || h.DictionaryID != 0 {
		return errors.New("it is skippable or needs a dictionary")
	}
	at := h.HeaderSize
	for last := false; !last; {
		if at+3 > len(data) {
			return errors.New("it ends early")
		}
		b := uint(data[at]) | uint(data[at+1])<<8 | uint(data[at+2])<<16
		at += 3
		last = b&1 == 1
		switch kind, size := b>>1&3, int(b>>3); kind {
		case 1: // one byte, repeated
			at++
		case 3:
			return errors.New("a block of reserved type")
		default:
			at += size
		}
	}
	if h.HasCheckSum {
		at += 4
	}
	if at != len(data) {
		return fmt.Errorf("it is %d bytes long, not %d", at, len(data))
	}
	return nil
}
