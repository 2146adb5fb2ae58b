package nix

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/internal/nixtest"
)

// someClosure has references of all kinds: shared ones, to oneself, none.
const someClosure = `
	low = step "low" [] "echo low > $out";
	self = step "self" [ low ] "echo $out $needs > $out";
	side = step "side" [ low ] "echo $needs > $out";
	top = step "top" [ self side ] "echo $needs > $out";
	other = step "other" [ low ] "mkdir $out; ln -s $needs $out/low; ln -s $out $out/itself";
	unused = step "unused" [ top ] "echo nothing of it is kept > $out";`

// checkClosure sees that infos are those paths, references first.
func checkClosure(t *testing.T, infos []PathInfo, want []string) {
	t.Helper()
	var got []string
	for _, p := range infos {
		for _, r := range p.References {
			if r != p.Path && !slices.Contains(got, r) {
				t.Errorf("%s stands before %s, to which it refers", p.Path, r)
			}
		}
		got = append(got, p.Path)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the closure is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDatabaseOfARealStore(t *testing.T) {
	t.Parallel()
	n, s := realNix(t)
	drvs := s.Instantiate(t, someClosure, "top", "other", "unused")
	d, err := OpenDatabase(t.Context(), storeOf(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	before, err := d.Cursor(t.Context())
	if err != nil || before == 0 {
		t.Fatalf("the cursor is %d, %v, with derivations in the store", before, err)
	}
	made := func(drv string) bool {
		t.Helper()
		made, err := d.Made(t.Context(), drv)
		if err != nil {
			t.Error(err)
		}
		return made
	}
	if slices.ContainsFunc(drvs, made) || made("/nix/store/nobodys.drv") {
		t.Error("a derivation is made before it is built")
	}
	results := s.Build(t, someClosure, "top", "other", "unused")
	for _, drv := range drvs {
		if !made(drv) {
			t.Errorf("%s is built, and not made", drv)
		}
	}

	fresh, err := d.Since(t.Context(), before)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	last := before
	for _, p := range fresh {
		if p.ID <= last {
			t.Errorf("%s has id %d behind %d", p.Path, p.ID, last)
		}
		last = p.ID
		if !p.Ultimate || p.Derivation() || p.Source() || p.Substituted() {
			t.Errorf("%+v was built", p)
		}
		names = append(names, p.Path[strings.LastIndex(p.Path, "-")+1:])
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "low other self side top unused" {
		t.Errorf("since the cursor came %q", got)
	}
	if now, err := d.Cursor(t.Context()); err != nil || now != last {
		t.Errorf("the cursor is %d, %v, want %d", now, err, last)
	}
	if none, err := d.Since(t.Context(), last); err != nil || len(none) != 0 {
		t.Errorf("since the last came %v, %v", none, err)
	}

	for _, roots := range [][]string{results, results[:1], results[1:2], results[2:], drvs} {
		infos, err := d.Closure(t.Context(), roots)
		if err != nil {
			t.Fatal(err)
		}
		checkClosure(t, infos, strings.Fields(s.Run(t, "nix-store", append([]string{"--query", "--requisites"}, roots...)...)))
	}

	// What nix tells of the same paths is the same.
	ours, err := d.Closure(t.Context(), results)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := n.Closure(t.Context(), results)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := inOneForm(ours), inOneForm(theirs); a != b {
		t.Errorf("the database says\n%s\nnix says\n%s", a, b)
	}
}

// inOneForm writes infos such that two of the same say the same.
func inOneForm(infos []PathInfo) string {
	var lines []string
	for _, p := range infos {
		p.ID = 0
		p.References = slices.Sorted(slices.Values(p.References))
		lines = append(lines, fmt.Sprintf("%+v", p))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func openTest(t *testing.T, d *nixtest.Database) *Database {
	t.Helper()
	db, err := OpenDatabase(t.Context(), Store{Dir: "/nix/store", State: d.State})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestClosureAfterAPathWasRegisteredAgain(t *testing.T) {
	t.Parallel()
	made := nixtest.NewDatabase(t)
	made.Register(t, "top")
	made.Register(t, "low")
	made.Exec(t, "INSERT INTO Refs VALUES (1, 2)") // the id of what it refers to is the later one
	infos, err := openTest(t, made).Closure(t.Context(), []string{nixtest.Path("top")})
	if err != nil {
		t.Fatal(err)
	}
	checkClosure(t, infos, []string{nixtest.Path("top"), nixtest.Path("low")})
}

func TestClosureOfLittle(t *testing.T) {
	t.Parallel()
	made := nixtest.NewDatabase(t)
	made.Register(t, "a")
	d := openTest(t, made)
	for _, roots := range [][]string{nil, {nixtest.Path("absent")}} {
		if infos, err := d.Closure(t.Context(), roots); err != nil || len(infos) != 0 {
			t.Errorf("of %q: got %v, %v", roots, infos, err)
		}
	}
	infos, err := d.Closure(t.Context(), []string{nixtest.Path("a"), nixtest.Path("absent"), nixtest.Path("a")})
	if err != nil {
		t.Fatal(err)
	}
	checkClosure(t, infos, []string{nixtest.Path("a")})
}

func TestSinceReadsEveryColumn(t *testing.T) {
	t.Parallel()
	made := nixtest.NewDatabase(t)
	made.Register(t, "a")
	made.Exec(t, "UPDATE ValidPaths SET deriver = NULL, narSize = NULL, ultimate = NULL, sigs = 'k-1:A  k-2:B', ca = 'fixed:x'")
	infos, err := openTest(t, made).Since(t.Context(), 0)
	if err != nil || len(infos) != 1 {
		t.Fatalf("got %v, %v", infos, err)
	}
	p := infos[0]
	if p.ID != 1 || p.Path != nixtest.Path("a") || p.Deriver != "" || p.NarSize != 0 || p.Ultimate ||
		!slices.Equal(p.Signatures, []string{"k-1:A", "k-2:B"}) || p.CA != "fixed:x" || p.References != nil {
		t.Errorf("got %+v", p)
	}

	made.Exec(t, "UPDATE ValidPaths SET hash = 'sha256:short'")
	if _, err := openTest(t, made).Since(t.Context(), 0); err == nil || !strings.Contains(err.Error(), nixtest.Path("a")) {
		t.Errorf("of a row with a bad hash, got %v, want an error that names the path", err)
	}
}

func TestOpenDatabaseRefuses(t *testing.T) {
	t.Parallel()
	if _, err := OpenDatabase(t.Context(), Store{Dir: "/nix/store"}); err == nil {
		t.Error("a store that is not on this machine has a database")
	}
	state := t.TempDir()
	if _, err := OpenDatabase(t.Context(), Store{State: state}); !os.IsNotExist(unwrapAll(err)) {
		t.Errorf("got %v, want that the file is not there", err)
	}
	if err := os.MkdirAll(state+"/db", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(state+"/db/db.sqlite", []byte("no database, by far not"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDatabase(t.Context(), Store{State: state}); err == nil || !strings.Contains(err.Error(), "database") {
		t.Errorf("got %v of a file that is none", err)
	}
}

func unwrapAll(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err
		}
		err = u.Unwrap()
	}
}

// References may lead anywhere: to what stands later, to oneself, out of the
// set. In a store they never run in a circle.
func TestReferencesFirst(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 40).Draw(t, "paths")
		name := func(i int) string { return fmt.Sprintf("/s/%02d", i) }
		infos := make([]PathInfo, n)
		for i := range infos {
			infos[i].Path = name(i)
			for _, r := range rapid.SliceOfN(rapid.IntRange(-2, i), 0, 6).Draw(t, "references") {
				infos[i].References = append(infos[i].References, name(r)) // its own, or absent below 0
			}
		}
		shuffled := rapid.Permutation(infos).Draw(t, "order")
		sorted := referencesFirst(slices.Clone(shuffled))
		if len(sorted) != n {
			t.Fatalf("%d of %d paths", len(sorted), n)
		}
		at := map[string]int{}
		for i, p := range sorted {
			at[p.Path] = i
		}
		if len(at) != n {
			t.Fatal("a path came twice")
		}
		for i, p := range sorted {
			for _, r := range p.References {
				if j, ok := at[r]; ok && j > i {
					t.Fatalf("%s stands before %s, to which it refers", p.Path, r)
				}
			}
		}
	})
}

func TestReferencesFirstEndsInACircle(t *testing.T) {
	t.Parallel()
	sorted := referencesFirst([]PathInfo{{Path: "a", References: []string{"b"}}, {Path: "b", References: []string{"a"}}})
	if len(sorted) != 2 {
		t.Errorf("got %v", sorted)
	}
}
