package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/chunker"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/digest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/push"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// madeUp are two releases of a package.
func madeUp(t testing.TB) []archive {
	t.Helper()
	c := corpus{size: 4 << 20}
	archives, err := c.load(t.Context(), io.Discard, t.TempDir(), nil)
	must(t, err)
	return archives
}

func TestAMadeUpPackageIsTheSameEachTime(t *testing.T) {
	t.Parallel()
	a, b := madeUp(t), madeUp(t)
	if a[0].hash != b[0].hash || a[1].hash != b[1].hash {
		t.Error("two runs would measure different bytes")
	}
	if a[0].hash == a[1].hash {
		t.Error("both releases are the same")
	}
}

// A change that the server refuses, or one that moves nothing, would measure
// nothing.
func TestAChangedNARIsCanonicalAndMostlyTheSame(t *testing.T) {
	t.Parallel()
	first := madeUp(t)
	second, err := changeAll(first, t.TempDir())
	must(t, err)
	for i, a := range first {
		b, err := readArchive(second[i].file)
		must(t, err)
		if b.size < a.size+changeBytes-8 || b.size > a.size+changeBytes+8 {
			t.Errorf("%d bytes became %d, not %d more", a.size, b.size, changeBytes)
		}
		known := map[digest.Hash]bool{}
		must(t, eachChunk(a, chunker.DefaultAverage, func(c []byte) error { known[digest.Of(c)] = true; return nil }))
		var fresh int64
		must(t, eachChunk(b, chunker.DefaultAverage, func(c []byte) error {
			if !known[digest.Of(c)] {
				fresh += int64(len(c))
			}
			return nil
		}))
		if fresh == 0 || fresh > b.size/2 {
			t.Errorf("%d of %d bytes are in new chunks", fresh, b.size)
		}
	}
}

// A list that names a chunk of no path could not be committed, and one that names
// chunks as new twice would make the index smaller than it is said to be.
func TestListsNameChunksThatThereAre(t *testing.T) {
	t.Parallel()
	for _, r := range []rows{{20_000, 10}, {3000, 1}, {3000, 7}} {
		made := map[int64]bool{}
		for p := range r.paths {
			for _, number := range r.list(p) {
				fresh := r.isNew(p, number)
				if fresh == made[number] {
					t.Fatalf("%+v: path %d has chunk %d, which is new to it: %v; in an older one: %v", r, p, number, fresh, made[number])
				}
				made[number] = true
			}
		}
		if int64(len(made)) != r.different() {
			t.Errorf("%+v: %d chunks, not %d", r, len(made), r.different())
		}
	}
}

// Both sides of a ratio must be of the same round: a machine that is slow for
// one round is slow for both.
func TestRatiosAreOfTheSameRound(t *testing.T) {
	t.Parallel()
	seconds := func(n ...time.Duration) (s []sample) {
		for _, n := range n {
			s = append(s, sample{wall: n * time.Second})
		}
		return s
	}
	c := comparison{samples: [][]sample{seconds(2, 200, 3), seconds(1, 100, 1)}}
	if got := c.ratio(0, 1, wallTime).String(); got != "2.00 (2.00–3.00)" {
		t.Errorf("the ratio is %s", got)
	}
	if got := c.ratio(0, 1, cpuTime).String(); got != "–" {
		t.Errorf("a ratio of nothing is %s", got)
	}
}

func TestPercentiles(t *testing.T) {
	t.Parallel()
	var times []time.Duration
	for i := range 200 {
		times = append(times, time.Duration(200-i))
	}
	for percent, want := range map[int]time.Duration{50: 100, 99: 198, 100: 200} {
		if got := percentile(times, percent); got != want {
			t.Errorf("percentile %d of 1…200 is %d, not %d", percent, got, want)
		}
	}
	if got := percentile(times[:1], 50); got != 200 {
		t.Errorf("the median of one is %d", got)
	}
}

// titles are the tables that were printed, each with the number of its rows.
func titles(out string) map[string]int {
	found := map[string]int{}
	title := ""
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(line, "## "); ok {
			title = strings.TrimSpace(name)
			found[title] = -2 // its head
		} else if strings.HasPrefix(line, "|") {
			found[title]++
		}
	}
	return found
}

func wantTables(t *testing.T, out string, want map[string]int) {
	t.Helper()
	got := titles(out)
	for title, rows := range want {
		if got[title] != rows {
			t.Errorf("table %q has %d rows, not %d", title, got[title], rows)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

// wantEmpty sees that a benchmark left nothing behind.
func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range left {
		t.Errorf("%s is left behind", e.Name())
	}
}

func TestDedup(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	o := dedupOptions{common: common{rounds: 1, temp: temp}, sample: 1 << 20}
	archives := madeUp(t)
	var out bytes.Buffer
	must(t, o.inTemp(func(dir string) error { return dedup(t.Context(), o, dir, archives, &out, io.Discard) }))
	wantTables(t, out.String(), map[string]int{"Average chunk size": 8, "Compression level": 5, "Chunks that do not compress": 3})
	wantEmpty(t, temp)
}

func TestPush(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	o := pushOptions{common: common{rounds: 1, temp: temp}, corpus: corpus{size: 4 << 20}}
	var out bytes.Buffer
	must(t, o.inTemp(func(dir string) error { return benchmarkPush(t.Context(), o, dir, nil, &out, io.Discard) }))
	wantTables(t, out.String(), map[string]int{"First push": 2, "Second push": 2})
	wantEmpty(t, temp)
}

func TestPull(t *testing.T) {
	t.Parallel()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed: it is what pulls are compared with")
	}
	temp := t.TempDir()
	o := pullOptions{common: common{rounds: 1, temp: temp}, size: 2 << 20, paths: 4, requests: 50, passes: 1, nginx: nginx}
	var out bytes.Buffer
	must(t, o.inTemp(func(dir string) error { return benchmarkPull(t.Context(), o, dir, &out, io.Discard) }))
	wantTables(t, out.String(), map[string]int{"Pull": 5})
	wantEmpty(t, temp)
}

func TestStore(t *testing.T) {
	t.Parallel()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed: it is the store of plain files")
	}
	if _, err := exec.LookPath("nix"); err != nil {
		t.Skip("nix is not installed: it makes the store, and is what flywheel is compared with")
	}
	temp := t.TempDir()
	o := storeOptions{common: common{rounds: 1, temp: temp}, paths: changedPart, largest: 8 << 10, compression: "zstd", nginx: nginx}
	var out bytes.Buffer
	must(t, o.inTemp(func(dir string) error { return benchmarkStore(t.Context(), o, dir, &out, io.Discard) }))
	wantTables(t, out.String(), map[string]int{"A store": 9})
	wantEmpty(t, temp)
}

func TestScale(t *testing.T) {
	t.Parallel()
	temp, other := t.TempDir(), t.TempDir()
	o := scaleOptions{
		common: common{rounds: 1, temp: temp}, paths: 2000, chunksPerPath: 5, requests: 100, asked: 1000,
		apart: 5 * time.Second, indexes: []string{filepath.Join(other, "index")},
	}
	var out bytes.Buffer
	must(t, o.inTemp(func(dir string) error { return scale(t.Context(), o, dir, &out, io.Discard) }))
	wantTables(t, out.String(), map[string]int{"Filling": 2, "Requests": 7, "Collection": 2, "Memory": 6})
	for _, removed := range []string{"| SQLite | 100 | 50 |", "| SQLite | 2,000 | 1,000 |"} {
		if !strings.Contains(out.String(), removed) {
			t.Errorf("no row %q: not half of the paths were collected", removed)
		}
	}
	wantEmpty(t, temp)
	wantEmpty(t, other)
}

func TestBazel(t *testing.T) {
	t.Parallel()
	if os.Getenv("BAZELTEST_E2E") == "" {
		t.Skip("it builds bazel-remote, which takes minutes: BAZELTEST_E2E=1 runs it")
	}
	temp := t.TempDir()
	o := bazelOptions{common: common{rounds: 1, temp: temp}, blobs: 2 * perBatch, asked: 100, streams: 2, streamSize: 5 << 20}
	var out bytes.Buffer
	must(t, o.inTemp(func(dir string) error { return benchmarkBazel(t.Context(), o, dir, &out, io.Discard) }))
	wantTables(t, out.String(), map[string]int{"Bazel": 9})
	out.Reset()
	o.fill = 1000
	must(t, o.inTemp(func(dir string) error { return benchmarkBazel(t.Context(), o, dir, &out, io.Discard) }))
	wantTables(t, out.String(), map[string]int{"A full cache": 2})
	wantEmpty(t, temp)
}

// A NAR that is none, or two paths of one name, would be refused and count as
// faults of the server.
func TestALoadIsPushedAndReadBack(t *testing.T) {
	t.Parallel()
	must(t, withServer(t.Context(), cacheserver.Config{Data: t.TempDir()}, func(_ *cacheserver.Server, url string) error {
		client, err := push.NewClient(url)
		if err != nil {
			return err
		}
		defer client.Close()
		p := newPuller(4)
		defer p.close()
		l := &loadRun{url: url, http: p.http, client: client, took: map[string][]time.Duration{}}
		if err := l.fill(t.Context(), 5); err != nil {
			return err
		}
		// A slow machine may be through with nothing within a second.
		for began := time.Now(); len(l.took[loadHit]) == 0 && time.Since(began) < 2*time.Minute; {
			if err := l.run(t.Context(), loadOptions{clients: 4, duration: time.Second}); err != nil {
				return err
			}
		}
		if len(l.faults) > 0 || len(l.took[loadHit]) == 0 {
			t.Errorf("faults %v of %v", l.faults, l.took)
		}
		return nil
	}))
}
