package nix

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
)

const (
	// stopTime is how long nix may take to end once it was told to.
	stopTime = 10 * time.Second
	// tellAgain is how often it is told: an interrupt that comes just before nix
	// begins to wait for a builder goes unnoticed until the builder says something.
	tellAgain = time.Second
)

// Request is what `nix build` is asked for.
type Request struct {
	Installables []string
	File         string   // -f FILE, or empty
	OutLink      string   // link to the results, or empty for none
	Args         []string // further arguments, as they are
	// FlakeCheck is a flake to run `nix flake check` of instead; there are no
	// results then.
	FlakeCheck string
	// Observer is told of the builds and fetches; nil for none.
	Observer event.Observer
	// Made says whether a derivation's outputs are valid by now, by which the end of
	// a build is known that nix does not tell of; nil where nobody can say.
	Made func(derivation string) bool
}

// BuildError is a build that nix ended with a failure.
type BuildError struct {
	Message string // nix's own last words
	Crashed bool   // it ended itself by SIGABRT, as C++ does
	err     error
}

func (e *BuildError) Error() string { return fmt.Sprintf("nix build: %v", e.err) }
func (e *BuildError) Unwrap() error { return e.err }

// Build runs `nix build`, with nix's own output on out as it comes, and
// returns the store paths that it made. When ctx ends, nix is interrupted as by
// Ctrl-C, and ctx's error is returned; a build that fails is a *BuildError.
func (n *Nix) Build(ctx context.Context, r Request, out io.Writer) ([]string, error) {
	var stdout bytes.Buffer
	tail := &lastWords{}
	cmd := n.Command(ctx, n.buildArgs(r)...)
	cmd.Stdout = &stdout
	cmd.Stderr = io.MultiWriter(out, tail)
	var log *logReader
	if r.observed() {
		log = newLogReader(cmd.Stderr, r)
		cmd.Stderr = log
	}
	cmd.Stdin = os.Stdin
	ended := make(chan struct{})
	cmd.Cancel = func() error {
		go func() {
			for {
				select {
				case <-ended:
					return
				case <-time.After(tellAgain):
					_ = cmd.Process.Signal(os.Interrupt) // it may just have ended
				}
			}
		}()
		return cmd.Process.Signal(os.Interrupt)
	}
	cmd.WaitDelay = stopTime
	err := cmd.Run()
	close(ended)
	if log != nil {
		log.close()
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, &exit):
		return nil, &BuildError{Message: tail.message(), Crashed: aborted(exit), err: err}
	case err != nil:
		return nil, fmt.Errorf("running nix build: %w", err)
	}
	if r.FlakeCheck != "" {
		return nil, nil
	}
	results, err := parseResults(stdout.Bytes())
	if err != nil {
		return nil, fmt.Errorf("reading what nix build made: %w", err)
	}
	return results, nil
}

func aborted(exit *exec.ExitError) bool {
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGABRT
}

// observed says whether nix is to tell of builds in a form that can be read: not
// where the caller chose another.
func (r Request) observed() bool {
	return r.Observer != nil && !slices.Contains(r.Args, "--log-format")
}

func (n *Nix) buildArgs(r Request) []string {
	var format []string
	if r.observed() {
		format = []string{"--log-format", "internal-json"}
	}
	if r.FlakeCheck != "" {
		return slices.Concat([]string{"flake", "check", r.FlakeCheck}, format, r.Args)
	}
	args := append([]string{"build", "--json"}, format...)
	if r.OutLink != "" {
		args = append(args, "--out-link", r.OutLink)
	} else {
		args = append(args, "--no-link")
	}
	if r.File != "" {
		args = append(args, "--file", r.File)
	}
	args = append(args, r.Args...)
	for _, i := range r.Installables {
		// Since 2.15 a bare .drv is the file itself, not what it builds.
		if strings.HasSuffix(i, ".drv") && strings.HasPrefix(i, "/") && n.Newer(2, 15) {
			i += "^*"
		}
		args = append(args, i)
	}
	return args
}

// parseResults reads the output of `nix build --json`: an entry for each
// installable, with its outputs, or, for a store path, the path itself: in an
// object, and from some versions on as a bare string.
func parseResults(text []byte) ([]string, error) {
	var entries []json.RawMessage
	if err := json.Unmarshal(text, &entries); err != nil {
		return nil, err
	}
	var results []string
	seen := map[string]bool{}
	add := func(p string) {
		if p != "" && !seen[p] {
			seen[p] = true
			results = append(results, p)
		}
	}
	for _, entry := range entries {
		var path string
		if json.Unmarshal(entry, &path) == nil {
			add(path)
			continue
		}
		var e struct {
			Path    string            `json:"path"`
			Outputs map[string]string `json:"outputs"`
		}
		if err := json.Unmarshal(entry, &e); err != nil {
			return nil, err
		}
		add(e.Path)
		add(e.Outputs["out"]) // first, as nix lists it
		for _, name := range slices.Sorted(maps.Keys(e.Outputs)) {
			add(e.Outputs[name])
		}
	}
	return results, nil
}

// Realise fetches what an installable builds from substituters, and never
// builds it. args are further ones of `nix build`, of which those count that say
// what it evaluates to. It returns ErrNotSubstitutable with nix's words when that
// cannot be.
func (n *Nix) Realise(ctx context.Context, installable string, args []string) ([]string, error) {
	var words bytes.Buffer
	results, err := n.Build(ctx, Request{
		Installables: []string{installable},
		Args:         append(ElsewhereArgs(EvaluationArgs(args)), "--max-jobs", "0", "--builders", "", "--no-fallback"),
	}, &words)
	var failed *BuildError
	if errors.As(err, &failed) {
		return nil, fmt.Errorf("%w: %s", ErrNotSubstitutable, firstLine(failed.Message))
	}
	return results, err
}

// ErrNotSubstitutable is wrapped by Realise for what no substituter has.
var ErrNotSubstitutable = errors.New("no substituter has it")

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// lastWords keeps the end of what was written to it.
type lastWords struct{ b []byte }

const keptWords = 16 << 10

func (l *lastWords) Write(p []byte) (int, error) {
	l.b = append(l.b, p...)
	if len(l.b) > 2*keptWords {
		l.b = append(l.b[:0], l.b[len(l.b)-keptWords:]...)
	}
	return len(p), nil
}

// message returns nix's error: from the first line of the kept ones that
// begins with "error:" to the end, or, without one, the last line. Lines that
// nix writes when its database of what caches have is busy come before others
// where there are any: it goes on without that database.
func (l *lastWords) message() string {
	text := strings.TrimSpace(string(l.b))
	lines := strings.Split(text, "\n")
	first := -1
	for i, line := range lines {
		if !strings.HasPrefix(line, "error:") {
			continue
		}
		if first < 0 {
			first = i
		}
		if !strings.Contains(line, "binary-cache-v") {
			first = i
			break
		}
	}
	if first < 0 {
		return lines[len(lines)-1]
	}
	return strings.Join(lines[first:], "\n")
}
