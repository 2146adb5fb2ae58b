package nix

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// evalJobs is a program (github.com/nix-community/nix-eval-jobs) that evaluates
// the attributes of a set by several processes, and tells of each as soon as it is
// evaluated.
const evalJobs = "nix-eval-jobs"

const (
	// evalWorkers is how many processes evaluate; each may use gigabytes.
	evalWorkers = 2
	// maxJobLine bounds a line of what nix-eval-jobs says: an evaluation's error
	// has a trace.
	maxJobLine = 4 << 20
)

// ErrNoEvalJobs is wrapped by Jobs where nix-eval-jobs cannot be used. What was
// told before it is right all the same.
var ErrNoEvalJobs = errors.New("nix-eval-jobs cannot be used")

// Job is an output of a flake that was evaluated. Err is a *BuildError where it
// cannot be.
type Job struct {
	Installable string
	Derivation  Derivation
	Err         error
}

// HasEvalJobs says whether there is a nix-eval-jobs, in PATH or beside nix.
func (n *Nix) HasEvalJobs() bool {
	if _, err := exec.LookPath(evalJobs); err == nil {
		return true
	}
	_, err := exec.LookPath(filepath.Join(filepath.Dir(n.Path), evalJobs))
	return err == nil
}

// Jobs tells of each package, check and development shell of a flake, for the
// system of this machine, as it is evaluated. NixOS configurations are not among
// them: Machines lists those. args are those that the build will be given. tell is
// called by one goroutine.
func (n *Nix) Jobs(ctx context.Context, flake string, args []string, tell func(Job)) error {
	args = EvaluationArgs(args)
	system, err := n.system(ctx, args)
	if err != nil {
		return err
	}
	roots, err := os.MkdirTemp("", "flywheel-roots-")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoEvalJobs, err)
	}
	defer func() { _ = os.RemoveAll(roots) }()
	for _, kind := range outputKinds {
		if err := n.jobsOf(ctx, flake+"#"+kind+"."+system, roots, args, tell); err != nil {
			return err
		}
	}
	return nil
}

// jobsOf evaluates one set of attributes. That there is none is no error.
func (n *Nix) jobsOf(ctx context.Context, set, roots string, args []string, tell func(Job)) error {
	reading, cancel := context.WithCancel(ctx)
	defer cancel() // of what cannot be read, nothing more is wanted
	// Derivations that nobody refers to would be collected before they are built.
	own := []string{"--flake", set, "--gc-roots-dir", roots, "--workers", strconv.Itoa(evalWorkers)}
	cmd := n.program(reading, evalJobs, append(own, args...)...)
	var stderr lastWords
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoEvalJobs, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w: %w", ErrNoEvalJobs, err)
	}
	readErr := readJobs(out, set, tell)
	if readErr != nil {
		cancel()
	}
	err = cmd.Wait()
	switch said := plainText(stderr.message()); {
	case ctx.Err() != nil:
		return ctx.Err()
	case readErr != nil:
		return fmt.Errorf("%w: %w", ErrNoEvalJobs, readErr)
	case err != nil && strings.Contains(said, "does not provide attribute"):
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w: %s", ErrNoEvalJobs, err, firstLine(said))
	}
	return nil
}

// readJobs reads an object a line. Of derivations whose outputs are known only
// once they are built, the outputs are null.
func readJobs(r io.Reader, set string, tell func(Job)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxJobLine)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		job, err := parseJob(line, set)
		if err != nil {
			return fmt.Errorf("reading %.80q: %w", line, err)
		}
		tell(job)
	}
	return lines.Err()
}

func parseJob(line []byte, set string) (Job, error) {
	var j struct {
		Attr     string             `json:"attr"`
		AttrPath []string           `json:"attrPath"`
		DrvPath  string             `json:"drvPath"`
		Outputs  map[string]*string `json:"outputs"`
		Error    string             `json:"error"`
	}
	if err := json.Unmarshal(line, &j); err != nil {
		return Job{}, err
	}
	name := j.Attr
	if len(j.AttrPath) > 0 { // which early versions do not tell
		parts := make([]string, len(j.AttrPath))
		for i, part := range j.AttrPath {
			parts[i] = quoted(part)
		}
		name = strings.Join(parts, ".")
	}
	job := Job{Installable: strings.TrimSuffix(set+"."+name, ".")}
	switch {
	case j.Error != "":
		message := strings.TrimSpace(plainText(j.Error))
		job.Err = &BuildError{Message: message, err: errors.New("the evaluation failed")}
		return job, nil
	case !filepath.IsAbs(j.DrvPath) || !strings.HasSuffix(j.DrvPath, ".drv"):
		return Job{}, fmt.Errorf("%q is no derivation", j.DrvPath)
	}
	job.Derivation.Path = j.DrvPath
	for _, output := range slices.Sorted(maps.Keys(j.Outputs)) {
		path := j.Outputs[output]
		if path == nil || *path == "" {
			job.Derivation.Outputs = nil
			break
		}
		job.Derivation.Outputs = append(job.Derivation.Outputs, *path)
	}
	return job, nil
}
