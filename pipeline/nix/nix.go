// Package nix runs the nix command and reads Nix's own database.
//
// Versions 2.4 and newer are supported; what differs between them is told
// apart here and nowhere else.
package nix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/setup"
)

// ErrNotFound is returned by Find when there is no nix on this machine.
var ErrNotFound = errors.New("nix is not installed")

// ErrTooOld is wrapped by Find for versions without flakes.
var ErrTooOld = errors.New("this nix is too old")

// Nix is an installed nix.
type Nix struct {
	Path         string
	Major, Minor int
	// Config is added to NIX_CONFIG, behind what the caller's own says: it
	// holds for the processes started here and for nothing else. Configure adds
	// to it while others run.
	Config []string

	mu sync.Mutex // Config
}

// Configure adds lines of nix.conf for the processes that are started from now
// on: of settings that stand twice, the later holds.
func (n *Nix) Configure(lines ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Config = append(n.Config, lines...)
}

// Find looks for nix in PATH and where a fresh installation puts it.
func Find(ctx context.Context) (*Nix, error) {
	n, err := locate()
	if err != nil {
		return nil, err
	}
	return n, n.askVersion(ctx)
}

// FindWithSettings is Find and Settings at once: each run of nix takes longer than
// a push of what a cache has already.
func FindWithSettings(ctx context.Context) (*Nix, Settings, error) {
	n, err := locate()
	if err != nil {
		return nil, Settings{}, err
	}
	var settings Settings
	var early error
	var g errgroup.Group
	g.Go(func() error {
		settings, early = n.settings(ctx, oldSettings)
		return nil
	})
	err = n.askVersion(ctx)
	_ = g.Wait() // returns no error
	if err == nil && early != nil {
		settings, err = n.Settings(ctx)
	}
	return n, settings, err
}

func locate() (*Nix, error) {
	path, err := exec.LookPath("nix")
	if err != nil {
		home, _ := os.UserHomeDir() // without one, its profile is not looked at
		for _, dir := range setup.ExtraPath(home) {
			if p, err := exec.LookPath(filepath.Join(dir, "nix")); err == nil {
				path = p
				break
			}
		}
	}
	if path == "" {
		return nil, ErrNotFound
	}
	return &Nix{Path: path}, nil
}

func (n *Nix) askVersion(ctx context.Context) error {
	out, err := n.Command(ctx, "--version").Output()
	if err != nil {
		return fmt.Errorf("running %s --version: %w", n.Path, withStderr(err))
	}
	if n.Major, n.Minor, err = parseVersion(string(out)); err != nil {
		return err
	}
	if n.Major < 2 || (n.Major == 2 && n.Minor < 4) {
		return fmt.Errorf("%w: %s is version %d.%d, flakes need 2.4", ErrTooOld, n.Path, n.Major, n.Minor)
	}
	return nil
}

var versionPattern = regexp.MustCompile(`\b(\d+)\.(\d+)`)

func parseVersion(out string) (major, minor int, err error) {
	m := versionPattern.FindStringSubmatch(out)
	if m == nil {
		return 0, 0, fmt.Errorf("`nix --version` says %.80q, which holds no version", out)
	}
	major, _ = strconv.Atoi(m[1])
	minor, _ = strconv.Atoi(m[2])
	return major, minor, nil
}

// Newer says whether this nix is of version major.minor or a later one.
func (n *Nix) Newer(major, minor int) bool {
	return n.Major > major || (n.Major == major && n.Minor >= minor)
}

// Command prepares a run of nix. The caller sets what it reads and writes.
func (n *Nix) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, n.Path, args...)
	cmd.Env = append(os.Environ(), n.Environ()...)
	return cmd
}

// program prepares a run of one of nix's older programs, which lie beside it.
func (n *Nix) program(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := n.Command(ctx, args...)
	path := filepath.Join(filepath.Dir(n.Path), name)
	if _, err := os.Stat(path); err != nil {
		if found, err := exec.LookPath(name); err == nil {
			path = found
		}
	}
	cmd.Path, cmd.Args[0], cmd.Err = path, name, nil
	return cmd
}

// Environ are the variables that make a nix which somebody else starts work as
// those that Command prepares.
func (n *Nix) Environ() []string {
	env := []string{"NIX_CONFIG=" + n.config()}
	if os.Getenv("NIX_SSL_CERT_FILE") == "" && os.Getenv("SSL_CERT_FILE") == "" {
		home, _ := os.UserHomeDir() // without one, its profile is not looked at
		if file := setup.CertFile(home); file != "" {
			env = append(env, "NIX_SSL_CERT_FILE="+file)
		}
	}
	return env
}

// config is the user's NIX_CONFIG with ours behind it: of a setting that stands
// twice, Nix takes the later one.
func (n *Nix) config() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	lines := append([]string{"extra-experimental-features = nix-command flakes"}, n.Config...)
	if own := os.Getenv("NIX_CONFIG"); own != "" {
		lines = append([]string{own}, lines...)
	}
	return strings.Join(lines, "\n")
}

// withStderr adds what a failed command said to its error.
func withStderr(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if said := bytes.TrimSpace(exit.Stderr); len(said) > 0 {
			return fmt.Errorf("%w: %s", err, said)
		}
	}
	return err
}

// Ping opens the store, which makes it when there is none. Two that make the
// same store at the same time get in each other's way ("creating symlink …: File
// exists"), so it is tried again: the second finds it made.
func (n *Nix) Ping(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		_, err := n.Command(ctx, "store", "ping").Output()
		if err == nil {
			return nil
		}
		if attempt == pings || ctx.Err() != nil {
			return fmt.Errorf("opening the Nix store: %w", withStderr(err))
		}
		select {
		case <-time.After(betweenPings):
		case <-ctx.Done():
		}
	}
}

const (
	pings        = 3
	betweenPings = 200 * time.Millisecond
)
