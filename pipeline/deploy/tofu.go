package deploy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// endTime is how long OpenTofu has, when it is interrupted, to end what it does
// with the cluster, write the state and release the lock.
const endTime = 2 * time.Minute

// maxSaid bounds what is told of OpenTofu's standard error. Bytes.
const maxSaid = 64 << 10

// aliases are the variables of the project whose names OpenTofu does not know.
var aliases = map[string]string{
	"S3_ENDPOINT":          "TF_VAR_s3_endpoint",
	"S3_BUCKET_NAME":       "TF_VAR_s3_bucket_name",
	"S3_ACCESS_KEY_ID":     "TF_VAR_s3_access_key_id",
	"S3_SECRET_ACCESS_KEY": "TF_VAR_s3_secret_access_key",
}

// tofu runs OpenTofu in a stack's directory.
type tofu struct {
	program string
	dir     string
	environ []string
	out     io.Writer
}

func findTofu(ctx context.Context, r *run) (*tofu, error) {
	name := r.Tofu
	if name == "" {
		name = "tofu"
	}
	program, err := exec.LookPath(name)
	if err != nil {
		return nil, inputf("there is no OpenTofu (%s): install it (https://opentofu.org/docs/intro/install), or say with --tofu where it is", name)
	}
	t := &tofu{program: program, dir: r.stack.dir, out: r.Out}
	t.environ = slices.DeleteFunc(os.Environ(), func(v string) bool {
		// Arguments that somebody's shell adds would change what is planned.
		return strings.HasPrefix(v, "TF_CLI_ARGS") || strings.HasPrefix(v, "TF_HTTP_") || strings.HasPrefix(v, "TF_WORKSPACE=") || strings.HasPrefix(v, "TF_DATA_DIR=")
	})
	for from, to := range aliases {
		if value := r.Getenv(from); value != "" && r.Getenv(to) == "" {
			t.environ = append(t.environ, to+"="+value)
		}
	}
	t.environ = append(t.environ, r.state.environ()...)
	t.environ = append(t.environ, "TF_IN_AUTOMATION=1", "TF_INPUT=0", "CHECKPOINT_DISABLE=1")
	if _, err := t.output(ctx, "version", "-json"); err != nil {
		return nil, inputf("%s is no OpenTofu that runs: %w", program, err)
	}
	return t, nil
}

// command is killed only when it has not ended long after it was interrupted. Who
// starts it stays on its thread until it has ended: it is a thread's death that the
// kernel tells OpenTofu of.
func (t *tofu) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, t.program, args...) // #nosec G204 -- OpenTofu
	cmd.Dir, cmd.Env = t.dir, t.environ
	// A group of its own: a terminal's ^C would reach it besides our own signal,
	// and two make it stop without writing the state.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = endTime
	outlive(cmd, nil)
	return cmd
}

// output runs what writes a JSON document. OpenTofu writes warnings about its own
// configuration before it, to the same place.
func (t *tofu) output(ctx context.Context, args ...string) ([]byte, error) {
	var out, said bytes.Buffer
	cmd := t.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &said
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("tofu %s: %w: %s", args[0], err, strings.TrimSpace(said.String()))
	}
	document := out.Bytes()
	for len(document) > 0 && document[0] != '{' {
		_, document, _ = bytes.Cut(document, []byte("\n"))
	}
	return document, nil
}

// init fetches the providers. Its output is of interest only when it fails.
func (t *tofu) init(ctx context.Context) error {
	var said bytes.Buffer
	cmd := t.command(ctx, "init", "-input=false", "-no-color")
	cmd.Stdout, cmd.Stderr = &said, &said
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		_, _ = t.out.Write(said.Bytes())
		return fmt.Errorf("tofu init: %w", err)
	}
	return nil
}

// message is a line of OpenTofu's -json.
type message struct {
	Level      string      `json:"@level"`
	Message    string      `json:"@message"`
	Type       string      `json:"type"`
	Diagnostic *diagnostic `json:"diagnostic"`
}

// diagnostic is an error of OpenTofu's, or a warning.
type diagnostic struct {
	Severity string `json:"severity"`
	Summary  string `json:"summary"`
	Detail   string `json:"detail"`
	Address  string `json:"address"`
	Range    *struct {
		Filename string `json:"filename"`
		Start    struct {
			Line int `json:"line"`
		} `json:"start"`
	} `json:"range"`
}

func (d diagnostic) String() string {
	text := d.Summary
	if detail := strings.Join(strings.Fields(d.Detail), " "); detail != "" {
		text += ": " + detail
	}
	if d.Address != "" {
		text = d.Address + ": " + text
	}
	if d.Range != nil {
		text = fmt.Sprintf("%s:%d: %s", d.Range.Filename, d.Range.Start.Line, text)
	}
	return strings.TrimSuffix(text, ".")
}

// input says whether it is about what OpenTofu was given.
func (d diagnostic) input() bool {
	for _, of := range []string{"variable", "value for", "Argument", "argument", "Invalid expression", "Invalid multi-line", "Missing newline", "Unclosed", "type constraint"} {
		if strings.Contains(d.Summary, of) {
			return true
		}
	}
	return d.Range != nil && strings.HasSuffix(d.Range.Filename, ".tfvars")
}

// tofuError is an end with errors.
type tofuError struct {
	command     string
	err         error
	diagnostics []diagnostic
}

func (e *tofuError) Error() string {
	if len(e.diagnostics) == 0 {
		return fmt.Sprintf("tofu %s: %v", e.command, e.err)
	}
	texts := make([]string, len(e.diagnostics))
	for i, d := range e.diagnostics {
		texts[i] = d.String()
	}
	return strings.Join(texts, "\n")
}

func (e *tofuError) Unwrap() error { return e.err }

// quiet are the types of messages that tell nothing a reader of a log wants.
var quiet = map[string]bool{"version": true, "outputs": true, "refresh_start": true, "refresh_complete": true, "change_summary": true, "planned_change": true}

// stream runs plan or apply, and writes a line for each thing it does. The error
// is a *tofuError.
func (t *tofu) stream(ctx context.Context, command string, args ...string) error {
	cmd := t.command(ctx, append([]string{command, "-json", "-input=false"}, args...)...)
	failed := &tofuError{command: command}
	pipe, end, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("tofu %s: %w", command, err)
	}
	defer pipe.Close()
	// A file, as it is there after this process as well.
	said, err := os.CreateTemp(t.dir, "stderr-")
	if err != nil {
		return errors.Join(fmt.Errorf("tofu %s: %w", command, err), end.Close())
	}
	defer said.Close()
	cmd.Stdout, cmd.Stderr = end, said
	outlive(cmd, pipe)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Start()
	_ = end.Close() // OpenTofu has its own
	if err != nil {
		return fmt.Errorf("tofu %s: %w", command, err)
	}
	lines := bufio.NewReader(pipe)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			t.tell(command, line, failed)
		}
		if err != nil {
			break // its end, or that of the process, which Wait tells of
		}
	}
	if failed.err = cmd.Wait(); failed.err == nil {
		return nil
	}
	if text := strings.TrimSpace(firstOf(said, maxSaid)); len(failed.diagnostics) == 0 && text != "" {
		failed.err = fmt.Errorf("%w: %s", failed.err, text)
	}
	return failed
}

// firstOf is what a file begins with; nothing where it cannot be read.
func firstOf(f *os.File, limit int64) string {
	text, _ := io.ReadAll(io.NewSectionReader(f, 0, limit))
	return string(text)
}

func (t *tofu) tell(command string, line []byte, failed *tofuError) {
	var m message
	if json.Unmarshal(line, &m) != nil {
		if text := bytes.TrimSpace(line); len(text) > 0 {
			_, _ = fmt.Fprintf(t.out, "%-10s %s\n", command, text)
		}
		return
	}
	if d := m.Diagnostic; d != nil {
		if d.Severity == "error" {
			failed.diagnostics = append(failed.diagnostics, *d)
			return // it is told at the end
		}
		_, _ = fmt.Fprintf(t.out, "%-10s warning: %s\n", command, d)
		return
	}
	if !quiet[m.Type] {
		_, _ = fmt.Fprintf(t.out, "%-10s %s\n", command, m.Message)
	}
}

// Outputs are what a stack tells of itself.
type Outputs struct {
	URL       string   // of the cache; empty where the stack has none
	GRPCHost  string   // of the cache
	BazelURL  string   // for bazel --remote_cache
	Workloads []string // as kind/name
	Namespace string
}

func (t *tofu) outputs(ctx context.Context) (Outputs, error) {
	text, err := t.output(ctx, "output", "-json")
	if err != nil {
		return Outputs{}, err
	}
	var told map[string]struct {
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(text, &told); err != nil {
		return Outputs{}, fmt.Errorf("reading the stack's outputs: %w", err)
	}
	var o Outputs
	var errs []error
	for name, into := range map[string]any{"url": &o.URL, "grpc_host": &o.GRPCHost, "bazel_url": &o.BazelURL, "workloads": &o.Workloads, "namespace": &o.Namespace} {
		if v, ok := told[name]; ok {
			if err := json.Unmarshal(v.Value, into); err != nil {
				errs = append(errs, fmt.Errorf("the stack's output %s: %w", name, err))
			}
		}
	}
	return o, errors.Join(errs...)
}
