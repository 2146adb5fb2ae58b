package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// What a server acknowledged is there after it was killed, whatever it was doing:
// taking pushes, collecting, compacting.
func TestChaosKillsLoseNothing(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, s *storage) { weather(t, s, 1, 6) })
}

// So it is with two servers over the same data, of which one may go on while the
// other is killed.
func TestChaosKillsOfReplicasLoseNothing(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, s *storage) { weather(t, s, 2, 4) })
}

// weather is rounds of storms, and the calm after them.
func weather(t *testing.T, s *storage, replicas, few int) {
	t.Helper()
	st := newStorm(t, s)
	defer func() { t.Log(st.counts) }()
	for n := range rounds(t, few) {
		st.round(n, replicas)
		if n%50 == 49 {
			t.Logf("after %d rounds: %v", n+1, st.counts)
		}
	}
	st.calm()
}

func (st *storm) upTo(d time.Duration) time.Duration {
	return time.Duration(st.rand.Int64N(int64(d)))
}

// round lets servers work until each is killed at a moment of its own, and then
// looks at what is there.
func (st *storm) round(n, replicas int) {
	t, s := st.t, st.storage
	where := fmt.Sprintf("round %d", n)
	maxSize := maxSizes[st.rand.IntN(len(maxSizes))]
	flags := append(slices.Clone(stormFlags), "--max-size", maxSize)
	if st.rand.IntN(2) == 0 {
		flags = append(flags, "--pack-cache", "0")
	}
	var servers []*server
	for i := range replicas {
		if st.rand.IntN(5) == 0 {
			s.startAndKill(t, i, st.upTo(60*time.Millisecond), flags...)
			st.count(func(c *counts) { c.earlyKills++ })
		}
		servers = append(servers, s.start(t, i, flags...))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	st.outage.Store(s.s3 != nil && st.rand.IntN(4) == 0)
	wait := st.load(ctx, servers)
	var commands errgroup.Group
	pinning, collecting := st.rand.IntN(4) != 0, st.rand.IntN(4) == 0
	later, r := st.upTo(200*time.Millisecond), st.spawn()
	commands.Go(func() error {
		time.Sleep(later)
		if pinning {
			st.pin(ctx, fmt.Sprintf("pin-%d", n), r)
		}
		if collecting {
			o := s.run(ctx, t, "gc", "--grace", grace.String(), "--max-size", maxSize)
			st.gathered(o.stdout)
			if o.exit < 0 {
				st.count(func(c *counts) { c.commandKills++ })
			}
		}
		return nil
	})
	if st.outage.Load() {
		st.work(st.rand.IntN(10))
		st.interrupt()
	}
	for i, v := range servers {
		st.work(st.rand.IntN(25 / replicas))
		v.kill()
		st.count(func(c *counts) { c.kills++ })
		if i == 0 && replicas > 1 && st.rand.IntN(2) == 0 {
			servers = append(servers, s.start(t, v.number, flags...))
		}
	}
	for _, v := range servers[replicas:] {
		v.kill()
		st.count(func(c *counts) { c.kills++ })
	}
	cancel()
	wait()
	must(t, commands.Wait())
	killed := time.Now()

	quiet := s.start(t, 0, quietFlags...)
	st.check(quiet, killed, false)
	quiet.kill()
	for _, v := range servers {
		st.gathered(v.log.String())
	}
	servers = append(servers, quiet)
	st.report(where, servers...)
	for _, v := range servers {
		v.log.forget()
	}
}

// work waits until that many more paths were acknowledged, and then for a moment
// more. Machines are not equally fast, and one that is in trouble acknowledges
// nothing.
func (st *storm) work(paths int) {
	const longest, moment = 3 * time.Second, 30 * time.Millisecond
	acknowledged := func() int {
		st.mu.Lock()
		defer st.mu.Unlock()
		return st.counts.acknowledged
	}
	began, before := time.Now(), acknowledged()
	for acknowledged() < before+paths && time.Since(began) < longest {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(st.upTo(moment))
}

// interrupt takes the storage or the database away for a moment, or lets the
// storage hang for longer than the grace.
func (st *storm) interrupt() {
	st.count(func(c *counts) { c.outages++ })
	const moment = 100 * time.Millisecond
	switch t, s := st.t, st.storage; st.rand.IntN(3) {
	case 0:
		s.s3.Stop(t)
		time.Sleep(st.upTo(moment))
		s.s3.Start(t)
	case 1:
		s.postgres.Crash(t)
		time.Sleep(st.upTo(moment))
		s.postgres.Start(t)
	case 2:
		s.s3.Pause(t)
		time.Sleep(grace + st.upTo(moment))
		s.s3.Resume(t)
	}
}

var (
	collectedLine = regexp.MustCompile(`msg=collected .*deleted=(\d+) compacted=(\d+) orphans=(\d+)`)
	collectedText = regexp.MustCompile(`(?m)^packs +(\d+) deleted, (\d+) compacted, (\d+) orphans deleted$`)
)

// gathered counts what collections say that they did.
func (st *storm) gathered(text string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, m := range append(collectedLine.FindAllStringSubmatch(text, -1), collectedText.FindAllStringSubmatch(text, -1)...) {
		for i, sum := range []*int{&st.counts.packsDeleted, &st.counts.compacted, &st.counts.orphans} {
			n, _ := strconv.Atoi(m[i+1]) // digits
			*sum += n
		}
	}
}

// calm looks at everything, collects, and wants that nothing is left over: no
// orphans while pins keep something, and nothing at all once there are none.
func (st *storm) calm() {
	t, s := st.t, st.storage
	killed := time.Now()
	quiet := s.start(t, 0, quietFlags...)
	st.check(quiet, killed, true)
	quiet.stop(t)
	last := time.Now()
	st.report("after the last round", quiet)

	time.Sleep(time.Until(last.Add(grace + time.Second)))
	st.gathered(s.mustRun(t, "gc", "--grace", grace.String(), "--max-size", "16MB"))
	collected := time.Now()
	c := s.inspect(t)
	if !maps.Equal(c.stored, c.known) {
		t.Errorf("the packs stored are not those in the index:\n%v\n%v", c.stored, c.known)
	}
	s.mustRun(t, "fsck")
	quiet = s.start(t, 0, quietFlags...)
	st.check(quiet, collected, true)
	quiet.stop(t)
	st.report("after collection", quiet)
	last = time.Now() // it was a use of all
	t.Logf("kept by %d pins: %d paths, %d chunks (%d copies) in %d packs of %d bytes, %d of them dead",
		len(st.pins), c.usage.Paths, c.usage.Chunks, c.copies, c.usage.Packs, c.usage.PackBytes, c.usage.DeadBytes)

	// A command that was killed may have pinned something, too.
	for line := range strings.Lines(s.mustRun(t, "pin", "list")) {
		if name, _, _ := strings.Cut(line, " "); name != "NAME" {
			s.mustRun(t, "pin", "remove", name)
		}
	}
	time.Sleep(time.Until(last.Add(retention + time.Second)))
	s.mustRun(t, "gc", "--grace", grace.String())
	c = s.inspect(t)
	if u := c.usage; len(c.stored) != 0 || u.Packs+u.Paths+u.Blobs+u.Chunks != 0 {
		t.Errorf("with nothing to keep there are %d packs, and %+v", len(c.stored), u)
	}
	if s.s3 == nil {
		left, bytes := halfWritten(t, filepath.Join(s.dir, "packs", "incoming"))
		t.Logf("%d half-written packs of %d bytes wait for a start a day later", left, bytes)
	}
}

func halfWritten(t *testing.T, dir string) (n int, bytes int64) {
	t.Helper()
	files, err := os.ReadDir(dir)
	must(t, err)
	for _, f := range slices.DeleteFunc(files, os.DirEntry.IsDir) {
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		must(t, err)
		n++
		bytes += info.Size()
	}
	return n, bytes
}
