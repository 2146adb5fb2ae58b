package chaos

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/nar"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/narinfo"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
)

const (
	// largest is how many bytes an item's file has at most.
	largest = 3 << 20
	// common is how long the stretches are that items share: some chunks each.
	common  = 512 << 10
	commons = 12
	// levels bounds how deep references go: an item refers only to lower ones.
	levels = 4
)

// item is a store path. Its NAR is made when it is needed, always the same.
type item struct {
	number int
	base   string // hash and name
	hash   string // the 32 characters
	level  int
	refs   []*entry
	seed   [32]byte
	info   *narinfo.NarInfo
}

// newItem makes the item of a number, which refers to others.
func newItem(seed [32]byte, number, level int, refs []*entry) item {
	binary.LittleEndian.PutUint64(seed[24:], uint64(number)+1)
	name := fmt.Sprintf("item-%d", number)
	hash := digest.Of(append(seed[:], name...)).Nix32()[:storepath.HashLen]
	it := item{number: number, base: hash + "-" + name, hash: hash, level: level, refs: refs, seed: seed}
	it.info = &narinfo.NarInfo{StorePath: storepath.DefaultDir + "/" + it.base}
	for _, r := range refs {
		it.info.References = append(it.info.References, r.base)
	}
	if number%5 == 0 {
		it.info.References = append(it.info.References, it.base)
	}
	slices.Sort(it.info.References)
	archive := it.nar()
	it.info.NarHash, it.info.NarSize = digest.Of(archive), int64(len(archive))
	return it
}

// nar is a file of 1 byte to 3 MiB, small ones more often than large ones. With
// references, which stand in it, it is in a directory.
func (it *item) nar() []byte {
	r := rand.New(rand.NewChaCha8(it.seed))
	size := int(math.Exp(r.Float64() * math.Log(largest)))
	data := make([]byte, 0, size+common)
	for len(data) < size {
		stretch := common
		var seed [32]byte
		if r.IntN(2) == 0 {
			seed[0] = byte(1 + r.IntN(commons))
		} else {
			stretch = 1 + r.IntN(common)
			binary.LittleEndian.PutUint64(seed[8:], r.Uint64())
		}
		at := len(data)
		data = data[:at+stretch]
		_, _ = rand.NewChaCha8(seed).Read(data[at:])
	}
	data = data[:size]
	files := []nar.Header{{Path: "/", Type: nar.TypeRegular, Size: int64(size)}}
	text := "refers to\n" + strings.Join(it.info.References, "\n")
	if len(it.info.References) > 0 {
		files = []nar.Header{
			{Path: "/", Type: nar.TypeDirectory},
			{Path: "/data", Type: nar.TypeRegular, Size: int64(size), Executable: it.number%2 == 0},
			{Path: "/link", Type: nar.TypeSymlink, LinkTarget: "data"},
			{Path: "/refs", Type: nar.TypeRegular, Size: int64(len(text))},
		}
	}
	var b bytes.Buffer
	w, err := nar.NewWriter(&b)
	for i := range files {
		if err == nil {
			err = w.WriteHeader(&files[i])
		}
		contents := data
		if files[i].Path == "/refs" {
			contents = []byte(text)
		}
		if err == nil && files[i].Type == nar.TypeRegular {
			_, err = w.Write(contents)
		}
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // writing to memory does not fail
	}
	return b.Bytes()
}

// closure is the item and all that it refers to, what is referred to first.
func (e *entry) closure() []*entry {
	var all []*entry
	seen := map[*entry]bool{}
	var visit func(e *entry)
	visit = func(e *entry) {
		if seen[e] {
			return
		}
		seen[e] = true
		for _, r := range e.refs {
			visit(r)
		}
		all = append(all, e)
	}
	visit(e)
	return all
}
