// Package doctor finds out why a machine does not pull from a cache, or push to
// it: it looks at Nix, its settings, the cache and, in a job of GitLab, at what a
// deployment needs. It changes nothing, anywhere.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/user"
	"strings"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/credential"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nix"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/nixconf"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/setup"
)

// Status is how something was found.
type Status string

// The statuses.
const (
	OK      Status = "ok"
	Hint    Status = "hint"    // it works, and could be better
	Problem Status = "problem" // it does not work
	Skipped Status = "skipped" // it could not be looked at
)

// Finding is one thing that was looked at.
type Finding struct {
	Name   string   `json:"name"`
	Status Status   `json:"status"`
	Text   string   `json:"text"`
	Do     []string `json:"do,omitempty"` // what to do about it, a line each
}

// String is the finding for people, in lines.
func (f Finding) String() string {
	lines := fmt.Sprintf("%-8s %s: %s\n", f.Status, f.Name, f.Text)
	for _, do := range f.Do {
		lines += fmt.Sprintf("%-8s   → %s\n", "", strings.ReplaceAll(strings.TrimSpace(do), "\n", "\n           "))
	}
	return lines
}

// Findings are those of an examination, in order.
type Findings []Finding

// OK says that there is no problem.
func (fs Findings) OK() bool {
	for _, f := range fs {
		if f.Status == Problem {
			return false
		}
	}
	return true
}

// Options say what to look at.
type Options struct {
	Cache string // URL; when empty, each substituter of Nix that is on HTTP
	// Credentials finds its token. Substituters of nix.conf see no token but that
	// which netrc has for their host.
	Credentials credential.Finder
	Path        string // store path to fetch from the cache; when empty, one that it has
	// Getenv tells the surroundings of a job.
	Getenv func(string) string
	// Tell is called with each finding as soon as there is one.
	Tell func(Finding)
}

// examination is one run.
type examination struct {
	Options
	http     *http.Client
	findings Findings
	token    string // for the cache that is looked at

	nix           *nix.Nix
	store         nix.Store
	mine, machine nixconf.Effective // machine is nil without a daemon
	user          *user.User
}

// Examine looks at everything. Its error is ctx's only.
func Examine(ctx context.Context, o Options) (Findings, error) {
	e := &examination{Options: o, http: &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}}
	defer e.http.CloseIdleConnections()
	if e.lookAtNix(ctx) {
		e.lookAtSettings()
	}
	for _, cache := range e.caches() {
		e.lookAtCache(ctx, cache)
	}
	e.lookAtGitLab(ctx)
	return e.findings, ctx.Err()
}

func (e *examination) add(f Finding) {
	e.findings = append(e.findings, f)
	e.Tell(f)
}

func (e *examination) ok(name, format string, args ...any) {
	e.add(Finding{name, OK, fmt.Sprintf(format, args...), nil})
}

func (e *examination) skip(name, format string, args ...any) {
	e.add(Finding{name, Skipped, fmt.Sprintf(format, args...), nil})
}

func (e *examination) problem(name, text string, do ...string) {
	e.add(Finding{name, Problem, text, do})
}

// caches are those to look at.
func (e *examination) caches() []string {
	if e.Cache != "" {
		return []string{strings.TrimSuffix(e.Cache, "/")}
	}
	var caches []string
	for _, s := range e.mine.List("substituters") {
		if strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") {
			bare, _, _ := strings.Cut(s, "?")
			caches = append(caches, strings.TrimSuffix(bare, "/"))
		}
	}
	if len(caches) == 0 {
		e.problem("substituters", "Nix pulls from no cache", "flywheel use URL, or flywheel doctor URL to look at one")
	}
	return caches
}

// lookAtNix says whether there is one that can be asked further.
func (e *examination) lookAtNix(ctx context.Context) bool {
	var err error
	e.nix, err = nix.Find(ctx)
	switch {
	case errors.Is(err, nix.ErrNotFound):
		do := "flywheel build --setup"
		if system, err := setup.Detect(ctx); err == nil {
			do = setup.MissingMessage(system)
		}
		e.problem("nix", "Nix is not installed", do)
		return false
	case errors.Is(err, nix.ErrTooOld):
		e.problem("nix", err.Error(), "install 2.8 or newer")
		return false
	case err != nil:
		e.problem("nix", err.Error(), "mend what it names: nix --version has to work")
		return false
	}
	settings, err := e.nix.Settings(ctx)
	if err == nil {
		e.mine, err = nixconf.Read(ctx, e.nix, false)
	}
	if err == nil {
		e.user, err = user.Current()
	}
	if err != nil {
		e.problem("nix", err.Error(), "mend what it names: with a nix.conf that it cannot read, Nix does nothing at all")
		return false
	}
	e.ok("nix", "version %d.%d, %s", e.nix.Major, e.nix.Minor, e.nix.Path)
	if e.store, err = settings.Locate(); err != nil {
		e.skip("store", "%v", err)
		return true
	}
	return e.lookAtTrust(ctx)
}

func (e *examination) lookAtTrust(ctx context.Context) bool {
	if !e.store.Daemon {
		e.ok("store", "%s, without a daemon: %s's own settings count", e.store.Dir, e.user.Username)
		return true
	}
	var err error
	if e.machine, err = nixconf.Read(ctx, e.nix, true); err != nil {
		e.problem("store", err.Error(), "mend "+nixconf.SystemFile())
		return false
	}
	if (nix.Settings{TrustedUsers: e.machine.List("trusted-users")}).Trusts(e.user) {
		e.ok("store", "%s, with a daemon that trusts %s", e.store.Dir, e.user.Username)
		return true
	}
	// No problem by itself: the machine's own settings may name the cache.
	e.add(Finding{"store", Hint, fmt.Sprintf("%s, with a daemon that does not trust %s", e.store.Dir, e.user.Username), []string{
		"only caches and keys of " + nixconf.SystemFile() + " count: as root, flywheel use --system URL",
		"or, as root, add there: trusted-users = root " + e.user.Username + ", and restart the daemon",
	}})
	return true
}

// lookAtSettings finds what slows or fails builds while a cache is away.
func (e *examination) lookAtSettings() {
	fine := true
	hint := func(text string, do ...string) {
		fine = false
		e.add(Finding{"settings", Hint, text, do})
	}
	if !e.mine.Is("substitute") {
		fine = false
		e.problem("settings", "`substitute` is off: Nix builds everything itself", "remove `substitute = false` from nix.conf and NIX_CONFIG")
	}
	if !e.mine.Is("fallback") {
		hint("`fallback` is off: builds fail while a cache is away", "add to nix.conf: fallback = true")
	}
	if n := e.mine.Number("connect-timeout"); n == 0 || n > 15 {
		hint(fmt.Sprintf("`connect-timeout` is %d: an address where nobody answers holds each build up for minutes", n), "add to nix.conf: connect-timeout = 5")
	}
	if n := e.mine.Number("narinfo-cache-negative-ttl"); n > 0 {
		hint(fmt.Sprintf("`narinfo-cache-negative-ttl` is %d: what a cache lacked once is not asked for again for %v", n, time.Duration(n)*time.Second),
			"add to nix.conf, where others fill the cache: narinfo-cache-negative-ttl = 60")
	}
	if !e.mine.Is("require-sigs") {
		hint("`require-sigs` is off: Nix takes whatever a cache sends", "remove `require-sigs = false` from nix.conf, and give the cache's key (flywheel use)")
	}
	if fine {
		e.ok("settings", "caches are asked, and builds go on while one is away")
	}
}
