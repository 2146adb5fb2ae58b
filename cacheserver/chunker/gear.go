package chunker

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"math/bits"
)

// normalization is the level of normalized chunking: by how many bits the mask
// before the average is stricter, and the one after it laxer, than the average
// itself asks for. The Remote Execution API fixes it at 2.
const normalization = 2

// masks holds the judgement masks by the binary logarithm of the chunk size
// they aim at. Mask k has k bits set, spread out so that a judgement depends on
// more of the preceding bytes. Up to 17 the values are those of the authors' C
// implementation, above those of both reference implementations. The table
// covers every average Params accepts, widened by normalization.
var masks = [...]uint64{
	8:  0x0000001800035300,
	9:  0x0000019000353000,
	10: 0x0000590003530000,
	11: 0x0000d90003530000,
	12: 0x0000d90103530000,
	13: 0x0000d90303530000,
	14: 0x0000d90313530000,
	15: 0x0000d90f03530000,
	16: 0x0000d90303537000,
	17: 0x0000d90703537000,
	18: 0x0000d90707537000,
	19: 0x0000d91707537000,
	20: 0x0000d91747537000,
	21: 0x0000d91767537000,
	22: 0x0000d93767537000,
}

// masksFor returns the mask for positions before the average size, and the one
// for positions from there on. The average must be valid.
func masksFor(average int) (early, late uint64) {
	k := bits.TrailingZeros(uint(average))
	return masks[k+normalization], masks[k-normalization]
}

// gear holds the random 64-bit number that each byte value adds to the rolling
// hash.
type gear struct {
	plain   [256]uint64
	doubled [256]uint64 // plain shifted left by one, for the first byte of a pair
}

// unseeded is the published gear table, which all chunkers of seed zero share.
var unseeded = newGear(0)

// md5Repeats is how many copies of a byte value its gear number is the MD5 of.
const md5Repeats = 64

// newGear computes the gear table for a seed.
//
// In two points the comments of the proto are not to be taken literally, as its
// test vectors and both reference implementations show: the gear number comes
// from the MD5 of 64 copies of the byte, not of one, and the seed changes the
// gear table, not the masks.
func newGear(seed uint32) *gear {
	g := new(gear)
	for i := range g.plain {
		// MD5 is only the agreed source of fixed random numbers here.
		sum := md5.Sum(bytes.Repeat([]byte{byte(i)}, md5Repeats))
		g.plain[i] = binary.BigEndian.Uint64(sum[:]) ^ uint64(seed)
		g.doubled[i] = g.plain[i] << 1
	}
	return g
}

// scan rolls the hash over data, two bytes per step, and returns the index of
// the first byte after which the hash has no bit of mask set, or len(data) if
// there is none. The last byte of an odd number is never judged, as in the
// reference implementations. The second result is the hash at the end of data,
// from which the next scan carries on; it has no meaning after a match or an odd
// number of bytes.
//
// The hash after the first byte of a pair is held doubled, which saves a shift
// on the chain of dependent operations, and is judged by a doubled mask.
func (g *gear) scan(hash, mask uint64, data []byte) (int, uint64) {
	doubledMask := mask << 1
	// This form of the loop is free of bounds checks; measured, it is also as
	// fast as any with four or eight bytes per step.
	for i := 0; i < len(data)-1; i += 2 {
		hash = hash<<2 + g.doubled[data[i]]
		if hash&doubledMask == 0 {
			return i, hash
		}
		hash += g.plain[data[i+1]]
		if hash&mask == 0 {
			return i + 1, hash
		}
	}
	return len(data), hash
}
