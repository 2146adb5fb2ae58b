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
	"time"
)

// stopTime is how long nix may take to end once it was told to.
const stopTime = 10 * time.Second

// Request is what `nix build` is asked for.
type Request struct {
	Installables []string
	File         string   // -f FILE, or empty
	OutLink      string   // link to the results, or empty for none
	Args         []string // further arguments, as they are
}

// BuildError is a build that nix ended with a failure.
type BuildError struct {
	Message string // nix's own last words
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
	cmd.Stdin = os.Stdin
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopTime
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, &exit):
		return nil, &BuildError{Message: tail.message(), err: err}
	case err != nil:
		return nil, fmt.Errorf("running nix build: %w", err)
	}
	results, err := parseResults(stdout.Bytes())
	if err != nil {
		return nil, fmt.Errorf("reading what nix build made: %w", err)
	}
	return results, nil
}

func (n *Nix) buildArgs(r Request) []string {
	args := []string{"build", "--json"}
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
// installable, with its outputs, or, for a store path, the path itself.
func parseResults(text []byte) ([]string, error) {
	var entries []struct {
		Path    string            `json:"path"`
		Outputs map[string]string `json:"outputs"`
	}
	if err := json.Unmarshal(text, &entries); err != nil {
		// From some versions on, a store path is a bare string.
		var mixed []json.RawMessage
		if err := json.Unmarshal(text, &mixed); err != nil {
			return nil, err
		}
		return parseMixed(mixed)
	}
	var results []string
	seen := map[string]bool{}
	add := func(p string) {
		if p != "" && !seen[p] {
			seen[p] = true
			results = append(results, p)
		}
	}
	for _, e := range entries {
		add(e.Path)
		add(e.Outputs["out"]) // first, as nix lists it
		for _, name := range slices.Sorted(maps.Keys(e.Outputs)) {
			add(e.Outputs[name])
		}
	}
	return results, nil
}

func parseMixed(mixed []json.RawMessage) ([]string, error) {
	var results []string
	for _, m := range mixed {
		var path string
		if json.Unmarshal(m, &path) == nil {
			results = append(results, path)
			continue
		}
		paths, err := parseResults([]byte("[" + string(m) + "]"))
		if err != nil {
			return nil, err
		}
		results = append(results, paths...)
	}
	return results, nil
}

// Realise fetches what an installable builds from substituters, and never
// builds it. It returns ErrNotSubstitutable with nix's words when that cannot be.
func (n *Nix) Realise(ctx context.Context, installable string) ([]string, error) {
	var words bytes.Buffer
	results, err := n.Build(ctx, Request{
		Installables: []string{installable},
		Args:         []string{"--max-jobs", "0", "--builders", "", "--no-fallback"},
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
// begins with "error:" to the end, or, without one, the last line.
func (l *lastWords) message() string {
	text := strings.TrimSpace(string(l.b))
	if strings.HasPrefix(text, "error:") {
		return text
	}
	if i := strings.Index(text, "\nerror:"); i >= 0 {
		return text[i+1:]
	}
	return text[strings.LastIndex(text, "\n")+1:]
}
