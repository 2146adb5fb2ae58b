package cas_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/cas"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/frame"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/index"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/pack"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/packstore"
)

// victimDir, set in the environment, makes the test binary a process that only
// pushes to the store in that directory, until it is killed.
const victimDir = "CAS_TEST_VICTIM_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		fmt.Fprintln(os.Stderr, victim(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// victim stores blobs of random chunks and prints each once it is
// acknowledged: its digest, then its chunks. It returns only with an error.
func victim(dir string) error {
	ctx := context.Background()
	disk, err := packstore.OpenDisk(filepath.Join(dir, "packs"))
	if err != nil {
		return err
	}
	x, err := index.OpenSQLite(ctx, filepath.Join(dir, "index.sqlite"))
	if err != nil {
		return err
	}
	s := cas.New(disk, x, cas.DefaultGrace)
	var out sync.Mutex
	var g errgroup.Group
	for range 4 {
		g.Go(func() error {
			for {
				line, err := storeRandomBlob(ctx, s, x)
				if err != nil {
					return err
				}
				out.Lock()
				_, err = fmt.Println(line)
				out.Unlock()
				if err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

func storeRandomBlob(ctx context.Context, s *cas.Store, x index.Index) (string, error) {
	var frames []pack.Frame
	var plain []byte
	for range 1 + mathrand.IntN(4) {
		b := make([]byte, 1+mathrand.IntN(40_000))
		_, _ = rand.Read(b) // never fails
		frames = append(frames, frameOf(b))
		plain = append(plain, b...)
	}
	if err := s.PutFrames(ctx, frames); err != nil {
		return "", err
	}
	d := digest.Digest{Hash: digest.Of(plain), Size: int64(len(plain))}
	blob, err := s.Verify(ctx, d, chunksOf(frames), readAll)
	if err != nil {
		return "", err
	}
	if err := x.Update(ctx, func(tx index.Tx) error {
		_, err := tx.AddBlob(blob, chunksOf(frames), s.Expiry())
		return err
	}); err != nil {
		return "", err
	}
	line := d.String()
	for _, f := range frames {
		line += fmt.Sprintf(" %s/%d", f.Hash, f.Size)
	}
	return line, nil
}

func TestWhatWasAcknowledgedSurvivesKill9(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var acknowledged []string
	for round := range 5 {
		var lines [2][]string // of two processes over the same files
		var g errgroup.Group
		for i := range lines {
			g.Go(func() (err error) {
				lines[i], err = killOne(t.Context(), dir, mathrand.IntN(30))
				return err
			})
		}
		must(t, g.Wait())
		acknowledged = append(append(acknowledged, lines[0]...), lines[1]...)
		r := openAt(t, dir)
		for _, line := range acknowledged {
			checkAcknowledged(t, r, line)
		}
		if t.Failed() {
			t.Fatalf("after round %d", round)
		}
	}
	if len(acknowledged) == 0 {
		t.Error("nothing was acknowledged in five rounds")
	}
	r := openAt(t, dir)
	f := numbered("after", 3)
	must(t, r.PutFrames(t.Context(), f))
	entriesOnDisk(t, r) // fails the test if a pack is not whole
}

// killOne starts a victim, kills it with signal 9 right behind its n-th line,
// and returns all that it could still print.
func killOne(ctx context.Context, dir string, n int) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), victimDir+"="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var lines []string
	sc := bufio.NewScanner(stdout)
	for sc.Scan() {
		lines = append(lines, sc.Text())
		if len(lines) == n+1 {
			err = cmd.Process.Kill()
		}
	}
	ended := cmd.Wait()
	if len(lines) <= n {
		return nil, fmt.Errorf("the victim ended by itself: %w\n%s", ended, stderr.Bytes())
	}
	return lines, errors.Join(err, sc.Err())
}

func checkAcknowledged(t *testing.T, r *rig, line string) {
	t.Helper()
	digests := strings.Fields(line)
	want := parseDigest(t, digests[0])
	var chunks []digest.Chunk
	for _, s := range digests[1:] {
		d := parseDigest(t, s)
		chunks = append(chunks, digest.Chunk{Hash: d.Hash, Size: uint32(d.Size)})
	}
	verified, err := r.Verify(t.Context(), want, chunks, readAll)
	if err != nil {
		t.Errorf("acknowledged, but %v", err)
		return
	}
	blob, err := r.index.Blob(t.Context(), want)
	verified.ID, verified.Expires = blob.ID, blob.Expires
	if err != nil || blob != verified {
		t.Errorf("the index has %+v, %v; what is stored is %+v", blob, err, verified)
		return
	}
	extents, err := r.Extents(t.Context(), blob)
	must(t, err)
	served := serve(t, r, extents)
	plain, err := frame.Decode(nil, served)
	if err != nil || digest.Of(plain) != want.Hash || digest.Of(served) != blob.FileHash {
		t.Errorf("other bytes are served, %v", err)
	}
}

func parseDigest(t *testing.T, s string) digest.Digest {
	t.Helper()
	hash, size, _ := strings.Cut(s, "/")
	h, err := digest.Parse(hash)
	n, err2 := strconv.ParseInt(size, 10, 64)
	must(t, errors.Join(err, err2))
	return digest.Digest{Hash: h, Size: n}
}
