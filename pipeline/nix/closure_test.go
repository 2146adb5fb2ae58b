package nix

import (
	"path"
	"slices"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/internal/nixtest"
)

// A real store knows what building a path needed, and so do both ways to ask.
func TestBuildClosureOfARealStore(t *testing.T) {
	t.Parallel()
	s := nixtest.New(t)
	top := s.Build(t, `
		tool = step "tool" [ ] "echo tool > $out";
		top = step "top" [ ] "cat ${tool} > /dev/null; echo top > $out";
		other = step "other" [ ] "echo other > $out";`, "top", "other")[:1]
	d, err := OpenDatabase(t.Context(), Store{Dir: s.Dir, State: s.State})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	infos, err := d.BuildClosure(t.Context(), top)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"tool", "tool.drv", "top", "top.drv"}
	if got := names(infos); !slices.Equal(got, want) {
		t.Errorf("the database says %q, want %q", got, want)
	}
	n := &Nix{Path: s.Nix, Major: 2, Minor: 8}
	if infos, err = n.Paths(t.Context(), append(top, s.Dir+"/00000000000000000000000000000000-nowhere")); len(infos) != 1 || err != nil {
		t.Errorf("of a path that is valid and one that is not, nix says %q, %v", names(infos), err)
	}
	if infos, err = d.Paths(t.Context(), append(top, s.Dir+"/00000000000000000000000000000000-nowhere")); len(infos) != 1 || err != nil {
		t.Errorf("of a path that is valid and one that is not, the database says %q, %v", names(infos), err)
	}
	if took := (Store{Dir: s.Dir, State: s.State}).BuildTime(PathInfo{Deriver: top[0] + ".drv", Ultimate: true}, time.Time{}, time.Time{}); took != 0 {
		t.Errorf("a build without a log took %v", took)
	}
}

func names(infos []PathInfo) []string {
	var names []string
	for _, p := range infos {
		names = append(names, path.Base(p.Path)[33:])
	}
	slices.Sort(names)
	return names
}

// A collection takes the newest paths, and what was given out stays: a cursor is
// not mistaken for one of another store.
func TestSequenceOutlivesACollection(t *testing.T) {
	t.Parallel()
	database := nixtest.NewDatabase(t)
	for _, name := range []string{"a", "b", "c"} {
		database.Register(t, name)
	}
	database.Exec(t, "DELETE FROM ValidPaths WHERE id > 1")
	d, err := OpenDatabase(t.Context(), Store{State: database.State})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if cursor, err := d.Cursor(t.Context()); cursor != 1 || err != nil {
		t.Errorf("the highest id there is is %d, %v", cursor, err)
	}
	if last, err := d.Sequence(t.Context()); last != 3 || err != nil {
		t.Errorf("the highest id given out is %d, %v", last, err)
	}
}

func TestParseDerivation(t *testing.T) {
	t.Parallel()
	const drv, out = "/nix/store/x-a.drv", "/nix/store/y-a"
	for text, want := range map[string]Derivation{
		`{"/nix/store/x-a.drv":{"outputs":{"out":{"path":"/nix/store/y-a"}}}}`:            {drv, []string{out}},
		`{"version":4,"derivations":{"x-a.drv":{"outputs":{"out":{"path":"y-a"}}}}}`:      {drv, []string{out}},
		`{"/nix/store/x-a.drv":{"outputs":{"out":{"hashAlgo":"sha256","method":"nar"}}}}`: {drv, nil},
		`{"/nix/store/x-a.drv":{"outputs":{"dev":{"path":"/nix/store/y-a"},"out":{}}}}`:   {drv, nil},
	} {
		got, err := parseDerivation([]byte(text), "/nix/store")
		if err != nil || got.Path != want.Path || !slices.Equal(got.Outputs, want.Outputs) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{``, `[]`, `{}`, `{"a":{},"b":{}}`} {
		if _, err := parseDerivation([]byte(text), "/nix/store"); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
