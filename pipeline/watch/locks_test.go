package watch

import (
	"context"
	"path"
	"sync"
	"testing"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/internal/nixtest"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
)

// A store whose database cannot be read tells by its locks what was built, and
// not what failed.
func TestLocksTellOfARealStoresPaths(t *testing.T) {
	t.Parallel()
	s := nixtest.New(t)
	low := s.Build(t, `low = step "low" [ ] "echo low > $out";`, "low") // makes the store
	n := &nix.Nix{Path: s.Nix, Major: 2, Minor: 8}
	var mu sync.Mutex
	seen := map[string]int{}
	l, err := NewLocks(nix.Store{Dir: s.Dir}, n.Paths, func(p nix.PathInfo) {
		mu.Lock()
		defer mu.Unlock()
		seen[p.Path]++
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	built := s.Build(t, `
		low = step "low" [ ] "echo low > $out";
		mid = step "mid" [ low ] "echo $needs > $out";
		top = step "top" [ mid ] "echo $needs > $out";`, "top")
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := l.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for p := range seen {
		names[path.Base(p)[33:]] = true
	}
	if seen[built[0]] == 0 || !names["mid"] || seen[low[0]] != 0 {
		t.Errorf("seen were %v", seen)
	}
}

func TestLocksOfAStoreThatIsNotThere(t *testing.T) {
	t.Parallel()
	if _, err := NewLocks(nix.Store{Dir: "/nowhere/" + time.Now().Format("150405")}, nil, nil); err == nil {
		t.Error("a store that is not there is watched")
	}
}
