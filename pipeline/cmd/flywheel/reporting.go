package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/credential"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/event"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/flywheel"
	"gitlab.com/bates-ils/projects/iac/attic-cache/pipeline/reporter"
)

// reporting is how a run is shown, as the flags say.
type reporting struct {
	reporters []string // KIND or KIND=FILE
	artifacts string   // directory, or empty
	shared    bool     // the terminal is another program's
}

// flags adds the flags of commands that build.
func (r *reporting) flags(cmd *cobra.Command) {
	r.screenFlag(cmd)
	cmd.Flags().StringVar(&r.artifacts, "artifacts", "", "`directory` to write junit.xml, build.env, annotations.json and metrics.txt to, for GitLab's artifacts:reports")
}

func (r *reporting) screenFlag(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&r.reporters, "reporter", nil, "how the run is shown: auto, plain, gitlab, github, terminal, json or jsonl; `KIND=FILE` writes to a file, too (repeatable, default auto)")
}

func (r *reporting) check() error {
	screens := 0
	for _, text := range r.reporters {
		name, file, toFile := strings.Cut(text, "=")
		kind, err := reporter.ParseKind(name)
		if err != nil {
			return fmt.Errorf("--reporter: %w", err)
		}
		if !toFile {
			screens++
		}
		if r.shared && kind == reporter.Terminal {
			return errors.New("--reporter terminal: the terminal is the command's that is run")
		}
		if toFile && (file == "" || kind == reporter.Auto || kind == reporter.Terminal) {
			return fmt.Errorf("--reporter %s: want a file, and what is not for a terminal", text)
		}
		if err := checkFile("reporter", file); err != nil {
			return err
		}
	}
	if screens > 1 {
		return errors.New("--reporter: one can have the screen; give the others a file, as in jsonl=run.jsonl")
	}
	return checkDir("artifacts", r.artifacts)
}

// watched tells a run's events to all who are to see them.
type watched struct {
	event.Observer
	reporters []reporter.Reporter
	files     []*os.File
	record    *reporter.Record
	artifacts string
	spans     *reporter.Spans
	around    *screen
}

// begin opens what the flags name.
func (r *reporting) begin(cmd *cobra.Command, credentials credential.Finder) (*watched, error) {
	w := &watched{record: reporter.NewRecord(), artifacts: r.artifacts, around: screenOf(cmd)}
	kind := reporter.Auto
	stderr := cmd.ErrOrStderr()
	for _, text := range r.reporters {
		name, file, toFile := strings.Cut(text, "=")
		if !toFile {
			kind = reporter.Kind(name)
			continue
		}
		f, err := os.Create(file)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--reporter %s: %w", text, err), w.close())
		}
		w.files = append(w.files, f)
		w.reporters = append(w.reporters, reporter.New(reporter.Kind(name), reporter.Options{Out: f, Getenv: os.Getenv}))
	}
	o := reporter.Options{Out: stderr, Getenv: os.Getenv}
	// In the background, what is drawn would go over what the foreground says.
	if !r.shared && hasTerminal() {
		o.Columns = columnsOf(stderr)
	}
	if token := os.Getenv(credential.TokenVariable); token != "" {
		o.Secrets = append(o.Secrets, token)
	}
	if credentials.File != "" {
		// A file that cannot be read, the run tells of when it needs it.
		if text, err := os.ReadFile(credentials.File); err == nil {
			o.Secrets = append(o.Secrets, strings.TrimSpace(string(text)))
		}
	}
	shown := reporter.New(kind, o)
	if moves, ok := shown.(io.Writer); ok {
		w.around.hold(moves)
	}
	w.reporters = append(w.reporters, shown)
	observers := []event.Observer{w.record}
	for _, rep := range w.reporters {
		observers = append(observers, rep)
	}
	spans, err := reporter.NewSpans(cmd.Context(), cmd.CommandPath(), os.Getenv)
	if err != nil {
		fmt.Fprintf(stderr, "flywheel: no traces are sent: %v\n", err)
	}
	if spans != nil {
		w.spans = spans
		observers = append(observers, spans)
	}
	w.Observer = event.Tee(observers...)
	return w, nil
}

// finish lets all write what comes last. report is nil where nothing was built.
func (w *watched) finish(ctx context.Context, report *flywheel.Report) error {
	var errs []error
	for _, r := range w.reporters {
		errs = append(errs, r.Finish(report))
	}
	w.around.hold(nil)
	if w.artifacts != "" && report != nil {
		errs = append(errs, reporter.WriteArtifacts(w.artifacts, report, w.record))
	}
	if w.spans != nil {
		failed := report == nil || report.Outcome == flywheel.Failed
		if err := w.spans.End(context.WithoutCancel(ctx), failed); err != nil {
			// Whoever collects traces is no affair of the build's.
			fmt.Fprintf(os.Stderr, "flywheel: traces were not sent: %v\n", err)
		}
	}
	return errors.Join(append(errs, w.close())...)
}

func (w *watched) close() error {
	var errs []error
	for _, f := range w.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// columnsOf returns how wide a terminal is, or nil for what is none.
func columnsOf(out io.Writer) func() int {
	f, ok := out.(*os.File)
	if !ok {
		return nil
	}
	columns := func() int {
		size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
		if err != nil {
			return 0
		}
		return int(size.Col)
	}
	if columns() == 0 {
		return nil
	}
	return columns
}
