package bazelcache

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"lukechampine.com/blake3"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
)

// function is a digest function, or what a client has not said of it.
type function int

const (
	functionSHA256 function = iota // what the store itself names blobs by
	functionBLAKE3
	// functionAny is HTTP's, whose names do not say which it is.
	functionAny
)

// Names of functions in the index. Aliases are kept without a size: HTTP's names
// have none.
const (
	aliasSHA256 = "sha256" // only of blobs of more than one chunk: a chunk is found by its hash anyway
	aliasBLAKE3 = "blake3"
)

func functionOf(v repb.DigestFunction_Value) (function, error) {
	switch v {
	case repb.DigestFunction_UNKNOWN, repb.DigestFunction_SHA256:
		return functionSHA256, nil
	case repb.DigestFunction_BLAKE3:
		return functionBLAKE3, nil
	}
	return 0, fmt.Errorf("%w: digest function %s; there are SHA256 and BLAKE3", errInvalid, v)
}

// names returns the functions that f may be.
func (f function) names() []function {
	if f == functionAny {
		return []function{functionSHA256, functionBLAKE3}
	}
	return []function{f}
}

func (f function) new() hash.Hash {
	if f == functionBLAKE3 {
		return blake3.New(digest.Size, nil)
	}
	return sha256.New()
}

func (f function) of(b []byte) digest.Hash {
	if f == functionBLAKE3 {
		return blake3.Sum256(b)
	}
	return digest.Of(b)
}

// proto is how a digest is written in messages.
func proto(d digest.Digest) *repb.Digest {
	return &repb.Digest{Hash: d.Hash.String(), SizeBytes: d.Size}
}

// parseHash takes 64 lower-case hexadecimal digits only: one blob has one name.
func parseHash(s string) (h digest.Hash, err error) {
	if len(s) != hex.EncodedLen(digest.Size) {
		return h, fmt.Errorf("%w: hash %.80q has not %d digits", errInvalid, s, hex.EncodedLen(digest.Size))
	}
	for _, c := range []byte(s) {
		if c >= 'A' && c <= 'F' {
			return h, fmt.Errorf("%w: hash %q is not in lower case", errInvalid, s)
		}
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return h, fmt.Errorf("%w: hash %.80q: %w", errInvalid, s, err)
	}
	return h, nil
}

func parseDigest(p *repb.Digest) (digest.Digest, error) {
	if p == nil {
		return digest.Digest{}, fmt.Errorf("%w: a digest is missing", errInvalid)
	}
	h, err := parseHash(p.Hash)
	if err != nil {
		return digest.Digest{}, err
	}
	if p.SizeBytes < 0 {
		return digest.Digest{}, fmt.Errorf("%w: a blob of %d bytes", errInvalid, p.SizeBytes)
	}
	return digest.Digest{Hash: h, Size: p.SizeBytes}, nil
}

func parseDigests(ps []*repb.Digest) ([]digest.Digest, error) {
	out := make([]digest.Digest, len(ps))
	for i, p := range ps {
		var err error
		if out[i], err = parseDigest(p); err != nil {
			return nil, err
		}
	}
	return out, nil
}

var (
	emptySHA256 = functionSHA256.of(nil)
	emptyBLAKE3 = functionBLAKE3.of(nil)
)

// isEmpty says whether a digest is that of the empty blob, which is always there.
func (f function) isEmpty(d digest.Digest) bool {
	return d.Size == 0 && f.isEmptyHash(d.Hash)
}

func (f function) isEmptyHash(h digest.Hash) bool {
	return f != functionBLAKE3 && h == emptySHA256 || f != functionSHA256 && h == emptyBLAKE3
}
