package flywheel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"sync"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/embedded"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/pusher"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/queue"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/setup"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/target"
)

// ErrNotReady is wrapped when the build could not begin: there is no nix, or
// none that can be used. What it wraps says what to do.
var ErrNotReady = errors.New("not ready to build")

// run is one build with all around it.
type run struct {
	Options
	console  *console
	builds   *builds
	nix      *nix.Nix
	settings nix.Settings
	store    nix.Store
	db       *nix.Database // nil where it cannot be read
	cursor   int64         // of db, when the build began
	// pulls are the caches that were named and answer, configured are those
	// substituters of nix.conf that do.
	pulls, configured []string
	lessMu            sync.Mutex // pulls and configured, while builds run
	embedded          *embedded.Server
	target            target.Target // nil where nothing is pushed
	readOnly          []string      // why the caches that answer take no pushes
	upstream          upstreams
	tokens            map[string]string // of caches, by URL
	pusher            *pusher.Pusher    // nil where target is
	queue             *queue.Queue      // nil where nothing is remembered
	faultsMu          sync.Mutex
	faults            []string // of caches, but for those the pusher counts
	secrets           string   // directory with this run's netrc, or empty
}

func newRunOf(o Options) *run {
	r := &run{Options: o, console: newConsole(o.Observer, o.Out), builds: newBuilds(), tokens: map[string]string{}}
	r.console.Observer = event.Tee(r.builds, r.console.Observer)
	r.upstream = upstreams{urls: o.Upstreams, fault: r.fault}
	return r
}

// Build runs a build. Its report is never nil once nix was found; the error is
// a *nix.BuildError when nix failed, ErrNotReady, or ctx's when the run was
// interrupted: then what was built is pushed for at most DrainTime.
func Build(ctx context.Context, o Options) (*Report, error) {
	began := time.Now()
	if len(o.Installables) == 0 && o.FlakeCheck == "" {
		o.Installables = []string{"."} // of a file, all that is in it
	}
	r := newRunOf(o)
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	defer r.close()
	r.substituters(ctx, r.startCache(ctx))
	r.bootstrap(ctx)

	pushing, cancel := lingering(ctx, o.DrainTime)
	defer cancel()
	stopPushing := r.startPushing(pushing)
	stopWatching := r.watch(pushing, nil)
	report := &Report{Schema: 1, Outcome: Failed}
	err := r.build(ctx, report)
	stopWatching()
	r.drain(pushing)
	r.closurePush(pushing, report)
	stopPushing()
	r.account(context.WithoutCancel(ctx), report)
	report.Seconds = time.Since(began).Seconds()
	r.summary(report, began)
	if err == nil {
		err = errors.Join(r.link(context.WithoutCancel(ctx), report.Results), r.copyResults(o.CopyOut, report.Results))
	}
	return report, err
}

func (r *run) fault(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.faultsMu.Lock()
	r.faults = append(r.faults, text)
	r.faultsMu.Unlock()
	r.console.Observe(event.CacheFault{Text: text})
}

func (r *run) close() {
	if r.secrets != "" {
		if err := os.RemoveAll(r.secrets); err != nil {
			r.console.note("removing this run's netrc: %v", err)
		}
	}
	if r.target != nil {
		r.target.Close()
	}
	if r.db != nil {
		_ = r.db.Close() // it was only read
	}
	if r.embedded != nil {
		if err := r.embedded.Close(); err != nil {
			r.console.note("closing the embedded cache server: %v", err)
		}
	}
}

// prepare finds nix, or installs it, and its store.
func (r *run) prepare(ctx context.Context) (err error) {
	r.nix, r.settings, err = nix.FindWithSettings(ctx)
	if errors.Is(err, nix.ErrNotFound) {
		if err := r.setUp(ctx, false); err != nil {
			return err
		}
		r.nix, r.settings, err = nix.FindWithSettings(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	if r.Setup && r.settings.Sandbox && !r.settings.HasSandboxShell() {
		if err := r.setUp(ctx, true); err != nil {
			return err
		}
	}
	if r.store, err = r.settings.Locate(); err != nil {
		r.console.note("%v: paths cannot be watched", err)
	}
	r.asRoot()
	if r.store.Made() {
		return nil
	}
	// Tells whether the daemon answers. Without one, it makes the store's database
	// at the very first run.
	if err := r.nix.Ping(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	return nil
}

// asRoot lets root build without a daemon where the build users were never
// made, as they are not by distributions' packages: nix would refuse.
func (r *run) asRoot() {
	if os.Geteuid() != 0 || r.store.Daemon || r.settings.BuildUsersGroup == "" {
		return
	}
	if _, err := user.LookupGroup(r.settings.BuildUsersGroup); err != nil {
		r.nix.Configure(setup.RootConfig)
	}
}

// setUp installs what is missing, or says how.
func (r *run) setUp(ctx context.Context, needsShell bool) error {
	system, err := setup.Detect(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	system.NeedsSandboxShell = needsShell
	if !r.Setup {
		return fmt.Errorf("%w: %s", ErrNotReady, setup.MissingMessage(system))
	}
	steps, err := setup.Plan(system)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	if err := setup.Run(ctx, steps, r.console); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	return nil
}

// bootstrap fetches a tool that the build wants to find, and never builds it.
func (r *run) bootstrap(ctx context.Context) {
	began := r.console.begin("bootstrap")
	if r.Bootstrap == "" {
		r.console.skip("bootstrap", began, "skipped: no tool was asked for")
		return
	}
	results, err := r.nix.Realise(ctx, r.Bootstrap, r.NixArgs)
	if err != nil {
		r.console.skip("bootstrap", began, "skipped %s: %v", r.Bootstrap, err)
		return
	}
	for _, p := range results {
		r.console.step("bootstrap", began, "%s", p)
	}
}
