// Package digest names bytes by what they are.
//
// A Digest is the SHA-256 of the uncompressed bytes together with their
// number, as in Bazel's REAPI. A NAR's digest is its NarHash and NarSize.
package digest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixbase32"
)

// Size is the length of a Hash in bytes.
const Size = sha256.Size

// ErrMalformed is wrapped by every error of the parsers of this package.
var ErrMalformed = errors.New("malformed hash")

// Hash is a SHA-256 of uncompressed bytes.
type Hash [Size]byte

// Of returns the hash of b.
func Of(b []byte) Hash { return sha256.Sum256(b) }

// String returns 64 lower-case hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Nix32 returns the 52 characters of Nix's base 32.
func (h Hash) Nix32() string { return nixbase32.EncodeToString(h[:]) }

// Nix returns the form of a narinfo: "sha256:" and Nix's base 32.
func (h Hash) Nix() string { return "sha256:" + h.Nix32() }

// Parse reads a SHA-256 written as 64 hexadecimal digits or as 52 characters
// of Nix's base 32, each with or without "sha256:" before it.
func Parse(s string) (Hash, error) {
	var h Hash
	body := strings.TrimPrefix(s, "sha256:")
	switch len(body) {
	case hex.EncodedLen(Size):
		if _, err := hex.Decode(h[:], []byte(body)); err != nil {
			return Hash{}, fmt.Errorf("%w %.80q: %w", ErrMalformed, s, err)
		}
	case nixbase32.EncodedLen(Size):
		b, err := nixbase32.DecodeString(body)
		if err != nil {
			return Hash{}, fmt.Errorf("%w %.80q: %w", ErrMalformed, s, err)
		}
		copy(h[:], b)
	default:
		return Hash{}, fmt.Errorf("%w %.80q: a SHA-256 has 64 hexadecimal digits or 52 of Nix's base 32", ErrMalformed, s)
	}
	return h, nil
}

// Digest identifies a blob.
type Digest struct {
	Hash Hash
	Size int64 // bytes, uncompressed
}

// String returns hash/size, the REAPI's way to write a digest.
func (d Digest) String() string { return fmt.Sprintf("%s/%d", d.Hash, d.Size) }

// Chunk is a piece of a blob, in the order in which it stands there.
type Chunk struct {
	Hash Hash
	Size uint32 // bytes, uncompressed
}
