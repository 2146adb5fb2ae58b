package chunker

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// cutByDefinition is the algorithm in its plain form of one byte per step,
// without the optimizations of Chunker.cut, which it serves to check.
func cutByDefinition(c *Chunker, data []byte) int {
	if len(data) <= c.min {
		return len(data)
	}
	size := min(len(data), c.max)
	hash := uint64(0)
	for i := c.min / 2 * 2; i < size/2*2; i++ {
		hash = hash<<1 + c.gear.plain[data[i]]
		mask := c.early
		if i >= c.average {
			mask = c.late
		}
		if hash&mask == 0 {
			return i
		}
	}
	return size
}

func TestPropertyCutMatchesDefinition(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		average := 1024 << rapid.IntRange(0, 2).Draw(t, "doublings of the average")
		c, err := New(nil, Params{
			Average: average,
			Min:     rapid.IntRange(leastMin, average).Draw(t, "min"),
			Max:     rapid.IntRange(average, 4*average).Draw(t, "max"),
			Seed:    rapid.Uint32().Draw(t, "seed"),
		})
		if err != nil {
			t.Fatalf("new chunker: %v", err)
		}
		data := make([]byte, rapid.IntRange(0, 5*average).Draw(t, "length"))
		rand.NewChaCha8([32]byte{rapid.Byte().Draw(t, "stream")}).Read(data) // never fails

		for len(data) > 0 {
			got, want := c.cut(data), cutByDefinition(c, data)
			if got != want {
				t.Fatalf("cut %d bytes at %d, want %d", len(data), got, want)
			}
			data = data[got:]
		}
	})
}

// TestGear spot-checks the table against the published one, and the seed.
func TestGear(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		seed  uint32
		value byte
		want  uint64
	}{
		{0, 0, 0x3b5d3c7d207e37dc},
		{0, 1, 0x784d68ba91123086},
		{0, 255, 0xaabd2b2a451504e1},
		{666, 1, 0x784d68ba91123086 ^ 666},
		{1 << 31, 0, 0x3b5d3c7da07e37dc}, // the seed isn't sign-extended
	} {
		t.Run(fmt.Sprintf("seed %d/byte %d", tc.seed, tc.value), func(t *testing.T) {
			t.Parallel()
			g := newGear(tc.seed)
			if got := g.plain[tc.value]; got != tc.want {
				t.Errorf("plain is %#016x, want %#016x", got, tc.want)
			}
			if got := g.doubled[tc.value]; got != tc.want<<1 {
				t.Errorf("doubled is %#016x, want %#016x", got, tc.want<<1)
			}
		})
	}
}

func TestMasks(t *testing.T) {
	t.Parallel()
	for average := minAverage; average <= maxAverage; average *= 2 {
		k := bits.TrailingZeros(uint(average))
		early, late := masksFor(average)
		if got := bits.OnesCount64(early); got != k+2 {
			t.Errorf("average %d: the early mask has %d bits, want %d", average, got, k+2)
		}
		if got := bits.OnesCount64(late); got != k-2 {
			t.Errorf("average %d: the late mask has %d bits, want %d", average, got, k-2)
		}
	}
}
