package flywheel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/cacheserver/storepath"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/target"
)

// PushOptions say what Push sends.
type PushOptions struct {
	Options
	// Paths are store paths, files in them, or symlinks to those.
	Paths []string
	// NoClosure sends the paths only, without what they refer to.
	NoClosure bool
	// BuildClosure adds what building the paths needed, as far as it is there.
	BuildClosure bool
	// Retries is how many times what could not be sent is tried again, after
	// ever longer waits.
	Retries int
	// Pin is a name under which the paths are kept, with the newest Keep
	// revisions; empty for none. Of several paths, each has a name of its own:
	// Pin, a slash, and the path's name without its hash.
	Pin  string
	Keep int
}

// DefaultRetries is how many times a push is tried again.
const DefaultRetries = 3

// firstRetry is how long the first retry waits; each further one doubles it.
const firstRetry = time.Second

// Push sends store paths with all that they refer to, without a build. Its
// report has no outcome; Missing is what the cache does not hold afterwards.
func Push(ctx context.Context, o PushOptions) (*Report, error) {
	began := time.Now()
	r := newRunOf(o.Options)
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	defer r.close()
	paths, err := r.storePaths(o.Paths)
	if err != nil {
		return nil, err
	}
	r.substituters(ctx, r.startCache(ctx))
	if r.target == nil {
		for _, why := range r.readOnly { // a build pulls from such a cache, and finds no fault
			r.fault("%s", why)
		}
	}
	report := &Report{Schema: 1, Results: paths}
	pushing, cancel := lingering(ctx, o.DrainTime)
	defer cancel()
	if err := r.openDatabase(ctx); err != nil {
		r.console.note("Nix is asked for the closure: %v", err)
	}
	infos, err := r.pushed(ctx, paths, o)
	if err != nil {
		return nil, err
	}
	stopPushing := r.startPushing(pushing)
	r.sendAll(pushing, infos, report)
	for wait, n := firstRetry, 0; n < o.Retries && len(report.Missing) > 0 && r.pusher != nil; wait, n = 2*wait, n+1 {
		r.console.note("%s missing in the cache: trying again in %v", count(len(report.Missing), "path"), wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		r.sendAll(pushing, infos, report)
	}
	stopPushing()
	r.pin(pushing, o, paths, report)
	r.account(context.WithoutCancel(ctx), report)
	report.Seconds = time.Since(began).Seconds()
	r.pushSummary(report)
	return report, ctx.Err()
}

// pushed returns what is to be pushed of paths, which are all valid.
func (r *run) pushed(ctx context.Context, paths []string, o PushOptions) ([]nix.PathInfo, error) {
	var asked nixStore = r.nix
	if r.db != nil {
		asked = r.db
	}
	own, err := asked.Paths(ctx, paths)
	if err != nil {
		return nil, err
	}
	valid := map[string]bool{}
	for _, p := range own {
		valid[p.Path] = true
	}
	for _, p := range paths {
		if !valid[p] {
			return nil, fmt.Errorf("%s is not a valid path of the store %s: build it, or fetch it with `nix build`", p, r.store.Dir)
		}
	}
	infos := own
	if !o.NoClosure {
		if infos, err = asked.Closure(ctx, paths); err != nil {
			return nil, err
		}
	}
	if !o.BuildClosure {
		return infos, nil
	}
	needed, err := asked.BuildClosure(ctx, paths)
	if err != nil {
		return nil, err
	}
	if len(needed) == 0 {
		r.console.note("--include-build-closure: the derivations of these paths are not in this store")
	}
	seen := map[string]bool{}
	for _, p := range infos {
		seen[p.Path] = true
	}
	for _, p := range needed {
		if !seen[p.Path] {
			infos = append(infos, p)
		}
	}
	return infos, nil
}

// nixStore is what Nix and its database both can tell.
type nixStore interface {
	Paths(ctx context.Context, paths []string) ([]nix.PathInfo, error)
	Closure(ctx context.Context, paths []string) ([]nix.PathInfo, error)
	BuildClosure(ctx context.Context, paths []string) ([]nix.PathInfo, error)
}

// storePaths finds the store paths that arguments name, each once.
func (r *run) storePaths(args []string) ([]string, error) {
	var paths []string
	seen := map[string]bool{}
	for _, a := range args {
		p, err := r.storePath(a)
		if err != nil {
			return nil, err
		}
		if !seen[p] {
			seen[p] = true
			paths = append(paths, p)
		}
	}
	return paths, nil
}

// storePath follows symlinks until they lead into the store. Those in the store
// are what is pushed.
func (r *run) storePath(arg string) (string, error) {
	at, err := filepath.Abs(arg)
	if err != nil {
		return "", err
	}
	for range maxLinks {
		if inside, ok := strings.CutPrefix(at, r.store.Dir+"/"); ok {
			base, _, _ := strings.Cut(inside, "/")
			if _, _, err := storepath.Split(base); err != nil {
				return "", fmt.Errorf("%s: %w", arg, err)
			}
			return r.store.Dir + "/" + base, nil
		}
		leads, err := os.Readlink(at)
		if err != nil {
			// A directory before it may be the link.
			dir, err := filepath.EvalSymlinks(filepath.Dir(at))
			if resolved := filepath.Join(dir, filepath.Base(at)); err == nil && resolved != at {
				at = resolved
				continue
			}
			break
		}
		if !filepath.IsAbs(leads) {
			leads = filepath.Join(filepath.Dir(at), leads)
		}
		at = filepath.Clean(leads)
	}
	return "", fmt.Errorf("%s is no store path, and no link to one; the store is %s", arg, r.store.Dir)
}

// pin keeps the paths under a name once the cache holds them.
func (r *run) pin(ctx context.Context, o PushOptions, paths []string, report *Report) {
	if o.Pin == "" || r.target == nil {
		return
	}
	began := r.console.begin("pin")
	pinner, ok := r.target.(target.Pinner)
	if !ok {
		r.fault("cache %s: %v", r.target.URL(), errNoPins)
		report.Unpinned = paths
		r.console.fail("pin", began, "%v", errNoPins)
		return
	}
	pinned := 0
	for _, p := range paths {
		name := o.Pin
		if len(paths) > 1 {
			if _, base, err := storepath.Split(path.Base(p)); err == nil {
				name += "/" + base
			}
		}
		if err := pinner.Pin(ctx, name, p, max(1, o.Keep)); err != nil {
			r.fault("%v", err)
			report.Unpinned = append(report.Unpinned, p)
			continue
		}
		pinned++
	}
	if pinned < len(paths) {
		r.console.fail("pin", began, "%s of %d kept as %s", count(pinned, "path"), len(paths), o.Pin)
		return
	}
	r.console.step("pin", began, "%s kept as %s", count(pinned, "path"), o.Pin)
}

var errNoPins = errors.New("it has no pins: its paths go when its own rules say so")
