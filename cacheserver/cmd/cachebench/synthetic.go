package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// tree describes a made-up package: files of 1 KiB to 2 MiB, of which half the
// bytes are words, which compress, and half noise, which does not.
type tree struct {
	seed    uint64
	release int // in each but the first, every fifth file is another
	size    int64
}

// changesEvery is which files are new in a release.
const changesEvery = 5

func writeTree(dir string, t tree) error {
	sizes := source(t.seed, 0)
	rng := rand.New(sizes) // #nosec G404 -- no secret depends on it
	for i, left := uint64(1), t.size; left > 0; i++ {
		n := min(left, 1<<10<<rng.IntN(12)+rng.Int64N(1<<10))
		left -= n
		contents := source(t.seed, i)
		if i%changesEvery == 0 {
			contents = source(t.seed, i|uint64(t.release)<<32)
		}
		name := filepath.Join(dir, fmt.Sprintf("%02d", i%50), fmt.Sprintf("file-%d", i))
		if err := writeFile(name, contents, n, i%2 == 0); err != nil {
			return fmt.Errorf("making up a package: %w", err)
		}
	}
	return nil
}

func writeFile(name string, src *rand.ChaCha8, n int64, words bool) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if !words {
		_, err := io.CopyN(f, src, n)
		return err
	}
	w := bufio.NewWriter(f)
	if err := writeWords(w, rand.New(src), n); err != nil { // #nosec G404 -- no secret depends on it
		return err
	}
	return w.Flush()
}

// vocabulary is how many different words there are. As in any text, few of them
// make up most of it.
const vocabulary = 1 << 14

func writeWords(w io.Writer, rng *rand.Rand, n int64) error {
	common := rand.NewZipf(rng, 1.1, 8, vocabulary-1)
	var line []byte
	for n > 0 {
		line = line[:0]
		for range 4 + rng.IntN(8) {
			line = appendWord(line, common.Uint64())
			line = append(line, ' ')
		}
		line = append(line, '\n')
		line = line[:min(int64(len(line)), n)]
		n -= int64(len(line))
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	return nil
}

// appendWord spells the number of a word, the same each time.
func appendWord(b []byte, number uint64) []byte {
	const letters = "etaoinshrdlucmfw"
	for h := number*0x9E3779B97F4A7C15 | 1<<24; h > 1; h >>= 9 {
		b = append(b, letters[h&15])
	}
	return b
}

// source is a stream of noise, the same for the same numbers.
func source(seed, number uint64) *rand.ChaCha8 {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	binary.LittleEndian.PutUint64(key[8:], number)
	return rand.NewChaCha8(key)
}
