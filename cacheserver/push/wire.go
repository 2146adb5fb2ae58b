// Package push is the protocol by which store paths come into a cache, and its
// client. PROTOCOL.md beside this file is its description.
package push

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
)

// Version is the protocol's, as Info tells it.
const Version = 1

// Root is the protocol's place under the URL of a cache.
const Root = "_push/v1"

// Limits of request bodies, in bytes but for those of chunks.
const (
	MaxChunksBody     = 16 << 20
	MaxChunksPerBody  = 16 << 10
	MaxChunksPerQuery = 64 << 10
	MaxPathsBody      = 16 << 20
	MaxCommitBody     = 64 << 20
)

// ErrMalformed is wrapped by errors about bodies that are not what
// PROTOCOL.md says.
var ErrMalformed = errors.New("malformed body")

// Info is what a server says of itself and of a cache.
type Info struct {
	Protocol   int      `json:"protocol"`
	Cache      string   `json:"cache"`
	StoreDir   string   `json:"storeDir"`
	Priority   int      `json:"priority"`
	PublicKeys []string `json:"publicKeys"`
	Chunking   Chunking `json:"chunking"`
	Limits     Limits   `json:"limits"`
}

// Chunking is how clients should cut NARs, so that they share chunks.
type Chunking struct {
	Algorithm string `json:"algorithm"`
	Average   int    `json:"average"` // bytes
}

// Limits are those of the server's routes.
type Limits struct {
	Chunk          int `json:"chunk"`
	ChunksBody     int `json:"chunksBody"`
	ChunksPerBody  int `json:"chunksPerBody"`
	ChunksPerQuery int `json:"chunksPerQuery"`
	PathsBody      int `json:"pathsBody"`
	CommitBody     int `json:"commitBody"`
}

// PathsQuery asks which paths are missing.
type PathsQuery struct {
	Hashes []string `json:"hashes"`
}

// PathsAnswer says which are.
type PathsAnswer struct {
	Missing []string `json:"missing"`
}

// Committed answers a commit.
type Committed struct {
	MissingReferences []string `json:"missingReferences"`
}

// Error is the body of every answer that is not a success.
type Error struct {
	Code    string   `json:"code"`
	Message string   `json:"message"`
	Limit   int64    `json:"limit,omitempty"`
	Missing []string `json:"missing,omitempty"`
}

// Codes of Error.
const (
	CodeMalformed     = "malformed"
	CodeMismatch      = "mismatch"
	CodeNoSuchCache   = "no-such-cache"
	CodeMissingChunks = "missing-chunks"
	CodeTooLarge      = "too-large"
	CodeTooSlow       = "too-slow"
	CodeInternal      = "internal"
	CodeNoSpace       = "no-space"
	CodeUnavailable   = "unavailable"
	CodeNotHeld       = "not-held"
)

// AppendHashes is the body of a query for chunks, and of its answer.
func AppendHashes(dst []byte, hashes []digest.Hash) []byte {
	for _, h := range hashes {
		dst = append(dst, h[:]...)
	}
	return dst
}

// ReadHashes reads what AppendHashes made, at most limit of them.
func ReadHashes(r io.Reader, limit int) ([]digest.Hash, error) {
	var hashes []digest.Hash
	br := bufio.NewReader(r)
	for {
		var h digest.Hash
		switch _, err := io.ReadFull(br, h[:]); {
		case errors.Is(err, io.EOF):
			return hashes, nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil, fmt.Errorf("%w: its length is not a multiple of %d", ErrMalformed, digest.Size)
		case err != nil:
			return nil, fmt.Errorf("reading hashes: %w", err)
		}
		if len(hashes) == limit {
			return nil, fmt.Errorf("%w: more than %d hashes", ErrMalformed, limit)
		}
		hashes = append(hashes, h)
	}
}

const frameHeader = digest.Size + 4 + 4

// AppendFrame is one record of the body that carries chunks.
func AppendFrame(dst []byte, f pack.Frame) []byte {
	dst = append(dst, f.Hash[:]...)
	dst = binary.BigEndian.AppendUint32(dst, f.Size)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(f.Data)))
	return append(dst, f.Data...)
}

// ReadFrames reads a body of records. It checks lengths, not contents.
func ReadFrames(r io.Reader) ([]pack.Frame, error) {
	var frames []pack.Frame
	br := bufio.NewReaderSize(r, 64<<10)
	for {
		var head [frameHeader]byte
		switch _, err := io.ReadFull(br, head[:]); {
		case errors.Is(err, io.EOF):
			return frames, nil
		case err != nil:
			return nil, cutOff("a record", err)
		}
		var f pack.Frame
		copy(f.Hash[:], head[:])
		f.Size = binary.BigEndian.Uint32(head[digest.Size:])
		length := binary.BigEndian.Uint32(head[digest.Size+4:])
		if f.Size == 0 || f.Size > frame.MaxChunk || length == 0 || length > frame.MaxFrame {
			return nil, fmt.Errorf("%w: chunk %s of %d bytes in a frame of %d; a chunk has 1 to %d bytes",
				ErrMalformed, f.Hash, f.Size, length, frame.MaxChunk)
		}
		f.Data = make([]byte, length)
		if _, err := io.ReadFull(br, f.Data); err != nil {
			return nil, cutOff("a frame", err)
		}
		if len(frames) == MaxChunksPerBody {
			return nil, fmt.Errorf("%w: more than %d chunks", ErrMalformed, MaxChunksPerBody)
		}
		frames = append(frames, f)
	}
}

// cutOff tells a body that ended too early from a connection that did.
func cutOff(what string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends in the middle of %s", ErrMalformed, what)
	}
	return fmt.Errorf("reading %s: %w", what, err)
}

const chunkRecord = digest.Size + 4

// AppendCommit is the body that commits a path.
func AppendCommit(dst []byte, n *narinfo.NarInfo, chunks []digest.Chunk) []byte {
	dst = append(append(dst, n.Text()...), '\n')
	for _, c := range chunks {
		dst = append(dst, c.Hash[:]...)
		dst = binary.BigEndian.AppendUint32(dst, c.Size)
	}
	return dst
}

// ReadCommit reads what AppendCommit made. It checks that the chunks' sizes add
// up to NarSize, but neither paths nor contents.
func ReadCommit(r io.Reader) (*narinfo.NarInfo, []digest.Chunk, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	n, err := readHead(br)
	if err != nil {
		return nil, nil, err
	}
	var chunks []digest.Chunk
	for left := n.NarSize; ; {
		var rec [chunkRecord]byte
		switch _, err := io.ReadFull(br, rec[:]); {
		case errors.Is(err, io.EOF) && left == 0:
			return n, chunks, nil
		case errors.Is(err, io.EOF):
			return nil, nil, fmt.Errorf("%w: its chunks lack %d of the NAR's %d bytes", ErrMalformed, left, n.NarSize)
		case err != nil:
			return nil, nil, cutOff("the list of chunks", err)
		}
		c := digest.Chunk{Size: binary.BigEndian.Uint32(rec[digest.Size:])}
		copy(c.Hash[:], rec[:])
		if c.Size == 0 || int64(c.Size) > left {
			return nil, nil, fmt.Errorf("%w: chunk %d has %d bytes where the NAR has %d left", ErrMalformed, len(chunks), c.Size, left)
		}
		left -= int64(c.Size)
		chunks = append(chunks, c)
	}
}

func readHead(br *bufio.Reader) (*narinfo.NarInfo, error) {
	var head bytes.Buffer
	for {
		line, err := br.ReadSlice('\n')
		head.Write(line)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case err != nil:
			return nil, cutOff("the narinfo", err)
		case len(line) == 1 && !bytes.HasSuffix(head.Bytes(), []byte("\n\n")) && head.Len() > 1:
			// The newline that ends a line longer than the buffer.
		case len(line) == 1:
			n, err := narinfo.Parse(head.Bytes()[:head.Len()-1])
			if err != nil {
				return nil, err
			}
			return n, nil
		}
		if head.Len() > narinfo.MaxSize {
			return nil, fmt.Errorf("%w: the narinfo is over %d bytes", ErrMalformed, narinfo.MaxSize)
		}
	}
}
